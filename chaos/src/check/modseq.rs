//! I5: MODSEQ rises with every change, HIGHESTMODSEQ never falls, and a reader that only ever asked for changes holds what is there.

use std::collections::{BTreeMap, BTreeSet};

use super::ledger::{Ledger, MailboxKey, whence};
use super::{Evidence, Judge};
use crate::history::{FinalMailbox, Operation};
use crate::workload::{Answer, Call, Flags, Freshness, MailboxRow, Row};

/// I5.
pub(super) fn rise_and_tell(ledger: &Ledger<'_>) -> Judge {
    let mut judge = Judge::default();
    stored_rise(ledger, &mut judge);
    highest_never_falls(ledger, &mut judge);
    one_change_each(ledger, &mut judge);
    mirrors(ledger, &mut judge);
    for last in &ledger.history.finals {
        for mailbox in &last.mailboxes {
            let highest = mailbox.messages.iter().map(|message| message.modseq).max().unwrap_or(0);
            judge.holds(
                highest <= mailbox.highest_modseq && mailbox.highest_modseq <= last.modseq.max(1),
                || {
                    let what = format!(
                        "{}: {} says HIGHESTMODSEQ {}, its messages {highest}, the account {}",
                        whence(last),
                        mailbox.name,
                        mailbox.highest_modseq,
                        last.modseq
                    );
                    Evidence::of(what, &[], last.at_us)
                },
            );
        }
    }
    judge
}

/// Messages stored one after the other have rising MODSEQs, whatever the mailbox: the account has one counter.
fn stored_rise(ledger: &Ledger<'_>, judge: &mut Judge) {
    let mut stored: BTreeMap<u32, Vec<(u64, u64, u64, u64)>> = BTreeMap::new();
    for (key, _, birth) in ledger.messages() {
        let change = &ledger.changes[birth.change];
        if let (Some(modseq), Some(done)) = (birth.modseq, change.done()) {
            stored
                .entry(key.0)
                .or_default()
                .push((modseq, change.invoked_us(), birth.completed_us, done.id));
        }
    }
    for (account, mut stored) in stored {
        stored.sort_unstable();
        // From the highest MODSEQ down: the earliest acknowledgement among the higher ones.
        let mut earliest: Option<(u64, u64)> = None;
        for (at, (modseq, invoked_us, completed_us, id)) in stored.iter().enumerate().rev() {
            let doubled = stored.get(at + 1).is_some_and(|next| next.0 == *modseq);
            let late = earliest.filter(|(completed_us, _)| completed_us < invoked_us);
            judge.holds(!doubled && late.is_none(), || {
                let other = late.map_or_else(|| stored[at + 1].3, |(_, id)| id);
                let what =
                    format!("MODSEQ {modseq} of account {account} was given again, or after a higher one was answered");
                Evidence::of(what, &[other, *id], *completed_us)
            });
            if earliest.is_none_or(|(earliest, _)| *completed_us < earliest) {
                earliest = Some((*completed_us, *id));
            }
        }
    }
}

/// A linearizable read shows at least what was acknowledged in the mailbox, and what an earlier read showed.
fn highest_never_falls(ledger: &Ledger<'_>, judge: &mut Judge) {
    let mut floors: BTreeMap<MailboxKey, Vec<(u64, u64, u64)>> = BTreeMap::new();
    let mut reads: BTreeMap<MailboxKey, Vec<(&Operation, u64)>> = BTreeMap::new();
    let fixed = |mailbox: &&MailboxRow| ledger.is_fixed(&mailbox.name) && mailbox.highest_modseq > 0;
    for (operation, answer) in ledger.done() {
        let shown: Vec<&MailboxRow> = match answer {
            Answer::Opened { mailbox, .. } | Answer::Changes { mailbox, .. } => vec![mailbox],
            Answer::Listed { mailboxes } => mailboxes.iter().collect(),
            _ => vec![],
        };
        for mailbox in shown.into_iter().filter(fixed) {
            let key = (operation.account, mailbox.name.clone());
            floors
                .entry(key.clone())
                .or_default()
                .push((operation.completed_us, mailbox.highest_modseq, operation.id));
            if operation.call.fresh() == Some(Freshness::Linearizable) {
                reads.entry(key).or_default().push((operation, mailbox.highest_modseq));
            }
        }
        let (mailbox, rows) = match (&operation.call, answer) {
            (Call::Store { mailbox, .. }, Answer::FlagsStored { rows, .. }) => (mailbox.as_str(), rows.as_slice()),
            _ => continue,
        };
        let highest = rows.iter().map(|row| row.modseq).max().unwrap_or(0);
        let key = (operation.account, mailbox.to_owned());
        floors
            .entry(key)
            .or_default()
            .push((operation.completed_us, highest, operation.id));
    }
    for (key, _, birth) in ledger.messages() {
        let id = ledger.changes[birth.change].done().map_or(0, |done| done.id);
        floors
            .entry(key.clone())
            .or_default()
            .push((birth.completed_us, birth.modseq.unwrap_or(0), id));
    }
    for (key, mut reads) in reads {
        let mut floor = floors.remove(&key).unwrap_or_default();
        floor.sort_unstable();
        reads.sort_by_key(|(operation, _)| operation.invoked_us);
        let (mut at, mut highest) = (0, (0, 0));
        for (operation, shown) in reads {
            while let Some((_, least, id)) = floor.get(at).filter(|(from_us, ..)| *from_us < operation.invoked_us) {
                highest = highest.max((*least, *id));
                at += 1;
            }
            judge.holds(shown >= highest.0, || {
                let what = format!(
                    "HIGHESTMODSEQ of {} of account {} was {} and is {shown}",
                    key.1, key.0, highest.0
                );
                Evidence::of(what, &[highest.1, operation.id], operation.completed_us)
            });
        }
    }
}

/// Rows of one message in an answer or at the end: (mailbox key, row, operation).
fn every_row<'h>(ledger: &Ledger<'h>) -> Vec<(MailboxKey, &'h Row, &'h Operation)> {
    let mut every = Vec::new();
    for (operation, answer) in ledger.done() {
        let rows = match answer {
            Answer::FlagsStored { rows, .. } | Answer::Fetched { rows, .. } | Answer::Changes { rows, .. } => rows,
            _ => continue,
        };
        let mailbox = match &operation.call {
            Call::Store { mailbox, .. } | Call::Fetch { mailbox, .. } | Call::Changes { mailbox, .. } => mailbox,
            _ => continue,
        };
        every.extend(
            rows.iter()
                .map(|row| ((operation.account, mailbox.clone()), row, operation)),
        );
    }
    every
}

/// A MODSEQ of a message stands for one set of flags, in every answer of every replica: a change of flags that does not raise it would be
/// missed by everybody who asks for changes.
fn one_change_each(ledger: &Ledger<'_>, judge: &mut Judge) {
    let mut known: BTreeMap<(MailboxKey, u32, u64), (&Flags, Option<u64>)> = BTreeMap::new();
    for (key, row, operation) in every_row(ledger) {
        let at = (key, row.uid, row.modseq);
        let (flags, by) = *known.entry(at.clone()).or_insert((&row.flags, Some(operation.id)));
        judge.holds(*flags == row.flags, || {
            let what = format!(
                "message {} of {} has {flags} and {} at MODSEQ {}",
                row.uid, at.0.1, row.flags, row.modseq
            );
            let ids: Vec<u64> = by.into_iter().chain([operation.id]).collect();
            Evidence::of(what, &ids, operation.completed_us)
        });
    }
    for last in &ledger.history.finals {
        for mailbox in &last.mailboxes {
            for message in &mailbox.messages {
                let at = ((last.account, mailbox.name.clone()), message.uid, message.modseq);
                if let Some((flags, by)) = known.get(&at) {
                    judge.holds(**flags == message.flags, || {
                        let ids: Vec<u64> = by.iter().copied().collect();
                        let what = format!(
                            "{}: message {} of {} has {} and had {flags} at the same MODSEQ {}",
                            whence(last),
                            message.uid,
                            mailbox.name,
                            message.flags,
                            message.modseq
                        );
                        Evidence::of(what, &ids, last.at_us)
                    });
                }
            }
        }
    }
}

/// What a client holds of a mailbox that it only asked for changes.
#[derive(Default)]
struct Mirror {
    messages: BTreeMap<u32, (u64, Flags)>,
    /// It holds everything up to here.
    synced: u64,
    /// A change could not be calculated, or a link of the chain is missing: it holds nothing reliable.
    broken: bool,
    operations: Vec<u64>,
}

/// Each client's chain of changes, from nothing on, must give what the mailbox holds at the same HIGHESTMODSEQ.
fn mirrors(ledger: &Ledger<'_>, judge: &mut Judge) {
    let mut mirrors: BTreeMap<(u32, MailboxKey), Mirror> = BTreeMap::new();
    for (operation, answer) in ledger.done() {
        let (
            Call::Changes {
                mailbox: name, since, ..
            },
            Answer::Changes {
                mailbox,
                rows,
                vanished,
                cannot_calculate,
                ..
            },
        ) = (&operation.call, answer)
        else {
            continue;
        };
        let mirror = mirrors
            .entry((operation.client, (operation.account, name.clone())))
            .or_default();
        mirror.broken |= *cannot_calculate || mirror.synced != *since;
        for row in rows {
            mirror.messages.insert(row.uid, (row.modseq, row.flags.clone()));
        }
        for uid in vanished {
            mirror.messages.remove(uid);
        }
        mirror.synced = mirror.synced.max(mailbox.highest_modseq);
        mirror.operations.push(operation.id);
    }
    let ends = ledger.history.finals.iter().filter(|last| last.place.is_none());
    let mut ended: BTreeMap<MailboxKey, &FinalMailbox> = BTreeMap::new();
    for last in ends {
        ended.extend(
            last.mailboxes
                .iter()
                .map(|mailbox| ((last.account, mailbox.name.clone()), mailbox)),
        );
    }
    let (mut compared, all) = (0_u64, mirrors.len());
    for ((client, key), mirror) in &mirrors {
        let Some(end) = ended
            .get(key)
            .filter(|end| end.highest_modseq == mirror.synced && !mirror.broken)
        else {
            continue;
        };
        compared += 1;
        let there: BTreeMap<u32, (u64, Flags)> = end
            .messages
            .iter()
            .map(|message| (message.uid, (message.modseq, message.flags.clone())))
            .collect();
        judge.holds(there == mirror.messages, || {
            let differ: BTreeSet<u32> = there
                .keys()
                .chain(mirror.messages.keys())
                .filter(|uid| there.get(uid) != mirror.messages.get(uid))
                .copied()
                .collect();
            let what = format!(
                "client {client} followed the changes of {} of account {} and holds other messages at MODSEQ {}: UIDs {differ:?}",
                key.1, key.0, mirror.synced
            );
            Evidence::of(what, &mirror.operations, ledger.history.header.timeline.end_us)
        });
    }
    judge.note = Some(format!("{compared} of {all} mirrors could be compared"));
}
