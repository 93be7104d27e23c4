//! The bytes of one mail on their way in, within bounds.
//!
//! A mail is held in memory once, with `Return-Path: <sender>` before it. Two bounds hold: the size of one mail, and [`Room`], what
//! all LMTP sessions of this gateway hold together. Once a mail is over either bound it stores nothing more and gives back what it
//! held; the rest is still counted, so that the session can drain it and answer.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use malle_proto::limits;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Longest `Return-Path: <address>` line with its CRLF.
const RETURN_PATH_MAX_BYTES: usize = "Return-Path: <>\r\n".len() + limits::ADDRESS_MAX_BYTES;
/// Largest mail taken over LMTP, advertised as SIZE (RFC 1870): with its Return-Path it must still fit into the store's limit.
pub const RECEIVED_MAX_BYTES: usize = limits::MESSAGE_MAX_BYTES - RETURN_PATH_MAX_BYTES;
/// Room is counted in blocks of this size.
const BLOCK_BYTES: usize = 64 * 1024;

/// The memory that all mails in flight share.
#[derive(Debug, Clone)]
pub struct Room(Arc<Semaphore>);

impl Room {
    /// Room for this many bytes.
    pub fn new(bytes: usize) -> Room {
        Room(Arc::new(Semaphore::new(bytes / BLOCK_BYTES)))
    }

    /// Bytes that nobody holds.
    #[cfg(test)]
    pub fn free_bytes(&self) -> usize {
        self.0.available_permits() * BLOCK_BYTES
    }
}

/// Why a mail was not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Over [`RECEIVED_MAX_BYTES`].
    TooLarge,
    /// The gateway holds as much as it may: later.
    NoRoom,
}

/// A mail that is being received.
#[derive(Debug)]
pub struct Collector {
    bytes: BytesMut,
    return_path_bytes: usize,
    hasher: blake3::Hasher,
    received_bytes: u64,
    refusal: Option<Refusal>,
    room: Room,
    held: Option<OwnedSemaphorePermit>,
}

/// A mail that was received whole. Its room is given back when it is dropped.
#[derive(Debug)]
pub struct Collected {
    /// Return-Path and mail.
    pub bytes: Bytes,
    /// BLAKE3 of the mail as it was received, without the Return-Path.
    pub hash: blake3::Hash,
    return_path_bytes: usize,
    _held: Option<OwnedSemaphorePermit>,
}

impl Collected {
    /// The mail as it was received.
    pub fn received(&self) -> &[u8] {
        &self.bytes[self.return_path_bytes..]
    }
}

impl Collector {
    /// Nothing received yet. `sender` is a parsed path: it holds no control character.
    pub fn new(sender: &str, room: Room) -> Collector {
        let mut collector = Collector {
            bytes: BytesMut::new(),
            return_path_bytes: 0,
            hasher: blake3::Hasher::new(),
            received_bytes: 0,
            refusal: None,
            room,
            held: None,
        };
        collector.store(format!("Return-Path: <{sender}>\r\n").as_bytes());
        collector.return_path_bytes = collector.bytes.len();
        collector
    }

    /// Takes the next bytes.
    pub fn push(&mut self, piece: &[u8]) {
        self.received_bytes += piece.len() as u64;
        if self.received_bytes > RECEIVED_MAX_BYTES as u64 {
            self.refuse(Refusal::TooLarge);
        }
        if self.refusal.is_none() {
            self.hasher.update(piece);
            self.store(piece);
        }
    }

    /// Bytes taken so far, kept or not.
    pub fn received_bytes(&self) -> u64 {
        self.received_bytes
    }

    /// Why this mail is not kept, if so.
    pub fn refusal(&self) -> Option<Refusal> {
        self.refusal
    }

    /// The mail is complete.
    pub fn finish(self) -> Result<Collected, Refusal> {
        match self.refusal {
            Some(refusal) => Err(refusal),
            None => Ok(Collected {
                bytes: self.bytes.freeze(),
                hash: self.hasher.finalize(),
                return_path_bytes: self.return_path_bytes,
                _held: self.held,
            }),
        }
    }

    fn store(&mut self, piece: &[u8]) {
        let wanted = (self.bytes.len() + piece.len()).div_ceil(BLOCK_BYTES);
        let have = self.held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        if wanted > have && !self.take_room(wanted - have) {
            return self.refuse(Refusal::NoRoom);
        }
        self.bytes.extend_from_slice(piece);
    }

    fn take_room(&mut self, blocks: usize) -> bool {
        let blocks = u32::try_from(blocks).expect("a mail has fewer blocks than bytes, and those are below 2^32");
        match (Arc::clone(&self.room.0).try_acquire_many_owned(blocks), &mut self.held) {
            (Ok(more), Some(held)) => held.merge(more),
            (Ok(more), none) => *none = Some(more),
            (Err(_), _) => return false,
        }
        true
    }

    fn refuse(&mut self, refusal: Refusal) {
        // The first reason stays, except that a mail found too large will never fit, however much room there is later.
        if self.refusal.is_none() || refusal == Refusal::TooLarge {
            self.refusal = Some(refusal);
        }
        self.bytes = BytesMut::new();
        self.held = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_return_path_comes_first_and_is_not_part_of_the_hash() {
        let mut collector = Collector::new("a@b", Room::new(1 << 20));
        collector.push(b"Subject: x\r\n");
        collector.push(b"\r\nhello\r\n");
        let mail = collector.finish().unwrap();
        assert_eq!(&mail.bytes[..], b"Return-Path: <a@b>\r\nSubject: x\r\n\r\nhello\r\n");
        assert_eq!(mail.received(), b"Subject: x\r\n\r\nhello\r\n");
        assert_eq!(mail.hash, blake3::hash(mail.received()));
    }

    #[test]
    fn a_mail_over_the_limit_gives_its_memory_back_at_once() {
        let room = Room::new(128 << 20);
        let free = room.free_bytes();
        let mut collector = Collector::new("", room.clone());
        let piece = vec![b'x'; 1 << 20];
        for _ in 0..49 {
            collector.push(&piece);
        }
        assert!(room.free_bytes() < free - (49 << 20) + 1);
        for _ in 0..4 {
            collector.push(&piece);
        }
        assert_eq!(room.free_bytes(), free);
        assert_eq!(collector.received_bytes(), 53 << 20);
        assert_eq!(collector.finish().unwrap_err(), Refusal::TooLarge);
    }

    #[test]
    fn a_mail_at_the_limit_fits_into_the_store_with_the_longest_sender() {
        let mut collector = Collector::new(&"s".repeat(limits::ADDRESS_MAX_BYTES), Room::new(128 << 20));
        collector.push(&vec![b'x'; RECEIVED_MAX_BYTES]);
        assert_eq!(collector.finish().unwrap().bytes.len(), limits::MESSAGE_MAX_BYTES);
    }

    #[test]
    fn without_room_a_mail_is_refused_for_now_and_a_small_one_still_fits() {
        let room = Room::new(256 * 1024);
        let mut large = Collector::new("", room.clone());
        large.push(&vec![b'x'; 1 << 20]);
        assert_eq!(large.refusal(), Some(Refusal::NoRoom));
        let mut small = Collector::new("", room);
        small.push(b"x");
        assert!(small.finish().is_ok());
    }
}
