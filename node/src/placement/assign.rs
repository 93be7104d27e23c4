//! Opens the groups that the directory gives this node.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use malle_machine::directory::{self, NodeState, Standing, Task};
use malle_proto::{NodeId, ShardId};
use malle_rt::Instant;
use tokio::sync::watch;

use super::{grants, leaders};
use crate::env::Env;
use crate::peers::{PeerAddresses, Transport};
use crate::raft::{Barrier, Group, GroupError, Groups};

/// The longest pause between two looks at the directory; a change of it is seen at once.
const LOOK: Duration = Duration::from_secs(1);
/// Pause between two looks at whether what is here belongs here: it asks other nodes.
const TIDY: Duration = Duration::from_secs(5);
/// Another node says within this what it knows of a group.
const ASK: Duration = Duration::from_secs(2);
/// A drained node gives what it leads away within this; what nobody takes it offers again.
const AWAY: Duration = Duration::from_secs(5);
/// A look at this node's own copy of the directory takes at most this long.
const READ: Duration = Duration::from_secs(5);

/// Follows the directory until the node stops.
pub struct Placement {
    groups: Arc<Groups>,
    addresses: Arc<PeerAddresses>,
    transport: Arc<dyn Transport>,
    env: Env,
    leaders: leaders::Leaders,
    /// When to look again at whether what is here belongs here.
    tidy_at: Instant,
}

/// The directory's rows that placement looks at.
pub(super) struct Plan {
    pub nodes: BTreeMap<NodeId, directory::Node>,
    pub shards: Vec<directory::Shard>,
    pub states: BTreeMap<NodeId, NodeState>,
    /// Moves that are not over.
    pub running: Vec<Task>,
}

impl Plan {
    /// What is done with a node.
    pub fn standing(&self, node: NodeId) -> Standing {
        self.states.get(&node).map_or(Standing::Active, |state| state.standing)
    }

    /// Whether this node has a replica of the shard, or is being given one.
    fn gives(&self, node: NodeId, shard: ShardId) -> bool {
        let row = self.shards.iter().find(|row| row.id == shard);
        row.is_some_and(|row| row.replicas.contains(&node))
            || self
                .running
                .iter()
                .any(|task| task.shard == shard && task.join == Some(node))
    }
}

pub(super) async fn read_plan(directory: &Group, barrier: Barrier) -> Result<Plan, GroupError> {
    directory
        .read(barrier, malle_rt::now() + READ, |view| {
            let nodes = directory::read::nodes(view)?;
            let shards = directory::read::shards(view)?;
            let tasks = directory::read::tasks(view)?;
            Ok(Plan {
                nodes: nodes.into_iter().map(|node| (node.id, node)).collect(),
                shards: shards.into_iter().map(|(shard, _)| shard).collect(),
                states: directory::read::node_states(view)?,
                running: tasks.into_iter().filter(|task| !task.step.is_over()).collect(),
            })
        })
        .await
}

impl Placement {
    /// Works on these groups.
    pub fn new(groups: Arc<Groups>, addresses: Arc<PeerAddresses>, transport: Arc<dyn Transport>, env: Env) -> Self {
        Placement {
            groups,
            addresses,
            transport,
            env,
            leaders: leaders::Leaders::default(),
            tidy_at: malle_rt::now(),
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
        self.drain(&plan).await;
        if malle_rt::now() >= self.tidy_at {
            self.tidy_at = malle_rt::now() + TIDY;
            self.leave_lost(&directory).await?;
        }
        let all = self.groups.all();
        let led = all.iter().filter(|group| group.is_leader()).map(|group| group.shard());
        self.leaders.lead_only(&led.collect());
        for group in all {
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

    /// What an operator drains or takes out leads nothing: not now, and not after the next election.
    async fn drain(&self, plan: &Plan) {
        let standing = plan.standing(self.groups.node());
        let away = matches!(standing, Standing::Draining | Standing::Leaving);
        self.groups.duty().drain(away);
        if !away || !self.groups.all().iter().any(|group| group.is_leader()) {
            return;
        }
        let done = self.groups.hand_over_all(malle_rt::now() + AWAY).await;
        let (given, kept) = (done.given.len(), done.kept.len());
        tracing::info!(
            given,
            kept,
            "this node is {}: others lead its groups",
            standing.as_str()
        );
    }

    /// Removes groups whose replica moved away from this node. The directory's word, read behind a barrier, says so first, then that of the
    /// group's own leader: nothing goes because this node is behind.
    async fn leave_lost(&self, directory: &Group) -> Result<(), GroupError> {
        let node = self.groups.node();
        let here: BTreeSet<ShardId> = self
            .groups
            .all()
            .iter()
            .map(|group| group.shard())
            .chain(self.groups.failed().into_keys())
            .filter(|shard| *shard != ShardId::DIRECTORY)
            .collect();
        let plan = read_plan(directory, Barrier::Local).await?;
        let bodies = self.groups.has_strange_bodies(|shard| plan.gives(node, shard));
        if !bodies && here.iter().all(|shard| plan.gives(node, *shard)) {
            return Ok(());
        }
        // What the leader has committed by now; a node without a vote asks for it, too.
        let newest = match directory.is_leader() {
            true => Barrier::Linearizable,
            false => Barrier::Stale(Duration::ZERO),
        };
        let plan = read_plan(directory, newest).await?;
        for row in &plan.shards {
            if here.contains(&row.id) && !plan.gives(node, row.id) && self.is_stranger_to(row).await {
                tracing::info!(shard = %row.id, "this node no longer holds a replica");
                self.groups.leave(row.id).await?;
            }
        }
        self.groups.drop_strange_bodies(|shard| plan.gives(node, shard)).await;
        Ok(())
    }

    /// Whether the leader of a group says that this node is no member of it.
    async fn is_stranger_to(&self, row: &directory::Shard) -> bool {
        let node = self.groups.node();
        for replica in &row.replicas {
            let asked = self.transport.replica(*replica, row.id, malle_rt::now() + ASK).await;
            if let Ok(status) = asked
                && status.role == "leader"
            {
                let member = status.voters.contains(&node.0) || status.learners.contains(&node.0);
                return !member;
            }
        }
        false
    }
}
