//! The list of volumes that collection gave up: the file `discarded`, replaced whole.
//!
//! Numbers of segments are never used twice, so a number in the list stays true. It is written before its volume goes: after a crash in
//! between the volume is there and listed, which means nothing. Without the list a start calls each of these volumes lost, and that is
//! all: their bodies lie elsewhere, or nobody needs them.

use std::io;
use std::path::Path;

use malle_journal::{Disk, read_file, replace_file};
use malle_machine::{first_version, format};
use serde::{Deserialize, Serialize};

const NAME: &str = "discarded";
/// Runs of numbers: as many as there are volumes between them, and one more.
const LIST_MAX_BYTES: u64 = 4 * 1024 * 1024;

/// The list as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::bodies) struct DiscardedRecord {
    pub runs: Vec<(u64, u64)>,
}
first_version!(DiscardedRecord, 54);

/// Segments that were given up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Discarded {
    /// First and last of each run, both included; rising, with a gap between any two.
    runs: Vec<(u64, u64)>,
}

impl Discarded {
    pub fn contains(&self, segment: u64) -> bool {
        let behind = self.runs.partition_point(|(_, last)| *last < segment);
        self.runs.get(behind).is_some_and(|(first, _)| *first <= segment)
    }

    pub fn insert(&mut self, segment: u64) {
        if self.contains(segment) {
            return;
        }
        let at = self.runs.partition_point(|(_, last)| *last < segment);
        self.runs.insert(at, (segment, segment));
        if let Some((_, last)) = self
            .runs
            .get(at + 1)
            .filter(|(first, _)| *first == segment + 1)
            .copied()
        {
            self.runs[at].1 = last;
            self.runs.remove(at + 1);
        }
        if at > 0 && self.runs[at - 1].1 + 1 == segment {
            self.runs[at - 1].1 = self.runs[at].1;
            self.runs.remove(at);
        }
    }
}

/// What was given up; nothing when there is no list, or none that reads. Blocks.
pub(super) fn read(disk: &dyn Disk, dir: &Path) -> io::Result<Discarded> {
    let bytes = match read_file(disk, &dir.join(NAME), LIST_MAX_BYTES) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Discarded::default()),
        Err(error) => return Err(error),
    };
    match format::decode::<DiscardedRecord>(&bytes) {
        Ok(record) => Ok(Discarded { runs: record.runs }),
        Err(error) => {
            tracing::error!(%error, "the list of collected volumes does not read: they are called lost now, and nothing is");
            Ok(Discarded::default())
        }
    }
}

/// Writes the list; durable when it returns. Blocks.
pub(super) fn write(disk: &dyn Disk, dir: &Path, discarded: &Discarded) -> io::Result<()> {
    let record = DiscardedRecord {
        runs: discarded.runs.clone(),
    };
    replace_file(disk, &dir.join(NAME), &format::encode(&record))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use malle_journal::MemoryDisk;

    use super::*;

    #[test]
    fn the_list_is_as_long_as_there_are_gaps_and_forgets_nothing() {
        let (mut discarded, mut model) = (Discarded::default(), BTreeSet::new());
        let mut number = 1u64;
        for _ in 0..400 {
            number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let segment = 1 + (number >> 33) % 100;
            discarded.insert(segment);
            model.insert(segment);
            assert!((0..=101).all(|any| discarded.contains(any) == model.contains(&any)));
            assert!(
                discarded.runs.windows(2).all(|two| two[0].1 + 1 < two[1].0),
                "{discarded:?}"
            );
        }
        assert!(discarded.runs.len() < 20);
    }

    #[test]
    fn the_list_is_read_back_and_a_damaged_one_is_none() {
        let (disk, dir) = (MemoryDisk::new(), Path::new("/v"));
        disk.create_dir_all(dir).unwrap();
        assert_eq!(read(&disk, dir).unwrap(), Discarded::default());
        let mut discarded = Discarded::default();
        for segment in [7, 3, 4] {
            discarded.insert(segment);
            write(&disk, dir, &discarded).unwrap();
        }
        disk.crash(1);
        assert_eq!(read(&disk, dir).unwrap(), discarded);
        disk.flip_bit(&dir.join(NAME), 20, 1);
        assert_eq!(read(&disk, dir).unwrap(), Discarded::default());
    }

    #[test]
    fn the_list_keeps_its_bytes() {
        let record = DiscardedRecord {
            runs: vec![(1, 3), (700, 700)],
        };
        let kept = "4d4c36000100000109000000bd88ed57020103fbbc02fbbc02";
        let bytes = format::encode(&record);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, kept);
        assert_eq!(format::decode::<DiscardedRecord>(&bytes).unwrap(), record);
    }
}
