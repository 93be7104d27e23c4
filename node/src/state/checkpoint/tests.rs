//! A shard on a disk in memory: its rows after any stop are those of a model that applied the same commands.

mod chain;
mod cost;
mod crash;
mod golden;

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use async_trait::async_trait;
use malle_journal::{Disk, DiskFile, DiskLock, MemoryDisk};
use malle_machine::shard::{self, Command, Op, sample::Sample};
use malle_machine::{Digest, MemoryView, format};
use malle_proto::{BodyHash, NodeId, ShardId};
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{EntryPayload, RaftLogReader};

use crate::env::{Env, ManualClock};
use crate::index::{IndexError, MemoryIndex};
use crate::log::types::{Entry, LeaderId, LogId, Proposal};
use crate::log::{GroupLog, Logs};
use crate::state::{BodyNews, GroupState, Indexes, OpenError, OpenedIndex, Settings};

const SHARD: ShardId = ShardId(3);
const SEGMENT_BYTES: u64 = 256 * 1024;
/// Where the checkpoints are.
const DIR: &str = "/node/checkpoints";

struct NoBodies;

impl BodyNews for NoBodies {
    fn named(&self, _index: u64, _hashes: &[BodyHash]) {}
    fn released(&self, _hashes: &[BodyHash]) {}
}

/// The view of the shard, as long as nobody takes it away.
#[derive(Default)]
struct Views(Mutex<Option<(Arc<MemoryIndex>, [u8; 16])>>);

#[async_trait]
impl Indexes for Views {
    async fn open(&self, _: ShardId, fresh_uuid: [u8; 16], _: Option<[u8; 16]>) -> Result<OpenedIndex, IndexError> {
        let mut kept = self.0.lock().unwrap();
        let created = kept.is_none();
        let (store, uuid) = kept.get_or_insert_with(|| (Arc::new(MemoryIndex::new()), fresh_uuid));
        Ok(OpenedIndex {
            store: store.clone(),
            uuid: *uuid,
            created,
        })
    }

    async fn set_aside(&self, _: ShardId, _: u64) -> io::Result<()> {
        self.0.lock().unwrap().take();
        Ok(())
    }
}

/// The disk of one process: it counts the bytes written, and does nothing any more when the process is dead. Files of a dead process
/// are dead by themselves.
#[derive(Clone)]
struct Counting {
    disk: MemoryDisk,
    written: Arc<AtomicU64>,
    alive: Arc<RwLock<bool>>,
}

impl Counting {
    fn alive<T>(&self, work: impl FnOnce(&MemoryDisk) -> io::Result<T>) -> io::Result<T> {
        let alive = self.alive.read().unwrap();
        if *alive {
            work(&self.disk)
        } else {
            Err(io::Error::other("this process is dead"))
        }
    }
}

struct CountingFile {
    file: Arc<dyn DiskFile>,
    written: Arc<AtomicU64>,
}

impl DiskFile for CountingFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, buffer)
    }
    fn write_at(&self, offset: u64, parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        self.written.fetch_add(bytes as u64, Ordering::SeqCst);
        self.file.write_at(offset, parts)
    }
    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.file.allocate(bytes)
    }
    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }
    fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all()
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
}

impl Disk for Counting {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.alive(|disk| disk.create(path))?;
        Ok(Arc::new(CountingFile {
            file,
            written: self.written.clone(),
        }))
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.alive(|disk| disk.open(path))
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.alive(|disk| disk.list(dir))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.alive(|disk| disk.rename(from, to))
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.alive(|disk| disk.remove(path))
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.alive(|disk| disk.sync_dir(dir))
    }
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.alive(|disk| disk.create_dir_all(dir))
    }
    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.alive(|disk| disk.free_bytes(path))
    }
    fn total_bytes(&self, path: &Path) -> io::Result<u64> {
        self.alive(|disk| disk.total_bytes(path))
    }
    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        self.alive(|disk| disk.lock(path))
    }
}

/// What outlives a process, and the model.
struct World {
    disk: MemoryDisk,
    /// Bytes written to checkpoints.
    written: Arc<AtomicU64>,
    views: Arc<Views>,
    env: Env,
    clock: Arc<ManualClock>,
    checkpoint_log_bytes: u64,
    sample: Sample,
    model: MemoryView,
    /// Digest and rows of the model after each entry.
    history: BTreeMap<u64, (Digest, u64)>,
}

/// A process.
struct Running {
    logs: Logs,
    log: GroupLog,
    state: GroupState,
    alive: Arc<RwLock<bool>>,
}

impl World {
    fn new(seed: u64) -> World {
        let (env, clock) = Env::manual(1_800_000_000_000, seed);
        World {
            disk: MemoryDisk::new(),
            written: Arc::default(),
            views: Arc::default(),
            env,
            clock,
            checkpoint_log_bytes: malle_proto::limits::CHECKPOINT_LOG_BYTES,
            sample: Sample::new(seed, 8),
            model: MemoryView::default(),
            history: BTreeMap::from([(0, (Digest::default(), 0))]),
        }
    }

    fn last(&self) -> u64 {
        *self.history.keys().next_back().expect("it begins with 0")
    }

    fn path(name: &str) -> PathBuf {
        Path::new(DIR).join(name)
    }

    fn names(&self) -> Vec<String> {
        self.disk.list(Path::new(DIR)).unwrap()
    }

    async fn try_start(&self) -> Result<Running, OpenError> {
        let alive = Arc::new(RwLock::new(true));
        let on_disk = |written: &Arc<AtomicU64>| -> Arc<dyn Disk> {
            Arc::new(Counting {
                disk: self.disk.clone(),
                written: written.clone(),
                alive: alive.clone(),
            })
        };
        let journal = on_disk(&Arc::default());
        journal.create_dir_all(Path::new("/node/log")).unwrap();
        let logs = Logs::open_with(journal, Path::new("/node/log"), NodeId(1), SEGMENT_BYTES).unwrap();
        let log = logs.group(SHARD);
        let settings = Settings {
            env: self.env.clone(),
            disk: on_disk(&self.written),
            dir: DIR.into(),
            checkpoint_log_bytes: self.checkpoint_log_bytes,
            indexes: self.views.clone(),
            bodies: Arc::new(NoBodies),
        };
        let state = GroupState::open(SHARD, log.clone(), settings, false).await?;
        Ok(Running {
            logs,
            log,
            state,
            alive,
        })
    }

    /// Starts, applies what the log has and the view has not, and compares with the model.
    async fn start(&self) -> Running {
        let mut running = self.try_start().await.unwrap();
        let from = running.state.applied_index() + 1;
        let entries = running.log.try_get_log_entries(from..).await.unwrap();
        let indexes: Vec<u64> = entries.iter().map(|entry| entry.log_id.index).collect();
        let wanted: Vec<u64> = (from..=self.last()).collect();
        assert_eq!(indexes, wanted, "the log has what the view lacks, and all of it");
        running.state.apply_entries(&entries).unwrap();
        self.compare(&running);
        running
    }

    fn compare(&self, running: &Running) {
        let (digest, applied, rows) = running.state.digest();
        assert_eq!(applied, self.last());
        assert_eq!((digest, rows), self.history[&applied], "the rows at entry {applied}");
    }

    /// Appends and applies a command.
    async fn propose(&mut self, running: &mut Running, op: Op) -> u64 {
        let command = Command {
            time_ms: self.env.now_ms(),
            op,
        };
        let index = self.last() + 1;
        let (_, writes) = shard::apply(&self.model, &command).unwrap();
        let (mut digest, _) = self.history[&(index - 1)];
        for (key, value) in &writes.rows {
            if let Some(old) = self.model.rows.get(key) {
                digest.subtract(key, old);
            }
            if let Some(new) = value {
                digest.add(key, new);
            }
        }
        self.model.commit(&writes);
        self.history.insert(index, (digest, self.model.rows.len() as u64));
        let entry = Entry {
            log_id: id(index),
            payload: EntryPayload::Normal(Proposal::of(format::encode(&command))),
        };
        let bytes = format::encode(&crate::log::records::EntryRecord::from(&entry)).len();
        running.log.append([entry.clone()], IOFlushed::noop()).await.unwrap();
        running.log.wait_synced(id(index)).await.unwrap();
        running.state.apply_entries(&[entry]).unwrap();
        bytes as u64
    }

    async fn propose_all(&mut self, running: &mut Running, ops: impl IntoIterator<Item = Op>) -> u64 {
        let mut bytes = 0;
        for op in ops {
            bytes += self.propose(running, op).await;
        }
        bytes
    }

    /// Some ordinary commands.
    async fn live(&mut self, running: &mut Running, commands: usize) {
        if self.last() == 0 {
            let opened = self.sample.open();
            self.propose_all(running, opened).await;
        }
        for _ in 0..commands {
            let op = self.sample.day();
            self.propose(running, op).await;
        }
    }

    fn lose_the_view(&self) {
        self.views.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

fn id(index: u64) -> LogId {
    LogId {
        leader_id: LeaderId { term: 1, node_id: 1 },
        index,
    }
}

impl Running {
    /// The power goes.
    fn cut(self, disk: &MemoryDisk, seed: u64) {
        *self.alive.write().unwrap() = false;
        disk.crash(seed);
    }

    async fn stop(self, clean: bool) {
        if clean {
            self.state.close().await.unwrap();
        }
        drop((self.log, self.state));
        self.logs.journal().close().await;
    }

    /// What raft does behind a checkpoint.
    async fn purge(&mut self) {
        let index = self.state.checkpoint_index();
        if index > 0 {
            RaftLogStorage::purge(&mut self.log, id(index)).await.unwrap();
        }
    }
}
