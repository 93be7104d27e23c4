//! One file of a checkpoint, checked from end to end. Base, delta and list of changed keys have the same form.
//!
//! ```text
//! head     magic of its kind, version u16, 0 u16, shard u32, crc32c u32 of the 12 bytes before      16 bytes, little-endian like all below
//! block*   stored length u32, raw length u32, crc32c u32 of the stored bytes, zstd bytes
//! end      0 u32
//! trailer  the record of its kind in its envelope
//! tail     BLAKE3 of everything before (32 bytes), length of the trailer u32, "MLCE"
//! ```
//!
//! A block is a run of changes: key length u32, key, value length u32 (0xFFFFFFFF removes), value. Changes are applied in order. The
//! BLAKE3 is also the file's identity: it is how a delta names what it follows.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use malle_journal::{Disk, DiskFile};
use malle_machine::format::{self, Record};
use malle_proto::ShardId;

const TAIL_MAGIC: [u8; 4] = *b"MLCE";
const VERSION: u16 = 1;
pub(super) const HEAD_BYTES: usize = 16;
pub(super) const TAIL_BYTES: usize = 40;
/// The 0 where a block would begin.
pub(super) const END_BYTES: usize = 4;
/// Raw bytes of a block: large enough to compress well, small enough to hold.
const BLOCK_BYTES: usize = 256 * 1024;
/// Largest raw block that a reader believes: one block and the largest row that may follow it.
const BLOCK_MAX_BYTES: usize = BLOCK_BYTES + 8 * 1024 * 1024;
/// zstd level: rows compress well at the fastest one.
const LEVEL: i32 = 1;
const REMOVED: u32 = u32::MAX;

/// Identity of a file: the BLAKE3 at its end.
pub(super) type FileId = [u8; 32];

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Every row.
    Base,
    /// The rows that changed since the file before it.
    Delta,
    /// Only the keys that changed since the checkpoint, as a clean stop leaves them.
    Keys,
}

impl Kind {
    fn magic(self) -> [u8; 4] {
        match self {
            Kind::Base => *b"MLCK",
            Kind::Delta => *b"MLCD",
            Kind::Keys => *b"MLCC",
        }
    }

    /// The first bytes of a file.
    pub fn head(self, shard: ShardId) -> [u8; HEAD_BYTES] {
        let mut head = [0; HEAD_BYTES];
        head[..4].copy_from_slice(&self.magic());
        head[4..6].copy_from_slice(&VERSION.to_le_bytes());
        head[8..12].copy_from_slice(&shard.0.to_le_bytes());
        let crc = crc32c::crc32c(&head[..12]);
        head[12..].copy_from_slice(&crc.to_le_bytes());
        head
    }
}

/// The last bytes of a file.
pub(super) fn tail(id: &FileId, trailer_bytes: usize) -> Vec<u8> {
    let mut tail = id.to_vec();
    tail.extend_from_slice(&(trailer_bytes as u32).to_le_bytes());
    tail.extend_from_slice(&TAIL_MAGIC);
    tail
}

/// A file on disk.
#[derive(Clone)]
pub(super) struct CheckpointFile {
    pub disk: Arc<dyn Disk>,
    pub path: PathBuf,
    pub id: FileId,
    /// Length of the file.
    pub bytes: u64,
    /// Where the trailer begins.
    pub trailer_at: u64,
}

impl std::fmt::Debug for CheckpointFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {} bytes", self.path.display(), self.bytes)
    }
}

/// `InvalidData`: the file at `path` is not what it should be.
pub(super) fn bad(path: &Path, what: impl std::fmt::Display) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("checkpoint {}: {what}", path.display()),
    )
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Receives a change of a file; `None` removes a row that came before.
pub(super) type ChangeVisitor<'v> = dyn FnMut(Vec<u8>, Option<Bytes>) -> io::Result<()> + 'v;

impl CheckpointFile {
    /// Opens the file and reads its head and trailer; the rows are checked by [`CheckpointFile::verify`]. Blocks.
    ///
    /// # Errors
    /// `NotFound`, or `InvalidData` with the reason.
    pub fn open<R: Record>(
        disk: &Arc<dyn Disk>,
        path: &Path,
        kind: Kind,
        shard: ShardId,
    ) -> io::Result<(CheckpointFile, R)> {
        let file = disk.open(path)?;
        let bytes = file.len()?;
        if bytes < (HEAD_BYTES + END_BYTES + TAIL_BYTES) as u64 {
            return Err(bad(path, "too short"));
        }
        let mut head = [0; HEAD_BYTES];
        file.read_at(0, &mut head)?;
        if head[..4] != kind.magic() || u32_at(&head, 12) != crc32c::crc32c(&head[..12]) {
            return Err(bad(path, format!("is no {kind:?}")));
        }
        let version = u16::from_le_bytes([head[4], head[5]]);
        if version != VERSION {
            return Err(bad(path, format!("version {version} is unknown here")));
        }
        if u32_at(&head, 8) != shard.0 {
            return Err(bad(path, format!("is of shard {}, not {shard}", u32_at(&head, 8))));
        }
        let mut tail = [0; TAIL_BYTES];
        file.read_at(bytes - TAIL_BYTES as u64, &mut tail)?;
        let length = u64::from(u32_at(&tail, 32));
        if tail[36..] != TAIL_MAGIC || length > bytes - (HEAD_BYTES + END_BYTES + TAIL_BYTES) as u64 {
            return Err(bad(path, "is not whole"));
        }
        let trailer_at = bytes - TAIL_BYTES as u64 - length;
        let mut trailer = vec![0; length as usize];
        file.read_at(trailer_at, &mut trailer)?;
        let record = format::decode(&trailer).map_err(|error| bad(path, error))?;
        let mut id = [0; 32];
        id.copy_from_slice(&tail[..32]);
        let file = CheckpointFile {
            disk: disk.clone(),
            path: path.to_owned(),
            id,
            bytes,
            trailer_at,
        };
        Ok((file, record))
    }

    /// Checks every byte against the BLAKE3 at the end. Blocks.
    ///
    /// # Errors
    /// `InvalidData` when they do not agree.
    pub fn verify(&self) -> io::Result<()> {
        let file = self.disk.open(&self.path)?;
        let mut hasher = blake3::Hasher::new();
        let end = self.bytes - TAIL_BYTES as u64;
        let mut buffer = vec![0; BLOCK_BYTES];
        let mut at = 0;
        while at < end {
            let length = BLOCK_BYTES.min((end - at) as usize);
            file.read_at(at, &mut buffer[..length])?;
            hasher.update(&buffer[..length]);
            at += length as u64;
        }
        let mut hash = [0; 32];
        file.read_at(end, &mut hash)?;
        if hasher.finalize().as_bytes() != &hash || hash != self.id {
            return Err(bad(&self.path, "the hash at its end does not match"));
        }
        Ok(())
    }

    /// Whether the file that was opened is still the one under its name. Blocks.
    ///
    /// # Errors
    /// `NotFound`, or what the disk says.
    pub fn is_in_place(&self) -> io::Result<bool> {
        let file = self.disk.open(&self.path)?;
        let mut hash = [0; 32];
        let end = self.bytes - TAIL_BYTES as u64;
        if file.len()? != self.bytes {
            return Ok(false);
        }
        file.read_at(end, &mut hash)?;
        Ok(hash == self.id)
    }

    /// Visits every change in order. Blocks.
    ///
    /// # Errors
    /// `InvalidData`, or what the visitor says.
    pub fn changes(&self, visit: &mut ChangeVisitor<'_>) -> io::Result<()> {
        let file = self.disk.open(&self.path)?;
        let mut at = HEAD_BYTES as u64;
        loop {
            let mut length = [0; 4];
            file.read_at(at, &mut length)?;
            let stored = u32::from_le_bytes(length) as usize;
            if stored == 0 {
                return Ok(());
            }
            if at + 12 + stored as u64 > self.trailer_at || stored > BLOCK_MAX_BYTES {
                return Err(bad(&self.path, "a block is longer than the file"));
            }
            let mut block = vec![0; 12 + stored];
            file.read_at(at, &mut block)?;
            if crc32c::crc32c(&block[12..]) != u32_at(&block, 8) || u32_at(&block, 4) as usize > BLOCK_MAX_BYTES {
                return Err(bad(&self.path, format!("the block at {at} is damaged")));
            }
            let raw = zstd::bulk::decompress(&block[12..], u32_at(&block, 4) as usize)?;
            self.changes_of(&raw, visit)?;
            at += block.len() as u64;
        }
    }

    fn changes_of(&self, raw: &[u8], visit: &mut ChangeVisitor<'_>) -> io::Result<()> {
        let mut rest = raw;
        let mut take = |length: usize| -> io::Result<&[u8]> {
            if rest.len() < length {
                return Err(bad(&self.path, "a row is cut short"));
            }
            let (taken, left) = rest.split_at(length);
            rest = left;
            Ok(taken)
        };
        let mut left = raw.len();
        while left > 0 {
            let key_length = u32_at(take(4)?, 0) as usize;
            let key = take(key_length)?.to_vec();
            let value_length = u32_at(take(4)?, 0);
            left -= 8 + key_length;
            if value_length == REMOVED {
                visit(key, None)?;
                continue;
            }
            let value = Bytes::copy_from_slice(take(value_length as usize)?);
            left -= value_length as usize;
            visit(key, Some(value))?;
        }
        Ok(())
    }

    /// Gives the file its name for good, durably. Blocks.
    ///
    /// # Errors
    /// What the disk says: which of the two files has the name is not known then.
    pub fn rename(&mut self, dir: &Path, name: &str) -> io::Result<()> {
        let path = dir.join(name);
        self.disk.rename(&self.path, &path)?;
        self.path = path;
        self.disk.sync_dir(dir)
    }
}

/// Writes a file. Every method blocks.
pub(super) struct Writer {
    disk: Arc<dyn Disk>,
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    at: u64,
    hasher: blake3::Hasher,
    block: Vec<u8>,
    /// Changes written so far.
    pub changes: u64,
}

impl Writer {
    /// Begins a file at `path`.
    ///
    /// # Errors
    /// What the disk says.
    pub fn create(disk: &Arc<dyn Disk>, path: &Path, kind: Kind, shard: ShardId) -> io::Result<Writer> {
        match disk.remove(path) {
            // What a crash left of an earlier one.
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = disk.create(path)?;
        let mut writer = Writer {
            disk: disk.clone(),
            file,
            path: path.to_owned(),
            at: 0,
            hasher: blake3::Hasher::new(),
            block: Vec::with_capacity(BLOCK_BYTES + 4096),
            changes: 0,
        };
        writer.write(&kind.head(shard))?;
        Ok(writer)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(self.at, &mut [IoSlice::new(bytes)])?;
        self.hasher.update(bytes);
        self.at += bytes.len() as u64;
        Ok(())
    }

    /// One change.
    ///
    /// # Errors
    /// What the disk says.
    pub fn change(&mut self, key: &[u8], value: Option<&[u8]>) -> io::Result<()> {
        self.changes += 1;
        self.block.extend_from_slice(&(key.len() as u32).to_le_bytes());
        self.block.extend_from_slice(key);
        match value {
            None => self.block.extend_from_slice(&REMOVED.to_le_bytes()),
            Some(value) => {
                self.block.extend_from_slice(&(value.len() as u32).to_le_bytes());
                self.block.extend_from_slice(value);
            }
        }
        if self.block.len() >= BLOCK_BYTES {
            self.end_block()
        } else {
            Ok(())
        }
    }

    fn end_block(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let stored = zstd::bulk::compress(&self.block, LEVEL)?;
        let mut out = Vec::with_capacity(12 + stored.len());
        out.extend_from_slice(&(stored.len() as u32).to_le_bytes());
        out.extend_from_slice(&(self.block.len() as u32).to_le_bytes());
        out.extend_from_slice(&crc32c::crc32c(&stored).to_le_bytes());
        out.extend_from_slice(&stored);
        self.block.clear();
        self.write(&out)
    }

    /// Ends the file and makes its bytes durable under the name it was begun with.
    ///
    /// # Errors
    /// What the disk says; the file is then worth nothing.
    pub fn finish<R: Record>(mut self, record: &R) -> io::Result<CheckpointFile> {
        self.end_block()?;
        self.write(&[0; END_BYTES])?;
        let trailer_at = self.at;
        let trailer = format::encode(record);
        self.write(&trailer)?;
        let id = *self.hasher.finalize().as_bytes();
        let tail = tail(&id, trailer.len());
        self.file.write_at(self.at, &mut [IoSlice::new(&tail)])?;
        self.file.sync_all()?;
        Ok(CheckpointFile {
            disk: self.disk,
            path: self.path,
            id,
            bytes: self.at + TAIL_BYTES as u64,
            trailer_at,
        })
    }
}
