//! What is left when a node dies.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use harness::{Cluster, account, mail, until};
use malle_client::NodeId;

const SENDER: &str = "paul@example.net";
/// No leader for longer than this is a failure of its own: the demo elects within a second.
const OUTAGE_MAX: Duration = Duration::from_secs(60);

/// Delivers until `count` mails are acknowledged; a mail that is not is sent again with the same bytes, as an MTA does.
async fn deliver(cluster: &Cluster, prefix: &str, count: usize) -> anyhow::Result<Vec<String>> {
    let mut acknowledged = Vec::new();
    for number in 0..count {
        let id = format!("{prefix}-{number}");
        let mail = mail::plain(&id);
        let reply = until(format!("an answer to mail {id}"), OUTAGE_MAX, || async {
            // An error means that nobody knows what became of it, a 4xx that it may come later: the same mail again for both.
            let replies = cluster.lmtp().await?.deliver(SENDER, &[&account(1)], &mail).await?;
            Ok(replies.into_iter().find(|reply| !reply.is_later()))
        });
        let reply = reply.await?;
        ensure!(reply.is_done(), "mail {id}: {reply:?}");
        acknowledged.push(id);
    }
    Ok(acknowledged)
}

/// UID of each mail, by its id; fails when a mail is there twice.
async fn stored(cluster: &Cluster) -> anyhow::Result<BTreeMap<String, u32>> {
    let mut imap = cluster.imap(1).await?;
    imap.select("INBOX").await?;
    let mut uids = BTreeMap::new();
    for (uid, body) in imap.bodies().await? {
        let id = mail::id_of(&body).context("a mail that nobody sent")?;
        ensure!(
            body == mail::stored(SENDER, &mail::plain(&id)),
            "{id} came back changed"
        );
        ensure!(uids.insert(id.clone(), uid).is_none(), "{id} is stored twice");
    }
    Ok(uids)
}

#[tokio::test]
async fn a_killed_leader_loses_no_acknowledged_mail() -> anyhow::Result<()> {
    let mut cluster = Cluster::start().await?;
    let mut acknowledged = deliver(&cluster, "before", 20).await?;
    let before = stored(&cluster).await?;
    let (_, leader) = cluster.leader_of(1).await?;

    cluster.kill(leader).await?;
    acknowledged.extend(deliver(&cluster, "after", 20).await?);

    let after = stored(&cluster).await?;
    for id in &acknowledged {
        assert!(after.contains_key(id), "{id} was acknowledged and is lost");
    }
    assert_eq!(
        after.len(),
        acknowledged.len(),
        "nothing is there that was not acknowledged"
    );
    for (id, uid) in &before {
        assert_eq!(after.get(id), Some(uid), "the UID of {id} changed");
    }
    let highest_before = before.values().max();
    assert!(
        after
            .iter()
            .filter(|(id, _)| id.starts_with("after"))
            .all(|(_, uid)| Some(uid) > highest_before)
    );

    cluster.restart(leader).await?;
    cluster.replicas_agree(&[NodeId(1), NodeId(2), NodeId(3)]).await?;
    assert_eq!(stored(&cluster).await?, after);
    cluster.finish().await
}

#[tokio::test]
async fn a_wiped_node_comes_back_under_a_new_id() -> anyhow::Result<()> {
    let mut cluster = Cluster::start().await?;
    let acknowledged = deliver(&cluster, "before", 10).await?;
    let (lost, new) = (NodeId(3), NodeId(4));
    cluster.kill(lost).await?;
    cluster.replace(lost, new).await?;
    cluster.replicas_agree(&[NodeId(1), NodeId(2), new]).await?;

    let topology = cluster.operator().await?.directory().topology().await?;
    let retired = |id: NodeId| {
        topology
            .nodes
            .iter()
            .find(|node| node.id == id)
            .is_some_and(|node| node.retired)
    };
    assert!(retired(lost) && !retired(new));
    assert!(
        topology
            .shards
            .iter()
            .all(|shard| shard.replicas.contains(&new) && !shard.replicas.contains(&lost))
    );

    // The new node carries the mail: with another one dead it is half of the majority.
    cluster.kill(NodeId(1)).await?;
    let later = deliver(&cluster, "after", 5).await?;
    let stored = stored(&cluster).await?;
    assert!(acknowledged.iter().chain(&later).all(|id| stored.contains_key(id)));
    assert_eq!(stored.len(), acknowledged.len() + later.len());
    cluster.finish().await
}
