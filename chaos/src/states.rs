//! What is left of a cluster's availability while it is in adversity, state by state.
//!
//! Figures of a history of `scenarios/adversity.toml`, reported and never judged: machines differ.

use std::fmt::Write as _;

use crate::history::{FaultState, History, Operation};
use crate::plan::STEPS_MAX;
use crate::workload::Outcome;

/// The states of `scenarios/adversity.toml`: before the first fault, then one for each fault of the file.
const STATES: [&str; 7] = [
    "baseline",
    "internal operations",
    "disk stall",
    "partition",
    "node restarts",
    "zone outage",
    "region outage",
];

/// One state.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// Its name.
    pub name: &'static str,
    /// How long it lasted.
    pub lasted_us: u64,
    /// Calls that began in it.
    pub calls: u64,
    /// Those that were done, or refused for a reason of theirs.
    pub answered: u64,
    /// How long the answered ones took, the median of them.
    pub p50_us: u64,
    /// And 99 of 100.
    pub p99_us: u64,
}

impl State {
    /// Calls answered by their deadline, of a hundred.
    pub fn availability_pct(&self) -> f64 {
        100.0 * self.answered as f64 / self.calls.max(1) as f64
    }
}

/// The value below which `per_mille` of 1000 lie.
fn quantile(sorted: &[u64], per_mille: usize) -> u64 {
    let at = (sorted.len() * per_mille).div_ceil(1000).max(1) - 1;
    sorted.get(at).copied().unwrap_or(0)
}

fn answered(operation: &Operation) -> bool {
    !matches!(operation.outcome, Outcome::Unknown { .. })
}

/// The states that a history went through.
pub fn states(history: &History) -> Vec<State> {
    let mut windows = vec![(STATES[0], 0, history.header.timeline.safety_us)];
    for (number, name) in STATES.iter().enumerate().skip(1) {
        let mine = history
            .faults
            .iter()
            .filter(|event| event.step as usize / STEPS_MAX == number - 1);
        let times = |wanted: FaultState| {
            mine.clone()
                .filter(move |event| event.event == wanted)
                .map(|event| event.at_us)
        };
        if let (Some(begun), Some(ended)) = (times(FaultState::Began).min(), times(FaultState::Ended).max()) {
            windows.push((name, begun, ended));
        }
    }
    let state = |(name, begun, ended): (&'static str, u64, u64)| {
        let calls = history
            .operations
            .iter()
            .filter(|call| (begun..ended).contains(&call.invoked_us));
        let mut took: Vec<u64> = calls
            .clone()
            .filter(|call| answered(call))
            .map(|call| call.completed_us - call.invoked_us)
            .collect();
        took.sort_unstable();
        State {
            name,
            lasted_us: ended - begun,
            calls: calls.count() as u64,
            answered: took.len() as u64,
            p50_us: quantile(&took, 500),
            p99_us: quantile(&took, 990),
        }
    };
    windows.into_iter().map(state).collect()
}

/// The states as a table for docs/reliability.md, with a bar that shows the availability.
pub fn chart(states: &[State]) -> String {
    let mut text =
        String::from("| state | seconds | calls | answered | | p50 ms | p99 ms |\n|---|---|---|---|---|---|---|\n");
    for state in states {
        let pct = state.availability_pct();
        // Writing to a text does not fail.
        let _ = writeln!(
            text,
            "| {} | {} | {} | {pct:.2} % | `{:<20}` | {} | {} |",
            state.name,
            state.lasted_us / 1_000_000,
            state.calls,
            "#".repeat((pct / 5.0).round() as usize),
            state.p50_us / 1000,
            state.p99_us / 1000,
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_seen() {
        let sorted: Vec<u64> = (1..=200).collect();
        assert_eq!(
            [500, 990, 1000].map(|per_mille| quantile(&sorted, per_mille)),
            [100, 198, 200]
        );
        assert_eq!(quantile(&[], 500), 0);
        assert_eq!(quantile(&[7], 990), 7);
    }

    #[test]
    fn a_bar_is_as_long_as_the_availability() {
        let state = State {
            name: "partition",
            lasted_us: 20_000_000,
            calls: 1000,
            answered: 500,
            p50_us: 3_000,
            p99_us: 900_000,
        };
        let chart = chart(&[state]);
        assert!(
            chart.contains("| partition | 20 | 1000 | 50.00 % | `##########          ` | 3 | 900 |"),
            "{chart}"
        );
    }
}
