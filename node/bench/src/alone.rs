//! A node without peers: every group has it as its only voter.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use async_trait::async_trait;
use bytes::Bytes;
use malle_journal::{Disk, RealDisk};
use malle_machine::directory;
use malle_node::bodies::Bodies;
use malle_node::env::Env;
use malle_node::log::Logs;
use malle_node::peers::{AppendStream, PeerError, RaftCall, StoredBody, Transport};
use malle_node::raft::{Group, Groups, GroupsSettings, LogKept, Timing};
use malle_node::state::SledIndexes;
use malle_proto::v1::{GroupStatus, RaftFrame};
use malle_proto::{BodyHash, NodeId, ShardId};
use malle_rt::Instant;
use tokio::sync::mpsc;

/// The node.
pub const NODE: NodeId = NodeId(1);
/// Its cluster, as in its certificate.
pub const CLUSTER: &str = "bench.test";
/// A group without peers leads well within this.
const LEAD_WAIT: Duration = Duration::from_secs(30);

/// There is nobody else.
struct Nobody;

#[async_trait]
impl Transport for Nobody {
    async fn call(&self, to: NodeId, _: RaftCall, _: RaftFrame, _: Instant) -> Result<RaftFrame, PeerError> {
        Err(PeerError::Deadline(to))
    }
    async fn append(&self, to: NodeId, _: Instant) -> Result<AppendStream, PeerError> {
        Err(PeerError::Deadline(to))
    }
    async fn snapshot(
        &self,
        to: NodeId,
        _: RaftFrame,
        _: u64,
        _: mpsc::Receiver<Bytes>,
        _: Instant,
    ) -> Result<RaftFrame, PeerError> {
        Err(PeerError::Deadline(to))
    }
    async fn put_body(&self, to: NodeId, _: StoredBody, _: Instant) -> Result<(), PeerError> {
        Err(PeerError::Deadline(to))
    }
    async fn get_body(&self, to: NodeId, _: ShardId, _: BodyHash, _: Instant) -> Result<StoredBody, PeerError> {
        Err(PeerError::Deadline(to))
    }
    async fn replica(&self, to: NodeId, _: ShardId, _: Instant) -> Result<GroupStatus, PeerError> {
        Err(PeerError::Deadline(to))
    }
}

/// The node with its rooms in hand.
pub struct Alone {
    /// Clock and entropy.
    pub env: Env,
    /// Its groups.
    pub groups: Arc<Groups>,
    /// Its bodies.
    pub bodies: Arc<Bodies>,
    logs: Arc<Logs>,
}

impl Alone {
    /// Opens the rooms over a data directory as `malled` has it.
    ///
    /// # Errors
    /// What the rooms say.
    pub async fn open(data_dir: &Path, index_cache_bytes_each: u64) -> anyhow::Result<Alone> {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        for dir in ["log", "volumes", "checkpoints", "index", "incoming"] {
            disk.create_dir_all(&data_dir.join(dir))?;
        }
        let env = Env::real();
        let logs = Arc::new(Logs::open(disk.clone(), &data_dir.join("log"), NODE)?);
        let nobody: Arc<dyn Transport> = Arc::new(Nobody);
        let bodies = Bodies::open(disk.clone(), &data_dir.join("volumes"), NODE, nobody.clone()).await?;
        let groups = Groups::new(GroupsSettings {
            node: NODE,
            cluster: CLUSTER.into(),
            timing: Timing::LOCAL,
            log: LogKept::default(),
            env: env.clone(),
            disk,
            dir: data_dir.join("checkpoints"),
            logs: logs.clone(),
            indexes: Arc::new(SledIndexes::new(&data_dir.join("index"), index_cache_bytes_each)),
            bodies: bodies.clone(),
            transport: nobody,
            addresses: Arc::default(),
        });
        Ok(Alone {
            env,
            groups,
            bodies,
            logs,
        })
    }

    /// Opens a group, and waits until it leads.
    ///
    /// # Errors
    /// What raft says, or that it does not lead.
    pub async fn lead(&self, shard: ShardId) -> anyhow::Result<Arc<Group>> {
        let group = self.groups.open(shard).await?;
        group
            .initialize([(NODE, "localhost:1".to_owned())].into())
            .await
            .context("the first member")?;
        let mut applied = group.applied();
        while !group.is_leader() {
            let changed = malle_rt::timeout_at(malle_rt::now() + LEAD_WAIT, applied.changed()).await;
            if changed.is_err() {
                bail!("shard {shard} has no leader");
            }
        }
        Ok(group)
    }

    /// Writes the first rows of the directory: this node, and these shards on it.
    ///
    /// # Errors
    /// What raft or the directory says.
    pub async fn found(&self, shards: u32) -> anyhow::Result<()> {
        let directory = self.lead(ShardId::DIRECTORY).await?;
        let init = directory::Op::Init {
            cluster: self.env.cluster_id(),
            name: CLUSTER.into(),
            nodes: vec![directory::Node {
                id: NODE,
                region: "nord".into(),
                zone: "nord-a".into(),
                client_address: "localhost:1".into(),
                peer_address: "localhost:2".into(),
                retired: false,
            }],
            shards: (1..=shards)
                .map(|shard| directory::Shard {
                    id: ShardId(shard),
                    replicas: vec![NODE],
                    home_region: "nord".into(),
                    epoch: 1,
                })
                .collect(),
            token_key: self.env.token_key(1),
        };
        directory.propose_directory(init, malle_rt::now() + LEAD_WAIT).await?;
        Ok(())
    }

    /// Stops as `malled` does.
    pub async fn close(self) {
        self.groups.close().await;
        self.bodies.close().await;
        self.logs.journal().close().await;
    }
}
