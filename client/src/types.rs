//! What the client crate speaks of: malle's own types, free of the wire's. (The one exception is [`Summary`], the decoded contract
//! message of envelope and structure: copying that tree would only cost.)

use std::time::Duration;

use bytes::Bytes;
pub use malle_proto::v1::Envelope;
pub use malle_proto::v1::{InnerMessage, MailAddress, Parameter, Part, Summary};
use malle_proto::{AccountId, EmailId, MailboxId, ModSeq, OpId, Rights, ShardId, ThreadId, Uid, UidValidity};

/// Flags of a message (RFC 9051 2.3.2).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags {
    /// 1 \Seen, 2 \Answered, 4 \Flagged, 8 \Deleted, 16 \Draft.
    pub system: u8,
    /// Sorted keywords.
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
}

/// UIDs from `first` to `last`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UidRange {
    /// Lowest.
    pub first: Uid,
    /// Highest.
    pub last: Uid,
}

/// RFC 6154 uses, and INBOX.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SpecialUse {
    /// An ordinary mailbox.
    #[default]
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

/// How fresh a read must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Consistency {
    /// Everything acknowledged before the call is seen.
    #[default]
    Linearizable,
    /// At least this MODSEQ of the account is seen: read your writes on any replica.
    AtLeast(ModSeq),
    /// As of at most this long ago.
    Stale(Duration),
}

/// Where an address leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The account.
    pub account: AccountId,
    /// Its shard.
    pub shard: ShardId,
    /// May it be used?
    pub suspended: bool,
    /// Its primary address.
    pub primary_address: String,
}

/// One recipient of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    /// Who.
    pub account: AccountId,
    /// For repeats.
    pub op_id: OpId,
    /// The mailbox with this use; INBOX when there is none.
    pub into: SpecialUse,
}

/// A message that is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Where.
    pub mailbox: MailboxId,
    /// Its UIDVALIDITY.
    pub uid_validity: UidValidity,
    /// Its UID.
    pub uid: Uid,
    /// Its MODSEQ.
    pub modseq: ModSeq,
    /// It was in already: this op id was done before.
    pub repeated: bool,
}

/// A message to append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMessage {
    /// Its flags.
    pub flags: Flags,
    /// INTERNALDATE in milliseconds since 1970 and minutes east of UTC; now when `None`.
    pub internal_date: Option<(u64, i16)>,
    /// Its bytes.
    pub body: Bytes,
}

/// RFC 9051 6.4.6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreMode {
    /// +FLAGS
    Add,
    /// -FLAGS
    Remove,
    /// FLAGS
    Replace,
}

/// Flags of a message now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageFlags {
    /// Which.
    pub uid: Uid,
    /// Its MODSEQ.
    pub modseq: ModSeq,
    /// Its flags.
    pub flags: Flags,
}

/// Result of a store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FlagsStored {
    /// Messages reached, with their flags now.
    pub stored: Vec<MessageFlags>,
    /// Left alone because they changed since `unchanged_since`.
    pub modified: Vec<UidRange>,
}

/// Result of a copy or move.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Copied {
    /// UIDVALIDITY of the target.
    pub uid_validity: UidValidity,
    /// Source and target UIDs, rising.
    pub pairs: Vec<(Uid, Uid)>,
}

/// A mailbox with its counters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mailbox {
    /// Its id.
    pub id: MailboxId,
    /// Full name, UTF-8, '/' between parts.
    pub name: String,
    /// Fixed for its life.
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
    /// In a list and an opening of somebody else's mailboxes: what the caller may do. `None` everywhere else.
    pub rights: Option<Rights>,
}

/// Who may do what with a mailbox (RFC 4314).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    /// The caller.
    pub mine: Rights,
    /// The guests, by id; none are told to a guest without the right a.
    pub others: Vec<(AccountId, Rights)>,
}

/// What SELECT needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// The mailbox.
    pub mailbox: Mailbox,
    /// Every UID.
    pub uids: Vec<UidRange>,
    /// Every keyword ever used in it.
    pub keywords: Vec<String>,
    /// Lowest UID without \Seen.
    pub first_unseen: Option<Uid>,
}

/// A message without its body.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Its UID.
    pub uid: Uid,
    /// Its MODSEQ.
    pub modseq: ModSeq,
    /// Its flags.
    pub flags: Flags,
    /// Length of its body.
    pub size_bytes: u64,
    /// INTERNALDATE, milliseconds since 1970.
    pub internal_date_ms: u64,
    /// The zone that INTERNALDATE is shown in, minutes east of UTC.
    pub internal_date_zone_minutes: i16,
    /// When it came into this mailbox (RFC 8514), milliseconds since 1970.
    pub save_date_ms: u64,
    /// EMAILID.
    pub email_id: EmailId,
    /// THREADID.
    pub thread_id: ThreadId,
    /// Envelope and structure; `None` when the fetch left it out.
    pub summary: Option<Summary>,
}

/// A page of messages.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Page {
    /// In rising UID order.
    pub messages: Vec<Message>,
    /// More from here on.
    pub resume_from: Option<Uid>,
}

/// What changed in a mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// The mailbox now.
    pub mailbox: Mailbox,
    /// Messages that changed or came, in rising MODSEQ order.
    pub changed: Vec<MessageFlags>,
    /// UIDs that went.
    pub vanished: Vec<UidRange>,
    /// Complete up to here; ask again from here while it is below `mailbox.highest_modseq`.
    pub through: ModSeq,
    /// The store no longer knows what went: compare with [`Opened::uids`].
    pub cannot_calculate: bool,
    /// Keywords of the mailbox.
    pub keywords: Vec<String>,
}

/// An entry of METADATA (RFC 5464).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Annotation {
    /// Its name, in ASCII lower case.
    pub entry: String,
    /// `None`: it went.
    pub value: Option<Bytes>,
    /// The account's MODSEQ when it was set or went.
    pub modseq: ModSeq,
}

/// An account's counters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountStatus {
    /// Its MODSEQ.
    pub modseq: ModSeq,
    /// Bytes it may hold.
    pub quota_bytes: u64,
    /// Bytes it holds.
    pub used_bytes: u64,
    /// Messages it holds.
    pub messages: u64,
}

/// Something changed in an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchEvent {
    /// Its MODSEQ.
    pub modseq: ModSeq,
    /// Which mailboxes; look at all when `overflow`.
    pub mailboxes: Vec<MailboxId>,
    /// Too much changed to list it, or the watch was renewed after a change of leader.
    pub overflow: bool,
    /// Mailboxes were made, renamed, deleted or subscribed.
    pub tree_changed: bool,
}
