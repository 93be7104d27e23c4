//! One process: its log, its end.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, bail};
use tokio::process::{Child, ChildStdin, Command};

/// Bytes of a log that an error quotes.
const QUOTED_BYTES: usize = 2 * 1024;

/// A child that ends with us: it runs with `--stop-when-stdin-closes` and a pipe that only we hold.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    /// Open as long as the child shall run.
    _stdin: Option<ChildStdin>,
    pid: u32,
    log: PathBuf,
}

impl Process {
    /// Starts `program --config config`; what it says goes to the end of `log`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(name: &str, program: &Path, config: &Path, log: &Path) -> anyhow::Result<Process> {
        let output = File::options().create(true).append(true).open(log)?;
        let mut child = Command::new(program)
            .arg("--config")
            .arg(config)
            .arg("--stop-when-stdin-closes")
            .stdin(Stdio::piped())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let pid = child.id().context("a child that was not awaited has an id")?;
        Ok(Process {
            name: name.into(),
            _stdin: child.stdin.take(),
            child,
            pid,
            log: log.into(),
        })
    }

    /// Its id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// An error with the end of its log when it has ended.
    ///
    /// # Errors
    /// See above.
    pub fn must_run(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            let said = fs::read(&self.log)?;
            let tail = String::from_utf8_lossy(&said[said.len().saturating_sub(QUOTED_BYTES)..]);
            bail!("{} ended ({status}) and said:\n{tail}", self.name);
        }
        Ok(())
    }

    /// SIGKILL; returns when it is gone.
    ///
    /// # Errors
    /// When the system does not let us.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        Ok(self.child.kill().await?)
    }
}
