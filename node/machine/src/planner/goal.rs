//! What a shard shall survive, and whether nodes can give it that.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::NodeSpec;

/// The largest loss that a shard survives with a majority of its replicas. It is kept: append variants only at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Goal {
    /// A node.
    Node,
    /// A zone.
    Zone,
    /// A region.
    Region,
}

impl std::fmt::Display for Goal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Goal::Node => "node",
            Goal::Zone => "zone",
            Goal::Region => "region",
        })
    }
}

/// Why nodes cannot give a goal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Infeasible {
    /// There are not as many nodes as replicas.
    #[error("{replicas} replicas need {replicas} nodes, and {nodes} take some")]
    Nodes {
        /// Replicas of a shard.
        replicas: usize,
        /// Nodes with a weight.
        nodes: usize,
    },
    /// The loss of one region or zone would take a majority with it.
    #[error(
        "a shard of {replicas} replicas does not survive a {goal}: at most {most} may stand in one, and the {domains} there are take {room}"
    )]
    Apart {
        /// What is not survived.
        goal: Goal,
        /// Replicas of a shard.
        replicas: usize,
        /// How many may stand in one region or zone.
        most: usize,
        /// How many regions or zones have a node with a weight.
        domains: usize,
        /// How many replicas these take together.
        room: usize,
    },
}

/// How many replicas may be lost at once; a shard of one replica has nothing to lose.
pub(super) fn most_in_one(replicas: usize) -> usize {
    (replicas.saturating_sub(1) / 2).max(1)
}

/// Whether shards of so many replicas can meet the goal on these nodes, whatever they hold now. Nodes without a weight count for nothing.
///
/// # Errors
/// Why not.
pub fn feasible(goal: Goal, replicas: usize, nodes: &[NodeSpec]) -> Result<(), Infeasible> {
    let takers: Vec<&NodeSpec> = nodes.iter().filter(|node| node.weight > 0).collect();
    if takers.len() < replicas {
        return Err(Infeasible::Nodes {
            replicas,
            nodes: takers.len(),
        });
    }
    let most = most_in_one(replicas);
    let mut domains: BTreeMap<(&str, &str, u64), usize> = BTreeMap::new();
    for node in takers {
        let domain = match goal {
            Goal::Node => (node.region.as_str(), node.zone.as_str(), node.id.0),
            Goal::Zone => (node.region.as_str(), node.zone.as_str(), 0),
            Goal::Region => (node.region.as_str(), "", 0),
        };
        *domains.entry(domain).or_default() += 1;
    }
    let room: usize = domains.values().map(|nodes| most.min(*nodes)).sum();
    if room < replicas {
        return Err(Infeasible::Apart {
            goal,
            replicas,
            most,
            domains: domains.len(),
            room,
        });
    }
    Ok(())
}
