//! Many runs: made side by side, resumed, and counted.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use malle_chaos::check::Verdict;
use malle_chaos::engine::{Job, RunResult, read_result};
use malle_chaos::history;
use malle_chaos::report::{Scoreboard, collect};
use malle_chaos::scenario::{Engine, Span};

use super::{Ending, Where, catalogue, one};

/// Runs scenarios over seeds. A run that is there already, of the same scenario and commit, is not made again.
pub fn run(
    place: &Where,
    names: &[String],
    seeds: (u64, u64),
    jobs: usize,
    budget: Option<Span>,
) -> anyhow::Result<Ending> {
    let engine = Engine::from(place.engine);
    let scenarios: Vec<PathBuf> = match names {
        [] => catalogue::all(&place.scenarios)?
            .into_iter()
            .filter(|(_, scenario)| scenario.engines.contains(&engine))
            .map(|(path, _)| path)
            .collect(),
        names => names
            .iter()
            .map(|name| catalogue::find(&place.scenarios, name).map(|(path, _)| path))
            .collect::<Result<_, _>>()?,
    };
    // Seed by seed: when the budget ends, every scenario has had about as many.
    let mut queue = VecDeque::new();
    for seed in seeds.0..=seeds.1 {
        for path in &scenarios {
            let mut job = Job::read(path, engine, seed, PathBuf::new())?;
            job.sim.clone_from(&place.sim);
            job.out = place.out.join(job.name());
            queue.push_back(job);
        }
    }
    let all = queue.len();
    let queue = Mutex::new(queue);
    let results = Mutex::new(Vec::new());
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                while budget.is_none_or(|budget| begun.elapsed() < budget.duration()) {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                    let Some(job) = next else { return };
                    let result = made_before(&job).map_or_else(|| made(&job), Ok);
                    results
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push((job.name(), result));
                }
            });
        }
    });
    let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    if results.len() < all {
        println!(
            "the budget ended after {} of {all} runs; the same command goes on",
            results.len()
        );
    }
    let failed = results.iter().filter(|(_, result)| result.is_err()).count();
    let judged: Vec<(String, RunResult)> = results
        .into_iter()
        .filter_map(|(name, result)| Some((name, result.ok()?)))
        .collect();
    close(&Scoreboard::of(&judged), failed, &place.out)
}

fn made_before(job: &Job) -> Option<RunResult> {
    let result = read_result(&job.out).ok()?;
    let same_tree = result.commit == history::commit() && history::is_one_tree(&result.commit);
    (same_tree && result.scenario_hash == job.scenario_hash() && result.verdict != Verdict::Skipped).then_some(result)
}

fn made(job: &Job) -> anyhow::Result<RunResult> {
    match job.run() {
        Ok(result) if result.verdict == Verdict::Pass => {
            println!(
                "{} PASS, {} acknowledged, {:.1} s",
                job.name(),
                result.figures.acknowledged,
                result.wall_ms as f64 / 1e3
            );
            Ok(result)
        }
        Ok(result) => {
            one::tell(&result, &job.out);
            Ok(result)
        }
        Err(error) => {
            println!("{} could not be run: {error:#}\n  again: {}", job.name(), job.command());
            Err(error)
        }
    }
}

/// Writes the scoreboard and says the closing line, last.
fn close(board: &Scoreboard, not_run: usize, out: &Path) -> anyhow::Result<Ending> {
    board.write(out)?;
    if not_run > 0 {
        println!("{not_run} runs could not be made");
    }
    println!("{}", out.join("scoreboard.html").display());
    println!("{}", board.closing());
    Ok(match (board.failed, not_run, board.passed) {
        (1.., _, _) => Ending::Broken,
        (0, 1.., _) => Ending::NotRun,
        (0, 0, 0) => Ending::Skipped,
        _ => Ending::Good,
    })
}

/// The scoreboard of a directory of runs.
pub fn report(runs: &Path, judge: bool) -> anyhow::Result<Ending> {
    let mut results = collect(runs)?;
    anyhow::ensure!(!results.is_empty(), "{} holds no run", runs.display());
    if judge {
        for (name, result) in &mut results {
            if result.verdict != Verdict::Skipped {
                let directory = runs.join(&*name);
                let mut job = Job::read(
                    &directory.join(malle_chaos::engine::SCENARIO),
                    result.engine,
                    result.seed,
                    directory,
                )?;
                job.control.clone_from(&result.control);
                job.made_by = Some(result.command.clone());
                *result = job.judge(result.wall_ms)?;
            }
        }
    }
    close(&Scoreboard::of(&results), 0, runs)
}
