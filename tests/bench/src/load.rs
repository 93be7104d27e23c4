//! Load for a window of time: so many workers, each at one thing after the other, none waiting for another.
//!
//! What is counted ended inside the window; the load begins before it and lasts until after it, so neither a cold start nor the last few
//! workers of a fixed amount are in the figures. CPU time is counted over the same window. A failure ends the measurement: what did
//! not happen must not look fast.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use async_trait::async_trait;
use tokio::task::JoinSet;

use crate::figures::{Figure, percentile};
use crate::usage::Usage;

/// One of those who work at the same time. It owns its session.
#[async_trait]
pub trait Worker: Send {
    /// Does one thing.
    ///
    /// # Errors
    /// When it did not happen.
    async fn once(&mut self) -> anyhow::Result<()>;
}

/// How long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Window {
    /// Load before anything counts.
    pub warm: Duration,
    /// What counts.
    pub measured: Duration,
}

/// Processes whose use is told, by name: `nodes`, `gateway`.
pub type Watched = BTreeMap<&'static str, Vec<u32>>;

/// What happened in the window.
#[derive(Debug)]
pub struct Driven {
    /// Its true length.
    pub seconds: f64,
    /// Things that were done from the load's begin to its end, in the window or not.
    pub total: usize,
    /// Milliseconds of each thing that ended in it, rising.
    pub took_ms: Vec<f64>,
    /// When each of them ended, in milliseconds from the window's begin, rising.
    pub ended_ms: Vec<f64>,
    /// Before and after, of each of the watched.
    pub usage: BTreeMap<&'static str, (Usage, Usage)>,
    /// CPU time of this process, which makes the load.
    pub load_cpu: Duration,
}

/// Waits for a time. The one place here: everything else waits for a condition.
pub async fn pause(time: Duration) {
    tokio::time::sleep(time).await;
}

/// Keeps all workers busy for the window and tells what happened in it.
///
/// # Errors
/// The first failure of a worker.
pub async fn drive(workers: Vec<Box<dyn Worker>>, window: Window, watched: &Watched) -> anyhow::Result<Driven> {
    let stop = Arc::new(AtomicBool::new(false));
    let mut running = JoinSet::new();
    for worker in workers {
        running.spawn(work(worker, stop.clone()));
    }
    go_on(&mut running, window.warm).await?;
    let before = look(watched)?;
    go_on(&mut running, window.measured).await?;
    let after = look(watched)?;
    stop.store(true, Ordering::Relaxed);
    let (mut took_ms, mut ended_ms, mut total) = (Vec::new(), Vec::new(), 0);
    while let Some(joined) = running.join_next().await {
        let done = joined.context("a worker panicked")??;
        total += done.len();
        let inside = done.into_iter().filter(|(at, _)| *at >= before.at && *at < after.at);
        for (at, took) in inside {
            took_ms.push(took.as_secs_f64() * 1000.0);
            ended_ms.push((at - before.at).as_secs_f64() * 1000.0);
        }
    }
    ensure!(!took_ms.is_empty(), "nothing ended within {:?}", window.measured);
    took_ms.sort_by(f64::total_cmp);
    ended_ms.sort_by(f64::total_cmp);
    let load_cpu = after.own.cpu_since(&before.own);
    let pairs = before.usage.into_iter().zip(after.usage);
    Ok(Driven {
        seconds: after.at.duration_since(before.at).as_secs_f64(),
        total,
        took_ms,
        ended_ms,
        usage: pairs
            .map(|((name, before), (_, after))| (name, (before, after)))
            .collect(),
        load_cpu,
    })
}

/// A worker ends before it is told to only by failing; the others end with the set.
async fn go_on(running: &mut JoinSet<anyhow::Result<Done>>, time: Duration) -> anyhow::Result<()> {
    tokio::select! {
        Some(ended) = running.join_next() => {
            ended.context("a worker panicked")??;
            bail!("a worker ended by itself");
        }
        () = pause(time) => Ok(()),
    }
}

/// When each thing ended, and how long it took.
type Done = Vec<(Instant, Duration)>;

async fn work(mut worker: Box<dyn Worker>, stop: Arc<AtomicBool>) -> anyhow::Result<Done> {
    let mut done = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        worker.once().await?;
        let now = Instant::now();
        done.push((now, now - begun));
    }
    Ok(done)
}

struct Look {
    at: Instant,
    usage: BTreeMap<&'static str, Usage>,
    own: Usage,
}

fn look(watched: &Watched) -> anyhow::Result<Look> {
    let mut usage = BTreeMap::new();
    for (name, pids) in watched {
        usage.insert(*name, Usage::now(pids)?);
    }
    Ok(Look {
        usage,
        own: Usage::now(&[std::process::id()])?,
        at: Instant::now(),
    })
}

impl Driven {
    /// The longest time in the window in which nothing ended, in milliseconds.
    pub fn longest_gap_ms(&self) -> f64 {
        let ends = [0.0].into_iter().chain(self.ended_ms.iter().copied());
        let next = self.ended_ms.iter().copied().chain([self.seconds * 1000.0]);
        ends.zip(next).map(|(end, next)| next - end).fold(0.0, f64::max)
    }

    /// Things per second, their latency, and what one of them cost whom.
    pub fn figures(&self) -> Vec<Figure> {
        let count = self.took_ms.len() as f64;
        let each_us = |time: Duration| time.as_secs_f64() * 1e6 / count;
        let mut figures = vec![
            Figure::more("rate", "/s", count / self.seconds),
            Figure::less("p50", "ms", percentile(&self.took_ms, 0.5)),
            Figure::less("p99", "ms", percentile(&self.took_ms, 0.99)),
        ];
        let used = |(before, after): &(Usage, Usage)| after.cpu_since(before);
        figures.push(Figure::less("cpu", "us", each_us(self.usage.values().map(used).sum())));
        for (name, usage) in self.usage.iter().filter(|_| self.usage.len() > 1) {
            figures.push(Figure::less(cpu_name(name), "us", each_us(used(usage))));
        }
        figures.push(Figure::less("load cpu", "us", each_us(self.load_cpu)));
        figures
    }
}

/// Of each of several.
fn cpu_name(watched: &str) -> &'static str {
    match watched {
        "nodes" => "nodes cpu",
        _ => "gateway cpu",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Sleeper(u32);

    #[async_trait]
    impl Worker for Sleeper {
        async fn once(&mut self) -> anyhow::Result<()> {
            self.0 = self.0.checked_sub(1).context("the last was done")?;
            pause(Duration::from_millis(2)).await;
            Ok(())
        }
    }

    const WINDOW: Window = Window {
        warm: Duration::from_millis(20),
        measured: Duration::from_millis(60),
    };

    #[tokio::test]
    async fn what_ends_in_the_window_counts() {
        let watched = Watched::from([("nodes", vec![std::process::id()])]);
        let driven = drive(
            vec![Box::new(Sleeper(u32::MAX)), Box::new(Sleeper(u32::MAX))],
            WINDOW,
            &watched,
        );
        let driven = driven.await.unwrap();
        assert!(driven.seconds >= 0.06 && !driven.took_ms.is_empty());
        assert!(driven.took_ms.iter().all(|ms| *ms >= 2.0));
        assert!(driven.longest_gap_ms() > 0.0 && driven.longest_gap_ms() <= driven.seconds * 1000.0);
        let names: Vec<&str> = driven.figures().iter().map(|figure| figure.name).collect();
        assert_eq!(names, ["rate", "p50", "p99", "cpu", "load cpu"]);
    }

    #[test]
    fn a_gap_reaches_to_the_end_of_the_window_too() {
        let driven = |ended_ms: &[f64]| Driven {
            seconds: 1.0,
            total: 0,
            took_ms: Vec::new(),
            ended_ms: ended_ms.to_vec(),
            usage: BTreeMap::new(),
            load_cpu: Duration::ZERO,
        };
        assert_eq!(driven(&[100.0, 150.0, 750.0, 900.0]).longest_gap_ms(), 600.0);
        assert_eq!(driven(&[100.0, 150.0]).longest_gap_ms(), 850.0);
    }

    #[tokio::test]
    async fn a_failure_is_no_figure() {
        // A window that outlasts any number of things that are done in it: it ends with the failure, before or while it is measured.
        let patient = Duration::from_secs(3600);
        for (warm, failing) in [(patient, 1), (patient, 8), (Duration::ZERO, 15)] {
            let window = Window {
                warm,
                measured: patient,
            };
            let failed = drive(vec![Box::new(Sleeper(failing))], window, &Watched::new()).await;
            assert!(format!("{:#}", failed.unwrap_err()).contains("the last was done"));
        }
    }
}
