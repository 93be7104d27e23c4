//! `malle cluster`.

use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, Subcommand};
use malle_client::{Client, InitPlan, Node, NodeId};
use serde::Serialize;

use crate::exit;
use crate::node::parse_node;
use crate::output::{self, Format};
use crate::shard::{Replicas, look_at_shards};

#[derive(Debug, Args)]
pub struct Init {
    /// Name of the cluster: the trust domain of its certificates.
    #[arg(long, default_value = "malle.demo")]
    name: String,
    /// A first node: ID,REGION,ZONE,CLIENT_HOST:PORT,PEER_HOST:PORT. Once for each.
    #[arg(long = "node", value_parser = parse_node, required = true, value_name = "NODE")]
    nodes: Vec<Node>,
    /// Raft groups that the accounts are spread over; cannot be changed yet.
    #[arg(long, default_value_t = 8)]
    shards: u32,
    /// Copies of each.
    #[arg(long, default_value_t = 3)]
    replicas: u32,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Makes the cluster, once in its life.
    Init(Init),
    /// Nodes, groups, leaders, and whether the replicas agree. Exits 4 when something is missing.
    Status,
}

#[derive(Debug, Serialize)]
struct NodeLine {
    id: u64,
    region: String,
    up: bool,
    version: String,
    uptime_ms: u64,
    groups: usize,
    leads: usize,
    bodies: u64,
    body_bytes: u64,
    disk_free_bytes: u64,
    failed: Option<String>,
}

#[derive(Debug, Serialize)]
struct Status {
    cluster: String,
    healthy: bool,
    nodes: Vec<NodeLine>,
    shards: Vec<Replicas>,
}

/// Carries the verb out.
///
/// # Errors
/// What the cluster says.
pub async fn run(verb: Verb, client: &Client, format: Format) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Init(init) => {
            if init.nodes.len() < init.replicas as usize {
                bail!(
                    "{} replicas need as many nodes; {} are given",
                    init.replicas,
                    init.nodes.len()
                );
            }
            let plan = InitPlan {
                cluster_name: init.name,
                nodes: init.nodes,
                shards: init.shards,
                replicas: init.replicas,
            };
            let cluster = client.cluster().init(plan).await?;
            eprintln!("the cluster is made; its id is {cluster}");
            Ok(ExitCode::SUCCESS)
        }
        Verb::Status => {
            let status = look(client).await?;
            output::print(format, &status, table)?;
            Ok(if status.healthy {
                ExitCode::SUCCESS
            } else {
                ExitCode::from(exit::DEGRADED)
            })
        }
    }
}

async fn look(client: &Client) -> anyhow::Result<Status> {
    let topology = client.directory().topology().await?;
    let (statuses, shards) = look_at_shards(client, &topology).await;
    let nodes: Vec<NodeLine> = topology
        .nodes
        .iter()
        .filter(|node| !node.retired)
        .map(|node| match statuses.iter().find(|status| status.node == node.id) {
            Some(status) => NodeLine {
                id: node.id.0,
                region: node.region.clone(),
                up: true,
                version: status.version.clone(),
                uptime_ms: status.uptime_ms,
                groups: status.groups.len(),
                leads: status.groups.iter().filter(|group| group.role == "leader").count(),
                bodies: status.bodies,
                body_bytes: status.body_bytes,
                disk_free_bytes: status.disk_free_bytes,
                failed: status.failed.clone(),
            },
            None => down(node.id, &node.region),
        })
        .collect();
    let healthy = nodes.iter().all(|node| node.up && node.failed.is_none()) && shards.iter().all(|shard| shard.healthy);
    Ok(Status {
        cluster: topology.cluster_name,
        healthy,
        nodes,
        shards,
    })
}

fn down(id: NodeId, region: &str) -> NodeLine {
    NodeLine {
        id: id.0,
        region: region.to_owned(),
        up: false,
        version: String::new(),
        uptime_ms: 0,
        groups: 0,
        leads: 0,
        bodies: 0,
        body_bytes: 0,
        disk_free_bytes: 0,
        failed: None,
    }
}

fn summary(status: &Status) -> String {
    let up = status.nodes.iter().filter(|node| node.up).count();
    let led = status.shards.iter().filter(|shard| shard.leader.is_some()).count();
    let agree = status.shards.iter().filter(|shard| shard.healthy).count();
    format!(
        "{}: {}, {up} of {} nodes up, {led} of {} groups have a leader, {agree} are whole\n\n",
        status.cluster,
        if status.healthy { "healthy" } else { "DEGRADED" },
        status.nodes.len(),
        status.shards.len(),
    )
}

fn table(status: &Status) -> String {
    let nodes = output::table(
        [
            "NODE",
            "REGION",
            "STATE",
            "GROUPS",
            "LEADS",
            "BODIES",
            "STORED",
            "DISK FREE",
            "UP FOR",
        ],
        status.nodes.iter().map(|node| {
            let state = match (&node.failed, node.up) {
                (Some(reason), _) => format!("failed: {reason}"),
                (None, true) => "up".to_owned(),
                (None, false) => "down".to_owned(),
            };
            [
                node.id.to_string(),
                node.region.clone(),
                state,
                node.groups.to_string(),
                node.leads.to_string(),
                node.bodies.to_string(),
                output::bytes(node.body_bytes),
                output::bytes(node.disk_free_bytes),
                output::duration_ms(node.uptime_ms),
            ]
        }),
    );
    summary(status) + &nodes + "\n" + &crate::shard::table(&status.shards)
}

#[cfg(test)]
mod tests {
    use super::{Status, down, table};
    use malle_client::NodeId;

    #[test]
    fn a_dead_node_is_the_first_thing_said() {
        let mut up = down(NodeId(1), "nord");
        up.up = true;
        let status = Status {
            cluster: "malle.demo".into(),
            healthy: false,
            nodes: vec![up, down(NodeId(2), "centre")],
            shards: vec![],
        };
        let text = table(&status);
        assert!(
            text.starts_with("malle.demo: DEGRADED, 1 of 2 nodes up, 0 of 0 groups have a leader"),
            "{text}"
        );
        assert!(
            text.lines()
                .any(|line| line.contains("centre") && line.contains("down")),
            "{text}"
        );
    }
}
