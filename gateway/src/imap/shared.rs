//! All mailboxes that a session can name: those of its own account, and below [`OTHERS`] those that others share with it (RFC 4314, RFC 2342).
//!
//! To the commands it is an account like any other. A name says whose mailbox it is, `Other Users/<address>/<name>`; an id is looked up among
//! those that were listed or opened before. The shard of the owner decides what may be done; what is kept here is only which account to ask.
//!
//! An owner whose shard does not answer costs nobody his own mailboxes: LIST shows what it showed last, or nothing of him. What is absent: mailboxes
//! of the user's own that are called like the place of the others; they cannot be reached by name.

mod across;
mod parents;
mod watch;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::{join_all, try_join};
use malle_client::{
    AccountId, AccountStatus, Annotation, Changes, Class, Copied, Error, Flags, FlagsStored, Granted, LoginProof,
    Mailbox, MailboxId, ModSeq, NewMessage, Opened, Page, Resolved, Rights, SpecialUse, StoreMode, Stored, Uid,
    UidRange,
};

use super::access::BodyMemory;
use super::name;
use super::store::{Account, Watch};
use parents::{only_holds, with_parents};

/// Where the mailboxes of others are.
pub(super) const OTHERS: &str = "Other Users";
/// How long a list waits for the directory.
const DIRECTORY_WITHIN: Duration = Duration::from_secs(5);
/// Owners that are asked at the same time.
const ASKED_AT_ONCE: usize = 8;

/// Is this the name of somebody else's mailbox?
pub(super) fn is_of_others(name: &str) -> bool {
    name.strip_prefix(OTHERS).is_some_and(|rest| rest.starts_with('/'))
}

/// All mailboxes that a session can name.
pub(super) struct Everything {
    own: Arc<dyn Account>,
    known: Arc<Mutex<Known>>,
    memory: BodyMemory,
    news: Option<News>,
}

/// What was found out about others.
#[derive(Default)]
struct Known {
    owners: Vec<Arc<Owner>>,
    /// Whose mailbox it is, where it is not one's own.
    homes: HashMap<MailboxId, Arc<Owner>>,
}

/// Somebody who shares.
struct Owner {
    id: AccountId,
    address: String,
    account: Arc<dyn Account>,
    /// As they were listed last.
    mailboxes: Mutex<Vec<Mailbox>>,
}

/// An account whose changes tell besides what is new in a mailbox of it.
struct News {
    /// `None`: one's own.
    owner: Option<AccountId>,
    account: Arc<dyn Account>,
}

/// What a name leads to.
enum Place<'a> {
    Own,
    /// The name as its owner has it.
    Of(Arc<Owner>, std::borrow::Cow<'a, str>),
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn nobody() -> Error {
    Error::Denied("nobody shares such a mailbox".to_owned())
}

impl Owner {
    /// What comes before the names of his mailboxes.
    fn prefix(&self) -> String {
        format!("{OTHERS}/{}/", self.address)
    }

    /// His mailbox as this session sees it.
    fn shown(&self, mailbox: Mailbox) -> Mailbox {
        Mailbox {
            name: self.prefix() + &mailbox.name,
            special_use: SpecialUse::None,
            rights: Some(mailbox.rights.unwrap_or(Rights::NONE)),
            ..mailbox
        }
    }
}

impl Everything {
    pub(super) fn new(own: Arc<dyn Account>, memory: BodyMemory) -> Everything {
        Everything {
            own,
            known: Arc::default(),
            memory,
            news: None,
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        locked(&self.known)
    }

    /// Asks the directory who shares. What was listed of them stays known.
    async fn find_owners(&self) -> Result<Vec<Arc<Owner>>, Error> {
        let sharers = self.own.sharers().await?;
        let mut known = self.known();
        let before = std::mem::take(&mut known.owners);
        let owner = |sharer: Resolved| {
            let same = |one: &&Arc<Owner>| one.id == sharer.account && one.address == sharer.primary_address;
            before.iter().find(same).cloned().unwrap_or_else(|| {
                Arc::new(Owner {
                    id: sharer.account,
                    account: self.own.as_guest_of(&sharer),
                    address: sharer.primary_address,
                    mailboxes: Mutex::default(),
                })
            })
        };
        known.owners = sharers
            .into_iter()
            .filter(|sharer| !sharer.suspended)
            .map(owner)
            .collect();
        Ok(known.owners.clone())
    }

    /// The same, where nobody waits for a directory that does not answer: then those who are known.
    async fn owners_by_now(&self) -> Result<Vec<Arc<Owner>>, Error> {
        match tokio::time::timeout(DIRECTORY_WITHIN, self.find_owners()).await {
            Ok(Err(error)) if error.class() != Class::Retry => Err(error),
            Ok(Ok(owners)) => Ok(owners),
            Ok(Err(_)) | Err(_) => {
                tracing::warn!(account = %self.own.id(), "who shares is as it was known: the directory does not answer");
                Ok(self.known().owners.clone())
            }
        }
    }

    /// Whose mailbox has this name.
    async fn place<'a>(&self, name: &'a str) -> Result<Place<'a>, Error> {
        if !is_of_others(name) {
            return Ok(Place::Own);
        }
        let among = |owners: &[Arc<Owner>]| {
            owners.iter().find_map(|owner| {
                let inner = name.strip_prefix(&owner.prefix())?;
                Some(Place::Of(owner.clone(), name::normalised(inner.to_owned()).into()))
            })
        };
        let known = self.known().owners.clone();
        if let Some(place) = among(&known) {
            return Ok(place);
        }
        among(&self.find_owners().await?).ok_or_else(nobody)
    }

    fn home(&self, mailbox: MailboxId) -> Option<Arc<Owner>> {
        self.known().homes.get(&mailbox).cloned()
    }

    /// The account that has this mailbox.
    fn at(&self, mailbox: MailboxId) -> Arc<dyn Account> {
        self.home(mailbox)
            .map_or_else(|| self.own.clone(), |owner| owner.account.clone())
    }

    /// The same for a change of it.
    fn writer_of(&self, owner: Option<&Arc<Owner>>) -> Arc<dyn Account> {
        match &self.news {
            Some(news) if news.owner == owner.map(|owner| owner.id) => news.account.clone(),
            _ => owner.map_or_else(|| self.own.clone(), |owner| owner.account.clone()),
        }
    }

    fn writer_at(&self, mailbox: MailboxId) -> Arc<dyn Account> {
        self.writer_of(self.home(mailbox).as_ref())
    }

    /// What an owner shares, as it is now.
    async fn mailboxes_of(&self, owner: &Arc<Owner>) -> Result<Vec<Mailbox>, Error> {
        let mailboxes = match owner.account.mailboxes().await {
            Ok(mailboxes) => mailboxes,
            // Everything was taken back.
            Err(Error::Denied(_) | Error::NotFound(_) | Error::Suspended) => Vec::new(),
            Err(error) => return Err(error),
        };
        let shown: Vec<Mailbox> = mailboxes.into_iter().map(|mailbox| owner.shown(mailbox)).collect();
        let shown = with_parents(shown, owner.id, &owner.prefix());
        let mut known = self.known();
        for mailbox in shown.iter().filter(|mailbox| !mailbox.no_select) {
            known.homes.insert(mailbox.id, owner.clone());
        }
        locked(&owner.mailboxes).clone_from(&shown);
        Ok(shown)
    }

    /// The same for a list of many owners: of one who does not answer the names as they were last. Nothing else is known of those, so they
    /// have no rights here.
    async fn names_of(&self, owner: &Arc<Owner>) -> Result<Vec<Mailbox>, Error> {
        match self.mailboxes_of(owner).await {
            Err(error) if error.class() == Class::Retry => {
                tracing::warn!(owner = %owner.id, %error, "shared mailboxes are listed as they were last");
                let mut names = locked(&owner.mailboxes).clone();
                names.iter_mut().for_each(|mailbox| mailbox.rights = Some(Rights::NONE));
                Ok(names)
            }
            answer => answer,
        }
    }

    /// What all others share whose names can begin so.
    async fn mailboxes_of_others(&self, beginning: &str) -> Result<Vec<Mailbox>, Error> {
        let owners = self.owners_by_now().await?;
        let reaches = |owner: &Arc<Owner>| either_begins(&owner.prefix(), beginning);
        let wanted: Vec<Arc<Owner>> = owners.into_iter().filter(reaches).collect();
        let mut all = Vec::new();
        for some in wanted.chunks(ASKED_AT_ONCE) {
            let asked: Vec<_> = some.iter().map(|owner| self.names_of(owner)).collect();
            for list in join_all(asked).await {
                all.extend(list?);
            }
        }
        if !all.is_empty() {
            all.insert(0, only_holds(OTHERS.to_owned(), MailboxId([0; 16])));
        }
        Ok(all)
    }
}

/// Is one the beginning of the other?
fn either_begins(one: &str, other: &str) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

#[async_trait]
impl Account for Everything {
    fn id(&self) -> AccountId {
        self.own.id()
    }

    fn opened_by(&self) -> &str {
        self.own.opened_by()
    }

    fn proof(&self) -> LoginProof {
        self.own.proof()
    }

    async fn mailboxes(&self) -> Result<Vec<Mailbox>, Error> {
        self.mailboxes_within("*").await
    }

    async fn mailboxes_within(&self, pattern: &str) -> Result<Vec<Mailbox>, Error> {
        let wildcard = pattern.find(['*', '%']);
        let beginning = &pattern[..wildcard.unwrap_or(pattern.len())];
        if wildcard.is_none() {
            match self.place(pattern).await {
                Ok(Place::Of(owner, _)) => return self.mailboxes_of(&owner).await,
                // Nobody's, or a name that leads to somebody's.
                Ok(Place::Own) | Err(Error::Denied(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let reaches_others =
            either_begins(beginning, &format!("{OTHERS}/")) && (wildcard.is_some() || beginning.starts_with(OTHERS));
        let own = async {
            match is_of_others(beginning) {
                true => Ok(Vec::new()),
                false => self.own.mailboxes().await,
            }
        };
        let others = async {
            match reaches_others {
                true => self.mailboxes_of_others(beginning).await,
                false => Ok(Vec::new()),
            }
        };
        let (mut all, others) = try_join(own, others).await?;
        all.extend(others);
        Ok(all)
    }

    async fn create_mailbox(&self, name: &str, special_use: SpecialUse) -> Result<MailboxId, Error> {
        if name == OTHERS {
            return Err(Error::Exists(name.to_owned()));
        }
        match self.place(name).await? {
            Place::Own => self.own.create_mailbox(name, special_use).await,
            Place::Of(owner, inner) => owner.account.create_mailbox(&inner, special_use).await,
        }
    }

    async fn rename_mailbox(&self, from: &str, to: &str) -> Result<(), Error> {
        if to == OTHERS {
            return Err(Error::Exists(to.to_owned()));
        }
        match (self.place(from).await?, self.place(to).await?) {
            (Place::Own, Place::Own) => self.own.rename_mailbox(from, to).await,
            (Place::Of(owner, from), Place::Of(other, to)) if owner.id == other.id => {
                owner.account.rename_mailbox(&from, &to).await
            }
            _ => Err(Error::Invalid("A mailbox stays with its owner".to_owned())),
        }
    }

    async fn delete_mailbox(&self, name: &str) -> Result<(), Error> {
        match self.place(name).await? {
            Place::Own => self.own.delete_mailbox(name).await,
            Place::Of(owner, inner) => owner.account.delete_mailbox(&inner).await,
        }
    }

    async fn subscribe(&self, name: &str, subscribed: bool) -> Result<(), Error> {
        match self.place(name).await? {
            Place::Own => self.own.subscribe(name, subscribed).await,
            Place::Of(owner, inner) => owner.account.subscribe(&inner, subscribed).await,
        }
    }

    async fn open(&self, mailbox: MailboxId) -> Result<Opened, Error> {
        self.at(mailbox).open(mailbox).await
    }

    async fn open_named(&self, name: &str) -> Result<Opened, Error> {
        let Place::Of(owner, inner) = self.place(name).await? else {
            return self.own.open_named(name).await;
        };
        let opened = owner.account.open_named(&inner).await?;
        self.known().homes.insert(opened.mailbox.id, owner.clone());
        Ok(Opened {
            mailbox: owner.shown(opened.mailbox),
            ..opened
        })
    }

    async fn fetch(
        &self,
        mailbox: MailboxId,
        uids: &[UidRange],
        changed_since: ModSeq,
        with_summary: bool,
    ) -> Result<Page, Error> {
        self.at(mailbox).fetch(mailbox, uids, changed_since, with_summary).await
    }

    async fn changes(&self, mailbox: MailboxId, since: ModSeq) -> Result<Changes, Error> {
        self.at(mailbox).changes(mailbox, since).await
    }

    async fn read_body(&self, mailbox: MailboxId, uid: Uid) -> Result<Bytes, Error> {
        self.at(mailbox).read_body(mailbox, uid).await
    }

    async fn read_bodies(&self, mailbox: MailboxId, uids: &[UidRange]) -> Result<Vec<(Uid, Bytes)>, Error> {
        self.at(mailbox).read_bodies(mailbox, uids).await
    }

    async fn read_body_range(&self, mailbox: MailboxId, uid: Uid, offset: u64, length: u64) -> Result<Bytes, Error> {
        self.at(mailbox).read_body_range(mailbox, uid, offset, length).await
    }

    async fn append(&self, name: &str, message: NewMessage) -> Result<Stored, Error> {
        match self.place(name).await? {
            Place::Own => self.writer_of(None).append(name, message).await,
            Place::Of(owner, inner) => self.writer_of(Some(&owner)).append(&inner, message).await,
        }
    }

    async fn append_all(
        &self,
        name: &str,
        messages: Vec<NewMessage>,
        replaces: Option<(MailboxId, Uid)>,
    ) -> Result<Vec<Stored>, Error> {
        let (owner, inner) = match self.place(name).await? {
            Place::Own => (None, name.into()),
            Place::Of(owner, inner) => (Some(owner), inner),
        };
        let id = |owner: &Arc<Owner>| owner.id;
        if replaces.is_some_and(|(mailbox, _)| self.home(mailbox).as_ref().map(id) != owner.as_ref().map(id)) {
            return Err(Error::Invalid(
                "A message and its successor have the same owner".to_owned(),
            ));
        }
        self.writer_of(owner.as_ref())
            .append_all(&inner, messages, replaces)
            .await
    }

    async fn append_into(&self, mailbox: MailboxId, messages: Vec<NewMessage>) -> Result<Vec<Stored>, Error> {
        self.writer_at(mailbox).append_into(mailbox, messages).await
    }

    async fn annotations(&self, name: &str, since: Option<ModSeq>) -> Result<Vec<Annotation>, Error> {
        match self.place(name).await? {
            Place::Own => self.own.annotations(name, since).await,
            Place::Of(owner, inner) => owner.account.annotations(&inner, since).await,
        }
    }

    async fn annotate(&self, name: &str, entries: Vec<(String, Option<Bytes>)>) -> Result<(), Error> {
        match self.place(name).await? {
            Place::Own => self.own.annotate(name, entries).await,
            Place::Of(owner, inner) => owner.account.annotate(&inner, entries).await,
        }
    }

    async fn store(
        &self,
        mailbox: MailboxId,
        uids: &[UidRange],
        mode: StoreMode,
        flags: Flags,
        unchanged_since: Option<ModSeq>,
    ) -> Result<FlagsStored, Error> {
        let account = self.writer_at(mailbox);
        account.store(mailbox, uids, mode, flags, unchanged_since).await
    }

    async fn copy(&self, from: MailboxId, uids: &[UidRange], to: MailboxId) -> Result<Copied, Error> {
        if self.share_an_owner(from, to) {
            return self.writer_at(from).copy(from, uids, to).await;
        }
        self.copy_across(from, uids, to).await
    }

    async fn move_messages(&self, from: MailboxId, uids: &[UidRange], to: MailboxId) -> Result<Copied, Error> {
        if self.share_an_owner(from, to) {
            return self.writer_at(from).move_messages(from, uids, to).await;
        }
        self.move_across(from, uids, to).await
    }

    async fn expunge(&self, mailbox: MailboxId, uids: &[UidRange]) -> Result<Vec<UidRange>, Error> {
        self.writer_at(mailbox).expunge(mailbox, uids).await
    }

    async fn status(&self) -> Result<AccountStatus, Error> {
        self.own.status().await
    }

    async fn watch(&self, of: Option<MailboxId>) -> Result<Box<dyn Watch>, Error> {
        match of {
            Some(mailbox) => self.at(mailbox).watch(of).await,
            None => self.watch_all().await,
        }
    }

    fn with_news_of(&self, mailbox: MailboxId, since: ModSeq) -> Arc<dyn Account> {
        let owner = self.home(mailbox).map(|owner| owner.id);
        let account = self.at(mailbox).with_news_of(mailbox, since);
        Arc::new(Everything {
            own: self.own.clone(),
            known: self.known.clone(),
            memory: self.memory.clone(),
            news: Some(News { owner, account }),
        })
    }

    fn take_news(&self) -> Option<Changes> {
        self.news.as_ref()?.account.take_news()
    }

    async fn sharers(&self) -> Result<Vec<Resolved>, Error> {
        self.own.sharers().await
    }

    fn as_guest_of(&self, owner: &Resolved) -> Arc<dyn Account> {
        self.own.as_guest_of(owner)
    }

    async fn grants(&self, name: &str) -> Result<Granted, Error> {
        match self.place(name).await? {
            Place::Own => self.own.grants(name).await,
            Place::Of(owner, inner) => owner.account.grants(&inner).await,
        }
    }

    async fn grant(&self, name: &str, guest: AccountId, mode: StoreMode, rights: Rights) -> Result<(), Error> {
        match self.place(name).await? {
            Place::Own => self.own.grant(name, guest, mode, rights).await,
            Place::Of(owner, inner) => owner.account.grant(&inner, guest, mode, rights).await,
        }
    }

    async fn owner_of(&self, name: &str) -> Result<(AccountId, String), Error> {
        match self.place(name).await? {
            Place::Own => self.own.owner_of(name).await,
            Place::Of(owner, _) => Ok((owner.id, owner.address.clone())),
        }
    }

    async fn resolve(&self, address: &str) -> Result<Option<Resolved>, Error> {
        self.own.resolve(address).await
    }

    async fn resolve_account(&self, account: AccountId) -> Result<Option<Resolved>, Error> {
        self.own.resolve_account(account).await
    }
}
