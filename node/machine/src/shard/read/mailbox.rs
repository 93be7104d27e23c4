//! The tree with its counters, and a mailbox as SELECT sees it.

use malle_proto::{AccountId, MailboxId, ModSeq, Uid, UidValidity};

use super::outline::{Outline, Outlined};
use super::{Mailbox, Opened, account_row, mailbox_row};
use crate::shard::{Refusal, SpecialUse, keys, names, rows, tree};
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

/// The mailbox with this full name, INBOX in any letters.
///
/// # Errors
/// A [`Fault`]; inside, `NoAccount`, `NoMailbox`, or `NotPossible` for a name that only holds other mailboxes.
pub fn named(view: &dyn View, account: AccountId, name: &str) -> Result<Result<MailboxId, Refusal>, Fault> {
    if account_row(view, account)?.is_none() {
        return Ok(Err(Refusal::NoAccount));
    }
    // What cannot be a name is the name of nothing.
    let Ok(parts) = names::parts(name) else {
        return Ok(Err(Refusal::NoMailbox));
    };
    Ok(match tree::find(view, account, &parts)? {
        None => Err(Refusal::NoMailbox),
        Some(place) => place
            .row
            .mailbox
            .ok_or_else(|| Refusal::NotPossible("it only holds other mailboxes".into())),
    })
}

/// A mailbox as SELECT sees it. Its cost is a small row per message, or what changed since `known`, an older outline of the same mailbox.
///
/// # Errors
/// A [`Fault`]; inside, `NoAccount` or `NoMailbox`.
pub fn open(
    view: &dyn View,
    account: AccountId,
    mailbox: MailboxId,
    known: Option<&Outline>,
) -> Result<Result<Opened, Refusal>, Fault> {
    let (owner, row) = match mailbox_row(view, account, mailbox)? {
        Ok(rows) => rows,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let outlined = Outlined {
        view,
        account,
        mailbox,
        row: &row,
    };
    Ok(Ok(Opened {
        outline: outlined.now(known)?,
        keywords: keywords(view, account, mailbox)?,
        mailbox: shown_in_tree(view, account, &owner, mailbox, &row)?,
    }))
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
