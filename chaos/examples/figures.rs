//! Figures of runs, for docs/reliability.md: how long groups had no leader after kills, and availability state by state.
//!
//! ```text
//! cargo run --example figures -- outages RUN...     over all runs together
//! cargo run --example figures -- states RUN         a run of scenarios/adversity.toml
//! ```

use std::path::Path;

use anyhow::{Context, bail};
use malle_chaos::figures::{Figures, Percentiles};
use malle_chaos::history::{FILE, History};
use malle_chaos::states::{chart, states};

fn history(run: &str) -> anyhow::Result<History> {
    History::read(&Path::new(run).join(FILE))
}

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let what = arguments.next().context("outages or states?")?;
    let runs: Vec<String> = arguments.collect();
    match (what.as_str(), runs.as_slice()) {
        ("outages", [_, ..]) => {
            let mut outages = Vec::new();
            for run in &runs {
                let figures = Figures::of(&history(run)?);
                let kills = figures.outages.into_iter().filter(|outage| outage.fault == "kill");
                outages.extend(kills.map(|outage| outage.took_us / 1000));
            }
            let of = Percentiles::of(outages);
            println!(
                "{} groups without a leader: p50 {} ms, p99 {} ms, max {} ms",
                of.count, of.p50, of.p99, of.max
            );
        }
        ("states", [run]) => print!("{}", chart(&states(&history(run)?))),
        _ => bail!("outages RUN... or states RUN"),
    }
    Ok(())
}
