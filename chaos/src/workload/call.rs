//! Calls and answers as the history keeps them.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::body::Body;

/// Flags of a message: `\Seen` and the like, and keywords.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Flags(pub BTreeSet<String>);

impl Flags {
    /// These.
    pub fn of(names: &[&str]) -> Flags {
        Flags(names.iter().map(|name| (*name).to_owned()).collect())
    }

    /// After a store of `other`.
    pub fn after(&self, mode: FlagsMode, other: &Flags) -> Flags {
        match mode {
            FlagsMode::Add => Flags(self.0.union(&other.0).cloned().collect()),
            FlagsMode::Remove => Flags(self.0.difference(&other.0).cloned().collect()),
            FlagsMode::Replace => other.clone(),
        }
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({})", self.0.iter().cloned().collect::<Vec<_>>().join(" "))
    }
}

/// RFC 9051 6.4.6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FlagsMode {
    /// +FLAGS
    Add,
    /// -FLAGS
    Remove,
    /// FLAGS
    Replace,
}

/// How fresh a read must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Freshness {
    /// Everything that was acknowledged before the call began is seen.
    Linearizable,
    /// Everything up to this MODSEQ of the account is seen.
    AtLeast(u64),
    /// As of at most this many microseconds ago.
    Stale(u64),
}

/// What a client asks. The account stands in [`crate::history::Operation`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "call", rename_all = "kebab-case")]
pub enum Call {
    /// A delivery, into INBOX.
    Deliver {
        /// What.
        body: Body,
    },
    /// APPEND.
    Append {
        /// Where.
        mailbox: String,
        /// With which flags.
        flags: Flags,
        /// What.
        body: Body,
    },
    /// STORE.
    Store {
        /// Where.
        mailbox: String,
        /// Which.
        uids: Vec<u32>,
        /// How.
        mode: FlagsMode,
        /// What.
        flags: Flags,
        /// Only messages that did not change since this MODSEQ.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        unchanged_since: Option<u64>,
    },
    /// UID EXPUNGE.
    Expunge {
        /// Where.
        mailbox: String,
        /// Which, if they have \Deleted.
        uids: Vec<u32>,
    },
    /// COPY.
    Copy {
        /// From where.
        mailbox: String,
        /// Which.
        uids: Vec<u32>,
        /// To where.
        to: String,
    },
    /// MOVE.
    Move {
        /// From where.
        mailbox: String,
        /// Which.
        uids: Vec<u32>,
        /// To where.
        to: String,
    },
    /// CREATE.
    Create {
        /// Its name.
        name: String,
    },
    /// RENAME.
    Rename {
        /// Its name.
        from: String,
        /// Its new name.
        to: String,
    },
    /// DELETE.
    Delete {
        /// Its name.
        name: String,
    },
    /// Every mailbox.
    List {
        /// How fresh.
        fresh: Freshness,
    },
    /// SELECT.
    Open {
        /// Which.
        mailbox: String,
        /// How fresh.
        fresh: Freshness,
    },
    /// FETCH of rows, without bodies.
    Fetch {
        /// Where.
        mailbox: String,
        /// From this UID on.
        from: u32,
        /// How fresh.
        fresh: Freshness,
    },
    /// What changed above a MODSEQ.
    Changes {
        /// Where.
        mailbox: String,
        /// Since when.
        since: u64,
        /// How fresh.
        fresh: Freshness,
    },
    /// The account's counters.
    Status {
        /// How fresh.
        fresh: Freshness,
    },
    /// The bytes of a message.
    ReadBody {
        /// Where.
        mailbox: String,
        /// Which.
        uid: u32,
    },
}

impl Call {
    /// A word for it.
    pub fn kind(&self) -> &'static str {
        match self {
            Call::Deliver { .. } => "deliver",
            Call::Append { .. } => "append",
            Call::Store { .. } => "store",
            Call::Expunge { .. } => "expunge",
            Call::Copy { .. } => "copy",
            Call::Move { .. } => "move",
            Call::Create { .. } => "create",
            Call::Rename { .. } => "rename",
            Call::Delete { .. } => "delete",
            Call::List { .. } => "list",
            Call::Open { .. } => "open",
            Call::Fetch { .. } => "fetch",
            Call::Changes { .. } => "changes",
            Call::Status { .. } => "status",
            Call::ReadBody { .. } => "read-body",
        }
    }

    /// Does it change something?
    pub fn writes(&self) -> bool {
        self.fresh().is_none() && !matches!(self, Call::ReadBody { .. })
    }

    /// How fresh its answer must be; `None` for what is no read of counters and rows.
    pub fn fresh(&self) -> Option<Freshness> {
        match self {
            Call::List { fresh }
            | Call::Open { fresh, .. }
            | Call::Fetch { fresh, .. }
            | Call::Changes { fresh, .. }
            | Call::Status { fresh } => Some(*fresh),
            _ => None,
        }
    }
}

/// A message without its body, as an answer showed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Its UID.
    pub uid: u32,
    /// Its MODSEQ.
    pub modseq: u64,
    /// Its flags.
    pub flags: Flags,
    /// Its size; `None` where the answer does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
}

/// A mailbox, as an answer showed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailboxRow {
    /// Its full name.
    pub name: String,
    /// Its UIDVALIDITY.
    pub uid_validity: u32,
    /// Its UIDNEXT.
    pub uid_next: u32,
    /// Its HIGHESTMODSEQ; 0 where the answer does not tell.
    pub highest_modseq: u64,
    /// How many messages it counts.
    pub count: u32,
}

/// What an answer showed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Answer {
    /// Deliver and Append: where the message is. LMTP does not tell: all is 0 then.
    Stored {
        /// Its mailbox' UIDVALIDITY.
        uid_validity: u32,
        /// Its UID.
        uid: u32,
        /// Its MODSEQ.
        modseq: u64,
        /// The op id was done before.
        repeated: bool,
    },
    /// Store.
    FlagsStored {
        /// Messages reached, with their flags now.
        rows: Vec<Row>,
        /// Left alone because they changed.
        modified: Vec<u32>,
    },
    /// Expunge: what went.
    Expunged {
        /// UIDs.
        uids: Vec<u32>,
    },
    /// Copy and Move: source and target UIDs.
    Copied {
        /// The target's UIDVALIDITY; 0 when nothing was copied.
        uid_validity: u32,
        /// Rising by source.
        pairs: Vec<(u32, u32)>,
    },
    /// Create, Rename, Delete.
    Changed,
    /// List.
    Listed {
        /// Sorted by name.
        mailboxes: Vec<MailboxRow>,
    },
    /// Open.
    Opened {
        /// The mailbox.
        mailbox: MailboxRow,
        /// Every UID, as ranges with both ends.
        uids: Vec<(u32, u32)>,
    },
    /// Fetch. The pages of a large mailbox are no single moment: `pages` tells how many there were.
    Fetched {
        /// Rising by UID.
        rows: Vec<Row>,
        /// How many answers were put together.
        pages: u32,
    },
    /// Changes; pages are put together as for Fetch.
    Changes {
        /// The mailbox, as the last page showed it.
        mailbox: MailboxRow,
        /// Messages that changed or came.
        rows: Vec<Row>,
        /// UIDs that went.
        vanished: Vec<u32>,
        /// The store no longer knows what went.
        cannot_calculate: bool,
        /// How many answers were put together.
        pages: u32,
    },
    /// Status.
    Status {
        /// The account's MODSEQ.
        modseq: u64,
        /// What it counts as used.
        used_bytes: u64,
        /// How many messages it counts.
        messages: u64,
    },
    /// ReadBody.
    Body {
        /// BLAKE3 of the bytes.
        hash: String,
        /// How many.
        size_bytes: u64,
    },
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome<T> {
    /// It was done.
    Done {
        /// What the answer showed.
        value: T,
    },
    /// It was not done and will not be: malle's answer, by the name of the error.
    Refused {
        /// `over-quota`, `not-found` and so on.
        code: String,
    },
    /// Nobody knows: it may have been done, or may still be.
    Unknown {
        /// What the client saw.
        why: String,
    },
}

impl<T> Outcome<T> {
    /// What the answer showed.
    pub fn done(&self) -> Option<&T> {
        match self {
            Outcome::Done { value } => Some(value),
            _ => None,
        }
    }

    /// The same with another value.
    pub fn map<U>(self, work: impl FnOnce(T) -> U) -> Outcome<U> {
        match self {
            Outcome::Done { value } => Outcome::Done { value: work(value) },
            Outcome::Refused { code } => Outcome::Refused { code },
            Outcome::Unknown { why } => Outcome::Unknown { why },
        }
    }

    /// Is it certain that nothing was done?
    pub fn is_refused(&self) -> bool {
        matches!(self, Outcome::Refused { .. })
    }
}

/// Bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}
