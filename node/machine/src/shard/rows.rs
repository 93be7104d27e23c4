//! What the rows of a shard hold. Each kind is a record with a version of its own and one frozen struct per version.
//!
//! Type ids, never reused: 16 shard, 17 account, 18 place, 19 child, 20 mailbox, 21 keyword, 22 state, 23 content, 24 thread,
//! 25 receipt, 26 turn, 27 body, 28 annotation, 85 grant, 90 visitor. (1 and 2 are the command and its outcome.) The files in `golden/` hold one sample of each as bytes:
//! a struct that changes without a new version fails there.

use bytes::Bytes;
use malle_proto::{BodyHash, EmailId, MailboxId, OpId, ThreadId, limits};
use serde::{Deserialize, Serialize};

use super::{Flags, InternalDate, Outcome, SpecialUse};
use crate::format::{Record, decode, encode};
use crate::view::{Draft, Fault, View};

/// The shard itself. Epochs count collections: a put carries the epoch in which it began.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Shard {
    /// The machine's time; never falls. 0 before the first command.
    pub(super) time_ms: u64,
    /// Raised by each collection.
    pub(super) body_epoch: u64,
    /// Highest release among forgotten bodies: an unknown body that was put before it may have been one of them.
    pub(super) forgotten_epoch: u64,
    pub(super) accounts: u64,
    /// Directory sequence number up to which the accounts are known.
    pub(super) accounts_through: u64,
}
crate::first_version!(Shard, 16);

/// An account's counters. Small, since every effect writes it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Account {
    pub(super) modseq: u64,
    pub(super) quota_bytes: u64,
    /// With the messages of deleted mailboxes until their rows are gone.
    pub(super) used_bytes: u64,
    pub(super) messages: u64,
    pub(super) suspended: bool,
    /// Places in the tree.
    pub(super) places: u32,
    /// The last UIDVALIDITY that was given out.
    pub(super) uid_validity: u32,
    /// Receipts ever written: the number of the next turn.
    pub(super) receipts_written: u64,
    pub(super) interactive_receipts: u32,
    /// No receipt expires before this time: until then nobody looks for one.
    pub(super) receipts_due_ms: u64,
    /// Deleted mailboxes whose rows are still there.
    pub(super) doomed: u32,
    /// The mailbox of each special use, INBOX among them; sorted.
    pub(super) special: Vec<(SpecialUse, MailboxId)>,
}
crate::first_version!(Account, 17);

/// A name in the tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    pub(super) parent: MailboxId,
    /// The last part of the name.
    pub(super) part: String,
    /// `None`: \Noselect.
    pub(super) mailbox: Option<MailboxId>,
    pub(super) subscribed: bool,
}
crate::first_version!(Place, 18);

/// The place of this name below another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Child {
    pub(super) place: MailboxId,
}
crate::first_version!(Child, 19);

/// A mailbox, wherever it is in the tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mailbox {
    pub(super) place: MailboxId,
    pub(super) uid_validity: u32,
    pub(super) uid_next: u32,
    pub(super) highest_modseq: u64,
    pub(super) messages: u32,
    pub(super) unseen: u32,
    pub(super) deleted: u32,
    pub(super) size_bytes: u64,
    pub(super) keywords: u32,
    pub(super) tombstones: u32,
    /// MODSEQ of the youngest tombstone that was trimmed; expunges up to it are forgotten.
    pub(super) horizon: u64,
}
crate::first_version!(Mailbox, 20);

/// A keyword of a mailbox as it was first spelled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Keyword {
    pub(super) spelling: String,
}
crate::first_version!(Keyword, 21);

/// What changes about a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) modseq: u64,
    pub(super) flags: Flags,
}
crate::first_version!(State, 22);

/// What never changes about a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Content {
    pub(super) size: u64,
    pub(super) body: BodyHash,
    pub(super) internal_date: InternalDate,
    pub(super) save_date_ms: u64,
    pub(super) email_id: EmailId,
    pub(super) thread_id: ThreadId,
    /// Rows of `thread` that count this message.
    pub(super) thread_keys: Vec<[u8; 16]>,
    pub(super) summary: KeptSummary,
}
crate::first_version!(Content, 23);

/// Envelope and structure of a message, or the body that holds them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum KeptSummary {
    Inline(Bytes),
    Beside(BodyHash),
}

impl Content {
    /// Every body that this message names.
    pub(super) fn bodies(&self) -> impl Iterator<Item = BodyHash> {
        let beside = match self.summary {
            KeptSummary::Inline(_) => None,
            KeptSummary::Beside(hash) => Some(hash),
        };
        std::iter::once(self.body).chain(beside)
    }
}

/// The thread of a Message-ID.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Thread {
    pub(super) thread_id: ThreadId,
    /// Messages that keep this row.
    pub(super) messages: u32,
}
crate::first_version!(Thread, 24);

/// The outcome of an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Receipt {
    pub(super) outcome: Outcome,
}
crate::first_version!(Receipt, 25);

/// When a receipt goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Turn {
    pub(super) op_id: OpId,
    pub(super) expires_ms: u64,
}
crate::first_version!(Turn, 26);

/// A body that messages name, or named.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Body {
    pub(super) size: u64,
    /// Message rows that name it.
    pub(super) references: u64,
    /// Machine time of the last reference's end, and once it is released of its release; 0 while there are references.
    pub(super) idle_since_ms: u64,
    /// Epoch that its release began; 0 when it is not released.
    pub(super) released_epoch: u64,
}
crate::first_version!(Body, 27);

/// An entry of METADATA.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Annotation {
    /// The account's MODSEQ when it was set.
    pub(super) modseq: u64,
    /// `None`: it was taken away; kept for a while, so that who watches is told.
    pub(super) value: Option<Bytes>,
}
crate::first_version!(Annotation, 28);

/// What another account may do with a mailbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Grant {
    /// The bits of `malle_proto::Rights`; never 0.
    pub(super) rights: u16,
    /// The guest has subscribed to the mailbox.
    pub(super) subscribed: bool,
}
crate::first_version!(Grant, 85);

/// A guest who has receipts in an account.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Visitor {
    /// Number of his oldest turn.
    pub(super) first: u64,
    /// Number of his next turn; above `first`, or the row would not be there.
    pub(super) next: u64,
    /// When his oldest receipt goes.
    pub(super) due_ms: u64,
}
crate::first_version!(Visitor, 90);

/// Reads a row.
pub(super) fn get<T: Record>(view: &dyn View, key: &[u8], what: &'static str) -> Result<Option<T>, Fault> {
    match view.get(key)? {
        None => Ok(None),
        Some(value) => read(&value, what).map(Some),
    }
}

/// Reads a row that another row says must be there.
pub(super) fn must_get<T: Record>(view: &dyn View, key: &[u8], what: &'static str) -> Result<T, Fault> {
    get(view, key, what)?.ok_or_else(|| missing(what))
}

/// A row that another row says must be there is not.
pub(super) fn missing(what: &'static str) -> Fault {
    Fault::Broken(format!("a row of kind {what} is missing"))
}

/// A key is not of the shape that its first bytes promise.
pub(super) fn bad_key() -> Fault {
    Fault::Broken("a key is too short for its kind".into())
}

/// Decodes the value of a row.
pub(super) fn read<T: Record>(value: &[u8], what: &'static str) -> Result<T, Fault> {
    decode(value).map_err(|error| Fault::Format { what, error })
}

/// Writes a row.
pub(super) fn put<T: Record>(draft: &mut Draft<'_>, key: Vec<u8>, row: &T) {
    draft.put(key, bounded(row));
}

/// As [`put`], under a key that was never used.
pub(super) fn put_new<T: Record>(draft: &mut Draft<'_>, key: Vec<u8>, row: &T) {
    draft.put_new(key, bounded(row));
}

fn bounded<T: Record>(row: &T) -> Bytes {
    let value = encode(row);
    debug_assert!(
        value.len() <= limits::ROW_VALUE_MAX_BYTES,
        "every field of a row is bounded"
    );
    value
}

/// Writes a row of an index.
pub(super) fn mark(draft: &mut Draft<'_>, key: Vec<u8>) {
    draft.put(key, Bytes::new());
}

/// The shard's row.
pub(super) fn shard(view: &dyn View) -> Result<Shard, Fault> {
    Ok(get(view, super::keys::SHARD, "shard")?.unwrap_or_default())
}

#[cfg(test)]
mod tests;
