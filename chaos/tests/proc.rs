//! Short runs of the engine `proc`: real binaries, real disks, real partitions. A name is a claim.
//!
//! What this machine cannot do is SKIPPED with the reason. A run that fails leaves its directory, with the history and the logs of
//! every process, and prints its name.

use std::path::Path;

use malle_chaos::history::{FaultState, History};
use malle_chaos::plan;
use malle_chaos::proc::{Job, Ran, run};
use malle_chaos::scenario::Scenario;

const SEED: u64 = 1;

/// The history of a run of a short scenario, and its directory; `None` when this machine cannot.
fn history_of(name: &str, control: Option<&str>) -> Option<(tempfile::TempDir, History)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("scenarios/short/{name}.toml"));
    let scenario = Scenario::read(&path).unwrap();
    let directory = tempfile::Builder::new().prefix("malle-chaos-").tempdir().unwrap();
    let job = Job {
        steps: plan::plan(&scenario, SEED).unwrap(),
        scenario_hash: String::new(),
        seed: SEED,
        out: directory.path().to_owned(),
        control: control.map(str::to_owned),
        commit: String::new(),
        scenario,
    };
    match run(job) {
        Ok(Ran::Skipped(reason)) => {
            println!("SKIPPED: {reason}");
            None
        }
        Ok(Ran::Whole) => {
            let history = History::read(&directory.path().join("history.jsonl")).unwrap();
            Some((directory, history))
        }
        Err(error) => panic!("{error:#}\nthe run is kept: {}", directory.keep().display()),
    }
}

/// Fails, and keeps the directory, when the run broke something or its faults did not happen.
fn green(name: &str, faults: usize) {
    let Some((directory, history)) = history_of(name, None) else { return };
    let mut wrong: Vec<String> = history.broken.iter().map(|broken| broken.what.clone()).collect();
    let began = history.faults.iter().filter(|fault| fault.event == FaultState::Began).count();
    if began < faults {
        wrong.push(format!("{began} faults, not {faults}: {:?}", history.faults));
    }
    let done = history.operations.iter().filter(|operation| operation.outcome.done().is_some()).count();
    println!("{name}: {} operations, {done} done, {began} faults", history.operations.len());
    if !wrong.is_empty() {
        panic!("{}\nthe run is kept: {}", wrong.join("\n"), directory.keep().display());
    }
}

#[test]
fn no_acknowledged_change_is_lost_when_leaders_die() {
    green("short-leader-kill", 3);
}

#[test]
fn no_acknowledged_change_is_lost_when_the_power_of_all_goes() {
    green("short-power-cut", 1);
}

#[test]
fn a_leader_in_the_minority_acknowledges_nothing() {
    green("short-minority-leader", 1);
}

#[test]
fn a_node_whose_syncs_fail_leaves() {
    green("short-sync-fails", 1);
}

#[test]
fn what_rots_is_found_and_repaired() {
    green("short-bit-rot", 2);
}
