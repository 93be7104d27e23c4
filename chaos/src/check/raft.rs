//! I14: what every node says of its groups agrees with Raft. A node's term, and what it knows to be committed while it runs, never fall;
//! nothing is applied that nobody ever knows to be committed; leaders come in their order.
//!
//! openraft's leaders are ordered by term and node: a term may see several, each with a higher node id than the one before, because the
//! majority that granted (3, 5) takes (3, 3) for an old one. So one that is not above a leader that was seen before it stood must not lead.

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
    let mut leaders: Leaders<'_> = BTreeMap::new();
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
            let seen = leaders.entry((event.group, event.term)).or_default();
            let above = before
                .get(&(event.node, event.group))
                .and_then(|earlier| outranked(seen, earlier, event));
            judge.holds(above.is_none(), || {
                let what = format!(
                    "node {} came to lead group {} in term {}, which node {} led before",
                    event.place,
                    event.group,
                    event.term,
                    above.map_or(0, |above| above.place)
                );
                Evidence::of(what, &[], event.at_us)
            });
            seen.entry(event.node).or_insert(event);
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

/// Who led each term of each group, as first seen.
type Leaders<'a> = BTreeMap<(u32, u64), BTreeMap<u64, &'a NodeEvent>>;

/// The leader of `event`'s term that is above its node and was seen before the node last said that it did not lead this term.
fn outranked<'a>(seen: &BTreeMap<u64, &'a NodeEvent>, earlier: &NodeEvent, event: &NodeEvent) -> Option<&'a NodeEvent> {
    if earlier.role == "leader" && earlier.term == event.term {
        return None;
    }
    let mut above = seen.range(event.node + 1..).map(|(_, leader)| *leader);
    above.find(|leader| leader.at_us < earlier.at_us)
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
