//! Wires the rooms together: from a configuration to a node that serves, and back to a clean stop.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use bytes::Bytes;
use malle_journal::{Disk, RealDisk};
use malle_proto::v1::cluster_server::ClusterServer;
use malle_proto::v1::directory_server::DirectoryServer;
use malle_proto::v1::mail_server::MailServer;
use malle_proto::v1::peer_server::PeerServer;
use malle_proto::v1::{GroupStatus, RaftFrame};
use malle_proto::{BodyHash, NodeId, ShardId, limits};
use tokio::sync::{mpsc, watch};
use tonic::transport::Server;

use crate::api::{ClusterApi, DirectoryApi, MailApi, NodeFacts, Upkeep};
use crate::bodies::{Bodies, CollectTimes, Collector, Scrub};
use crate::config::{Config, Timing as TimingName};
use crate::env::Env;
use crate::log::Logs;
use crate::peers::{
    Dial, GrpcTransport, PeerAddresses, PeerHandler, PeerIo, PeerService, RaftCall, StoredBody, Transport,
};
use crate::placement::{Placement, Replacements};
use crate::raft::{Groups, GroupsSettings, RaftServer, Timing};
use crate::security::accept::{Door, incoming, listen};
use crate::security::tls::{Reloaded, Tls};
use crate::security::{Identity, connect};
use crate::state::SledIndexes;

mod full_disk;
mod leave;
mod observe;

use leave::{Watched, give_groups_away, watch_journals};
use observe::{Observatory, Rooms};

/// Certificates are looked at this often; SIGHUP is for the impatient.
const CERTIFICATES_LOOK: Duration = Duration::from_secs(30);
/// HTTP/2 windows of both services: bodies in flight, not packets.
const STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
/// Requests under way get this long to end when the node stops.
const DRAIN: Duration = Duration::from_secs(5);

/// A running node.
pub struct Node {
    groups: Arc<Groups>,
    bodies: Arc<Bodies>,
    upkeep: Upkeep,
    logs: Arc<Logs>,
    tls: Arc<Tls>,
    stop: watch::Sender<bool>,
    tasks: Vec<malle_rt::JoinHandle<()>>,
    observatory: Arc<Observatory>,
    monitoring: Monitoring,
}

/// The listener for monitoring: the first thing that starts and the last that ends.
struct Monitoring {
    address: Option<SocketAddr>,
    stop: watch::Sender<bool>,
    task: Option<malle_rt::JoinHandle<()>>,
}

impl Monitoring {
    async fn start(config: &Config, observatory: &Arc<Observatory>) -> anyhow::Result<Monitoring> {
        let (stop, stopped) = watch::channel(false);
        let started = match config.telemetry.listen {
            Some(address) => Some(observatory.listen(address, stopped).await.context("telemetry.listen")?),
            None => None,
        };
        let (address, task) = started.unzip();
        Ok(Monitoring { address, stop, task })
    }

    async fn end(self) {
        self.stop.send_replace(true);
        if let Some(task) = self.task {
            // Nobody is told how a listener ended: it is not there any more.
            let _ = task.await;
        }
    }
}

/// Dials peers over mTLS.
struct SecureDial(Arc<Tls>);

#[async_trait]
impl Dial for SecureDial {
    async fn dial(&self, node: NodeId, address: &str) -> std::io::Result<Box<dyn PeerIo>> {
        let stream = connect::dial(&self.0, address, node)
            .await
            .map_err(std::io::Error::other)?;
        Ok(Box::new(stream))
    }
}

/// What peers ask, handed to the room that answers.
struct PeerRooms {
    raft: RaftServer,
    groups: Arc<Groups>,
    bodies: Arc<Bodies>,
}

#[async_trait]
impl PeerHandler for PeerRooms {
    async fn call(&self, from: NodeId, call: RaftCall, frame: RaftFrame) -> RaftFrame {
        self.raft.call(from, call, frame).await
    }

    async fn append(&self, from: NodeId, frames: mpsc::Receiver<RaftFrame>, answers: mpsc::Sender<RaftFrame>) {
        self.raft.append(from, frames, answers).await;
    }

    async fn snapshot(&self, from: NodeId, head: RaftFrame, size: u64, chunks: mpsc::Receiver<Bytes>) -> RaftFrame {
        self.raft.snapshot(from, head, size, chunks).await
    }

    async fn put_body(&self, body: StoredBody) -> Result<(), String> {
        self.bodies.receive(body).await.map_err(|error| error.to_string())
    }

    async fn get_body(&self, shard: ShardId, hash: BodyHash) -> Result<Option<StoredBody>, String> {
        self.bodies.serve(shard, hash).await.map_err(|error| error.to_string())
    }

    async fn replica(&self, shard: ShardId) -> Option<GroupStatus> {
        self.groups.get(shard).map(|group| group.status())
    }
}

impl Node {
    /// Opens what the data directory holds and begins to serve.
    ///
    /// # Errors
    /// Everything that keeps a node from starting, with what to do about it where something can be done.
    pub async fn start(config: &Config) -> anyhow::Result<Node> {
        let own = Identity::Node(config.node);
        let tls = Arc::new(Tls::load(&config.tls, &config.cluster, own).context("certificates")?);
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let env = Env::real();
        prepare(&disk, &config.data_dir)?;
        let observatory = Observatory::new(disk.clone(), config.data_dir.clone());
        let monitoring = Monitoring::start(config, &observatory).await?;
        let addresses = Arc::new(PeerAddresses::default());
        let dial = Arc::new(SecureDial(tls.clone()));
        let transport: Arc<dyn Transport> = Arc::new(GrpcTransport::new(addresses.clone(), dial));
        let (logs, bodies) = open_journals(config, &disk, &transport).await?;
        let groups = Groups::new(GroupsSettings {
            node: config.node,
            cluster: config.cluster.clone(),
            timing: timing_of(config.timing),
            env: env.clone(),
            disk: disk.clone(),
            dir: config.data_dir.join("checkpoints"),
            logs: logs.clone(),
            indexes: Arc::new(SledIndexes::new(
                &config.data_dir.join("index"),
                cache_of_one(config.index_cache_bytes, logs.found().len()),
            )),
            bodies: bodies.clone(),
            transport: transport.clone(),
            addresses: addresses.clone(),
        });
        let raft = RaftServer::new(groups.clone(), disk.clone(), config.data_dir.join("incoming"));
        let has_room = bodies.disk().has_room_for_rows().await;
        if has_room {
            open_groups(&groups, &logs).await?;
        }
        let (stop, stopped) = watch::channel(false);
        malle_rt::spawn(watch_journals(
            Watched::new("log", logs.journal()),
            Watched::new("volumes", bodies.journal()),
            groups.duty().clone(),
            stopped.clone(),
        ));
        let upkeep = Upkeep {
            scrub: Scrub::new(bodies.clone(), groups.clone(), env.clone(), config.scrub_days),
            collector: Collector::new(bodies.clone(), groups.clone(), env.clone(), CollectTimes::default()),
        };
        let mut node = Node {
            groups,
            bodies,
            upkeep,
            logs,
            tls,
            stop,
            tasks: Vec::new(),
            observatory,
            monitoring,
        };
        node.serve_peers(config, raft, &stopped).await?;
        let replacements = Replacements::new(node.groups.clone(), transport, addresses.clone());
        node.serve_clients(config, &env, replacements, disk, &stopped).await?;
        let placement = Placement::new(node.groups.clone(), addresses, env).run(stopped.clone());
        let opened =
            full_disk::open_when_there_is_room(has_room, node.groups.clone(), node.logs.clone(), node.bodies.clone());
        node.tasks
            .push(malle_rt::spawn(full_disk::first(opened, placement, stopped.clone())));
        node.keep_up(stopped);
        tracing::info!(node = %config.node, region = config.region, clients = %config.client_listen, peers = %config.peer_listen, "serving");
        Ok(node)
    }

    /// Begins what goes on by itself while the node serves.
    fn keep_up(&mut self, stopped: watch::Receiver<bool>) {
        let Upkeep { scrub, collector } = &self.upkeep;
        self.tasks.extend([
            malle_rt::spawn(scrub.clone().run(stopped.clone())),
            malle_rt::spawn(collector.clone().run(stopped.clone())),
            malle_rt::spawn(self.bodies.disk().clone().run(stopped.clone())),
            malle_rt::spawn(full_disk::give_way(
                self.groups.clone(),
                self.bodies.disk().clone(),
                stopped.clone(),
            )),
            malle_rt::spawn(follow_certificates(self.tls.clone(), stopped)),
        ]);
    }

    async fn serve_peers(
        &mut self,
        config: &Config,
        raft: RaftServer,
        stopped: &watch::Receiver<bool>,
    ) -> anyhow::Result<()> {
        let listener = listen(config.peer_listen).await?;
        let rooms = PeerRooms {
            raft,
            groups: self.groups.clone(),
            bodies: self.bodies.clone(),
        };
        let service = PeerServer::new(PeerService::new(Arc::new(rooms)))
            .max_decoding_message_size(limits::GRPC_MESSAGE_MAX_BYTES)
            .max_encoding_message_size(limits::GRPC_MESSAGE_MAX_BYTES);
        let served = server().add_service(service).serve_with_incoming_shutdown(
            incoming(listener, self.tls.clone(), Door::Peers),
            ended(stopped.clone()),
        );
        self.tasks.push(malle_rt::spawn(async move {
            if let Err(error) = served.await {
                tracing::error!(%error, "the peer service ended");
            }
        }));
        Ok(())
    }

    async fn serve_clients(
        &mut self,
        config: &Config,
        env: &Env,
        replacements: Replacements,
        disk: Arc<dyn Disk>,
        stopped: &watch::Receiver<bool>,
    ) -> anyhow::Result<()> {
        let listener = listen(config.client_listen).await?;
        let mail = MailApi::new(self.groups.clone(), self.bodies.clone(), env.clone());
        self.observatory.opened(Rooms {
            groups: self.groups.clone(),
            bodies: self.bodies.clone(),
            upkeep: self.upkeep.clone(),
            logs: self.logs.clone(),
            mail: mail.clone(),
        });
        let directory = DirectoryApi::new(self.groups.clone(), env.clone());
        let facts = NodeFacts {
            node: config.node,
            region: config.region.clone(),
            disk,
            data_dir: config.data_dir.clone(),
            started: malle_rt::now(),
            telemetry: self.monitoring.address,
        };
        let cluster = ClusterApi::new(
            self.groups.clone(),
            self.bodies.clone(),
            self.upkeep.clone(),
            replacements,
            env.clone(),
            facts,
        );
        let served = server()
            .add_service(
                MailServer::new(mail)
                    .max_decoding_message_size(limits::GRPC_MESSAGE_MAX_BYTES)
                    .max_encoding_message_size(limits::GRPC_MESSAGE_MAX_BYTES),
            )
            .add_service(DirectoryServer::new(directory))
            .add_service(ClusterServer::new(cluster))
            .serve_with_incoming_shutdown(
                incoming(listener, self.tls.clone(), Door::Clients),
                ended(stopped.clone()),
            );
        self.tasks.push(malle_rt::spawn(async move {
            if let Err(error) = served.await {
                tracing::error!(%error, "the client service ended");
            }
        }));
        Ok(())
    }

    /// Reads the certificate files again.
    pub fn reload(&self) {
        reload(&self.tls);
    }

    /// Becomes the reason once a journal has failed: this node acknowledges nothing any more and must leave.
    pub fn condemned(&self) -> watch::Receiver<Option<String>> {
        self.groups.duty().condemned()
    }

    /// Leaves without a clean mark, which would be a lie: gives its groups away where that is possible, and no more.
    pub async fn abandon(self) {
        give_groups_away(&self.groups).await;
    }

    /// Stops: groups that it leads go to others, no new requests, a short while for those under way, then every group with a clean mark.
    pub async fn stop(self) {
        give_groups_away(&self.groups).await;
        self.stop.send_replace(true);
        let tasks = futures::future::join_all(self.tasks);
        if malle_rt::timeout(DRAIN, tasks).await.is_err() {
            tracing::info!("some streams are still open; their callers go elsewhere");
        }
        self.groups.close().await;
        self.bodies.close().await;
        self.logs.journal().close().await;
        self.monitoring.end().await;
        tracing::info!("stopped");
    }
}

fn server() -> Server {
    Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keepalive_interval(Some(Duration::from_secs(5)))
        .http2_keepalive_timeout(Some(Duration::from_secs(5)))
        .tcp_nodelay(true)
}

async fn ended(mut stopped: watch::Receiver<bool>) {
    // The sender lives as long as the node: an error means that it is gone, too.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

fn timing_of(name: TimingName) -> Timing {
    match name {
        TimingName::Local => Timing::LOCAL,
        TimingName::Wan => Timing::WAN,
    }
}

/// The raft log and the volumes, read side by side.
async fn open_journals(
    config: &Config,
    disk: &Arc<dyn Disk>,
    transport: &Arc<dyn Transport>,
) -> anyhow::Result<(Arc<Logs>, Arc<Bodies>)> {
    let (log_disk, log_dir, node) = (disk.clone(), config.data_dir.join("log"), config.node);
    let logs = malle_rt::blocking(move || Logs::open(log_disk, &log_dir, node));
    let volumes = config.data_dir.join("volumes");
    let bodies = Bodies::open(disk.clone(), &volumes, node, transport.clone());
    let (logs, bodies) = futures::join!(logs, bodies);
    Ok((Arc::new(logs.context("raft log")?), bodies.context("body volumes")?))
}

/// Every node follows the directory; the others open as it says, and those that are known open before anybody is let in.
async fn open_groups(groups: &Arc<Groups>, logs: &Logs) -> anyhow::Result<()> {
    groups.open(ShardId::DIRECTORY).await.context("directory")?;
    groups.open_all(logs.found()).await;
    Ok(())
}

/// What one of so many groups gets of the memory for all.
fn cache_of_one(all: u64, groups: usize) -> u64 {
    // Sixteen groups are what a small node holds, and a new one has none yet; sled's floor keeps a larger node usable.
    (all / groups.max(16) as u64).max(4 * 1024 * 1024)
}

/// Makes the directories, and removes what a crash left of snapshots that were being received.
fn prepare(disk: &Arc<dyn Disk>, data_dir: &Path) -> anyhow::Result<()> {
    for dir in ["log", "volumes", "checkpoints", "index", "incoming"] {
        let dir = data_dir.join(dir);
        disk.create_dir_all(&dir)
            .with_context(|| format!("cannot make {}", dir.display()))?;
    }
    let incoming = data_dir.join("incoming");
    for name in disk.list(&incoming)? {
        disk.remove(&incoming.join(name))?;
    }
    Ok(())
}

fn reload(tls: &Tls) {
    match tls.reload() {
        Ok(Reloaded::Changed) => tracing::info!("new certificates are in use"),
        Ok(Reloaded::Unchanged) => {}
        Err(error) => tracing::error!(%error, "the certificates were not reloaded; the old ones stay in use"),
    }
}

async fn follow_certificates(tls: Arc<Tls>, mut stopped: watch::Receiver<bool>) {
    while !*stopped.borrow_and_update() {
        tokio::select! {
            changed = stopped.changed() => if changed.is_err() { return },
            () = malle_rt::sleep(CERTIFICATES_LOOK) => {
                let tls = tls.clone();
                malle_rt::blocking(move || reload(&tls)).await;
            }
        }
    }
}

#[cfg(test)]
mod failing_disk;
#[cfg(test)]
mod filling_disk;
#[cfg(test)]
mod power_cut;
