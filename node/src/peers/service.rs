//! The peer service: takes messages off the wire and hands them to the rooms that answer.
//!
//! Who may call is decided before a message comes here: `security` lets only nodes of this cluster in, and gives the id that the
//! certificate carries.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};
use malle_proto::v1::peer_server::Peer;
use malle_proto::v1::{
    Error, ErrorCode, GetBodyChunk, GetBodyRequest, GroupStatus, HeartbeatFrame, PutBodyAck, PutBodyChunk, RaftFrame,
    ReplicaRequest, SnapshotChunk,
};
use malle_proto::{BodyHash, NodeId, ShardId, limits};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{RaftCall, StoredBody};
use crate::api::error;
use crate::security::{Call, Identity, Peer as Caller, permit};

/// Bodies that one peer may have half sent at a time; each is bounded by the largest mail.
const PARTIAL_BODIES_MAX: usize = 256;
/// Bodies being made durable for one peer at a time.
const PUTS_IN_PROGRESS_MAX: usize = 512;

/// Answers what peers ask. Errors are for a person.
#[async_trait]
pub trait PeerHandler: Send + Sync + 'static {
    /// A raft message.
    async fn call(&self, from: NodeId, call: RaftCall, frame: RaftFrame) -> RaftFrame;
    /// A pipelined append; returns when it ends.
    async fn append(&self, from: NodeId, frames: mpsc::Receiver<RaftFrame>, answers: mpsc::Sender<RaftFrame>);
    /// A snapshot.
    async fn snapshot(&self, from: NodeId, head: RaftFrame, size: u64, chunks: mpsc::Receiver<Bytes>) -> RaftFrame;
    /// A body to keep; done when it is durable.
    async fn put_body(&self, body: StoredBody) -> Result<(), String>;
    /// A body that is here; `None` when it is not.
    async fn get_body(&self, shard: ShardId, hash: BodyHash) -> Result<Option<StoredBody>, String>;
    /// What this node has of a group; `None` when it has none of it.
    async fn replica(&self, shard: ShardId) -> Option<GroupStatus>;
}

/// The peer service.
#[derive(Clone)]
pub struct PeerService {
    handler: Arc<dyn PeerHandler>,
}

impl PeerService {
    /// Answers with `handler`.
    pub fn new(handler: Arc<dyn PeerHandler>) -> Self {
        PeerService { handler }
    }

    async fn raft(&self, call: RaftCall, request: Request<RaftFrame>) -> Result<Response<RaftFrame>, Status> {
        let name = match call {
            RaftCall::Heartbeat => Call::PeerHeartbeat,
            RaftCall::Vote => Call::PeerVote,
            RaftCall::PreVote => Call::PeerPreVote,
            RaftCall::TransferLeader => Call::PeerTransferLeader,
            RaftCall::Propose => Call::PeerPropose,
            RaftCall::ReadIndex => Call::PeerReadIndex,
            RaftCall::SendSnapshot => Call::PeerSendSnapshot,
        };
        let from = caller(&request, name)?;
        Ok(Response::new(self.handler.call(from, call, request.into_inner()).await))
    }
}

/// The node at the other end, when the table lets it make this call.
fn caller<T>(request: &Request<T>, call: Call) -> Result<NodeId, Status> {
    let Some(caller) = request.extensions().get::<Caller>() else {
        return Err(error::peer_denied("a connection without an identity"));
    };
    permit(caller, call).map_err(|denied| error::peer_denied(&denied.to_string()))?;
    match caller.identity {
        Identity::Node(node) => Ok(node),
        Identity::Gateway { .. } | Identity::Operator { .. } => Err(error::peer_denied("peers are nodes")),
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Peer for PeerService {
    type AppendStream = Answers<RaftFrame>;

    async fn append(&self, request: Request<Streaming<RaftFrame>>) -> Result<Response<Self::AppendStream>, Status> {
        let from = caller(&request, Call::PeerAppend)?;
        let mut incoming = request.into_inner();
        let (frames_in, frames) = mpsc::channel(limits::APPEND_WINDOW_REQUESTS);
        let (answers_in, answers) = mpsc::channel(limits::APPEND_WINDOW_REQUESTS);
        malle_rt::spawn(async move {
            while let Some(Ok(frame)) = incoming.next().await {
                if frames_in.send(frame).await.is_err() {
                    return;
                }
            }
        });
        let handler = self.handler.clone();
        malle_rt::spawn(async move { handler.append(from, frames, answers_in).await });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers).map(Ok))))
    }

    type HeartbeatStream = Answers<HeartbeatFrame>;

    async fn heartbeat(
        &self,
        request: Request<Streaming<HeartbeatFrame>>,
    ) -> Result<Response<Self::HeartbeatStream>, Status> {
        let from = caller(&request, Call::PeerHeartbeat)?;
        let handler = self.handler.clone();
        let answer = move |beat: HeartbeatFrame| {
            let handler = handler.clone();
            async move {
                let frame = handler
                    .call(from, RaftCall::Heartbeat, beat.frame.unwrap_or_default())
                    .await;
                Ok(HeartbeatFrame {
                    call: beat.call,
                    frame: Some(frame),
                })
            }
        };
        // A group that is slow to answer, because it is being opened, holds up no other.
        let beats = request
            .into_inner()
            .take_while(|beat| std::future::ready(beat.is_ok()))
            .filter_map(|beat| std::future::ready(beat.ok()));
        let answers = beats.map(answer).buffer_unordered(limits::CALLS_PER_STREAM_MAX);
        Ok(Response::new(Box::pin(answers)))
    }

    async fn vote(&self, request: Request<RaftFrame>) -> Result<Response<RaftFrame>, Status> {
        self.raft(RaftCall::Vote, request).await
    }

    async fn pre_vote(&self, request: Request<RaftFrame>) -> Result<Response<RaftFrame>, Status> {
        self.raft(RaftCall::PreVote, request).await
    }

    async fn transfer_leader(&self, request: Request<RaftFrame>) -> Result<Response<RaftFrame>, Status> {
        self.raft(RaftCall::TransferLeader, request).await
    }

    async fn propose(&self, request: Request<RaftFrame>) -> Result<Response<RaftFrame>, Status> {
        self.raft(RaftCall::Propose, request).await
    }

    async fn read_index(&self, request: Request<RaftFrame>) -> Result<Response<RaftFrame>, Status> {
        self.raft(RaftCall::ReadIndex, request).await
    }

    async fn send_snapshot(&self, request: Request<RaftFrame>) -> Result<Response<RaftFrame>, Status> {
        self.raft(RaftCall::SendSnapshot, request).await
    }

    async fn snapshot(&self, request: Request<Streaming<SnapshotChunk>>) -> Result<Response<RaftFrame>, Status> {
        let from = caller(&request, Call::PeerSnapshot)?;
        let mut incoming = request.into_inner();
        let first = incoming
            .message()
            .await?
            .ok_or_else(|| refused("a snapshot without a head"))?;
        let head = first.head.ok_or_else(|| refused("a snapshot without a head"))?;
        let (chunks_in, chunks) = mpsc::channel(4);
        malle_rt::spawn(async move {
            // A break ends the channel early; the receiver counts the bytes.
            while let Some(Ok(chunk)) = incoming.next().await {
                if chunks_in.send(chunk.data).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(
            self.handler.snapshot(from, head, first.size, chunks).await,
        ))
    }

    type PutBodiesStream = Answers<PutBodyAck>;

    async fn put_bodies(
        &self,
        request: Request<Streaming<PutBodyChunk>>,
    ) -> Result<Response<Self::PutBodiesStream>, Status> {
        caller(&request, Call::PeerPutBodies)?;
        let (acks_in, acks) = mpsc::channel(limits::CALLS_PER_STREAM_MAX);
        malle_rt::spawn(receive_bodies(self.handler.clone(), request.into_inner(), acks_in));
        Ok(Response::new(Box::pin(ReceiverStream::new(acks))))
    }

    type GetBodyStream = Answers<GetBodyChunk>;

    async fn get_body(&self, request: Request<GetBodyRequest>) -> Result<Response<Self::GetBodyStream>, Status> {
        caller(&request, Call::PeerGetBody)?;
        let request = request.into_inner();
        let hash = BodyHash::try_from(&request.hash[..]).map_err(|error| refused(&error.to_string()))?;
        let found = self.handler.get_body(ShardId(request.shard), hash).await;
        let body = match found {
            Ok(Some(body)) => body,
            Ok(None) => return Err(error::peer_not_found("no such body here")),
            Err(reason) => return Err(error::peer_failed(&reason)),
        };
        let (stored_size, size, encoding) = (body.stored.len() as u64, body.size, body.encoding);
        let chunks = futures::stream::unfold(Some((body.stored, true)), move |rest| async move {
            let (mut rest, first) = rest?;
            let data = rest.split_to(rest.len().min(limits::BODY_CHUNK_BYTES));
            let sizes = if first {
                (stored_size, size, encoding)
            } else {
                (0, 0, 0)
            };
            let chunk = GetBodyChunk {
                stored_size: sizes.0,
                size: sizes.1,
                encoding: sizes.2,
                data,
            };
            let next = (!rest.is_empty()).then_some((rest, false));
            Some((Ok(chunk), next))
        });
        Ok(Response::new(Box::pin(chunks)))
    }

    async fn replica(&self, request: Request<ReplicaRequest>) -> Result<Response<GroupStatus>, Status> {
        caller(&request, Call::PeerReplica)?;
        let shard = ShardId(request.into_inner().shard);
        match self.handler.replica(shard).await {
            Some(status) => Ok(Response::new(status)),
            None => Err(error::peer_not_found("no replica of this shard here")),
        }
    }
}

fn refused(reason: &str) -> Status {
    error::peer_invalid(reason)
}

/// A body of which not every chunk has come.
struct Partial {
    body: StoredBody,
    expected: usize,
    data: BytesMut,
}

async fn receive_bodies(
    handler: Arc<dyn PeerHandler>,
    mut chunks: Streaming<PutBodyChunk>,
    acks: mpsc::Sender<Result<PutBodyAck, Status>>,
) {
    let mut partial: BTreeMap<u64, Partial> = BTreeMap::new();
    let places = Arc::new(tokio::sync::Semaphore::new(PUTS_IN_PROGRESS_MAX));
    while let Some(Ok(chunk)) = chunks.next().await {
        let put = chunk.put;
        match take_chunk(&mut partial, chunk) {
            Ok(None) => {}
            Ok(Some(body)) => {
                let (handler, acks) = (handler.clone(), acks.clone());
                let Ok(place) = places.clone().acquire_owned().await else {
                    return;
                };
                malle_rt::spawn(async move {
                    let stored = handler.put_body(body).await;
                    drop(place);
                    // Without a sender the peer has gone: it puts again elsewhere.
                    let _ = acks.send(Ok(ack(put, stored))).await;
                });
            }
            Err(reason) => {
                if acks.send(Ok(ack(put, Err(reason)))).await.is_err() {
                    return;
                }
            }
        }
    }
}

fn ack(put: u64, stored: Result<(), String>) -> PutBodyAck {
    let error = stored.err().map(|message| Error {
        code: ErrorCode::Internal.into(),
        message,
        ..Error::default()
    });
    PutBodyAck { put, error }
}

fn take_chunk(partial: &mut BTreeMap<u64, Partial>, chunk: PutBodyChunk) -> Result<Option<StoredBody>, String> {
    if !chunk.hash.is_empty() {
        let expected = usize::try_from(chunk.stored_size).unwrap_or(usize::MAX);
        if expected > limits::MESSAGE_MAX_BYTES * 2 {
            return Err(format!("a body of {expected} stored bytes"));
        }
        if partial.len() >= PARTIAL_BODIES_MAX {
            return Err(format!("{PARTIAL_BODIES_MAX} bodies are half sent already"));
        }
        let hash = BodyHash::try_from(&chunk.hash[..]).map_err(|error| error.to_string())?;
        let body = StoredBody {
            shard: ShardId(chunk.shard),
            hash,
            size: chunk.size,
            encoding: chunk.encoding,
            stored: Bytes::new(),
        };
        if chunk.last {
            return if chunk.data.len() == expected {
                Ok(Some(StoredBody {
                    stored: chunk.data,
                    ..body
                }))
            } else {
                Err(format!("{} of {expected} bytes came", chunk.data.len()))
            };
        }
        partial.insert(
            chunk.put,
            Partial {
                body,
                expected,
                data: BytesMut::from(&chunk.data[..]),
            },
        );
        return Ok(None);
    }
    let Some(mut held) = partial.remove(&chunk.put) else {
        return Err("a chunk of a body that was not begun".into());
    };
    if held.data.len() + chunk.data.len() > held.expected {
        return Err("more bytes than announced".into());
    }
    held.data.extend_from_slice(&chunk.data);
    if !chunk.last {
        partial.insert(chunk.put, held);
        return Ok(None);
    }
    if held.data.len() != held.expected {
        return Err(format!("{} of {} bytes came", held.data.len(), held.expected));
    }
    Ok(Some(StoredBody {
        stored: held.data.freeze(),
        ..held.body
    }))
}
