//! Real file systems that fill up: one node's, then a majority's, while mail comes in; and what each door says meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use harness::{Cluster, Status, account, mail, monitoring, until};
use malle_client::NodeId;

use crate::power::run;

const SENDER: &str = "paul@example.net";
const NODES: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];
/// A node looks at its disk every second, and groups change hands at once.
const SOON: Duration = Duration::from_secs(60);
/// Less than four volumes and more than two: no new mail, and all else goes on.
const SHORT_BYTES: u64 = 700 << 20;

/// Delivers until it is done; the mail is promised then.
async fn deliver(cluster: &Cluster, promised: &mut Vec<String>, id: &str) -> anyhow::Result<()> {
    let mail = mail::plain(id);
    promised.push(id.to_owned());
    until(format!("250 for {id}"), SOON, || async {
        let replies = cluster.lmtp().await?.deliver(SENDER, &[&account(1)], &mail).await?;
        Ok(replies[0].is_done().then_some(()))
    })
    .await
}

/// Waits until a node says of itself that it is short of room, or that it is not.
async fn says_short(cluster: &Cluster, node: NodeId, short: bool) -> anyhow::Result<()> {
    until(format!("node {node} says of room: short {short}"), SOON, || async {
        let status = cluster.operator().await?.cluster().node_status(node, false).await?;
        Ok((status.short_of_room.is_some() == short).then_some(()))
    })
    .await
}

async fn one_full_disk(cluster: &Cluster, promised: &mut Vec<String>) -> anyhow::Result<NodeId> {
    let (_, leader) = cluster.leader_of(1).await?;
    cluster.fill_disk(leader, SHORT_BYTES)?;
    says_short(cluster, leader, true).await?;
    until("another leader", SOON, || async {
        Ok((cluster.leader_of(1).await?.1 != leader).then_some(()))
    })
    .await?;
    for number in 0..10 {
        deliver(cluster, promised, &format!("one-{number}")).await?;
    }
    let address = cluster.monitoring_address(leader).await?;
    let (status, said) = monitoring::get(&address, "/health/ready").await?;
    ensure!(status == 503 && said.contains("nearly full"), "{status} {said}");
    let (status, said) = monitoring::get(&address, "/health/live").await?;
    ensure!(status == 200, "{status} {said}");
    let metrics = cluster.metrics(leader).await?;
    ensure!(metrics.get("malle_disk_room{room=\"short\"}") == Some(1.0));
    Ok(leader)
}

/// No majority has room: mail is refused for now, by name, and what needs no room goes on.
async fn a_full_majority(cluster: &Cluster, promised: &mut Vec<String>) -> anyhow::Result<()> {
    until("452 from LMTP", SOON, || async {
        let mail = mail::plain("refused");
        let replies = cluster.lmtp().await?.deliver(SENDER, &[&account(1)], &mail).await?;
        let full = replies[0].code == 452 && replies[0].lines[0].starts_with("4.3.1");
        Ok(full.then_some(()))
    })
    .await?;
    let mut imap = cluster.imap(1).await?;
    let refused = imap.append("INBOX", "", &mail::plain("appended")).await?;
    ensure!(refused.status == Status::No, "{refused:?}");
    ensure!(refused.text.contains("[UNAVAILABLE]"), "{refused:?}");
    imap.select("INBOX").await?;
    let uids = imap.uids().await?;
    let (kept, gone) = (uids[0], uids[1]);
    let id = mail::id_of(&imap.body(gone).await?).context("a plain mail")?;
    imap.command(&format!("UID STORE {kept} +FLAGS (\\Flagged)"))
        .await?
        .ok()?;
    imap.command(&format!("UID STORE {gone} +FLAGS (\\Deleted)"))
        .await?
        .ok()?;
    imap.command(&format!("UID EXPUNGE {gone}")).await?.ok()?;
    ensure!(imap.uids().await? == uids[..1].iter().chain(&uids[2..]).copied().collect::<Vec<_>>());
    ensure!(!imap.body(kept).await?.is_empty());
    promised.retain(|promised| *promised != id);
    Ok(())
}

#[test]
fn full_disks_refuse_mail_keep_what_they_have_and_go_on_alone() -> anyhow::Result<()> {
    run(async {
        let mut cluster = Cluster::start_on_loop_disks().await?;
        let mut promised = Vec::new();
        for number in 0..5 {
            deliver(&cluster, &mut promised, &format!("before-{number}")).await?;
        }
        let first = one_full_disk(&cluster, &mut promised).await?;
        let second = NODES.into_iter().find(|node| *node != first).context("three nodes")?;
        cluster.fill_disk(second, SHORT_BYTES)?;
        says_short(&cluster, second, true).await?;
        a_full_majority(&cluster, &mut promised).await?;
        // A node that starts on a full disk starts.
        cluster.kill(second).await?;
        cluster.restart(second).await?;
        says_short(&cluster, second, true).await?;
        cluster.make_room(first)?;
        cluster.make_room(second)?;
        deliver(&cluster, &mut promised, "room-again").await?;
        for node in [first, second] {
            says_short(&cluster, node, false).await?;
        }
        // And to the last byte, under mail.
        cluster.fill_disk(first, 0)?;
        says_short(&cluster, first, true).await?;
        for number in 0..50 {
            deliver(&cluster, &mut promised, &format!("last-{number}")).await?;
        }
        cluster.make_room(first)?;
        says_short(&cluster, first, false).await?;
        deliver(&cluster, &mut promised, "after").await?;
        let mut imap = cluster.imap(1).await?;
        imap.select("INBOX").await?;
        let mut there: BTreeMap<String, usize> = BTreeMap::new();
        for (_, body) in imap.bodies().await? {
            *there.entry(mail::id_of(&body).context("a plain mail")?).or_default() += 1;
        }
        let broken = promised.iter().filter(|id| there.get(*id) != Some(&1));
        let broken: Vec<&String> = broken.collect();
        ensure!(broken.is_empty(), "lost or doubled: {broken:?}");
        cluster.replicas_agree(&NODES).await?;
        cluster.finish().await
    })
}
