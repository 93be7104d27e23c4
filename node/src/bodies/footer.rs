//! Footers: what a full volume holds, so that a start reads a list instead of every body.
//!
//! A footer is a file `<segment>-<generation>.footer` beside the volume: records of [`FooterRecord`], one after the other, each with
//! its length before it. It is written once its volume is full. A missing or damaged one costs a scan of the volume, never mail.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use malle_journal::{Disk, Location, read_file, replace_file};
use malle_machine::{first_version, format};
use malle_proto::{BodyHash, ShardId};
use serde::{Deserialize, Serialize};

use super::locator::Key;

/// Entries of one record: it stays below the bound of a record.
const ENTRIES_PER_RECORD: usize = 4096;
/// A volume of the smallest bodies has a footer below this.
const FOOTER_MAX_BYTES: u64 = 256 * 1024 * 1024;

/// Where a body is in its volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FooterEntry {
    pub shard: ShardId,
    pub hash: BodyHash,
    pub offset: u32,
    pub payload_bytes: u32,
}

/// A run of entries, sorted by shard, hash and offset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FooterRecord {
    pub entries: Vec<FooterEntry>,
    /// No record follows.
    pub last: bool,
}
first_version!(FooterRecord, 50);

fn path(dir: &Path, segment: u64, generation: u64) -> PathBuf {
    dir.join(format!("{segment:016x}-{generation:016x}.footer"))
}

/// Writes the footer of a full volume. Blocks.
pub(super) fn write(
    disk: &dyn Disk,
    dir: &Path,
    segment: u64,
    generation: u64,
    mut entries: Vec<FooterEntry>,
) -> io::Result<()> {
    // The offset decides between copies of one body: the later one replaced one that was damaged, and must win at a start.
    entries.sort_unstable_by_key(|entry| (entry.shard, entry.hash, entry.offset));
    let mut out = Vec::new();
    let runs = entries.chunks(ENTRIES_PER_RECORD).count().max(1);
    let mut run = 0;
    for entries in entries
        .chunks(ENTRIES_PER_RECORD)
        .chain(entries.is_empty().then_some(&[][..]))
    {
        run += 1;
        let record = format::encode(&FooterRecord {
            entries: entries.to_vec(),
            last: run == runs,
        });
        out.extend_from_slice(&(record.len() as u32).to_le_bytes());
        out.extend_from_slice(&record);
    }
    replace_file(disk, &path(dir, segment, generation), &out)
}

/// The footer of a volume, when there is one and it reads whole. Blocks.
pub(super) fn read(disk: &dyn Disk, dir: &Path, segment: u64, generation: u64) -> Option<Vec<FooterEntry>> {
    let bytes = read_file(disk, &path(dir, segment, generation), FOOTER_MAX_BYTES).ok()?;
    parse(&bytes)
}

/// Removes a footer; no error when there is none. Blocks.
pub(super) fn remove(disk: &dyn Disk, dir: &Path, segment: u64, generation: u64) -> io::Result<()> {
    match disk.remove(&path(dir, segment, generation)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Every footer that reads whole, by segment and generation. Blocks.
pub(super) fn read_all(disk: &dyn Disk, dir: &Path) -> io::Result<BTreeMap<(u64, u64), Vec<FooterEntry>>> {
    let mut footers = BTreeMap::new();
    for name in disk.list(dir)? {
        let Some((segment, generation)) = name.strip_suffix(".footer").and_then(|stem| stem.split_once('-')) else {
            continue;
        };
        let (Ok(segment), Ok(generation)) = (u64::from_str_radix(segment, 16), u64::from_str_radix(generation, 16))
        else {
            continue;
        };
        match read_file(disk, &dir.join(&name), FOOTER_MAX_BYTES).map(|bytes| parse(&bytes)) {
            Ok(Some(entries)) => {
                footers.insert((segment, generation), entries);
            }
            Ok(None) => tracing::warn!(name, "a footer is damaged; its volume is scanned"),
            Err(error) => tracing::warn!(name, %error, "a footer does not read; its volume is scanned"),
        }
    }
    Ok(footers)
}

fn parse(mut bytes: &[u8]) -> Option<Vec<FooterEntry>> {
    let mut entries = Vec::new();
    loop {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (record, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        let record: FooterRecord = format::decode(record).ok()?;
        entries.extend(record.entries);
        if record.last {
            return rest.is_empty().then_some(entries);
        }
        bytes = rest;
    }
}

impl FooterEntry {
    /// The entry of a body.
    pub fn of((shard, hash): Key, at: Location) -> FooterEntry {
        FooterEntry {
            shard,
            hash,
            offset: at.offset,
            payload_bytes: at.payload_bytes,
        }
    }

    /// Which body.
    pub fn key(&self) -> Key {
        (self.shard, self.hash)
    }

    /// The place in a volume of this segment and generation.
    pub fn location(&self, segment: u64, generation: u64) -> Location {
        Location {
            segment,
            generation,
            offset: self.offset,
            payload_bytes: self.payload_bytes,
        }
    }
}
