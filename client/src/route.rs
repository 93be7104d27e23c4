//! Who is asked: nodes and shards as the directory last told them, who leads as the nodes last told it, and which account lives where.
//!
//! All of it is a guess that may be old: a node that is asked wrongly says so, and the guess is mended. Nothing here decides whether a
//! call is right, only how few detours it takes.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use malle_proto::{AccountId, NodeId, ShardId, limits};
use malle_rt::Instant;

use crate::directory::Topology;
use crate::generations::Generations;
use crate::nodes::Target;

/// See the module's header.
pub(crate) struct Routes {
    seeds: Vec<String>,
    state: Mutex<State>,
}

struct State {
    nodes: BTreeMap<NodeId, String>,
    replicas: BTreeMap<ShardId, Vec<NodeId>>,
    leaders: BTreeMap<ShardId, NodeId>,
    homes: Generations<AccountId, ShardId>,
    asked: Option<Instant>,
}

impl Routes {
    pub(crate) fn new(seeds: Vec<String>) -> Routes {
        Routes {
            seeds,
            state: Mutex::new(State {
                nodes: BTreeMap::new(),
                replicas: BTreeMap::new(),
                leaders: BTreeMap::new(),
                homes: Generations::of(limits::CLIENT_HOMES_MAX),
                asked: None,
            }),
        }
    }

    /// Takes over what the directory says.
    pub(crate) fn learn(&self, topology: &Topology) {
        self.with(|state| {
            let living = topology.nodes.iter().filter(|node| !node.retired);
            state.nodes = living.map(|node| (node.id, node.client_address.clone())).collect();
            state.replicas = topology
                .shards
                .iter()
                .map(|shard| (shard.id, shard.replicas.clone()))
                .collect();
            for shard in &topology.shards {
                if let Some(leader) = shard.leader {
                    state.leaders.insert(shard.id, leader);
                }
            }
        });
    }

    /// Whom to ask about a shard, best first: the leader, then its replicas in order of preference. Until the topology is known, and for
    /// the directory besides, the endpoints that the client was given.
    pub(crate) fn candidates(&self, shard: ShardId) -> Vec<Target> {
        let mut targets: Vec<Target> = self.with(|state| {
            let everyone: Vec<NodeId> = state.nodes.keys().copied().collect();
            let replicas = match state.replicas.get(&shard) {
                Some(replicas) => replicas,
                None if shard == ShardId::DIRECTORY => &everyone,
                None => &Vec::new(),
            };
            let mut order: Vec<NodeId> = state.leaders.get(&shard).copied().into_iter().collect();
            order.extend(
                replicas
                    .iter()
                    .filter(|node| !order.contains(node))
                    .copied()
                    .collect::<Vec<_>>(),
            );
            let known = |node: NodeId| state.nodes.get(&node).map(|address| (node, address.clone()));
            let targets = order.into_iter().filter_map(known);
            targets
                .map(|(node, address)| Target {
                    address,
                    node: Some(node),
                })
                .collect()
        });
        if targets.is_empty() || shard == ShardId::DIRECTORY {
            for seed in &self.seeds {
                if !targets.iter().any(|target| target.address == *seed) {
                    targets.push(Target {
                        address: seed.clone(),
                        node: None,
                    });
                }
            }
        }
        targets
    }

    /// Has the directory told of this shard's replicas?
    pub(crate) fn knows(&self, shard: ShardId) -> bool {
        shard == ShardId::DIRECTORY || self.with(|state| state.replicas.contains_key(&shard))
    }

    /// Where a node is.
    pub(crate) fn node(&self, node: NodeId) -> Option<Target> {
        self.with(|state| state.nodes.get(&node).cloned())
            .map(|address| Target {
                address,
                node: Some(node),
            })
    }

    /// A node said who leads.
    pub(crate) fn leader(&self, shard: ShardId, leader: NodeId) {
        self.with(|state| state.leaders.insert(shard, leader));
    }

    /// Who was believed to lead does not.
    pub(crate) fn no_leader(&self, shard: ShardId, node: NodeId) {
        self.with(|state| {
            if state.leaders.get(&shard) == Some(&node) {
                state.leaders.remove(&shard);
            }
        });
    }

    /// The shard of an account, when it is remembered.
    pub(crate) fn home(&self, account: AccountId) -> Option<ShardId> {
        self.with(|state| state.homes.get(&account).copied())
    }

    /// Remembers the shard of an account.
    pub(crate) fn set_home(&self, account: AccountId, shard: ShardId) {
        self.with(|state| state.homes.set(account, shard));
    }

    /// Is it time to ask for the topology? Says yes to one caller per [`limits::ROUTE_REFRESH_MS`].
    pub(crate) fn may_refresh(&self) -> bool {
        let pause = Duration::from_millis(limits::ROUTE_REFRESH_MS);
        let now = malle_rt::now();
        self.with(|state| {
            let due = state.asked.is_none_or(|asked| now >= asked + pause);
            if due {
                state.asked = Some(now);
            }
            due
        })
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        // These are guesses; one that a panic elsewhere left half changed is mended like any other.
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use malle_proto::ClusterId;

    use super::*;
    use crate::directory::{Node, Shard};

    fn topology() -> Topology {
        let node = |id: u64| Node {
            id: NodeId(id),
            region: "nord".into(),
            zone: "a".into(),
            client_address: format!("node{id}:7420"),
            peer_address: format!("node{id}:7421"),
            retired: id == 4,
        };
        let shard = |id: u32, replicas: &[u64], leader: Option<u64>| Shard {
            id: ShardId(id),
            replicas: replicas.iter().copied().map(NodeId).collect(),
            home_region: "nord".into(),
            leader: leader.map(NodeId),
            epoch: 1,
            accounts: 0,
        };
        Topology {
            cluster: ClusterId([1; 16]),
            cluster_name: "test".into(),
            nodes: (1..=4).map(node).collect(),
            shards: vec![shard(1, &[2, 3, 1], None), shard(2, &[4, 1, 2], Some(2))],
            directory_index: 9,
        }
    }

    fn addresses(routes: &Routes, shard: u32) -> Vec<String> {
        routes
            .candidates(ShardId(shard))
            .into_iter()
            .map(|target| target.address)
            .collect()
    }

    #[test]
    fn the_leader_is_asked_first_then_replicas_by_preference() {
        let routes = Routes::new(vec!["seed:1".into()]);
        assert_eq!(addresses(&routes, 1), ["seed:1"]);
        routes.learn(&topology());
        assert_eq!(addresses(&routes, 1), ["node2:7420", "node3:7420", "node1:7420"]);
        routes.leader(ShardId(1), NodeId(1));
        assert_eq!(addresses(&routes, 1), ["node1:7420", "node2:7420", "node3:7420"]);
        routes.no_leader(ShardId(1), NodeId(3));
        assert_eq!(addresses(&routes, 1)[0], "node1:7420");
        routes.no_leader(ShardId(1), NodeId(1));
        assert_eq!(addresses(&routes, 1)[0], "node2:7420");
    }

    #[test]
    fn a_retired_node_is_not_asked() {
        let routes = Routes::new(Vec::new());
        routes.learn(&topology());
        assert_eq!(addresses(&routes, 2), ["node2:7420", "node1:7420"]);
    }

    #[test]
    fn the_directory_is_asked_everywhere_before_the_call_is_given_up() {
        let routes = Routes::new(vec!["seed:1".into(), "node2:7420".into()]);
        routes.learn(&topology());
        assert_eq!(
            addresses(&routes, 0),
            ["node1:7420", "node2:7420", "node3:7420", "seed:1"]
        );
    }
}
