//! What the handles, the writer and the completions of a journal share: its disk, its segments, its failure, its counters.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{Notify, Semaphore, watch};

use crate::Options;
use crate::disk::{Disk, DiskFile, DiskLock, is_out_of_space};
use crate::error::JournalError;
use crate::segment::Segments;
use crate::sync_times::SyncClock;

/// Files of segments that are kept open for readers: more would cost descriptors, fewer an `open` per read.
const OPEN_FILES_MAX: usize = 128;

#[derive(Default)]
pub(crate) struct Counters {
    pub bytes_written: AtomicU64,
    pub records: AtomicU64,
    pub sync_times: SyncClock,
}

/// What the handles, the writer and the completions share.
pub(crate) struct Shared {
    pub disk: Arc<dyn Disk>,
    pub dir: PathBuf,
    pub options: Options,
    pub segments: Mutex<Segments>,
    /// Open files by slot, the latest used last.
    files: Mutex<VecDeque<(u64, Arc<dyn DiskFile>)>>,
    pub room: Arc<Semaphore>,
    pub failed: watch::Sender<Option<String>>,
    /// The last segment that was needed found no room.
    pub full: AtomicBool,
    /// A segment may have come free.
    pub room_made: Notify,
    pub counters: Counters,
    /// Given back when the writer has ended, and whoever else still works on the files.
    lock: Mutex<Option<Arc<dyn DiskLock>>>,
}

impl Shared {
    /// Of a journal whose segments have been recovered.
    pub fn new(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: Options,
        segments: Segments,
        lock: Box<dyn DiskLock>,
    ) -> Arc<Shared> {
        let room = Arc::new(Semaphore::new(options.in_flight_max_bytes));
        Arc::new(Shared {
            disk,
            dir: dir.to_owned(),
            options,
            segments: Mutex::new(segments),
            files: Mutex::default(),
            room,
            failed: watch::Sender::new(None),
            full: AtomicBool::new(false),
            room_made: Notify::new(),
            counters: Counters::default(),
            lock: Mutex::new(Some(Arc::from(lock))),
        })
    }

    pub fn segments(&self) -> MutexGuard<'_, Segments> {
        self.segments.lock().expect("no holder of this lock panics")
    }

    /// Stops the journal for good; only the first reason counts.
    pub fn fail(&self, reason: &str) {
        let first = self.failed.send_if_modified(|failed| {
            let first = failed.is_none();
            failed.get_or_insert_with(|| reason.to_owned());
            first
        });
        if first {
            self.room.close();
        }
    }

    /// Nothing of this journal writes any more: the directory may be opened again.
    pub fn unlock(&self) {
        self.lock.lock().expect("no holder of this lock panics").take();
    }

    /// Keeps the directory this journal's as long as it is held; `None` once the journal has ended.
    pub fn hold(&self) -> Option<Arc<dyn DiskLock>> {
        self.lock.lock().expect("no holder of this lock panics").clone()
    }

    /// The error of everything that comes after the stop.
    pub fn stopped(&self) -> JournalError {
        let reason = self.failed.borrow().clone();
        JournalError::Failed {
            reason: reason.unwrap_or_else(|| "the caller went away".to_owned()),
        }
    }

    /// The file of a slot, opened at most once while it is in use often.
    pub fn file(&self, slot: u64) -> Result<Arc<dyn DiskFile>, JournalError> {
        let mut files = self.files.lock().expect("no holder of this lock panics");
        if let Some(place) = files.iter().position(|(open, _)| *open == slot) {
            let entry = files.remove(place).expect("the place was just found");
            let file = Arc::clone(&entry.1);
            files.push_back(entry);
            return Ok(file);
        }
        let path = slot_path(&self.dir, slot);
        let file = self.disk.open(&path).map_err(JournalError::io("open", &path))?;
        files.push_back((slot, Arc::clone(&file)));
        if files.len() > OPEN_FILES_MAX {
            files.pop_front();
        }
        Ok(file)
    }

    /// Closes the file of a slot as soon as the last reader has done with it.
    pub fn close_file(&self, slot: u64) {
        let mut files = self.files.lock().expect("no holder of this lock panics");
        files.retain(|(open, _)| *open != slot);
    }

    /// Prepares slots up to the wanted numbers, and finishes those whose preparation a crash cut off. What finds no room is left for later:
    /// a journal on a full disk opens.
    pub fn fill_pool(&self) -> Result<(), JournalError> {
        match self.complete_free_slots().and_then(|()| self.prepare_more_slots()) {
            Err(JournalError::Full) => {
                tracing::warn!(dir = %self.dir.display(), "the disk has no room for the segments that should lie ready");
                Ok(())
            }
            other => other,
        }
    }

    fn complete_free_slots(&self) -> Result<(), JournalError> {
        let free = std::mem::take(&mut self.segments().free);
        for slot in free {
            let path = slot_path(&self.dir, slot);
            let file = self.file(slot)?;
            match file.allocate(self.options.segment_bytes).and_then(|()| file.sync_all()) {
                Ok(()) => self.segments().free.push_back(slot),
                // It stays where it is, for a start that finds room: its header may still say which segment was given up.
                Err(error) if is_out_of_space(&error) => {
                    tracing::warn!(file = %path.display(), "the disk has no room for all of a free segment");
                }
                Err(error) => return Err(JournalError::io("allocate", &path)(error)),
            }
        }
        Ok(())
    }

    fn prepare_more_slots(&self) -> Result<(), JournalError> {
        let (free, live) = {
            let segments = self.segments();
            (segments.free.len(), segments.live.len())
        };
        let for_pool = self.options.pool.saturating_sub(free + live);
        let for_reserve = self.options.reserve.saturating_sub(free + for_pool);
        for number in 0..for_pool + for_reserve {
            let slot = prepare_slot(self, number < for_pool)?;
            self.segments().free.push_back(slot);
        }
        Ok(())
    }
}

/// Makes a file ready to become a segment: allocated, its name and its space durable. Writing zeros turns unwritten extents into
/// written ones, which makes each later sync cheaper, and costs every byte twice: only for the first pool.
///
/// # Errors
/// `Full` when the disk has no room: nothing of the file is left then.
pub(crate) fn prepare_slot(shared: &Shared, write_zeros: bool) -> Result<u64, JournalError> {
    let slot = {
        let mut segments = shared.segments();
        segments.next_slot += 1;
        segments.next_slot - 1
    };
    let path = slot_path(&shared.dir, slot);
    let bytes = shared.options.segment_bytes;
    let prepare = || {
        let file = shared.disk.create(&path)?;
        file.allocate(bytes)?;
        if write_zeros {
            let zeros = vec![0; 1 << 20];
            for offset in (0..bytes).step_by(zeros.len()) {
                let some = (bytes - offset).min(zeros.len() as u64) as usize;
                file.write_at(offset, &mut [IoSlice::new(&zeros[..some])])?;
            }
        }
        file.sync_all()?;
        shared.disk.sync_dir(&shared.dir)
    };
    match prepare() {
        Ok(()) => Ok(slot),
        Err(error) => {
            // What was allocated before it failed would stay taken. When the disk does not remove it either, the next start finds it unused.
            let _ = shared.disk.remove(&path);
            Err(match is_out_of_space(&error) {
                true => JournalError::Full,
                false => JournalError::io("prepare", &path)(error),
            })
        }
    }
}

/// Path of a segment file.
pub(crate) fn slot_path(dir: &Path, slot: u64) -> PathBuf {
    dir.join(format!("{slot:08x}.seg"))
}
