//! A group whose state cannot come back from this node's own disk asks a member for its snapshot.
//!
//! The view is gone or wrong, the checkpoint does not read, and the log was purged behind that checkpoint: nothing here says what the
//! purged entries did. Vote and log are whole, and stay. What a member sends is its checkpoint: entries that it had applied, so committed
//! ones, at least as far as this log was purged. It takes the place of the rotten one, and the group opens over it as after any rebuild.
//!
//! Why this is safe:
//!
//! * until then the group is not open: it answers nobody, votes for nobody and acknowledges nothing, as if the node were down;
//! * the vote is not touched, so no term gets two votes of this node;
//! * no entry of the log goes that may be committed. Should the log hold another entry where the snapshot ends, that entry and all behind
//!   it contradict a committed one, and no leader ever counted them: they go first, as raft itself does when a leader's snapshot comes;
//! * a snapshot that ends before this log begins would leave a gap and is refused.
//!
//! What is absent: a way back for a group all of whose members are like this. That is for a person, and a backup.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use malle_machine::format;
use malle_proto::v1::RaftFrame;
use malle_proto::{NodeId, ShardId};
use openraft::async_runtime::WatchReceiver;

use super::group::Group;
use super::groups::Groups;
use super::network::{answer, send_checkpoint};
use crate::log::records::{SnapshotDoneRecord, SnapshotHeadRecord};
use crate::log::types::LogId;
use crate::peers::{RaftCall, Transport};
use crate::state::Checkpoint;

/// A member makes a checkpoint and sends it within this; else another is asked.
const SENT_WITHIN: Duration = Duration::from_secs(600);
/// Pause between two rounds over the members.
const ROUND_PAUSE: Duration = Duration::from_secs(1);

/// Groups that wait for a snapshot.
#[derive(Default)]
pub(super) struct Wanting(RwLock<BTreeSet<ShardId>>);

impl Wanting {
    /// Whether this group waits for one.
    pub fn has(&self, shard: ShardId) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains(&shard)
    }

    /// From now on it does; false when it did before.
    pub fn begin(&self, shard: ShardId) -> bool {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(shard)
    }

    /// None does any more.
    pub fn end_all(&self) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// It does not any more.
    pub fn end(&self, shard: ShardId) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&shard);
    }
}

/// Asks one member after the other until one has sent its snapshot, and the group is open.
pub(super) async fn ask_for_a_snapshot(groups: Weak<Groups>, shard: ShardId) {
    loop {
        let Some(here) = groups.upgrade().filter(|groups| groups.wants(shard)) else {
            return;
        };
        for peer in here.peers() {
            match ask(&here, shard, peer).await {
                Ok(()) => return,
                Err(reason) => tracing::warn!(%shard, %peer, reason, "no snapshot from this node"),
            }
        }
        drop(here);
        malle_rt::sleep(ROUND_PAUSE).await;
    }
}

async fn ask(groups: &Groups, shard: ShardId, peer: NodeId) -> Result<(), String> {
    let frame = RaftFrame {
        shard: shard.0,
        from: groups.node().0,
        to: peer.0,
        payload_data: Bytes::new(),
        ..RaftFrame::default()
    };
    let deadline = malle_rt::now() + SENT_WITHIN;
    let reply = groups
        .transport()
        .call(peer, RaftCall::SendSnapshot, frame, deadline)
        .await;
    answer::<SnapshotDoneRecord>(&reply.map_err(|error| error.to_string())?).map(drop)
}

/// Sends everything that is applied here to a member that asks. Answers when it has it.
pub(super) async fn send(transport: &dyn Transport, group: &Group, to: NodeId) -> Result<Bytes, String> {
    if !group.nodes().contains_key(&to) {
        return Err(format!("node {to} is no member of shard {}", group.shard()));
    }
    let checkpoint = group.state().checkpoint().await.map_err(|error| error.to_string())?;
    let vote = group.raft().metrics().borrow_watched().vote;
    let head = SnapshotHeadRecord {
        vote: (&vote).into(),
        last: checkpoint.record().applied,
        membership: checkpoint.record().membership.clone(),
    };
    let frame = RaftFrame {
        shard: group.shard().0,
        from: group.node().0,
        to: to.0,
        payload_data: format::encode(&head),
        ..RaftFrame::default()
    };
    tracing::info!(shard = %group.shard(), %to, index = checkpoint.index(), "a member asked for a snapshot");
    let done = send_checkpoint(transport, to, frame, checkpoint).await?;
    Ok(format::encode(&done))
}

impl Groups {
    /// Opens a group over the snapshot of a member, which it waits for.
    ///
    /// # Errors
    /// Why not; the group waits on.
    pub(super) async fn restore(self: &Arc<Self>, shard: ShardId, snapshot: Checkpoint) -> Result<(), String> {
        let closing = self.changing.lock().await;
        if *closing || !self.wants(shard) {
            return Err(format!("shard {shard} waits for no snapshot here"));
        }
        let log = self.settings.logs.group(shard);
        if !snapshot.reaches(log.purged_index()) {
            return Err(format!(
                "the snapshot ends at {}, and the log begins after {:?}",
                snapshot.index(),
                log.purged_index()
            ));
        }
        let failed = |error: std::io::Error| error.to_string();
        if let Some(last) = snapshot.record().applied {
            log.drop_what_contradicts(LogId::from(last)).await.map_err(failed)?;
        }
        let dir = self.dir_of(shard);
        let index = snapshot.index();
        malle_rt::blocking(move || snapshot.become_current(&dir))
            .await
            .map_err(failed)?;
        tracing::warn!(%shard, index, "a member's snapshot takes the place of what this node lost");
        self.wanting.end(shard);
        let opened = self.clone().start(shard, log, 0).await;
        opened.map(drop).map_err(|error| error.to_string())
    }
}
