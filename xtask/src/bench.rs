//! `cargo xtask bench`: builds for release, once, and becomes `malle-bench` with the flags that follow.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;

use crate::cargo;

/// Builds the binaries and the bench; only the bench when the flags name a directory with binaries. Signals and the exit code are then
/// the bench's own.
///
/// # Errors
/// When something cannot be started.
pub fn run(root: &Path, flags: &[OsString]) -> anyhow::Result<ExitCode> {
    use std::os::unix::process::CommandExt as _;
    let named = flags
        .iter()
        .any(|flag| flag.to_string_lossy().starts_with("--binaries"));
    let mut build = cargo::cargo(root);
    build.args(["build", "--locked", "--release", "--bins", "-p", "malle-bench"]);
    if !named {
        build.args(["-p", "malle-node", "-p", "malle-gateway", "-p", "malle-cli"]);
    }
    if !build.status().context("starting cargo")?.success() {
        return Ok(ExitCode::FAILURE);
    }
    let bench = cargo::target_directory(root)?.join("release").join("malle-bench");
    let error = std::process::Command::new(&bench).args(flags).exec();
    Err(error).with_context(|| format!("starting {}", bench.display()))
}
