//! `malle shard`.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use malle_client::{Client, GroupStatus, NodeId, NodeStatus, ShardId, Topology};
use serde::Serialize;

use crate::output::{self, Format};

/// A node that does not answer its status in this time counts as down.
const STATUS: Duration = Duration::from_secs(5);

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Every group: its leader, how far its replicas are, and whether they agree.
    List,
    /// Hands the lead of a group to another of its replicas.
    Lead {
        /// The group.
        shard: u32,
        /// To which node.
        #[arg(long)]
        to: u64,
    },
    /// Makes a checkpoint of a group now and purges the log behind it.
    Checkpoint {
        /// The group.
        shard: u32,
        /// On this node; on its leader by default.
        #[arg(long)]
        node: Option<u64>,
    },
}

/// A group as its replicas see it.
#[derive(Debug, Serialize)]
pub struct Replicas {
    /// The group; 0 is the directory.
    pub shard: u32,
    /// Its home region.
    pub home_region: String,
    /// Who leads, as most say.
    pub leader: Option<u64>,
    /// Accounts in it.
    pub accounts: u64,
    /// Every replica answers, and those at the same applied index have the same digest.
    pub healthy: bool,
    /// Its replicas.
    pub replicas: Vec<Replica>,
}

/// One replica.
#[derive(Debug, Serialize)]
pub struct Replica {
    /// Its node.
    pub node: u64,
    /// Its role, `down` when the node does not answer.
    pub role: String,
    /// How far it has applied.
    pub applied: u64,
    /// Entries that the furthest replica has and it has not.
    pub behind: u64,
    /// Index through which its bodies are complete.
    pub bodies_complete_through: u64,
    /// Digest of its rows, hexadecimal.
    pub digest: String,
}

#[derive(Debug, Serialize)]
struct List {
    shards: Vec<Replicas>,
}

/// Asks every node what it has.
pub async fn look_at_shards(client: &Client, topology: &Topology) -> (Vec<NodeStatus>, Vec<Replicas>) {
    let mut statuses = Vec::new();
    for node in topology.nodes.iter().filter(|node| !node.retired) {
        // A node that does not answer is part of the picture, not an error of it.
        if let Ok(status) = client.with_deadline(STATUS).cluster().node_status(node.id, true).await {
            statuses.push(status);
        }
    }
    let directory: Vec<NodeId> = topology
        .nodes
        .iter()
        .filter(|node| !node.retired)
        .map(|node| node.id)
        .collect();
    let mut shards = vec![replicas(ShardId(0), "-", 0, &directory, &statuses)];
    for shard in &topology.shards {
        shards.push(replicas(
            shard.id,
            &shard.home_region,
            shard.accounts,
            &shard.replicas,
            &statuses,
        ));
    }
    (statuses, shards)
}

fn replicas(shard: ShardId, home: &str, accounts: u64, nodes: &[NodeId], statuses: &[NodeStatus]) -> Replicas {
    let found: Vec<(NodeId, Option<&GroupStatus>)> = nodes
        .iter()
        .map(|node| {
            let status = statuses.iter().find(|status| status.node == *node);
            (
                *node,
                status.and_then(|status| status.groups.iter().find(|group| group.shard == shard)),
            )
        })
        .collect();
    let furthest = found
        .iter()
        .filter_map(|(_, group)| group.map(|group| group.applied_index))
        .max()
        .unwrap_or(0);
    let leader = found
        .iter()
        .find(|(_, group)| group.is_some_and(|group| group.role == "leader"));
    let works = |role: &str| matches!(role, "leader" | "follower" | "learner");
    let alive = found
        .iter()
        .all(|(_, group)| group.is_some_and(|group| works(&group.role)));
    let digests: BTreeSet<(u64, Option<[u8; 16]>)> = found
        .iter()
        .filter_map(|(_, group)| group.map(|group| (group.applied_index, group.digest)))
        .collect();
    let indexes: BTreeSet<u64> = digests.iter().map(|(index, _)| *index).collect();
    Replicas {
        shard: shard.0,
        home_region: home.to_owned(),
        leader: leader.map(|(node, _)| node.0),
        accounts,
        healthy: alive && leader.is_some() && indexes.len() == digests.len(),
        replicas: found
            .iter()
            .map(|(node, group)| match group {
                Some(group) => Replica {
                    node: node.0,
                    role: group.role.clone(),
                    applied: group.applied_index,
                    behind: furthest.saturating_sub(group.applied_index),
                    bodies_complete_through: group.bodies_complete_through,
                    digest: group.digest.map(hexadecimal).unwrap_or_default(),
                },
                None => Replica {
                    node: node.0,
                    role: "down".into(),
                    applied: 0,
                    behind: furthest,
                    bodies_complete_through: 0,
                    digest: String::new(),
                },
            })
            .collect(),
    }
}

fn hexadecimal(bytes: [u8; 16]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Groups as a table.
pub fn table(shards: &[Replicas]) -> String {
    output::table(
        [
            "SHARD",
            "HOME",
            "LEADER",
            "ACCOUNTS",
            "REPLICAS (NODE:ROLE)",
            "APPLIED",
            "BEHIND",
            "AGREE",
        ],
        shards.iter().map(|shard| {
            let replicas: Vec<String> = shard
                .replicas
                .iter()
                .map(|replica| format!("{}:{}", replica.node, replica.role))
                .collect();
            let behind: Vec<String> = shard
                .replicas
                .iter()
                .map(|replica| replica.behind.to_string())
                .collect();
            [
                if shard.shard == 0 {
                    "directory".to_owned()
                } else {
                    shard.shard.to_string()
                },
                shard.home_region.clone(),
                shard.leader.map_or("none".to_owned(), |leader| leader.to_string()),
                shard.accounts.to_string(),
                replicas.join(" "),
                shard
                    .replicas
                    .iter()
                    .map(|replica| replica.applied)
                    .max()
                    .unwrap_or(0)
                    .to_string(),
                behind.join(" "),
                if shard.healthy { "yes" } else { "NO" }.to_owned(),
            ]
        }),
    )
}

/// Carries the verb out.
///
/// # Errors
/// What the cluster says.
pub async fn run(verb: Verb, client: &Client, format: Format) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::List => {
            let topology = client.directory().topology().await?;
            let (_, shards) = look_at_shards(client, &topology).await;
            output::print(format, &List { shards }, |list| table(&list.shards))?;
        }
        Verb::Lead { shard, to } => {
            client.cluster().leader_move(ShardId(shard), NodeId(to)).await?;
            eprintln!("shard {shard} is handed to node {to}");
        }
        Verb::Checkpoint { shard, node } => {
            let index = client.cluster().checkpoint(ShardId(shard), node.map(NodeId)).await?;
            eprintln!("shard {shard} has a checkpoint at index {index}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::{replicas, table};
    use malle_client::{GroupStatus, NodeId, NodeStatus, ShardId};

    fn status(node: u64, role: &str, applied_index: u64, digest: u8) -> NodeStatus {
        NodeStatus {
            node: NodeId(node),
            region: "nord".into(),
            version: "0".into(),
            uptime_ms: 0,
            groups: vec![GroupStatus {
                shard: ShardId(1),
                role: role.into(),
                term: 1,
                leader: Some(NodeId(1)),
                last_log_index: applied_index,
                committed_index: applied_index,
                applied_index,
                checkpoint_index: 0,
                bodies_complete_through: applied_index,
                digest: Some([digest; 16]),
                voters: vec![],
                learners: vec![],
                rebuilds: 0,
                rows: 0,
                accounts: 0,
            }],
            failed: None,
            disk_free_bytes: 0,
            disk_total_bytes: 0,
            bodies: 0,
            body_bytes: 0,
        }
    }

    #[test]
    fn replicas_disagree_only_at_the_same_index() {
        let nodes = [NodeId(1), NodeId(2)];
        let look = |second| replicas(ShardId(1), "nord", 3, &nodes, &[status(1, "leader", 9, 7), second]);
        assert!(look(status(2, "follower", 9, 7)).healthy);
        assert!(look(status(2, "follower", 8, 6)).healthy, "behind is not wrong");
        assert!(
            !look(status(2, "follower", 9, 6)).healthy,
            "another digest at the same index is"
        );
        let lonely = replicas(ShardId(1), "nord", 3, &nodes, &[status(1, "leader", 9, 7)]);
        assert!(!lonely.healthy);
        assert!(table(&[lonely]).contains("1:leader 2:down"));
    }
}
