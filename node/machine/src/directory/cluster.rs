//! Nodes, shards and token keys.
//!
//! These commands carry no op id: each may be repeated, because a repeat finds the state that it wants and says Done.

use std::collections::BTreeSet;

use malle_proto::{ClusterId, NodeId, ShardId, limits};

use super::apply::{Step, Turn};
use super::rows::{self, ClusterRow, NodeRow, ShardRow, Tag, TokenKeyRow};
use super::{Node, Outcome, Refusal, Shard, TokenKey, read};
use crate::format;
use crate::view::{Fault, View};

/// Token keys that verify: the newest, and the one that tokens of the last hour were signed with.
pub const TOKEN_KEYS_KEPT: usize = 2;
/// A region, a zone, a cluster's name: a DNS label or a few.
const NAME_MAX_BYTES: usize = 253;

/// The first command of a cluster.
pub fn init(
    turn: &mut Turn<'_>,
    id: ClusterId,
    name: &str,
    nodes: &[Node],
    shards: &[Shard],
    token_key: &TokenKey,
) -> Step<Outcome> {
    if let Some(there) = read::cluster(&turn.draft)? {
        return if there.id == id {
            Ok(Outcome::Done)
        } else {
            Err(Refusal::Initialised.into())
        };
    }
    check_name("cluster name", name)?;
    if nodes.is_empty() || shards.is_empty() {
        return Err(Refusal::Invalid("a cluster needs a node and a shard".into()).into());
    }
    let cluster = ClusterRow { id, name: name.into() };
    turn.draft.put(rows::first(Tag::Cluster), format::encode(&cluster));
    for node in nodes {
        if turn.draft.get(&rows::node(node.id))?.is_some() {
            return Err(Refusal::Invalid(format!("node {} is named twice", node.id)).into());
        }
        node_set(turn, node)?;
    }
    for shard in shards {
        add_shard(turn, shard)?;
    }
    token_key_add(turn, token_key)?;
    Ok(Outcome::Done)
}

fn add_shard(turn: &mut Turn<'_>, shard: &Shard) -> Step<()> {
    if shard.id == ShardId::DIRECTORY {
        return Err(Refusal::Invalid("shard 0 is the directory's own".into()).into());
    }
    if shard.id.0 as usize > limits::SHARDS_MAX {
        return Err(Refusal::Limit(format!("shard ids up to {}", limits::SHARDS_MAX)).into());
    }
    if turn.draft.get(&rows::shard(shard.id))?.is_some() {
        return Err(Refusal::Invalid(format!("shard {} is named twice", shard.id)).into());
    }
    check_name("home region", &shard.home_region)?;
    check_replicas(&turn.draft, &shard.replicas)?;
    let row = ShardRow {
        shard: shard.clone(),
        accounts: 0,
        last_sequence: 0,
    };
    turn.draft.put(rows::shard(shard.id), format::encode(&row));
    Ok(())
}

/// A new node, or an active one's new addresses.
pub fn node_set(turn: &mut Turn<'_>, node: &Node) -> Step<Outcome> {
    if node.retired {
        return Err(Refusal::Invalid("a node is retired by NodeRetire".into()).into());
    }
    if node.id == NodeId(0) {
        return Err(Refusal::Invalid("node ids begin with 1".into()).into());
    }
    check_name("region", &node.region)?;
    check_name("zone", &node.zone)?;
    check_name("client address", &node.client_address)?;
    check_name("peer address", &node.peer_address)?;
    match rows::load::<NodeRow>(&turn.draft, "node", &rows::node(node.id))? {
        Some(NodeRow(there)) if there.retired => return Err(Refusal::NoNode(node.id).into()),
        Some(_) => {}
        None if read::nodes(&turn.draft)?.len() >= limits::NODES_MAX => {
            return Err(Refusal::Limit(format!("{} nodes", limits::NODES_MAX)).into());
        }
        None => {}
    }
    turn.draft
        .put(rows::node(node.id), format::encode(&NodeRow(node.clone())));
    Ok(Outcome::Done)
}

/// A node that will not come back. Its row stays, so that its id is never given again.
pub fn node_retire(turn: &mut Turn<'_>, node: NodeId) -> Step<Outcome> {
    let Some(NodeRow(mut there)) = rows::load(&turn.draft, "node", &rows::node(node))? else {
        return Err(Refusal::NoNode(node).into());
    };
    for (shard, _) in read::shards(&turn.draft)? {
        if shard.replicas.contains(&node) {
            return Err(Refusal::NodeInUse(node, shard.id).into());
        }
    }
    there.retired = true;
    turn.draft.put(rows::node(node), format::encode(&NodeRow(there)));
    Ok(Outcome::Done)
}

/// A shard's replicas, if nobody else changed them since `epoch`.
pub fn shard_set(turn: &mut Turn<'_>, shard: ShardId, replicas: &[NodeId], epoch: u64) -> Step<Outcome> {
    let Some(mut row) = rows::load::<ShardRow>(&turn.draft, "shard", &rows::shard(shard))? else {
        return Err(Refusal::NoShard.into());
    };
    if row.shard.epoch == epoch.saturating_add(1) && row.shard.replicas == replicas {
        return Ok(Outcome::Done);
    }
    if row.shard.epoch != epoch {
        return Err(Refusal::Epoch(row.shard.epoch).into());
    }
    check_replicas(&turn.draft, replicas)?;
    row.shard.replicas = replicas.to_vec();
    row.shard.epoch = epoch + 1;
    turn.draft.put(rows::shard(shard), format::encode(&row));
    Ok(Outcome::Done)
}

/// A newer token key. Keys that verify nothing any more are removed: a secret that is kept can leak.
pub fn token_key_add(turn: &mut Turn<'_>, key: &TokenKey) -> Step<Outcome> {
    let there = read::token_keys(&turn.draft)?;
    if there.contains(key) {
        return Ok(Outcome::Done);
    }
    if there.first().is_some_and(|newest| newest.id >= key.id) {
        return Err(Refusal::Invalid("a token key's id must rise".into()).into());
    }
    turn.draft
        .put(rows::token_key(key.id), format::encode(&TokenKeyRow(key.clone())));
    for old in there.iter().skip(TOKEN_KEYS_KEPT - 1) {
        turn.draft.remove(rows::token_key(old.id));
    }
    Ok(Outcome::Done)
}

fn check_replicas(view: &dyn View, replicas: &[NodeId]) -> Step<()> {
    if replicas.is_empty() || replicas.len() > limits::REPLICAS_PER_SHARD_MAX {
        return Err(Refusal::Limit(format!("1 to {} replicas", limits::REPLICAS_PER_SHARD_MAX)).into());
    }
    let distinct: BTreeSet<&NodeId> = replicas.iter().collect();
    if distinct.len() != replicas.len() {
        return Err(Refusal::Invalid("a replica is named twice".into()).into());
    }
    for replica in replicas {
        let node: Option<NodeRow> = rows::load(view, "node", &rows::node(*replica))?;
        if node.is_none_or(|NodeRow(node)| node.retired) {
            return Err(Refusal::NoNode(*replica).into());
        }
    }
    Ok(())
}

pub fn check_name(what: &str, name: &str) -> Result<(), Refusal> {
    let length = 1..=NAME_MAX_BYTES;
    if length.contains(&name.len()) && !name.chars().any(|c| c.is_ascii_control() || c == ' ') {
        Ok(())
    } else {
        Err(Refusal::Invalid(format!(
            "{what}: 1 to {NAME_MAX_BYTES} bytes without spaces"
        )))
    }
}

/// The shard with the fewest accounts, the lowest id among equals; only of `region` when that is set.
pub fn emptiest_shard(view: &dyn View, region: Option<&str>) -> Result<Option<ShardId>, Fault> {
    let shards = read::shards(view)?;
    Ok(shards
        .into_iter()
        .filter(|(shard, _)| region.is_none_or(|region| shard.home_region == region))
        .min_by_key(|(shard, accounts)| (*accounts, shard.id))
        .map(|(shard, _)| shard.id))
}
