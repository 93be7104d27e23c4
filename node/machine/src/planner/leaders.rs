//! Which replica of each shard should lead it: in its home region, and evenly.

use std::collections::BTreeMap;

use malle_proto::{NodeId, ShardId};

use super::{NodeSpec, ShardSpec, Standing};

/// Who should come first in shards where it is another one now. The replicas of each shard are given in their order of preference.
///
/// A leader stands in the home region where a replica does, and not on a node that leaves or is dead. Among equals every node leads its
/// weight's share. What is as good as it can be made by one change is left: two nodes of equal weight that differ by one shard stay as they
/// are, so the same input soon gives no change at all, and a node that comes and goes moves no leader here.
pub fn first_replicas(nodes: &[NodeSpec], shards: &[ShardSpec]) -> Vec<(ShardId, NodeId)> {
    let nodes: BTreeMap<NodeId, &NodeSpec> = nodes.iter().map(|node| (node.id, node)).collect();
    let mut shards: Vec<&ShardSpec> = shards.iter().filter(|shard| !shard.busy).collect();
    shards.sort_by_key(|shard| shard.id);
    let able: Vec<Vec<NodeId>> = shards.iter().map(|shard| candidates(&nodes, shard)).collect();
    let mut led: BTreeMap<NodeId, u64> = BTreeMap::new();
    let mut first: Vec<Option<NodeId>> = Vec::with_capacity(shards.len());
    for (shard, able) in shards.iter().zip(&able) {
        let now = shard.replicas.first().copied().filter(|node| able.contains(node));
        if let Some(node) = now {
            *led.entry(node).or_default() += 1;
        }
        first.push(now);
    }
    // Those that stand wrong first, so that balancing sees all of them.
    for (place, able) in able.iter().enumerate() {
        if first[place].is_none() {
            first[place] = able.iter().copied().min_by(|a, b| cheaper(&nodes, &led, *a, *b));
            if let Some(node) = first[place] {
                *led.entry(node).or_default() += 1;
            }
        }
    }
    while let Some((place, to)) = best_change(&nodes, &led, &first, &able) {
        if let Some(from) = first[place].replace(to) {
            *led.entry(from).or_default() -= 1;
        }
        *led.entry(to).or_default() += 1;
    }
    let changed = shards.iter().zip(first).filter_map(|(shard, first)| {
        let first = first.filter(|node| shard.replicas.first() != Some(node))?;
        Some((shard.id, first))
    });
    changed.collect()
}

/// The replicas that may come first.
fn candidates(nodes: &BTreeMap<NodeId, &NodeSpec>, shard: &ShardSpec) -> Vec<NodeId> {
    let stays = |id: &&NodeId| {
        nodes
            .get(*id)
            .is_some_and(|node| node.weight > 0 && matches!(node.standing, Standing::Serving | Standing::Draining))
    };
    let all: Vec<NodeId> = shard.replicas.iter().filter(stays).copied().collect();
    let at_home = |id: &&NodeId| nodes.get(*id).is_some_and(|node| node.region == shard.home_region);
    let home: Vec<NodeId> = all.iter().filter(at_home).copied().collect();
    if home.is_empty() { all } else { home }
}

fn weight(nodes: &BTreeMap<NodeId, &NodeSpec>, node: NodeId) -> u64 {
    nodes.get(&node).map_or(1, |node| u64::from(node.weight.max(1)))
}

/// Which of two nodes would lead less for its weight with one more; the lower id among equals.
fn cheaper(
    nodes: &BTreeMap<NodeId, &NodeSpec>,
    led: &BTreeMap<NodeId, u64>,
    a: NodeId,
    b: NodeId,
) -> std::cmp::Ordering {
    let of = |node| led.get(&node).copied().unwrap_or(0) + 1;
    let (one, other) = (of(a) * weight(nodes, b), of(b) * weight(nodes, a));
    one.cmp(&other).then(a.cmp(&b))
}

/// The change after which the one that takes still leads less for its weight than the one that gives did before: so the unevenness falls
/// with each, and they end.
fn best_change(
    nodes: &BTreeMap<NodeId, &NodeSpec>,
    led: &BTreeMap<NodeId, u64>,
    first: &[Option<NodeId>],
    able: &[Vec<NodeId>],
) -> Option<(usize, NodeId)> {
    let of = |node: NodeId| led.get(&node).copied().unwrap_or(0);
    let changes = first.iter().enumerate().filter_map(|(place, from)| {
        let from = (*from)?;
        let to = able[place].iter().copied().filter(|to| *to != from);
        let to = to.min_by(|a, b| cheaper(nodes, led, *a, *b))?;
        let gains = (of(to) + 1) * weight(nodes, from) < of(from) * weight(nodes, to);
        gains.then_some((place, from, to))
    });
    // From the one that leads most for its weight.
    let most = changes.max_by(|(place, a, _), (other, b, _)| {
        let (one, two) = (of(*a) * weight(nodes, *b), of(*b) * weight(nodes, *a));
        one.cmp(&two).then(other.cmp(place))
    });
    most.map(|(place, _, to)| (place, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u64, region: &str, standing: Standing) -> NodeSpec {
        NodeSpec {
            id: NodeId(id),
            region: region.into(),
            zone: "a".into(),
            weight: 1,
            standing,
        }
    }

    fn shard(id: u32, home: &str, replicas: &[u64]) -> ShardSpec {
        ShardSpec {
            id: ShardId(id),
            replicas: replicas.iter().copied().map(NodeId).collect(),
            home_region: home.into(),
            bytes: 0,
            busy: false,
        }
    }

    fn counts(nodes: &[NodeSpec], shards: &[ShardSpec]) -> Vec<usize> {
        let leads = |node: &NodeSpec| shards.iter().filter(|shard| shard.replicas[0] == node.id).count();
        nodes.iter().map(leads).collect()
    }

    /// Makes the changes, and demands that nothing is left to change.
    fn settle(nodes: &[NodeSpec], shards: &mut [ShardSpec]) -> usize {
        let changes = first_replicas(nodes, shards);
        for (id, first) in &changes {
            let shard = shards.iter_mut().find(|shard| shard.id == *id).unwrap();
            shard.replicas.retain(|node| node != first);
            shard.replicas.insert(0, *first);
        }
        assert_eq!(first_replicas(nodes, shards), [], "what was changed stays");
        changes.len()
    }

    #[test]
    fn leaders_are_spread_evenly_and_then_left_alone() {
        let nodes: Vec<NodeSpec> = (1..=3).map(|id| node(id, "n", Standing::Serving)).collect();
        let mut shards: Vec<ShardSpec> = (1..=9).map(|id| shard(id, "n", &[1, 2, 3])).collect();
        assert_eq!(settle(&nodes, &mut shards), 6);
        assert_eq!(counts(&nodes, &shards), [3, 3, 3]);
        let mut shards: Vec<ShardSpec> = (1..=4)
            .map(|id| shard(id, "n", &[u64::from(id) % 3 + 1, 1, 2, 3]))
            .collect();
        assert_eq!(settle(&nodes, &mut shards), 0, "a difference of one is no reason");
    }

    #[test]
    fn a_leader_stands_at_home_where_a_replica_does() {
        let nodes = [
            node(1, "n", Standing::Serving),
            node(2, "c", Standing::Serving),
            node(3, "s", Standing::Serving),
        ];
        let mut shards = [
            shard(1, "s", &[1, 2, 3]),
            shard(2, "s", &[2, 3, 1]),
            shard(3, "x", &[2, 1, 3]),
        ];
        assert_eq!(
            first_replicas(&nodes, &shards),
            [(ShardId(1), NodeId(3)), (ShardId(2), NodeId(3))]
        );
        settle(&nodes, &mut shards);
        assert_eq!(counts(&nodes, &shards), [0, 1, 2], "home comes before evenness");
    }

    #[test]
    fn who_leaves_leads_nothing_and_who_is_away_for_a_while_keeps_its_turn() {
        let nodes = [
            node(1, "n", Standing::Leaving),
            node(2, "n", Standing::Draining),
            node(3, "n", Standing::Serving),
        ];
        let shards = [shard(1, "n", &[1, 2, 3]), shard(2, "n", &[2, 1, 3])];
        assert_eq!(first_replicas(&nodes, &shards), [(ShardId(1), NodeId(3))]);
        let mut busy = shards;
        busy[0].busy = true;
        assert_eq!(first_replicas(&nodes, &busy), [], "what is being moved is left alone");
    }

    #[test]
    fn a_heavier_node_leads_more() {
        let mut nodes = [node(1, "n", Standing::Serving), node(2, "n", Standing::Serving)];
        nodes[0].weight = 3;
        let mut shards: Vec<ShardSpec> = (1..=8).map(|id| shard(id, "n", &[2, 1])).collect();
        settle(&nodes, &mut shards);
        assert_eq!(counts(&nodes, &shards), [6, 2]);
    }
}
