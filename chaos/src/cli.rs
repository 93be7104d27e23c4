//! The verbs of `chaos`.

mod catalogue;
mod machine;
mod one;
mod selftest;
mod sweep;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use malle_chaos::check::Verdict;
use malle_chaos::engine::RunResult;
use malle_chaos::scenario::{Engine, Span};

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ending {
    /// As it should be.
    Good,
    /// Nothing could be run here.
    Skipped,
    /// It could not be run or judged.
    NotRun,
    /// A promise was broken.
    Broken,
}

impl From<Ending> for ExitCode {
    fn from(ending: Ending) -> ExitCode {
        ExitCode::from(match ending {
            Ending::Good => 0,
            Ending::Broken => 1,
            Ending::NotRun => 2,
            Ending::Skipped => 3,
        })
    }
}

impl Ending {
    /// Of a run. One that breaks a promise on purpose must be found out.
    pub fn of(result: &RunResult) -> Ending {
        match (result.verdict, result.control.is_some()) {
            (Verdict::Skipped, _) => Ending::Skipped,
            (Verdict::Unknown, _) => Ending::NotRun,
            (Verdict::Pass, false) | (Verdict::Fail, true) => Ending::Good,
            (Verdict::Fail, false) | (Verdict::Pass, true) => Ending::Broken,
        }
    }
}

#[derive(Debug, Parser)]
#[command(name = "chaos", version, about = "Attacks every promise of malle")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

/// As [`Engine`], for the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OnEngine {
    /// The whole cluster in one process, simulated: a run is its seed
    Sim,
    /// The shipped binaries in network namespaces: needs root
    Proc,
}

impl From<OnEngine> for Engine {
    fn from(engine: OnEngine) -> Engine {
        match engine {
            OnEngine::Sim => Engine::Sim,
            OnEngine::Proc => Engine::Proc,
        }
    }
}

/// What all verbs that run something take.
#[derive(Debug, Clone, Args)]
struct Where {
    /// Where it runs
    #[arg(long, value_enum, default_value = "sim")]
    engine: OnEngine,
    /// Directory of runs
    #[arg(long, default_value = "target/chaos")]
    out: PathBuf,
    /// The directory of scenarios that are given by name
    #[arg(long, env = "CHAOS_SCENARIOS", default_value = "chaos/scenarios")]
    scenarios: PathBuf,
    /// The binary chaos-sim; beside this one when absent
    #[arg(long, env = "CHAOS_SIM")]
    sim: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Runs one scenario with one seed
    Run {
        /// A file, or a name of the catalogue, or its beginning (s07)
        scenario: String,
        /// What all chance follows from
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Follow this plan instead of the scenario's
        #[arg(long)]
        plan: Option<PathBuf>,
        /// Break a promise on purpose: the run must turn red
        #[arg(long)]
        control: Option<String>,
        /// Let the engine write what nodes log
        #[arg(long)]
        trace: bool,
        #[command(flatten)]
        place: Where,
    },
    /// Runs scenarios over many seeds; what was run before is not run again
    Sweep {
        /// Scenarios; all of the catalogue that the engine has when absent
        #[arg(value_name = "SCENARIO")]
        named: Vec<String>,
        /// First and last seed
        #[arg(long, default_value = "1..20", value_parser = seeds)]
        seeds: (u64, u64),
        /// Runs at once
        #[arg(long, default_value_t = 1)]
        jobs: usize,
        /// Begin no run after this long, as in 8m
        #[arg(long)]
        budget: Option<Span>,
        #[command(flatten)]
        place: Where,
    },
    /// Runs a run again from its directory and says whether it ended the same
    Replay {
        /// The directory of a run
        run: PathBuf,
        /// How often
        #[arg(long, default_value_t = 1)]
        times: u32,
        #[command(flatten)]
        place: Where,
    },
    /// Looks for fewer and shorter faults that break the same promise
    Shrink {
        /// The directory of a run that failed, on sim
        run: PathBuf,
        /// Runs to try
        #[arg(long, default_value_t = 60)]
        runs: u32,
        #[command(flatten)]
        place: Where,
    },
    /// Judges runs again, if asked to, and writes the scoreboard of a directory of runs
    Report {
        /// Directory of runs
        #[arg(default_value = "target/chaos")]
        runs: PathBuf,
        /// Judge every history again
        #[arg(long)]
        judge: bool,
    },
    /// Shows that the attacks can win and that a run is its seed
    Selftest {
        /// Seeds to try until a control is found out
        #[arg(long, default_value_t = 5)]
        seeds: u64,
        /// Only this control
        #[arg(long)]
        control: Option<String>,
        #[command(flatten)]
        place: Where,
    },
    /// Says what this machine can do for the engine proc
    Probe,
    /// Removes what a run of the engine proc left behind
    Clean,
    /// Lists the catalogue
    List {
        #[arg(long, env = "CHAOS_SCENARIOS", default_value = "chaos/scenarios")]
        scenarios: PathBuf,
    },
}

/// `1..500`, or one seed.
fn seeds(text: &str) -> Result<(u64, u64), String> {
    let number = |text: &str| {
        text.parse::<u64>()
            .map_err(|_| format!("{text:?} is no seed: 7, or 1..500"))
    };
    let (first, last) = match text.split_once("..") {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(text)?, number(text)?),
    };
    if first > last {
        return Err(format!("{text:?} runs backwards"));
    }
    Ok((first, last))
}

/// Does what the command line says.
pub fn run() -> anyhow::Result<Ending> {
    match Arguments::parse().verb {
        Verb::Run {
            scenario,
            seed,
            plan,
            control,
            trace,
            place,
        } => one::run(&place, &scenario, seed, plan.as_deref(), control, trace),
        Verb::Sweep {
            named,
            seeds,
            jobs,
            budget,
            place,
        } => sweep::run(&place, &named, seeds, jobs, budget),
        Verb::Replay { run, times, place } => one::replay(&place, &run, times),
        Verb::Shrink { run, runs, place } => one::shrink(&place, &run, runs),
        Verb::Report { runs, judge } => sweep::report(&runs, judge),
        Verb::Selftest { seeds, control, place } => selftest::run(&place, seeds, control.as_deref()),
        Verb::Probe => machine::probe(),
        Verb::Clean => machine::clean(),
        Verb::List { scenarios } => catalogue::list(&scenarios),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_whole() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn seeds_are_one_or_a_range() {
        assert_eq!(seeds("7"), Ok((7, 7)));
        assert_eq!(seeds("1..500"), Ok((1, 500)));
        assert!(seeds("9..1").is_err() && seeds("x").is_err() && seeds("1..").is_err());
    }
}
