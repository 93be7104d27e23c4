//! `cargo xtask chaos`: builds what attacks malle, and runs it in one of three lengths.
//!
//! The simulated engine is a build of its own: cargo features unify within one call, and its runtime must not become everybody's. Whatever follows the length is handed to `chaos`.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::Context;
use clap::ValueEnum;

use crate::cargo::{self, Ended};
use crate::suites::SIMULATOR;

/// How much is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Length {
    /// Every control must be found out, and the same seed must be the same run
    Selftest,
    /// A quick look: every scenario of the simulated engine with two seeds
    Smoke,
    /// The whole catalogue: 500 seeds of all scenarios together in simulation, every scenario once for real; goes on where it stopped
    Long,
}

/// Seeds of a scenario in a quick look.
const SMOKE_SEEDS: &str = "1..2";
/// Seeds of each scenario in a long run: 25 scenarios make more than 500 runs.
const LONG_SEEDS: &str = "1..20";

/// Builds both engines and runs them.
///
/// # Errors
/// When something cannot be started.
pub fn run(root: &Path, length: Length, flags: &[OsString]) -> anyhow::Result<ExitCode> {
    let build = ["build", "--locked", "--workspace", "--bins", "--tests", "--examples"];
    let target = cargo::target_directory(root)?;
    for (name, command) in [
        ("build", cargo::cargo(root).args(build)),
        ("simulator", cargo::cargo(root).args(SIMULATOR)),
    ] {
        if cargo::step(name, command)? == Ended::Failed {
            return Ok(ExitCode::FAILURE);
        }
    }
    let runs: &[&[&str]] = match length {
        Length::Selftest => &[&["selftest"][..]],
        Length::Smoke => &[&["sweep", "--seeds", SMOKE_SEEDS, "--jobs", "2"][..]],
        Length::Long => &[
            &["sweep", "--seeds", LONG_SEEDS, "--jobs", "2"][..],
            &["sweep", "--engine", "proc", "--seeds", "1"],
        ],
    };
    let mut ending = ExitCode::SUCCESS;
    for arguments in runs {
        let status = Command::new(target.join("debug").join("chaos"))
            .current_dir(root)
            .args(*arguments)
            .args(flags)
            .status()
            .context("starting chaos")?;
        if !status.success() {
            ending = ExitCode::FAILURE;
        }
    }
    Ok(ending)
}
