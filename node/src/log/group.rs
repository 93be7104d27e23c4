//! One group's log: its live entries in memory order, and where the journal keeps them.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use malle_journal::{Durability, Journal, JournalError, Location, Record};
use malle_machine::format;
use malle_proto::v1::Rider;
use malle_proto::{ShardId, limits};
use openraft::EntryPayload;
use openraft::entry::RaftEntry;
use tokio::sync::watch;

use super::records::{DroppedRecord, EntryRecord, FloorRecord, HeadRecord, LogIdRecord, TruncateRecord};
use super::riders_first::{Batch, RidersFirst};
use super::types::{Entry, LogId};

/// Kinds of journal records; never renumbered.
pub(super) const KIND_ENTRY: u8 = 1;
/// A [`HeadRecord`].
pub(super) const KIND_HEAD: u8 = 2;
/// A [`TruncateRecord`].
pub(super) const KIND_TRUNCATE: u8 = 3;
/// A [`DroppedRecord`].
pub(super) const KIND_DROPPED: u8 = 4;

/// A live entry.
pub(super) struct Slot {
    pub id: LogId,
    /// Where it lies; `None` until the journal has synced it.
    pub at: Option<Location>,
    /// The encoded entry while it is cached; always there while `at` is `None`.
    pub cached: Option<Bytes>,
    /// Bytes of the encoded entry.
    pub length: usize,
    /// Bodies that go with the entry, while this node proposed it and followers may still want them.
    pub riders: Vec<Rider>,
}

impl Slot {
    fn riding_bytes(&self) -> usize {
        self.riders.iter().map(|rider| rider.stored.len()).sum()
    }
}

/// What the log of a group holds.
#[derive(Default)]
pub(super) struct Contents {
    /// Entries after `head.purged`, without gaps.
    pub slots: VecDeque<Slot>,
    pub head: HeadRecord,
    /// Segment of the newest durable head record.
    pub head_at: Option<Location>,
    /// Highest index that a fsynced checkpoint covers: entries above stay on disk whatever raft purges.
    pub checkpoint_index: u64,
    /// Bytes appended since that checkpoint.
    pub bytes_since_checkpoint: u64,
    /// Entries below this index are no longer cached: eviction goes on from here.
    pub cached_from: u64,
    /// Entries below this index have no riders any more.
    pub riding_from: u64,
    /// Bytes of all riders.
    pub riding_bytes: usize,
    /// Entries up to this index are committed; `None` when raft has not said since the start.
    pub committed: Option<u64>,
    /// The replica is gone: nothing is written any more.
    pub dropped: bool,
}

impl Contents {
    pub fn slot(&self, index: u64) -> Option<&Slot> {
        let first = self.slots.front()?.id.index;
        self.slots.get(usize::try_from(index.checked_sub(first)?).ok()?)
    }

    pub fn slot_mut(&mut self, index: u64) -> Option<&mut Slot> {
        let first = self.slots.front()?.id.index;
        self.slots.get_mut(usize::try_from(index.checked_sub(first)?).ok()?)
    }

    pub fn last(&self) -> Option<LogId> {
        self.slots
            .back()
            .map(|slot| slot.id)
            .or(self.head.purged.map(LogId::from))
    }
}

/// Figures about a group's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogStatus {
    /// Bytes appended since the last checkpoint.
    pub bytes_since_checkpoint: u64,
    /// Index of that checkpoint.
    pub checkpoint_index: u64,
}

pub(super) struct Shared {
    pub shard: ShardId,
    pub journal: Journal,
    pub contents: Mutex<Contents>,
    /// Counts completions, so that waiters look again.
    pub synced: watch::Sender<u64>,
    /// Bytes of cached entries of all groups of the node.
    pub cache_bytes: Arc<AtomicUsize>,
    pub riders_first: RidersFirst,
}

/// The log of one group. Cheap to clone; all clones are one log.
#[derive(Clone)]
pub struct GroupLog {
    pub(super) shared: Arc<Shared>,
}

impl std::fmt::Debug for GroupLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GroupLog({})", self.shared.shard)
    }
}

fn dropped() -> io::Error {
    io::Error::other("the replica is gone from this node")
}

pub(super) fn io_error(error: &JournalError) -> io::Error {
    io::Error::other(error.to_string())
}

impl GroupLog {
    pub(super) fn new(shard: ShardId, journal: Journal, contents: Contents, cache_bytes: Arc<AtomicUsize>) -> Self {
        let (synced, _) = watch::channel(0);
        GroupLog {
            shared: Arc::new(Shared {
                shard,
                journal,
                contents: Mutex::new(contents),
                synced,
                cache_bytes,
                riders_first: RidersFirst::default(),
            }),
        }
    }

    pub(super) fn contents(&self) -> MutexGuard<'_, Contents> {
        // A panic while the lock was held cannot have left it half changed: every holder writes plain fields.
        self.shared.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Figures for status and for the checkpoint trigger.
    pub fn status(&self) -> LogStatus {
        let contents = self.contents();
        LogStatus {
            bytes_since_checkpoint: contents.bytes_since_checkpoint,
            checkpoint_index: contents.checkpoint_index,
        }
    }

    /// Index up to which entries are purged; `None` when every entry ever is here.
    pub fn purged_index(&self) -> Option<u64> {
        self.contents().head.purged.map(|id| id.index)
    }

    /// The floor of the view, as last written.
    pub fn floor(&self) -> Option<FloorRecord> {
        self.contents().head.floor
    }

    /// Waits until this entry is synced here: the view applies nothing that its own log could still lose.
    ///
    /// # Errors
    /// When the journal failed, or the entry is not in the log.
    pub async fn wait_synced(&self, id: LogId) -> io::Result<()> {
        let mut synced = self.shared.synced.subscribe();
        let mut failed = self.shared.journal.failed();
        loop {
            {
                let contents = self.contents();
                if contents.head.purged.is_some_and(|purged| purged.index >= id.index) {
                    return Ok(());
                }
                match contents.slot(id.index) {
                    Some(slot) if slot.id == id && slot.at.is_some() => return Ok(()),
                    Some(slot) if slot.id == id => {}
                    _ => {
                        return Err(io::Error::other(format!(
                            "entry {id} is to be applied but is not in the log"
                        )));
                    }
                }
            }
            if let Some(reason) = failed.borrow_and_update().clone() {
                return Err(io::Error::other(reason));
            }
            let ended = tokio::select! {
                changed = synced.changed() => changed,
                changed = failed.changed() => changed,
            };
            if ended.is_err() {
                return Err(io::Error::other("the journal is closed"));
            }
        }
    }

    /// Puts entries in and hands them to the journal, each behind the bodies that ride with it; `done` is called once, after the last one
    /// is synced or will never be.
    pub(super) async fn append_entries(
        &self,
        entries: Vec<Entry>,
        done: impl FnOnce(io::Result<()>) + Send + 'static,
    ) -> io::Result<()> {
        let mut batch = Batch {
            entries: Vec::with_capacity(entries.len()),
            riders: Vec::new(),
            done: Box::new(done),
        };
        {
            let mut contents = self.contents();
            if contents.dropped {
                return Err(dropped());
            }
            for entry in entries {
                let (id, bytes) = (entry.log_id(), format::encode(&EntryRecord::from(&entry)));
                if let Some(before) = contents.last()
                    && before.index + 1 != id.index
                {
                    return Err(io::Error::other(format!("entry {id} does not follow {before}")));
                }
                let riders = match entry.payload {
                    EntryPayload::Normal(proposal) => proposal.riders,
                    EntryPayload::Blank | EntryPayload::Membership(_) => Vec::new(),
                };
                batch.riders.extend(riders.iter().cloned());
                batch.entries.push((id, bytes.clone()));
                let slot = Slot {
                    id,
                    at: None,
                    length: bytes.len(),
                    cached: Some(bytes),
                    riders,
                };
                contents.bytes_since_checkpoint += slot.length as u64;
                contents.riding_bytes += slot.riding_bytes();
                self.shared.cache_bytes.fetch_add(slot.length, Ordering::Relaxed);
                contents.slots.push_back(slot);
            }
        }
        if batch.entries.is_empty() {
            (batch.done)(Ok(()));
            return Ok(());
        }
        self.submit_behind_riders(batch).await
    }

    /// Gives a batch to the journal.
    pub(super) async fn submit(&self, batch: Batch) {
        let last = batch.entries.last().map(|(id, _)| *id);
        let mut done = Some(batch.done);
        for (id, bytes) in batch.entries {
            let log = self.clone();
            let mut finish = if Some(id) == last { done.take() } else { None };
            let completion = move |result: Result<Location, JournalError>| {
                if let Ok(at) = &result {
                    log.synced(id, *at);
                }
                if let Some(finish) = finish.take() {
                    finish(result.map(|_| ()).map_err(|error| io_error(&error)));
                }
            };
            let record = Record::new(self.group(), KIND_ENTRY, vec![bytes]);
            self.shared.journal.submit(record, Durability::Sync, completion).await;
        }
    }

    fn synced(&self, id: LogId, at: Location) {
        {
            let mut contents = self.contents();
            if let Some(slot) = contents.slot_mut(id.index)
                && slot.id == id
            {
                slot.at = Some(at);
            }
            self.evict(&mut contents);
        }
        self.shared.synced.send_modify(|count| *count += 1);
    }

    /// Forgets the oldest cached bytes while the node's cache is over its bound; what is not synced stays.
    fn evict(&self, contents: &mut Contents) {
        let mut over = self
            .shared
            .cache_bytes
            .load(Ordering::Relaxed)
            .saturating_sub(limits::LOG_CACHE_MAX_BYTES);
        let Some(first) = contents.slots.front().map(|slot| slot.id.index) else {
            return;
        };
        let mut index = contents.cached_from.max(first);
        while over > 0 {
            let Some(slot) = contents.slot_mut(index).filter(|slot| slot.at.is_some()) else {
                break;
            };
            if slot.cached.take().is_some() {
                self.shared.cache_bytes.fetch_sub(slot.length, Ordering::Relaxed);
                over = over.saturating_sub(slot.length);
            }
            index += 1;
        }
        contents.cached_from = index;
    }

    /// Takes slots that left the log out of the counts; gives the bytes of their riders.
    fn forget(&self, slots: impl Iterator<Item = Slot>) -> usize {
        let mut riding = 0;
        for slot in slots {
            if slot.cached.is_some() {
                self.shared.cache_bytes.fetch_sub(slot.length, Ordering::Relaxed);
            }
            riding += slot.riding_bytes();
        }
        riding
    }

    /// Entries up to `applied` are on a majority, and so are their bodies: their riders now only spare slower followers a fetch, and the
    /// oldest go until `kept_bytes` are left.
    pub fn forget_riders(&self, applied: u64, kept_bytes: usize) {
        let mut contents = self.contents();
        let Some(first) = contents.slots.front().map(|slot| slot.id.index) else {
            return;
        };
        let mut index = contents.riding_from.max(first);
        while contents.riding_bytes > kept_bytes && index <= applied {
            let Some(slot) = contents.slot_mut(index) else { break };
            let gone = slot.riding_bytes();
            slot.riders = Vec::new();
            contents.riding_bytes -= gone;
            index += 1;
        }
        contents.riding_from = index;
    }

    /// Entries with `from <= index < to`, in order, until `max_bytes` are reached; at least one when there is one. A follower's come with
    /// the riders that are left, which count as bytes.
    pub(super) async fn read(
        &self,
        from: u64,
        to: u64,
        max_bytes: usize,
        for_follower: bool,
    ) -> io::Result<Vec<Entry>> {
        enum Found {
            Cached(Bytes),
            At(Location),
        }
        let found: Vec<(Found, Vec<Rider>)> = {
            let contents = self.contents();
            let mut bytes = 0;
            (from..to)
                .map_while(|index| contents.slot(index))
                .take_while(|slot| {
                    let more = slot.length + if for_follower { slot.riding_bytes() } else { 0 };
                    let room = bytes == 0 || bytes + more <= max_bytes;
                    bytes += more;
                    room
                })
                .map(|slot| {
                    let found = match (&slot.cached, slot.at) {
                        (Some(bytes), _) => Found::Cached(bytes.clone()),
                        (None, Some(at)) => Found::At(at),
                        (None, None) => unreachable!("an entry that is not synced is cached"),
                    };
                    let riders = if for_follower { slot.riders.clone() } else { Vec::new() };
                    (found, riders)
                })
                .collect()
        };
        let mut entries = Vec::with_capacity(found.len());
        for (found, riders) in found {
            let bytes = match found {
                Found::Cached(bytes) => bytes,
                Found::At(at) => self.shared.journal.read(at).await.map_err(|error| io_error(&error))?,
            };
            let record: EntryRecord = format::decode(&bytes).map_err(io::Error::other)?;
            let mut entry = record.into_entry().map_err(io::Error::other)?;
            if let EntryPayload::Normal(proposal) = &mut entry.payload {
                proposal.riders = riders;
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    /// Changes the head and writes it; returns when it is synced.
    pub(super) async fn write_head(&self, change: impl FnOnce(&mut HeadRecord)) -> io::Result<()> {
        let bytes = {
            let mut contents = self.contents();
            if contents.dropped {
                return Err(dropped());
            }
            change(&mut contents.head);
            format::encode(&contents.head)
        };
        let at = self.submit_and_wait(KIND_HEAD, bytes).await?;
        {
            let mut contents = self.contents();
            let newer = contents
                .head_at
                .is_none_or(|old| (old.segment, old.offset) < (at.segment, at.offset));
            if newer {
                contents.head_at = Some(at);
            }
        }
        self.release();
        Ok(())
    }

    /// The replica is gone: nothing of this log counts any more, also not after a restart. Whoever wrote to it has ended.
    ///
    /// # Errors
    /// When the journal failed; it may be called again.
    pub(super) async fn drop_all(&self) -> io::Result<()> {
        self.shared.riders_first.done_so_far().await;
        let bytes = {
            let mut contents = self.contents();
            let last = contents.last().map(LogIdRecord::from);
            let gone = std::mem::take(&mut contents.slots);
            let riding = self.forget(gone.into_iter());
            *contents = Contents {
                dropped: true,
                ..Contents::default()
            };
            tracing::debug!(shard = %self.shared.shard, riding, "the log is dropped");
            format::encode(&DroppedRecord { last })
        };
        self.submit_and_wait(KIND_DROPPED, bytes).await?;
        self.shared.journal.release(self.group(), u64::MAX);
        Ok(())
    }

    async fn submit_and_wait(&self, kind: u8, bytes: Bytes) -> io::Result<Location> {
        let record = Record::new(self.group(), kind, vec![bytes]);
        self.shared
            .journal
            .append(record)
            .await
            .map_err(|error| io_error(&error))
    }

    /// Writes the floor of the view: what a flushed database must at least hold from now on.
    ///
    /// # Errors
    /// When the journal failed.
    pub async fn write_floor(&self, floor: FloorRecord) -> io::Result<()> {
        self.write_head(|head| head.floor = Some(floor)).await
    }

    pub(super) async fn truncate(&self, last_index: Option<u64>) -> io::Result<()> {
        // Else an entry that it voids could come behind it.
        self.shared.riders_first.done_so_far().await;
        let bytes = {
            let mut contents = self.contents();
            let keep = match (last_index, contents.slots.front()) {
                (_, None) => 0,
                (None, Some(_)) => 0,
                (Some(last), Some(first)) => (last + 1).saturating_sub(first.id.index) as usize,
            };
            let keep = keep.min(contents.slots.len());
            let dropped = contents.slots.split_off(keep);
            contents.riding_bytes -= self.forget(dropped.into_iter());
            contents.cached_from = 0;
            contents.riding_from = 0;
            format::encode(&TruncateRecord { last_index })
        };
        self.submit_and_wait(KIND_TRUNCATE, bytes).await.map(|_| ())
    }

    /// Makes the log one that a state at `applied`, an entry that is committed, may be laid under: should there be another entry at its
    /// index, that one and all behind it were never committed, and go.
    ///
    /// # Errors
    /// When the journal failed.
    pub async fn drop_what_contradicts(&self, applied: LogId) -> io::Result<()> {
        let found = self.contents().slot(applied.index).map(|slot| slot.id);
        match found {
            Some(other) if other != applied => self.truncate(applied.index.checked_sub(1)).await,
            _ => Ok(()),
        }
    }

    /// Raft needs entries up to `id` no more.
    pub(super) async fn purge(&self, id: LogId) -> io::Result<()> {
        {
            let mut contents = self.contents();
            let purged = match contents.slots.front() {
                None => 0,
                Some(first) => (id.index + 1).saturating_sub(first.id.index) as usize,
            };
            let purged = purged.min(contents.slots.len());
            let rest = contents.slots.split_off(purged);
            let gone = std::mem::replace(&mut contents.slots, rest);
            contents.riding_bytes -= self.forget(gone.into_iter());
        }
        self.write_head(|head| {
            let purged = LogIdRecord::from(id);
            if head.purged.is_none_or(|old| old.index < purged.index) {
                head.purged = Some(purged);
            }
        })
        .await
    }

    /// A checkpoint up to `index` is fsynced; gives the bytes of log that it is ahead of the last one. Purging waits for this.
    pub fn checkpointed(&self, index: u64) -> u64 {
        let mut contents = self.contents();
        let before = contents.bytes_since_checkpoint;
        contents.checkpoint_index = contents.checkpoint_index.max(index);
        contents.bytes_since_checkpoint = contents
            .slots
            .iter()
            .filter(|slot| slot.id.index > index)
            .map(|slot| slot.length as u64)
            .sum();
        before.saturating_sub(contents.bytes_since_checkpoint)
    }

    /// Writes the head anew, so that the oldest segments need not be kept for it.
    ///
    /// # Errors
    /// When the journal failed.
    pub async fn move_head(&self) -> io::Result<()> {
        self.write_head(|_| {}).await
    }

    /// Whether this group is why the journal cannot use its oldest segments again, while it has more than `segments` of them.
    pub fn pins_the_journal(&self, segments: usize) -> bool {
        let journal = &self.shared.journal;
        journal.live_segments() > segments
            && journal
                .pinned_by()
                .iter()
                .min_by_key(|(_, segment)| *segment)
                .is_some_and(|(group, _)| *group == self.group())
    }

    /// Tells the journal which segments this group still needs.
    fn release(&self) {
        let oldest = {
            let contents = self.contents();
            let Some(head_at) = contents.head_at else { return };
            let entry = contents.slots.front().and_then(|slot| slot.at).map(|at| at.segment);
            entry.unwrap_or(head_at.segment).min(head_at.segment)
        };
        self.shared.journal.release(self.group(), oldest);
    }

    /// The group's number in the journal.
    pub(super) fn group(&self) -> u64 {
        u64::from(self.shared.shard.0)
    }
}
