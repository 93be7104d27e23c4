//! What the driver keeps in order beside the moves of shards: who follows the directory, who votes in it, and who leads what by preference.

use std::collections::BTreeSet;
use std::time::Duration;

use malle_machine::directory::{self, Op};
use malle_machine::planner::{self, Goal, Input, Move, NodeSpec, ShardSpec, Standing};
use malle_proto::{NodeId, ShardId};

use super::driver::{Driver, Rows};
use crate::raft::{Group, GroupError};

/// Pause between two looks at who should lead: that comes last, and each change is a handover.
const LEADERS: Duration = Duration::from_secs(10);
/// Shards of which another leader is preferred after one look: each costs its writers a few milliseconds.
const LEADERS_TOGETHER: usize = 4;
/// A replica says within this who leads.
const ASK: Duration = Duration::from_secs(2);
/// With so many regions two of them may be lost, and five voters are worth their price.
const REGIONS_FOR_FIVE: usize = 5;

/// How many voters the directory should have on these nodes: 3 or 5, so that a command waits for few; all of one or two.
pub fn directory_voters(nodes: &[NodeSpec], now: usize) -> usize {
    let able: Vec<&NodeSpec> = nodes
        .iter()
        .filter(|node| node.weight > 0 && node.standing != Standing::Leaving)
        .collect();
    let regions: BTreeSet<&str> = able.iter().map(|node| node.region.as_str()).collect();
    match able.len() {
        _ if regions.len() >= REGIONS_FOR_FIVE => 5,
        0..=2 => now,
        _ => 3,
    }
}

/// The voters of the directory as the planner sees them: they stand as far apart as they can, and survive what the shards survive.
pub fn directory_input(nodes: &[NodeSpec], voters: &BTreeSet<NodeId>, goal: Goal, home_region: &str) -> Input {
    let replicas = directory_voters(nodes, voters.len());
    let mut nodes: Vec<NodeSpec> = nodes.to_vec();
    for node in &mut nodes {
        // Weights are for data, of which a voter has little.
        node.weight = node.weight.min(1);
        // One that holds no shards votes only while no other can.
        if node.weight == 0 && voters.contains(&node.id) && node.standing != Standing::Leaving {
            node.standing = Standing::Draining;
            node.weight = 1;
        }
    }
    let goal = if planner::feasible(goal, replicas, &nodes).is_ok() {
        goal
    } else {
        Goal::Node
    };
    Input {
        goal,
        replicas,
        nodes,
        shards: vec![ShardSpec {
            id: ShardId::DIRECTORY,
            replicas: voters.iter().copied().collect(),
            home_region: home_region.to_owned(),
            bytes: 0,
            busy: false,
        }],
        balance: false,
    }
}

/// The moves of the directory's voters.
pub(super) fn plan_directory(directory: &Group, input: &Input, rows: &Rows) -> Vec<Move> {
    let busy = rows.running.iter().any(|task| task.shard == ShardId::DIRECTORY);
    match directory.settled_voters() {
        Some(voters) if !busy => planner::plan(&directory_input(&input.nodes, &voters, rows.layout.goal, "")).moves,
        _ => Vec::new(),
    }
}

/// Every node follows the directory, and a retired one does not any more.
pub(super) async fn members(directory: &Group, rows: &Rows) -> Result<(), GroupError> {
    let Some(voters) = directory.settled_voters() else {
        return Ok(());
    };
    let members = directory.nodes();
    for (node, _) in rows.nodes.iter().filter(|(node, _)| !node.retired) {
        if !members.contains_key(&node.id) {
            directory.begin_learner(node.id, node.peer_address.clone()).await?;
        }
    }
    let gone: Vec<NodeId> = members
        .into_keys()
        .filter(|node| !voters.contains(node))
        .filter(|id| rows.nodes.iter().any(|(node, _)| node.id == *id && node.retired))
        .collect();
    if gone.is_empty() {
        return Ok(());
    }
    directory.remove_learners(&gone).await
}

impl Driver {
    /// Says of a few shards that another replica should lead them.
    pub(super) async fn order_leaders(&mut self, rows: &Rows) -> Result<(), GroupError> {
        if malle_rt::now() < self.leaders_at || !rows.running.is_empty() {
            return Ok(());
        }
        self.leaders_at = malle_rt::now() + LEADERS;
        let input = self.input(rows);
        let changes = planner::first_replicas(&input.nodes, &input.shards);
        for (shard, first) in changes.into_iter().take(LEADERS_TOGETHER) {
            let Some(row) = rows.shards.iter().find(|row| row.id == shard) else {
                continue;
            };
            // The first replica of the first epoch makes the group: until it has, the order stays.
            if row.epoch == 1 && !self.is_led(row).await {
                continue;
            }
            let others = row.replicas.iter().copied().filter(|node| *node != first);
            self.propose(Op::ShardSet {
                shard,
                replicas: std::iter::once(first).chain(others).collect(),
                epoch: row.epoch,
            })
            .await?;
            tracing::info!(%shard, %first, "this replica should lead the shard from now on");
        }
        Ok(())
    }

    async fn is_led(&self, row: &directory::Shard) -> bool {
        for replica in &row.replicas {
            let asked = self.transport.replica(*replica, row.id, malle_rt::now() + ASK).await;
            if asked.is_ok_and(|status| status.leader != 0) {
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u64, region: &str) -> NodeSpec {
        NodeSpec {
            id: NodeId(id),
            region: region.into(),
            zone: "a".into(),
            weight: 2,
            standing: Standing::Serving,
        }
    }

    fn moves(nodes: &[NodeSpec], voters: &[u64]) -> Vec<(Option<u64>, Option<u64>)> {
        let voters = voters.iter().copied().map(NodeId).collect();
        let plan = planner::plan(&directory_input(nodes, &voters, Goal::Region, ""));
        let ids = |one: Move| (one.join.map(|node| node.0), one.leave.map(|node| node.0));
        plan.moves.into_iter().map(ids).collect()
    }

    #[test]
    fn the_directory_has_three_voters_in_three_regions_and_five_in_five() {
        let mut nodes: Vec<NodeSpec> = (1..=6).map(|id| node(id, ["n", "c", "s"][id as usize % 3])).collect();
        assert_eq!(moves(&nodes, &[1, 2, 3]), []);
        let fewer = moves(&nodes, &[1, 2, 3, 4, 5, 6]);
        assert_eq!(fewer.len(), 3);
        assert!(fewer.iter().all(|(join, leave)| join.is_none() && leave.is_some()));
        nodes[0].standing = Standing::Leaving;
        assert_eq!(moves(&nodes, &[1, 2, 3]), [(Some(4), Some(1))], "in the same region");
        nodes.extend([node(7, "e"), node(8, "w")]);
        nodes[0].standing = Standing::Serving;
        let mut more = moves(&nodes, &[1, 2, 3]);
        more.sort();
        assert_eq!(more, [(Some(7), None), (Some(8), None)]);
    }

    #[test]
    fn one_or_two_nodes_stay_what_they_are_and_a_node_without_shards_votes_until_another_can() {
        assert_eq!(moves(&[node(1, "n"), node(2, "c")], &[1, 2]), []);
        let mut nodes = [node(1, "n"), node(2, "c"), node(3, "s"), node(4, "s")];
        nodes[2].weight = 0;
        nodes[3].weight = 0;
        assert_eq!(moves(&nodes[..3], &[1, 2, 3]), []);
    }
}
