//! openraft's own storage suite, and a model of the log, both on stores that are closed and opened again.

use std::io;
use std::path::Path;
use std::sync::Arc;

use futures::Stream;
use malle_journal::{Disk, RealDisk};
use malle_proto::{BodyHash, NodeId, ShardId, limits};
use openraft::OptionalSend;
use openraft::storage::{EntryResponder, IOFlushed, RaftLogStorage, RaftStateMachine};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{EntryPayload, RaftLogReader};
use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};
use tempfile::TempDir;

use super::storage::CheckpointBuilder;
use super::{BodyNews, Checkpoint, GroupState, Indexes, Settings, SledIndexes, StateMachine};
use crate::env::Env;
use crate::log::types::{Entry, LeaderId, LogId, Proposal, StoredMembership, TypeConfig, Vote};
use crate::log::{GroupLog, Logs};

pub(super) const SHARD: ShardId = ShardId(7);
/// Small, so that a test crosses from one segment to the next.
const SEGMENT_BYTES: u64 = 256 * 1024;

struct NoBodies;

impl BodyNews for NoBodies {
    fn named(&self, _index: u64, _hashes: &[BodyHash]) {}
    fn released(&self, _hashes: &[BodyHash]) {}
}

pub(super) async fn open(dir: &Path) -> (Logs, GroupLog, GroupState) {
    open_with(dir, Arc::new(SledIndexes::new(&dir.join("index"), 1 << 20))).await
}

pub(super) async fn open_with(dir: &Path, indexes: Arc<dyn Indexes>) -> (Logs, GroupLog, GroupState) {
    open_on(dir, indexes, Arc::new(RealDisk)).await
}

/// With the checkpoints on another disk.
pub(super) async fn open_on(
    dir: &Path,
    indexes: Arc<dyn Indexes>,
    disk: Arc<dyn Disk>,
) -> (Logs, GroupLog, GroupState) {
    let real: Arc<dyn Disk> = Arc::new(RealDisk);
    let logs = Logs::open_with(real, &dir.join("log"), NodeId(1), SEGMENT_BYTES).expect("the journal opens");
    let log = logs.group(SHARD);
    let settings = Settings {
        env: Env::real(),
        disk,
        dir: dir.join("checkpoints"),
        checkpoint_log_bytes: limits::CHECKPOINT_LOG_BYTES,
        indexes,
        bodies: Arc::new(NoBodies),
    };
    let state = GroupState::open(SHARD, log.clone(), settings, false)
        .await
        .expect("the state opens");
    (logs, log, state)
}

/// The suite applies entries that it never appended: this machine does not wait for the log as the real one does.
struct Unlogged(StateMachine);

impl RaftStateMachine<TypeConfig> for Unlogged {
    type SnapshotData = Checkpoint;
    type SnapshotBuilder = CheckpointBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        self.0.applied_state().await
    }

    async fn apply<Strm>(&mut self, entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        self.0.apply_all(entries, false).await
    }

    async fn get_snapshot_builder(&mut self) -> CheckpointBuilder {
        self.0.get_snapshot_builder().await
    }

    async fn install_snapshot(
        &mut self,
        meta: &openraft::alias::SnapshotMetaOf<TypeConfig>,
        snapshot: Checkpoint,
    ) -> Result<(), io::Error> {
        self.0.install_snapshot(meta, snapshot).await
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<openraft::alias::SnapshotOf<TypeConfig, Checkpoint>>, io::Error> {
        self.0.get_current_snapshot().await
    }
}

struct Reopened;

impl StoreBuilder<TypeConfig, GroupLog, Unlogged, (TempDir, Logs)> for Reopened {
    async fn build(&self) -> Result<((TempDir, Logs), GroupLog, Unlogged), openraft::StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (logs, log, state) = open(dir.path()).await;
        state.close().await.expect("a clean stop");
        drop((log, state));
        logs.journal().close().await;
        drop(logs);
        let (logs, log, state) = open(dir.path()).await;
        Ok(((dir, logs), log, Unlogged(StateMachine(state))))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openrafts_suite_passes_on_a_store_that_was_closed_and_opened_again() {
    Suite::<TypeConfig, GroupLog, Unlogged, Reopened, (TempDir, Logs)>::test_all(Reopened)
        .await
        .unwrap();
}

/// What a log may be asked.
#[derive(Debug, Clone)]
enum Step {
    Append(u8),
    TruncateTo(u8),
    Purge(u8),
    Vote(u8),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1u8..20).prop_map(Step::Append),
        1 => any::<u8>().prop_map(Step::TruncateTo),
        1 => any::<u8>().prop_map(Step::Purge),
        1 => any::<u8>().prop_map(Step::Vote),
        1 => Just(Step::Reopen),
    ]
}

fn id(term: u64, index: u64) -> LogId {
    LogId {
        leader_id: LeaderId { term, node_id: 1 },
        index,
    }
}

/// The log as it should be.
#[derive(Debug, Default)]
struct Model {
    entries: Vec<(LogId, Vec<u8>)>,
    purged: Option<LogId>,
    vote: Option<Vote>,
    term: u64,
}

impl Model {
    fn next(&self) -> u64 {
        let last = self
            .entries
            .last()
            .map(|(id, _)| id.index)
            .or(self.purged.map(|id| id.index));
        last.map_or(0, |index| index + 1)
    }

    async fn compare(&self, log: &mut GroupLog) {
        let state = log.get_log_state().await.unwrap();
        assert_eq!(state.last_purged_log_id, self.purged);
        assert_eq!(
            state.last_log_id,
            self.entries.last().map(|(id, _)| *id).or(self.purged)
        );
        assert_eq!(log.read_vote().await.unwrap(), self.vote);
        let found: Vec<(LogId, Vec<u8>)> = log
            .try_get_log_entries(0..)
            .await
            .unwrap()
            .into_iter()
            .map(|entry| match entry.payload {
                EntryPayload::Normal(Proposal { command, .. }) => (entry.log_id, command.to_vec()),
                other => panic!("{other:?} was never appended"),
            })
            .collect();
        assert_eq!(found, self.entries);
    }

    async fn take(&mut self, step: &Step, log: &mut GroupLog) {
        match step {
            Step::Append(count) => {
                let from = self.next();
                let fresh: Vec<(LogId, Vec<u8>)> = (from..from + u64::from(*count))
                    .map(|index| (id(self.term, index), vec![index as u8; 300 * usize::from(*count)]))
                    .collect();
                let entries: Vec<Entry> = fresh
                    .iter()
                    .map(|(log_id, bytes)| Entry {
                        log_id: *log_id,
                        payload: EntryPayload::Normal(Proposal::of(bytes.clone().into())),
                    })
                    .collect();
                let last = fresh.last().unwrap().0;
                log.append(entries, IOFlushed::noop()).await.unwrap();
                log.wait_synced(last).await.unwrap();
                self.entries.extend(fresh);
            }
            Step::TruncateTo(keep) => {
                let keep = usize::from(*keep) % (self.entries.len() + 1);
                self.entries.truncate(keep);
                self.term += 1;
                log.truncate_after(self.entries.last().map(|(id, _)| *id).or(self.purged))
                    .await
                    .unwrap();
            }
            Step::Purge(count) if !self.entries.is_empty() => {
                let count = 1 + usize::from(*count) % self.entries.len();
                let upto = self.entries[count - 1].0;
                RaftLogStorage::purge(log, upto).await.unwrap();
                self.entries.drain(..count);
                self.purged = Some(upto);
            }
            Step::Vote(node) => {
                self.term += 1;
                let vote = Vote::new(self.term, u64::from(*node));
                log.save_vote(&vote).await.unwrap();
                self.vote = Some(vote);
            }
            Step::Purge(_) | Step::Reopen => {}
        }
    }
}

proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 24, ..Default::default() })]
    #[test]
    fn a_log_is_after_reopening_what_was_acknowledged(steps in proptest::collection::vec(step(), 1..30)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let disk: Arc<dyn Disk> = Arc::new(RealDisk);
            let mut logs = Logs::open_with(disk.clone(), dir.path(), NodeId(1), SEGMENT_BYTES).unwrap();
            let mut log = logs.group(SHARD);
            let mut model = Model::default();
            for step in steps.iter().chain([&Step::Reopen]) {
                model.take(step, &mut log).await;
                if matches!(step, Step::Reopen) {
                    drop(log);
                    logs.journal().close().await;
                    logs = Logs::open_with(disk.clone(), dir.path(), NodeId(1), SEGMENT_BYTES).unwrap();
                    log = logs.group(SHARD);
                }
                model.compare(&mut log).await;
            }
        });
    }
}
