//! What is done with a node: drained, taken out, given up, or nothing.
//!
//! What would leave a shard without a majority is refused. The directory's own voters are not known here: the api looks after them.

use malle_proto::NodeId;

use super::apply::{Step, Turn};
use super::growth::{NodeState, Standing};
use super::rows::{self, NodeRow, StandingRow};
use super::{Node, Outcome, Refusal, layout, read};
use crate::format;
use crate::planner::Goal;
use crate::view::Fault;

/// How a node is.
fn state(turn: &Turn<'_>, node: NodeId) -> Result<NodeState, Fault> {
    let row: Option<StandingRow> = rows::load(&turn.draft, "standing", &rows::standing(node))?;
    Ok(row.map_or(NodeState::FIRST, |StandingRow(state)| state))
}

fn put(turn: &mut Turn<'_>, node: NodeId, state: NodeState) {
    turn.draft
        .put(rows::standing(node), format::encode(&StandingRow(state)));
}

fn known(turn: &Turn<'_>, node: NodeId) -> Step<()> {
    let row: Option<NodeRow> = rows::load(&turn.draft, "node", &rows::node(node))?;
    match row {
        Some(NodeRow(row)) if !row.retired => Ok(()),
        _ => Err(Refusal::NoNode(node).into()),
    }
}

/// What is to be done with a node from now on.
pub fn stand(turn: &mut Turn<'_>, node: NodeId, standing: Standing, break_goal: Option<Goal>) -> Step<Outcome> {
    known(turn, node)?;
    let mut now = state(turn, node)?;
    if now.standing == standing {
        return Ok(Outcome::Done);
    }
    match (now.standing, standing) {
        (Standing::Removed, _) => {
            let reason = format!("node {node} was given up for good, and its replicas are being given to others");
            return Err(Refusal::Invalid(reason).into());
        }
        (Standing::Leaving, Standing::Draining | Standing::Dead) => {
            // Its data leaves already, and it leads nothing.
            return Ok(Outcome::Done);
        }
        (_, Standing::Active | Standing::Dead) => {}
        (_, Standing::Draining) => majority_without(turn, node, &|state| {
            state.counts() && state.standing != Standing::Draining
        })?,
        (_, Standing::Leaving) => stays_feasible(turn, node, standing, break_goal)?,
        (_, Standing::Removed) => {
            majority_without(turn, node, &NodeState::counts)?;
            stays_feasible(turn, node, standing, break_goal)?;
        }
    }
    now.standing = standing;
    now.since_ms = turn.clock.time_ms;
    put(turn, node, now);
    Ok(Outcome::Done)
}

/// Whether the others that are there are a majority of every shard that the node has a replica of.
fn majority_without(turn: &Turn<'_>, node: NodeId, there: &dyn Fn(&NodeState) -> bool) -> Step<()> {
    let states = read::node_states(&turn.draft)?;
    for (shard, _) in read::shards(&turn.draft)? {
        // The only replica of a shard is not more alone for it.
        if !shard.replicas.contains(&node) || shard.replicas.len() == 1 {
            continue;
        }
        let others = shard.replicas.iter().filter(|id| **id != node);
        let left = others.filter(|id| states.get(*id).is_none_or(there)).count();
        let needed = shard.replicas.len() / 2 + 1;
        if left < needed {
            return Err(Refusal::Unsafe(format!(
                "shard {} would lose its majority: without node {node} it has {left} of {} replicas, and it needs {needed}",
                shard.id,
                shard.replicas.len()
            ))
            .into());
        }
    }
    Ok(())
}

/// Whether the others can hold what the node holds.
fn stays_feasible(turn: &Turn<'_>, node: NodeId, standing: Standing, break_goal: Option<Goal>) -> Step<()> {
    let states = read::node_states(&turn.draft)?;
    let with = |row: Node| {
        let mut state = states.get(&row.id).copied().unwrap_or(NodeState::FIRST);
        if row.id == node {
            state.standing = standing;
        }
        (row, state)
    };
    let nodes: Vec<(Node, NodeState)> = read::nodes(&turn.draft)?.into_iter().map(with).collect();
    let layout = layout::current(&turn.draft)?;
    if layout.weight(node) == 0 {
        // It was to hold nothing before.
        return Ok(());
    }
    layout::check_goal(&layout, &nodes, break_goal)?;
    Ok(())
}

/// A node does not answer, or does again; a dead one that does is active.
pub fn silence(turn: &mut Turn<'_>, node: NodeId, silent: bool) -> Step<Outcome> {
    known(turn, node)?;
    let mut now = state(turn, node)?;
    if now.silent_since_ms.is_some() == silent {
        return Ok(Outcome::Done);
    }
    now.silent_since_ms = silent.then_some(turn.clock.time_ms);
    if !silent && now.standing == Standing::Dead {
        now.standing = Standing::Active;
        now.since_ms = turn.clock.time_ms;
    }
    put(turn, node, now);
    Ok(Outcome::Done)
}
