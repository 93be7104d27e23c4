//! Less of the machine for one node, and moments in which it stands still: control groups.
//!
//! The first version of control groups only, with one hierarchy per controller below `/sys/fs/cgroup`; what a machine does not have is said
//! by `chaos probe`. A node is put into its groups when it starts. What is taken from it is given back by [`Squeeze::release`].

use std::path::{Path, PathBuf};

use anyhow::Context;
use harness::made::{Made, Thing};

/// Where the hierarchies are.
const ROOT: &str = "/sys/fs/cgroup";
/// The kernel's usual period, in which a quota is given.
const CPU_PERIOD_US: u64 = 100_000;
/// By this much a limit is raised that the kernel refuses, and this much above what was asked for at most: more than a node has.
const MEMORY_STEP_MIB: u64 = 16;
const MEMORY_MORE_MIB: u64 = 2048;

/// What can be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Controller {
    /// All its threads stand still.
    Freezer,
    /// A part of one processor.
    Cpu,
    /// Memory.
    Memory,
    /// Reads and writes that reach its disk.
    Blkio,
}

impl Controller {
    /// All of them.
    pub const ALL: [Controller; 4] = [
        Controller::Freezer,
        Controller::Cpu,
        Controller::Memory,
        Controller::Blkio,
    ];

    /// As the kernel and `chaos probe` name it.
    pub fn name(self) -> &'static str {
        match self {
            Controller::Freezer => "freezer",
            Controller::Cpu => "cpu",
            Controller::Memory => "memory",
            Controller::Blkio => "blkio",
        }
    }
}

/// The groups of one node.
#[derive(Debug)]
pub struct Squeeze {
    groups: Vec<(Controller, PathBuf)>,
    made: Vec<Made>,
}

impl Squeeze {
    /// Makes a group of that name in each hierarchy that the machine has.
    ///
    /// # Errors
    /// When a hierarchy is there and takes no group.
    pub fn new(name: &str) -> anyhow::Result<Squeeze> {
        let mut squeeze = Squeeze {
            groups: Vec::new(),
            made: Vec::new(),
        };
        for controller in Controller::ALL {
            let hierarchy = Path::new(ROOT).join(controller.name());
            if !hierarchy.join("cgroup.procs").exists() {
                continue;
            }
            let group = hierarchy.join(name);
            squeeze.made.push(Made::note(Thing::Group(group.clone()))?);
            std::fs::create_dir(&group).with_context(|| group.display().to_string())?;
            squeeze.groups.push((controller, group));
        }
        Ok(squeeze)
    }

    /// Puts a process into the groups, with all its threads.
    ///
    /// # Errors
    /// When it has ended.
    pub fn admit(&self, pid: u32) -> anyhow::Result<()> {
        for (controller, _) in &self.groups {
            self.write(*controller, "cgroup.procs", &pid.to_string())?;
        }
        Ok(())
    }

    /// The node stands still, or goes on.
    ///
    /// # Errors
    /// Without a freezer.
    pub fn freeze(&self, still: bool) -> anyhow::Result<()> {
        self.write(
            Controller::Freezer,
            "freezer.state",
            if still { "FROZEN" } else { "THAWED" },
        )
    }

    /// At most so much of one processor.
    ///
    /// # Errors
    /// Without the controller.
    pub fn cpu(&self, pct: u64) -> anyhow::Result<()> {
        self.write(Controller::Cpu, "cpu.cfs_period_us", &CPU_PERIOD_US.to_string())?;
        self.write(
            Controller::Cpu,
            "cpu.cfs_quota_us",
            &(CPU_PERIOD_US * pct / 100).to_string(),
        )
    }

    /// At most so much memory, or, as the kernel cannot take back what a process has written, as little above that as it does; a node that then needs
    /// more is killed by the kernel.
    ///
    /// # Errors
    /// Without the controller.
    pub fn memory(&self, mib: u64) -> anyhow::Result<()> {
        let mut limit = mib;
        loop {
            let taken = self.write(Controller::Memory, "memory.limit_in_bytes", &(limit << 20).to_string());
            match taken {
                Err(error) if limit < mib + MEMORY_MORE_MIB && is_busy(&error) => limit += MEMORY_STEP_MIB,
                other => return other,
            }
        }
    }

    /// At most so many writes to a block device (`MAJOR:MINOR`) a second; 0 is unbounded.
    ///
    /// # Errors
    /// Without the controller.
    pub fn writes(&self, device: &str, per_second: u64) -> anyhow::Result<()> {
        self.write(
            Controller::Blkio,
            "blkio.throttle.write_iops_device",
            &format!("{device} {per_second}"),
        )
    }

    /// Gives processor and memory back.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn release(&self) -> anyhow::Result<()> {
        for (controller, _) in &self.groups {
            match controller {
                Controller::Cpu => self.write(*controller, "cpu.cfs_quota_us", "-1")?,
                Controller::Memory => self.write(*controller, "memory.limit_in_bytes", "-1")?,
                Controller::Freezer | Controller::Blkio => {}
            }
        }
        Ok(())
    }

    fn write(&self, controller: Controller, file: &str, value: &str) -> anyhow::Result<()> {
        let found = self.groups.iter().find(|(known, _)| *known == controller);
        let (_, group) =
            found.with_context(|| format!("this machine has no control groups for {}", controller.name()))?;
        let path = group.join(file);
        std::fs::write(&path, value).with_context(|| format!("writing {value:?} to {}", path.display()))
    }
}

fn is_busy(error: &anyhow::Error) -> bool {
    let cause = error.downcast_ref::<std::io::Error>();
    cause.is_some_and(|cause| cause.kind() == std::io::ErrorKind::ResourceBusy)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    use harness::patiently;

    use super::*;

    /// Processor time that a process has had, in ticks (proc(5), 14th field).
    fn ticks(pid: u32) -> u64 {
        let line = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        line.rsplit_once(") ")
            .unwrap()
            .1
            .split(' ')
            .nth(11)
            .unwrap()
            .parse()
            .unwrap()
    }

    #[test]
    fn a_frozen_process_does_nothing_until_it_is_let_go_on() {
        if let Some(reason) = crate::proc::probe::lacking(&["freezer".into()]) {
            println!("SKIPPED: {reason}");
            return;
        }
        let squeeze = Squeeze::new(&format!("cx-test-{:x}", std::process::id())).unwrap();
        let mut child = Command::new("sh")
            .args(["-c", "while :; do :; done"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let pid = child.id();
        squeeze.admit(pid).unwrap();
        let moves = |within: Duration| {
            let (begun, before) = (Instant::now(), ticks(pid));
            patiently(within, || ticks(pid) > before) && begun.elapsed() <= within * 2
        };
        assert!(moves(Duration::from_secs(20)));
        squeeze.freeze(true).unwrap();
        // It may be on its way into the freezer.
        patiently(Duration::from_millis(200), || false);
        assert!(!moves(Duration::from_millis(500)));
        squeeze.freeze(false).unwrap();
        assert!(moves(Duration::from_secs(20)));
        child.kill().unwrap();
        child.wait().unwrap();
        let group = squeeze.groups[0].1.clone();
        drop(squeeze);
        assert!(!group.exists());
    }
}
