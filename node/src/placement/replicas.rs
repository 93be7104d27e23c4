//! What other nodes say of their replicas.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use malle_machine::directory;
use malle_proto::{NodeId, ShardId};

use crate::peers::Transport;

/// A node that answers does so within this.
const ASK: Duration = Duration::from_secs(2);
/// Replicas that are asked at the same time.
const ASKED_AT_ONCE: usize = 32;

/// Asks other nodes.
#[derive(Clone)]
pub struct Replicas {
    transport: Arc<dyn Transport>,
}

impl Replicas {
    /// By this way to them.
    pub fn new(transport: Arc<dyn Transport>) -> Self {
        Replicas { transport }
    }

    /// Whether a node answers.
    pub async fn answers(&self, node: NodeId) -> bool {
        let deadline = malle_rt::now() + ASK;
        self.transport.replica(node, ShardId::DIRECTORY, deadline).await.is_ok()
    }

    /// Bytes of bodies that a replica of a shard takes, by the word of the first that answers; 0 when none does.
    pub async fn size_of(&self, shard: &directory::Shard) -> u64 {
        for replica in &shard.replicas {
            let deadline = malle_rt::now() + ASK;
            if let Ok(status) = self.transport.replica(*replica, shard.id, deadline).await {
                return status.body_bytes;
            }
        }
        0
    }

    /// The same for many shards.
    pub async fn sizes(&self, shards: &[directory::Shard]) -> BTreeMap<ShardId, u64> {
        let asked = futures::stream::iter(shards.to_vec()).map(|shard| async move {
            let bytes = self.size_of(&shard).await;
            (shard.id, bytes)
        });
        asked.buffer_unordered(ASKED_AT_ONCE).collect().await
    }
}
