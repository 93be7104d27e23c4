//! Who may do what with a mailbox (RFC 4314), and what a guest sees of an account.

use std::collections::BTreeMap;

use malle_proto::{AccountId, MailboxId, Rights};

use super::{Mailbox, mailbox_row, mailboxes};
use crate::shard::{Refusal, SpecialUse, keys, rights, rows};
use crate::view::{Fault, Flow, View};

/// Every grant of a mailbox, by guest.
///
/// # Errors
/// A [`Fault`]; inside, `NoAccount` or `NoMailbox`.
pub fn grants(
    view: &dyn View,
    account: AccountId,
    mailbox: MailboxId,
) -> Result<Result<Vec<(AccountId, Rights)>, Refusal>, Fault> {
    if let Err(refusal) = mailbox_row(view, account, mailbox)? {
        return Ok(Err(refusal));
    }
    let grants = rights::all(view, account, mailbox)?.into_iter();
    Ok(Ok(grants.map(|(guest, row)| (guest, Rights(row.rights))).collect()))
}

/// What a guest may do with a mailbox: nothing with one that is not there.
///
/// # Errors
/// A [`Fault`].
pub fn rights_of(view: &dyn View, account: AccountId, mailbox: MailboxId, guest: AccountId) -> Result<Rights, Fault> {
    rights::of(view, account, mailbox, guest)
}

/// The mailboxes that a guest has any right to. Costs a row per grant of the account.
///
/// # Errors
/// A [`Fault`].
pub fn granted(view: &dyn View, account: AccountId, guest: AccountId) -> Result<BTreeMap<MailboxId, Rights>, Fault> {
    Ok(grants_of(view, account, guest)?
        .into_iter()
        .map(|(mailbox, row)| (mailbox, Rights(row.rights)))
        .collect())
}

/// What a guest's LIST shows of an account: the mailboxes with the right l, sorted by name, subscribed as the guest has it, without uses.
///
/// # Errors
/// A [`Fault`]; inside, `NoAccount`.
pub fn mailboxes_for(
    view: &dyn View,
    account: AccountId,
    guest: AccountId,
) -> Result<Result<Vec<(Mailbox, Rights)>, Refusal>, Fault> {
    let grants = grants_of(view, account, guest)?;
    if grants.is_empty() {
        return Ok(Ok(Vec::new()));
    }
    let all = match mailboxes(view, account)? {
        Ok(all) => all,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let shown = all.into_iter().filter_map(|mailbox| {
        let grant = grants.get(&mailbox.id)?;
        let rights = Rights(grant.rights);
        let shown = Mailbox {
            subscribed: grant.subscribed,
            special_use: SpecialUse::None,
            ..mailbox
        };
        rights.hold(Rights::LOOKUP).then_some((shown, rights))
    });
    Ok(Ok(shown.collect()))
}

fn grants_of(view: &dyn View, account: AccountId, guest: AccountId) -> Result<BTreeMap<MailboxId, rows::Grant>, Fault> {
    let range = keys::of_kind(account, keys::kind::GRANT);
    let mut found = BTreeMap::new();
    view.scan(&range.from, &range.to, &mut |key, value| {
        let (mailbox, whose) = keys::mailbox_and_guest_of(key).ok_or_else(rows::bad_key)?;
        if whose == guest {
            found.insert(mailbox, rows::read(value, "grant")?);
        }
        Ok(Flow::More)
    })?;
    Ok(found)
}
