//! A body goes to every voter at once and is put when a majority of each voter set has it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use malle_proto::{BodyHash, NodeId, ShardId, limits};
use malle_rt::Instant;
use tokio::sync::mpsc;

use super::encoding::{self, hash_of};
use super::{Bodies, BodiesError};

/// A copy that the caller no longer waits for still gets this long: it spares a fetch.
const STRAGGLERS: Duration = Duration::from_secs(5);

/// Voters of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Members {
    /// Index of the entry that set them.
    pub index: u64,
    /// One set, or two while they change.
    pub voters: Vec<Vec<NodeId>>,
}

impl Members {
    /// Whether these nodes are a majority of every set.
    pub fn majority(&self, have: &BTreeSet<NodeId>) -> bool {
        !self.voters.is_empty()
            && self
                .voters
                .iter()
                .all(|set| set.iter().filter(|node| have.contains(node)).count() * 2 > set.len())
    }

    /// Every voter once.
    fn all(&self) -> BTreeSet<NodeId> {
        self.voters.iter().flatten().copied().collect()
    }
}

impl Bodies {
    /// The name of a body.
    pub fn hash_of(body: &[u8]) -> BodyHash {
        hash_of(body)
    }

    /// Makes a body durable on a majority of `members`, here first among them when this node is one.
    ///
    /// # Errors
    /// `TooLarge`, `Hash` when the body is not the one that `hash` names, `NoMajority` with what the others said, `Deadline`. Copies may then lie on some nodes: they are orphans that
    /// collection finds, never a body that is named and not there.
    pub async fn put(
        self: &Arc<Self>,
        shard: ShardId,
        members: &Members,
        hash: BodyHash,
        body: Bytes,
        deadline: Instant,
    ) -> Result<(), BodiesError> {
        if body.len() > limits::MESSAGE_MAX_BYTES {
            return Err(BodiesError::TooLarge {
                limit_bytes: limits::MESSAGE_MAX_BYTES as u64,
            });
        }
        let kib = u32::try_from(body.len() / 1024 + 1).unwrap_or(u32::MAX);
        let room = match malle_rt::timeout_at(deadline, self.room.clone().acquire_many_owned(kib)).await {
            Ok(Ok(room)) => Arc::new(room),
            Ok(Err(_)) => return Err(BodiesError::Volumes("closed".into())),
            Err(_) => return Err(BodiesError::Deadline),
        };
        let size = body.len() as u64;
        // Checked here although callers name what they hash: a body under a wrong name is acknowledged and never read again.
        let checked = move || (hash_of(&body) == hash).then(|| encoding::encode(shard, hash, &body));
        let stored = encoding::off_the_way(size, checked).await.ok_or(BodiesError::Hash)?;
        let nodes = members.all();
        let (told, mut tell) = mpsc::channel(nodes.len().max(1));
        for node in nodes {
            let (bodies, stored, told, room) = (self.clone(), stored.clone(), told.clone(), room.clone());
            malle_rt::spawn(async move {
                let result = if node == bodies.node {
                    bodies.keep(stored).await
                } else {
                    bodies
                        .transport
                        .put_body(node, stored, deadline + STRAGGLERS)
                        .await
                        .map_err(Into::into)
                };
                drop(room);
                // The caller has its majority, or gave up.
                let _ = told.send((node, result)).await;
            });
        }
        drop(told);
        match malle_rt::timeout_at(deadline, gather(members, &mut tell)).await {
            Ok(result) => result,
            Err(_) => Err(BodiesError::Deadline),
        }
    }
}

async fn gather(
    members: &Members,
    tell: &mut mpsc::Receiver<(NodeId, Result<(), BodiesError>)>,
) -> Result<(), BodiesError> {
    let mut have = BTreeSet::new();
    let mut said = Vec::new();
    while let Some((node, result)) = tell.recv().await {
        match result {
            Ok(()) => {
                have.insert(node);
                if members.majority(&have) {
                    return Ok(());
                }
            }
            Err(error) => said.push(format!("node {node}: {error}")),
        }
    }
    Err(BodiesError::NoMajority(said.join("; ")))
}
