//! The driver: on the directory's leader it hears which nodes answer, says which are dead, and begins moves until what is, is what should be.
//!
//! It compares and takes a step, and remembers only whom it heard last: silence, standings and moves are rows of the directory, so another
//! leader goes on where this one stopped. Who makes a move is the leader of its shard (`moves`); which node leads a shard by preference is
//! said here, too. What it must never do: begin more moves than [`limits::MOVES_AT_ONCE`], give anything to a node that does not answer, or
//! decide what becomes of a shard that has lost its majority (the planner leaves it to a person).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use malle_machine::directory::{self, Layout, NodeState, Op, Standing, Task, TaskStep, planner_input};
use malle_machine::planner::{self, Input, Move, Reason};
use malle_proto::{NodeId, ShardId, limits};
use malle_rt::Instant;
use tokio::sync::watch;

use super::replicas::Replicas;
use super::upkeep;
use crate::env::Env;
use crate::peers::Transport;
use crate::raft::{Barrier, Group, GroupError, Groups};

/// Pause between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// A node that answers does so within this.
const ASK: Duration = Duration::from_secs(2);
/// A command takes at most this long; the next look begins it again.
const COMMAND: Duration = Duration::from_secs(5);
/// A move to a node that is silent for so long is undone, and planned to another.
const TARGET_SILENT_MS: u64 = 60_000;

/// So long after its last replica went a node that leaves has removed its copies.
const TIDIES_MS: u64 = 15_000;

/// See the head of this file.
pub struct Driver {
    pub(super) groups: Arc<Groups>,
    pub(super) transport: Arc<dyn Transport>,
    env: Env,
    /// When each node answered last, since this node has led.
    heard: BTreeMap<NodeId, Instant>,
    /// Nodes that answer and want no more: their disks are full, or they stop.
    unwilling: BTreeSet<NodeId>,
    /// The last plan, and what it was made of.
    planned: Option<(Input, planner::Plan)>,
    pub(super) leaders_at: Instant,
}

/// The directory's rows that the driver looks at.
#[derive(Clone)]
pub(super) struct Rows {
    pub layout: Layout,
    pub nodes: Vec<(directory::Node, NodeState)>,
    pub shards: Vec<directory::Shard>,
    pub running: Vec<Task>,
    /// When the last replica left each node.
    pub left_ms: BTreeMap<NodeId, u64>,
    /// The machine's time.
    pub now_ms: u64,
}

impl Rows {
    pub fn state(&self, node: NodeId) -> Option<&(directory::Node, NodeState)> {
        self.nodes.iter().find(|(row, _)| row.id == node && !row.retired)
    }
}

pub(super) async fn read_rows(directory: &Group) -> Result<Rows, GroupError> {
    directory
        .read(Barrier::Linearizable, malle_rt::now() + COMMAND, |view| {
            let states = directory::read::node_states(view)?;
            let state = |node: NodeId| states.get(&node).copied().unwrap_or(NodeState::FIRST);
            let nodes = directory::read::nodes(view)?;
            let tasks = directory::read::tasks(view)?;
            let mut left_ms: BTreeMap<NodeId, u64> = BTreeMap::new();
            for task in &tasks {
                if let Some(leave) = task.leave {
                    let last = left_ms.entry(leave).or_default();
                    *last = task.changed_ms.max(*last);
                }
            }
            Ok(Rows {
                left_ms,
                layout: directory::read::layout(view)?,
                nodes: nodes
                    .into_iter()
                    .map(|node| (state(node.id), node))
                    .map(|(state, node)| (node, state))
                    .collect(),
                shards: directory::read::shards(view)?
                    .into_iter()
                    .map(|(shard, _)| shard)
                    .collect(),
                running: tasks.into_iter().filter(|task| !task.step.is_over()).collect(),
                now_ms: directory::read::time_ms(view)?,
            })
        })
        .await
}

impl Driver {
    /// Works on these groups.
    pub fn new(groups: Arc<Groups>, transport: Arc<dyn Transport>, env: Env) -> Self {
        Driver {
            groups,
            transport,
            env,
            heard: BTreeMap::new(),
            unwilling: BTreeSet::new(),
            planned: None,
            leaders_at: malle_rt::now(),
        }
    }

    /// Drives while this node leads the directory, until `stop` says so.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        while !*stop.borrow_and_update() {
            match self
                .groups
                .get(ShardId::DIRECTORY)
                .filter(|directory| directory.is_leader())
            {
                Some(directory) => {
                    if let Err(error) = self.look(&directory).await {
                        tracing::debug!(%error, "the driver looks again later");
                    }
                }
                None => {
                    // Another one counts silence now.
                    self.heard.clear();
                    self.planned = None;
                }
            }
            tokio::select! {
                _ = stop.changed() => {}
                () = malle_rt::sleep(LOOK) => {}
            }
        }
    }

    async fn look(&mut self, directory: &Arc<Group>) -> Result<(), GroupError> {
        let rows = read_rows(directory).await?;
        self.listen(&rows).await?;
        upkeep::members(directory, &rows).await?;
        self.retire(directory, &rows).await?;
        self.cancel(&rows).await?;
        if rows.running.len() < limits::MOVES_AT_ONCE {
            self.begin(directory, &rows).await?;
        }
        self.order_leaders(&rows).await
    }

    pub(super) async fn propose(&self, op: Op) -> Result<(), GroupError> {
        let done = self.groups.propose_directory(op, malle_rt::now() + COMMAND).await?;
        match done {
            directory::Outcome::Refused(refusal) => Err(GroupError::Invalid(refusal.to_string())),
            _ => Ok(()),
        }
    }

    /// Asks every node, and tells the directory of those that do not answer, that do again, and that are dead.
    async fn listen(&mut self, rows: &Rows) -> Result<(), GroupError> {
        let me = self.groups.node();
        let others = rows.nodes.iter().filter(|(node, _)| node.id != me && !node.retired);
        let asked = others.map(|(node, _)| {
            let (node, transport) = (node.id, &self.transport);
            async move {
                let deadline = malle_rt::now() + ASK;
                let answer = transport.replica(node, ShardId::DIRECTORY, deadline).await;
                (node, answer.ok().map(|status| status.unwilling))
            }
        });
        let answers = futures::future::join_all(asked).await;
        let now = malle_rt::now();
        let silent_after = Duration::from_millis(limits::NODE_SILENT_MS);
        let mut silent: BTreeMap<NodeId, bool> = BTreeMap::from([(me, false)]);
        self.unwilling.clear();
        for (node, answer) in answers {
            let last = self.heard.entry(node).or_insert(now);
            if let Some(unwilling) = answer {
                *last = now;
                silent.insert(node, false);
                if !unwilling.is_empty() {
                    self.unwilling.insert(node);
                }
            } else if now - *last >= silent_after {
                silent.insert(node, true);
            }
        }
        let now_ms = self.env.now_ms().max(rows.now_ms);
        for (node, state) in rows.nodes.iter().filter(|(node, _)| !node.retired) {
            let Some(&silent) = silent.get(&node.id) else { continue };
            if silent != state.silent_since_ms.is_some() {
                self.propose(Op::NodeSilence { node: node.id, silent }).await?;
                tracing::info!(node = %node.id, silent, "a node does not answer, or does again");
            } else if let Some(since_ms) = state.silent_since_ms
                // A node that an operator drained is expected back.
                && state.standing == Standing::Active
                && rows.layout.rebuild_after_ms > 0
                && now_ms.saturating_sub(since_ms) >= rows.layout.rebuild_after_ms
            {
                let op = Op::NodeStand {
                    node: node.id,
                    standing: Standing::Dead,
                    break_goal: None,
                };
                self.propose(op).await?;
                let silent_ms = now_ms.saturating_sub(since_ms);
                tracing::warn!(node = %node.id, silent_ms, "the node is dead: its replicas are rebuilt elsewhere");
            }
        }
        Ok(())
    }

    /// Nodes that leave or are gone for good, and that hold nothing any more.
    async fn retire(&self, directory: &Group, rows: &Rows) -> Result<(), GroupError> {
        let Some(voters) = directory.settled_voters() else {
            return Ok(());
        };
        for (node, state) in rows.nodes.iter().filter(|(node, _)| !node.retired) {
            let goes = matches!(state.standing, Standing::Leaving | Standing::Removed);
            let holds = rows.shards.iter().any(|shard| shard.replicas.contains(&node.id));
            let named = |task: &Task| task.join == Some(node.id) || task.leave == Some(node.id);
            // As long as it follows the directory it hears what is not its own any more, and removes it.
            let last_ms = rows.left_ms.get(&node.id).copied().unwrap_or(0);
            let now_ms = self.env.now_ms().max(rows.now_ms);
            let tidies = state.standing == Standing::Leaving && now_ms.saturating_sub(last_ms) < TIDIES_MS;
            if tidies {
                continue;
            }
            if goes && !holds && !voters.contains(&node.id) && !rows.running.iter().any(named) {
                self.propose(Op::NodeRetire { node: node.id }).await?;
                tracing::info!(node = %node.id, "the node holds nothing any more and is retired");
            }
        }
        Ok(())
    }

    /// Moves to nodes that will not take them.
    async fn cancel(&self, rows: &Rows) -> Result<(), GroupError> {
        let now_ms = self.env.now_ms().max(rows.now_ms);
        for task in &rows.running {
            let Some(join) = task.join.filter(|_| task.step.leads_to(TaskStep::Cancelling)) else {
                continue;
            };
            let reason = match rows.state(join) {
                None => "is not in the cluster any more".to_owned(),
                Some((_, state)) if !matches!(state.standing, Standing::Active | Standing::Draining) => {
                    format!("is {}", state.standing.as_str())
                }
                Some((_, state))
                    if state
                        .silent_since_ms
                        .is_some_and(|since| now_ms.saturating_sub(since) >= TARGET_SILENT_MS) =>
                {
                    "does not answer".to_owned()
                }
                Some(_) if self.unwilling.contains(&join) && task.step < TaskStep::CaughtUp => {
                    "takes nothing more now: its disk is full, or it stops".to_owned()
                }
                Some(_) => continue,
            };
            let note = format!("node {join} {reason}");
            tracing::warn!(task = task.id, shard = %task.shard, note, "a move is undone");
            self.propose(Op::TaskAdvance {
                task: task.id,
                step: TaskStep::Cancelling,
                note,
            })
            .await?;
        }
        Ok(())
    }

    /// What the planner is given: nothing goes to a node that wants no more now.
    pub(super) fn input(&self, rows: &Rows) -> Input {
        let busy = rows.running.iter().map(|task| task.shard).collect();
        let mut input = planner_input(&rows.layout, &rows.nodes, &rows.shards, &BTreeMap::new(), &busy);
        for node in &mut input.nodes {
            if node.standing == planner::Standing::Serving && self.unwilling.contains(&node.id) {
                node.standing = planner::Standing::Draining;
            }
        }
        input
    }

    /// Begins moves while there are fewer than may be.
    async fn begin(&mut self, directory: &Arc<Group>, rows: &Rows) -> Result<(), GroupError> {
        let mut taken: BTreeSet<NodeId> = rows.running.iter().filter_map(|task| task.join).collect();
        let mut free = limits::MOVES_AT_ONCE - rows.running.len().min(limits::MOVES_AT_ONCE);
        let input = self.input(rows);
        // The directory first: without it nothing else moves.
        let directory_moves = upkeep::plan_directory(directory, &input, rows);
        for one in directory_moves.into_iter().chain(self.plan(input).await) {
            if free == 0 {
                break;
            }
            // One to a node at a time: its disk takes what is written there one after the other anyway.
            if rows.running.iter().any(|task| task.shard == one.shard)
                || one.join.is_some_and(|join| !taken.insert(join))
            {
                continue;
            }
            self.start(rows, one).await?;
            free -= 1;
        }
        Ok(())
    }

    async fn start(&self, rows: &Rows, one: Move) -> Result<(), GroupError> {
        let row = rows.shards.iter().find(|row| row.id == one.shard);
        let bytes = match (one.join, row) {
            (Some(_), Some(row)) => Replicas::new(self.transport.clone()).size_of(row).await,
            _ => 0,
        };
        let reason: Reason = one.reason;
        self.propose(Op::TaskStart {
            shard: one.shard,
            epoch: row.map_or(0, |row| row.epoch),
            join: one.join,
            leave: one.leave,
            reason,
            bytes,
        })
        .await?;
        let (join, leave) = (one.join.map(|node| node.0), one.leave.map(|node| node.0));
        tracing::info!(shard = %one.shard, join, leave, bytes, reason = reason.as_str(), "a move begins");
        Ok(())
    }

    /// The moves that should be made now. Planned off the way and kept, for 300 nodes take the planner seconds.
    async fn plan(&mut self, input: Input) -> Vec<Move> {
        if let Some((of, plan)) = &self.planned
            && *of == input
        {
            return plan.moves.clone();
        }
        let of = input.clone();
        let plan = malle_rt::blocking(move || planner::plan(&of)).await;
        for problem in &plan.problems {
            tracing::warn!(problem, "the planner");
        }
        let moves = plan.moves.clone();
        self.planned = Some((input, plan));
        moves
    }
}
