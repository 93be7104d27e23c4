//! I4: UIDs rise in the order of the answers, keep their message, and are never used twice; UIDVALIDITY stays; UIDNEXT never falls.

use std::collections::BTreeMap;

use super::ledger::{Birth, ByUid, Ledger, MailboxKey, whence};
use super::{Evidence, Judge};
use crate::history::Operation;
use crate::workload::{Answer, Freshness, MailboxRow};

/// I4.
pub(super) fn rise(ledger: &Ledger<'_>) -> Judge {
    let mut judge = Judge::default();
    for (key, here) in &ledger.births {
        rise_in_time(ledger, key, here, &mut judge);
    }
    validity_stays(ledger, &mut judge);
    next_never_falls(ledger, &mut judge);
    for last in &ledger.history.finals {
        for mailbox in &last.mailboxes {
            let rising = mailbox.messages.windows(2).all(|pair| pair[0].uid < pair[1].uid);
            let below = mailbox
                .messages
                .last()
                .is_none_or(|message| message.uid < mailbox.uid_next);
            judge.holds(rising && below, || {
                let what = format!(
                    "{}: UIDs of {} do not rise below UIDNEXT {}",
                    whence(last),
                    mailbox.name,
                    mailbox.uid_next
                );
                Evidence::of(what, &[], last.at_us)
            });
        }
    }
    for (key, uid, ids) in &ledger.clashes {
        judge.holds(false, || {
            Evidence::of(format!("UID {uid} of {} names two messages", key.1), ids, 0)
        });
    }
    judge
}

/// A message that was acknowledged before another was asked for has the lower UID: none may have been asked for after one with a higher UID
/// was answered.
fn rise_in_time(ledger: &Ledger<'_>, key: &MailboxKey, here: &ByUid<Birth>, judge: &mut Judge) {
    // From the highest UID down: the earliest acknowledgement among the higher ones.
    let mut earliest: Option<&Birth> = None;
    for (uid, birth) in here.iter().rev() {
        let invoked_us = ledger.changes[birth.change].invoked_us();
        if let Some(higher) = earliest {
            judge.holds(
                higher.completed_us >= invoked_us || higher.change == birth.change,
                || {
                    let mut ids = ledger.changes[higher.change].ids();
                    ids.extend(ledger.changes[birth.change].ids());
                    let what = format!(
                        "UID {uid} of {} of account {} was given after a higher one was answered",
                        key.1, key.0
                    );
                    Evidence::of(what, &ids, birth.completed_us)
                },
            );
        } else {
            judge.checked += 1;
        }
        if earliest.is_none_or(|higher| birth.completed_us < higher.completed_us) {
            earliest = Some(birth);
        }
    }
}

/// One mailbox as an answer showed it, with the answer.
fn shown<'h>(ledger: &Ledger<'h>) -> Vec<(&'h Operation, &'h MailboxRow)> {
    let mut shown = Vec::new();
    for (operation, answer) in ledger.done() {
        match answer {
            Answer::Opened { mailbox, .. } | Answer::Changes { mailbox, .. } => shown.push((operation, mailbox)),
            Answer::Listed { mailboxes } => shown.extend(mailboxes.iter().map(|mailbox| (operation, mailbox))),
            _ => {}
        }
    }
    shown.retain(|(_, mailbox)| ledger.is_fixed(&mailbox.name));
    shown
}

fn validity_stays(ledger: &Ledger<'_>, judge: &mut Judge) {
    let mut first: BTreeMap<MailboxKey, (u32, u64)> = BTreeMap::new();
    let mut look = |account: u32, name: &str, validity: u32, operation: Option<&Operation>, judge: &mut Judge| {
        let id = operation.map_or(u64::MAX, |operation| operation.id);
        let (before, by) = *first.entry((account, name.to_owned())).or_insert((validity, id));
        judge.holds(before == validity, || {
            let ids: Vec<u64> = [by, id].into_iter().filter(|id| *id != u64::MAX).collect();
            let what = format!("UIDVALIDITY of {name} of account {account} was {before} and is {validity}");
            Evidence::of(what, &ids, operation.map_or(0, |operation| operation.completed_us))
        });
    };
    for (operation, mailbox) in shown(ledger) {
        look(
            operation.account,
            &mailbox.name,
            mailbox.uid_validity,
            Some(operation),
            judge,
        );
    }
    for (key, _, birth) in ledger.messages() {
        let done = ledger.changes[birth.change].done();
        look(key.0, &key.1, birth.uid_validity, done, judge);
    }
    for last in &ledger.history.finals {
        for mailbox in last.mailboxes.iter().filter(|mailbox| ledger.is_fixed(&mailbox.name)) {
            look(last.account, &mailbox.name, mailbox.uid_validity, None, judge);
        }
    }
}

/// A linearizable read shows a UIDNEXT above every UID that was acknowledged before it began, and none below what an earlier one showed.
fn next_never_falls(ledger: &Ledger<'_>, judge: &mut Judge) {
    let mut reads: BTreeMap<MailboxKey, Vec<(&Operation, u32)>> = BTreeMap::new();
    for (operation, mailbox) in shown(ledger) {
        if operation.call.fresh() == Some(Freshness::Linearizable) {
            let key = (operation.account, mailbox.name.clone());
            reads.entry(key).or_default().push((operation, mailbox.uid_next));
        }
    }
    for (key, mut reads) in reads {
        // What each moment must at least show: (time from which it holds, UIDNEXT, operation).
        let births = ledger.births.get(&key).into_iter().flatten();
        let mut floor: Vec<(u64, u32, u64)> = births
            .map(|(uid, birth)| {
                (
                    birth.completed_us,
                    uid + 1,
                    ledger.changes[birth.change].done().map_or(0, |done| done.id),
                )
            })
            .collect();
        floor.extend(
            reads
                .iter()
                .map(|(operation, next)| (operation.completed_us, *next, operation.id)),
        );
        floor.sort_unstable();
        reads.sort_by_key(|(operation, _)| operation.invoked_us);
        let (mut at, mut highest) = (0, (0, 0));
        for (operation, next) in reads {
            while let Some((_, least, id)) = floor.get(at).filter(|(from_us, ..)| *from_us < operation.invoked_us) {
                highest = highest.max((*least, *id));
                at += 1;
            }
            judge.holds(next >= highest.0, || {
                let what = format!(
                    "UIDNEXT of {} of account {} was {} and is {next}",
                    key.1, key.0, highest.0
                );
                Evidence::of(what, &[highest.1, operation.id], operation.completed_us)
            });
        }
    }
}
