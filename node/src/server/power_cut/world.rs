//! A cluster of three in one process: the node's own rooms on disks that lose what was not synced, joined by calls instead of sockets.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use malle_journal::{Disk, MemoryDisk};
use malle_machine::shard;
use malle_proto::v1::{GroupStatus, RaftFrame};
use malle_proto::{AccountId, BodyHash, MailboxId, NodeId, ShardId, limits};
use malle_rt::Instant;
use tokio::sync::{mpsc, watch};

use super::super::PeerRooms;
use super::super::full_disk::give_way;
use super::super::leave::{Watched, give_groups_away, watch_journals};
use super::plug::Plug;
use crate::api::MailApi;
use crate::bodies::{Bodies, CollectTimes, Collector};
use crate::env::Env;
use crate::log::Logs;
use crate::peers::{AppendStream, PeerAddresses, PeerError, PeerHandler, RaftCall, StoredBody, Transport};
use crate::raft::{Group, Groups, GroupsSettings, LogKept, RaftServer, Timing};
use crate::state::{Indexes as _, MemoryIndexes};

pub(in crate::server) const SHARD: ShardId = ShardId(3);
/// Small segments: every run recycles some.
const LOG_SEGMENT_BYTES: u64 = 1 << 20;
pub(in crate::server) const VOLUME_SEGMENT_BYTES: u64 = 512 << 10;
/// Collection in a hurry: what an expunge leaves is freed within the life of a node. The clock of these worlds stands still, so no step
/// waits for another by time.
const COLLECT: CollectTimes = CollectTimes {
    idle_ms: 0,
    released_ms: 0,
    forgotten_ms: 0,
    first: Duration::ZERO,
    every: Duration::from_millis(20),
    look: Duration::from_millis(20),
    pause: Duration::from_millis(1),
};
/// Leaders are missed for a fifth of a second, not for seconds: hundreds of cuts are waited for.
const TIMING: Timing = Timing {
    heartbeat_ms: 25,
    election_min_ms: 150,
    election_max_ms: 200,
};

pub(in crate::server) fn soon() -> Instant {
    malle_rt::now() + Duration::from_secs(30)
}

/// Between two looks at a condition, and before a client asks again.
pub(in crate::server) async fn pause() {
    malle_rt::sleep(Duration::from_millis(2)).await;
}

/// Numbers that follow from a seed (splitmix64).
#[derive(Clone)]
pub(in crate::server) struct Chance(pub u64);

impl Chance {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, below: u64) -> u64 {
        self.next() % below
    }
}

/// Who is switched on.
#[derive(Default)]
pub(in crate::server) struct Net {
    pub on: RwLock<BTreeMap<NodeId, Life>>,
}

/// What answers for a node, from one start to the next cut.
#[derive(Clone)]
pub(in crate::server) struct Life {
    pub rooms: Arc<PeerRooms>,
    pub alive: Arc<AtomicBool>,
}

impl Life {
    fn is_on(&self) -> bool {
        self.alive.load(Ordering::SeqCst)
    }
}

/// One life of a node on the net: what it says after its power was cut is heard by nobody.
pub(in crate::server) struct Wire {
    pub net: Arc<Net>,
    pub alive: Arc<AtomicBool>,
}

impl Wire {
    fn gone(node: NodeId) -> PeerError {
        PeerError::Unreachable {
            node,
            reason: "no power".into(),
        }
    }

    fn to(&self, node: NodeId) -> Result<Life, PeerError> {
        let there = self.net.on.read().unwrap_or_else(PoisonError::into_inner);
        let life = there.get(&node).filter(|life| life.is_on()).cloned();
        life.filter(|_| self.alive.load(Ordering::SeqCst))
            .ok_or(Wire::gone(node))
    }

    /// An answer that comes after the end of its asker or of its giver, or after the deadline, is none.
    async fn within<T: Send>(
        &self,
        node: NodeId,
        peer: &Life,
        deadline: Instant,
        answer: impl Future<Output = T> + Send,
    ) -> Result<T, PeerError> {
        let answer = malle_rt::timeout_at(deadline, answer).await;
        if !peer.is_on() || !self.alive.load(Ordering::SeqCst) {
            return Err(Wire::gone(node));
        }
        answer.map_err(|_| PeerError::Deadline(node))
    }
}

#[async_trait]
impl Transport for Wire {
    async fn call(
        &self,
        to: NodeId,
        call: RaftCall,
        frame: RaftFrame,
        deadline: Instant,
    ) -> Result<RaftFrame, PeerError> {
        let peer = self.to(to)?;
        let from = NodeId(frame.from);
        self.within(to, &peer, deadline, peer.rooms.call(from, call, frame))
            .await
    }

    async fn append(&self, to: NodeId, _: Instant) -> Result<AppendStream, PeerError> {
        let peer = self.to(to)?;
        let (out, mut sent) = mpsc::channel::<RaftFrame>(limits::APPEND_WINDOW_REQUESTS);
        let (deliver, frames) = mpsc::channel(limits::APPEND_WINDOW_REQUESTS);
        let (answer, mut answered) = mpsc::channel(limits::APPEND_WINDOW_REQUESTS);
        let (tell, answers) = mpsc::channel(limits::APPEND_WINDOW_REQUESTS);
        let asker = self.alive.clone();
        let both_on = {
            let peer = peer.clone();
            move || peer.is_on() && asker.load(Ordering::SeqCst)
        };
        let on = both_on.clone();
        malle_rt::spawn(async move {
            let Some(first) = sent.recv().await else { return };
            let from = NodeId(first.from);
            malle_rt::spawn(async move { peer.rooms.append(from, frames, answer).await });
            let mut next = Some(first);
            while let Some(frame) = next {
                if !on() || deliver.send(frame).await.is_err() {
                    return;
                }
                next = sent.recv().await;
            }
        });
        malle_rt::spawn(async move {
            while let Some(frame) = answered.recv().await {
                if !both_on() || tell.send(Ok(frame)).await.is_err() {
                    return;
                }
            }
        });
        Ok(AppendStream { out, answers })
    }

    async fn snapshot(
        &self,
        to: NodeId,
        head: RaftFrame,
        size: u64,
        chunks: mpsc::Receiver<Bytes>,
        deadline: Instant,
    ) -> Result<RaftFrame, PeerError> {
        let peer = self.to(to)?;
        let from = NodeId(head.from);
        self.within(to, &peer, deadline, peer.rooms.snapshot(from, head, size, chunks))
            .await
    }

    async fn put_body(&self, to: NodeId, body: StoredBody, deadline: Instant) -> Result<(), PeerError> {
        let peer = self.to(to)?;
        let put = self.within(to, &peer, deadline, peer.rooms.put_body(body)).await?;
        put.map_err(|reason| PeerError::Refused { node: to, reason })
    }

    async fn get_body(
        &self,
        to: NodeId,
        shard: ShardId,
        hash: BodyHash,
        deadline: Instant,
    ) -> Result<StoredBody, PeerError> {
        let peer = self.to(to)?;
        let got = self
            .within(to, &peer, deadline, peer.rooms.get_body(shard, hash))
            .await?;
        let refused = |reason| PeerError::Refused { node: to, reason };
        got.map_err(refused)?.ok_or_else(|| refused("not here".into()))
    }

    async fn replica(&self, to: NodeId, shard: ShardId, deadline: Instant) -> Result<GroupStatus, PeerError> {
        let peer = self.to(to)?;
        let status = self.within(to, &peer, deadline, peer.rooms.replica(shard)).await?;
        status.ok_or(PeerError::Refused {
            node: to,
            reason: "no replica".into(),
        })
    }
}

/// A node while its power is on.
pub(in crate::server) struct Running {
    pub group: Arc<Group>,
    pub api: MailApi,
    pub bodies: Arc<Bodies>,
    pub collector: Arc<Collector>,
    pub groups: Arc<Groups>,
    alive: Arc<AtomicBool>,
    /// Its end is the end of the node's tasks.
    _stop: watch::Sender<bool>,
}

/// A node's disk and view, and the node while it is on.
pub(in crate::server) struct Machine {
    id: NodeId,
    pub disk: MemoryDisk,
    /// Its disk answers syncs without making them.
    lies: bool,
    view: Arc<MemoryIndexes>,
    running: RwLock<Option<Arc<Running>>>,
    pub rebuilds: AtomicU64,
    /// View and checkpoint are no good: when the log was purged, its next start needs a member's snapshot.
    is_rotten: AtomicBool,
    /// Starts that a member had to help with its snapshot.
    pub helped: AtomicU64,
    /// Bodies and volumes that its former lives freed.
    freed: [AtomicU64; 2],
}

/// Three machines.
pub(in crate::server) struct World {
    net: Arc<Net>,
    env: Env,
    pub machines: Vec<Machine>,
    pub accounts: Vec<(AccountId, MailboxId)>,
}

impl World {
    /// Starts three nodes with this many accounts; on disks that lie about syncs when asked for.
    pub async fn start(accounts: usize, seed: u64, lies: bool) -> Arc<World> {
        let env = Env::manual(1_800_000_000_000, seed).0;
        let machine = |id| Machine {
            id: NodeId(id),
            disk: MemoryDisk::new(),
            lies,
            view: Arc::default(),
            running: RwLock::default(),
            rebuilds: Default::default(),
            is_rotten: AtomicBool::new(false),
            helped: Default::default(),
            freed: Default::default(),
        };
        let mut world = World {
            net: Arc::default(),
            env: env.clone(),
            machines: (1..=3).map(machine).collect(),
            accounts: Vec::new(),
        };
        for machine in &world.machines {
            world.power_on(machine).await;
        }
        let members: BTreeMap<NodeId, String> = (1..=3).map(|id| (NodeId(id), format!("node-{id}"))).collect();
        let first = world.machines[0].running().expect("it was started");
        first.group.initialize(members).await.expect("a fresh group");
        let grants: Vec<shard::AccountGrant> = (0..accounts)
            .map(|_| shard::AccountGrant {
                account: env.account_id(),
                quota_bytes: limits::DEFAULT_QUOTA_BYTES,
                suspended: false,
                mailboxes: std::array::from_fn(|_| env.mailbox_id()),
            })
            .collect();
        world.accounts = grants.iter().map(|grant| (grant.account, grant.mailboxes[0])).collect();
        let world = Arc::new(world);
        let open = shard::Op::OpenAccounts {
            accounts: grants,
            through: 1,
        };
        loop {
            let leader = world.leader().await;
            if leader.group.propose_shard(open.clone(), soon()).await.is_ok() {
                return world;
            }
        }
    }

    pub async fn power_on(&self, machine: &Machine) {
        let alive = Arc::new(AtomicBool::new(true));
        let disk: Arc<dyn Disk> = Arc::new(Plug {
            disk: machine.disk.clone(),
            alive: alive.clone(),
            lies: machine.lies,
        });
        let wire: Arc<dyn Transport> = Arc::new(Wire {
            net: self.net.clone(),
            alive: alive.clone(),
        });
        let at = |name: &str| PathBuf::from("/node").join(name);
        for name in ["log", "volumes", "checkpoints", "snapshots"] {
            disk.create_dir_all(&at(name)).expect("a directory");
        }
        let bodies = Bodies::open_with(
            disk.clone(),
            &at("volumes"),
            machine.id,
            wire.clone(),
            VOLUME_SEGMENT_BYTES,
        );
        let bodies = bodies.expect("volumes open after any cut");
        let logs = Logs::open_with(disk.clone(), &at("log"), machine.id, LOG_SEGMENT_BYTES);
        let logs = Arc::new(logs.expect("the log opens after any cut"));
        let addresses = PeerAddresses::default();
        for id in 1..=3 {
            addresses.learn(NodeId(id), &format!("node-{id}"));
        }
        let groups = Groups::new(GroupsSettings {
            node: machine.id,
            cluster: "test".into(),
            timing: TIMING,
            log: LogKept::default(),
            env: self.env.clone(),
            disk: disk.clone(),
            dir: at("checkpoints"),
            logs: logs.clone(),
            indexes: machine.view.clone(),
            bodies: bodies.clone(),
            transport: wire,
            addresses: Arc::new(addresses),
        });
        let opened = groups.open(SHARD).await;
        // A purge that was not synced yet went with the cut: then the log tells everything.
        let is_log_whole = logs.group(SHARD).purged_index().is_none();
        if machine.is_rotten.swap(false, Ordering::SeqCst) && !is_log_whole {
            assert!(opened.is_err(), "nothing here says what the purged entries did");
            machine.helped.fetch_add(1, Ordering::SeqCst);
        } else {
            opened.expect("the group opens after any cut");
        }
        let rooms = PeerRooms {
            raft: RaftServer::new(groups.clone(), disk, at("snapshots")),
            groups: groups.clone(),
            bodies: bodies.clone(),
        };
        self.net.on.write().unwrap_or_else(PoisonError::into_inner).insert(
            machine.id,
            Life {
                rooms: Arc::new(rooms),
                alive: alive.clone(),
            },
        );
        let until = soon();
        let group = loop {
            if let Some(group) = groups.get(SHARD) {
                break group;
            }
            assert!(malle_rt::now() < until, "no member gave a snapshot within 30 s");
            pause().await;
        };
        machine.rebuilds.fetch_add(group.state().rebuilds(), Ordering::SeqCst);
        let (stop, stopped) = watch::channel(false);
        let watched = [("log", logs.journal()), ("volumes", bodies.journal())];
        let [log, volumes] = watched.map(|(kind, journal)| Watched::new(kind, journal));
        malle_rt::spawn(leave_when_condemned(groups.clone(), log, volumes, stopped.clone()));
        let collector = Collector::new(bodies.clone(), groups.clone(), self.env.clone(), COLLECT);
        malle_rt::spawn(collector.clone().run(stopped.clone()));
        malle_rt::spawn(bodies.disk().clone().run(stopped.clone()));
        malle_rt::spawn(give_way(groups.clone(), bodies.disk().clone(), stopped));
        let running = Running {
            collector,
            api: MailApi::new(groups.clone(), bodies.clone(), self.env.clone()),
            group,
            bodies,
            groups,
            alive,
            _stop: stop,
        };
        *machine.running.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(running));
    }

    /// Cuts the power of these machines at one moment, some of them between a write and its sync.
    pub async fn cut(&self, machines: &[&Machine], chance: &mut Chance) {
        let seed = chance.next();
        if chance.below(2) == 0 {
            for machine in machines {
                machine.disk.crash_at_sync(chance.below(4) as u32, seed);
            }
            // Under load a sync comes soon; when none does, the cut below is the one that counts.
            let until = malle_rt::now() + Duration::from_millis(50);
            while malle_rt::now() < until && machines.iter().all(|machine| machine.still_syncs()) {
                pause().await;
            }
        }
        let ended: Vec<Arc<Running>> = machines.iter().filter_map(|machine| self.switch_off(machine)).collect();
        for machine in machines {
            machine.disk.crash(chance.next());
            machine.view.cut(|below| chance.below(below));
        }
        for running in ended {
            // The dead process's tasks end by themselves; whatever they still do reaches neither disk nor net.
            malle_rt::spawn(async move { running.groups.close().await });
        }
    }

    /// Cuts the power of a machine whose disk has lied about its syncs since a moment: it is what it was then.
    pub fn put_back(&self, machine: &Machine) {
        let ended = self.switch_off(machine);
        machine.disk.crash_to_synced();
        machine.view.cut(|_| 0);
        malle_rt::spawn(async move {
            if let Some(running) = ended {
                running.groups.close().await;
            }
        });
    }

    pub fn switch_off(&self, machine: &Machine) -> Option<Arc<Running>> {
        self.net
            .on
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&machine.id);
        let running = machine.running.write().unwrap_or_else(PoisonError::into_inner).take()?;
        running.alive.store(false, Ordering::SeqCst);
        let report = running.collector.report();
        machine.freed[0].fetch_add(report.freed, Ordering::SeqCst);
        machine.freed[1].fetch_add(report.volumes_freed, Ordering::SeqCst);
        Some(running)
    }

    /// Waits for a node that leads.
    pub async fn leader(&self) -> Arc<Running> {
        let until = soon();
        loop {
            let leads = self
                .machines
                .iter()
                .filter_map(Machine::running)
                .find(|running| running.group.is_leader() && !running.is_condemned());
            if let Some(running) = leads {
                return running;
            }
            assert!(malle_rt::now() < until, "no leader within 30 s");
            pause().await;
        }
    }
}

/// What a node's program does, but for its end: what it says afterwards must not count.
async fn leave_when_condemned(groups: Arc<Groups>, log: Watched, volumes: Watched, stop: watch::Receiver<bool>) {
    watch_journals(log, volumes, groups.duty().clone(), stop).await;
    if groups.duty().condemned().borrow().is_some() {
        give_groups_away(&groups).await;
    }
}

impl Running {
    pub fn is_condemned(&self) -> bool {
        self.groups.duty().condemned().borrow().is_some()
    }
}

impl Machine {
    pub fn running(&self) -> Option<Arc<Running>> {
        self.running.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// While it is off: the view is gone, and no file of the checkpoint reads any more.
    pub async fn rot(&self) {
        self.view.set_aside(SHARD, 0).await.expect("memory does not fail");
        let dir = PathBuf::from(format!("/node/checkpoints/shard-{SHARD}"));
        for name in self.disk.list(&dir).expect("the checkpoint's directory") {
            let file = self.disk.open(&dir.join(name)).expect("a file of the checkpoint");
            let middle = file.len().expect("its length") / 2;
            let rotten = [0xA5; 16];
            file.write_at(middle, &mut [std::io::IoSlice::new(&rotten)])
                .expect("memory does not fail");
        }
        self.is_rotten.store(true, Ordering::SeqCst);
    }

    /// Bodies and volumes that all its lives have freed.
    pub fn freed(&self) -> [u64; 2] {
        let now = self.running().map(|running| running.collector.report());
        let now = now.map_or([0; 2], |report| [report.freed, report.volumes_freed]);
        std::array::from_fn(|what| self.freed[what].load(Ordering::SeqCst) + now[what])
    }

    fn still_syncs(&self) -> bool {
        let Some(running) = self.running() else { return false };
        running.groups.journal_failure().is_none() && running.bodies.failed().borrow().is_none()
    }
}
