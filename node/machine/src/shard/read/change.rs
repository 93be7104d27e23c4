//! What changed above a MODSEQ (RFC 7162): from the index of changes and the tombstones, so that it costs what changed.

use malle_proto::{AccountId, MailboxId, ModSeq, Uid, limits};

use super::mailbox::{keywords, shown_in_tree};
use super::{Changes, mailbox_row};
use crate::shard::{MessageFlags, Refusal, keys, rows, sets};
use crate::view::{Fault, Flow, View};

/// What changed in a mailbox above `since`, at most `max_rows` changed messages and `limits::VANISHED_PAGE_MAX` expunged ones. Where
/// either bound is reached, `through` is the MODSEQ up to which both lists are complete; every effect has a MODSEQ of its own, so that a
/// page can end anywhere.
///
/// # Errors
/// A [`Fault`]; inside, `NoAccount` or `NoMailbox`.
pub fn changes(
    view: &dyn View,
    account: AccountId,
    mailbox: MailboxId,
    since: ModSeq,
    max_rows: usize,
) -> Result<Result<Changes, Refusal>, Fault> {
    let (owner, row) = match mailbox_row(view, account, mailbox)? {
        Ok(rows) => rows,
        Err(refusal) => return Ok(Err(refusal)),
    };
    // A page of no rows would never end.
    let max_rows = max_rows.max(1);
    let all = ModSeq(u64::MAX);
    let entries = |kind, max| indexed(view, keys::modseqs(account, kind, mailbox, since, all), max);
    let (mut changed, changed_through) = entries(keys::kind::CHANGE, max_rows)?;
    let (mut vanished, vanished_through) = entries(keys::kind::TOMBSTONE, limits::VANISHED_PAGE_MAX)?;
    let through = match (changed_through, vanished_through) {
        (None, None) => ModSeq(row.highest_modseq).max(since),
        (a, b) => a.unwrap_or(all).min(b.unwrap_or(all)),
    };
    changed.retain(|(modseq, _)| *modseq <= through);
    vanished.retain(|(modseq, _)| *modseq <= through);
    let mut flags = Vec::with_capacity(changed.len());
    for (modseq, uid) in changed {
        let state: rows::State = rows::must_get(view, &keys::state(account, mailbox, uid), "state")?;
        if state.modseq != modseq.0 {
            return Err(Fault::Broken(
                "the index of changes names another MODSEQ than the message".into(),
            ));
        }
        flags.push(MessageFlags {
            uid,
            modseq,
            flags: state.flags,
        });
    }
    let mut gone: Vec<Uid> = vanished.into_iter().map(|(_, uid)| uid).collect();
    gone.sort();
    Ok(Ok(Changes {
        mailbox: shown_in_tree(view, account, &owner, mailbox, &row)?,
        changed: flags,
        vanished: sets::of_rising(gone),
        through,
        cannot_calculate: since.0 < row.horizon,
        keywords: keywords(view, account, mailbox)?,
    }))
}

/// Entries of an index in the order of MODSEQ, and the last one's MODSEQ if there are more.
type Entries = (Vec<(ModSeq, Uid)>, Option<ModSeq>);

/// At most `max` entries of an index, and the MODSEQ of the last of them if there are more.
pub(super) fn indexed(view: &dyn View, range: keys::Range, max: usize) -> Result<Entries, Fault> {
    let (mut entries, mut more): (Vec<(ModSeq, Uid)>, bool) = (Vec::new(), false);
    view.scan(&range.from, &range.to, &mut |key, _| {
        if entries.len() == max {
            more = true;
            return Ok(Flow::Stop);
        }
        entries.push(keys::modseq_and_uid_of(key).ok_or_else(rows::bad_key)?);
        Ok(Flow::More)
    })?;
    let through = if more {
        entries.last().map(|(modseq, _)| *modseq)
    } else {
        None
    };
    Ok((entries, through))
}
