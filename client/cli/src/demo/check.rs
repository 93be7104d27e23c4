//! `malle demo --check`: delivers, reads back, kills a leader under load, and balances the books.
//!
//! 1. The corpus goes in by LMTP; every mail is read back by IMAP, byte for byte.
//! 2. A stream of deliveries runs while the node that leads the target shard is killed with SIGKILL.
//! 3. Every mailbox is read with the node still dead: each acknowledged mail is there once, each earlier mail under its old UID.
//! 4. The node starts again; all replicas of all groups must reach equal digests at equal indexes, with all bodies.
//! 5. Every mailbox is read once more.
//!
//! The check passes only if nothing was lost, doubled, changed, misplaced or given another UID. It never waits without a bound.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use malle_client::{GroupStatus, NodeId, NodeStatus, ShardId, Who};
use tokio::time::Instant;

use super::cluster::{Cluster, address};
use super::corpus::{self, Mail};
use super::imap_reader::Imap;
use super::ledger::{Balance, Ledger, Place, Reading};
use super::lmtp_writer::Lmtp;
use super::stream::Stream;
use super::wait::{Try, until};

/// Acknowledged mails of each account before the kill, and after it.
const MAILS_AROUND_THE_KILL: usize = 25;
/// An election takes a second, a restart of a client's stream a few.
const STREAM_MAX: Duration = Duration::from_secs(120);
/// A leader of a group is known within this.
const LEADER_MAX: Duration = Duration::from_secs(30);
/// A restarted node replays, catches up, and fetches bodies.
const AGREE_MAX: Duration = Duration::from_secs(180);
/// One account's mailboxes are read within this.
const READ_MAX: Duration = Duration::from_secs(300);
/// Where delivered mail lies.
const MAILBOXES: [&str; 2] = ["INBOX", "Junk"];

/// What the check found.
#[derive(Debug, Default)]
pub struct Report {
    corpus: (usize, usize, Duration),
    balance: Balance,
    moved: usize,
    victim: u64,
    target: ShardId,
    silence: Duration,
    worst_silence: Duration,
    groups: usize,
    agreed_after: Duration,
    read: usize,
}

impl Report {
    /// All promises held.
    pub fn passed(&self) -> bool {
        self.balance.is_even() && self.moved == 0
    }

    /// The figures as a table, then whatever was wrong.
    pub fn table(&self) -> String {
        let (mails, bytes, took) = self.corpus;
        let mebibytes = bytes as f64 / f64::from(1 << 20);
        let rows = [
            (
                "corpus",
                format!(
                    "{mails} messages, {mebibytes:.1} MiB, delivered and read back in {:.1} s",
                    took.as_secs_f64()
                ),
            ),
            (
                "killed",
                format!("node {}, which led shard {}, with SIGKILL", self.victim, self.target),
            ),
            ("deliveries", self.balance.deliveries.to_string()),
            ("acknowledged", self.balance.acknowledged.to_string()),
            ("lost", self.balance.lost.to_string()),
            ("doubled", self.balance.doubled.to_string()),
            ("changed", self.balance.changed.to_string()),
            ("misplaced", self.balance.misplaced.to_string()),
            ("under another UID", self.moved.to_string()),
            ("messages read at the end", self.read.to_string()),
            ("seconds without a leader", format!("{:.2}", self.silence.as_secs_f64())),
            (
                "the same, worst shard",
                format!("{:.2}", self.worst_silence.as_secs_f64()),
            ),
            ("groups whose replicas agree", self.groups.to_string()),
            (
                "seconds until they agreed",
                format!("{:.1}", self.agreed_after.as_secs_f64()),
            ),
        ];
        let mut table = String::new();
        for (name, value) in rows {
            let _ = writeln!(table, "{name:<28} {value}");
        }
        for trouble in &self.balance.details {
            let _ = writeln!(table, "  {trouble}");
        }
        let _ = writeln!(table, "{}", if self.passed() { "PASSED" } else { "FAILED" });
        table
    }
}

/// Runs the whole check on a cluster that is ready.
pub async fn run(cluster: &mut Cluster) -> anyhow::Result<Report> {
    // Another tag in each run: in a kept directory, mails of earlier runs are others.
    let tag = malle_client::fresh_op_id().to_string()[..8].to_owned();
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    let mut report = Report::default();
    let started = Instant::now();
    let mails = corpus::corpus(&tag);
    println!("delivering {} messages", mails.len());
    deliver_corpus(cluster, &mails, &ledger).await?;
    println!("reading them back");
    let before = read_all(cluster, &tag).await?;
    let even = lock(&ledger).balance(&before);
    report.corpus = (
        mails.len(),
        mails.iter().map(|mail| mail.bytes.len()).sum(),
        started.elapsed(),
    );
    drop(mails);
    if !even.is_even() {
        report.balance = even;
        return Ok(report);
    }

    let during = kill_under_load(cluster, &tag, &ledger, &mut report).await?;
    println!("reading every mailbox while node {} is dead", report.victim);
    let dead = read_all(cluster, &tag).await?;
    let even = lock(&ledger).balance(&dead);
    report.moved = before.moved_in(&dead);
    report.balance = even;
    if !report.passed() {
        return Ok(report);
    }

    println!(
        "starting node {} again and waiting until all replicas agree",
        report.victim
    );
    let restarted = Instant::now();
    cluster.start_node(report.victim).await?;
    report.groups = wait_for_agreement(cluster, during).await?;
    report.agreed_after = restarted.elapsed();
    let last = read_all(cluster, &tag).await?;
    report.balance = lock(&ledger).balance(&last);
    report.moved = dead.moved_in(&last);
    report.read = last.len();
    Ok(report)
}

/// What is stored of a mail: one Return-Path line, then its bytes.
pub fn stored_hash(mail: &Mail) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(format!("Return-Path: <{}>\r\n", mail.sender).as_bytes());
    hasher.update(&mail.bytes);
    hasher.finalize()
}

async fn deliver_corpus(cluster: &Cluster, mails: &[Mail], ledger: &Mutex<Ledger>) -> anyhow::Result<()> {
    let accounts = cluster.memory().accounts;
    let mut lmtp = Lmtp::connect(cluster.memory().lmtp).await?;
    for (n, mail) in mails.iter().enumerate() {
        // Every seventh mail goes to three accounts at once: of one shard or of several.
        let copies = if n % 7 == 0 { accounts.min(3) } else { 1 };
        let first = u32::try_from(n).context("the corpus is small")?;
        let to = (0..copies)
            .map(|copy| (first + copy) % accounts + 1)
            .collect::<Vec<_>>();
        for account in &to {
            lock(ledger).enter(*account, &mail.id, stored_hash(mail), mail.spam);
        }
        let recipients = to.iter().map(|account| address(*account)).collect::<Vec<_>>();
        let answers = lmtp.deliver(mail.sender, &recipients, &mail.bytes, mail.framing).await;
        let answers = answers.with_context(|| format!("delivering {}", mail.id))?;
        for (account, answer) in to.iter().zip(answers) {
            ensure!(
                answer.is_ok(),
                "{} was refused: {} {}",
                mail.id,
                answer.code,
                answer.text
            );
            lock(ledger).acknowledge(*account, &mail.id);
        }
    }
    Ok(())
}

/// Kills the leader of u1's shard in the middle of a stream; the nodes that still run.
async fn kill_under_load(
    cluster: &mut Cluster,
    tag: &str,
    ledger: &Arc<Mutex<Ledger>>,
    report: &mut Report,
) -> anyhow::Result<Vec<u64>> {
    let accounts = cluster.memory().accounts;
    let mut shards = BTreeMap::new();
    for account in 1..=accounts {
        let shown = cluster
            .operator()
            .directory()
            .account_show(Who::Address(address(account)))
            .await?;
        shards.insert(account, shown.shard);
    }
    report.target = shards.get(&1).copied().context("there is no account u1")?;
    println!("sending a stream of mails to {accounts} accounts");
    let stream = Stream::start(cluster.memory().lmtp, accounts, tag, Arc::clone(ledger));
    stream
        .acknowledged_since(Instant::now(), MAILS_AROUND_THE_KILL, STREAM_MAX)
        .await?;
    report.victim = leader_of(cluster, report.target).await?.0;
    let killed = Instant::now();
    cluster.kill_node(report.victim).await?;
    println!("killed node {}, which led shard {}", report.victim, report.target);
    stream
        .acknowledged_since(Instant::now(), MAILS_AROUND_THE_KILL, STREAM_MAX)
        .await?;
    let silences = stream.finish(killed, &shards).await?;
    report.silence = silences.get(&report.target).copied().unwrap_or_default();
    report.worst_silence = silences.values().copied().max().unwrap_or_default();
    let unanswered = lock(ledger).unacknowledged();
    println!("the stream ended; {unanswered} mails were never acknowledged");
    Ok(cluster.memory().node.iter().map(|place| place.id).collect())
}

async fn leader_of(cluster: &Cluster, shard: ShardId) -> anyhow::Result<NodeId> {
    let nodes = cluster
        .memory()
        .node
        .iter()
        .map(|place| NodeId(place.id))
        .collect::<Vec<_>>();
    let machines = cluster.operator().cluster();
    until(&format!("a leader of shard {shard}"), LEADER_MAX, async || {
        let mut reason = "nobody leads it".to_owned();
        for node in &nodes {
            match machines.node_status(*node, false).await {
                Ok(status) if leads(&status, shard) => return Ok(Try::Done(*node)),
                Ok(_) => {}
                Err(error) => reason = format!("node {node}: {error}"),
            }
        }
        Ok(Try::NotYet(reason))
    })
    .await
}

fn leads(status: &NodeStatus, shard: ShardId) -> bool {
    status
        .groups
        .iter()
        .any(|group| group.shard == shard && group.role == "leader")
}

/// Reads every mailbox of every account. Mails of other runs are passed over.
async fn read_all(cluster: &Cluster, tag: &str) -> anyhow::Result<Reading> {
    let mut reading = Reading::default();
    for account in 1..=cluster.memory().accounts {
        let user = address(account);
        let reader = async {
            let mut imap = Imap::login(cluster.memory().imap, &user, &cluster.memory().password).await?;
            for mailbox in MAILBOXES {
                let selected = imap.examine(mailbox).await?;
                let mut count = 0;
                imap.messages(|uid, bytes| {
                    count += 1;
                    let id = corpus::id_of(&bytes).filter(|id| id.starts_with(tag));
                    let place = Place {
                        account,
                        mailbox,
                        uid_validity: selected.uid_validity,
                        uid,
                    };
                    if let Some(id) = id {
                        reading.found(place, id.to_owned(), blake3::hash(&bytes));
                    }
                    Ok(())
                })
                .await?;
                ensure!(
                    count == selected.exists,
                    "{mailbox} of {user} says {} messages and gives {count}",
                    selected.exists
                );
            }
            anyhow::Ok(())
        };
        let read = tokio::time::timeout(READ_MAX, reader).await;
        read.with_context(|| format!("reading {user} takes too long"))?
            .with_context(|| format!("reading {user}"))?;
    }
    Ok(reading)
}

/// Waits until every group has equal digests on all its voters at one applied index, and every body; how many groups.
async fn wait_for_agreement(cluster: &Cluster, nodes: Vec<u64>) -> anyhow::Result<usize> {
    let machines = cluster.operator().cluster();
    until("equal digests on all replicas", AGREE_MAX, async || {
        let mut statuses = Vec::new();
        for node in &nodes {
            match machines.node_status(NodeId(*node), true).await {
                Ok(status) => statuses.push(status),
                Err(error) => return Ok(Try::NotYet(format!("node {node}: {error}"))),
            }
        }
        Ok(match agreement(&statuses) {
            Ok(groups) => Try::Done(groups),
            Err(difference) => Try::NotYet(difference),
        })
    })
    .await
}

/// How many groups agree, or the first difference.
fn agreement(statuses: &[NodeStatus]) -> Result<usize, String> {
    let mut groups: BTreeMap<ShardId, Vec<(NodeId, &GroupStatus)>> = BTreeMap::new();
    for status in statuses {
        if let Some(reason) = &status.failed {
            return Err(format!("node {} takes no writes: {reason}", status.node));
        }
        for group in &status.groups {
            groups.entry(group.shard).or_default().push((status.node, group));
        }
    }
    if !groups.contains_key(&ShardId::DIRECTORY) {
        return Err("no node holds the directory".to_owned());
    }
    for (shard, replicas) in &groups {
        let (first_node, first) = replicas[0];
        if let Some(voter) = first
            .voters
            .iter()
            .find(|voter| replicas.iter().all(|(node, _)| node != *voter))
        {
            return Err(format!("shard {shard}: its voter node {voter} says nothing of it"));
        }
        for (node, group) in replicas {
            let same =
                group.digest.is_some() && (group.applied_index, group.digest) == (first.applied_index, first.digest);
            if !same {
                return Err(format!(
                    "shard {shard}: node {first_node} at {}, node {node} at {}",
                    first.applied_index, group.applied_index
                ));
            }
            // The directory names no bodies.
            if *shard != ShardId::DIRECTORY && group.bodies_complete_through < group.applied_index {
                return Err(format!(
                    "shard {shard}: node {node} has bodies through {}",
                    group.bodies_complete_through
                ));
            }
        }
    }
    Ok(groups.len())
}

/// A poisoned lock holds what it held.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(node: u64, shard: u32, applied_index: u64, digest: u8, bodies: u64) -> NodeStatus {
        let group = |shard: u32| GroupStatus {
            shard: ShardId(shard),
            role: "follower".into(),
            term: 1,
            leader: None,
            last_log_index: applied_index,
            committed_index: applied_index,
            applied_index,
            checkpoint_index: 0,
            bodies_complete_through: bodies,
            digest: Some([digest; 16]),
            voters: vec![NodeId(1), NodeId(2)],
            learners: Vec::new(),
            rebuilds: 0,
            rows: 0,
            accounts: 0,
        };
        NodeStatus {
            node: NodeId(node),
            region: String::new(),
            version: String::new(),
            uptime_ms: 0,
            groups: vec![group(0), group(shard)],
            failed: None,
            disk_free_bytes: 0,
            disk_total_bytes: 0,
            bodies: 0,
            body_bytes: 0,
            scrub: Default::default(),
            telemetry_address: None,
            short_of_room: None,
            collect: Default::default(),
        }
    }

    #[test]
    fn replicas_agree_only_on_index_digest_bodies_and_presence() {
        assert_eq!(agreement(&[status(1, 3, 5, 7, 5), status(2, 3, 5, 7, 5)]), Ok(2));
        for other in [
            status(2, 3, 4, 7, 5),
            status(2, 3, 5, 8, 5),
            status(2, 3, 5, 7, 4),
            status(2, 4, 5, 7, 5),
        ] {
            assert!(agreement(&[status(1, 3, 5, 7, 5), other]).is_err());
        }
        assert!(agreement(&[status(1, 3, 5, 7, 5)]).is_err());
        assert!(agreement(&[]).is_err());
    }

    #[test]
    fn the_table_has_the_lines_that_scripts_read() {
        let table = Report::default().table();
        for line in [
            "deliveries",
            "acknowledged",
            "lost",
            "doubled",
            "seconds without a leader",
        ] {
            assert!(table.lines().any(|found| found.starts_with(line)), "{line}");
        }
        assert!(table.ends_with("PASSED\n"));
        let balance = Balance {
            lost: 1,
            ..Balance::default()
        };
        assert!(
            Report {
                balance,
                ..Report::default()
            }
            .table()
            .ends_with("FAILED\n")
        );
    }
}
