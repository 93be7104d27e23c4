//! The power goes on a disk that keeps only what was synced, below sled's own files.
//!
//! A preloaded library writes down what the process does to the files of its view (`tests/preload`). Here that is done once more, to a
//! modelled disk, which then loses power: nothing that was not synced is left, or of each write what chance leaves, in any order. What is left
//! is laid where the process finds it at its next start. Log and checkpoints are whole: for them `power_cut` has the same model.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Arc;

use harness::unsynced::{self, FileOp};
use malle_journal::{Disk, DiskFile, MemoryDisk};

use super::{Seen, again_and_again, be_the_process, kill, seed, times};
use crate::index::suite::Chance;

/// What the cuts left.
#[derive(Debug, Default)]
struct Cuts {
    /// The model had what the process saw of its files.
    like_the_files: u64,
    /// Something was lost.
    lossy: u64,
    all: u64,
}

struct Modelled {
    disk: MemoryDisk,
    /// The files of the view.
    view: PathBuf,
    trace: PathBuf,
    cuts: Cuts,
}

impl Modelled {
    fn new(dir: &Path) -> Modelled {
        Modelled {
            disk: MemoryDisk::new(),
            view: dir.join("index"),
            trace: dir.join("trace"),
            cuts: Cuts::default(),
        }
    }

    fn environment(&self) -> Vec<(&'static str, OsString)> {
        unsynced::environment(&self.view, &self.trace).unwrap()
    }

    /// Ends the process, and leaves of its files what `lose` leaves.
    fn cut(&mut self, child: &mut Child, lose: impl FnOnce(&MemoryDisk)) {
        kill(child);
        if self.trace.exists() {
            for op in unsynced::read(&self.trace).unwrap() {
                self.follow(op);
            }
            std::fs::remove_file(&self.trace).unwrap();
        }
        self.cuts.all += 1;
        self.cuts.like_the_files += u64::from(self.is_on_the_files());
        lose(&self.disk);
        self.cuts.lossy += u64::from(!self.is_on_the_files());
        if self.view.exists() {
            std::fs::remove_dir_all(&self.view).unwrap();
        }
        std::fs::create_dir(&self.view).unwrap();
        for (path, bytes) in self.files() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
    }

    fn follow(&self, op: FileOp) {
        match op {
            FileOp::Write(path, offset, bytes) => {
                let mut parts = [std::io::IoSlice::new(&bytes)];
                self.file(&path).write_at(offset, &mut parts).unwrap();
            }
            FileOp::SetLen(path, bytes) => self.file(&path).set_len(bytes).unwrap(),
            // A directory has files below it here; one without any has nothing to lose.
            FileOp::Sync(path) => match self.disk.open(&path) {
                Ok(file) => file.sync_all().unwrap(),
                Err(_) => self.disk.sync_dir(&path).unwrap(),
            },
            FileOp::Rename(from, to) if self.disk.open(&from).is_ok() => self.disk.rename(&from, &to).unwrap(),
            FileOp::Rename(from, to) => self.rename_dir(&from, &to),
            FileOp::Remove(path) => drop(self.disk.remove(&path)),
        }
    }

    /// The file, which is made when it is not there: a new name is told by its first bytes.
    fn file(&self, path: &Path) -> Arc<dyn DiskFile> {
        self.disk.create_dir_all(path.parent().unwrap()).unwrap();
        self.disk.open(path).unwrap_or_else(|_| self.disk.create(path).unwrap())
    }

    /// All of its files or none: done at once, for nobody opens a directory that was set aside.
    fn rename_dir(&self, from: &Path, to: &Path) {
        for (old, _) in self.disk.files_below(from) {
            let new = to.join(old.strip_prefix(from).unwrap());
            self.disk.create_dir_all(new.parent().unwrap()).unwrap();
            self.disk.rename(&old, &new).unwrap();
            self.disk.sync_dir(new.parent().unwrap()).unwrap();
            self.disk.sync_dir(old.parent().unwrap()).unwrap();
        }
    }

    /// The files of the modelled disk. Those without a byte are as good as absent.
    fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let files = self.disk.files_below(&self.view).into_iter();
        files
            .filter(|(_, bytes)| *bytes > 0)
            .map(|(path, bytes)| {
                let mut content = vec![0; bytes as usize];
                self.disk.open(&path).unwrap().read_at(0, &mut content).unwrap();
                (path, content)
            })
            .collect()
    }

    /// Whether the modelled disk has what the files have.
    fn is_on_the_files(&self) -> bool {
        let files = self.files();
        let same = |(path, bytes): &(PathBuf, Vec<u8>)| std::fs::read(path).is_ok_and(|found| found == *bytes);
        files.iter().all(same) && files.len() == count(&self.view)
    }

    /// The model was worth its name: it followed the files, and took something away.
    fn end(self, seen: &Seen) {
        println!("{seen:?} {:?}", self.cuts);
        // A process that is killed between a write and its record has written more than the model knows.
        assert!(self.cuts.like_the_files * 2 > self.cuts.all, "{:?}", self.cuts);
        assert!(self.cuts.lossy * 2 > self.cuts.all, "{:?}", self.cuts);
    }
}

/// Files below `dir` that have a byte.
fn count(dir: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let of = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => count(&entry.path()),
            false => usize::from(entry.metadata().unwrap().len() > 0),
        }
    };
    entries.map(of).sum()
}

#[test]
fn a_cut_that_leaves_only_what_was_synced_leaves_a_view_that_is_whole() {
    be_the_process();
    let dir = tempfile::tempdir().unwrap();
    let mut model = Modelled::new(dir.path());
    let test = "state::killed::synced::a_cut_that_leaves_only_what_was_synced_leaves_a_view_that_is_whole";
    let environment = model.environment();
    let seen = again_and_again(test, dir.path(), times(8, 120), &environment, |child| {
        model.cut(child, MemoryDisk::crash_to_synced);
    });
    // The flush syncs all that the floor behind it counts on: without that, most of these cuts would cost a rebuild.
    assert_eq!(seen.rebuilds, 0);
    model.end(&seen);
}

#[test]
fn a_cut_that_leaves_any_part_of_the_rest_never_comes_back_with_a_wrong_state() {
    be_the_process();
    let dir = tempfile::tempdir().unwrap();
    let mut model = Modelled::new(dir.path());
    let test = "state::killed::synced::a_cut_that_leaves_any_part_of_the_rest_never_comes_back_with_a_wrong_state";
    let environment = model.environment();
    let mut chance = Chance(seed());
    let seen = again_and_again(test, dir.path(), times(12, 200), &environment, |child| {
        let cut = chance.below(u64::MAX);
        model.cut(child, |disk| disk.crash(cut));
    });
    model.end(&seen);
}
