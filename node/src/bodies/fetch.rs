//! Bodies that are not here are fetched: at once when an applied entry names them, and when somebody asks.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use malle_proto::{BodyHash, NodeId, ShardId, limits};
use malle_rt::Instant;
use tokio::sync::Notify;

use super::encoding::{self, Checked};
use super::pace::Pace;
use super::{Bodies, BodiesError, DiskRoom, DiskWatch};
use crate::peers::StoredBody;
use crate::state::BodyNews;

/// A body that an entry names is often still on its way here from the leader: it gets this long before a second copy is asked for.
const GRACE: Duration = Duration::from_millis(100);
/// One body is fetched within this time, or tried again later.
const FETCH: Duration = Duration::from_secs(30);
/// Bodies fetched at the same time for one group.
const FETCHES_AT_ONCE: usize = 4;
/// Missing bodies taken on in one round.
const ROUND: usize = 256;
/// Pause after a round that brought nothing; it doubles up to the largest.
const PAUSE_FIRST: Duration = Duration::from_millis(200);
const PAUSE_LARGEST: Duration = Duration::from_secs(5);

type Sources = Arc<dyn Fn() -> Vec<NodeId> + Send + Sync>;

impl Bodies {
    /// A body: from this node, else from `sources` in random order, kept here then.
    ///
    /// # Errors
    /// `Missing` with what the sources said, `Deadline`.
    pub async fn get(
        &self,
        shard: ShardId,
        hash: BodyHash,
        sources: &[NodeId],
        deadline: Instant,
    ) -> Result<Bytes, BodiesError> {
        match self.local(shard, hash).await {
            Ok(Some(checked)) => return Ok(checked.body),
            Ok(None) | Err(BodiesError::Corrupt(_)) => {}
            // The copy may be good, but the caller is served sooner by a peer.
            Err(error) => tracing::error!(%shard, %hash, %error, "a body on this disk could not be read"),
        }
        let fetched = self.fetch(shard, hash, sources, deadline).await?;
        if self.disk.room() == DiskRoom::Enough
            && let Err(error) = self.keep(fetched.stored).await
        {
            // The reader has what it came for.
            tracing::warn!(%shard, %hash, %error, "a fetched body could not be kept");
        }
        Ok(fetched.body)
    }

    /// Fetches a body and keeps it, when the disk has room.
    async fn obtain(
        &self,
        shard: ShardId,
        hash: BodyHash,
        sources: &[NodeId],
        deadline: Instant,
    ) -> Result<(), BodiesError> {
        if self.disk.room() != DiskRoom::Enough {
            // The room that is left is for what cannot wait. It stays missed.
            return Err(BodiesError::Full);
        }
        let fetched = self.fetch(shard, hash, sources, deadline).await?;
        self.keep(fetched.stored).await
    }

    /// Asks the sources one after the other, from a random one on. Each gets its share of the time that is left, so that a silent
    /// one does not use up the others'.
    pub(super) async fn fetch(
        &self,
        shard: ShardId,
        hash: BodyHash,
        sources: &[NodeId],
        deadline: Instant,
    ) -> Result<Checked, BodiesError> {
        let start = malle_rt::random_below(sources.len() as u64) as usize;
        let around = sources.iter().cycle().skip(start).take(sources.len());
        let others: Vec<NodeId> = around.copied().filter(|node| *node != self.node).collect();
        let mut said = Vec::new();
        for (asked, node) in others.iter().enumerate() {
            let now = malle_rt::now();
            if now >= deadline {
                return Err(BodiesError::Deadline);
            }
            let share = (deadline - now) / (others.len() - asked) as u32;
            let got = match self.transport.get_body(*node, shard, hash, now + share).await {
                Ok(got) => got,
                Err(error) => {
                    said.push(error.to_string());
                    continue;
                }
            };
            // Another body, whole, is no answer either.
            let got = StoredBody { shard, hash, ..got };
            match encoding::check(got).await {
                Ok(checked) => return Ok(checked),
                Err(error) => {
                    tracing::error!(%shard, %hash, from = %node, %error, "a peer sent a damaged body");
                    said.push(format!("node {node}: {error}"));
                }
            }
        }
        Err(BodiesError::Missing(if said.is_empty() {
            "nobody to ask".into()
        } else {
            said.join("; ")
        }))
    }
}

/// What of a group's bodies is here.
pub struct GroupBodies {
    shard: ShardId,
    bodies: Arc<Bodies>,
    /// Named and not here, with the index of the first entry that named it.
    missing: Mutex<BTreeMap<BodyHash, u64>>,
    sources: RwLock<Sources>,
    wake: Notify,
    /// Snapshots of which nobody knows yet what they name.
    unread: AtomicUsize,
}

/// The longest rest behind a round of a replica that is copied faster than it may.
const REST_MAX: Duration = Duration::from_secs(5);

/// While it lives, the replica does not say that it has all its bodies.
pub struct Unread<'a>(&'a GroupBodies);

impl Drop for Unread<'_> {
    fn drop(&mut self) {
        self.0.unread.fetch_sub(1, Ordering::SeqCst);
    }
}

impl GroupBodies {
    /// Follows a group; the task that fetches ends with the last handle.
    pub fn new(shard: ShardId, bodies: Arc<Bodies>) -> Arc<GroupBodies> {
        let group = Arc::new(GroupBodies {
            shard,
            bodies,
            missing: Mutex::default(),
            sources: RwLock::new(Arc::new(Vec::new)),
            wake: Notify::new(),
            unread: AtomicUsize::new(0),
        });
        group.bodies.followers().insert(shard, Arc::downgrade(&group));
        malle_rt::spawn(fetch_missing(Arc::downgrade(&group)));
        group
    }

    /// How much room there is for them.
    pub fn disk(&self) -> &DiskWatch {
        self.bodies.disk()
    }

    /// Who may have the group's bodies: its other members, whoever they are at the time.
    pub fn set_sources(&self, sources: impl Fn() -> Vec<NodeId> + Send + Sync + 'static) {
        *self.sources.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(sources);
    }

    fn missing_now(&self) -> MutexGuard<'_, BTreeMap<BodyHash, u64>> {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Other members now.
    pub fn sources(&self) -> Vec<NodeId> {
        let sources = self.sources.read().unwrap_or_else(PoisonError::into_inner).clone();
        sources()
    }

    /// Every body that entries up to the answer name is here. `applied` is how far the group has applied.
    pub fn complete_through(&self, applied: u64) -> u64 {
        if self.unread.load(Ordering::SeqCst) > 0 {
            return 0;
        }
        self.missing_now()
            .values()
            .min()
            .map_or(applied, |first| applied.min(first.saturating_sub(1)))
    }

    /// A snapshot is about to come: what it names is not known before it was read.
    pub fn unread(&self) -> Unread<'_> {
        self.unread.fetch_add(1, Ordering::SeqCst);
        Unread(self)
    }

    /// Bytes on disk of those that are here.
    pub fn bytes(&self) -> u64 {
        self.bodies.shard_bytes(self.shard)
    }

    /// How many bodies are named and not here.
    pub fn missing(&self) -> usize {
        self.missing_now().len()
    }

    /// An entry names bodies: those that are not here are fetched.
    pub fn named(&self, index: u64, hashes: &[BodyHash]) {
        let mut fresh = false;
        for hash in hashes {
            // A copy that is here must stay from now on.
            if !self.bodies.volumes.hold(self.shard, *hash) {
                self.missing_now().entry(*hash).or_insert(index);
                fresh = true;
            }
        }
        if fresh {
            self.wake.notify_one();
        }
    }

    /// Whether this body is named and not here.
    pub(super) fn misses(&self, hash: BodyHash) -> bool {
        self.missing_now().contains_key(&hash)
    }

    /// Up to `most` missing bodies behind `after`, in order.
    pub(super) fn missing_behind(&self, after: Option<BodyHash>, most: usize) -> Vec<BodyHash> {
        let behind = after.map_or(Bound::Unbounded, Bound::Excluded);
        let missing = self.missing_now();
        let names = missing.range((behind, Bound::Unbounded)).map(|(name, _)| *name);
        names.take(most).collect()
    }

    /// This body is here, or nothing names it any more.
    pub(super) fn take_off(&self, hash: BodyHash) {
        self.missing_now().remove(&hash);
    }

    /// One round over what is missing, from behind `last` on; `last` moves along, so that bodies that nobody has hold back no others.
    /// How many came; `None` at the end, where `last` begins anew.
    async fn round(&self, last: &mut Option<BodyHash>) -> Option<usize> {
        let sources = self.sources();
        let (begun, before) = (malle_rt::now(), self.bytes());
        let wanted = self.missing_behind(*last, ROUND);
        // A replica that is being copied, not one that missed a few.
        let copying = wanted.len() == ROUND;
        *last = wanted.last().copied();
        (*last)?;
        let rounds = futures::stream::iter(wanted.into_iter().map(|hash| {
            let sources = &sources;
            async move {
                let here = self.bodies.volumes.hold(self.shard, hash)
                    || self
                        .bodies
                        .obtain(self.shard, hash, sources, malle_rt::now() + FETCH)
                        .await
                        .is_ok();
                if here {
                    self.take_off(hash);
                }
                here
            }
        }));
        let came = rounds
            .buffer_unordered(FETCHES_AT_ONCE)
            .filter(|here| std::future::ready(*here))
            .count()
            .await;
        if copying {
            let (bytes, took) = (self.bytes().saturating_sub(before), malle_rt::now() - begun);
            let rest = Pace::at(limits::COPY_BYTES_PER_SECOND).rest(bytes, took, REST_MAX);
            malle_rt::sleep(rest).await;
        }
        Some(came)
    }
}

impl BodyNews for GroupBodies {
    fn named(&self, index: u64, hashes: &[BodyHash]) {
        GroupBodies::named(self, index, hashes);
    }

    fn released(&self, hashes: &[BodyHash]) {
        // Their copies go after a delay, and only by another command; until then they are only not missed.
        for hash in hashes {
            self.take_off(*hash);
        }
    }
}

async fn fetch_missing(weak: Weak<GroupBodies>) {
    let mut pause = PAUSE_FIRST;
    let mut last = None;
    let mut came = 0;
    let mut said = 0;
    loop {
        let Some(group) = weak.upgrade() else { return };
        if let Some(more) = group.round(&mut last).await {
            came += more;
            continue;
        }
        // All that was missing has been tried.
        let missing = group.missing();
        if std::mem::take(&mut came) > 0 || missing == 0 {
            pause = PAUSE_FIRST;
        } else if missing != said {
            tracing::warn!(shard = %group.shard, missing, "bodies are missing here and no peer gave them yet");
        }
        said = missing;
        // One that is named meanwhile does not wait for those.
        let idle = if missing == 0 { PAUSE_LARGEST } else { pause };
        let woken = malle_rt::timeout(idle, group.wake.notified()).await.is_ok();
        drop(group);
        if woken {
            malle_rt::sleep(GRACE).await;
        }
        pause = (pause * 2).min(PAUSE_LARGEST);
    }
}
