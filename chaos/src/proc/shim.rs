//! What stands between a node and the C library: a clock that can be wrong, and syncs that can be slow, fail or lie, switched while the node
//! runs. The library is built from `shim.c` when it is needed.
//!
//! Only what the kernel cannot do here is done so: there is no clock of its own for a process, and no disk that answers a sync before it is
//! done. Faults of real disks are made by real disks ([`super::disk`]).

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use harness::host::{run, text};

const SOURCE: &str = include_str!("shim.c");

/// The library, in a directory.
#[derive(Debug, Clone)]
pub struct Shim(PathBuf);

/// Fields of the page, by their place in it.
#[derive(Debug, Clone, Copy)]
enum Field {
    Step = 0,
    Rate = 1,
    Since = 2,
    SyncDelay = 3,
    SyncLies = 4,
    SyncFails = 5,
}

const FIELDS: usize = 6;

impl Shim {
    /// Builds the library in `dir`.
    ///
    /// # Errors
    /// Without a C compiler.
    pub fn build(dir: &Path) -> anyhow::Result<Shim> {
        let (source, library) = (dir.join("shim.c"), dir.join("shim.so"));
        std::fs::write(&source, SOURCE)?;
        let flags = ["-O2", "-shared", "-fPIC", "-Wall", "-Werror"];
        let files = ["-o", text(&library)?, text(&source)?, "-ldl"];
        run("cc", &[&flags[..], &files[..]].concat())?;
        Ok(Shim(library))
    }

    /// Where it is, for `LD_PRELOAD`.
    pub fn object(&self) -> &Path {
        &self.0
    }
}

/// What one node is told. The page stays when the node is started again.
#[derive(Debug)]
pub struct Page {
    path: PathBuf,
    file: File,
}

impl Page {
    /// A page on which everything is right.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn new(path: PathBuf) -> anyhow::Result<Page> {
        let mut options = File::options();
        let file = options.create(true).truncate(true).read(true).write(true).open(&path);
        let file = file.with_context(|| path.display().to_string())?;
        file.set_len((FIELDS * size_of::<i64>()) as u64)?;
        Ok(Page { path, file })
    }

    /// Where it is, for `CHAOS_SHIM`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn set(&self, field: Field, value: i64) -> anyhow::Result<()> {
        let place = field as u64 * size_of::<i64>() as u64;
        Ok(self.file.write_all_at(&value.to_ne_bytes(), place)?)
    }

    /// Sets the wall clock `step_ms` ahead (behind when negative), running at `rate_per_mille` from now on. 0 and 1000 is right.
    ///
    /// # Errors
    /// When the page cannot be written.
    pub fn clock(&self, step_ms: i64, rate_per_mille: i64) -> anyhow::Result<()> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .context("a clock before 1970")?;
        self.set(Field::Since, i64::try_from(now.as_nanos())?)?;
        self.set(Field::Rate, rate_per_mille)?;
        self.set(Field::Step, step_ms * 1_000_000)
    }

    /// Adds so much to each sync.
    ///
    /// # Errors
    /// When the page cannot be written.
    pub fn sync_delay(&self, delay_us: u64) -> anyhow::Result<()> {
        self.set(Field::SyncDelay, i64::try_from(delay_us)?)
    }

    /// Syncs answer and are not made, or are made again.
    ///
    /// # Errors
    /// When the page cannot be written.
    pub fn sync_lies(&self, lies: bool) -> anyhow::Result<()> {
        self.set(Field::SyncLies, i64::from(lies))
    }

    /// The next `count` syncs fail with EIO; those after them are made.
    ///
    /// # Errors
    /// When the page cannot be written.
    pub fn sync_fails(&self, count: u32) -> anyhow::Result<()> {
        self.set(Field::SyncFails, i64::from(count))
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn child_clock(shim: &Shim, page: &Page) -> i64 {
        let mut command = Command::new("date");
        let output = command
            .arg("+%s")
            .env("LD_PRELOAD", shim.object())
            .env("CHAOS_SHIM", page.path())
            .output();
        String::from_utf8(output.unwrap().stdout)
            .unwrap()
            .trim()
            .parse()
            .unwrap()
    }

    #[test]
    fn clocks_go_wrong_and_right_again_and_syncs_fail_as_often_as_told() {
        let dir = tempfile::tempdir().unwrap();
        let shim = match Shim::build(dir.path()) {
            Ok(shim) => shim,
            Err(error) => {
                println!("SKIPPED: {error:#}");
                return;
            }
        };
        let page = Page::new(dir.path().join("page")).unwrap();
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
        let off = |shim: &Shim| child_clock(shim, &page) - now();
        assert!((-60..=60).contains(&off(&shim)));
        page.clock(-3_600_000, 1000).unwrap();
        assert!((-3_660..=-3_540).contains(&off(&shim)));
        page.clock(0, 1000).unwrap();
        assert!((-60..=60).contains(&off(&shim)));

        let sync = || {
            let file = dir.path().join("data");
            let of = format!("of={}", file.display());
            let mut command = Command::new("dd");
            command.args(["if=/dev/zero", &of, "bs=1", "count=1", "conv=fsync"]);
            command.env("LD_PRELOAD", shim.object()).env("CHAOS_SHIM", page.path());
            command.output().unwrap().status.success()
        };
        page.sync_fails(1).unwrap();
        assert!(!sync());
        assert!(sync());
    }
}
