//! Three nodes and the shard's own machine. What is committed is applied on the leader at once, and on the others when the test says so.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use malle_journal::MemoryDisk;
use malle_machine::shard::read::{self, BodyStanding};
use malle_machine::shard::{
    self, AccountGrant, BodyPut, Command, Flags, NewMail, Op, Outcome, Refusal, StoreMode, Summary, UidRange,
};
use malle_machine::{MemoryView, Writes};
use malle_proto::{AccountId, BodyHash, EmailId, MailboxId, OpId, ShardId, ThreadId, Uid};

use super::super::{Net, SHARD, members, soon, sources};
use crate::bodies::{Bodies, BodiesError, BodyLog, BodyRows, CollectTimes, Collector, GroupBodies, IdlePage};
use crate::env::{Env, ManualClock};

pub const NODES: [u64; 3] = [1, 2, 3];
const ALICE: AccountId = AccountId([0xA1; 16]);
const INBOX: MailboxId = MailboxId([1; 16]);
pub const HOUR_MS: u64 = 3600 * 1000;
pub const DAY_MS: u64 = 24 * HOUR_MS;

/// Where a step of collection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Copies are marked, and the log has not heard of it.
    Asked,
    /// It is committed, and the collector has not heard of it.
    Committed,
}

/// What happens at such a moment on this node's collection of this step.
pub type Interlude = Arc<dyn Fn(u64, Op, Moment) -> BoxFuture<'static, ()> + Send + Sync>;

#[derive(Default)]
struct Replica {
    view: MemoryView,
    applied: usize,
}

#[derive(Default)]
struct Log {
    entries: Vec<Writes>,
    /// All of them applied.
    view: MemoryView,
    replicas: BTreeMap<u64, Replica>,
    leader: u64,
    drawn: u64,
}

pub struct World {
    pub net: Net,
    pub disks: BTreeMap<u64, MemoryDisk>,
    pub env: Env,
    pub clock: Arc<ManualClock>,
    log: Mutex<Log>,
    groups: Mutex<BTreeMap<u64, Arc<GroupBodies>>>,
    interlude: Mutex<Option<Interlude>>,
    /// Answers of steps are lost on their way back.
    pub deaf: Mutex<bool>,
}

impl World {
    pub fn new() -> Arc<World> {
        let (net, disks) = super::super::cluster(3);
        let (env, clock) = Env::manual(1_800_000_000_000, 1);
        let world = Arc::new(World {
            net,
            disks,
            env,
            clock,
            log: Mutex::new(Log {
                leader: 1,
                replicas: NODES.iter().map(|node| (*node, Replica::default())).collect(),
                ..Log::default()
            }),
            groups: Mutex::default(),
            interlude: Mutex::default(),
            deaf: Mutex::default(),
        });
        NODES.iter().for_each(|node| world.follow(*node));
        let grant = AccountGrant {
            account: ALICE,
            quota_bytes: u64::MAX,
            suspended: false,
            mailboxes: std::array::from_fn(|number| MailboxId([number as u8 + 1; 16])),
        };
        world.commit(Op::OpenAccounts {
            accounts: vec![grant],
            through: 1,
        });
        world
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap()
    }

    /// The node's group, as it opens: it asks for every body that its rows name.
    fn follow(&self, node: u64) {
        let group = GroupBodies::new(SHARD, self.net.node(node));
        let others: Vec<u64> = NODES.into_iter().filter(|other| *other != node).collect();
        group.set_sources(move || sources(&others));
        let named = {
            let log = self.log();
            let replica = &log.replicas[&node];
            group.named(replica.applied as u64, &named_in(&replica.view));
            self.groups.lock().unwrap().insert(node, group);
            replica.applied
        };
        assert!(named <= self.log().entries.len());
    }

    pub fn group(&self, node: u64) -> Arc<GroupBodies> {
        self.groups.lock().unwrap()[&node].clone()
    }

    pub fn collector(self: &Arc<World>, node: u64) -> Arc<Collector> {
        let times = CollectTimes {
            pause: Duration::ZERO,
            ..CollectTimes::default()
        };
        let log = Arc::new(NodeLog {
            world: self.clone(),
            node,
        });
        Collector::new(self.net.node(node), log, self.env.clone(), times)
    }

    /// One round of collection on a node.
    pub async fn collect(self: &Arc<World>, node: u64) -> Arc<Collector> {
        let collector = self.collector(node);
        collector.round_now().await;
        collector
    }

    pub fn at_each_step(&self, interlude: impl Fn(u64, Op, Moment) -> BoxFuture<'static, ()> + Send + Sync + 'static) {
        *self.interlude.lock().unwrap() = Some(Arc::new(interlude));
    }

    pub fn undisturbed(&self) {
        self.interlude.lock().unwrap().take();
    }

    /// Power cut and start. What the node has applied is in its raft log.
    pub async fn restart(&self, node: u64, seed: u64) {
        self.groups.lock().unwrap().remove(&node);
        let ended = self.net.wires().nodes.remove(&malle_proto::NodeId(node)).unwrap();
        self.disks[&node].crash(seed);
        ended.close().await;
        drop(ended);
        self.net.start(node, &self.disks[&node]);
        self.follow(node);
    }

    pub fn lead(&self, node: u64) {
        self.apply(node, usize::MAX);
        self.log().leader = node;
    }

    pub fn leader(&self) -> u64 {
        self.log().leader
    }

    /// Applies up to `most` entries on a node.
    pub fn apply(&self, node: u64, most: usize) {
        for _ in 0..most {
            let news = {
                let mut log = self.log();
                let Log { entries, replicas, .. } = &mut *log;
                let replica = replicas.get_mut(&node).unwrap();
                let Some(writes) = entries.get(replica.applied) else {
                    return;
                };
                replica.view.commit(writes);
                replica.applied += 1;
                (
                    replica.applied as u64,
                    writes.bodies_named.clone(),
                    writes.bodies_released.clone(),
                )
            };
            let group = self.group(node);
            group.named(news.0, &news.1);
            crate::state::BodyNews::released(group.as_ref(), &news.2);
        }
    }

    pub fn apply_everywhere(&self) {
        NODES.iter().for_each(|node| self.apply(*node, usize::MAX));
    }

    pub fn commit(&self, op: Op) -> Outcome {
        let (outcome, leader) = {
            let mut log = self.log();
            let command = Command {
                time_ms: self.env.now_ms(),
                op,
            };
            let (outcome, writes) = shard::apply(&log.view, &command).unwrap();
            log.view.commit(&writes);
            log.entries.push(writes);
            (outcome, log.leader)
        };
        self.apply(leader, usize::MAX);
        outcome
    }

    /// Time goes by, also for the machine.
    pub fn wait_ms(&self, ms: u64) {
        for _ in 0..ms.div_ceil(HOUR_MS) {
            self.clock.advance_ms(HOUR_MS);
            self.commit(Op::ReleaseBodies { hashes: vec![] });
        }
    }

    fn draw(&self) -> [u8; 16] {
        let mut log = self.log();
        log.drawn += 1;
        let mut id = [7; 16];
        id[..8].copy_from_slice(&log.drawn.to_be_bytes());
        id
    }

    /// Makes a body durable on a majority, as the leader does before it proposes.
    pub async fn put(&self, body: &Bytes) -> Result<BodyPut, BodiesError> {
        let leader = self.leader();
        let epoch = read::body_epoch(&self.log().replicas[&leader].view).unwrap();
        let hash = Bodies::hash_of(body);
        let node = self.net.node(leader);
        node.put(SHARD, &members(&[&NODES]), hash, body.clone(), soon()).await?;
        Ok(BodyPut {
            hash,
            size: body.len() as u64,
            epoch,
        })
    }

    /// The command that names what was put.
    pub fn name(&self, put: BodyPut) -> Result<Uid, Refusal> {
        let op = Op::Append {
            account: ALICE,
            op_id: OpId(self.draw()),
            mailbox: INBOX,
            flags: Flags::default(),
            internal_date: None,
            mail: NewMail {
                body: put,
                summary: Summary::Inline(Bytes::from_static(b"s")),
                email_id: EmailId(self.draw()),
                fresh_thread: ThreadId(self.draw()),
                thread_keys: Vec::new(),
            },
        };
        match self.commit(op) {
            Outcome::Appended(stored) => Ok(stored.uid),
            Outcome::Refused(refusal) => Err(refusal),
            other => panic!("{other:?}"),
        }
    }

    /// A delivery as the api does it: put again where that is asked for.
    pub async fn deliver(&self, body: &Bytes) -> Uid {
        loop {
            let put = self.put(body).await.unwrap();
            match self.name(put) {
                Ok(uid) => return uid,
                Err(refusal) => assert_eq!(refusal, Refusal::StaleBody),
            }
        }
    }

    pub fn expunge(&self, uid: Uid) {
        let uids = vec![UidRange { first: uid, last: uid }];
        self.commit(Op::Store {
            account: ALICE,
            op_id: OpId(self.draw()),
            mailbox: INBOX,
            uids: uids.clone(),
            mode: StoreMode::Add,
            flags: Flags {
                system: Flags::DELETED,
                keywords: Vec::new(),
            },
            unchanged_since: None,
        });
        let outcome = self.commit(Op::Expunge {
            account: ALICE,
            op_id: OpId(self.draw()),
            mailbox: INBOX,
            uids,
        });
        assert!(
            matches!(&outcome, Outcome::Expunged(done) if done.vanished.len() == 1),
            "{outcome:?}"
        );
    }

    pub fn standing(&self, hash: BodyHash) -> BodyStanding {
        read::body_standing(&self.log().view, hash).unwrap()
    }

    /// Every body whose bytes must be kept.
    pub fn kept(&self) -> Vec<BodyHash> {
        let mut kept = Vec::new();
        let visited = read::bodies(&self.log().view, &mut |hash, _, _| {
            kept.push(hash);
            Ok(())
        });
        visited.unwrap();
        kept
    }

    pub fn has(&self, node: u64, hash: BodyHash) -> bool {
        self.net.node(node).has(SHARD, hash)
    }

    pub fn holders(&self, hash: BodyHash) -> usize {
        NODES.iter().filter(|node| self.has(**node, hash)).count()
    }

    /// Delivers a body, takes its message away and has it released: a day later its copies may go.
    pub async fn released(&self, body: &Bytes) -> BodyHash {
        let hash = Bodies::hash_of(body);
        let uid = self.deliver(body).await;
        super::super::eventually("all have it", || self.holders(hash) == 3).await;
        self.expunge(uid);
        let outcome = self.commit(Op::ReleaseBodies { hashes: vec![hash] });
        assert!(matches!(&outcome, Outcome::BodiesReleased { released, .. } if released == &[hash]));
        hash
    }
}

fn named_in(view: &MemoryView) -> Vec<BodyHash> {
    let (mut named, mut behind) = (Vec::new(), None);
    loop {
        let (page, next) = read::bodies_behind(view, behind, 100).unwrap();
        named.extend(page);
        behind = next;
        if behind.is_none() {
            return named;
        }
    }
}

/// The log as a node's collection sees it.
struct NodeLog {
    world: Arc<World>,
    node: u64,
}

impl NodeLog {
    async fn moment(&self, step: &Op, moment: Moment) {
        let interlude = self.world.interlude.lock().unwrap().clone();
        if let Some(interlude) = interlude {
            interlude(self.node, step.clone(), moment).await;
        }
    }
}

#[async_trait]
impl BodyRows for NodeLog {
    fn shards(&self) -> Vec<ShardId> {
        vec![SHARD]
    }

    async fn named_behind(
        &self,
        _: ShardId,
        after: Option<BodyHash>,
        most: usize,
    ) -> Option<(Vec<BodyHash>, Option<BodyHash>)> {
        read::bodies_behind(&self.world.log().replicas[&self.node].view, after, most).ok()
    }

    async fn is_named(&self, _: ShardId, hash: BodyHash) -> Option<bool> {
        read::body_is_named(&self.world.log().replicas[&self.node].view, hash).ok()
    }
}

#[async_trait]
impl BodyLog for NodeLog {
    fn leads(&self, _: ShardId) -> bool {
        self.world.leader() == self.node
    }

    async fn idle_behind(&self, _: ShardId, after: Option<BodyHash>, most: usize) -> Option<IdlePage> {
        let log = self.world.log();
        let view = &log.replicas[&self.node].view;
        let (idle, next) = read::idle_bodies_behind(view, after, most).ok()?;
        let now_ms = read::time_ms(view).ok()?;
        Some(IdlePage { now_ms, idle, next })
    }

    async fn standings(&self, _: ShardId, hashes: Vec<BodyHash>) -> Option<Vec<BodyStanding>> {
        let log = self.world.log();
        let view = &log.replicas[&self.node].view;
        hashes
            .iter()
            .map(|hash| read::body_standing(view, *hash).ok())
            .collect()
    }

    async fn propose(&self, _: ShardId, step: Op) -> Result<Outcome, BodiesError> {
        self.moment(&step, Moment::Asked).await;
        let outcome = self.world.commit(step.clone());
        self.moment(&step, Moment::Committed).await;
        if *self.world.deaf.lock().unwrap() {
            return Err(BodiesError::Log("the answer was lost".into()));
        }
        Ok(outcome)
    }
}
