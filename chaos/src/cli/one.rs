//! One run: make it, make it again, make it smaller.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use malle_chaos::check::{Finding, Verdict};
use malle_chaos::engine::{Job, PLAN, RunResult, SCENARIO, TIMELINE, read_result};
use malle_chaos::plan;
use malle_chaos::scenario::Engine;
use malle_chaos::shrink::{Candidate, shrink as smaller};

use super::{Ending, Where, catalogue};

/// Runs one scenario.
pub fn run(
    place: &Where,
    scenario: &str,
    seed: u64,
    plan: Option<&Path>,
    control: Option<String>,
    trace: bool,
) -> anyhow::Result<Ending> {
    let (path, _) = catalogue::find(&place.scenarios, scenario)?;
    let mut job = Job::read(&path, place.engine.into(), seed, PathBuf::new())?;
    job.steps = plan.map(plan::read).transpose()?;
    job.control = control;
    job.trace = trace;
    job.sim.clone_from(&place.sim);
    job.out = place.out.join(job.name());
    let result = job.run()?;
    tell(&result, &job.out);
    Ok(Ending::of(&result))
}

/// Prints a result.
pub fn tell(result: &RunResult, out: &Path) {
    for finding in &result.findings {
        println!(
            "{:<4} {:<8} {:>9} checked  {}",
            finding.invariant, finding.verdict, finding.checked, finding.claim
        );
        if finding.verdict != Verdict::Pass {
            tell_why(finding);
        }
    }
    let figures = &result.figures;
    println!(
        "{} seed {}: {}  {} acknowledged, {} without an answer, {} faults ({} skipped), {:.1} s of wall time",
        result.scenario,
        result.seed,
        result.verdict,
        figures.acknowledged,
        figures.unknown,
        figures.faults,
        figures.faults_skipped,
        result.wall_ms as f64 / 1e3
    );
    match (&result.reason, result.verdict) {
        (Some(reason), _) => println!("  {reason}"),
        (None, _) => println!("  {}", out.join(TIMELINE).display()),
    }
    if matches!(result.verdict, Verdict::Fail | Verdict::Unknown) {
        println!("  again: {}", result.command);
    }
}

fn tell_why(finding: &Finding) {
    for evidence in finding.evidence.iter().take(5) {
        println!("       {} {:?}", evidence.what, evidence.operations);
    }
    if let Some(note) = &finding.note {
        println!("       {note}");
    }
}

/// The job of a run's directory, to be run in another.
pub fn job_of(place: &Where, run: &Path, out: PathBuf) -> anyhow::Result<(Job, RunResult)> {
    let before = read_result(run)?;
    let mut job = Job::read(&run.join(SCENARIO), before.engine, before.seed, out)?;
    job.steps = Some(plan::read(&run.join(PLAN))?);
    job.control.clone_from(&before.control);
    job.sim.clone_from(&place.sim);
    Ok((job, before))
}

/// What two runs must have in common to be called the same: every verdict.
fn same(one: &RunResult, other: &RunResult) -> bool {
    let verdicts = |result: &RunResult| -> Vec<(String, Verdict)> {
        result
            .findings
            .iter()
            .map(|finding| (finding.invariant.clone(), finding.verdict))
            .collect()
    };
    verdicts(one) == verdicts(other)
}

/// Runs a run again. On `sim` the trace must be the same when the build is; on `proc` the rate at which it ends the same is reported.
pub fn replay(place: &Where, run: &Path, times: u32) -> anyhow::Result<Ending> {
    let mut again = 0;
    let mut ending = Ending::Good;
    for time in 1..=times {
        let (job, before) = job_of(place, run, run.join(format!("replay-{time}")))?;
        let result = job.run()?;
        tell(&result, &job.out);
        again += u32::from(same(&before, &result));
        ending = ending.max(Ending::of(&result));
        if job.engine == Engine::Sim && before.commit == result.commit && before.trace != result.trace {
            println!("  the trace differs: {:?}, was {:?}", result.trace, before.trace);
            ending = ending.max(Ending::NotRun);
        }
    }
    println!("ended the same in {again} of {times}");
    Ok(ending)
}

/// Looks for a smaller run that breaks the same promises, and writes it beside the run.
pub fn shrink(place: &Where, run: &Path, runs: u32) -> anyhow::Result<Ending> {
    let (first, before) = job_of(place, run, run.join("shrunk"))?;
    anyhow::ensure!(
        first.engine == Engine::Sim,
        "only a run of the engine sim can be made smaller: elsewhere a run is not its seed"
    );
    anyhow::ensure!(before.verdict == Verdict::Fail, "{} did not fail", run.display());
    let broken = |result: &RunResult| -> Vec<String> {
        let failed = result
            .findings
            .iter()
            .filter(|finding| finding.verdict == Verdict::Fail);
        failed.map(|finding| finding.invariant.clone()).collect()
    };
    let wanted = broken(&before);
    let steps = first.steps.clone().unwrap_or_default();
    let start = Candidate {
        scenario: first.scenario.clone(),
        steps,
    };
    println!(
        "{} faults, {} clients: looking for less that breaks {}",
        start.steps.len(),
        start.scenario.workload.clients,
        wanted.join(", ")
    );
    let job_for = |candidate: &Candidate| -> anyhow::Result<Job> {
        Ok(Job {
            text: toml_of(candidate)?,
            path: first.out.join(SCENARIO),
            scenario: candidate.scenario.clone(),
            steps: Some(candidate.steps.clone()),
            ..first.clone()
        })
    };
    let fails = |candidate: &Candidate| {
        let ran = job_for(candidate).and_then(|job| job.run());
        let fails = ran
            .as_ref()
            .is_ok_and(|result| broken(result).iter().any(|invariant| wanted.contains(invariant)));
        println!(
            "  {} faults, {} clients: {}",
            candidate.steps.len(),
            candidate.scenario.workload.clients,
            if fails { "still broken" } else { "holds" }
        );
        fails
    };
    let shrunk = smaller(start, runs, fails);
    // The last trial may have been one that held.
    let job = job_for(&shrunk.smallest)?;
    let result = job.run()?;
    tell(&result, &job.out);
    println!(
        "after {} runs: {} faults, {} clients; scenario, plan and timeline are in {}",
        shrunk.tried,
        shrunk.smallest.steps.len(),
        shrunk.smallest.scenario.workload.clients,
        job.out.display()
    );
    Ok(Ending::Good)
}

fn toml_of(candidate: &Candidate) -> anyhow::Result<String> {
    toml::to_string(&candidate.scenario).context("writing the scenario")
}
