//! Putting a message into a mailbox and taking one out: the rows, counters and references that belong together.
//!
//! Nothing else writes a row of a message, so nothing else can give a UID or forget a counter. A UID is one above all that the mailbox
//! ever gave; UIDNEXT never falls, whatever is expunged.

use bytes::Bytes;
use malle_proto::{MailboxId, ModSeq, Uid};

use super::apply::Step;
use super::edit::{Edit, OpenMailbox};
use super::{Flags, Refusal, UidRange, bodies, keys, rows, threads};
use crate::controls::{self, Control};
use crate::view::{Fault, Flow, View};

/// A message with its changing half.
pub(super) type Found = (Uid, rows::State);

/// Puts a message in. The caller has named its bodies, joined its thread and asked for room.
pub(super) fn insert(
    edit: &mut Edit<'_, '_>,
    mailbox: &mut OpenMailbox,
    flags: Flags,
    content: &rows::Content,
) -> Step<(Uid, ModSeq)> {
    let uid = Uid(mailbox.row.uid_next);
    // The highest UID of all stays unused, so that UIDNEXT always has a value.
    mailbox.row.uid_next = uid.0.checked_add(1).ok_or(Refusal::UidsExhausted)?;
    let modseq = edit.next_modseq();
    mailbox.row.highest_modseq = modseq.0;
    mailbox.row.messages += 1;
    mailbox.row.unseen += u32::from(flags.system & Flags::SEEN == 0);
    mailbox.row.deleted += u32::from(flags.system & Flags::DELETED != 0);
    mailbox.row.size_bytes += content.size;
    edit.row.messages += 1;
    edit.row.used_bytes += content.size;
    if flags.system & Flags::DELETED != 0 {
        rows::mark(edit.draft, keys::deleted(edit.id, mailbox.id, uid));
    }
    // UIDNEXT and the MODSEQ never fall: nothing stands under these keys.
    edit.draft
        .put_new(keys::change(edit.id, mailbox.id, modseq, uid), Bytes::new());
    rows::put_new(edit.draft, keys::content(edit.id, mailbox.id, uid), content);
    let state = rows::State {
        modseq: modseq.0,
        flags,
    };
    rows::put_new(edit.draft, keys::state(edit.id, mailbox.id, uid), &state);
    edit.note_change(mailbox.id, false);
    Ok((uid, modseq))
}

/// Gives a message other flags and a new MODSEQ.
pub(super) fn reflag(
    edit: &mut Edit<'_, '_>,
    mailbox: &mut OpenMailbox,
    uid: Uid,
    old: &rows::State,
    flags: &Flags,
) -> Step<ModSeq> {
    let modseq = edit.next_modseq();
    let row = &mut mailbox.row;
    row.highest_modseq = modseq.0;
    let has = |flags: &Flags, bit: u8| flags.system & bit != 0;
    row.unseen = less(
        row.unseen + u32::from(has(&old.flags, Flags::SEEN)),
        u32::from(has(flags, Flags::SEEN)),
    )?;
    row.deleted = less(
        row.deleted + u32::from(has(flags, Flags::DELETED)),
        u32::from(has(&old.flags, Flags::DELETED)),
    )?;
    let deleted = keys::deleted(edit.id, mailbox.id, uid);
    match (has(&old.flags, Flags::DELETED), has(flags, Flags::DELETED)) {
        (false, true) => rows::mark(edit.draft, deleted),
        (true, false) => edit.draft.remove(deleted),
        _ => {}
    }
    edit.draft
        .remove(keys::change(edit.id, mailbox.id, ModSeq(old.modseq), uid));
    rows::mark(edit.draft, keys::change(edit.id, mailbox.id, modseq, uid));
    let state = rows::State {
        modseq: modseq.0,
        flags: flags.clone(),
    };
    rows::put(edit.draft, keys::state(edit.id, mailbox.id, uid), &state);
    edit.note_change(mailbox.id, false);
    Ok(modseq)
}

/// Takes a message out of a mailbox that stays, and leaves a tombstone.
pub(super) fn expunge(edit: &mut Edit<'_, '_>, mailbox: &mut OpenMailbox, uid: Uid, state: &rows::State) -> Step<()> {
    let size = take_away(edit, mailbox.id, uid, state)?;
    let modseq = edit.next_modseq();
    let row = &mut mailbox.row;
    row.highest_modseq = modseq.0;
    row.messages = less(row.messages, 1)?;
    row.unseen = less(row.unseen, u32::from(state.flags.system & Flags::SEEN == 0))?;
    row.deleted = less(row.deleted, u32::from(state.flags.system & Flags::DELETED != 0))?;
    row.size_bytes = row.size_bytes.checked_sub(size).ok_or_else(contradiction)?;
    if !controls::is_on(Control::LoseTombstone) {
        row.tombstones += 1;
        rows::mark(edit.draft, keys::tombstone(edit.id, mailbox.id, modseq, uid));
    }
    edit.note_change(mailbox.id, false);
    Ok(())
}

/// Removes the rows of a message, its references and its share of the account's counters; gives its size.
pub(super) fn take_away(edit: &mut Edit<'_, '_>, mailbox: MailboxId, uid: Uid, state: &rows::State) -> Step<u64> {
    let content_key = keys::content(edit.id, mailbox, uid);
    let content: rows::Content = rows::must_get(edit.draft, &content_key, "content")?;
    edit.draft.remove(content_key);
    edit.draft.remove(keys::state(edit.id, mailbox, uid));
    edit.draft
        .remove(keys::change(edit.id, mailbox, ModSeq(state.modseq), uid));
    if state.flags.system & Flags::DELETED != 0 {
        edit.draft.remove(keys::deleted(edit.id, mailbox, uid));
    }
    for hash in content.bodies() {
        bodies::unname(edit.draft, hash, edit.now_ms)?;
    }
    for id in &content.thread_keys {
        threads::leave(edit, *id)?;
    }
    edit.row.messages = edit.row.messages.checked_sub(1).ok_or_else(contradiction)?;
    edit.row.used_bytes = edit
        .row
        .used_bytes
        .checked_sub(content.size)
        .ok_or_else(contradiction)?;
    Ok(content.size)
}

/// The control [`Control::ReuseUid`]: gives UIDs from `first` on back when no message stands above them.
pub(super) fn give_back(edit: &Edit<'_, '_>, mailbox: &mut OpenMailbox, first: Uid) -> Step<()> {
    let above = [UidRange {
        first,
        last: Uid(u32::MAX),
    }];
    let (found, _) = find(edit, mailbox.id, &above, 1)?;
    if found.is_empty() {
        mailbox.row.uid_next = first.0;
    }
    Ok(())
}

/// Forgets the oldest tombstones of a mailbox that has more than `max`. An expunge removes a bounded number of messages, so what is
/// over the bound is bounded too.
pub(super) fn trim_tombstones(edit: &mut Edit<'_, '_>, mailbox: &mut OpenMailbox, max: usize) -> Step<()> {
    let over = (mailbox.row.tombstones as usize).saturating_sub(max);
    if over == 0 {
        return Ok(());
    }
    let range = keys::of_mailbox(edit.id, keys::kind::TOMBSTONE, mailbox.id);
    let mut gone = Vec::new();
    edit.draft.scan(&range.from, &range.to, &mut |key, _| {
        gone.push(key.to_vec());
        Ok(if gone.len() < over { Flow::More } else { Flow::Stop })
    })?;
    for key in gone {
        let (modseq, _) = keys::modseq_and_uid_of(&key).ok_or_else(rows::bad_key)?;
        mailbox.row.horizon = mailbox.row.horizon.max(modseq.0);
        mailbox.row.tombstones = less(mailbox.row.tombstones, 1)?;
        edit.draft.remove(key);
    }
    Ok(())
}

/// The messages of a set that exist, at most `max`, and from where on there are more. `ranges` are normalised.
pub(super) fn find(
    edit: &Edit<'_, '_>,
    mailbox: MailboxId,
    ranges: &[UidRange],
    max: usize,
) -> Result<(Vec<Found>, Option<Uid>), Fault> {
    let mut found: Vec<Found> = Vec::new();
    let mut resume_from = None;
    for range in ranges {
        let keys = keys::uids(edit.id, keys::kind::STATE, mailbox, range.first, range.last);
        edit.draft.scan(&keys.from, &keys.to, &mut |key, value| {
            let uid = keys::uid_of(key).ok_or_else(rows::bad_key)?;
            if found.len() == max {
                resume_from = Some(uid);
                return Ok(Flow::Stop);
            }
            found.push((uid, rows::read(value, "state")?));
            Ok(Flow::More)
        })?;
        if resume_from.is_some() {
            break;
        }
    }
    Ok((found, resume_from))
}

fn less(counter: u32, by: u32) -> Result<u32, Fault> {
    counter.checked_sub(by).ok_or_else(contradiction)
}

fn contradiction() -> Fault {
    Fault::Broken("a counter is lower than the rows that it counts".into())
}
