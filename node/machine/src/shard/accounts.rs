//! Accounts that the directory gives to this shard.

use malle_proto::{AccountId, MailboxId, limits};

use super::apply::Step;
use super::edit::Edit;
use super::mailboxes::{Fresh, NewPlace, make_place};
use super::{AccountGrant, Outcome, Refusal, SpecialUse, keys, rows};
use crate::view::Draft;

/// The mailboxes that every account begins with, in the order of [`AccountGrant::mailboxes`].
const FIRST_MAILBOXES: [(&str, SpecialUse); 6] = [
    ("INBOX", SpecialUse::Inbox),
    ("Sent", SpecialUse::Sent),
    ("Drafts", SpecialUse::Drafts),
    ("Trash", SpecialUse::Trash),
    ("Junk", SpecialUse::Junk),
    ("Archive", SpecialUse::Archive),
];

/// Makes accounts, or gives existing ones their new quota and state. Repeating it changes nothing.
pub(super) fn open(draft: &mut Draft<'_>, now_ms: u64, grants: &[AccountGrant], through: u64) -> Step<Outcome> {
    if grants.len() > limits::MESSAGES_PER_COMMAND_MAX {
        return Err(Refusal::Limit(format!("{} accounts in a command", limits::MESSAGES_PER_COMMAND_MAX)).into());
    }
    let mut made = 0;
    for grant in grants {
        let known: Option<rows::Account> = rows::get(draft, &keys::account(grant.account), "account")?;
        match known {
            Some(mut row) => {
                row.quota_bytes = grant.quota_bytes;
                row.suspended = grant.suspended;
                rows::put(draft, keys::account(grant.account), &row);
            }
            None => {
                make(draft, now_ms, grant.account, grant)?;
                made += 1;
            }
        }
    }
    let mut shard = rows::shard(draft)?;
    shard.accounts += made;
    shard.accounts_through = shard.accounts_through.max(through);
    rows::put(draft, keys::SHARD.to_vec(), &shard);
    Ok(Outcome::Done)
}

fn make(draft: &mut Draft<'_>, now_ms: u64, account: AccountId, grant: &AccountGrant) -> Step<()> {
    let row = rows::Account {
        quota_bytes: grant.quota_bytes,
        suspended: grant.suspended,
        receipts_due_ms: u64::MAX,
        ..rows::Account::default()
    };
    let mut edit = Edit::of(draft, account, row, now_ms);
    let modseq = edit.next_modseq();
    let mut fresh = Fresh::new(&grant.mailboxes);
    for (part, special_use) in FIRST_MAILBOXES {
        let place = NewPlace {
            parent: keys::ROOT,
            part,
            subscribed: true,
        };
        let mailbox: MailboxId = make_place(&mut edit, &mut fresh, modseq, &place)?.1;
        edit.row.special.push((special_use, mailbox));
    }
    edit.row.special.sort();
    edit.finish()
}
