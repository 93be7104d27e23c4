//! I14: what every node says of its groups agrees with Raft. One leader a term; a node's term, and what it knows to be committed while it
//! runs, never fall; nothing is applied that is not committed.

use std::collections::BTreeMap;

use super::ledger::Ledger;
use super::{Evidence, Judge};
use crate::history::NodeEvent;

/// I14.
pub(super) fn safe(ledger: &Ledger<'_>) -> Judge {
    let mut judge = Judge::default();
    let mut leaders: BTreeMap<(u32, u64), &NodeEvent> = BTreeMap::new();
    let mut before: BTreeMap<(u64, u32), &NodeEvent> = BTreeMap::new();
    // A node that restarts learns again what is committed.
    let restarts: Vec<(u64, u32)> = ledger
        .history
        .faults
        .iter()
        .flat_map(|event| event.places.iter().map(|place| (event.at_us, *place)))
        .collect();
    for event in ledger
        .history
        .nodes
        .iter()
        .filter(|event| event.role != "down" && event.role != "stopped")
    {
        if event.role == "leader" {
            let first = *leaders.entry((event.group, event.term)).or_insert(event);
            judge.holds(first.node == event.node, || {
                let what = format!(
                    "nodes {} and {} both lead group {} in term {}",
                    first.place, event.place, event.group, event.term
                );
                Evidence::of(what, &[], event.at_us)
            });
        }
        // An engine that cannot see commits writes 0.
        judge.holds(event.committed == 0 || event.applied <= event.committed, || {
            let what = format!(
                "node {} applied {} of group {}, committed is {}",
                event.place, event.applied, event.group, event.committed
            );
            Evidence::of(what, &[], event.at_us)
        });
        if let Some(earlier) = before.insert((event.node, event.group), event) {
            let hit =
                |(at_us, place): &(u64, u32)| *place == event.place && (earlier.at_us..=event.at_us).contains(at_us);
            let fell = event.committed < earlier.committed && !restarts.iter().any(hit);
            judge.holds(event.term >= earlier.term && !fell, || {
                let what = format!(
                    "node {} was in term {} of group {} with {} committed and is in term {} with {}",
                    event.place, earlier.term, event.group, earlier.committed, event.term, event.committed
                );
                Evidence::of(what, &[], event.at_us)
            });
        }
    }
    judge
}
