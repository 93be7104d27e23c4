//! The demo's child processes.
//!
//! Every child is started with `--stop-when-stdin-closes` and a pipe that only this process holds: it stops by itself when the demo
//! ends, however the demo ends. Closing the pipe is also how a child is asked to stop; no signal, and so no unsafe call, is needed.
//! What a child says goes to a log file of its own.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::timeout;

/// Lines of a log that an error quotes.
const QUOTED_LINES: usize = 12;
/// Bytes of a log that are looked at for them.
const QUOTED_BYTES: usize = 8 * 1024;

/// One child, running or ended.
pub struct Process {
    name: String,
    child: Child,
    /// Open as long as the child shall run.
    stdin: Option<ChildStdin>,
    pid: u32,
    log: PathBuf,
}

impl Process {
    /// Starts `program --config config`, appending what it says to `log`.
    pub fn start(name: &str, program: &Path, config: &Path, log: &Path) -> anyhow::Result<Process> {
        let output = File::options().create(true).append(true).open(log);
        let output = output.with_context(|| format!("cannot write {}", log.display()))?;
        let mut child = Command::new(program)
            .arg("--config")
            .arg(config)
            .arg("--stop-when-stdin-closes")
            .stdin(Stdio::piped())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let stdin = child.stdin.take();
        let Some(pid) = child.id() else {
            bail!("{name} ended at once; see {}", log.display())
        };
        Ok(Process {
            name: name.to_owned(),
            child,
            stdin,
            pid,
            log: log.to_owned(),
        })
    }

    /// Its process id; stays what it was when the process has ended.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it ended; `None` while it runs.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// An error with the end of its log when it has ended.
    pub fn must_run(&mut self) -> anyhow::Result<()> {
        match self.ended()? {
            None => Ok(()),
            Some(status) => bail!(
                "{} ended ({status}); the end of {}:\n{}",
                self.name,
                self.log.display(),
                self.last_words()
            ),
        }
    }

    /// SIGKILL: no time to write, to answer, or to say goodbye. Returns when it is gone.
    pub async fn kill_hard(&mut self) -> anyhow::Result<()> {
        self.child
            .kill()
            .await
            .with_context(|| format!("cannot kill {}", self.name))
    }

    /// Asks it to stop, without waiting.
    pub fn ask_to_stop(&mut self) {
        self.stdin = None;
    }

    /// Asks it to stop and waits; what has not stopped after `limit` is killed.
    pub async fn stop(&mut self, limit: Duration) -> anyhow::Result<()> {
        self.ask_to_stop();
        match timeout(limit, self.child.wait()).await {
            Ok(status) => status
                .map(drop)
                .with_context(|| format!("cannot wait for {}", self.name)),
            Err(_) => {
                eprintln!("{} did not stop within {} s and is killed", self.name, limit.as_secs());
                self.kill_hard().await
            }
        }
    }

    fn last_words(&self) -> String {
        let said = fs::read(&self.log).unwrap_or_default();
        let tail = String::from_utf8_lossy(&said[said.len().saturating_sub(QUOTED_BYTES)..]).into_owned();
        let lines = tail.lines().collect::<Vec<_>>();
        lines[lines.len().saturating_sub(QUOTED_LINES)..].join("\n")
    }
}

/// The path of a program that was built beside the one that runs.
pub fn beside_us(program: &str) -> anyhow::Result<PathBuf> {
    let ours = std::env::current_exe().context("cannot tell where this program lies")?;
    let path = ours.with_file_name(program);
    if !path.is_file() {
        bail!(
            "{} is not there; build it with `cargo build --release -p {}`",
            path.display(),
            match program {
                "malled" => "malle-node",
                _ => "malle-gateway",
            }
        );
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn script(dir: &Path, text: &str) -> PathBuf {
        let path = dir.join("child");
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[tokio::test]
    async fn a_child_stops_when_its_standard_input_closes() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let program = script(dir.path(), "cat; echo stopped \"$3\"");
        let mut child = Process::start("child", &program, Path::new("x"), &log).unwrap();
        assert!(child.ended().unwrap().is_none());
        child.stop(Duration::from_secs(60)).await.unwrap();
        assert_eq!(fs::read_to_string(&log).unwrap(), "stopped --stop-when-stdin-closes\n");
    }

    #[tokio::test]
    async fn a_child_that_ended_is_an_error_that_quotes_its_log() {
        let dir = tempfile::tempdir().unwrap();
        let program = script(dir.path(), "echo the port is taken >&2; exit 3");
        let mut child = Process::start("child", &program, Path::new("x"), &dir.path().join("log")).unwrap();
        child.child.wait().await.unwrap();
        let text = child.must_run().unwrap_err().to_string();
        assert!(text.contains("the port is taken"), "{text}");
    }
}
