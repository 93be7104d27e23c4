//! Disks whose power can be cut: an ext4 file system of its own on a loop device, shut down without writing its log.
//!
//! `EXT4_IOC_SHUTDOWN` with "no log flush" leaves on the device what the file system had written there, and nothing of what was only in
//! memory: the state that a power cut leaves. Killing the process alone would keep the page cache, and so prove nothing.
//!
//! It needs root, loop devices, `mkfs.ext4` and perl (for the one ioctl: called from here it would be unsafe code). [`LoopDisk::possible`]
//! tries it all out. What is made is written down first ([`Made`]), and what a run that was killed left behind is removed by the next one.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

use crate::host::{run, text};
use crate::made::{self, Made, Thing};

/// `EXT4_IOC_SHUTDOWN`, `_IOR('X', 125, __u32)`, with `EXT4_GOING_FLAGS_NOLOGFLUSH`.
const SHUT_DOWN: &str =
    r#"open(my $dir, "<", $ARGV[0]) or die "$!"; my $how = pack("L", 2); ioctl($dir, 0x8004587d, $how) or die "$!";"#;

/// A mounted file system whose power can be cut.
#[derive(Debug)]
pub struct LoopDisk {
    mount: PathBuf,
    device: String,
    _made: Made,
}

impl LoopDisk {
    /// Makes a file system of `bytes` in `image` (sparse) and mounts it at `mount`, which is made.
    ///
    /// # Errors
    /// When a program fails; nothing of it stays then.
    pub fn create(image: &Path, mount: &Path, bytes: u64) -> anyhow::Result<LoopDisk> {
        std::fs::create_dir_all(mount)?;
        // Dropped on failure, and so all of it is undone.
        let made = Made::note(Thing::Disk {
            image: image.to_owned(),
            mount: mount.to_owned(),
        })?;
        std::fs::File::create(image)?.set_len(bytes)?;
        // Without room kept for root, which the nodes of a test are: full is full.
        run("mkfs.ext4", &["-q", "-F", "-m", "0", text(image)?])?;
        let disk = LoopDisk {
            mount: mount.to_owned(),
            device: run("losetup", &["--find", "--show", text(image)?])?.trim().to_owned(),
            _made: made,
        };
        disk.mount()?;
        Ok(disk)
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.mount
    }

    /// The block device, for example `/dev/loop3`.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// Has the machine write everything down that was written so far, whatever the processes asked for.
    ///
    /// # Errors
    /// When the file system is not mounted.
    pub fn sync(&self) -> anyhow::Result<()> {
        run("sync", &["--file-system", text(&self.mount)?]).map(drop)
    }

    /// Fills the disk up with one file until so many bytes are free; 0 leaves none at all.
    ///
    /// # Errors
    /// When there are fewer, or the file is there already.
    pub fn fill(&self, leave_bytes: u64) -> anyhow::Result<()> {
        let free = run("stat", &["--file-system", "--format", "%a %S", text(&self.mount)?])?;
        let (blocks, block_bytes) = free.trim().split_once(' ').context("two numbers of stat")?;
        let free = blocks.parse::<u64>()? * block_bytes.parse::<u64>()?;
        let take = free.checked_sub(leave_bytes).context("there is less free than that")?;
        ensure!(!self.filler().exists(), "it was filled before");
        let taken = run("fallocate", &["--length", &take.to_string(), text(&self.filler())?]);
        if leave_bytes == 0 {
            // The blocks that map it leave too little for the last bytes: it has taken what there was.
            return Ok(());
        }
        taken.map(drop)
    }

    /// Takes the file away that fills it up.
    ///
    /// # Errors
    /// When there is none.
    pub fn make_room(&self) -> anyhow::Result<()> {
        Ok(std::fs::remove_file(self.filler())?)
    }

    fn filler(&self) -> PathBuf {
        self.mount.join("filler")
    }

    /// Cuts the power: from now on nothing reaches the device, and every write and sync fails.
    ///
    /// # Errors
    /// When the file system is not mounted.
    pub fn cut(&self) -> anyhow::Result<()> {
        run("perl", &["-e", SHUT_DOWN, text(&self.mount)?]).map(drop)
    }

    /// Switches it on again, with what was on the device. The processes that used it have been killed.
    ///
    /// # Errors
    /// While it is still in use; when it does not mount.
    pub fn power_on(&self) -> anyhow::Result<()> {
        run("umount", &[text(&self.mount)?])?;
        self.mount()
    }

    fn mount(&self) -> anyhow::Result<()> {
        run("mount", &["-t", "ext4", &self.device, text(&self.mount)?]).map(drop)
    }

    /// Whether this machine can do it, shown by doing it.
    ///
    /// # Errors
    /// Why not, for the word SKIPPED.
    pub fn possible() -> anyhow::Result<()> {
        made::clean();
        let dir = tempfile::tempdir()?;
        let disk = LoopDisk::create(&dir.path().join("image"), &dir.path().join("disk"), 16 << 20)?;
        let (kept, lost) = (disk.mount.join("kept"), disk.mount.join("lost"));
        let mut file = std::fs::File::create(&kept)?;
        std::io::Write::write_all(&mut file, b"synced")?;
        file.sync_all()?;
        std::fs::File::open(&disk.mount)?.sync_all()?;
        std::fs::write(&lost, b"not synced")?;
        drop(file);
        disk.cut()?;
        disk.power_on()?;
        ensure!(std::fs::read(&kept)? == b"synced", "what was synced is gone");
        ensure!(!lost.exists(), "what was not synced survived: the power was not cut");
        Ok(())
    }
}

/// A library that makes syncs do nothing in the program that loads it.
///
/// # Errors
/// Without a C compiler.
pub fn liar() -> anyhow::Result<tempfile::TempPath> {
    let source = "int fsync(int f) { (void)f; return 0; }\nint fdatasync(int f) { (void)f; return 0; }\n";
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("liar.c");
    std::fs::write(&path, source)?;
    let library = tempfile::Builder::new().suffix(".so").tempfile()?.into_temp_path();
    run("cc", &["-shared", "-fPIC", "-o", text(&library)?, text(&path)?])?;
    Ok(library)
}
