//! `malle node`.

use std::process::ExitCode;

use anyhow::bail;
use clap::Subcommand;
use malle_client::{Client, Node, NodeId};
use serde::Serialize;

use crate::output::{self, Format};

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Every node that the directory knows.
    List,
    /// Makes a node known; it holds no shard yet.
    Add {
        /// ID,REGION,ZONE,CLIENT_HOST:PORT,PEER_HOST:PORT
        #[arg(value_parser = parse_node)]
        node: Node,
    },
    /// Gives every replica of a lost node to another and retires the lost one. May be run again to go on.
    Replace {
        /// The node whose disk is gone; its id never comes back.
        lost: u64,
        /// The new one, already running: ID,REGION,ZONE,CLIENT_HOST:PORT,PEER_HOST:PORT
        #[arg(value_parser = parse_node)]
        with: Node,
    },
}

/// Reads `ID,REGION,ZONE,CLIENT,PEER`.
///
/// # Errors
/// What is missing.
pub fn parse_node(text: &str) -> Result<Node, String> {
    let parts: Vec<&str> = text.split(',').collect();
    let &[id, region, zone, client, peer] = &parts[..] else {
        return Err("five parts: ID,REGION,ZONE,CLIENT_HOST:PORT,PEER_HOST:PORT".into());
    };
    let id: u64 = id.parse().map_err(|_| format!("{id:?} is no node id"))?;
    for address in [client, peer] {
        if !address
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
        {
            return Err(format!("{address:?} is not HOST:PORT"));
        }
    }
    if id == 0 || region.is_empty() || zone.is_empty() {
        return Err("an id from 1, a region and a zone".into());
    }
    Ok(Node {
        id: NodeId(id),
        region: region.into(),
        zone: zone.into(),
        client_address: client.into(),
        peer_address: peer.into(),
        retired: false,
    })
}

#[derive(Debug, Serialize)]
struct Line {
    id: u64,
    region: String,
    zone: String,
    client_address: String,
    peer_address: String,
    retired: bool,
}

#[derive(Debug, Serialize)]
struct List {
    nodes: Vec<Line>,
}

/// Carries the verb out.
///
/// # Errors
/// What the cluster says.
pub async fn run(verb: Verb, client: &Client, format: Format) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::List => {
            let topology = client.directory().topology().await?;
            let nodes = topology
                .nodes
                .into_iter()
                .map(|node| Line {
                    id: node.id.0,
                    region: node.region,
                    zone: node.zone,
                    client_address: node.client_address,
                    peer_address: node.peer_address,
                    retired: node.retired,
                })
                .collect();
            output::print(format, &List { nodes }, table)?;
        }
        Verb::Add { node } => {
            let id = node.id;
            client.cluster().node_add(node).await?;
            eprintln!("node {id} is known now and follows the directory");
        }
        Verb::Replace { lost, with } => {
            let (id, lost) = (with.id, NodeId(lost));
            if id == lost {
                bail!("a lost node comes back under a new id: its old log may lack what it acknowledged");
            }
            let moved = client.cluster().node_replace(with, lost).await?;
            eprintln!("node {id} has taken {moved} groups over from node {lost}, which is retired");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn table(list: &List) -> String {
    output::table(
        ["NODE", "REGION", "ZONE", "STATE", "CLIENTS", "PEERS"],
        list.nodes.iter().map(|node| {
            [
                node.id.to_string(),
                node.region.clone(),
                node.zone.clone(),
                if node.retired { "retired" } else { "active" }.to_owned(),
                node.client_address.clone(),
                node.peer_address.clone(),
            ]
        }),
    )
}

#[cfg(test)]
mod tests {
    use super::parse_node;

    #[test]
    fn a_node_is_five_parts_and_bad_ones_are_told_apart() {
        let node = parse_node("4,nord,b,h:1,h:2").unwrap();
        assert_eq!(
            (node.id.0, node.zone.as_str(), node.peer_address.as_str()),
            (4, "b", "h:2")
        );
        for bad in [
            "4,nord,b,h:1",
            "x,nord,b,h:1,h:2",
            "0,nord,b,h:1,h:2",
            "4,nord,b,h,h:2",
            "4,,b,h:1,h:2",
        ] {
            assert!(parse_node(bad).is_err(), "{bad}");
        }
    }
}
