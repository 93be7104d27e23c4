//! I8: no read is older than what its reader was promised.
//!
//! Each read has a moment up to which it must have seen everything: its own beginning when it is linearizable, so much earlier when it may
//! be stale, a MODSEQ when it asked for one. What was acknowledged by then is in the answer, unless something that was asked before the
//! answer came may have removed it; what was removed by then is not.

use std::collections::{BTreeMap, BTreeSet};

use super::ledger::{Birth, Ledger};
use super::{Evidence, Judge};
use crate::history::Operation;
use crate::workload::{Answer, Call, Freshness};

/// I8.
pub(super) fn fresh(ledger: &Ledger<'_>) -> Judge {
    let mut judge = Judge::default();
    for (operation, answer) in ledger.done() {
        match (&operation.call, answer) {
            (Call::Fetch { mailbox, from, fresh }, Answer::Fetched { rows, .. }) => {
                let uids: BTreeSet<u32> = rows.iter().map(|row| row.uid).collect();
                read(
                    ledger,
                    operation,
                    mailbox,
                    *from,
                    *fresh,
                    &|uid| uids.contains(&uid),
                    &mut judge,
                );
            }
            (Call::Open { mailbox, fresh }, Answer::Opened { uids, .. }) => {
                let there = |uid: u32| {
                    let at = uids.partition_point(|(_, last)| *last < uid);
                    uids.get(at).is_some_and(|(first, _)| *first <= uid)
                };
                read(ledger, operation, mailbox, 1, *fresh, &there, &mut judge);
            }
            _ => {}
        }
    }
    sessions(ledger, &mut judge);
    judge
}

/// Must a read have seen what was acknowledged at this time with this MODSEQ?
fn must_see(operation: &Operation, fresh: Freshness, acknowledged_us: u64, modseq: Option<u64>) -> bool {
    match fresh {
        Freshness::Linearizable => acknowledged_us < operation.invoked_us,
        Freshness::Stale(us) => acknowledged_us < operation.invoked_us.saturating_sub(us),
        Freshness::AtLeast(least) => modseq.is_some_and(|modseq| modseq <= least),
    }
}

fn read(
    ledger: &Ledger<'_>,
    operation: &Operation,
    mailbox: &str,
    from: u32,
    fresh: Freshness,
    there: &dyn Fn(u32) -> bool,
    judge: &mut Judge,
) {
    let account = operation.account;
    let key = (account, mailbox.to_owned());
    let evidence = |uid: u32, birth: Option<&Birth>, what: &str| {
        let mut ids = birth
            .map(|birth| ledger.changes[birth.change].ids())
            .unwrap_or_default();
        ids.push(operation.id);
        let what = format!("a read ({fresh:?}) of {mailbox} of account {account} {what} message {uid}");
        Evidence::of(what, &ids, operation.completed_us)
    };
    for (uid, birth) in ledger.births.get(&key).into_iter().flat_map(|here| here.range(from..)) {
        if !must_see(operation, fresh, birth.completed_us, birth.modseq) {
            continue;
        }
        let leaving = ledger
            .removals(account, mailbox, *uid)
            .iter()
            .any(|removal| removal.invoked_us < operation.completed_us);
        if !leaving {
            judge.holds(there(*uid), || evidence(*uid, Some(birth), "does not show"));
        }
    }
    for (uid, removals) in ledger
        .removals
        .get(&key)
        .into_iter()
        .flat_map(|here| here.range(from..))
    {
        let gone = |removal: &&super::ledger::Removal| {
            removal.certain && must_see(operation, fresh, removal.completed_us, None)
        };
        if let Some(removal) = removals.iter().find(gone) {
            judge.holds(!there(*uid), || {
                let mut evidence = evidence(*uid, ledger.birth(account, mailbox, *uid), "still shows");
                evidence.operations.extend(ledger.changes[removal.change].ids());
                evidence
            });
        }
    }
}

/// The account's MODSEQ that a client was shown never falls for it, on whatever replica it reads, unless it allowed for stale answers.
fn sessions(ledger: &Ledger<'_>, judge: &mut Judge) {
    let mut highest: BTreeMap<(u32, u32), (u64, u64)> = BTreeMap::new();
    for (operation, answer) in ledger.done() {
        let Answer::Status { modseq, .. } = answer else {
            continue;
        };
        let session = (operation.client, operation.account);
        let (before, by) = highest.get(&session).copied().unwrap_or_default();
        let promised = match operation.call.fresh() {
            Some(Freshness::Linearizable) => before,
            Some(Freshness::AtLeast(least)) => least,
            _ => continue,
        };
        judge.holds(*modseq >= promised, || {
            let what = format!(
                "client {} was promised MODSEQ {promised} of account {} and read {modseq}",
                session.0, session.1
            );
            Evidence::of(what, &[by, operation.id], operation.completed_us)
        });
        highest.insert(session, (before.max(*modseq), operation.id));
    }
}
