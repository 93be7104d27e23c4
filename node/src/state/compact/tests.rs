//! A view that is copied while it serves, and whatever comes between.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use malle_journal::MemoryDisk;
use malle_machine::shard::Command;
use malle_machine::shard::sample::Sample;
use malle_machine::view::Flow;
use malle_machine::{Digest, format};
use malle_proto::{ShardId, limits};
use openraft::EntryPayload;
use tempfile::TempDir;

use super::super::prove::scan_digest;
use super::super::rebuild::{append_and_apply, catch_up, stop};
use super::super::suite::{SHARD, open, open_on, open_with};
use super::super::{GroupState, Indexes, OpenedIndex, SledIndexes};
use super::{CompactError, Weight};
use crate::index::IndexError;
use crate::log::types::{Entry, LeaderId, LogId, Proposal};
use crate::log::{GroupLog, Logs};

/// Mail that comes into the shard, entry after entry.
pub(in crate::state) struct Mail {
    sample: Sample,
    pub next: u64,
}

impl Mail {
    pub fn new() -> Mail {
        Mail {
            sample: Sample::new(5, 20),
            next: 0,
        }
    }

    pub fn entries(&mut self, count: u64, op: fn(&mut Sample) -> malle_machine::shard::Op) -> Vec<Entry> {
        let mut ops = if self.next == 0 { self.sample.open() } else { Vec::new() };
        ops.extend((0..count).map(|_| op(&mut self.sample)));
        ops.into_iter()
            .map(|op| {
                let index = self.next;
                self.next += 1;
                let command = Command {
                    time_ms: 1_000 + index,
                    op,
                };
                Entry {
                    log_id: LogId {
                        leader_id: LeaderId { term: 1, node_id: 1 },
                        index,
                    },
                    payload: EntryPayload::Normal(Proposal::of(format::encode(&command))),
                }
            })
            .collect()
    }

    pub async fn arrives(&mut self, log: &mut GroupLog, state: &GroupState, count: u64) {
        let entries = self.entries(count, |sample| sample.deliver(1));
        append_and_apply(log, state, entries).await;
    }
}

/// What the rows of the index add up to, which is what its position says.
pub(in crate::state) async fn whole(state: &GroupState) -> Digest {
    state.flush().await.unwrap();
    let (digest, _, rows) = state.digest();
    let index = state.live().index.clone();
    assert_eq!(scan_digest(index.as_ref()).unwrap(), (digest, rows));
    digest
}

/// The first row of a message that the index holds.
pub(in crate::state) fn some_row(state: &GroupState) -> Vec<u8> {
    let index = state.live().index.clone();
    let mut found = None;
    index
        .scan(&[0x10], &[0x11], &mut |key, _| {
            found = Some(key.to_vec());
            Ok(Flow::Stop)
        })
        .unwrap();
    found.unwrap()
}

/// A group whose view was found to be damaged stops; opened again it is rebuilt and holds what it held.
pub(in crate::state) async fn comes_back_rebuilt(
    dir: &Path,
    (logs, log, state): (Logs, GroupLog, GroupState),
    entries: u64,
    digest: Digest,
) {
    assert!(state.fault().borrow().is_some(), "the group stops");
    drop((state, log));
    logs.journal().close().await;
    drop(logs);
    let (_logs, mut log, state) = open(dir).await;
    assert_eq!(state.rebuilds(), 1);
    catch_up(&mut log, &state, entries).await;
    assert_eq!(whole(&state).await, digest);
}

fn databases(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir.join("index")).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_is_replaced_by_its_copy_while_mail_comes_in() {
    let dir = TempDir::new().unwrap();
    let (logs, mut log, state) = open(dir.path()).await;
    let mut mail = Mail::new();
    mail.arrives(&mut log, &state, 600).await;
    state.flush().await.unwrap();
    let before = state.live().uuid;
    let compacting = tokio::spawn({
        let state = state.clone();
        async move { state.compact().await }
    });
    while !compacting.is_finished() {
        mail.arrives(&mut log, &state, 10).await;
        let marks = mail.entries(5, |sample| sample.flag(3, malle_machine::shard::Flags::SEEN));
        append_and_apply(&mut log, &state, marks).await;
        state.flush().await.unwrap();
    }
    compacting.await.unwrap().unwrap();
    assert_ne!(state.live().uuid, before);
    assert_eq!(databases(dir.path()).len(), 1, "the old one is gone");
    let digest = whole(&state).await;
    mail.arrives(&mut log, &state, 20).await;
    let last = whole(&state).await;
    assert_ne!(last, digest, "the copy takes what comes after it");
    stop(logs, log, state, false).await;
    let (_logs, _log, state) = open(dir.path()).await;
    assert_eq!((state.rebuilds(), whole(&state).await), (0, last));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_gives_the_room_of_churn_back() {
    let dir = TempDir::new().unwrap();
    let (_logs, mut log, state) = open(dir.path()).await;
    let mut mail = Mail::new();
    mail.arrives(&mut log, &state, 300).await;
    for _ in 0..60 {
        let marks = mail.entries(2, |sample| {
            sample.flag_as_many_as_may_be(malle_machine::shard::StoreMode::Add)
        });
        append_and_apply(&mut log, &state, marks).await;
        let marks = mail.entries(2, |sample| {
            sample.flag_as_many_as_may_be(malle_machine::shard::StoreMode::Remove)
        });
        append_and_apply(&mut log, &state, marks).await;
        state.flush().await.unwrap();
    }
    let digest = whole(&state).await;
    let churned = state.disk_bytes().await.unwrap();
    state.compact().await.unwrap();
    let fresh = state.disk_bytes().await.unwrap();
    assert!(fresh < churned, "{churned} bytes before, {fresh} after");
    assert_eq!(whole(&state).await, digest);
}

/// Indexes whose old databases are never removed: the node dies before it comes to that.
struct DiesBeforeRemoval(SledIndexes);

#[async_trait]
impl Indexes for DiesBeforeRemoval {
    async fn open(
        &self,
        shard: ShardId,
        fresh_uuid: [u8; 16],
        named: Option<[u8; 16]>,
    ) -> Result<OpenedIndex, IndexError> {
        self.0.open(shard, fresh_uuid, named).await
    }
    async fn beside(&self, shard: ShardId, uuid: [u8; 16]) -> Result<OpenedIndex, IndexError> {
        self.0.beside(shard, uuid).await
    }
    async fn keep_only(&self, _: ShardId, _: [u8; 16]) -> std::io::Result<()> {
        Err(std::io::Error::other("dead"))
    }
    async fn set_aside(&self, shard: ShardId, now_ms: u64) -> std::io::Result<()> {
        self.0.set_aside(shard, now_ms).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_databases_a_start_takes_the_one_that_the_floor_names() {
    // Before the floor: an unfinished copy.
    let dir = TempDir::new().unwrap();
    let (logs, mut log, state) = open(dir.path()).await;
    let mut mail = Mail::new();
    mail.arrives(&mut log, &state, 50).await;
    let digest = whole(&state).await;
    let copy = state.inner.settings.indexes.beside(SHARD, [9; 16]).await.unwrap();
    copy.store
        .apply_batch(&[(vec![1, 2], Some(bytes::Bytes::from_static(b"half a copy")))])
        .unwrap();
    drop(copy);
    stop(logs, log, state, false).await;
    assert_eq!(databases(dir.path()).len(), 2);
    let (logs, log, state) = open(dir.path()).await;
    assert_eq!((state.rebuilds(), whole(&state).await), (0, digest));
    assert_eq!(databases(dir.path()), [format!("shard-{SHARD}")]);
    stop(logs, log, state, true).await;
    // Behind the floor: the old one is still there, and behind what came since.
    let dying = DiesBeforeRemoval(SledIndexes::new(&dir.path().join("index"), 1 << 20));
    let (logs, mut log, state) = open_with(dir.path(), Arc::new(dying)).await;
    state.compact().await.unwrap();
    mail.arrives(&mut log, &state, 5).await;
    let digest = whole(&state).await;
    stop(logs, log, state, false).await;
    assert_eq!(databases(dir.path()).len(), 2);
    let (_logs, _log, state) = open(dir.path()).await;
    assert_eq!((state.rebuilds(), whole(&state).await), (0, digest));
    assert_eq!(databases(dir.path()).len(), 1);
    assert_ne!(databases(dir.path()), [format!("shard-{SHARD}")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_that_lost_a_row_is_found_when_it_is_copied() {
    let dir = TempDir::new().unwrap();
    let (logs, mut log, state) = open(dir.path()).await;
    let mut mail = Mail::new();
    mail.arrives(&mut log, &state, 50).await;
    let digest = whole(&state).await;
    let index = state.live().index.clone();
    index.apply_batch(&[(some_row(&state), None)]).unwrap();
    drop(index);
    assert!(matches!(state.compact().await, Err(CompactError::Damaged { .. })));
    comes_back_rebuilt(dir.path(), (logs, log, state), mail.next, digest).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_closes_does_not_wait_for_a_copy() {
    let dir = TempDir::new().unwrap();
    let (logs, mut log, state) = open(dir.path()).await;
    let mut mail = Mail::new();
    mail.arrives(&mut log, &state, 600).await;
    let digest = whole(&state).await;
    let compacting = tokio::spawn({
        let state = state.clone();
        async move { state.compact().await }
    });
    while !compacting.is_finished() && databases(dir.path()).len() < 2 {
        tokio::task::yield_now().await;
    }
    state.close().await.unwrap();
    let ended = compacting.await.unwrap();
    assert!(matches!(ended, Ok(()) | Err(CompactError::GivenUp)), "{ended:?}");
    drop((state, log));
    logs.journal().close().await;
    drop(logs);
    let (_logs, _log, state) = open(dir.path()).await;
    assert_eq!((state.rebuilds(), whole(&state).await), (0, digest));
    assert_eq!(databases(dir.path()).len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_ends_when_others_fill_the_disk_and_the_view_serves_on() {
    let dir = TempDir::new().unwrap();
    let disk = MemoryDisk::new();
    let indexes = Arc::new(SledIndexes::new(&dir.path().join("index"), 1 << 20));
    let (_logs, mut log, state) = open_on(dir.path(), indexes, Arc::new(disk.clone())).await;
    let mut mail = Mail::new();
    mail.arrives(&mut log, &state, 100).await;
    let (digest, before) = (whole(&state).await, state.live().uuid);
    disk.set_says_free(Some(limits::VIEW_COMPACT_BYTES_LEFT - 1));
    assert!(matches!(state.compact().await, Err(CompactError::NoRoom)));
    assert_eq!((databases(dir.path()).len(), state.live().uuid), (1, before));
    assert!(state.fault().borrow().is_none());
    assert_eq!(whole(&state).await, digest);
    disk.set_says_free(None);
    state.compact().await.unwrap();
    assert_ne!(state.live().uuid, before);
    assert_eq!(whole(&state).await, digest);
}

#[test]
fn a_database_of_more_than_four_times_its_rows_is_too_much_and_one_that_grew_by_a_quarter_is_weighed_again() {
    let weight = Weight {
        live_bytes: 100,
        disk_bytes: 300,
    };
    assert!(!weight.too_much(400) && weight.too_much(401));
    assert!(!weight.is_old(375) && weight.is_old(376));
}
