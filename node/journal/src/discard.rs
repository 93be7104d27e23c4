//! Giving up kept segments, one by one, wherever they stand ([`crate::Mode::Keep`]).
//!
//! The journal does not know which records its owner still needs: it is told. What it sees to: the newest segment stays, because it
//! carries the numbering; a segment that somebody reads stays until he has done; a crash at any step leaves either the segment as it was
//! or none of it; the segment before learns where it ends, which only the header of this one says.
//!
//! Absent: any memory of what was given up. At the next start the number is missing, and the owner is asked
//! ([`crate::Replay::lost`]) whether that is right: whoever gives segments up keeps a list of them, written before.

use std::io::IoSlice;
use std::sync::Arc;

use crate::error::JournalError;
use crate::segment::{HeaderFound, SEGMENT_HEADER_BYTES, Segment, SegmentHeader};
use crate::shared::{Shared, slot_path};
use crate::{Journal, Mode};

/// A segment as its owner sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeptSegment {
    /// Its number.
    pub segment: u64,
    /// Its generation.
    pub generation: u64,
    /// Bytes from its beginning to the end of its last durable record.
    pub bytes: u64,
}

impl Journal {
    /// Every segment that is kept, oldest first. The last is the newest one, which cannot be given up.
    pub fn kept(&self) -> Vec<KeptSegment> {
        let segments = self.inner.shared.segments();
        let live = segments.live.values();
        live.map(|segment| KeptSegment {
            segment: segment.number,
            generation: segment.generation,
            bytes: u64::from(segment.end()),
        })
        .collect()
    }

    /// Gives up a segment of a journal that keeps them: its records are gone, its file is removed. False when it is the newest, or
    /// when somebody reads it: it is left as it was, to be tried again.
    ///
    /// # Errors
    /// `Gone` when no segment has this number and generation. After an error of the disk nobody reads the segment any more in this
    /// life, and the next start may find it whole.
    pub async fn discard(&self, segment: u64, generation: u64) -> Result<bool, JournalError> {
        let shared = Arc::clone(&self.inner.shared);
        if shared.options.mode != Mode::Keep {
            return Err(JournalError::Options("a log recycles its segments by itself"));
        }
        malle_rt::blocking(move || discard(&shared, segment, generation)).await
    }
}

fn discard(shared: &Shared, number: u64, generation: u64) -> Result<bool, JournalError> {
    // Held to the end: nobody else opens the directory while a file of it is on its way out.
    let Some(_ours) = shared.hold().filter(|_| shared.failed.borrow().is_none()) else {
        return Err(shared.stopped());
    };
    let (dead, before) = {
        let mut segments = shared.segments();
        let found = segments.live.get(&number);
        if found.is_none_or(|segment| segment.generation != generation) {
            return Err(JournalError::Gone { segment: number });
        }
        let Some(dead) = segments.take_unread(number) else {
            return Ok(false);
        };
        (dead, segments.live.get(&(number - 1)).cloned())
    };
    if let Some(before) = before {
        settle_end(shared, &dead, &before)?;
    }
    give_up(shared, &dead)?;
    Ok(true)
}

/// Cuts the segment before the one that goes to its length, durably: from then on its own length says where it ends.
fn settle_end(shared: &Shared, dead: &Segment, before: &Segment) -> Result<(), JournalError> {
    let header = header_of(shared, dead)?;
    let path = slot_path(&shared.dir, before.slot);
    let file = shared.file(before.slot)?;
    file.set_len(u64::from(header.previous_end))
        .and_then(|()| file.sync_all())
        .map_err(JournalError::io("cut", &path))
}

fn header_of(shared: &Shared, segment: &Segment) -> Result<SegmentHeader, JournalError> {
    let path = slot_path(&shared.dir, segment.slot);
    let mut bytes = [0; SEGMENT_HEADER_BYTES];
    let file = shared.file(segment.slot)?;
    file.read_at(0, &mut bytes).map_err(JournalError::io("read", &path))?;
    match SegmentHeader::decode(&bytes) {
        HeaderFound::Header(header) if header.segment == segment.number && header.generation == segment.generation => {
            Ok(header)
        }
        _ => Err(JournalError::DamagedHeader {
            file: path.display().to_string(),
        }),
    }
}

/// The header says so first, durably: a name that comes back after a crash is then a free slot, not a segment.
fn give_up(shared: &Shared, dead: &Segment) -> Result<(), JournalError> {
    let header = SegmentHeader {
        live: false,
        segment: dead.number,
        generation: dead.generation,
        node: shared.options.node,
        oldest: 0,
        previous_end: 0,
    };
    let path = slot_path(&shared.dir, dead.slot);
    let file = shared.file(dead.slot)?;
    file.write_at(0, &mut [IoSlice::new(&header.encode())])
        .and_then(|()| file.sync_data())
        .map_err(JournalError::io("give up", &path))?;
    shared.close_file(dead.slot);
    drop(file);
    shared.disk.remove(&path).map_err(JournalError::io("remove", &path))?;
    shared
        .disk
        .sync_dir(&shared.dir)
        .map_err(JournalError::io("sync", &shared.dir))
}
