//! `chaos-sim`: a whole cluster in one process and one thread. The code of node, journal, machine and client is the product's; runtime,
//! network, disks, clocks and entropy are simulated, and all of them follow from one seed.
//!
//! `chaos-sim --scenario FILE --seed N --out DIR` writes `history.jsonl`, `plan.jsonl` and `run.json` (the trace, which is the same for the
//! same seed, and what the run took) and exits 0 when it ran, whatever it found: judging is the checkers' work. One run per process.

mod boot;
mod chance;
mod faults;
mod finals;
mod machine;
mod net;
mod observe;
mod panics;
mod run;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Runs a scenario in simulation.
#[derive(Debug, Clone, Parser)]
#[command(version)]
pub struct Arguments {
    /// The scenario.
    #[arg(long)]
    scenario: PathBuf,
    /// What all chance follows from.
    #[arg(long)]
    seed: u64,
    /// Where the history goes; made when it is not there.
    #[arg(long)]
    out: PathBuf,
    /// Follow this plan instead of the one that the scenario and the seed give.
    #[arg(long)]
    plan: Option<PathBuf>,
    /// Break a promise on purpose, to see whether somebody notices. `list` names those that there are.
    #[arg(long)]
    control: Option<String>,
    /// Write what the nodes log to `log.txt`; RUST_LOG says how much.
    #[arg(long)]
    trace: bool,
}

/// The exit code for a control that there is not.
const NO_CONTROL: u8 = 2;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(control) = &arguments.control
        && !malle_node::controls::switch_on(control)
    {
        eprintln!("chaos-sim: {control:?} is no control; there are:");
        for (name, breaks) in malle_node::controls::NAMES {
            eprintln!("  {name:<22} {breaks}");
        }
        return ExitCode::from(NO_CONTROL);
    }
    chance::seed(arguments.seed);
    panics::record();
    match run::run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("chaos-sim: {error:#}");
            ExitCode::FAILURE
        }
    }
}
