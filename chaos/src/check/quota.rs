//! I6: the counters of an account and of its mailboxes are the sums of their rows, and no more is stored than the quota allows.

use super::ledger::{Ledger, whence};
use super::{Evidence, Judge};
use crate::workload::Answer;

/// I6.
pub(super) fn is_the_sum(ledger: &Ledger<'_>) -> Judge {
    let mut judge = Judge::default();
    for last in &ledger.history.finals {
        let messages = || last.mailboxes.iter().flat_map(|mailbox| &mailbox.messages);
        let bytes: u64 = messages().map(|message| message.size_bytes).sum();
        let count = messages().count() as u64;
        judge.holds(bytes == last.used_bytes && count == last.messages, || {
            let what = format!(
                "{}: counts {} messages and {} bytes, holds {count} and {bytes}",
                whence(last),
                last.messages,
                last.used_bytes
            );
            Evidence::of(what, &[], last.at_us)
        });
        judge.holds(last.used_bytes <= last.quota_bytes, || {
            let what = format!(
                "{}: holds {} bytes, its quota is {}",
                whence(last),
                last.used_bytes,
                last.quota_bytes
            );
            Evidence::of(what, &[], last.at_us)
        });
        for mailbox in &last.mailboxes {
            judge.holds(mailbox.count as usize == mailbox.messages.len(), || {
                let what = format!(
                    "{}: {} counts {}, holds {}",
                    whence(last),
                    mailbox.name,
                    mailbox.count,
                    mailbox.messages.len()
                );
                Evidence::of(what, &[], last.at_us)
            });
        }
    }
    for (operation, answer) in ledger.done() {
        let account = ledger
            .history
            .header
            .accounts
            .iter()
            .find(|account| account.account == operation.account);
        if let (Answer::Status { used_bytes, .. }, Some(account)) = (answer, account) {
            judge.holds(*used_bytes <= account.quota_bytes, || {
                let what = format!(
                    "account {} uses {used_bytes} bytes, its quota is {}",
                    account.account, account.quota_bytes
                );
                Evidence::of(what, &[operation.id], operation.completed_us)
            });
        }
    }
    judge
}
