//! What a run measured: reported beside the verdict, never part of it, because machines differ.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::history::{FaultState, History, Operation};
use crate::scenario::Fault;
use crate::workload::{Call, Outcome};

/// The figures of one run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// How long it took by its own clock.
    pub lasted_us: u64,
    /// Calls that were answered with what was asked for.
    pub done: u64,
    /// Calls that were refused.
    pub refused: u64,
    /// Calls that nobody answered.
    pub unknown: u64,
    /// Changes among the done: what must not be lost.
    pub acknowledged: u64,
    /// Mails among them.
    pub mails: u64,
    /// Faults that happened.
    pub faults: u64,
    /// Faults that could not be made, or that a guard forbade.
    pub faults_skipped: u64,
    /// Calls that were answered, of 100.
    pub answered_pct: f64,
    /// How long answered calls took.
    pub latency_us: Percentiles,
    /// How long groups acknowledged nothing after their leader was taken away.
    pub outage_us: Percentiles,
    /// Each of these.
    pub outages: Vec<Outage>,
}

/// Of a set of times.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Percentiles {
    /// How many.
    pub count: u64,
    /// The median.
    pub p50: u64,
    /// 99 of 100 are at most this.
    pub p99: u64,
    /// The longest.
    pub max: u64,
}

/// A group without a leader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outage {
    /// When its leader was taken away.
    pub at_us: u64,
    /// By what.
    pub fault: String,
    /// Which group.
    pub group: u32,
    /// Until a change that was asked for after that was acknowledged.
    pub took_us: u64,
}

/// What happened in one second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Second {
    /// Calls that ended in it with an answer.
    pub done: u32,
    /// Refused.
    pub refused: u32,
    /// Given up.
    pub unknown: u32,
}

impl Percentiles {
    /// Of these, in any order.
    pub fn of(mut values: Vec<u64>) -> Percentiles {
        values.sort_unstable();
        let at = |of_100: usize| {
            values
                .get((values.len() * of_100).div_ceil(100).saturating_sub(1))
                .copied()
                .unwrap_or(0)
        };
        Percentiles {
            count: values.len() as u64,
            p50: at(50),
            p99: at(99),
            max: at(100),
        }
    }
}

impl Figures {
    /// Of a history.
    pub fn of(history: &History) -> Figures {
        let mut figures = Figures {
            lasted_us: history.header.timeline.end_us,
            ..Figures::default()
        };
        let mut latencies = Vec::new();
        for operation in &history.operations {
            match &operation.outcome {
                Outcome::Done { .. } => {
                    figures.done += 1;
                    figures.acknowledged += u64::from(operation.call.writes());
                    figures.mails += u64::from(matches!(operation.call, Call::Deliver { .. } | Call::Append { .. }));
                    latencies.push(operation.completed_us.saturating_sub(operation.invoked_us));
                }
                Outcome::Refused { .. } => figures.refused += 1,
                Outcome::Unknown { .. } => figures.unknown += 1,
            }
        }
        for event in &history.faults {
            match &event.event {
                FaultState::Began => figures.faults += 1,
                FaultState::Skipped(_) => figures.faults_skipped += 1,
                FaultState::Ended => {}
            }
        }
        let calls = figures.done + figures.refused + figures.unknown;
        figures.answered_pct = 100.0 * (figures.done + figures.refused) as f64 / calls.max(1) as f64;
        figures.latency_us = Percentiles::of(latencies);
        figures.outages = outages(history);
        figures.outage_us = Percentiles::of(figures.outages.iter().map(|outage| outage.took_us).collect());
        figures
    }
}

/// For each group whose leader was taken away: how long until a change that was asked for afterwards was acknowledged. A group that nobody
/// asked anything of says nothing and is left out.
fn outages(history: &History) -> Vec<Outage> {
    let shards: BTreeMap<u32, u32> = history
        .header
        .accounts
        .iter()
        .map(|account| (account.account, account.shard))
        .collect();
    let mut outages = Vec::new();
    for event in history.faults.iter().filter(|event| event.event == FaultState::Began) {
        let takes_leaders = matches!(
            event.fault,
            Fault::Kill | Fault::Powerloss | Fault::Pause | Fault::Wipe | Fault::Stop | Fault::Partition { .. }
        );
        for group in event.led.iter().filter(|_| takes_leaders) {
            let answered = |operation: &&Operation| {
                operation.invoked_us >= event.at_us
                    && operation.call.writes()
                    && operation.outcome.done().is_some()
                    && shards.get(&operation.account) == Some(group)
            };
            let first = history
                .operations
                .iter()
                .filter(answered)
                .map(|operation| operation.completed_us)
                .min();
            outages.extend(first.map(|first| Outage {
                at_us: event.at_us,
                fault: event.fault.name(),
                group: *group,
                took_us: first - event.at_us,
            }));
        }
    }
    outages
}

/// Second by second.
pub fn seconds(history: &History) -> Vec<Second> {
    let last = history
        .operations
        .iter()
        .map(|operation| operation.completed_us)
        .max()
        .unwrap_or(0);
    let mut seconds = vec![Second::default(); (last / 1_000_000) as usize + 1];
    for operation in &history.operations {
        let second = &mut seconds[(operation.completed_us / 1_000_000) as usize];
        match operation.outcome {
            Outcome::Done { .. } => second.done += 1,
            Outcome::Refused { .. } => second.refused += 1,
            Outcome::Unknown { .. } => second.unknown += 1,
        }
    }
    seconds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let of = Percentiles::of((1..=200).rev().collect());
        assert_eq!((of.count, of.p50, of.p99, of.max), (200, 100, 198, 200));
        assert_eq!(Percentiles::of(vec![7]).p50, 7);
        assert_eq!(Percentiles::of(vec![]), Percentiles::default());
    }
}
