//! `malle node`: the machines of a cluster.

use std::time::Duration;

use clap::Subcommand;
use malle_client::{Client, Error, Node, NodeId, Stand, Topology};
use serde::Serialize;

use crate::context::Global;
use crate::exit::{Exit, Refusal, confirmed, guarded};
use crate::layout::Sure;
use crate::output;

/// A node that is up answers within this; then it is not taken for lost.
const SIGN_OF_LIFE: Duration = Duration::from_secs(3);
/// Pause between two looks at a node that is waited for.
const LOOK: Duration = Duration::from_millis(300);

/// `malle node ...`
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Lists every node that the directory knows, retired ones too.
    List,
    /// Tells the directory of a running node. It holds no shard before `malle layout assign` gives it a weight.
    Add {
        /// Its id; an id that was ever used is refused.
        id: u64,
        /// Its region.
        #[arg(long)]
        region: String,
        /// Its zone in the region.
        #[arg(long, default_value = "a")]
        zone: String,
        /// HOST:PORT where clients reach it.
        #[arg(long, value_name = "HOST:PORT")]
        client_address: String,
        /// HOST:PORT where other nodes reach it.
        #[arg(long, value_name = "HOST:PORT")]
        peer_address: String,
    },
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
    /// Puts a new node into the place of a lost one: it learns all its groups, then the lost one is retired. Give it a --timeout
    /// that fits the amount of data.
    Replace {
        /// The lost node.
        lost: u64,
        /// The new node, running, with an id that was never used.
        new: u64,
        /// The new node's region; the lost one's by default.
        #[arg(long)]
        region: Option<String>,
        /// The new node's zone; the lost one's by default.
        #[arg(long)]
        zone: Option<String>,
        /// HOST:PORT where clients reach the new node.
        #[arg(long, value_name = "HOST:PORT")]
        client_address: String,
        /// HOST:PORT where other nodes reach the new node.
        #[arg(long, value_name = "HOST:PORT")]
        peer_address: String,
    },
}

#[derive(Debug, Serialize)]
pub struct List {
    nodes: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    id: u64,
    region: String,
    zone: String,
    state: &'static str,
    client_address: String,
    peer_address: String,
}

#[derive(Debug, Serialize)]
struct Added {
    node: u64,
}

#[derive(Debug, Serialize)]
struct Replaced {
    lost: u64,
    new: u64,
    groups_moved: u32,
}

/// Runs a verb.
///
/// # Errors
/// What the cluster says; [`Refusal`] to replace a node that is alive.
pub async fn run(global: &Global, verb: Verb) -> anyhow::Result<Exit> {
    let client = global.connect().await?;
    match verb {
        Verb::List => {
            let list = list(client.directory().topology().await?);
            output::print(global.output, &list, text)?;
        }
        Verb::Add {
            id,
            region,
            zone,
            client_address,
            peer_address,
        } => {
            let node = Node {
                id: NodeId(id),
                region,
                zone,
                client_address,
                peer_address,
                retired: false,
            };
            client.cluster().node_add(node).await.map_err(guarded)?;
            output::print(global.output, &Added { node: id }, |added| {
                format!("node {} is known", added.node)
            })?;
        }
        Verb::Drain { node, dry_run } => {
            let stood = stand(global, &client, node, Stand::Draining, None, dry_run).await?;
            output::print(global.output, &stood, Stood::text)?;
        }
        Verb::Undrain { node, dry_run } => {
            let stood = stand(global, &client, node, Stand::Active, None, dry_run).await?;
            output::print(global.output, &stood, Stood::text)?;
        }
        Verb::Decommission {
            node,
            break_goal,
            wait,
            sure,
        } => {
            confirmed(sure, "taking a node out moves its data")?;
            let mut stood = stand(global, &client, node, Stand::Leaving, break_goal, sure.dry_run).await?;
            if wait && !sure.dry_run {
                stood = retired(global, &client, node).await?;
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
            let mut stood = stand(global, &client, node, Stand::Removed, break_goal, sure.dry_run).await?;
            if wait && !sure.dry_run {
                stood = retired(global, &client, node).await?;
            }
            output::print(global.output, &stood, Stood::text)?;
        }
        Verb::Replace {
            lost,
            new,
            region,
            zone,
            client_address,
            peer_address,
        } => {
            let known = lost_node(&client, NodeId(lost)).await?;
            let node = Node {
                id: NodeId(new),
                region: region.unwrap_or(known.region),
                zone: zone.unwrap_or(known.zone),
                client_address,
                peer_address,
                retired: false,
            };
            let moved = client.cluster().node_replace(node, known.id).await;
            let groups_moved = moved.map_err(guarded)?;
            let done = Replaced {
                lost,
                new,
                groups_moved,
            };
            output::print(global.output, &done, |done| {
                let Replaced {
                    lost,
                    new,
                    groups_moved,
                } = done;
                format!("node {new} holds the {groups_moved} groups of node {lost}, which is retired")
            })?;
        }
    }
    Ok(Exit::Done)
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

/// What the directory knows of a node that is said to be lost, once it has shown no sign of life.
async fn lost_node(client: &Client, lost: NodeId) -> anyhow::Result<Node> {
    let topology = client.directory().topology().await?;
    let known = topology.nodes.into_iter().find(|node| node.id == lost);
    let known = known.ok_or_else(|| Error::NotFound(format!("node {lost}")))?;
    let cluster = client.with_deadline(SIGN_OF_LIFE).cluster();
    if !known.retired && cluster.node_status(lost, false).await.is_ok() {
        let text = format!("node {lost} is alive: stop it for good first, for its place cannot be taken by two");
        return Err(Refusal(text).into());
    }
    Ok(known)
}

/// Nodes as they are printed.
pub fn list(topology: Topology) -> List {
    let row = |node: Node| Row {
        id: node.id.0,
        region: node.region,
        zone: node.zone,
        state: if node.retired { "retired" } else { "active" },
        client_address: node.client_address,
        peer_address: node.peer_address,
    };
    List {
        nodes: topology.nodes.into_iter().map(row).collect(),
    }
}

/// The same for people.
pub fn text(list: &List) -> String {
    let row = |row: &Row| {
        let id = row.id.to_string();
        let state = row.state.to_owned();
        [
            id,
            row.region.clone(),
            row.zone.clone(),
            state,
            row.client_address.clone(),
            row.peer_address.clone(),
        ]
    };
    output::table(
        ["ID", "REGION", "ZONE", "STATE", "CLIENTS", "PEERS"],
        list.nodes.iter().map(row),
    )
}
