//! A set of binaries: `malled`, `malle-gateway` and `malle` in one directory.
//!
//! A world runs copies of its own. They cannot be replaced under it by a build, and all sides are alike in what is no property of the
//! code: how the kernel cached the file (a program fresh from the linker ran five percent slower than its own copy), how long its path is.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, ensure};
use tokio::process::Command;

/// One build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binaries {
    directory: PathBuf,
}

/// Their names.
const NAMES: [&str; 3] = ["malled", "malle-gateway", "malle"];

impl Binaries {
    /// Those in a directory.
    ///
    /// # Errors
    /// When one is not there.
    pub fn open(directory: &Path) -> anyhow::Result<Binaries> {
        let directory = directory
            .canonicalize()
            .with_context(|| format!("no binaries in {}", directory.display()))?;
        for name in NAMES {
            ensure!(
                directory.join(name).is_file(),
                "{} is not there; build it with `cargo build --release --bins -p malle-node -p malle-gateway -p malle-cli`",
                directory.join(name).display()
            );
        }
        Ok(Binaries { directory })
    }

    /// Those that were built beside this program.
    ///
    /// # Errors
    /// As [`Binaries::open`].
    pub fn beside_us() -> anyhow::Result<Binaries> {
        let ours = std::env::current_exe().context("finding this program")?;
        Binaries::open(ours.parent().context("a program lies in a directory")?)
    }

    /// Copies them into `directory`, which is made.
    ///
    /// # Errors
    /// When a file cannot be copied.
    pub fn copy_to(&self, directory: &Path) -> anyhow::Result<Binaries> {
        std::fs::create_dir(directory)?;
        for name in NAMES {
            let from = self.path(name);
            std::fs::copy(&from, directory.join(name)).with_context(|| format!("copying {}", from.display()))?;
        }
        Binaries::open(directory)
    }

    /// Where one of them is.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// What `malled` has against a configuration; `None` when it takes it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn refuses(&self, config: &Path) -> anyhow::Result<Option<String>> {
        let mut command = Command::new(self.path("malled"));
        let output = command.arg("--check").arg("--config").arg(config).output().await?;
        let said = String::from_utf8_lossy(&output.stderr).trim().to_string();
        Ok((!output.status.success()).then_some(said))
    }

    /// Runs `malle` with these arguments, separated by blanks, in a directory.
    ///
    /// # Errors
    /// With what it said, when it fails.
    pub async fn malle(&self, within: &Path, arguments: &str) -> anyhow::Result<()> {
        let output = Command::new(self.path("malle"))
            .args(arguments.split(' '))
            .current_dir(within)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .with_context(|| format!("starting {}", self.path("malle").display()))?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "malle {arguments}: {}: {said}", output.status);
        Ok(())
    }
}
