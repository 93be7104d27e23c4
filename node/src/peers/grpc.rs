//! The transport over gRPC: four connections per peer, so that a snapshot never delays a body, a body never
//! delays an entry, and an entry, which may have small bodies with it, never delays a vote.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use malle_proto::v1::peer_client::PeerClient;
use malle_proto::v1::{GetBodyRequest, GroupStatus, RaftFrame, ReplicaRequest, SnapshotChunk};
use malle_proto::{BodyHash, Channel, NodeId, ShardId, limits};
use malle_rt::Instant;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::body_lane::BodyLane;
use super::heartbeat_lane::HeartbeatLane;
use super::{AppendStream, PeerAddresses, PeerError, RaftCall, StoredBody, Transport};

/// Gives ways to nodes.
pub trait Channels: Send + Sync + 'static {
    /// A way to `node` at `address`, which proves that the other end is that node. It connects with its first call, and again after a break.
    fn channel(&self, node: NodeId, address: &str, lane: Lane) -> Channel;
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Votes, heartbeats, and what is asked rarely.
    Raft,
    /// Log entries with the small bodies that ride with them.
    Entries,
    /// Bodies.
    Bodies,
    /// Snapshots.
    Snapshots,
}

/// Frames between a group and its stream.
const FRAMES_WAITING: usize = 4;

/// The transport over gRPC.
pub struct GrpcTransport {
    addresses: Arc<PeerAddresses>,
    ways: Arc<dyn Channels>,
    channels: Mutex<BTreeMap<(NodeId, Lane), (String, Channel)>>,
    body_lanes: Mutex<BTreeMap<NodeId, Arc<BodyLane>>>,
    heartbeat_lanes: Mutex<BTreeMap<NodeId, Arc<HeartbeatLane>>>,
}

impl GrpcTransport {
    /// Goes by `ways` to where `addresses` says.
    pub fn new(addresses: Arc<PeerAddresses>, ways: Arc<dyn Channels>) -> Self {
        GrpcTransport {
            addresses,
            ways,
            channels: Mutex::default(),
            body_lanes: Mutex::default(),
            heartbeat_lanes: Mutex::default(),
        }
    }

    /// A lazy channel: it connects with its first request and again after a break. A changed address makes a new one.
    fn client(&self, node: NodeId, lane: Lane) -> Result<PeerClient<Channel>, PeerError> {
        let address = self.address(node)?;
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let channel = match channels.get(&(node, lane)) {
            Some((old, channel)) if *old == address => channel.clone(),
            _ => {
                let channel = self.ways.channel(node, &address, lane);
                channels.insert((node, lane), (address, channel.clone()));
                channel
            }
        };
        Ok(PeerClient::new(channel)
            .max_decoding_message_size(limits::GRPC_MESSAGE_MAX_BYTES)
            .max_encoding_message_size(limits::GRPC_MESSAGE_MAX_BYTES))
    }

    fn body_lane(&self, node: NodeId) -> Result<Arc<BodyLane>, PeerError> {
        let client = self.client(node, Lane::Bodies)?;
        let mut lanes = self.body_lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lane) = lanes.get(&node)
            && lane.is_open()
        {
            return Ok(lane.clone());
        }
        let lane = BodyLane::open(node, client);
        lanes.insert(node, lane.clone());
        Ok(lane)
    }

    /// The standing stream of heartbeats, which is another one once the node has another address.
    fn heartbeat_lane(&self, node: NodeId) -> Result<Arc<HeartbeatLane>, PeerError> {
        let address = self.address(node)?;
        let client = self.client(node, Lane::Raft)?;
        let mut lanes = self.heartbeat_lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lane) = lanes.get(&node)
            && lane.is_open_to(&address)
        {
            return Ok(lane.clone());
        }
        let lane = HeartbeatLane::open(node, address, client);
        lanes.insert(node, lane.clone());
        Ok(lane)
    }

    async fn beat(&self, to: NodeId, frame: RaftFrame, deadline: Instant) -> Result<RaftFrame, PeerError> {
        let lane = self.heartbeat_lane(to)?;
        match malle_rt::timeout_at(deadline, lane.call(frame)).await {
            Ok(answer) => answer,
            Err(_) => Err(PeerError::Deadline(to)),
        }
    }

    fn address(&self, node: NodeId) -> Result<String, PeerError> {
        self.addresses.get(node).ok_or_else(|| PeerError::Unreachable {
            node,
            reason: "its address is not known".into(),
        })
    }
}

pub(super) fn status_error(node: NodeId, status: &tonic::Status) -> PeerError {
    match status.code() {
        tonic::Code::Unavailable | tonic::Code::Unknown | tonic::Code::Cancelled | tonic::Code::Internal => {
            PeerError::Unreachable {
                node,
                reason: status.message().to_owned(),
            }
        }
        tonic::Code::DeadlineExceeded => PeerError::Deadline(node),
        _ => PeerError::Refused {
            node,
            reason: status.message().to_owned(),
        },
    }
}

async fn within<T>(
    node: NodeId,
    deadline: Instant,
    call: impl Future<Output = Result<T, tonic::Status>> + Send,
) -> Result<T, PeerError> {
    match malle_rt::timeout_at(deadline, call).await {
        Ok(done) => done.map_err(|status| status_error(node, &status)),
        Err(_) => Err(PeerError::Deadline(node)),
    }
}

#[async_trait]
impl Transport for GrpcTransport {
    async fn call(
        &self,
        to: NodeId,
        call: RaftCall,
        frame: RaftFrame,
        deadline: Instant,
    ) -> Result<RaftFrame, PeerError> {
        let mut client = self.client(to, Lane::Raft)?;
        let reply = match call {
            RaftCall::Heartbeat => return self.beat(to, frame, deadline).await,
            RaftCall::Vote => within(to, deadline, client.vote(frame)).await,
            RaftCall::PreVote => within(to, deadline, client.pre_vote(frame)).await,
            RaftCall::TransferLeader => within(to, deadline, client.transfer_leader(frame)).await,
            RaftCall::Propose => within(to, deadline, client.propose(frame)).await,
            RaftCall::ReadIndex => within(to, deadline, client.read_index(frame)).await,
            RaftCall::SendSnapshot => within(to, deadline, client.send_snapshot(frame)).await,
        };
        Ok(reply?.into_inner())
    }

    async fn append(&self, to: NodeId, deadline: Instant) -> Result<AppendStream, PeerError> {
        let mut client = self.client(to, Lane::Entries)?;
        let (out, frames) = mpsc::channel(FRAMES_WAITING);
        let (answers_in, answers) = mpsc::channel(limits::APPEND_WINDOW_REQUESTS);
        let opened = within(
            to,
            deadline,
            async move { client.append(ReceiverStream::new(frames)).await },
        )
        .await?;
        let mut incoming = opened.into_inner();
        malle_rt::spawn(async move {
            while let Some(item) = incoming.next().await {
                let item = item.map_err(|status| status_error(to, &status));
                let last = item.is_err();
                if answers_in.send(item).await.is_err() || last {
                    return;
                }
            }
        });
        Ok(AppendStream { out, answers })
    }

    async fn snapshot(
        &self,
        to: NodeId,
        head: RaftFrame,
        size: u64,
        chunks: mpsc::Receiver<Bytes>,
        deadline: Instant,
    ) -> Result<RaftFrame, PeerError> {
        let mut client = self.client(to, Lane::Snapshots)?;
        let first = SnapshotChunk {
            head: Some(head),
            size,
            data: Bytes::new(),
        };
        let rest = ReceiverStream::new(chunks).map(|data| SnapshotChunk {
            head: None,
            size: 0,
            data,
        });
        let stream = futures::stream::iter([first]).chain(rest);
        let reply = within(to, deadline, async move { client.snapshot(stream).await }).await?;
        Ok(reply.into_inner())
    }

    async fn put_body(&self, to: NodeId, body: StoredBody, deadline: Instant) -> Result<(), PeerError> {
        let lane = self.body_lane(to)?;
        match malle_rt::timeout_at(deadline, lane.put(body)).await {
            Ok(done) => done,
            Err(_) => Err(PeerError::Deadline(to)),
        }
    }

    async fn get_body(
        &self,
        to: NodeId,
        shard: ShardId,
        hash: BodyHash,
        deadline: Instant,
    ) -> Result<StoredBody, PeerError> {
        let client = self.client(to, Lane::Bodies)?;
        match malle_rt::timeout_at(deadline, receive_body(client, to, shard, hash)).await {
            Ok(body) => body,
            Err(_) => Err(PeerError::Deadline(to)),
        }
    }

    async fn replica(&self, to: NodeId, shard: ShardId, deadline: Instant) -> Result<GroupStatus, PeerError> {
        let mut client = self.client(to, Lane::Raft)?;
        let reply = within(to, deadline, async move {
            client.replica(ReplicaRequest { shard: shard.0 }).await
        })
        .await?;
        Ok(reply.into_inner())
    }
}

async fn receive_body(
    mut client: PeerClient<Channel>,
    node: NodeId,
    shard: ShardId,
    hash: BodyHash,
) -> Result<StoredBody, PeerError> {
    let failed = |status: tonic::Status| status_error(node, &status);
    let refused = |reason: &str| PeerError::Refused {
        node,
        reason: reason.to_owned(),
    };
    let request = GetBodyRequest {
        shard: shard.0,
        hash: hash.to_vec().into(),
    };
    let mut chunks = client.get_body(request).await.map_err(failed)?.into_inner();
    let first = chunks
        .message()
        .await
        .map_err(failed)?
        .ok_or_else(|| refused("an empty answer"))?;
    let expected = usize::try_from(first.stored_size).unwrap_or(usize::MAX);
    if expected > limits::MESSAGE_MAX_BYTES * 2 {
        return Err(refused("a body larger than any that is stored"));
    }
    let mut stored = BytesMut::with_capacity(expected);
    stored.extend_from_slice(&first.data);
    while let Some(chunk) = chunks.message().await.map_err(failed)? {
        if stored.len() + chunk.data.len() > expected {
            return Err(refused("more bytes than announced"));
        }
        stored.extend_from_slice(&chunk.data);
    }
    if stored.len() != expected {
        return Err(refused("the body broke off"));
    }
    Ok(StoredBody {
        shard,
        hash,
        size: first.size,
        encoding: first.encoding,
        stored: stored.freeze(),
    })
}
