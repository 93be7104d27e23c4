//! I14: what every node says of its groups agrees with Raft. One leader a term; a node's term, and what it knows to be committed while it
//! runs, never fall; nothing is applied that nobody ever knows to be committed.

use std::collections::BTreeMap;

use super::ledger::Ledger;
use super::{Evidence, Judge};
use crate::history::{FaultEvent, NodeEvent};
use crate::scenario::Fault;

/// Roles in which a node speaks for its log. While it rebuilds, failed or is down it has nothing to say.
const SPEAKS: [&str; 4] = ["leader", "follower", "learner", "candidate"];

/// I14.
pub(super) fn safe(ledger: &Ledger<'_>) -> Judge {
    let mut judge = Judge::default();
    let mut leaders: BTreeMap<(u32, u64), &NodeEvent> = BTreeMap::new();
    let mut before: BTreeMap<(u64, u32), &NodeEvent> = BTreeMap::new();
    let mut committed: BTreeMap<u32, u64> = BTreeMap::new();
    for event in &ledger.history.nodes {
        let most = committed.entry(event.group).or_default();
        *most = (*most).max(event.committed);
    }
    for event in &ledger.history.nodes {
        if !SPEAKS.contains(&event.role.as_str()) {
            before.remove(&(event.node, event.group));
            continue;
        }
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
        // A node reads the two numbers one after the other, so they are compared over the whole run.
        let most = committed.get(&event.group).copied().unwrap_or(0);
        judge.holds(event.applied <= most, || {
            let what = format!(
                "node {} applied {} of group {}, and nothing above {most} was ever committed",
                event.place, event.applied, event.group
            );
            Evidence::of(what, &[], event.at_us)
        });
        if let Some(earlier) = before.insert((event.node, event.group), event) {
            let fell =
                event.committed < earlier.committed && !may_have_restarted(&ledger.history.faults, earlier, event);
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

/// A node that starts learns again what is committed. It starts after a fault that hit it, and whenever it likes after its disk failed.
fn may_have_restarted(faults: &[FaultEvent], earlier: &NodeEvent, later: &NodeEvent) -> bool {
    faults
        .iter()
        .filter(|fault| fault.places.contains(&later.place))
        .any(|fault| {
            let between = (earlier.at_us..=later.at_us).contains(&fault.at_us);
            between || matches!(fault.fault, Fault::Disk { .. }) && fault.at_us <= later.at_us
        })
}
