//! What operators see of a running cluster.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use harness::{Cluster, Lmtp, account, mail, monitoring, until};
use malle_client::NodeId;

const SENDER: &str = "paul@example.net";
const MAILS: usize = 5;
/// A replica hears of a commit with the next heartbeat.
const SOON: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_node_tells_its_health_and_counts_what_it_does() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let (shard, leader) = cluster.leader_of(1).await?;
    for number in 0..MAILS {
        let mail = mail::plain(&format!("mail-{number}"));
        let replies = cluster.lmtp().await?.deliver(SENDER, &[&account(1)], &mail).await?;
        ensure!(replies[0].is_done(), "{replies:?}");
    }
    for node in [NodeId(1), NodeId(2), NodeId(3)] {
        let address = cluster.monitoring_address(node).await?;
        for path in ["/health/live", "/health/ready"] {
            let (status, said) = monitoring::get(&address, path).await?;
            assert_eq!(status, 200, "{path} of node {node}: {said}");
        }
        // Every replica has the log and the bodies, so every node has synced both.
        until(format!("syncs of node {node}"), SOON, || async {
            let metrics = cluster.metrics(node).await?;
            let synced = |kind: &str| {
                let syncs = metrics.get(&format!("malle_journal_syncs_total{{kind=\"{kind}\"}}"));
                let timed = metrics.get(&format!("malle_journal_sync_seconds_count{{kind=\"{kind}\"}}"));
                syncs > Some(0.0) && syncs == timed
            };
            Ok((synced("log") && synced("volumes")).then_some(()))
        })
        .await?;
        let metrics = cluster.metrics(node).await?;
        assert_eq!(metrics.sum("malle_journal_failed"), 0.0);
        assert!(metrics.get("malle_disk_free_bytes") > Some(0.0));
        let role = if node == leader { "leader" } else { "follower" };
        assert_eq!(
            metrics.get(&format!("malle_raft_role{{shard=\"{shard}\",role=\"{role}\"}}")),
            Some(1.0),
            "node {node}"
        );
    }
    let metrics = cluster.metrics(leader).await?;
    assert_eq!(
        metrics.get("malle_deliveries_total{outcome=\"stored\"}"),
        Some(MAILS as f64)
    );
    cluster.finish().await
}

#[tokio::test]
async fn a_node_that_is_stopped_gives_its_groups_away_and_no_mail_is_turned_down() -> anyhow::Result<()> {
    let mut cluster = Cluster::start().await?;
    let (_, leader) = cluster.leader_of(1).await?;
    let others: Vec<NodeId> = (1..=3).map(NodeId).filter(|node| *node != leader).collect();
    let taken = async |cluster: &Cluster| -> anyhow::Result<f64> {
        let mut taken = 0.0;
        for node in &others {
            let metrics = cluster.metrics(*node).await?;
            taken += metrics
                .get("malle_leader_transfers_total{way=\"taken\"}")
                .unwrap_or(0.0);
        }
        Ok(taken)
    };
    let before = taken(&cluster).await?;

    // A client that never stops sending, one mail after the other over one session each.
    let stop = Arc::new(AtomicBool::new(false));
    let accepted = Arc::new(AtomicUsize::new(0));
    let client = {
        let (lmtp, stop, accepted) = (cluster.lmtp_address().to_owned(), stop.clone(), accepted.clone());
        tokio::spawn(async move {
            let mut number = 0;
            while !stop.load(Ordering::SeqCst) {
                number += 1;
                let mail = mail::plain(&format!("mail-{number}"));
                let replies = Lmtp::connect(&lmtp)
                    .await?
                    .deliver(SENDER, &[&account(1)], &mail)
                    .await?;
                ensure!(replies[0].is_done(), "mail {number} was turned down: {replies:?}");
                accepted.fetch_add(1, Ordering::SeqCst);
            }
            Ok(())
        })
    };
    let more_mails = async |more: usize| -> anyhow::Result<()> {
        let enough = accepted.load(Ordering::SeqCst) + more;
        until(format!("{more} more mails"), SOON, || async {
            ensure!(!client.is_finished(), "the client gave up");
            Ok((accepted.load(Ordering::SeqCst) >= enough).then_some(()))
        })
        .await
    };
    more_mails(5).await?;
    cluster.stop(leader).await?;
    more_mails(5).await?;
    stop.store(true, Ordering::SeqCst);
    client.await??;

    let log = cluster.log_of(leader)?;
    let said = log.lines().find(|line| line.contains("leads nothing any more"));
    let said = said.context("the node did not say what became of its groups")?;
    let figure = |name: &str| -> Option<f64> {
        let (_, rest) = said.split_once(&format!("{name}="))?;
        rest.split(' ').next()?.trim().parse().ok()
    };
    assert_eq!(figure("kept"), Some(0.0), "{said}");
    let given = figure("given").with_context(|| said.to_owned())?;
    assert!(given > 0.0, "{said}");
    assert!(taken(&cluster).await? >= before + given, "{said}");
    cluster.restart(leader).await?;
    cluster.replicas_agree(&[NodeId(1), NodeId(2), NodeId(3)]).await?;
    cluster.finish().await
}
