//! Collection: bodies that nothing names any more leave the disks. The only code that lets go of the bytes of mail.
//!
//! ```text
//! rows     named --last message gone--> waiting --1 h--> released --24 h--> freed on each node --3 days--> forgotten
//! nodes    a body without a row, found so in two rounds -----^                    |
//! volumes  half of one is garbage: what is needed is carried to another, the file goes (`reclaim`)
//! ```
//!
//! Each step but the last is a command of the shard's log, and times are the machine's. The leader releases and forgets; each replica
//! frees its own copies:
//!
//! 1. It marks copies of bodies that have been released for a day. Whoever counts on a copy from now on takes its mark off: a put that
//!    finds it here, an entry that names it.
//! 2. It asks the log to give these bodies a new epoch (`FreeBodies`), wherever the leader is.
//! 3. Once that is committed it frees those that the command names and that still bear their mark.
//!
//! Why that is safe, whatever the clocks and delays: a put that was told before the mark that a copy is here read its epoch before the
//! command was proposed, so no command can name that put any more. A put that was told so after the mark has taken it off. What a
//! message names, the command passes over. A restart between the steps has freed nothing.
//!
//! Bodies of shards that have no open group on this node are left alone: whether anybody needs them is not known here. A copy that went
//! out of the locator is found again by a start whose footer still lists it, and is collected once more.
//!
//! What this module must never do: free a body without step 2, believe its own rows about what is named, or count time by a local clock.
//! Enter by [`Collector::run`].

mod reclaim;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use malle_machine::shard::read::BodyStanding;
use malle_machine::shard::{Op, Outcome};
use malle_proto::{BodyHash, ShardId, limits};
use tokio::sync::watch;

use super::locator::Key;
use super::{Bodies, BodiesError, BodyRows};
use crate::env::Env;

/// A node that has just started has its groups to open and its peers to find first.
const FIRST: Duration = Duration::from_secs(120);
/// Pause between two pages of rows: readers and apply come first.
const BETWEEN_PAGES: Duration = Duration::from_millis(10);
/// The machine's time of a group without commands is brought up in so many steps a round at most.
const CLOCK_STEPS_MAX: u32 = 12;

/// A page of bodies that no message names.
#[derive(Debug, Clone, Default)]
pub struct IdlePage {
    /// The machine's time.
    pub now_ms: u64,
    /// They wait or are released.
    pub idle: Vec<(BodyHash, BodyStanding)>,
    /// Where the next page begins.
    pub next: Option<BodyHash>,
}

/// The log of the groups of this node, as collection needs it.
#[async_trait]
pub trait BodyLog: BodyRows {
    /// Whether this node leads the group.
    fn leads(&self, shard: ShardId) -> bool;

    /// A page of the bodies behind `after` that no message names, by this node's rows; `None` when the group is not open.
    async fn idle_behind(&self, shard: ShardId, after: Option<BodyHash>, most: usize) -> Option<IdlePage>;

    /// How these bodies stand by this node's rows; `None` when the group is not open.
    async fn standings(&self, shard: ShardId, hashes: Vec<BodyHash>) -> Option<Vec<BodyStanding>>;

    /// Proposes a step of collection, wherever the leader is, and gives its outcome once it is committed.
    ///
    /// # Errors
    /// `Log`: it may still be committed.
    async fn propose(&self, shard: ShardId, step: Op) -> Result<Outcome, BodiesError>;
}

/// When the steps come. The defaults are the limits; tests are in more of a hurry.
#[derive(Debug, Clone, Copy)]
pub struct CollectTimes {
    /// Unnamed until released, of the machine's time.
    pub idle_ms: u64,
    /// Released until freed, of the machine's time.
    pub released_ms: u64,
    /// Released until forgotten, of the machine's time.
    pub forgotten_ms: u64,
    /// Before the first round.
    pub first: Duration,
    /// Between two rounds over rows and bodies.
    pub every: Duration,
    /// Between two looks at the volumes.
    pub look: Duration,
    /// Between two commands.
    pub pause: Duration,
}

impl Default for CollectTimes {
    fn default() -> Self {
        CollectTimes {
            idle_ms: limits::BODY_IDLE_MS,
            released_ms: limits::BODY_RELEASED_MS,
            forgotten_ms: limits::BODY_FORGOTTEN_MS,
            first: FIRST,
            every: Duration::from_millis(limits::COLLECT_EVERY_MS),
            look: Duration::from_millis(limits::COLLECT_LOOK_MS),
            pause: Duration::from_millis(limits::COLLECT_PAUSE_MS),
        }
    }
}

/// What collection has done since the start of the process, and how the volumes are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CollectReport {
    /// Whole rounds over rows and bodies.
    pub rounds: u64,
    /// When the last one ended, by the wall clock; 0 while there is none.
    pub finished_ms: u64,
    /// Bodies freed on this node.
    pub freed: u64,
    /// Their bytes on disk.
    pub freed_bytes: u64,
    /// Bytes carried to another volume.
    pub carried_bytes: u64,
    /// Volumes given up.
    pub volumes_freed: u64,
    /// Their bytes.
    pub volumes_freed_bytes: u64,
    /// Bytes of the volumes now.
    pub volume_bytes: u64,
    /// Of these, what no body needs. It goes once it is half of a volume.
    pub garbage_bytes: u64,
    /// Volumes that could not be emptied at the last look: damage in them, or readers.
    pub stuck: u64,
}

/// The node goes down.
struct Stopped;

type Go = Result<(), Stopped>;
type Stop = watch::Receiver<bool>;

#[derive(Default)]
struct Progress {
    report: CollectReport,
    /// Bodies without a row in the last round.
    suspects: BTreeSet<Key>,
}

/// Collection on one node.
pub struct Collector {
    bodies: Arc<Bodies>,
    log: Arc<dyn BodyLog>,
    env: Env,
    times: CollectTimes,
    progress: Mutex<Progress>,
}

/// Bodies of one page or several that wait for the same command.
#[derive(Default)]
struct Batches {
    release: Vec<BodyHash>,
    free: Vec<BodyHash>,
    forget: Vec<BodyHash>,
}

impl Collector {
    /// Collects these bodies.
    pub fn new(bodies: Arc<Bodies>, log: Arc<dyn BodyLog>, env: Env, times: CollectTimes) -> Arc<Collector> {
        Arc::new(Collector {
            bodies,
            log,
            env,
            times,
            progress: Mutex::default(),
        })
    }

    /// Round after round until the node stops.
    pub async fn run(self: Arc<Self>, mut stop: Stop) {
        if let Err(Stopped) = self.rounds(&mut stop).await {
            tracing::debug!("collection ends with the node");
        }
    }

    /// What was done until now.
    pub fn report(&self) -> CollectReport {
        let (volume_bytes, live_bytes) = self.bodies.volumes.space();
        CollectReport {
            volume_bytes,
            garbage_bytes: volume_bytes.saturating_sub(live_bytes),
            ..self.progress().report
        }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn rounds(&self, stop: &mut Stop) -> Go {
        self.pause(self.times.first, stop).await?;
        let mut next = malle_rt::now();
        loop {
            if malle_rt::now() >= next {
                self.round(stop).await?;
                next = malle_rt::now() + self.times.every;
            }
            self.reclaim(stop).await?;
            self.pause(self.times.look, stop).await?;
        }
    }

    async fn pause(&self, wait: Duration, stop: &mut Stop) -> Go {
        match malle_rt::timeout(wait, stop.wait_for(|stopped| *stopped)).await {
            Ok(_) => Err(Stopped),
            Err(_) => Ok(()),
        }
    }

    /// One round over the rows and the bodies of every open group.
    async fn round(&self, stop: &mut Stop) -> Go {
        let suspects = std::mem::take(&mut self.progress().suspects);
        for shard in self.log.shards() {
            self.collect(shard, stop).await?;
            self.orphans(shard, &suspects, stop).await?;
        }
        let mut progress = self.progress();
        progress.report.rounds += 1;
        progress.report.finished_ms = self.env.now_ms();
        Ok(())
    }

    /// Takes the bodies that no message names one step further.
    async fn collect(&self, shard: ShardId, stop: &mut Stop) -> Go {
        let leads = self.log.leads(shard);
        let mut batches = Batches::default();
        let (mut behind, mut idle, mut clock_ms) = (None, false, 0);
        // A group that closes meanwhile is collected the next time.
        while let Some(page) = self.log.idle_behind(shard, behind, limits::SCRUB_PAGE).await {
            clock_ms = page.now_ms;
            idle |= !page.idle.is_empty();
            for (hash, standing) in page.idle {
                self.sort(&mut batches, shard, hash, standing, leads, page.now_ms);
            }
            self.work(shard, &mut batches, limits::COLLECT_TOGETHER, page.now_ms, stop)
                .await?;
            if page.next.is_none() {
                break;
            }
            behind = page.next;
            self.pause(BETWEEN_PAGES, stop).await?;
        }
        self.work(shard, &mut batches, 1, clock_ms, stop).await?;
        if leads && idle {
            self.wind(shard, clock_ms, stop).await?;
        }
        Ok(())
    }

    fn sort(
        &self,
        batches: &mut Batches,
        shard: ShardId,
        hash: BodyHash,
        standing: BodyStanding,
        leads: bool,
        now_ms: u64,
    ) {
        let past = |since_ms: u64, wait_ms| since_ms.saturating_add(wait_ms) <= now_ms;
        match standing {
            BodyStanding::Waiting { since_ms } if leads && past(since_ms, self.times.idle_ms) => {
                batches.release.push(hash);
            }
            BodyStanding::Released { since_ms }
                if past(since_ms, self.times.released_ms) && self.bodies.has(shard, hash) =>
            {
                batches.free.push(hash);
            }
            BodyStanding::Released { since_ms } if leads && past(since_ms, self.times.forgotten_ms) => {
                batches.forget.push(hash);
            }
            _ => {}
        }
    }

    /// Sends the batches that have `enough`.
    async fn work(&self, shard: ShardId, batches: &mut Batches, enough: usize, now_ms: u64, stop: &mut Stop) -> Go {
        while batches.release.len() >= enough {
            let hashes = some_of(&mut batches.release);
            self.release(shard, hashes, stop).await?;
        }
        while batches.free.len() >= enough {
            let hashes = some_of(&mut batches.free);
            self.free(shard, hashes, now_ms, stop).await?;
        }
        while batches.forget.len() >= enough {
            let hashes = some_of(&mut batches.forget);
            self.step(shard, Op::ForgetBodies { hashes }).await;
            self.pause(self.times.pause, stop).await?;
        }
        Ok(())
    }

    async fn release(&self, shard: ShardId, hashes: Vec<BodyHash>, stop: &mut Stop) -> Go {
        let released = self.step(shard, Op::ReleaseBodies { hashes }).await;
        if let Some(released) = released.filter(|released| !released.is_empty()) {
            tracing::info!(%shard, bodies = released.len(), "bodies that nothing names are released");
        }
        self.pause(self.times.pause, stop).await
    }

    /// Marks, asks the log, frees: see the module.
    async fn free(&self, shard: ShardId, hashes: Vec<BodyHash>, now_ms: u64, stop: &mut Stop) -> Go {
        let keys: Vec<Key> = hashes.into_iter().map(|hash| (shard, hash)).collect();
        let marked = self.bodies.volumes.mark(&keys);
        if marked.is_empty() {
            return Ok(());
        }
        let step = Op::FreeBodies {
            hashes: marked.iter().map(|(_, hash)| *hash).collect(),
            released_by_ms: now_ms.saturating_sub(self.times.released_ms),
        };
        if let Some(granted) = self.step(shard, step).await {
            let granted: Vec<Key> = granted.into_iter().map(|hash| (shard, hash)).collect();
            let (freed, bytes) = self.bodies.volumes.free(&granted);
            let mut progress = self.progress();
            progress.report.freed += freed;
            progress.report.freed_bytes += bytes;
        }
        self.bodies.volumes.unmark(&marked);
        self.pause(self.times.pause, stop).await
    }

    /// Proposes one step; the bodies that it reached, `None` when no answer came. The round goes on without it then.
    async fn step(&self, shard: ShardId, step: Op) -> Option<Vec<BodyHash>> {
        match self.log.propose(shard, step).await {
            Ok(Outcome::BodiesReleased { released, .. }) => Some(released),
            Ok(Outcome::Done) => Some(Vec::new()),
            Ok(other) => {
                tracing::error!(%shard, ?other, "a step of collection has an answer that is none");
                None
            }
            Err(error) => {
                tracing::debug!(%shard, %error, "a step of collection waits for the next round");
                None
            }
        }
    }

    /// A group without commands has a clock that stands still, and bodies in it would wait for ever.
    async fn wind(&self, shard: ShardId, mut clock_ms: u64, stop: &mut Stop) -> Go {
        for _ in 0..CLOCK_STEPS_MAX {
            if clock_ms.saturating_add(limits::CLOCK_STEP_MAX_MS) > self.env.now_ms() {
                break;
            }
            let nothing = Op::ReleaseBodies { hashes: Vec::new() };
            if self.step(shard, nothing).await.is_none() {
                break;
            }
            self.pause(self.times.pause, stop).await?;
            clock_ms += limits::CLOCK_STEP_MAX_MS;
        }
        Ok(())
    }

    /// Looks for bodies that were put and that no command named: a row that says that they are released is the first that they get.
    async fn orphans(&self, shard: ShardId, suspects: &BTreeSet<Key>, stop: &mut Stop) -> Go {
        let mut behind = (shard, BodyHash([0; 32]));
        let mut orphans = Vec::new();
        loop {
            let page = self.bodies.volumes.stored_behind(Some(behind), limits::SCRUB_PAGE);
            let keys = page.iter().map(|(key, _)| *key);
            let hashes: Vec<BodyHash> = keys.take_while(|key| key.0 == shard).map(|key| key.1).collect();
            let Some(last) = hashes.last() else { break };
            behind = (shard, *last);
            let Some(standings) = self.log.standings(shard, hashes.clone()).await else {
                return Ok(());
            };
            let without_row = hashes
                .into_iter()
                .zip(standings)
                .filter(|(_, standing)| *standing == BodyStanding::Unknown);
            for (hash, _) in without_row {
                // One that has just come may be named at any moment; a row that lags would ask for a release in vain.
                if suspects.contains(&(shard, hash)) {
                    orphans.push(hash);
                } else {
                    self.suspect((shard, hash));
                }
            }
            while orphans.len() >= limits::COLLECT_TOGETHER {
                self.release(shard, some_of(&mut orphans), stop).await?;
            }
            self.pause(BETWEEN_PAGES, stop).await?;
        }
        if !orphans.is_empty() {
            self.release(shard, orphans, stop).await?;
        }
        Ok(())
    }

    fn suspect(&self, key: Key) {
        let mut progress = self.progress();
        if progress.suspects.len() < limits::COLLECT_SUSPECTS_MAX {
            progress.suspects.insert(key);
        }
    }

    /// A round and a look at the volumes at once, for tests.
    #[cfg(test)]
    pub(crate) async fn round_now(&self) {
        let (_stop, mut stopped) = watch::channel(false);
        let done = async {
            self.round(&mut stopped).await?;
            self.reclaim(&mut stopped).await
        };
        assert!(done.await.is_ok(), "nothing stops it");
    }

    /// A look at the volumes at once, for tests.
    #[cfg(test)]
    pub(super) async fn reclaim_now(&self) {
        let (_stop, mut stopped) = watch::channel(false);
        assert!(self.reclaim(&mut stopped).await.is_ok(), "nothing stops it");
    }
}

fn some_of(batch: &mut Vec<BodyHash>) -> Vec<BodyHash> {
    let some = batch.len().min(limits::COLLECT_TOGETHER);
    batch.drain(..some).collect()
}
