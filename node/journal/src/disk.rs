//! The only door to files: what a journal, a volume or a checkpoint asks of a disk, and the disk of the operating system.
//!
//! All calls block; async callers wrap them in [`malle_rt::blocking`]. [`crate::MemoryDisk`] implements the same traits with a
//! power cut that can be asked for, so a claim about durability can be tested.
//!
//! What a disk promises, and no more: bytes written are durable after `sync_data` of their file returned; a name is durable after
//! `sync_dir` of its directory returned; after a failed sync nothing is known about any byte written since the one before, and
//! nobody may ask the same file again. Before a sync, writes may reach the platter in any order, whole, in part or not at all.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// An open file.
pub trait DiskFile: Send + Sync {
    /// Fills `buffer` from `offset`; `UnexpectedEof` when the file ends before.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
    /// Writes all parts one after the other from `offset`. The slices are used up.
    fn write_at(&self, offset: u64, parts: &mut [IoSlice<'_>]) -> io::Result<()>;
    /// Reserves space so that writes below `bytes` cannot run out of it; new space reads as zeros.
    fn allocate(&self, bytes: u64) -> io::Result<()>;
    /// Cuts or extends the file.
    fn set_len(&self, bytes: u64) -> io::Result<()>;
    /// Makes the bytes, and what is needed to read them, durable.
    fn sync_data(&self) -> io::Result<()>;
    /// Makes the bytes and all metadata durable.
    fn sync_all(&self) -> io::Result<()>;
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// No bytes at all.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// Holds a lock until it is dropped.
pub trait DiskLock: Send + Sync {}

/// A disk: files by path.
pub trait Disk: Send + Sync {
    /// A new file for reading and writing; `AlreadyExists` when the name is taken.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// An existing file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Names of the files in a directory, sorted; directories in it are left out.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Gives a file another name, replacing what had it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in this directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// A directory and those above it; no error when it is there.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// Bytes that this process may still write on the disk of `path`.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;
    /// Bytes that the disk of `path` has for this process, used or not: what is kept for root is not counted.
    fn total_bytes(&self, path: &Path) -> io::Result<u64>;
    /// Takes the lock file `path` for this process; `WouldBlock` when another has it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>>;
}

/// Whether a file operation failed because the disk, or this process's part of it, is full: nothing else is wrong then.
pub fn is_out_of_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Replaces a small file so that a crash leaves the old content or the new, never a mixture; durable when it returns.
pub fn replace_file(disk: &dyn Disk, path: &Path, content: &[u8]) -> io::Result<()> {
    let dir = path
        .parent()
        .ok_or_else(|| io::Error::other("a file needs a directory"))?;
    let unfinished = path.with_extension("new");
    match disk.remove(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = disk.create(&unfinished)?;
    file.write_at(0, &mut [IoSlice::new(content)])?;
    file.sync_all()?;
    disk.rename(&unfinished, path)?;
    disk.sync_dir(dir)
}

/// The whole content of a file of at most `max_bytes`; `InvalidData` when it is longer.
pub fn read_file(disk: &dyn Disk, path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
    let file = disk.open(path)?;
    let bytes = file.len()?;
    if bytes > max_bytes {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "file is longer than it may be",
        ));
    }
    let length = usize::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    let mut content = vec![0; length];
    file.read_at(0, &mut content)?;
    Ok(content)
}

/// The operating system's files.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

struct RealFile(File);

impl DiskFile for RealFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }

    fn write_at(&self, mut offset: u64, mut parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        IoSlice::advance_slices(&mut parts, 0);
        while !parts.is_empty() {
            // Linux takes at most IOV_MAX (1024) slices at once and says EINVAL beyond.
            let some = &parts[..parts.len().min(1024)];
            match rustix::io::pwritev(&self.0, some, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    offset += written as u64;
                    IoSlice::advance_slices(&mut parts, written);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.0, rustix::fs::FallocateFlags::empty(), 0, bytes) {
            // A file system without preallocation: the length at least, so that appends change no metadata but block maps.
            Err(rustix::io::Errno::OPNOTSUPP) if self.0.metadata()?.len() < bytes => self.0.set_len(bytes),
            Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
            other => Ok(other?),
        }
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

impl DiskLock for RealFile {}

impl Disk for RealDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        Ok(Arc::new(RealFile(file)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(Arc::new(RealFile(file)))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                // A name that is not UTF-8 is none of ours.
                names.extend(entry.file_name().into_string());
            }
        }
        names.sort();
        Ok(names)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        // The names of new directories must be durable too, or a power cut takes away a synced file with its directory.
        let mut missing: Vec<&Path> = dir.ancestors().take_while(|ancestor| !ancestor.exists()).collect();
        std::fs::create_dir_all(dir)?;
        while let Some(made) = missing.pop() {
            let parent = made.parent().filter(|parent| !parent.as_os_str().is_empty());
            self.sync_dir(parent.unwrap_or(Path::new(".")))?;
        }
        Ok(())
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let answer = rustix::fs::statvfs(path)?;
        Ok(answer.f_bavail.saturating_mul(answer.f_frsize))
    }

    fn total_bytes(&self, path: &Path) -> io::Result<u64> {
        let answer = rustix::fs::statvfs(path)?;
        let used = answer.f_blocks.saturating_sub(answer.f_bfree);
        Ok(used.saturating_add(answer.f_bavail).saturating_mul(answer.f_frsize))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(RealFile(file))),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}
