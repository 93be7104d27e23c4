//! `cargo xtask fix`: writes what a machine can write. What it changes is read by a person in the diff.

use std::path::Path;
use std::process::ExitCode;

use crate::cargo::{self, Ended};
use crate::tidy;

/// Formats, rewrites the golden scripts' answers, and records the hash of the wire contract in its page.
///
/// # Errors
/// When a step cannot be run at all or a file cannot be written.
pub fn run(root: &Path) -> anyhow::Result<ExitCode> {
    let formatted = cargo::step("fmt", cargo::cargo(root).args(["fmt", "--all"]))?;
    let mut scripts = cargo::cargo(root);
    scripts
        .args(["test", "--locked", "--workspace"])
        .args(["--bins", "--tests", "--examples"])
        .args(["--", "golden", "as_written"])
        .env("UPDATE_SCRIPTS", "1");
    let scripts = cargo::step("golden scripts", &mut scripts)?;
    if tidy::contract::record(root)? {
        eprintln!("== docs/protocol.md: recorded the hash of proto/malle/v1; say in the page what changed");
    }
    let fixed = formatted == Ended::Passed && scripts == Ended::Passed;
    Ok(if fixed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
