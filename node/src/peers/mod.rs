//! Connections to other nodes, shared by raft and bodies.
//!
//! [`Transport`] is the seam: messages of `malle.v1.Peer` in, answers out, every call with a deadline. `grpc` carries them over
//! the ways that [`Channels`] gives: mTLS, or a simulated network. What is absent: any knowledge of what a raft frame or a body means, and any
//! retry: whoever calls decides.

mod addresses;
mod body_lane;
mod grpc;
mod heartbeat_lane;
mod secure;
mod service;

use async_trait::async_trait;
use bytes::Bytes;
use malle_proto::v1::{GroupStatus, RaftFrame};
use malle_proto::{BodyHash, NodeId, ShardId};
use malle_rt::Instant;
use tokio::sync::mpsc;

pub use addresses::PeerAddresses;
pub use grpc::{Channels, GrpcTransport, Lane};
pub use secure::SecureChannels;
pub use service::{PeerHandler, PeerService};

/// Why a peer gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// No connection, or it broke, or the peer is not there: back off before the next try.
    #[error("node {node} is unreachable: {reason}")]
    Unreachable {
        /// Which.
        node: NodeId,
        /// Why, as far as known.
        reason: String,
    },
    /// Nothing came before the deadline.
    #[error("node {0} did not answer in time")]
    Deadline(NodeId),
    /// The peer answered that it cannot or will not.
    #[error("node {node} refused: {reason}")]
    Refused {
        /// Which.
        node: NodeId,
        /// What it said.
        reason: String,
    },
}

/// A unary raft message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RaftCall {
    /// An append outside the pipeline: heartbeats.
    Heartbeat,
    /// A vote.
    Vote,
    /// A pre-vote.
    PreVote,
    /// A leader asks its successor to stand.
    TransferLeader,
    /// A command for the group's leader.
    Propose,
    /// A follower asks its leader how far rows must be to be fresh.
    ReadIndex,
    /// A member that lost its state asks for the other's snapshot.
    SendSnapshot,
}

/// A body as it is stored and sent: possibly compressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredBody {
    /// Shard that it belongs to.
    pub shard: ShardId,
    /// BLAKE3 of the body itself.
    pub hash: BodyHash,
    /// Length of the body itself.
    pub size: u64,
    /// 0 raw, 1 zstd.
    pub encoding: u32,
    /// The stored form.
    pub stored: Bytes,
}

/// Both ends of a pipelined append: frames out, answers in the same order. Dropping `out` ends it.
#[derive(Debug)]
pub struct AppendStream {
    /// To the peer; bounded.
    pub out: mpsc::Sender<RaftFrame>,
    /// From the peer; an error is the last item.
    pub answers: mpsc::Receiver<Result<RaftFrame, PeerError>>,
}

/// Carries messages to other nodes.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// One raft message and its answer.
    async fn call(
        &self,
        to: NodeId,
        call: RaftCall,
        frame: RaftFrame,
        deadline: Instant,
    ) -> Result<RaftFrame, PeerError>;

    /// Opens a pipelined append for one group.
    async fn append(&self, to: NodeId, deadline: Instant) -> Result<AppendStream, PeerError>;

    /// Sends a snapshot of `size` bytes; `chunks` ends early when its sender gives up.
    async fn snapshot(
        &self,
        to: NodeId,
        head: RaftFrame,
        size: u64,
        chunks: mpsc::Receiver<Bytes>,
        deadline: Instant,
    ) -> Result<RaftFrame, PeerError>;

    /// Stores a body on the peer; done when it is durable there.
    async fn put_body(&self, to: NodeId, body: StoredBody, deadline: Instant) -> Result<(), PeerError>;

    /// Fetches a body. The caller checks its hash.
    async fn get_body(
        &self,
        to: NodeId,
        shard: ShardId,
        hash: BodyHash,
        deadline: Instant,
    ) -> Result<StoredBody, PeerError>;

    /// What the peer has of a group.
    async fn replica(&self, to: NodeId, shard: ShardId, deadline: Instant) -> Result<GroupStatus, PeerError>;
}
