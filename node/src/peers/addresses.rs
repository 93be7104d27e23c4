//! Where the peers are: learned from the members of the groups and from the directory, the newest word counts.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

use malle_proto::NodeId;

/// HOST:PORT of the peer service of each node.
#[derive(Debug, Default)]
pub struct PeerAddresses {
    known: RwLock<BTreeMap<NodeId, String>>,
}

impl PeerAddresses {
    /// A node is there now.
    pub fn learn(&self, node: NodeId, address: &str) {
        if address.is_empty() {
            return;
        }
        let known = self
            .known
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&node)
            .is_some_and(|old| old == address);
        if !known {
            self.known
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(node, address.to_owned());
        }
    }

    /// Every node that is known.
    pub fn nodes(&self) -> Vec<NodeId> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.keys().copied().collect()
    }

    /// Where a node is.
    pub fn get(&self, node: NodeId) -> Option<String> {
        self.known
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&node)
            .cloned()
    }
}
