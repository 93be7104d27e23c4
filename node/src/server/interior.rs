//! A node without its doors: the rooms, joined, over a disk, a clock, views and ways to the peers that somebody gives.
//!
//! `malled` gives the real ones and puts listeners before the services ([`super::Node`]); the simulator gives its own and calls the
//! services where a listener would.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use malle_journal::Disk;
use malle_proto::channel::Services;
use malle_proto::v1::cluster_server::ClusterServer;
use malle_proto::v1::directory_server::DirectoryServer;
use malle_proto::v1::mail_server::MailServer;
use malle_proto::v1::peer_server::PeerServer;
use malle_proto::v1::sessions_server::SessionsServer;
use malle_proto::{ShardId, limits};
use tokio::sync::watch;
use tonic::service::Routes;
use tower::util::BoxCloneSyncService;

use super::PeerRooms;
use super::full_disk;
use super::leave::{Watched, give_groups_away, watch_journals};
use super::observe::{Observatory, Rooms};
use crate::api::{ClusterApi, DirectoryApi, MailApi, NodeFacts, SessionsApi, Upkeep};
use crate::bodies::{Bodies, CollectTimes, Collector, Scrub};
use crate::config::Config;
use crate::env::Env;
use crate::log::Logs;
use crate::peers::{Channels, GrpcTransport, PeerAddresses, PeerService, Transport};
use crate::placement::{Placement, Replacements, move_replicas};
use crate::raft::{Groups, GroupsSettings, LogKept, RaftServer, Timing};
use crate::security::bearer::Bearers;
use crate::security::password::{Effort, Passwords};
use crate::state::Indexes;

/// Requests under way get this long to end when the node stops.
const DRAIN: Duration = Duration::from_secs(5);

/// What a node stands on.
pub struct Ground {
    /// Its files.
    pub disk: Arc<dyn Disk>,
    /// Its clock and entropy.
    pub env: Env,
    /// Its views, given how many groups there are.
    pub indexes: Box<dyn FnOnce(usize) -> Arc<dyn Indexes> + Send + Sync>,
    /// The ways to its peers.
    pub channels: Arc<dyn Channels>,
    /// How patient raft is.
    pub timing: Timing,
    /// How much log a group keeps.
    pub log: LogKept,
    /// What a check of a password costs.
    pub passwords: Effort,
    /// Whose access tokens are taken, if anybody's.
    pub bearers: Option<Arc<Bearers>>,
    /// Length of a segment of the raft log.
    pub log_segment_bytes: u64,
    /// Length of a volume.
    pub volume_bytes: u64,
    /// How patient collection is.
    pub collect: CollectTimes,
}

/// The rooms of a node that runs.
pub struct Interior {
    groups: Arc<Groups>,
    bodies: Arc<Bodies>,
    upkeep: Upkeep,
    logs: Arc<Logs>,
    mail: MailApi,
    directory: DirectoryApi,
    cluster: ClusterApi,
    sessions: SessionsApi,
    raft: RaftServer,
    stop: watch::Sender<bool>,
    tasks: Mutex<Vec<malle_rt::JoinHandle<()>>>,
}

impl Interior {
    /// Opens what the data directory holds, and begins what a node does by itself. It serves once its services are called.
    ///
    /// # Errors
    /// Everything that keeps a node from starting.
    pub async fn open(config: &Config, ground: Ground) -> anyhow::Result<Interior> {
        let Ground { disk, env, .. } = &ground;
        let (disk, env) = (disk.clone(), env.clone());
        prepare(&disk, &config.data_dir)?;
        let addresses = Arc::new(PeerAddresses::default());
        let transport: Arc<dyn Transport> = Arc::new(GrpcTransport::new(addresses.clone(), ground.channels.clone()));
        let (logs, bodies) = open_journals(config, &ground, &transport).await?;
        let groups = Groups::new(GroupsSettings {
            node: config.node,
            cluster: config.cluster.clone(),
            timing: ground.timing,
            log: ground.log,
            env: env.clone(),
            disk: disk.clone(),
            dir: config.data_dir.join("checkpoints"),
            logs: logs.clone(),
            indexes: (ground.indexes)(logs.found().len()),
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
            collector: Collector::new(bodies.clone(), groups.clone(), env.clone(), ground.collect),
        };
        let replacements = Replacements::new(groups.clone(), transport.clone(), addresses.clone());
        let facts = facts(config, disk);
        let (of_groups, of_bodies) = (groups.clone(), bodies.clone());
        let cluster = ClusterApi::new(of_groups, of_bodies, upkeep.clone(), replacements, env.clone(), facts);
        let placement = Placement::new(groups.clone(), addresses, transport.clone(), env.clone()).run(stopped.clone());
        let opened = full_disk::open_when_there_is_room(has_room, groups.clone(), logs.clone(), bodies.clone());
        let tasks = vec![
            malle_rt::spawn(full_disk::first(opened, placement, stopped.clone())),
            malle_rt::spawn(move_replicas(groups.clone(), transport, env.clone(), stopped.clone())),
            malle_rt::spawn(upkeep.scrub.clone().run(stopped.clone())),
            malle_rt::spawn(upkeep.collector.clone().run(stopped.clone())),
            malle_rt::spawn(bodies.disk().clone().run(stopped.clone())),
            malle_rt::spawn(full_disk::give_way(
                groups.clone(),
                bodies.disk().clone(),
                stopped.clone(),
            )),
        ];
        Ok(Interior {
            mail: MailApi::new(groups.clone(), bodies.clone(), env.clone()),
            directory: directory(groups.clone(), env, ground.passwords, ground.bearers),
            cluster,
            sessions: SessionsApi::new(stopped),
            raft,
            groups,
            bodies,
            upkeep,
            logs,
            stop,
            tasks: Mutex::new(tasks),
        })
    }

    /// What front ends, operators and nodes that ask for the topology may call. Who calls is an extension of the request
    /// ([`crate::security::Peer`]).
    pub fn client_routes(&self) -> Routes {
        let mail = MailServer::new(self.mail.clone())
            .max_decoding_message_size(limits::GRPC_MESSAGE_MAX_BYTES)
            .max_encoding_message_size(limits::GRPC_MESSAGE_MAX_BYTES);
        Routes::new(mail)
            .add_service(DirectoryServer::new(self.directory.clone()))
            .add_service(ClusterServer::new(self.cluster.clone()))
            .add_service(SessionsServer::new(self.sessions.clone()))
    }

    /// What other nodes may call.
    pub fn peer_routes(&self) -> Routes {
        let rooms = PeerRooms {
            raft: self.raft.clone(),
            groups: self.groups.clone(),
            bodies: self.bodies.clone(),
        };
        let service = PeerServer::new(PeerService::new(Arc::new(rooms)))
            .max_decoding_message_size(limits::GRPC_MESSAGE_MAX_BYTES)
            .max_encoding_message_size(limits::GRPC_MESSAGE_MAX_BYTES);
        Routes::new(service)
    }

    /// Both as services that can be called without a listener.
    pub fn services(&self) -> (Services, Services) {
        (
            BoxCloneSyncService::new(self.client_routes()),
            BoxCloneSyncService::new(self.peer_routes()),
        )
    }

    /// The raft groups, for what looks at a node from outside.
    pub fn groups(&self) -> &Arc<Groups> {
        &self.groups
    }

    /// The bodies, for what looks at a node from outside.
    pub fn bodies(&self) -> &Arc<Bodies> {
        &self.bodies
    }

    pub(super) fn tells(&self, observatory: &Observatory) {
        observatory.opened(Rooms {
            groups: self.groups.clone(),
            bodies: self.bodies.clone(),
            upkeep: self.upkeep.clone(),
            logs: self.logs.clone(),
            mail: self.mail.clone(),
        });
    }

    /// Becomes true when the node stops.
    pub(super) fn stopped(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    /// Waits for this task, too, when the node stops.
    pub(super) fn keeps(&self, task: malle_rt::JoinHandle<()>) {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).push(task);
    }

    /// Becomes the reason once a journal has failed: this node acknowledges nothing any more and must leave.
    pub fn condemned(&self) -> watch::Receiver<Option<String>> {
        self.groups.duty().condemned()
    }

    /// Leaves without a clean mark, which would be a lie: gives its groups away where that is possible, and no more.
    pub async fn abandon(&self) {
        give_groups_away(&self.groups).await;
    }

    /// Stops: groups that it leads go to others, no new requests, a short while for those under way, then every group with a clean mark.
    pub async fn stop(&self) {
        give_groups_away(&self.groups).await;
        self.stop.send_replace(true);
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        let tasks = futures::future::join_all(tasks);
        if malle_rt::timeout(DRAIN, tasks).await.is_err() {
            tracing::info!("some streams are still open; their callers go elsewhere");
        }
        self.groups.close().await;
        self.bodies.close().await;
        self.logs.journal().close().await;
    }
}

fn directory(groups: Arc<Groups>, env: Env, effort: Effort, bearers: Option<Arc<Bearers>>) -> DirectoryApi {
    DirectoryApi::new(groups, env.clone(), Passwords::new(env, effort), bearers)
}

fn facts(config: &Config, disk: Arc<dyn Disk>) -> NodeFacts {
    NodeFacts {
        node: config.node,
        region: config.region.clone(),
        disk,
        data_dir: config.data_dir.clone(),
        started: malle_rt::now(),
        telemetry: config.telemetry.listen,
    }
}

/// The raft log and the volumes, read side by side.
async fn open_journals(
    config: &Config,
    ground: &Ground,
    transport: &Arc<dyn Transport>,
) -> anyhow::Result<(Arc<Logs>, Arc<Bodies>)> {
    let (disk, dir, node) = (ground.disk.clone(), config.data_dir.join("log"), config.node);
    let segment_bytes = ground.log_segment_bytes;
    let logs = malle_rt::blocking(move || Logs::open_with(disk, &dir, node, segment_bytes));
    let (disk, dir, transport) = (ground.disk.clone(), config.data_dir.join("volumes"), transport.clone());
    let volume_bytes = ground.volume_bytes;
    let bodies = async move { Bodies::open_with(disk, &dir, node, transport, volume_bytes) };
    let (logs, bodies) = futures::join!(logs, bodies);
    Ok((Arc::new(logs.context("raft log")?), bodies.context("body volumes")?))
}

/// Every node follows the directory; the others open as it says, and those that are known open before anybody is let in.
pub(super) async fn open_groups(groups: &Arc<Groups>, logs: &Logs) -> anyhow::Result<()> {
    groups.open(ShardId::DIRECTORY).await.context("directory")?;
    groups.open_all(logs.found()).await;
    Ok(())
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
