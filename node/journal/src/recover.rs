//! Start-up: which segments are there, what they hold, and whether what cannot be read is a torn tail or damage.
//!
//! At most one batch is ever unsynced, and each record says how far its segment was durable when it was written. So when a record
//! cannot be read, a later one that was written after it had become durable proves damage; where there is none, the record was
//! part of the last batch, which nobody was told about, and the tail ends there. A segment with a successor ends where the
//! successor's header says, and everything before that was durable.
//!
//! What this never does: guess. A hole, a header that is neither empty nor valid, or a segment of another node stops the start.

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use crate::disk::{Disk, DiskFile};
use crate::error::JournalError;
use crate::record::{RECORD_ALIGNMENT, RECORD_HEADER_BYTES, RecordHeader};
use crate::segment::{HeaderFound, SEGMENT_HEADER_BYTES, Segment, SegmentHeader, Segments};
use crate::shared::slot_path;
use crate::{Location, Mode, Options};

/// Why a caller refuses a record.
pub type ReplayRefusal = Box<dyn std::error::Error + Send + Sync>;

/// A record as the journal hands it back at start-up.
#[derive(Debug, Clone, Copy)]
pub struct ReplayedRecord<'a> {
    /// As it was submitted.
    pub group: u64,
    /// As it was submitted.
    pub kind: u8,
    /// The parts, joined.
    pub payload: &'a [u8],
    /// Where it stands.
    pub location: Location,
}

/// A segment that has a successor and is never written again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealedSegment {
    /// Its number.
    pub segment: u64,
    /// Its generation.
    pub generation: u64,
    /// Where its records end.
    pub end: u32,
}

/// Takes what start-up finds, oldest first. A closure over records is one.
pub trait Replay {
    /// One valid record. An error stops the start.
    fn record(&mut self, record: ReplayedRecord<'_>) -> Result<(), ReplayRefusal>;

    /// Whether the records of this segment are wanted; false when the caller knows them from elsewhere.
    fn wants(&mut self, _sealed: SealedSegment) -> bool {
        true
    }

    /// Something that was durable cannot be read. True: go on behind it, each record stands for itself. False: refuse to start.
    fn damaged(&mut self, _segment: u64, _bytes: Range<u32>) -> bool {
        false
    }

    /// Segments are there before and after this one, and its file is gone. True: go on without it. False: refuse to start.
    fn lost(&mut self, _segment: u64) -> bool {
        false
    }
}

impl<F: FnMut(ReplayedRecord<'_>) -> Result<(), ReplayRefusal>> Replay for F {
    fn record(&mut self, record: ReplayedRecord<'_>) -> Result<(), ReplayRefusal> {
        self(record)
    }
}

/// What start-up found.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub segments: Segments,
    /// Where the records of the newest segment end.
    pub end: u32,
}

/// Reads all headers, then the records of all live segments in order.
pub(crate) fn recover(
    disk: &dyn Disk,
    dir: &Path,
    options: &Options,
    replay: &mut dyn Replay,
) -> Result<Recovered, JournalError> {
    let mut found = read_headers(disk, dir, options)?;
    let chain = chain_of(&found, replay)?;
    for (number, (slot, _)) in &found.live {
        if chain.first().is_none_or(|first| number < &first.header.segment) {
            found.segments.free.push_back(*slot);
        }
    }
    let mut end = 0;
    for (place, link) in chain.iter().enumerate() {
        let header = link.header;
        let path = slot_path(dir, link.slot);
        let file = disk.open(&path).map_err(JournalError::io("open", &path))?;
        let sealed_end = match chain.get(place + 1) {
            Some(next) if next.header.segment == header.segment + 1 => Some(next.header.previous_end),
            // Who knew where this one ends is lost; beyond the file there is nothing.
            Some(_) => {
                let bytes = file.len().map_err(JournalError::io("read", &path))?;
                Some(u32::try_from(bytes).unwrap_or(u32::MAX))
            }
            None => None,
        };
        let sealed = sealed_end.map(|end| SealedSegment {
            segment: header.segment,
            generation: header.generation,
            end,
        });
        let segment = Segment::new(header.segment, header.generation, link.slot, sealed_end.unwrap_or(0));
        let segment = Arc::new(segment);
        found.segments.live.insert(header.segment, segment.clone());
        if sealed.is_some_and(|sealed| !replay.wants(sealed)) {
            continue;
        }
        let mut scan = Scan {
            window: Window::new(&*file).map_err(JournalError::io("read", &path))?,
            path: &path,
            header,
            segments: &mut found.segments,
            replay: &mut *replay,
            durable_below: 0,
        };
        end = scan.run(sealed_end)?;
        segment.ends_at(end);
        let durable_below = scan.durable_below;
        if sealed_end.is_none() {
            settle_tail(&*file, options.mode, durable_below, end).map_err(JournalError::io("sync", &path))?;
        }
    }
    Ok(Recovered {
        segments: found.segments,
        end,
    })
}

/// What was replayed may still stand in the page cache alone, when the process died and not the machine: it is made durable before
/// anybody builds on it. The last batch is written again for that, because after a failed sync Linux calls its pages clean, and another
/// sync would say yes and write nothing. A kept segment gives back the space behind its end.
fn settle_tail(file: &dyn DiskFile, mode: Mode, durable_below: u32, end: u32) -> std::io::Result<()> {
    if mode == Mode::Keep && file.len()? > u64::from(end) {
        file.set_len(u64::from(end))?;
    }
    // The header of the segment went out with its first batch.
    let begin = if durable_below > SEGMENT_HEADER_BYTES as u32 {
        durable_below
    } else {
        0
    };
    let mut batch = vec![0; end.saturating_sub(begin) as usize];
    file.read_at(u64::from(begin), &mut batch)?;
    file.write_at(u64::from(begin), &mut [IoSlice::new(&batch)])?;
    file.sync_data()
}

/// All slots of the directory, told apart by their headers.
struct Found {
    segments: Segments,
    live: BTreeMap<u64, (u64, SegmentHeader)>,
    /// Numbers of segments that were given up and whose slots have not been used since.
    given_up: Vec<u64>,
}

fn read_headers(disk: &dyn Disk, dir: &Path, options: &Options) -> Result<Found, JournalError> {
    let mut found = Found {
        segments: Segments::default(),
        live: BTreeMap::new(),
        given_up: Vec::new(),
    };
    for name in disk.list(dir).map_err(JournalError::io("list", dir))? {
        let Some(slot) = name
            .strip_suffix(".seg")
            .and_then(|slot| u64::from_str_radix(slot, 16).ok())
        else {
            continue;
        };
        found.segments.next_slot = found.segments.next_slot.max(slot + 1);
        match read_header(disk, &slot_path(dir, slot))? {
            HeaderFound::Unused => found.segments.free.push_back(slot),
            HeaderFound::OtherVersion(version) => return Err(JournalError::Version { file: name, version }),
            HeaderFound::Damaged => return Err(JournalError::DamagedHeader { file: name }),
            HeaderFound::Header(header) if header.node != options.node => {
                return Err(JournalError::WrongNode {
                    expected: options.node,
                    found: header.node,
                });
            }
            HeaderFound::Header(header) if header.live => {
                if found.live.insert(header.segment, (slot, header)).is_some() {
                    return Err(JournalError::DamagedHeader { file: name });
                }
            }
            HeaderFound::Header(header) => {
                found.given_up.push(header.segment);
                found.segments.free.push_back(slot);
            }
        }
    }
    Ok(found)
}

fn read_header(disk: &dyn Disk, path: &Path) -> Result<HeaderFound, JournalError> {
    let file = disk.open(path).map_err(JournalError::io("open", path))?;
    let mut bytes = [0; SEGMENT_HEADER_BYTES];
    // Shorter than a header: the crash came while the slot was being prepared.
    if file.len().map_err(JournalError::io("read", path))? >= SEGMENT_HEADER_BYTES as u64 {
        file.read_at(0, &mut bytes).map_err(JournalError::io("read", path))?;
    }
    Ok(SegmentHeader::decode(&bytes))
}

struct Link {
    slot: u64,
    header: SegmentHeader,
}

/// The live segments without a gap, oldest first. Segments are given up oldest first, so each number from the one that the newest
/// header calls the oldest must be accounted for: first those given up, then live ones. The owner of the records may do without some.
fn chain_of(found: &Found, replay: &mut dyn Replay) -> Result<Vec<Link>, JournalError> {
    let Some((&newest, (_, newest_header))) = found.live.last_key_value() else {
        // The newest segment is never given up.
        return match found.given_up.iter().max() {
            Some(&last) => Err(JournalError::Missing {
                segment: last.saturating_add(1),
            }),
            None => Ok(Vec::new()),
        };
    };
    let mut chain: Vec<Link> = Vec::new();
    for number in newest_header.oldest..=newest {
        match found.live.get(&number) {
            Some(&(slot, header)) => chain.push(Link { slot, header }),
            None if chain.is_empty() && found.given_up.contains(&number) => {}
            None if replay.lost(number) => {}
            None => return Err(JournalError::Missing { segment: number }),
        }
    }
    Ok(chain)
}

/// Reads the records of one segment.
struct Scan<'a> {
    window: Window<'a>,
    path: &'a Path,
    header: SegmentHeader,
    segments: &'a mut Segments,
    replay: &'a mut dyn Replay,
    /// Where the batch of the last valid record began.
    durable_below: u32,
}

impl Scan<'_> {
    /// Hands every valid record over and returns where the records end.
    fn run(&mut self, sealed_end: Option<u32>) -> Result<u32, JournalError> {
        let mut offset = SEGMENT_HEADER_BYTES as u32;
        loop {
            if sealed_end == Some(offset) {
                return Ok(offset);
            }
            if let Some(header) = self.valid_at(offset)? {
                self.hand_over(offset, header)?;
                self.durable_below = header.durable_below;
                offset = header.end(offset);
                continue;
            }
            if sealed_end.is_none() && !self.was_durable(offset)? {
                return Ok(offset);
            }
            let segment = self.header.segment;
            let next = self.next_valid(offset, sealed_end)?;
            let until = next.or(sealed_end).unwrap_or(self.window.bytes);
            if !self.replay.damaged(segment, offset..until) {
                return Err(JournalError::Damaged { segment, offset });
            }
            match next {
                Some(next) => offset = next,
                None => return Ok(sealed_end.unwrap_or(offset)),
            }
        }
    }

    fn hand_over(&mut self, offset: u32, header: RecordHeader) -> Result<(), JournalError> {
        let segment = self.header.segment;
        self.segments.note(header.group, segment);
        let location = Location {
            segment,
            generation: self.header.generation,
            offset,
            payload_bytes: header.payload_bytes,
        };
        let payload = self
            .window
            .get(offset + RECORD_HEADER_BYTES as u32, header.payload_bytes);
        let payload = payload
            .map_err(JournalError::io("read", self.path))?
            .expect("its checksum was just computed");
        let record = ReplayedRecord {
            group: header.group,
            kind: header.kind,
            payload,
            location,
        };
        self.replay.record(record).map_err(|reason| JournalError::Replay {
            segment,
            offset,
            reason: reason.to_string(),
        })
    }

    /// The header at this place, whether or not its payload is whole.
    fn header_at(&mut self, offset: u32) -> Result<Option<RecordHeader>, JournalError> {
        let limit = self.window.bytes;
        let bytes = self.window.get(offset, RECORD_HEADER_BYTES as u32);
        let bytes = bytes.map_err(JournalError::io("read", self.path))?;
        let bytes: Option<&[u8; RECORD_HEADER_BYTES]> = bytes.and_then(|bytes| bytes.try_into().ok());
        Ok(bytes.and_then(|bytes| RecordHeader::decode(bytes, self.header.generation, offset, limit)))
    }

    /// The header of the record at this place, when all of the record is valid.
    fn valid_at(&mut self, offset: u32) -> Result<Option<RecordHeader>, JournalError> {
        let Some(header) = self.header_at(offset)? else {
            return Ok(None);
        };
        let payload = self
            .window
            .get(offset + RECORD_HEADER_BYTES as u32, header.payload_bytes);
        let payload = payload.map_err(JournalError::io("read", self.path))?;
        Ok(payload
            .is_some_and(|payload| crc32c::crc32c(payload) == header.payload_crc)
            .then_some(header))
    }

    /// Whether a later record was written when this place had already become durable.
    fn was_durable(&mut self, offset: u32) -> Result<bool, JournalError> {
        let mut place = offset + RECORD_ALIGNMENT as u32;
        while place < self.window.bytes {
            if self
                .header_at(place)?
                .is_some_and(|header| header.durable_below > offset)
            {
                return Ok(true);
            }
            place += RECORD_ALIGNMENT as u32;
        }
        Ok(false)
    }

    /// The next place with a valid record.
    fn next_valid(&mut self, offset: u32, sealed_end: Option<u32>) -> Result<Option<u32>, JournalError> {
        let limit = sealed_end.unwrap_or(self.window.bytes).min(self.window.bytes);
        let mut place = offset + RECORD_ALIGNMENT as u32;
        while place < limit {
            if self.valid_at(place)?.is_some() {
                return Ok(Some(place));
            }
            place += RECORD_ALIGNMENT as u32;
        }
        Ok(None)
    }
}

/// Reads a file in large pieces.
struct Window<'a> {
    file: &'a dyn DiskFile,
    bytes: u32,
    start: u32,
    buffer: Vec<u8>,
}

impl<'a> Window<'a> {
    const PIECE_BYTES: u32 = 1024 * 1024;

    fn new(file: &'a dyn DiskFile) -> std::io::Result<Window<'a>> {
        let bytes = u32::try_from(file.len()?).unwrap_or(u32::MAX - RECORD_ALIGNMENT as u32);
        Ok(Window {
            file,
            bytes,
            start: 0,
            buffer: Vec::new(),
        })
    }

    /// These bytes of the file; `None` when it ends before.
    fn get(&mut self, offset: u32, bytes: u32) -> std::io::Result<Option<&[u8]>> {
        let Some(end) = offset.checked_add(bytes).filter(|end| *end <= self.bytes) else {
            return Ok(None);
        };
        if offset < self.start || u64::from(end) > u64::from(self.start) + self.buffer.len() as u64 {
            let piece = bytes.max(Self::PIECE_BYTES).min(self.bytes - offset);
            self.buffer.resize(piece as usize, 0);
            self.start = offset;
            self.file.read_at(u64::from(offset), &mut self.buffer)?;
        }
        let from = (offset - self.start) as usize;
        Ok(Some(&self.buffer[from..from + bytes as usize]))
    }
}
