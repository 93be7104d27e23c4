//! `cargo xtask`: the commands of the house. A rule that `cargo xtask check` does not run is not a rule.
//!
//! * `check` reads and never writes: format, clippy, the tidy rules, licences.
//! * `fix` writes what a machine can write: format, golden scripts, the hash of the wire contract.
//! * `test` builds the binaries once, installs the programs that others wrote where it can, and runs everything that must pass; the test
//!   runner's closing lines come last.
//! * `demo` builds the three binaries for release and hands its flags to `malle demo`.
//! * `chaos` builds both engines of attacks and runs them: `selftest`, `smoke` or `long`.
//! * `bench` builds them for release and hands its flags to `malle-bench`: the one way in which speed is claimed.
//! * `fuzz` runs libFuzzer on a parser of the gateway, for as long as it is told.
//!
//! CI calls `check` and `test`, so a green machine at home and a green CI mean the same. Every cargo call selects the whole workspace
//! with `--locked`: the same packages mean the same features, so nothing is built twice, and nothing rewrites the lock file.

mod bench;
mod cargo;
mod chaos;
mod check;
mod fix;
mod fuzz;
mod licences;
mod programs;
mod suites;
mod tidy;
mod tree;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    about = "The commands of the house",
    disable_help_subcommand = true
)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Reads everything, writes nothing: format, clippy, tidy rules, licences
    Check {
        /// Leaves clippy out: what is left needs no compiler and seconds instead of minutes
        #[arg(long)]
        quick: bool,
    },
    /// Writes what a machine can write: format, golden scripts, the hash of the wire contract
    Fix,
    /// Builds the binaries and runs every test
    Test {
        /// Leaves the cluster tests out, which start real processes
        #[arg(long)]
        fast: bool,
        /// Hundreds of power cuts where there are a few otherwise: an hour or two
        #[arg(long, conflicts_with = "fast")]
        long: bool,
    },
    /// Builds for release and runs `malle demo` with the flags that follow
    Demo {
        /// Flags of `malle demo`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, num_args = 0..)]
        flags: Vec<OsString>,
    },
    /// Builds what attacks malle and runs it
    Chaos {
        /// How much
        #[arg(value_enum)]
        length: chaos::Length,
        /// Flags of `chaos`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, num_args = 0..)]
        flags: Vec<OsString>,
    },
    /// Runs libFuzzer on a parser of the gateway and keeps what it found in the corpus
    Fuzz {
        /// Which
        #[arg(value_enum)]
        parser: fuzz::Parser,
        /// For how long
        #[arg(long, default_value_t = 3600)]
        seconds: u32,
    },
    /// Builds for release and runs `malle-bench` with the flags that follow
    Bench {
        /// Flags of `malle-bench`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, num_args = 0..)]
        flags: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    let done = tree::root().and_then(|root| match Arguments::parse().verb {
        Verb::Check { quick } => check::run(&root, quick),
        Verb::Fix => fix::run(&root),
        Verb::Test { fast, long } => suites::run(&root, suites::Length::of(fast, long)),
        Verb::Demo { flags } => demo(&root, &flags),
        Verb::Chaos { length, flags } => chaos::run(&root, length, &flags),
        Verb::Fuzz { parser, seconds } => fuzz::run(&root, parser, seconds),
        Verb::Bench { flags } => bench::run(&root, &flags),
    });
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Builds the three binaries in one call and becomes `malle demo`, so that signals and the exit code are the demo's own.
fn demo(root: &std::path::Path, flags: &[OsString]) -> anyhow::Result<ExitCode> {
    use std::os::unix::process::CommandExt as _;
    let built = cargo::cargo(root)
        .args(["build", "--locked", "--release", "--bins"])
        .args(["-p", "malle-node", "-p", "malle-gateway", "-p", "malle-cli"])
        .status()
        .context("starting cargo")?;
    if !built.success() {
        return Ok(ExitCode::FAILURE);
    }
    let malle = cargo::target_directory(root)?.join("release").join("malle");
    let error = std::process::Command::new(&malle).arg("demo").args(flags).exec();
    Err(error).with_context(|| format!("starting {}", malle.display()))
}
