//! What processes use, as the kernel counts it.
//!
//! CPU time is the scheduler's own count of each thread, in nanoseconds (`/proc/PID/task/TID/schedstat`). A thread that ends within a
//! window takes its count with it; runtimes end only threads that had nothing to do.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};

/// Counts of some processes at one moment.
#[derive(Debug, Clone, Default)]
pub struct Usage {
    /// Nanoseconds of each thread.
    threads: BTreeMap<(u32, u32), u64>,
    /// Bytes that were handed to the disk (`write_bytes`): pages, so more than was written by the program.
    pub disk_write_bytes: u64,
    /// Memory that is in RAM.
    pub rss_bytes: u64,
}

impl Usage {
    /// Counts now. A process that is gone counts nothing.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn now(pids: &[u32]) -> anyhow::Result<Usage> {
        let mut usage = Usage::default();
        for &pid in pids {
            let process = Path::new("/proc").join(pid.to_string());
            let Ok(threads) = fs::read_dir(process.join("task")) else {
                continue;
            };
            for thread in threads {
                let Ok(thread) = thread else { continue };
                let path = thread.path().join("schedstat");
                let Some(text) = read(&path)? else { continue };
                let tid = thread.file_name().to_string_lossy().parse()?;
                let ran = text.split_whitespace().next().context("an empty schedstat")?;
                usage.threads.insert((pid, tid), ran.parse()?);
            }
            if let Some(text) = read(&process.join("io"))? {
                usage.disk_write_bytes += number(&text, "write_bytes:")?;
            }
            if let Some(text) = read(&process.join("status"))? {
                // A zombie has no memory and so no such line.
                usage.rss_bytes += number(&text, "VmRSS:").unwrap_or(0) * 1024;
            }
        }
        Ok(usage)
    }

    /// CPU time since an earlier count of the same processes.
    pub fn cpu_since(&self, before: &Usage) -> Duration {
        let ran = |(thread, now): (&(u32, u32), &u64)| now.saturating_sub(*before.threads.get(thread).unwrap_or(&0));
        Duration::from_nanos(self.threads.iter().map(ran).sum())
    }

    /// Bytes handed to the disk since an earlier count.
    pub fn disk_written_since(&self, before: &Usage) -> u64 {
        self.disk_write_bytes.saturating_sub(before.disk_write_bytes)
    }
}

/// Children of a process, and theirs, as far down as they go; the process itself first.
pub fn family(pid: u32) -> anyhow::Result<Vec<u32>> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Ok(child) = entry?.file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        let Some(stat) = read(&Path::new("/proc").join(child.to_string()).join("stat"))? else {
            continue;
        };
        // The name in parentheses may hold anything; behind the last one come state and parent.
        let rest = stat.rsplit(") ").next().unwrap_or_default();
        let parent = rest.split(' ').nth(1).context("a stat without a parent")?;
        parents.push((child, parent.parse::<u32>()?));
    }
    let mut family = vec![pid];
    let mut at = 0;
    while at < family.len() {
        let parent = family[at];
        family.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(child, _)| *child));
        at += 1;
    }
    Ok(family)
}

/// The text of a file of the kernel, `None` when its process or thread has ended.
fn read(path: &Path) -> anyhow::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        // ESRCH: the process ended between opening and reading.
        Err(error) if error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(3) => Ok(None),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

fn number(text: &str, name: &str) -> anyhow::Result<u64> {
    let Some(rest) = text.lines().find_map(|line| line.strip_prefix(name)) else {
        bail!("the kernel tells no {name}");
    };
    let word = rest.split_whitespace().next().unwrap_or_default();
    word.parse().with_context(|| format!("{name} {word}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_costs_cpu_time_and_memory() {
        let pids = [std::process::id()];
        let before = Usage::now(&pids).unwrap();
        assert!(before.rss_bytes > 0);
        let mut spun = 0_u64;
        let worked = loop {
            spun = std::hint::black_box(spun.wrapping_add(1));
            if spun.is_multiple_of(1_000_000) {
                let cpu = Usage::now(&pids).unwrap().cpu_since(&before);
                if cpu >= Duration::from_millis(5) {
                    break cpu;
                }
            }
        };
        assert!(worked >= Duration::from_millis(5));
    }

    #[test]
    fn a_process_that_is_gone_counts_nothing() {
        let usage = Usage::now(&[u32::MAX]).unwrap();
        assert_eq!(
            (usage.rss_bytes, usage.cpu_since(&Usage::default())),
            (0, Duration::ZERO)
        );
    }

    #[test]
    fn a_child_belongs_to_the_family() {
        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let family = family(std::process::id()).unwrap();
        assert!(family.contains(&child.id()) && family[0] == std::process::id());
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
