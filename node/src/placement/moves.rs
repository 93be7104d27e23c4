//! Moves of replicas, made by the node that leads the group: it looks at what is, takes one step, and tells the directory.
//!
//! The directory's leader says which moves there are (`driver`), and [`next_step`] what comes next. Nothing is remembered between two looks:
//! a new leader of the group goes on where the last one stopped. What this must never do: take a vote from a node before another one has its
//! rows and bodies, or wait without an end.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use malle_machine::directory::{self, Task, TaskStep};
use malle_proto::{NodeId, ShardId};
use tokio::sync::watch;

use super::assign::{Plan, read_plan};
use super::next_step::{Facts, Next, next_step};
use crate::peers::Transport;
use crate::raft::{Barrier, Group, GroupError, Groups};

/// Pause between two looks while this node has a move to make.
const LOOK: Duration = Duration::from_millis(300);
/// Pause between two looks at whether there is one.
const IDLE: Duration = Duration::from_secs(1);
/// One step takes at most this long; the next look begins it again.
const STEP: Duration = Duration::from_secs(15);
/// A replica says within this how far it is.
const ASK: Duration = Duration::from_secs(2);

/// Makes the moves of the groups that this node leads.
pub struct Moves {
    groups: Arc<Groups>,
    transport: Arc<dyn Transport>,
}

impl Moves {
    /// In these groups.
    pub fn new(groups: Arc<Groups>, transport: Arc<dyn Transport>) -> Self {
        Moves { groups, transport }
    }

    /// Makes them until `stop` says so.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        while !*stop.borrow_and_update() {
            let busy = match self.look().await {
                Ok(busy) => busy,
                Err(error) => {
                    tracing::debug!(%error, "moves are looked at again later");
                    false
                }
            };
            let pause = if busy { LOOK } else { IDLE };
            tokio::select! {
                _ = stop.changed() => {}
                () = malle_rt::sleep(pause) => {}
            }
        }
    }

    /// One step of every move that is this node's; says whether there is any.
    async fn look(&self) -> Result<bool, GroupError> {
        let directory = self
            .groups
            .get(ShardId::DIRECTORY)
            .ok_or_else(|| GroupError::Unavailable("the directory is not open here".into()))?;
        let plan = read_plan(&directory, Barrier::Local).await?;
        let mut busy = false;
        for task in &plan.running {
            let Some(group) = self.groups.get(task.shard).filter(|group| group.is_leader()) else {
                continue;
            };
            busy = true;
            match malle_rt::timeout(STEP, self.step(&group, task, &plan)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::info!(task = task.id, shard = %task.shard, %error, "a move is tried again"),
                Err(_) => tracing::warn!(task = task.id, shard = %task.shard, "a step of a move takes long"),
            }
        }
        Ok(busy)
    }

    async fn step(&self, group: &Group, task: &Task, plan: &Plan) -> Result<(), GroupError> {
        let facts = self.facts(group, task, plan).await;
        match next_step(task, &facts) {
            Next::Say(step) => {
                let (id, shard) = (task.id, task.shard);
                tracing::info!(task = id, %shard, step = step.as_str(), "a move has come further");
                self.say(task, step, String::new()).await
            }
            Next::Join(node) => {
                let address = plan.nodes.get(&node).map(|node| node.peer_address.clone());
                let address = address.ok_or_else(|| GroupError::Invalid(format!("no node {node}")))?;
                group.begin_learner(node, address).await
            }
            Next::HandOver => {
                let deadline = malle_rt::now() + STEP;
                let to = self.groups.hand_over(group, deadline).await?;
                tracing::info!(shard = %task.shard, %to, "this node's replica is to leave: another one leads");
                Ok(())
            }
            Next::Switch(voters) => {
                let voters: Vec<NodeId> = voters.into_iter().collect();
                if task.shard == ShardId::DIRECTORY {
                    // Every node follows the directory, with a vote or without.
                    group.set_voters_and_keep(&voters).await
                } else {
                    group.set_voters(&voters).await
                }
            }
            Next::Drop(node) => group.remove_learners(&[node]).await,
            Next::Wait(note) if note == task.note => Ok(()),
            Next::Wait(note) => self.say(task, task.step, note).await,
        }
    }

    async fn say(&self, task: &Task, step: TaskStep, note: String) -> Result<(), GroupError> {
        let op = directory::Op::TaskAdvance {
            task: task.id,
            step,
            note,
        };
        match self.groups.propose_directory(op, malle_rt::now() + STEP).await? {
            directory::Outcome::Refused(refusal) => Err(GroupError::Invalid(refusal.to_string())),
            _ => Ok(()),
        }
    }

    async fn facts(&self, group: &Group, task: &Task, plan: &Plan) -> Facts {
        let row = plan.shards.iter().find(|row| row.id == task.shard);
        let silent = plan.states.iter().filter(|(_, state)| !state.counts());
        Facts {
            leader: self.groups.node(),
            voters: group.settled_voters(),
            unfinished: group.unfinished_voters(),
            members: group.nodes().into_keys().collect(),
            lacks: match task.join {
                Some(join) => self.lacks(group, join).await,
                None => None,
            },
            silent: silent.map(|(node, _)| *node).collect(),
            row: row.map(|row| row.replicas.iter().copied().collect::<BTreeSet<NodeId>>()),
        }
    }

    /// What a replica lacks of what is committed now; `None` when it has all of it.
    async fn lacks(&self, group: &Group, node: NodeId) -> Option<String> {
        let want = group.committed_index();
        let asked = self.transport.replica(node, group.shard(), malle_rt::now() + ASK).await;
        let status = match asked {
            Ok(status) => status,
            Err(error) => return Some(format!("node {node}: {error}")),
        };
        // The directory names no bodies.
        let bodies = group.shard() == ShardId::DIRECTORY || status.bodies_complete_through >= want;
        if status.applied_index >= want && bodies {
            return None;
        }
        // By tenths: whoever reads it wants to see it go on, and each new note is a command.
        let tenth = |index: u64| index.saturating_mul(10).checked_div(want).unwrap_or(0).min(10) * 10;
        let (rows, bodies) = (tenth(status.applied_index), tenth(status.bodies_complete_through));
        Some(format!(
            "node {node} has {rows}% of the log and bodies through {bodies}%"
        ))
    }
}
