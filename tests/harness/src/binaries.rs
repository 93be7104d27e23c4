//! Where the binaries are: beside the program that asks, or above it when that is a test, which cargo puts into `target/<profile>/deps`.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::Context;

/// The path of one of `malled`, `malle-gateway`, `malle`.
///
/// # Errors
/// When it was not built: `cargo xtask test` builds it, and so does `cargo build --workspace --bins`.
pub fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let asking = std::env::current_exe().context("finding the program that runs")?;
    let mut places = asking.ancestors().skip(1).take(2).map(|dir| dir.join(name));
    places.find(|path| path.is_file()).with_context(|| {
        format!(
            "{name} is not near {}: run `cargo build --workspace --bins` first",
            asking.display()
        )
    })
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
