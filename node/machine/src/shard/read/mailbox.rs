//! The tree with its counters, and a mailbox as SELECT sees it.

use malle_proto::{AccountId, MailboxId, ModSeq, Uid, UidValidity};

use super::{Mailbox, Opened, account_row, mailbox_row};
use crate::shard::{Flags, Refusal, SpecialUse, keys, rows, sets, tree};
use crate::view::{Fault, Flow, View};

/// Every mailbox, sorted by name.
///
/// # Errors
/// A [`Fault`]; inside, `NoAccount`.
pub fn mailboxes(view: &dyn View, account: AccountId) -> Result<Result<Vec<Mailbox>, Refusal>, Fault> {
    let Some(owner) = account_row(view, account)? else {
        return Ok(Err(Refusal::NoAccount));
    };
    let mut mailboxes = Vec::new();
    for (name, place) in tree::all(view, account)? {
        mailboxes.push(match place.row.mailbox {
            None => without_mailbox(name, place),
            Some(id) => {
                let row = rows::must_get(view, &keys::mailbox(account, id), "mailbox")?;
                shown(&owner, id, &row, name, place.row.subscribed)
            }
        });
    }
    Ok(Ok(mailboxes))
}

/// A mailbox as SELECT sees it. Its cost is a small row per message.
///
/// # Errors
/// A [`Fault`]; inside, `NoAccount` or `NoMailbox`.
pub fn open(view: &dyn View, account: AccountId, mailbox: MailboxId) -> Result<Result<Opened, Refusal>, Fault> {
    let (owner, row) = match mailbox_row(view, account, mailbox)? {
        Ok(rows) => rows,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let shown = shown_in_tree(view, account, &owner, mailbox, &row)?;
    let (mut uids, mut first_unseen) = (Vec::new(), None);
    let range = keys::of_mailbox(account, keys::kind::STATE, mailbox);
    view.scan(&range.from, &range.to, &mut |key, value| {
        let uid = keys::uid_of(key).ok_or_else(rows::bad_key)?;
        sets::push(&mut uids, uid);
        if shown.unseen > 0 && first_unseen.is_none() && is_unseen(value)? {
            first_unseen = Some(uid);
        }
        Ok(Flow::More)
    })?;
    Ok(Ok(Opened {
        keywords: keywords(view, account, mailbox)?,
        mailbox: shown,
        uids,
        first_unseen,
    }))
}

fn is_unseen(state: &[u8]) -> Result<bool, Fault> {
    let state: rows::State = rows::read(state, "state")?;
    Ok(state.flags.system & Flags::SEEN == 0)
}

/// Every keyword that the mailbox ever saw, in the order of their lower-case forms.
pub(super) fn keywords(view: &dyn View, account: AccountId, mailbox: MailboxId) -> Result<Vec<String>, Fault> {
    let range = keys::of_mailbox(account, keys::kind::KEYWORD, mailbox);
    let mut keywords = Vec::new();
    view.scan(&range.from, &range.to, &mut |_, value| {
        let row: rows::Keyword = rows::read(value, "keyword")?;
        keywords.push(row.spelling);
        Ok(Flow::More)
    })?;
    Ok(keywords)
}

/// A mailbox with its name, which is looked up.
pub(super) fn shown_in_tree(
    view: &dyn View,
    account: AccountId,
    owner: &rows::Account,
    id: MailboxId,
    row: &rows::Mailbox,
) -> Result<Mailbox, Fault> {
    let place: rows::Place = rows::must_get(view, &keys::place(account, row.place), "place")?;
    let name = tree::name(view, account, &place)?;
    Ok(shown(owner, id, row, name, place.subscribed))
}

fn shown(owner: &rows::Account, id: MailboxId, row: &rows::Mailbox, name: String, subscribed: bool) -> Mailbox {
    let special = owner.special.iter().find(|(_, other)| *other == id);
    Mailbox {
        id,
        name,
        uid_validity: UidValidity(row.uid_validity),
        uid_next: Uid(row.uid_next),
        highest_modseq: ModSeq(row.highest_modseq),
        messages: row.messages,
        unseen: row.unseen,
        deleted: row.deleted,
        size_bytes: row.size_bytes,
        special_use: special.map_or(SpecialUse::None, |(special_use, _)| *special_use),
        subscribed,
        no_select: false,
    }
}

fn without_mailbox(name: String, place: tree::Found) -> Mailbox {
    Mailbox {
        id: place.id,
        name,
        uid_validity: UidValidity(0),
        uid_next: Uid(1),
        highest_modseq: ModSeq(1),
        messages: 0,
        unseen: 0,
        deleted: 0,
        size_bytes: 0,
        special_use: SpecialUse::None,
        subscribed: place.row.subscribed,
        no_select: true,
    }
}
