//! A checkpoint as one file, piece by piece: what a peer receives is a base.
//!
//! The blocks of all files one after the other, under one head, one trailer and one BLAKE3. Every file is checked against its own BLAKE3
//! on the way: a damaged one ends the sending before the last byte, and the peer refuses what is not whole.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use malle_journal::DiskFile;
use malle_machine::format;

use super::Checkpoint;
use super::file::{CheckpointFile, END_BYTES, HEAD_BYTES, Kind, TAIL_BYTES, bad, tail};

/// A checkpoint on its way to a peer. Every method blocks.
pub struct Sending {
    /// Files still to send, the next one last; all are open, so that a new base does not take them away.
    files: Vec<(CheckpointFile, Arc<dyn DiskFile>)>,
    /// How far the next file is sent, and its BLAKE3 up to there.
    at: u64,
    file_hasher: blake3::Hasher,
    hasher: blake3::Hasher,
    /// The first bytes, until they are sent.
    head: Option<Bytes>,
    /// The end and the trailer, until they are sent.
    trailer: Option<Vec<u8>>,
    bytes: u64,
}

impl Checkpoint {
    /// Opens every file for sending.
    ///
    /// # Errors
    /// When a file is not the one that was opened any more, or what the disk says.
    pub fn send(&self) -> io::Result<Sending> {
        let mut files = Vec::with_capacity(self.deltas.len() + 1);
        for link in self.links() {
            let file = &link.file;
            let opened = file.disk.open(&file.path)?;
            let mut id = [0; 32];
            if opened.len()? == file.bytes {
                opened.read_at(file.bytes - TAIL_BYTES as u64, &mut id)?;
            }
            if id != file.id {
                return Err(bad(&file.path, "a newer one has taken its place"));
            }
            files.push((file.clone(), opened));
        }
        files.reverse();
        let mut trailer = vec![0; END_BYTES];
        trailer.extend_from_slice(&format::encode(self.record()));
        let blocks: u64 = files.iter().map(|(file, _)| blocks_end(file) - HEAD_BYTES as u64).sum();
        Ok(Sending {
            files,
            at: 0,
            file_hasher: blake3::Hasher::new(),
            hasher: blake3::Hasher::new(),
            head: Some(Bytes::copy_from_slice(&Kind::Base.head(self.shard))),
            bytes: blocks + (HEAD_BYTES + trailer.len() + TAIL_BYTES) as u64,
            trailer: Some(trailer),
        })
    }
}

/// Where the blocks of a file end.
fn blocks_end(file: &CheckpointFile) -> u64 {
    file.trailer_at - END_BYTES as u64
}

impl Sending {
    /// Bytes of the whole.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The next piece of about this size; `None` after the last.
    ///
    /// # Errors
    /// When a file is damaged, or what the disk says.
    pub fn next(&mut self, max_bytes: usize) -> io::Result<Option<Bytes>> {
        if let Some(head) = self.head.take() {
            self.hasher.update(&head);
            return Ok(Some(head));
        }
        while let Some((file, opened)) = self.files.last() {
            if self.at == 0 {
                let mut head = [0; HEAD_BYTES];
                opened.read_at(0, &mut head)?;
                self.file_hasher.update(&head);
                self.at = HEAD_BYTES as u64;
            }
            let left = blocks_end(file) - self.at;
            if left > 0 {
                let mut piece = vec![0; max_bytes.min(left as usize)];
                opened.read_at(self.at, &mut piece)?;
                self.at += piece.len() as u64;
                self.file_hasher.update(&piece);
                self.hasher.update(&piece);
                return Ok(Some(piece.into()));
            }
            let mut rest = vec![0; (file.bytes - self.at) as usize - TAIL_BYTES];
            opened.read_at(self.at, &mut rest)?;
            self.file_hasher.update(&rest);
            if self.file_hasher.finalize().as_bytes() != &file.id {
                return Err(bad(&file.path, "the hash at its end does not match"));
            }
            self.file_hasher.reset();
            self.at = 0;
            self.files.pop();
        }
        let Some(mut end) = self.trailer.take() else {
            return Ok(None);
        };
        self.hasher.update(&end);
        let trailer_bytes = end.len() - END_BYTES;
        end.extend_from_slice(&tail(self.hasher.finalize().as_bytes(), trailer_bytes));
        Ok(Some(end.into()))
    }
}
