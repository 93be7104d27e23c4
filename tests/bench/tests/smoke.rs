//! The bench works: it starts what it measures, measures, and tells. How fast anything is, is not asked here.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use anyhow::{Context, ensure};
use harness::{Place, within};
use tokio::process::Command;

/// Far above what it takes.
const END: Duration = Duration::from_secs(240);

/// Runs the bench in a directory of its own; nothing may be left there.
async fn bench(arguments: &[&str], directory: &Path) -> anyhow::Result<Output> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_malle-bench"));
    command.args(arguments).arg("--dir").arg(directory).kill_on_drop(true);
    let output = within("malle-bench", END, async { Ok(command.output().await?) }).await?;
    ensure!(
        std::fs::read_dir(directory)?.next().is_none(),
        "the bench left something behind"
    );
    Ok(output)
}

/// The binaries of this build, in a directory beside the ones that are measured.
fn copied(to: &Path) -> anyhow::Result<PathBuf> {
    let to = to.join("binaries");
    std::fs::create_dir(&to)?;
    for name in ["malled", "malle-gateway", "malle"] {
        std::fs::hard_link(harness::binary(name)?, to.join(name)).or_else(|_| {
            std::fs::copy(harness::binary(name).map_err(std::io::Error::other)?, to.join(name)).map(drop)
        })?;
    }
    Ok(to)
}

#[tokio::test]
async fn two_builds_are_compared_and_a_ratio_is_told() -> anyhow::Result<()> {
    let place = Place::take().await?;
    let directory = tempfile::tempdir()?;
    let json = directory.path().join("report.json");
    let other = copied(directory.path())?;
    let data = directory.path().join("data");
    std::fs::create_dir(&data)?;
    let arguments = [
        "--only",
        "deliver",
        "--cells",
        "kib=1 c=16 shards=8",
        "--quick",
        "--seconds",
        "0.3",
        "--against",
        &other.display().to_string(),
        "--json",
        &json.display().to_string(),
    ];
    let output = bench(&arguments, &data).await?;
    drop(place);
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {said}{complained}", output.status);
    ensure!(said.contains("malle / against") && said.contains("better in"), "{said}");
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&json)?)?;
    let row = &report["measured"][0]["rows"][0];
    ensure!(row["cell"]["kib"] == 1, "{report:#}");
    let figures = row["figures"].as_array().context("figures")?;
    let rate = figures
        .iter()
        .find(|figure| figure["name"] == "rate")
        .context("a rate")?;
    ensure!(rate["sides"][0]["median"].as_f64() > Some(0.0), "{rate:#}");
    ensure!(rate["sides"][1]["median"].as_f64() > Some(0.0), "{rate:#}");
    ensure!(rate["ratios"][0]["ratio"]["samples"] == 1, "{rate:#}");
    Ok(())
}

#[tokio::test]
async fn a_build_that_does_not_start_is_an_error_that_says_why() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let other = directory.path().join("binaries");
    std::fs::create_dir(&other)?;
    for name in ["malled", "malle-gateway", "malle"] {
        std::os::unix::fs::symlink("/bin/false", other.join(name))?;
    }
    let data = directory.path().join("data");
    std::fs::create_dir(&data)?;
    let output = bench(
        &["--only", "deliver", "--binaries", &other.display().to_string()],
        &data,
    )
    .await?;
    let complained = String::from_utf8_lossy(&output.stderr);
    ensure!(
        !output.status.success() && complained.contains("starting malle"),
        "{complained}"
    );
    Ok(())
}
