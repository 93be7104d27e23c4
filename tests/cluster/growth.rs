//! The cluster as its operators live with it: nodes join, are drained, leave, and die for good, and no user notices.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use harness::{Cluster, account, mail, until};
use malle_client::{Layout, NodeId};

const SENDER: &str = "paul@example.net";
/// No leader for longer than this is a failure of its own.
const OUTAGE_MAX: Duration = Duration::from_secs(60);
/// All moves of a step together, on a small machine.
const MOVES: Duration = Duration::from_secs(180);
/// Accounts that mail goes to, on several shards.
const ACCOUNTS: usize = 6;

/// What a stream of mail has seen.
#[derive(Default)]
struct Seen {
    acknowledged: Vec<(usize, String)>,
    /// Since the last step began.
    longest_gap: Duration,
    last: Option<Instant>,
    stop: bool,
}

type Load = Arc<Mutex<Seen>>;

fn look(seen: &Load) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Delivers one mail after the other until it is told to stop; a mail that is not acknowledged is sent again with the same bytes.
async fn load(address: String, seen: Load) -> anyhow::Result<()> {
    for number in 0.. {
        if look(&seen).stop {
            return Ok(());
        }
        let (to, id) = (number % ACCOUNTS + 1, format!("mail-{number}"));
        let mail = mail::plain(&id);
        let reply = until(format!("an answer to {id}"), OUTAGE_MAX, || async {
            let mut lmtp = harness::Lmtp::connect(&address).await?;
            let replies = lmtp.deliver(SENDER, &[&account(to)], &mail).await?;
            Ok(replies.into_iter().find(|reply| !reply.is_later()))
        });
        let reply = reply.await?;
        ensure!(reply.is_done(), "mail {id}: {reply:?}");
        let mut seen = look(&seen);
        let now = Instant::now();
        let gap = seen.last.map_or(Duration::ZERO, |last| now - last);
        seen.longest_gap = seen.longest_gap.max(gap);
        seen.last = Some(now);
        seen.acknowledged.push((to, id));
    }
    Ok(())
}

/// Prints what a step cost, and begins the next one.
fn step(seen: &Load, what: &str) {
    let mut seen = look(seen);
    let (gap, mails) = (seen.longest_gap, seen.acknowledged.len());
    println!("{what}: longest gap between two acknowledgements {gap:?}, {mails} mails until now");
    seen.longest_gap = Duration::ZERO;
}

async fn malle(cluster: &Cluster, arguments: &str) -> anyhow::Result<String> {
    let (code, said) = cluster.malle(arguments).await?;
    ensure!(code == 0, "malle {arguments} ended with {code}: {said}");
    Ok(said)
}

async fn refused(cluster: &Cluster, arguments: &str, word: &str) -> anyhow::Result<()> {
    let (code, said) = cluster.malle(arguments).await?;
    ensure!(
        code == 5 && said.contains(word),
        "malle {arguments} ended with {code}: {said}"
    );
    Ok(())
}

/// Waits until the layout is as wanted and nothing moves or is to move.
async fn settled(cluster: &Cluster, what: &str, wanted: impl Fn(&Layout) -> bool) -> anyhow::Result<Layout> {
    let operator = cluster.operator().await?;
    until(what, MOVES, || async {
        let layout = operator.cluster().layout().await?;
        let tasks = operator.cluster().tasks().await?;
        let plan = operator.cluster().layout_plan().await?;
        let rests = tasks.iter().all(malle_client::Task::is_over) && plan.moves.is_empty();
        Ok((rests && wanted(&layout)).then_some(layout))
    })
    .await
}

fn replicas(layout: &Layout, node: u64) -> u32 {
    let known = layout.nodes.iter().find(|known| known.id == NodeId(node));
    known.map_or(0, |known| known.replicas)
}

/// Bytes that moved until now, as planned and as the tasks that are done say.
async fn moved(cluster: &Cluster) -> anyhow::Result<(usize, u64)> {
    let tasks = cluster.operator().await?.cluster().tasks().await?;
    let done: Vec<_> = tasks.iter().filter(|task| task.step == "done").collect();
    Ok((done.len(), done.iter().map(|task| task.of.bytes).sum()))
}

#[tokio::test]
async fn a_cluster_grows_drains_shrinks_and_heals_under_load_and_loses_nothing() -> anyhow::Result<()> {
    let mut cluster = Cluster::start().await?;
    let seen = Load::default();
    let mails = tokio::spawn(load(cluster.lmtp_address().to_owned(), seen.clone()));

    for (new, beside) in [(4, 1), (5, 2), (6, 3)] {
        cluster.join(NodeId(new), NodeId(beside)).await?;
    }
    step(&seen, "three nodes joined");
    grow(&cluster).await?;
    step(&seen, "grown from 3 to 6 nodes");

    malle(&cluster, "node drain 4").await?;
    malle(&cluster, "node drain 4").await?;
    let status = cluster
        .operator()
        .await?
        .cluster()
        .node_status(NodeId(4), false)
        .await?;
    ensure!(
        status.groups.iter().all(|group| group.role != "leader"),
        "a drained node leads"
    );
    malle(&cluster, "node undrain 4").await?;
    malle(&cluster, "node drain 2").await?;
    refused(&cluster, "node drain 3", "majority").await?;
    malle(&cluster, "node undrain 2").await?;
    step(&seen, "drained and undrained");

    malle(&cluster, "node decommission 5 --yes --wait --timeout 3m").await?;
    malle(&cluster, "node decommission 5 --yes --wait").await?;
    refused(&cluster, "node decommission 2 --yes", "does not survive a region").await?;
    step(&seen, "decommissioned");

    cluster.kill_joined(NodeId(6)).await?;
    refused(&cluster, "node remove 3 --yes", "answers").await?;
    let healed = settled(&cluster, "the dead node's replicas elsewhere", |layout| {
        replicas(layout, 6) == 0 && replicas(layout, 3) == replicas(layout, 2)
    })
    .await?;
    step(&seen, "killed for good and rebuilt");
    malle(&cluster, "node remove 6 --yes --wait --timeout 1m").await?;
    let (moves, bytes) = moved(&cluster).await?;
    println!(
        "{moves} moves of {bytes} bytes; {} replicas on node 3",
        replicas(&healed, 3)
    );

    look(&seen).stop = true;
    mails.await??;
    let acknowledged = look(&seen).acknowledged.clone();
    check(&cluster, &acknowledged).await?;
    cluster
        .replicas_agree(&[NodeId(1), NodeId(2), NodeId(3), NodeId(4)])
        .await?;
    cluster.finish().await
}

/// Two operators: the one who looked earlier is told that the version moved on.
async fn grow(cluster: &Cluster) -> anyhow::Result<()> {
    refused(cluster, "layout apply --version 1 --yes", "nothing is staged").await?;
    let (code, said) = cluster.malle("layout assign 9 --weight 1").await?;
    ensure!(code == 6 && said.contains("no node 9"), "{code}: {said}");
    malle(cluster, "layout assign 4 5 --weight 1 --goal region --rebuild-after 5s").await?;
    malle(cluster, "layout assign 6 --weight 1").await?;
    refused(cluster, "layout apply --version 1 --yes", "moved on: 2").await?;
    let plan = cluster.operator().await?.cluster().layout_plan().await?;
    let bytes: u64 = plan.moves.iter().map(|one| one.bytes).sum();
    println!("the plan: {} moves, {bytes} bytes", plan.moves.len());
    ensure!(!plan.moves.is_empty() && plan.refused.is_none(), "{plan:?}");
    malle(cluster, "layout apply --version 2 --yes").await?;
    malle(cluster, "layout apply --version 2 --yes").await?;
    let all: u32 = {
        let layout = cluster.operator().await?.cluster().layout().await?;
        layout.nodes.iter().map(|node| node.replicas).sum()
    };
    let layout = settled(cluster, "replicas on six nodes", |layout| {
        (1..=6).all(|node| replicas(layout, node).abs_diff(all / 6) <= 1)
    })
    .await?;
    ensure!(layout.version == 2 && layout.history.len() == 1, "{layout:?}");
    let (moves, bytes) = moved(cluster).await?;
    println!("grown: {moves} moves of {bytes} bytes");
    ensure!(moves >= plan.moves.len(), "{moves} moves of {}", plan.moves.len());
    Ok(())
}

/// Every acknowledged mail is there, once, as it was sent.
async fn check(cluster: &Cluster, acknowledged: &[(usize, String)]) -> anyhow::Result<()> {
    for number in 1..=ACCOUNTS {
        let mut imap = cluster.imap(number).await?;
        imap.select("INBOX").await?;
        let mut found = BTreeSet::new();
        for (_, body) in imap.bodies().await? {
            let id = mail::id_of(&body).context("a mail that nobody sent")?;
            ensure!(
                body == mail::stored(SENDER, &mail::plain(&id)),
                "{id} came back changed"
            );
            ensure!(found.insert(id.clone()), "{id} is stored twice");
        }
        let sent = acknowledged.iter().filter(|(to, _)| *to == number);
        let lost: Vec<&String> = sent.map(|(_, id)| id).filter(|id| !found.contains(*id)).collect();
        ensure!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    }
    Ok(())
}
