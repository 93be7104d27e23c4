//! Three or more nodes over a network in memory: majorities, repair, catching up, and what a crash leaves.

mod collect;
mod golden;
mod group;
mod majority;
mod rot;
mod scrub;
mod volumes;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use malle_journal::{Disk, MemoryDisk};
use malle_proto::v1::{GroupStatus, RaftFrame};
use malle_proto::{BodyHash, NodeId, ShardId};
use malle_rt::Instant;
use tokio::sync::mpsc;

use super::volume::Volumes;
use super::{Bodies, Members};
use crate::peers::{AppendStream, PeerError, RaftCall, StoredBody, Transport};

const SHARD: ShardId = ShardId(7);
/// Small, so that a test fills several.
const VOLUME_BYTES: u64 = 64 * 1024;

/// What the network does with a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// Nobody reaches it.
    Down,
    /// It takes requests and never answers.
    Silent,
    /// What it sends has a bit turned.
    Liar,
}

#[derive(Default)]
struct Wires {
    nodes: BTreeMap<NodeId, Arc<Bodies>>,
    faults: BTreeMap<NodeId, Fault>,
}

/// The network; clones are the same one.
#[derive(Clone, Default)]
struct Net(Arc<Mutex<Wires>>);

impl Net {
    fn wires(&self) -> MutexGuard<'_, Wires> {
        self.0.lock().unwrap()
    }

    fn fault(&self, node: u64, fault: Option<Fault>) {
        match fault {
            Some(fault) => self.wires().faults.insert(NodeId(node), fault),
            None => self.wires().faults.remove(&NodeId(node)),
        };
    }

    async fn reach(&self, to: NodeId, deadline: Instant) -> Result<(Arc<Bodies>, bool), PeerError> {
        if malle_rt::now() >= deadline {
            return Err(PeerError::Deadline(to));
        }
        let (node, fault) = {
            let wires = self.wires();
            (wires.nodes.get(&to).cloned(), wires.faults.get(&to).copied())
        };
        match (node, fault) {
            (Some(_), Some(Fault::Silent)) => {
                malle_rt::sleep_until(deadline).await;
                Err(PeerError::Deadline(to))
            }
            (Some(node), fault) if fault != Some(Fault::Down) => Ok((node, fault == Some(Fault::Liar))),
            _ => Err(unreachable(to)),
        }
    }

    /// A node with this disk, reachable from now on.
    fn start(&self, node: u64, disk: &MemoryDisk) -> Arc<Bodies> {
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        let volumes = Volumes::open(disk, Path::new("/bodies"), NodeId(node), VOLUME_BYTES).unwrap();
        let bodies = Bodies::over(volumes, NodeId(node), Arc::new(self.clone()));
        self.wires().nodes.insert(NodeId(node), bodies.clone());
        bodies
    }

    fn node(&self, node: u64) -> Arc<Bodies> {
        self.wires().nodes[&NodeId(node)].clone()
    }

    /// Ends a node; its disk may be opened again afterwards.
    async fn stop(&self, node: u64) {
        let bodies = self.wires().nodes.remove(&NodeId(node)).unwrap();
        bodies.close().await;
    }
}

fn unreachable(node: NodeId) -> PeerError {
    let reason = "down".to_owned();
    PeerError::Unreachable { node, reason }
}

#[async_trait]
impl Transport for Net {
    async fn call(&self, to: NodeId, _: RaftCall, _: RaftFrame, _: Instant) -> Result<RaftFrame, PeerError> {
        Err(unreachable(to))
    }

    async fn append(&self, to: NodeId, _: Instant) -> Result<AppendStream, PeerError> {
        Err(unreachable(to))
    }

    async fn snapshot(
        &self,
        to: NodeId,
        _: RaftFrame,
        _: u64,
        _: mpsc::Receiver<Bytes>,
        _: Instant,
    ) -> Result<RaftFrame, PeerError> {
        Err(unreachable(to))
    }

    async fn put_body(&self, to: NodeId, body: StoredBody, deadline: Instant) -> Result<(), PeerError> {
        let (node, _) = self.reach(to, deadline).await?;
        let refused = |error: super::BodiesError| PeerError::Refused {
            node: to,
            reason: error.to_string(),
        };
        node.receive(body).await.map_err(refused)
    }

    async fn get_body(
        &self,
        to: NodeId,
        shard: ShardId,
        hash: BodyHash,
        deadline: Instant,
    ) -> Result<StoredBody, PeerError> {
        let (node, lies) = self.reach(to, deadline).await?;
        let refused = |reason: String| PeerError::Refused { node: to, reason };
        let body = node
            .serve(shard, hash)
            .await
            .map_err(|error| refused(error.to_string()))?;
        let mut body = body.ok_or_else(|| refused("not here".into()))?;
        if lies {
            let mut bytes = body.stored.to_vec();
            bytes[0] ^= 1;
            body.stored = bytes.into();
        }
        Ok(body)
    }

    async fn replica(&self, to: NodeId, _: ShardId, _: Instant) -> Result<GroupStatus, PeerError> {
        Err(unreachable(to))
    }
}

/// Nodes 1 to `count`, each with a disk of its own.
fn cluster(count: u64) -> (Net, BTreeMap<u64, MemoryDisk>) {
    let net = Net::default();
    let disks: BTreeMap<u64, MemoryDisk> = (1..=count).map(|node| (node, MemoryDisk::new())).collect();
    for (node, disk) in &disks {
        net.start(*node, disk);
    }
    (net, disks)
}

fn members(voters: &[&[u64]]) -> Members {
    let voters = voters
        .iter()
        .map(|set| set.iter().copied().map(NodeId).collect())
        .collect();
    Members { index: 1, voters }
}

fn sources(nodes: &[u64]) -> Vec<NodeId> {
    nodes.iter().copied().map(NodeId).collect()
}

/// Bytes that do not compress, the same for the same seed.
fn noise(seed: u64, bytes: usize) -> Bytes {
    let mut out = vec![0; bytes];
    let mut source = blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof();
    source.fill(&mut out);
    out.into()
}

fn soon() -> Instant {
    malle_rt::now() + Duration::from_secs(10)
}

/// Puts under the members 1, 2 and 3, waits until this node has its copy too, and returns the name.
async fn put(bodies: &Arc<Bodies>, body: &Bytes) -> BodyHash {
    let hash = Bodies::hash_of(body);
    bodies
        .put(SHARD, &members(&[&[1, 2, 3]]), hash, body.clone(), soon())
        .await
        .unwrap();
    eventually("the putter's own copy", || bodies.has(SHARD, hash)).await;
    hash
}

/// Waits until the condition holds.
async fn eventually(what: &str, holds: impl Fn() -> bool + Send + Sync) {
    let look = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    malle_rt::timeout(Duration::from_secs(10), look)
        .await
        .unwrap_or_else(|_| panic!("in ten seconds never: {what}"));
}

/// Turns a bit of the stored bytes of a body wherever they stand in the volumes.
fn damage(disk: &MemoryDisk, stored: &Bytes) {
    let dir = Path::new("/bodies");
    let mut hits = BTreeSet::new();
    for name in disk
        .list(dir)
        .unwrap()
        .into_iter()
        .filter(|name| name.ends_with(".seg"))
    {
        let path = dir.join(name);
        let file = disk.open(&path).unwrap();
        let mut content = vec![0; file.len().unwrap() as usize];
        file.read_at(0, &mut content).unwrap();
        if let Some(at) = content.windows(stored.len()).position(|window| window == stored) {
            disk.flip_bit(&path, at as u64 + stored.len() as u64 / 2, 3);
            hits.insert(path);
        }
    }
    assert_eq!(hits.len(), 1, "the body was in one volume");
}
