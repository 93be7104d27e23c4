//! The attacks are attacked: every build that breaks a promise on purpose must be found out, and the same seed must be the same run.

use std::path::{Path, PathBuf};

use malle_chaos::check::Verdict;
use malle_chaos::engine::{Job, RunResult};
use malle_chaos::scenario::{Engine, Scenario};

use super::{Ending, Where, catalogue};

/// Scenarios whose trace is compared in two fresh processes.
const TWICE_MAX: usize = 3;

/// Runs the controls that the catalogue names, each until it is found out or the seeds are used up, and some runs twice.
pub fn run(place: &Where, seeds: u64, only: Option<&str>) -> anyhow::Result<Ending> {
    let engine = Engine::from(place.engine);
    let scenarios: Vec<(PathBuf, Scenario)> = catalogue::all(&place.scenarios)?
        .into_iter()
        .filter(|(_, scenario)| scenario.engines.contains(&engine))
        .collect();
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    let mut count = |name: &str, ending: Ending, what: &str| {
        match ending {
            Ending::Good => passed += 1,
            Ending::Skipped => skipped += 1,
            Ending::Broken | Ending::NotRun => failed += 1,
        }
        println!("{name}: {what}");
    };
    for (path, scenario) in &scenarios {
        for (control, invariants) in scenario.expect.controls.get(&engine).into_iter().flatten() {
            if only.is_none_or(|only| only == control) {
                let (ending, what) = found_out(place, path, control, invariants, seeds)?;
                count(&format!("{} under {control}", scenario.name), ending, &what);
            }
        }
    }
    if engine == Engine::Sim && only.is_none() {
        for (path, scenario) in scenarios.iter().take(TWICE_MAX) {
            let (ending, what) = twice(place, path)?;
            count(&format!("{} twice", scenario.name), ending, &what);
        }
    }
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    Ok(match (failed, passed) {
        (1.., _) => Ending::Broken,
        (0, 0) => Ending::Skipped,
        _ => Ending::Good,
    })
}

fn job(place: &Where, path: &Path, seed: u64, directory: &str) -> anyhow::Result<Job> {
    let mut job = Job::read(path, place.engine.into(), seed, PathBuf::new())?;
    job.sim.clone_from(&place.sim);
    job.out = place.out.join(directory).join(job.name());
    Ok(job)
}

/// Red is not enough: one of the invariants that the control breaks must be the one that is red.
fn found_out(
    place: &Where,
    path: &Path,
    control: &str,
    invariants: &[String],
    seeds: u64,
) -> anyhow::Result<(Ending, String)> {
    let mut others: Vec<String> = Vec::new();
    for seed in 1..=seeds {
        let mut job = job(place, path, seed, "")?;
        job.control = Some(control.to_owned());
        job.out.set_file_name(job.name());
        let result = match job.run() {
            Ok(result) => result,
            Err(error) => return Ok((Ending::NotRun, format!("could not be run: {error:#}"))),
        };
        if result.verdict == Verdict::Skipped {
            return Ok((
                Ending::Skipped,
                format!("SKIPPED, {}", result.reason.unwrap_or_default()),
            ));
        }
        let red = red(&result);
        if let Some(wanted) = red.iter().find(|invariant| invariants.contains(invariant)) {
            return Ok((Ending::Good, format!("found out by {wanted} with seed {seed}")));
        }
        others.extend(red);
    }
    others.sort();
    others.dedup();
    let instead = if others.is_empty() {
        String::new()
    } else {
        format!(" (red were {})", others.join(", "))
    };
    Ok((
        Ending::Broken,
        format!("NOT found out by {} in {seeds} seeds{instead}", invariants.join(", ")),
    ))
}

fn red(result: &RunResult) -> Vec<String> {
    let red = result
        .findings
        .iter()
        .filter(|finding| finding.verdict == Verdict::Fail);
    red.map(|finding| finding.invariant.clone()).collect()
}

fn twice(place: &Where, path: &Path) -> anyhow::Result<(Ending, String)> {
    let traces = [
        job(place, path, 1, "twice-a")?.run()?.trace,
        job(place, path, 1, "twice-b")?.run()?.trace,
    ];
    Ok(match &traces {
        [Some(one), Some(other)] if one == other => (Ending::Good, format!("the same trace {one}")),
        [None, _] | [_, None] => (Ending::NotRun, "the engine told no trace".to_owned()),
        [Some(one), Some(other)] => (Ending::Broken, format!("two traces, {one} and {other}")),
    })
}
