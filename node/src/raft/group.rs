//! One raft group on this node.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use malle_machine::view::Change;
use malle_machine::{directory, format, shard};
use malle_proto::v1::GroupStatus;
use malle_proto::{NodeId, ShardId, limits};
use malle_rt::Instant;
use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::RaftError;
use openraft::impls::ProgressResponder;
use openraft::metrics::WaitError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, watch};

use super::committed::HeardCommitted;
use super::fresh::Freshness;
use super::read::ReadRounds;
use super::riders::rider;
use super::{Duty, GroupError};
use crate::bodies::{DiskRoom, GroupBodies, Members, StoredBody};
use crate::env::Env;
use crate::log::types::{LeaderId, Member, Proposal, Reply, TypeConfig};
use crate::peers::Transport;
use crate::state::{GroupState, StateMachine};

type Raft = openraft::Raft<TypeConfig, StateMachine>;

/// A checkpoint of a full shard is scanned and written in less.
const CHECKPOINT_WAIT: Duration = Duration::from_secs(120);
/// Pause between two questions for the same checkpoint: most are made in less.
const CHECKPOINT_ASKED_AGAIN: Duration = Duration::from_secs(1);
/// How long a proposal waits when the queue is full, as told to the caller.
const BUSY_RETRY: Duration = Duration::from_millis(50);

/// What all groups of a node have in common.
pub(super) struct Common {
    /// Clock and entropy.
    pub env: Env,
    /// Whether the node acknowledges.
    pub duty: Arc<Duty>,
    /// The way to the peers.
    pub transport: Arc<dyn Transport>,
}

/// One raft group on this node.
pub struct Group {
    shard: ShardId,
    node: NodeId,
    common: Common,
    raft: Raft,
    state: GroupState,
    bodies: Arc<GroupBodies>,
    /// Proposals under way.
    proposals: Semaphore,
    /// KiB of mail on the way in.
    intake: Arc<Semaphore>,
    rounds: ReadRounds,
    committed: HeardCommitted,
    freshness: Freshness,
}

impl Group {
    pub(super) fn new(
        shard: ShardId,
        node: NodeId,
        common: Common,
        raft: Raft,
        state: GroupState,
        bodies: Arc<GroupBodies>,
    ) -> Self {
        let proposals = Semaphore::new(limits::PROPOSALS_PER_SHARD_MAX);
        Group {
            shard,
            node,
            common,
            raft,
            state,
            bodies,
            proposals,
            intake: Arc::new(Semaphore::new(limits::BODY_BYTES_PER_SHARD_MAX / 1024)),
            rounds: ReadRounds::default(),
            committed: HeardCommitted::default(),
            freshness: Freshness::default(),
        }
    }

    /// Its shard.
    pub fn shard(&self) -> ShardId {
        self.shard
    }

    pub(super) fn node(&self) -> NodeId {
        self.node
    }

    pub(super) fn raft(&self) -> &Raft {
        &self.raft
    }

    pub(super) fn rounds(&self) -> &ReadRounds {
        &self.rounds
    }

    pub(super) fn freshness(&self) -> &Freshness {
        &self.freshness
    }

    pub(super) fn transport(&self) -> &Arc<dyn Transport> {
        &self.common.transport
    }

    /// Its state, for status and housekeeping; clients read through [`Group::read`].
    pub fn state(&self) -> &GroupState {
        &self.state
    }

    /// What of its bodies is here.
    pub fn bodies(&self) -> &Arc<GroupBodies> {
        &self.bodies
    }

    /// Proposes an operation of a shard; answers once a majority has it synced and it is applied here.
    ///
    /// # Errors
    /// See [`GroupError`]; after `Unavailable` and `Deadline` it may still be done: repeat it with the same op id.
    pub async fn propose_shard(&self, op: shard::Op, deadline: Instant) -> Result<shard::Outcome, GroupError> {
        self.propose_mail(op, Vec::new(), None, deadline).await
    }

    /// As [`Group::propose_shard`], with bodies that the operation names. They ride with the entry: it is in no node's log before they are
    /// durable there, so that it is committed only with its bodies on a majority. With `leader` it is refused when this node does not lead as
    /// that any more: see [`Group::read_before_write`].
    ///
    /// # Errors
    /// See [`Group::propose_shard`].
    pub async fn propose_mail(
        &self,
        op: shard::Op,
        bodies: Vec<StoredBody>,
        leader: Option<LeaderId>,
        deadline: Instant,
    ) -> Result<shard::Outcome, GroupError> {
        let command = shard::Command {
            time_ms: self.common.env.now_ms(),
            op,
        };
        let proposal = Proposal {
            command: format::encode(&command),
            riders: bodies.into_iter().map(rider).collect(),
        };
        match self.propose(proposal, leader, deadline).await? {
            Reply::Shard(outcome) => Ok(outcome),
            other => Err(GroupError::Invalid(format!("shard {} answered {other}", self.shard))),
        }
    }

    /// Proposes an operation of the directory; see [`Group::propose_shard`].
    ///
    /// # Errors
    /// See [`GroupError`].
    pub async fn propose_directory(
        &self,
        op: directory::Op,
        deadline: Instant,
    ) -> Result<directory::Outcome, GroupError> {
        let command = directory::Command {
            time_ms: self.common.env.now_ms(),
            op,
        };
        match self
            .propose(Proposal::of(format::encode(&command)), None, deadline)
            .await?
        {
            Reply::Directory(outcome) => Ok(outcome),
            other => Err(GroupError::Invalid(format!("the directory answered {other}"))),
        }
    }

    /// Takes this shard's room for a mail on its way in; dropping it gives it back. Nobody waits here: what one shard cannot take must
    /// not use up the node's room for the others.
    ///
    /// # Errors
    /// `Busy` when the shard has too much under way.
    pub fn take_in(&self, bytes: usize) -> Result<OwnedSemaphorePermit, GroupError> {
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
        let taken = self.intake.clone().try_acquire_many_owned(kib);
        taken.map_err(|_| GroupError::Busy {
            retry_after: BUSY_RETRY,
        })
    }

    /// Whether a body may be put into this group now. A majority of its voters must have room for it, so that what is let in is not stuck in
    /// the log; and this node, because it is to give the lead away otherwise.
    ///
    /// # Errors
    /// `DiskFull`, to come again soon when another may lead, later when nobody has room.
    pub fn takes_bodies(&self) -> Result<(), GroupError> {
        let disk = self.bodies.disk();
        if disk.all_have_enough() {
            return Ok(());
        }
        let retry_ms = if !disk.majority_has_enough(&self.members(), self.node) {
            limits::DISK_FULL_RETRY_MS
        } else if disk.room() != DiskRoom::Enough {
            limits::DISK_SHORT_RETRY_MS
        } else {
            return Ok(());
        };
        Err(GroupError::DiskFull {
            retry_after: Duration::from_millis(retry_ms),
        })
    }

    /// Whether a replica is known to be short of room on its disk: it would give the lead back.
    pub fn is_short_of_room(&self, node: NodeId) -> bool {
        self.bodies.disk().room_of(node, self.node) != DiskRoom::Enough
    }

    pub(super) fn committed(&self) -> &HeardCommitted {
        &self.committed
    }

    async fn propose(
        &self,
        proposal: Proposal,
        leader: Option<LeaderId>,
        deadline: Instant,
    ) -> Result<Reply, GroupError> {
        if proposal.command.len() > limits::RAFT_ENTRY_MAX_BYTES {
            return Err(GroupError::Invalid(format!(
                "a command of {} bytes, {} are the limit",
                proposal.command.len(),
                limits::RAFT_ENTRY_MAX_BYTES
            )));
        }
        let Ok(_place) = self.proposals.try_acquire() else {
            return Err(GroupError::Busy {
                retry_after: BUSY_RETRY,
            });
        };
        self.common.duty.acknowledges()?;
        let written = match malle_rt::timeout_at(deadline, self.write(proposal, leader)).await {
            Ok(written) => written?,
            Err(_) => return Err(GroupError::Deadline),
        };
        // Done or not, who repeats it elsewhere learns; here nobody is told any more.
        self.common.duty.acknowledges()?;
        Ok(written)
    }

    async fn write(&self, proposal: Proposal, leader: Option<LeaderId>) -> Result<Reply, GroupError> {
        let Some(leader) = leader else {
            return Ok(self.raft.client_write(proposal).await?.data);
        };
        let (responder, written) = ProgressResponder::complete_only();
        let write = self.raft.write(proposal).with_leader(leader).responder(responder);
        write.await?;
        match written.await {
            Ok(written) => Ok(written.map_err(RaftError::APIError)?.data),
            Err(_) => Err(GroupError::Stopped("raft dropped a proposal".into())),
        }
    }

    /// This node leads, as far as it knows.
    pub fn is_leader(&self) -> bool {
        self.raft.is_leader()
    }

    /// Who leads, as far as this node knows.
    pub fn leader(&self) -> Option<NodeId> {
        self.raft.metrics().borrow_watched().current_leader.map(NodeId)
    }

    /// The voters now, two sets of them while they change, and the entry that says so.
    pub fn members(&self) -> Members {
        let metrics = self.raft.metrics();
        let membership = metrics.borrow_watched().membership_config.clone();
        Members {
            index: membership.log_id().map_or(0, |id| id.index),
            voters: membership
                .membership()
                .get_joint_config()
                .iter()
                .map(|set| set.iter().copied().map(NodeId).collect())
                .collect(),
        }
    }

    /// Voters and learners.
    pub fn nodes(&self) -> BTreeMap<NodeId, String> {
        let metrics = self.raft.metrics();
        let membership = metrics.borrow_watched().membership_config.clone();
        membership
            .membership()
            .nodes()
            .map(|(id, member)| (NodeId(*id), member.peer_address.clone()))
            .collect()
    }

    /// Every change of an account that is applied here.
    pub fn changes(&self) -> broadcast::Receiver<Change> {
        self.state.changes()
    }

    /// Rises with every applied entry.
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.state.applied()
    }

    /// Makes the group, on the one node that its first row names. Repeating it changes nothing.
    ///
    /// # Errors
    /// When raft refuses the members.
    pub async fn initialize(&self, members: BTreeMap<NodeId, String>) -> Result<(), GroupError> {
        if self.raft.is_initialized().await? {
            return Ok(());
        }
        let members: BTreeMap<u64, Member> = members
            .into_iter()
            .map(|(id, peer_address)| (id.0, Member { peer_address }))
            .collect();
        match self.raft.initialize(members).await {
            Ok(()) => Ok(()),
            // Somebody was quicker: the leader has spoken to this node already.
            Err(_) if self.raft.is_initialized().await? => Ok(()),
            Err(error) => Err(GroupError::Invalid(error.to_string())),
        }
    }

    /// Adds a learner and waits until its log has caught up.
    ///
    /// # Errors
    /// See [`GroupError`].
    pub async fn add_learner(&self, node: NodeId, peer_address: String) -> Result<(), GroupError> {
        self.raft.add_learner(node.0, Member { peer_address }, true).await?;
        Ok(())
    }

    /// Adds a learner without waiting for it; one that is a member already stays what it is.
    ///
    /// # Errors
    /// See [`GroupError`].
    pub async fn begin_learner(&self, node: NodeId, peer_address: String) -> Result<(), GroupError> {
        if !self.nodes().contains_key(&node) {
            self.raft.add_learner(node.0, Member { peer_address }, false).await?;
        }
        Ok(())
    }

    /// Drops members that have no vote.
    ///
    /// # Errors
    /// `Invalid` when one has a vote; see [`GroupError`].
    pub async fn remove_learners(&self, nodes: &[NodeId]) -> Result<(), GroupError> {
        let nodes: std::collections::BTreeSet<u64> = nodes.iter().map(|node| node.0).collect();
        let change = openraft::ChangeMembers::RemoveNodes(nodes);
        self.raft.change_membership(change, false).await?;
        Ok(())
    }

    /// As [`Group::set_voters`]; those that lose their vote go on to learn.
    ///
    /// # Errors
    /// See [`GroupError`].
    pub async fn set_voters_and_keep(&self, voters: &[NodeId]) -> Result<(), GroupError> {
        let voters: std::collections::BTreeSet<u64> = voters.iter().map(|node| node.0).collect();
        self.raft.change_membership(voters, true).await?;
        Ok(())
    }

    /// The voters, when they are not being changed and a majority has the entry that says so: no later leader takes it back.
    pub fn settled_voters(&self) -> Option<std::collections::BTreeSet<NodeId>> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = &metrics.membership_config;
        let committed = metrics.local_committed.map_or(0, |id| id.index);
        let said = membership.log_id().map(|id| id.index)?;
        let [voters] = &membership.membership().get_joint_config()[..] else {
            return None;
        };
        (said <= committed).then(|| voters.iter().copied().map(NodeId).collect())
    }

    /// The new voters of a change that stands half way: a majority knows that both sets vote, and whoever led died before the second step.
    /// [`Group::set_voters`] with them ends it.
    pub fn unfinished_voters(&self) -> Option<std::collections::BTreeSet<NodeId>> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = &metrics.membership_config;
        let committed = metrics.local_committed.map_or(0, |id| id.index);
        let said = membership.log_id().map(|id| id.index)?;
        let [_, voters] = &membership.membership().get_joint_config()[..] else {
            return None;
        };
        (said <= committed).then(|| voters.iter().copied().map(NodeId).collect())
    }

    /// Index of the last entry that this replica knows to be committed.
    pub fn committed_index(&self) -> u64 {
        let metrics = self.raft.metrics();
        let committed = metrics.borrow_watched().local_committed;
        committed.map_or(0, |id| id.index)
    }

    /// Makes exactly these the voters, by way of a joint configuration; others are dropped.
    ///
    /// # Errors
    /// See [`GroupError`].
    pub async fn set_voters(&self, voters: &[NodeId]) -> Result<(), GroupError> {
        let voters: std::collections::BTreeSet<u64> = voters.iter().map(|node| node.0).collect();
        self.raft.change_membership(voters, false).await?;
        Ok(())
    }

    /// Hands leadership over, when `to` has everything that this leader has.
    ///
    /// # Errors
    /// `Invalid` when it lags; see [`GroupError`].
    pub async fn transfer_leader(&self, to: NodeId) -> Result<(), GroupError> {
        let (leads, matched, last) = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            let matched = metrics
                .replication
                .as_ref()
                .and_then(|all| all.get(&to.0).cloned().flatten());
            (metrics.state == ServerState::Leader, matched, metrics.last_log_index)
        };
        if !leads {
            return Err(GroupError::NotLeader { leader: self.leader() });
        }
        if to == self.node {
            return Ok(());
        }
        if matched.map(|id| id.index) != last {
            return Err(GroupError::Invalid(format!("node {to} has not caught up; try again")));
        }
        self.raft.trigger().transfer_leader(to.0).await?;
        Ok(())
    }

    /// This node's elections are over; it still votes and replicates.
    pub(super) fn never_stand_again(&self) {
        self.raft.runtime_config().elect(false);
    }

    /// Makes a checkpoint now and purges the log behind it, but for the last `kept` entries, which a follower may still want.
    ///
    /// # Errors
    /// When the disk fails, or nothing was applied yet.
    pub async fn checkpoint(&self, kept: u64) -> Result<u64, GroupError> {
        let applied = self.state.applied_index();
        let mut without_room = self.state.checkpoints_without_room();
        tokio::select! {
            made = malle_rt::timeout(CHECKPOINT_WAIT, self.checkpoint_of(applied)) => match made {
                Ok(made) => made?,
                Err(_) => return Err(GroupError::Unavailable("a checkpoint was not made in time".into())),
            },
            _ = without_room.changed() => {
                return Err(GroupError::Unavailable("the disk has no room for a checkpoint".into()));
            }
        }
        let index = self.state.checkpoint_index();
        if let Some(upto) = index.checked_sub(kept) {
            self.raft.trigger().purge_log(upto).await?;
        }
        Ok(index)
    }

    /// Asks until there is a checkpoint of at least this entry: while one is being made raft forgets who asks for another, and the one that
    /// is being made may be of an earlier entry.
    async fn checkpoint_of(&self, index: u64) -> Result<(), GroupError> {
        let is_made =
            |metrics: &openraft::RaftMetrics<TypeConfig>| metrics.snapshot.is_some_and(|at| at.index >= index);
        loop {
            self.raft.trigger().snapshot().await?;
            match self
                .raft
                .wait(Some(CHECKPOINT_ASKED_AGAIN))
                .metrics(is_made, "a checkpoint")
                .await
            {
                Ok(_) => return Ok(()),
                Err(WaitError::Timeout(..)) => {}
                Err(stopped) => return Err(GroupError::Stopped(stopped.to_string())),
            }
        }
    }

    /// What this replica has.
    pub fn status(&self) -> GroupStatus {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let (digest, applied_index, rows) = self.state.digest();
        let role = match (&metrics.running_state, metrics.state) {
            (Err(_), _) => "failed",
            (Ok(()), ServerState::Leader) => "leader",
            (Ok(()), ServerState::Follower) => "follower",
            (Ok(()), ServerState::Learner) => "learner",
            (Ok(()), ServerState::Candidate) => "candidate",
            (Ok(()), ServerState::Shutdown) => "stopped",
        };
        let membership = metrics.membership_config.membership().clone();
        let unwilling = self.common.duty.unwilling().or_else(|| self.bodies.disk().shortage());
        GroupStatus {
            shard: self.shard.0,
            role: role.to_owned(),
            term: metrics.current_term,
            leader: metrics.current_leader.unwrap_or_default(),
            last_log_index: metrics.last_log_index.unwrap_or_default(),
            committed_index: metrics.local_committed.map_or(0, |id| id.index),
            applied_index,
            checkpoint_index: self.state.checkpoint_index(),
            bodies_complete_through: self.bodies.complete_through(applied_index),
            digest: digest.to_bytes().to_vec().into(),
            voters: membership.voter_ids().collect(),
            learners: membership.learner_ids().collect(),
            rebuilds: self.state.rebuilds(),
            rows,
            accounts: 0,
            unwilling: unwilling.unwrap_or_default(),
            body_bytes: self.bodies.bytes(),
        }
    }

    /// How many entries the follower that is furthest behind lacks; `None` on a node that does not lead.
    pub fn replication_lag(&self) -> Option<u64> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let last = metrics.last_log_index.unwrap_or_default();
        let matched = metrics.replication.as_ref()?;
        let lags = matched
            .values()
            .map(|id| last.saturating_sub(id.as_ref().map_or(0, |id| id.index)));
        lags.max()
    }

    /// Asks for every body that the rows name and this node lacks: after a snapshot nobody told of them one by one.
    pub async fn bodies_after_snapshot(&self) {
        let index = self.state.applied_index();
        let named = self
            .state
            .read(|view| {
                let mut named = Vec::new();
                shard::read::bodies(view, &mut |hash, references, _| {
                    if references > 0 {
                        named.push(hash);
                    }
                    Ok(())
                })?;
                Ok(named)
            })
            .await;
        match named {
            Ok(named) => self.bodies.named(index, &named),
            Err(fault) => tracing::error!(shard = %self.shard, %fault, "which bodies are missing is not known"),
        }
    }

    /// Stops raft; the state is flushed and marked clean when `cleanly`.
    pub(super) async fn close(&self, cleanly: bool) {
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(shard = %self.shard, %error, "raft did not end well");
        }
        if cleanly && let Err(error) = self.state.close().await {
            tracing::warn!(shard = %self.shard, %error, "no clean mark: the next start proves the view by a scan");
        }
    }
}
