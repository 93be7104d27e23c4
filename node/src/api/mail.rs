//! The `Mail` service: what front ends ask of a shard.
//!
//! Every request walks the same line: permitted (role, and token of the account), routed to the group that leads here, its body made
//! durable on a majority, its command proposed, its outcome converted.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use futures::{Stream, StreamExt};
use malle_machine::directory;
use malle_proto::v1::mail_server::Mail;
use malle_proto::v1::{
    self, DownloadChunk, DownloadRequest, MailReply, MailRequest, UploadChunk, UploadReply, WatchEvent, WatchRequest,
    mail_reply, mail_request,
};
use malle_proto::{AccountId, Rights, ShardId, Uid, limits};
use malle_rt::Instant;
use prost::Message as _;
use tokio::sync::{RwLock, Semaphore};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::error::{self, Refused};
use super::intake::Owner;
use super::outlines::Outlines;
use super::room::Room;
use super::standing::Standing;
use super::tally::{MailCounts, Tally};
use super::{convert, intake, sharing, stream, watch};
use crate::bodies::Bodies;
use crate::env::Env;
use crate::raft::{Barrier, Group, GroupError, Groups};
use crate::security::{Call, Denied, Peer, Token, TokenError, audit, permit, permit_token};

/// Token keys are read from the directory again after this long, and at once for a key that is not known.
const KEYS_FRESH: Duration = Duration::from_secs(5);
/// A large body takes longer than a request: this long at most.
const TRANSFER: Duration = Duration::from_secs(300);

/// When they were read, and the keys.
type TokenKeys = (Instant, Arc<[directory::TokenKey]>);

/// The `Mail` service.
#[derive(Clone)]
pub struct MailApi {
    pub(super) groups: Arc<Groups>,
    pub(super) bodies: Arc<Bodies>,
    pub(super) env: Env,
    pub(super) intake: Arc<intake::Intake>,
    pub(super) room: Room,
    pub(super) tally: Arc<Tally>,
    pub(super) outlines: Arc<Outlines>,
    pub(super) standing: Standing,
    /// Changes of the directory for grants that this node has under way.
    pub(super) sharing_turns: Arc<Semaphore>,
    keys: Arc<RwLock<Option<TokenKeys>>>,
}

/// A request whose deadline and group are known.
pub(super) struct Asked {
    pub(super) group: Arc<Group>,
    pub(super) deadline: Instant,
    /// Whose tickets the request may use.
    pub(super) owner: Owner,
    /// Who asks, when the account is another one's.
    pub(super) guest: Option<AccountId>,
}

/// An answer, and the account's MODSEQ with it; 0 when it says nothing about that.
pub(super) type Answer = Result<(mail_reply::Result, u64), Refused>;

impl MailApi {
    /// Answers for these groups.
    pub fn new(groups: Arc<Groups>, bodies: Arc<Bodies>, env: Env) -> Self {
        MailApi {
            standing: Standing::new(groups.clone(), env.clone()),
            groups,
            bodies,
            env,
            intake: Arc::default(),
            room: Room::of_a_node(),
            tally: Arc::default(),
            outlines: Arc::default(),
            sharing_turns: Arc::new(Semaphore::new(sharing::CHANGES_AT_ONCE)),
            keys: Arc::default(),
        }
    }

    /// What was answered since the start.
    pub fn counts(&self) -> MailCounts {
        self.tally.read(self.room.taken_bytes())
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

    /// Role, and where the table wants it a token that what opened it still stands behind. Another account than `account` that the token is
    /// of: a guest, who is let in by what `account` has granted to him ([`MailApi::admit`]) and by nothing else.
    async fn authorize(
        &self,
        peer: &Peer,
        call: Call,
        token: &[u8],
        account: AccountId,
    ) -> Result<Option<AccountId>, Refused> {
        let token = self.opened(peer, call, token).await?;
        Ok(token.map(|token| token.account).filter(|holder| *holder != account))
    }

    /// When a token that says so is over, on this node's clock.
    fn instant_of(&self, expires_ms: u64) -> Instant {
        let end_ms = expires_ms.saturating_add(limits::CLOCK_SKEW_MS);
        malle_rt::now() + Duration::from_millis(end_ms.saturating_sub(self.env.now_ms()))
    }

    /// Receives the bytes of an upload and puts them on a majority.
    async fn take_upload(
        &self,
        peer: &Peer,
        chunks: &mut Streaming<UploadChunk>,
        deadline: Instant,
    ) -> Result<UploadReply, Status> {
        let first = chunks.message().await?;
        let first = first.ok_or_else(|| Refused::invalid("an empty upload"))?;
        let token = self.opened(peer, Call::Upload, &first.token).await?;
        let owner = Owner::of(peer, token.map(|token| token.account))?;
        // Nobody sends fifty megabytes to a node that cannot keep them.
        let group = self.group(first.shard)?;
        if !group.is_leader() {
            return Err(Refused::from(GroupError::NotLeader { leader: group.leader() }).into());
        }
        group.takes_bodies().map_err(Refused::from)?;
        if first.size > limits::MESSAGE_MAX_BYTES as u64 {
            return Err(Refused::too_large(limits::MESSAGE_MAX_BYTES as u64).into());
        }
        let size = first.size as usize;
        let _room = self.room.take(size).await?;
        let mut body = BytesMut::with_capacity(size);
        let mut data = first.data;
        loop {
            if body.len() + data.len() > size {
                return Err(Refused::invalid("more bytes than announced").into());
            }
            body.extend_from_slice(&data);
            match chunks.message().await? {
                Some(chunk) => data = chunk.data,
                None if body.len() == size => break,
                None => return Err(Refused::invalid("fewer bytes than announced").into()),
            }
        }
        let put = self.upload_put(&group, body.freeze(), owner, deadline).await?;
        Ok(UploadReply {
            ticket: Some(v1::BodyTicket {
                hash: put.hash.to_vec().into(),
                size: put.size,
            }),
        })
    }

    /// Opens the token of a caller whom the table allows a call with one; `None` when the call needs none.
    async fn opened(&self, peer: &Peer, call: Call, token: &[u8]) -> Result<Option<Token>, Refused> {
        for fresh in [false, true] {
            let keys = self.token_keys(fresh).await?;
            match permit_token(peer, call, token, &keys, self.env.now_ms()) {
                Err(Denied::Token(TokenError::UnknownKey(_))) if !fresh => {}
                verdict => {
                    let token = verdict?;
                    if let Some(token) = &token {
                        self.standing.require(token).await?;
                    }
                    return Ok(token);
                }
            }
        }
        Err(Refused::denied("the token's key is not known"))
    }

    /// One request of a client stream: an answer in any case, and one that the stream can carry.
    pub(crate) async fn answer(&self, peer: &Peer, request: MailRequest) -> MailReply {
        let id = request.id;
        let wanted = match request.deadline_ms {
            0 => limits::DEFAULT_DEADLINE_MS,
            given => u64::from(given).min(10 * limits::DEFAULT_DEADLINE_MS),
        };
        let deadline = malle_rt::now() + Duration::from_millis(wanted);
        let answer = match malle_rt::timeout_at(deadline, self.dispatch(peer, request, deadline)).await {
            Ok(answer) => answer,
            Err(_) => Err(GroupError::Deadline.into()),
        };
        let reply = match answer {
            Ok(reply) => MailReply { id, ..reply },
            Err(refused) => self.refuse(id, refused),
        };
        if reply.encoded_len() > limits::GRPC_MESSAGE_MAX_BYTES {
            return self.refuse(id, Refused::limit("the answer is larger than a message may be"));
        }
        reply
    }

    /// The answer to a request that is not done.
    pub(super) fn refuse(&self, id: u64, refused: Refused) -> MailReply {
        self.tally.refused(refused.0.code());
        MailReply {
            id,
            result: Some(mail_reply::Result::Error(refused.0)),
            ..MailReply::default()
        }
    }

    /// What the request asks, and the news that it asks for besides.
    async fn dispatch(&self, peer: &Peer, request: MailRequest, deadline: Instant) -> Result<MailReply, Refused> {
        let call = request
            .call
            .ok_or_else(|| Refused::invalid("a request of no kind that is known here"))?;
        let token = request.token;
        // The order matters: nobody learns where a shard is, or that it is, without being let in.
        let (name, account) = named(&call)?;
        let guest = match account {
            Some(account) => self.authorize(peer, name, &token, account).await?,
            None => {
                permit(peer, name)?;
                None
            }
        };
        let asked = Asked {
            group: self.group(request.shard)?,
            deadline,
            owner: Owner::of(peer, guest.or(account))?,
            guest,
        };
        if let (Some(guest), Some(account)) = (guest, account)
            && let Err(refused) = self.admit(&asked, guest, account, &call).await
        {
            audit::guest_refused(peer, name, guest, account, &refused.0.message);
            return Err(refused);
        }
        let (result, account_modseq) = self.perform(&asked, call).await?;
        let news = match (request.news_of, account) {
            (Some(news_of), Some(account))
                if is_whole_change(&result) && self.may_hear(&asked, account, &news_of).await =>
            {
                self.news(&asked, account, news_of).await
            }
            _ => None,
        };
        Ok(MailReply {
            id: 0,
            account_modseq,
            news,
            result: Some(result),
        })
    }

    async fn perform(&self, asked: &Asked, call: mail_request::Call) -> Answer {
        use mail_request::Call as Asks;
        match call {
            Asks::Deliver(deliver) => self.deliver(asked, deliver).await,
            Asks::Append(append) => self.append(asked, append).await,
            Asks::Store(store) => self.store(asked, store).await,
            Asks::Copy(copy) => self.copy(asked, copy).await,
            Asks::Expunge(expunge) => self.expunge(asked, expunge).await,
            Asks::MailboxChange(change) => self.mailbox_change(asked, change).await,
            Asks::MailboxList(list) => self.mailbox_list(asked, list).await,
            Asks::MailboxOpen(open) => self.mailbox_open(asked, open).await,
            Asks::Fetch(fetch) => self.fetch(asked, fetch).await,
            Asks::Changes(changes) => self.changes(asked, changes).await,
            Asks::ReadBody(read) => self.read_body(asked, read).await,
            Asks::ReadBodies(read) => self.read_bodies(asked, read).await,
            Asks::AccountStatus(status) => self.account_status(asked, status).await,
            Asks::AppendAll(append) => self.append_all(asked, append).await,
            Asks::Annotations(annotations) => self.annotations(asked, annotations).await,
            Asks::Grants(grants) => self.grants(asked, grants).await,
        }
    }
}

/// Whether a change has been made, and none of it is left for a further command.
fn is_whole_change(result: &mail_reply::Result) -> bool {
    use mail_reply::Result as Is;
    match result {
        Is::Append(_) | Is::AppendAll(_) | Is::MailboxChange(_) => true,
        Is::Store(done) => done.resume_from.is_none(),
        Is::Copy(done) => done.resume_from.is_none(),
        Is::Expunge(done) => done.resume_from.is_none(),
        _ => false,
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
        Asks::ReadBodies(call) => (Call::ReadBodies, &call.account),
        Asks::AccountStatus(call) => (Call::AccountStatus, &call.account),
        Asks::AppendAll(call) => (Call::AppendAll, &call.account),
        Asks::Annotations(call) => (Call::Annotations, &call.account),
        Asks::Grants(call) => (Call::Grants, &call.account),
    };
    Ok((name, Some(convert::account(account)?)))
}

/// Ends when a watch must: with its token, or with what opened it.
async fn over(standing: Standing, token: Option<(Instant, Token)>) {
    let Some((until, token)) = token else {
        return std::future::pending().await;
    };
    let pause = Duration::from_millis(limits::LOGIN_CHECK_MS);
    loop {
        malle_rt::sleep_until(until.min(malle_rt::now() + pause)).await;
        if malle_rt::now() >= until {
            return;
        }
        // A directory that does not answer now ends nobody's watch.
        if let Ok(false) = standing.holds_now(&token).await {
            return;
        }
    }
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
        let deadline = malle_rt::now() + TRANSFER;
        let mut chunks = request.into_inner();
        match malle_rt::timeout_at(deadline, self.take_upload(&peer, &mut chunks, deadline)).await {
            Ok(done) => done,
            Err(_) => Err(Refused::from(GroupError::Deadline).into()),
        }
        .map(Response::new)
        .inspect_err(|status| self.tally.refused(error::code_of(status)))
    }

    type DownloadStream = Streamed<DownloadChunk>;

    async fn download(&self, request: Request<DownloadRequest>) -> Result<Response<Self::DownloadStream>, Status> {
        let (peer, _) = error::permitted(&request, Call::Download)?;
        let request = request.into_inner();
        let account = convert::account(&request.account)?;
        let guest = self.authorize(&peer, Call::Download, &request.token, account).await?;
        let asked = Asked {
            group: self.group(request.shard)?,
            deadline: malle_rt::now() + TRANSFER,
            owner: Owner::of(&peer, guest.or(Some(account)))?,
            guest,
        };
        let mailbox = convert::mailbox(&request.mailbox)?;
        if let Some(guest) = guest {
            self.require(&asked, guest, account, mailbox, Rights::READ).await?;
        }
        let (body, room) = self.message_body(&asked, account, mailbox, Uid(request.uid)).await?;
        let size_bytes = body.len() as u64;
        let from = request.offset.min(size_bytes);
        let to = if request.length == 0 {
            size_bytes
        } else {
            size_bytes.min(from.saturating_add(request.length))
        };
        let wanted = body.slice(from as usize..to as usize);
        // The room goes with the bytes: a reader that does not read keeps it, up to the connection's patience.
        let chunks = futures::stream::unfold(Some((wanted, true, room)), move |rest| async move {
            let (mut rest, first, room) = rest?;
            let data = rest.split_to(rest.len().min(limits::BODY_CHUNK_BYTES));
            let chunk = DownloadChunk {
                size_bytes: if first { size_bytes } else { 0 },
                data,
            };
            Some((chunk, (!rest.is_empty()).then_some((rest, false, room))))
        });
        Ok(Response::new(Box::pin(chunks.map(Ok))))
    }

    type WatchStream = Streamed<WatchEvent>;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let (peer, _) = error::permitted(&request, Call::Watch)?;
        let request = request.into_inner();
        let account = convert::account(&request.account)?;
        let guest = self.authorize(&peer, Call::Watch, &request.token, account).await?;
        let group = self.group(request.shard)?;
        let token = self.opened(&peer, Call::Watch, &request.token).await?;
        let token = token.map(|token| (self.instant_of(token.expires_ms), token));
        let events = watch::follow(group, account, guest, over(self.standing.clone(), token)).await?;
        Ok(Response::new(Box::pin(ReceiverStream::new(events))))
    }
}
