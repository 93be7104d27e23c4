//! What the journal promises, on a disk that can be cut off.

mod discarding;
mod faults;
mod full;
mod model;
mod real;
mod recycling;
mod shared_sync;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::{Disk, Journal, JournalError, Location, MemoryDisk, Mode, Options, Record, ReplayedRecord};

/// A record as the tests compare it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    group: u64,
    kind: u8,
    payload: Vec<u8>,
    location: Location,
}

fn options() -> Options {
    Options {
        segment_bytes: 4096,
        node: 1,
        mode: Mode::Recycle,
        pool: 2,
        reserve: 0,
        batch_max_bytes: 2048,
        in_flight_max_bytes: 8192,
    }
}

fn open_with(disk: &MemoryDisk, options: Options) -> Result<(Journal, Vec<Seen>), JournalError> {
    let mut seen = Vec::new();
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let journal = Journal::open(disk, Path::new("/j"), options, &mut |record: ReplayedRecord<'_>| {
        seen.push(Seen {
            group: record.group,
            kind: record.kind,
            payload: record.payload.to_vec(),
            location: record.location,
        });
        Ok(())
    })?;
    Ok((journal, seen))
}

fn open(disk: &MemoryDisk) -> (Journal, Vec<Seen>) {
    open_with(disk, options()).unwrap()
}

fn record(group: u64, payload: &[u8]) -> Record {
    Record::new(group, 7, vec![Bytes::copy_from_slice(payload)])
}

/// Appends records of 100 bytes, each filled with its number, and returns what replay must hand back.
async fn append_numbered(journal: &Journal, group: u64, numbers: std::ops::Range<u8>) -> Vec<Seen> {
    let mut appended = Vec::new();
    for number in numbers {
        let payload = vec![number; 100];
        let location = journal.append(record(group, &payload)).await.unwrap();
        appended.push(Seen {
            group,
            kind: 7,
            payload,
            location,
        });
    }
    appended
}
