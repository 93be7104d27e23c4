//! `malle node drain|undrain|decommission|remove`: what is done with a node.

use std::time::Duration;

use clap::Subcommand;
use malle_client::{Client, Error, NodeId, Stand};
use serde::Serialize;

use crate::context::Global;
use crate::exit::{confirmed, guarded};
use crate::layout::Sure;
use crate::output;

/// A node that is up answers within this.
const SIGN_OF_LIFE: Duration = Duration::from_secs(3);
/// Pause between two looks at a node that is waited for.
const LOOK: Duration = Duration::from_millis(300);

/// `malle node ...`
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// A node is about to stop for a while: others lead its groups within seconds, and it leads nothing before `undrain`. Its replicas stay.
    Drain {
        /// Which.
        node: u64,
        /// Say whether it would be done, and do nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// A drained node, or one that was leaving, serves again.
    Undrain {
        /// Which.
        node: u64,
        /// Say whether it would be done, and do nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Takes a node out: its data moves to others while it serves, then it is retired. Repeat it, or wait with --wait and a --timeout that
    /// fits.
    Decommission {
        /// Which.
        node: u64,
        /// Do it although the others cannot meet this goal: zone or region.
        #[arg(long, value_name = "GOAL", value_parser = ["zone", "region"])]
        break_goal: Option<String>,
        /// Wait until it is retired.
        #[arg(long)]
        wait: bool,
        #[command(flatten)]
        sure: Sure,
    },
    /// Gives up a node that is gone for good: what it held is rebuilt on others at once, then it is retired.
    Remove {
        /// Which.
        node: u64,
        /// Do it although the others cannot meet this goal: zone or region.
        #[arg(long, value_name = "GOAL", value_parser = ["zone", "region"])]
        break_goal: Option<String>,
        /// Wait until it is retired.
        #[arg(long)]
        wait: bool,
        #[command(flatten)]
        sure: Sure,
    },
}

/// Runs a verb.
///
/// # Errors
/// What the cluster says; [`crate::exit::Usage`] for what is not confirmed.
pub async fn run(global: &Global, client: &Client, verb: Verb) -> anyhow::Result<()> {
    match verb {
        Verb::Drain { node, dry_run } => {
            let stood = stand(global, client, node, Stand::Draining, None, dry_run).await?;
            output::print(global.output, &stood, Stood::text)?;
        }
        Verb::Undrain { node, dry_run } => {
            let stood = stand(global, client, node, Stand::Active, None, dry_run).await?;
            output::print(global.output, &stood, Stood::text)?;
        }
        Verb::Decommission {
            node,
            break_goal,
            wait,
            sure,
        } => {
            confirmed(sure, "taking a node out moves its data")?;
            let mut stood = stand(global, client, node, Stand::Leaving, break_goal, sure.dry_run).await?;
            if wait && !sure.dry_run {
                stood = retired(global, client, node).await?;
            }
            output::print(global.output, &stood, Stood::text)?;
        }
        Verb::Remove {
            node,
            break_goal,
            wait,
            sure,
        } => {
            confirmed(sure, "a node that is given up never comes back")?;
            let mut stood = stand(global, client, node, Stand::Removed, break_goal, sure.dry_run).await?;
            if wait && !sure.dry_run {
                stood = retired(global, client, node).await?;
            }
            output::print(global.output, &stood, Stood::text)?;
        }
    }
    Ok(())
}

/// What becomes of a node.
#[derive(Debug, Serialize)]
pub struct Stood {
    node: u64,
    standing: String,
    /// Shards that it leads now; `None` when it does not answer.
    leads: Option<usize>,
    /// Replicas of shards that it has.
    replicas: u32,
    dry_run: bool,
}

impl Stood {
    fn text(&self) -> String {
        let Stood { node, standing, .. } = self;
        if self.dry_run {
            return format!("it would be done; node {node} is {standing}");
        }
        let leads = self
            .leads
            .map_or("no answer".to_owned(), |leads| format!("leads {leads} groups"));
        format!("node {node} is {standing}: {leads}, {} replicas", self.replicas)
    }
}

/// Says what to do with a node, and waits until it leads nothing where that is what was asked for. A node that is retired already is as it
/// should be.
async fn stand(
    global: &Global,
    client: &Client,
    node: u64,
    what: Stand,
    break_goal: Option<String>,
    dry_run: bool,
) -> anyhow::Result<Stood> {
    let gone = matches!(what, Stand::Leaving | Stand::Removed);
    let before = stood(client, node, dry_run).await?;
    if gone && before.standing == "retired" {
        return Ok(before);
    }
    let done = client
        .cluster()
        .node_stand(NodeId(node), what, break_goal.as_deref(), dry_run)
        .await;
    done.map_err(guarded)?;
    let deadline = tokio::time::Instant::now() + global.timeout;
    loop {
        let stood = stood(client, node, dry_run).await?;
        let away = matches!(what, Stand::Draining) && stood.leads.is_some_and(|leads| leads > 0);
        if dry_run || !away {
            return Ok(stood);
        }
        if tokio::time::Instant::now() + LOOK >= deadline {
            let left = stood.leads.unwrap_or(0);
            return Err(
                Error::Unavailable(format!("node {node} still leads {left} groups that nobody takes over")).into(),
            );
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits until the node holds nothing and is retired.
async fn retired(global: &Global, client: &Client, node: u64) -> anyhow::Result<Stood> {
    let deadline = tokio::time::Instant::now() + global.timeout;
    loop {
        let stood = stood(client, node, false).await?;
        if stood.standing == "retired" {
            return Ok(stood);
        }
        if tokio::time::Instant::now() + LOOK >= deadline {
            let left = stood.replicas;
            let text = format!(
                "node {node} still has {left} replicas; `malle task list` shows what moves, and the same verb waits on"
            );
            return Err(Error::Unavailable(text).into());
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn stood(client: &Client, node: u64, dry_run: bool) -> anyhow::Result<Stood> {
    let layout = client.cluster().layout().await?;
    let known = layout.nodes.into_iter().find(|known| known.id == NodeId(node));
    let known = known.ok_or_else(|| Error::NotFound(format!("node {node}")))?;
    let leads = match known.standing.as_str() {
        "retired" => None,
        _ => {
            let asked = client
                .with_deadline(SIGN_OF_LIFE)
                .cluster()
                .node_status(NodeId(node), false)
                .await;
            asked
                .ok()
                .map(|status| status.groups.iter().filter(|group| group.role == "leader").count())
        }
    };
    Ok(Stood {
        node,
        standing: known.standing,
        leads,
        replicas: known.replicas,
        dry_run,
    })
}
