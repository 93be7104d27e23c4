//! Growing and shrinking: layouts, what is done with nodes, and moves of replicas.

use malle_proto::v1;
use malle_proto::v1::cluster_client::ClusterClient;
use malle_proto::{Channel, NodeId, ShardId, limits};

use crate::cluster::Cluster;
use crate::error::Error;

/// What the cluster is meant to be, and what waits to change it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Of what was applied last; 0 while nothing was.
    pub version: u64,
    /// "node", "zone" or "region": what a shard shall survive.
    pub goal: String,
    /// Replicas of each shard.
    pub replicas: u32,
    /// A node that is silent for so long is dead; 0: never.
    pub rebuild_after_ms: u64,
    /// Every node, retired ones too.
    pub nodes: Vec<LayoutNode>,
    /// The version that applies what is staged, and what that is.
    pub staged: Option<(u64, LayoutChange)>,
    /// What was applied, oldest first.
    pub history: Vec<AppliedLayout>,
}

/// A node in the layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayoutNode {
    /// Which.
    pub id: NodeId,
    /// Its region.
    pub region: String,
    /// Its zone in the region.
    pub zone: String,
    /// Its share of the replicas, relative to the others.
    pub weight: u32,
    /// "active", "draining", "leaving", "dead", "removed" or "retired".
    pub standing: String,
    /// Since when it does not answer the directory's leader, milliseconds since 1970.
    pub silent_since_ms: Option<u64>,
    /// Replicas of shards that it has.
    pub replicas: u32,
}

/// What shall be different: what is `None` stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LayoutChange {
    /// What a shard shall survive.
    pub goal: Option<String>,
    /// Replicas of each shard: 1, 3 or 5.
    pub replicas: Option<u32>,
    /// See [`Layout::rebuild_after_ms`].
    pub rebuild_after_ms: Option<u64>,
    /// Each node once.
    pub roles: Vec<RoleChange>,
}

/// What shall be different about a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleChange {
    /// Which.
    pub node: NodeId,
    /// Its share of the replicas; 0: what it holds moves away.
    pub weight: Option<u32>,
    /// Where it stands.
    pub region: Option<String>,
    /// Where in the region.
    pub zone: Option<String>,
}

/// A layout that was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppliedLayout {
    /// Which.
    pub version: u64,
    /// When, milliseconds since 1970.
    pub time_ms: u64,
    /// By which operator.
    pub by: String,
    /// What it changed.
    pub change: LayoutChange,
}

/// What applying what is staged would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayoutPlan {
    /// The version that applies it.
    pub version: u64,
    /// In the order in which they would be made.
    pub moves: Vec<PlannedMove>,
    /// What should be and cannot.
    pub problems: Vec<String>,
    /// Why applying it is refused.
    pub refused: Option<String>,
    /// How many moves are made at once.
    pub at_once: u32,
}

/// One replica that would move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedMove {
    /// Whose; [`ShardId::DIRECTORY`] is the directory itself.
    pub shard: ShardId,
    /// Who gets it.
    pub join: Option<NodeId>,
    /// Who loses its own.
    pub leave: Option<NodeId>,
    /// What is copied.
    pub bytes: u64,
    /// "dead", "leaving", "count", "goal", "spread" or "weight".
    pub reason: String,
}

/// A move of a replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Its number.
    pub id: u64,
    /// What moves.
    pub of: PlannedMove,
    /// "planned", "joined", "caught up", "switched", "done", "cancelling" or "cancelled".
    pub step: String,
    /// What it waits for.
    pub note: String,
    /// When it began, milliseconds since 1970.
    pub started_ms: u64,
    /// When it came to its step.
    pub changed_ms: u64,
}

impl Task {
    /// Nothing more happens.
    pub fn is_over(&self) -> bool {
        self.step == "done" || self.step == "cancelled"
    }
}

/// What to do with a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stand {
    /// Serve.
    Active,
    /// Lead nothing and take nothing new: it is about to stop for a while.
    Draining,
    /// Give everything to others, then be retired.
    Leaving,
    /// It is gone for good.
    Removed,
}

impl Stand {
    fn wire(self) -> &'static str {
        match self {
            Stand::Active => "active",
            Stand::Draining => "draining",
            Stand::Leaving => "leaving",
            Stand::Removed => "removed",
        }
    }
}

fn service(channel: Channel) -> ClusterClient<Channel> {
    ClusterClient::new(channel).max_decoding_message_size(limits::GRPC_MESSAGE_MAX_BYTES)
}

/// Asks the directory's leader.
macro_rules! ask {
    ($self:ident, $call:ident, $message:expr) => {
        $self
            .client
            .core
            .ask(
                ShardId::DIRECTORY,
                $self.client.until(),
                $message,
                |channel, request| async move { service(channel).$call(request).await },
            )
            .await
    };
}

impl Cluster {
    /// The layout, what is staged, and how the nodes stand.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the directory has no leader.
    pub async fn layout(&self) -> Result<Layout, Error> {
        ask!(self, layout_show, v1::LayoutShowRequest {}).map(layout)
    }

    /// Stages changes beside those that wait already. With `dry_run` it says whether they could be, and stages nothing.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a node that is not there, [`Error::Invalid`] for a change that makes no sense.
    pub async fn layout_stage(&self, change: LayoutChange, dry_run: bool) -> Result<Layout, Error> {
        let message = v1::LayoutStageRequest {
            change: Some(wire_change(change)),
            dry_run,
        };
        ask!(self, layout_stage, message).map(layout)
    }

    /// What applying what is staged would do; what is still to do when nothing is staged.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the directory has no leader.
    pub async fn layout_plan(&self) -> Result<LayoutPlan, Error> {
        let reply = ask!(self, layout_plan, v1::LayoutPlanRequest {})?;
        Ok(LayoutPlan {
            version: reply.version,
            moves: reply.moves.into_iter().map(planned).collect(),
            problems: reply.problems,
            refused: (!reply.refused.is_empty()).then_some(reply.refused),
            at_once: reply.at_once,
        })
    }

    /// Makes what is staged under this version the layout. Repeating it changes nothing.
    ///
    /// # Errors
    /// [`Error::Invalid`] when another version is staged by now, or the layout breaks a goal whose name is not given.
    pub async fn layout_apply(&self, version: u64, break_goal: Option<&str>, dry_run: bool) -> Result<Layout, Error> {
        let message = v1::LayoutApplyRequest {
            version,
            break_goal: break_goal.unwrap_or_default().to_owned(),
            dry_run,
        };
        ask!(self, layout_apply, message).map(layout)
    }

    /// Forgets what is staged.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the directory has no leader.
    pub async fn layout_revert(&self, dry_run: bool) -> Result<Layout, Error> {
        ask!(self, layout_revert, v1::LayoutRevertRequest { dry_run }).map(layout)
    }

    /// Says what to do with a node. Repeating it changes nothing.
    ///
    /// # Errors
    /// [`Error::Invalid`] when a shard or the directory would lose its majority, or the others could not hold what the node holds.
    pub async fn node_stand(
        &self,
        node: NodeId,
        stand: Stand,
        break_goal: Option<&str>,
        dry_run: bool,
    ) -> Result<(), Error> {
        let message = v1::NodeStandRequest {
            node: node.0,
            standing: stand.wire().to_owned(),
            break_goal: break_goal.unwrap_or_default().to_owned(),
            dry_run,
        };
        ask!(self, node_stand, message).map(|_| ())
    }

    /// Moves of replicas: those under way, and the last ones that are over.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the directory has no leader.
    pub async fn tasks(&self) -> Result<Vec<Task>, Error> {
        let reply = ask!(self, task_list, v1::TaskListRequest {})?;
        Ok(reply.tasks.into_iter().map(task).collect())
    }

    /// Undoes a move that has not switched yet. Its end is seen in [`Cluster::tasks`].
    ///
    /// # Errors
    /// [`Error::NotFound`] for a task that is not known, [`Error::Invalid`] when it is too late.
    pub async fn task_cancel(&self, task: u64, dry_run: bool) -> Result<(), Error> {
        ask!(self, task_cancel, v1::TaskCancelRequest { task, dry_run }).map(|_| ())
    }
}

fn some(node: u64) -> Option<NodeId> {
    (node != 0).then_some(NodeId(node))
}

fn wire_change(change: LayoutChange) -> v1::LayoutChange {
    let role = |role: RoleChange| v1::RoleChange {
        node: role.node.0,
        weight: role.weight,
        region: role.region.unwrap_or_default(),
        zone: role.zone.unwrap_or_default(),
    };
    v1::LayoutChange {
        goal: change.goal.unwrap_or_default(),
        replicas: change.replicas.unwrap_or(0),
        rebuild_after_ms: change.rebuild_after_ms,
        roles: change.roles.into_iter().map(role).collect(),
    }
}

fn change(wire: v1::LayoutChange) -> LayoutChange {
    let text = |text: String| (!text.is_empty()).then_some(text);
    let role = |role: v1::RoleChange| RoleChange {
        node: NodeId(role.node),
        weight: role.weight,
        region: text(role.region),
        zone: text(role.zone),
    };
    LayoutChange {
        goal: text(wire.goal),
        replicas: (wire.replicas != 0).then_some(wire.replicas),
        rebuild_after_ms: wire.rebuild_after_ms,
        roles: wire.roles.into_iter().map(role).collect(),
    }
}

fn layout(wire: v1::LayoutReply) -> Layout {
    let now = wire.layout.unwrap_or_default();
    let node = |node: v1::LayoutNode| LayoutNode {
        id: NodeId(node.id),
        region: node.region,
        zone: node.zone,
        weight: node.weight,
        standing: node.standing,
        silent_since_ms: (node.silent_since_ms != 0).then_some(node.silent_since_ms),
        replicas: node.replicas,
    };
    let applied = |applied: v1::AppliedLayout| AppliedLayout {
        version: applied.version,
        time_ms: applied.time_ms,
        by: applied.by,
        change: change(applied.change.unwrap_or_default()),
    };
    Layout {
        version: now.version,
        goal: now.goal,
        replicas: now.replicas,
        rebuild_after_ms: now.rebuild_after_ms,
        nodes: now.nodes.into_iter().map(node).collect(),
        staged: wire.staged.map(|staged| (wire.staged_version, change(staged))),
        history: wire.history.into_iter().map(applied).collect(),
    }
}

fn planned(wire: v1::PlannedMove) -> PlannedMove {
    PlannedMove {
        shard: ShardId(wire.shard),
        join: some(wire.join),
        leave: some(wire.leave),
        bytes: wire.bytes,
        reason: wire.reason,
    }
}

fn task(wire: v1::Task) -> Task {
    Task {
        id: wire.id,
        of: PlannedMove {
            shard: ShardId(wire.shard),
            join: some(wire.join),
            leave: some(wire.leave),
            bytes: wire.bytes,
            reason: wire.reason,
        },
        step: wire.step,
        note: wire.note,
        started_ms: wire.started_ms,
        changed_ms: wire.changed_ms,
    }
}
