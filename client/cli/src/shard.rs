//! `malle shard`: the raft groups that hold accounts. Shard 0 is the directory itself.

use clap::Subcommand;
use malle_client::{NodeId, Shard, ShardId, Topology};
use serde::Serialize;

use crate::context::Global;
use crate::exit::{Exit, guarded};
use crate::output;

/// `malle shard ...`
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Lists the shards.
    List,
    /// Who leads a shard.
    #[command(subcommand)]
    Leader(Leader),
    /// Makes a checkpoint of a shard now, and purges its log behind it.
    Checkpoint {
        /// Which.
        shard: u32,
        /// On this node; on its leader by default.
        #[arg(long)]
        node: Option<u64>,
    },
}

/// `malle shard leader ...`
#[derive(Debug, Subcommand)]
pub enum Leader {
    /// Makes another replica the leader.
    Move {
        /// Which shard.
        shard: u32,
        /// The node that shall lead it.
        to: u64,
    },
}

#[derive(Debug, Serialize)]
pub struct List {
    shards: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    id: u32,
    home_region: String,
    leader: Option<u64>,
    replicas: Vec<u64>,
    accounts: u64,
    epoch: u64,
}

#[derive(Debug, Serialize)]
struct Moved {
    shard: u32,
    leader: u64,
}

#[derive(Debug, Serialize)]
struct Checkpoint {
    shard: u32,
    index: u64,
}

/// Runs a verb.
///
/// # Errors
/// What the cluster says.
pub async fn run(global: &Global, verb: Verb) -> anyhow::Result<Exit> {
    let client = global.connect().await?;
    match verb {
        Verb::List => {
            let list = list(client.directory().topology().await?);
            output::print(global.output, &list, text)?;
        }
        Verb::Leader(Leader::Move { shard, to }) => {
            client
                .cluster()
                .leader_move(ShardId(shard), NodeId(to))
                .await
                .map_err(guarded)?;
            let moved = Moved { shard, leader: to };
            output::print(global.output, &moved, |moved| {
                format!("node {} leads shard {}", moved.leader, moved.shard)
            })?;
        }
        Verb::Checkpoint { shard, node } => {
            let made = client.cluster().checkpoint(ShardId(shard), node.map(NodeId)).await;
            let made = Checkpoint {
                shard,
                index: made.map_err(guarded)?,
            };
            output::print(global.output, &made, |made| {
                format!("shard {} has a checkpoint at {}", made.shard, made.index)
            })?;
        }
    }
    Ok(Exit::Done)
}

/// Shards as they are printed.
pub fn list(topology: Topology) -> List {
    let row = |shard: Shard| Row {
        id: shard.id.0,
        home_region: shard.home_region,
        leader: shard.leader.map(|leader| leader.0),
        replicas: shard.replicas.into_iter().map(|node| node.0).collect(),
        accounts: shard.accounts,
        epoch: shard.epoch,
    };
    List {
        shards: topology.shards.into_iter().map(row).collect(),
    }
}

/// The same for people.
pub fn text(list: &List) -> String {
    let row = |row: &Row| {
        let leader = row.leader.map_or("?".to_owned(), |leader| leader.to_string());
        let replicas = numbers(&row.replicas);
        [
            row.id.to_string(),
            row.home_region.clone(),
            leader,
            replicas,
            row.accounts.to_string(),
        ]
    };
    output::table(
        ["SHARD", "HOME", "LEADER", "REPLICAS", "ACCOUNTS"],
        list.shards.iter().map(row),
    )
}

/// `1,2,3`
pub fn numbers(numbers: &[u64]) -> String {
    numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(",")
}
