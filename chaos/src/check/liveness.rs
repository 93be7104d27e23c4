//! I15: after the faults every group serves, every machine is back, and all replicas come to the same state, without anybody's help.

use std::collections::{BTreeMap, BTreeSet};

use super::ledger::Ledger;
use super::{Evidence, Judge};
use crate::history::{FaultState, NodeEvent};

/// I15.
pub(super) fn serves(ledger: &Ledger<'_>) -> Judge {
    let mut judge = Judge::default();
    let header = &ledger.history.header;
    let (from_us, end_us) = (header.timeline.liveness_us, header.timeline.end_us);
    let served: BTreeSet<u32> = ledger
        .done()
        .filter(|(operation, _)| operation.call.writes() && operation.invoked_us >= from_us)
        .map(|(operation, _)| operation.account)
        .collect();
    let mut groups: BTreeMap<u32, bool> = BTreeMap::new();
    for account in &header.accounts {
        *groups.entry(account.shard).or_default() |= served.contains(&account.account);
    }
    for (group, served) in groups {
        judge.holds(served, || {
            Evidence::of(
                format!("group {group} acknowledged nothing after the faults"),
                &[],
                end_us,
            )
        });
    }
    let mut open: BTreeMap<u32, &crate::history::FaultEvent> = BTreeMap::new();
    for event in &ledger.history.faults {
        match event.event {
            FaultState::Began if event.fault.has_end() => drop(open.insert(event.step, event)),
            FaultState::Ended => drop(open.remove(&event.step)),
            FaultState::Began | FaultState::Skipped(_) => {}
        }
    }
    for event in open.into_values() {
        judge.holds(false, || {
            Evidence::of(
                format!("fault {} on nodes {:?} did not end", event.step, event.places),
                &[],
                end_us,
            )
        });
    }
    agreement(ledger, &mut judge);
    judge
}

/// The last word of each node on each group.
fn agreement(ledger: &Ledger<'_>, judge: &mut Judge) {
    let end_us = ledger.history.header.timeline.end_us;
    let mut last: BTreeMap<u32, BTreeMap<u32, &NodeEvent>> = BTreeMap::new();
    for event in ledger
        .history
        .nodes
        .iter()
        .filter(|event| event.at_us >= ledger.history.header.timeline.liveness_us)
    {
        last.entry(event.group).or_default().insert(event.place, event);
    }
    for (group, nodes) in last {
        let leaders = nodes.values().filter(|event| event.role == "leader").count();
        judge.holds(leaders == 1, || {
            Evidence::of(format!("group {group} ends with {leaders} leaders"), &[], end_us)
        });
        let applied: BTreeSet<u64> = nodes.values().map(|event| event.applied).collect();
        let whole = nodes
            .values()
            .all(|event| matches!(event.role.as_str(), "leader" | "follower" | "learner"));
        judge.holds(applied.len() == 1 && whole, || {
            let states: Vec<String> = nodes
                .values()
                .map(|event| format!("node {} {} at {}", event.place, event.role, event.applied))
                .collect();
            Evidence::of(format!("group {group} ends with {}", states.join(", ")), &[], end_us)
        });
    }
}
