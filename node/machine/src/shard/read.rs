//! Looking at a shard's rows: what the api answers reads with. Nothing here changes anything.
//!
//! Each function sees the rows of one moment if its view does. What a page costs is what it answers with: `changes` walks an index of
//! MODSEQs, not the mailbox. Deleted mailboxes are gone at once for every function here, although their rows go later.

use bytes::Bytes;
use malle_proto::{AccountId, BodyHash, EmailId, MailboxId, ModSeq, ThreadId, Uid, UidValidity};

use super::{Flags, InternalDate, MessageFlags, Refusal, SpecialUse, UidRange, keys, rows};
use crate::view::{Fault, Flow, View};

mod annotations;
mod bodies;
mod change;
mod mailbox;
mod outline;
mod page;
mod rights;

pub use annotations::{Annotation, annotations};
pub use bodies::{BodyStanding, bodies, bodies_behind, body_is_named, body_standing, idle_bodies_behind};
pub use change::changes;
pub use mailbox::{mailboxes, named, open};
pub use outline::Outline;
pub use page::{fetch, message};
pub use rights::{granted, grants, mailboxes_for, rights_of};

/// A mailbox with its counters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mailbox {
    /// Its id. A name that only holds children has one too, which opens nothing.
    pub id: MailboxId,
    /// Full name.
    pub name: String,
    /// Fixed; 0 for a name that only holds children.
    pub uid_validity: UidValidity,
    /// The next message gets this UID or a higher one.
    pub uid_next: Uid,
    /// Highest MODSEQ of its messages and expunges; at least 1.
    pub highest_modseq: ModSeq,
    /// Messages.
    pub messages: u32,
    /// Without \Seen.
    pub unseen: u32,
    /// With \Deleted.
    pub deleted: u32,
    /// Sum of message sizes.
    pub size_bytes: u64,
    /// Use.
    pub special_use: SpecialUse,
    /// LSUB.
    pub subscribed: bool,
    /// Only holds children.
    pub no_select: bool,
}

/// What SELECT needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// The mailbox.
    pub mailbox: Mailbox,
    /// Its messages.
    pub outline: Outline,
    /// Every keyword that was ever used in it.
    pub keywords: Vec<String>,
}

/// A message row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its UID.
    pub uid: Uid,
    /// Its MODSEQ.
    pub modseq: ModSeq,
    /// Its flags.
    pub flags: Flags,
    /// Length of its body.
    pub size: u64,
    /// Name of its body.
    pub body: BodyHash,
    /// INTERNALDATE.
    pub internal_date: InternalDate,
    /// When it came into this mailbox (RFC 8514), milliseconds since 1970.
    pub save_date_ms: u64,
    /// EMAILID.
    pub email_id: EmailId,
    /// THREADID.
    pub thread_id: ThreadId,
    /// Envelope and structure.
    pub summary: SummaryAt,
}

/// Where the summary of a stored message is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SummaryAt {
    /// In the row.
    Inline(Bytes),
    /// A body of its own.
    Beside(BodyHash),
}

/// A page of messages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// In rising UID order.
    pub messages: Vec<Message>,
    /// More from here on.
    pub resume_from: Option<Uid>,
}

/// What changed above a MODSEQ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// The mailbox now.
    pub mailbox: Mailbox,
    /// Messages that changed or came, in rising MODSEQ order.
    pub changed: Vec<MessageFlags>,
    /// UIDs that went.
    pub vanished: Vec<UidRange>,
    /// Complete up to here.
    pub through: ModSeq,
    /// Tombstones do not reach back far enough: `vanished` may lack some. `changed` is complete all the same.
    pub cannot_calculate: bool,
    /// Keywords of the mailbox.
    pub keywords: Vec<String>,
}

/// An account's counters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its MODSEQ.
    pub modseq: ModSeq,
    /// Bytes it may hold.
    pub quota_bytes: u64,
    /// Bytes it holds, with those of deleted mailboxes until their rows are gone.
    pub used_bytes: u64,
    /// Messages it holds, counted in the same way.
    pub messages: u64,
    /// Takes no changes.
    pub suspended: bool,
}

/// The account's counters; `None` when the shard does not have it.
///
/// # Errors
/// A [`Fault`].
pub fn account(view: &dyn View, account: AccountId) -> Result<Option<Account>, Fault> {
    Ok(account_row(view, account)?.map(|row| Account {
        modseq: ModSeq(row.modseq),
        quota_bytes: row.quota_bytes,
        used_bytes: row.used_bytes,
        messages: row.messages,
        suspended: row.suspended,
    }))
}

fn account_row(view: &dyn View, account: AccountId) -> Result<Option<rows::Account>, Fault> {
    rows::get(view, &keys::account(account), "account")
}

/// The mailbox's row, or why there is none.
fn mailbox_row(
    view: &dyn View,
    account: AccountId,
    mailbox: MailboxId,
) -> Result<Result<(rows::Account, rows::Mailbox), Refusal>, Fault> {
    let Some(account_row) = account_row(view, account)? else {
        return Ok(Err(Refusal::NoAccount));
    };
    let row = rows::get(view, &keys::mailbox(account, mailbox), "mailbox")?;
    Ok(row.map(|row| (account_row, row)).ok_or(Refusal::NoMailbox))
}

/// The shard's body epoch: what a put that begins now carries.
///
/// # Errors
/// A [`Fault`].
pub fn body_epoch(view: &dyn View) -> Result<u64, Fault> {
    Ok(rows::shard(view)?.body_epoch)
}

/// The machine's time, milliseconds since 1970; 0 before the first command.
///
/// # Errors
/// A [`Fault`].
pub fn time_ms(view: &dyn View) -> Result<u64, Fault> {
    Ok(rows::shard(view)?.time_ms)
}

/// Directory sequence number up to which this shard knows its accounts.
///
/// # Errors
/// A [`Fault`].
pub fn accounts_through(view: &dyn View) -> Result<u64, Fault> {
    Ok(rows::shard(view)?.accounts_through)
}

/// Number of accounts.
///
/// # Errors
/// A [`Fault`].
pub fn account_count(view: &dyn View) -> Result<u64, Fault> {
    Ok(rows::shard(view)?.accounts)
}

/// Accounts with deleted mailboxes whose rows are still there, at most `max`: for the leader, which sweeps them.
///
/// # Errors
/// A [`Fault`].
pub fn accounts_to_sweep(view: &dyn View, max: usize) -> Result<Vec<AccountId>, Fault> {
    let range = keys::sweeps();
    let mut accounts = Vec::new();
    view.scan(&range.from, &range.to, &mut |key, _| {
        if accounts.len() == max {
            return Ok(Flow::Stop);
        }
        accounts.push(AccountId(keys::id_of(key).ok_or_else(rows::bad_key)?));
        Ok(Flow::More)
    })?;
    Ok(accounts)
}
