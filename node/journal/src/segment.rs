//! One segment: the header of its file, and which segments are live, released, free or ready.
//!
//! A file (a *slot*) keeps its name for ever; the header says which segment it holds. Segment numbers rise by one and are never
//! used twice; the generation is drawn at random for each use of a slot.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Length of a segment's header; the first record follows.
pub(crate) const SEGMENT_HEADER_BYTES: usize = 64;
const MAGIC: [u8; 8] = *b"mallejrn";
const VERSION: u16 = 1;

/// What the header of a segment file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// False once the segment has been given up: its records are dead and its slot is free.
    pub live: bool,
    pub segment: u64,
    pub generation: u64,
    pub node: u64,
    /// No segment below this was live when this one began.
    pub oldest: u64,
    /// Where the records of the segment before this one ended; 0 when there was none.
    pub previous_end: u32,
}

/// What the first bytes of a segment file are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HeaderFound {
    /// Zeros: the file was prepared and never used.
    Unused,
    /// A header.
    Header(SegmentHeader),
    /// A valid header of another format version.
    OtherVersion(u16),
    /// Something else.
    Damaged,
}

impl SegmentHeader {
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
        bytes[10] = u8::from(self.live);
        bytes[16..24].copy_from_slice(&self.segment.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.generation.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.node.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.oldest.to_le_bytes());
        bytes[48..52].copy_from_slice(&self.previous_end.to_le_bytes());
        let crc = header_crc(&bytes);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub fn decode(bytes: &[u8; SEGMENT_HEADER_BYTES]) -> HeaderFound {
        if *bytes == [0; SEGMENT_HEADER_BYTES] {
            return HeaderFound::Unused;
        }
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        if bytes[0..8] != MAGIC || u32_at(12) != header_crc(bytes) {
            return HeaderFound::Damaged;
        }
        let version = u16::from_le_bytes([bytes[8], bytes[9]]);
        if version != VERSION {
            return HeaderFound::OtherVersion(version);
        }
        HeaderFound::Header(SegmentHeader {
            live: bytes[10] == 1,
            segment: u64_at(16),
            generation: u64_at(24),
            node: u64_at(32),
            oldest: u64_at(40),
            previous_end: u32_at(48),
        })
    }
}

fn header_crc(bytes: &[u8; SEGMENT_HEADER_BYTES]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..])
}

/// A segment that holds records. Whoever reads from it keeps its `Arc`, and a segment with a reader is not given up.
#[derive(Debug)]
pub(crate) struct Segment {
    pub number: u64,
    pub generation: u64,
    /// Which file it is in.
    pub slot: u64,
    /// Where its durable records end.
    end: AtomicU32,
}

impl Segment {
    pub fn new(number: u64, generation: u64, slot: u64, end: u32) -> Segment {
        Segment {
            number,
            generation,
            slot,
            end: AtomicU32::new(end),
        }
    }

    pub fn end(&self) -> u32 {
        self.end.load(Ordering::Relaxed)
    }

    pub fn ends_at(&self, end: u32) {
        self.end.store(end, Ordering::Relaxed);
    }
}

/// All segments of a journal, and from where on each group still needs them.
#[derive(Debug, Default)]
pub(crate) struct Segments {
    /// Live segments by number; the highest is the one being written, or was before the last start.
    pub live: BTreeMap<u64, Arc<Segment>>,
    /// Slots that are ready to be used.
    pub free: VecDeque<u64>,
    /// The name for the next new slot.
    pub next_slot: u64,
    /// First segment with a live record of the group. A group without a live record is absent.
    pub floors: BTreeMap<u64, u64>,
}

impl Segments {
    /// The oldest live segment.
    pub fn oldest(&self) -> Option<u64> {
        self.live.keys().next().copied()
    }

    /// The group has a record in this segment.
    pub fn note(&mut self, group: u64, segment: u64) {
        self.floors.entry(group).or_insert(segment);
    }

    /// The group needs nothing below `segment`; above the newest segment: it needs nothing at all.
    pub fn release(&mut self, group: u64, segment: u64) {
        let newest = self.live.keys().next_back().copied().unwrap_or(0);
        if segment > newest {
            self.floors.remove(&group);
        } else if let Some(floor) = self.floors.get_mut(&group) {
            *floor = segment.max(*floor);
        }
    }

    /// The oldest segment, when no group needs it and nobody reads it. The newest stays whatever happens: it carries the numbering.
    pub fn take_dead(&mut self) -> Option<Arc<Segment>> {
        let needed = self.floors.values().min().copied().unwrap_or(u64::MAX);
        let (&number, segment) = self.live.first_key_value()?;
        if self.live.len() < 2 || number >= needed || Arc::strong_count(segment) > 1 {
            return None;
        }
        self.live.remove(&number)
    }

    /// This segment, when it is not the newest and nobody reads it; it is gone for whoever comes later.
    pub fn take_unread(&mut self, number: u64) -> Option<Arc<Segment>> {
        let newest = self.live.keys().next_back() == Some(&number);
        if newest
            || self
                .live
                .get(&number)
                .is_none_or(|segment| Arc::strong_count(segment) > 1)
        {
            return None;
        }
        self.live.remove(&number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SegmentHeader {
        SegmentHeader {
            live: true,
            segment: 7,
            generation: u64::MAX - 3,
            node: 2,
            oldest: 5,
            previous_end: 4096,
        }
    }

    #[test]
    fn a_header_is_read_back() {
        assert_eq!(SegmentHeader::decode(&header().encode()), HeaderFound::Header(header()));
        assert_eq!(SegmentHeader::decode(&[0; SEGMENT_HEADER_BYTES]), HeaderFound::Unused);
    }

    #[test]
    fn any_flipped_bit_makes_a_header_damaged() {
        for bit in 0..SEGMENT_HEADER_BYTES * 8 {
            let mut bytes = header().encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&bytes), HeaderFound::Damaged, "bit {bit}");
        }
    }

    #[test]
    fn a_header_of_another_version_is_named() {
        let mut bytes = header().encode();
        bytes[8] = 9;
        let crc = header_crc(&bytes);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&bytes), HeaderFound::OtherVersion(9));
    }

    #[test]
    fn a_segment_dies_when_every_group_is_past_it_and_nobody_reads_it() {
        let mut segments = Segments::default();
        for number in 1..=3 {
            segments
                .live
                .insert(number, Arc::new(Segment::new(number, number, number, 64)));
            segments.note(10, number);
        }
        segments.note(11, 2);
        assert!(segments.take_dead().is_none());
        segments.release(10, 3);
        let reader = Arc::clone(&segments.live[&1]);
        assert!(segments.take_dead().is_none(), "a reader pins it");
        drop(reader);
        assert_eq!(segments.take_dead().map(|dead| dead.number), Some(1));
        assert!(segments.take_dead().is_none(), "group 11 still needs segment 2");
        segments.release(11, u64::MAX);
        segments.release(10, u64::MAX);
        assert_eq!(segments.take_dead().map(|dead| dead.number), Some(2));
        assert!(segments.take_dead().is_none(), "the newest segment stays");
    }
}
