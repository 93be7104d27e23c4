//! A disk in memory with a power cut: what the tests of durability and the simulated cluster run on.
//!
//! Each file has two images: what its readers see, and what would survive. A write joins the second when the file is synced. On
//! [`MemoryDisk::crash`] every write that was not synced survives with probability one half, whole, or a run of its pages from the
//! front, or any of its pages, in any order; names that were created, changed or removed survive up to a random point. Handles and
//! locks from before the crash are dead, as their process is.
//!
//! A disk may have a [`Pace`]: then each sync takes its time, and what it covers is durable only when that is over. A cut before loses what
//! the process had not been told of yet, and what it would have done after it.
//!
//! Faults that can be asked for: a full disk (files take their length, a removed or replaced one nothing), a slow one, one that says it
//! synced and did not, rot, and a sync that fails once. A failed sync loses what it was to sync for good, although readers go on seeing
//! it: that is what Linux does, and why nobody may try again.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use malle_rt::Instant;

use crate::disk::{Disk, DiskFile, DiskLock};

mod image;
mod pending;

use image::{Chance, Change, Image, survive};
use pending::{Pending, settled};

#[derive(Debug, Default)]
struct Inode {
    seen: Image,
    durable: Image,
    /// Changes of `seen` that are not in `durable`, oldest first.
    unsynced: Vec<Pending<Change>>,
}

impl Inode {
    fn settle(&mut self, now: Option<Instant>) {
        for change in settled(&mut self.unsynced, now) {
            self.durable.take(change);
        }
    }
}

/// How long a disk takes: each sync a time between two bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// The shortest sync.
    pub least: Duration,
    /// The longest sync.
    pub most: Duration,
}

#[derive(Debug, Clone)]
enum Naming {
    Set(PathBuf, u64),
    Remove(PathBuf),
}

impl Naming {
    fn apply(self, names: &mut BTreeMap<PathBuf, u64>) {
        match self {
            Naming::Set(path, inode) => names.insert(path, inode),
            Naming::Remove(path) => names.remove(&path),
        };
    }

    fn dir(&self) -> Option<&Path> {
        match self {
            Naming::Set(path, _) | Naming::Remove(path) => path.parent(),
        }
    }
}

/// How a process ends.
#[derive(Debug, Clone, Copy)]
enum End {
    Kill,
    Crash(u64),
}

/// What a power cut leaves of what was not synced.
enum Leaves {
    /// What chance says.
    Some(Chance),
    Nothing,
}

#[derive(Debug, Default)]
struct State {
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    unsynced_names: Vec<Pending<Naming>>,
    dirs: BTreeSet<PathBuf>,
    locks: BTreeSet<PathBuf>,
    /// Rises with every crash: an older handle is dead.
    lives: u64,
    /// Bytes that all files together may have; unlimited when unset.
    capacity: Option<u64>,
    /// What it says is free, whatever there is.
    says_free: Option<u64>,
    fail_syncs: u32,
    /// Only syncs of files below this directory fail.
    fail_below: PathBuf,
    /// How long syncs take, and where the next duration comes from; no time at all when unset.
    pace: Option<(Pace, Chance)>,
    /// Syncs are answered and not made.
    lies: bool,
    /// Syncs until the end that was asked for.
    end_at_sync: Option<(u32, End)>,
    syncs: u64,
}

impl State {
    /// Bytes that all files together have. A file without a name has none: nobody holds one open for long.
    fn used(&self) -> u64 {
        let named: BTreeSet<u64> = self.names.values().copied().collect();
        let files = named.iter().filter_map(|inode| self.inodes.get(inode));
        files.map(|inode| inode.seen.bytes).sum()
    }

    fn free(&self) -> Option<u64> {
        self.capacity.map(|capacity| capacity.saturating_sub(self.used()))
    }

    /// What the process would have done after the present moment it has not done.
    fn forget_unmade(&mut self) {
        let now = self.now();
        for inode in self.inodes.values_mut() {
            inode.settle(now);
            if inode.unsynced.iter().all(|pending| pending.is_made(now)) {
                continue;
            }
            inode.unsynced.retain(|pending| pending.is_made(now));
            inode.seen = inode.durable.clone();
            for pending in &inode.unsynced {
                inode.seen.take(pending.change.clone());
            }
        }
        if !self.unsynced_names.iter().all(|naming| naming.is_made(now)) {
            self.unsynced_names.retain(|naming| naming.is_made(now));
            self.names = self.durable_names.clone();
            for naming in &self.unsynced_names {
                naming.change.clone().apply(&mut self.names);
            }
        }
    }

    fn kill(&mut self) {
        self.forget_unmade();
        self.lives += 1;
        self.locks.clear();
        self.end_at_sync = None;
    }

    fn crash(&mut self, mut leaves: Leaves) {
        self.kill();
        let now = self.now();
        for inode in self.inodes.values_mut() {
            inode.settle(now);
            let mut changes = std::mem::take(&mut inode.unsynced);
            changes.retain(|pending| pending.is_made(now));
            if let Leaves::Some(chance) = &mut leaves {
                chance.shuffle(&mut changes);
            }
            for pending in changes {
                if pending.is_durable(now) {
                    inode.durable.take(pending.change);
                } else if let Leaves::Some(chance) = &mut leaves {
                    survive(&mut inode.durable, pending.change, chance);
                }
            }
            inode.seen = inode.durable.clone();
        }
        // A journaling file system commits changes of names in their order, up to those that were asked for at least.
        let mut namings = std::mem::take(&mut self.unsynced_names);
        namings.retain(|naming| naming.is_made(now));
        let least = namings
            .iter()
            .rposition(|naming| naming.is_durable(now))
            .map_or(0, |last| last + 1);
        let more = match &mut leaves {
            Leaves::Some(chance) => chance.below((namings.len() - least) as u64 + 1) as usize,
            Leaves::Nothing => 0,
        };
        namings.truncate(least + more);
        for naming in namings {
            naming.change.apply(&mut self.durable_names);
        }
        self.names = self.durable_names.clone();
        let named: BTreeSet<u64> = self.names.values().copied().collect();
        self.inodes.retain(|inode, _| named.contains(inode));
    }

    /// The present moment of a disk that has a pace.
    fn now(&self) -> Option<Instant> {
        self.pace.as_ref().map(|_| malle_rt::now())
    }

    /// The moment at which a change that is made now is made.
    fn moment(&self) -> Option<Instant> {
        self.pace.as_ref().map(|_| malle_rt::takes(Duration::ZERO))
    }

    /// The moment at which a sync that begins now is over.
    fn sync_over(&mut self) -> Option<Instant> {
        let (pace, chance) = self.pace.as_mut()?;
        let spread = (pace.most.saturating_sub(pace.least)).as_nanos() as u64;
        let took = pace.least + Duration::from_nanos(chance.below(spread + 1));
        Some(malle_rt::takes(took))
    }

    fn name(&mut self, naming: Naming) {
        let made = self.moment();
        self.unsynced_names.push(Pending {
            change: naming,
            made,
            durable: None,
        });
    }

    fn is_below(&self, inode: u64, dir: &Path) -> bool {
        let mut names = self.names.iter().filter(|(_, named)| **named == inode);
        names.any(|(path, _)| path.starts_with(dir))
    }

    /// Whether the process ends instead of this sync.
    fn ends_now(&mut self) -> bool {
        match self.end_at_sync.take() {
            None => return false,
            Some((0, End::Kill)) => self.kill(),
            Some((0, End::Crash(seed))) => self.crash(Leaves::Some(Chance(seed))),
            Some((more, end)) => {
                self.end_at_sync = Some((more - 1, end));
                return false;
            }
        }
        true
    }
}

/// See the module. Clones are the same disk.
#[derive(Debug, Clone, Default)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
}

impl MemoryDisk {
    /// An empty disk without a bound.
    pub fn new() -> MemoryDisk {
        MemoryDisk::default()
    }

    /// Cuts the power. The same seed on the same history leaves the same bytes.
    pub fn crash(&self, seed: u64) {
        self.state().crash(Leaves::Some(Chance(seed)));
    }

    /// Cuts the power; nothing survives that was not synced.
    pub fn crash_to_synced(&self) {
        self.state().crash(Leaves::Nothing);
    }

    /// Cuts the power between a write and its sync: at the sync after the next `syncs`.
    pub fn crash_at_sync(&self, syncs: u32, seed: u64) {
        self.state().end_at_sync = Some((syncs, End::Crash(seed)));
    }

    /// The process is killed but the machine goes on: handles and locks are dead, everything written is there.
    pub fn kill(&self) {
        self.state().kill();
    }

    /// Like [`MemoryDisk::kill`], between a write and its sync: at the sync after the next `syncs`.
    pub fn kill_at_sync(&self, syncs: u32) {
        self.state().end_at_sync = Some((syncs, End::Kill));
    }

    /// The next `count` syncs fail.
    pub fn fail_next_syncs(&self, count: u32) {
        self.fail_next_syncs_below(Path::new("/"), count);
    }

    /// The next `count` syncs of files below `dir` fail.
    pub fn fail_next_syncs_below(&self, dir: &Path, count: u32) {
        let mut state = self.state();
        state.fail_syncs = count;
        state.fail_below = dir.to_owned();
    }

    /// Bytes that all files together may have from now on; `None`: no end. What is there already stays.
    pub fn set_capacity(&self, capacity: Option<u64>) {
        self.state().capacity = capacity;
    }

    /// As [`MemoryDisk::set_capacity`], by what is left.
    pub fn set_free_bytes(&self, free: Option<u64>) {
        let mut state = self.state();
        let used = state.used();
        state.capacity = free.map(|free| used.saturating_add(free));
    }

    /// What the disk says is free from now on, whatever there is: one with a quota does not know how much of it is left. `None`: the truth.
    pub fn set_says_free(&self, bytes: Option<u64>) {
        self.state().says_free = bytes;
    }

    /// Bytes that all files together have now.
    pub fn used_bytes(&self) -> u64 {
        self.state().used()
    }

    /// From now on each sync takes a time that `seed` chooses.
    pub fn set_pace(&self, pace: Pace, seed: u64) {
        self.state().pace = Some((pace, Chance(seed)));
    }

    /// Whether syncs are answered and not made from now on.
    pub fn set_lying(&self, lies: bool) {
        self.state().lies = lies;
    }

    /// Every file below `dir`, with its length in bytes.
    pub fn files_below(&self, dir: &Path) -> Vec<(PathBuf, u64)> {
        let state = self.state();
        let below = state.names.iter().filter(|(path, _)| path.starts_with(dir));
        below
            .map(|(path, inode)| (path.clone(), state.inodes[inode].seen.bytes))
            .collect()
    }

    /// Syncs of files that succeeded.
    pub fn syncs(&self) -> u64 {
        self.state().syncs
    }

    /// Inverts one bit of a file, as rot would: in what is read, and in what a power cut leaves, as far as that goes by now.
    ///
    /// # Panics
    /// When there is no such file, or it ends before `offset`.
    pub fn flip_bit(&self, path: &Path, offset: u64, bit: u8) {
        let mut state = self.state();
        let inode = state.names[path];
        let inode = state.inodes.get_mut(&inode).expect("a name has its inode");
        assert!(offset < inode.seen.bytes, "the byte to flip is within the file");
        for image in [&mut inode.seen, &mut inode.durable] {
            let mut byte = [0];
            if image.read(offset, &mut byte).is_ok() {
                image.write(offset, &[byte[0] ^ (1 << bit)]);
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }
}

struct MemoryFile {
    disk: MemoryDisk,
    inode: u64,
    life: u64,
}

impl MemoryFile {
    fn with<T>(&self, work: impl FnOnce(&mut State, u64) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.disk.state();
        if state.lives != self.life || !state.inodes.contains_key(&self.inode) {
            return Err(io::Error::other("this handle's process is dead"));
        }
        work(&mut state, self.inode)
    }

    fn change(&self, change: Change) -> io::Result<()> {
        self.with(|state, inode| {
            let before = state.inodes[&inode].seen.bytes;
            let made = state.moment();
            let bytes = match &change {
                Change::Write(offset, data) => (offset + data.len() as u64).max(before),
                Change::SetLen(bytes) => *bytes,
            };
            if bytes > before && state.free().is_some_and(|free| free < bytes - before) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let inode = state.inodes.get_mut(&inode).expect("checked by `with`");
            match &change {
                Change::Write(offset, data) => inode.seen.write(*offset, data),
                Change::SetLen(bytes) => inode.seen.set_len(*bytes),
            }
            inode.unsynced.push(Pending {
                change,
                made,
                durable: None,
            });
            Ok(())
        })
    }
}

impl DiskFile for MemoryFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.with(|state, inode| state.inodes[&inode].seen.read(offset, buffer))
    }

    fn write_at(&self, offset: u64, parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        let data = parts.iter().flat_map(|part| part.iter().copied()).collect();
        self.change(Change::Write(offset, data))
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        if bytes <= self.len()? {
            Ok(())
        } else {
            self.change(Change::SetLen(bytes))
        }
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.change(Change::SetLen(bytes))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(|state, inode| {
            if state.ends_now() {
                return Err(io::Error::other("the process was killed"));
            }
            let fails = state.fail_syncs > 0 && state.is_below(inode, &state.fail_below);
            let (now, over) = (state.now(), state.sync_over());
            malle_rt::trace(&[inode, state.syncs]);
            state.syncs += u64::from(!fails);
            if state.lies && !fails {
                return Ok(());
            }
            let inode = state.inodes.get_mut(&inode).expect("checked by `with`");
            inode.settle(now);
            if fails {
                state.fail_syncs -= 1;
                inode.unsynced.retain(|pending| pending.durable.is_some());
                return Err(io::Error::other("sync failed"));
            }
            for pending in &mut inode.unsynced {
                pending.durable = pending.durable.or(over);
            }
            if over.is_none() {
                for pending in std::mem::take(&mut inode.unsynced) {
                    inode.durable.take(pending.change);
                }
            }
            Ok(())
        })
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        self.with(|state, inode| Ok(state.inodes[&inode].seen.bytes))
    }
}

struct MemoryLock {
    disk: MemoryDisk,
    path: PathBuf,
    life: u64,
}

impl DiskLock for MemoryLock {}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if state.lives == self.life {
            state.locks.remove(&self.path);
        }
    }
}

impl Disk for MemoryDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        if state.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if !path.parent().is_some_and(|dir| state.dirs.contains(dir)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inode = state.next_inode;
        state.next_inode += 1;
        state.inodes.insert(inode, Inode::default());
        state.names.insert(path.to_owned(), inode);
        state.name(Naming::Set(path.to_owned(), inode));
        Ok(Arc::new(MemoryFile {
            disk: self.clone(),
            inode,
            life: state.lives,
        }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let state = self.state();
        let inode = *state.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(MemoryFile {
            disk: self.clone(),
            inode,
            life: state.lives,
        }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        if !state.dirs.contains(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let names = state
            .names
            .keys()
            .filter(|path| path.parent() == Some(dir))
            .filter_map(|path| path.file_name());
        Ok(names.map(|name| name.to_string_lossy().into_owned()).collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        let inode = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), inode);
        state.name(Naming::Set(to.to_owned(), inode));
        state.name(Naming::Remove(from.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.names.remove(path).ok_or(io::ErrorKind::NotFound)?;
        state.name(Naming::Remove(path.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        if state.ends_now() {
            return Err(io::Error::other("the process was killed"));
        }
        if state.lies {
            return Ok(());
        }
        let (now, over) = (state.now(), state.sync_over());
        let mut namings = std::mem::take(&mut state.unsynced_names);
        for naming in settled(&mut namings, now) {
            naming.apply(&mut state.durable_names);
        }
        for mut naming in namings {
            if naming.change.dir() == Some(dir) {
                if over.is_none() {
                    naming.change.apply(&mut state.durable_names);
                    continue;
                }
                naming.durable = naming.durable.or(over);
            }
            state.unsynced_names.push(naming);
        }
        Ok(())
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        for ancestor in dir.ancestors() {
            state.dirs.insert(ancestor.to_owned());
        }
        Ok(())
    }

    fn free_bytes(&self, _path: &Path) -> io::Result<u64> {
        let state = self.state();
        Ok(state.says_free.or(state.free()).unwrap_or(u64::MAX))
    }

    fn total_bytes(&self, _path: &Path) -> io::Result<u64> {
        Ok(self.state().capacity.unwrap_or(u64::MAX))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        let mut state = self.state();
        if !state.locks.insert(path.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(MemoryLock {
            disk: self.clone(),
            path: path.to_owned(),
            life: state.lives,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk_with(name: &str) -> (MemoryDisk, PathBuf, Arc<dyn DiskFile>) {
        let disk = MemoryDisk::new();
        disk.create_dir_all(Path::new("/d")).unwrap();
        let path = Path::new("/d").join(name);
        let file = disk.create(&path).unwrap();
        disk.sync_dir(Path::new("/d")).unwrap();
        (disk, path, file)
    }

    #[test]
    fn a_synced_write_survives_every_crash_and_an_unsynced_one_only_some() {
        let mut survived = 0;
        for seed in 0..64 {
            let (disk, path, file) = disk_with("f");
            file.write_at(0, &mut [IoSlice::new(b"kept")]).unwrap();
            file.sync_data().unwrap();
            file.write_at(4, &mut [IoSlice::new(b"maybe")]).unwrap();
            disk.crash(seed);
            assert!(file.len().is_err(), "a handle from before the crash is dead");
            let file = disk.open(&path).unwrap();
            let mut kept = [0; 4];
            file.read_at(0, &mut kept).unwrap();
            assert_eq!(&kept, b"kept");
            survived += u32::from(file.len().unwrap() > 4);
        }
        assert!((10..54).contains(&survived), "{survived} of 64");
    }

    #[test]
    fn a_cut_to_what_was_synced_leaves_nothing_else() {
        let (disk, path, file) = disk_with("f");
        file.write_at(0, &mut [IoSlice::new(b"kept")]).unwrap();
        file.sync_data().unwrap();
        file.write_at(2, &mut [IoSlice::new(b"lost")]).unwrap();
        disk.create(Path::new("/d/unnamed")).unwrap().sync_data().unwrap();
        disk.crash_to_synced();
        let file = disk.open(&path).unwrap();
        let mut kept = [0; 4];
        file.read_at(0, &mut kept).unwrap();
        assert_eq!((&kept, file.len().unwrap()), (b"kept", 4));
        assert_eq!(disk.files_below(Path::new("/d")).len(), 1);
    }

    #[test]
    fn a_failed_sync_loses_what_readers_still_see() {
        let (disk, path, file) = disk_with("f");
        file.write_at(0, &mut [IoSlice::new(b"lost")]).unwrap();
        disk.fail_next_syncs(1);
        assert!(file.sync_data().is_err());
        assert!(file.sync_data().is_ok());
        assert_eq!(file.len().unwrap(), 4);
        disk.crash(1);
        assert_eq!(disk.open(&path).unwrap().len().unwrap(), 0);
    }

    #[test]
    fn a_name_is_durable_only_after_its_directory_is() {
        let lost = (0..64).filter(|seed| {
            let disk = MemoryDisk::new();
            disk.create_dir_all(Path::new("/d")).unwrap();
            disk.create(Path::new("/d/f")).unwrap().sync_all().unwrap();
            disk.crash(*seed);
            disk.open(Path::new("/d/f")).is_err()
        });
        assert!(lost.count() > 10);
    }

    #[test]
    fn a_full_disk_says_so() {
        let (disk, _, file) = disk_with("f");
        disk.set_free_bytes(Some(10_000));
        file.allocate(8_000).unwrap();
        assert_eq!(file.allocate(20_000).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(
            (disk.free_bytes(Path::new("/d")).unwrap(), disk.used_bytes()),
            (2_000, 8_000)
        );
        file.set_len(1_000).unwrap();
        file.allocate(10_000).unwrap();
        disk.remove(Path::new("/d/f")).unwrap();
        assert_eq!(disk.free_bytes(Path::new("/d")).unwrap(), 10_000);
    }
}
