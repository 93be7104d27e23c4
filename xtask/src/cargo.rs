//! Running cargo: the same cargo that started us, in the root of the repository, with its output passed through.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, bail};

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Passed,
    Failed,
}

/// The cargo that runs us, or the one on the path.
pub fn cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root);
    command
}

/// Runs one step with its output shown, and says what it took.
///
/// # Errors
/// When the program cannot be started at all; a failing program is [`Ended::Failed`].
pub fn step(name: &str, command: &mut Command) -> anyhow::Result<Ended> {
    eprintln!("== {name}");
    let begun = Instant::now();
    let status = command.status().with_context(|| format!("starting {name}"))?;
    let seconds = begun.elapsed().as_secs();
    if status.success() {
        eprintln!("== {name}: passed in {seconds} s");
        return Ok(Ended::Passed);
    }
    eprintln!("== {name}: FAILED after {seconds} s ({status})");
    Ok(Ended::Failed)
}

/// Whether `cargo NAME` exists here.
pub fn has_subcommand(root: &Path, name: &str) -> bool {
    let mut command = cargo(root);
    command
        .args([name, "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// What `cargo metadata` knows of the workspace and its dependencies.
///
/// # Errors
/// When cargo fails or prints no JSON.
pub fn metadata(root: &Path, arguments: &[&str]) -> anyhow::Result<serde_json::Value> {
    let mut command = cargo(root);
    command
        .args(["metadata", "--locked", "--format-version", "1"])
        .args(arguments);
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .context("starting cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata failed ({})", output.status);
    }
    serde_json::from_slice(&output.stdout).context("cargo metadata printed no JSON")
}

/// Where cargo puts what it builds.
///
/// # Errors
/// As [`metadata`].
pub fn target_directory(root: &Path) -> anyhow::Result<PathBuf> {
    let metadata = metadata(root, &["--no-deps"])?;
    let directory = metadata["target_directory"]
        .as_str()
        .context("cargo metadata names no target directory")?;
    Ok(directory.into())
}
