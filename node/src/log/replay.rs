//! Reading the journal at start: every group's log as it was acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};

use malle_journal::{Disk, Journal, JournalError, Mode, Options, ReplayedRecord};
use malle_machine::format::{self, FormatError};
use malle_proto::{NodeId, ShardId, limits};

use super::group::{Contents, GroupLog, KIND_DROPPED, KIND_ENTRY, KIND_HEAD, KIND_TRUNCATE, Slot};
use super::records::{DroppedRecord, EntryRecord, HeadRecord, TruncateRecord};
use super::types::LogId;

/// Why the log cannot be opened. Damage is never repaired in place: the node is replaced under a new id (docs/operations).
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The journal below.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A record that the journal vouches for does not decode.
    #[error("log of shard {shard}: {error}")]
    Record {
        /// Whose.
        shard: ShardId,
        /// Why.
        error: FormatError,
    },
    /// Records of a group do not follow each other.
    #[error("log of shard {shard}: entry {index} follows {last}")]
    Gap {
        /// Whose.
        shard: ShardId,
        /// The entry found.
        index: u64,
        /// The last one before.
        last: u64,
    },
}

/// The logs of all groups of one disk.
pub struct Logs {
    journal: Journal,
    cache_bytes: Arc<AtomicUsize>,
    /// Groups found by the replay and not opened yet.
    found: Mutex<BTreeMap<ShardId, Contents>>,
    /// Logs that were given out: a group that is opened again has the same one. Another one would know of no vote and no entry.
    given: Mutex<BTreeMap<ShardId, GroupLog>>,
}

impl std::fmt::Debug for Logs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Logs")
    }
}

impl Logs {
    /// Opens the journal in `dir` and replays it.
    ///
    /// # Errors
    /// Damage in the middle, another node's journal, or a disk that does not work.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, node: NodeId) -> Result<Logs, LogError> {
        Logs::open_with(disk, dir, node, limits::JOURNAL_SEGMENT_BYTES)
    }

    /// [`Logs::open`] with segments of this size.
    ///
    /// # Errors
    /// See [`Logs::open`].
    pub fn open_with(disk: Arc<dyn Disk>, dir: &Path, node: NodeId, segment_bytes: u64) -> Result<Logs, LogError> {
        let options = Options {
            segment_bytes,
            node: node.0,
            mode: Mode::Recycle,
            pool: limits::JOURNAL_POOL_SEGMENTS,
            reserve: limits::JOURNAL_RESERVE_SEGMENTS,
            batch_max_bytes: limits::JOURNAL_BATCH_MAX_BYTES,
            in_flight_max_bytes: limits::JOURNAL_IN_FLIGHT_MAX_BYTES,
        };
        // Replay blocks, and this is the start: nothing else runs yet that it could hold up.
        let mut found: BTreeMap<ShardId, Contents> = BTreeMap::new();
        let mut dropped: BTreeSet<ShardId> = BTreeSet::new();
        let journal = Journal::open(disk, dir, options, &mut |record: ReplayedRecord<'_>| {
            let shard = ShardId(u32::try_from(record.group)?);
            if record.kind == KIND_DROPPED {
                format::decode::<DroppedRecord>(record.payload)?;
                found.remove(&shard);
                dropped.insert(shard);
                return Ok(());
            }
            take(shard, found.entry(shard).or_default(), &record).map_err(Into::into)
        })?;
        // What came back since holds its own segments once it writes; the others hold none.
        for shard in dropped.difference(&found.keys().copied().collect()) {
            journal.release(u64::from(shard.0), u64::MAX);
        }
        Ok(Logs {
            journal,
            cache_bytes: Arc::default(),
            found: Mutex::new(found),
            given: Mutex::default(),
        })
    }

    /// Groups that have a log here and were not opened yet.
    pub fn found(&self) -> Vec<ShardId> {
        self.found
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .keys()
            .copied()
            .collect()
    }

    /// The log of a group, the same one each time; empty at first when the journal had none.
    pub fn group(&self, shard: ShardId) -> GroupLog {
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        given.entry(shard).or_insert_with(|| self.first(shard)).clone()
    }

    /// Drops the log of a group whose replica is gone. The next one that is given out is empty, and knows no vote: a replica that comes back
    /// learns from a leader before it votes.
    ///
    /// # Errors
    /// When the journal failed; it may be called again.
    pub async fn drop_group(&self, shard: ShardId) -> std::io::Result<()> {
        self.group(shard).drop_all().await?;
        self.given.lock().unwrap_or_else(PoisonError::into_inner).remove(&shard);
        Ok(())
    }

    fn first(&self, shard: ShardId) -> GroupLog {
        let contents = self
            .found
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&shard)
            .unwrap_or_default();
        GroupLog::new(shard, self.journal.clone(), contents, self.cache_bytes.clone())
    }

    /// The journal, for its counters and its failure.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }
}

fn take(shard: ShardId, contents: &mut Contents, record: &ReplayedRecord) -> Result<(), LogError> {
    let broken = |error| LogError::Record { shard, error };
    match record.kind {
        KIND_ENTRY => {
            let entry: EntryRecord = format::decode(record.payload).map_err(broken)?;
            let id = LogId::from(entry.id);
            if let Some(last) = contents.slots.back().map(|slot| slot.id.index)
                && last + 1 != id.index
            {
                return Err(LogError::Gap {
                    shard,
                    index: id.index,
                    last,
                });
            }
            contents.bytes_since_checkpoint += record.payload.len() as u64;
            contents.slots.push_back(Slot {
                riders: Vec::new(),
                id,
                at: Some(record.location),
                cached: None,
                length: record.payload.len(),
            });
        }
        KIND_TRUNCATE => {
            let truncate: TruncateRecord = format::decode(record.payload).map_err(broken)?;
            while contents
                .slots
                .back()
                .is_some_and(|slot| truncate.last_index.is_none_or(|last| slot.id.index > last))
            {
                contents.slots.pop_back();
            }
        }
        KIND_HEAD => {
            contents.head = format::decode::<HeadRecord>(record.payload).map_err(broken)?;
            contents.head_at = Some(record.location);
            if let Some(purged) = contents.head.purged {
                while contents.slots.front().is_some_and(|slot| slot.id.index <= purged.index) {
                    contents.slots.pop_front();
                }
            }
        }
        kind => {
            return Err(broken(FormatError::Payload(format!(
                "journal record of unknown kind {kind}"
            ))));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use malle_journal::MemoryDisk;
    use openraft::RaftLogReader as _;
    use openraft::storage::RaftLogStorage as _;

    use super::*;
    use crate::log::types::{LeaderId, Vote};

    #[tokio::test]
    async fn a_group_that_is_opened_again_knows_its_vote() {
        let disk = Arc::new(MemoryDisk::new());
        let logs = Logs::open(disk, Path::new("/log"), NodeId(1)).unwrap();
        let vote = Vote {
            leader_id: LeaderId { term: 7, node_id: 2 },
            committed: false,
        };
        logs.group(ShardId(3)).save_vote(&vote).await.unwrap();
        assert_eq!(logs.group(ShardId(3)).read_vote().await.unwrap(), Some(vote));
        assert_eq!(logs.group(ShardId(4)).read_vote().await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_dropped_log_stays_gone_after_a_restart_and_may_begin_anew() {
        let disk = Arc::new(MemoryDisk::new());
        let vote = |term| Vote {
            leader_id: LeaderId { term, node_id: 2 },
            committed: false,
        };
        let open = || Logs::open(disk.clone(), Path::new("/log"), NodeId(1)).unwrap();
        let logs = open();
        for shard in [3, 4] {
            logs.group(ShardId(shard)).save_vote(&vote(7)).await.unwrap();
        }
        let old = logs.group(ShardId(3));
        logs.drop_group(ShardId(3)).await.unwrap();
        assert!(
            old.write_head(|_| {}).await.is_err(),
            "whoever still has the old log writes nothing behind its end"
        );
        logs.journal().close().await;
        drop((logs, old));

        let logs = open();
        assert_eq!(logs.found(), [ShardId(4)]);
        assert_eq!(logs.group(ShardId(3)).read_vote().await.unwrap(), None);
        logs.group(ShardId(3)).save_vote(&vote(9)).await.unwrap();
        logs.journal().close().await;
        drop(logs);

        let logs = open();
        assert_eq!(logs.found(), [ShardId(3), ShardId(4)]);
        assert_eq!(logs.group(ShardId(3)).read_vote().await.unwrap(), Some(vote(9)));
    }
}
