//! One record: its frame, its two checksums, and what makes it valid.
//!
//! The payload's checksum is computed by whoever makes the [`Record`]; the header's by the writer, which alone knows the place.
//! The byte map stands in the crate's header.

use bytes::Bytes;

use crate::segment::SEGMENT_HEADER_BYTES;

/// Length of a record's header.
pub(crate) const RECORD_HEADER_BYTES: usize = 32;
/// Records begin at multiples of this.
pub(crate) const RECORD_ALIGNMENT: usize = 8;

/// What is to be appended: a payload in parts (stored one after the other), for a group, of a kind that only the caller knows.
#[derive(Debug, Clone)]
pub struct Record {
    pub(crate) group: u64,
    pub(crate) kind: u8,
    pub(crate) parts: Vec<Bytes>,
    pub(crate) payload_bytes: usize,
    pub(crate) payload_crc: u32,
}

impl Record {
    /// Computes the payload's checksum (about 0.1 ms a MiB), so a large one is best made on the blocking pool.
    pub fn new(group: u64, kind: u8, parts: Vec<Bytes>) -> Record {
        let payload_crc = parts.iter().fold(0, |crc, part| crc32c::crc32c_append(crc, part));
        let payload_bytes = parts.iter().map(Bytes::len).sum();
        Record {
            group,
            kind,
            parts,
            payload_bytes,
            payload_crc,
        }
    }

    /// Bytes that it takes on disk.
    pub fn framed_bytes(&self) -> usize {
        framed_bytes(self.payload_bytes)
    }
}

/// Bytes that a payload takes on disk with header and padding.
pub(crate) fn framed_bytes(payload_bytes: usize) -> usize {
    (RECORD_HEADER_BYTES + payload_bytes).next_multiple_of(RECORD_ALIGNMENT)
}

/// What the header of a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    pub payload_bytes: u32,
    pub group: u64,
    pub payload_crc: u32,
    /// Everything below this offset of the segment was durable before this record was written.
    pub durable_below: u32,
    pub kind: u8,
}

impl RecordHeader {
    /// The header as it stands at `offset` of a segment of this generation.
    pub fn encode(&self, generation: u64, offset: u32) -> [u8; RECORD_HEADER_BYTES] {
        let mut bytes = [0; RECORD_HEADER_BYTES];
        bytes[4..8].copy_from_slice(&self.payload_bytes.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.group.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.payload_crc.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.durable_below.to_le_bytes());
        bytes[24] = self.kind;
        let crc = header_crc(&bytes, generation, offset);
        bytes[0..4].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The header at `offset`, or `None` when these bytes are no header written there in this generation whose record ends at or
    /// before `limit`.
    pub fn decode(bytes: &[u8; RECORD_HEADER_BYTES], generation: u64, offset: u32, limit: u32) -> Option<RecordHeader> {
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        // Cheapest test first: recovery asks this of every eighth byte behind a torn tail.
        let impossible = bytes[25..] != [0; 7] || (u32_at(20) as usize) < SEGMENT_HEADER_BYTES;
        if impossible || u32_at(0) != header_crc(bytes, generation, offset) {
            return None;
        }
        let group = u64::from_le_bytes(bytes[8..16].try_into().expect("eight bytes are eight bytes"));
        let header = RecordHeader {
            payload_bytes: u32_at(4),
            group,
            payload_crc: u32_at(16),
            durable_below: u32_at(20),
            kind: bytes[24],
        };
        let end = u64::from(offset) + framed_bytes(header.payload_bytes as usize) as u64;
        (end <= u64::from(limit) && header.durable_below <= offset).then_some(header)
    }

    /// Where the next record begins.
    pub fn end(&self, offset: u32) -> u32 {
        offset + framed_bytes(self.payload_bytes as usize) as u32
    }
}

/// Seeded with generation and offset: a record left over in a recycled segment, or moved to another place, does not pass.
fn header_crc(bytes: &[u8; RECORD_HEADER_BYTES], generation: u64, offset: u32) -> u32 {
    let mut seed = [0; 12];
    seed[..8].copy_from_slice(&generation.to_le_bytes());
    seed[8..].copy_from_slice(&offset.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c(&seed), &bytes[4..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_header_is_read_back_only_at_its_own_place_and_generation(
            payload_bytes in 0u32..100_000, group: u64, payload_crc: u32, kind: u8, place in 9u32..1_000, generation: u64,
        ) {
            let offset = place * 8;
            let header = RecordHeader { payload_bytes, group, payload_crc, durable_below: offset - 8, kind };
            let bytes = header.encode(generation, offset);
            prop_assert_eq!(RecordHeader::decode(&bytes, generation, offset, u32::MAX), Some(header));
            prop_assert_eq!(RecordHeader::decode(&bytes, generation.wrapping_add(1), offset, u32::MAX), None);
            prop_assert_eq!(RecordHeader::decode(&bytes, generation, offset + 8, u32::MAX), None);
            prop_assert_eq!(RecordHeader::decode(&bytes, generation, offset, header.end(offset) - 8), None);
        }

        #[test]
        fn a_flipped_bit_is_noticed(bit in 0usize..256, group: u64, generation: u64) {
            let header = RecordHeader { payload_bytes: 9, group, payload_crc: 7, durable_below: 64, kind: 3 };
            let mut bytes = header.encode(generation, 64);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(RecordHeader::decode(&bytes, generation, 64, u32::MAX), None);
        }
    }
}
