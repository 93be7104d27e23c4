//! One logged-in account: everything that a mail session asks of its shard.
//!
//! Each method is one request on the mail stream, or a few. Large sets are split by the bounds of a command; the pieces carry
//! `op_id.piece(n)`, so that a repeated call finds each piece's first answer. `append` brings messages, `bodies` reads their bytes,
//! `annotations` is METADATA, `sharing` what is granted to others and by them. What is absent:
//! sequence numbers, and any call without the login token.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use malle_proto::v1::mail_reply::Result as Answer;
use malle_proto::v1::mail_request::Call;
use malle_proto::v1::{self, LoginReply, mailbox_change};
use malle_proto::{AccountId, MailboxId, ModSeq, OpId, ShardId, Uid, UidValidity, limits};

use crate::client::Client;
use crate::convert;
use crate::core::{MailCall, Place, Prefer, Upload};
use crate::error::Error;
use crate::pieces::Pieces;
use crate::session::Session;
use crate::sessions::LoginProof;
use crate::types::{
    AccountStatus, Changes, Consistency, Copied, Flags, FlagsStored, Mailbox, Opened, Page, SpecialUse, StoreMode,
    UidRange,
};
use crate::watch::Watch;

/// The answer of the wanted kind, or the error for any other.
macro_rules! answer {
    ($answer:expr, $kind:ident) => {
        match $answer {
            Answer::$kind(reply) => Ok(reply),
            _ => Err(Error::Internal("a node answered another question".to_owned())),
        }
    };
}

mod annotations;
mod append;
mod bodies;
mod sharing;

/// Bodies that go ahead of their command, with the numbers of their messages.
type Uploads = Vec<(usize, Arc<Upload>)>;

fn bytes(id: &[u8; 16]) -> Bytes {
    Bytes::copy_from_slice(id)
}

/// One logged-in account. Cheap to clone; clones share the login token, which renews itself while calls are made, and the session's
/// MODSEQ.
///
/// Reads are linearizable unless [`Account::with_consistency`] says otherwise. Writes take an op id: draw it with
/// [`crate::fresh_op_id`] once, before the first try.
#[derive(Clone)]
pub struct Account {
    client: Client,
    session: Arc<Session>,
    /// Whose mailboxes it is about, when they are another account's.
    guest_of: Option<AccountId>,
    consistency: Consistency,
    news: Option<Arc<News>>,
}

/// What the changes of a handle tell besides.
struct News {
    mailbox: MailboxId,
    since: ModSeq,
    /// As the last change told it.
    told: Mutex<Option<Changes>>,
}

impl Account {
    /// Whose mailboxes it is about: its id, or that of the account that [`Account::as_guest_of`] was given.
    pub fn id(&self) -> AccountId {
        self.guest_of.unwrap_or(self.session.account)
    }

    /// Its primary address when it logged in.
    pub fn primary_address(&self) -> &str {
        &self.session.primary_address
    }

    /// What opened it, for a person: "password", "application password phone", "access token".
    pub fn opened_by(&self) -> &str {
        &self.session.opened_by
    }

    /// What [`Client::logins_over`] asks about.
    pub fn proof(&self) -> LoginProof {
        LoginProof(self.session.proof())
    }

    /// The highest MODSEQ that this session has seen of its account: everything it wrote is at or below it.
    pub fn session_modseq(&self) -> ModSeq {
        self.session.modseq()
    }

    /// The same session with other reads. `AtLeast(m)` means at least `m` and at least what this session has written or seen itself
    /// (read your writes), from any replica; it may miss what others did since. `Stale` may miss even one's own writes.
    pub fn with_consistency(&self, consistency: Consistency) -> Account {
        Account {
            consistency,
            ..self.clone()
        }
    }

    /// The same session, whose changes (append, store, copy, move, expunge) also ask what is new in `mailbox` above `since`, in the same
    /// round trip: see [`Account::take_news`].
    pub fn with_news_of(&self, mailbox: MailboxId, since: ModSeq) -> Account {
        let told = Mutex::default();
        Account {
            news: Some(Arc::new(News { mailbox, since, told })),
            ..self.clone()
        }
    }

    /// What the last change through this handle told: the answer that [`Account::changes`] would have given right after it. `None` when
    /// there was none, when it did not end well, or when the shard had no time for it.
    pub fn take_news(&self) -> Option<Changes> {
        let news = self.news.as_ref()?;
        news.told.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Every mailbox, sorted by name, with its counters.
    ///
    /// # Errors
    /// As every read: class Retry at the deadline, [`Error::TokenExpired`], [`Error::Denied`].
    pub async fn mailboxes(&self) -> Result<Vec<Mailbox>, Error> {
        let call = v1::MailboxList {
            account: self.account(),
            consistency: self.freshness(),
        };
        let reply = answer!(self.read(Call::MailboxList(call)).await?, MailboxList)?;
        reply.mailboxes.into_iter().map(convert::mailbox).collect()
    }

    /// Makes a mailbox and its missing parents.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::Limit`], [`Error::Invalid`] for a bad name.
    pub async fn create_mailbox(&self, name: &str, special_use: SpecialUse) -> Result<MailboxId, Error> {
        let special_use = convert::special_use(special_use);
        let create = v1::MailboxCreate {
            name: name.to_owned(),
            special_use,
        };
        let reply = self.change_mailbox(mailbox_change::Change::Create(create)).await?;
        convert::id(&reply.mailbox)
    }

    /// Renames a mailbox and everything below it; INBOX gives its messages to a new mailbox (RFC 9051 6.3.6).
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Exists`].
    pub async fn rename_mailbox(&self, from: &str, to: &str) -> Result<(), Error> {
        let rename = v1::MailboxRename {
            from: from.to_owned(),
            to: to.to_owned(),
        };
        self.change_mailbox(mailbox_change::Change::Rename(rename))
            .await
            .map(|_| ())
    }

    /// Deletes a mailbox; one with children stays as a name only (RFC 9051 6.3.5).
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Invalid`] for INBOX.
    pub async fn delete_mailbox(&self, name: &str) -> Result<(), Error> {
        let delete = v1::MailboxDelete { name: name.to_owned() };
        self.change_mailbox(mailbox_change::Change::Delete(delete))
            .await
            .map(|_| ())
    }

    /// Subscribes to a mailbox or no longer.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn subscribe(&self, name: &str, subscribed: bool) -> Result<(), Error> {
        let subscribe = v1::MailboxSubscribe {
            name: name.to_owned(),
            subscribed,
        };
        self.change_mailbox(mailbox_change::Change::Subscribe(subscribe))
            .await
            .map(|_| ())
    }

    /// What SELECT needs.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn open(&self, mailbox: MailboxId) -> Result<Opened, Error> {
        self.open_which(bytes(mailbox.as_bytes()), String::new()).await
    }

    /// As [`Account::open`], by full name.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Invalid`] for a name that only holds other mailboxes.
    pub async fn open_named(&self, name: &str) -> Result<Opened, Error> {
        self.open_which(Bytes::new(), name.to_owned()).await
    }

    async fn open_which(&self, mailbox: Bytes, name: String) -> Result<Opened, Error> {
        let call = v1::MailboxOpen {
            account: self.account(),
            mailbox,
            consistency: self.freshness(),
            name,
        };
        convert::opened(answer!(self.read(Call::MailboxOpen(call)).await?, MailboxOpen)?)
    }

    /// One page of rows in rising UID order, at most [`crate::limits::FETCH_PAGE_ROWS_MAX`]: only messages in `uids` (sorted, apart)
    /// whose MODSEQ is above `changed_since` (0: all). While [`Page::resume_from`] is set there is more: ask again with `uids` from
    /// there on.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn fetch(
        &self,
        mailbox: MailboxId,
        uids: &[UidRange],
        changed_since: ModSeq,
        with_summary: bool,
    ) -> Result<Page, Error> {
        // Ranges beyond the bound of a request belong to the next page.
        let (now, later) = uids.split_at(uids.len().min(limits::UID_RANGES_PER_COMMAND_MAX));
        if now.is_empty() {
            return Ok(Page::default());
        }
        let call = v1::Fetch {
            account: self.account(),
            mailbox: bytes(mailbox.as_bytes()),
            uids: convert::ranges(now),
            changed_since: changed_since.0,
            without_summary: !with_summary,
            max_rows: limits::FETCH_PAGE_ROWS_MAX as u32,
            consistency: self.freshness(),
        };
        let mut page = convert::page(answer!(self.read(Call::Fetch(call)).await?, Fetch)?, with_summary)?;
        page.resume_from = page.resume_from.or(later.first().map(|range| range.first));
        Ok(page)
    }

    /// What changed in a mailbox above `since` (RFC 7162 3.2). One page: see [`Changes::through`].
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn changes(&self, mailbox: MailboxId, since: ModSeq) -> Result<Changes, Error> {
        let call = v1::Changes {
            account: self.account(),
            mailbox: bytes(mailbox.as_bytes()),
            since_modseq: since.0,
            consistency: self.freshness(),
        };
        convert::changes(answer!(self.read(Call::Changes(call)).await?, Changes)?)
    }

    /// Adds, removes or replaces flags. A large set is split into several commands, each atomic: after an error the first of them may
    /// be done; repeating the call with the same op id completes it.
    ///
    /// # Errors
    /// [`Error::NotFound`] for the mailbox (messages that are gone are left out), [`Error::Limit`] for too many keywords.
    pub async fn store(
        &self,
        mailbox: MailboxId,
        uids: &[UidRange],
        mode: StoreMode,
        flags: Flags,
        unchanged_since: Option<ModSeq>,
        op_id: OpId,
    ) -> Result<FlagsStored, Error> {
        let mut done = FlagsStored::default();
        let mut pieces = Pieces::of(uids, op_id);
        while let Some((uids, op_id)) = pieces.next() {
            let call = v1::Store {
                account: self.account(),
                op_id: convert::op_id(op_id),
                mailbox: bytes(mailbox.as_bytes()),
                uids: convert::ranges(&uids),
                mode: convert::store_mode(mode),
                flags: convert::flags(flags.clone()),
                unchanged_since: unchanged_since.map(|modseq| modseq.0),
            };
            let reply = answer!(self.write(Call::Store(call), Vec::new()).await?, Store)?;
            done.stored.extend(convert::message_flags(reply.stored));
            done.modified.extend(convert::ranges_back(&reply.modified));
            pieces.resume(reply.resume_from)?;
        }
        Ok(done)
    }

    /// Copies messages to another mailbox of the account; splits like [`Account::store`].
    ///
    /// # Errors
    /// [`Error::NotFound`] for either mailbox, [`Error::OverQuota`].
    pub async fn copy(&self, from: MailboxId, uids: &[UidRange], to: MailboxId, op_id: OpId) -> Result<Copied, Error> {
        self.copy_or_move(from, uids, to, op_id, false).await
    }

    /// Moves messages (RFC 6851); splits like [`Account::store`], and each message is in exactly one place at any time.
    ///
    /// # Errors
    /// As [`Account::copy`].
    pub async fn move_messages(
        &self,
        from: MailboxId,
        uids: &[UidRange],
        to: MailboxId,
        op_id: OpId,
    ) -> Result<Copied, Error> {
        self.copy_or_move(from, uids, to, op_id, true).await
    }

    /// Removes messages with \Deleted: those in `uids`, or all when it is empty. Returns the UIDs that went.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn expunge(&self, mailbox: MailboxId, uids: &[UidRange], op_id: OpId) -> Result<Vec<UidRange>, Error> {
        let everything = [UidRange {
            first: Uid(1),
            last: Uid(u32::MAX),
        }];
        let mut pieces = Pieces::of(if uids.is_empty() { &everything } else { uids }, op_id);
        let mut vanished = Vec::new();
        while let Some((uids, op_id)) = pieces.next() {
            let call = v1::Expunge {
                account: self.account(),
                op_id: convert::op_id(op_id),
                mailbox: bytes(mailbox.as_bytes()),
                uids: convert::ranges(&uids),
            };
            let reply = answer!(self.write(Call::Expunge(call), Vec::new()).await?, Expunge)?;
            vanished.extend(convert::ranges_back(&reply.vanished));
            pieces.resume(reply.resume_from)?;
        }
        Ok(vanished)
    }

    /// The account's counters and MODSEQ.
    ///
    /// # Errors
    /// As every read.
    pub async fn status(&self) -> Result<AccountStatus, Error> {
        let call = v1::AccountStatus {
            account: self.account(),
            consistency: self.freshness(),
        };
        let reply = answer!(self.read(Call::AccountStatus(call)).await?, AccountStatus)?;
        Ok(convert::account_status(&reply))
    }

    /// Watches the account for changes; a guest hears of the mailboxes that he may see or read, and once more of one that he no longer may.
    ///
    /// # Errors
    /// As every read.
    pub async fn watch(&self) -> Result<Watch, Error> {
        Watch::open(self.client.clone(), self.session.clone(), self.id()).await
    }
}

impl News {
    fn tell(&self, changes: Option<Changes>) {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = changes;
    }
}

/// How the methods above ask.
impl Account {
    /// After a login.
    pub(crate) fn open_session(client: Client, login: LoginReply) -> Result<Account, Error> {
        let account: AccountId = convert::id(&login.account)?;
        client.core.routes.set_home(account, ShardId(login.shard));
        let session = Arc::new(Session::new(account, login));
        Ok(Account {
            client,
            session,
            guest_of: None,
            consistency: Consistency::default(),
            news: None,
        })
    }

    /// Makes the token old enough to be renewed by the next call.
    #[cfg(test)]
    pub(crate) fn age_token(&self) {
        self.session.age();
    }

    fn account(&self) -> Bytes {
        bytes(self.id().as_bytes())
    }

    /// An answer told how far the account is: the session's own, not one that it is a guest of.
    fn saw(&self, modseq: u64) {
        if self.guest_of.is_none() {
            self.session.saw(modseq);
        }
    }

    fn freshness(&self) -> Option<v1::Consistency> {
        if self.guest_of.is_some() {
            return None;
        }
        convert::consistency(self.consistency, self.session.modseq())
    }

    async fn read(&self, call: Call) -> Result<Answer, Error> {
        let prefer = match self.consistency {
            _ if self.guest_of.is_some() => Prefer::Leader,
            Consistency::Linearizable => Prefer::Leader,
            Consistency::AtLeast(_) | Consistency::Stale(_) => Prefer::Any,
        };
        Ok(self.ask(call, prefer, Vec::new(), None).await?.0)
    }

    async fn write(&self, call: Call, uploads: Uploads) -> Result<Answer, Error> {
        let news = self.news.as_deref();
        if let Some(news) = news {
            news.tell(None);
        }
        let news_of = news.map(|news| v1::NewsOf {
            mailbox: bytes(news.mailbox.as_bytes()),
            since_modseq: news.since.0,
        });
        let (answer, told) = self.ask(call, Prefer::Leader, uploads, news_of).await?;
        if let (Some(news), Some(told)) = (news, told) {
            news.tell(Some(convert::changes(told)?));
        }
        Ok(answer)
    }

    /// One request until it has an answer. A token that a node finds expired is renewed once; a session cannot outlive its renewals.
    async fn ask(
        &self,
        call: Call,
        prefer: Prefer,
        uploads: Uploads,
        news_of: Option<v1::NewsOf>,
    ) -> Result<(Answer, Option<v1::ChangesReply>), Error> {
        let (core, deadline) = (&self.client.core, self.client.until());
        let place = Place::Account(self.id());
        let token = self.session.token(core, deadline).await;
        let mut call = MailCall {
            place,
            prefer,
            token,
            call,
            news_of,
            uploads,
        };
        let reply = match core.mail(deadline, call.clone()).await {
            Err(Error::TokenExpired) => {
                call.token = self.session.renew(core, deadline).await?;
                core.mail(deadline, call).await
            }
            other => other,
        };
        let reply = reply.map_err(|error| match error {
            // The owner's account, not the one that is logged in.
            Error::Suspended if self.guest_of.is_some() => Error::Denied("the account that shares is suspended".into()),
            other => other,
        })?;
        self.saw(reply.account_modseq);
        let answer = reply
            .result
            .ok_or_else(|| Error::Internal("a node sent an empty answer".to_owned()))?;
        Ok((answer, reply.news))
    }

    async fn change_mailbox(&self, change: mailbox_change::Change) -> Result<v1::MailboxChangeReply, Error> {
        // The name is the operation's identity to its caller, so the op id needs to live only as long as this call's repeats.
        let op_id = convert::op_id(crate::fresh_op_id());
        let call = v1::MailboxChange {
            account: self.account(),
            op_id,
            change: Some(change),
        };
        let reply = answer!(self.write(Call::MailboxChange(call), Vec::new()).await?, MailboxChange)?;
        self.saw(reply.modseq);
        Ok(reply)
    }

    async fn copy_or_move(
        &self,
        from: MailboxId,
        uids: &[UidRange],
        to: MailboxId,
        op_id: OpId,
        remove: bool,
    ) -> Result<Copied, Error> {
        let mut done = Copied::default();
        let mut pieces = Pieces::of(uids, op_id);
        while let Some((uids, op_id)) = pieces.next() {
            let call = v1::Copy {
                account: self.account(),
                op_id: convert::op_id(op_id),
                mailbox: bytes(from.as_bytes()),
                uids: convert::ranges(&uids),
                to: bytes(to.as_bytes()),
                remove,
            };
            let reply = answer!(self.write(Call::Copy(call), Vec::new()).await?, Copy)?;
            done.uid_validity = UidValidity(reply.uid_validity);
            done.pairs
                .extend(reply.pairs.iter().map(|pair| (Uid(pair.from), Uid(pair.to))));
            pieces.resume(reply.resume_from)?;
        }
        Ok(done)
    }
}
