//! Moves of replicas: begun by the directory's leader, taken further by the leader of the shard.

use malle_proto::{NodeId, ShardId, limits};

use super::apply::{Step, Turn};
use super::growth::{Task, TaskStep};
use super::rows::{self, NodeRow, ShardRow, TaskRow};
use super::{Outcome, Refusal, layout, read};
use crate::format;
use crate::planner::Reason;

/// A sentence for a person.
const NOTE_MAX_BYTES: usize = 500;

/// A move begins.
pub fn start(
    turn: &mut Turn<'_>,
    shard: ShardId,
    epoch: u64,
    join: Option<NodeId>,
    leave: Option<NodeId>,
    reason: Reason,
    bytes: u64,
) -> Step<Outcome> {
    if join.is_none() && leave.is_none() || join == leave {
        return Err(Refusal::Invalid("a move gives or takes a replica".into()).into());
    }
    if let Some(join) = join {
        let row: Option<NodeRow> = rows::load(&turn.draft, "node", &rows::node(join))?;
        if row.is_none_or(|NodeRow(row)| row.retired) {
            return Err(Refusal::NoNode(join).into());
        }
    }
    if shard != ShardId::DIRECTORY {
        check_shard(turn, shard, epoch, join, leave)?;
    }
    let tasks = read::tasks(&turn.draft)?;
    let running = tasks.iter().filter(|task| !task.step.is_over());
    if let Some(other) = running.clone().find(|task| task.shard == shard) {
        return Err(Refusal::TaskRunning(other.id).into());
    }
    if running.count() >= limits::TASKS_RUNNING_MAX {
        return Err(Refusal::Limit(format!("{} tasks at once", limits::TASKS_RUNNING_MAX)).into());
    }
    let mut counters = rows::growth(&turn.draft)?;
    counters.last_task += 1;
    let now_ms = turn.clock.time_ms;
    let task = Task {
        id: counters.last_task,
        shard,
        join,
        leave,
        reason,
        bytes,
        step: TaskStep::Planned,
        note: String::new(),
        started_ms: now_ms,
        changed_ms: now_ms,
    };
    turn.draft.put(rows::task(task.id), format::encode(&TaskRow(task)));
    layout::put_counters(turn, &counters);
    let over = tasks.iter().filter(|task| task.step.is_over());
    let old = over.clone().count().saturating_sub(limits::TASKS_KEPT - 1);
    for task in over.take(old) {
        turn.draft.remove(rows::task(task.id));
    }
    Ok(Outcome::Done)
}

fn check_shard(
    turn: &Turn<'_>,
    shard: ShardId,
    epoch: u64,
    join: Option<NodeId>,
    leave: Option<NodeId>,
) -> Result<(), super::apply::Stop> {
    let row: Option<ShardRow> = rows::load(&turn.draft, "shard", &rows::shard(shard))?;
    let Some(ShardRow { shard: row, .. }) = row else {
        return Err(Refusal::NoShard.into());
    };
    if row.epoch != epoch {
        return Err(Refusal::Epoch(row.epoch).into());
    }
    if let Some(leave) = leave.filter(|node| !row.replicas.contains(node)) {
        return Err(Refusal::Invalid(format!("node {leave} has no replica of shard {shard}")).into());
    }
    if let Some(join) = join.filter(|node| row.replicas.contains(node)) {
        return Err(Refusal::Invalid(format!("node {join} has a replica of shard {shard} already")).into());
    }
    if join.is_none() && row.replicas.len() == 1 {
        return Err(Refusal::Unsafe(format!("the only replica of shard {shard} is not taken away")).into());
    }
    Ok(())
}

/// A move has come to this step, or waits for something else in the one that it is in.
pub fn advance(turn: &mut Turn<'_>, id: u64, step: TaskStep, note: &str) -> Step<Outcome> {
    let Some(TaskRow(mut task)) = rows::load(&turn.draft, "task", &rows::task(id))? else {
        return Err(Refusal::NoTask(id).into());
    };
    if task.step == step && task.note == note {
        return Ok(Outcome::Done);
    }
    if task.step.is_over() && task.step == step {
        return Ok(Outcome::Done);
    }
    if task.step != step && !task.step.leads_to(step) {
        return Err(Refusal::TaskStep(id, task.step.as_str().to_owned()).into());
    }
    if note.len() > NOTE_MAX_BYTES {
        return Err(Refusal::Limit(format!("a note of {NOTE_MAX_BYTES} bytes")).into());
    }
    if task.step != step {
        task.changed_ms = turn.clock.time_ms;
    }
    task.step = step;
    task.note = note.to_owned();
    turn.draft.put(rows::task(id), format::encode(&TaskRow(task)));
    Ok(Outcome::Done)
}
