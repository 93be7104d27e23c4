//! `malle cluster`: make a cluster, and look at it as a whole.

use std::time::Duration;

use anyhow::Context as _;
use clap::Subcommand;
use malle_client::{Client, InitPlan, Node, NodeId, NodeStatus};
use serde::Serialize;
use tokio::task::JoinSet;

use crate::context::Global;
use crate::exit::{Exit, guarded};
use crate::{output, status};

/// A node that has not said how it is by then does not count as there.
const NODE_ANSWERS: Duration = Duration::from_secs(5);

/// `malle cluster ...`
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Makes a cluster of running nodes that belong to none. Once in its life.
    Init {
        /// The cluster's name, as in its certificates.
        #[arg(long)]
        name: String,
        /// One of its nodes: id=1,region=nord,zone=a,client=HOST:PORT,peer=HOST:PORT; repeat it for each. The zone is `a` by default.
        #[arg(long = "node", required = true, value_parser = node)]
        nodes: Vec<Node>,
        /// How many shards hold the accounts. It cannot be changed later.
        #[arg(long, default_value_t = 8)]
        shards: u32,
        /// Replicas of each shard.
        #[arg(long, default_value_t = 3)]
        replicas: u32,
    },
    /// Asks every node how it is. The first line says whether all is well, and so does the exit code (4: degraded).
    Status {
        /// Do not compare digests of the replicas, which costs each node a flush of its views.
        #[arg(long)]
        no_digests: bool,
    },
}

#[derive(Debug, Serialize)]
struct Made {
    cluster: String,
    name: String,
    nodes: usize,
    shards: u32,
    replicas: u32,
}

/// Runs a verb.
///
/// # Errors
/// What the cluster says.
pub async fn run(global: &Global, verb: Verb) -> anyhow::Result<Exit> {
    let client = global.connect().await?;
    match verb {
        Verb::Init {
            name,
            nodes,
            shards,
            replicas,
        } => {
            let plan = InitPlan {
                cluster_name: name.clone(),
                nodes: nodes.clone(),
                shards,
                replicas,
            };
            let cluster = client.cluster().init(plan).await.map_err(guarded)?;
            let made = Made {
                cluster: cluster.to_string(),
                name,
                nodes: nodes.len(),
                shards,
                replicas,
            };
            output::print(global.output, &made, |made| {
                format!(
                    "cluster {} ({}) has {} nodes and {} shards",
                    made.name, made.cluster, made.nodes, made.shards
                )
            })?;
            anstream::eprintln!("Next: `malle cluster status`, then `malle account create ADDRESS`.");
            Ok(Exit::Done)
        }
        Verb::Status { no_digests } => {
            let topology = client.directory().topology().await?;
            let nodes: Vec<NodeId> = topology
                .nodes
                .iter()
                .filter(|node| !node.retired)
                .map(|node| node.id)
                .collect();
            let answers = ask_all(
                &client.with_deadline(NODE_ANSWERS.min(global.timeout)),
                &nodes,
                !no_digests,
            )
            .await?;
            let report = status::report(&topology, answers);
            // Without a leader of the directory the rest is told all the same: the report says that there is none.
            let asked = client.with_deadline(NODE_ANSWERS.min(global.timeout)).cluster();
            let report = match tokio::join!(asked.layout(), asked.tasks()) {
                (Ok(layout), Ok(tasks)) => report.with_growth(&layout, tasks),
                _ => report,
            };
            output::print(global.output, &report, status::text)?;
            Ok(if report.healthy { Exit::Done } else { Exit::Degraded })
        }
    }
}

/// Every node's answer, or why there is none.
async fn ask_all(
    client: &Client,
    nodes: &[NodeId],
    digests: bool,
) -> anyhow::Result<Vec<(NodeId, Result<NodeStatus, String>)>> {
    let mut asked = JoinSet::new();
    for node in nodes.iter().copied() {
        let cluster = client.cluster();
        asked.spawn(async move {
            (
                node,
                cluster
                    .node_status(node, digests)
                    .await
                    .map_err(|error| error.to_string()),
            )
        });
    }
    let mut answers = Vec::new();
    while let Some(answer) = asked.join_next().await {
        answers.push(answer.context("asking a node")?);
    }
    answers.sort_by_key(|(node, _)| *node);
    Ok(answers)
}

/// `id=1,region=nord,zone=a,client=HOST:PORT,peer=HOST:PORT`
fn node(text: &str) -> Result<Node, String> {
    let mut node = Node {
        id: NodeId(0),
        region: String::new(),
        zone: "a".to_owned(),
        client_address: String::new(),
        peer_address: String::new(),
        retired: false,
    };
    for part in text.split(',') {
        let (key, value) = part
            .split_once('=')
            .ok_or_else(|| format!("{part:?} is not KEY=VALUE"))?;
        match key {
            "id" => node.id = value.parse().map_err(|_| format!("{value:?} is no node id"))?,
            "region" => node.region = value.to_owned(),
            "zone" => node.zone = value.to_owned(),
            "client" => node.client_address = value.to_owned(),
            "peer" => node.peer_address = value.to_owned(),
            _ => {
                return Err(format!(
                    "unknown key {key:?}; known are id, region, zone, client and peer"
                ));
            }
        }
    }
    let lacks = |missing: bool, key: &str| {
        if missing {
            Err(format!("{key}= is missing"))
        } else {
            Ok(())
        }
    };
    lacks(node.id.0 == 0, "id")?;
    lacks(node.region.is_empty(), "region")?;
    lacks(node.client_address.is_empty(), "client")?;
    lacks(node.peer_address.is_empty(), "peer")?;
    Ok(node)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_written_as_keys_and_values() {
        let made = node("id=2,region=sud,client=n2:7420,peer=n2:7421").unwrap();
        assert_eq!(
            (made.id, made.zone.as_str(), made.client_address.as_str()),
            (NodeId(2), "a", "n2:7420")
        );
        for (bad, word) in [
            ("region=sud", "id="),
            ("id=0,region=a", "id="),
            ("id=1,colour=red", "colour"),
            ("nord", "KEY"),
        ] {
            assert!(node(bad).unwrap_err().contains(word), "{bad}");
        }
    }
}
