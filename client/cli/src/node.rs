//! `malle node`: the machines of a cluster.

use std::time::Duration;

use clap::Subcommand;
use malle_client::{Client, Error, Node, NodeId, Topology};
use serde::Serialize;

use crate::context::Global;
use crate::exit::{Exit, Refusal, guarded};
use crate::{output, standing};

/// A node that is up answers within this; then it is not taken for lost.
const SIGN_OF_LIFE: Duration = Duration::from_secs(3);

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
    /// What is done with a node.
    #[command(flatten)]
    Standing(standing::Verb),
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
        Verb::Standing(verb) => standing::run(global, &client, verb).await?,
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
