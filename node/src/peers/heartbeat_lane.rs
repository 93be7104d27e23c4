//! One standing stream of heartbeats to a peer, of all groups: many in flight, answered in any order.
//!
//! A heartbeat is how an idle leader keeps its followers, and how any leader proves that it still leads before it answers a linearizable
//! read. There are as many as reads, and they are small: a call of its own for each, with headers and trailers in both directions, cost
//! several times what its content does. What is absent: waiting for a stream that has broken. Whoever was on it is told, the next
//! heartbeat opens another.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt;
use malle_proto::v1::peer_client::PeerClient;
use malle_proto::v1::{HeartbeatFrame, RaftFrame};
use malle_proto::{Channel, NodeId, limits};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;

use super::PeerError;
use super::grpc::status_error;

type Answer = Result<RaftFrame, PeerError>;

/// `None` once the stream has ended: nobody waits on it any more.
type Pending = Mutex<Option<BTreeMap<u64, oneshot::Sender<Answer>>>>;

/// See the module's header.
pub(super) struct HeartbeatLane {
    node: NodeId,
    address: String,
    out: mpsc::Sender<HeartbeatFrame>,
    pending: Arc<Pending>,
    next: AtomicU64,
}

/// Takes the place back of a call whose caller went away.
struct Place<'a> {
    pending: &'a Pending,
    call: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(pending) = self.pending.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            pending.remove(&self.call);
        }
    }
}

impl HeartbeatLane {
    pub fn open(node: NodeId, address: String, client: PeerClient<Channel>) -> Arc<HeartbeatLane> {
        let (out, frames) = mpsc::channel(limits::CALLS_PER_STREAM_MAX);
        let pending: Arc<Pending> = Arc::new(Mutex::new(Some(BTreeMap::new())));
        malle_rt::spawn(run(node, client, frames, pending.clone()));
        Arc::new(HeartbeatLane {
            node,
            address,
            out,
            pending,
            next: AtomicU64::new(1),
        })
    }

    pub fn is_open_to(&self, address: &str) -> bool {
        self.address == address && self.pending.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Sends a frame; gives the answer to it. The caller bounds the time.
    pub async fn call(&self, frame: RaftFrame) -> Answer {
        let call = self.next.fetch_add(1, Ordering::Relaxed);
        let (tell, told) = oneshot::channel();
        match self.pending.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            Some(pending) => pending.insert(call, tell),
            None => return Err(ended(self.node)),
        };
        let _place = Place {
            pending: &self.pending,
            call,
        };
        let frame = HeartbeatFrame {
            call,
            frame: Some(frame),
        };
        self.out.send(frame).await.map_err(|_| ended(self.node))?;
        told.await.unwrap_or_else(|_| Err(ended(self.node)))
    }
}

fn ended(node: NodeId) -> PeerError {
    PeerError::Unreachable {
        node,
        reason: "the stream of heartbeats ended".into(),
    }
}

async fn run(
    node: NodeId,
    mut client: PeerClient<Channel>,
    frames: mpsc::Receiver<HeartbeatFrame>,
    pending: Arc<Pending>,
) {
    let why = match client.heartbeat(ReceiverStream::new(frames)).await {
        Err(status) => status_error(node, &status),
        Ok(answers) => {
            let mut answers = answers.into_inner();
            loop {
                match answers.next().await {
                    Some(Ok(answer)) => hand_over(answer, &pending),
                    Some(Err(status)) => break status_error(node, &status),
                    None => break ended(node),
                }
            }
        }
    };
    let waiting = pending.lock().unwrap_or_else(PoisonError::into_inner).take();
    for (_, tell) in waiting.into_iter().flatten() {
        // A caller that stopped waiting needs no answer.
        let _ = tell.send(Err(why.clone()));
    }
}

fn hand_over(answer: HeartbeatFrame, pending: &Pending) {
    let waiting = pending
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .as_mut()
        .and_then(|all| all.remove(&answer.call));
    // Nobody: the caller's time was over before the answer came.
    if let Some(tell) = waiting {
        let _ = tell.send(Ok(answer.frame.unwrap_or_default()));
    }
}

#[cfg(test)]
mod tests;
