//! Views that are damaged while their node is down: the node finds it when it starts, rebuilds, and nobody is told anything wrong meanwhile.
//!
//! A reader asks without pause, from before the first damage until after the last rebuild, and each answer must hold everything that was
//! acknowledged before the question. After each rebuild the damaged node is made the leader, so that the answers come from the rebuilt view.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use harness::{Cluster, Identity, PASSWORD, account, mail, until};
use malle_client::{Account, Client, MailboxId, ModSeq, NodeId, Recipient, SpecialUse, Uid, UidRange, fresh_op_id};

const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];
/// Mails between two damages.
const MAILS: usize = 15;
/// A rebuild on a busy machine is done by then.
const RECOVERY: Duration = Duration::from_secs(90);

/// One account, what was acknowledged to it, and how often that was compared.
struct Ledger {
    mta: Client,
    account: Account,
    inbox: MailboxId,
    promised: Mutex<BTreeMap<u32, Bytes>>,
    reads: AtomicU64,
    stop: AtomicBool,
}

impl Ledger {
    async fn of(cluster: &Cluster) -> anyhow::Result<Arc<Ledger>> {
        let roles = vec!["lmtp".to_owned(), "imap".to_owned()];
        let mta = cluster.client_as(&Identity::Gateway("damage".into(), roles)).await?;
        let account = mta.login(&account(1), PASSWORD).await?;
        let mailboxes = account.mailboxes().await?;
        let inbox = mailboxes
            .iter()
            .find(|mailbox| mailbox.special_use == SpecialUse::Inbox);
        Ok(Arc::new(Ledger {
            inbox: inbox.context("no INBOX")?.id,
            account,
            mta,
            promised: Mutex::default(),
            reads: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        }))
    }

    fn promised(&self) -> BTreeMap<u32, Bytes> {
        self.promised.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn deliver(&self, name: &str, count: usize) -> anyhow::Result<()> {
        for number in 0..count {
            let mail = Bytes::from(mail::plain(&format!("{name}-{number}")));
            let recipient = Recipient {
                account: self.account.id(),
                op_id: fresh_op_id(),
                into: SpecialUse::Inbox,
            };
            let stored = until("an answer to a delivery", RECOVERY, || async {
                let mut answers = self.mta.deliver(std::slice::from_ref(&recipient), mail.clone()).await;
                Ok(Some(answers.remove(0)?))
            })
            .await?;
            let mut promised = self.promised.lock().unwrap_or_else(PoisonError::into_inner);
            let before = promised.insert(stored.uid.0, mail);
            ensure!(before.is_none(), "UID {} was given out twice", stored.uid);
        }
        Ok(())
    }

    /// One linearizable look at the whole mailbox, compared with what was promised before it began.
    async fn look(&self) -> anyhow::Result<()> {
        let promised = self.promised();
        let mut found = Vec::new();
        let mut from = Some(Uid(1));
        while let Some(first) = from {
            let rest = [UidRange {
                first,
                last: Uid(u32::MAX),
            }];
            let page = until("a page of a mailbox", RECOVERY, || async {
                Ok(Some(self.account.fetch(self.inbox, &rest, ModSeq(0), false).await?))
            })
            .await?;
            found.extend(page.messages.iter().map(|message| message.uid.0));
            from = page.resume_from;
        }
        for uid in promised.keys() {
            ensure!(found.contains(uid), "UID {uid} was acknowledged and is not there");
        }
        self.reads.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    async fn look_without_pause(self: Arc<Ledger>) -> anyhow::Result<()> {
        while !self.stop.load(Ordering::SeqCst) {
            self.look().await?;
        }
        Ok(())
    }

    /// Every body, byte for byte.
    async fn bodies(&self) -> anyhow::Result<()> {
        for (uid, mail) in self.promised() {
            let body = until("a body", RECOVERY, || async {
                Ok(Some(self.account.read_body(self.inbox, Uid(uid)).await?))
            })
            .await?;
            ensure!(body == mail, "the body of UID {uid} is another");
        }
        Ok(())
    }
}

/// The databases of a node's views.
fn databases(cluster: &Cluster, node: NodeId) -> anyhow::Result<Vec<PathBuf>> {
    let index = cluster.path().join(format!("nodes/{node}/data/index"));
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&index).with_context(|| index.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if !name.contains(".bad-") {
            found.push(path);
        }
    }
    ensure!(!found.is_empty(), "node {node} has no views");
    Ok(found)
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// Turns a bit in every block of 512 bytes that holds anything.
fn flip_bits(database: &Path) -> anyhow::Result<()> {
    let file = database.join("db");
    let mut bytes = std::fs::read(&file)?;
    for block in bytes
        .chunks_mut(512)
        .filter(|block| block.iter().any(|byte| *byte != 0))
    {
        let middle = block.len() / 2;
        block[middle] ^= 0x10;
    }
    Ok(std::fs::write(&file, bytes)?)
}

/// An end of a write that never came to its end, as a power cut leaves it in the open of a database.
fn tear_a_snapshot(database: &Path) -> anyhow::Result<()> {
    Ok(std::fs::write(
        database.join("snap.FFFFFFFFFFFFFFF0.generating"),
        b"torn in the mid",
    )?)
}

/// Nothing is left of it but its name.
fn empty(database: &Path) -> anyhow::Result<()> {
    std::fs::remove_dir_all(database)?;
    Ok(std::fs::create_dir(database)?)
}

/// The database is cut short: two thirds of what it holds are gone. A young one is mostly empty behind that.
fn truncate(database: &Path) -> anyhow::Result<()> {
    let file = database.join("db");
    let bytes = std::fs::read(&file)?;
    let held = bytes.iter().rposition(|byte| *byte != 0).context("nothing to cut")?;
    Ok(std::fs::write(&file, &bytes[..held / 3])?)
}

/// One damage: what is done to each database, and whether it can be seen that the view was rebuilt for it.
struct Damage {
    name: &'static str,
    to: fn(&Path) -> anyhow::Result<()>,
    rebuilds: bool,
}

const DAMAGES: [Damage; 4] = [
    Damage {
        name: "bits",
        to: flip_bits,
        rebuilds: true,
    },
    Damage {
        name: "torn",
        to: tear_a_snapshot,
        rebuilds: false,
    },
    // After a kill a view cut short may be a whole one of an earlier moment, above its floor: the log behind it is applied, and that is right.
    // After a stop the floor is all that the view held.
    Damage {
        name: "short",
        to: truncate,
        rebuilds: true,
    },
    Damage {
        name: "empty",
        to: empty,
        rebuilds: true,
    },
];

/// Makes the node lead the account's shard, and reads everything there.
async fn read_at(cluster: &Cluster, ledger: &Ledger, node: NodeId) -> anyhow::Result<()> {
    let operator = cluster.operator().await?;
    let (shard, _) = cluster.leader_of(1).await?;
    until(format!("node {node} leads"), RECOVERY, || async {
        operator.cluster().leader_move(shard, node).await?;
        Ok((cluster.leader_of(1).await?.1 == node).then_some(()))
    })
    .await?;
    ledger.look().await?;
    ledger.bodies().await
}

async fn damage_and_compare(cluster: &mut Cluster, ledger: &Ledger) -> anyhow::Result<()> {
    for (number, damage) in DAMAGES.iter().enumerate() {
        let node = NODES[number % NODES.len()];
        ledger.deliver(damage.name, MAILS).await?;
        let before = cluster.rebuilds()?;
        // Killed and stopped in turn: after a clean stop nobody scans a view, and its damage must be found all the same.
        if number % 2 == 0 {
            cluster.stop(node).await?;
        } else {
            cluster.kill(node).await?;
        }
        let databases = databases(cluster, node)?;
        for database in &databases {
            (damage.to)(database).with_context(|| format!("{} {}", damage.name, database.display()))?;
        }
        ledger.deliver(&format!("{}-while-down", damage.name), MAILS).await?;
        cluster.restart(node).await?;
        cluster.replicas_agree(&NODES).await.context(damage.name)?;
        let rebuilt = cluster.rebuilds()? - before;
        let expected = if damage.rebuilds { databases.len() } else { 0 };
        ensure!(
            rebuilt >= expected,
            "{}: {rebuilt} of {expected} damaged views were rebuilt",
            damage.name
        );
        read_at(cluster, ledger, node).await.context(damage.name)?;
    }
    Ok(())
}

/// A view of an earlier day, put back: it opens, and lacks what came since.
async fn put_an_old_view_back(cluster: &mut Cluster, ledger: &Ledger) -> anyhow::Result<()> {
    let node = NODES[2];
    let kept = tempfile::tempdir()?;
    cluster.stop(node).await?;
    let old = databases(cluster, node)?;
    for (number, database) in old.iter().enumerate() {
        copy(database, &kept.path().join(number.to_string()))?;
    }
    cluster.restart(node).await?;
    ledger.deliver("since", MAILS).await?;
    cluster.replicas_agree(&NODES).await?;
    let before = cluster.rebuilds()?;
    cluster.stop(node).await?;
    for (number, database) in old.iter().enumerate() {
        std::fs::remove_dir_all(database)?;
        copy(&kept.path().join(number.to_string()), database)?;
    }
    cluster.restart(node).await?;
    cluster.replicas_agree(&NODES).await?;
    ensure!(
        cluster.rebuilds()? > before,
        "a view of an earlier day passed for today's"
    );
    read_at(cluster, ledger, node).await
}

async fn damage_under_readers() -> anyhow::Result<()> {
    let mut cluster = Cluster::start().await?;
    let ledger = Ledger::of(&cluster).await?;
    ledger.deliver("first", MAILS).await?;
    let reader = tokio::spawn(ledger.clone().look_without_pause());
    damage_and_compare(&mut cluster, &ledger).await?;
    put_an_old_view_back(&mut cluster, &ledger).await?;
    ledger.stop.store(true, Ordering::SeqCst);
    reader.await??;
    let reads = ledger.reads.load(Ordering::SeqCst);
    println!(
        "{} mails, {reads} looks, {} views rebuilt",
        ledger.promised().len(),
        cluster.rebuilds()?
    );
    ensure!(reads > DAMAGES.len() as u64, "{reads} looks are none");
    cluster.finish().await
}

#[test]
fn damaged_views_are_found_and_rebuilt_while_the_others_answer() -> anyhow::Result<()> {
    // Futures of an unoptimised build do not fit into the usual two megabytes.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_stack_size(16 << 20)
        .enable_all()
        .build()?;
    runtime.block_on(async { tokio::spawn(damage_under_readers()).await? })
}
