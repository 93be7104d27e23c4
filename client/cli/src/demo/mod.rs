//! Placeholder.
#[derive(Debug, clap::Args)]
pub struct Arguments {}
pub async fn run(_: Arguments) -> anyhow::Result<std::process::ExitCode> {
    anyhow::bail!("no demo yet")
}
