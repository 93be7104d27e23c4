//! The `Sessions` service: operators ask which sessions an account has, and end them. Only gateways know, so each gateway keeps a stream to one
//! node and is asked through it; an operator asks every node.
//!
//! What is kept here lives as long as its stream. A gateway that does not answer in time is told of as silent: an operator must not believe
//! that an account has no sessions because nobody said so. What is absent: any memory of sessions in the nodes, and a port on the gateways.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::{Stream, StreamExt};
use malle_proto::limits;
use malle_proto::v1::sessions_server::Sessions;
use malle_proto::v1::{
    GatewaySessions, SessionsAnswer, SessionsEndRequest, SessionsQuestion, SessionsReply, SessionsRequest,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::directory::account_id;
use super::error::{self, Refused};
use crate::security::{Call, Identity, Peer, audit};

/// The `Sessions` service.
#[derive(Clone)]
pub struct SessionsApi {
    attending: Arc<Mutex<Attending>>,
    stopped: watch::Receiver<bool>,
}

/// Gateways that attend here. Ids are drawn from one counter, for streams and questions alike, and never given twice.
#[derive(Default)]
struct Attending {
    last_id: u64,
    gateways: BTreeMap<u64, Attendant>,
}

struct Attendant {
    gateway: String,
    questions: mpsc::Sender<Result<SessionsQuestion, Status>>,
    waiting: BTreeMap<u64, oneshot::Sender<SessionsAnswer>>,
}

/// A question on its way: whom it went to, and where the answer comes; `None` when it could not be asked.
type Asked = (String, Option<oneshot::Receiver<SessionsAnswer>>);

impl SessionsApi {
    /// Streams end when `stopped` becomes true.
    pub fn new(stopped: watch::Receiver<bool>) -> Self {
        SessionsApi {
            attending: Arc::default(),
            stopped,
        }
    }

    fn attending(&self) -> MutexGuard<'_, Attending> {
        self.attending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a gateway in until its stream ends.
    fn take_in(
        &self,
        gateway: String,
        answers: impl Stream<Item = Result<SessionsAnswer, Status>> + Send + Unpin + 'static,
    ) -> Result<mpsc::Receiver<Result<SessionsQuestion, Status>>, Refused> {
        let (questions, out) = mpsc::channel(limits::SESSIONS_QUESTIONS_MAX);
        let id = {
            let mut attending = self.attending();
            if attending.gateways.len() >= limits::GATEWAYS_PER_NODE_MAX {
                return Err(Refused::limit("as many gateways attend this node as may"));
            }
            attending.last_id += 1;
            let id = attending.last_id;
            let attendant = Attendant {
                gateway,
                questions,
                waiting: BTreeMap::new(),
            };
            attending.gateways.insert(id, attendant);
            id
        };
        let (api, mut stopped) = (self.clone(), self.stopped.clone());
        malle_rt::spawn(async move {
            tokio::select! {
                () = api.listen(id, answers) => {}
                // The sender lives as long as the node: an error means that it is gone, too.
                _ = stopped.wait_for(|stopped| *stopped) => {}
            }
            // Whoever waits for an answer of this gateway hears that there will be none.
            api.attending().gateways.remove(&id);
        });
        Ok(out)
    }

    /// Hands answers to those who wait for them, with a sign of life now and then, until the stream ends.
    async fn listen(&self, id: u64, mut answers: impl Stream<Item = Result<SessionsAnswer, Status>> + Send + Unpin) {
        let pause = Duration::from_millis(limits::WATCH_HEARTBEAT_MS);
        loop {
            match malle_rt::timeout(pause, answers.next()).await {
                Ok(Some(Ok(answer))) => {
                    let caller = self
                        .attending()
                        .gateways
                        .get_mut(&id)
                        .and_then(|attendant| attendant.waiting.remove(&answer.id));
                    // Nobody: the answer is late, and its asker has been told that there is none.
                    if let Some(caller) = caller {
                        let _ = caller.send(answer);
                    }
                }
                Ok(Some(Err(_)) | None) => return,
                Err(_) => {
                    // A gateway that takes nothing is noticed when it is asked.
                    if let Some(attendant) = self.attending().gateways.get(&id) {
                        let _ = attendant.questions.try_send(Ok(SessionsQuestion::default()));
                    }
                }
            }
        }
    }

    /// Puts one question to every gateway.
    fn put(&self, question: &SessionsQuestion) -> Vec<Asked> {
        let mut attending = self.attending();
        attending.last_id += 1;
        let question = SessionsQuestion {
            id: attending.last_id,
            ..question.clone()
        };
        let put = |attendant: &mut Attendant| {
            // Those whose asker has gone would pile up behind a gateway that never answers.
            attendant.waiting.retain(|_, caller| !caller.is_closed());
            let (caller, answer) = oneshot::channel();
            let sent = attendant.questions.try_send(Ok(question.clone())).is_ok();
            if sent {
                attendant.waiting.insert(question.id, caller);
            }
            (attendant.gateway.clone(), sent.then_some(answer))
        };
        attending.gateways.values_mut().map(put).collect()
    }

    async fn ask(&self, question: SessionsQuestion) -> SessionsReply {
        let patience = Duration::from_millis(limits::SESSIONS_ANSWER_MS);
        let answers = self.put(&question).into_iter().map(|(gateway, answer)| async move {
            let answer = match answer {
                Some(answer) => malle_rt::timeout(patience, answer).await.ok().and_then(Result::ok),
                None => None,
            };
            GatewaySessions {
                gateway,
                silent: answer.is_none(),
                sessions: answer.map(|answer| answer.sessions).unwrap_or_default(),
            }
        });
        SessionsReply {
            gateways: futures::future::join_all(answers).await,
        }
    }
}

#[tonic::async_trait]
impl Sessions for SessionsApi {
    type AttendStream = Pin<Box<dyn Stream<Item = Result<SessionsQuestion, Status>> + Send>>;

    async fn attend(
        &self,
        request: Request<Streaming<SessionsAnswer>>,
    ) -> Result<Response<Self::AttendStream>, Status> {
        let (Peer { identity, .. }, _) = error::permitted(&request, Call::SessionsAttend)?;
        let Identity::Gateway { name, .. } = identity else {
            return Err(Refused::denied("sessions are those of gateways").into());
        };
        let questions = self.take_in(name, request.into_inner())?;
        Ok(Response::new(Box::pin(ReceiverStream::new(questions))))
    }

    async fn show(&self, request: Request<SessionsRequest>) -> Result<Response<SessionsReply>, Status> {
        error::permitted(&request, Call::SessionsShow)?;
        let account = account_id(&request.into_inner().account)?;
        let question = SessionsQuestion {
            account: account.to_vec().into(),
            ..SessionsQuestion::default()
        };
        Ok(Response::new(self.ask(question).await))
    }

    async fn end(&self, request: Request<SessionsEndRequest>) -> Result<Response<SessionsReply>, Status> {
        let (peer, _) = error::permitted(&request, Call::SessionsEnd)?;
        let request = request.into_inner();
        let account = account_id(&request.account)?;
        let question = SessionsQuestion {
            id: 0,
            account: account.to_vec().into(),
            end: true,
            session: request.session,
        };
        let reply = self.ask(question).await;
        let ended = reply.gateways.iter().map(|gateway| gateway.sessions.len()).sum();
        audit::sessions_ended(&peer, account, ended);
        Ok(Response::new(reply))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use malle_proto::v1::MailSession;

    fn api() -> (SessionsApi, watch::Sender<bool>) {
        let (stop, stopped) = watch::channel(false);
        (SessionsApi::new(stopped), stop)
    }

    /// A gateway that answers with one session called `session`, or with nothing.
    fn gateway(
        api: &SessionsApi,
        name: &str,
        session: Option<&'static str>,
    ) -> malle_rt::JoinHandle<Vec<SessionsQuestion>> {
        let (answers, said) = mpsc::channel(4);
        let mut questions = api.take_in(name.into(), ReceiverStream::new(said)).unwrap();
        malle_rt::spawn(async move {
            let mut heard = Vec::new();
            while let Some(Ok(question)) = questions.recv().await {
                heard.push(question.clone());
                if let (Some(session), true) = (session, question.id > 0) {
                    let session = MailSession {
                        id: session.into(),
                        ..MailSession::default()
                    };
                    let answer = SessionsAnswer {
                        id: question.id,
                        sessions: vec![session],
                    };
                    answers.send(Ok(answer)).await.unwrap();
                }
            }
            heard
        })
    }

    #[tokio::test(start_paused = true)]
    async fn every_gateway_is_asked_and_a_silent_one_is_told_of() {
        let (api, stop) = api();
        let first = gateway(&api, "a", Some("s1"));
        let _second = gateway(&api, "b", None);
        let question = SessionsQuestion {
            account: vec![1; 16].into(),
            end: true,
            ..SessionsQuestion::default()
        };
        for _ in 0..2 {
            let said: Vec<(String, usize, bool)> = api
                .ask(question.clone())
                .await
                .gateways
                .into_iter()
                .map(|gateway| (gateway.gateway, gateway.sessions.len(), gateway.silent))
                .collect();
            assert_eq!(said, [("a".into(), 1, false), ("b".into(), 0, true)]);
        }
        // Their streams end with the node; then there is nobody to ask.
        stop.send_replace(true);
        let heard = first.await.unwrap();
        assert!(
            heard
                .iter()
                .filter(|question| question.id > 0)
                .all(|question| question.end)
        );
        assert!(api.ask(question).await.gateways.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn one_gateway_more_than_may_is_refused_and_a_place_is_free_again() {
        let (api, _stop) = api();
        let mut kept = Vec::new();
        for _ in 0..limits::GATEWAYS_PER_NODE_MAX {
            let (answers, said) = mpsc::channel(1);
            kept.push((answers, api.take_in("g".into(), ReceiverStream::new(said)).unwrap()));
        }
        let more = || api.take_in("g".into(), ReceiverStream::new(mpsc::channel(1).1));
        assert!(more().is_err());
        kept.pop();
        let free = async {
            while api.attending().gateways.len() == limits::GATEWAYS_PER_NODE_MAX {
                tokio::task::yield_now().await;
            }
        };
        malle_rt::timeout(Duration::from_secs(20), free).await.unwrap();
        assert!(more().is_ok());
    }
}
