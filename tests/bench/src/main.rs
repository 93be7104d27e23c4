//! `malle-bench`: how fast the shipped binaries are. `cargo xtask bench` builds them for release and runs this.
//!
//! It starts real processes, three nodes and a gateway on this machine, puts load on them through the same doors that everybody uses, and
//! prints a table (`--json` writes the same for programs). With `--against` it measures two builds in turns and prints ratios: on a machine
//! with other work that is the only figure that can be believed, and so the only one that a change may claim.
//!
//! [`measure`] has the measurements, one file each; [`world`] what is measured; [`rounds`] repeats and alternates; [`load`] makes load;
//! [`usage`] and [`machine`] read what the kernel counts.

mod figures;
mod imap;
mod load;
mod machine;
mod mail;
mod measure;
mod report;
mod rounds;
mod usage;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Parser;

use crate::load::Window;
use crate::machine::Machine;
use crate::measure::{ALL, Cell, Effort, Measurement};
use crate::report::Report;
use crate::world::{Binaries, Installed, Side, What};

/// Measures how fast malle is, on this machine
#[derive(Debug, Parser)]
#[command(name = "malle-bench", version)]
struct Flags {
    /// Only these measurements [default: all; see --list]
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    only: Vec<String>,
    /// Only cells with these parameters, such as 'kib=16 c=64'; repeat it for more
    #[arg(long, value_name = "WORDS")]
    cells: Vec<String>,
    /// Short samples, few of them: whether it works, not how fast
    #[arg(long)]
    quick: bool,
    /// Seconds of a sample [default: 2, with --quick 0.5]
    #[arg(long, value_name = "S")]
    seconds: Option<f64>,
    /// Samples of each side in each start [default: 3, of a comparison 4, with --quick 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: Option<u16>,
    /// How often everything is started anew [default: 1, of a comparison 3, with --quick 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=100))]
    starts: Option<u16>,
    /// Writes all samples and what was made of them
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Directory of the binaries to measure [default: where this program is]
    #[arg(long, value_name = "DIR")]
    binaries: Option<PathBuf>,
    /// Directory of the binaries to compare with: ratios are --binaries divided by these
    #[arg(long, value_name = "DIR")]
    against: Option<PathBuf>,
    /// Compares with Dovecot too, where it can do the same; installs Debian's packages when they are not there
    #[arg(long)]
    peer: bool,
    /// Where the data lies; a directory inside is made and removed [default: the system's for temporary files]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Names the measurements and their cells
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    let run = || {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(run(&flags))
    };
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("malle-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(flags: &Flags) -> anyhow::Result<ExitCode> {
    let chosen = chosen(flags)?;
    if flags.list {
        for (measurement, cells) in &chosen {
            println!("{}: {}", measurement.name(), measurement.about());
            cells.iter().for_each(|cell| println!("  {cell}"));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut sides = sides(flags)?;
    let effort = effort(flags, sides.len() + usize::from(flags.peer))?;
    let directory = flags.dir.clone().unwrap_or_else(std::env::temp_dir);
    let seconds = effort.window.measured.as_secs_f64();
    let mut report = Report::new(machine::commit(), Machine::look(&directory)?, seconds);
    for warning in report.machine.warnings() {
        eprintln!("WARNING: {warning}");
    }
    if flags.peer {
        match Installed::find().await {
            Ok(installed) => {
                report.notes.push(format!("dovecot is {}", installed.version));
                sides.push(Side {
                    name: "dovecot".into(),
                    what: What::Dovecot(installed),
                });
            }
            Err(error) => report.notes.push(format!("SKIPPED: Dovecot: {error:#}")),
        }
    }
    for (measurement, cells) in chosen {
        let able = |side: &&Side| !side.is_peer() || cells.iter().any(|cell| measurement.peer(cell));
        let sides: Vec<Side> = sides.iter().filter(able).cloned().collect();
        let measured = rounds::measure(measurement, &cells, &sides, &effort, &directory).await;
        report
            .measured
            .push(measured.with_context(|| measurement.name().to_string())?);
        if let Some(path) = &flags.json {
            report.write(path)?;
        }
    }
    print!("{}", report.text());
    Ok(if report.failed() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Measurements with their cells, as the flags want them.
fn chosen(flags: &Flags) -> anyhow::Result<Vec<(&'static dyn Measurement, Vec<Cell>)>> {
    for name in &flags.only {
        let names: Vec<_> = ALL.iter().map(|measurement| measurement.name()).collect();
        ensure!(
            names.contains(&name.as_str()),
            "there is no measurement {name}; there are {}",
            names.join(", ")
        );
    }
    let wanted = |cell: &Cell| flags.cells.is_empty() || flags.cells.iter().any(|filter| cell.passes(filter));
    let mut chosen = Vec::new();
    for measurement in ALL {
        if !flags.only.is_empty() && !flags.only.iter().any(|name| name == measurement.name()) {
            continue;
        }
        let cells: Vec<Cell> = measurement.cells().into_iter().filter(wanted).collect();
        if !cells.is_empty() {
            chosen.push((*measurement, cells));
        }
    }
    ensure!(
        !chosen.is_empty(),
        "no cell has the parameters {:?}; see --list",
        flags.cells
    );
    Ok(chosen)
}

fn sides(flags: &Flags) -> anyhow::Result<Vec<Side>> {
    let ours = match &flags.binaries {
        Some(directory) => Binaries::open(directory)?,
        None => Binaries::beside_us()?,
    };
    let mut sides = vec![Side {
        name: "malle".into(),
        what: What::Malle(ours.clone()),
    }];
    if let Some(directory) = &flags.against {
        let theirs = Binaries::open(directory)?;
        ensure!(
            theirs != ours,
            "--against names the binaries that are measured: build into two directories"
        );
        sides.push(Side {
            name: "against".into(),
            what: What::Malle(theirs),
        });
    }
    Ok(sides)
}

fn effort(flags: &Flags, sides: usize) -> anyhow::Result<Effort> {
    let seconds = flags.seconds.unwrap_or(if flags.quick { 0.5 } else { 2.0 });
    if !(0.01..=3600.0).contains(&seconds) {
        bail!("a sample has 0.01 to 3600 seconds");
    }
    let (rounds, starts) = match (flags.quick, sides) {
        (true, _) => (1, 1),
        (false, 1) => (3, 1),
        (false, _) => (4, 3),
    };
    Ok(Effort {
        window: Window {
            warm: Duration::from_secs_f64(seconds / 4.0),
            measured: Duration::from_secs_f64(seconds),
        },
        rounds: flags.rounds.unwrap_or(rounds).into(),
        starts: flags.starts.unwrap_or(starts).into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(line: &str) -> Flags {
        Flags::parse_from(line.split_whitespace())
    }

    #[test]
    fn flags_choose_measurements_and_cells() {
        let mut wanted = flags("malle-bench --only deliver");
        wanted.cells = vec!["kib=16 c=64".into(), "kib=1 c=1 shards=1".into()];
        let cells: Vec<String> = chosen(&wanted).unwrap()[0].1.iter().map(Cell::to_string).collect();
        assert_eq!(
            cells,
            ["kib=1 c=1 shards=1", "kib=16 c=64 shards=1", "kib=16 c=64 shards=8"]
        );
        wanted.cells = vec!["kib=3".into()];
        assert!(chosen(&wanted).is_err());
        assert!(chosen(&flags("malle-bench --only nothing")).is_err());
        assert_eq!(chosen(&flags("malle-bench")).unwrap().len(), ALL.len());
    }

    #[test]
    fn a_comparison_takes_more_samples_and_quick_takes_one() {
        let amount = |line: &str, sides| {
            let effort = effort(&flags(line), sides).unwrap();
            (effort.rounds, effort.starts)
        };
        assert_eq!((amount("malle-bench", 1), amount("malle-bench", 2)), ((3, 1), (4, 3)));
        assert_eq!(amount("malle-bench --quick", 2), (1, 1));
        assert_eq!(amount("malle-bench --rounds 9 --starts 2", 2), (9, 2));
        assert!(effort(&flags("malle-bench --seconds 0"), 1).is_err());
    }
}
