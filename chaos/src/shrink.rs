//! Making a failing run smaller: the fewest faults, the shortest, with the fewest clients, that still break the promise.
//!
//! Delta debugging over the steps of the plan (Zeller, Hildebrandt 2002), then halving. It works because a part that is left out shifts no
//! other part's chance (see [`crate::seed`]); it needs an engine whose run is its seed, so `sim` only. Bounded by a number of trial runs.

use crate::plan::{Step, Timeline};
use crate::scenario::{Scenario, Span};

/// A run that may be smaller.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Fewer clients, a shorter time.
    pub scenario: Scenario,
    /// Fewer and shorter faults.
    pub steps: Vec<Step>,
}

/// What is left, and what it took.
#[derive(Debug)]
pub struct Shrunk {
    /// The smallest that still fails.
    pub smallest: Candidate,
    /// How many runs were tried.
    pub tried: u32,
}

/// A fault is not made shorter than this.
const FAULT_MIN_US: u64 = 50_000;
/// What a run needs after its last fault before it ends, for its harm to show.
const AFTERMATH_US: u64 = 2_000_000;

struct Search<F> {
    still_fails: F,
    smallest: Candidate,
    left: u32,
    tried: u32,
}

/// Looks for a smaller run for which `still_fails` says true, in at most `runs_max` trials. `start` is taken to fail.
pub fn shrink(start: Candidate, runs_max: u32, still_fails: impl FnMut(&Candidate) -> bool) -> Shrunk {
    let mut search = Search {
        still_fails,
        smallest: start,
        left: runs_max,
        tried: 0,
    };
    search.fewer_steps();
    search.fewer_clients();
    search.shorter_run();
    search.shorter_steps();
    search.fewer_steps();
    Shrunk {
        smallest: search.smallest,
        tried: search.tried,
    }
}

impl<F: FnMut(&Candidate) -> bool> Search<F> {
    /// Takes the candidate if it still fails.
    fn take(&mut self, candidate: Candidate) -> bool {
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        self.tried += 1;
        let fails = (self.still_fails)(&candidate);
        if fails {
            self.smallest = candidate;
        }
        fails
    }

    fn fewer_steps(&mut self) {
        let mut parts = 2;
        while self.left > 0 && !self.smallest.steps.is_empty() {
            let steps = self.smallest.steps.clone();
            let size = steps.len().div_ceil(parts).max(1);
            let smaller = (0..steps.len().div_ceil(size)).any(|part| {
                let without = steps.iter().enumerate().filter(|(at, _)| at / size != part);
                let candidate = Candidate {
                    steps: without.map(|(_, step)| step.clone()).collect(),
                    ..self.smallest.clone()
                };
                self.take(candidate)
            });
            match smaller {
                true => parts = parts.saturating_sub(1).max(2),
                false if size == 1 => return,
                false => parts = (parts * 2).min(steps.len()),
            }
        }
    }

    /// Each client keeps its pace.
    fn fewer_clients(&mut self) {
        loop {
            let mut candidate = self.smallest.clone();
            let load = &mut candidate.scenario.workload;
            let before = load.clients;
            load.clients = before.div_ceil(2);
            load.rate = (u64::from(load.rate) * u64::from(load.clients)).div_ceil(u64::from(before.max(1))) as u32;
            if load.clients == before || !self.take(candidate) {
                return;
            }
        }
    }

    /// The faults end with the last of them.
    fn shorter_run(&mut self) {
        let mut candidate = self.smallest.clone();
        let timeline = Timeline::of(&candidate.scenario);
        let last_us = candidate
            .steps
            .iter()
            .map(|step| step.at_us + step.lasts_us)
            .max()
            .unwrap_or(timeline.safety_us);
        let safety_us = (last_us + AFTERMATH_US).saturating_sub(timeline.safety_us).max(1);
        if safety_us < candidate.scenario.phases.safety.us() {
            candidate.scenario.phases.safety = Span::from_us(safety_us);
            self.take(candidate);
        }
    }

    fn shorter_steps(&mut self) {
        for at in 0..self.smallest.steps.len() {
            loop {
                let mut candidate = self.smallest.clone();
                let step = &mut candidate.steps[at];
                step.lasts_us /= 2;
                if step.lasts_us < FAULT_MIN_US || !self.take(candidate) {
                    break;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::scenario::{Fault, Guard, SAMPLE, Select};

    fn start(steps: u32) -> Candidate {
        let step = |id: u32| Step {
            id,
            at_us: 5_000_000 + u64::from(id) * 1_000_000,
            lasts_us: 800_000,
            fault: Fault::Kill,
            select: Select::default(),
            guard: Guard::None,
            draw: u64::from(id),
        };
        Candidate {
            scenario: Scenario::parse(SAMPLE, Path::new("s.toml")).unwrap(),
            steps: (0..steps).map(step).collect(),
        }
    }

    fn ids(candidate: &Candidate) -> Vec<u32> {
        candidate.steps.iter().map(|step| step.id).collect()
    }

    #[test]
    fn two_faults_that_fail_only_together_are_found() {
        let shrunk = shrink(start(20), 500, |candidate| {
            let ids = ids(candidate);
            ids.contains(&3) && ids.contains(&17)
        });
        assert_eq!(ids(&shrunk.smallest), [3, 17]);
        assert_eq!(shrunk.smallest.scenario.workload.clients, 1);
        assert!(
            shrunk
                .smallest
                .steps
                .iter()
                .all(|step| step.lasts_us < 2 * FAULT_MIN_US)
        );
        assert_eq!(shrunk.smallest.scenario.phases.safety.us(), 17_800_000 + AFTERMATH_US);
    }

    #[test]
    fn a_run_that_fails_without_faults_has_none_left() {
        let shrunk = shrink(start(5), 100, |_| true);
        assert!(shrunk.smallest.steps.is_empty());
    }

    #[test]
    fn a_run_that_cannot_be_smaller_stays_and_trials_are_bounded() {
        let whole = start(6);
        let shrunk = shrink(whole.clone(), 7, |candidate| {
            candidate.steps.len() == 6 && candidate.scenario.workload.clients == 4
        });
        assert_eq!(ids(&shrunk.smallest), ids(&whole));
        assert_eq!(shrunk.tried, 7);
    }
}
