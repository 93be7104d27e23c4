//! The machines: what operators ask of nodes and groups.

use malle_proto::{ClusterId, NodeId, ShardId};

use crate::client::Client;
use crate::directory::Node;
use crate::error::Error;

/// How a new cluster shall be laid out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitPlan {
    /// The trust domain of its certificates.
    pub cluster_name: String,
    /// Its first nodes; all of them must be running.
    pub nodes: Vec<Node>,
    /// How many shards hold the accounts.
    pub shards: u32,
    /// Replicas of each shard.
    pub replicas: u32,
}

/// One group on one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupStatus {
    /// Which.
    pub shard: ShardId,
    /// "leader", "follower", "learner", "candidate", "rebuilding", "failed" or "stopped".
    pub role: String,
    /// Raft's term.
    pub term: u64,
    /// Who leads, as this node believes.
    pub leader: Option<NodeId>,
    /// End of its log.
    pub last_log_index: u64,
    /// What it knows to be committed.
    pub committed_index: u64,
    /// What its view holds.
    pub applied_index: u64,
    /// What its last checkpoint holds.
    pub checkpoint_index: u64,
    /// Every body that is named up to here is on this node (architecture, decision 4).
    pub bodies_complete_through: u64,
    /// Digest of the replicated rows at `applied_index`; `None` when it was not asked for.
    pub digest: Option<[u8; 16]>,
    /// Who votes.
    pub voters: Vec<NodeId>,
    /// Who only learns.
    pub learners: Vec<NodeId>,
    /// How often the view was thrown away and rebuilt since the start.
    pub rebuilds: u64,
    /// Rows of the view.
    pub rows: u64,
    /// Accounts of the shard.
    pub accounts: u64,
}

/// A node's own view of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeStatus {
    /// Which.
    pub node: NodeId,
    /// Its region.
    pub region: String,
    /// Its program's version.
    pub version: String,
    /// How long it has run.
    pub uptime_ms: u64,
    /// Every group that it holds.
    pub groups: Vec<GroupStatus>,
    /// Why it takes no writes any more.
    pub failed: Option<String>,
    /// Free bytes of its disk.
    pub disk_free_bytes: u64,
    /// Size of its disk.
    pub disk_total_bytes: u64,
    /// Bodies that it holds.
    pub bodies: u64,
    /// Their bytes on disk.
    pub body_bytes: u64,
}

/// Calls on the machines, for operators.
#[derive(Clone)]
pub struct Cluster {
    pub(crate) client: Client,
}

impl Cluster {
    /// Makes a cluster of running nodes that belong to none; asked of the first endpoint, once in the life of a cluster.
    ///
    /// # Errors
    /// [`Error::Exists`] when the node is in a cluster already.
    pub async fn init(&self, _plan: InitPlan) -> Result<ClusterId, Error> {
        Err(Error::Internal("not built yet".into()))
    }

    /// Asks one node about itself. With `digests` it reads a digest of every group, which costs it a flush of the view.
    /// A node that does not answer is not asked for long: at most two tries.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when it does not answer, [`Error::NotFound`] when the directory does not know it.
    pub async fn node_status(&self, _node: NodeId, _digests: bool) -> Result<NodeStatus, Error> {
        Err(Error::Internal("not built yet".into()))
    }

    /// Tells the directory of a new node. It holds no shard yet.
    ///
    /// # Errors
    /// [`Error::Exists`] when the id is in use or was.
    pub async fn node_add(&self, _node: Node) -> Result<(), Error> {
        Err(Error::Internal("not built yet".into()))
    }

    /// Gives every replica of `replaces` to the new `node`, waits for its data, then retires the old one. Returns the number of
    /// groups moved. Long: give it a deadline to match.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is refused for safety.
    pub async fn node_replace(&self, _node: Node, _replaces: NodeId) -> Result<u32, Error> {
        Err(Error::Internal("not built yet".into()))
    }

    /// Makes another replica the leader of a group.
    ///
    /// # Errors
    /// [`Error::Invalid`] when `to` has no vote in it.
    pub async fn leader_move(&self, _shard: ShardId, _to: NodeId) -> Result<(), Error> {
        Err(Error::Internal("not built yet".into()))
    }

    /// Makes a checkpoint of a group on one node (its leader when `None`) and purges its log behind it. Returns the checkpoint's log
    /// index.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the node does not hold the group.
    pub async fn checkpoint(&self, _shard: ShardId, _node: Option<NodeId>) -> Result<u64, Error> {
        Err(Error::Internal("not built yet".into()))
    }
}
