//! `malle task`: moves of replicas, which the cluster makes by itself.

use std::time::Duration;

use clap::Subcommand;
use malle_client::{Client, Error, Task};
use serde::Serialize;

use crate::context::Global;
use crate::exit::{Exit, guarded};
use crate::output;

/// Pause between two looks at tasks that are awaited.
const LOOK: Duration = Duration::from_millis(500);
/// What shows of the past unless all is asked for.
const RECENT: usize = 10;

/// `malle task ...`
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Moves under way, and the last ones that are over.
    List {
        /// Also the older ones that are over.
        #[arg(long)]
        all: bool,
    },
    /// One move.
    Show {
        /// Its number.
        task: u64,
    },
    /// Waits until a move is over, or all of them when none is named and none follows. Give it a --timeout that fits.
    Await {
        /// Its number; all by default.
        task: Option<u64>,
    },
    /// Undoes a move, as long as its replicas were not switched.
    Cancel {
        /// Its number.
        task: u64,
        /// Say whether it could be undone, and do nothing.
        #[arg(long)]
        dry_run: bool,
    },
}

/// Moves as they are printed.
#[derive(Debug, Serialize)]
pub struct List {
    tasks: Vec<Row>,
}

/// A move as it is printed.
#[derive(Debug, Serialize)]
pub struct Row {
    id: u64,
    shard: u32,
    leave: Option<u64>,
    join: Option<u64>,
    bytes: u64,
    reason: String,
    step: String,
    note: String,
    started_ms: u64,
    changed_ms: u64,
}

/// A move as it is printed.
pub fn row(task: Task) -> Row {
    Row {
        id: task.id,
        shard: task.of.shard.0,
        leave: task.of.leave.map(|node| node.0),
        join: task.of.join.map(|node| node.0),
        bytes: task.of.bytes,
        reason: task.of.reason,
        step: task.step,
        note: task.note,
        started_ms: task.started_ms,
        changed_ms: task.changed_ms,
    }
}

/// Runs a verb.
///
/// # Errors
/// What the cluster says.
pub async fn run(global: &Global, verb: Verb) -> anyhow::Result<Exit> {
    let client = global.connect().await?;
    match verb {
        Verb::List { all } => {
            let list = list(client.cluster().tasks().await?, all);
            output::print(global.output, &list, text)?;
        }
        Verb::Show { task } => {
            let found = find(&client, task).await?;
            output::print(global.output, &row(found), pairs)?;
        }
        Verb::Await { task } => {
            let list = List {
                tasks: wait(&client, global.timeout, task)
                    .await?
                    .into_iter()
                    .map(row)
                    .collect(),
            };
            output::print(global.output, &list, text)?;
        }
        Verb::Cancel { task, dry_run } => {
            let cancelled = client.cluster().task_cancel(task, dry_run).await;
            cancelled.map_err(guarded)?;
            let found = find(&client, task).await?;
            output::print(global.output, &row(found), pairs)?;
        }
    }
    Ok(Exit::Done)
}

async fn find(client: &Client, task: u64) -> anyhow::Result<Task> {
    let tasks = client.cluster().tasks().await?;
    let found = tasks.into_iter().find(|known| known.id == task);
    Ok(found.ok_or_else(|| Error::NotFound(format!("task {task}")))?)
}

/// Waits for one task, or until none is under way at two looks in a row: the next one of a plan begins a moment after the last.
async fn wait(client: &Client, timeout: Duration, task: Option<u64>) -> anyhow::Result<Vec<Task>> {
    let deadline = tokio::time::Instant::now() + timeout;
    let mut quiet = 0;
    loop {
        let tasks = match task {
            Some(task) => vec![find(client, task).await?],
            None => client.cluster().tasks().await?,
        };
        let running = tasks.iter().filter(|task| !task.is_over()).count();
        quiet = if running == 0 { quiet + 1 } else { 0 };
        if quiet > 0 && task.is_some() || quiet > QUIET_LOOKS {
            return Ok(if task.is_some() { tasks } else { Vec::new() });
        }
        if tokio::time::Instant::now() + LOOK >= deadline {
            return Err(Error::Unavailable(format!(
                "{running} moves are still under way; `malle task list` shows them"
            ))
            .into());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The driver looks once a second, and takes up to three when a node does not answer.
const QUIET_LOOKS: u32 = 10;

/// Moves as they are printed: those under way, and of those that are over the last ones.
pub fn list(tasks: Vec<Task>, all: bool) -> List {
    let over = tasks.iter().filter(|task| task.is_over()).count();
    let mut skip = if all { 0 } else { over.saturating_sub(RECENT) };
    let shown = tasks.into_iter().filter(|task| {
        let hidden = task.is_over() && skip > 0;
        skip -= usize::from(hidden);
        !hidden
    });
    List {
        tasks: shown.map(row).collect(),
    }
}

fn node(node: Option<u64>) -> String {
    node.map_or("-".to_owned(), |node| node.to_string())
}

/// What moves: the directory's own voters have no number that an operator knows.
fn shard(shard: u32) -> String {
    match shard {
        0 => "directory".to_owned(),
        shard => shard.to_string(),
    }
}

/// The same for people.
pub fn text(list: &List) -> String {
    if list.tasks.is_empty() {
        return "nothing moves".to_owned();
    }
    table(&list.tasks)
}

/// Moves as a table.
pub fn table(tasks: &[Row]) -> String {
    let row = |row: &Row| {
        [
            row.id.to_string(),
            shard(row.shard),
            node(row.leave),
            node(row.join),
            output::size(row.bytes),
            row.reason.clone(),
            row.step.clone(),
            output::time(row.started_ms),
            row.note.clone(),
        ]
    };
    let header = [
        "TASK", "SHARD", "FROM", "TO", "BYTES", "REASON", "STEP", "STARTED", "NOTE",
    ];
    output::table(header, tasks.iter().map(row))
}

fn pairs(row: &Row) -> String {
    output::pairs([
        ("task", row.id.to_string()),
        ("shard", shard(row.shard)),
        ("from", node(row.leave)),
        ("to", node(row.join)),
        ("bytes", output::size(row.bytes)),
        ("reason", row.reason.clone()),
        ("step", row.step.clone()),
        ("note", row.note.clone()),
        ("started", output::time(row.started_ms)),
        ("changed", output::time(row.changed_ms)),
    ])
}
