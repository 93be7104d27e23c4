//! Writing a history while the run goes on.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use malle_rt::Instant;

use super::{Header, Record};

/// Writes a history. Cheap to clone; clones write to the same file and share the clock and the numbers of operations.
#[derive(Clone)]
pub struct Recorder {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    begun: Instant,
    operations: AtomicU64,
    file: Mutex<Open>,
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
