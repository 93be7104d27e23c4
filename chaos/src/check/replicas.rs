//! I11, I12: replicas at the same applied index hold the same rows, also after they were killed, cut off or wiped.

use std::collections::BTreeMap;

use super::ledger::{Ledger, whence};
use super::{Evidence, Judge};
use crate::history::{FaultState, Final, History, NodeEvent};
use crate::scenario::Fault;

/// Digests by group and applied index.
fn digests(history: &History) -> BTreeMap<(u32, u64), Vec<(&NodeEvent, &str)>> {
    let mut digests: BTreeMap<(u32, u64), Vec<(&NodeEvent, &str)>> = BTreeMap::new();
    for event in &history.nodes {
        if let Some(digest) = &event.digest {
            digests
                .entry((event.group, event.applied))
                .or_default()
                .push((event, digest));
        }
    }
    digests
}

fn differ(group: u32, applied: u64, one: &NodeEvent, other: &NodeEvent) -> Evidence {
    let what = format!(
        "group {group} at index {applied}: nodes {} and {} hold different rows",
        one.place, other.place
    );
    Evidence::of(what, &[], one.at_us.max(other.at_us))
}

/// I11.
pub(super) fn equal(ledger: &Ledger<'_>) -> Judge {
    let mut judge = Judge::default();
    for ((group, applied), told) in digests(ledger.history) {
        let Some(((first, digest), others)) = told.split_first() else {
            continue;
        };
        for (other, other_digest) in others.iter().filter(|(other, _)| other.place != first.place) {
            judge.holds(digest == other_digest, || differ(group, applied, first, other));
        }
    }
    let finals = &ledger.history.finals;
    for one in finals.iter().filter(|last| last.place.is_none()) {
        for other in finals
            .iter()
            .filter(|other| other.account == one.account && other.place.is_some())
        {
            judge.holds(same(one, other), || {
                Evidence::of(
                    format!("{} differs from what its leader answered", whence(other)),
                    &[],
                    other.at_us,
                )
            });
        }
    }
    judge
}

/// What both hold, whenever they were read. A replica that is read at a later state than the leader was is not held to it.
fn same(one: &Final, other: &Final) -> bool {
    one.modseq != other.modseq
        || (one.used_bytes, one.messages, &one.mailboxes) == (other.used_bytes, other.messages, &other.mailboxes)
}

/// I12.
pub(super) fn equal_after_restart(ledger: &Ledger<'_>) -> Judge {
    let mut judge = Judge::default();
    let mut restarted: BTreeMap<u32, u64> = BTreeMap::new();
    for event in &ledger.history.faults {
        let dies = matches!(event.fault, Fault::Kill | Fault::Powerloss | Fault::Stop | Fault::Wipe);
        if dies && event.event == FaultState::Ended {
            for place in &event.places {
                restarted.entry(*place).or_insert(event.at_us);
            }
        }
    }
    for ((group, applied), told) in digests(ledger.history) {
        let since = |event: &NodeEvent| {
            restarted
                .get(&event.place)
                .is_some_and(|from_us| event.at_us >= *from_us)
        };
        for (after, digest) in told.iter().filter(|(event, _)| since(event)) {
            for (other, other_digest) in told
                .iter()
                .filter(|(other, _)| other.place != after.place || !since(other))
            {
                judge.holds(digest == other_digest, || differ(group, applied, after, other));
            }
        }
    }
    judge
}
