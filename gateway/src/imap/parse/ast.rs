//! What a command says, free of how it is written.

use std::fmt;

use bytes::Bytes;
use malle_client::{Flags, ModSeq, NewMessage, Rights, SpecialUse, StoreMode};

/// A command with the tag that its answer bears.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) struct Command {
    pub(in super::super) tag: String,
    pub(in super::super) body: Body,
}

/// A secret of the client; never printed.
#[derive(Clone, PartialEq, Eq)]
pub(in super::super) struct Password(pub(in super::super) Vec<u8>);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// The command itself.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) enum Body {
    Capability,
    Noop,
    Logout,
    Id,
    StartTls,
    /// RFC 4978: DEFLATE is the only mechanism.
    Compress,
    Login {
        name: Vec<u8>,
        password: Password,
    },
    Authenticate {
        mechanism: String,
        initial: Option<Password>,
    },
    Enable(Vec<String>),
    Select {
        name: Named,
        read_only: bool,
        condstore: bool,
        resync: Option<Resync>,
    },
    Create {
        name: Named,
        uses: Vec<Option<SpecialUse>>,
    },
    Delete(String),
    Rename {
        from: String,
        to: Named,
    },
    Subscribe {
        name: String,
        subscribed: bool,
    },
    List(ListQuery),
    Lsub {
        reference: String,
        pattern: String,
    },
    Namespace,
    Status {
        name: String,
        items: Vec<StatusItem>,
    },
    Append(Append),
    GetMetadata(GetMetadata),
    /// RFC 5464 4.3; no value: the entry goes.
    SetMetadata {
        mailbox: String,
        entries: Vec<(String, Option<Bytes>)>,
    },
    /// RFC 4314 3.1; DELETEACL is to replace by nothing.
    SetAcl {
        mailbox: String,
        identifier: String,
        change: (StoreMode, Rights),
    },
    /// RFC 4314 3.3.
    GetAcl(String),
    /// RFC 4314 3.4.
    ListRights {
        mailbox: String,
        identifier: String,
    },
    /// RFC 4314 3.5.
    MyRights(String),
    /// RFC 9208 4.1.2: of this root.
    GetQuota(Vec<u8>),
    /// RFC 9208 4.1.3: of this mailbox.
    GetQuotaRoot(String),
    Idle,
    /// RFC 5465; without a group it is NOTIFY NONE.
    Notify(NotifySet),
    Check,
    Close,
    Unselect,
    /// `uids`: UID EXPUNGE.
    Expunge {
        uids: Option<SequenceSet>,
    },
    Search {
        by_uid: bool,
        query: SearchQuery,
    },
    Sort {
        by_uid: bool,
        order: Vec<SortKey>,
        query: SearchQuery,
    },
    Thread {
        by_uid: bool,
        algorithm: ThreadAlgorithm,
        query: SearchQuery,
    },
    Fetch {
        target: Target,
        query: FetchQuery,
    },
    Store {
        target: Target,
        store: StoreCommand,
    },
    /// `remove`: MOVE.
    Copy {
        target: Target,
        mailbox: String,
        remove: bool,
    },
}

/// A mailbox name as the store knows it, and as the client spelled it where that is something else: IMAP4rev2 tells the difference
/// (RFC 9051 6.3.9.7).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Named {
    pub(in super::super) name: String,
    pub(in super::super) spelled: Option<String>,
}

/// What a client that comes back says of itself (RFC 7162 3.2.5). Its pairs of numbers and UIDs would only help a store that keeps no
/// expunges; they are read and not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Resync {
    pub(in super::super) uid_validity: u32,
    pub(in super::super) modseq: ModSeq,
    /// The UIDs that it has; all when `None`.
    pub(in super::super) known: Option<SequenceSet>,
}

/// Messages by number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Target {
    /// The numbers are UIDs.
    pub(in super::super) by_uid: bool,
    pub(in super::super) set: SequenceSet,
}

/// Which messages a command names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum SequenceSet {
    /// Pairs of ends in the order given, either end first; `None` is `*`.
    Numbers(Vec<(Option<u32>, Option<u32>)>),
    /// `$`: what the last SEARCH with SAVE found (RFC 5182).
    Saved,
}

/// RFC 3501 6.3.11, several messages of RFC 3502, REPLACE of RFC 8508.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) struct Append {
    pub(in super::super) mailbox: String,
    /// At least one.
    pub(in super::super) messages: Vec<NewMessage>,
    /// The one message that goes as they come.
    pub(in super::super) replaces: Option<Target>,
}

/// RFC 5464 4.2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct GetMetadata {
    /// Empty: of the account.
    pub(in super::super) mailbox: String,
    /// In ASCII lower case.
    pub(in super::super) entries: Vec<String>,
    pub(in super::super) max_bytes: Option<u32>,
    pub(in super::super) depth: Depth,
}

/// How far below the entries named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Depth {
    Zero,
    One,
    Infinity,
}

/// LIST with the options of RFC 5258, RFC 5819 and RFC 6154.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in super::super) struct ListQuery {
    pub(in super::super) reference: String,
    pub(in super::super) patterns: Vec<String>,
    /// Only subscribed mailboxes.
    pub(in super::super) select_subscribed: bool,
    /// Only mailboxes with a special use.
    pub(in super::super) select_special_use: bool,
    /// Also parents of what would match, with CHILDINFO.
    pub(in super::super) recursive_match: bool,
    /// The client knows the extended syntax: it gets the extended attributes.
    pub(in super::super) extended: bool,
    pub(in super::super) returned: Vec<ReturnOption>,
}

/// What LIST tells besides the names. CHILDREN and SPECIAL-USE are told always.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum ReturnOption {
    Subscribed,
    Children,
    SpecialUse,
    Status(Vec<StatusItem>),
    /// RFC 8440.
    MyRights,
}

/// What NOTIFY asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in super::super) struct NotifySet {
    /// First of all the STATUS of the mailboxes whose messages are asked for.
    pub(in super::super) status: bool,
    pub(in super::super) groups: Vec<EventGroup>,
}

/// Some mailboxes, and what is told of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct EventGroup {
    pub(in super::super) filter: MailboxFilter,
    pub(in super::super) events: Events,
}

/// RFC 5465 6.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum MailboxFilter {
    Selected,
    SelectedDelayed,
    Inboxes,
    Personal,
    Subscribed,
    Subtree(Vec<String>),
    Mailboxes(Vec<String>),
}

impl MailboxFilter {
    pub(in super::super) fn is_selected(&self) -> bool {
        matches!(self, MailboxFilter::Selected | MailboxFilter::SelectedDelayed)
    }
}

/// RFC 5465 5.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in super::super) struct Events {
    /// MessageNew and MessageExpunge, which come together.
    pub(in super::super) messages: bool,
    /// What is told of each new message.
    pub(in super::super) fetch: Vec<FetchItem>,
    pub(in super::super) flags: bool,
    /// MailboxName.
    pub(in super::super) names: bool,
    pub(in super::super) subscriptions: bool,
    /// MailboxMetadataChange.
    pub(in super::super) metadata: bool,
    /// ServerMetadataChange: of the account.
    pub(in super::super) server_metadata: bool,
    /// An event that is not known here.
    pub(in super::super) unknown: bool,
}

/// RFC 3501 6.3.10, RFC 7162, RFC 7889, RFC 8438, RFC 8474.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum StatusItem {
    Messages,
    Recent,
    UidNext,
    UidValidity,
    Unseen,
    Deleted,
    Size,
    HighestModSeq,
    MailboxId,
    AppendLimit,
    DeletedStorage,
}

/// FETCH's items and modifiers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct FetchQuery {
    pub(in super::super) items: Vec<FetchItem>,
    pub(in super::super) changed_since: Option<ModSeq>,
    /// Also tell which of the messages named are gone since `changed_since` (RFC 7162 3.2.6).
    pub(in super::super) vanished: bool,
    /// Only these of the messages named (RFC 9394 3.2).
    pub(in super::super) partial: Option<PartialRange>,
}

/// One thing to tell about a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum FetchItem {
    Flags,
    Uid,
    InternalDate,
    Size,
    Envelope,
    /// BODY without extension data.
    Body,
    BodyStructure,
    ModSeq,
    EmailId,
    ThreadId,
    SaveDate,
    /// RFC 8970.
    Preview,
    Section {
        section: Section,
        peek: bool,
        partial: Option<Partial>,
        shape: Shape,
    },
    /// A part without its transfer encoding (RFC 9051 6.4.5, RFC 3516 4.2).
    Binary {
        part: Vec<u32>,
        peek: bool,
        partial: Option<Partial>,
    },
    /// How many bytes that would be.
    BinarySize(Vec<u32>),
}

impl FetchItem {
    /// Bytes of the message are read for it.
    pub(in super::super) fn reads_bytes(&self) -> bool {
        matches!(
            self,
            FetchItem::Section { .. } | FetchItem::Binary { .. } | FetchItem::BinarySize(_)
        )
    }
}

/// Under which name a section is asked for, and so answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Shape {
    Body,
    Rfc822,
    Rfc822Header,
    Rfc822Text,
}

/// `<offset.length>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Partial {
    pub(in super::super) offset: u32,
    pub(in super::super) length: u32,
}

/// RFC 3501 `section-spec`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Section {
    pub(in super::super) part: Vec<u32>,
    pub(in super::super) text: SectionText,
}

/// Which bytes of the part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum SectionText {
    All,
    Header,
    /// Names as the client spelled them.
    HeaderFields {
        not: bool,
        names: Vec<Vec<u8>>,
    },
    Text,
    Mime,
}

/// RFC 3501 6.4.6, RFC 7162 3.1.3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct StoreCommand {
    pub(in super::super) unchanged_since: Option<ModSeq>,
    pub(in super::super) mode: StoreMode,
    pub(in super::super) silent: bool,
    pub(in super::super) flags: Flags,
}

/// SEARCH: all keys must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct SearchQuery {
    /// What an ESEARCH answer tells (RFC 4731); `None`: the client wants the old answer.
    pub(in super::super) returned: Option<Vec<SearchReturn>>,
    pub(in super::super) charset: Option<String>,
    pub(in super::super) keys: Vec<SearchKey>,
}

/// RFC 3501 6.4.4, RFC 5032 (WITHIN), RFC 7162, RFC 8474, RFC 8514. Texts are as sent; the charset is applied by the search. Days count from
/// 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum SearchKey {
    /// ALL, OLD.
    All,
    /// RECENT, NEW: no message is ever \Recent.
    Nothing,
    Flag(u8),
    Keyword(String),
    Header {
        field: Vec<u8>,
        text: Vec<u8>,
    },
    Body(Vec<u8>),
    Text(Vec<u8>),
    Internal(DayRange),
    Sent(DayRange),
    Saved(DayRange),
    SaveDateSupported,
    Larger(u64),
    Smaller(u64),
    /// Seconds.
    Older(u32),
    Younger(u32),
    ModSeq(ModSeq),
    EmailId(Vec<u8>),
    ThreadId(Vec<u8>),
    Numbers(Target),
    Not(Box<SearchKey>),
    Or(Box<SearchKey>, Box<SearchKey>),
    And(Vec<SearchKey>),
}

/// Days from `first` (if any) to before `end` (if any).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct DayRange {
    pub(in super::super) first: Option<i64>,
    pub(in super::super) end: Option<i64>,
}

/// RFC 4731, RFC 5182, RFC 9394.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum SearchReturn {
    Min,
    Max,
    All,
    Count,
    Save,
    Partial(PartialRange),
}

/// Results from one place to another, both counted from 1 (RFC 9394 3.1). Either may be the larger one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct PartialRange {
    /// `-1:-10`: counted from the last result.
    pub(in super::super) from_end: bool,
    pub(in super::super) first: u32,
    pub(in super::super) last: u32,
}

/// One criterion of SORT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct SortKey {
    pub(in super::super) reverse: bool,
    pub(in super::super) by: SortBy,
}

/// RFC 5256 3, RFC 5957.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum SortBy {
    Arrival,
    Cc,
    Date,
    From,
    Size,
    Subject,
    To,
    DisplayFrom,
    DisplayTo,
}

/// RFC 5256 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum ThreadAlgorithm {
    OrderedSubject,
    References,
}
