//! The layout: staged, looked at, applied by version.
//!
//! Before the first one is applied there is a layout all the same: the nodes that hold replicas have weight 1, shards survive a node. So a
//! cluster that nobody laid out still mends itself, and a node that has just joined holds nothing until somebody says so.

use std::collections::{BTreeMap, BTreeSet};

use malle_proto::{NodeId, ShardId, limits};

use super::apply::{Step, Turn};
use super::cluster::check_name;
use super::growth::{Applied, Layout, LayoutChange, NodeState, RoleChange, Staged, Standing};
use super::rows::{self, AppliedRow, GrowthRow, LayoutRow, NodeRow, StagedRow, Tag};
use super::{Node, Outcome, Refusal, Shard, read};
use crate::format;
use crate::planner::{self, Goal, Infeasible, Input, NodeSpec, ShardSpec};
use crate::view::{Fault, View};

/// An operator's name, as his certificate has it.
const OPERATOR_MAX_BYTES: usize = 253;

/// The layout that holds; see the head of this file.
pub fn current(view: &dyn View) -> Result<Layout, Fault> {
    if let Some(LayoutRow(layout)) = rows::load(view, "layout", &rows::first(Tag::Layout))? {
        return Ok(layout);
    }
    let shards = read::shards(view)?;
    let holders: BTreeSet<NodeId> = shards
        .iter()
        .flat_map(|(shard, _)| shard.replicas.iter().copied())
        .collect();
    let replicas = shards.iter().map(|(shard, _)| shard.replicas.len()).max().unwrap_or(1);
    Ok(Layout {
        version: 0,
        goal: Goal::Node,
        // While a move is under way there may be one more than there should be.
        replicas: (replicas - (replicas + 1) % 2) as u32,
        rebuild_after_ms: limits::REBUILD_AFTER_MS,
        weights: holders.into_iter().map(|node| (node, 1)).collect(),
    })
}

/// What is staged.
pub fn staged(view: &dyn View) -> Result<Option<Staged>, Fault> {
    let row: Option<StagedRow> = rows::load(view, "staged", &rows::first(Tag::Staged))?;
    Ok(row.map(|StagedRow(staged)| staged))
}

/// The layout with these changes.
pub fn changed(layout: &Layout, change: &LayoutChange) -> Layout {
    let mut weights: BTreeMap<NodeId, u32> = layout.weights.iter().copied().collect();
    for role in &change.roles {
        if let Some(weight) = role.weight {
            weights.insert(role.node, weight);
        }
    }
    Layout {
        version: layout.version,
        goal: change.goal.unwrap_or(layout.goal),
        replicas: change.replicas.unwrap_or(layout.replicas),
        rebuild_after_ms: change.rebuild_after_ms.unwrap_or(layout.rebuild_after_ms),
        weights: weights.into_iter().collect(),
    }
}

/// The nodes with these changes.
pub fn moved(mut nodes: Vec<Node>, change: &LayoutChange) -> Vec<Node> {
    for role in &change.roles {
        for node in nodes.iter_mut().filter(|node| node.id == role.node) {
            node.region = role.region.clone().unwrap_or_else(|| node.region.clone());
            node.zone = role.zone.clone().unwrap_or_else(|| node.zone.clone());
        }
    }
    nodes
}

/// What the planner is given. `bytes` says what a replica of a shard takes, and `busy` which shards are being moved.
pub fn planner_input(
    layout: &Layout,
    nodes: &[(Node, NodeState)],
    shards: &[Shard],
    bytes: &BTreeMap<ShardId, u64>,
    busy: &BTreeSet<ShardId>,
) -> Input {
    let held: BTreeSet<NodeId> = shards.iter().flat_map(|shard| shard.replicas.iter().copied()).collect();
    let spec = |(node, state): &(Node, NodeState)| NodeSpec {
        id: node.id,
        region: node.region.clone(),
        zone: node.zone.clone(),
        weight: match layout.weight(node.id) {
            _ if node.retired => 0,
            0 if !layout.names(node.id) && held.contains(&node.id) => 1,
            weight => weight,
        },
        standing: match state.standing {
            Standing::Leaving | Standing::Removed => planner::Standing::Leaving,
            Standing::Dead => planner::Standing::Dead,
            Standing::Draining => planner::Standing::Draining,
            // Nobody copies to a node that does not answer, or that has no place in the layout.
            Standing::Active if state.silent_since_ms.is_some() || !layout.names(node.id) => {
                planner::Standing::Draining
            }
            Standing::Active => planner::Standing::Serving,
        },
    };
    Input {
        goal: layout.goal,
        replicas: layout.replicas as usize,
        nodes: nodes.iter().map(spec).collect(),
        shards: shards
            .iter()
            .map(|shard| ShardSpec {
                id: shard.id,
                replicas: shard.replicas.clone(),
                home_region: shard.home_region.clone(),
                bytes: bytes.get(&shard.id).copied().unwrap_or(0),
                busy: busy.contains(&shard.id),
            })
            .collect(),
        // A cluster that nobody laid out keeps its replicas where they are.
        balance: layout.version > 0,
    }
}

/// Whether the nodes can give the layout its goal. With the broken goal's name nothing but the number of nodes counts.
pub fn check_goal(layout: &Layout, nodes: &[(Node, NodeState)], break_goal: Option<Goal>) -> Result<(), Refusal> {
    let input = planner_input(layout, nodes, &[], &BTreeMap::new(), &BTreeSet::new());
    let stays = |node: &NodeSpec| node.standing != planner::Standing::Leaving;
    let stay: Vec<NodeSpec> = input.nodes.into_iter().filter(stays).collect();
    let Err(why) = planner::feasible(layout.goal, input.replicas, &stay) else {
        return Ok(());
    };
    match &why {
        Infeasible::Apart { goal, .. } if break_goal == Some(*goal) => Ok(()),
        Infeasible::Apart { goal, .. } => Err(Refusal::Unsafe(format!(
            "{why}; with --break-goal {goal} it is done all the same"
        ))),
        Infeasible::Nodes { .. } => Err(Refusal::Unsafe(why.to_string())),
    }
}

/// More changes that wait.
pub fn stage(turn: &mut Turn<'_>, change: &LayoutChange) -> Step<Outcome> {
    check_change(&turn.draft, change)?;
    let mut all = staged(&turn.draft)?.map(|staged| staged.change).unwrap_or_default();
    all.goal = change.goal.or(all.goal);
    all.replicas = change.replicas.or(all.replicas);
    all.rebuild_after_ms = change.rebuild_after_ms.or(all.rebuild_after_ms);
    let mut roles: BTreeMap<NodeId, RoleChange> = all.roles.into_iter().map(|role| (role.node, role)).collect();
    for role in &change.roles {
        let there = roles.entry(role.node).or_insert_with(|| RoleChange {
            node: role.node,
            weight: None,
            region: None,
            zone: None,
        });
        there.weight = role.weight.or(there.weight);
        there.region = role.region.clone().or_else(|| there.region.take());
        there.zone = role.zone.clone().or_else(|| there.zone.take());
    }
    all.roles = roles.into_values().collect();
    let mut counters = rows::growth(&turn.draft)?;
    counters.layout_version += 1;
    let staged = Staged {
        version: counters.layout_version,
        change: all,
    };
    turn.draft
        .put(rows::first(Tag::Staged), format::encode(&StagedRow(staged)));
    put_counters(turn, &counters);
    Ok(Outcome::Done)
}

pub fn put_counters(turn: &mut Turn<'_>, counters: &GrowthRow) {
    turn.draft.put(rows::first(Tag::Growth), format::encode(counters));
}

fn check_change(view: &dyn View, change: &LayoutChange) -> Step<()> {
    if change == &LayoutChange::default() {
        return Err(Refusal::Invalid("nothing to change is named".into()).into());
    }
    if change.roles.len() > limits::ROLES_PER_COMMAND_MAX {
        return Err(Refusal::Limit(format!("{} nodes a command", limits::ROLES_PER_COMMAND_MAX)).into());
    }
    if let Some(replicas) = change.replicas
        && !matches!(replicas, 1 | 3 | 5)
    {
        return Err(Refusal::Invalid("a shard has 1, 3 or 5 replicas".into()).into());
    }
    if let Some(after_ms) = change.rebuild_after_ms
        && after_ms != 0
        && !(limits::REBUILD_AFTER_MIN_MS..=limits::REBUILD_AFTER_MAX_MS).contains(&after_ms)
    {
        return Err(Refusal::Invalid(format!(
            "a dead node's replicas are rebuilt after {} s to {} h, or never (0)",
            limits::REBUILD_AFTER_MIN_MS / 1000,
            limits::REBUILD_AFTER_MAX_MS / 3_600_000
        ))
        .into());
    }
    for role in &change.roles {
        let node: Option<NodeRow> = rows::load(view, "node", &rows::node(role.node))?;
        if node.is_none_or(|NodeRow(node)| node.retired) {
            return Err(Refusal::NoNode(role.node).into());
        }
        if role.weight.is_some_and(|weight| weight > limits::NODE_WEIGHT_MAX) {
            return Err(Refusal::Limit(format!("weights up to {}", limits::NODE_WEIGHT_MAX)).into());
        }
        if role.weight.is_none() && role.region.is_none() && role.zone.is_none() {
            return Err(Refusal::Invalid(format!("nothing to change about node {} is named", role.node)).into());
        }
        for (what, name) in [("region", &role.region), ("zone", &role.zone)] {
            if let Some(name) = name {
                check_name(what, name)?;
            }
        }
    }
    let distinct: BTreeSet<NodeId> = change.roles.iter().map(|role| role.node).collect();
    if distinct.len() != change.roles.len() {
        return Err(Refusal::Invalid("a node is named twice".into()).into());
    }
    Ok(())
}

/// Makes what is staged the layout.
pub fn apply(turn: &mut Turn<'_>, version: u64, by: &str, break_goal: Option<Goal>) -> Step<Outcome> {
    let before = current(&turn.draft)?;
    let Some(staged) = staged(&turn.draft)? else {
        // A repeat: its first answer may have been lost.
        return if before.version == version && version > 0 {
            Ok(Outcome::Done)
        } else {
            Err(Refusal::NothingStaged(before.version).into())
        };
    };
    if staged.version != version {
        return Err(Refusal::LayoutVersion(staged.version).into());
    }
    if by.len() > OPERATOR_MAX_BYTES {
        return Err(Refusal::Limit(format!("an operator's name of {OPERATOR_MAX_BYTES} bytes")).into());
    }
    let states = read::node_states(&turn.draft)?;
    let nodes: Vec<(Node, NodeState)> = moved(read::nodes(&turn.draft)?, &staged.change)
        .into_iter()
        .map(|node| (states.get(&node.id).copied().unwrap_or(NodeState::FIRST), node))
        .map(|(state, node)| (node, state))
        .collect();
    let mut after = changed(&before, &staged.change);
    after.version = version;
    // What has been retired since it was named has no share any more.
    let retired: BTreeSet<NodeId> = nodes
        .iter()
        .filter(|(node, _)| node.retired)
        .map(|(node, _)| node.id)
        .collect();
    after.weights.retain(|(node, _)| !retired.contains(node));
    check_goal(&after, &nodes, break_goal)?;
    for role in &staged.change.roles {
        if let Some((node, _)) = nodes.iter().find(|(node, _)| node.id == role.node) {
            let row = NodeRow(node.clone());
            turn.draft.put(rows::node(node.id), format::encode(&row));
        }
    }
    let applied = Applied {
        version,
        time_ms: turn.clock.time_ms,
        by: by.to_owned(),
        change: staged.change,
    };
    turn.draft
        .put(rows::first(Tag::Layout), format::encode(&LayoutRow(after)));
    turn.draft
        .put(rows::applied(version), format::encode(&AppliedRow(applied)));
    turn.draft.remove(rows::first(Tag::Staged));
    let history = read::layout_history(&turn.draft)?;
    let old = history.len().saturating_sub(limits::LAYOUTS_KEPT);
    for applied in history.iter().take(old) {
        turn.draft.remove(rows::applied(applied.version));
    }
    Ok(Outcome::Done)
}

/// Forgets what is staged.
pub fn revert(turn: &mut Turn<'_>) -> Step<Outcome> {
    turn.draft.remove(rows::first(Tag::Staged));
    Ok(Outcome::Done)
}
