//! Wires the rooms together: from a configuration to a node that serves, and back to a clean stop.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use bytes::Bytes;
use malle_journal::{Disk, RealDisk};
use malle_proto::v1::{GroupStatus, RaftFrame};
use malle_proto::{BodyHash, NodeId, ShardId, limits};
use tokio::sync::{mpsc, watch};
use tonic::service::Routes;
use tonic::transport::Server;

use crate::bodies::{Bodies, CollectTimes};
use crate::config::{Config, OAuth, Timing as TimingName};
use crate::env::Env;
use crate::peers::{PeerHandler, RaftCall, SecureChannels, StoredBody};
use crate::raft::{Groups, LogKept, RaftServer, Timing};
use crate::security::Identity;
use crate::security::accept::{Door, incoming, listen};
use crate::security::bearer::Bearers;
use crate::security::password::Effort;
use crate::security::provider::Provider;
use crate::security::tls::{Reloaded, Tls};
use crate::state::SledIndexes;

mod full_disk;
mod interior;
mod leave;
mod observe;

pub use interior::{Ground, Interior};
use observe::Observatory;

/// Certificates and keys are looked at this often; SIGHUP is for the impatient.
const FILES_LOOK: Duration = Duration::from_secs(30);
/// HTTP/2 windows of both services: bodies in flight, not packets.
const STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
/// A running node.
pub struct Node {
    interior: Interior,
    credentials: Credentials,
    monitoring: Monitoring,
}

/// What comes from files that may change while the node runs.
#[derive(Clone)]
struct Credentials {
    tls: Arc<Tls>,
    bearers: Option<(Arc<Bearers>, Keys)>,
}

/// Where the keys of an identity provider come from.
#[derive(Clone)]
enum Keys {
    /// A file, which somebody replaces.
    File(PathBuf),
    /// The provider.
    Fetched(Arc<Provider>),
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
        disk.create_dir_all(&config.data_dir)
            .with_context(|| format!("cannot make {}", config.data_dir.display()))?;
        let observatory = Observatory::new(disk.clone(), config.data_dir.clone());
        let monitoring = Monitoring::start(config, &observatory).await?;
        // With port 0 the system chose one, and that is what an operator is told.
        let mut settled = config.clone();
        settled.telemetry.listen = monitoring.address;
        let credentials = Credentials {
            tls,
            bearers: bearers(config, disk.as_ref())?,
        };
        let interior = Interior::open(&settled, ground(config, disk, &credentials)).await?;
        interior.tells(&observatory);
        let node = Node {
            interior,
            credentials,
            monitoring,
        };
        node.serve("peer", config.peer_listen, Door::Peers, node.interior.peer_routes())
            .await?;
        node.serve(
            "client",
            config.client_listen,
            Door::Clients,
            node.interior.client_routes(),
        )
        .await?;
        let follow = follow_files(node.credentials.clone(), node.interior.stopped());
        node.interior.keeps(malle_rt::spawn(follow));
        node.fetch_keys(config);
        tracing::info!(node = %config.node, region = config.region, clients = %config.client_listen, peers = %config.peer_listen, "serving");
        Ok(node)
    }

    async fn serve(&self, name: &'static str, address: SocketAddr, door: Door, routes: Routes) -> anyhow::Result<()> {
        let listener = listen(address).await?;
        let served = server().add_routes(routes).serve_with_incoming_shutdown(
            incoming(listener, self.credentials.tls.clone(), door),
            ended(self.interior.stopped()),
        );
        self.interior.keeps(malle_rt::spawn(async move {
            if let Err(error) = served.await {
                tracing::error!(%error, "the {name} service ended");
            }
        }));
        Ok(())
    }

    /// Keeps the keys of an identity provider current where it is asked itself.
    fn fetch_keys(&self, config: &Config) {
        let Some((bearers, Keys::Fetched(provider))) = &self.credentials.bearers else {
            return;
        };
        let (provider, bearers, path) = (provider.clone(), bearers.clone(), kept_keys(config));
        let stopped = self.interior.stopped();
        let keep = move |jwks: String| {
            let path = path.clone();
            async move {
                let kept =
                    malle_rt::blocking(move || malle_journal::replace_file(&RealDisk, &path, jwks.as_bytes())).await;
                if let Err(error) = kept {
                    tracing::warn!(%error, "the identity provider's keys are not kept for the next start");
                }
            }
        };
        self.interior.keeps(malle_rt::spawn(async move {
            provider.follow(bearers, keep, stopped).await;
        }));
    }

    /// Reads the certificate files, and those of an identity provider's keys, again.
    pub fn reload(&self) {
        self.credentials.reload();
    }

    /// Becomes the reason once a journal has failed: this node acknowledges nothing any more and must leave.
    pub fn condemned(&self) -> watch::Receiver<Option<String>> {
        self.interior.condemned()
    }

    /// Leaves without a clean mark, which would be a lie: gives its groups away where that is possible, and no more.
    pub async fn abandon(self) {
        self.interior.abandon().await;
    }

    /// Stops: groups that it leads go to others, no new requests, a short while for those under way, then every group with a clean mark.
    pub async fn stop(self) {
        self.interior.stop().await;
        self.monitoring.end().await;
        tracing::info!("stopped");
    }
}

/// The machine that `malled` runs on.
fn ground(config: &Config, disk: Arc<dyn Disk>, credentials: &Credentials) -> Ground {
    let (index_dir, cache_bytes) = (config.data_dir.join("index"), config.index_cache_bytes);
    Ground {
        disk,
        env: Env::real(),
        indexes: Box::new(move |groups| Arc::new(SledIndexes::new(&index_dir, cache_of_one(cache_bytes, groups)))),
        channels: Arc::new(SecureChannels(credentials.tls.clone())),
        timing: timing_of(config.timing),
        log: LogKept::default(),
        passwords: Effort::Full,
        bearers: credentials.bearers.as_ref().map(|(bearers, _)| bearers.clone()),
        log_segment_bytes: limits::JOURNAL_SEGMENT_BYTES,
        volume_bytes: limits::VOLUME_SEGMENT_BYTES,
        collect: CollectTimes::default(),
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

/// What one of so many groups gets of the memory for all.
fn cache_of_one(all: u64, groups: usize) -> u64 {
    // Sixteen groups are what a small node holds, and a new one has none yet; sled's floor keeps a larger node usable.
    (all / groups.max(16) as u64).max(4 * 1024 * 1024)
}

/// The last set of keys that was fetched, from one start to the next.
fn kept_keys(config: &Config) -> PathBuf {
    config.data_dir.join("identity-provider.jwks")
}

fn bearers(config: &Config, disk: &dyn Disk) -> anyhow::Result<Option<(Arc<Bearers>, Keys)>> {
    let Some(oauth) = &config.oauth else { return Ok(None) };
    if let Some(path) = &oauth.jwks {
        let bearers = Bearers::new(oauth, &OAuth::read_keys(path)?).context("oauth.jwks")?;
        return Ok(Some((Arc::new(bearers), Keys::File(path.clone()))));
    }
    let url = oauth.jwks_url.as_deref().unwrap_or_default();
    let provider = Provider::new(url, &oauth.read_authorities()?).context("oauth.jwks_url")?;
    let bearers = Bearers::without_keys(oauth);
    match malle_journal::read_file(disk, &kept_keys(config), limits::JWKS_MAX_BYTES) {
        Ok(kept) => {
            // A damaged file is as good as none: the provider is asked in any case.
            if let Err(error) = bearers.replace(&String::from_utf8_lossy(&kept)) {
                tracing::warn!(%error, "the identity provider's keys that were kept do not read");
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(%error, "the identity provider's keys that were kept do not read"),
    }
    Ok(Some((Arc::new(bearers), Keys::Fetched(Arc::new(provider)))))
}

impl Credentials {
    fn reload(&self) {
        match self.tls.reload() {
            Ok(Reloaded::Changed) => tracing::info!("new certificates are in use"),
            Ok(Reloaded::Unchanged) => {}
            Err(error) => tracing::error!(%error, "the certificates were not reloaded; the old ones stay in use"),
        }
        let Some((bearers, Keys::File(path))) = &self.bearers else {
            return;
        };
        let replaced = OAuth::read_keys(path)
            .map_err(anyhow::Error::from)
            .and_then(|jwks| Ok(bearers.replace(&jwks)?));
        match replaced {
            Ok(true) => tracing::info!("new keys of the identity provider are in use"),
            Ok(false) => {}
            Err(error) => {
                tracing::error!(%error, "the identity provider's keys were not reloaded; the old ones stay in use");
            }
        }
    }
}

async fn follow_files(credentials: Credentials, mut stopped: watch::Receiver<bool>) {
    while !*stopped.borrow_and_update() {
        tokio::select! {
            changed = stopped.changed() => if changed.is_err() { return },
            () = malle_rt::sleep(FILES_LOOK) => {
                let credentials = credentials.clone();
                malle_rt::blocking(move || credentials.reload()).await;
            }
        }
    }
}

#[cfg(test)]
mod failing_disk;
#[cfg(test)]
mod filling_disk;
#[cfg(test)]
mod growing;
#[cfg(test)]
mod power_cut;
