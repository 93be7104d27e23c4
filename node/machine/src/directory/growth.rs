//! What the directory keeps about growing and shrinking. These types are replicated and kept: append variants only at the end.
//!
//! A *layout* is what operators want: the goal that shards survive, how many replicas they have, and each node's weight. It is staged,
//! looked at, and applied under a version that rises with every staging, so that nobody applies what he has not seen. A *standing* is what
//! is done with a node at the moment. A *task* is one move of one replica.

use malle_proto::{NodeId, ShardId};
use serde::{Deserialize, Serialize};

use crate::planner::{Goal, Reason};

/// What the cluster is meant to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// Of the staging that was applied last; 0 while none was.
    pub version: u64,
    /// What a shard shall survive.
    pub goal: Goal,
    /// Replicas of each shard, odd.
    pub replicas: u32,
    /// A node that is silent for so long is dead, and its replicas are rebuilt elsewhere. 0: never by themselves.
    pub rebuild_after_ms: u64,
    /// Each node's share of the replicas, by id. What a node with 0 holds moves away; one that is not named keeps what it has and gets nothing.
    pub weights: Vec<(NodeId, u32)>,
}

impl Layout {
    /// A node's share.
    pub fn weight(&self, node: NodeId) -> u32 {
        let at = self.weights.binary_search_by_key(&node, |(id, _)| *id);
        at.map_or(0, |at| self.weights[at].1)
    }

    /// Whether anything is said of a node.
    pub fn names(&self, node: NodeId) -> bool {
        self.weights.binary_search_by_key(&node, |(id, _)| *id).is_ok()
    }
}

/// What shall be different: what is `None` stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayoutChange {
    /// See [`Layout::goal`].
    pub goal: Option<Goal>,
    /// See [`Layout::replicas`].
    pub replicas: Option<u32>,
    /// See [`Layout::rebuild_after_ms`].
    pub rebuild_after_ms: Option<u64>,
    /// Nodes, each once, by id.
    pub roles: Vec<RoleChange>,
}

/// What shall be different about a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleChange {
    /// Which.
    pub node: NodeId,
    /// Its share of the replicas.
    pub weight: Option<u32>,
    /// Where it stands.
    pub region: Option<String>,
    /// Where in the region.
    pub zone: Option<String>,
}

/// Changes that wait to be applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Staged {
    /// What applies them; rises with every staging, and never comes twice.
    pub version: u64,
    /// Together.
    pub change: LayoutChange,
}

/// A change that was applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The layout's version from then on.
    pub version: u64,
    /// When, by the machine's time.
    pub time_ms: u64,
    /// The operator's name.
    pub by: String,
    /// What it changed.
    pub change: LayoutChange,
}

/// What is done with a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// It serves.
    Active,
    /// It is about to stop for a while: it leads nothing and gets nothing new.
    Draining,
    /// Its data moves away, then it is retired.
    Leaving,
    /// It was silent for too long: its replicas are rebuilt elsewhere where the goal allows it. It comes back by answering.
    Dead,
    /// An operator says that it is gone for good: as Leaving, and nobody waits for it.
    Removed,
}

impl Standing {
    /// As the wire contract and operators spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Standing::Active => "active",
            Standing::Draining => "draining",
            Standing::Leaving => "leaving",
            Standing::Dead => "dead",
            Standing::Removed => "removed",
        }
    }
}

/// How a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeState {
    /// What is done with it.
    pub standing: Standing,
    /// Since when, by the machine's time.
    pub since_ms: u64,
    /// Since when it has not answered the directory's leader, if it does not.
    pub silent_since_ms: Option<u64>,
}

impl NodeState {
    /// Of a node of which nothing was ever said.
    pub const FIRST: NodeState = NodeState {
        standing: Standing::Active,
        since_ms: 0,
        silent_since_ms: None,
    };

    /// Whether a majority may be counted on with it.
    pub fn counts(&self) -> bool {
        self.silent_since_ms.is_none() && !matches!(self.standing, Standing::Dead | Standing::Removed)
    }
}

/// How far a move has come. Every step may be made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TaskStep {
    /// Nothing is done yet.
    Planned,
    /// The new replica learns.
    Joined,
    /// It has rows and bodies.
    CaughtUp,
    /// It votes, and the old one does not any more.
    Switched,
    /// The directory's row says so too.
    Done,
    /// It is to be undone: the new replica leaves.
    Cancelling,
    /// It was undone.
    Cancelled,
}

impl TaskStep {
    /// As the wire contract and operators spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            TaskStep::Planned => "planned",
            TaskStep::Joined => "joined",
            TaskStep::CaughtUp => "caught up",
            TaskStep::Switched => "switched",
            TaskStep::Done => "done",
            TaskStep::Cancelling => "cancelling",
            TaskStep::Cancelled => "cancelled",
        }
    }

    /// Nothing more happens.
    pub fn is_over(self) -> bool {
        matches!(self, TaskStep::Done | TaskStep::Cancelled)
    }

    /// Whether a move may go from here to there.
    pub fn leads_to(self, next: TaskStep) -> bool {
        match (self, next) {
            (over, _) if over.is_over() => false,
            // Switched: it came too late.
            (TaskStep::Cancelling, next) => matches!(next, TaskStep::Cancelled | TaskStep::Switched),
            (_, TaskStep::Cancelled) => false,
            // What has been switched is not undone: the old replica may be gone already.
            (TaskStep::Switched, TaskStep::Cancelling) => false,
            (now, next) => now < next,
        }
    }
}

/// A move of one replica of one shard. Shard 0 is the directory itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Rising.
    pub id: u64,
    /// Whose replica.
    pub shard: ShardId,
    /// Who gets it.
    pub join: Option<NodeId>,
    /// Who loses its own.
    pub leave: Option<NodeId>,
    /// Why.
    pub reason: Reason,
    /// What is copied, as planned.
    pub bytes: u64,
    /// How far it has come.
    pub step: TaskStep,
    /// What it waits for, for a person.
    pub note: String,
    /// When it began, by the machine's time.
    pub started_ms: u64,
    /// When it came to its step.
    pub changed_ms: u64,
}
