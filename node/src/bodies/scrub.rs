//! The scrub: reads every body of this node again and again, and asks whether every body that rows name is here.
//!
//! A copy that nobody reads rots unseen until the last good one is gone, too. So one task reads body after body, checks frame and
//! BLAKE3, and lets the group that follows the shard fetch what is damaged or absent from a peer.
//!
//! * A round takes the configured days: the [`Pace`] puts a pause behind each body. One body is in memory at a time.
//! * A round begins at a random place and goes around. Progress is kept in memory only, so a node that restarts often would read the
//!   same first bodies for ever if it began at the beginning, and never the last ones.
//! * At the start of a round and once a day, the names in the rows are compared with what is here. That reads no body.
//! * A body that no peer has stays missing in its group, which goes on asking, and counts as open here until it came or nothing names it.
//!
//! What this module must never do: free space, take a body for lost because the disk did not answer, or read faster than its pace.
//! Enter by [`Scrub::run`].

mod compare;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use malle_proto::{BodyHash, ShardId, limits};
use tokio::sync::watch;

use super::locator::Key;
use super::pace::Pace;
use super::{Bodies, BodiesError, GroupBodies};
use crate::env::Env;

/// A node that has just started has its groups to open and its peers to find first.
const FIRST: Duration = Duration::from_secs(60);
/// The rows are compared with what is here this often.
const COMPARE_EVERY: Duration = Duration::from_secs(24 * 3600);
/// A body may be moved to another volume while it is read; then it is read there.
const MOVES_MAX: u32 = 3;
/// A good copy of a body that the disk does not give back is fetched within this time, or in the next round.
const FETCH: Duration = Duration::from_secs(30);

/// What the rows of this node's groups say of bodies.
#[async_trait]
pub trait BodyRows: Send + Sync {
    /// Groups that are open here and name bodies.
    fn shards(&self) -> Vec<ShardId>;

    /// A page of the bodies behind `after` that messages name, and where the next one begins; `None` when the group is not open.
    async fn named_behind(
        &self,
        shard: ShardId,
        after: Option<BodyHash>,
        most: usize,
    ) -> Option<(Vec<BodyHash>, Option<BodyHash>)>;

    /// Whether the bytes of a body must be kept; `None` when the group is not open.
    async fn is_named(&self, shard: ShardId, hash: BodyHash) -> Option<bool>;
}

/// What the scrub has done since the start of the process. Times are of the wall clock, 0 while there is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScrubReport {
    /// A round is under way.
    pub running: bool,
    /// When the last round began.
    pub started_ms: u64,
    /// Bodies read in that round.
    pub bodies: u64,
    /// Bytes on disk read in that round.
    pub bytes: u64,
    /// Whole rounds.
    pub rounds: u64,
    /// When the last whole round ended.
    pub finished_ms: u64,
    /// How long it took.
    pub took_ms: u64,
    /// Bodies that did not match their checksums.
    pub rotten: u64,
    /// Bodies that the disk did not give back.
    pub unreadable: u64,
    /// Bodies that rows name and that were not here.
    pub absent: u64,
    /// Of all these, those that are here again.
    pub repaired: u64,
    /// Of all these, those that rows name and that no peer gave yet.
    pub open: u64,
}

/// The node goes down.
struct Stopped;

type Go = Result<(), Stopped>;
type Stop = watch::Receiver<bool>;

#[derive(Default)]
struct Progress {
    report: ScrubReport,
    /// What is not repaired yet.
    open: BTreeSet<Key>,
}

/// The scrub of one node.
pub struct Scrub {
    bodies: Arc<Bodies>,
    rows: Arc<dyn BodyRows>,
    env: Env,
    days: u32,
    progress: Mutex<Progress>,
}

impl Scrub {
    /// A scrub that reads everything within `days`.
    pub fn new(bodies: Arc<Bodies>, rows: Arc<dyn BodyRows>, env: Env, days: u32) -> Arc<Scrub> {
        Arc::new(Scrub {
            bodies,
            rows,
            env,
            days,
            progress: Mutex::default(),
        })
    }

    /// Round after round until the node stops.
    pub async fn run(self: Arc<Self>, mut stop: Stop) {
        if let Err(Stopped) = self.rounds(&mut stop).await {
            tracing::debug!("the scrub ends with the node");
        }
    }

    /// What was done until now.
    pub fn report(&self) -> ScrubReport {
        self.settle();
        let progress = self.progress();
        ScrubReport {
            open: progress.open.len() as u64,
            ..progress.report
        }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn rounds(&self, stop: &mut Stop) -> Go {
        self.pause(FIRST, stop).await?;
        loop {
            let began = malle_rt::now();
            self.round(stop).await?;
            let next = began + Duration::from_secs(u64::from(self.days) * 86_400);
            while malle_rt::now() < next {
                let wait = COMPARE_EVERY.min(next - malle_rt::now());
                self.pause(wait, stop).await?;
                self.compare(stop).await?;
            }
        }
    }

    async fn pause(&self, wait: Duration, stop: &mut Stop) -> Go {
        match malle_rt::timeout(wait, stop.wait_for(|stopped| *stopped)).await {
            Ok(_) => Err(Stopped),
            Err(_) => Ok(()),
        }
    }

    /// One round: the rows are compared, then every body is read.
    async fn round(&self, stop: &mut Stop) -> Go {
        let began = malle_rt::now();
        {
            let mut progress = self.progress();
            progress.report.running = true;
            progress.report.started_ms = self.env.now_ms();
            (progress.report.bodies, progress.report.bytes) = (0, 0);
        }
        tracing::info!(days = self.days, "the scrub begins a round");
        let result = async {
            self.compare(stop).await?;
            self.read_all(stop).await
        }
        .await;
        self.settle();
        let mut progress = self.progress();
        progress.report.running = false;
        result?;
        progress.report.rounds += 1;
        progress.report.finished_ms = self.env.now_ms();
        progress.report.took_ms = u64::try_from((malle_rt::now() - began).as_millis()).unwrap_or(u64::MAX);
        let (report, open) = (progress.report, progress.open.len());
        tracing::info!(?report, open, "the scrub ends a round");
        Ok(())
    }

    async fn read_all(&self, stop: &mut Stop) -> Go {
        let (count, bytes) = self.bodies.counts();
        let pace = Pace::new(count, bytes, self.days);
        if pace.is_late() {
            tracing::warn!(
                days = self.days,
                bytes,
                "at its highest rate the scrub does not read everything within its days"
            );
        }
        let start = self.random_place();
        let (mut behind, mut around) = (start, false);
        let mut compared = malle_rt::now();
        loop {
            let page = self.bodies.volumes.stored_behind(behind, limits::SCRUB_PAGE);
            if page.is_empty() {
                if around || start.is_none() {
                    return Ok(());
                }
                (behind, around) = (None, true);
                continue;
            }
            for (key, payload_bytes) in page {
                if around && Some(key) > start {
                    return Ok(());
                }
                behind = Some(key);
                let began = malle_rt::now();
                self.look(key, payload_bytes).await;
                let took = malle_rt::now() - began;
                self.pause(pace.pause(u64::from(payload_bytes), took), stop).await?;
            }
            self.settle();
            if malle_rt::now() - compared >= COMPARE_EVERY {
                self.compare(stop).await?;
                compared = malle_rt::now();
            }
        }
    }

    /// Somewhere among the bodies; the place itself is read last. `None` is the beginning.
    fn random_place(&self) -> Option<Key> {
        let shards = self.rows.shards();
        let shard = *shards.get(malle_rt::random_below(shards.len() as u64) as usize)?;
        let mut hash = [0; 32];
        malle_rt::random(&mut hash);
        Some((shard, BodyHash(hash)))
    }

    /// Reads a body; what is wrong with it is counted and mended.
    async fn look(&self, (shard, hash): Key, payload_bytes: u32) {
        for _ in 0..MOVES_MAX {
            match self.bodies.volumes.get(shard, hash).await {
                Ok(Some(_)) => {
                    let mut progress = self.progress();
                    progress.report.bodies += 1;
                    progress.report.bytes += u64::from(payload_bytes);
                    return;
                }
                // Collected, or found by a reader and being fetched.
                Ok(None) => return,
                // Its volume went, and it lies in another by now.
                Err(BodiesError::Corrupt(_)) if self.bodies.has(shard, hash) => {}
                Err(BodiesError::Corrupt(_)) => {
                    self.progress().report.rotten += 1;
                    return self.miss(shard, hash).await;
                }
                Err(error) => return self.unreadable(shard, hash, &error).await,
            }
        }
    }

    fn follower(&self, shard: ShardId) -> Option<Arc<GroupBodies>> {
        self.bodies.followers().get(&shard).and_then(Weak::upgrade)
    }

    /// The group fetches this body from now on, unless nothing names it.
    async fn miss(&self, shard: ShardId, hash: BodyHash) {
        let Some(group) = self.follower(shard) else {
            tracing::warn!(%shard, %hash, "a body is missing here and its group is not open: it is asked for when it opens");
            return;
        };
        // Which entry named it first is not known here, so the group is complete through none.
        group.named(0, &[hash]);
        // Asked afterwards: what is released from now on is taken off by its release.
        if self.rows.is_named(shard, hash).await == Some(false) {
            tracing::info!(%shard, %hash, "nothing names it: it is not fetched");
            return group.take_off(hash);
        }
        self.follow((shard, hash));
    }

    fn follow(&self, key: Key) {
        let mut progress = self.progress();
        if progress.open.len() < limits::SCRUB_REPAIRS_FOLLOWED_MAX {
            progress.open.insert(key);
        }
    }

    /// The disk answers a read of this body with an error, which a bad sector does and a disk that is gone does, too. The copy is
    /// replaced only once a good one is in hand, and stays known when the good one cannot be written.
    async fn unreadable(&self, shard: ShardId, hash: BodyHash, error: &BodiesError) {
        tracing::error!(%shard, %hash, %error, "the disk does not give a body back");
        self.progress().report.unreadable += 1;
        if self.bodies.failed().borrow().is_some() || self.rows.is_named(shard, hash).await == Some(false) {
            return;
        }
        let sources = self.follower(shard).map(|group| group.sources()).unwrap_or_default();
        let deadline = malle_rt::now() + FETCH;
        let replaced = match self.bodies.fetch(shard, hash, &sources, deadline).await {
            Ok(good) => self.bodies.volumes.replace(good.stored).await,
            Err(error) => Err(error),
        };
        match replaced {
            Ok(()) => self.progress().report.repaired += 1,
            Err(error) => {
                tracing::error!(%shard, %hash, %error, "no good copy took its place; the next round tries again");
            }
        }
    }

    /// Takes from what is open what is here again, and what its group does not miss any more because nothing names it.
    fn settle(&self) {
        let open: Vec<Key> = self.progress().open.iter().copied().collect();
        for key in open {
            let (shard, hash) = key;
            let here = self.bodies.has(shard, hash);
            let given_up = || self.follower(shard).is_some_and(|group| !group.misses(hash));
            if here || given_up() {
                let mut progress = self.progress();
                // Another look may have been quicker.
                if progress.open.remove(&key) && here {
                    progress.report.repaired += 1;
                }
            }
        }
    }

    /// One round at once, for tests.
    #[cfg(test)]
    pub(super) async fn round_now(&self) {
        let (_stop, mut stopped) = watch::channel(false);
        assert!(self.round(&mut stopped).await.is_ok(), "nothing stops it");
    }
}
