//! What every plan holds to, on nodes and shards drawn at random; then single cases.

use std::collections::{BTreeMap, BTreeSet};

use malle_proto::{NodeId, ShardId};
use proptest::prelude::{Just, Strategy, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};

use super::{Goal, Infeasible, Input, NodeSpec, Plan, Reason, ShardSpec, Standing, feasible, plan};

fn node(id: u64, region: &str, zone: &str) -> NodeSpec {
    NodeSpec {
        id: NodeId(id),
        region: region.into(),
        zone: zone.into(),
        weight: 100,
        standing: Standing::Serving,
    }
}

fn shard(id: u32, replicas: &[u64]) -> ShardSpec {
    ShardSpec {
        id: ShardId(id),
        replicas: replicas.iter().copied().map(NodeId).collect(),
        home_region: "a".into(),
        bytes: u64::from(id) * 100,
        busy: false,
    }
}

/// Six nodes: two in each of three regions, each in a zone of its own.
fn six() -> Vec<NodeSpec> {
    (1..=6)
        .map(|id| node(id, ["a", "b", "c"][id as usize % 3], &format!("z{id}")))
        .collect()
}

fn input(goal: Goal, nodes: Vec<NodeSpec>, shards: Vec<ShardSpec>) -> Input {
    Input {
        goal,
        replicas: 3,
        nodes,
        shards,
        balance: false,
    }
}

/// What is when all moves are made.
fn after(input: &Input, plan: &Plan) -> Input {
    let mut after = input.clone();
    for one in &plan.moves {
        let shard = after.shards.iter_mut().find(|shard| shard.id == one.shard).unwrap();
        assert!(one.leave.is_none_or(|node| shard.replicas.contains(&node)), "{one:?}");
        assert!(one.join.is_none_or(|node| !shard.replicas.contains(&node)), "{one:?}");
        shard.replicas.retain(|node| Some(*node) != one.leave);
        shard.replicas.extend(one.join);
    }
    after
}

fn load(input: &Input, node: u64) -> usize {
    let holds = |shard: &&ShardSpec| shard.replicas.contains(&NodeId(node));
    input.shards.iter().filter(holds).count()
}

fn meets_goal(input: &Input, shard: &ShardSpec) -> bool {
    let mut domains: BTreeMap<(String, String, u64), usize> = BTreeMap::new();
    for node in input.nodes.iter().filter(|node| shard.replicas.contains(&node.id)) {
        let domain = match input.goal {
            Goal::Node => (String::new(), String::new(), node.id.0),
            Goal::Zone => (node.region.clone(), node.zone.clone(), 0),
            Goal::Region => (node.region.clone(), String::new(), 0),
        };
        *domains.entry(domain).or_default() += 1;
    }
    domains.values().all(|replicas| *replicas <= (input.replicas - 1) / 2)
}

fn goals() -> impl Strategy<Value = Goal> {
    prop_oneof![Just(Goal::Node), Just(Goal::Zone), Just(Goal::Region)]
}

fn standings() -> impl Strategy<Value = Standing> {
    prop_oneof![
        8 => Just(Standing::Serving),
        1 => Just(Standing::Draining),
        1 => Just(Standing::Dead),
        1 => Just(Standing::Leaving),
    ]
}

fn inputs() -> impl Strategy<Value = Input> {
    let nodes = prop::collection::vec(
        (0..4_u8, 0..3_u8, prop_oneof![Just(0), 50..200_u32], standings()),
        1..14,
    );
    let shards = prop::collection::vec(
        (prop::collection::btree_set(1..16_u64, 1..6), 0..1_000_u64, 0..10_u8),
        0..20,
    );
    (goals(), prop_oneof![Just(3), Just(5)], nodes, shards, any::<bool>()).prop_map(
        |(goal, replicas, nodes, shards, balance)| Input {
            goal,
            replicas,
            nodes: (1..)
                .zip(nodes)
                .map(|(id, (region, zone, weight, standing))| NodeSpec {
                    id: NodeId(id),
                    region: format!("r{region}"),
                    zone: format!("z{zone}"),
                    weight,
                    standing,
                })
                .collect(),
            shards: (1..)
                .zip(shards)
                .map(|(id, (replicas, bytes, busy))| ShardSpec {
                    id: ShardId(id),
                    replicas: replicas.into_iter().map(NodeId).collect(),
                    home_region: "r0".into(),
                    bytes,
                    busy: busy == 0,
                })
                .collect(),
            balance,
        },
    )
}

proptest! {
    #[test]
    fn a_plan_is_the_same_each_time_and_each_replica_moves_once(input in inputs()) {
        let made = plan(&input);
        prop_assert_eq!(&made, &plan(&input));
        let mut turned = input.clone();
        turned.nodes.reverse();
        turned.shards.reverse();
        prop_assert_eq!(&made.moves, &plan(&turned).moves, "the order in which things are told does not matter");
        let mut touched = BTreeSet::new();
        for one in &made.moves {
            let shard = input.shards.iter().find(|shard| shard.id == one.shard).unwrap();
            prop_assert!(!shard.busy);
            prop_assert!(one.join.is_some() || one.leave.is_some());
            for node in one.join.into_iter().chain(one.leave) {
                prop_assert!(touched.insert((one.shard, node)), "{:?} twice", one);
            }
            if let Some(join) = one.join {
                let taker = input.nodes.iter().find(|node| node.id == join).unwrap();
                prop_assert!(taker.standing == Standing::Serving && taker.weight > 0, "{:?}", taker);
            }
        }
    }

    #[test]
    fn without_balancing_a_plan_is_followed_by_an_empty_one(mut input in inputs()) {
        input.balance = false;
        let made = plan(&input);
        let next = plan(&after(&input, &made));
        prop_assert!(next.moves.is_empty(), "{:?} after {:?}", next, made);
    }

    #[test]
    fn where_the_goal_can_be_met_it_is_and_nothing_stays_on_a_node_that_leaves(mut input in inputs()) {
        for node in &mut input.nodes {
            // A dead node or a draining one may keep what nobody else can take: that is said, and not this claim.
            if matches!(node.standing, Standing::Dead | Standing::Draining) {
                node.standing = Standing::Serving;
            }
        }
        for shard in &mut input.shards {
            shard.busy = false;
        }
        let staying: Vec<NodeSpec> = input.nodes.iter().filter(|node| node.standing == Standing::Serving).cloned().collect();
        if feasible(input.goal, input.replicas, &staying).is_err() {
            return Ok(());
        }
        let made = plan(&input);
        prop_assert!(made.problems.is_empty(), "{:?}", made.problems);
        let done = after(&input, &made);
        for shard in &done.shards {
            prop_assert_eq!(shard.replicas.len(), input.replicas);
            prop_assert!(meets_goal(&done, shard), "{:?}", shard);
            for replica in &shard.replicas {
                prop_assert!(staying.iter().any(|node| node.id == *replica && node.weight > 0), "{}", replica);
            }
        }
    }

    /// What must move is a replica on a node that leaves or is dead, or one more or less than there should be, or one of those that break the
    /// goal: a plan without balancing has no more moves than there are such replicas.
    #[test]
    fn without_balancing_nothing_moves_that_need_not(mut input in inputs()) {
        input.balance = false;
        let made = plan(&input);
        for shard in &input.shards {
            let moves = made.moves.iter().filter(|one| one.shard == shard.id).count();
            let stays = |id: &NodeId| input.nodes.iter().any(|node| node.id == *id && node.weight > 0
                && matches!(node.standing, Standing::Serving | Standing::Draining));
            let bad = shard.replicas.iter().filter(|id| !stays(id)).count();
            let wrong = shard.replicas.len().abs_diff(input.replicas);
            let most = if meets_goal(&input, shard) { bad + wrong } else { bad + wrong + input.replicas };
            prop_assert!(moves <= most, "{} moves of {:?}, at most {}", moves, shard, most);
        }
    }

    #[test]
    fn balancing_ends_in_even_loads_where_regions_do_not_forbid_it(
        shards in prop::collection::vec(prop::collection::btree_set(1..7_u64, 3), 1..40),
        fresh in 1..6_u64,
    ) {
        let nodes = (1..=6 + fresh).map(|id| node(id, "a", &format!("z{id}"))).collect();
        let shards = (1..).zip(&shards).map(|(id, replicas)| shard(id, &replicas.iter().copied().collect::<Vec<_>>())).collect();
        let input = Input { balance: true, ..input(Goal::Node, nodes, shards) };
        let made = plan(&input);
        let done = after(&input, &made);
        let loads: Vec<usize> = (1..=6 + fresh).map(|id| load(&done, id)).collect();
        prop_assert!(loads.iter().max().unwrap() - loads.iter().min().unwrap() <= 2, "{:?}", loads);
        // No more than what those that got something hold now.
        let got: BTreeSet<NodeId> = made.moves.iter().filter_map(|one| one.join).collect();
        let gave: BTreeSet<NodeId> = made.moves.iter().filter_map(|one| one.leave).collect();
        prop_assert!(got.is_disjoint(&gave), "{:?} and {:?}", got, gave);
    }
}

#[test]
fn a_new_node_gets_its_share_and_nobody_else_gets_anything() {
    let mut nodes = six();
    let shards: Vec<ShardSpec> = (1..=20)
        .map(|id| shard(id, if id % 2 == 0 { &[1, 2, 3] } else { &[4, 5, 6] }))
        .collect();
    nodes.push(node(7, "a", "z7"));
    let balanced = Input {
        balance: true,
        ..input(Goal::Region, nodes, shards)
    };
    let made = plan(&balanced);
    assert!(
        made.problems.is_empty() && made.moves.iter().all(|one| one.join == Some(NodeId(7))),
        "{made:?}"
    );
    // Region a has nodes 3, 6 and 7, and one replica of each of the 20 shards.
    assert_eq!(load(&after(&balanced, &made), 7), 6);
    let quiet = Input {
        balance: false,
        ..balanced
    };
    assert_eq!(plan(&quiet), Plan::default());
}

#[test]
fn a_dead_node_is_rebuilt_in_its_region_and_a_dead_region_is_left_alone() {
    let shards = || (1..=4).map(|id| shard(id, &[1, 2, 3])).collect();
    let mut nodes = six();
    nodes[0].standing = Standing::Dead;
    let made = plan(&input(Goal::Region, nodes.clone(), shards()));
    assert_eq!(made.moves.len(), 4);
    assert!(
        made.moves
            .iter()
            .all(|one| one.join == Some(NodeId(4)) && one.leave == Some(NodeId(1)) && one.reason == Reason::Dead)
    );
    nodes[3].standing = Standing::Dead;
    let made = plan(&input(Goal::Region, nodes.clone(), shards()));
    assert!(made.moves.is_empty(), "nowhere else would the goal be met: {made:?}");
    assert_eq!(made.problems.len(), 4);
    // An operator who says that the node is gone for good is believed.
    nodes[0].standing = Standing::Leaving;
    let made = plan(&input(Goal::Region, nodes, shards()));
    assert_eq!(made.moves.iter().filter(|one| one.leave == Some(NodeId(1))).count(), 4);
}

#[test]
fn a_shard_without_a_majority_is_not_touched() {
    let mut nodes = six();
    nodes[0].standing = Standing::Dead;
    nodes[1].standing = Standing::Dead;
    let made = plan(&input(Goal::Region, nodes, vec![shard(1, &[1, 2, 3])]));
    assert!(made.moves.is_empty());
    assert_eq!(
        made.problems,
        ["shard 1 has lost its majority: 2 of 3 replicas are dead"]
    );
}

#[test]
fn of_too_many_replicas_the_dead_go_and_the_living_stay() {
    let mut nodes = six();
    nodes[0].standing = Standing::Dead;
    nodes[1].standing = Standing::Dead;
    nodes[2].standing = Standing::Leaving;
    let mut crowded = input(Goal::Node, nodes, vec![shard(1, &[1, 2, 3, 4, 5])]);
    crowded.nodes.truncate(5);
    let made = plan(&crowded);
    let left: Vec<Option<NodeId>> = made.moves.iter().map(|one| one.leave).collect();
    assert_eq!(left, [Some(NodeId(1)), Some(NodeId(2))]);
    assert_eq!(
        made.problems,
        ["shard 1: no node may take the place of node 3 (goal: survive a node)"]
    );
}

#[test]
fn the_urgent_comes_first_and_then_the_small() {
    let mut nodes = six();
    nodes[0].standing = Standing::Dead;
    nodes[1].standing = Standing::Leaving;
    let made = plan(&input(
        Goal::Region,
        nodes,
        vec![shard(3, &[1, 5, 6]), shard(2, &[4, 2, 3]), shard(1, &[4, 2, 6])],
    ));
    let order: Vec<(u32, Reason)> = made.moves.iter().map(|one| (one.shard.0, one.reason)).collect();
    assert_eq!(order, [(3, Reason::Dead), (1, Reason::Leaving), (2, Reason::Leaving)]);
    assert_eq!(made.bytes(), 600);
}

#[test]
fn a_goal_that_nodes_cannot_give_says_why() {
    let nodes = six();
    assert_eq!(feasible(Goal::Region, 3, &nodes), Ok(()));
    assert_eq!(feasible(Goal::Region, 5, &nodes), Ok(()));
    let two = [nodes[0].clone(), nodes[1].clone(), nodes[3].clone()];
    let apart = feasible(Goal::Region, 3, &two).unwrap_err();
    assert_eq!(
        apart.to_string(),
        "a shard of 3 replicas does not survive a region: at most 1 may stand in one, and the 2 there are take 2"
    );
    assert_eq!(feasible(Goal::Zone, 3, &two), Ok(()));
    let few = Err(Infeasible::Nodes { replicas: 5, nodes: 3 });
    assert_eq!(feasible(Goal::Node, 5, &two), few);
}
