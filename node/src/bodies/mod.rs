//! Bodies: the bytes of messages, beside Raft.
//!
//! [`Bodies`] keeps them in volumes on this node's disk, sends them to the replicas of a shard before a command names them, and
//! fetches what is missing. [`GroupBodies`] follows one group: it hears which bodies applied entries name and fetches those that are
//! not here.
//!
//! * A small body rides with the entry that names it: on every node the entry goes into the log only once the body is durable there
//!   ([`Bodies::keep`] on the leader, [`Bodies::receive`] on a follower; `raft` carries it).
//! * A larger one goes ahead: a put is done when the body is durable on a majority of every voter set of the membership that it was
//!   made under.
//! * [`Scrub`] reads every body again and again, so that rot is found while peers still have good copies.
//! * BLAKE3 is checked whenever a body is read or received. What does not match is never served; a peer's copy replaces it.
//! * One copy per shard and hash. A body is found by account and message; nobody is given one for knowing its hash.
//!
//! * [`Collector`] frees what nothing names any more, by commands of the shard's log.
//!
//! What this room must never do: acknowledge a body before its sync, hand out bytes that were not checked, or free space on its own
//! (each step of collection is a command of the shard's log; a shard whose replica is gone from this node is another matter, see
//! [`Bodies::drop_shard`]).

mod collect;
mod disk_room;
mod encoding;
mod fetch;
mod footer;
mod locator;
mod pace;
mod replicate;
mod scrub;
#[cfg(test)]
mod tests;
mod volume;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use malle_journal::{Disk, Journal, JournalError};
use malle_proto::{BodyHash, NodeId, ShardId, limits};
use tokio::sync::Semaphore;

pub use crate::peers::StoredBody;
use crate::peers::{PeerError, Transport};

pub use collect::{BodyLog, CollectReport, CollectTimes, Collector, IdlePage};
pub use disk_room::{DiskRoom, DiskWatch};
use encoding::Checked;
pub use fetch::GroupBodies;
pub use replicate::Members;
pub use scrub::{BodyRows, Scrub, ScrubReport};
use volume::Volumes;

/// Bodies of a dropped shard that are forgotten in one step: everybody waits for the lock meanwhile.
const DROPPED_TOGETHER: usize = 1_000;
/// Between two such steps.
const BETWEEN_DROPS: std::time::Duration = std::time::Duration::from_millis(1);

/// Why a body was not stored or not found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodiesError {
    /// Larger than a mail may be.
    #[error("a body of more than {limit_bytes} bytes")]
    TooLarge {
        /// The limit.
        limit_bytes: u64,
    },
    /// The bytes are not those that the hash names.
    #[error("the bytes do not match their hash")]
    Hash,
    /// This node's copy is damaged.
    #[error("the body is damaged here: {0}")]
    Corrupt(String),
    /// No replica that answered has it.
    #[error("the body is on no replica that answers: {0}")]
    Missing(String),
    /// Not durable on a majority: the put may be repeated.
    #[error("the body is not on a majority: {0}")]
    NoMajority(String),
    /// The caller's time is over.
    #[error("deadline passed")]
    Deadline,
    /// The disk has no room for it now. Nothing else is wrong: the put may be repeated.
    #[error("the disk has no room for another body")]
    Full,
    /// This node's volumes take nothing any more.
    #[error("volumes: {0}")]
    Volumes(String),
    /// The shard's log did not answer.
    #[error("the shard's log: {0}")]
    Log(String),
}

impl From<JournalError> for BodiesError {
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::Full => BodiesError::Full,
            other => BodiesError::Volumes(other.to_string()),
        }
    }
}

/// Bodies on this node and on its peers.
pub struct Bodies {
    node: NodeId,
    volumes: Volumes,
    disk: Arc<DiskWatch>,
    transport: Arc<dyn Transport>,
    /// KiB of bodies in memory for puts under way.
    room: Arc<Semaphore>,
    /// Who fetches for a shard.
    followers: Mutex<BTreeMap<ShardId, Weak<GroupBodies>>>,
}

impl Bodies {
    /// Opens the volumes in `dir`.
    ///
    /// # Errors
    /// A disk that does not work, or another node's volumes.
    pub async fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        node: NodeId,
        transport: Arc<dyn Transport>,
    ) -> Result<Arc<Bodies>, BodiesError> {
        Bodies::open_with(disk, dir, node, transport, limits::VOLUME_SEGMENT_BYTES)
    }

    /// As [`Bodies::open`], with volumes of this length.
    ///
    /// # Errors
    /// See [`Bodies::open`].
    pub fn open_with(
        disk: Arc<dyn Disk>,
        dir: &Path,
        node: NodeId,
        transport: Arc<dyn Transport>,
        volume_bytes: u64,
    ) -> Result<Arc<Bodies>, BodiesError> {
        let volumes = Volumes::open(disk, dir, node, volume_bytes)?;
        Ok(Bodies::over(volumes, node, transport))
    }

    fn over(volumes: Volumes, node: NodeId, transport: Arc<dyn Transport>) -> Arc<Bodies> {
        let room = Arc::new(Semaphore::new(limits::BODY_BYTES_IN_FLIGHT_MAX / 1024));
        Arc::new(Bodies {
            node,
            disk: volumes.watch_disk(),
            volumes,
            transport,
            room,
            followers: Mutex::default(),
        })
    }

    /// Whether a durable copy is here.
    pub fn has(&self, shard: ShardId, hash: BodyHash) -> bool {
        self.volumes.has(shard, hash)
    }

    /// The stored form of a body, under its name.
    pub async fn stored_form(shard: ShardId, body: Bytes) -> StoredBody {
        let size = body.len() as u64;
        let stored = move || encoding::encode(shard, encoding::hash_of(&body), &body);
        encoding::off_the_way(size, stored).await
    }

    /// Makes a body durable here that rides to the other replicas with the entry that names it. Its name was made or checked by the caller,
    /// who let it in when there was room: here it is refused only when the disk has none at all.
    ///
    /// # Errors
    /// `Full`, `Volumes`.
    pub async fn keep(&self, stored: StoredBody) -> Result<(), BodiesError> {
        let put = self.volumes.put(stored).await;
        if put == Err(BodiesError::Full) {
            self.disk.found_none();
        }
        put
    }

    /// Takes a body from a peer: checked, then durable.
    ///
    /// # Errors
    /// `TooLarge`, `Hash`, `Full`, `Volumes`.
    pub async fn receive(&self, body: StoredBody) -> Result<(), BodiesError> {
        if self.disk.room() == DiskRoom::None && !self.volumes.hold(body.shard, body.hash) {
            return Err(BodiesError::Full);
        }
        match encoding::check(body).await {
            // What a peer sends and does not match is the peer's rot, not ours.
            Err(BodiesError::Corrupt(_)) => Err(BodiesError::Hash),
            checked => self.keep(checked?.stored).await,
        }
    }

    /// How much room the disk has.
    pub fn disk(&self) -> &Arc<DiskWatch> {
        &self.disk
    }

    /// The stored form of a body that is here, checked; `None` when it is not.
    ///
    /// # Errors
    /// `Corrupt`: the copy is forgotten, and fetched again when a group of this node follows the shard.
    pub async fn serve(&self, shard: ShardId, hash: BodyHash) -> Result<Option<StoredBody>, BodiesError> {
        let here = self.local(shard, hash).await?;
        Ok(here.map(|checked| checked.stored))
    }

    /// Reads this node's copy; a damaged one is missing from then on, and the group that follows the shard is told.
    async fn local(&self, shard: ShardId, hash: BodyHash) -> Result<Option<Checked>, BodiesError> {
        let here = self.volumes.get(shard, hash).await;
        if let Err(BodiesError::Corrupt(_)) = &here {
            self.miss(shard, hash);
        }
        here
    }

    /// Tells the group that follows the shard that this body is not here any more.
    fn miss(&self, shard: ShardId, hash: BodyHash) {
        let group = self.followers().get(&shard).and_then(Weak::upgrade);
        if let Some(group) = group {
            // Which entry named it first is not known here, so the group is complete through none.
            group.named(0, &[hash]);
        }
    }

    /// Whether any group of this node misses a body.
    fn misses_any(&self) -> bool {
        let followers = self.followers();
        followers
            .values()
            .filter_map(Weak::upgrade)
            .any(|group| group.missing() > 0)
    }

    fn followers(&self) -> MutexGuard<'_, BTreeMap<ShardId, Weak<GroupBodies>>> {
        self.followers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bodies here, and the bytes that their stored forms take.
    pub fn counts(&self) -> (u64, u64) {
        let counts = self.volumes.counts();
        (counts.bodies, counts.payload_bytes)
    }

    /// Bytes on disk of the bodies of a shard.
    pub fn shard_bytes(&self, shard: ShardId) -> u64 {
        self.volumes.shard_bytes(shard)
    }

    /// Shards of which bodies are here.
    pub fn shards(&self) -> Vec<ShardId> {
        self.volumes.shards()
    }

    /// Lets go of every body of a shard whose replica is gone from this node: no membership counts on them any more. Their space comes back as
    /// that of collected ones does.
    pub async fn drop_shard(&self, shard: ShardId) {
        while self.volumes.drop_some(shard, DROPPED_TOGETHER) == DROPPED_TOGETHER {
            malle_rt::sleep(BETWEEN_DROPS).await;
        }
    }

    /// Bytes of bodies in memory for puts under way.
    pub fn bytes_in_flight(&self) -> u64 {
        (limits::BODY_BYTES_IN_FLIGHT_MAX as u64).saturating_sub(self.room.available_permits() as u64 * 1024)
    }

    /// The journal below the volumes, for its figures.
    pub fn journal(&self) -> &Journal {
        self.volumes.journal()
    }

    /// Set once the volumes take nothing any more.
    pub fn failed(&self) -> tokio::sync::watch::Receiver<Option<String>> {
        self.volumes.failed()
    }

    /// Waits for what is being written, and stops.
    pub async fn close(&self) {
        self.volumes.close().await;
    }
}

impl From<PeerError> for BodiesError {
    fn from(error: PeerError) -> Self {
        match error {
            PeerError::Deadline(_) => BodiesError::Deadline,
            other => BodiesError::Missing(other.to_string()),
        }
    }
}
