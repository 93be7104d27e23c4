//! The machine, and who else works on it: figures of a busy machine lie, and the report says so.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;

use crate::usage::Usage;
use crate::world::World;

/// Above this share of the machine's CPU in other hands, figures are those of another machine.
const BUSY: f64 = 0.05;
/// The kernel counts whole ticks; it has 100 in a second on every machine that Linux tells us about.
const TICK: Duration = Duration::from_millis(10);

/// What was measured on.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// Logical processors.
    pub cpus: usize,
    /// RAM.
    pub memory_gib: u64,
    /// Its kernel.
    pub kernel: String,
    /// Of the directory with all data.
    pub file_system: String,
    /// Of the last minute, before we began.
    pub load_average: f64,
}

impl Machine {
    /// As it is now; data will lie in `directory`.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn look(directory: &Path) -> anyhow::Result<Machine> {
        let memory = fs::read_to_string("/proc/meminfo")?;
        let memory_kib: u64 = memory.split_whitespace().nth(1).context("an empty meminfo")?.parse()?;
        let load = fs::read_to_string("/proc/loadavg")?;
        Ok(Machine {
            cpus: std::thread::available_parallelism()?.get(),
            memory_gib: memory_kib.div_ceil(1024 * 1024),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().into(),
            file_system: file_system(directory)?,
            load_average: load.split_whitespace().next().context("an empty loadavg")?.parse()?,
        })
    }

    /// What a reader must know before the first figure.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.load_average > 0.3 {
            warnings.push(format!(
                "the load average was {} before anything began: something else runs here",
                self.load_average
            ));
        }
        if ["tmpfs", "overlay", "ramfs"].contains(&self.file_system.as_str()) {
            warnings.push(format!(
                "the data lies on {}: its syncs are not those of a disk; give --dir",
                self.file_system
            ));
        }
        warnings
    }
}

/// The type of the file system that holds a directory.
fn file_system(directory: &Path) -> anyhow::Result<String> {
    let directory = directory.canonicalize()?;
    let mounts = fs::read_to_string("/proc/mounts")?;
    let mut longest = ("", "unknown");
    for line in mounts.lines() {
        let mut words = line.split(' ').skip(1);
        let (Some(place), Some(kind)) = (words.next(), words.next()) else {
            continue;
        };
        if directory.starts_with(place) && place.len() >= longest.0.len() {
            longest = (place, kind);
        }
    }
    Ok(longest.1.into())
}

/// Time of all processors together, counted by the kernel.
#[derive(Debug, Clone, Copy, Default)]
pub struct Processors {
    busy: Duration,
    all: Duration,
    stolen: Duration,
}

/// Who had the processors between two looks, as shares of all their time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Others {
    /// Processes that are not ours.
    pub others: f64,
    /// The host of a virtual machine.
    pub stolen: f64,
}

impl Processors {
    /// Counts now.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn now() -> anyhow::Result<Processors> {
        let text = fs::read_to_string("/proc/stat")?;
        let line = text.lines().next().context("an empty /proc/stat")?;
        let ticks = line.split_whitespace().skip(1).map(str::parse);
        let ticks: Vec<u32> = ticks.collect::<Result<_, _>>().with_context(|| line.to_string())?;
        let sum = |which: &[usize]| TICK * which.iter().filter_map(|&at| ticks.get(at)).sum::<u32>();
        // user nice system idle iowait irq softirq steal; guests are in user already.
        Ok(Processors {
            busy: sum(&[0, 1, 2, 5, 6]),
            all: sum(&[0, 1, 2, 3, 4, 5, 6, 7]),
            stolen: sum(&[7]),
        })
    }

    /// Who had them since `before`, when our own processes used `ours`.
    pub fn others_since(self, before: Processors, ours: Duration) -> Others {
        let all = self
            .all
            .saturating_sub(before.all)
            .as_secs_f64()
            .max(TICK.as_secs_f64());
        let busy = self.busy.saturating_sub(before.busy);
        Others {
            others: busy.saturating_sub(ours).as_secs_f64() / all,
            stolen: self.stolen.saturating_sub(before.stolen).as_secs_f64() / all,
        }
    }
}

/// A stretch of work of ours: what our processes use in it, and what the others.
pub struct Stretch {
    processors: Processors,
    ours: Usage,
}

impl Stretch {
    /// Begins now.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn begin(worlds: &[World]) -> anyhow::Result<Stretch> {
        Ok(Stretch {
            processors: Processors::now()?,
            ours: ours(worlds)?,
        })
    }

    /// Ends now.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn end(self, worlds: &[World]) -> anyhow::Result<Others> {
        let used = ours(worlds)?.cpu_since(&self.ours);
        Ok(Processors::now()?.others_since(self.processors, used))
    }
}

/// Of the worlds as they are now, and of this process.
fn ours(worlds: &[World]) -> anyhow::Result<Usage> {
    let mut pids = vec![std::process::id()];
    for world in worlds {
        pids.extend(world.pids()?);
    }
    Usage::now(&pids)
}

impl Others {
    /// Whether figures of such a stretch lie.
    pub fn disturbed(&self) -> bool {
        self.others + self.stolen > BUSY
    }
}

/// The commit of the sources here, for the report; `unknown` outside a repository.
pub fn commit() -> String {
    let asked = Command::new("git")
        .args(["describe", "--always", "--dirty", "--abbrev=12"])
        .output();
    let said = asked.ok().filter(|output| output.status.success());
    let text = said.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_string());
    text.filter(|text| !text.is_empty()).unwrap_or_else(|| "unknown".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_told() {
        let machine = Machine::look(&std::env::temp_dir()).unwrap();
        assert!(machine.cpus > 0 && machine.memory_gib > 0);
        assert_ne!(machine.file_system, "unknown");
    }

    #[test]
    fn what_is_not_ours_is_the_others() {
        let second = |seconds: u64| Duration::from_secs(seconds);
        let before = Processors::default();
        let after = Processors {
            busy: second(6),
            all: second(10),
            stolen: second(1),
        };
        let others = after.others_since(before, second(5));
        assert_eq!(
            others,
            Others {
                others: 0.1,
                stolen: 0.1
            }
        );
        assert!(others.disturbed());
        // Ours is counted to the nanosecond, theirs in ticks: a rounding is nobody's work.
        assert!(!after.others_since(before, second(7)).others.is_sign_negative());
        assert!(!Others::default().disturbed());
    }
}
