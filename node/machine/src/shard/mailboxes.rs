//! CREATE, RENAME, DELETE, SUBSCRIBE and the special uses (RFC 9051 6.3, RFC 6154).
//!
//! The tree is made of places; a mailbox stands at a place (see `keys`). So a rename of a subtree moves one row, and a mailbox keeps
//! its id, its UIDVALIDITY and its UIDs wherever it goes.
//!
//! Renaming INBOX (RFC 9051 6.3.6) moves its messages without touching them: the mailbox itself goes to the new name, and INBOX gets a
//! fresh one with a UIDVALIDITY above all that the account ever had. No UID lies: under the name INBOX every cached UID is void because
//! UIDVALIDITY rose, and under the new name the UIDVALIDITY is one that this name never had, since no two mailboxes of an account share
//! one. What is below INBOX stays below INBOX.

use malle_proto::{MailboxId, ModSeq, limits};

use super::apply::Step;
use super::edit::{Edit, OpenMailbox};
use super::{MailboxChange, Outcome, Refusal, SpecialUse, annotations, keys, names, rights, rows, sweep, tree};
use crate::view::{Fault, View};

/// Applies a change of the tree. `fresh` are ids for what it makes.
pub(super) fn change(edit: &mut Edit<'_, '_>, change: &MailboxChange, fresh: &[MailboxId]) -> Step<Outcome> {
    let mut fresh = Fresh::new(fresh);
    let mailbox = match change {
        MailboxChange::Create { name, special_use } => Some(create(edit, &mut fresh, name, *special_use)?),
        MailboxChange::Rename { from, to } => Some(rename(edit, &mut fresh, from, to)?),
        MailboxChange::Delete { name } => {
            delete(edit, name)?;
            None
        }
        MailboxChange::Subscribe { name, subscribed } => Some(subscribe(edit, name, *subscribed)?),
        MailboxChange::SpecialUse { name, special_use } => Some(set_special_use(edit, name, *special_use)?),
        MailboxChange::Annotate { name, entries } => annotations::set(edit, name, entries)?,
        MailboxChange::Grant {
            name,
            guest,
            mode,
            rights,
        } => Some(rights::grant(edit, name, *guest, *mode, *rights)?),
    };
    Ok(Outcome::MailboxChanged {
        mailbox,
        modseq: edit.modseq(),
    })
}

/// Ids that the proposer drew.
pub(super) struct Fresh<'a>(std::slice::Iter<'a, MailboxId>);

impl<'a> Fresh<'a> {
    pub(super) fn new(ids: &'a [MailboxId]) -> Self {
        Fresh(ids.iter())
    }

    /// The next id that is nothing's yet. Random ids never meet; a proposer that sends others loses nothing but its command.
    fn take(&mut self, edit: &Edit<'_, '_>) -> Step<MailboxId> {
        for &id in self.0.by_ref() {
            let taken = id == keys::ROOT
                || edit.draft.get(&keys::place(edit.id, id))?.is_some()
                || edit.draft.get(&keys::mailbox(edit.id, id))?.is_some()
                || edit.draft.get(&keys::doomed(edit.id, id))?.is_some();
            if !taken {
                return Ok(id);
            }
        }
        Err(Refusal::Limit("the command brought too few fresh mailbox ids".into()).into())
    }
}

/// A place to be made.
pub(super) struct NewPlace<'a> {
    pub(super) parent: MailboxId,
    pub(super) part: &'a str,
    pub(super) subscribed: bool,
}

/// Makes a place with a fresh mailbox; gives the ids of both.
pub(super) fn make_place(
    edit: &mut Edit<'_, '_>,
    fresh: &mut Fresh<'_>,
    modseq: ModSeq,
    place: &NewPlace<'_>,
) -> Step<(MailboxId, MailboxId)> {
    let id = fresh.take(edit)?;
    make_mailbox(edit, id, id, modseq)?;
    put_new_place(edit, id, place, id)?;
    rights::inherit(edit, place.parent, id)?;
    Ok((id, id))
}

/// Writes a new place at which a mailbox stands.
fn put_new_place(edit: &mut Edit<'_, '_>, id: MailboxId, place: &NewPlace<'_>, mailbox: MailboxId) -> Step<()> {
    if edit.row.places as usize >= limits::MAILBOXES_PER_ACCOUNT_MAX {
        return Err(Refusal::Limit(format!("{} mailboxes in an account", limits::MAILBOXES_PER_ACCOUNT_MAX)).into());
    }
    edit.row.places += 1;
    let row = rows::Place {
        parent: place.parent,
        part: place.part.to_string(),
        mailbox: Some(mailbox),
        subscribed: place.subscribed,
    };
    rows::put(
        edit.draft,
        keys::child(edit.id, place.parent, place.part),
        &rows::Child { place: id },
    );
    rows::put(edit.draft, keys::place(edit.id, id), &row);
    Ok(())
}

/// Writes an empty mailbox.
fn make_mailbox(edit: &mut Edit<'_, '_>, id: MailboxId, place: MailboxId, modseq: ModSeq) -> Step<()> {
    let row = rows::Mailbox {
        place,
        uid_validity: edit.next_uid_validity()?,
        uid_next: 1,
        highest_modseq: modseq.0,
        messages: 0,
        unseen: 0,
        deleted: 0,
        size_bytes: 0,
        keywords: 0,
        tombstones: 0,
        horizon: 0,
    };
    edit.save(&OpenMailbox { id, row });
    edit.note_change(id, true);
    Ok(())
}

/// The place above the last part of a name; those that are missing are made.
fn make_parents(edit: &mut Edit<'_, '_>, fresh: &mut Fresh<'_>, modseq: ModSeq, parts: &[&str]) -> Step<MailboxId> {
    let mut parent = keys::ROOT;
    for part in parts {
        parent = match tree::below(edit.draft, edit.id, parent, part)? {
            Some(place) => place.id,
            None => {
                let place = NewPlace {
                    parent,
                    part,
                    subscribed: false,
                };
                make_place(edit, fresh, modseq, &place)?.0
            }
        };
    }
    Ok(parent)
}

/// A name without a mailbox (\Noselect) gets one; its place and what is below it stay.
fn create(edit: &mut Edit<'_, '_>, fresh: &mut Fresh<'_>, name: &str, special_use: SpecialUse) -> Step<MailboxId> {
    let parts = names::parts(name)?;
    let modseq = edit.next_modseq();
    let existing = tree::find(edit.draft, edit.id, &parts)?;
    let mailbox = match existing {
        Some(place) if place.row.mailbox.is_some() => return Err(Refusal::MailboxExists.into()),
        Some(mut place) => {
            let id = fresh.take(edit)?;
            make_mailbox(edit, id, place.id, modseq)?;
            place.row.mailbox = Some(id);
            rows::put(edit.draft, keys::place(edit.id, place.id), &place.row);
            id
        }
        None => {
            let (part, above) = last(&parts)?;
            let place = NewPlace {
                parent: make_parents(edit, fresh, modseq, above)?,
                part,
                subscribed: false,
            };
            make_place(edit, fresh, modseq, &place)?.1
        }
    };
    give_special_use(edit, mailbox, special_use)?;
    Ok(mailbox)
}

fn rename(edit: &mut Edit<'_, '_>, fresh: &mut Fresh<'_>, from: &str, to: &str) -> Step<MailboxId> {
    let (from, to) = (names::parts(from)?, names::parts(to)?);
    let is_inbox = from == [names::INBOX];
    let mut place = tree::find(edit.draft, edit.id, &from)?.ok_or(Refusal::NoMailbox)?;
    if tree::find(edit.draft, edit.id, &to)?.is_some() {
        return Err(Refusal::MailboxExists.into());
    }
    if to.starts_with(&from) && !is_inbox {
        return Err(Refusal::NotPossible("it cannot move below itself".into()).into());
    }
    let modseq = edit.next_modseq();
    let (part, above) = last(&to)?;
    if is_inbox {
        let parent = make_parents(edit, fresh, modseq, above)?;
        let subscribed = place.row.subscribed;
        return rename_inbox(
            edit,
            fresh,
            modseq,
            place,
            &NewPlace {
                parent,
                part,
                subscribed,
            },
        );
    }
    let (depth, bytes) = tree::extent(edit.draft, edit.id, place.id)?;
    let to_bytes = to.iter().map(|part| part.len() + 1).sum::<usize>() - 1;
    if to.len() + depth > limits::MAILBOX_DEPTH_MAX || to_bytes + bytes > limits::MAILBOX_NAME_MAX_BYTES {
        return Err(Refusal::BadName("a name below it would be too deep or too long".into()).into());
    }
    let parent = make_parents(edit, fresh, modseq, above)?;
    edit.draft
        .remove(keys::child(edit.id, place.row.parent, &place.row.part));
    place.row.parent = parent;
    place.row.part = part.to_string();
    rows::put(
        edit.draft,
        keys::child(edit.id, parent, part),
        &rows::Child { place: place.id },
    );
    rows::put(edit.draft, keys::place(edit.id, place.id), &place.row);
    let shown = place.row.mailbox.unwrap_or(place.id);
    edit.note_change(shown, true);
    Ok(shown)
}

/// The mailbox of INBOX goes to a new place, and a fresh one comes to INBOX.
fn rename_inbox(
    edit: &mut Edit<'_, '_>,
    fresh: &mut Fresh<'_>,
    modseq: ModSeq,
    mut inbox: tree::Found,
    to: &NewPlace<'_>,
) -> Step<MailboxId> {
    let old = inbox
        .row
        .mailbox
        .ok_or_else(|| Fault::Broken("INBOX has no mailbox".into()))?;
    let new = fresh.take(edit)?;
    make_mailbox(edit, new, inbox.id, modseq)?;
    inbox.row.mailbox = Some(new);
    rows::put(edit.draft, keys::place(edit.id, inbox.id), &inbox.row);
    let place = fresh.take(edit)?;
    put_new_place(edit, place, to, old)?;
    let mut moved = edit.mailbox(old)?;
    moved.row.place = place;
    edit.save(&moved);
    edit.row
        .special
        .retain(|(special_use, _)| *special_use != SpecialUse::Inbox);
    edit.row.special.push((SpecialUse::Inbox, new));
    edit.row.special.sort();
    edit.note_change(old, true);
    Ok(old)
}

/// With children the name stays, without a mailbox (RFC 9051 6.3.5); either way the mailbox's rows go by and by.
fn delete(edit: &mut Edit<'_, '_>, name: &str) -> Step<()> {
    let parts = names::parts(name)?;
    let mut place = tree::find(edit.draft, edit.id, &parts)?.ok_or(Refusal::NoMailbox)?;
    if parts == [names::INBOX] {
        return Err(Refusal::NotPossible("INBOX cannot be deleted".into()).into());
    }
    let has_children = tree::has_children(edit.draft, edit.id, place.id)?;
    if has_children && place.row.mailbox.is_none() {
        return Err(Refusal::NotPossible("it has children and holds no messages".into()).into());
    }
    edit.next_modseq();
    edit.note_change(place.row.mailbox.unwrap_or(place.id), true);
    if let Some(mailbox) = place.row.mailbox.take() {
        sweep::doom(edit, mailbox);
        edit.row.special.retain(|(_, other)| *other != mailbox);
    }
    if has_children {
        rows::put(edit.draft, keys::place(edit.id, place.id), &place.row);
    } else {
        edit.draft
            .remove(keys::child(edit.id, place.row.parent, &place.row.part));
        edit.draft.remove(keys::place(edit.id, place.id));
        let places = edit.row.places.checked_sub(1);
        edit.row.places = places.ok_or_else(|| Fault::Broken("more places than were counted".into()))?;
    }
    Ok(())
}

fn subscribe(edit: &mut Edit<'_, '_>, name: &str, subscribed: bool) -> Step<MailboxId> {
    let mut place = tree::find(edit.draft, edit.id, &names::parts(name)?)?.ok_or(Refusal::NoMailbox)?;
    let shown = place.row.mailbox.unwrap_or(place.id);
    if place.row.subscribed != subscribed {
        place.row.subscribed = subscribed;
        rows::put(edit.draft, keys::place(edit.id, place.id), &place.row);
        edit.next_modseq();
        edit.note_change(shown, true);
    }
    Ok(shown)
}

fn set_special_use(edit: &mut Edit<'_, '_>, name: &str, special_use: SpecialUse) -> Step<MailboxId> {
    let place = tree::find(edit.draft, edit.id, &names::parts(name)?)?.ok_or(Refusal::NoMailbox)?;
    let Some(mailbox) = place.row.mailbox else {
        return Err(Refusal::NotPossible("it holds no messages".into()).into());
    };
    let had = edit.row.special.iter().find(|(_, other)| *other == mailbox);
    let had = had.map_or(SpecialUse::None, |(special_use, _)| *special_use);
    if had == special_use {
        return Ok(mailbox);
    }
    if had == SpecialUse::Inbox {
        return Err(Refusal::NotPossible("INBOX has no other use".into()).into());
    }
    edit.row.special.retain(|(_, other)| *other != mailbox);
    give_special_use(edit, mailbox, special_use)?;
    edit.next_modseq();
    edit.note_change(mailbox, true);
    Ok(mailbox)
}

/// A use belongs to one mailbox at a time (RFC 6154 allows more; a delivery could not choose).
fn give_special_use(edit: &mut Edit<'_, '_>, mailbox: MailboxId, special_use: SpecialUse) -> Step<()> {
    match special_use {
        SpecialUse::None => return Ok(()),
        SpecialUse::Inbox => return Err(Refusal::NotPossible("there is one INBOX".into()).into()),
        _ => {}
    }
    if edit.row.special.iter().any(|(other, _)| *other == special_use) {
        return Err(Refusal::MailboxExists.into());
    }
    edit.row.special.push((special_use, mailbox));
    edit.row.special.sort();
    Ok(())
}

fn last<'p, 'n>(parts: &'p [&'n str]) -> Result<(&'n str, &'p [&'n str]), Refusal> {
    let (part, above) = parts
        .split_last()
        .ok_or_else(|| Refusal::BadName("a part is empty".into()))?;
    Ok((part, above))
}
