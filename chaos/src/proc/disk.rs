//! Disks that fail: a file system of its own for each node, in a file on a loop device, or in a file in memory where a sync shall fail.
//!
//! | fault | how |
//! |---|---|
//! | power cut | the file system is shut down without writing its log ([`LoopDisk::cut`]) |
//! | a sync fails | the file lies on a memory file system that is made as small as it is full: what was taken cannot be written, the sync says so (ENOSPC first, EIO once ext4 gave its log up), and the pages are clean afterwards |
//! | full | everything that is free is given to a file |
//! | slow | the kernel lets so many writes a second through ([`super::squeeze`]) |
//! | hang | the file system is frozen |
//! | bit rot | a byte changes on the block device below a file, and the file's pages are thrown away |
//!
//! Absent: reads that fail and writes that go astray; they need a file system in user space.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use harness::LoopDisk;
use harness::host::{run, text};
use harness::made::{Made, Thing};

/// A disk keeps up to 1 GiB of log before it presses for checkpoints, and each start begins a segment; sparse.
const DISK_BYTES: u64 = 8 << 30;
/// What a disk in memory may take of it.
const MEMORY_MIB: u64 = 2048;
/// The memory is cut off at what is used. A node that writes meanwhile uses more than that, and the kernel refuses.
const SHRINK_TRIES: u32 = 20;
/// Blocks of ext4 as `mkfs.ext4` makes them for file systems of this size.
const BLOCK_BYTES: u64 = 4096;
/// The envelope of a journal's segment and record, as docs/storage.md has them.
const SEGMENT_HEADER_BYTES: usize = 64;
const RECORD_HEADER_BYTES: usize = 32;
const RECORD_ALIGN_BYTES: usize = 8;
/// Kind of a record that holds a body.
const BODY: u8 = 1;

/// The disk of a node.
#[derive(Debug)]
pub struct NodeDisk {
    disk: LoopDisk,
    /// Where the file lies, when it lies in memory. After the disk: it goes last.
    memory: Option<(PathBuf, Made)>,
}

/// A byte that was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flip {
    /// Which volume.
    pub file: PathBuf,
    /// Where the record begins in it.
    pub record: u64,
    /// Where the byte is in it.
    pub byte: u64,
}

impl NodeDisk {
    /// Makes the disk of a node in `dir` and mounts it at `mount`. One that shall fail a sync lies in memory.
    ///
    /// # Errors
    /// See `chaos probe`.
    pub fn create(dir: &Path, name: &str, mount: &Path, in_memory: bool) -> anyhow::Result<NodeDisk> {
        let memory = if in_memory {
            let place = dir.join(format!("{name}-memory"));
            std::fs::create_dir_all(&place)?;
            let made = Made::note(Thing::Memory(place.clone()))?;
            let size = format!("size={MEMORY_MIB}m");
            run("mount", &["-t", "tmpfs", "-o", &size, "tmpfs", text(&place)?])?;
            Some((place, made))
        } else {
            None
        };
        let image = memory
            .as_ref()
            .map_or(dir, |(place, _)| place)
            .join(format!("{name}.image"));
        Ok(NodeDisk {
            disk: LoopDisk::create(&image, mount, DISK_BYTES)?,
            memory,
        })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.disk.path()
    }

    /// The disk as the power cut sees it.
    pub fn power(&self) -> &LoopDisk {
        &self.disk
    }

    /// `MAJOR:MINOR` of the block device.
    ///
    /// # Errors
    /// When it is gone.
    pub fn numbers(&self) -> anyhow::Result<String> {
        let device = std::fs::metadata(self.disk.device())?.rdev();
        // The old encoding of device numbers reaches far beyond the loop devices.
        Ok(format!("{}:{}", device >> 8, device & 0xff))
    }

    /// From now on no block that was never written can be written: writes are taken and the sync that follows fails.
    ///
    /// # Errors
    /// When the disk does not lie in memory.
    pub fn fail_syncs(&self) -> anyhow::Result<()> {
        let (place, _) = self.memory.as_ref().context("this disk does not lie in memory")?;
        let mut tries = 0;
        loop {
            let size = format!("remount,size={}", used_bytes(place)?);
            tries += 1;
            match run("mount", &["-o", &size, text(place)?]) {
                Err(_) if tries < SHRINK_TRIES => {}
                ended => return ended.map(drop),
            }
        }
    }

    /// The end of [`NodeDisk::fail_syncs`]. The file system has seen errors: a node that runs on it is started again after a remount.
    ///
    /// # Errors
    /// When the disk does not lie in memory, or is in use.
    pub fn heal_syncs(&self) -> anyhow::Result<()> {
        let (place, _) = self.memory.as_ref().context("this disk does not lie in memory")?;
        run("mount", &["-o", &format!("remount,size={MEMORY_MIB}m"), text(place)?])?;
        self.disk.power_on()
    }

    fn ballast(&self) -> PathBuf {
        self.disk.path().join("ballast")
    }

    /// Gives everything that is free to a file.
    ///
    /// # Errors
    /// When it cannot be seen what is free.
    pub fn fill(&self) -> anyhow::Result<()> {
        let figures = run("stat", &["--file-system", "--format", "%f %S", text(self.disk.path())?])?;
        let figures = figures
            .split_whitespace()
            .map(str::parse)
            .collect::<Result<Vec<u64>, _>>()?;
        let [free, bytes] = figures[..] else {
            bail!("stat said {figures:?}")
        };
        // The map of the file itself needs a few blocks; each try asks for half of what failed.
        let mut size = free * bytes;
        let ballast = self.ballast();
        while size >= BLOCK_BYTES {
            let offset = std::fs::metadata(&ballast).map_or(0, |about| about.len());
            let (at, length) = (offset.to_string(), size.to_string());
            if run("fallocate", &["--offset", &at, "--length", &length, text(&ballast)?]).is_err() {
                size /= 2;
            }
        }
        Ok(())
    }

    /// The end of [`NodeDisk::fill`].
    ///
    /// # Errors
    /// When it was not filled.
    pub fn empty(&self) -> anyhow::Result<()> {
        std::fs::remove_file(self.ballast()).context("the disk was not filled")
    }

    /// Nothing comes back from now on, or everything that waited does.
    ///
    /// # Errors
    /// When it hangs already, or does not.
    pub fn hang(&self, hangs: bool) -> anyhow::Result<()> {
        let how = if hangs { "--freeze" } else { "--unfreeze" };
        run("fsfreeze", &[how, text(self.disk.path())?]).map(drop)
    }

    /// Changes one byte of so many different bodies in the volumes of `data`, chosen by `choose` (a number below its argument). Only cold
    /// data is touched: what lies in the last block that was written may be written again while a byte of it changes.
    ///
    /// # Errors
    /// When there are fewer bodies, or the file system does not tell where they lie.
    pub fn rot(&self, data: &Path, count: usize, mut choose: impl FnMut(u64) -> u64) -> anyhow::Result<Vec<Flip>> {
        self.disk.sync()?;
        let mut bodies = Vec::new();
        for entry in std::fs::read_dir(data.join("volumes"))? {
            let file = entry?.path();
            if file.extension().is_some_and(|ending| ending == "seg") {
                let segment = std::fs::read(&file)?;
                let here: Vec<(usize, usize)> = records(&segment).collect();
                let tail = here.last().map_or(0, |(at, _)| *at as u64 / BLOCK_BYTES * BLOCK_BYTES);
                let cold = |(at, length): &(usize, usize)| ((at + RECORD_HEADER_BYTES + length) as u64) < tail;
                bodies.extend(
                    here.into_iter()
                        .filter(cold)
                        .map(|(at, length)| (file.clone(), at, length)),
                );
            }
        }
        ensure!(bodies.len() >= count, "{} bodies, and {count} shall rot", bodies.len());
        let mut flips = Vec::new();
        for _ in 0..count {
            let (file, at, length) = bodies.swap_remove(choose(bodies.len() as u64) as usize);
            // In the second half: behind the head, in what was stored of the body.
            let byte = at + RECORD_HEADER_BYTES + length / 2 + choose(length as u64 / 2) as usize;
            let flip = Flip {
                file,
                record: at as u64,
                byte: byte as u64,
            };
            self.flip(&flip)?;
            flips.push(flip);
        }
        Ok(flips)
    }

    fn flip(&self, flip: &Flip) -> anyhow::Result<()> {
        // What this device has of the block in its own cache may be older than the block.
        run("blockdev", &["--flushbufs", self.disk.device()])?;
        let block = physical(&flip.file, flip.byte / BLOCK_BYTES)?;
        let place = block * BLOCK_BYTES + flip.byte % BLOCK_BYTES;
        let device = File::options().read(true).write(true).open(self.disk.device())?;
        let mut byte = [0];
        File::open(&flip.file)?.read_exact_at(&mut byte, flip.byte)?;
        let good = byte[0];
        device.read_exact_at(&mut byte, place)?;
        ensure!(
            byte[0] == good,
            "block {block} is not where {} says",
            flip.file.display()
        );
        device.write_all_at(&[good ^ 0x20], place)?;
        device.sync_all()?;
        // The pages of the file are thrown away, so that the next read asks the disk.
        let of = format!("of={}", text(&flip.file)?);
        run(
            "dd",
            &[
                "if=/dev/null",
                &of,
                "oflag=nocache",
                "conv=notrunc,fdatasync",
                "count=0",
                "status=none",
            ],
        )?;
        File::open(&flip.file)?.read_exact_at(&mut byte, flip.byte)?;
        ensure!(
            byte[0] != good,
            "the changed byte of {} is not read",
            flip.file.display()
        );
        Ok(())
    }
}

/// What is used of the file system at this place.
fn used_bytes(place: &Path) -> anyhow::Result<u64> {
    let figures = run("stat", &["--file-system", "--format", "%b %f %S", text(place)?])?;
    let figures = figures
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<Vec<u64>, _>>()?;
    match figures[..] {
        [blocks, free, bytes] => Ok((blocks - free).max(1) * bytes),
        _ => bail!("stat said {figures:?}"),
    }
}

/// Where each body's record begins and how long its payload is. A segment ends where no record follows.
fn records(segment: &[u8]) -> impl Iterator<Item = (usize, usize)> + '_ {
    let mut at = SEGMENT_HEADER_BYTES;
    std::iter::from_fn(move || {
        loop {
            let header = segment.get(at..at + RECORD_HEADER_BYTES)?;
            let length = u32::from_le_bytes(header[4..8].try_into().ok()?) as usize;
            let crc = &header[..4];
            if length == 0 || crc == [0; 4] || at + RECORD_HEADER_BYTES + length > segment.len() {
                return None;
            }
            let here = at;
            at = (at + RECORD_HEADER_BYTES + length).next_multiple_of(RECORD_ALIGN_BYTES);
            if header[24] == BODY {
                return Some((here, length));
            }
        }
    })
}

/// The block of the device that holds a block of a file, as `filefrag -v` tells it:
/// ` 0:        0..      15:      34816..     34831:     16:             last,eof`
fn physical(file: &Path, block: u64) -> anyhow::Result<u64> {
    let said = run("filefrag", &["-v", "-b4096", text(file)?])?;
    for line in said.lines() {
        let parts: Vec<&str> = line.split(':').collect();
        let range = |text: &str| -> Option<(u64, u64)> {
            let (first, last) = text.split_once("..")?;
            Some((first.trim().parse().ok()?, last.trim().parse().ok()?))
        };
        let [_, logical, on_disk, ..] = parts[..] else { continue };
        if let (Some((first, last)), Some((begins, _))) = (range(logical), range(on_disk))
            && (first..=last).contains(&block)
        {
            return Ok(begins + (block - first));
        }
    }
    bail!("{} has no block {block} on the disk", file.display())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::proc::probe;

    fn disk(in_memory: bool) -> Option<(tempfile::TempDir, NodeDisk)> {
        if let Some(reason) = probe::lacking(&["loop".into()]) {
            println!("SKIPPED: {reason}");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let mount = dir.path().join("mount");
        let disk = NodeDisk::create(dir.path(), "node", &mount, in_memory).unwrap();
        Some((dir, disk))
    }

    #[test]
    fn a_sync_fails_where_the_write_was_taken_and_works_after_it_is_healed() {
        let Some((_dir, disk)) = disk(true) else { return };
        let write = |name: &str| {
            let mut file = File::create(disk.path().join(name)).unwrap();
            file.write_all(&vec![7; 8 << 20]).unwrap();
            file.sync_all()
        };
        write("before").unwrap();
        disk.fail_syncs().unwrap();
        let error = write("under").unwrap_err();
        // EIO, or ENOSPC while ext4 still has its log.
        assert!(matches!(error.raw_os_error(), Some(5 | 28)), "{error}");
        disk.heal_syncs().unwrap();
        write("after").unwrap();
    }

    #[test]
    fn a_full_disk_is_full_until_it_is_emptied() {
        let Some((_dir, disk)) = disk(false) else { return };
        disk.fill().unwrap();
        let file = disk.path().join("file");
        let error = std::fs::write(&file, vec![7; 1 << 20]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
        disk.empty().unwrap();
        std::fs::write(&file, vec![7; 1 << 20]).unwrap();
    }

    #[test]
    fn a_hanging_disk_answers_when_it_is_let_go() {
        let Some((_dir, disk)) = disk(false) else { return };
        disk.hang(true).unwrap();
        let path = disk.path().join("file");
        let writer = std::thread::spawn(move || std::fs::write(path, b"x").map(|()| Instant::now()));
        let still = || writer.is_finished();
        assert!(
            !harness::patiently(Duration::from_millis(300), still),
            "the write came through"
        );
        let let_go = Instant::now();
        disk.hang(false).unwrap();
        assert!(writer.join().unwrap().unwrap() >= let_go);
    }

    #[test]
    fn a_rotten_byte_is_read_and_only_that_one() {
        let Some((_dir, disk)) = disk(false) else { return };
        let volumes = disk.path().join("volumes");
        std::fs::create_dir(&volumes).unwrap();
        let mut segment = vec![1; SEGMENT_HEADER_BYTES];
        for kind in [BODY, 2, BODY, BODY, BODY, BODY] {
            let mut record = vec![0; RECORD_HEADER_BYTES];
            record[..4].copy_from_slice(&[9; 4]);
            record[4..8].copy_from_slice(&10_000_u32.to_le_bytes());
            record[24] = kind;
            record.extend([b'x'; 10_000]);
            segment.extend(record);
        }
        segment.extend([0; 4096]);
        let file = volumes.join("0.seg");
        std::fs::write(&file, &segment).unwrap();
        assert!(
            disk.rot(disk.path(), 4, |_| 0).is_err(),
            "the last two bodies share the block where the last begins"
        );
        let flips = disk.rot(disk.path(), 3, |_| 0).unwrap();
        let now = std::fs::read(&file).unwrap();
        let differ: Vec<u64> = (0..segment.len() as u64)
            .filter(|&at| now[at as usize] != segment[at as usize])
            .collect();
        let mut told: Vec<u64> = flips.iter().map(|flip| flip.byte).collect();
        told.sort_unstable();
        assert_eq!((differ.len(), differ), (3, told));
    }
}
