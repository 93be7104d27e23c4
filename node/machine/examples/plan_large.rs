//! Plans for 300 nodes in three regions and 6,400 shards of three replicas, and says how long that took: placement from nothing, 30 nodes
//! that leave, and 60 new ones. `cargo run --release -p malle-machine --example plan_large`.

use std::time::Instant;

use malle_machine::planner::{Goal, Input, NodeSpec, Plan, ShardSpec, Standing, plan};
use malle_proto::{NodeId, ShardId};

const REGIONS: [&str; 3] = ["nord", "centre", "sud"];

fn node(id: u64) -> NodeSpec {
    NodeSpec {
        id: NodeId(id),
        region: REGIONS[id as usize % 3].into(),
        zone: format!("z{}", id % 9),
        weight: 100,
        standing: Standing::Serving,
    }
}

fn follow(input: &mut Input, plan: &Plan) {
    for one in &plan.moves {
        let shard = input.shards.iter_mut().find(|shard| shard.id == one.shard);
        let Some(shard) = shard else { continue };
        shard.replicas.retain(|node| Some(*node) != one.leave);
        shard.replicas.extend(one.join);
    }
}

fn step(what: &str, input: &mut Input) {
    let begun = Instant::now();
    let made = plan(input);
    let took = begun.elapsed();
    follow(input, &made);
    let mut loads: Vec<usize> = Vec::new();
    for node in input.nodes.iter().filter(|node| node.standing == Standing::Serving) {
        loads.push(
            input
                .shards
                .iter()
                .filter(|shard| shard.replicas.contains(&node.id))
                .count(),
        );
    }
    let (least, most) = (loads.iter().min().unwrap_or(&0), loads.iter().max().unwrap_or(&0));
    let (moves, problems) = (made.moves.len(), made.problems.len());
    println!("{what}: {moves} moves, {problems} problems, {least} to {most} replicas a node, {took:.2?}");
}

fn main() {
    let shard = |id: u32| ShardSpec {
        id: ShardId(id),
        replicas: Vec::new(),
        home_region: REGIONS[id as usize % 3].into(),
        bytes: 1 << 30,
        busy: false,
    };
    let mut input = Input {
        goal: Goal::Region,
        replicas: 3,
        nodes: (1..=300).map(node).collect(),
        shards: (1..=6_400).map(shard).collect(),
        balance: true,
    };
    step("from nothing", &mut input);
    for place in 0..30 {
        input.nodes[place].standing = Standing::Leaving;
    }
    step("30 nodes leave", &mut input);
    input.nodes.extend((301..=360).map(node));
    step("60 nodes come", &mut input);
}
