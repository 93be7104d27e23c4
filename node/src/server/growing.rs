//! Replicas that move between real nodes in one process, while those that drive the moves lose their power at any moment.
//!
//! Four nodes with everything that decides about replicas: placement, moves and driver, over real groups, disks that lose what was not
//! synced, and calls instead of sockets. What must hold at the end: every move is over, the directory and the groups agree, every acknowledged
//! mail has its row and its body on every replica, and a node that gave its replicas away has nothing of them, also after a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use malle_journal::{Disk, MemoryDisk};
use malle_machine::directory::{self, LayoutChange, Op, RoleChange, Standing, TaskStep};
use malle_machine::shard;
use malle_proto::v1::mail_reply::Result as Reply;
use malle_proto::v1::mail_request::Call;
use malle_proto::v1::{self, MailRequest};
use malle_proto::{AccountId, BodyHash, ClusterId, NodeId, OpId, ShardId, limits};
use tokio::sync::watch;

use super::PeerRooms;
use super::power_cut::load::lmtp;
use super::power_cut::world::{Chance, Life, Net, VOLUME_SEGMENT_BYTES, Wire, pause, soon};
use crate::api::MailApi;
use crate::bodies::Bodies;
use crate::env::{Env, ManualClock};
use crate::log::Logs;
use crate::peers::{PeerAddresses, Transport};
use crate::placement::{Placement, move_replicas};
use crate::raft::{Barrier, Groups, GroupsSettings, LogKept, RaftServer, Timing};
use crate::state::MemoryIndexes;

const SHARDS: [ShardId; 2] = [ShardId(1), ShardId(2)];
/// Accounts, half of them in each shard.
const ACCOUNTS: usize = 4;
const TIMING: Timing = Timing {
    heartbeat_ms: 40,
    election_min_ms: 250,
    election_max_ms: 400,
};
/// Everything that is waited for takes seconds; a busy machine may take longer.
const PATIENCE: Duration = Duration::from_secs(120);

struct Running {
    groups: Arc<Groups>,
    bodies: Arc<Bodies>,
    logs: Arc<Logs>,
    api: MailApi,
    alive: Arc<AtomicBool>,
    /// Its end is the end of the node's tasks.
    stop: watch::Sender<bool>,
}

struct Machine {
    id: NodeId,
    disk: MemoryDisk,
    view: Arc<MemoryIndexes>,
    running: RwLock<Option<Arc<Running>>>,
}

impl Machine {
    fn running(&self) -> Option<Arc<Running>> {
        self.running.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

struct World {
    net: Arc<Net>,
    env: Env,
    clock: Arc<ManualClock>,
    machines: Vec<Machine>,
    /// Mails that were acknowledged.
    promised: Mutex<BTreeSet<(ShardId, BodyHash)>>,
    accounts: Vec<(ShardId, AccountId)>,
}

fn address(node: u64) -> String {
    format!("node-{node}")
}

impl World {
    /// Three nodes with two shards, and a fourth machine that is off.
    async fn start(seed: u64) -> Arc<World> {
        let (env, clock) = Env::manual(1_800_000_000_000, seed);
        let machine = |id| Machine {
            id: NodeId(id),
            disk: MemoryDisk::new(),
            view: Arc::default(),
            running: RwLock::default(),
        };
        let accounts = (0..ACCOUNTS).map(|number| (SHARDS[number % SHARDS.len()], env.account_id()));
        let world = Arc::new(World {
            net: Arc::default(),
            accounts: accounts.collect(),
            env,
            clock,
            machines: (1..=4).map(machine).collect(),
            promised: Mutex::default(),
        });
        for machine in &world.machines[..3] {
            world.power_on(machine).await;
        }
        let first = world.machines[0].running().expect("it was started");
        let directory = first.groups.get(ShardId::DIRECTORY).expect("it is open");
        let members: BTreeMap<NodeId, String> = (1..=3).map(|id| (NodeId(id), address(id))).collect();
        directory.initialize(members).await.expect("a fresh group");
        world.command(world.init()).await;
        for (number, (shard, account)) in world.accounts.iter().enumerate() {
            world
                .command(Op::AccountCreate {
                    op_id: world.env.op_id(),
                    account: *account,
                    address: format!("u{number}@example.org"),
                    password_hash: None,
                    quota_bytes: limits::DEFAULT_QUOTA_BYTES,
                    shard: Some(*shard),
                    region: None,
                })
                .await;
        }
        world
    }

    fn init(&self) -> Op {
        let node = |id: u64| directory::Node {
            id: NodeId(id),
            region: "nord".into(),
            zone: format!("z{id}"),
            client_address: address(id),
            peer_address: address(id),
            retired: false,
        };
        let shard = |id: ShardId, replicas: [u64; 3]| directory::Shard {
            id,
            replicas: replicas.map(NodeId).to_vec(),
            home_region: "nord".into(),
            epoch: 1,
        };
        Op::Init {
            cluster: ClusterId([1; 16]),
            name: "test".into(),
            nodes: (1..=4).map(node).collect(),
            shards: vec![shard(SHARDS[0], [3, 1, 2]), shard(SHARDS[1], [2, 3, 1])],
            token_key: self.env.token_key(1),
        }
    }

    async fn power_on(&self, machine: &Machine) {
        let alive = Arc::new(AtomicBool::new(true));
        let disk: Arc<dyn Disk> = Arc::new(super::power_cut::plug::Plug {
            disk: machine.disk.clone(),
            alive: alive.clone(),
            lies: false,
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
        )
        .expect("volumes open after any cut");
        let logs = Arc::new(Logs::open_with(disk.clone(), &at("log"), machine.id, 1 << 20).expect("the log opens"));
        let addresses = Arc::new(PeerAddresses::default());
        for id in 1..=4 {
            addresses.learn(NodeId(id), &address(id));
        }
        let groups = Groups::new(GroupsSettings {
            node: machine.id,
            cluster: "test".into(),
            timing: TIMING,
            log: LogKept {
                // What joins late gets a snapshot and a tail of the log.
                entries: 20,
                ..LogKept::default()
            },
            env: self.env.clone(),
            disk: disk.clone(),
            dir: at("checkpoints"),
            logs: logs.clone(),
            indexes: machine.view.clone(),
            bodies: bodies.clone(),
            transport: wire.clone(),
            addresses: addresses.clone(),
        });
        groups.open(ShardId::DIRECTORY).await.expect("the directory opens");
        groups.open_all(logs.found()).await;
        let rooms = PeerRooms {
            raft: RaftServer::new(groups.clone(), disk, at("snapshots")),
            groups: groups.clone(),
            bodies: bodies.clone(),
        };
        let life = Life {
            rooms: Arc::new(rooms),
            alive: alive.clone(),
        };
        let mut on = self.net.on.write().unwrap_or_else(PoisonError::into_inner);
        on.insert(machine.id, life);
        drop(on);
        let (stop, stopped) = watch::channel(false);
        let placement = Placement::new(groups.clone(), addresses, wire.clone(), self.env.clone());
        malle_rt::spawn(placement.run(stopped.clone()));
        malle_rt::spawn(move_replicas(groups.clone(), wire, self.env.clone(), stopped));
        let running = Running {
            api: MailApi::new(groups.clone(), bodies.clone(), self.env.clone()),
            groups,
            bodies,
            logs,
            alive,
            stop,
        };
        *machine.running.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(running));
    }

    /// Cuts the power of a machine: what was not synced is gone, or not.
    fn cut(&self, machine: &Machine, chance: &mut Chance) {
        let mut on = self.net.on.write().unwrap_or_else(PoisonError::into_inner);
        on.remove(&machine.id);
        drop(on);
        let Some(running) = machine.running.write().unwrap_or_else(PoisonError::into_inner).take() else {
            return;
        };
        running.alive.store(false, Ordering::SeqCst);
        machine.disk.crash(chance.next());
        machine.view.cut(|below| chance.below(below));
        // The dead process's tasks end by themselves; whatever they still do reaches neither disk nor net.
        malle_rt::spawn(async move {
            let _ = running.stop.send(true);
            running.groups.close().await;
        });
    }

    /// Who leads the group, among those that are on.
    fn leader_of(&self, shard: ShardId) -> Option<(&Machine, Arc<Running>)> {
        self.machines.iter().find_map(|machine| {
            let running = machine.running()?;
            let leads = running.groups.get(shard).is_some_and(|group| group.is_leader());
            leads.then_some((machine, running))
        })
    }

    /// Has the directory do something, however often it must be asked.
    async fn command(&self, op: Op) {
        let until = malle_rt::now() + PATIENCE;
        loop {
            if let Some((_, leader)) = self.leader_of(ShardId::DIRECTORY) {
                match leader.groups.propose_directory(op.clone(), soon()).await {
                    Ok(directory::Outcome::Refused(refusal)) => panic!("{op:?}: {refusal}"),
                    Ok(_) => return,
                    Err(_) => {}
                }
            }
            assert!(malle_rt::now() < until, "nobody takes {op:?}");
            pause().await;
        }
    }

    /// Delivers a mail, repeating it under its op id until it is acknowledged.
    async fn deliver(&self, number: u64) {
        let (shard, account) = self.accounts[number as usize % ACCOUNTS];
        // Every eighth is larger than what rides with its entry.
        let words = if number.is_multiple_of(8) { 10_000 } else { 100 };
        let mut mail = format!("Message-ID: <{number}@example.org>\r\nSubject: mail\r\n\r\n").into_bytes();
        let mut chance = Chance(number);
        (0..words).for_each(|_| mail.extend_from_slice(&chance.next().to_le_bytes()));
        let op = OpId(std::array::from_fn(|place| number.to_le_bytes()[place % 8]));
        let request = MailRequest {
            shard: shard.0,
            deadline_ms: 3_000,
            call: Some(Call::Deliver(v1::Deliver {
                recipients: vec![v1::Recipient {
                    account: account.to_vec().into(),
                    op_id: op.0.to_vec().into(),
                    ..v1::Recipient::default()
                }],
                body: Some(v1::Body {
                    source: Some(v1::body::Source::Inline(mail.clone().into())),
                }),
            })),
            ..MailRequest::default()
        };
        let until = malle_rt::now() + PATIENCE;
        loop {
            if let Some((_, leader)) = self.leader_of(shard)
                && let Some(Reply::Deliver(reply)) = leader.api.answer(&lmtp(), request.clone()).await.result
                && let Some(v1::recipient_outcome::Outcome::Delivered(_)) = &reply.outcomes[0].outcome
            {
                let mut promised = self.promised.lock().unwrap_or_else(PoisonError::into_inner);
                promised.insert((shard, Bodies::hash_of(&mail)));
                return;
            }
            assert!(malle_rt::now() < until, "mail {number} is never acknowledged");
            pause().await;
        }
    }

    async fn layout(&self, weights: &[(u64, u32)]) {
        let role = |(node, weight): &(u64, u32)| RoleChange {
            node: NodeId(*node),
            weight: Some(*weight),
            region: None,
            zone: None,
        };
        let change = LayoutChange {
            roles: weights.iter().map(role).collect(),
            ..LayoutChange::default()
        };
        self.command(Op::LayoutStage { change }).await;
        let (_, leader) = self.leader_of(ShardId::DIRECTORY).expect("it was just asked");
        let directory = leader.groups.get(ShardId::DIRECTORY).expect("it leads it");
        let staged = directory.read(Barrier::Local, soon(), directory::read::staged).await;
        let staged = staged.expect("it reads").expect("it was staged");
        self.command(Op::LayoutApply {
            version: staged.version,
            by: "test".into(),
            break_goal: None,
        })
        .await;
    }

    /// The directory's word: the nodes of each shard, and how many moves are not over.
    async fn replicas(&self) -> Option<(Vec<BTreeSet<u64>>, usize)> {
        let (_, leader) = self.leader_of(ShardId::DIRECTORY)?;
        let directory = leader.groups.get(ShardId::DIRECTORY)?;
        let read = directory.read(Barrier::Local, soon(), |view| {
            let shards = directory::read::shards(view)?;
            let tasks = directory::read::tasks(view)?;
            let running = tasks.iter().filter(|task| !task.step.is_over()).count();
            Ok((shards, running))
        });
        let (shards, running) = read.await.ok()?;
        let nodes = shards
            .into_iter()
            .map(|(shard, _)| shard.replicas.iter().map(|node| node.0).collect());
        Some((nodes.collect(), running))
    }

    /// Waits until every shard has its replicas on these nodes, and nothing moves.
    async fn until_on(&self, nodes: &[u64]) {
        let wanted: BTreeSet<u64> = nodes.iter().copied().collect();
        let until = malle_rt::now() + PATIENCE;
        loop {
            let found = self.replicas().await;
            if let Some((shards, 0)) = &found
                && shards.iter().all(|shard| *shard == wanted)
            {
                return;
            }
            assert!(malle_rt::now() < until, "replicas on {nodes:?}: {found:?}");
            pause().await;
        }
    }

    /// Waits until a node has nothing of any shard: no group, no log, no body.
    async fn until_empty(&self, machine: &Machine) {
        let until = malle_rt::now() + PATIENCE;
        loop {
            let running = machine.running().expect("it is on");
            let groups = SHARDS.iter().any(|shard| running.groups.get(*shard).is_some());
            let bodies = running.bodies.shards();
            if !groups && bodies.is_empty() && running.logs.found().is_empty() {
                return;
            }
            let (id, failed) = (machine.id, running.groups.failed());
            assert!(
                malle_rt::now() < until,
                "node {id}: groups {groups} ({failed:?}), bodies of {bodies:?}"
            );
            pause().await;
        }
    }

    /// Waits until every acknowledged mail has its row and its body on all of these nodes.
    async fn until_whole(&self, nodes: &[u64]) {
        let promised = self.promised.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let until = malle_rt::now() + PATIENCE;
        for node in nodes {
            let machine = &self.machines[*node as usize - 1];
            loop {
                let running = machine.running().expect("it is on");
                let mut lacking = promised.clone();
                for shard in SHARDS {
                    let Some(group) = running.groups.get(shard) else {
                        continue;
                    };
                    let named = group.read(Barrier::Local, soon(), |view| {
                        let mut named = Vec::new();
                        shard::read::bodies(view, &mut |hash, references, _| {
                            named.extend((references > 0).then_some(hash));
                            Ok(())
                        })?;
                        Ok(named)
                    });
                    for hash in named.await.unwrap_or_default() {
                        if running.bodies.has(shard, hash) {
                            lacking.remove(&(shard, hash));
                        }
                    }
                }
                if lacking.is_empty() {
                    break;
                }
                let (lacks, of) = (lacking.len(), promised.len());
                assert!(malle_rt::now() < until, "node {node} lacks {lacks} of {of} mails");
                pause().await;
            }
        }
    }
}

async fn pauses(count: u64) {
    for _ in 0..count {
        pause().await;
    }
}

/// Delivers until it is told to stop; gives how many mails there were.
async fn mail(world: Arc<World>, stop: watch::Receiver<bool>, first: u64) -> u64 {
    let mut number = first;
    while !*stop.borrow() {
        world.deliver(number).await;
        number += 1;
        pauses(5).await;
    }
    number
}

/// Cuts the power of whoever drives: the leader of the directory or of a shard, one at a time, for as long as something moves.
async fn cut_drivers(world: &World, cuts: u64, chance: &mut Chance) {
    for _ in 0..cuts {
        pauses(150 + chance.below(450)).await;
        let of = [ShardId::DIRECTORY, SHARDS[0], SHARDS[1]][chance.below(3) as usize];
        let Some((machine, _)) = world.leader_of(of) else {
            continue;
        };
        world.cut(machine, chance);
        pauses(chance.below(300)).await;
        world.power_on(machine).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_move_whoever_loses_power_and_leave_nothing_behind() {
    let seed = 11;
    let mut chance = Chance(seed);
    let world = World::start(seed).await;
    for number in 0..40 {
        world.deliver(number).await;
    }
    let (stop, stopped) = watch::channel(false);
    let mails = malle_rt::spawn(mail(world.clone(), stopped, 40));
    world.power_on(&world.machines[3]).await;
    world.layout(&[(4, 1), (3, 0)]).await;
    cut_drivers(&world, 5, &mut chance).await;
    world.until_on(&[1, 2, 4]).await;
    world.until_empty(&world.machines[2]).await;
    stop.send(true).expect("somebody delivers");
    mails.await.expect("it delivered");
    world.until_whole(&[1, 2, 4]).await;

    // Also after a restart.
    world.cut(&world.machines[2], &mut chance);
    world.power_on(&world.machines[2]).await;
    world.until_empty(&world.machines[2]).await;

    // Node 4 dies for good; what node 3 once had comes back to it, from nothing.
    world.cut(&world.machines[3], &mut chance);
    world.until_silence_is(4, true).await;
    let still = world.replicas().await.map(|(_, running)| running);
    assert_eq!(still, Some(0), "nothing moves before its time");
    world.layout(&[(3, 1)]).await;
    world.clock.advance_ms(limits::REBUILD_AFTER_MS);
    world.until_on(&[1, 2, 3]).await;
    world.until_whole(&[1, 2, 3]).await;

    // It comes back, and has nothing to keep.
    world.layout(&[(4, 0)]).await;
    world.power_on(&world.machines[3]).await;
    world.until_empty(&world.machines[3]).await;
    world.cancelled_moves_leave_no_learner(&mut chance).await;
}

impl World {
    /// Whether the directory's leader says of an active node that it does not answer; `None` where nobody can say, or the node is not active.
    async fn silence(&self, node: u64) -> Option<bool> {
        let (_, leader) = self.leader_of(ShardId::DIRECTORY)?;
        let directory = leader.groups.get(ShardId::DIRECTORY)?;
        let states = directory
            .read(Barrier::Local, soon(), directory::read::node_states)
            .await;
        let state = states.ok()?.get(&NodeId(node)).copied()?;
        (state.standing == Standing::Active).then_some(state.silent_since_ms.is_some())
    }

    async fn until_silence_is(&self, node: u64, silent: bool) {
        let until = malle_rt::now() + PATIENCE;
        while self.silence(node).await != Some(silent) {
            assert!(
                malle_rt::now() < until,
                "silence of node {node} is not told as {silent}"
            );
            pause().await;
        }
    }

    /// A move that an operator takes back: the shard is as it was, and its group has no other member.
    async fn cancelled_moves_leave_no_learner(&self, chance: &mut Chance) {
        // Off, so that the move waits for it. Had its long silence not been taken back before, the move would be undone at once.
        self.until_silence_is(4, false).await;
        self.cut(&self.machines[3], chance);
        let (_, leader) = loop {
            if let Some(found) = self.leader_of(ShardId::DIRECTORY) {
                break found;
            }
            pause().await;
        };
        let directory = leader.groups.get(ShardId::DIRECTORY).expect("it leads it");
        let shards = directory
            .read(Barrier::Local, soon(), directory::read::shards)
            .await
            .expect("it reads");
        let row = shards
            .into_iter()
            .map(|(row, _)| row)
            .find(|row| row.id == SHARDS[0])
            .expect("it is there");
        self.command(Op::TaskStart {
            shard: row.id,
            epoch: row.epoch,
            join: Some(NodeId(4)),
            leave: Some(NodeId(3)),
            reason: malle_machine::planner::Reason::Weight,
            bytes: 0,
        })
        .await;
        let last = |tasks: Vec<directory::Task>| tasks.into_iter().next_back().expect("one began");
        let until = malle_rt::now() + PATIENCE;
        let mut cancelled = false;
        loop {
            assert!(malle_rt::now() < until, "the move is not undone");
            pause().await;
            let Some((_, leader)) = self.leader_of(ShardId::DIRECTORY) else {
                continue;
            };
            let Some(directory) = leader.groups.get(ShardId::DIRECTORY) else {
                continue;
            };
            let Ok(tasks) = directory.read(Barrier::Local, soon(), directory::read::tasks).await else {
                continue;
            };
            let task = last(tasks);
            if task.step == TaskStep::Cancelled {
                break;
            }
            if task.step == TaskStep::Joined && !cancelled {
                let (task, step, note) = (task.id, TaskStep::Cancelling, "a test".to_owned());
                self.command(Op::TaskAdvance { task, step, note }).await;
                cancelled = true;
            }
        }
        assert!(cancelled, "it waited as a learner");
        let (_, leader) = self.leader_of(SHARDS[0]).expect("it led when it undid the move");
        let members = leader.groups.get(SHARDS[0]).expect("it leads it").nodes();
        assert_eq!(members.into_keys().collect::<Vec<_>>(), [1, 2, 3].map(NodeId));
    }
}
