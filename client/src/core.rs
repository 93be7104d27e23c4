//! The loop under every call: find whom to ask, ask, learn from the answer, ask again until there is one or the time is over.
//!
//! Two shapes of call share it: requests on a node's standing mail stream ([`Core::mail`]) and unary calls ([`Core::ask`]). What follows
//! a failed try is decided in [`crate::retry`], whom to ask in [`crate::route`]; this file only joins the two. A call is sent as it is
//! each time, op id and all, which is what makes the repetition harmless.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use malle_proto::v1::directory_client::DirectoryClient;
use malle_proto::v1::mail_reply::Result as Answer;
use malle_proto::v1::mail_request::Call;
use malle_proto::v1::{
    Body, BodyTicket, MailReply, MailRequest, NewsOf, ResolveRequest, TopologyRequest, body, resolve_request,
};
use malle_proto::{AccountId, Channel, ShardId, limits};
use malle_rt::Instant;
use tonic::{Request, Response, Status};

use crate::addresses::Addresses;
use crate::connection::Connection;
use crate::convert;
use crate::directory::Topology;
use crate::error::{Error, Failure};
use crate::nodes::{Nodes, Target};
use crate::retry::Retry;
use crate::route::Routes;

/// What all clones of a client share.
pub(crate) struct Core {
    pub(crate) nodes: Nodes,
    pub(crate) routes: Routes,
    pub(crate) addresses: Addresses,
}

/// Which replica of a shard is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Prefer {
    /// Its leader: writes and linearizable reads.
    Leader,
    /// Any: reads that say themselves how old they may be.
    Any,
}

/// Whose shard is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// The shard where this account lives; found again when the account has moved.
    Account(AccountId),
    /// This shard.
    Shard(ShardId),
}

/// A request on the mail stream.
#[derive(Clone)]
pub(crate) struct MailCall {
    pub(crate) place: Place,
    pub(crate) prefer: Prefer,
    /// Login token; empty for a delivery.
    pub(crate) token: Bytes,
    pub(crate) call: Call,
    /// To be answered besides, with a change.
    pub(crate) news_of: Option<NewsOf>,
    /// Bodies of the call that are too large to ride along, each with the number of the message that it is the body of.
    pub(crate) uploads: Vec<(usize, Arc<Upload>)>,
}

/// A body that is sent ahead of its command, to each node at most once.
pub(crate) struct Upload {
    pub(crate) bytes: Bytes,
    done: Mutex<Option<(String, BodyTicket)>>,
}

impl Upload {
    pub(crate) fn new(bytes: Bytes) -> Arc<Upload> {
        Arc::new(Upload {
            bytes,
            done: Mutex::new(None),
        })
    }

    /// The ticket for a command that goes to this node.
    async fn ticket(&self, at: &Connection, shard: ShardId, token: &Bytes) -> Result<BodyTicket, Failure> {
        let held = self.done.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((address, ticket)) = held
            && address == at.address()
        {
            return Ok(ticket);
        }
        let ticket = at.upload(shard, token.clone(), self.bytes.clone()).await?;
        let done = (at.address().to_owned(), ticket.clone());
        *self.done.lock().unwrap_or_else(PoisonError::into_inner) = Some(done);
        Ok(ticket)
    }

    /// A ticket that the node did not take is worth nothing: the next try uploads again.
    fn forget(&self) {
        *self.done.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Core {
    /// Sends a mail request until it has an answer.
    pub(crate) async fn mail(&self, deadline: Instant, call: MailCall) -> Result<MailReply, Error> {
        let call = Arc::new(call);
        let patient = !call.uploads.is_empty();
        self.repeat(call.place, call.prefer, patient, deadline, |at, shard, left| {
            try_mail(call.clone(), at, shard, left)
        })
        .await
    }

    /// Sends a unary call until it has an answer.
    pub(crate) async fn ask<M, R, F, Fut>(
        &self,
        shard: ShardId,
        deadline: Instant,
        message: M,
        send: F,
    ) -> Result<R, Error>
    where
        M: Clone + Send + Sync,
        F: Fn(Channel, Request<M>) -> Fut + Send + Sync,
        Fut: Future<Output = Result<Response<R>, Status>> + Send,
    {
        self.ask_for(false, shard, deadline, message, send).await
    }

    /// As [`Core::ask`], for work that takes as long as the caller is ready to wait.
    pub(crate) async fn ask_patiently<M, R, F, Fut>(
        &self,
        shard: ShardId,
        deadline: Instant,
        message: M,
        send: F,
    ) -> Result<R, Error>
    where
        M: Clone + Send + Sync,
        F: Fn(Channel, Request<M>) -> Fut + Send + Sync,
        Fut: Future<Output = Result<Response<R>, Status>> + Send,
    {
        self.ask_for(true, shard, deadline, message, send).await
    }

    async fn ask_for<M, R, F, Fut>(
        &self,
        patient: bool,
        shard: ShardId,
        deadline: Instant,
        message: M,
        send: F,
    ) -> Result<R, Error>
    where
        M: Clone + Send + Sync,
        F: Fn(Channel, Request<M>) -> Fut + Send + Sync,
        Fut: Future<Output = Result<Response<R>, Status>> + Send,
    {
        self.repeat(Place::Shard(shard), Prefer::Leader, patient, deadline, |at, _, left| {
            unary(&at, left, message.clone(), &send)
        })
        .await
    }

    /// Asks one node and no other: a second time only if the connection at hand turned out to be broken.
    pub(crate) async fn ask_node<M, R, F, Fut>(
        &self,
        at: &Target,
        deadline: Instant,
        message: M,
        send: F,
    ) -> Result<R, Error>
    where
        M: Clone + Send + Sync,
        F: Fn(Channel, Request<M>) -> Fut + Send + Sync,
        Fut: Future<Output = Result<Response<R>, Status>> + Send,
    {
        let retry = Retry::until(deadline);
        let mut second = false;
        loop {
            let out_of_time = || Error::Unavailable(format!("{} did not answer in time", at.address));
            let left = retry.left().ok_or_else(out_of_time)?;
            let whole = async {
                let connection = self
                    .nodes
                    .get(at)
                    .await
                    .map_err(|error| Failure::Answer(Error::Unavailable(error.text)))?;
                let answer = unary(&connection, left, message.clone(), &send).await;
                if let Err(Failure::Broken(_)) = answer {
                    self.nodes.forget(&connection);
                }
                answer
            };
            match malle_rt::timeout(left, whole).await.map_err(|_| out_of_time())? {
                Ok(answer) => return Ok(answer),
                Err(Failure::Broken(_)) if !second => second = true,
                Err(failure) => return Err(failure.into_error()),
            }
        }
    }

    /// The loop itself. `attempt` gets a connection, the shard and the time that it has.
    pub(crate) async fn repeat<T, F, Fut>(
        &self,
        place: Place,
        prefer: Prefer,
        patient: bool,
        deadline: Instant,
        mut attempt: F,
    ) -> Result<T, Error>
    where
        F: FnMut(Arc<Connection>, ShardId, Duration) -> Fut + Send,
        Fut: Future<Output = Result<T, Failure>> + Send,
    {
        let mut retry = Retry::until(deadline);
        let mut asked: Vec<String> = Vec::new();
        let turn = malle_rt::random_below(u64::from(u32::MAX)) as usize;
        loop {
            let shard = match place {
                Place::Shard(shard) => shard,
                Place::Account(account) => self.home(account, deadline).await?,
            };
            let candidates = self.order(shard, prefer, turn, deadline).await;
            let target = candidates
                .iter()
                .find(|target| !asked.contains(&target.address))
                .or(candidates.first())
                .cloned();
            let failure = match (&target, retry.time_for_a_try(patient)) {
                (_, None) => return Err(Error::Unavailable("the deadline is over".to_owned())),
                (None, _) => Failure::Broken(format!("no node of shard {shard} is known")),
                (Some(target), Some(time)) => match self.try_once(target, shard, time, &mut attempt).await {
                    Ok(answer) => return Ok(answer),
                    Err(failure) => failure,
                },
            };
            if let Some(target) = target {
                asked.push(target.address.clone());
                let hinted_back = self.learn(place, shard, &target, &failure, &asked, deadline).await;
                // A hint at a node that has just failed is an old one: whoever gave it has not noticed yet.
                let failure = if hinted_back { Failure::NotLeader(None) } else { failure };
                let another = candidates.iter().any(|target| !asked.contains(&target.address));
                if retry.after(failure, another).await? {
                    asked.clear();
                }
            } else if retry.after(failure, false).await? {
                asked.clear();
            }
        }
    }

    async fn try_once<T, F, Fut>(
        &self,
        at: &Target,
        shard: ShardId,
        time: Duration,
        attempt: &mut F,
    ) -> Result<T, Failure>
    where
        F: FnMut(Arc<Connection>, ShardId, Duration) -> Fut + Send,
        Fut: Future<Output = Result<T, Failure>> + Send,
    {
        let whole = async {
            let connection = self.nodes.get(at).await.map_err(|error| Failure::Broken(error.text))?;
            let answer = attempt(connection.clone(), shard, time).await;
            if let Err(Failure::Broken(_)) = answer {
                self.nodes.forget(&connection);
            }
            answer
        };
        match malle_rt::timeout(time, whole).await {
            Ok(answer) => answer,
            Err(_) => {
                self.nodes.suspect(&at.address);
                Err(Failure::Silent(format!(
                    "{} gave no answer within {time:?}",
                    at.address
                )))
            }
        }
    }

    /// Replicas of a shard, best first; those that could not be reached a moment ago last.
    async fn order(&self, shard: ShardId, prefer: Prefer, turn: usize, deadline: Instant) -> Vec<Target> {
        if !self.routes.knows(shard) {
            self.refresh(deadline).await;
        }
        let mut candidates = self.routes.candidates(shard);
        if prefer == Prefer::Any && !candidates.is_empty() {
            let turn = turn % candidates.len();
            candidates.rotate_left(turn);
        }
        candidates.sort_by_key(|target| self.nodes.is_suspect(&target.address));
        candidates
    }

    /// Mends the routes by what a try has shown. True: the node pointed back at one that was asked already.
    async fn learn(
        &self,
        place: Place,
        shard: ShardId,
        at: &Target,
        failure: &Failure,
        asked: &[String],
        deadline: Instant,
    ) -> bool {
        if let (Some(node), Failure::NotLeader(_) | Failure::Broken(_) | Failure::Silent(_)) = (at.node, failure) {
            self.routes.no_leader(shard, node);
        }
        match failure {
            Failure::NotLeader(Some(leader)) => {
                if self.routes.node(*leader).is_none() {
                    self.refresh(deadline).await;
                }
                let back = self
                    .routes
                    .node(*leader)
                    .is_none_or(|target| asked.contains(&target.address));
                if !back {
                    self.routes.leader(shard, *leader);
                }
                back
            }
            Failure::Moved(to) => {
                if let Place::Account(account) = place {
                    self.routes.set_home(account, *to);
                }
                false
            }
            Failure::Broken(_) | Failure::Silent(_) => {
                self.refresh(deadline).await;
                false
            }
            _ => false,
        }
    }

    /// The shard of an account: remembered, or asked of the directory.
    pub(crate) async fn home(&self, account: AccountId, deadline: Instant) -> Result<ShardId, Error> {
        if let Some(shard) = self.routes.home(account) {
            return Ok(shard);
        }
        self.ask_home(account, deadline).await
    }

    /// Boxed: the loop asks for a home, which is asked for by the loop.
    fn ask_home(&self, account: AccountId, deadline: Instant) -> BoxFuture<'_, Result<ShardId, Error>> {
        Box::pin(async move {
            let who = resolve_request::Who::Account(Bytes::copy_from_slice(account.as_bytes()));
            let message = ResolveRequest {
                who: Some(who),
                linearizable: false,
            };
            let asked = self.ask(ShardId::DIRECTORY, deadline, message, |channel, request| async move {
                DirectoryClient::new(channel).resolve(request).await
            });
            let resolved = convert::resolved(asked.await?)?;
            self.routes.set_home(account, resolved.shard);
            Ok(resolved.shard)
        })
    }

    /// Learns the topology anew, if nobody did a moment ago. That it fails is no failure of the call that wanted it.
    pub(crate) async fn refresh(&self, deadline: Instant) {
        if !self.routes.may_refresh() {
            return;
        }
        for target in self.routes.candidates(ShardId::DIRECTORY) {
            let bound = (malle_rt::now() + Duration::from_millis(limits::CONNECT_MAX_MS)).min(deadline);
            match self.topology_from(&target, bound).await {
                Ok(topology) => return self.routes.learn(&topology),
                Err(error) => tracing::debug!(at = %target.address, %error, "no topology from this node"),
            }
        }
    }

    /// The topology as one node tells it.
    pub(crate) async fn topology_from(&self, target: &Target, deadline: Instant) -> Result<Topology, Error> {
        let asked = self.ask_node(target, deadline, TopologyRequest {}, |channel, request| async move {
            DirectoryClient::new(channel)
                .max_decoding_message_size(limits::GRPC_MESSAGE_MAX_BYTES)
                .topology(request)
                .await
        });
        convert::topology(asked.await?)
    }
}

/// One unary call on one connection, with its time told to the node.
fn unary<M, R, F, Fut>(
    at: &Connection,
    left: Duration,
    message: M,
    send: &F,
) -> impl Future<Output = Result<R, Failure>> + Send + use<M, R, F, Fut>
where
    F: Fn(Channel, Request<M>) -> Fut + Send + Sync,
    Fut: Future<Output = Result<Response<R>, Status>> + Send,
{
    let mut request = Request::new(message);
    request.set_timeout(left);
    let sent = send(at.channel(), request);
    async move {
        sent.await
            .map(Response::into_inner)
            .map_err(|status| Failure::from_status(&status))
    }
}

/// One mail request on one connection: its body first when that is large.
async fn try_mail(
    call: Arc<MailCall>,
    at: Arc<Connection>,
    shard: ShardId,
    left: Duration,
) -> Result<MailReply, Failure> {
    let mut request = MailRequest {
        id: 0,
        shard: shard.0,
        deadline_ms: u32::try_from(left.as_millis()).unwrap_or(u32::MAX),
        token: call.token.clone(),
        news_of: call.news_of.clone(),
        call: Some(call.call.clone()),
    };
    for (message, upload) in &call.uploads {
        let ticket = upload.ticket(&at, shard, &call.token).await?;
        set_body(&mut request, *message, body::Source::Ticket(ticket));
    }
    let reply = at.call(request).await?;
    match reply.result {
        Some(Answer::Error(error)) => {
            call.uploads.iter().for_each(|(_, upload)| upload.forget());
            Err(Failure::from_wire(error))
        }
        Some(_) => Ok(reply),
        None => Err(Failure::Answer(Error::Internal(
            "a node sent an empty answer".to_owned(),
        ))),
    }
}

fn set_body(request: &mut MailRequest, message: usize, source: body::Source) {
    let body = Some(Body { source: Some(source) });
    match &mut request.call {
        Some(Call::Deliver(deliver)) => deliver.body = body,
        Some(Call::Append(append)) => append.body = body,
        Some(Call::AppendAll(append)) => {
            if let Some(arriving) = append.messages.get_mut(message) {
                arriving.body = body;
            }
        }
        // No other call has a body.
        _ => {}
    }
}
