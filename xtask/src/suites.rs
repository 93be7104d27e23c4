//! `cargo xtask test`: everything that must pass, built once, the runner's own closing lines last.
//!
//! The cluster tests start `malled`, `malle-gateway` and `malle` as processes, so the binaries are built before any test runs. The
//! build names tests and examples too: cargo then resolves the same features as the test runs do and builds no dependency twice. The
//! tests of the simulator find `chaos-sim` beside `chaos`.

use std::path::Path;
use std::process::ExitCode;

use crate::cargo::{self, Ended};
use crate::programs;

/// The simulator has features of its own, so it is built apart: in one call with the rest they would be given to the rest as well. Naming the
/// workspace and an example lets cargo resolve the features of everybody else's crates as in the other build, so that they are not compiled again. Our own code
/// is optimised a little: it is a whole cluster in one thread, and runs five times as fast.
pub const SIMULATOR: [&str; 9] = [
    "build",
    "--locked",
    "--workspace",
    "--features",
    "malle-chaos-sim/sim",
    "--config",
    "profile.dev.opt-level=1",
    "--bin=chaos-sim",
    "--example=watch",
];

/// How much is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// Without the cluster tests.
    Fast,
    /// Everything.
    Whole,
    /// Everything, and hundreds of power cuts where there are a few otherwise.
    Long,
}

impl Length {
    /// What the flags ask for.
    pub fn of(fast: bool, long: bool) -> Length {
        match (fast, long) {
            (true, _) => Length::Fast,
            (false, true) => Length::Long,
            (false, false) => Length::Whole,
        }
    }
}

/// Builds, then runs doc tests, then everything else. Stops at the first step that fails: later steps would only say less about the same
/// defect.
///
/// # Errors
/// When a step cannot be run at all.
pub fn run(root: &Path, length: Length) -> anyhow::Result<ExitCode> {
    let build = ["build", "--locked", "--workspace", "--bins", "--tests", "--examples"];
    let doc_tests = ["test", "--locked", "--workspace", "--doc"];
    for (name, arguments) in [
        ("build", &build[..]),
        ("simulator", &SIMULATOR[..]),
        ("doc tests", &doc_tests[..]),
    ] {
        if cargo::step(name, cargo::cargo(root).args(arguments))? == Ended::Failed {
            return Ok(ExitCode::FAILURE);
        }
    }
    if length != Length::Fast {
        programs::install_missing();
    }
    let mut command = cargo::cargo(root);
    if length == Length::Long {
        command.env("MALLE_LONG", "1");
    }
    if cargo::has_subcommand(root, "nextest") {
        command.args(["nextest", "run", "--locked", "--workspace", "--no-fail-fast"]);
        match length {
            Length::Fast => drop(command.args([
                "-E",
                "not (binary_id(malle-tests::cluster) | binary_id(malle-chaos::proc))",
            ])),
            // The short scenarios of `proc` passed one by one and not often enough yet: they gate nothing until they have.
            Length::Whole => drop(command.args(["-E", "not binary_id(malle-chaos::proc)"])),
            Length::Long => drop(command.args(["--profile", "long"])),
        }
    } else {
        eprintln!("== cargo-nextest is not installed: running cargo test instead");
        command.args(["test", "--locked", "--workspace", "--no-fail-fast", "--tests"]);
        if length == Length::Fast {
            command.args(["--exclude", "malle-tests"]);
        }
    }
    // Not `cargo::step`: nothing may be printed after the runner's summary.
    let status = command.status()?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
