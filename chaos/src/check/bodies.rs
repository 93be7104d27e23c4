//! I13: every body that is read is the one that was stored.

use super::ledger::{Ledger, rows, whence};
use super::{Evidence, Judge};
use crate::workload::{Answer, Call};

/// I13.
pub(super) fn unchanged(ledger: &Ledger<'_>) -> Judge {
    let mut judge = Judge::default();
    for (operation, answer) in ledger.done() {
        let (Call::ReadBody { mailbox, uid }, Answer::Body { hash, .. }) = (&operation.call, answer) else {
            continue;
        };
        let birth = ledger.birth(operation.account, mailbox, *uid);
        let right = match birth.and_then(|birth| birth.hash.as_deref()) {
            Some(stored) => stored == hash,
            // Nobody was told what this message is; it must at least be something that was sent to this account.
            None => ledger.bodies.contains_key(&(operation.account, hash.as_str())),
        };
        judge.holds(right, || {
            let mut ids = birth
                .map(|birth| ledger.changes[birth.change].ids())
                .unwrap_or_default();
            ids.push(operation.id);
            let what = format!(
                "message {uid} of {mailbox} of account {} was read with another body",
                operation.account
            );
            Evidence::of(what, &ids, operation.completed_us)
        });
    }
    for last in &ledger.history.finals {
        for ((mailbox, uid), message) in rows(last) {
            let stored = ledger
                .birth(last.account, mailbox, uid)
                .and_then(|birth| birth.hash.as_deref());
            let right = match (&message.hash, stored) {
                (Some(hash), Some(stored)) => hash == stored,
                (Some(hash), None) => ledger.bodies.contains_key(&(last.account, hash.as_str())),
                (None, _) => false,
            };
            judge.holds(right, || {
                let why = message.why.as_deref().unwrap_or("its bytes are others");
                Evidence::of(
                    format!("{}: message {uid} of {mailbox}: {why}", whence(last)),
                    &[],
                    last.at_us,
                )
            });
        }
    }
    judge
}
