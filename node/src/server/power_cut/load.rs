//! Clients of the cluster, what they were promised, and whether it was kept.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use malle_machine::shard::{self, Flags, Outcome, UidRange};
use malle_proto::v1::mail_reply::Result as Reply;
use malle_proto::v1::mail_request::Call;
use malle_proto::v1::{self, MailRequest};
use malle_proto::{AccountId, BodyHash, MailboxId, ModSeq, OpId, Uid, limits};

use super::world::{Chance, Machine, Running, SHARD, World, pause, soon};
use crate::bodies::Bodies;
use crate::raft::Barrier;
use crate::security::{GatewayRoles, Identity, Peer};

/// A message that was acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::server) struct Promised {
    pub hash: BodyHash,
    pub system_flags: u8,
    /// From here on a reader may miss it.
    pub leaving: bool,
    /// The expunge was acknowledged.
    pub gone: bool,
}

/// What one account was promised, by UID.
#[derive(Default)]
pub(in crate::server) struct Ledger {
    pub messages: Mutex<BTreeMap<u32, Promised>>,
}

impl Ledger {
    pub fn messages(&self) -> MutexGuard<'_, BTreeMap<u32, Promised>> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Everything that was promised, and what was found broken.
pub(in crate::server) struct Load {
    pub world: Arc<World>,
    pub ledgers: Vec<Ledger>,
    pub acknowledged: AtomicU64,
    pub reads: AtomicU64,
    pub stop: AtomicBool,
    pub broken: Mutex<Vec<String>>,
}

impl Load {
    pub fn new(world: Arc<World>) -> Arc<Load> {
        Arc::new(Load {
            ledgers: world.accounts.iter().map(|_| Ledger::default()).collect(),
            world,
            acknowledged: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            broken: Mutex::default(),
        })
    }

    pub fn report(&self, broken: String) {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner).push(broken);
    }

    pub fn broken_so_far(&self) -> Vec<String> {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// One client of one account: delivers, stores flags and expunges, each repeated under its op id until it is answered.
    pub async fn write(self: Arc<Load>, account: usize, seed: u64) {
        let mut chance = Chance(seed);
        while !self.stopped() {
            let known: Vec<u32> = {
                let messages = self.ledgers[account].messages();
                let here = messages.iter().filter(|(_, promised)| !promised.leaving);
                here.map(|(uid, _)| *uid).collect()
            };
            match (chance.below(10), known.is_empty()) {
                (0..7, _) | (_, true) => self.deliver(account, &mut chance).await,
                (7..9, false) => {
                    let uid = known[chance.below(known.len() as u64) as usize];
                    let flags = [Flags::SEEN, Flags::ANSWERED, Flags::FLAGGED][chance.below(3) as usize];
                    self.store(account, uid, flags, &mut chance).await;
                }
                (_, false) => {
                    let uid = known[chance.below(known.len() as u64) as usize];
                    self.expunge(account, uid, &mut chance).await;
                }
            }
            self.acknowledged.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// A mail that nobody has sent before, as a request and as bytes.
    pub fn mail(&self, account: usize, chance: &mut Chance) -> (MailRequest, Bytes) {
        let (id, _) = self.world.accounts[account];
        let op = op_id(chance);
        // Some mails come again and again: their bodies are expunged, collected and delivered at the same time.
        let mail = match chance.below(3) {
            0 => letter(&[chance.below(8) as u8; 16], &mut Chance(0)),
            _ => letter(&op.0, chance),
        };
        let request = MailRequest {
            shard: SHARD.0,
            deadline_ms: 2_000,
            call: Some(Call::Deliver(v1::Deliver {
                recipients: vec![v1::Recipient {
                    account: id.to_vec().into(),
                    op_id: op.0.to_vec().into(),
                    ..v1::Recipient::default()
                }],
                body: Some(v1::Body {
                    source: Some(v1::body::Source::Inline(mail.clone())),
                }),
            })),
            ..MailRequest::default()
        };
        (request, mail)
    }

    /// Sends a mail to one node; the UID when it says that it is stored, what it says otherwise.
    pub async fn send(&self, to: &Running, request: MailRequest) -> Result<u32, Option<v1::Error>> {
        match to.api.answer(&lmtp(), request).await.result {
            Some(Reply::Deliver(reply)) => match reply.outcomes[0].outcome.clone() {
                Some(v1::recipient_outcome::Outcome::Delivered(stored)) => Ok(stored.uid),
                Some(v1::recipient_outcome::Outcome::Error(error)) => Err(Some(error)),
                None => Err(None),
            },
            Some(Reply::Error(error)) => Err(Some(error)),
            _ => Err(None),
        }
    }

    /// A mail was acknowledged under this UID.
    pub fn promise(&self, account: usize, uid: u32, hash: BodyHash) {
        let promised = Promised {
            hash,
            system_flags: 0,
            leaving: false,
            gone: false,
        };
        if let Some(before) = self.ledgers[account].messages().insert(uid, promised) {
            self.report(format!("UID {uid} was given out twice, first to {before:?}"));
        }
    }

    pub async fn deliver(&self, account: usize, chance: &mut Chance) {
        let (request, mail) = self.mail(account, chance);
        let uid = loop {
            let leader = self.world.leader().await;
            if let Ok(uid) = self.send(&leader, request.clone()).await {
                break uid;
            }
            pause().await;
        };
        let hash = Bodies::hash_of(&mail);
        let running = self.world.machines.iter().filter_map(Machine::running);
        let lacking = running.filter(|running| !running.bodies.has(SHARD, hash)).count();
        if lacking > 1 {
            self.report(format!("UID {uid} was acknowledged, and {lacking} nodes lack its body"));
        }
        self.promise(account, uid, hash);
    }

    async fn propose(&self, op: shard::Op) -> Outcome {
        loop {
            let leader = self.world.leader().await;
            let deadline = malle_rt::now() + Duration::from_secs(2);
            match leader.group.propose_shard(op.clone(), deadline).await {
                Ok(outcome) => return outcome,
                Err(_) => pause().await,
            }
        }
    }

    fn store_op(&self, account: usize, uid: u32, system: u8, op_id: OpId) -> shard::Op {
        let (account, mailbox) = self.world.accounts[account];
        shard::Op::Store {
            account,
            op_id,
            mailbox,
            uids: one(uid),
            mode: shard::StoreMode::Add,
            flags: Flags {
                system,
                keywords: Vec::new(),
            },
            unchanged_since: None,
        }
    }

    pub async fn store(&self, account: usize, uid: u32, system: u8, chance: &mut Chance) {
        let outcome = self.propose(self.store_op(account, uid, system, op_id(chance))).await;
        match (outcome, self.ledgers[account].messages().get_mut(&uid)) {
            (Outcome::FlagsStored(done), Some(promised)) if !done.stored.is_empty() => {
                promised.system_flags |= system;
            }
            (outcome, _) => self.report(format!("flags of UID {uid} were not stored: {outcome:?}")),
        }
    }

    pub async fn expunge(&self, account: usize, uid: u32, chance: &mut Chance) {
        if let Some(promised) = self.ledgers[account].messages().get_mut(&uid) {
            promised.leaving = true;
        }
        let (id, mailbox) = self.world.accounts[account];
        self.propose(self.store_op(account, uid, Flags::DELETED, op_id(chance)))
            .await;
        let expunge = shard::Op::Expunge {
            account: id,
            op_id: op_id(chance),
            mailbox,
            uids: one(uid),
        };
        match (
            self.propose(expunge).await,
            self.ledgers[account].messages().get_mut(&uid),
        ) {
            (Outcome::Expunged(done), Some(promised)) if !done.vanished.is_empty() => promised.gone = true,
            (outcome, _) => self.report(format!("UID {uid} was not expunged: {outcome:?}")),
        }
    }

    /// Reads what was acknowledged before the read began, from whoever says that it leads.
    pub async fn read(self: Arc<Load>, seed: u64) {
        let mut chance = Chance(seed);
        while !self.stopped() {
            let account = chance.below(self.ledgers.len() as u64) as usize;
            let before = self.ledgers[account].messages().clone();
            let (id, mailbox) = self.world.accounts[account];
            for machine in &self.world.machines {
                let Some(running) = machine.running() else { continue };
                let deadline = malle_rt::now() + Duration::from_millis(500);
                let found = running
                    .group
                    .read(Barrier::Linearizable, deadline, move |view| every(view, id, mailbox))
                    .await;
                let Ok(found) = found else { continue };
                self.reads.fetch_add(1, Ordering::SeqCst);
                let after = self.ledgers[account].messages().clone();
                for (uid, promised) in &before {
                    let leaving = after.get(uid).is_none_or(|now| now.leaving);
                    match found.get(uid) {
                        Some(_) if promised.gone => self.report(format!("a read shows UID {uid}, which is gone")),
                        Some((hash, flags))
                            if *hash != promised.hash || flags & promised.system_flags != promised.system_flags =>
                        {
                            self.report(format!("a read shows UID {uid} as {hash} {flags}, not {promised:?}"));
                        }
                        None if !leaving => self.report(format!("a read lacks UID {uid}: {promised:?}")),
                        _ => {}
                    }
                }
            }
            pause().await;
        }
    }

    /// Everything against everything, once the load has ended and all nodes are on.
    pub async fn check(&self) {
        let leader = self.world.leader().await;
        // A leader's own read: all that was acknowledged is applied there, and its index is where the others must come.
        leader
            .group
            .read(Barrier::Linearizable, soon(), |_| Ok(()))
            .await
            .expect("a leader with three nodes on");
        self.wait_until_equal().await;
        for machine in &self.world.machines {
            let running = machine.running().expect("all are on");
            for (ledger, (account, mailbox)) in self.ledgers.iter().zip(&self.world.accounts) {
                let (account, mailbox) = (*account, *mailbox);
                let rows = running
                    .group
                    .state()
                    .read(move |view| every(view, account, mailbox))
                    .await;
                let rows = rows.expect("a proved view");
                let expected: BTreeMap<u32, (BodyHash, u8)> = ledger
                    .messages()
                    .iter()
                    .filter(|(_, promised)| !promised.gone)
                    .map(|(uid, promised)| (*uid, (promised.hash, promised.system_flags)))
                    .collect();
                if rows != expected {
                    self.report(format!(
                        "a node has {} messages of an account, {} were promised; first difference: {:?}",
                        rows.len(),
                        expected.len(),
                        rows.iter()
                            .find(|(uid, row)| expected.get(uid) != Some(row))
                            .or_else(|| { expected.iter().find(|(uid, row)| rows.get(uid) != Some(row)) })
                    ));
                }
                let sources = running.group.bodies().sources();
                for (hash, _) in expected.values() {
                    if let Err(error) = running.bodies.get(SHARD, *hash, &sources, soon()).await {
                        self.report(format!("body {hash} cannot be read: {error}"));
                    }
                }
            }
        }
    }

    async fn wait_until_equal(&self) {
        let until = soon();
        loop {
            let digests: Vec<_> = self
                .world
                .machines
                .iter()
                .filter_map(|machine| machine.running())
                .map(|running| running.group.state().digest())
                .collect();
            if digests.len() == self.world.machines.len() && digests.iter().all(|digest| *digest == digests[0]) {
                return;
            }
            if malle_rt::now() >= until {
                return self.report(format!("replicas do not agree: {digests:?}"));
            }
            pause().await;
        }
    }
}

/// Most ride with their entry, some are so large that they go ahead of it.
fn letter(name: &[u8; 16], chance: &mut Chance) -> Bytes {
    let mut mail = format!("Message-ID: <{name:?}>\r\nSubject: mail\r\n\r\n").into_bytes();
    let words = match chance.below(16) {
        0 => limits::RIDER_MAX_BYTES as u64 / 8 + chance.below(64),
        _ => chance.below(1024),
    };
    for _ in 0..words {
        mail.extend_from_slice(&chance.next().to_le_bytes());
    }
    mail.into()
}

fn op_id(chance: &mut Chance) -> OpId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&chance.next().to_le_bytes());
    id[8..].copy_from_slice(&chance.next().to_le_bytes());
    OpId(id)
}

fn one(uid: u32) -> Vec<UidRange> {
    vec![UidRange {
        first: Uid(uid),
        last: Uid(uid),
    }]
}

/// Every message of a mailbox: its body and its flags.
fn every(
    view: &dyn malle_machine::view::View,
    account: AccountId,
    mailbox: MailboxId,
) -> Result<BTreeMap<u32, (BodyHash, u8)>, malle_machine::view::Fault> {
    let mut found = BTreeMap::new();
    let mut from = 1;
    loop {
        let rest = [UidRange {
            first: Uid(from),
            last: Uid(u32::MAX),
        }];
        let page = shard::read::fetch(view, account, mailbox, &rest, ModSeq(0), 500)?;
        let page = page.map_err(|refusal| malle_machine::view::Fault::Broken(format!("{refusal:?}")))?;
        for message in page.messages {
            found.insert(message.uid.0, (message.body, message.flags.system));
        }
        match page.resume_from {
            Some(uid) => from = uid.0,
            None => return Ok(found),
        }
    }
}

pub(in crate::server) fn lmtp() -> Peer {
    Peer {
        identity: Identity::Gateway {
            name: "mx".into(),
            roles: GatewayRoles {
                lmtp: true,
                imap: false,
            },
        },
        address: "127.0.0.1:1".parse().expect("an address"),
    }
}
