//! Checkpoints: a group's rows in files of our own. A base holds every row, each delta behind it the rows that changed since.
//!
//! ```text
//! checkpoint   the base
//! delta-0001   names the base and the file before it by their BLAKE3, and its own place in the chain
//! delta-0002   ...
//! changed      after a clean stop: keys that changed since the last of them (`Keys`)
//! ```
//!
//! A file is written beside its name, fsynced, renamed, and its directory fsynced, before anybody counts on it. A new base takes the
//! old one's name; the old deltas then name a base that is no more, and are no longer of the chain. The chain counts as far as every
//! file names the one before it and its bytes agree with its BLAKE3. A damaged delta ends it: what came later is worth nothing without
//! it. Whether the log reaches back to where the chain ends is asked by whoever opens the state; if not, there is a gap and no state.
//!
//! A peer gets the whole chain as one file, a base ([`Checkpoint::send`]): changes are applied in order, so the blocks of the files
//! one after the other are the blocks of a base.

mod changed;
mod file;
mod plan;
mod send;
#[cfg(test)]
mod tests;

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use malle_journal::Disk;
use malle_machine::{Digest, first_version};
use malle_proto::ShardId;
use serde::{Deserialize, Serialize};

use super::overlay::Position;
use crate::log::records::{LogIdRecord, StoredMembershipRecord};
use crate::log::types::{LogId, StoredMembership};
pub(super) use changed::{Changed, Keys};
use file::{CheckpointFile, FileId, Kind, Writer, bad};
pub(super) use plan::{Ledger, Standing, Work};
pub use send::Sending;

/// Name of the base.
const BASE: &str = "checkpoint";
/// Name of a base or delta that is being written.
const WRITING: &str = "checkpoint.writing";
/// Name of the keys that a clean stop leaves, and while they are written.
const CHANGED: &str = "changed";
const CHANGED_WRITING: &str = "changed.writing";
/// What the names of deltas begin with.
const DELTA: &str = "delta-";

fn delta_name(number: u32) -> String {
    format!("{DELTA}{number:04}")
}

/// What a base says about itself, and where a chain of files stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointRecord {
    /// Last entry in it; `None` when nothing was applied yet.
    pub applied: Option<LogIdRecord>,
    /// Membership at that entry.
    pub membership: StoredMembershipRecord,
    /// Digest of its rows.
    pub digest: Digest,
    /// How many rows.
    pub rows: u64,
}
first_version!(CheckpointRecord, 49);

impl From<&Position> for CheckpointRecord {
    fn from(position: &Position) -> Self {
        CheckpointRecord {
            applied: position.applied.map(LogIdRecord::from),
            membership: (&position.membership).into(),
            digest: position.digest,
            rows: position.rows,
        }
    }
}

/// What a delta says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeltaRecord {
    /// The base of its chain.
    pub base: [u8; 32],
    /// The file before it: the base, or the delta with the number below.
    pub previous: [u8; 32],
    /// Its place in the chain, from 1.
    pub number: u32,
    /// Changes in it.
    pub changes: u64,
    /// Last entry in it.
    pub applied: Option<LogIdRecord>,
    /// Membership at that entry.
    pub membership: StoredMembershipRecord,
    /// Digest of all rows, those of the files before it included.
    pub digest: Digest,
    /// How many rows that is.
    pub rows: u64,
}
first_version!(DeltaRecord, 52);

/// What the list of changed keys says about itself. It is true for ever, and of use while both of these are as they were.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedRecord {
    /// Last file of the chain: the keys changed after it ...
    pub after: [u8; 32],
    /// ... and up to this entry.
    pub applied: Option<LogIdRecord>,
    /// How many keys.
    pub keys: u64,
}
first_version!(ChangedRecord, 53);

/// A file of the chain, and where the rows stand with it.
#[derive(Debug, Clone)]
struct Link {
    file: CheckpointFile,
    record: CheckpointRecord,
    /// Changes in the file; the rows of a base.
    changes: u64,
}

/// A base and the deltas behind it.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    shard: ShardId,
    base: Link,
    deltas: Vec<Link>,
}

impl Checkpoint {
    /// Opens the chain in `dir`, as far as each file follows the one before it; `None` when there is no base that reads. The rows are
    /// checked by [`Checkpoint::whole`]. Blocks.
    ///
    /// # Errors
    /// What the disk says. A file that does not read ends the chain and is told of in the log of this node.
    pub fn open(disk: &Arc<dyn Disk>, dir: &Path, shard: ShardId) -> io::Result<Option<Checkpoint>> {
        let Some(base) = present(CheckpointFile::open(disk, &dir.join(BASE), Kind::Base, shard), shard)? else {
            return Ok(None);
        };
        let mut checkpoint = Checkpoint::of_base(shard, base);
        loop {
            let number = checkpoint.next_number();
            let path = dir.join(delta_name(number));
            let opened = CheckpointFile::open::<DeltaRecord>(disk, &path, Kind::Delta, shard);
            let Some((file, record)) = present(opened, shard)? else {
                return Ok(Some(checkpoint));
            };
            // One of an earlier chain that has not been removed yet is no damage.
            if record.base != checkpoint.base.file.id || record.previous != checkpoint.id() || record.number != number {
                return Ok(Some(checkpoint));
            }
            checkpoint.deltas.push(Link {
                file,
                changes: record.changes,
                record: CheckpointRecord {
                    applied: record.applied,
                    membership: record.membership,
                    digest: record.digest,
                    rows: record.rows,
                },
            });
        }
    }

    /// Opens a received snapshot: a base under any name. Blocks.
    ///
    /// # Errors
    /// `InvalidData` with the reason, or what the disk says.
    pub fn received(disk: &Arc<dyn Disk>, path: &Path, shard: ShardId) -> io::Result<Checkpoint> {
        let base = CheckpointFile::open(disk, path, Kind::Base, shard)?;
        base.0.verify()?;
        Ok(Checkpoint::of_base(shard, base))
    }

    fn of_base(shard: ShardId, (file, record): (CheckpointFile, CheckpointRecord)) -> Checkpoint {
        let base = Link {
            file,
            changes: record.rows,
            record,
        };
        Checkpoint {
            shard,
            base,
            deltas: Vec::new(),
        }
    }

    fn links(&self) -> impl Iterator<Item = &Link> {
        std::iter::once(&self.base).chain(&self.deltas)
    }

    fn last(&self) -> &Link {
        self.deltas.last().unwrap_or(&self.base)
    }

    fn next_number(&self) -> u32 {
        self.deltas.len() as u32 + 1
    }

    /// The file that the next delta follows.
    fn id(&self) -> FileId {
        self.last().file.id
    }

    /// Where the rows stand with all of its files.
    pub fn record(&self) -> &CheckpointRecord {
        &self.last().record
    }

    /// Index of the last entry in it.
    pub fn index(&self) -> u64 {
        self.record().applied.map_or(0, |id| id.index)
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.links().map(|link| link.file.bytes).sum()
    }

    /// Whether a log that was purged up to this entry follows it without a gap.
    pub(super) fn reaches(&self, purged: Option<u64>) -> bool {
        purged.is_none_or(|purged| self.record().applied.is_some_and(|applied| applied.index >= purged))
    }

    pub(super) fn position(&self) -> io::Result<Position> {
        let record = self.record().clone();
        Ok(Position {
            applied: record.applied.map(LogId::from),
            membership: StoredMembership::try_from(record.membership)
                .map_err(|error| bad(&self.last().file.path, error))?,
            digest: record.digest,
            rows: record.rows,
        })
    }

    /// As much of the chain as agrees with its checksums; `None` when the base does not. Reads every byte. Blocks.
    pub(super) fn whole(mut self) -> Option<Checkpoint> {
        let sound = |link: &Link| match link.file.verify() {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(file = ?link.file, %error, "a file of the checkpoint does not read");
                false
            }
        };
        if !sound(&self.base) {
            return None;
        }
        let good = self.deltas.iter().take_while(|link| sound(link)).count();
        self.deltas.truncate(good);
        Some(self)
    }

    /// Visits every change in order; `None` removes a row that came before. Blocks.
    ///
    /// # Errors
    /// `InvalidData`, or what the visitor says.
    pub(super) fn changes(&self, visit: &mut dyn FnMut(Vec<u8>, Option<Bytes>) -> io::Result<()>) -> io::Result<()> {
        self.links().try_for_each(|link| link.file.changes(visit))
    }

    /// Gives a received snapshot the name of the base, durably. Blocks.
    ///
    /// # Errors
    /// What the disk says.
    pub(super) fn become_current(mut self, dir: &Path) -> io::Result<Checkpoint> {
        self.base.file.rename(dir, BASE)?;
        remove_deltas(&self.base.file.disk, dir);
        Ok(self)
    }
}

/// A file, or `None` when it is absent or damaged.
fn present<R>(opened: io::Result<(CheckpointFile, R)>, shard: ShardId) -> io::Result<Option<(CheckpointFile, R)>> {
    match opened {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            tracing::error!(%shard, %error, "a file of the checkpoint does not read");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Removes the deltas of a chain whose base is no more. One that stays costs its space and misleads nobody.
fn remove_deltas(disk: &Arc<dyn Disk>, dir: &Path) {
    let removed = disk.list(dir).and_then(|names| {
        let mut deltas = names.iter().filter(|name| name.starts_with(DELTA));
        deltas.try_for_each(|name| disk.remove(&dir.join(name)))
    });
    if let Err(error) = removed {
        tracing::warn!(dir = %dir.display(), %error, "old deltas stay until the next base");
    }
}

/// Removes what is left of a file that was not finished: on a full disk it would take what other files need. Blocks.
pub(super) fn remove_unfinished(disk: &Arc<dyn Disk>, dir: &Path) {
    // Most often there is none; one that stays is removed by the next checkpoint.
    let _ = disk.remove(&dir.join(WRITING));
}

/// Writes the next file of a chain, or the first. Every method blocks.
pub(super) struct CheckpointWriter {
    writer: Writer,
    shard: ShardId,
    /// The chain that a delta goes on; a base begins a new one.
    after: Option<Checkpoint>,
}

impl CheckpointWriter {
    /// Begins a base, or a delta after `after`.
    ///
    /// # Errors
    /// What the disk says.
    pub fn create(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        shard: ShardId,
        after: Option<Checkpoint>,
    ) -> io::Result<CheckpointWriter> {
        let kind = if after.is_some() { Kind::Delta } else { Kind::Base };
        Ok(CheckpointWriter {
            writer: Writer::create(disk, &dir.join(WRITING), kind, shard)?,
            shard,
            after,
        })
    }

    /// One change.
    ///
    /// # Errors
    /// What the disk says.
    pub fn change(&mut self, key: &[u8], value: Option<&[u8]>) -> io::Result<()> {
        self.writer.change(key, value)
    }

    /// Ends the file and makes its bytes durable; it has no name yet.
    ///
    /// # Errors
    /// What the disk says; nothing has changed then.
    pub fn finish(self, record: CheckpointRecord) -> io::Result<Unnamed> {
        let changes = self.writer.changes;
        let file = match &self.after {
            None => self.writer.finish(&record)?,
            Some(after) => self.writer.finish(&DeltaRecord {
                base: after.base.file.id,
                previous: after.id(),
                number: after.next_number(),
                changes,
                applied: record.applied,
                membership: record.membership.clone(),
                digest: record.digest,
                rows: record.rows,
            })?,
        };
        let link = Link { file, record, changes };
        Ok(Unnamed {
            shard: self.shard,
            link,
            after: self.after,
        })
    }
}

/// A file with all its bytes on disk, and without its name.
pub(super) struct Unnamed {
    shard: ShardId,
    link: Link,
    after: Option<Checkpoint>,
}

impl Unnamed {
    /// Bytes of the file.
    pub fn bytes(&self) -> u64 {
        self.link.file.bytes
    }

    /// Changes in it.
    pub fn changes(&self) -> u64 {
        self.link.changes
    }

    /// Gives it its name, durably: from here on it is of the chain.
    ///
    /// # Errors
    /// What the disk says, or that another base stands where the chain's was. What the chain on disk is, is not known then: the next
    /// checkpoint must be a base.
    pub fn name(self, dir: &Path) -> io::Result<Checkpoint> {
        let mut link = self.link;
        match self.after {
            None => {
                link.file.rename(dir, BASE)?;
                remove_deltas(&link.file.disk, dir);
                Ok(Checkpoint {
                    shard: self.shard,
                    base: link,
                    deltas: Vec::new(),
                })
            }
            Some(mut after) => {
                for before in after.links() {
                    if !before.file.is_in_place()? {
                        return Err(bad(&before.file.path, "is another one than the delta follows"));
                    }
                }
                link.file.rename(dir, &delta_name(after.next_number()))?;
                after.deltas.push(link);
                Ok(after)
            }
        }
    }
}

/// Writes the keys that changed after `after` up to `applied`, for the next start. Blocks.
///
/// # Errors
/// What the disk says; the next checkpoint is a base then.
pub(super) fn write_changed(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    after: &Checkpoint,
    applied: Option<LogIdRecord>,
    keys: &Keys,
) -> io::Result<()> {
    let mut writer = Writer::create(disk, &dir.join(CHANGED_WRITING), Kind::Keys, after.shard)?;
    keys.each(&mut |key| writer.change(key, None))?;
    let record = ChangedRecord {
        after: after.id(),
        applied,
        keys: writer.changes,
    };
    writer.finish(&record)?.rename(dir, CHANGED)
}

/// The keys that changed between the checkpoint and this entry, if a clean stop wrote them down. Blocks.
pub(super) fn read_changed(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    after: &Checkpoint,
    applied: Option<LogIdRecord>,
) -> Option<Keys> {
    let read = || {
        let opened = CheckpointFile::open::<ChangedRecord>(disk, &dir.join(CHANGED), Kind::Keys, after.shard);
        let Some((file, record)) = present(opened, after.shard)? else {
            return Ok(None);
        };
        if record.after != after.id() || record.applied != applied {
            return Ok(None);
        }
        file.verify()?;
        let mut sorted = Vec::new();
        file.changes(&mut |key, _| {
            sorted.push(key);
            Ok(())
        })?;
        let mut keys = Keys::default();
        keys.add(sorted.iter().map(Vec::as_slice));
        Ok::<_, io::Error>(Some(keys))
    };
    read().unwrap_or_else(|error| {
        tracing::warn!(shard = %after.shard, %error, "which keys changed is not known: the next checkpoint is a base");
        None
    })
}
