//! Power cuts of real nodes on real file systems, under load: one disk goes dead at any moment, or all three at once, and comes back with
//! what was on it.
//!
//! Clients deliver, store flags and expunge through the client crate, and repeat what was not answered under the same op id. After each
//! cut everything that was acknowledged is compared: each mail is there once, under its UID, with its flags and its bytes; what was
//! expunged is gone. At the end all replicas agree and have every body. `cargo xtask test --long` cuts 200 and 50 times; `MALLE_POWER_SEED`
//! chooses another history.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use harness::{Cluster, Identity, LoopDisk, PASSWORD, account, until};
use malle_client::{
    Account, Client, Flags, MailboxId, ModSeq, NodeId, OpId, Recipient, SpecialUse, StoreMode, Uid, UidRange,
    fresh_op_id,
};

const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];
/// Accounts under load, each with one client.
const CLIENTS: usize = 4;
/// A cluster whose nodes come back serves again by then, on a busy machine too.
const OUTAGE_MAX: Duration = Duration::from_secs(90);

/// A message that was acknowledged, and what is known of it.
#[derive(Debug, Clone, Default)]
struct Promised {
    mail: Bytes,
    /// Flags whose store was acknowledged.
    flags: u8,
    /// An expunge was begun: until it is acknowledged nobody knows.
    leaving: bool,
    /// The expunge was acknowledged.
    gone: bool,
}

/// One account, and what its client was promised, by UID.
struct Ledger {
    account: Account,
    inbox: MailboxId,
    promised: Mutex<BTreeMap<u32, Promised>>,
}

impl Ledger {
    fn promised(&self) -> std::sync::MutexGuard<'_, BTreeMap<u32, Promised>> {
        self.promised.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Load {
    mta: Client,
    ledgers: Vec<Ledger>,
    acknowledged: AtomicU64,
    stop: AtomicBool,
}

/// Numbers that follow from a seed (splitmix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % below
    }
}

fn only(uid: u32) -> [UidRange; 1] {
    [UidRange {
        first: Uid(uid),
        last: Uid(uid),
    }]
}

impl Load {
    async fn of(cluster: &Cluster) -> anyhow::Result<Arc<Load>> {
        let roles = vec!["lmtp".to_owned(), "imap".to_owned()];
        let mta = cluster.client_as(&Identity::Gateway("power".into(), roles)).await?;
        let mut ledgers = Vec::new();
        for number in 1..=CLIENTS {
            let account = mta.login(&account(number), PASSWORD).await?;
            let mailboxes = account.mailboxes().await?;
            let inbox = mailboxes
                .iter()
                .find(|mailbox| mailbox.special_use == SpecialUse::Inbox);
            ledgers.push(Ledger {
                inbox: inbox.context("no INBOX")?.id,
                account,
                promised: Mutex::default(),
            });
        }
        Ok(Arc::new(Load {
            mta,
            ledgers,
            acknowledged: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        }))
    }

    /// One client: an operation after the other, each repeated under its op id until it is answered.
    async fn run(self: Arc<Load>, client: usize, seed: u64) -> anyhow::Result<()> {
        let mut chance = Chance(seed);
        while !self.stop.load(Ordering::SeqCst) {
            let here: Vec<u32> = {
                let promised = self.ledgers[client].promised();
                let staying = promised.iter().filter(|(_, message)| !message.leaving);
                staying.map(|(uid, _)| *uid).collect()
            };
            let one = (!here.is_empty()).then(|| here[chance.below(here.len() as u64) as usize]);
            match (chance.below(10), one) {
                (0..6, _) | (_, None) => self.deliver(client, &mut chance).await?,
                (6..9, Some(uid)) => self.flag(client, uid, 1 << chance.below(3)).await?,
                (_, Some(uid)) => self.expunge(client, uid).await?,
            }
            self.acknowledged.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    }

    async fn deliver(&self, client: usize, chance: &mut Chance) -> anyhow::Result<()> {
        let ledger = &self.ledgers[client];
        let op_id = fresh_op_id();
        let mut mail = format!("Message-ID: <{op_id:?}@power.example>\r\nSubject: power\r\n\r\n");
        // Some are so large that they go ahead of their entry.
        let lines = if chance.below(10) == 0 {
            4_000
        } else {
            chance.below(200)
        };
        for _ in 0..lines {
            mail.push_str(&format!("{:020}\r\n", chance.below(u64::MAX)));
        }
        let mail = Bytes::from(mail);
        let recipient = Recipient {
            account: ledger.account.id(),
            op_id,
            into: SpecialUse::Inbox,
        };
        let stored = until("an answer to a delivery", OUTAGE_MAX, || async {
            let mut answers = self.mta.deliver(std::slice::from_ref(&recipient), mail.clone()).await;
            Ok(Some(answers.remove(0)?))
        })
        .await?;
        let promised = Promised {
            mail,
            ..Promised::default()
        };
        let before = ledger.promised().insert(stored.uid.0, promised);
        ensure!(before.is_none(), "UID {} was given out twice", stored.uid);
        Ok(())
    }

    async fn store(&self, client: usize, uid: u32, system: u8, op_id: OpId) -> anyhow::Result<bool> {
        let ledger = &self.ledgers[client];
        let flags = Flags {
            system,
            keywords: Vec::new(),
        };
        until("an answer to a store", OUTAGE_MAX, || async {
            let (account, uids) = (&ledger.account, only(uid));
            let stored = account.store(ledger.inbox, &uids, StoreMode::Add, flags.clone(), None, op_id);
            Ok(Some(!stored.await?.stored.is_empty()))
        })
        .await
    }

    async fn flag(&self, client: usize, uid: u32, system: u8) -> anyhow::Result<()> {
        let system = system & (Flags::SEEN | Flags::ANSWERED | Flags::FLAGGED);
        let reached = self.store(client, uid, system, fresh_op_id()).await?;
        ensure!(reached, "UID {uid} was acknowledged, and a store did not find it");
        if let Some(promised) = self.ledgers[client].promised().get_mut(&uid) {
            promised.flags |= system;
        }
        Ok(())
    }

    async fn expunge(&self, client: usize, uid: u32) -> anyhow::Result<()> {
        let ledger = &self.ledgers[client];
        let note = |change: fn(&mut Promised)| ledger.promised().get_mut(&uid).map(change);
        note(|promised| promised.leaving = true);
        let reached = self.store(client, uid, Flags::DELETED, fresh_op_id()).await?;
        ensure!(reached, "UID {uid} was acknowledged, and a store did not find it");
        let op_id = fresh_op_id();
        let vanished = until("an answer to an expunge", OUTAGE_MAX, || async {
            Ok(Some(ledger.account.expunge(ledger.inbox, &only(uid), op_id).await?))
        })
        .await?;
        ensure!(
            !vanished.is_empty(),
            "UID {uid} was there, and an expunge did not find it"
        );
        note(|promised| promised.gone = true);
        Ok(())
    }

    /// Compares what is there with what was promised before the look began.
    async fn check(&self, bodies: bool) -> anyhow::Result<()> {
        for ledger in &self.ledgers {
            let promised = ledger.promised().clone();
            let mut found = BTreeMap::new();
            let mut from = Some(Uid(1));
            while let Some(first) = from {
                let rest = [UidRange {
                    first,
                    last: Uid(u32::MAX),
                }];
                let page = until("a page of a mailbox", OUTAGE_MAX, || async {
                    Ok(Some(ledger.account.fetch(ledger.inbox, &rest, ModSeq(0), false).await?))
                })
                .await?;
                for message in page.messages {
                    let twice = found.insert(message.uid.0, message.flags.system);
                    ensure!(twice.is_none(), "UID {} is there twice", message.uid);
                }
                from = page.resume_from;
            }
            // Another may have been delivered or expunged since; of what was acknowledged before nothing may be missing or back again.
            let now = ledger.promised().clone();
            for (uid, message) in &promised {
                let leaving = now.get(uid).is_some_and(|message| message.leaving);
                match found.get(uid) {
                    Some(_) if message.gone => anyhow::bail!("UID {uid} was expunged and is back"),
                    Some(flags) => ensure!(
                        flags & message.flags == message.flags,
                        "UID {uid} lost flags: {flags:#x} of {:#x}",
                        message.flags
                    ),
                    None => ensure!(leaving, "UID {uid} was acknowledged and is lost"),
                }
                if bodies && !leaving {
                    let body = until("a body", OUTAGE_MAX, || async {
                        Ok(Some(ledger.account.read_body(ledger.inbox, Uid(*uid)).await?))
                    });
                    ensure!(body.await? == message.mail, "the body of UID {uid} is another");
                }
            }
            if bodies {
                let unknown: Vec<&u32> = found.keys().filter(|uid| !now.contains_key(uid)).collect();
                ensure!(unknown.is_empty(), "nobody was told of the UIDs {unknown:?}");
            }
        }
        Ok(())
    }
}

/// How often: more in a long run.
fn cuts(usually: u64, when_long: u64) -> anyhow::Result<u64> {
    Ok(if setting("MALLE_LONG", 0)? == 0 {
        usually
    } else {
        when_long
    })
}

/// Cuts the power of these nodes under load, again and again.
async fn cut_under_load(
    cluster: &mut Cluster,
    victims: impl Fn(&mut Chance) -> Vec<NodeId>,
    cuts: u64,
    seed: u64,
) -> anyhow::Result<()> {
    let mut chance = Chance(setting("MALLE_POWER_SEED", seed)?);
    let load = Load::of(cluster).await?;
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| tokio::spawn(load.clone().run(client, chance.below(u64::MAX))))
        .collect();
    for cut in 1..=cuts {
        let enough = load.acknowledged.load(Ordering::SeqCst) + 20 + chance.below(60);
        until("enough acknowledged operations", OUTAGE_MAX, || async {
            let ended = clients.iter().any(tokio::task::JoinHandle::is_finished);
            ensure!(!ended, "a client found something wrong");
            Ok((load.acknowledged.load(Ordering::SeqCst) >= enough).then_some(()))
        })
        .await?;
        let victims = victims(&mut chance);
        cluster.cut_power(&victims).await?;
        cluster.power_on(&victims).await?;
        load.check(false)
            .await
            .with_context(|| format!("after cut {cut} of {victims:?}"))?;
    }
    load.stop.store(true, Ordering::SeqCst);
    for client in clients {
        client.await??;
    }
    load.check(true).await?;
    cluster.replicas_agree(&NODES).await?;
    println!(
        "{cuts} cuts, {} operations acknowledged, {} views rebuilt",
        load.acknowledged.load(Ordering::SeqCst),
        cluster.rebuilds()?
    );
    Ok(())
}

fn setting(name: &str, default: u64) -> anyhow::Result<u64> {
    match std::env::var(name) {
        Ok(value) => value.parse().with_context(|| format!("{name} is no number")),
        Err(_) => Ok(default),
    }
}

/// Runs a test on threads with larger stacks: futures of an unoptimised build do not fit into the usual two megabytes.
pub fn run(test: impl Future<Output = anyhow::Result<()>> + Send + 'static) -> anyhow::Result<()> {
    if let Err(reason) = LoopDisk::possible() {
        println!("SKIPPED: no power can be cut here: {reason:#}");
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_stack_size(16 << 20)
        .enable_all()
        .build()?;
    runtime.block_on(async { tokio::spawn(test).await? })
}

#[test]
fn power_cuts_of_one_node_lose_nothing() -> anyhow::Result<()> {
    run(async {
        let mut cluster = Cluster::start_on_loop_disks().await?;
        let one = |chance: &mut Chance| vec![NODES[chance.below(3) as usize]];
        cut_under_load(&mut cluster, one, cuts(5, 200)?, 1).await?;
        cluster.finish().await
    })
}

#[test]
fn power_cuts_of_all_nodes_at_once_lose_nothing() -> anyhow::Result<()> {
    run(async {
        let mut cluster = Cluster::start_on_loop_disks().await?;
        cut_under_load(&mut cluster, |_| NODES.to_vec(), cuts(2, 50)?, 2).await?;
        cluster.finish().await
    })
}

#[test]
fn disks_that_lie_about_their_syncs_are_found_out() -> anyhow::Result<()> {
    run(async {
        let mut cluster = Cluster::start_on_loop_disks_that_lie().await?;
        let found = cut_under_load(&mut cluster, |_| NODES.to_vec(), 3, 3).await;
        let found = found.err().context("acknowledged mail was lost, and nobody noticed")?;
        println!("found out: {found:#}");
        cluster.remove().await
    })
}
