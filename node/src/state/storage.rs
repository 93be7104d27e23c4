//! openraft's state machine, told in this room's words.

use std::io;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::{Stream, StreamExt};
use malle_journal::is_out_of_space;
use malle_proto::limits;
use openraft::OptionalSend;
use openraft::entry::RaftEntry;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};

use super::checkpoint::Checkpoint;
use super::open::{GroupState, Inner};
use crate::log::types::{Entry, LogId, StoredMembership, TypeConfig};

type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;
type Snapshot = openraft::alias::SnapshotOf<TypeConfig, Checkpoint>;

/// Entries applied as one step: their log is waited for once and they run on the blocking pool once.
const APPLY_TOGETHER_MAX: usize = 128;
/// Between two tries of a first checkpoint on a full disk.
const LOOK_FOR_ROOM: Duration = Duration::from_secs(1);

/// What raft drives.
#[derive(Clone)]
pub struct StateMachine(pub GroupState);

fn snapshot_of(file: Checkpoint) -> io::Result<Snapshot> {
    let last_membership = StoredMembership::try_from(file.record().membership.clone()).map_err(io::Error::other)?;
    let meta = SnapshotMeta {
        last_log_id: file.record().applied.map(LogId::from),
        last_membership,
    };
    Ok(Snapshot { meta, snapshot: file })
}

impl StateMachine {
    /// Applies entries as they come, each step only once this node's log has synced it.
    pub(super) async fn apply_all<Strm>(&self, entries: Strm, wait_for_log: bool) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let mut together = pin!(entries.ready_chunks(APPLY_TOGETHER_MAX));
        while let Some(chunk) = together.next().await {
            let mut entries: Vec<Entry> = Vec::with_capacity(chunk.len());
            let mut responders = Vec::with_capacity(chunk.len());
            for item in chunk {
                let (entry, responder) = item?;
                entries.push(entry);
                responders.push(responder);
            }
            if let Some(last) = entries.last()
                && wait_for_log
            {
                self.0.inner.log.wait_synced(last.log_id()).await?;
            }
            let state = self.0.clone();
            let applied = malle_rt::blocking(move || state.apply_entries(&entries)).await;
            let replies = match applied {
                Ok(replies) => replies,
                Err(fault) => {
                    self.0.fail(&fault);
                    return Err(io::Error::other(fault));
                }
            };
            self.0.forget_riders(limits::RIDERS_KEPT_BYTES);
            for (responder, reply) in responders.into_iter().zip(replies) {
                if let Some(responder) = responder {
                    responder.send(reply);
                }
            }
            if self.0.overlay_is_full()
                && let Err(error) = self.0.flush().await
            {
                self.0.fail(&error);
                return Err(io::Error::other(error));
            }
        }
        Ok(())
    }
}

/// Makes checkpoints for raft. It does not keep the state: raft does not wait for it when it ends.
pub struct CheckpointBuilder(Weak<Inner>);

impl RaftSnapshotBuilder<TypeConfig> for CheckpointBuilder {
    type SnapshotData = Checkpoint;

    /// An error here ends raft, so a disk that is full must give none: the checkpoint that is there counts on, and without one this waits.
    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        loop {
            let Some(inner) = self.0.upgrade() else {
                return Err(io::Error::other("the group is closed"));
            };
            let state = GroupState { inner };
            match state.checkpoint().await {
                Err(error) if is_out_of_space(&error) => {
                    if let Some(current) = state.current_checkpoint() {
                        return snapshot_of(current);
                    }
                }
                made => return snapshot_of(made?),
            }
            drop(state);
            malle_rt::sleep(LOOK_FOR_ROOM).await;
        }
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = Checkpoint;
    type SnapshotBuilder = CheckpointBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let live = self.0.live();
        Ok((live.overlay.position.applied, live.overlay.position.membership.clone()))
    }

    async fn apply<Strm>(&mut self, entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        self.apply_all(entries, true).await
    }

    async fn get_snapshot_builder(&mut self) -> CheckpointBuilder {
        CheckpointBuilder(Arc::downgrade(&self.0.inner))
    }

    async fn install_snapshot(&mut self, _meta: &SnapshotMeta, snapshot: Checkpoint) -> Result<(), io::Error> {
        self.0.install(snapshot).await
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        self.0.current_checkpoint().map(snapshot_of).transpose()
    }
}
