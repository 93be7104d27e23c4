//! Opens the groups that the directory gives this node.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use malle_machine::directory;
use malle_proto::{NodeId, ShardId};
use tokio::sync::watch;

use super::{grants, leaders};
use crate::env::Env;
use crate::peers::PeerAddresses;
use crate::raft::{Barrier, Group, GroupError, Groups};

/// The longest pause between two looks at the directory; a change of it is seen at once.
const LOOK: Duration = Duration::from_secs(1);
/// A look at this node's own copy of the directory takes at most this long.
const READ: Duration = Duration::from_secs(5);

/// Follows the directory until the node stops.
pub struct Placement {
    groups: Arc<Groups>,
    addresses: Arc<PeerAddresses>,
    env: Env,
    leaders: leaders::Leaders,
}

/// The directory's rows that placement looks at.
pub(super) struct Plan {
    pub nodes: BTreeMap<NodeId, directory::Node>,
    pub shards: Vec<directory::Shard>,
}

pub(super) async fn read_plan(directory: &Group, barrier: Barrier) -> Result<Plan, GroupError> {
    directory
        .read(barrier, malle_rt::now() + READ, |view| {
            let nodes = directory::read::nodes(view)?;
            let shards = directory::read::shards(view)?;
            Ok(Plan {
                nodes: nodes.into_iter().map(|node| (node.id, node)).collect(),
                shards: shards.into_iter().map(|(shard, _)| shard).collect(),
            })
        })
        .await
}

impl Placement {
    /// Works on these groups.
    pub fn new(groups: Arc<Groups>, addresses: Arc<PeerAddresses>, env: Env) -> Self {
        Placement {
            groups,
            addresses,
            env,
            leaders: leaders::Leaders::default(),
        }
    }

    /// Follows the directory until `stop` says so.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let Some(directory) = self.groups.get(ShardId::DIRECTORY) else {
            return;
        };
        let mut applied = directory.applied();
        drop(directory);
        while !*stop.borrow_and_update() {
            applied.borrow_and_update();
            if let Err(error) = self.step().await {
                tracing::debug!(%error, "placement looks again later");
            }
            tokio::select! {
                _ = stop.changed() => {}
                changed = applied.changed() => if changed.is_err() {
                    // The directory's view was rebuilt: follow the new one.
                    malle_rt::sleep(LOOK).await;
                    match self.groups.get(ShardId::DIRECTORY) {
                        Some(directory) => applied = directory.applied(),
                        None => continue,
                    }
                },
                () = malle_rt::sleep(LOOK) => {}
            }
        }
    }

    async fn step(&mut self) -> Result<(), GroupError> {
        let directory = self
            .groups
            .get(ShardId::DIRECTORY)
            .ok_or_else(|| GroupError::Unavailable("the directory is not open here".into()))?;
        let plan = read_plan(&directory, Barrier::Local).await?;
        for node in plan.nodes.values() {
            self.addresses.learn(node.id, &node.peer_address);
        }
        for shard in &plan.shards {
            if shard.replicas.contains(&self.groups.node())
                && let Err(error) = self.hold(&plan, shard).await
            {
                tracing::warn!(shard = %shard.id, %error, "a group that belongs here is not open");
            }
        }
        self.leave_lost(&plan).await;
        for group in self.groups.all() {
            if group.shard() != ShardId::DIRECTORY && group.is_leader() {
                grants::open_accounts(&group, &directory, &self.env).await?;
                grants::sweep(&group).await?;
                self.leaders.look(&self.groups, &group, &plan).await?;
            }
        }
        Ok(())
    }

    async fn hold(&self, plan: &Plan, shard: &directory::Shard) -> Result<(), GroupError> {
        let group = match self.groups.get(shard.id) {
            Some(group) => group,
            None if self.groups.failed().contains_key(&shard.id) => {
                return Err(GroupError::Stopped("it failed; see the node's log".into()));
            }
            None => self.groups.open(shard.id).await?,
        };
        // Only the first replica of the first epoch makes the group, so that it is made once.
        if shard.epoch == 1 && shard.replicas.first() == Some(&self.groups.node()) {
            let members: BTreeMap<NodeId, String> = shard
                .replicas
                .iter()
                .filter_map(|id| plan.nodes.get(id).map(|node| (*id, node.peer_address.clone())))
                .collect();
            if members.len() == shard.replicas.len() {
                group.initialize(members).await?;
            }
        }
        Ok(())
    }

    /// Leaves groups whose members no longer count this node: first by the directory, then by the group's own word.
    async fn leave_lost(&self, plan: &Plan) {
        let mine: BTreeSet<ShardId> = plan
            .shards
            .iter()
            .filter(|shard| shard.replicas.contains(&self.groups.node()))
            .map(|shard| shard.id)
            .collect();
        for group in self.groups.all() {
            let members = group.nodes();
            let dropped = !members.is_empty() && !members.contains_key(&self.groups.node());
            if group.shard() != ShardId::DIRECTORY && !mine.contains(&group.shard()) && dropped {
                tracing::info!(shard = %group.shard(), "this node no longer holds a replica");
                self.groups.leave(group.shard()).await;
            }
        }
    }
}
