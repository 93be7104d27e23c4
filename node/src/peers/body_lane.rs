//! One standing stream of bodies to a peer: many puts in flight, acknowledged in any order when durable there.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt;
use malle_proto::v1::peer_client::PeerClient;
use malle_proto::v1::{PutBodyAck, PutBodyChunk};
use malle_proto::{Channel, NodeId, limits};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;

use super::grpc::status_error;
use super::{PeerError, StoredBody};

/// Chunks between the senders and the stream: 4 MiB of the largest.
const CHUNKS_WAITING: usize = 16;

type Answer = Result<(), PeerError>;

/// `None` once the stream has ended: nothing is put on it any more.
type Pending = Mutex<Option<BTreeMap<u64, oneshot::Sender<Answer>>>>;

/// A standing stream of bodies to one peer.
pub(super) struct BodyLane {
    node: NodeId,
    out: mpsc::Sender<PutBodyChunk>,
    pending: Arc<Pending>,
    next: AtomicU64,
}

/// Takes the place back of a put whose caller went away.
struct Place<'a> {
    pending: &'a Pending,
    put: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(pending) = self.pending.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            pending.remove(&self.put);
        }
    }
}

impl BodyLane {
    pub fn open(node: NodeId, client: PeerClient<Channel>) -> Arc<BodyLane> {
        let (out, chunks) = mpsc::channel(CHUNKS_WAITING);
        let pending: Arc<Pending> = Arc::new(Mutex::new(Some(BTreeMap::new())));
        malle_rt::spawn(run(node, client, chunks, pending.clone()));
        Arc::new(BodyLane {
            node,
            out,
            pending,
            next: AtomicU64::new(1),
        })
    }

    pub fn is_open(&self) -> bool {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn gone(&self) -> PeerError {
        PeerError::Unreachable {
            node: self.node,
            reason: "the body stream ended".into(),
        }
    }

    /// Sends a body; done when the peer says that it is durable.
    pub async fn put(&self, body: StoredBody) -> Answer {
        let put = self.next.fetch_add(1, Ordering::Relaxed);
        let (tell, told) = oneshot::channel();
        match self.pending.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            Some(pending) => pending.insert(put, tell),
            None => return Err(self.gone()),
        };
        let _place = Place {
            pending: &self.pending,
            put,
        };
        let mut chunk = PutBodyChunk {
            put,
            shard: body.shard.0,
            hash: body.hash.to_vec().into(),
            stored_size: body.stored.len() as u64,
            size: body.size,
            encoding: body.encoding,
            ..PutBodyChunk::default()
        };
        let mut rest = body.stored;
        loop {
            chunk.data = rest.split_to(rest.len().min(limits::BODY_CHUNK_BYTES));
            chunk.last = rest.is_empty();
            let last = chunk.last;
            self.out.send(chunk).await.map_err(|_| self.gone())?;
            if last {
                break;
            }
            chunk = PutBodyChunk {
                put,
                ..PutBodyChunk::default()
            };
        }
        told.await.unwrap_or_else(|_| Err(self.gone()))
    }
}

async fn run(
    node: NodeId,
    mut client: PeerClient<Channel>,
    chunks: mpsc::Receiver<PutBodyChunk>,
    pending: Arc<Pending>,
) {
    let ended = match client.put_bodies(ReceiverStream::new(chunks)).await {
        Err(status) => status_error(node, &status),
        Ok(answers) => {
            let mut answers = answers.into_inner();
            loop {
                match answers.next().await {
                    Some(Ok(ack)) => acknowledge(node, ack, &pending),
                    Some(Err(status)) => break status_error(node, &status),
                    None => {
                        break PeerError::Unreachable {
                            node,
                            reason: "the body stream ended".into(),
                        };
                    }
                }
            }
        }
    };
    let waiting = pending
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take()
        .unwrap_or_default();
    for (_, tell) in waiting {
        // A caller that stopped waiting needs no answer.
        let _ = tell.send(Err(ended.clone()));
    }
}

fn acknowledge(node: NodeId, ack: PutBodyAck, pending: &Pending) {
    let waiting = pending
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .as_mut()
        .and_then(|all| all.remove(&ack.put));
    if let Some(tell) = waiting {
        let answer = match ack.error {
            None => Ok(()),
            Some(error) => Err(PeerError::Refused {
                node,
                reason: error.message,
            }),
        };
        let _ = tell.send(answer);
    }
}
