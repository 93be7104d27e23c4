//! The way to the data, as traits: the client crate in service, memory in the dialogue tests. The shapes are the client crate's; only the
//! op ids are drawn below, because an IMAP command is never repeated by its session (the client crate repeats, with the same id).

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use malle_client::{
    AccountId, AccountStatus, Annotation, Changes, Copied, Error, Flags, FlagsStored, Granted, LoginProof, Mailbox,
    MailboxId, ModSeq, NewMessage, Opened, Page, Resolved, Rights, SpecialUse, StoreMode, Stored, Uid, UidRange,
    WatchEvent, fresh_op_id,
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
    /// Those that a pattern of LIST, or a whole name, can match; perhaps more.
    async fn mailboxes_within(&self, _pattern: &str) -> Result<Vec<Mailbox>, Error> {
        self.mailboxes().await
    }
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
    /// Appends messages to this mailbox, all or none.
    async fn append_into(&self, mailbox: MailboxId, messages: Vec<NewMessage>) -> Result<Vec<Stored>, Error>;
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
    /// Watches the account; where only one mailbox matters, the account that has it.
    async fn watch(&self, of: Option<MailboxId>) -> Result<Box<dyn Watch>, Error>;
    /// Who shares mailboxes with it.
    async fn sharers(&self) -> Result<Vec<Resolved>, Error>;
    /// The same session on what another account has granted it.
    fn as_guest_of(&self, owner: &Resolved) -> Arc<dyn Account>;
    /// Who may do what with the mailbox with this full name.
    async fn grants(&self, name: &str) -> Result<Granted, Error>;
    /// Gives rights to it, or takes them back.
    async fn grant(&self, name: &str, guest: AccountId, mode: StoreMode, rights: Rights) -> Result<(), Error>;
    /// Whose mailbox has this name: the account and its primary address.
    async fn owner_of(&self, name: &str) -> Result<(AccountId, String), Error>;
    /// Who has an address.
    async fn resolve(&self, address: &str) -> Result<Option<Resolved>, Error>;
    /// An account by its id.
    async fn resolve_account(&self, account: AccountId) -> Result<Option<Resolved>, Error>;
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

    fn opened(&self, account: malle_client::Account) -> Arc<dyn Account> {
        let client = self.client.clone();
        Arc::new(ClientAccount { account, client })
    }
}

struct ClientAccount {
    account: malle_client::Account,
    client: malle_client::Client,
}

impl ClientAccount {
    fn like(&self, account: malle_client::Account) -> Arc<dyn Account> {
        let client = self.client.clone();
        Arc::new(ClientAccount { account, client })
    }
}

struct ClientWatch(malle_client::Watch);

#[async_trait]
impl Store for ClientStore {
    async fn login(&self, name: &str, password: &str) -> Result<Arc<dyn Account>, Error> {
        let account = self.client.login(name, password).await?;
        Ok(self.opened(account))
    }

    async fn login_with_token(&self, name: &str, token: &str) -> Result<Arc<dyn Account>, Error> {
        let account = self.client.login_with_token(name, token).await?;
        Ok(self.opened(account))
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
        self.account.id()
    }

    fn opened_by(&self) -> &str {
        self.account.opened_by()
    }

    fn proof(&self) -> LoginProof {
        self.account.proof()
    }

    async fn mailboxes(&self) -> Result<Vec<Mailbox>, Error> {
        self.account.mailboxes().await
    }

    async fn create_mailbox(&self, name: &str, special_use: SpecialUse) -> Result<MailboxId, Error> {
        self.account.create_mailbox(name, special_use).await
    }

    async fn rename_mailbox(&self, from: &str, to: &str) -> Result<(), Error> {
        self.account.rename_mailbox(from, to).await
    }

    async fn delete_mailbox(&self, name: &str) -> Result<(), Error> {
        self.account.delete_mailbox(name).await
    }

    async fn subscribe(&self, name: &str, subscribed: bool) -> Result<(), Error> {
        self.account.subscribe(name, subscribed).await
    }

    async fn open(&self, mailbox: MailboxId) -> Result<Opened, Error> {
        self.account.open(mailbox).await
    }

    async fn open_named(&self, name: &str) -> Result<Opened, Error> {
        self.account.open_named(name).await
    }

    async fn fetch(
        &self,
        mailbox: MailboxId,
        uids: &[UidRange],
        changed_since: ModSeq,
        with_summary: bool,
    ) -> Result<Page, Error> {
        self.account.fetch(mailbox, uids, changed_since, with_summary).await
    }

    async fn changes(&self, mailbox: MailboxId, since: ModSeq) -> Result<Changes, Error> {
        self.account.changes(mailbox, since).await
    }

    async fn read_body(&self, mailbox: MailboxId, uid: Uid) -> Result<Bytes, Error> {
        self.account.read_body(mailbox, uid).await
    }

    async fn read_bodies(&self, mailbox: MailboxId, uids: &[UidRange]) -> Result<Vec<(Uid, Bytes)>, Error> {
        self.account.read_bodies(mailbox, uids).await
    }

    async fn read_body_range(&self, mailbox: MailboxId, uid: Uid, offset: u64, length: u64) -> Result<Bytes, Error> {
        self.account.read_body_range(mailbox, uid, offset, length).await
    }

    async fn append(&self, name: &str, message: NewMessage) -> Result<Stored, Error> {
        self.account.append_to(name, message, fresh_op_id()).await
    }

    async fn append_all(
        &self,
        name: &str,
        messages: Vec<NewMessage>,
        replaces: Option<(MailboxId, Uid)>,
    ) -> Result<Vec<Stored>, Error> {
        self.account
            .append_all_to(name, messages, replaces, fresh_op_id())
            .await
    }

    async fn append_into(&self, mailbox: MailboxId, messages: Vec<NewMessage>) -> Result<Vec<Stored>, Error> {
        self.account.append_all(mailbox, messages, fresh_op_id()).await
    }

    async fn annotations(&self, name: &str, since: Option<ModSeq>) -> Result<Vec<Annotation>, Error> {
        self.account.annotations(name, since).await
    }

    async fn annotate(&self, name: &str, entries: Vec<(String, Option<Bytes>)>) -> Result<(), Error> {
        self.account.annotate(name, entries).await
    }

    async fn store(
        &self,
        mailbox: MailboxId,
        uids: &[UidRange],
        mode: StoreMode,
        flags: Flags,
        unchanged_since: Option<ModSeq>,
    ) -> Result<FlagsStored, Error> {
        self.account
            .store(mailbox, uids, mode, flags, unchanged_since, fresh_op_id())
            .await
    }

    async fn copy(&self, from: MailboxId, uids: &[UidRange], to: MailboxId) -> Result<Copied, Error> {
        self.account.copy(from, uids, to, fresh_op_id()).await
    }

    async fn move_messages(&self, from: MailboxId, uids: &[UidRange], to: MailboxId) -> Result<Copied, Error> {
        self.account.move_messages(from, uids, to, fresh_op_id()).await
    }

    async fn expunge(&self, mailbox: MailboxId, uids: &[UidRange]) -> Result<Vec<UidRange>, Error> {
        self.account.expunge(mailbox, uids, fresh_op_id()).await
    }

    async fn status(&self) -> Result<AccountStatus, Error> {
        self.account.status().await
    }

    async fn watch(&self, _of: Option<MailboxId>) -> Result<Box<dyn Watch>, Error> {
        Ok(Box::new(ClientWatch(self.account.watch().await?)))
    }

    async fn sharers(&self) -> Result<Vec<Resolved>, Error> {
        self.account.sharers().await
    }

    fn as_guest_of(&self, owner: &Resolved) -> Arc<dyn Account> {
        self.like(self.account.as_guest_of(owner))
    }

    async fn grants(&self, name: &str) -> Result<Granted, Error> {
        self.account.grants(name).await
    }

    async fn grant(&self, name: &str, guest: AccountId, mode: StoreMode, rights: Rights) -> Result<(), Error> {
        self.account.grant(name, guest, mode, rights).await
    }

    async fn owner_of(&self, _name: &str) -> Result<(AccountId, String), Error> {
        Ok((self.account.id(), self.account.primary_address().to_owned()))
    }

    async fn resolve(&self, address: &str) -> Result<Option<Resolved>, Error> {
        self.client.resolve(address).await
    }

    async fn resolve_account(&self, account: AccountId) -> Result<Option<Resolved>, Error> {
        self.client.resolve_account(account).await
    }

    fn with_news_of(&self, mailbox: MailboxId, since: ModSeq) -> Arc<dyn Account> {
        self.like(self.account.with_news_of(mailbox, since))
    }

    fn take_news(&self) -> Option<Changes> {
        self.account.take_news()
    }
}
