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
