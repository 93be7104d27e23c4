//! The one writer of a journal: takes what waits, writes it with one call, syncs once, tells everybody in order.
//!
//! There is no timer and no linger: while a sync runs the next batch gathers by itself. A batch is written only after the one before
//! it is durable, which is what recovery builds on. Rotation costs no extra sync: the header of a new segment goes out with its
//! first batch, into a slot that was prepared before.
//!
//! The first error of a write, a sync or a preparation ends the writer for good: after a failed sync nothing is known about the pages
//! that it covered, so nothing may be written behind them. That there is no room for another segment is no such error: no byte of a
//! batch was written. A journal that keeps its segments refuses the batch; a log waits with it in hand.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};

use crate::controls;
use crate::disk::{DiskFile, is_out_of_space};
use crate::error::JournalError;
use crate::record::{RECORD_ALIGNMENT, RECORD_HEADER_BYTES, Record, RecordHeader};
use crate::segment::{SEGMENT_HEADER_BYTES, Segment, SegmentHeader};
use crate::shared::{Shared, prepare_slot, slot_path};
use crate::{Durability, Location, Mode};

/// Records that only ride are held back until something is synced, but no more of them than this: a caller that never syncs
/// must not fill the memory.
const HELD_RIDES_MAX_BYTES: usize = 64 * 1024;

/// Between two looks for room on a full disk; a released segment is seen at once.
const LOOK_FOR_ROOM: Duration = Duration::from_millis(200);

const PADDING: [u8; RECORD_ALIGNMENT] = [0; RECORD_ALIGNMENT];

/// Called once with the outcome of a submit.
pub(crate) type Done = Box<dyn FnOnce(Result<Location, JournalError>) + Send>;

/// Owes an answer: when it is dropped without one, the answer is that the journal has stopped.
pub(crate) struct Completion {
    done: Option<Done>,
    shared: Arc<Shared>,
}

impl Completion {
    pub fn new(done: Done, shared: Arc<Shared>) -> Completion {
        Completion {
            done: Some(done),
            shared,
        }
    }

    pub fn finish(mut self, outcome: Result<Location, JournalError>) {
        if let Some(done) = self.done.take() {
            done(outcome);
        }
    }

    /// Gives the answer up: somebody else tells the caller.
    pub fn forget(mut self) {
        self.done = None;
    }
}

impl Drop for Completion {
    fn drop(&mut self) {
        if let Some(done) = self.done.take() {
            done(Err(self.shared.stopped()));
        }
    }
}

/// A record on its way to the disk, with its share of the bytes in flight.
pub(crate) struct Queued {
    pub record: Record,
    pub durability: Durability,
    pub completion: Completion,
    /// Given back early by a record that rides: one that waits for the whole room would else wait for ever.
    pub room: Option<OwnedSemaphorePermit>,
}

/// The segment being written.
struct Current {
    segment: Arc<Segment>,
    file: Arc<dyn DiskFile>,
    /// Present until it has been written.
    header: Option<[u8; SEGMENT_HEADER_BYTES]>,
}

/// Which records go out together.
#[derive(Default)]
struct Batch {
    queued: Vec<Queued>,
    bytes: usize,
    /// Somebody waits for a sync.
    sync: bool,
}

pub(crate) struct Writer {
    shared: Arc<Shared>,
    queue: mpsc::UnboundedReceiver<Queued>,
    /// Number of the newest segment, 0 before the first.
    newest: u64,
    /// Where the next record goes, or where the newest segment ended when there is no current one.
    end: u32,
    current: Option<Current>,
    /// Received, but had no place in the last batch.
    misfit: Option<Queued>,
    /// A slot in preparation.
    preparation: Option<oneshot::Receiver<Result<u64, JournalError>>>,
    /// Becomes true when the writer has ended.
    ended: watch::Sender<bool>,
}

impl Drop for Writer {
    fn drop(&mut self) {
        // First the reason, then the answers of what still waits: dropping the queue gives them.
        self.shared.fail("the journal was closed");
        self.queue.close();
        self.shared.unlock();
        self.ended.send_replace(true);
    }
}

impl Writer {
    pub fn new(
        shared: Arc<Shared>,
        queue: mpsc::UnboundedReceiver<Queued>,
        newest: u64,
        end: u32,
        ended: watch::Sender<bool>,
    ) -> Writer {
        Writer {
            shared,
            queue,
            newest,
            end,
            current: None,
            misfit: None,
            preparation: None,
            ended,
        }
    }

    /// Runs until every handle of the journal is gone and all is written, or until the first error.
    pub async fn run(mut self) {
        while let Some(batch) = self.gather().await {
            if !self.write(batch).await {
                break;
            }
        }
        if let Some(preparation) = self.preparation.take() {
            // Whatever became of it: the next start finds the slot. It only must not run on when the directory is given back.
            let _ = preparation.await;
        }
    }

    /// Waits for a record that must be synced and takes what else is there, within one segment.
    async fn gather(&mut self) -> Option<Batch> {
        let mut batch = Batch::default();
        let mut room = usize::MAX;
        loop {
            let mut next = match self.misfit.take() {
                Some(misfit) => misfit,
                None if batch.sync || batch.bytes > HELD_RIDES_MAX_BYTES => match self.queue.try_recv() {
                    Ok(next) => next,
                    Err(_) => return Some(batch),
                },
                None => match self.queue.recv().await {
                    Some(next) => next,
                    // The last handle is gone: what rides goes out now.
                    None => return (!batch.queued.is_empty()).then_some(batch),
                },
            };
            let bytes = next.record.framed_bytes();
            if batch.queued.is_empty() {
                room = self.room_for(bytes).min(self.shared.options.batch_max_bytes.max(bytes));
            } else if batch.bytes + bytes > room {
                self.misfit = Some(next);
                return Some(batch);
            }
            batch.bytes += bytes;
            match next.durability {
                Durability::Sync => batch.sync = true,
                Durability::Ride => next.room = None,
            }
            batch.queued.push(next);
        }
    }

    /// What the next batch may take, when it begins with a record of these bytes. Ends the current segment when that has no place.
    fn room_for(&mut self, bytes: usize) -> usize {
        let capacity = self.shared.options.segment_bytes as usize;
        let left = capacity.saturating_sub(self.end as usize);
        if self.current.is_some() && left >= bytes {
            return left;
        }
        if let Some(full) = self.current.take()
            && self.shared.options.mode == Mode::Keep
            && let Err(error) = full.file.set_len(u64::from(self.end))
        {
            // Nothing is wrong with the records: the space behind them stays taken.
            tracing::warn!(segment = full.segment.number, %error, "could not trim a full segment");
        }
        capacity - SEGMENT_HEADER_BYTES
    }

    /// Writes and syncs a batch, then answers for it. False when the journal has stopped.
    async fn write(&mut self, batch: Batch) -> bool {
        let mut current = match self.current.take() {
            Some(current) => current,
            None => match self.begin_when_possible().await {
                Ok(current) => current,
                Err(JournalError::Full) => {
                    for refused in batch.queued {
                        refused.completion.finish(Err(JournalError::Full));
                    }
                    return true;
                }
                Err(error) => {
                    // Before the batch is dropped, which gives the answers.
                    self.shared.fail(&error.in_full());
                    return false;
                }
            },
        };
        let begin = self.end;
        let header = current.header.take();
        let frames = frame(&batch.queued, current.segment.generation, begin);
        let file = Arc::clone(&current.file);
        let (written, queued) = malle_rt::blocking(move || {
            let written = write_and_sync(&*file, header.as_ref(), begin, &frames, &batch.queued);
            (written, batch.queued)
        })
        .await;
        match written {
            Ok(sync_took) => self.shared.counters.sync_times.note(sync_took),
            Err(error) => {
                let path = slot_path(&self.shared.dir, current.segment.slot);
                self.shared.fail(&JournalError::io("write", &path)(error).in_full());
                return false;
            }
        }
        self.end += batch.bytes as u32;
        current.segment.ends_at(self.end);
        let bytes = batch.bytes + header.map_or(0, |header| header.len());
        self.shared
            .counters
            .bytes_written
            .fetch_add(bytes as u64, Ordering::Relaxed);
        self.shared
            .counters
            .records
            .fetch_add(queued.len() as u64, Ordering::Relaxed);
        self.note_groups(&current.segment, &queued);
        answer(queued, &current.segment, begin);
        self.current = Some(current);
        true
    }

    /// Readers find the segment, and its groups pin it, before anybody learns of a location in it.
    fn note_groups(&self, segment: &Arc<Segment>, queued: &[Queued]) {
        let mut segments = self.shared.segments();
        segments
            .live
            .entry(segment.number)
            .or_insert_with(|| Arc::clone(segment));
        if self.shared.options.mode == Mode::Recycle {
            for one in queued {
                segments.note(one.record.group, segment.number);
            }
        }
    }

    /// Opens the next segment. A log whose disk is full waits for one to be released, or for room.
    ///
    /// # Errors
    /// `Full` when segments are kept and there is no room.
    async fn begin_when_possible(&mut self) -> Result<Current, JournalError> {
        loop {
            let begun = self.begin_segment().await;
            let full = matches!(begun, Err(JournalError::Full));
            let before = self.shared.full.swap(full, Ordering::Relaxed);
            if full && !before {
                tracing::error!(dir = %self.shared.dir.display(), "the disk has no room for another segment");
            }
            if !full || self.shared.options.mode == Mode::Keep {
                return begun;
            }
            if self.queue.is_closed() {
                return Err(JournalError::Failed {
                    reason: "it was closed while it waited for room on the disk".to_owned(),
                });
            }
            // Woken or not: the next look tells.
            let _ = malle_rt::timeout(LOOK_FOR_ROOM, self.shared.room_made.notified()).await;
        }
    }

    /// Opens the next segment: frees what is dead, takes a slot, and sees to it that another will be ready in time.
    async fn begin_segment(&mut self) -> Result<Current, JournalError> {
        self.give_up_dead().await?;
        let slot = self.take_slot().await?;
        self.prepare_ahead();
        let oldest = self.shared.segments().oldest();
        let previous_end = self.end;
        self.newest += 1;
        self.end = SEGMENT_HEADER_BYTES as u32;
        let mut generation = [0; 8];
        malle_rt::random(&mut generation);
        let generation = u64::from_le_bytes(generation);
        let header = SegmentHeader {
            live: true,
            segment: self.newest,
            generation,
            node: self.shared.options.node,
            oldest: oldest.unwrap_or(self.newest),
            previous_end,
        };
        let file = self.shared.file(slot)?;
        let segment = Arc::new(Segment::new(self.newest, generation, slot, self.end));
        Ok(Current {
            segment,
            file,
            header: Some(header.encode()),
        })
    }

    /// Marks dead segments as given up, durably and oldest first, before their slots are used again: else a crash in the first batch
    /// of their next use would leave a segment that is neither old nor new.
    async fn give_up_dead(&mut self) -> Result<(), JournalError> {
        if self.shared.options.mode == Mode::Keep {
            return Ok(());
        }
        loop {
            let Some(dead) = self.shared.segments().take_dead() else {
                return Ok(());
            };
            let shared = Arc::clone(&self.shared);
            malle_rt::blocking(move || {
                let header = SegmentHeader {
                    live: false,
                    segment: dead.number,
                    generation: dead.generation,
                    node: shared.options.node,
                    oldest: 0,
                    previous_end: 0,
                };
                let file = shared.file(dead.slot)?;
                let path = slot_path(&shared.dir, dead.slot);
                let failed = || JournalError::io("free", &path);
                file.write_at(0, &mut [IoSlice::new(&header.encode())])
                    .map_err(failed())?;
                let grown = file.allocate(shared.options.segment_bytes);
                file.sync_data().map_err(failed())?;
                match grown {
                    Ok(()) => shared.segments().free.push_back(dead.slot),
                    // Segments are longer now than this one, and a start that finds room makes it so.
                    Err(error) if is_out_of_space(&error) => {}
                    Err(error) => return Err(failed()(error)),
                }
                Ok::<_, JournalError>(())
            })
            .await?;
        }
    }

    async fn take_slot(&mut self) -> Result<u64, JournalError> {
        if let Some(slot) = self.shared.segments().free.pop_front() {
            return Ok(slot);
        }
        if let Some(preparation) = self.preparation.take()
            && let Ok(Ok(slot)) = preparation.await
        {
            return Ok(slot);
        }
        // Nothing was prepared, or it failed: space may have come back since.
        let shared = Arc::clone(&self.shared);
        malle_rt::blocking(move || prepare_slot(&shared, false)).await
    }

    /// Starts to prepare a slot when fewer are left than shall lie ready, so that the next rotation does not wait.
    fn prepare_ahead(&mut self) {
        if let Some(preparation) = &mut self.preparation {
            match preparation.try_recv() {
                Err(oneshot::error::TryRecvError::Empty) => return,
                Ok(Ok(slot)) => self.shared.segments().free.push_back(slot),
                Ok(Err(_)) | Err(oneshot::error::TryRecvError::Closed) => {}
            }
            self.preparation = None;
        }
        if self.shared.segments().free.len() >= self.shared.options.reserve.max(1) {
            return;
        }
        let (tell, preparation) = oneshot::channel();
        let shared = Arc::clone(&self.shared);
        // It ends by itself; when the writer is gone nobody listens, and the slot is found free at the next start.
        malle_rt::spawn(async move {
            let _ = tell.send(malle_rt::blocking(move || prepare_slot(&shared, false)).await);
        });
        self.preparation = Some(preparation);
    }
}

/// The headers of the records as they will stand from `begin` on.
fn frame(queued: &[Queued], generation: u64, begin: u32) -> Vec<[u8; RECORD_HEADER_BYTES]> {
    let mut offset = begin;
    queued
        .iter()
        .map(|Queued { record, .. }| {
            let header = RecordHeader {
                payload_bytes: record.payload_bytes as u32,
                group: record.group,
                payload_crc: record.payload_crc,
                durable_below: begin,
                kind: record.kind,
            };
            let bytes = header.encode(generation, offset);
            offset = header.end(offset);
            bytes
        })
        .collect()
}

/// How long the sync alone took.
fn write_and_sync(
    file: &dyn DiskFile,
    segment_header: Option<&[u8; SEGMENT_HEADER_BYTES]>,
    begin: u32,
    frames: &[[u8; RECORD_HEADER_BYTES]],
    queued: &[Queued],
) -> io::Result<Duration> {
    let mut slices: Vec<IoSlice<'_>> = Vec::with_capacity(queued.len() * 3 + 1);
    slices.extend(segment_header.map(|header| IoSlice::new(header)));
    for (frame, Queued { record, .. }) in frames.iter().zip(queued) {
        slices.push(IoSlice::new(frame));
        slices.extend(
            record
                .parts
                .iter()
                .filter(|part| !part.is_empty())
                .map(|part| IoSlice::new(part)),
        );
        let padding = record.framed_bytes() - RECORD_HEADER_BYTES - record.payload_bytes;
        if padding > 0 {
            slices.push(IoSlice::new(&PADDING[..padding]));
        }
    }
    let from = if segment_header.is_some() { 0 } else { u64::from(begin) };
    file.write_at(from, &mut slices)?;
    let began = malle_rt::now();
    if !controls::is_on(controls::Control::AcknowledgeUnsynced) {
        file.sync_data()?;
    }
    Ok(malle_rt::now() - began)
}

/// Tells everybody where the record stands, in the order of the disk.
fn answer(queued: Vec<Queued>, segment: &Segment, begin: u32) {
    let mut offset = begin;
    for Queued {
        record,
        completion,
        room,
        ..
    } in queued
    {
        let location = Location {
            segment: segment.number,
            generation: segment.generation,
            offset,
            payload_bytes: record.payload_bytes as u32,
        };
        offset += record.framed_bytes() as u32;
        drop(room);
        completion.finish(Ok(location));
    }
}
