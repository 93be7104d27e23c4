//! Where the indexes of the groups come from: sled on this node's disk, or memory under simulation.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use malle_proto::ShardId;

use crate::index::{self, IndexError, IndexStore, SledIndex, dirs};

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
}
