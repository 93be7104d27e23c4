//! What one life of a node sees of its disk: nothing, once its power is cut. And a disk that says it synced and did not, which the
//! checkers must catch.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use malle_journal::{Disk, DiskFile, DiskLock, MemoryDisk};

/// A disk for one life: what tasks of a dead process still ask is refused, so that they change nothing that survived.
#[derive(Clone)]
pub(in crate::server) struct Plug {
    pub disk: MemoryDisk,
    pub alive: Arc<AtomicBool>,
    /// Syncs are answered and not made.
    pub lies: bool,
}

struct PluggedFile {
    file: Arc<dyn DiskFile>,
    plug: Plug,
}

impl Plug {
    fn powered(&self) -> io::Result<&MemoryDisk> {
        if self.alive.load(Ordering::SeqCst) {
            Ok(&self.disk)
        } else {
            Err(io::Error::other("no power"))
        }
    }

    fn file(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(PluggedFile {
            file,
            plug: self.clone(),
        })
    }
}

impl PluggedFile {
    fn powered(&self) -> io::Result<&dyn DiskFile> {
        self.plug.powered().map(|_| self.file.as_ref())
    }
}

impl DiskFile for PluggedFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.powered()?.read_at(offset, buffer)
    }
    fn write_at(&self, offset: u64, parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        self.powered()?.write_at(offset, parts)
    }
    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.powered()?.allocate(bytes)
    }
    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.powered()?.set_len(bytes)
    }
    fn sync_data(&self) -> io::Result<()> {
        let file = self.powered()?;
        if self.plug.lies {
            return Ok(());
        }
        file.sync_data().inspect_err(|_| {
            // The cut comes at a sync: the process ends in it, and its files with it. A sync that only fails leaves them.
            if file.len().is_err() {
                self.plug.alive.store(false, Ordering::SeqCst);
            }
        })
    }
    fn sync_all(&self) -> io::Result<()> {
        self.powered()?.sync_all()
    }
    fn len(&self) -> io::Result<u64> {
        self.powered()?.len()
    }
}

impl Disk for Plug {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(self.powered()?.create(path)?))
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(self.powered()?.open(path)?))
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.powered()?.list(dir)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.powered()?.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.powered()?.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.powered()?.sync_dir(dir)
    }
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.powered()?.create_dir_all(dir)
    }
    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.powered()?.free_bytes(path)
    }
    fn total_bytes(&self, path: &Path) -> io::Result<u64> {
        self.powered()?.total_bytes(path)
    }
    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        self.powered()?.lock(path)
    }
}
