//! What a run makes on the machine, written down before it is made, so that a later run removes it when this one cannot.
//!
//! A [`Made`] removes its thing when it is dropped. What a killed run leaves is removed by [`clean`]: only what was written down, only when
//! the process that wrote it is gone, and a process only when it is still the same one. A record is a small file in the directory for
//! temporary files, named after its owner.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::host::{begun, run, signal, text};
use crate::wait::patiently;

/// A killed process leaves its control group, and a file system is let go, within this.
const GONE: Duration = Duration::from_secs(10);

/// Something that stays on the machine until it is removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Thing {
    /// A process, by its id and its beginning.
    Process {
        /// Its id.
        pid: u32,
        /// When it began: another process with its id is left alone.
        begun: u64,
    },
    /// A network namespace.
    Namespace(String),
    /// A network interface of the machine's own namespace.
    Link(String),
    /// A file system in a file.
    Disk {
        /// The file.
        image: PathBuf,
        /// Where it is mounted.
        mount: PathBuf,
    },
    /// A file system in memory, by where it is mounted.
    Memory(PathBuf),
    /// A control group, by its directory.
    Group(PathBuf),
    /// A directory with everything in it.
    Directory(PathBuf),
}

impl fmt::Display for Thing {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Thing::Process { pid, .. } => write!(out, "process {pid}"),
            Thing::Namespace(name) => write!(out, "network namespace {name}"),
            Thing::Link(name) => write!(out, "network interface {name}"),
            Thing::Disk { mount, .. } => write!(out, "disk at {}", mount.display()),
            Thing::Memory(mount) => write!(out, "file system in memory at {}", mount.display()),
            Thing::Group(path) => write!(out, "control group {}", path.display()),
            Thing::Directory(path) => write!(out, "directory {}", path.display()),
        }
    }
}

impl Thing {
    /// Removes it as far as it is there: what is left of a killed run is anything from nothing to everything.
    fn remove(&self) {
        // Every step may have been taken already, and each is tried whatever became of the one before.
        match self {
            Thing::Process { pid, begun: then } => {
                if begun(*pid) == Some(*then) {
                    let _ = signal(*pid, "KILL");
                }
            }
            Thing::Namespace(name) => drop(run("ip", &["netns", "delete", name])),
            Thing::Link(name) => drop(run("ip", &["link", "delete", name])),
            Thing::Disk { image, mount } => remove_disk(image, mount),
            Thing::Memory(mount) => unmount(mount),
            Thing::Group(path) => {
                let _ = std::fs::write(path.join("freezer.state"), "THAWED");
                patiently(GONE, || std::fs::remove_dir(path).is_ok() || !path.exists());
            }
            Thing::Directory(path) => drop(std::fs::remove_dir_all(path)),
        }
    }
}

fn unmount(mount: &Path) {
    if let Ok(mount) = text(mount) {
        let _ = run("umount", &["--lazy", mount]);
    }
}

fn remove_disk(image: &Path, mount: &Path) {
    if let Ok(path) = text(mount) {
        // A file system that was left frozen cannot be unmounted.
        let _ = run("fsfreeze", &["--unfreeze", path]);
    }
    unmount(mount);
    if let Ok(image) = text(image) {
        let devices = run("losetup", &["--noheadings", "--output", "NAME", "--associated", image]);
        for device in devices.unwrap_or_default().split_whitespace() {
            let _ = run("losetup", &["--detach", device]);
        }
    }
    let _ = std::fs::remove_file(image);
}

/// A thing that was made, or is about to be. Dropping it removes the thing.
#[derive(Debug)]
pub struct Made {
    thing: Thing,
    record: PathBuf,
}

impl Made {
    /// Writes down what will be made now. It is removed when this is dropped, so also when making it fails.
    ///
    /// # Errors
    /// When it cannot be written down; it must not be made then.
    pub fn note(thing: Thing) -> anyhow::Result<Made> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let dir = records();
        std::fs::create_dir_all(&dir)?;
        let owner = std::process::id();
        let since = begun(owner).context("this process has no beginning")?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let record = dir.join(format!("{owner}-{since}-{number:06}"));
        std::fs::write(&record, serde_json::to_vec(&thing)?).with_context(|| record.display().to_string())?;
        Ok(Made { thing, record })
    }

    /// Writes a running process down.
    ///
    /// # Errors
    /// As [`Made::note`].
    pub fn process(pid: u32) -> anyhow::Result<Made> {
        let begun = begun(pid).with_context(|| format!("process {pid} has ended"))?;
        Made::note(Thing::Process { pid, begun })
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        self.thing.remove();
        // A later run that took this process for dead may have been quicker.
        let _ = std::fs::remove_file(&self.record);
    }
}

/// Removes what runs left that did not end well; what it was. The last thing that was made goes first.
pub fn clean() -> Vec<Thing> {
    let mut left: Vec<PathBuf> = std::fs::read_dir(records())
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| owner_is_gone(path))
        .collect();
    left.sort();
    let mut removed = Vec::new();
    for record in left.into_iter().rev() {
        let thing = std::fs::read(&record)
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Thing>(&bytes).ok());
        if let Some(thing) = thing {
            thing.remove();
            removed.push(thing);
        }
        // One that does not read was cut off while it was written: before its thing was made.
        let _ = std::fs::remove_file(record);
    }
    removed
}

fn records() -> PathBuf {
    std::env::temp_dir().join("malle-made")
}

/// Whether the process that wrote a record has ended. A file with another name is nobody's record and stays.
fn owner_is_gone(record: &Path) -> bool {
    let name = record.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let mut parts = name.split('-').map(str::parse::<u64>);
    match (parts.next(), parts.next()) {
        (Some(Ok(pid)), Some(Ok(since))) => u32::try_from(pid).is_ok_and(|pid| begun(pid) != Some(since)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn what_a_dead_run_left_is_removed_and_what_a_living_one_has_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (mine, left) = (dir.path().join("mine"), dir.path().join("left"));
        std::fs::create_dir(&mine).unwrap();
        std::fs::create_dir(&left).unwrap();
        let kept = Made::note(Thing::Directory(mine.clone())).unwrap();
        let bytes = serde_json::to_vec(&Thing::Directory(left.clone())).unwrap();
        // The id of this process, and a beginning that is not its own.
        let record = records().join(format!("{}-1-000000", std::process::id()));
        std::fs::write(&record, bytes).unwrap();
        assert!(clean().contains(&Thing::Directory(left.clone())));
        assert!(!left.exists() && !record.exists() && mine.exists());
        drop(kept);
        assert!(!mine.exists());
    }

    #[test]
    fn a_process_is_killed_only_while_it_is_the_same_one() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let pid = child.id();
        let since = begun(pid).unwrap();
        Thing::Process { pid, begun: since + 1 }.remove();
        assert!(child.try_wait().unwrap().is_none());
        Thing::Process { pid, begun: since }.remove();
        assert!(!child.wait().unwrap().success());
    }
}
