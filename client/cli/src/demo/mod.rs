//! `malle demo`: a whole cluster on this machine.

use std::process::ExitCode;

/// What to start, and where.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the demo until it is stopped.
///
/// # Errors
/// Until the processes of the demo are part of this program: always.
pub async fn run(_args: Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("this build has no demo")
}
