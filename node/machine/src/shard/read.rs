//! Looking at a shard's rows: what the api answers reads with. Nothing here changes anything.

use bytes::Bytes;
use malle_proto::{AccountId, BodyHash, EmailId, MailboxId, ModSeq, ThreadId, Uid, UidValidity};

use super::{Flags, InternalDate, MessageFlags, Refusal, SpecialUse, UidRange};
use crate::view::{Fault, View};

/// A mailbox with its counters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mailbox {
    /// Its id.
    pub id: MailboxId,
    /// Full name.
    pub name: String,
    /// Fixed.
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
    /// Every UID.
    pub uids: Vec<UidRange>,
    /// Every keyword that was ever used in it.
    pub keywords: Vec<String>,
    /// Lowest UID without \Seen.
    pub first_unseen: Option<Uid>,
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
    /// Tombstones do not reach back far enough.
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
    /// Bytes it holds.
    pub used_bytes: u64,
    /// Messages it holds.
    pub messages: u64,
    /// Takes no changes.
    pub suspended: bool,
}

/// The account's counters; `None` when the shard does not have it.
///
/// # Errors
/// A [`Fault`].
pub fn account(_view: &dyn View, _account: AccountId) -> Result<Option<Account>, Fault> {
    unwritten()
}

/// Every mailbox, sorted by name.
///
/// # Errors
/// A [`Fault`]; inside, `NoAccount`.
pub fn mailboxes(_view: &dyn View, _account: AccountId) -> Result<Result<Vec<Mailbox>, Refusal>, Fault> {
    unwritten()
}

/// A mailbox as SELECT sees it.
///
/// # Errors
/// A [`Fault`]; inside, `NoAccount` or `NoMailbox`.
pub fn open(_view: &dyn View, _account: AccountId, _mailbox: MailboxId) -> Result<Result<Opened, Refusal>, Fault> {
    unwritten()
}

/// Messages of `uids` with a MODSEQ above `changed_since`, at most `max_rows`.
///
/// # Errors
/// A [`Fault`]; inside, `NoAccount` or `NoMailbox`.
pub fn fetch(
    _view: &dyn View,
    _account: AccountId,
    _mailbox: MailboxId,
    _uids: &[UidRange],
    _changed_since: ModSeq,
    _max_rows: usize,
) -> Result<Result<Page, Refusal>, Fault> {
    unwritten()
}

/// One message.
///
/// # Errors
/// A [`Fault`].
pub fn message(
    _view: &dyn View,
    _account: AccountId,
    _mailbox: MailboxId,
    _uid: Uid,
) -> Result<Option<Message>, Fault> {
    unwritten()
}

/// What changed in a mailbox above `since`, at most `max_rows` changed messages.
///
/// # Errors
/// A [`Fault`]; inside, `NoAccount` or `NoMailbox`.
pub fn changes(
    _view: &dyn View,
    _account: AccountId,
    _mailbox: MailboxId,
    _since: ModSeq,
    _max_rows: usize,
) -> Result<Result<Changes, Refusal>, Fault> {
    unwritten()
}

/// The shard's body epoch: what a put that begins now carries.
///
/// # Errors
/// A [`Fault`].
pub fn body_epoch(_view: &dyn View) -> Result<u64, Fault> {
    unwritten()
}

/// Visits every body that a row names, with its number of references (0: waits for collection) and, then, since when, in
/// milliseconds of the machine's time.
///
/// # Errors
/// A [`Fault`] of the view or of the visitor.
pub fn bodies(_view: &dyn View, _visit: &mut dyn FnMut(BodyHash, u64, u64) -> Result<(), Fault>) -> Result<(), Fault> {
    unwritten()
}

/// Whether rows name this body.
///
/// # Errors
/// A [`Fault`].
pub fn body_is_named(_view: &dyn View, _hash: BodyHash) -> Result<bool, Fault> {
    unwritten()
}

/// Directory sequence number up to which this shard knows its accounts.
///
/// # Errors
/// A [`Fault`].
pub fn accounts_through(_view: &dyn View) -> Result<u64, Fault> {
    unwritten()
}

/// Number of accounts.
///
/// # Errors
/// A [`Fault`].
pub fn account_count(_view: &dyn View) -> Result<u64, Fault> {
    unwritten()
}

fn unwritten<T>() -> Result<T, Fault> {
    Err(Fault::Broken("not written yet".into()))
}
