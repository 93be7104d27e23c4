//! One process of a run: a node or the gateway.
//!
//! It is started with `--stop-when-stdin-closes` and a pipe that only this program holds, so it ends when this program does, however that
//! ends. One that stands still would not, so it is written down as well.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context;
use harness::host;
use harness::made::Made;
use tokio::process::{Child, ChildStdin, Command};

/// A node that is asked to stop hands its groups over and flushes first.
const STOP: Duration = Duration::from_secs(30);

/// A running process, or one that has ended.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// Open as long as the process shall run.
    stdin: Option<ChildStdin>,
    pid: u32,
    _made: Made,
}

impl Process {
    /// Starts a program of malle with its configuration behind `door` (arguments of `nsenter`, none for the host's own namespace),
    /// appending what it says to `log`.
    ///
    /// # Errors
    /// When it was not built or does not start.
    pub fn start(
        program: &str,
        config: &Path,
        door: &[String],
        environment: &[(&str, &OsStr)],
        log: &Path,
    ) -> anyhow::Result<Process> {
        let output = File::options().create(true).append(true).open(log);
        let output = output.with_context(|| log.display().to_string())?;
        let program: PathBuf = harness::binary(program)?;
        let mut command = Command::new(if door.is_empty() {
            program.as_os_str()
        } else {
            OsStr::new("nsenter")
        });
        if !door.is_empty() {
            // It becomes the program, so the process is the one that is started here.
            command.args(door).arg(&program);
        }
        command.arg("--config").arg(config).arg("--stop-when-stdin-closes");
        command.envs(environment.iter().copied());
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let pid = child.id().context("it ended at once")?;
        Ok(Process {
            stdin: child.stdin.take(),
            child,
            pid,
            _made: Made::process(pid)?,
        })
    }

    /// Its id; stays what it was when it has ended.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// How it ended; `None` while it runs.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// SIGKILL, if it has not ended already. Returns when it is gone.
    ///
    /// # Errors
    /// When the system refuses.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        if self.ended()?.is_some() {
            return Ok(());
        }
        self.child.kill().await.context("killing a process")
    }

    /// Asks it to stop, as the end of whoever started it would; what has not stopped in time is killed and is an error.
    ///
    /// # Errors
    /// When it did not end in time.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        self.stdin = None;
        match tokio::time::timeout(STOP, self.child.wait()).await {
            Ok(ended) => ended.map(drop).context("waiting for a process"),
            Err(_) => {
                self.kill().await?;
                anyhow::bail!("process {} did not stop within {STOP:?}", self.pid)
            }
        }
    }

    /// It stands still, or goes on. Its sockets stay open, and the kernel goes on answering for them.
    ///
    /// # Errors
    /// When it has ended.
    pub fn pause(&self, still: bool) -> anyhow::Result<()> {
        host::signal(self.pid, if still { "STOP" } else { "CONT" })
    }
}
