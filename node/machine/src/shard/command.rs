//! What can be asked of a shard, and its answers. These types are replicated and kept: append variants only at the end.

use bytes::Bytes;
use malle_proto::{AccountId, BodyHash, EmailId, MailboxId, ModSeq, OpId, ThreadId, Uid, UidValidity};
use serde::{Deserialize, Serialize};

/// One entry of a shard's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// The proposer's clock, milliseconds since 1970. The machine's own time never falls and follows by at most
    /// `limits::CLOCK_STEP_MAX_MS` per command.
    pub time_ms: u64,
    /// What to do.
    pub op: Op,
}
crate::first_version!(Command, 1);

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// The directory gave these accounts to this shard. Accounts that exist already get the quota and state given.
    OpenAccounts {
        /// The accounts.
        accounts: Vec<AccountGrant>,
        /// Directory sequence number up to which this shard now knows its accounts.
        through: u64,
    },
    /// LMTP: one body to several accounts, an outcome each.
    Deliver {
        /// To whom.
        recipients: Vec<Recipient>,
        /// What.
        mail: NewMail,
    },
    /// IMAP APPEND of one message.
    Append {
        /// Whose.
        account: AccountId,
        /// For repeats.
        op_id: OpId,
        /// Where.
        mailbox: MailboxId,
        /// With which flags.
        flags: Flags,
        /// INTERNALDATE; the command's time when `None`.
        internal_date: Option<InternalDate>,
        /// What.
        mail: NewMail,
    },
    /// Flags as a delta.
    Store {
        /// Whose.
        account: AccountId,
        /// For repeats.
        op_id: OpId,
        /// Where.
        mailbox: MailboxId,
        /// Which; UIDs that do not exist are passed over.
        uids: Vec<UidRange>,
        /// What to do with `flags`.
        mode: StoreMode,
        /// The flags.
        flags: Flags,
        /// Leave messages with a MODSEQ above alone (RFC 7162 3.1.3).
        unchanged_since: Option<ModSeq>,
    },
    /// COPY, or MOVE with `remove`.
    Copy {
        /// Whose.
        account: AccountId,
        /// For repeats.
        op_id: OpId,
        /// From where.
        mailbox: MailboxId,
        /// Which.
        uids: Vec<UidRange>,
        /// To where.
        to: MailboxId,
        /// MOVE: the source is expunged in the same command.
        remove: bool,
    },
    /// Removes messages flagged \Deleted; leaves tombstones.
    Expunge {
        /// Whose.
        account: AccountId,
        /// For repeats.
        op_id: OpId,
        /// Where.
        mailbox: MailboxId,
        /// Which; every one when empty.
        uids: Vec<UidRange>,
    },
    /// Changes the tree of mailboxes.
    Mailbox {
        /// Whose.
        account: AccountId,
        /// For repeats.
        op_id: OpId,
        /// What.
        change: MailboxChange,
        /// Ids for mailboxes that this makes, drawn by the proposer; `limits::MAILBOX_DEPTH_MAX` are enough for any change, and one more
        /// for renaming INBOX to a name of that depth whose parents are all missing.
        fresh_ids: Vec<MailboxId>,
    },
    /// Collection: releases bodies without references and raises the shard's body epoch.
    ReleaseBodies {
        /// Which; those that are referenced again are passed over.
        hashes: Vec<BodyHash>,
    },
    /// The files have had time to let go of these released bodies: forget their rows.
    ForgetBodies {
        /// Which.
        hashes: Vec<BodyHash>,
    },
    /// Takes away rows of deleted mailboxes and receipts that expired, a bounded number. Every command of the account does some of
    /// this; `read::accounts_to_sweep` names the accounts that wait for more.
    Sweep {
        /// Whose.
        account: AccountId,
    },
    /// Collection, its last step: a replica has marked its copies of these released bodies and is about to free them. Raises the shard's
    /// body epoch, so that a put which found one of those copies can no longer be named.
    FreeBodies {
        /// Which; those that are not released, or not long enough, are passed over.
        hashes: Vec<BodyHash>,
        /// Long enough: released at this machine time or before.
        released_by_ms: u64,
    },
    /// IMAP APPEND of several messages, all or none (RFC 3502); with `replaces` REPLACE (RFC 8508).
    AppendAll {
        /// Whose.
        account: AccountId,
        /// For repeats.
        op_id: OpId,
        /// Where.
        mailbox: MailboxId,
        /// What, in the order of their UIDs; at most `limits::APPENDS_PER_COMMAND_MAX`.
        messages: Vec<Arriving>,
        /// The message that goes in the same command.
        replaces: Option<(MailboxId, Uid)>,
    },
    /// An operation of an account, asked by another one: done as far as the grants of its mailboxes go (RFC 4314).
    ForGuest {
        /// Who asks.
        guest: AccountId,
        /// What: one of the operations that name an account.
        op: Box<Op>,
    },
}

/// An account of this shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountGrant {
    /// Its id.
    pub account: AccountId,
    /// Bytes it may hold.
    pub quota_bytes: u64,
    /// Takes no mail and no changes while set.
    pub suspended: bool,
    /// Ids of INBOX, Sent, Drafts, Trash, Junk, Archive, in this order.
    pub mailboxes: [MailboxId; 6],
}

/// One recipient of a delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipient {
    /// Who.
    pub account: AccountId,
    /// For repeats; remembered `limits::DELIVERY_RECEIPT_KEPT_MS`.
    pub op_id: OpId,
    /// The mailbox with this use; INBOX when there is none.
    pub into: SpecialUse,
    /// Email id of this account's copy.
    pub email_id: EmailId,
    /// Thread id if no message of the account belongs to its thread.
    pub fresh_thread: ThreadId,
}

/// A message that comes in. Its bodies are durable on a majority already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewMail {
    /// The bytes.
    pub body: BodyPut,
    /// An encoded `malle.v1.Summary`, or where it lies.
    pub summary: Summary,
    /// Email id (ignored for a delivery, where each recipient has one).
    pub email_id: EmailId,
    /// Thread id if no message of the account belongs to its thread (ignored for a delivery).
    pub fresh_thread: ThreadId,
    /// 128-bit hashes of the Message-ID and of the References, own first, at most 1 + `limits::THREAD_REFERENCES_MAX`. The first of
    /// them whose thread is known decides. Rows are kept for the own one and for the first and last reference.
    pub thread_keys: Vec<[u8; 16]>,
}

/// One of several messages that come in together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arriving {
    /// With which flags.
    pub flags: Flags,
    /// INTERNALDATE; the command's time when `None`.
    pub internal_date: Option<InternalDate>,
    /// What.
    pub mail: NewMail,
}

/// A body that was put on a majority before this command was proposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BodyPut {
    /// Its name.
    pub hash: BodyHash,
    /// Its length.
    pub size: u64,
    /// The shard's body epoch when the put began.
    pub epoch: u64,
}

/// Where the summary of a message is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Summary {
    /// Here.
    Inline(Bytes),
    /// Too large for a row: a body of its own, put like the message's.
    Beside(BodyPut),
}

/// Flags of a message (RFC 9051 2.3.2).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flags {
    /// The `*` bits of this type.
    pub system: u8,
    /// Sorted, no two equal when letter case is ignored.
    pub keywords: Vec<String>,
}

impl Flags {
    /// \Seen
    pub const SEEN: u8 = 1;
    /// \Answered
    pub const ANSWERED: u8 = 2;
    /// \Flagged
    pub const FLAGGED: u8 = 4;
    /// \Deleted
    pub const DELETED: u8 = 8;
    /// \Draft
    pub const DRAFT: u8 = 16;
    /// Every system flag.
    pub const SYSTEM: u8 = 31;
}

/// INTERNALDATE as it was given: the moment, and the zone that it is shown in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct InternalDate {
    /// Milliseconds since 1970.
    pub time_ms: u64,
    /// Minutes east of UTC.
    pub zone_minutes: i16,
}

/// UIDs from `first` to `last`, both included. Ranges of a set are sorted and do not touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UidRange {
    /// Lowest.
    pub first: Uid,
    /// Highest.
    pub last: Uid,
}

/// RFC 9051 6.4.6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StoreMode {
    /// +FLAGS
    Add,
    /// -FLAGS
    Remove,
    /// FLAGS
    Replace,
}

/// RFC 6154 uses, and INBOX. Numbers are those of `malle.v1.SpecialUse`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SpecialUse {
    /// An ordinary mailbox.
    None,
    /// INBOX.
    Inbox,
    /// \Sent
    Sent,
    /// \Drafts
    Drafts,
    /// \Trash
    Trash,
    /// \Junk
    Junk,
    /// \Archive
    Archive,
    /// \Flagged
    Flagged,
    /// \All
    All,
}

/// A change of the tree. Names are full, UTF-8, with '/' between parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MailboxChange {
    /// CREATE
    Create {
        /// Its name.
        name: String,
        /// CREATE-SPECIAL-USE.
        special_use: SpecialUse,
    },
    /// RENAME with the subtree.
    Rename {
        /// From.
        from: String,
        /// To.
        to: String,
    },
    /// DELETE
    Delete {
        /// Its name.
        name: String,
    },
    /// SUBSCRIBE, UNSUBSCRIBE
    Subscribe {
        /// Its name.
        name: String,
        /// Which of the two.
        subscribed: bool,
    },
    /// Another special use.
    SpecialUse {
        /// Its name.
        name: String,
        /// `None` takes it away.
        special_use: SpecialUse,
    },
    /// SETMETADATA (RFC 5464)
    Annotate {
        /// Its name; the account itself when empty.
        name: String,
        /// Entries in ASCII lower case with their values; `None` takes an entry away. At most `limits::ANNOTATIONS_PER_MAILBOX_MAX`.
        entries: Vec<(String, Option<Bytes>)>,
    },
    /// SETACL, DELETEACL (RFC 4314 3.1 and 3.2)
    Grant {
        /// Its name.
        name: String,
        /// To whom; never the account itself.
        guest: AccountId,
        /// What to do with `rights`.
        mode: StoreMode,
        /// The bits of `malle_proto::Rights`.
        rights: u16,
    },
}

/// What a command came to. Replicas agree on it; receipts keep the effects among them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// OpenAccounts, ForgetBodies, Sweep.
    Done,
    /// A delivery, in the order of its recipients.
    Delivered(Vec<Result<Stored, Refusal>>),
    /// APPEND.
    Appended(Stored),
    /// STORE.
    FlagsStored(FlagsStored),
    /// COPY and MOVE.
    Copied(Copied),
    /// EXPUNGE.
    Expunged(Expunged),
    /// A change of the tree.
    MailboxChanged {
        /// The mailbox made or changed; `None` after a delete.
        mailbox: Option<MailboxId>,
        /// The account's MODSEQ now.
        modseq: ModSeq,
    },
    /// ReleaseBodies, FreeBodies.
    BodiesReleased {
        /// The shard's body epoch now.
        epoch: u64,
        /// Bodies that this epoch was given to: whoever names one of them has put it since.
        released: Vec<BodyHash>,
    },
    /// Not done, and why. Leaves no receipt.
    Refused(Refusal),
    /// AppendAll, in the order of its messages.
    AppendedAll(Vec<Stored>),
}
crate::first_version!(Outcome, 2);

/// A message that is in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// Where.
    pub mailbox: MailboxId,
    /// Its UIDVALIDITY.
    pub uid_validity: UidValidity,
    /// Its UID.
    pub uid: Uid,
    /// Its MODSEQ.
    pub modseq: ModSeq,
    /// From a receipt: it was done before.
    pub repeated: bool,
}

/// Result of a STORE.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlagsStored {
    /// Messages reached, with their flags now.
    pub stored: Vec<MessageFlags>,
    /// Left alone because they changed since.
    pub modified: Vec<UidRange>,
    /// The bound was reached: go on from here.
    pub resume_from: Option<Uid>,
    /// The account's MODSEQ now.
    pub modseq: ModSeq,
}

/// Flags of a message now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageFlags {
    /// Which.
    pub uid: Uid,
    /// Its MODSEQ.
    pub modseq: ModSeq,
    /// Its flags.
    pub flags: Flags,
}

/// Result of a COPY or MOVE.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copied {
    /// Of the target.
    pub uid_validity: UidValidity,
    /// Source and target UIDs, rising.
    pub pairs: Vec<(Uid, Uid)>,
    /// The bound was reached: go on from here.
    pub resume_from: Option<Uid>,
    /// The account's MODSEQ now.
    pub modseq: ModSeq,
}

/// Result of an EXPUNGE.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expunged {
    /// UIDs that are gone.
    pub vanished: Vec<UidRange>,
    /// The bound was reached: go on from here.
    pub resume_from: Option<Uid>,
    /// The account's MODSEQ now.
    pub modseq: ModSeq,
}

/// Why a command was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// This shard does not have the account (yet).
    #[error("the account is not open on this shard")]
    NoAccount,
    /// It takes no changes.
    #[error("the account is suspended")]
    Suspended,
    /// No such mailbox.
    #[error("no such mailbox")]
    NoMailbox,
    /// There is one of this name, or with this special use.
    #[error("the mailbox exists")]
    MailboxExists,
    /// A name that no mailbox may have.
    #[error("bad mailbox name: {0}")]
    BadName(String),
    /// INBOX cannot be deleted and so on.
    #[error("not possible with this mailbox: {0}")]
    NotPossible(String),
    /// More than the account may hold.
    #[error("over quota of {quota_bytes} bytes")]
    OverQuota {
        /// The quota.
        quota_bytes: u64,
    },
    /// One of the bounds in `limits`.
    #[error("limit reached: {0}")]
    Limit(String),
    /// The body was released since it was put: put it again.
    #[error("the body must be put again")]
    StaleBody,
    /// UIDs ran out (2^32 - 1 messages were in this mailbox).
    #[error("no UIDs left in this mailbox")]
    UidsExhausted,
    /// The mailbox is another account's, which has not granted this.
    #[error("the owner of the mailbox has not granted the right {0}")]
    NoRight(String),
}
