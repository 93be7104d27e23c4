//! Mail into shards, by the way that mail takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::bail;
use futures::{StreamExt, TryStreamExt};
use malle_machine::shard::sample::{Sample, body_of};
use malle_machine::shard::{Op, Outcome};
use malle_node::bodies::Bodies;
use malle_node::peers::StoredBody;
use malle_node::raft::Group;
use malle_proto::ShardId;

use crate::alone::Alone;

/// Commands of one shard under way.
const AT_ONCE: usize = 256;
/// Shards that are filled at the same time.
const SHARDS_AT_ONCE: usize = 4;
/// A command on a busy disk takes less.
const DEADLINE: Duration = Duration::from_secs(120);

/// Opens so many shards with so many accounts each, and delivers `messages` in all, each with a body of its own.
///
/// # Errors
/// What raft, the bodies or the machine say.
pub async fn fill(node: &Alone, shards: u32, accounts_each: usize, messages: u64) -> anyhow::Result<()> {
    node.found(shards).await?;
    let each = messages.div_ceil(u64::from(shards));
    let filled = Arc::new(AtomicU64::new(0));
    futures::stream::iter(1..=shards)
        .map(|shard| {
            let filled = filled.clone();
            async move {
                let group = node.lead(ShardId(shard)).await?;
                let mut sample = Sample::new(u64::from(shard), accounts_each);
                for op in sample.open() {
                    propose(&group, &node.bodies, op).await?;
                }
                let deliveries = std::iter::from_fn(|| (sample.delivered < each).then(|| sample.deliver(1)));
                futures::stream::iter(deliveries)
                    .map(|op| propose(&group, &node.bodies, op))
                    .buffer_unordered(AT_ONCE)
                    .try_collect::<Vec<()>>()
                    .await?;
                let all = filled.fetch_add(each, Ordering::Relaxed) + each;
                println!("shard {shard}: {each} messages, {all} in all");
                anyhow::Ok(())
            }
        })
        .buffer_unordered(SHARDS_AT_ONCE)
        .try_collect::<Vec<()>>()
        .await?;
    Ok(())
}

async fn propose(group: &Group, bodies: &Bodies, op: Op) -> anyhow::Result<()> {
    if let Some((hash, bytes)) = body_of(&op) {
        let body = StoredBody {
            shard: group.shard(),
            hash,
            size: bytes.len() as u64,
            encoding: 0,
            stored: bytes,
        };
        bodies.receive(body).await?;
    }
    match group.propose_shard(op, malle_rt::now() + DEADLINE).await? {
        Outcome::Refused(refusal) => bail!("{refusal:?}"),
        _ => Ok(()),
    }
}
