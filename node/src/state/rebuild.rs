//! A view that cannot be trusted is thrown away and comes back whole from checkpoint and log.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use malle_machine::digest::LOCAL_PREFIX;
use malle_machine::shard::{AccountGrant, Command, Op, read};
use malle_machine::view::RowVisitor;
use malle_machine::{Digest, format};
use malle_proto::{AccountId, MailboxId, ShardId};
use openraft::EntryPayload;
use openraft::storage::{IOFlushed, RaftLogStorage};
use tempfile::TempDir;

use super::suite::{SHARD, open, open_with};
use super::{GroupState, Indexes, OpenedIndex, SledIndexes};
use crate::index::{IndexError, IndexStore, Row};
use crate::log::types::{Entry, LeaderId, LogId, Proposal};
use crate::log::{GroupLog, Logs};

/// The `number`-th account of this test.
fn account(number: u8) -> AccountId {
    AccountId([number; 16])
}

/// An entry that opens the account of the same number.
fn entry(index: u64) -> Entry {
    let number = index as u8 + 1;
    let accounts = vec![AccountGrant {
        account: account(number),
        quota_bytes: 1 << 20,
        suspended: false,
        mailboxes: std::array::from_fn(|place| MailboxId([number ^ (place as u8 + 1) << 5; 16])),
    }];
    let op = Op::OpenAccounts {
        accounts,
        through: index + 1,
    };
    Entry {
        log_id: LogId {
            leader_id: LeaderId { term: 1, node_id: 1 },
            index,
        },
        payload: EntryPayload::Normal(Proposal::of(format::encode(&Command {
            time_ms: 1_000 + index,
            op,
        }))),
    }
}

/// Appends and applies entries, as a follower does.
pub(super) async fn feed(log: &mut GroupLog, state: &GroupState, indexes: std::ops::Range<u64>) {
    let entries: Vec<Entry> = indexes.map(entry).collect();
    append_and_apply(log, state, entries).await;
}

pub(super) async fn append_and_apply(log: &mut GroupLog, state: &GroupState, entries: Vec<Entry>) {
    let last = entries.last().unwrap().log_id;
    log.append(entries.clone(), IOFlushed::noop()).await.unwrap();
    log.wait_synced(last).await.unwrap();
    state.apply_entries(&entries).unwrap();
}

/// What raft does at start: applies what the log has and the view has not.
pub(super) async fn catch_up(log: &mut GroupLog, state: &GroupState, to: u64) {
    use openraft::RaftLogReader as _;
    let from = state.live().overlay.position.applied.map_or(0, |id| id.index + 1);
    let entries = log.try_get_log_entries(from..to).await.unwrap();
    assert_eq!(entries.len() as u64, to - from, "the log still has what the view lacks");
    state.apply_entries(&entries).unwrap();
}

pub(super) async fn stop(logs: Logs, log: GroupLog, state: GroupState, clean: bool) {
    if clean {
        state.close().await.unwrap();
    } else {
        state.flush().await.unwrap();
    }
    drop((log, state));
    logs.journal().close().await;
}

pub(super) async fn accounts(state: &GroupState) -> u64 {
    state.read(read::account_count).await.unwrap()
}

/// Ten entries applied, then stopped; gives the digest that every later view must have.
async fn ten(dir: &Path, clean: bool) -> Digest {
    let (logs, mut log, state) = open(dir).await;
    feed(&mut log, &state, 0..10).await;
    assert_eq!(accounts(&state).await, 10);
    let digest = state.digest().0;
    stop(logs, log, state, clean).await;
    digest
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clean_stop_needs_no_rebuild_and_an_unclean_one_only_a_scan() {
    for clean in [true, false] {
        let dir = TempDir::new().unwrap();
        let digest = ten(dir.path(), clean).await;
        let (_logs, _log, state) = open(dir.path()).await;
        assert_eq!((state.rebuilds(), state.digest().0), (0, digest), "clean: {clean}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_that_is_gone_is_rebuilt_from_the_log() {
    let dir = TempDir::new().unwrap();
    let digest = ten(dir.path(), true).await;
    std::fs::remove_dir_all(dir.path().join("index")).unwrap();
    let (_logs, mut log, state) = open(dir.path()).await;
    assert_eq!(
        state.rebuilds(),
        1,
        "an empty database never passes for the flushed one"
    );
    catch_up(&mut log, &state, 10).await;
    assert_eq!((state.digest().0, accounts(&state).await), (digest, 10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_changed_behind_our_back_is_found_by_the_digest() {
    let dir = TempDir::new().unwrap();
    let digest = ten(dir.path(), false).await;
    let (logs, log, state) = open(dir.path()).await;
    let index = state.live().index.clone();
    let stray = (
        vec![LOCAL_PREFIX + 9, 1, 2, 3],
        Some(bytes::Bytes::from_static(b"stray")),
    );
    index.apply_batch(&[stray]).unwrap();
    index.flush().unwrap();
    drop(index);
    stop(logs, log, state, false).await;
    let (_logs, mut log, state) = open(dir.path()).await;
    assert_eq!(state.rebuilds(), 1);
    catch_up(&mut log, &state, 10).await;
    assert_eq!(state.digest().0, digest);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purged_log_is_no_loss_behind_a_checkpoint() {
    let dir = TempDir::new().unwrap();
    let (logs, mut log, state) = open(dir.path()).await;
    feed(&mut log, &state, 0..6).await;
    let checkpoint = state.checkpoint().await.unwrap();
    assert_eq!(checkpoint.index(), 5);
    RaftLogStorage::purge(&mut log, entry(3).log_id).await.unwrap();
    feed(&mut log, &state, 6..10).await;
    let digest = state.digest().0;
    stop(logs, log, state, true).await;
    std::fs::remove_dir_all(dir.path().join("index")).unwrap();
    let (_logs, mut log, state) = open(dir.path()).await;
    assert_eq!((state.rebuilds(), state.applied_index()), (1, 5));
    catch_up(&mut log, &state, 10).await;
    assert_eq!((state.digest().0, accounts(&state).await), (digest, 10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_view_checkpoint_and_log_the_group_does_not_open_with_a_hole() {
    let dir = TempDir::new().unwrap();
    let (logs, mut log, state) = open(dir.path()).await;
    feed(&mut log, &state, 0..6).await;
    state.checkpoint().await.unwrap();
    RaftLogStorage::purge(&mut log, entry(3).log_id).await.unwrap();
    stop(logs, log, state, true).await;
    std::fs::remove_dir_all(dir.path().join("index")).unwrap();
    let checkpoint = dir.path().join("checkpoints/checkpoint");
    let mut bytes = std::fs::read(&checkpoint).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    std::fs::write(&checkpoint, bytes).unwrap();
    let opened = std::panic::AssertUnwindSafe(open(dir.path()));
    let failed = futures::FutureExt::catch_unwind(opened).await;
    assert!(failed.is_err(), "shard {SHARD} opened without anything to open");
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_of_an_earlier_time_is_behind_its_floor() {
    let dir = TempDir::new().unwrap();
    let (index, kept) = (dir.path().join("index"), dir.path().join("kept"));
    let (logs, mut log, state) = open(dir.path()).await;
    feed(&mut log, &state, 0..5).await;
    stop(logs, log, state, true).await;
    copy(&index, &kept);
    let (logs, mut log, state) = open(dir.path()).await;
    feed(&mut log, &state, 5..10).await;
    let digest = state.digest().0;
    stop(logs, log, state, true).await;
    std::fs::remove_dir_all(&index).unwrap();
    copy(&kept, &index);
    let (_logs, mut log, state) = open(dir.path()).await;
    assert_eq!(state.rebuilds(), 1, "it has the right name, and lacks what was flushed");
    catch_up(&mut log, &state, 10).await;
    assert_eq!((state.digest().0, accounts(&state).await), (digest, 10));
}

/// Databases that break at a certain read: as when sled finds at a first look that a page is not there.
struct Breaking {
    indexes: SledIndexes,
    /// Reads that the next database still answers; the one behind it is sound.
    reads: Arc<AtomicI64>,
}

struct BreakingStore(Arc<dyn IndexStore>, Arc<AtomicI64>);

impl BreakingStore {
    fn read(&self) -> Result<(), IndexError> {
        if self.1.fetch_sub(1, Ordering::SeqCst) > 0 {
            return Ok(());
        }
        Err(IndexError::Broken("get: the engine panicked: cannot find pid 7".into()))
    }
}

impl IndexStore for BreakingStore {
    fn get(&self, key: &[u8]) -> Result<Option<bytes::Bytes>, IndexError> {
        self.read()?;
        self.0.get(key)
    }
    fn scan(&self, from: &[u8], to: &[u8], visit: &mut RowVisitor<'_>) -> Result<(), IndexError> {
        self.read()?;
        self.0.scan(from, to, visit)
    }
    fn scan_back(&self, from: &[u8], to: &[u8], visit: &mut RowVisitor<'_>) -> Result<(), IndexError> {
        self.read()?;
        self.0.scan_back(from, to, visit)
    }
    fn apply_batch(&self, rows: &[Row]) -> Result<(), IndexError> {
        self.0.apply_batch(rows)
    }
    fn flush(&self) -> Result<(), IndexError> {
        self.0.flush()
    }
    fn disk_bytes(&self) -> Result<u64, IndexError> {
        self.0.disk_bytes()
    }
}

#[async_trait]
impl Indexes for Breaking {
    async fn open(
        &self,
        shard: ShardId,
        fresh_uuid: [u8; 16],
        named: Option<[u8; 16]>,
    ) -> Result<OpenedIndex, IndexError> {
        let mut opened = self.indexes.open(shard, fresh_uuid, named).await?;
        opened.store = Arc::new(BreakingStore(opened.store, self.reads.clone()));
        Ok(opened)
    }
    async fn set_aside(&self, shard: ShardId, now_ms: u64) -> std::io::Result<()> {
        self.reads.store(i64::MAX, Ordering::SeqCst);
        self.indexes.set_aside(shard, now_ms).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_that_breaks_at_any_read_of_its_open_is_rebuilt_before_anybody_reads_it() {
    // Clean and position; after an unclean stop also the scan of every row.
    for (clean, reads) in [(true, 0), (true, 1), (false, 2)] {
        let dir = TempDir::new().unwrap();
        let digest = ten(dir.path(), clean).await;
        let indexes = Breaking {
            indexes: SledIndexes::new(&dir.path().join("index"), 1 << 20),
            reads: Arc::new(AtomicI64::new(reads)),
        };
        let (_logs, mut log, state) = open_with(dir.path(), Arc::new(indexes)).await;
        assert_eq!(state.rebuilds(), 1, "clean: {clean}, {reads} reads");
        catch_up(&mut log, &state, 10).await;
        assert_eq!((state.digest().0, accounts(&state).await), (digest, 10));
    }
}
