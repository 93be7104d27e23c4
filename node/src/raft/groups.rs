//! The groups that have a replica on this node: opening, watching over, and closing them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};

use futures::StreamExt as _;
use futures::future::BoxFuture;
use malle_journal::Disk;
use malle_machine::format::Record;
use malle_machine::{directory, format, shard};
use malle_proto::v1::RaftFrame;
use malle_proto::{NodeId, ShardId, limits};
use malle_rt::Instant;
use openraft::async_runtime::WatchReceiver;
use tokio::sync::Semaphore;

use super::group::{Common, Group};
use super::keep::{ViewCare, keep_log_short, keep_view_sound};
use super::network::Network;
use super::restore::{Wanting, ask_for_a_snapshot};
use super::riders::Keeper;
use super::{Duty, GroupError, HandedOver, Timing};
use crate::bodies::{Bodies, GroupBodies};
use crate::env::Env;
use crate::log::{GroupLog, Logs};
use crate::peers::{PeerAddresses, RaftCall, Transport};
use crate::state::{GroupState, Indexes, OpenError, Settings, StateMachine};

/// Times a view is rebuilt in place before the group stays down: beyond that the disk is to blame.
const REBUILDS_IN_PLACE_MAX: u32 = 3;

/// How much log a group keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogKept {
    /// Bytes of log behind a checkpoint that make the next one due.
    pub checkpoint_bytes: u64,
    /// Entries that stay behind a checkpoint, for a follower that was away: further behind, it gets a snapshot.
    pub entries: u64,
}

impl Default for LogKept {
    /// The product's.
    fn default() -> Self {
        LogKept {
            checkpoint_bytes: limits::CHECKPOINT_LOG_BYTES,
            entries: limits::LOG_KEPT_ENTRIES,
        }
    }
}

/// What groups are made of.
#[derive(Clone)]
pub struct GroupsSettings {
    /// This node.
    pub node: NodeId,
    /// Trust domain of the cluster.
    pub cluster: String,
    /// Heartbeats and elections.
    pub timing: Timing,
    /// How much log a group keeps.
    pub log: LogKept,
    /// Clock and entropy.
    pub env: Env,
    /// For checkpoints.
    pub disk: Arc<dyn Disk>,
    /// Directory of the groups' checkpoints.
    pub dir: PathBuf,
    /// The log of every group.
    pub logs: Arc<Logs>,
    /// The view of every group.
    pub indexes: Arc<dyn Indexes>,
    /// Bodies of every group.
    pub bodies: Arc<Bodies>,
    /// To the peers.
    pub transport: Arc<dyn Transport>,
    /// Where the peers are.
    pub addresses: Arc<PeerAddresses>,
}

/// A group that did not open.
struct Unopened {
    error: GroupError,
    /// A member's snapshot would help.
    wants_snapshot: bool,
}

/// Every group of this node.
pub struct Groups {
    pub(super) settings: GroupsSettings,
    open: RwLock<BTreeMap<ShardId, Arc<Group>>>,
    /// Why a group that belongs here is not open.
    failed: RwLock<BTreeMap<ShardId, String>>,
    /// Of these, the ones that wait for a member's snapshot.
    pub(super) wanting: Wanting,
    /// Groups whose view broke at the end of the disk: until it has room nobody else opens them, a leader's frame included.
    waiting: RwLock<BTreeSet<ShardId>>,
    duty: Arc<Duty>,
    /// Views that were rebuilt since the start.
    rebuilds: AtomicU64,
    care: Arc<ViewCare>,
    /// One opening or closing at a time.
    pub(super) changing: tokio::sync::Mutex<bool>,
    /// Checkpoints that may be written now.
    checkpoints: Arc<Semaphore>,
    /// Views that may be compacted or proved now.
    compactions: Arc<Semaphore>,
}

impl Groups {
    /// None open yet.
    pub fn new(settings: GroupsSettings) -> Arc<Groups> {
        Arc::new(Groups {
            settings,
            open: RwLock::default(),
            failed: RwLock::default(),
            wanting: Wanting::default(),
            waiting: RwLock::default(),
            duty: Arc::default(),
            rebuilds: AtomicU64::default(),
            care: Arc::default(),
            changing: tokio::sync::Mutex::new(false),
            checkpoints: Arc::new(Semaphore::new(limits::CHECKPOINTS_AT_ONCE)),
            compactions: Arc::new(Semaphore::new(limits::VIEW_COMPACTIONS_AT_ONCE)),
        })
    }

    /// This node.
    pub fn node(&self) -> NodeId {
        self.settings.node
    }

    /// Whether this node may acknowledge and should lead.
    pub fn duty(&self) -> &Arc<Duty> {
        &self.duty
    }

    pub(super) fn transport(&self) -> &Arc<dyn Transport> {
        &self.settings.transport
    }

    /// The node stops, or must: it gives its groups away and stands for none again.
    pub async fn stop_leading(self: &Arc<Self>, deadline: Instant) -> HandedOver {
        self.duty.leave();
        for group in self.all() {
            group.never_stand_again();
        }
        self.hand_over_all(deadline).await
    }

    /// The group, if it is open here.
    pub fn get(&self, shard: ShardId) -> Option<Arc<Group>> {
        self.open
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&shard)
            .cloned()
    }

    /// Bodies of every group.
    pub(super) fn bodies(&self) -> &Arc<Bodies> {
        &self.settings.bodies
    }

    /// Every open group, by shard.
    pub fn all(&self) -> Vec<Arc<Group>> {
        self.open
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    /// Groups that belong here and are not open, with the reason.
    pub fn failed(&self) -> BTreeMap<ShardId, String> {
        self.failed.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Views that were rebuilt since the start.
    pub fn rebuilds(&self) -> u64 {
        self.rebuilds.load(Ordering::Relaxed)
    }

    /// Views that were copied into a fresh database since the start.
    pub fn compactions(&self) -> u64 {
        self.care.compacted.load(Ordering::Relaxed)
    }

    /// Views of which every row was read since the start, while they served.
    pub fn proofs(&self) -> u64 {
        self.care.proved.load(Ordering::Relaxed)
    }

    /// The journal's failure, when it has failed: this node acknowledges nothing any more.
    pub fn journal_failure(&self) -> Option<String> {
        self.settings.logs.journal().failed().borrow().clone()
    }

    /// Whether `leader` may make this node open its group: it holds a replica of it, and this node is no stranger to the directory.
    pub(super) async fn admits(&self, shard: ShardId, leader: NodeId) -> bool {
        let (Some(directory), node) = (self.get(ShardId::DIRECTORY), self.node()) else {
            return false;
        };
        let known = directory
            .state()
            .read(move |view| {
                let nodes = directory::read::nodes(view)?;
                let shards = directory::read::shards(view)?;
                let here = nodes.iter().any(|known| known.id == node && !known.retired);
                Ok(here
                    && shards
                        .iter()
                        .any(|(row, _)| row.id == shard && row.replicas.contains(&leader)))
            })
            .await;
        known.unwrap_or(false)
    }

    /// Proposes to the directory wherever its leader is.
    ///
    /// # Errors
    /// See [`GroupError`].
    pub async fn propose_directory(
        &self,
        op: directory::Op,
        deadline: Instant,
    ) -> Result<directory::Outcome, GroupError> {
        let group = self
            .get(ShardId::DIRECTORY)
            .ok_or_else(|| GroupError::Unavailable("the directory is not open here".into()))?;
        let leader = match group.propose_directory(op.clone(), deadline).await {
            Err(GroupError::NotLeader { leader: Some(leader) }) if leader != self.node() => leader,
            done => return done,
        };
        let command = directory::Command {
            time_ms: self.settings.env.now_ms(),
            op,
        };
        self.forward(leader, ShardId::DIRECTORY, &command, deadline).await
    }

    /// Proposes a command of collection to a shard wherever its leader is.
    ///
    /// # Errors
    /// See [`GroupError`].
    pub(super) async fn propose_collection(
        &self,
        shard: ShardId,
        op: shard::Op,
        deadline: Instant,
    ) -> Result<shard::Outcome, GroupError> {
        let group = self
            .get(shard)
            .ok_or_else(|| GroupError::Unavailable(format!("shard {shard} is not open here")))?;
        let leader = match group.propose_shard(op.clone(), deadline).await {
            Err(GroupError::NotLeader { leader: Some(leader) }) if leader != self.node() => leader,
            done => return done,
        };
        let command = shard::Command {
            time_ms: self.settings.env.now_ms(),
            op,
        };
        self.forward(leader, shard, &command, deadline).await
    }

    /// Sends a command to the node that leads, and gives its outcome.
    async fn forward<T: Record>(
        &self,
        leader: NodeId,
        shard: ShardId,
        command: &impl Record,
        deadline: Instant,
    ) -> Result<T, GroupError> {
        let frame = RaftFrame {
            shard: shard.0,
            from: self.node().0,
            to: leader.0,
            payload_data: format::encode(command),
            ..RaftFrame::default()
        };
        let reply = self
            .settings
            .transport
            .call(leader, RaftCall::Propose, frame, deadline)
            .await;
        let reply = reply.map_err(|error| GroupError::Unavailable(error.to_string()))?;
        super::network::answer(&reply).map_err(GroupError::Unavailable)
    }

    /// Opens a group, or gives the open one.
    ///
    /// # Errors
    /// `Stopped` with the reason, also when this node is closing.
    pub async fn open(self: &Arc<Self>, shard: ShardId) -> Result<Arc<Group>, GroupError> {
        let closing = self.changing.lock().await;
        if *closing {
            return Err(GroupError::Stopped("this node is going down".into()));
        }
        if let Some(group) = self.get(shard) {
            return Ok(group);
        }
        if self.wants(shard) {
            return Err(GroupError::Stopped(format!(
                "shard {shard} waits for a member's snapshot"
            )));
        }
        if self.waiting().contains(&shard) {
            return Err(GroupError::Stopped("the group waits for room on the disk".into()));
        }
        if self.all().len() >= limits::GROUPS_PER_NODE_MAX {
            return Err(GroupError::Stopped(format!(
                "{} groups are the limit of a node",
                limits::GROUPS_PER_NODE_MAX
            )));
        }
        let log = self.settings.logs.group(shard);
        self.clone().start(shard, log, 0).await
    }

    /// Opens those of these groups that are not open yet, side by side: at a start the time goes into waiting for the disk.
    /// Those that do not open stand in [`Groups::failed`].
    pub async fn open_all(self: &Arc<Self>, mut shards: Vec<ShardId>) {
        let closing = self.changing.lock().await;
        if *closing {
            return;
        }
        shards.retain(|&shard| self.get(shard).is_none());
        let room = limits::GROUPS_PER_NODE_MAX.saturating_sub(self.all().len());
        if shards.len() > room {
            tracing::error!(
                found = shards.len(),
                room,
                "more groups have a log here than a node may have"
            );
        }
        let opened = futures::stream::iter(shards.into_iter().take(room)).map(|shard| {
            let log = self.settings.logs.group(shard);
            self.clone().start(shard, log, 0)
        });
        // Each error was told of and stands in `failed`.
        opened
            .buffer_unordered(limits::GROUPS_OPENED_AT_ONCE)
            .map(drop)
            .collect::<()>()
            .await;
    }

    /// Whether this group waits for a member's snapshot.
    pub(super) fn wants(&self, shard: ShardId) -> bool {
        self.wanting.has(shard)
    }

    /// Every other node whose address is known.
    pub(super) fn peers(&self) -> Vec<NodeId> {
        let known = self.settings.addresses.nodes();
        known.into_iter().filter(|node| *node != self.node()).collect()
    }

    pub(super) fn take_open(&self, shard: ShardId) -> Option<Arc<Group>> {
        self.open.write().unwrap_or_else(PoisonError::into_inner).remove(&shard)
    }

    /// Nobody asks for the group here any more.
    pub(super) fn forget_failure(&self, shard: ShardId) {
        self.wanting.end(shard);
        self.failed
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&shard);
    }

    pub(super) fn dir_of(&self, shard: ShardId) -> PathBuf {
        self.settings.dir.join(format!("shard-{shard}"))
    }

    /// Boxed, because the task that watches over a group starts it again.
    pub(super) fn start(
        self: Arc<Self>,
        shard: ShardId,
        log: GroupLog,
        rebuilt: u32,
    ) -> BoxFuture<'static, Result<Arc<Group>, GroupError>> {
        Box::pin(async move {
            let opened = self.build(shard, log.clone(), rebuilt > 0).await;
            let mut failed = self.failed.write().unwrap_or_else(PoisonError::into_inner);
            match opened {
                Ok(group) => {
                    failed.remove(&shard);
                    self.open
                        .write()
                        .unwrap_or_else(PoisonError::into_inner)
                        .insert(shard, group.clone());
                    malle_rt::spawn(watch_over(self.clone(), group.clone(), log.clone(), rebuilt));
                    malle_rt::spawn(keep_view_sound(
                        Arc::downgrade(&group),
                        self.compactions.clone(),
                        self.care.clone(),
                    ));
                    malle_rt::spawn(keep_log_short(
                        Arc::downgrade(&group),
                        log,
                        self.settings.log.entries,
                        self.checkpoints.clone(),
                    ));
                    Ok(group)
                }
                Err(Unopened { error, wants_snapshot }) => {
                    tracing::error!(%shard, %error, "the group does not open");
                    failed.insert(shard, error.to_string());
                    if wants_snapshot && self.wanting.begin(shard) {
                        malle_rt::spawn(ask_for_a_snapshot(Arc::downgrade(&self), shard));
                    }
                    Err(error)
                }
            }
        })
    }

    fn does_not_open(&self, shard: ShardId, reason: String) {
        let mut failed = self.failed.write().unwrap_or_else(PoisonError::into_inner);
        failed.insert(shard, reason);
    }

    fn waiting(&self) -> RwLockWriteGuard<'_, BTreeSet<ShardId>> {
        self.waiting.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns once a view can be opened, alone to open it; until then the group stands in [`Groups::failed`], and others may open theirs.
    async fn wait_for_room<'a>(
        &'a self,
        shard: ShardId,
        reason: &str,
        changing: tokio::sync::MutexGuard<'a, bool>,
    ) -> tokio::sync::MutexGuard<'a, bool> {
        tracing::error!(%shard, "the disk has no room for rows: the group waits for some");
        self.does_not_open(shard, format!("it waits for room on the disk: {reason}"));
        self.waiting().insert(shard);
        drop(changing);
        self.bodies().disk().room_for_rows().await;
        let changing = self.changing.lock().await;
        self.waiting().remove(&shard);
        changing
    }

    async fn build(&self, shard: ShardId, log: GroupLog, throw_view_away: bool) -> Result<Arc<Group>, Unopened> {
        let stopped = |error: &dyn std::fmt::Display| Unopened {
            error: GroupError::Stopped(error.to_string()),
            wants_snapshot: false,
        };
        let settings = &self.settings;
        let bodies = GroupBodies::new(shard, settings.bodies.clone());
        log.keep_riders_with(Arc::new(Keeper {
            shard,
            bodies: settings.bodies.clone(),
        }));
        let state = GroupState::open(
            shard,
            log.clone(),
            Settings {
                env: settings.env.clone(),
                disk: settings.disk.clone(),
                dir: self.dir_of(shard),
                checkpoint_log_bytes: settings.log.checkpoint_bytes,
                indexes: settings.indexes.clone(),
                bodies: bodies.clone(),
            },
            throw_view_away,
        )
        .await
        .map_err(|error| Unopened {
            wants_snapshot: matches!(error, OpenError::NoCheckpoint { .. }),
            ..stopped(&error)
        })?;
        self.rebuilds.fetch_add(state.rebuilds(), Ordering::Relaxed);
        let network = Network {
            transport: settings.transport.clone(),
            addresses: settings.addresses.clone(),
            shard,
            node: settings.node,
            disk: settings.bodies.disk().clone(),
        };
        let config = settings
            .timing
            .config(&settings.cluster, settings.log.entries)
            .map_err(|error| stopped(&error))?;
        let machine = StateMachine(state.clone());
        let raft = openraft::Raft::new(settings.node.0, Arc::new(config), network, log, machine)
            .await
            .map_err(|error| stopped(&error))?;
        // Before its task has begun raft tells of a group without a term and without members.
        raft.with_raft_state(|_| ()).await.map_err(|error| stopped(&error))?;
        let group = Arc::new(Group::new(
            shard,
            settings.node,
            Common {
                env: settings.env.clone(),
                duty: self.duty.clone(),
                transport: settings.transport.clone(),
            },
            raft,
            state,
            bodies.clone(),
        ));
        let weak = Arc::downgrade(&group);
        let this = settings.node;
        bodies.set_sources(move || {
            let members = weak.upgrade().map(|group| group.nodes()).unwrap_or_default();
            members.into_keys().filter(|node| *node != this).collect()
        });
        if shard != ShardId::DIRECTORY {
            group.bodies_after_snapshot().await;
        }
        Ok(group)
    }

    /// Stops every group cleanly. No group opens afterwards.
    pub async fn close(&self) {
        let mut closing = self.changing.lock().await;
        *closing = true;
        self.wanting.end_all();
        let groups = std::mem::take(&mut *self.open.write().unwrap_or_else(PoisonError::into_inner));
        futures::future::join_all(groups.values().map(|group| group.close(true))).await;
    }
}

/// Reopens a group whose view failed, with a view built anew from checkpoint and log.
async fn watch_over(groups: Arc<Groups>, group: Arc<Group>, log: GroupLog, mut rebuilt: u32) {
    let shard = group.shard();
    let mut fault = group.state().fault();
    let mut lost_write = group.state().lost_write();
    let reason = loop {
        if let Some(reason) = fault.borrow_and_update().clone() {
            break reason;
        }
        let raft_ended = async {
            let mut metrics = group.raft().metrics();
            loop {
                let state = metrics.borrow_watched().running_state.clone();
                if let Err(fatal) = state {
                    return fatal.to_string();
                }
                if metrics.changed().await.is_err() {
                    return "raft ended".to_owned();
                }
            }
        };
        tokio::select! {
            biased;
            changed = fault.changed() => if changed.is_err() { return },
            // A checkpoint that fails ends raft as well: this is looked at first.
            changed = lost_write.changed() => match lost_write.borrow_and_update().clone() {
                Some(reason) if changed.is_ok() => groups.duty().condemn(&reason),
                _ => return,
            },
            // A fault of the view ends raft too and is told first; without one raft has stopped for another reason.
            ended = raft_ended => {
                if let Some(reason) = fault.borrow().clone() {
                    break reason;
                }
                if groups.get(shard).is_some_and(|open| Arc::ptr_eq(&open, &group)) {
                    tracing::error!(%shard, reason = ended, "the group stopped");
                    groups.does_not_open(shard, ended);
                }
                return;
            }
        }
    };
    let mut closing = groups.changing.lock().await;
    if *closing {
        return;
    }
    groups
        .open
        .write()
        .unwrap_or_else(PoisonError::into_inner)
        .remove(&shard);
    group.close(false).await;
    drop(group);
    if rebuilt >= REBUILDS_IN_PLACE_MAX || groups.journal_failure().is_some() {
        groups.does_not_open(shard, reason);
        return;
    }
    if !groups.bodies().disk().has_room_for_rows().await {
        closing = groups.wait_for_room(shard, &reason, closing).await;
        if *closing {
            return;
        }
        // The end of the disk broke the view, and says nothing of the next one.
        rebuilt = 0;
    }
    // The result stands in `failed` or in `open`; there is nobody to hand it to.
    let _ = groups.clone().start(shard, log, rebuilt + 1).await;
}
