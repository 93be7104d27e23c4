//! Rows of deleted mailboxes go a few per command, because a mailbox may hold more than one command may touch.
//!
//! DELETE takes the mailbox out of the tree and marks it as doomed: from then on nobody can open it, its name is free, and its messages
//! are gone for every reader. Their rows, their quota and their bodies' references go with each later command of the account, or with
//! sweep commands, which the leader proposes for the accounts that `read::accounts_to_sweep` names.

use malle_proto::{AccountId, MailboxId, Uid, limits};

use super::apply::Step;
use super::edit::Edit;
use super::{Outcome, UidRange, keys, messages, receipts, rows};
use crate::view::{Draft, Fault, Flow, View};

/// A mailbox is out of the tree: its rows may go.
pub(super) fn doom(edit: &mut Edit<'_, '_>, mailbox: MailboxId) {
    edit.draft.remove(keys::mailbox(edit.id, mailbox));
    rows::mark(edit.draft, keys::doomed(edit.id, mailbox));
    rows::mark(edit.draft, keys::sweep(edit.id));
    edit.row.doomed += 1;
}

/// A command that only sweeps. It works for a suspended account too: nobody sees a difference but the quota.
pub(super) fn command(draft: &mut Draft<'_>, now_ms: u64, account: AccountId) -> Step<Outcome> {
    let mut edit = Edit::open(draft, account, now_ms)?;
    some(&mut edit, limits::MESSAGES_PER_COMMAND_MAX)?;
    receipts::expire(&mut edit, limits::MESSAGES_PER_COMMAND_MAX)?;
    edit.finish()?;
    Ok(Outcome::Done)
}

/// Takes away at most `max` messages, and at most as many other rows, of doomed mailboxes.
pub(super) fn some(edit: &mut Edit<'_, '_>, max: usize) -> Step<()> {
    let mut left = max;
    while edit.row.doomed > 0 && left > 0 {
        let mailbox = first_doomed(edit)?;
        let taken = take_some(edit, mailbox, left)?;
        left -= taken;
        if left == 0 {
            break;
        }
        edit.draft.remove(keys::doomed(edit.id, mailbox));
        edit.row.doomed -= 1;
        if edit.row.doomed == 0 {
            edit.draft.remove(keys::sweep(edit.id));
        }
    }
    Ok(())
}

fn first_doomed(edit: &Edit<'_, '_>) -> Result<MailboxId, Fault> {
    let range = keys::of_kind(edit.id, keys::kind::DOOMED);
    let mut first = None;
    edit.draft.scan(&range.from, &range.to, &mut |key, _| {
        first = keys::id_of(key).map(MailboxId);
        Ok(Flow::Stop)
    })?;
    first.ok_or_else(|| rows::missing("doomed"))
}

/// Takes away at most `max` rows' worth of a doomed mailbox; less than `max` means that nothing is left of it.
fn take_some(edit: &mut Edit<'_, '_>, mailbox: MailboxId, max: usize) -> Step<usize> {
    let all = [UidRange {
        first: Uid(0),
        last: Uid(u32::MAX),
    }];
    let (found, _) = messages::find(edit, mailbox, &all, max)?;
    for (uid, state) in &found {
        messages::take_away(edit, mailbox, *uid, state)?;
    }
    let mut taken = found.len();
    for kind in [
        keys::kind::TOMBSTONE,
        keys::kind::KEYWORD,
        keys::kind::ANNOTATION,
        keys::kind::GRANT,
    ] {
        if taken == max {
            break;
        }
        let range = keys::of_mailbox(edit.id, kind, mailbox);
        let mut gone: Vec<Vec<u8>> = Vec::new();
        edit.draft.scan(&range.from, &range.to, &mut |key, _| {
            gone.push(key.to_vec());
            Ok(if taken + gone.len() < max {
                Flow::More
            } else {
                Flow::Stop
            })
        })?;
        taken += gone.len();
        for key in gone {
            edit.draft.remove(key);
        }
    }
    Ok(taken)
}
