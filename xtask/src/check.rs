//! `cargo xtask check`: every step runs, also after one has failed, so that one call shows everything there is to mend.

use std::path::Path;
use std::process::ExitCode;

use crate::cargo::{self, Ended};
use crate::{licences, tidy, tree};

/// Runs the checks; with `quick` those that need no compiler.
///
/// # Errors
/// When a step cannot be run at all.
pub fn run(root: &Path, quick: bool) -> anyhow::Result<ExitCode> {
    let mut failed = Vec::new();
    let mut note = |name: &'static str, ended: Ended| {
        if ended == Ended::Failed {
            failed.push(name);
        }
    };
    note("tidy", tidy::run(&tree::Tree::read(root)?));
    note("licences", licences::run(root)?);
    note("deny", deny(root)?);
    note(
        "fmt",
        cargo::step("fmt", cargo::cargo(root).args(["fmt", "--all", "--check"]))?,
    );
    if !quick {
        let clippy = [
            "clippy",
            "--locked",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ];
        note("clippy", cargo::step("clippy", cargo::cargo(root).args(clippy))?);
    }
    if failed.is_empty() {
        eprintln!("check: passed");
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("check: FAILED: {}", failed.join(", "));
    Ok(ExitCode::FAILURE)
}

/// cargo-deny repeats the licence check and adds bans and sources; it is no part of the Rust toolchain, so it may be absent.
fn deny(root: &Path) -> anyhow::Result<Ended> {
    if !cargo::has_subcommand(root, "deny") {
        eprintln!("== deny: SKIPPED, cargo-deny is not installed (licences and banned crates were checked by tidy)");
        return Ok(Ended::Passed);
    }
    let arguments = ["deny", "--offline", "check", "licenses", "bans", "sources"];
    cargo::step("deny", cargo::cargo(root).args(arguments))
}
