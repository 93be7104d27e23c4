//! A segmented append-only journal with group commit. It knows nothing of Raft or mail: it keeps records of groups, in one order.
//!
//! Two uses: the raft log that all groups of a disk share ([`Mode::Recycle`]: dead segments are used again) and body volumes
//! ([`Mode::Keep`]: they stay). Enter at [`Journal::open`], which replays, then [`Journal::submit`] and [`Journal::read`].
//!
//! What it promises: a record whose completion said `Ok` is there after any crash, at its location, in the order of all submits;
//! nothing is replayed that was not submitted; what was durable and cannot be read stops the start (or, where the caller says so, is
//! named and skipped); after the first failed write or sync nothing is acknowledged ever again.
//!
//! A full disk is no failure. Space is asked for when a segment is prepared, never by a write. Volumes refuse a record that finds no
//! segment ([`JournalError::Full`]), and the next one tries again. A log must not have holes, so it waits, in its order, until a segment is
//! released or there is room; [`Options::reserve`] segments lie ready for that time.
//!
//! What it must never do: retry a sync, wait for a timer while there is room, block a caller's thread on the disk, hold more than
//! `Options::in_flight_max_bytes`.
//!
//! The writer is one task; its file work goes through [`malle_rt::blocking`], so that a simulated runtime can drive it. That hop
//! costs about 25 us a batch (unoptimised, 2 cores), beside a sync that takes 150 us and more.
//!
//! # Byte map (format version 1, little endian)
//!
//! A directory holds `lock` and segment files `<slot, 8 or more hex digits>.seg`; a file keeps its name and is used again.
//!
//! | segment header | bytes | |
//! |---|---|---|
//! | 0 | 8 | magic `mallejrn` |
//! | 8 | 2 | format version, 1 |
//! | 10 | 1 | 1 live, 0 given up (its records are dead, its slot is free) |
//! | 11 | 1 | 0 |
//! | 12 | 4 | CRC-32C of bytes 0-11 and 16-63 |
//! | 16 | 8 | segment number: from 1, rising by one, never used twice |
//! | 24 | 8 | generation: random, new for each use of the file |
//! | 32 | 8 | node id |
//! | 40 | 8 | the oldest segment that was live when this one began |
//! | 48 | 4 | where the records of the segment before it ended |
//! | 52 | 12 | 0 |
//!
//! An unused slot has 64 zeros instead. Records follow from byte 64, each at a multiple of 8, padded with zeros.
//!
//! | record | bytes | |
//! |---|---|---|
//! | 0 | 4 | CRC-32C of generation (8), offset of the record in the segment (4), and bytes 4-31 |
//! | 4 | 4 | length of the payload |
//! | 8 | 8 | group |
//! | 16 | 4 | CRC-32C of the payload |
//! | 20 | 4 | everything below this offset of the segment was durable before this record was written |
//! | 24 | 1 | kind, the caller's |
//! | 25 | 7 | 0 |
//! | 32 | | payload |

pub mod controls;
mod discard;
mod disk;
mod error;
mod memory_disk;
mod record;
mod recover;
mod segment;
mod shared;
mod sync_times;
mod writer;

#[cfg(test)]
mod tests;

use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};

pub use discard::KeptSegment;
pub use disk::{Disk, DiskFile, DiskLock, RealDisk, is_out_of_space, read_file, replace_file};
pub use error::JournalError;
pub use memory_disk::{MemoryDisk, Pace};
pub use record::Record;
pub use recover::{Replay, ReplayRefusal, ReplayedRecord, SealedSegment};
pub use sync_times::SyncTimes;

use record::{RECORD_HEADER_BYTES, RecordHeader};
use segment::{SEGMENT_HEADER_BYTES, Segment};
use shared::{Shared, slot_path};
use writer::{Completion, Queued, Writer};

/// What becomes of segments that nobody needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// They are used again: a log.
    Recycle,
    /// They stay until their owner gives one up ([`Journal::discard`]): volumes. A segment that is full is cut to its length.
    Keep,
}

/// When a submit is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// As soon as it is durable; it causes a sync.
    Sync,
    /// When something else has caused a sync. It is held in memory until then: a crash loses it, and so does a kill.
    Ride,
}

/// How a journal is set up. The bounds are the caller's (`malle_proto::limits`).
#[derive(Debug, Clone)]
pub struct Options {
    /// Length of a segment file; a multiple of 8 below 4 GiB. May change between starts: it holds for new segments.
    pub segment_bytes: u64,
    /// The node that owns the files.
    pub node: u64,
    /// What becomes of segments that nobody needs.
    pub mode: Mode,
    /// Segments that are written with zeros at the first start, so that the steady state begins at once. Keep: 0 will do.
    pub pool: usize,
    /// Segments that lie ready besides the one that is written, as far as the disk has room: what a log lives on when it has none.
    pub reserve: usize,
    /// What one write and one sync take.
    pub batch_max_bytes: usize,
    /// What may wait and be written at one time; below 4 GiB. A larger record may, alone.
    pub in_flight_max_bytes: usize,
}

impl Options {
    /// Payload of the largest record.
    fn record_max_bytes(&self) -> usize {
        self.segment_bytes as usize - SEGMENT_HEADER_BYTES - RECORD_HEADER_BYTES
    }

    fn validate(&self) -> Result<(), JournalError> {
        let smallest = (SEGMENT_HEADER_BYTES + RECORD_HEADER_BYTES + 8) as u64;
        if !(smallest..u64::from(u32::MAX)).contains(&self.segment_bytes) || !self.segment_bytes.is_multiple_of(8) {
            return Err(JournalError::Options(
                "segment_bytes must be a multiple of 8 from 104 to 4 GiB",
            ));
        }
        if !(1..u32::MAX as usize).contains(&self.in_flight_max_bytes) || self.batch_max_bytes == 0 {
            return Err(JournalError::Options(
                "in_flight_max_bytes and batch_max_bytes must be from 1 to 4 GiB",
            ));
        }
        Ok(())
    }
}

/// Where a record stands. It stays valid until its segment is recycled or given up; from then on reading says [`JournalError::Gone`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location {
    /// Number of the segment: later records have an equal or higher one.
    pub segment: u64,
    /// Generation of the segment.
    pub generation: u64,
    /// Where the record begins.
    pub offset: u32,
    /// Length of its payload.
    pub payload_bytes: u32,
}

impl Location {
    /// Bytes that the record takes on disk with its header and padding.
    pub fn framed_bytes(&self) -> u64 {
        record::framed_bytes(self.payload_bytes as usize) as u64
    }
}

/// A journal. Clones are the same journal; when the last is gone, what waits is written and the directory is free again.
#[derive(Clone)]
pub struct Journal {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    /// Absent once the journal is closed.
    queue: Mutex<Option<mpsc::UnboundedSender<Queued>>>,
    ended: watch::Receiver<bool>,
}

impl Journal {
    /// Opens the journal in `dir`, replaying every record in order. Blocks on files, and must be called within the runtime, where it
    /// starts the writer.
    ///
    /// Groups that were replayed hold their segments until [`Journal::release`].
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: Options,
        replay: &mut dyn Replay,
    ) -> Result<Journal, JournalError> {
        options.validate()?;
        disk.create_dir_all(dir).map_err(JournalError::io("create", dir))?;
        let lock = disk.lock(&dir.join("lock")).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => JournalError::Locked { dir: dir.to_owned() },
            _ => JournalError::io("lock", dir)(error),
        })?;
        let recovered = recover::recover(&*disk, dir, &options, replay)?;
        // Slots that a killed process made may stand in the page cache alone.
        disk.sync_dir(dir).map_err(JournalError::io("sync", dir))?;
        let newest = recovered.segments.live.keys().next_back().copied().unwrap_or(0);
        let shared = Shared::new(disk, dir, options, recovered.segments, lock);
        shared.fill_pool()?;
        let (sender, queue) = mpsc::unbounded_channel();
        let (ended_tell, ended) = watch::channel(false);
        let writer = Writer::new(Arc::clone(&shared), queue, newest, recovered.end, ended_tell);
        malle_rt::spawn(writer.run());
        Ok(Journal {
            inner: Arc::new(Inner {
                shared,
                queue: Mutex::new(Some(sender)),
                ended,
            }),
        })
    }

    /// Appends a record once there is room for it among the bytes in flight. Records reach the disk in the order in which these
    /// futures get done; a caller that needs an order waits for one before it begins the next.
    ///
    /// `done` is called exactly once, on the writer's task, in the order of the disk: it must neither block nor panic. It is also
    /// called when the record is refused, and when this future is dropped before it is done.
    pub async fn submit(
        &self,
        record: Record,
        durability: Durability,
        done: impl FnOnce(Result<Location, JournalError>) + Send + 'static,
    ) {
        let shared = &self.inner.shared;
        let completion = Completion::new(Box::new(done), Arc::clone(shared));
        if let Err(error) = self.accepts(&record) {
            return completion.finish(Err(error));
        }
        if let Ok(room) = Arc::clone(&shared.room)
            .acquire_many_owned(self.share_of(&record))
            .await
        {
            self.enqueue(Queued {
                record,
                durability,
                completion,
                room: Some(room),
            });
        }
    }

    /// Like [`Journal::submit`], but refuses at once when there is no room: `done` is then not called.
    pub fn try_submit(
        &self,
        record: Record,
        durability: Durability,
        done: impl FnOnce(Result<Location, JournalError>) + Send + 'static,
    ) -> Result<(), JournalError> {
        let shared = &self.inner.shared;
        let completion = Completion::new(Box::new(done), Arc::clone(shared));
        if let Err(error) = self.accepts(&record) {
            completion.finish(Err(error));
            return Ok(());
        }
        match Arc::clone(&shared.room).try_acquire_many_owned(self.share_of(&record)) {
            Ok(room) => self.enqueue(Queued {
                record,
                durability,
                completion,
                room: Some(room),
            }),
            Err(tokio::sync::TryAcquireError::Closed) => {}
            Err(tokio::sync::TryAcquireError::NoPermits) => {
                completion.forget();
                return Err(JournalError::Busy);
            }
        }
        Ok(())
    }

    /// Appends a record and waits until it is durable.
    pub async fn append(&self, record: Record) -> Result<Location, JournalError> {
        let (tell, told) = oneshot::channel();
        let done = move |outcome| {
            // A caller that went away wants no answer.
            let _ = tell.send(outcome);
        };
        self.submit(record, Durability::Sync, done).await;
        told.await.unwrap_or_else(|_| Err(self.inner.shared.stopped()))
    }

    /// The payload of a record, its checksums verified. The segment is not recycled while it is being read.
    pub async fn read(&self, location: Location) -> Result<Bytes, JournalError> {
        let journal = self.clone();
        malle_rt::blocking(move || journal.read_blocking(location)).await
    }

    /// [`Journal::read`] for callers that are on the blocking pool already.
    pub fn read_blocking(&self, location: Location) -> Result<Bytes, JournalError> {
        let shared = &self.inner.shared;
        let Location {
            segment,
            generation,
            offset,
            payload_bytes,
        } = location;
        let pin: Option<Arc<Segment>> = shared.segments().live.get(&segment).cloned();
        let Some(pin) = pin.filter(|pin| pin.generation == generation) else {
            return Err(JournalError::Gone { segment });
        };
        let corrupt = || JournalError::Corrupt { segment, offset };
        let file = shared.file(pin.slot)?;
        let mut bytes = vec![0; RECORD_HEADER_BYTES + payload_bytes as usize];
        file.read_at(u64::from(offset), &mut bytes)
            .map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => corrupt(),
                _ => JournalError::io("read", &slot_path(&shared.dir, pin.slot))(error),
            })?;
        let header: &[u8; RECORD_HEADER_BYTES] = bytes.first_chunk().expect("the buffer was made longer than a header");
        let header = RecordHeader::decode(header, generation, offset, u32::MAX).ok_or_else(corrupt)?;
        let payload = Bytes::from(bytes).split_off(RECORD_HEADER_BYTES);
        let matches =
            crc32c::crc32c(&payload) == header.payload_crc || controls::is_on(controls::Control::SkipChecksum);
        if header.payload_bytes != payload_bytes || !matches {
            return Err(corrupt());
        }
        Ok(payload)
    }

    /// The group needs no record in segments below `segment` any more; `u64::MAX`: none at all (it was dropped). Call that only after
    /// the completion of the group's last record. Slots are freed at the next rotation.
    ///
    /// This is not remembered across a restart: what was not yet used again is replayed.
    pub fn release(&self, group: u64, segment: u64) {
        self.inner.shared.segments().release(group, segment);
        self.inner.shared.room_made.notify_one();
    }

    /// The oldest segment that is kept; `None` before the first record.
    pub fn oldest_live_segment(&self) -> Option<u64> {
        self.inner.shared.segments().oldest()
    }

    /// The last segment that was needed found no room on the disk: volumes refuse records, a log waits.
    pub fn is_full(&self) -> bool {
        self.inner.shared.full.load(Ordering::Relaxed)
    }

    /// Number of live segments: what to watch, and to ask laggards for a checkpoint by.
    pub fn live_segments(&self) -> usize {
        self.inner.shared.segments().live.len()
    }

    /// The oldest segment that each group needs, the laggards first.
    pub fn pinned_by(&self) -> Vec<(u64, u64)> {
        let mut pins: Vec<(u64, u64)> = self
            .inner
            .shared
            .segments()
            .floors
            .iter()
            .map(|(&group, &segment)| (group, segment))
            .collect();
        pins.sort_by_key(|&(group, segment)| (segment, group));
        pins
    }

    /// Bytes of all writes since the start, headers and padding included.
    pub fn bytes_written(&self) -> u64 {
        self.inner.shared.counters.bytes_written.load(Ordering::Relaxed)
    }

    /// Records written since the start.
    pub fn records(&self) -> u64 {
        self.inner.shared.counters.records.load(Ordering::Relaxed)
    }

    /// Syncs of batches since the start.
    pub fn syncs(&self) -> u64 {
        self.sync_times().count()
    }

    /// How long those syncs took.
    pub fn sync_times(&self) -> SyncTimes {
        self.inner.shared.counters.sync_times.read()
    }

    /// Becomes the reason when the journal stops for good; also when it is closed.
    pub fn failed(&self) -> watch::Receiver<Option<String>> {
        self.inner.shared.failed.subscribe()
    }

    /// Writes what waits, also what rides, and ends. Later submits are refused.
    pub async fn close(&self) {
        drop(self.queue().take());
        self.inner.shared.room_made.notify_one();
        let mut ended = self.inner.ended.clone();
        // An error means that the writer is gone, which is what is waited for.
        let _ = ended.wait_for(|ended| *ended).await;
    }

    fn accepts(&self, record: &Record) -> Result<(), JournalError> {
        if self.inner.shared.failed.borrow().is_some() {
            return Err(self.inner.shared.stopped());
        }
        let (bytes, max) = (record.payload_bytes, self.inner.shared.options.record_max_bytes());
        if bytes > max {
            Err(JournalError::TooLarge { bytes, max })
        } else {
            Ok(())
        }
    }

    /// A record's share of the bytes in flight: all of them for one that is larger.
    fn share_of(&self, record: &Record) -> u32 {
        record.framed_bytes().min(self.inner.shared.options.in_flight_max_bytes) as u32
    }

    /// Without a queue, or when the writer has ended, dropping the record answers for it.
    fn enqueue(&self, queued: Queued) {
        let refused = match self.queue().as_ref() {
            Some(queue) => queue.send(queued).err().map(|error| error.0),
            None => Some(queued),
        };
        drop(refused);
    }

    fn queue(&self) -> MutexGuard<'_, Option<mpsc::UnboundedSender<Queued>>> {
        self.inner.queue.lock().expect("no holder of this lock panics")
    }
}
