//! Reading the journal at start: every group's log as it was acknowledged.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};

use malle_journal::{Disk, Journal, JournalError, Mode, Options, ReplayedRecord};
use malle_machine::format::{self, FormatError};
use malle_proto::{NodeId, ShardId, limits};

use super::group::{Contents, GroupLog, KIND_ENTRY, KIND_HEAD, KIND_TRUNCATE, Slot};
use super::records::{EntryRecord, HeadRecord, TruncateRecord};
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
        let journal = Journal::open(disk, dir, options, &mut |record: ReplayedRecord<'_>| {
            let shard = ShardId(u32::try_from(record.group)?);
            take(shard, found.entry(shard).or_default(), &record).map_err(Into::into)
        })?;
        Ok(Logs {
            journal,
            cache_bytes: Arc::default(),
            found: Mutex::new(found),
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

    /// The log of a group; empty when the journal had none.
    pub fn group(&self, shard: ShardId) -> GroupLog {
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
