//! I9: a move shows a message in one place, a copy pairs the UIDs of the same message.

use std::collections::BTreeMap;

use super::ledger::{Ledger, rows, whence};
use super::{Evidence, Judge};
use crate::workload::{Answer, Call};

/// I9.
pub(super) fn atomic(ledger: &Ledger<'_>) -> Judge {
    let mut judge = Judge::default();
    for (operation, answer) in ledger.done() {
        let (Call::Copy { uids, .. } | Call::Move { uids, .. }, Answer::Copied { pairs, .. }) =
            (&operation.call, answer)
        else {
            continue;
        };
        let sources_asked = pairs.iter().all(|(from, _)| uids.contains(from));
        let rising = pairs
            .windows(2)
            .all(|pair| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1);
        judge.holds(sources_asked && rising, || {
            let what = format!("pairs {pairs:?} for {uids:?}: not what was asked, or not rising");
            Evidence::of(what, &[operation.id], operation.completed_us)
        });
    }
    for last in &ledger.history.finals {
        let rows = rows(last);
        for (key, uid, birth) in ledger
            .messages()
            .filter(|(key, _, birth)| key.0 == last.account && birth.source.is_some())
        {
            let (Some(hash), Some(found)) = (&birth.hash, rows.get(&(key.1.as_str(), uid))) else {
                continue;
            };
            judge.holds(found.hash.as_ref().is_none_or(|found| found == hash), || {
                let what = format!(
                    "{}: message {uid} of {} is not the copy of its source {:?}",
                    whence(last),
                    key.1,
                    birth.source
                );
                Evidence::of(what, &ledger.changes[birth.change].ids(), last.at_us)
            });
        }
        one_place(ledger, last, &mut judge);
    }
    judge
}

/// A body that was only ever moved, however the moves were answered, stands in one place.
fn one_place(ledger: &Ledger<'_>, last: &crate::history::Final, judge: &mut Judge) {
    let mut places: BTreeMap<&str, Vec<(&str, u32)>> = BTreeMap::new();
    for ((mailbox, uid), message) in rows(last) {
        if let Some(hash) = &message.hash {
            places.entry(hash).or_default().push((mailbox, uid));
        }
    }
    let here = || ledger.changes.iter().filter(|change| change.account == last.account);
    // A copy of a message of which nobody knows the body, or an answer that never came, could be a copy of any.
    let copies_unknown = here().any(|change| {
        matches!(change.call, Call::Copy { .. })
            && !change.refused()
            && (change.unknown()
                || sources(change.call, change.answer())
                    .any(|(mailbox, uid)| hash(ledger, last.account, mailbox, uid).is_none()))
    });
    if copies_unknown {
        return;
    }
    let copied: Vec<&str> = here()
        .filter(|change| matches!(change.call, Call::Copy { .. }))
        .flat_map(|change| sources(change.call, change.answer()))
        .filter_map(|(mailbox, uid)| hash(ledger, last.account, mailbox, uid))
        .collect();
    for change in here().filter(|change| matches!(change.call, Call::Move { .. }) && !change.refused()) {
        let Call::Move { mailbox, uids, .. } = change.call else {
            continue;
        };
        for uid in uids {
            let Some(hash) = hash(ledger, last.account, mailbox, *uid) else {
                continue;
            };
            let found = places.get(hash).map_or(&[][..], Vec::as_slice);
            if !copied.contains(&hash) {
                judge.holds(found.len() <= 1, || {
                    let what = format!("{}: a message that was moved stands in {found:?}", whence(last));
                    Evidence::of(what, &change.ids(), last.at_us)
                });
            }
        }
    }
}

/// Sources of a copy, as its answer names them.
fn sources<'h>(call: &'h Call, answer: Option<&'h Answer>) -> impl Iterator<Item = (&'h str, u32)> {
    let mailbox = match call {
        Call::Copy { mailbox, .. } | Call::Move { mailbox, .. } => mailbox.as_str(),
        _ => "",
    };
    let pairs = match answer {
        Some(Answer::Copied { pairs, .. }) => pairs.as_slice(),
        _ => &[],
    };
    pairs.iter().map(move |(from, _)| (mailbox, *from))
}

fn hash<'l>(ledger: &'l Ledger<'_>, account: u32, mailbox: &str, uid: u32) -> Option<&'l str> {
    ledger.birth(account, mailbox, uid)?.hash.as_deref()
}
