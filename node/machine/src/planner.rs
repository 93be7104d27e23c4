//! Where replicas should stand: a pure function from what is to the moves that lead to what should be.
//!
//! [`plan`] is given the survival goal, the nodes with region, zone, weight and standing, and the replicas of every shard with their size.
//! Its answer is an ordered list of moves, each of one replica of one shard, and a sentence for whatever cannot be done. The same input
//! gives the same plan. What moves, in this order:
//!
//! 1. what must: replicas on nodes that leave, on dead ones (never where that would break the goal: a dead region may come back), a wrong
//!    number of replicas, and what breaks the goal;
//! 2. only when asked to balance: replicas that stand closer together than they need to, then those of nodes that hold more than their
//!    weight.
//!
//! Regions and zones come before weight: replicas stand as far apart as they can, and one stands in the home region if any region of a
//! shard can be chosen. What must hold: a replica moves at most once in a plan, straight to where it ends; a node that gives a replica for
//! weight gets none for weight in the same plan, so that balancing ends; load is counted in replicas, the size of a shard only orders
//! moves and tells what they cost. [`first_replicas`] says who of a shard's replicas should lead it. What is absent: the rate of copying, and doing any of it.

mod balance;
mod goal;
mod leaders;
mod work;

use malle_proto::{NodeId, ShardId};
use serde::{Deserialize, Serialize};

pub use goal::{Goal, Infeasible, feasible};
pub use leaders::first_replicas;

/// What a plan may do with a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Holds replicas and takes new ones.
    Serving,
    /// Keeps what it holds and takes nothing new.
    Draining,
    /// Silent for so long that its replicas are rebuilt elsewhere where the goal allows it.
    Dead,
    /// Everything leaves it.
    Leaving,
}

/// A node that replicas may stand on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSpec {
    /// Which.
    pub id: NodeId,
    /// Its region.
    pub region: String,
    /// Its zone; a zone of the same name in another region is another.
    pub zone: String,
    /// Its share of the replicas, relative to the others. 0: it holds none.
    pub weight: u32,
    /// What may be done with it.
    pub standing: Standing,
}

/// A shard and where its replicas stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardSpec {
    /// Which.
    pub id: ShardId,
    /// Where they stand, in any order, each node once. A node that the plan is not told of counts as leaving.
    pub replicas: Vec<NodeId>,
    /// Where one of them would best be.
    pub home_region: String,
    /// What one replica takes to copy.
    pub bytes: u64,
    /// It counts as load and is not touched: a move of it is under way.
    pub busy: bool,
}

/// What is planned for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// What a shard shall survive.
    pub goal: Goal,
    /// Replicas of each shard, odd.
    pub replicas: usize,
    /// Each id once.
    pub nodes: Vec<NodeSpec>,
    /// Each id once.
    pub shards: Vec<ShardSpec>,
    /// Move also what need not move.
    pub balance: bool,
}

/// Why a replica moves. It is kept: append variants only at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Reason {
    /// Its node is dead.
    Dead,
    /// Its node leaves.
    Leaving,
    /// The shard has too few replicas or too many.
    Count,
    /// The shard breaks the goal.
    Goal,
    /// It stands closer to another one than it needs to.
    Spread,
    /// Its node holds more than its weight.
    Weight,
}

impl Reason {
    /// As the wire contract and operators spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Dead => "dead",
            Reason::Leaving => "leaving",
            Reason::Count => "count",
            Reason::Goal => "goal",
            Reason::Spread => "spread",
            Reason::Weight => "weight",
        }
    }
}

/// One replica of one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// Which shard.
    pub shard: ShardId,
    /// Who gets a replica; `None`: the shard has too many.
    pub join: Option<NodeId>,
    /// Who loses its own afterwards; `None`: the shard has too few.
    pub leave: Option<NodeId>,
    /// What is copied.
    pub bytes: u64,
    /// Why.
    pub reason: Reason,
}

/// The way from what is to what should be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// In the order in which they should be made: those first that the data waits for most.
    pub moves: Vec<Move>,
    /// What should be and cannot.
    pub problems: Vec<String>,
}

impl Plan {
    /// What all moves copy together.
    pub fn bytes(&self) -> u64 {
        self.moves.iter().fold(0, |sum, one| sum.saturating_add(one.bytes))
    }
}

/// Plans; see the head of this file.
pub fn plan(input: &Input) -> Plan {
    let mut work = work::Work::new(input);
    work.mend();
    if input.balance {
        balance::spread(&mut work);
        balance::weigh(&mut work);
    }
    work.finish()
}

#[cfg(test)]
mod tests;
