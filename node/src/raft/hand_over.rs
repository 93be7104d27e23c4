//! Leadership given to a replica that can take it: planned stops, a failing journal, a full disk.
//!
//! The successor is asked first, so that nobody is chosen who is down, leaves too, or would give it back at once. openraft stops taking
//! proposals when the transfer begins and goes on replicating; the successor stands as soon as its own log has everything. A group whose
//! raft ended with the journal can send nothing any more: its successor is asked in its name, and wins only what any election gives.
//! What is absent: any way to force it. Where nobody can take over within the time, the others elect after theirs, as after a crash.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use malle_machine::format;
use malle_proto::v1::{GroupStatus, RaftFrame};
use malle_proto::{NodeId, ShardId};
use malle_rt::Instant;
use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;

use super::{Group, GroupError, Groups};
use crate::log::records::TransferRecord;
use crate::peers::RaftCall;

/// A replica that does not answer within this is no successor.
const ASK: Duration = Duration::from_millis(500);
/// Between two looks at whether the successor leads.
const LOOK: Duration = Duration::from_millis(5);
/// A successor that does not lead after this gives way to the next: its log is synced and two votes are cast in less.
const TAKE_OVER: Duration = Duration::from_millis(750);

/// What became of the groups that a node led.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HandedOver {
    /// Led by others now.
    pub given: Vec<ShardId>,
    /// With nobody who could take them over in time, and why.
    pub kept: Vec<(ShardId, String)>,
}

impl Groups {
    /// Gives away every group that this node leads, all at the same time.
    pub async fn hand_over_all(self: &Arc<Self>, deadline: Instant) -> HandedOver {
        let led: Vec<Arc<Group>> = self
            .all()
            .into_iter()
            .filter(|group| self.leads_or_did(group))
            .collect();
        let outcomes = led.iter().map(|group| async move {
            let outcome = self.hand_over(group, deadline).await;
            (group.shard(), outcome)
        });
        let mut done = HandedOver::default();
        for (shard, outcome) in futures::future::join_all(outcomes).await {
            match outcome {
                Ok(to) => {
                    tracing::info!(%shard, %to, "leadership is handed over");
                    done.given.push(shard);
                }
                Err(error) => {
                    // The caller says how many are kept.
                    tracing::debug!(%shard, %error, "nobody takes this group over");
                    done.kept.push((shard, error.to_string()));
                }
            }
        }
        done
    }

    /// Gives the lead of a group to whoever of its voters is willing and has most of its log; says who leads now.
    ///
    /// # Errors
    /// `NotLeader` when this node does not lead, `Unavailable` when nobody can take over or did in time.
    pub async fn hand_over(&self, group: &Group, deadline: Instant) -> Result<NodeId, GroupError> {
        if !self.leads_or_did(group) {
            return Err(GroupError::NotLeader { leader: group.leader() });
        }
        let successors = self.successors(group).await;
        if successors.is_empty() {
            return Err(GroupError::Unavailable("no other replica is up and willing".into()));
        }
        for to in successors {
            let until = deadline.min(malle_rt::now() + TAKE_OVER);
            if malle_rt::timeout_at(until, self.give(group, to, until)).await.is_ok() {
                self.duty().given.fetch_add(1, Ordering::Relaxed);
                return Ok(to);
            }
            if malle_rt::now() >= deadline {
                break;
            }
        }
        Err(GroupError::Unavailable("no other replica took over in time".into()))
    }

    /// Whether this node leads the group, or led it until its raft ended.
    fn leads_or_did(&self, group: &Group) -> bool {
        let metrics = group.raft().metrics();
        let metrics = metrics.borrow_watched();
        let ended = metrics.running_state.is_err() && metrics.current_leader == Some(self.node().0);
        metrics.state == ServerState::Leader || ended
    }

    /// Returns once `to` leads.
    async fn give(&self, group: &Group, to: NodeId, until: Instant) {
        let begun = group.is_leader() && group.raft().trigger().transfer_leader(to.0).await.is_ok();
        if begun {
            tokio::select! {
                () = self.leads(to, group) => return,
                // The journal's failure reaches raft while it begins: nobody knows whether the request went out.
                () = ended(group) => {}
            }
        }
        self.bequeath(group, to, until).await;
        self.leads(to, group).await;
    }

    /// Asks a follower to stand, in the name of a leader whose raft has ended.
    async fn bequeath(&self, group: &Group, to: NodeId, deadline: Instant) {
        let vote = group.raft().metrics().borrow_watched().vote;
        let record = TransferRecord {
            from: (&vote).into(),
            to: to.0,
            // The voters see to it that nobody leads who lacks a committed entry.
            last: None,
        };
        let frame = RaftFrame {
            shard: group.shard().0,
            from: self.node().0,
            to: to.0,
            payload_data: format::encode(&record),
            ..RaftFrame::default()
        };
        let asked = self
            .transport()
            .call(to, RaftCall::TransferLeader, frame, deadline)
            .await;
        if let Err(error) = asked {
            tracing::debug!(shard = %group.shard(), %to, %error, "the successor was not reached");
        }
    }

    /// Voters that answer and would lead, the longest log first.
    async fn successors(&self, group: &Group) -> Vec<NodeId> {
        let voters: std::collections::BTreeSet<NodeId> = group.members().voters.into_iter().flatten().collect();
        let others = voters.into_iter().filter(|node| *node != self.node());
        let asked = others.map(|node| async move {
            let answer = self.ask(node, group.shard(), ASK).await?;
            let able = answer.unwilling.is_empty() && answer.role == "follower";
            able.then_some((answer.last_log_index, node))
        });
        let mut able: Vec<(u64, NodeId)> = futures::future::join_all(asked).await.into_iter().flatten().collect();
        able.sort_by(|a, b| b.cmp(a));
        able.into_iter().map(|(_, node)| node).collect()
    }

    async fn ask(&self, node: NodeId, shard: ShardId, patience: Duration) -> Option<GroupStatus> {
        let answer = self.transport().replica(node, shard, malle_rt::now() + patience).await;
        answer.ok()
    }

    /// Returns once `to` leads by its own word.
    async fn leads(&self, to: NodeId, group: &Group) {
        loop {
            let own = group.raft().metrics().borrow_watched().state;
            // While this node leads nobody else does; a question would cost a round trip for nothing.
            if own != ServerState::Leader
                && let Some(answer) = self.ask(to, group.shard(), ASK).await
                && answer.role == "leader"
            {
                return;
            }
            malle_rt::sleep(LOOK).await;
        }
    }
}

/// Returns once the raft of this group has ended.
async fn ended(group: &Group) {
    let mut metrics = group.raft().metrics();
    while metrics.borrow_watched().running_state.is_ok() {
        if metrics.changed().await.is_err() {
            return;
        }
    }
}
