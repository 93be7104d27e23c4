//! The way to the data, as traits: the client crate in service, memory in the dialogue tests. The shapes are the client crate's; only the
//! op ids are drawn below, because an IMAP command is never repeated by its session (the client crate repeats, with the same id).

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use malle_client::{
    AccountId, AccountStatus, Annotation, Changes, Copied, Error, Flags, FlagsStored, LoginProof, Mailbox, MailboxId,
    ModSeq, NewMessage, Opened, Page, SpecialUse, StoreMode, Stored, Uid, UidRange, WatchEvent, fresh_op_id,
};

/// Where accounts are.
#[async_trait]
pub trait Store: Send + Sync {
    /// Opens an account. [`Error::BadCredentials`] never says which of the two was wrong.
    async fn login(&self, name: &str, password: &str) -> Result<Arc<dyn Account>, Error>;
    /// Opens an account with an access token; with a name the token must be for that account. Errors are those of [`Store::login`].
    async fn login_with_token(&self, name: &str, token: &str) -> Result<Arc<dyn Account>, Error>;
}

/// One logged-in account. See `malle_client::Account` for what each call promises.
#[async_trait]
pub trait Account: Send + Sync {
    /// Which account it is.
    fn id(&self) -> AccountId;
    /// What opened it, for a person.
    fn opened_by(&self) -> &str;
    /// What is asked about to learn whether the login still stands.
    fn proof(&self) -> LoginProof;
    /// All mailboxes, sorted by name.
    async fn mailboxes(&self) -> Result<Vec<Mailbox>, Error>;
    /// Makes a mailbox and its missing parents.
    async fn create_mailbox(&self, name: &str, special_use: SpecialUse) -> Result<MailboxId, Error>;
    /// Renames a subtree.
    async fn rename_mailbox(&self, from: &str, to: &str) -> Result<(), Error>;
    /// Deletes a mailbox with its messages.
    async fn delete_mailbox(&self, name: &str) -> Result<(), Error>;
    /// Sets or clears the subscription.
    async fn subscribe(&self, name: &str, subscribed: bool) -> Result<(), Error>;
    /// What SELECT needs.
    async fn open(&self, mailbox: MailboxId) -> Result<Opened, Error>;
    /// The same, by full name.
    async fn open_named(&self, name: &str) -> Result<Opened, Error>;
    /// One page of rows in rising UID order.
    async fn fetch(
        &self,
        mailbox: MailboxId,
        uids: &[UidRange],
        changed_since: ModSeq,
        with_summary: bool,
    ) -> Result<Page, Error>;
    /// One page of what changed above `since`.
    async fn changes(&self, mailbox: MailboxId, since: ModSeq) -> Result<Changes, Error>;
    /// A whole message.
    async fn read_body(&self, mailbox: MailboxId, uid: Uid) -> Result<Bytes, Error>;
    /// Small messages whole, as many as an answer takes; what is missing is read alone.
    async fn read_bodies(&self, mailbox: MailboxId, uids: &[UidRange]) -> Result<Vec<(Uid, Bytes)>, Error>;
    /// A piece of a message.
    async fn read_body_range(&self, mailbox: MailboxId, uid: Uid, offset: u64, length: u64) -> Result<Bytes, Error>;
    /// Appends a message to the mailbox with this full name.
    async fn append(&self, name: &str, message: NewMessage) -> Result<Stored, Error>;
    /// Appends messages to the mailbox with this full name, all or none; with `replaces` that message goes as they come.
    async fn append_all(
        &self,
        name: &str,
        messages: Vec<NewMessage>,
        replaces: Option<(MailboxId, Uid)>,
    ) -> Result<Vec<Stored>, Error>;
    /// Entries of METADATA of a mailbox, of the account when the name is empty; with `since` what was set or went after it.
    async fn annotations(&self, name: &str, since: Option<ModSeq>) -> Result<Vec<Annotation>, Error>;
    /// Sets entries of METADATA, or takes them away.
    async fn annotate(&self, name: &str, entries: Vec<(String, Option<Bytes>)>) -> Result<(), Error>;
    /// Changes flags.
    async fn store(
        &self,
        mailbox: MailboxId,
        uids: &[UidRange],
        mode: StoreMode,
        flags: Flags,
        unchanged_since: Option<ModSeq>,
    ) -> Result<FlagsStored, Error>;
    /// Copies messages.
    async fn copy(&self, from: MailboxId, uids: &[UidRange], to: MailboxId) -> Result<Copied, Error>;
    /// Moves messages.
    async fn move_messages(&self, from: MailboxId, uids: &[UidRange], to: MailboxId) -> Result<Copied, Error>;
    /// Removes messages with \Deleted: those in `uids`, ALL of them when it is empty.
    async fn expunge(&self, mailbox: MailboxId, uids: &[UidRange]) -> Result<Vec<UidRange>, Error>;
    /// The account's counters.
    async fn status(&self) -> Result<AccountStatus, Error>;
    /// Watches the account.
    async fn watch(&self) -> Result<Box<dyn Watch>, Error>;
    /// The same account, whose changes also tell what is new in `mailbox` above `since`.
    fn with_news_of(&self, mailbox: MailboxId, since: ModSeq) -> Arc<dyn Account>;
    /// What the last change through this handle told: the page that [`Account::changes`] would have given right after it.
    fn take_news(&self) -> Option<Changes>;
}

/// The changes of an account as they are committed.
#[async_trait]
pub trait Watch: Send {
    /// The next change. Dropping the future loses nothing.
    async fn next(&mut self) -> Result<WatchEvent, Error>;
}

/// The cluster, through the client crate.
#[derive(Clone)]
pub struct ClientStore {
    client: malle_client::Client,
}

impl ClientStore {
    /// The store behind this client.
    pub fn new(client: malle_client::Client) -> ClientStore {
        ClientStore { client }
    }
}

struct ClientAccount(malle_client::Account);

struct ClientWatch(malle_client::Watch);

#[async_trait]
impl Store for ClientStore {
    async fn login(&self, name: &str, password: &str) -> Result<Arc<dyn Account>, Error> {
        let account = self.client.login(name, password).await?;
        Ok(Arc::new(ClientAccount(account)))
    }

    async fn login_with_token(&self, name: &str, token: &str) -> Result<Arc<dyn Account>, Error> {
        let account = self.client.login_with_token(name, token).await?;
        Ok(Arc::new(ClientAccount(account)))
    }
}

#[async_trait]
impl Watch for ClientWatch {
    async fn next(&mut self) -> Result<WatchEvent, Error> {
        self.0.next().await
    }
}

#[async_trait]
impl Account for ClientAccount {
    fn id(&self) -> AccountId {
        self.0.id()
    }

    fn opened_by(&self) -> &str {
        self.0.opened_by()
    }

    fn proof(&self) -> LoginProof {
        self.0.proof()
    }

    async fn mailboxes(&self) -> Result<Vec<Mailbox>, Error> {
        self.0.mailboxes().await
    }

    async fn create_mailbox(&self, name: &str, special_use: SpecialUse) -> Result<MailboxId, Error> {
        self.0.create_mailbox(name, special_use).await
    }

    async fn rename_mailbox(&self, from: &str, to: &str) -> Result<(), Error> {
        self.0.rename_mailbox(from, to).await
    }

    async fn delete_mailbox(&self, name: &str) -> Result<(), Error> {
        self.0.delete_mailbox(name).await
    }

    async fn subscribe(&self, name: &str, subscribed: bool) -> Result<(), Error> {
        self.0.subscribe(name, subscribed).await
    }

    async fn open(&self, mailbox: MailboxId) -> Result<Opened, Error> {
        self.0.open(mailbox).await
    }

    async fn open_named(&self, name: &str) -> Result<Opened, Error> {
        self.0.open_named(name).await
    }

    async fn fetch(
        &self,
        mailbox: MailboxId,
        uids: &[UidRange],
        changed_since: ModSeq,
        with_summary: bool,
    ) -> Result<Page, Error> {
        self.0.fetch(mailbox, uids, changed_since, with_summary).await
    }

    async fn changes(&self, mailbox: MailboxId, since: ModSeq) -> Result<Changes, Error> {
        self.0.changes(mailbox, since).await
    }

    async fn read_body(&self, mailbox: MailboxId, uid: Uid) -> Result<Bytes, Error> {
        self.0.read_body(mailbox, uid).await
    }

    async fn read_bodies(&self, mailbox: MailboxId, uids: &[UidRange]) -> Result<Vec<(Uid, Bytes)>, Error> {
        self.0.read_bodies(mailbox, uids).await
    }

    async fn read_body_range(&self, mailbox: MailboxId, uid: Uid, offset: u64, length: u64) -> Result<Bytes, Error> {
        self.0.read_body_range(mailbox, uid, offset, length).await
    }

    async fn append(&self, name: &str, message: NewMessage) -> Result<Stored, Error> {
        self.0.append_to(name, message, fresh_op_id()).await
    }

    async fn append_all(
        &self,
        name: &str,
        messages: Vec<NewMessage>,
        replaces: Option<(MailboxId, Uid)>,
    ) -> Result<Vec<Stored>, Error> {
        self.0.append_all_to(name, messages, replaces, fresh_op_id()).await
    }

    async fn annotations(&self, name: &str, since: Option<ModSeq>) -> Result<Vec<Annotation>, Error> {
        self.0.annotations(name, since).await
    }

    async fn annotate(&self, name: &str, entries: Vec<(String, Option<Bytes>)>) -> Result<(), Error> {
        self.0.annotate(name, entries).await
    }

    async fn store(
        &self,
        mailbox: MailboxId,
        uids: &[UidRange],
        mode: StoreMode,
        flags: Flags,
        unchanged_since: Option<ModSeq>,
    ) -> Result<FlagsStored, Error> {
        self.0
            .store(mailbox, uids, mode, flags, unchanged_since, fresh_op_id())
            .await
    }

    async fn copy(&self, from: MailboxId, uids: &[UidRange], to: MailboxId) -> Result<Copied, Error> {
        self.0.copy(from, uids, to, fresh_op_id()).await
    }

    async fn move_messages(&self, from: MailboxId, uids: &[UidRange], to: MailboxId) -> Result<Copied, Error> {
        self.0.move_messages(from, uids, to, fresh_op_id()).await
    }

    async fn expunge(&self, mailbox: MailboxId, uids: &[UidRange]) -> Result<Vec<UidRange>, Error> {
        self.0.expunge(mailbox, uids, fresh_op_id()).await
    }

    async fn status(&self) -> Result<AccountStatus, Error> {
        self.0.status().await
    }

    async fn watch(&self) -> Result<Box<dyn Watch>, Error> {
        Ok(Box::new(ClientWatch(self.0.watch().await?)))
    }

    fn with_news_of(&self, mailbox: MailboxId, since: ModSeq) -> Arc<dyn Account> {
        Arc::new(ClientAccount(self.0.with_news_of(mailbox, since)))
    }

    fn take_news(&self) -> Option<Changes> {
        self.0.take_news()
    }
}
