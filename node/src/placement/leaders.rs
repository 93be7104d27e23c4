//! Leaders where they should be, and a directory that knows the voters.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use malle_machine::directory::{self, NodeState, Standing, TaskStep};
use malle_proto::{NodeId, ShardId};
use malle_rt::Instant;

use super::assign::Plan;
use crate::raft::{Group, GroupError, Groups};

/// A leader that is not the preferred one leads at least this long, and the preferred one has been there for so long, before it hands over: a
/// flapping node is left alone.
const LEAD_AT_LEAST: Duration = Duration::from_secs(10);
/// A command of placement takes at most this long; the next look repeats it.
const COMMAND: Duration = Duration::from_secs(5);

/// Since when this node has led each shard.
#[derive(Default)]
pub(super) struct Leaders {
    since: BTreeMap<ShardId, Instant>,
}

impl Leaders {
    /// What this node does not lead any more counts from the beginning should it lead it again.
    pub fn lead_only(&mut self, led: &BTreeSet<ShardId>) {
        self.since.retain(|shard, _| led.contains(shard));
    }

    /// One look at a group that this node leads.
    pub async fn look(&mut self, groups: &Arc<Groups>, group: &Group, plan: &Plan) -> Result<(), GroupError> {
        let Some(row) = plan.shards.iter().find(|row| row.id == group.shard()) else {
            return Ok(());
        };
        let moved = plan.running.iter().find(|task| task.shard == row.id);
        // Before a move has switched, the old replica's bodies still count: the row holds them where they are.
        let early = moved.is_some_and(|task| {
            matches!(
                task.step,
                TaskStep::Planned | TaskStep::Joined | TaskStep::CaughtUp | TaskStep::Cancelling
            )
        });
        if !early {
            self.tell_directory(groups, group, row).await?;
        }
        let led_since = *self.since.entry(row.id).or_insert_with(malle_rt::now);
        let leaves = moved.and_then(|task| task.leave);
        let able = |node: &&NodeId| {
            let state = plan.states.get(*node).copied().unwrap_or(NodeState::FIRST);
            state.standing == Standing::Active && state.silent_since_ms.is_none() && Some(**node) != leaves
        };
        // While it cannot, whoever was elected goes on: one handover less there and back.
        let Some(&preferred) = row.replicas.first().filter(able) else {
            // The count begins when it can: a node that comes and goes is waited for anew each time.
            self.since.remove(&row.id);
            return Ok(());
        };
        if preferred == groups.node() {
            self.since.remove(&row.id);
            return Ok(());
        }
        if group.is_short_of_room(preferred) {
            // It would give the lead back at once.
            return Ok(());
        }
        if malle_rt::now() - led_since >= LEAD_AT_LEAST {
            self.since.remove(&row.id);
            match group.transfer_leader(preferred).await {
                Ok(()) => tracing::info!(shard = %row.id, to = %preferred, "leadership goes to the preferred replica"),
                // It is down or behind: it gets the lead when it has caught up.
                Err(error) => tracing::debug!(shard = %row.id, to = %preferred, %error, "leadership stays"),
            }
        }
        Ok(())
    }

    /// The group's voters are the truth; the directory's row follows them.
    async fn tell_directory(
        &self,
        groups: &Arc<Groups>,
        group: &Group,
        row: &directory::Shard,
    ) -> Result<(), GroupError> {
        // What no majority knows yet may be taken back.
        let Some(now) = group.settled_voters() else {
            return Ok(());
        };
        let known: BTreeSet<NodeId> = row.replicas.iter().copied().collect();
        if now == known || now.is_empty() {
            return Ok(());
        }
        // Those that stay keep their order of preference; a new one takes the place of a lost one.
        let mut fresh = now.difference(&known).copied();
        let mut replicas: Vec<NodeId> = row
            .replicas
            .iter()
            .filter_map(|node| if now.contains(node) { Some(*node) } else { fresh.next() })
            .collect();
        replicas.extend(fresh);
        let op = directory::Op::ShardSet {
            shard: row.id,
            replicas,
            epoch: row.epoch,
        };
        match groups.propose_directory(op, malle_rt::now() + COMMAND).await? {
            directory::Outcome::Refused(refusal) => Err(GroupError::Invalid(refusal.to_string())),
            _ => Ok(()),
        }
    }
}
