//! Writing a history while the run goes on.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use malle_rt::Instant;

use super::{Header, Record};
use crate::plan::Timeline;

/// Writes a history. Cheap to clone; clones write to the same file and share the clock and the numbers of operations.
#[derive(Clone)]
pub struct Recorder {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    begun: Instant,
    operations: AtomicU64,
    planned: Timeline,
    healing: Mutex<Healing>,
    file: Mutex<Open>,
}

/// How far the undoing of the faults is.
#[derive(Clone, Copy)]
enum Healing {
    /// As planned.
    Planned,
    /// Somebody undoes them, and says when that is done.
    UnderWay,
    /// It was done then.
    Done { at_us: u64 },
}

struct Open {
    file: BufWriter<File>,
    /// The first record that could not be written. What came later is lost too, so the run must not count.
    failed: Option<std::io::Error>,
}

impl Recorder {
    /// Begins the history at `path`; its clock starts now.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn create(path: &Path, header: Header) -> anyhow::Result<Recorder> {
        let file = File::create(path).with_context(|| format!("making the history {}", path.display()))?;
        let recorder = Recorder {
            inner: Arc::new(Inner {
                planned: header.timeline,
                healing: Mutex::new(Healing::Planned),
                path: path.to_owned(),
                begun: malle_rt::now(),
                operations: AtomicU64::new(0),
                file: Mutex::new(Open {
                    file: BufWriter::new(file),
                    failed: None,
                }),
            }),
        };
        recorder.write(&Record::Header(header));
        Ok(recorder)
    }

    /// Microseconds since the start.
    pub fn now_us(&self) -> u64 {
        let elapsed = malle_rt::now() - self.inner.begun;
        elapsed.as_micros() as u64
    }

    /// The point of monotonic time that is `us` after the start.
    pub fn at(&self, us: u64) -> Instant {
        self.inner.begun + std::time::Duration::from_micros(us)
    }

    /// When the parts of the run begin, as far as is known now: nothing that comes after the faults comes before they are undone.
    pub fn timeline(&self) -> Timeline {
        let planned = self.inner.planned;
        match *self.healing_state() {
            Healing::Planned => planned,
            Healing::UnderWay => planned.healed_at(self.now_us()),
            Healing::Done { at_us } => planned.healed_at(at_us),
        }
    }

    /// Faults begin whose undoing takes its time: they are over when [`Recorder::healed`] says so, and not before.
    pub fn attacked(&self) {
        *self.healing_state() = Healing::UnderWay;
    }

    /// Every fault is undone.
    pub fn healed(&self) {
        let at_us = self.now_us();
        *self.healing_state() = Healing::Done { at_us };
        self.write(&Record::Healed { at_us });
    }

    fn healing_state(&self) -> MutexGuard<'_, Healing> {
        self.inner.healing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the next operation.
    pub fn next_operation(&self) -> u64 {
        self.inner.operations.fetch_add(1, Ordering::SeqCst)
    }

    /// Adds a record. An error is kept and told by [`Recorder::finish`].
    pub fn write(&self, record: &Record) {
        let mut open = self.inner.file.lock().unwrap_or_else(PoisonError::into_inner);
        if open.failed.is_some() {
            return;
        }
        let written = serde_json::to_writer(&mut open.file, record)
            .map_err(std::io::Error::from)
            .and_then(|()| open.file.write_all(b"\n"));
        open.failed = written.err();
    }

    /// Sees to it that everything is in the file.
    ///
    /// # Errors
    /// When any record could not be written.
    pub fn finish(&self) -> anyhow::Result<()> {
        let mut open = self.inner.file.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = open.failed.take().map_or_else(|| open.file.flush(), Err);
        failed.with_context(|| format!("writing the history {}", self.inner.path.display()))
    }
}
