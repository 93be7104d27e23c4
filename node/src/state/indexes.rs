//! Where the indexes of the groups come from: sled on this node's disk, or memory under simulation.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use malle_machine::view::Flow;
use malle_proto::ShardId;

use crate::index::{self, IndexError, IndexStore, MemoryIndex, Row, SledIndex, dirs};

/// An open index.
pub struct OpenedIndex {
    /// The rows.
    pub store: Arc<dyn IndexStore>,
    /// Identity of the database.
    pub uuid: [u8; 16],
    /// It was made just now.
    pub created: bool,
}

/// Opens and throws away indexes.
#[async_trait]
pub trait Indexes: Send + Sync + 'static {
    /// Opens the index of a group: the one that was made beside another as `named`, if there is one, else the group's first; the others
    /// are removed. Makes it, under `fresh_uuid`, when there is none.
    async fn open(
        &self,
        shard: ShardId,
        fresh_uuid: [u8; 16],
        named: Option<[u8; 16]>,
    ) -> Result<OpenedIndex, IndexError>;

    /// Makes an empty index beside the group's, to take its place.
    async fn beside(&self, _shard: ShardId, _uuid: [u8; 16]) -> Result<OpenedIndex, IndexError> {
        Err(IndexError::Broken("there is only one index of a group here".into()))
    }

    /// Removes every index of a group but this one, which may be open.
    async fn keep_only(&self, _shard: ShardId, _uuid: [u8; 16]) -> io::Result<()> {
        Ok(())
    }

    /// Moves a broken one out of the way. Nobody holds it open any more.
    async fn set_aside(&self, shard: ShardId, now_ms: u64) -> io::Result<()>;

    /// Removes every index of a group whose replica is gone, also what was set aside. Nobody holds one open any more.
    async fn discard(&self, _shard: ShardId) -> io::Result<()> {
        Ok(())
    }
}

/// Indexes as sled databases, a directory each.
#[derive(Debug)]
pub struct SledIndexes {
    dir: PathBuf,
    cache_bytes_each: u64,
}

impl SledIndexes {
    /// Databases under `dir`, each with this much cache.
    pub fn new(dir: &Path, cache_bytes_each: u64) -> Self {
        SledIndexes {
            dir: dir.to_owned(),
            cache_bytes_each,
        }
    }

    fn dir_of(&self, shard: ShardId) -> PathBuf {
        self.dir.join(format!("shard-{shard}"))
    }

    async fn open_in(&self, dir: PathBuf, fresh_uuid: [u8; 16]) -> Result<OpenedIndex, IndexError> {
        let mut options = index::Options::new(dir, fresh_uuid);
        options.cache_bytes = self.cache_bytes_each;
        let opened = SledIndex::open(options).await?;
        Ok(OpenedIndex {
            store: Arc::new(opened.store),
            uuid: opened.uuid,
            created: opened.created,
        })
    }
}

#[async_trait]
impl Indexes for SledIndexes {
    async fn open(
        &self,
        shard: ShardId,
        fresh_uuid: [u8; 16],
        named: Option<[u8; 16]>,
    ) -> Result<OpenedIndex, IndexError> {
        let dir = self.dir_of(shard);
        let current = malle_rt::blocking(move || dirs::current(&dir, named)).await;
        let current = current.map_err(|error| IndexError::Broken(format!("looking for the index: {error}")))?;
        self.open_in(current, fresh_uuid).await
    }

    async fn beside(&self, shard: ShardId, uuid: [u8; 16]) -> Result<OpenedIndex, IndexError> {
        self.open_in(dirs::beside(&self.dir_of(shard), uuid), uuid).await
    }

    async fn keep_only(&self, shard: ShardId, uuid: [u8; 16]) -> io::Result<()> {
        let dir = self.dir_of(shard);
        malle_rt::blocking(move || dirs::current(&dir, Some(uuid)).map(drop)).await
    }

    async fn set_aside(&self, shard: ShardId, now_ms: u64) -> io::Result<()> {
        let dir = self.dir_of(shard);
        malle_rt::blocking(move || match dirs::set_aside(&dir, now_ms) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        })
        .await
    }

    async fn discard(&self, shard: ShardId) -> io::Result<()> {
        let dir = self.dir_of(shard);
        malle_rt::blocking(move || dirs::remove_all(&dir)).await
    }
}

/// The store of each group and the identity of its database.
type Kept = BTreeMap<ShardId, (Arc<MemoryIndex>, [u8; 16])>;

/// Views in memory that outlive the node which uses them, as its disk does: for tests of durability and for simulation. What a power cut
/// leaves of them is chosen: a view promises nothing about what it has after one.
#[derive(Default)]
pub struct MemoryIndexes {
    kept: Mutex<Kept>,
}

impl MemoryIndexes {
    /// The power is cut. Each view is then gone, as it was, an image that lacks its last rows, or one with a row that nobody wrote;
    /// `below` chooses, by numbers below its argument.
    pub fn cut(&self, mut below: impl FnMut(u64) -> u64) {
        let mut kept = self.kept();
        for (shard, (store, uuid)) in std::mem::take(&mut *kept) {
            let fate = below(4);
            if fate == 0 {
                continue;
            }
            let mut rows = rows_of(&store);
            if fate == 2 && !rows.is_empty() {
                rows.truncate(below(rows.len() as u64) as usize);
            }
            if fate == 3 && !rows.is_empty() {
                let changed = below(rows.len() as u64) as usize;
                rows[changed].1 = Some(Bytes::from_static(b"not what was written"));
            }
            let copy = MemoryIndex::new();
            for some in rows.chunks(1024) {
                copy.apply_batch(some).expect("memory does not fail");
            }
            kept.insert(shard, (Arc::new(copy), uuid));
        }
    }

    /// The process is killed: what it had written is there, in another store, for what is left of it may still hold this one.
    pub fn kill(&self) {
        self.cut(|_| 1);
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn rows_of(store: &MemoryIndex) -> Vec<Row> {
    let mut rows = Vec::new();
    store
        .scan(&[], &[0xFF; 64], &mut |key, value| {
            rows.push((key.to_vec(), Some(Bytes::copy_from_slice(value))));
            Ok(Flow::More)
        })
        .expect("memory does not fail");
    rows
}

#[async_trait]
impl Indexes for MemoryIndexes {
    async fn open(
        &self,
        shard: ShardId,
        fresh_uuid: [u8; 16],
        _named: Option<[u8; 16]>,
    ) -> Result<OpenedIndex, IndexError> {
        let mut kept = self.kept();
        let created = !kept.contains_key(&shard);
        let (store, uuid) = kept
            .entry(shard)
            .or_insert_with(|| (Arc::new(MemoryIndex::new()), fresh_uuid));
        Ok(OpenedIndex {
            store: store.clone(),
            uuid: *uuid,
            created,
        })
    }

    async fn set_aside(&self, shard: ShardId, _now_ms: u64) -> std::io::Result<()> {
        self.kept().remove(&shard);
        Ok(())
    }

    async fn discard(&self, shard: ShardId) -> std::io::Result<()> {
        self.kept().remove(&shard);
        Ok(())
    }
}
