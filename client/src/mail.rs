//! One logged-in account.

use std::sync::Arc;

use bytes::Bytes;
use malle_proto::{AccountId, MailboxId, ModSeq, OpId, Uid};

use crate::client::Client;
use crate::error::Error;
use crate::types::{
    AccountStatus, Changes, Consistency, Copied, Flags, FlagsStored, Mailbox, NewMessage, Opened, Page, SpecialUse,
    StoreMode, Stored, UidRange,
};
use crate::watch::Watch;

struct Session {
    account: AccountId,
    primary_address: String,
}

fn unbuilt<T>() -> Result<T, Error> {
    Err(Error::Internal("not built yet".into()))
}

/// One logged-in account. Cheap to clone; clones share the login token, which renews itself while calls are made, and the session's
/// MODSEQ.
///
/// Reads are linearizable unless [`Account::with_consistency`] says otherwise. Writes take an op id: draw it with
/// [`crate::fresh_op_id`] once, before the first try.
#[derive(Clone)]
pub struct Account {
    #[allow(dead_code)]
    client: Client,
    session: Arc<Session>,
    consistency: Consistency,
}

impl Account {
    /// Its id.
    pub fn id(&self) -> AccountId {
        self.session.account
    }

    /// Its primary address when it logged in.
    pub fn primary_address(&self) -> &str {
        &self.session.primary_address
    }

    /// The highest MODSEQ that this session has seen of its account: everything it wrote is at or below it.
    pub fn session_modseq(&self) -> ModSeq {
        ModSeq(0)
    }

    /// The same session with other reads. `AtLeast(m)` means at least `m` and at least what this session has written or seen itself
    /// (read your writes), from any replica; it may miss what others did since. `Stale` may miss even one's own writes.
    pub fn with_consistency(&self, consistency: Consistency) -> Account {
        Account {
            consistency,
            ..self.clone()
        }
    }

    /// Every mailbox, sorted by name, with its counters.
    ///
    /// # Errors
    /// As every read: class Retry at the deadline, [`Error::TokenExpired`], [`Error::Denied`].
    pub async fn mailboxes(&self) -> Result<Vec<Mailbox>, Error> {
        unbuilt()
    }

    /// Makes a mailbox and its missing parents.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::Limit`], [`Error::Invalid`] for a bad name.
    pub async fn create_mailbox(&self, _name: &str, _special_use: SpecialUse) -> Result<MailboxId, Error> {
        unbuilt()
    }

    /// Renames a mailbox and everything below it; INBOX gives its messages to a new mailbox (RFC 9051 6.3.6).
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Exists`].
    pub async fn rename_mailbox(&self, _from: &str, _to: &str) -> Result<(), Error> {
        unbuilt()
    }

    /// Deletes a mailbox; one with children stays as a name only (RFC 9051 6.3.5).
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Invalid`] for INBOX.
    pub async fn delete_mailbox(&self, _name: &str) -> Result<(), Error> {
        unbuilt()
    }

    /// Subscribes to a mailbox or no longer.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn subscribe(&self, _name: &str, _subscribed: bool) -> Result<(), Error> {
        unbuilt()
    }

    /// What SELECT needs.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn open(&self, _mailbox: MailboxId) -> Result<Opened, Error> {
        unbuilt()
    }

    /// One page of rows in rising UID order, at most [`crate::limits::FETCH_PAGE_ROWS_MAX`]: only messages in `uids` (sorted, apart)
    /// whose MODSEQ is above `changed_since` (0: all). While [`Page::resume_from`] is set there is more: ask again with `uids` from
    /// there on.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn fetch(
        &self,
        _mailbox: MailboxId,
        _uids: &[UidRange],
        _changed_since: ModSeq,
        _with_summary: bool,
    ) -> Result<Page, Error> {
        unbuilt()
    }

    /// What changed in a mailbox above `since` (RFC 7162 3.2). One page: see [`Changes::through`].
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn changes(&self, _mailbox: MailboxId, _since: ModSeq) -> Result<Changes, Error> {
        unbuilt()
    }

    /// The bytes of a message.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Corrupt`] when no replica has them whole.
    pub async fn read_body(&self, _mailbox: MailboxId, _uid: Uid) -> Result<Bytes, Error> {
        unbuilt()
    }

    /// Bytes `[offset, offset + length)` of a message, or what there is of them.
    ///
    /// # Errors
    /// As [`Account::read_body`].
    pub async fn read_body_range(
        &self,
        _mailbox: MailboxId,
        _uid: Uid,
        _offset: u64,
        _length: u64,
    ) -> Result<Bytes, Error> {
        unbuilt()
    }

    /// Appends a message.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::OverQuota`], [`Error::TooLarge`].
    pub async fn append(&self, _mailbox: MailboxId, _message: NewMessage, _op_id: OpId) -> Result<Stored, Error> {
        unbuilt()
    }

    /// Adds, removes or replaces flags. A large set is split into several commands, each atomic: after an error the first of them may
    /// be done; repeating the call with the same op id completes it.
    ///
    /// # Errors
    /// [`Error::NotFound`] for the mailbox (messages that are gone are left out), [`Error::Limit`] for too many keywords.
    pub async fn store(
        &self,
        _mailbox: MailboxId,
        _uids: &[UidRange],
        _mode: StoreMode,
        _flags: Flags,
        _unchanged_since: Option<ModSeq>,
        _op_id: OpId,
    ) -> Result<FlagsStored, Error> {
        unbuilt()
    }

    /// Copies messages to another mailbox of the account; splits like [`Account::store`].
    ///
    /// # Errors
    /// [`Error::NotFound`] for either mailbox, [`Error::OverQuota`].
    pub async fn copy(
        &self,
        _from: MailboxId,
        _uids: &[UidRange],
        _to: MailboxId,
        _op_id: OpId,
    ) -> Result<Copied, Error> {
        unbuilt()
    }

    /// Moves messages (RFC 6851); splits like [`Account::store`], and each message is in exactly one place at any time.
    ///
    /// # Errors
    /// As [`Account::copy`].
    pub async fn move_messages(
        &self,
        _from: MailboxId,
        _uids: &[UidRange],
        _to: MailboxId,
        _op_id: OpId,
    ) -> Result<Copied, Error> {
        unbuilt()
    }

    /// Removes messages with \Deleted: those in `uids`, or all when it is empty. Returns the UIDs that went.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn expunge(&self, _mailbox: MailboxId, _uids: &[UidRange], _op_id: OpId) -> Result<Vec<UidRange>, Error> {
        unbuilt()
    }

    /// The account's counters and MODSEQ.
    ///
    /// # Errors
    /// As every read.
    pub async fn status(&self) -> Result<AccountStatus, Error> {
        unbuilt()
    }

    /// Watches the account for changes.
    ///
    /// # Errors
    /// As every read.
    pub async fn watch(&self) -> Result<Watch, Error> {
        unbuilt()
    }
}
