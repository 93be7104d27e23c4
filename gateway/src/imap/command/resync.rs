//! QRESYNC (RFC 7162 3.2): what a client that comes back has missed.
//!
//! The store remembers expunges with their MODSEQ. Where it no longer reaches back far enough, every UID below the next one that has no message
//! is told as vanished: more than was asked for, but never less. What is in the session's view is never told here; its EXPUNGE
//! comes in the usual way, so that sequence numbers stay right.

use std::collections::BTreeMap;
use std::sync::Arc;

use malle_client::{Error, MailboxId, MessageFlags, ModSeq, Uid, UidRange};

use super::super::parse::{Resync, SequenceSet, Target};
use super::super::respond::{Failure, Output, uid_set};
use super::super::session::Session;
use super::super::store::Account;
use super::super::view::{View, common, merged};

/// What happened in a mailbox since a MODSEQ.
#[derive(Default)]
struct Missed {
    changed: BTreeMap<Uid, MessageFlags>,
    vanished: Vec<UidRange>,
    /// The highest UID that any message ever had; `None` in a mailbox that never had one.
    highest: Option<Uid>,
}

/// After SELECT with QRESYNC: what vanished, then the flags that changed.
pub(super) async fn tell_missed(session: &mut Session, resync: &Resync) -> Result<(), Failure> {
    let (Some(account), Some(selected)) = (session.account.clone(), session.selected.as_ref()) else {
        return Ok(());
    };
    let missed = missed(&account, selected.mailbox, resync.modseq).await?;
    let everything = SequenceSet::Numbers(vec![(Some(1), None)]);
    let known = missed.ranges(&selected.view, resync.known.as_ref().unwrap_or(&everything));
    let is_known = |uid: Uid| {
        let after = known.partition_point(|range| range.first <= uid);
        after > 0 && uid <= known[after - 1].last
    };
    let out = &mut session.connection.output;
    tell_earlier(out, &missed.absent(&selected.view, &known));
    for message in missed.changed.values().filter(|message| is_known(message.uid)) {
        let Some(number) = selected.view.number(message.uid) else {
            continue;
        };
        out.put(format_args!("* {number} FETCH (UID {} FLAGS ", message.uid));
        out.flags(&message.flags);
        out.put(format_args!(" MODSEQ ({}))\r\n", message.modseq));
    }
    Ok(())
}

/// UID FETCH with VANISHED (RFC 7162 3.2.6).
pub(super) async fn tell_vanished(
    session: &mut Session,
    target: &Target,
    since: Option<ModSeq>,
) -> Result<(), Failure> {
    let (Some(account), Some(selected)) = (session.account.clone(), session.selected.as_ref()) else {
        return Ok(());
    };
    let Some(since) = since.filter(|_| session.qresync && target.by_uid) else {
        return Err(Failure::bad(
            "VANISHED needs ENABLE QRESYNC, UID FETCH and CHANGEDSINCE",
        ));
    };
    let missed = missed(&account, selected.mailbox, since).await?;
    let asked = missed.ranges(&selected.view, &target.set);
    tell_earlier(&mut session.connection.output, &missed.absent(&selected.view, &asked));
    Ok(())
}

fn tell_earlier(out: &mut Output, vanished: &[UidRange]) {
    if !vanished.is_empty() {
        out.untagged(format_args!("VANISHED (EARLIER) {}", uid_set(vanished)));
    }
}

impl Missed {
    /// The UIDs that a set names. `*` is the highest UID there ever was, so that its own expunge is told too.
    fn ranges(&self, view: &View, set: &SequenceSet) -> Vec<UidRange> {
        let Some(highest) = self.highest.max(view.highest()) else {
            return Vec::new();
        };
        let SequenceSet::Numbers(set) = set else {
            // What was found and kept is in the view.
            return Vec::new();
        };
        let ends = set
            .iter()
            .map(|&(first, last)| (first.map_or(highest, Uid), last.map_or(highest, Uid)));
        merged(
            ends.map(|(one, other)| UidRange {
                first: one.min(other),
                last: one.max(other),
            })
            .collect(),
        )
    }

    /// What of `asked` vanished and is not in the view.
    fn absent(&self, view: &View, asked: &[UidRange]) -> Vec<UidRange> {
        view.absent(&common(&self.vanished, asked))
    }
}

/// Asks the store, page by page.
async fn missed(account: &Arc<dyn Account>, mailbox: MailboxId, since: ModSeq) -> Result<Missed, Failure> {
    let mut missed = Missed::default();
    let (mut from, mut forgot) = (since, false);
    loop {
        let page = account.changes(mailbox, from).await?;
        missed.vanished.extend(page.vanished);
        missed
            .changed
            .extend(page.changed.into_iter().map(|message| (message.uid, message)));
        forgot |= page.cannot_calculate;
        missed.highest = page.mailbox.uid_next.0.checked_sub(1).filter(|&uid| uid > 0).map(Uid);
        if page.through >= page.mailbox.highest_modseq {
            break;
        }
        if page.through <= from {
            return Err(Error::Internal("the store does not get on with its changes".to_owned()).into());
        }
        from = page.through;
    }
    if forgot && let Some(highest) = missed.highest {
        missed.vanished.push(UidRange {
            first: Uid(1),
            last: highest,
        });
    }
    missed.vanished = merged(missed.vanished);
    Ok(missed)
}
