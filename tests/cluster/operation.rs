//! What operators see of a running cluster.

use std::time::Duration;

use anyhow::ensure;
use harness::{Cluster, account, mail, monitoring, until};
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
