//! The engine `sim`: the same seed does the same in two processes, and promises that are broken on purpose are noticed. The catalogue is
//! run by `cargo xtask chaos`.
//!
//! `chaos-sim` is built apart; `cargo xtask test` does that first. chaos/README.md has the command.

use std::path::{Path, PathBuf};

use malle_chaos::check::Verdict;
use malle_chaos::engine::{Job, RunResult};
use malle_chaos::scenario::Engine;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn run(seed: u64, control: Option<&str>, out: &Path) -> RunResult {
    let path = root().join("chaos/tests/short.toml");
    let mut job = Job::read(&path, Engine::Sim, seed, out.to_owned()).expect("a scenario");
    let named = std::env::var_os("CHAOS_SIM").map(PathBuf::from);
    job.sim = Some(named.unwrap_or_else(|| root().join("target/debug/chaos-sim")));
    job.control = control.map(str::to_owned);
    job.run()
        .expect("a run (chaos-sim must be built: see the head of this file)")
}

fn broken(result: &RunResult) -> Vec<String> {
    let bad = result
        .findings
        .iter()
        .filter(|finding| finding.verdict == Verdict::Fail);
    bad.map(|finding| format!("{} {:?}", finding.invariant, finding.evidence))
        .collect()
}

fn finds(control: &str, invariant: &str) {
    let directory = tempfile::tempdir().expect("a directory");
    let result = run(5, Some(control), directory.path());
    let found = broken(&result);
    assert!(
        found.iter().any(|what| what.starts_with(&format!("{invariant} "))),
        "{control} went by: {found:?}"
    );
}

#[test]
fn the_same_seed_does_the_same_in_two_processes() {
    let directories = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
    let runs = [0, 1].map(|number| run(5, None, directories[number].path()));
    assert!(runs[0].trace.is_some(), "a run without a trace");
    assert_eq!(runs[0].trace, runs[1].trace);
    let history = |number: usize| std::fs::read(directories[number].path().join("history.jsonl")).expect("a history");
    assert!(history(0) == history(1), "one trace and two histories");
}

#[test]
fn flags_that_are_not_taken_away_are_noticed() {
    finds("drop-flag-delta", "I7");
}

#[test]
fn a_delivery_without_a_receipt_is_noticed() {
    finds("lose-receipt", "I2");
}

#[test]
fn an_expunge_without_a_tombstone_is_noticed() {
    finds("lose-tombstone", "I5");
}
