//! I16: every call ends by its deadline, with an answer or a code that the protocol documents.

use super::ledger::Ledger;
use super::{Evidence, Judge};
use crate::workload::Outcome;

/// A call may end this much after its deadline: the last try is given up at the deadline, and the machine that runs the clients is busy.
const SLACK_US: u64 = 2_000_000;

/// Refusals that docs/protocol.md knows.
const CODES: [&str; 8] = [
    "not-found",
    "exists",
    "over-quota",
    "too-large",
    "denied",
    "invalid",
    "limit",
    "suspended",
];

/// I16.
pub(super) fn kept(ledger: &Ledger<'_>) -> Judge {
    let mut judge = Judge::default();
    let most_us = ledger.history.header.deadline_us + SLACK_US;
    for operation in &ledger.history.operations {
        let took_us = operation.completed_us.saturating_sub(operation.invoked_us);
        judge.holds(took_us <= most_us, || {
            let what = format!(
                "a {} took {} ms, its deadline was {} ms",
                operation.call.kind(),
                took_us / 1_000,
                ledger.history.header.deadline_us / 1_000
            );
            Evidence::of(what, &[operation.id], operation.completed_us)
        });
        if let Outcome::Refused { code } = &operation.outcome {
            // By LMTP a refusal is a reply of class 5.
            judge.holds(CODES.contains(&code.as_str()) || code.starts_with("lmtp-5"), || {
                Evidence::of(
                    format!("an unknown refusal: {code}"),
                    &[operation.id],
                    operation.completed_us,
                )
            });
        }
    }
    judge
}
