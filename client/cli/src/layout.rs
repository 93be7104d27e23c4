//! `malle layout`: what the cluster is meant to be. Changes are staged, looked at, and applied under the version that was looked at.

use clap::{Args, Subcommand};
use malle_client::{Layout, LayoutChange, LayoutPlan, NodeId, RoleChange};
use serde::Serialize;

use crate::context::Global;
use crate::exit::{Exit, Usage, confirmed, guarded};
use crate::output;

/// `malle layout ...`
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// The layout that holds, how the nodes stand, and what is staged.
    Show,
    /// Stages a change: a node's weight or place, or what shards survive. Nothing moves before it is applied.
    Assign(Assign),
    /// Which replicas would move, how many bytes, and what is refused; with nothing staged, what is still to do.
    Plan {
        /// How fast a replica is copied, in bytes a second, for the time that is told: a disk's pace.
        #[arg(long, value_parser = crate::account::quota, default_value = "64M", value_name = "BYTES")]
        rate: u64,
    },
    /// Makes what is staged the layout. Replicas begin to move at once.
    Apply {
        /// The staged version that was looked at: `layout plan` names it. Refused when somebody staged more since.
        #[arg(long)]
        version: u64,
        /// Apply a layout that breaks this goal all the same: zone or region.
        #[arg(long, value_name = "GOAL", value_parser = ["zone", "region"])]
        break_goal: Option<String>,
        #[command(flatten)]
        sure: Sure,
    },
    /// Forgets what is staged.
    Revert {
        /// Say what would be done, and do nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// The layouts that were applied, by whom and when.
    History,
}

/// For verbs that move data.
#[derive(Debug, Clone, Copy, Args)]
pub struct Sure {
    /// Say whether it would be done, and do nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// It was looked at: do it.
    #[arg(long)]
    pub yes: bool,
}

/// `malle layout assign ...`
#[derive(Debug, Args)]
pub struct Assign {
    /// The nodes that weight, region and zone are for.
    nodes: Vec<u64>,
    /// Their share of the replicas, relative to the others' (1 to 1000); 0 moves away what they hold.
    #[arg(long)]
    weight: Option<u32>,
    /// Where they stand.
    #[arg(long)]
    region: Option<String>,
    /// Where in the region they stand.
    #[arg(long)]
    zone: Option<String>,
    /// What each shard shall survive.
    #[arg(long, value_parser = ["node", "zone", "region"])]
    goal: Option<String>,
    /// Replicas of each shard.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=5))]
    replicas: Option<u32>,
    /// A node that is silent for so long is dead, and its replicas are rebuilt elsewhere: 30s, 10m, or never.
    #[arg(long, value_parser = rebuild_after, value_name = "TIME")]
    rebuild_after: Option<u64>,
    /// Say whether it could be staged, and stage nothing.
    #[arg(long)]
    dry_run: bool,
}

/// `never`, or a time as everywhere, in milliseconds.
fn rebuild_after(text: &str) -> Result<u64, String> {
    if text == "never" {
        return Ok(0);
    }
    let time = crate::context::duration(text)?;
    u64::try_from(time.as_millis()).map_err(|_| "too long".to_owned())
}

impl Assign {
    fn change(self) -> Result<LayoutChange, Usage> {
        let of_nodes = self.weight.is_some() || self.region.is_some() || self.zone.is_some();
        if of_nodes && self.nodes.is_empty() {
            return Err(Usage("--weight, --region and --zone are for nodes: name some".into()));
        }
        if !of_nodes && !self.nodes.is_empty() {
            return Err(Usage(
                "nothing is said of the nodes: give --weight, --region or --zone".into(),
            ));
        }
        let role = |node: u64| RoleChange {
            node: NodeId(node),
            weight: self.weight,
            region: self.region.clone(),
            zone: self.zone.clone(),
        };
        Ok(LayoutChange {
            roles: self.nodes.iter().copied().map(role).collect(),
            goal: self.goal.clone(),
            replicas: self.replicas,
            rebuild_after_ms: self.rebuild_after,
        })
    }
}

/// Runs a verb.
///
/// # Errors
/// What the cluster says; [`Usage`] for a change that is not confirmed.
pub async fn run(global: &Global, verb: Verb) -> anyhow::Result<Exit> {
    match verb {
        Verb::Show => {
            let layout = global.connect().await?.cluster().layout().await?;
            output::print(global.output, &shown(layout), text)?;
        }
        Verb::Assign(assign) => {
            let dry_run = assign.dry_run;
            let change = assign.change()?;
            let cluster = global.connect().await?.cluster();
            let layout = cluster.layout_stage(change, dry_run).await.map_err(guarded)?;
            let version = layout.staged.as_ref().map(|(version, _)| *version);
            output::print(global.output, &shown(layout), text)?;
            match version {
                _ if dry_run => anstream::eprintln!("It could be staged; nothing was."),
                Some(version) => anstream::eprintln!(
                    "Next: `malle layout plan`, then `malle layout apply --version {version} --yes` or `malle layout revert`."
                ),
                None => {}
            }
        }
        Verb::Plan { rate } => {
            let plan = global.connect().await?.cluster().layout_plan().await?;
            let refused = plan.refused.is_some();
            output::print(global.output, &planned(plan, rate), plan_text)?;
            return Ok(if refused { Exit::Refused } else { Exit::Done });
        }
        Verb::Apply {
            version,
            break_goal,
            sure,
        } => {
            confirmed(sure, "applying a layout moves data")?;
            let cluster = global.connect().await?.cluster();
            let applied = cluster.layout_apply(version, break_goal.as_deref(), sure.dry_run).await;
            output::print(global.output, &shown(applied.map_err(guarded)?), text)?;
            anstream::eprintln!(
                "{}",
                if sure.dry_run {
                    "It would be applied; nothing was."
                } else {
                    "Replicas move from now on: `malle task list` shows them."
                }
            );
        }
        Verb::Revert { dry_run } => {
            let cluster = global.connect().await?.cluster();
            let layout = cluster.layout_revert(dry_run).await.map_err(guarded)?;
            output::print(global.output, &shown(layout), text)?;
        }
        Verb::History => {
            let layout = global.connect().await?.cluster().layout().await?;
            output::print(global.output, &history(layout), history_text)?;
        }
    }
    Ok(Exit::Done)
}

/// A layout as it is printed.
#[derive(Debug, Serialize)]
pub struct Shown {
    version: u64,
    goal: String,
    replicas: u32,
    /// 0: never.
    rebuild_after_ms: u64,
    staged: Option<Staged>,
    nodes: Vec<NodeRow>,
}

#[derive(Debug, Serialize)]
struct Staged {
    version: u64,
    changes: Vec<String>,
}

#[derive(Debug, Serialize)]
struct NodeRow {
    id: u64,
    region: String,
    zone: String,
    weight: u32,
    standing: String,
    silent_since_ms: Option<u64>,
    replicas: u32,
}

/// A change, a sentence for each thing that it changes.
pub fn sentences(change: &LayoutChange) -> Vec<String> {
    let mut all = Vec::new();
    if let Some(goal) = &change.goal {
        all.push(format!("shards survive a {goal}"));
    }
    if let Some(replicas) = change.replicas {
        all.push(format!("shards have {replicas} replicas"));
    }
    if let Some(after_ms) = change.rebuild_after_ms {
        all.push(format!("a dead node's replicas are rebuilt {}", after(after_ms)));
    }
    for role in &change.roles {
        let weight = role.weight.map(|weight| format!("weight {weight}"));
        let region = role.region.as_ref().map(|region| format!("region {region}"));
        let zone = role.zone.as_ref().map(|zone| format!("zone {zone}"));
        let parts: Vec<String> = [weight, region, zone].into_iter().flatten().collect();
        all.push(format!("node {}: {}", role.node, parts.join(", ")));
    }
    all
}

fn after(ms: u64) -> String {
    match ms {
        0 => "never by themselves".to_owned(),
        ms => format!("after {}", output::span(ms)),
    }
}

/// A layout as it is printed.
pub fn shown(layout: Layout) -> Shown {
    Shown {
        version: layout.version,
        goal: layout.goal,
        replicas: layout.replicas,
        rebuild_after_ms: layout.rebuild_after_ms,
        staged: layout.staged.map(|(version, change)| Staged {
            version,
            changes: sentences(&change),
        }),
        nodes: layout
            .nodes
            .into_iter()
            .map(|node| NodeRow {
                id: node.id.0,
                region: node.region,
                zone: node.zone,
                weight: node.weight,
                standing: node.standing,
                silent_since_ms: node.silent_since_ms,
                replicas: node.replicas,
            })
            .collect(),
    }
}

/// The same for people.
pub fn text(shown: &Shown) -> String {
    let version = match shown.version {
        0 => "0 (nobody applied one yet)".to_owned(),
        version => version.to_string(),
    };
    let mut text = output::pairs([
        ("version", version),
        ("shards survive a", shown.goal.clone()),
        ("replicas", shown.replicas.to_string()),
        ("dead nodes are replaced", after(shown.rebuild_after_ms)),
    ]);
    if let Some(staged) = &shown.staged {
        text.push_str(&format!("\nstaged, not applied: version {}\n", staged.version));
        for change in &staged.changes {
            text.push_str(&format!("  - {change}\n"));
        }
    }
    text.push('\n');
    let row = |row: &NodeRow| {
        let silent = row
            .silent_since_ms
            .map_or("-".to_owned(), |since| format!("since {}", output::time(since)));
        [
            row.id.to_string(),
            row.region.clone(),
            row.zone.clone(),
            row.weight.to_string(),
            row.replicas.to_string(),
            row.standing.clone(),
            silent,
        ]
    };
    let header = ["NODE", "REGION", "ZONE", "WEIGHT", "REPLICAS", "STANDING", "SILENT"];
    text.push_str(&output::table(header, shown.nodes.iter().map(row)));
    text
}

/// A plan as it is printed.
#[derive(Debug, Serialize)]
pub struct Planned {
    version: u64,
    moves: Vec<MoveRow>,
    bytes: u64,
    /// At the rate that was asked for.
    takes_ms: u64,
    problems: Vec<String>,
    refused: Option<String>,
}

#[derive(Debug, Serialize)]
struct MoveRow {
    shard: u32,
    leave: Option<u64>,
    join: Option<u64>,
    bytes: u64,
    reason: String,
}

/// A plan as it is printed, with the time that it takes when each of the moves that are made at once copies `rate` bytes a second.
pub fn planned(plan: LayoutPlan, rate: u64) -> Planned {
    let bytes = plan.moves.iter().fold(0u64, |sum, one| sum.saturating_add(one.bytes));
    let pace = u128::from(rate.max(1)) * u128::from(plan.at_once.max(1));
    Planned {
        version: plan.version,
        bytes,
        takes_ms: u64::try_from(u128::from(bytes) * 1000 / pace).unwrap_or(u64::MAX),
        problems: plan.problems,
        refused: plan.refused,
        moves: plan
            .moves
            .into_iter()
            .map(|one| MoveRow {
                shard: one.shard.0,
                leave: one.leave.map(|node| node.0),
                join: one.join.map(|node| node.0),
                bytes: one.bytes,
                reason: one.reason,
            })
            .collect(),
    }
}

fn why(reason: &str) -> &'static str {
    match reason {
        "dead" => "its node is dead",
        "leaving" => "its node leaves",
        "count" => "too few or too many replicas",
        "goal" => "the goal is not met",
        "spread" => "further apart",
        _ => "evenly by weight",
    }
}

/// The same for people.
pub fn plan_text(plan: &Planned) -> String {
    let mut text = match plan.moves.len() {
        0 => format!("version {}: nothing moves\n", plan.version),
        moves => format!(
            "version {}: {moves} replicas move, {}, about {}\n",
            plan.version,
            output::size(plan.bytes),
            output::span(plan.takes_ms)
        ),
    };
    if let Some(refused) = &plan.refused {
        text.push_str(&format!("\x1b[31mit would be refused\x1b[0m: {refused}\n"));
    }
    for problem in &plan.problems {
        text.push_str(&format!("  - {problem}\n"));
    }
    if plan.moves.is_empty() {
        return text;
    }
    if plan.moves.iter().any(|one| one.leave.is_some() && one.join.is_some()) {
        text.push_str("While a replica is copied the old one serves: no shard has fewer replicas than before.\n");
    }
    text.push('\n');
    let node = |node: Option<u64>| node.map_or("-".to_owned(), |node| node.to_string());
    let row = |one: &MoveRow| {
        [
            one.shard.to_string(),
            node(one.leave),
            node(one.join),
            output::size(one.bytes),
            why(&one.reason).to_owned(),
        ]
    };
    text.push_str(&output::table(
        ["SHARD", "FROM", "TO", "BYTES", "BECAUSE"],
        plan.moves.iter().map(row),
    ));
    text
}

#[derive(Debug, Serialize)]
struct History {
    layouts: Vec<AppliedRow>,
}

#[derive(Debug, Serialize)]
struct AppliedRow {
    version: u64,
    time_ms: u64,
    by: String,
    changes: Vec<String>,
}

fn history(layout: Layout) -> History {
    let row = |applied: malle_client::AppliedLayout| AppliedRow {
        version: applied.version,
        time_ms: applied.time_ms,
        by: applied.by,
        changes: sentences(&applied.change),
    };
    History {
        layouts: layout.history.into_iter().map(row).collect(),
    }
}

fn history_text(history: &History) -> String {
    let row = |row: &AppliedRow| {
        [
            row.version.to_string(),
            output::time(row.time_ms),
            row.by.clone(),
            row.changes.join("; "),
        ]
    };
    output::table(["VERSION", "APPLIED", "BY", "CHANGES"], history.layouts.iter().map(row))
}
