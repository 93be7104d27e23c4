//! A lost node's replicas are given to another, group by group, by the node that leads the group.

use std::sync::Arc;
use std::time::Duration;

use malle_machine::directory;
use malle_proto::{NodeId, ShardId};
use malle_rt::Instant;

use super::assign::read_plan;
use super::replicas::Replicas;
use crate::peers::{PeerAddresses, Transport};
use crate::raft::{Barrier, Group, GroupError, Groups};

/// Pause between two looks at how far a new replica has come.
const LOOK: Duration = Duration::from_millis(200);

/// Why a node was not replaced (yet). Calling again goes on where it stopped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplaceError {
    /// A group.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// The directory said no.
    #[error("{0}")]
    Refused(#[from] directory::Refusal),
    /// The new replica has not caught up before the deadline.
    #[error("node {node} has not caught up with shard {shard}: {missing}")]
    Behind {
        /// The new node.
        node: NodeId,
        /// The group.
        shard: ShardId,
        /// What it lacks.
        missing: String,
    },
}

/// Gives the replicas of lost nodes to others.
#[derive(Clone)]
pub struct Replacements {
    groups: Arc<Groups>,
    transport: Arc<dyn Transport>,
    addresses: Arc<PeerAddresses>,
}

impl Replacements {
    /// In these groups.
    pub fn new(groups: Arc<Groups>, transport: Arc<dyn Transport>, addresses: Arc<PeerAddresses>) -> Self {
        Replacements {
            groups,
            transport,
            addresses,
        }
    }

    /// Asks other nodes by the same way.
    pub fn replicas(&self) -> Replicas {
        Replicas::new(self.transport.clone())
    }

    /// See [`replace_node`].
    ///
    /// # Errors
    /// See [`ReplaceError`].
    pub async fn replace(&self, node: directory::Node, lost: NodeId, deadline: Instant) -> Result<u32, ReplaceError> {
        replace_node(&self.groups, &self.transport, &self.addresses, node, lost, deadline).await
    }
}

/// Registers `node` and moves the replicas that `lost` had to it, in every group that this node leads; retires `lost` once no shard
/// names it. Returns how many groups it moved. Every step may be repeated, and every leader must be asked.
///
/// # Errors
/// See [`ReplaceError`].
async fn replace_node(
    groups: &Arc<Groups>,
    transport: &Arc<dyn Transport>,
    addresses: &Arc<PeerAddresses>,
    node: directory::Node,
    lost: NodeId,
    deadline: Instant,
) -> Result<u32, ReplaceError> {
    addresses.learn(node.id, &node.peer_address);
    register(groups, node.clone(), deadline).await?;
    let mut moved = 0;
    for group in groups.all() {
        if group.is_leader() && group.nodes().contains_key(&lost) {
            move_replica(&group, transport, &node, lost, deadline).await?;
            moved += 1;
        }
    }
    let directory = groups
        .get(ShardId::DIRECTORY)
        .ok_or_else(|| GroupError::Unavailable("the directory is not open here".into()))?;
    if directory.is_leader() {
        let plan = read_plan(&directory, Barrier::Linearizable).await?;
        let held = plan.shards.iter().any(|shard| shard.replicas.contains(&lost));
        let known = plan.nodes.get(&lost).is_some_and(|row| !row.retired);
        if !held && known {
            propose(groups, directory::Op::NodeRetire { node: lost }, deadline).await?;
        }
    }
    Ok(moved)
}

/// Tells the directory of a node and lets it follow the directory's log.
///
/// # Errors
/// See [`ReplaceError`].
pub async fn register(groups: &Arc<Groups>, node: directory::Node, deadline: Instant) -> Result<(), ReplaceError> {
    let (id, peer_address) = (node.id, node.peer_address.clone());
    propose(groups, directory::Op::NodeSet { node }, deadline).await?;
    let directory = groups
        .get(ShardId::DIRECTORY)
        .ok_or_else(|| GroupError::Unavailable("the directory is not open here".into()))?;
    if directory.is_leader() && !directory.nodes().contains_key(&id) {
        directory.add_learner(id, peer_address).await?;
    }
    Ok(())
}

async fn propose(groups: &Arc<Groups>, op: directory::Op, deadline: Instant) -> Result<(), ReplaceError> {
    match groups.propose_directory(op, deadline).await? {
        directory::Outcome::Refused(refusal) => Err(refusal.into()),
        _ => Ok(()),
    }
}

async fn move_replica(
    group: &Group,
    transport: &Arc<dyn Transport>,
    node: &directory::Node,
    lost: NodeId,
    deadline: Instant,
) -> Result<(), ReplaceError> {
    let shard = group.shard();
    let Ok(joined) = malle_rt::timeout_at(deadline, group.add_learner(node.id, node.peer_address.clone())).await else {
        return Err(ReplaceError::Behind {
            node: node.id,
            shard,
            missing: "log or snapshot".into(),
        });
    };
    joined?;
    // No voter leaves before its successor has the bodies as well as the rows (decision 4).
    wait_for_bodies(group, transport, node.id, deadline).await?;
    let members = group.members();
    let Some(voters) = members.voters.last() else {
        return Ok(());
    };
    let voters: Vec<NodeId> = voters
        .iter()
        .map(|id| if *id == lost { node.id } else { *id })
        .collect();
    let Ok(changed) = malle_rt::timeout_at(deadline, group.set_voters(&voters)).await else {
        return Err(GroupError::Deadline.into());
    };
    changed?;
    wait_for_bodies(group, transport, node.id, deadline).await
}

async fn wait_for_bodies(
    group: &Group,
    transport: &Arc<dyn Transport>,
    node: NodeId,
    deadline: Instant,
) -> Result<(), ReplaceError> {
    let shard = group.shard();
    let want = group.state().applied_index();
    loop {
        let has = transport.replica(node, shard, deadline).await;
        let missing = match has {
            Ok(status) if status.bodies_complete_through >= want => return Ok(()),
            Ok(status) => format!("bodies through {} of {want}", status.bodies_complete_through),
            Err(error) => error.to_string(),
        };
        if malle_rt::now() + LOOK >= deadline {
            return Err(ReplaceError::Behind { node, shard, missing });
        }
        malle_rt::sleep(LOOK).await;
    }
}
