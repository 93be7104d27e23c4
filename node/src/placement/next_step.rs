//! The next step of a move, from what is: a pure function.
//!
//! Whoever leads the group asks it again and again. It is told where the directory says that the move is, and who is a member of the group
//! now; both may have come further than the last leader could say. So each answer stands by itself, and any step may be made again.

use std::collections::BTreeSet;

use malle_machine::directory::{Task, TaskStep};
use malle_proto::{NodeId, ShardId};

/// What the leader of a group knows when it looks at a move of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Itself.
    pub leader: NodeId,
    /// Voters, when they are not being changed and a majority knows it.
    pub voters: Option<BTreeSet<NodeId>>,
    /// What they become, when another leader died in the middle of changing them: a majority knows that both sets vote.
    pub unfinished: Option<BTreeSet<NodeId>>,
    /// Voters and learners.
    pub members: BTreeSet<NodeId>,
    /// What the one who joins lacks of rows and bodies; `None` when it has all that was committed when it was asked.
    pub lacks: Option<String>,
    /// Nodes that do not answer.
    pub silent: BTreeSet<NodeId>,
    /// The replicas by the directory's row; `None` for the directory itself, which has none.
    pub row: Option<BTreeSet<NodeId>>,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Tell the directory that the move is here.
    Say(TaskStep),
    /// Add a learner.
    Join(NodeId),
    /// Let somebody else lead: this node is the one that leaves.
    HandOver,
    /// Make these the voters.
    Switch(BTreeSet<NodeId>),
    /// Drop a learner.
    Drop(NodeId),
    /// Look again later; for a person, what is waited for.
    Wait(String),
}

/// The next step of `task`.
pub fn next_step(task: &Task, facts: &Facts) -> Next {
    let Some(voters) = &facts.voters else {
        return match &facts.unfinished {
            // What it began was looked at before it began.
            Some(target) if target.contains(&facts.leader) => Next::Switch(target.clone()),
            Some(_) => Next::HandOver,
            None => Next::Wait("the change of voters is not committed yet".into()),
        };
    };
    let target: BTreeSet<NodeId> = voters
        .iter()
        .copied()
        .filter(|node| Some(*node) != task.leave)
        .chain(task.join)
        .collect();
    let switched = *voters == target;
    match task.step {
        TaskStep::Cancelling => undo(task, facts, switched),
        TaskStep::Planned | TaskStep::Joined | TaskStep::CaughtUp if switched => has_switched(facts),
        TaskStep::Planned => match task.join {
            None => Next::Say(TaskStep::CaughtUp),
            Some(join) if !facts.members.contains(&join) => Next::Join(join),
            Some(_) => Next::Say(TaskStep::Joined),
        },
        TaskStep::Joined => match (task.join, &facts.lacks) {
            // A learner that the entry of another leader took out again.
            (Some(join), _) if !facts.members.contains(&join) => Next::Join(join),
            (_, Some(lacks)) => Next::Wait(lacks.clone()),
            (_, None) => Next::Say(TaskStep::CaughtUp),
        },
        TaskStep::CaughtUp => switch(task, facts, target),
        TaskStep::Switched => match &facts.row {
            Some(row) if row != voters => Next::Wait("the directory does not know the new replicas yet".into()),
            _ => Next::Say(TaskStep::Done),
        },
        TaskStep::Done | TaskStep::Cancelled => Next::Wait("it is over".into()),
    }
}

/// The new replica has a vote. The old one's copies count until the new one has every body up to here (architecture, decision 4).
fn has_switched(facts: &Facts) -> Next {
    match &facts.lacks {
        Some(lacks) => Next::Wait(lacks.clone()),
        None => Next::Say(TaskStep::Switched),
    }
}

fn switch(task: &Task, facts: &Facts, target: BTreeSet<NodeId>) -> Next {
    if let Some(join) = task.join.filter(|join| !facts.members.contains(join)) {
        return Next::Join(join);
    }
    if let Some(lacks) = &facts.lacks {
        return Next::Wait(lacks.clone());
    }
    // The change needs a majority of the old voters and of the new ones, and so does everything after it.
    let up = target.iter().filter(|node| !facts.silent.contains(node)).count();
    if up * 2 <= target.len() {
        return Next::Wait(format!("{up} of the {} new voters answer: no majority", target.len()));
    }
    if task.leave == Some(facts.leader) {
        // The only replica has nobody to hand over to before its successor votes beside it.
        return match (&facts.voters, task.join) {
            (Some(voters), Some(join)) if voters.len() == 1 => Next::Switch(BTreeSet::from([facts.leader, join])),
            _ => Next::HandOver,
        };
    }
    Next::Switch(target)
}

fn undo(task: &Task, facts: &Facts, switched: bool) -> Next {
    let is_voter = |node: &NodeId| facts.voters.as_ref().is_some_and(|voters| voters.contains(node));
    match task.join {
        // It came too late.
        _ if switched => has_switched(facts),
        Some(join) if is_voter(&join) => has_switched(facts),
        // Every node follows the directory, with a vote or without.
        Some(join) if facts.members.contains(&join) && task.shard != ShardId::DIRECTORY => Next::Drop(join),
        _ => Next::Say(TaskStep::Cancelled),
    }
}

#[cfg(test)]
mod tests;
