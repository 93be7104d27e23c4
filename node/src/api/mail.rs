//! The `Mail` service: what front ends ask of a shard.
//!
//! Every request walks the same line: permitted (role, and token of the account), routed to the group that leads here, its body made
//! durable on a majority, its command proposed, its outcome converted.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};
use malle_machine::directory;
use malle_machine::shard::{self, Op, Outcome, read};
use malle_proto::v1::mail_server::Mail;
use malle_proto::v1::{
    self, DownloadChunk, DownloadRequest, MailReply, MailRequest, UploadChunk, UploadReply, WatchEvent, WatchRequest,
    mail_reply, mail_request,
};
use malle_proto::{AccountId, BodyHash, MailboxId, ShardId, Uid, limits};
use malle_rt::Instant;
use tokio::sync::RwLock;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::error::{self, Refused};
use super::{convert, intake, stream, watch};
use crate::bodies::Bodies;
use crate::env::Env;
use crate::raft::{Barrier, Group, GroupError, Groups};
use crate::security::{Call, Denied, Identity, Peer, Rule, Token, TokenError, permit, permit_account};

/// Token keys are read from the directory again after this long, and at once for a key that is not known.
const KEYS_FRESH: Duration = Duration::from_secs(5);
/// A large body takes longer than a request: this long at most.
const TRANSFER: Duration = Duration::from_secs(300);

/// The `Mail` service.
#[derive(Clone)]
pub struct MailApi {
    pub(super) groups: Arc<Groups>,
    pub(super) bodies: Arc<Bodies>,
    pub(super) env: Env,
    pub(super) intake: Arc<intake::Intake>,
    keys: Arc<RwLock<Option<(Instant, Arc<[directory::TokenKey]>)>>>,
}

/// A request whose deadline and group are known.
struct Asked {
    group: Arc<Group>,
    deadline: Instant,
}

type Answer = Result<(mail_reply::Result, u64), Refused>;

impl MailApi {
    /// Answers for these groups.
    pub fn new(groups: Arc<Groups>, bodies: Arc<Bodies>, env: Env) -> Self {
        MailApi {
            groups,
            bodies,
            env,
            intake: Arc::default(),
            keys: Arc::default(),
        }
    }

    pub(super) fn group(&self, shard: u32) -> Result<Arc<Group>, Refused> {
        let shard = ShardId(shard);
        if shard == ShardId::DIRECTORY {
            return Err(Refused::invalid("shard 0 is the directory: it holds no mail"));
        }
        // Not here: the client knows the replicas from the topology and asks the next one.
        self.groups
            .get(shard)
            .ok_or_else(|| GroupError::NotLeader { leader: None }.into())
    }

    async fn token_keys(&self, fresh: bool) -> Result<Arc<[directory::TokenKey]>, Refused> {
        if let Some((read_at, keys)) = &*self.keys.read().await
            && !fresh
            && malle_rt::now() - *read_at < KEYS_FRESH
        {
            return Ok(keys.clone());
        }
        let group = self
            .groups
            .get(ShardId::DIRECTORY)
            .ok_or_else(|| Refused::unavailable("the directory is not open here"))?;
        let deadline = malle_rt::now() + Duration::from_millis(limits::DEFAULT_DEADLINE_MS);
        let keys: Arc<[directory::TokenKey]> = group
            .read(Barrier::Local, deadline, directory::read::token_keys)
            .await?
            .into();
        *self.keys.write().await = Some((malle_rt::now(), keys.clone()));
        Ok(keys)
    }

    /// Role, and where the table wants it the token of this account.
    async fn authorize(&self, peer: &Peer, call: Call, token: &[u8], account: AccountId) -> Result<(), Refused> {
        if permit(peer, call)? == Rule::Allowed {
            return Ok(());
        }
        for fresh in [false, true] {
            let keys = self.token_keys(fresh).await?;
            match permit_account(peer, call, token, &keys, self.env.now_ms(), account) {
                Err(Denied::Token(TokenError::UnknownKey(_))) if !fresh => {}
                verdict => return Ok(verdict?),
            }
        }
        Err(Refused::denied("the token's key is not known"))
    }

    /// Any valid token of the calling gateway: an upload belongs to no account until a command names it.
    async fn authorize_upload(&self, peer: &Peer, token: &[u8]) -> Result<(), Refused> {
        if permit(peer, Call::Upload)? == Rule::Allowed {
            return Ok(());
        }
        let Identity::Gateway { name, .. } = &peer.identity else {
            return Err(Refused::denied("uploads come from gateways"));
        };
        let keys = self.token_keys(false).await?;
        Token::open(token, &keys, self.env.now_ms(), name).map_err(Denied::Token)?;
        Ok(())
    }

    /// One request of a client stream.
    pub(super) async fn answer(&self, peer: &Peer, request: MailRequest) -> MailReply {
        let id = request.id;
        match self.dispatch(peer, request).await {
            Ok((result, account_modseq)) => MailReply {
                id,
                account_modseq,
                result: Some(result),
            },
            Err(refused) => MailReply {
                id,
                account_modseq: 0,
                result: Some(mail_reply::Result::Error(refused.0)),
            },
        }
    }

    async fn dispatch(&self, peer: &Peer, request: MailRequest) -> Answer {
        use mail_request::Call as Asks;
        let wanted = match request.deadline_ms {
            0 => limits::DEFAULT_DEADLINE_MS,
            given => u64::from(given).min(10 * limits::DEFAULT_DEADLINE_MS),
        };
        let deadline = malle_rt::now() + Duration::from_millis(wanted);
        let call = request
            .call
            .ok_or_else(|| Refused::invalid("a request of no kind that is known here"))?;
        let token = request.token;
        // The order matters: nobody learns where a shard is, or that it is, without being let in.
        let (name, account) = named(&call)?;
        match account {
            Some(account) => self.authorize(peer, name, &token, account).await?,
            None => {
                permit(peer, name)?;
            }
        }
        let asked = Asked {
            group: self.group(request.shard)?,
            deadline,
        };
        match call {
            Asks::Deliver(deliver) => self.deliver(&asked, deliver).await,
            Asks::Append(append) => self.append(&asked, append).await,
            Asks::Store(store) => self.store(&asked, store).await,
            Asks::Copy(copy) => self.copy(&asked, copy).await,
            Asks::Expunge(expunge) => self.expunge(&asked, expunge).await,
            Asks::MailboxChange(change) => self.mailbox_change(&asked, change).await,
            Asks::MailboxList(list) => self.mailbox_list(&asked, list).await,
            Asks::MailboxOpen(open) => self.mailbox_open(&asked, open).await,
            Asks::Fetch(fetch) => self.fetch(&asked, fetch).await,
            Asks::Changes(changes) => self.changes(&asked, changes).await,
            Asks::ReadBody(read) => self.read_body(&asked, read).await,
            Asks::AccountStatus(status) => self.account_status(&asked, status).await,
        }
    }

    // ---- writes ----

    async fn deliver(&self, asked: &Asked, deliver: v1::Deliver) -> Answer {
        if deliver.recipients.is_empty() || deliver.recipients.len() > limits::RECIPIENTS_PER_COMMAND_MAX {
            return Err(Refused::limit(format!(
                "1 to {} recipients",
                limits::RECIPIENTS_PER_COMMAND_MAX
            )));
        }
        let recipients: Vec<shard::Recipient> = deliver
            .recipients
            .iter()
            .map(|recipient| {
                Ok(shard::Recipient {
                    account: convert::account(&recipient.account)?,
                    op_id: convert::op_id(&recipient.op_id)?,
                    into: convert::special_use(recipient.into)?,
                    email_id: self.env.email_id(),
                    fresh_thread: self.env.thread_id(),
                })
            })
            .collect::<Result<_, Refused>>()?;
        let body = intake::body(deliver.body)?;
        let outcome = self
            .take_in(&asked.group, body, asked.deadline, |mail| Op::Deliver {
                recipients: recipients.clone(),
                mail,
            })
            .await?;
        let Outcome::Delivered(outcomes) = outcome else {
            return Err(unexpected(outcome));
        };
        let outcomes = outcomes.into_iter().map(convert::recipient_outcome).collect();
        Ok((mail_reply::Result::Deliver(v1::DeliverReply { outcomes }), 0))
    }

    async fn append(&self, asked: &Asked, append: v1::Append) -> Answer {
        let account = convert::account(&append.account)?;
        let op_id = convert::op_id(&append.op_id)?;
        let mailbox = convert::mailbox(&append.mailbox)?;
        let flags = convert::flags(append.flags)?;
        let internal_date = convert::internal_date(append.internal_date_ms, append.internal_date_zone_minutes)?;
        let body = intake::body(append.body)?;
        let outcome = self
            .take_in(&asked.group, body, asked.deadline, |mail| Op::Append {
                account,
                op_id,
                mailbox,
                flags: flags.clone(),
                internal_date,
                mail,
            })
            .await?;
        let Outcome::Appended(stored) = outcome else {
            return Err(unexpected(outcome));
        };
        let modseq = stored.modseq.0;
        Ok((
            mail_reply::Result::Append(v1::AppendReply {
                appended: Some(convert::delivered(stored)),
            }),
            modseq,
        ))
    }

    async fn store(&self, asked: &Asked, store: v1::Store) -> Answer {
        let op = Op::Store {
            account: convert::account(&store.account)?,
            op_id: convert::op_id(&store.op_id)?,
            mailbox: convert::mailbox(&store.mailbox)?,
            uids: convert::uids(&store.uids)?,
            mode: convert::store_mode(store.mode)?,
            flags: convert::flags(store.flags)?,
            unchanged_since: store.unchanged_since.map(malle_proto::ModSeq),
        };
        match asked.group.propose_shard(op, asked.deadline).await? {
            Outcome::FlagsStored(done) => {
                let reply = v1::StoreReply {
                    stored: convert::message_flags(done.stored),
                    modified: convert::uids_out(done.modified),
                    resume_from: done.resume_from.map(|uid| uid.0),
                };
                Ok((mail_reply::Result::Store(reply), done.modseq.0))
            }
            other => Err(unexpected(other)),
        }
    }

    async fn copy(&self, asked: &Asked, copy: v1::Copy) -> Answer {
        let op = Op::Copy {
            account: convert::account(&copy.account)?,
            op_id: convert::op_id(&copy.op_id)?,
            mailbox: convert::mailbox(&copy.mailbox)?,
            uids: convert::uids(&copy.uids)?,
            to: convert::mailbox(&copy.to)?,
            remove: copy.remove,
        };
        match asked.group.propose_shard(op, asked.deadline).await? {
            Outcome::Copied(done) => {
                let reply = v1::CopyReply {
                    uid_validity: done.uid_validity.0,
                    pairs: done
                        .pairs
                        .iter()
                        .map(|(from, to)| v1::UidPair { from: from.0, to: to.0 })
                        .collect(),
                    resume_from: done.resume_from.map(|uid| uid.0),
                    modseq: done.modseq.0,
                };
                Ok((mail_reply::Result::Copy(reply), done.modseq.0))
            }
            other => Err(unexpected(other)),
        }
    }

    async fn expunge(&self, asked: &Asked, expunge: v1::Expunge) -> Answer {
        let op = Op::Expunge {
            account: convert::account(&expunge.account)?,
            op_id: convert::op_id(&expunge.op_id)?,
            mailbox: convert::mailbox(&expunge.mailbox)?,
            uids: convert::uids(&expunge.uids)?,
        };
        match asked.group.propose_shard(op, asked.deadline).await? {
            Outcome::Expunged(done) => {
                let reply = v1::ExpungeReply {
                    vanished: convert::uids_out(done.vanished),
                    modseq: done.modseq.0,
                    resume_from: done.resume_from.map(|uid| uid.0),
                };
                Ok((mail_reply::Result::Expunge(reply), done.modseq.0))
            }
            other => Err(unexpected(other)),
        }
    }

    async fn mailbox_change(&self, asked: &Asked, change: v1::MailboxChange) -> Answer {
        let op = Op::Mailbox {
            account: convert::account(&change.account)?,
            op_id: convert::op_id(&change.op_id)?,
            change: convert::mailbox_change(change.change)?,
            fresh_ids: (0..=limits::MAILBOX_DEPTH_MAX).map(|_| self.env.mailbox_id()).collect(),
        };
        match asked.group.propose_shard(op, asked.deadline).await? {
            Outcome::MailboxChanged { mailbox, modseq } => {
                let reply = v1::MailboxChangeReply {
                    mailbox: mailbox.map(|id| id.to_vec()).unwrap_or_default().into(),
                    modseq: modseq.0,
                };
                Ok((mail_reply::Result::MailboxChange(reply), modseq.0))
            }
            other => Err(unexpected(other)),
        }
    }

    // ---- reads ----

    async fn mailbox_list(&self, asked: &Asked, list: v1::MailboxList) -> Answer {
        let account = convert::account(&list.account)?;
        let barrier = convert::barrier(list.consistency, account);
        let (mailboxes, modseq) = asked
            .group
            .read(barrier, asked.deadline, move |view| {
                let modseq = read::account(view, account)?.map_or(0, |account| account.modseq.0);
                Ok((read::mailboxes(view, account)?, modseq))
            })
            .await?;
        let mailboxes = mailboxes?.into_iter().map(convert::mailbox_out).collect();
        Ok((
            mail_reply::Result::MailboxList(v1::MailboxListReply { mailboxes }),
            modseq,
        ))
    }

    async fn mailbox_open(&self, asked: &Asked, open: v1::MailboxOpen) -> Answer {
        let (account, mailbox) = (convert::account(&open.account)?, convert::mailbox(&open.mailbox)?);
        let barrier = convert::barrier(open.consistency, account);
        let opened = asked
            .group
            .read(barrier, asked.deadline, move |view| read::open(view, account, mailbox))
            .await??;
        let modseq = opened.mailbox.highest_modseq.0;
        let reply = v1::MailboxOpenReply {
            mailbox: Some(convert::mailbox_out(opened.mailbox)),
            uids: convert::uids_out(opened.uids),
            keywords: opened.keywords,
            first_unseen: opened.first_unseen.map(|uid| uid.0),
        };
        Ok((mail_reply::Result::MailboxOpen(reply), modseq))
    }

    async fn fetch(&self, asked: &Asked, fetch: v1::Fetch) -> Answer {
        let (account, mailbox) = (convert::account(&fetch.account)?, convert::mailbox(&fetch.mailbox)?);
        let barrier = convert::barrier(fetch.consistency, account);
        let uids = convert::uids(&fetch.uids)?;
        let since = malle_proto::ModSeq(fetch.changed_since);
        let max_rows = match fetch.max_rows as usize {
            0 => limits::FETCH_PAGE_ROWS_MAX,
            rows => rows.min(limits::FETCH_PAGE_ROWS_MAX),
        };
        let page = asked
            .group
            .read(barrier, asked.deadline, move |view| {
                read::fetch(view, account, mailbox, &uids, since, max_rows)
            })
            .await??;
        let mut messages = Vec::with_capacity(page.messages.len());
        for message in page.messages {
            let summary = match &message.summary {
                _ if fetch.without_summary => Bytes::new(),
                read::SummaryAt::Inline(summary) => summary.clone(),
                read::SummaryAt::Beside(hash) => self.body(asked, *hash).await?,
            };
            messages.push(convert::message_out(message, summary));
        }
        let resume_from = page.resume_from.map(|uid| uid.0);
        Ok((mail_reply::Result::Fetch(v1::FetchReply { messages, resume_from }), 0))
    }

    async fn changes(&self, asked: &Asked, changes: v1::Changes) -> Answer {
        let (account, mailbox) = (convert::account(&changes.account)?, convert::mailbox(&changes.mailbox)?);
        let barrier = convert::barrier(changes.consistency, account);
        let since = malle_proto::ModSeq(changes.since_modseq);
        let found = asked
            .group
            .read(barrier, asked.deadline, move |view| {
                read::changes(view, account, mailbox, since, limits::FETCH_PAGE_ROWS_MAX)
            })
            .await??;
        let modseq = found.mailbox.highest_modseq.0;
        let reply = v1::ChangesReply {
            mailbox: Some(convert::mailbox_out(found.mailbox)),
            changed: convert::message_flags(found.changed),
            vanished: convert::uids_out(found.vanished),
            through_modseq: found.through.0,
            cannot_calculate: found.cannot_calculate,
            keywords: found.keywords,
        };
        Ok((mail_reply::Result::Changes(reply), modseq))
    }

    async fn read_body(&self, asked: &Asked, wanted: v1::ReadBody) -> Answer {
        let (account, mailbox) = (convert::account(&wanted.account)?, convert::mailbox(&wanted.mailbox)?);
        let body = self.message_body(asked, account, mailbox, Uid(wanted.uid)).await?;
        let size_bytes = body.len() as u64;
        let from = wanted.offset.min(size_bytes) as usize;
        let length = wanted.length.min(limits::INLINE_BODY_MAX_BYTES as u64) as usize;
        let data = body.slice(from..(from + length).min(body.len()));
        Ok((mail_reply::Result::ReadBody(v1::ReadBodyReply { size_bytes, data }), 0))
    }

    async fn account_status(&self, asked: &Asked, status: v1::AccountStatus) -> Answer {
        let account = convert::account(&status.account)?;
        let barrier = convert::barrier(status.consistency, account);
        let found = asked
            .group
            .read(barrier, asked.deadline, move |view| read::account(view, account))
            .await?;
        let found = found.ok_or(shard::Refusal::NoAccount)?;
        let reply = v1::AccountStatusReply {
            modseq: found.modseq.0,
            quota_bytes: found.quota_bytes,
            used_bytes: found.used_bytes,
            messages: found.messages,
        };
        Ok((mail_reply::Result::AccountStatus(reply), found.modseq.0))
    }

    async fn body(&self, asked: &Asked, hash: BodyHash) -> Result<Bytes, Refused> {
        let sources = asked.group.bodies().sources();
        Ok(self
            .bodies
            .get(asked.group.shard(), hash, &sources, asked.deadline)
            .await?)
    }

    /// A body is found by account and message, never by its hash alone. Rows of messages do not change what body they name, so any
    /// replica that has the row may answer.
    async fn message_body(
        &self,
        asked: &Asked,
        account: AccountId,
        mailbox: MailboxId,
        uid: Uid,
    ) -> Result<Bytes, Refused> {
        let look = move |view: &dyn malle_machine::View| read::message(view, account, mailbox, uid);
        let mut found = asked.group.read(Barrier::Local, asked.deadline, look).await?;
        if found.is_none() {
            // Perhaps not applied here yet: ask again behind a barrier before saying no.
            found = asked.group.read(Barrier::Linearizable, asked.deadline, look).await?;
        }
        let message = found.ok_or_else(|| Refused::not_found("no such message"))?;
        self.body(asked, message.body).await
    }
}

fn unexpected(outcome: Outcome) -> Refused {
    match outcome {
        Outcome::Refused(refusal) => refusal.into(),
        other => Refused::internal(
            format!("an outcome of another kind: {other:?}")
                .chars()
                .take(200)
                .collect::<String>(),
        ),
    }
}

/// What a request is called in the table of roles, and whose account it is about.
fn named(call: &mail_request::Call) -> Result<(Call, Option<AccountId>), Refused> {
    use mail_request::Call as Asks;
    let (name, account) = match call {
        Asks::Deliver(_) => return Ok((Call::Deliver, None)),
        Asks::Append(call) => (Call::Append, &call.account),
        Asks::Store(call) => (Call::Store, &call.account),
        Asks::Copy(call) => (Call::Copy, &call.account),
        Asks::Expunge(call) => (Call::Expunge, &call.account),
        Asks::MailboxChange(call) => (Call::MailboxChange, &call.account),
        Asks::MailboxList(call) => (Call::MailboxList, &call.account),
        Asks::MailboxOpen(call) => (Call::MailboxOpen, &call.account),
        Asks::Fetch(call) => (Call::Fetch, &call.account),
        Asks::Changes(call) => (Call::Changes, &call.account),
        Asks::ReadBody(call) => (Call::ReadBody, &call.account),
        Asks::AccountStatus(call) => (Call::AccountStatus, &call.account),
    };
    Ok((name, Some(convert::account(account)?)))
}

type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Mail for MailApi {
    type CallStream = Streamed<MailReply>;

    async fn call(&self, request: Request<Streaming<MailRequest>>) -> Result<Response<Self::CallStream>, Status> {
        let (peer, _) = error::permitted(&request, Call::MailStream)?;
        let answers = stream::serve(self.clone(), peer, request.into_inner());
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }

    async fn upload(&self, request: Request<Streaming<UploadChunk>>) -> Result<Response<UploadReply>, Status> {
        let (peer, _) = error::permitted(&request, Call::Upload)?;
        let mut chunks = request.into_inner();
        let deadline = malle_rt::now() + TRANSFER;
        let received = malle_rt::timeout_at(deadline, async {
            let first = chunks
                .message()
                .await?
                .ok_or_else(|| Refused::invalid("an empty upload"))?;
            self.authorize_upload(&peer, &first.token).await?;
            if first.size > limits::MESSAGE_MAX_BYTES as u64 {
                return Err(Status::from(Refused::too_large(limits::MESSAGE_MAX_BYTES as u64)));
            }
            let size = first.size as usize;
            let mut body = BytesMut::with_capacity(size);
            let mut data = first.data;
            loop {
                if body.len() + data.len() > size {
                    return Err(Refused::invalid("more bytes than announced").into());
                }
                body.extend_from_slice(&data);
                match chunks.message().await? {
                    Some(chunk) => data = chunk.data,
                    None if body.len() == size => return Ok((first.shard, body.freeze())),
                    None => return Err(Refused::invalid("fewer bytes than announced").into()),
                }
            }
        });
        let (shard, body) = received
            .await
            .map_err(|_| Status::from(Refused::from(GroupError::Deadline)))??;
        let stored = async {
            let group = self.group(shard)?;
            let size = body.len() as u64;
            let put = self.intake_put(&group, body, deadline).await?;
            Ok(UploadReply {
                ticket: Some(v1::BodyTicket {
                    hash: put.hash.to_vec().into(),
                    size,
                }),
            })
        };
        error::reply(stored.await)
    }

    type DownloadStream = Streamed<DownloadChunk>;

    async fn download(&self, request: Request<DownloadRequest>) -> Result<Response<Self::DownloadStream>, Status> {
        let (peer, _) = error::permitted(&request, Call::Download)?;
        let request = request.into_inner();
        let account = convert::account(&request.account)?;
        self.authorize(&peer, Call::Download, &request.token, account).await?;
        let asked = Asked {
            group: self.group(request.shard)?,
            deadline: malle_rt::now() + TRANSFER,
        };
        let mailbox = convert::mailbox(&request.mailbox)?;
        let body = self.message_body(&asked, account, mailbox, Uid(request.uid)).await?;
        let size_bytes = body.len() as u64;
        let from = request.offset.min(size_bytes);
        let to = if request.length == 0 {
            size_bytes
        } else {
            size_bytes.min(from.saturating_add(request.length))
        };
        let wanted = body.slice(from as usize..to as usize);
        let chunks = futures::stream::unfold(Some((wanted, true)), move |rest| async move {
            let (mut rest, first) = rest?;
            let data = rest.split_to(rest.len().min(limits::BODY_CHUNK_BYTES));
            let chunk = DownloadChunk {
                size_bytes: if first { size_bytes } else { 0 },
                data,
            };
            Some((chunk, (!rest.is_empty()).then_some((rest, false))))
        });
        Ok(Response::new(Box::pin(chunks.map(Ok))))
    }

    type WatchStream = Streamed<WatchEvent>;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let (peer, _) = error::permitted(&request, Call::Watch)?;
        let request = request.into_inner();
        let account = convert::account(&request.account)?;
        self.authorize(&peer, Call::Watch, &request.token, account).await?;
        let group = self.group(request.shard)?;
        let events = watch::follow(group, account).await?;
        Ok(Response::new(Box::pin(ReceiverStream::new(events))))
    }
}
