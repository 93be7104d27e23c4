//! I1, I2, I3: the ledger of mails. What was acknowledged is there, once, unchanged, on every replica; what is there was sent.

use std::collections::{BTreeMap, BTreeSet};

use super::ledger::{Change, Ledger, rows, whence};
use super::{Evidence, Judge};
use crate::history::{Final, FinalMessage};
use crate::workload::{Answer, BORN_WITH, Call};

/// I1.
pub(super) fn nothing_lost(ledger: &Ledger<'_>) -> Judge {
    let mut judge = Judge::default();
    for last in &ledger.history.finals {
        let rows = rows(last);
        for (key, uid, birth) in ledger.messages().filter(|(key, ..)| key.0 == last.account) {
            if !ledger.removals(key.0, &key.1, uid).is_empty() {
                continue;
            }
            let found = rows.get(&(key.1.as_str(), uid));
            let whole = found.is_some_and(|message| unchanged(message, birth.hash.as_deref()));
            judge.holds(whole, || {
                let what = match found {
                    None => "is not there".to_owned(),
                    Some(message) => format!("is there with {}", body(message)),
                };
                let what = format!("{}: acknowledged message {} of {} {what}", whence(last), uid, key.1);
                Evidence::of(what, &ledger.changes[birth.change].ids(), last.at_us)
            });
        }
        lmtp_mails(ledger, last, &mut judge);
        mailboxes(ledger, last, &mut judge);
    }
    judge
}

fn unchanged(message: &FinalMessage, hash: Option<&str>) -> bool {
    message.hash.is_some() && (hash.is_none() || message.hash.as_deref() == hash)
}

fn body(message: &FinalMessage) -> String {
    match (&message.hash, &message.why) {
        (Some(hash), _) => format!("body {}", hash.get(..16).unwrap_or(hash)),
        (None, why) => format!(
            "a body that cannot be read ({})",
            why.as_deref().unwrap_or("no reason given")
        ),
    }
}

/// Deliveries whose answer names no UID are looked for by their body. One that may have been moved or expunged is not judged: its UID
/// stands in a removal whose message nobody knows.
fn lmtp_mails(ledger: &Ledger<'_>, last: &Final, judge: &mut Judge) {
    let stored = |change: &&Change<'_>| {
        change.account == last.account
            && matches!(change.call, Call::Deliver { .. })
            && matches!(change.answer(), Some(Answer::Stored { uid: 0, .. }))
    };
    let there: BTreeSet<&str> = rows(last)
        .into_values()
        .filter_map(|message| message.hash.as_deref())
        .collect();
    let inbox = (last.account, "INBOX".to_owned());
    let removed = ledger.removals.get(&inbox).into_iter().flatten();
    let nameless = removed
        .filter(|(uid, _)| ledger.birth(inbox.0, &inbox.1, **uid).is_none())
        .count();
    for change in ledger.changes.iter().filter(stored) {
        if let Call::Deliver { body } = change.call {
            let found = there.contains(body.hash.as_str());
            if found || nameless == 0 {
                judge.holds(found, || {
                    let what = format!("{}: an acknowledged mail is not there", whence(last));
                    Evidence::of(what, &change.ids(), last.at_us)
                });
            }
        }
    }
}

/// Mailboxes that were made and that nobody asked to rename or delete afterwards; each name has one client.
fn mailboxes(ledger: &Ledger<'_>, last: &Final, judge: &mut Judge) {
    let there: BTreeSet<&str> = last.mailboxes.iter().map(|mailbox| mailbox.name.as_str()).collect();
    for fixed in &ledger.history.header.mailboxes {
        judge.holds(there.contains(fixed.as_str()), || {
            Evidence::of(
                format!("{}: mailbox {fixed} is not there", whence(last)),
                &[],
                last.at_us,
            )
        });
    }
    for (name, change) in made(ledger, last.account) {
        let left =
            |other: &Change<'_>| other.account == last.account && leaves(other.call) == Some(name) && !other.refused();
        if change.done().is_some() && !ledger.changes.iter().any(left) {
            judge.holds(there.contains(name), || {
                let what = format!("{}: mailbox {name}, which was made, is not there", whence(last));
                Evidence::of(what, &change.ids(), last.at_us)
            });
        }
    }
}

/// The name that a change takes away.
fn leaves(call: &Call) -> Option<&str> {
    match call {
        Call::Rename { from: name, .. } | Call::Delete { name } => Some(name),
        _ => None,
    }
}

/// Names that changes of this account make.
fn made<'l>(ledger: &'l Ledger<'_>, account: u32) -> impl Iterator<Item = (&'l str, &'l Change<'l>)> {
    let here = ledger.changes.iter().filter(move |change| change.account == account);
    here.filter_map(|change| match change.call {
        Call::Create { name } | Call::Rename { to: name, .. } => Some((name.as_str(), change)),
        _ => None,
    })
}

/// I2.
pub(super) fn nothing_doubled(ledger: &Ledger<'_>) -> Judge {
    let mut judge = Judge::default();
    for change in &ledger.changes {
        if !matches!(change.call, Call::Deliver { .. } | Call::Append { .. }) || change.done().is_none() {
            continue;
        }
        let answers = change
            .attempts
            .iter()
            .filter_map(|attempt| match attempt.outcome.done() {
                Some(Answer::Stored {
                    uid_validity,
                    uid,
                    repeated,
                    ..
                }) if *uid > 0 => Some((*uid_validity, *uid, *repeated)),
                _ => None,
            });
        let answers: Vec<_> = answers.collect();
        let places: BTreeSet<_> = answers.iter().map(|(validity, uid, _)| (validity, uid)).collect();
        let firsts = answers.iter().filter(|(_, _, repeated)| !repeated).count();
        judge.holds(places.len() <= 1 && firsts <= 1, || {
            let what = format!("one op id was answered with {places:?}, {firsts} times as new (UIDVALIDITY, UID)");
            Evidence::of(what, &change.ids(), change.invoked_us())
        });
    }
    for (key, uid, ids) in &ledger.clashes {
        judge.holds(false, || {
            let what = format!("UID {uid} of {} of account {} was given to two op ids", key.1, key.0);
            Evidence::of(what, ids, 0)
        });
    }
    for last in &ledger.history.finals {
        doubled_at_the_end(ledger, last, &mut judge);
    }
    judge
}

/// A body that was sent once and that nobody asked to copy or move stands in one place.
fn doubled_at_the_end(ledger: &Ledger<'_>, last: &Final, judge: &mut Judge) {
    let mut places: BTreeMap<&str, Vec<(&str, u32)>> = BTreeMap::new();
    for ((mailbox, uid), message) in rows(last) {
        if let Some(hash) = &message.hash {
            places.entry(hash).or_default().push((mailbox, uid));
        }
    }
    let unknown_copies = ledger.changes.iter().any(|change| {
        change.account == last.account
            && matches!(change.call, Call::Copy { .. } | Call::Move { .. })
            && change.unknown()
    });
    for (hash, places) in places {
        let Some(&sent) = ledger.bodies.get(&(last.account, hash)) else {
            continue;
        };
        let copy = |(mailbox, uid): &&(&str, u32)| {
            ledger
                .birth(last.account, mailbox, *uid)
                .is_some_and(|birth| birth.source.is_some())
        };
        let originals = places.iter().filter(|place| !copy(place)).count();
        if originals <= 1 || !unknown_copies {
            judge.holds(originals <= 1, || {
                let what = format!("{}: a mail that was sent once stands in {places:?}", whence(last));
                Evidence::of(what, &ledger.changes[sent].ids(), last.at_us)
            });
        }
    }
}

/// I3.
pub(super) fn no_phantom(ledger: &Ledger<'_>) -> Judge {
    let mut judge = Judge::default();
    for last in &ledger.history.finals {
        for ((mailbox, uid), message) in rows(last) {
            let Some(hash) = message.hash.as_deref() else { continue };
            let sent = ledger.bodies.get(&(last.account, hash)).map(|&at| &ledger.changes[at]);
            judge.holds(sent.is_some_and(|change| !change.refused()), || {
                let (why, ids) = match sent {
                    None => ("nobody sent", vec![]),
                    Some(change) => ("was refused", change.ids()),
                };
                let what = format!("{}: message {uid} of {mailbox} has a body that {why}", whence(last));
                Evidence::of(what, &ids, last.at_us)
            });
            let gone = ledger
                .removals(last.account, mailbox, uid)
                .iter()
                .find(|removal| removal.certain);
            if let Some(removal) = gone {
                judge.holds(false, || {
                    let what = format!("{}: message {uid} of {mailbox} came back", whence(last));
                    Evidence::of(what, &ledger.changes[removal.change].ids(), last.at_us)
                });
            }
        }
        mailboxes_that_nobody_made(ledger, last, &mut judge);
    }
    judge
}

fn mailboxes_that_nobody_made(ledger: &Ledger<'_>, last: &Final, judge: &mut Judge) {
    let parts = |name: &str| -> Vec<String> { name.match_indices('/').map(|(at, _)| name[..at].to_owned()).collect() };
    let names = last.mailboxes.iter().map(|mailbox| mailbox.name.as_str());
    for name in names.filter(|name| !ledger.is_fixed(name) && !BORN_WITH.contains(name)) {
        let asked = made(ledger, last.account).any(|(made, change)| {
            !change.refused() && (made == name || parts(made).iter().any(|parent| parent == name))
        });
        judge.holds(asked, || {
            Evidence::of(format!("{}: nobody made mailbox {name}", whence(last)), &[], last.at_us)
        });
        // A name is used once, so what was deleted does not come back.
        let deleted = |change: &&Change<'_>| {
            change.account == last.account && leaves(change.call) == Some(name) && change.done().is_some()
        };
        if let Some(change) = ledger.changes.iter().find(deleted) {
            judge.holds(false, || {
                Evidence::of(
                    format!("{}: mailbox {name} came back", whence(last)),
                    &change.ids(),
                    last.at_us,
                )
            });
        }
    }
}
