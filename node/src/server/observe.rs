//! What monitoring sees of a node: its rooms' own numbers on one page, and its health.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use malle_journal::{Disk, Journal, SyncTimes};
use malle_proto::v1::GroupStatus;
use malle_proto::{ShardId, limits};
use tokio::sync::watch;

use crate::api::{MailApi, Upkeep};
use crate::bodies::{Bodies, DiskRoom};
use crate::log::Logs;
use crate::raft::Groups;
use crate::security::accept::listen;
use crate::telemetry::{self, Health, Histogram, Labels, Observed, Page};

/// Looks at a node from outside its rooms.
pub(super) struct Observatory {
    disk: Arc<dyn Disk>,
    data_dir: PathBuf,
    /// Absent until the node serves.
    rooms: OnceLock<Rooms>,
}

/// What there is to see.
pub(super) struct Rooms {
    pub groups: Arc<Groups>,
    pub bodies: Arc<Bodies>,
    pub upkeep: Upkeep,
    pub logs: Arc<Logs>,
    pub mail: MailApi,
}

impl Observatory {
    /// Of a node that is starting.
    pub fn new(disk: Arc<dyn Disk>, data_dir: PathBuf) -> Arc<Observatory> {
        Arc::new(Observatory {
            disk,
            data_dir,
            rooms: OnceLock::new(),
        })
    }

    /// The node serves.
    pub fn opened(&self, rooms: Rooms) {
        // Only the one start of this node gives the rooms.
        let _ = self.rooms.set(rooms);
    }

    /// Listens where the configuration says; the address, with the port that the system chose.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn listen(
        self: &Arc<Self>,
        address: SocketAddr,
        stop: watch::Receiver<bool>,
    ) -> std::io::Result<(SocketAddr, malle_rt::JoinHandle<()>)> {
        let listener = listen(address).await?;
        let address = listener.local_addr()?;
        let served = malle_rt::spawn(telemetry::serve(listener, self.clone(), stop));
        Ok((address, served))
    }

    async fn space(&self) -> std::io::Result<(u64, u64)> {
        let (disk, data_dir) = (self.disk.clone(), self.data_dir.clone());
        malle_rt::blocking(move || Ok((disk.free_bytes(&data_dir)?, disk.total_bytes(&data_dir)?))).await
    }
}

#[async_trait]
impl Observed for Observatory {
    async fn health(&self) -> Health {
        let mut health = Health::default();
        let Some(rooms) = self.rooms.get() else {
            health.unready.push("the node is starting".into());
            return health;
        };
        for (kind, journal) in rooms.journals() {
            if let Some(reason) = journal.failed().borrow().as_ref() {
                health.dead.push(format!("the journal of the {kind} failed: {reason}"));
            }
        }
        if rooms.groups.duty().is_leaving() {
            health.unready.push("the node is stopping".into());
        }
        for (shard, reason) in rooms.groups.failed() {
            health.unready.push(format!("shard {shard} is not open: {reason}"));
        }
        if let Some(shortage) = rooms.bodies.disk().shortage() {
            health.unready.push(shortage);
        }
        for (kind, journal) in rooms.journals() {
            if journal.is_full() {
                health
                    .notes
                    .push(format!("the disk has no room for another segment of the {kind}"));
            }
        }
        match rooms.groups.get(ShardId::DIRECTORY) {
            None => health.unready.push("the directory is not open".into()),
            Some(directory) if directory.leader().is_none() => {
                health.unready.push("the directory has no leader".into());
            }
            Some(_) => {}
        }
        let leaderless = rooms
            .groups
            .all()
            .iter()
            .filter(|group| group.shard() != ShardId::DIRECTORY && group.leader().is_none())
            .count();
        if leaderless > 0 {
            health
                .notes
                .push(format!("{leaderless} shards have no leader that is known here"));
        }
        health
    }

    async fn page(&self) -> Page {
        let mut page = Page::default();
        let version = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
        page.gauge("malle_build_info", "Version of this process", [(version, 1.0)]);
        if let Ok((free, total)) = self.space().await {
            page.gauge("malle_disk_free_bytes", "Bytes free on the disk of data_dir", one(free));
            page.gauge("malle_disk_size_bytes", "Size of the disk of data_dir", one(total));
        }
        if let Some(rooms) = self.rooms.get() {
            rooms.journal_figures(&mut page);
            rooms.raft_figures(&mut page);
            rooms.mail_figures(&mut page);
            rooms.body_figures(&mut page);
            rooms.space_figures(&mut page);
            rooms.view_figures(&mut page).await;
        }
        page
    }
}

impl Rooms {
    fn journals(&self) -> [(&'static str, &Journal); 2] {
        [("log", self.logs.journal()), ("volumes", self.bodies.journal())]
    }

    fn of_journals<T>(&self, figure: impl Fn(&Journal) -> T) -> Vec<(Labels, T)> {
        let series = self
            .journals()
            .map(|(kind, journal)| (vec![("kind", kind.to_owned())], figure(journal)));
        series.into()
    }

    fn journal_figures(&self, page: &mut Page) {
        page.counter(
            "malle_journal_syncs",
            "Syncs of batches of records",
            self.of_journals(Journal::syncs),
        );
        page.counter(
            "malle_journal_bytes",
            "Bytes written, headers and padding included",
            self.of_journals(Journal::bytes_written),
        );
        page.counter(
            "malle_journal_records",
            "Records written",
            self.of_journals(Journal::records),
        );
        page.histogram(
            "malle_journal_sync_seconds",
            "How long a sync takes",
            self.of_journals(|journal| histogram(&journal.sync_times())),
        );
        page.gauge(
            "malle_journal_segments",
            "Segments that hold records",
            self.of_journals(|journal| journal.live_segments() as f64),
        );
        page.gauge(
            "malle_journal_full",
            "1 while the disk has no room for another segment: the log waits, volumes refuse",
            self.of_journals(|journal| f64::from(u8::from(journal.is_full()))),
        );
        page.gauge(
            "malle_journal_failed",
            "1 once a write or sync failed: the node acknowledges nothing any more",
            self.of_journals(|journal| f64::from(u8::from(journal.failed().borrow().is_some()))),
        );
    }

    fn raft_figures(&self, page: &mut Page) {
        let groups = self.groups.all();
        let statuses: Vec<GroupStatus> = groups.iter().map(|group| group.status()).collect();
        let of = |figure: fn(&GroupStatus) -> u64| -> Vec<(Labels, f64)> {
            let series = statuses
                .iter()
                .map(|status| (of_shard(ShardId(status.shard)), figure(status) as f64));
            series.collect()
        };
        let roles = statuses.iter().map(|status| {
            let mut labels = of_shard(ShardId(status.shard));
            labels.push(("role", status.role.clone()));
            (labels, 1.0)
        });
        page.gauge("malle_raft_role", "1 for the role that the replica has now", roles);
        page.gauge("malle_raft_term", "Term", of(|status| status.term));
        page.gauge(
            "malle_raft_log_index",
            "End of the log",
            of(|status| status.last_log_index),
        );
        page.gauge(
            "malle_raft_commit_lag_entries",
            "Entries of this log that are not known to be committed",
            of(|status| status.last_log_index.saturating_sub(status.committed_index)),
        );
        page.gauge(
            "malle_raft_apply_lag_entries",
            "Committed entries that are not applied",
            of(|status| status.committed_index.saturating_sub(status.applied_index)),
        );
        let lags = groups
            .iter()
            .filter_map(|group| Some((of_shard(group.shard()), group.replication_lag()? as f64)));
        page.gauge(
            "malle_raft_replication_lag_entries",
            "Entries that the follower furthest behind lacks, on the leader",
            lags,
        );
        let (given, taken) = self.groups.duty().transfers();
        page.counter(
            "malle_leader_transfers",
            "Leaderships given to another node, and taken over at the request of one",
            [("given", given), ("taken", taken)].map(|(way, count)| (vec![("way", way.to_owned())], count)),
        );
        page.gauge(
            "malle_groups_failed",
            "Replicas that belong here and are not open",
            one(self.groups.failed().len() as u64),
        );
    }

    async fn view_figures(&self, page: &mut Page) {
        page.counter(
            "malle_view_rebuilds",
            "Views that were thrown away and rebuilt",
            [(Vec::new(), self.groups.rebuilds())],
        );
        let groups = self.groups.all();
        let states = || groups.iter().map(|group| (of_shard(group.shard()), group.state()));
        page.gauge(
            "malle_view_rows",
            "Rows of the view",
            states().map(|(labels, state)| (labels, state.digest().2 as f64)),
        );
        let aims = [
            ("shard", limits::ROWS_PER_SHARD_AIM),
            ("node", limits::ROWS_PER_NODE_AIM),
        ];
        page.gauge(
            "malle_view_rows_aim",
            "Rows that one view, and all views of a node together, should stay below",
            aims.map(|(of, rows)| (vec![("of", of.to_owned())], rows as f64)),
        );
        let mut bytes = Vec::new();
        for (labels, state) in states() {
            // A view that failed is told of elsewhere.
            if let Ok(taken) = state.disk_bytes().await {
                bytes.push((labels, taken as f64));
            }
        }
        page.gauge("malle_view_bytes", "Bytes of the view's database", bytes);
        page.counter(
            "malle_view_compactions",
            "Views that were copied into a fresh database because theirs took too much room",
            [(Vec::new(), self.groups.compactions())],
        );
        page.counter(
            "malle_view_proofs",
            "Views of which every row was read while they served, and that were sound",
            [(Vec::new(), self.groups.proofs())],
        );
    }

    fn mail_figures(&self, page: &mut Page) {
        let counts = self.mail.counts();
        let outcomes = [
            ("stored", counts.stored),
            ("repeated", counts.repeated),
            ("refused", counts.refused),
        ];
        page.counter(
            "malle_deliveries",
            "Deliveries by recipient",
            outcomes.map(|(outcome, count)| (vec![("outcome", outcome.to_owned())], count)),
        );
        page.counter(
            "malle_appends",
            "Mails appended by their owners",
            [(Vec::new(), counts.appended)],
        );
        let refusals = counts.refusals.into_iter().map(|(code, count)| {
            let code = code.as_str_name().trim_start_matches("ERROR_CODE_").to_lowercase();
            (vec![("code", code)], count)
        });
        page.counter("malle_refusals", "Requests of front ends that were not done", refusals);
        let in_flight: BTreeMap<&str, u64> = BTreeMap::from([
            ("requests", counts.bytes_in_flight),
            ("puts", self.bodies.bytes_in_flight()),
        ]);
        page.gauge(
            "malle_body_bytes_in_flight",
            "Bytes in memory for requests and answers, and for bodies on their way to a majority",
            in_flight
                .into_iter()
                .map(|(kind, bytes)| (vec![("kind", kind.to_owned())], bytes as f64)),
        );
    }

    fn body_figures(&self, page: &mut Page) {
        let scrub = self.upkeep.scrub.report();
        let found = [
            ("rotten", scrub.rotten),
            ("unreadable", scrub.unreadable),
            ("absent", scrub.absent),
        ];
        page.counter(
            "malle_scrub_found",
            "Bodies that the scrub found damaged or missing",
            found.map(|(what, count)| (vec![("what", what.to_owned())], count)),
        );
        page.counter(
            "malle_scrub_repaired",
            "Of those, bodies that are here again",
            [(Vec::new(), scrub.repaired)],
        );
        page.counter(
            "malle_scrub_rounds",
            "Whole rounds of the scrub",
            [(Vec::new(), scrub.rounds)],
        );
        page.gauge(
            "malle_scrub_open",
            "Found and not given by any peer yet",
            one(scrub.open),
        );
        page.gauge(
            "malle_scrub_round_bodies",
            "Bodies read in the last round",
            one(scrub.bodies),
        );
        page.gauge(
            "malle_scrub_round_bytes",
            "Bytes read in the last round",
            one(scrub.bytes),
        );
    }
}

impl Rooms {
    fn space_figures(&self, page: &mut Page) {
        let room = match self.bodies.disk().room() {
            DiskRoom::Enough => "enough",
            DiskRoom::Short => "short",
            DiskRoom::None => "none",
        };
        page.gauge(
            "malle_disk_room",
            "1 for what the disk has room for: enough, short (no new mail), none (no bodies)",
            [(vec![("room", room.to_owned())], 1.0)],
        );
        let collect = self.upkeep.collector.report();
        page.gauge(
            "malle_volume_bytes",
            "Bytes of the volumes of bodies",
            one(collect.volume_bytes),
        );
        page.gauge(
            "malle_volume_garbage_bytes",
            "Of those, bytes that no body needs",
            one(collect.garbage_bytes),
        );
        page.gauge(
            "malle_collect_stuck",
            "Volumes that could not be emptied at the last look",
            one(collect.stuck),
        );
        let counters = [
            ("malle_collect_rounds", "Whole rounds of collection", collect.rounds),
            ("malle_collect_bodies", "Bodies freed", collect.freed),
            (
                "malle_collect_carried_bytes",
                "Bytes carried to another volume",
                collect.carried_bytes,
            ),
            ("malle_collect_volumes", "Volumes given up", collect.volumes_freed),
            (
                "malle_collect_bytes",
                "Bytes of the volumes given up",
                collect.volumes_freed_bytes,
            ),
        ];
        for (name, help, count) in counters {
            page.counter(name, help, [(Vec::new(), count)]);
        }
    }
}

fn one(value: u64) -> [(Labels, f64); 1] {
    [(Vec::new(), value as f64)]
}

fn of_shard(shard: ShardId) -> Labels {
    vec![("shard", shard.to_string())]
}

fn histogram(times: &SyncTimes) -> Histogram {
    let seconds = |us: u64| us as f64 / 1e6;
    let mut classes: Vec<(f64, u64)> = times
        .classes
        .iter()
        .map(|(bound_us, syncs)| (seconds(*bound_us), *syncs))
        .collect();
    classes.push((f64::INFINITY, times.longer));
    Histogram {
        classes,
        sum_seconds: seconds(times.sum_us),
    }
}
