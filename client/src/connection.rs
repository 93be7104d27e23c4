//! One connection to one node, and on it the standing stream of mail requests (architecture, decision 12).
//!
//! Requests of all sessions share the stream, up to [`limits::CALLS_PER_STREAM_MAX`] in flight; answers come in any order and find
//! their caller by id. When the stream ends, every call that waits on it gets a retryable failure: it may have been done, and its op id
//! tells on the next try. A connection whose stream has ended takes no more calls; [`crate::nodes`] makes a new one. Bodies above
//! [`limits::INLINE_BODY_MAX_BYTES`] and watches run on streams of their own, so that they never stand before a small request.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use malle_proto::v1::mail_client::MailClient;
use malle_proto::v1::{BodyTicket, MailReply, MailRequest, UploadChunk};
use malle_proto::{Channel, NodeId, ShardId, limits};
use tokio::sync::{OnceCell, Semaphore, mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;

use crate::error::{Error, Failure};
use crate::reach::Reached;

/// Requests between their callers and the HTTP/2 layer; when it is full, callers wait.
const OUTGOING_MAX: usize = 64;

/// See the module's header.
pub(crate) struct Connection {
    address: String,
    node: NodeId,
    channel: Channel,
    calls: OnceCell<Calls>,
}

impl Connection {
    /// Over a way that was found.
    pub(crate) fn over(address: &str, reached: Reached) -> Connection {
        Connection {
            address: address.to_owned(),
            node: reached.node,
            channel: reached.channel,
            calls: OnceCell::new(),
        }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Who is at the other end, as its certificate says.
    pub(crate) fn node(&self) -> NodeId {
        self.node
    }

    /// For unary calls.
    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// For the mail service's calls beside the standing stream.
    pub(crate) fn mail(&self) -> MailClient<Channel> {
        MailClient::new(self.channel.clone()).max_decoding_message_size(limits::GRPC_MESSAGE_MAX_BYTES)
    }

    /// One request on the standing stream; its id is chosen here. Dropping the future gives the place on the stream back.
    pub(crate) async fn call(&self, request: MailRequest) -> Result<MailReply, Failure> {
        self.calls
            .get_or_try_init(|| Calls::open(self.mail()))
            .await?
            .call(request)
            .await
    }

    /// Sends a large body ahead of the command that names it. Answered when it is durable on a majority.
    pub(crate) async fn upload(&self, shard: ShardId, token: Bytes, body: Bytes) -> Result<BodyTicket, Failure> {
        let size = body.len();
        let chunks = (0..size)
            .step_by(limits::BODY_CHUNK_BYTES)
            .map(move |start| UploadChunk {
                shard: if start == 0 { shard.0 } else { 0 },
                size: if start == 0 { size as u64 } else { 0 },
                token: if start == 0 { token.clone() } else { Bytes::new() },
                data: body.slice(start..size.min(start + limits::BODY_CHUNK_BYTES)),
            });
        let reply = self.mail().upload(tokio_stream::iter(chunks)).await;
        let ticket = reply
            .map_err(|status| Failure::from_status(&status))?
            .into_inner()
            .ticket;
        ticket.ok_or_else(|| Failure::Answer(Error::Internal("a node answered an upload without a ticket".to_owned())))
    }
}

/// Who waits for which answer; `None` once the stream has ended.
type Waiting = Mutex<Option<BTreeMap<u64, oneshot::Sender<Result<MailReply, Failure>>>>>;

/// The standing stream.
struct Calls {
    outgoing: mpsc::Sender<MailRequest>,
    waiting: Arc<Waiting>,
    places: Semaphore,
    next_id: AtomicU64,
}

impl Calls {
    async fn open(mut mail: MailClient<Channel>) -> Result<Calls, Failure> {
        let (outgoing, requests) = mpsc::channel(OUTGOING_MAX);
        let replies = mail.call(ReceiverStream::new(requests)).await;
        let mut replies = replies.map_err(|status| Failure::from_status(&status))?.into_inner();
        let waiting: Arc<Waiting> = Arc::new(Mutex::new(Some(BTreeMap::new())));
        let theirs = waiting.clone();
        // Ends with the stream, which ends when the node goes or when `outgoing` is dropped with the connection.
        drop(malle_rt::spawn(async move {
            let end = loop {
                match replies.message().await {
                    Ok(Some(reply)) => hand_over(&theirs, reply),
                    Ok(None) => break Failure::Broken("the node closed its stream".to_owned()),
                    Err(status) => break stream_end(&status),
                }
            };
            let left = theirs.lock().unwrap_or_else(PoisonError::into_inner).take();
            for (_, caller) in left.into_iter().flatten() {
                // A caller that has gone needs no answer.
                let _ = caller.send(Err(end.clone()));
            }
        }));
        Ok(Calls {
            outgoing,
            waiting,
            places: Semaphore::new(limits::CALLS_PER_STREAM_MAX),
            next_id: AtomicU64::new(1),
        })
    }

    async fn call(&self, mut request: MailRequest) -> Result<MailReply, Failure> {
        let ended = || Failure::Broken("the stream to the node has ended".to_owned());
        let _place = self.places.acquire().await.map_err(|_| ended())?;
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        request.id = id;
        let (caller, answer) = oneshot::channel();
        match &mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(waiting) => waiting.insert(id, caller),
            None => return Err(ended()),
        };
        let _leave = Leave {
            id,
            waiting: &self.waiting,
        };
        self.outgoing.send(request).await.map_err(|_| ended())?;
        answer.await.unwrap_or_else(|_| Err(ended()))
    }
}

/// The end of the whole stream is nobody's answer, except that we may not have one at all.
fn stream_end(status: &tonic::Status) -> Failure {
    match Failure::from_status(status) {
        Failure::Answer(Error::Denied(text)) => Failure::Answer(Error::Denied(text)),
        other => Failure::Broken(other.into_error().to_string()),
    }
}

fn hand_over(waiting: &Waiting, reply: MailReply) {
    let caller = waiting
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .as_mut()
        .and_then(|map| map.remove(&reply.id));
    // Nobody: the caller's time was over before the answer came.
    if let Some(caller) = caller {
        let _ = caller.send(Ok(reply));
    }
}

/// Takes a caller off the list, however its call ends.
struct Leave<'a> {
    id: u64,
    waiting: &'a Waiting,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        if let Some(map) = &mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) {
            map.remove(&self.id);
        }
    }
}
