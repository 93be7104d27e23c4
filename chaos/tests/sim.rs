//! The engine `sim` against the catalogue: scenarios with a few seeds each find nothing, the same seed does the same in two processes, and
//! each promise that is broken on purpose is noticed.
//!
//! `chaos-sim` is built apart; `cargo xtask test` does that first. Alone: `cargo build -p malle-chaos-sim --features sim --target-dir target/sim`.

use std::path::{Path, PathBuf};

use malle_chaos::check::Verdict;
use malle_chaos::engine::{Job, RunResult};
use malle_chaos::scenario::Engine;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn run(scenario: &str, seed: u64, control: Option<&str>, out: &Path) -> RunResult {
    let path = root().join("chaos/scenarios").join(format!("{scenario}.toml"));
    let mut job = Job::read(&path, Engine::Sim, seed, out.to_owned()).expect("a scenario of the catalogue");
    let named = std::env::var_os("CHAOS_SIM").map(PathBuf::from);
    job.sim = Some(named.unwrap_or_else(|| root().join("target/sim/debug/chaos-sim")));
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

fn nothing_is_found(scenario: &str, seeds: &[u64]) {
    for &seed in seeds {
        let directory = tempfile::tempdir().expect("a directory");
        let result = run(scenario, seed, None, directory.path());
        assert_eq!(broken(&result), [""; 0], "{}", result.command);
    }
}

macro_rules! scenarios {
    ($($test:ident: $scenario:literal, $seeds:expr;)*) => {
        $(#[test]
        fn $test() {
            nothing_is_found($scenario, &$seeds);
        })*
    };
}

scenarios! {
    leaders_that_are_killed_lose_nothing: "s01-leader-kill", [1, 2];
    two_of_five_that_are_killed_lose_nothing: "s02-node-kill-storm", [1];
    a_power_cut_of_all_loses_nothing: "s03-power-cut-of-all", [1, 2];
    a_paused_leader_serves_nothing_old: "s05-paused-leader", [1];
    a_leader_in_the_minority_acknowledges_nothing: "s07-minority-leader", [1, 2];
    links_of_one_way_keep_every_promise: "s08-one-way", [1];
    a_bridge_keeps_every_promise: "s09-bridge", [1];
    a_flapping_link_keeps_every_promise: "s10-flapping-link", [1];
    messages_that_come_twice_and_late_do_nothing_twice: "s13-doubled-messages", [1, 2];
    a_wiped_machine_comes_back_as_another_node: "s14-wiped-disk", [1];
    a_failed_sync_ends_the_node_and_nothing_else: "s16-failed-sync", [1];
    rot_is_never_served: "s21-bit-rot", [1];
    clocks_an_hour_apart_change_no_promise: "s24-clocks", [1];
    a_node_left_behind_catches_up: "s28-left-behind", [1];
}

#[test]
fn the_same_seed_does_the_same_in_two_processes() {
    let directories = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
    let runs = [0, 1].map(|number| run("s01-leader-kill", 7, None, directories[number].path()));
    assert!(runs[0].trace.is_some(), "a run without a trace");
    assert_eq!(runs[0].trace, runs[1].trace);
    let history = |number: usize| std::fs::read(directories[number].path().join("history.jsonl")).expect("a history");
    assert!(history(0) == history(1), "one trace and two histories");
}

#[test]
fn another_seed_does_something_else() {
    let directories = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
    let runs = [0, 1].map(|number| run("s01-leader-kill", 8 + number as u64, None, directories[number].path()));
    assert_ne!(runs[0].trace, runs[1].trace);
}
