//! Layouts, standings of nodes and moves of replicas: what operators ask of the directory's leader.
//!
//! A dry run is the command itself, applied to the rows as they are, and its writes thrown away: it cannot say anything else than the
//! command would.

use std::collections::BTreeSet;
use std::time::Duration;

use malle_machine::directory::{
    self, Applied, Layout, LayoutChange, NodeState, Op, Outcome, RoleChange, Standing, Task, TaskStep, planner_input,
};
use malle_machine::planner::{self, Goal};
use malle_machine::view::{Fault, View};
use malle_proto::{NodeId, ShardId, limits, v1};

use super::cluster::ClusterApi;
use super::error::Refused;
use crate::raft::{Barrier, Group, GroupError};

/// A command or a look takes at most this long; the operator asks again.
const STEP: Duration = Duration::from_secs(30);

/// What a layout is shown with.
struct Shown {
    layout: Layout,
    staged: Option<directory::Staged>,
    nodes: Vec<(directory::Node, NodeState)>,
    shards: Vec<directory::Shard>,
    history: Vec<Applied>,
}

impl ClusterApi {
    /// The directory, when this node leads it: plans and checks want the newest rows.
    fn leading(&self) -> Result<std::sync::Arc<Group>, Refused> {
        let directory = self.directory()?;
        if directory.is_leader() {
            return Ok(directory);
        }
        let leader = directory.leader();
        Err(GroupError::NotLeader { leader }.into())
    }

    async fn command(&self, op: Op, dry_run: bool) -> Result<(), Refused> {
        let directory = self.leading()?;
        let deadline = malle_rt::now() + STEP;
        let outcome = if dry_run {
            let command = directory::Command {
                time_ms: self.env.now_ms(),
                op,
            };
            let tried = move |view: &dyn View| directory::apply(view, &command).map(|(outcome, _)| outcome);
            directory.read(Barrier::Linearizable, deadline, tried).await?
        } else {
            directory.propose_directory(op, deadline).await?
        };
        match outcome {
            Outcome::Refused(refusal) => Err(refusal.into()),
            _ => Ok(()),
        }
    }

    pub(super) async fn show_layout(&self) -> Result<v1::LayoutReply, Refused> {
        let read = |view: &dyn View| {
            let states = directory::read::node_states(view)?;
            let state = |node: NodeId| states.get(&node).copied().unwrap_or(NodeState::FIRST);
            let nodes = directory::read::nodes(view)?;
            Ok::<_, Fault>(Shown {
                layout: directory::read::layout(view)?,
                staged: directory::read::staged(view)?,
                nodes: nodes
                    .into_iter()
                    .map(|node| (state(node.id), node))
                    .map(|(state, node)| (node, state))
                    .collect(),
                shards: directory::read::shards(view)?
                    .into_iter()
                    .map(|(shard, _)| shard)
                    .collect(),
                history: directory::read::layout_history(view)?,
            })
        };
        let deadline = malle_rt::now() + STEP;
        let shown = self.leading()?.read(Barrier::Linearizable, deadline, read).await?;
        Ok(layout_reply(shown))
    }

    pub(super) async fn stage_layout(&self, request: v1::LayoutStageRequest) -> Result<v1::LayoutReply, Refused> {
        let change = change_of(request.change.unwrap_or_default())?;
        self.command(Op::LayoutStage { change }, request.dry_run).await?;
        self.show_layout().await
    }

    pub(super) async fn apply_layout(
        &self,
        request: v1::LayoutApplyRequest,
        by: String,
    ) -> Result<v1::LayoutReply, Refused> {
        let op = Op::LayoutApply {
            version: request.version,
            by,
            break_goal: goal_of(&request.break_goal)?,
        };
        self.command(op, request.dry_run).await?;
        self.show_layout().await
    }

    pub(super) async fn revert_layout(&self, request: v1::LayoutRevertRequest) -> Result<v1::LayoutReply, Refused> {
        self.command(Op::LayoutRevert, request.dry_run).await?;
        self.show_layout().await
    }

    /// The moves that the layout with what is staged would bring, and whether it would be applied.
    pub(super) async fn plan_layout(&self) -> Result<v1::LayoutPlanReply, Refused> {
        let directory = self.leading()?;
        let time_ms = self.env.now_ms();
        let read = move |view: &dyn View| {
            let (layout, nodes) = directory::read::layout_to_come(view)?;
            let states = directory::read::node_states(view)?;
            let state = |node: NodeId| states.get(&node).copied().unwrap_or(NodeState::FIRST);
            let nodes: Vec<_> = nodes.into_iter().map(|node| (state(node.id), node)).collect();
            let nodes: Vec<_> = nodes.into_iter().map(|(state, node)| (node, state)).collect();
            let shards = directory::read::shards(view)?;
            let shards: Vec<directory::Shard> = shards.into_iter().map(|(shard, _)| shard).collect();
            let tasks = directory::read::tasks(view)?;
            let running = tasks.iter().filter(|task| !task.step.is_over());
            let busy: BTreeSet<ShardId> = running.map(|task| task.shard).collect();
            let refused = match directory::read::staged(view)? {
                None => String::new(),
                Some(staged) => {
                    let op = Op::LayoutApply {
                        version: staged.version,
                        by: String::new(),
                        break_goal: None,
                    };
                    match directory::apply(view, &directory::Command { time_ms, op })?.0 {
                        Outcome::Refused(refusal) => refusal.to_string(),
                        _ => String::new(),
                    }
                }
            };
            Ok::<_, Fault>((layout, nodes, shards, busy, refused))
        };
        let deadline = malle_rt::now() + STEP;
        let (layout, nodes, shards, busy, refused) = directory.read(Barrier::Linearizable, deadline, read).await?;
        let bytes = self.replicas.sizes(&shards).await;
        let version = layout.version;
        let planned = malle_rt::blocking(move || {
            let input = planner_input(&layout, &nodes, &shards, &bytes, &busy);
            planner::plan(&input)
        });
        let plan = planned.await;
        Ok(v1::LayoutPlanReply {
            version,
            moves: plan.moves.into_iter().map(planned_move).collect(),
            problems: plan.problems,
            refused,
            at_once: limits::MOVES_AT_ONCE as u32,
        })
    }

    pub(super) async fn stand(&self, request: v1::NodeStandRequest) -> Result<v1::NodeStandReply, Refused> {
        let node = NodeId(request.node);
        let standing = match request.standing.as_str() {
            "active" => Standing::Active,
            "draining" => Standing::Draining,
            "leaving" => Standing::Leaving,
            "removed" => Standing::Removed,
            other => return Err(Refused::invalid(format!("no standing {other:?}"))),
        };
        let directory = self.leading()?;
        if standing == Standing::Removed {
            self.is_gone(node).await?;
        }
        if matches!(standing, Standing::Removed | Standing::Draining) {
            directory_stays(&directory, node).await?;
        }
        let op = Op::NodeStand {
            node,
            standing,
            break_goal: goal_of(&request.break_goal)?,
        };
        self.command(op, request.dry_run).await?;
        Ok(v1::NodeStandReply {})
    }

    /// Only a node that does not answer is given up: one that does can give its data away itself.
    async fn is_gone(&self, node: NodeId) -> Result<(), Refused> {
        if node == self.groups.node() || self.replicas.answers(node).await {
            return Err(Refused::invalid(format!(
                "node {node} answers: decommission it, so that its data moves away first, or stop it for good"
            )));
        }
        Ok(())
    }

    pub(super) async fn tasks(&self) -> Result<v1::TaskListReply, Refused> {
        let deadline = malle_rt::now() + STEP;
        let directory = self.leading()?;
        let tasks = directory.read(Barrier::Linearizable, deadline, directory::read::tasks);
        Ok(v1::TaskListReply {
            tasks: tasks.await?.into_iter().map(wire_task).collect(),
        })
    }

    pub(super) async fn cancel_task(&self, request: v1::TaskCancelRequest) -> Result<v1::TaskCancelReply, Refused> {
        let op = Op::TaskAdvance {
            task: request.task,
            step: TaskStep::Cancelling,
            note: "an operator cancelled it".into(),
        };
        self.command(op, request.dry_run).await?;
        Ok(v1::TaskCancelReply {})
    }
}

/// Whether the directory's other voters that answer are a majority.
async fn directory_stays(directory: &Group, node: NodeId) -> Result<(), Refused> {
    let deadline = malle_rt::now() + STEP;
    let states = directory
        .read(Barrier::Linearizable, deadline, directory::read::node_states)
        .await?;
    for voters in directory.members().voters {
        if !voters.contains(&node) || voters.len() == 1 {
            continue;
        }
        let there = |id: &&NodeId| {
            let state = states.get(*id).copied().unwrap_or(NodeState::FIRST);
            **id != node && state.counts() && state.standing != Standing::Draining
        };
        let (left, needed) = (voters.iter().filter(there).count(), voters.len() / 2 + 1);
        if left < needed {
            return Err(Refused::invalid(format!(
                "the directory would lose its majority: without node {node} it has {left} of {} voters, and it needs {needed}",
                voters.len()
            )));
        }
    }
    Ok(())
}

fn goal_of(text: &str) -> Result<Option<Goal>, Refused> {
    match text {
        "" => Ok(None),
        "node" => Ok(Some(Goal::Node)),
        "zone" => Ok(Some(Goal::Zone)),
        "region" => Ok(Some(Goal::Region)),
        other => Err(Refused::invalid(format!(
            "no goal {other:?}: a shard survives a node, a zone or a region"
        ))),
    }
}

fn change_of(change: v1::LayoutChange) -> Result<LayoutChange, Refused> {
    let some = |text: String| (!text.is_empty()).then_some(text);
    let roles = change.roles.into_iter().map(|role| RoleChange {
        node: NodeId(role.node),
        weight: role.weight,
        region: some(role.region),
        zone: some(role.zone),
    });
    Ok(LayoutChange {
        goal: goal_of(&change.goal)?,
        replicas: (change.replicas != 0).then_some(change.replicas),
        rebuild_after_ms: change.rebuild_after_ms,
        roles: roles.collect(),
    })
}

fn wire_change(change: LayoutChange) -> v1::LayoutChange {
    let role = |role: RoleChange| v1::RoleChange {
        node: role.node.0,
        weight: role.weight,
        region: role.region.unwrap_or_default(),
        zone: role.zone.unwrap_or_default(),
    };
    v1::LayoutChange {
        goal: change.goal.map(|goal| goal.to_string()).unwrap_or_default(),
        replicas: change.replicas.unwrap_or(0),
        rebuild_after_ms: change.rebuild_after_ms,
        roles: change.roles.into_iter().map(role).collect(),
    }
}

fn layout_reply(shown: Shown) -> v1::LayoutReply {
    let held = |id: NodeId| {
        let holds = |shard: &&directory::Shard| shard.replicas.contains(&id);
        shown.shards.iter().filter(holds).count() as u32
    };
    let node = |(node, state): &(directory::Node, NodeState)| v1::LayoutNode {
        id: node.id.0,
        region: node.region.clone(),
        zone: node.zone.clone(),
        weight: shown.layout.weight(node.id),
        standing: if node.retired {
            "retired"
        } else {
            state.standing.as_str()
        }
        .to_owned(),
        since_ms: state.since_ms,
        silent_since_ms: state.silent_since_ms.unwrap_or(0),
        replicas: held(node.id),
    };
    let layout = v1::Layout {
        version: shown.layout.version,
        goal: shown.layout.goal.to_string(),
        replicas: shown.layout.replicas,
        rebuild_after_ms: shown.layout.rebuild_after_ms,
        nodes: shown.nodes.iter().map(node).collect(),
    };
    let applied = |applied: Applied| v1::AppliedLayout {
        version: applied.version,
        time_ms: applied.time_ms,
        by: applied.by,
        change: Some(wire_change(applied.change)),
    };
    v1::LayoutReply {
        layout: Some(layout),
        staged_version: shown.staged.as_ref().map_or(0, |staged| staged.version),
        staged: shown.staged.map(|staged| wire_change(staged.change)),
        history: shown.history.into_iter().map(applied).collect(),
    }
}

fn some(node: Option<NodeId>) -> u64 {
    node.map_or(0, |node| node.0)
}

fn planned_move(one: planner::Move) -> v1::PlannedMove {
    v1::PlannedMove {
        shard: one.shard.0,
        join: some(one.join),
        leave: some(one.leave),
        bytes: one.bytes,
        reason: one.reason.as_str().to_owned(),
    }
}

fn wire_task(task: Task) -> v1::Task {
    v1::Task {
        id: task.id,
        shard: task.shard.0,
        join: some(task.join),
        leave: some(task.leave),
        reason: task.reason.as_str().to_owned(),
        bytes: task.bytes,
        step: task.step.as_str().to_owned(),
        note: task.note,
        started_ms: task.started_ms,
        changed_ms: task.changed_ms,
    }
}
