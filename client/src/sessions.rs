//! Sessions of mail programs: what gateways tell of theirs, what operators ask, and which logins are over.
//!
//! A gateway attends one node ([`Client::attend`]) and is asked there; an operator asks every node ([`Sessions`]). Neither remembers anything:
//! what is told is what is open now.

use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use malle_proto::v1::directory_client::DirectoryClient;
use malle_proto::v1::sessions_client::SessionsClient;
use malle_proto::{AccountId, Channel, NodeId, ShardId, limits, v1};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::client::Client;
use crate::convert;
use crate::core::{Place, Prefer};
use crate::error::{Error, Failure};

/// Two signs of life may be late; a third one is not coming.
const SILENCE: Duration = Duration::from_millis(3 * limits::WATCH_HEARTBEAT_MS);

/// A session of a mail program at a gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailSession {
    /// Drawn, unique among all gateways.
    pub id: String,
    /// "imap".
    pub protocol: String,
    /// IP:PORT of the mail program, or of the proxy before it.
    pub peer: String,
    /// It is encrypted.
    pub tls: bool,
    /// "password", "application password phone", "access token".
    pub opened_by: String,
    /// For how long it has been logged in, in milliseconds.
    pub open_ms: u64,
}

/// What one gateway said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewaySessions {
    /// The name in its certificate.
    pub gateway: String,
    /// `None`: it did not answer in time, and may have some.
    pub sessions: Option<Vec<MailSession>>,
}

/// What all gateways said that could be asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionsSeen {
    /// By name.
    pub gateways: Vec<GatewaySessions>,
    /// Nodes that did not answer: gateways that attend them were not asked.
    pub silent_nodes: Vec<NodeId>,
}

/// What a gateway is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionsQuestion {
    id: u64,
    /// Whose sessions.
    pub account: AccountId,
    /// End those that are told.
    pub end: bool,
    /// Only this one.
    pub session: Option<String>,
}

/// What a gateway holds of a login, to ask whether it still stands.
#[derive(Clone, Default)]
pub struct LoginProof(pub(crate) Bytes);

impl std::fmt::Debug for LoginProof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LoginProof")
    }
}

fn service(channel: Channel) -> SessionsClient<Channel> {
    SessionsClient::new(channel).max_decoding_message_size(limits::GRPC_MESSAGE_MAX_BYTES)
}

/// Sessions, for operators.
#[derive(Clone)]
pub struct Sessions {
    pub(crate) client: Client,
}

impl Sessions {
    /// The sessions that an account has now.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when no node answers, [`Error::Denied`].
    pub async fn show(&self, account: AccountId) -> Result<SessionsSeen, Error> {
        let message = v1::SessionsRequest {
            account: Bytes::copy_from_slice(account.as_bytes()),
        };
        self.ask(message, |channel, request| async move {
            service(channel).show(request).await
        })
        .await
    }

    /// Ends sessions of an account, all or the one with this id, and says which those were. They may come back at once: to keep somebody out,
    /// take back what opened them.
    ///
    /// # Errors
    /// As [`Sessions::show`].
    pub async fn end(&self, account: AccountId, session: Option<&str>) -> Result<SessionsSeen, Error> {
        let message = v1::SessionsEndRequest {
            account: Bytes::copy_from_slice(account.as_bytes()),
            session: session.unwrap_or_default().to_owned(),
        };
        self.ask(message, |channel, request| async move {
            service(channel).end(request).await
        })
        .await
    }

    /// Asks every node that is in use.
    async fn ask<M, F, Fut>(&self, message: M, send: F) -> Result<SessionsSeen, Error>
    where
        M: Clone + Send + Sync,
        F: Fn(Channel, tonic::Request<M>) -> Fut + Send + Sync,
        Fut: Future<Output = Result<tonic::Response<v1::SessionsReply>, tonic::Status>> + Send,
    {
        let topology = self.client.directory().topology().await?;
        let nodes = topology.nodes.iter().filter(|node| !node.retired);
        let answers = join_all(nodes.map(|node| {
            let (message, send) = (message.clone(), &send);
            async move {
                let target = self.client.core.routes.node(node.id);
                let target = target.ok_or_else(|| Error::NotFound(format!("node {}", node.id)))?;
                let asked = self.client.core.ask_node(&target, self.client.until(), message, send);
                asked.await
            }
        }));
        let mut seen = SessionsSeen::default();
        let answers = answers.await;
        let nodes = topology.nodes.iter().filter(|node| !node.retired);
        let mut refusal = None;
        for (node, answer) in nodes.zip(answers) {
            match answer {
                Ok(reply) => seen.gateways.extend(reply.gateways.into_iter().map(gateway)),
                Err(Error::Denied(text)) => return Err(Error::Denied(text)),
                Err(error) => {
                    seen.silent_nodes.push(node.id);
                    refusal = Some(error);
                }
            }
        }
        if let Some(error) = refusal.filter(|_| seen.silent_nodes.len() == topology.nodes.len()) {
            return Err(error);
        }
        seen.gateways.sort_by(|one, other| one.gateway.cmp(&other.gateway));
        Ok(seen)
    }
}

fn gateway(wire: v1::GatewaySessions) -> GatewaySessions {
    let session = |wire: v1::MailSession| MailSession {
        id: wire.id,
        protocol: wire.protocol,
        peer: wire.peer,
        tls: wire.tls,
        opened_by: wire.opened_by,
        open_ms: wire.open_ms,
    };
    GatewaySessions {
        gateway: wire.gateway,
        sessions: (!wire.silent).then(|| wire.sessions.into_iter().map(session).collect()),
    }
}

/// A gateway's stream to one node: it is asked here about its sessions.
pub struct Attendance {
    answers: mpsc::Sender<v1::SessionsAnswer>,
    questions: Streaming<v1::SessionsQuestion>,
}

impl Attendance {
    /// The next question. Dropping the future loses nothing.
    ///
    /// # Errors
    /// The stream has ended: attend again.
    pub async fn next(&mut self) -> Result<SessionsQuestion, Error> {
        loop {
            let question = match malle_rt::timeout(SILENCE, self.questions.message()).await {
                Ok(Ok(Some(question))) => question,
                Ok(Ok(None)) => return Err(Error::Unavailable("the node ended the stream".to_owned())),
                Ok(Err(status)) => return Err(Failure::from_status(&status).into_error()),
                Err(_) => return Err(Error::Unavailable("the node was silent for too long".to_owned())),
            };
            // A sign of life.
            if question.id == 0 {
                continue;
            }
            return Ok(SessionsQuestion {
                id: question.id,
                account: convert::id(&question.account)?,
                end: question.end,
                session: Some(question.session).filter(|session| !session.is_empty()),
            });
        }
    }

    /// Answers a question with the sessions that it is about, at most [`limits::SESSIONS_PER_ANSWER_MAX`] of them.
    ///
    /// # Errors
    /// The stream has ended: attend again.
    pub async fn answer(&self, question: &SessionsQuestion, sessions: Vec<MailSession>) -> Result<(), Error> {
        let session = |session: MailSession| v1::MailSession {
            id: session.id,
            protocol: session.protocol,
            peer: session.peer,
            tls: session.tls,
            opened_by: session.opened_by,
            open_ms: session.open_ms,
        };
        let told = sessions.into_iter().take(limits::SESSIONS_PER_ANSWER_MAX);
        let answer = v1::SessionsAnswer {
            id: question.id,
            sessions: told.map(session).collect(),
        };
        let sent = self.answers.send(answer).await;
        sent.map_err(|_| Error::Unavailable("the stream to the node has ended".to_owned()))
    }
}

impl Client {
    /// Sessions of mail programs, for operators.
    pub fn sessions(&self) -> Sessions {
        Sessions { client: self.clone() }
    }

    /// Attends a node, any that answers: the gateway is asked there about its sessions.
    ///
    /// # Errors
    /// [`Error::Unavailable`] at the deadline, [`Error::Denied`], [`Error::Limit`].
    pub async fn attend(&self) -> Result<Attendance, Error> {
        let place = Place::Shard(ShardId::DIRECTORY);
        let opened = self.core.repeat(place, Prefer::Any, false, self.until(), |at, _, _| {
            let (answers, said) = mpsc::channel(limits::SESSIONS_QUESTIONS_MAX);
            async move {
                let opened = service(at.channel()).attend(ReceiverStream::new(said)).await;
                let questions = opened.map_err(|status| Failure::from_status(&status))?.into_inner();
                Ok(Attendance { answers, questions })
            }
        });
        opened.await
    }

    /// Which of these logins of this gateway are over, by their places: what opened them was taken back or has run out, or the account may
    /// not be used. At most [`limits::LOGINS_PER_CHECK_MAX`].
    ///
    /// # Errors
    /// Class Retry: nothing is known about any of them.
    pub async fn logins_over(&self, logins: &[LoginProof]) -> Result<Vec<usize>, Error> {
        let message = v1::CheckLoginsRequest {
            tokens: logins.iter().map(|login| login.0.clone()).collect(),
        };
        let asked = self.core.ask(
            ShardId::DIRECTORY,
            self.until(),
            message,
            |channel, request| async move { DirectoryClient::new(channel).check_logins(request).await },
        );
        Ok(asked.await?.over.into_iter().map(|place| place as usize).collect())
    }
}
