//! The engine `sim`: the same seed does the same in two processes, a dozen scenarios of the catalogue hold (with `cargo xtask test
//! --long` with five seeds), and every promise that is broken on purpose is noticed. Hundreds of seeds are run by `cargo xtask chaos long`.
//!
//! `chaos-sim` is built apart; `cargo xtask test` does that first. chaos/README.md has the command.

use std::path::{Path, PathBuf};

use malle_chaos::check::Verdict;
use malle_chaos::engine::{Job, RunResult};
use malle_chaos::scenario::Engine;

const SHORT: &str = "chaos/tests/short.toml";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn job(scenario: &str, seed: u64, control: Option<&str>, out: &Path) -> Job {
    let mut job = Job::read(&root().join(scenario), Engine::Sim, seed, out.to_owned()).expect("a scenario");
    let named = std::env::var_os("CHAOS_SIM").map(PathBuf::from);
    job.sim = Some(named.unwrap_or_else(|| root().join("target/debug/chaos-sim")));
    job.control = control.map(str::to_owned);
    job
}

fn run(job: &Job) -> RunResult {
    job.run()
        .expect("a run (chaos-sim must be built: see the head of this file)")
}

fn red(result: &RunResult) -> Vec<(String, String)> {
    let bad = result
        .findings
        .iter()
        .filter(|finding| finding.verdict == Verdict::Fail);
    bad.map(|finding| (finding.invariant.clone(), format!("{:?}", finding.evidence)))
        .collect()
}

/// A control breaks a promise in some runs and not in all: what `chaos selftest` tries, too.
const TRIES: u64 = 5;

/// One of the invariants that the scenario names for this control must be broken, and seen to be, under `seed` or one of the next ones.
fn noticed(scenario: &str, seed: u64, control: &str) {
    let others: Vec<_> = (seed..seed + TRIES)
        .map_while(|seed| went_by(scenario, seed, control))
        .collect();
    assert!(
        others.len() < TRIES as usize,
        "{control} went by with {TRIES} seeds; what was seen instead: {others:?}"
    );
}

/// What was red instead, if none of the control's invariants was.
fn went_by(scenario: &str, seed: u64, control: &str) -> Option<Vec<(String, String)>> {
    let directory = tempfile::tempdir().expect("a directory");
    let job = job(scenario, seed, Some(control), directory.path());
    let wanted = &job.scenario.expect.controls[&Engine::Sim][control];
    let red = red(&run(&job));
    let seen = red.iter().any(|(invariant, _)| wanted.contains(invariant));
    (!seen).then_some(red)
}

fn holds(scenario: &str) {
    let seeds = if std::env::var_os("MALLE_LONG").is_some() { 5 } else { 1 };
    for seed in 1..=seeds {
        let directory = tempfile::tempdir().expect("a directory");
        let job = job(scenario, seed, None, directory.path());
        let result = run(&job);
        assert_eq!(
            result.verdict,
            Verdict::Pass,
            "again: {}\n{:#?}",
            job.command(),
            result.findings
        );
    }
}

#[test]
fn the_same_seed_does_the_same_in_two_processes() {
    let directories = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
    let runs = [0, 1].map(|number| run(&job(SHORT, 5, None, directories[number].path())));
    assert!(runs[0].trace.is_some(), "a run without a trace");
    assert_eq!(runs[0].trace, runs[1].trace);
    let history = |number: usize| std::fs::read(directories[number].path().join("history.jsonl")).expect("a history");
    assert!(history(0) == history(1), "one trace and two histories");
}

#[test]
fn leaders_that_lose_power_and_are_back_at_once_diverge_in_nothing() {
    holds("chaos/scenarios/r01-power-flicker.toml");
}

#[test]
fn a_storm_of_kills_loses_nothing() {
    holds("chaos/scenarios/s02-node-kill-storm.toml");
}

#[test]
fn a_power_cut_of_all_loses_nothing() {
    holds("chaos/scenarios/s03-power-cut-of-all.toml");
}

#[test]
fn power_that_goes_from_node_to_node_loses_nothing() {
    holds("chaos/scenarios/s04-rolling-power-loss.toml");
}

#[test]
fn a_leader_in_a_minority_answers_nothing_old() {
    holds("chaos/scenarios/s07-minority-leader.toml");
}

#[test]
fn lines_that_carry_one_way_cost_no_promise() {
    holds("chaos/scenarios/s08-one-way.toml");
}

#[test]
fn lines_that_clog_and_clear_cost_no_promise() {
    holds("chaos/scenarios/s11-swizzle-clog.toml");
}

#[test]
fn lost_and_late_packets_cost_no_promise() {
    holds("chaos/scenarios/s12-bad-lines.toml");
}

#[test]
fn a_sync_that_fails_loses_nothing() {
    holds("chaos/scenarios/s16-failed-sync.toml");
}

#[test]
fn a_full_disk_loses_nothing() {
    holds("chaos/scenarios/s17-full-disk.toml");
}

#[test]
fn a_disk_that_hangs_loses_nothing() {
    holds("chaos/scenarios/s19-hanging-disk.toml");
}

#[test]
fn torn_writes_hold_nothing_that_was_acknowledged() {
    holds("chaos/scenarios/s20-torn-write.toml");
}

#[test]
fn clocks_that_jump_cost_no_promise() {
    holds("chaos/scenarios/s24-clocks.toml");
}

#[test]
fn acknowledging_before_the_sync_is_noticed() {
    noticed("chaos/scenarios/s03-power-cut-of-all.toml", 1, "acknowledge-unsynced");
}

#[test]
fn a_vote_that_is_forgotten_is_noticed() {
    noticed("chaos/scenarios/r01-power-flicker.toml", 1, "forget-vote");
}

#[test]
fn flags_that_are_not_taken_away_are_noticed() {
    noticed(SHORT, 5, "drop-flag-delta");
}

#[test]
fn a_uid_that_is_used_again_is_noticed() {
    noticed("chaos/scenarios/s01-leader-kill.toml", 1, "reuse-uid");
}

#[test]
fn a_stale_read_of_a_leader_is_noticed() {
    noticed("chaos/scenarios/s07-minority-leader.toml", 1, "stale-read");
}

#[test]
fn a_body_that_is_not_checked_is_noticed() {
    noticed("chaos/scenarios/s21-bit-rot.toml", 1, "skip-body-check");
}

#[test]
fn an_expunge_without_a_tombstone_is_noticed() {
    noticed(SHORT, 5, "lose-tombstone");
}

#[test]
fn a_delivery_without_a_receipt_is_noticed() {
    noticed(SHORT, 5, "lose-receipt");
}

#[test]
fn a_leader_that_leads_on_is_noticed() {
    noticed("chaos/scenarios/r01-power-flicker.toml", 1, "lead-on");
}
