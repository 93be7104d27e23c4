//! Where the indexes of the groups come from: sled on this node's disk, or memory under simulation.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use malle_proto::ShardId;

use crate::index::{self, IndexError, IndexStore, SledIndex};

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
    /// Opens the index of a group; makes it, under `fresh_uuid`, when there is none.
    async fn open(&self, shard: ShardId, fresh_uuid: [u8; 16]) -> Result<OpenedIndex, IndexError>;

    /// Moves a broken one out of the way. Nobody holds it open any more.
    async fn set_aside(&self, shard: ShardId, now_ms: u64) -> std::io::Result<()>;
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
}

#[async_trait]
impl Indexes for SledIndexes {
    async fn open(&self, shard: ShardId, fresh_uuid: [u8; 16]) -> Result<OpenedIndex, IndexError> {
        let mut options = index::Options::new(self.dir_of(shard), fresh_uuid);
        options.cache_bytes = self.cache_bytes_each;
        let opened = SledIndex::open(options).await?;
        Ok(OpenedIndex {
            store: Arc::new(opened.store),
            uuid: opened.uuid,
            created: opened.created,
        })
    }

    async fn set_aside(&self, shard: ShardId, now_ms: u64) -> std::io::Result<()> {
        let dir = self.dir_of(shard);
        malle_rt::blocking(move || match index::set_aside(&dir, now_ms) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        })
        .await
    }
}
