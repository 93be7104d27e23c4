//! The machines: what operators ask of nodes and groups.

use std::time::Duration;

use malle_proto::v1;
use malle_proto::v1::cluster_client::ClusterClient;
use malle_proto::{Channel, ClusterId, NodeId, ShardId, limits};
use malle_rt::Instant;

use crate::client::Client;
use crate::convert;
use crate::directory::Node;
use crate::error::Error;
use crate::nodes::Target;

/// Pause between two rounds over the nodes while one replaces another.
const REPLACE_LOOK: Duration = Duration::from_millis(500);

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
    /// What its scrub has done.
    pub scrub: ScrubStatus,
    /// IP:PORT of its health and metrics; `None` when nothing listens.
    pub telemetry_address: Option<String>,
    /// What its collection has done.
    pub collect: CollectStatus,
    /// Why its disk takes no new mail; `None` while it does.
    pub short_of_room: Option<String>,
}

/// What the scrub of a node has done since the node's process started. A node of an older version says nothing: all is zero.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScrubStatus {
    /// A round is under way.
    pub running: bool,
    /// When the last round began; 0: none did.
    pub started_ms: u64,
    /// Bodies that it has read.
    pub bodies: u64,
    /// Their bytes on disk.
    pub bytes: u64,
    /// Whole rounds.
    pub rounds: u64,
    /// When the last whole round ended; 0: none did.
    pub finished_ms: u64,
    /// How long it took.
    pub took_ms: u64,
    /// Copies that do not match their checksums.
    pub rotten: u64,
    /// Copies that the disk does not give back.
    pub unreadable: u64,
    /// Bodies that rows name and that were not there.
    pub absent: u64,
    /// Of all these, those that are there again.
    pub repaired: u64,
    /// Of all these, those that rows name and that no peer has given yet.
    pub open: u64,
}

/// What collection has done on a node since its process started, and how its volumes are. A node of an older version says nothing: all
/// is zero.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CollectStatus {
    /// Whole rounds over rows and bodies.
    pub rounds: u64,
    /// When the last one ended; 0: none did.
    pub finished_ms: u64,
    /// Bodies freed.
    pub freed: u64,
    /// Their bytes on disk.
    pub freed_bytes: u64,
    /// Bytes written once more, out of volumes that were given up.
    pub carried_bytes: u64,
    /// Volumes given up.
    pub volumes_freed: u64,
    /// Their bytes.
    pub volumes_freed_bytes: u64,
    /// Bytes of the volumes now.
    pub volume_bytes: u64,
    /// Of these, what no body needs.
    pub garbage_bytes: u64,
    /// Volumes that could not be emptied at the last look.
    pub stuck: u64,
}

/// Calls on the machines, for operators.
///
/// These calls carry no op id. Those that are repeated (adding and replacing a node, moving a leader, making a checkpoint) say what shall
/// be, so that doing them twice is doing them once; [`Cluster::init`] is asked of one node and not repeated blindly.
#[derive(Clone)]
pub struct Cluster {
    pub(crate) client: Client,
}

fn service(channel: Channel) -> ClusterClient<Channel> {
    ClusterClient::new(channel).max_decoding_message_size(limits::GRPC_MESSAGE_MAX_BYTES)
}

impl Cluster {
    /// Makes a cluster of running nodes that belong to none; asked of the first node of the plan, once in the life of a cluster.
    ///
    /// # Errors
    /// [`Error::Exists`] when the node is in a cluster already; [`Error::Invalid`] for a plan that makes no sense.
    pub async fn init(&self, plan: InitPlan) -> Result<ClusterId, Error> {
        let first = plan
            .nodes
            .first()
            .ok_or_else(|| Error::Invalid("a cluster needs at least one node".to_owned()))?;
        let target = Target {
            address: first.client_address.clone(),
            node: Some(first.id),
        };
        let message = v1::InitRequest {
            cluster_name: plan.cluster_name,
            nodes: plan.nodes.into_iter().map(convert::node).collect(),
            shards: plan.shards,
            replicas: plan.replicas,
        };
        let asked = self
            .client
            .core
            .ask_node(&target, self.client.until(), message, |channel, request| async move {
                service(channel).init(request).await
            });
        convert::id(&asked.await?.cluster)
    }

    /// Asks one node about itself. With `digests` it reads a digest of every group, which costs it a flush of the view.
    /// A node that cannot be reached is not dialled again and again: the answer comes soon.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when it does not answer, [`Error::NotFound`] when the directory does not know it.
    pub async fn node_status(&self, node: NodeId, digests: bool) -> Result<NodeStatus, Error> {
        let target = self.target(node).await?;
        let message = v1::NodeStatusRequest { digests };
        let asked = self
            .client
            .core
            .ask_node(&target, self.client.until(), message, |channel, request| async move {
                service(channel).node_status(request).await
            });
        convert::node_status(asked.await?)
    }

    /// Tells the directory of a new node. It holds no shard yet.
    ///
    /// # Errors
    /// [`Error::Exists`] when the id is in use or was.
    pub async fn node_add(&self, node: Node) -> Result<(), Error> {
        let message = v1::NodeAddRequest {
            node: Some(convert::node(node)),
        };
        let asked = self.client.core.ask(
            ShardId::DIRECTORY,
            self.client.until(),
            message,
            |channel, request| async move { service(channel).node_add(request).await },
        );
        asked.await.map(|_| ())
    }

    /// Gives every replica of `replaces` to the new `node`, waits for its data, then retires the old one. Returns the number of
    /// groups moved. Each group is moved by the node that leads it, so every node is asked, until none names the old one. Long: give
    /// it a deadline to match; called again it goes on where it stopped.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is refused for safety, [`Error::Unavailable`] at the deadline.
    pub async fn node_replace(&self, node: Node, replaces: NodeId) -> Result<u32, Error> {
        let deadline = self.client.until();
        let mut moved = 0;
        loop {
            let topology = self.client.directory().topology().await?;
            let retired = topology.nodes.iter().any(|known| known.id == replaces && known.retired);
            if !topology.nodes.iter().any(|known| known.id == replaces) {
                return Err(Error::NotFound(format!("the directory knows no node {replaces}")));
            }
            let held = topology.shards.iter().any(|shard| shard.replicas.contains(&replaces));
            if retired && !held {
                return Ok(moved);
            }
            let mut said = None;
            for other in topology
                .nodes
                .iter()
                .filter(|known| !known.retired && known.id != replaces)
            {
                match self.replace_at(other.id, node.clone(), replaces, deadline).await {
                    Ok(groups) => moved += groups,
                    // Another node may lead what this one cannot move; what nobody can is said at the deadline.
                    Err(error @ (Error::Unavailable(_) | Error::Busy(_))) => said = Some(error),
                    Err(error) => return Err(error),
                }
            }
            if malle_rt::now() + REPLACE_LOOK >= deadline {
                let reason = said.map_or_else(
                    || "groups still name the old node".to_owned(),
                    |error| error.to_string(),
                );
                return Err(Error::Unavailable(format!(
                    "not replaced yet, {moved} groups moved: {reason}"
                )));
            }
            malle_rt::sleep(REPLACE_LOOK).await;
        }
    }

    /// Asks one node to move the groups that it leads.
    async fn replace_at(&self, at: NodeId, node: Node, replaces: NodeId, deadline: Instant) -> Result<u32, Error> {
        let message = v1::NodeReplaceRequest {
            node: Some(convert::node(node)),
            replaces: replaces.0,
        };
        let send = |channel, request| async move { service(channel).node_replace(request).await };
        let reply = self
            .client
            .core
            .ask_node(&self.target(at).await?, deadline, message, send)
            .await?;
        Ok(reply.groups_moved)
    }

    /// Makes another replica the leader of a group.
    ///
    /// # Errors
    /// [`Error::Invalid`] when `to` has no vote in it.
    pub async fn leader_move(&self, shard: ShardId, to: NodeId) -> Result<(), Error> {
        let message = v1::LeaderMoveRequest {
            shard: shard.0,
            to: to.0,
        };
        let asked = self
            .client
            .core
            .ask(shard, self.client.until(), message, |channel, request| async move {
                service(channel).leader_move(request).await
            });
        asked.await?;
        self.client.core.routes.leader(shard, to);
        Ok(())
    }

    /// Makes a checkpoint of a group on one node (its leader when `None`) and purges its log behind it. Returns the checkpoint's log
    /// index.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the node does not hold the group.
    pub async fn checkpoint(&self, shard: ShardId, node: Option<NodeId>) -> Result<u64, Error> {
        let message = v1::CheckpointRequest { shard: shard.0 };
        let (core, deadline) = (&self.client.core, self.client.until());
        let send = |channel, request| async move { service(channel).checkpoint(request).await };
        let reply = match node {
            Some(node) => {
                core.ask_node(&self.target(node).await?, deadline, message, send)
                    .await?
            }
            None => core.ask_patiently(shard, deadline, message, send).await?,
        };
        Ok(reply.index)
    }

    /// Where a node is, asked of the directory when it is not known.
    async fn target(&self, node: NodeId) -> Result<Target, Error> {
        if let Some(target) = self.client.core.routes.node(node) {
            return Ok(target);
        }
        self.client.directory().topology().await?;
        let found = self.client.core.routes.node(node);
        found.ok_or_else(|| Error::NotFound(format!("the directory knows no node {node} in use")))
    }
}
