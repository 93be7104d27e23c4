//! Rights of other accounts to the mailboxes of one (RFC 4314): grants, and what a guest may do with them.
//!
//! A grant belongs to the mailbox and goes with it wherever it is renamed to; what is made below a shared mailbox begins with its grants.
//! Who owns the account may do everything, always. A guest without the right l is told that there is no such mailbox.
//!
//! Here a command of a guest is looked at in the very step that does it, so that a right which was taken back is gone for every command
//! behind. What is absent: rights of groups and of everybody (`anyone`), and negative rights: each grant names one account.

use malle_proto::{AccountId, MailboxId, OpId, Rights, limits};

use super::apply::{self, Step};
use super::edit::Edit;
use super::{Flags, MailboxChange, Op, Outcome, Refusal, StoreMode, keys, names, rows, tree};
use crate::view::{Fault, Flow, View};

/// Which flags may be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reach {
    /// Of the system flags.
    pub(super) system: u8,
    pub(super) keywords: bool,
}

impl Reach {
    /// Every flag.
    pub(super) const ALL: Reach = Reach {
        system: Flags::SYSTEM,
        keywords: true,
    };
    /// No flag.
    pub(super) const NONE: Reach = Reach {
        system: 0,
        keywords: false,
    };

    fn of(rights: Rights) -> Reach {
        let bits = |right, bits| if rights.hold(right) { bits } else { 0 };
        let others = Flags::SYSTEM & !Flags::SEEN & !Flags::DELETED;
        Reach {
            system: bits(Rights::SEEN, Flags::SEEN)
                | bits(Rights::DELETE_MESSAGES, Flags::DELETED)
                | bits(Rights::WRITE, others),
            keywords: rights.hold(Rights::WRITE),
        }
    }

    /// What of these flags is within reach.
    pub(super) fn within(self, flags: &Flags) -> Flags {
        Flags {
            system: flags.system & self.system,
            keywords: match self.keywords {
                true => flags.keywords.clone(),
                false => Vec::new(),
            },
        }
    }
}

/// Under which op id the receipt of a guest's operation stands. A hash: no guest finds an op id that stands where a delivery or an operation
/// of the owner leaves its receipt, or will look for one.
pub(super) fn op_id_of(guest: AccountId, op_id: OpId) -> OpId {
    let mut hasher = blake3::Hasher::new();
    for part in [&b"guest"[..], &guest.0, &op_id.0] {
        hasher.update(part);
    }
    let mut id = [0; 16];
    id.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    OpId(id)
}

/// Does an operation of a guest as far as it may be done; a flag that may not be set is left out (RFC 4314 4).
pub(super) fn perform(edit: &mut Edit<'_, '_>, guest: AccountId, op: &Op) -> Step<Outcome> {
    let held = |edit: &Edit<'_, '_>, mailbox| of(edit.draft, edit.id, mailbox, guest);
    let reach = match op {
        Op::Append { mailbox, .. } => {
            let rights = held(edit, *mailbox)?;
            require(rights, Rights::INSERT)?;
            Reach::of(rights)
        }
        Op::AppendAll { mailbox, replaces, .. } => {
            let rights = held(edit, *mailbox)?;
            require(rights, Rights::INSERT)?;
            if let Some((replaced, _)) = replaces {
                require(held(edit, *replaced)?, REMOVE)?;
            }
            Reach::of(rights)
        }
        Op::Store { mailbox, .. } => {
            let rights = held(edit, *mailbox)?;
            require(rights, Rights::NONE)?;
            Reach::of(rights)
        }
        Op::Copy {
            mailbox, to, remove, ..
        } => {
            require(
                held(edit, *mailbox)?,
                if *remove {
                    Rights::READ.and(REMOVE)
                } else {
                    Rights::READ
                },
            )?;
            let rights = held(edit, *to)?;
            require(rights, Rights::INSERT)?;
            Reach::of(rights)
        }
        Op::Expunge { mailbox, .. } => {
            require(held(edit, *mailbox)?, Rights::EXPUNGE)?;
            Reach::ALL
        }
        Op::Mailbox { change, .. } => {
            if let MailboxChange::Subscribe { name, subscribed } = change {
                return subscribe(edit, guest, name, *subscribed);
            }
            require_change(edit, guest, change)?;
            Reach::ALL
        }
        _ => return Err(Refusal::NotPossible("not an operation for guests".into()).into()),
    };
    apply::perform(edit, op, reach)
}

/// What MOVE and REPLACE need where the message goes (RFC 6851 4.5).
const REMOVE: Rights = Rights(Rights::DELETE_MESSAGES.0 | Rights::EXPUNGE.0);

fn require_change(edit: &Edit<'_, '_>, guest: AccountId, change: &MailboxChange) -> Step<()> {
    let by_name = |name: &str| -> Step<Rights> {
        let place = tree::find(edit.draft, edit.id, &names::parts(name)?)?;
        match place.and_then(|place| place.row.mailbox) {
            Some(mailbox) => Ok(of(edit.draft, edit.id, mailbox, guest)?),
            None => Err(Refusal::NoMailbox.into()),
        }
    };
    // RFC 4314 4: k of the mailbox right above what is made. Missing parents are not made for a guest.
    let above = |name: &str| match name.rsplit_once('/') {
        Some((parent, _)) => require(by_name(parent)?, Rights::CREATE),
        None => Err(Refusal::NoRight("k".into()).into()),
    };
    match change {
        MailboxChange::Create { name, special_use } => {
            if *special_use != super::SpecialUse::None {
                return Err(Refusal::NoRight("to the uses of mailboxes".into()).into());
            }
            above(name)
        }
        MailboxChange::Rename { from, to } => {
            require(by_name(from)?, Rights::DELETE_MAILBOX)?;
            require_subtree(edit, guest, from)?;
            above(to)
        }
        MailboxChange::Delete { name } => require(by_name(name)?, Rights::DELETE_MAILBOX),
        MailboxChange::Grant { name, .. } => require(by_name(name)?, Rights::ADMINISTER),
        MailboxChange::Subscribe { .. } | MailboxChange::SpecialUse { .. } | MailboxChange::Annotate { .. } => {
            Err(Refusal::NoRight("to uses and annotations".into()).into())
        }
    }
}

/// A rename takes along what is below: a guest needs x of each (RFC 4314 4).
fn require_subtree(edit: &Edit<'_, '_>, guest: AccountId, name: &str) -> Step<()> {
    let top = names::parts(name)?.join("/") + "/";
    for (below, place) in tree::all(edit.draft, edit.id)? {
        if let (true, Some(mailbox)) = (below.starts_with(&top), place.row.mailbox)
            && !of(edit.draft, edit.id, mailbox, guest)?.hold(Rights::DELETE_MAILBOX)
        {
            return Err(Refusal::NoRight("x to all that is below".into()).into());
        }
    }
    Ok(())
}

/// Refuses who lacks one of `wanted`.
pub(super) fn require(held: Rights, wanted: Rights) -> Step<()> {
    if held == Rights::NONE || !held.hold(Rights::LOOKUP) && !held.hold(wanted) {
        return Err(Refusal::NoMailbox.into());
    }
    match wanted.without(held) {
        Rights::NONE => Ok(()),
        missing => Err(Refusal::NoRight(missing.to_string()).into()),
    }
}

/// What a guest may do with a mailbox; nothing with one that is deleted.
pub(super) fn of(view: &dyn View, account: AccountId, mailbox: MailboxId, guest: AccountId) -> Result<Rights, Fault> {
    let grant: Option<rows::Grant> = rows::get(view, &keys::grant(account, mailbox, guest), "grant")?;
    let there = grant.is_some() && view.get(&keys::mailbox(account, mailbox))?.is_some();
    Ok(grant
        .filter(|_| there)
        .map_or(Rights::NONE, |grant| Rights(grant.rights)))
}

/// SETACL and DELETEACL.
pub(super) fn grant(
    edit: &mut Edit<'_, '_>,
    name: &str,
    guest: AccountId,
    mode: StoreMode,
    rights: u16,
) -> Step<MailboxId> {
    if guest == edit.id {
        return Err(Refusal::NotPossible("who owns a mailbox has every right".into()).into());
    }
    if !Rights::ALL.hold(Rights(rights)) {
        return Err(Refusal::NotPossible("a right that is not known".into()).into());
    }
    let place = tree::find(edit.draft, edit.id, &names::parts(name)?)?.ok_or(Refusal::NoMailbox)?;
    let mailbox = place
        .row
        .mailbox
        .ok_or_else(|| Refusal::NotPossible("it only holds other mailboxes".into()))?;
    let key = keys::grant(edit.id, mailbox, guest);
    let before: Option<rows::Grant> = rows::get(edit.draft, &key, "grant")?;
    let (had, subscribed) = before
        .as_ref()
        .map_or((Rights::NONE, false), |row| (Rights(row.rights), row.subscribed));
    let now = match mode {
        StoreMode::Replace => Rights(rights),
        StoreMode::Add => had.and(Rights(rights)),
        StoreMode::Remove => had.without(Rights(rights)),
    };
    if now == had {
        return Ok(mailbox);
    }
    if before.is_none() && all(edit.draft, edit.id, mailbox)?.len() >= limits::GRANTS_PER_MAILBOX_MAX {
        let most = limits::GRANTS_PER_MAILBOX_MAX;
        return Err(Refusal::Limit(format!("{most} accounts with rights to a mailbox")).into());
    }
    if now == Rights::NONE {
        edit.draft.remove(key);
    } else {
        let row = rows::Grant {
            rights: now.0,
            subscribed,
        };
        rows::put(edit.draft, key, &row);
    }
    // Whoever watches looks whether the mailbox is still there for him.
    edit.next_modseq();
    edit.note_change(mailbox, true);
    Ok(mailbox)
}

/// A guest subscribes for himself.
fn subscribe(edit: &mut Edit<'_, '_>, guest: AccountId, name: &str, subscribed: bool) -> Step<Outcome> {
    let place = tree::find(edit.draft, edit.id, &names::parts(name)?)?.ok_or(Refusal::NoMailbox)?;
    let mailbox = place.row.mailbox.ok_or(Refusal::NoMailbox)?;
    require(of(edit.draft, edit.id, mailbox, guest)?, Rights::LOOKUP)?;
    let key = keys::grant(edit.id, mailbox, guest);
    let mut row: rows::Grant = rows::must_get(edit.draft, &key, "grant")?;
    if row.subscribed != subscribed {
        row.subscribed = subscribed;
        rows::put(edit.draft, key, &row);
        edit.next_modseq();
        edit.note_change(mailbox, true);
    }
    Ok(Outcome::MailboxChanged {
        mailbox: Some(mailbox),
        modseq: edit.modseq(),
    })
}

/// A mailbox that is made below a shared one is shared like it.
pub(super) fn inherit(edit: &mut Edit<'_, '_>, parent: MailboxId, mailbox: MailboxId) -> Step<()> {
    if parent == keys::ROOT {
        return Ok(());
    }
    let above: rows::Place = rows::must_get(edit.draft, &keys::place(edit.id, parent), "place")?;
    let Some(above) = above.mailbox else { return Ok(()) };
    for (guest, row) in all(edit.draft, edit.id, above)? {
        let row = rows::Grant {
            subscribed: false,
            ..row
        };
        rows::put(edit.draft, keys::grant(edit.id, mailbox, guest), &row);
    }
    Ok(())
}

/// Every grant of a mailbox, by guest; at most `limits::GRANTS_PER_MAILBOX_MAX`.
pub(super) fn all(
    view: &dyn View,
    account: AccountId,
    mailbox: MailboxId,
) -> Result<Vec<(AccountId, rows::Grant)>, Fault> {
    let range = keys::of_mailbox(account, keys::kind::GRANT, mailbox);
    let mut grants = Vec::new();
    view.scan(&range.from, &range.to, &mut |key, value| {
        let (_, guest) = keys::mailbox_and_guest_of(key).ok_or_else(rows::bad_key)?;
        grants.push((guest, rows::read(value, "grant")?));
        Ok(Flow::More)
    })?;
    Ok(grants)
}

#[cfg(test)]
mod tests;
