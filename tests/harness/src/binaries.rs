//! Where the binaries are: beside the test executable, which cargo puts into `target/<profile>/deps`.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

/// The path of one of `malled`, `malle-gateway`, `malle`.
///
/// # Errors
/// When it was not built: `cargo xtask test` builds it, and so does `cargo build --workspace --bins`.
pub fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let test = std::env::current_exe().context("finding the test executable")?;
    let profile = test
        .parent()
        .and_then(|deps| deps.parent())
        .context("the test executable lies in target/<profile>/deps")?;
    let path = profile.join(name);
    if !path.is_file() {
        bail!(
            "{} is not there: run `cargo build --workspace --bins` first",
            path.display()
        );
    }
    Ok(path)
}

/// Whether a program of the machine runs; a test that needs one that does not prints SKIPPED and why.
pub fn installed(program: &str, argument: &str) -> bool {
    let ran = Command::new(program)
        .arg(argument)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let there = ran.is_ok_and(|status| status.success());
    if !there {
        println!("SKIPPED: {program} is not installed");
    }
    there
}
