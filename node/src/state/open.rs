//! Opening a group's state, and proving its view before anybody reads it.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use malle_journal::Disk;
use malle_machine::digest::LOCAL_PREFIX;
use malle_machine::view::{Change, Fault, Flow, View};
use malle_machine::{Digest, first_version, format};
use malle_proto::{BodyHash, ShardId, limits};
use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, watch};

use super::checkpoint::{CheckpointFile, current_path};
use super::indexes::{Indexes, OpenedIndex};
use super::machine::MachineKind;
use super::overlay::{Overlay, Position, ReadView, Rows};
use crate::env::Env;
use crate::index::{IndexError, IndexStore, IndexView, Row};
use crate::log::GroupLog;
use crate::log::records::{FloorRecord, LogIdRecord, StoredMembershipRecord};
use crate::log::types::{LogId, StoredMembership};

/// Key of the row that goes with every batch.
pub(super) const STATE_KEY: [u8; 2] = [LOCAL_PREFIX, b's'];
/// Key of the row that a clean stop leaves.
const CLEAN_KEY: [u8; 2] = [LOCAL_PREFIX, b'c'];
/// Rows of one batch while an index is loaded or cleared.
const LOAD_BATCH_ROWS: usize = 1_000;

/// How far the index is; written in the same batch as its rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StateRecord {
    applied: Option<LogIdRecord>,
    membership: StoredMembershipRecord,
    digest: Digest,
    rows: u64,
}
first_version!(StateRecord, 48);

impl StateRecord {
    pub(super) fn row(position: &Position) -> Row {
        let record = StateRecord {
            applied: position.applied.map(LogIdRecord::from),
            membership: (&position.membership).into(),
            digest: position.digest,
            rows: position.rows,
        };
        (STATE_KEY.to_vec(), Some(format::encode(&record)))
    }

    fn position(self) -> Result<Position, format::FormatError> {
        Ok(Position {
            applied: self.applied.map(LogId::from),
            membership: StoredMembership::try_from(self.membership)?,
            digest: self.digest,
            rows: self.rows,
        })
    }
}

/// What a group's state is made of.
#[derive(Clone)]
pub struct Settings {
    /// Clock and entropy.
    pub env: Env,
    /// For checkpoints.
    pub disk: Arc<dyn Disk>,
    /// Directory of this group's checkpoints.
    pub dir: PathBuf,
    /// For the view.
    pub indexes: Arc<dyn Indexes>,
    /// Told of bodies that entries name.
    pub bodies: Arc<dyn BodyNews>,
}

/// Who wants to know what applied entries say about bodies.
pub trait BodyNews: Send + Sync {
    /// Entry `index` names these; they must be fetched where they are missing.
    fn named(&self, index: u64, hashes: &[BodyHash]);
    /// Collection released these.
    fn released(&self, hashes: &[BodyHash]);
}

/// Why a group's state does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The disk.
    #[error("state of shard {shard}: {error}")]
    Disk {
        /// Whose.
        shard: ShardId,
        /// Why.
        error: io::Error,
    },
    /// The index, even a fresh one.
    #[error("index of shard {shard}: {error}")]
    Index {
        /// Whose.
        shard: ShardId,
        /// Why.
        error: IndexError,
    },
    /// The view must be rebuilt, and neither a checkpoint nor a whole log is here.
    #[error(
        "shard {shard}: the view is gone, the log begins after {purged} and the checkpoint does not read; replace this node"
    )]
    NoCheckpoint {
        /// Whose.
        shard: ShardId,
        /// Where the log begins.
        purged: u64,
    },
}

/// The rows and what lies over them.
pub(super) struct Live {
    pub overlay: Overlay,
    pub index: Arc<dyn IndexStore>,
    /// Identity of the database.
    pub uuid: [u8; 16],
    /// False while a snapshot is being installed: nobody reads.
    pub ready: bool,
}

/// What flushes, checkpoints and installs share; one of them at a time.
#[derive(Default)]
pub(super) struct Flushed {
    /// Position of the index.
    pub position: Position,
    /// While a checkpoint scans: everything flushed meanwhile.
    pub tee: Option<Vec<Arc<Rows>>>,
}

pub(super) struct Inner {
    pub shard: ShardId,
    pub kind: MachineKind,
    pub settings: Settings,
    pub log: GroupLog,
    pub live: RwLock<Live>,
    pub flushed: tokio::sync::Mutex<Flushed>,
    pub checkpointing: tokio::sync::Mutex<()>,
    pub checkpoint: Mutex<Option<CheckpointFile>>,
    pub changes: broadcast::Sender<Change>,
    pub applied: watch::Sender<u64>,
    pub fault: watch::Sender<Option<String>>,
    pub rebuilds: AtomicU64,
}

/// The state of one group. Cheap to clone; all clones are one state.
#[derive(Clone)]
pub struct GroupState {
    pub(super) inner: Arc<Inner>,
}

impl GroupState {
    /// Opens the view, proves it, rebuilds it where it cannot be proved, or at once with `throw_view_away`.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(
        shard: ShardId,
        log: GroupLog,
        settings: Settings,
        throw_view_away: bool,
    ) -> Result<GroupState, OpenError> {
        let disk_error = |error| OpenError::Disk { shard, error };
        settings.disk.create_dir_all(&settings.dir).map_err(disk_error)?;
        let checkpoint = read_checkpoint(&settings, shard).await.map_err(disk_error)?;
        if let Some(checkpoint) = &checkpoint {
            log.checkpointed(checkpoint.index());
        }
        let found = if throw_view_away {
            Err(IndexError::Broken("it failed while it served".into()))
        } else {
            open_index(&settings, shard).await
        };
        let proved = match found {
            Ok(opened) => prove(opened, &log, checkpoint.as_ref()).await,
            Err(error @ IndexError::InUse(_)) => return Err(OpenError::Index { shard, error }),
            Err(error) => Err(error.to_string()),
        };
        let (opened, position, rebuilds) = match proved {
            Ok((opened, position)) => (opened, position, 0),
            Err(reason) => {
                tracing::warn!(%shard, reason, "the view is thrown away and rebuilt");
                let (opened, position) = rebuild(&settings, shard, &log, checkpoint.as_ref()).await?;
                (opened, position, 1)
            }
        };
        let floor = FloorRecord {
            applied_index: position.applied.map_or(0, |id| id.index),
            store: opened.uuid,
        };
        log.write_floor(floor).await.map_err(disk_error)?;
        let applied = floor.applied_index;
        let (changes, _) = broadcast::channel(limits::WATCH_QUEUE_MAX);
        let live = Live {
            overlay: Overlay {
                position: position.clone(),
                ..Overlay::default()
            },
            index: opened.store,
            uuid: opened.uuid,
            ready: true,
        };
        let inner = Inner {
            shard,
            kind: MachineKind::of(shard),
            settings,
            log,
            live: RwLock::new(live),
            flushed: tokio::sync::Mutex::new(Flushed { position, tee: None }),
            checkpointing: tokio::sync::Mutex::new(()),
            checkpoint: Mutex::new(checkpoint),
            changes,
            applied: watch::channel(applied).0,
            fault: watch::channel(None).0,
            rebuilds: AtomicU64::new(rebuilds),
        };
        let state = GroupState { inner: Arc::new(inner) };
        state.start_flusher();
        Ok(state)
    }

    pub(super) fn live(&self) -> RwLockReadGuard<'_, Live> {
        self.inner.live.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn live_mut(&self) -> RwLockWriteGuard<'_, Live> {
        self.inner.live.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the rows on the blocking pool. The view stands still meanwhile, and so does apply: keep it short.
    ///
    /// # Errors
    /// The fault of the visitor, or one that says that the view is being rebuilt.
    pub async fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&dyn View) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let state = self.clone();
        malle_rt::blocking(move || state.glance(look)).await
    }

    /// Looks at a row or two where it is called: rows that every command writes, which the overlay holds.
    ///
    /// # Errors
    /// See [`Fault`].
    pub fn glance<T>(&self, look: impl FnOnce(&dyn View) -> Result<T, Fault>) -> Result<T, Fault> {
        let live = self.live();
        if !live.ready {
            return Err(Fault::Storage("the view is being replaced by a snapshot".into()));
        }
        look(&ReadView {
            overlay: &live.overlay,
            index: live.index.as_ref(),
        })
    }

    /// Index of the last applied entry.
    pub fn applied_index(&self) -> u64 {
        self.live().overlay.position.applied.map_or(0, |id| id.index)
    }

    /// Digest of the rows, the applied index that it belongs to, and the number of rows.
    pub fn digest(&self) -> (Digest, u64, u64) {
        let live = self.live();
        let position = &live.overlay.position;
        (
            position.digest,
            position.applied.map_or(0, |id| id.index),
            position.rows,
        )
    }

    /// Told of every change of an account that is applied here.
    pub fn changes(&self) -> broadcast::Receiver<Change> {
        self.inner.changes.subscribe()
    }

    /// Rises with every applied entry.
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.inner.applied.subscribe()
    }

    /// Set once the view has failed: the group must be stopped and opened again.
    pub fn fault(&self) -> watch::Receiver<Option<String>> {
        self.inner.fault.subscribe()
    }

    /// How often this state had to be rebuilt since it was opened.
    pub fn rebuilds(&self) -> u64 {
        self.inner.rebuilds.load(Ordering::Relaxed)
    }

    /// Index of the current checkpoint, 0 when there is none.
    pub fn checkpoint_index(&self) -> u64 {
        let checkpoint = self.inner.checkpoint.lock().unwrap_or_else(PoisonError::into_inner);
        checkpoint.as_ref().map_or(0, CheckpointFile::index)
    }

    /// Flushes everything and leaves the mark of a clean stop, so that the next start need not scan.
    ///
    /// # Errors
    /// What the index or the journal says; the next start scans or rebuilds then.
    pub async fn close(&self) -> io::Result<()> {
        self.flush().await.map_err(io::Error::other)?;
        let flushed = self.inner.flushed.lock().await;
        let (index, uuid) = {
            let live = self.live();
            (live.index.clone(), live.uuid)
        };
        malle_rt::blocking(move || {
            index.apply_batch(&[(CLEAN_KEY.to_vec(), Some(Bytes::from_static(b"clean")))])?;
            index.flush()
        })
        .await
        .map_err(io::Error::other)?;
        let applied_index = flushed.position.applied.map_or(0, |id| id.index);
        self.inner
            .log
            .write_floor(FloorRecord {
                applied_index,
                store: uuid,
            })
            .await
    }
}

async fn open_index(settings: &Settings, shard: ShardId) -> Result<OpenedIndex, IndexError> {
    let mut fresh_uuid = [0; 16];
    settings.env.fill(&mut fresh_uuid);
    settings.indexes.open(shard, fresh_uuid).await
}

async fn read_checkpoint(settings: &Settings, shard: ShardId) -> io::Result<Option<CheckpointFile>> {
    let (disk, path) = (settings.disk.clone(), current_path(&settings.dir));
    malle_rt::blocking(move || match CheckpointFile::open(&disk, &path, shard) {
        Ok(checkpoint) => Ok(Some(checkpoint)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            // Only a rebuild needs it; whether the shard can do without is decided there.
            tracing::error!(%shard, %error, "the checkpoint does not read");
            Ok(None)
        }
        Err(error) => Err(error),
    })
    .await
}

/// The guard rails of an open: floor, identity, position, and after an unclean stop the digest of every row.
async fn prove(
    opened: OpenedIndex,
    log: &GroupLog,
    checkpoint: Option<&CheckpointFile>,
) -> Result<(OpenedIndex, Position), String> {
    let floor = log.floor();
    let index = opened.store.clone();
    let created = opened.created;
    let (position, clean) = malle_rt::blocking(move || read_position(index.as_ref(), created)).await?;
    let applied = position.applied.map_or(0, |id| id.index);
    if let Some(floor) = floor {
        if floor.store != opened.uuid {
            return Err("another database stands where the flushed one was".into());
        }
        if applied < floor.applied_index {
            return Err(format!("applied {applied} is below the floor {}", floor.applied_index));
        }
    }
    if let Some(checkpoint) = checkpoint
        && applied < checkpoint.index()
    {
        return Err(format!(
            "applied {applied} is below the checkpoint {}",
            checkpoint.index()
        ));
    }
    if let Some(purged) = log.purged_index()
        && applied < purged
    {
        return Err(format!("applied {applied} is below {purged}, where the log begins"));
    }
    if !clean && !created {
        let index = opened.store.clone();
        let (digest, rows) = malle_rt::blocking(move || scan_digest(index.as_ref())).await?;
        if (digest, rows) != (position.digest, position.rows) {
            return Err(format!("{rows} rows do not add up to the digest of {}", position.rows));
        }
    }
    let index = opened.store.clone();
    malle_rt::blocking(move || {
        // Gone and durably so before anything is applied: a stop from here on is unclean until `close` says otherwise.
        index.apply_batch(&[(CLEAN_KEY.to_vec(), None)])?;
        index.flush()
    })
    .await
    .map_err(|error| error.to_string())?;
    Ok((opened, position))
}

fn read_position(index: &dyn IndexStore, created: bool) -> Result<(Position, bool), String> {
    let clean = index.get(&CLEAN_KEY).map_err(|error| error.to_string())?.is_some();
    match index.get(&STATE_KEY).map_err(|error| error.to_string())? {
        None if created => Ok((Position::default(), clean)),
        None => {
            // Made, and stopped before its first batch: empty, or half of an install.
            let (_, rows) = scan_digest(index)?;
            if rows == 0 {
                Ok((Position::default(), false))
            } else {
                Err("rows without a position".into())
            }
        }
        Some(row) => {
            let record: StateRecord = format::decode(&row).map_err(|error| error.to_string())?;
            Ok((record.position().map_err(|error| error.to_string())?, clean))
        }
    }
}

fn scan_digest(index: &dyn IndexStore) -> Result<(Digest, u64), String> {
    let mut digest = Digest::default();
    let mut rows = 0;
    IndexView(index)
        .scan(&[LOCAL_PREFIX + 1], &[0xFF; 32], &mut |key, value| {
            digest.add(key, value);
            rows += 1;
            Ok(Flow::More)
        })
        .map_err(|error| error.to_string())?;
    Ok((digest, rows))
}

async fn rebuild(
    settings: &Settings,
    shard: ShardId,
    log: &GroupLog,
    checkpoint: Option<&CheckpointFile>,
) -> Result<(OpenedIndex, Position), OpenError> {
    if let (None, Some(purged)) = (checkpoint, log.purged_index()) {
        return Err(OpenError::NoCheckpoint { shard, purged });
    }
    let now_ms = settings.env.now_ms();
    settings
        .indexes
        .set_aside(shard, now_ms)
        .await
        .map_err(|error| OpenError::Disk { shard, error })?;
    let opened = open_index(settings, shard)
        .await
        .map_err(|error| OpenError::Index { shard, error })?;
    let position = match checkpoint {
        None => Position::default(),
        Some(checkpoint) => {
            let (checkpoint, index) = (checkpoint.clone(), opened.store.clone());
            malle_rt::blocking(move || load(&checkpoint, index.as_ref()))
                .await
                .map_err(|error| OpenError::Disk { shard, error })?
        }
    };
    Ok((opened, position))
}

/// Empties the index and fills it from a checkpoint. Until the last batch it has no position, so a crash in between is seen. Blocks.
pub(super) fn load(checkpoint: &CheckpointFile, index: &dyn IndexStore) -> io::Result<Position> {
    checkpoint.verify()?;
    let position = checkpoint.position()?;
    clear(index).map_err(io::Error::other)?;
    let mut batch: Vec<Row> = Vec::with_capacity(LOAD_BATCH_ROWS);
    checkpoint.rows(&mut |key, value| {
        batch.push((key, value));
        if batch.len() >= LOAD_BATCH_ROWS {
            index.apply_batch(&batch).map_err(io::Error::other)?;
            batch.clear();
        }
        Ok(())
    })?;
    index.apply_batch(&batch).map_err(io::Error::other)?;
    let (digest, rows) = scan_digest(index).map_err(io::Error::other)?;
    if (digest, rows) != (position.digest, position.rows) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!(
                "{rows} rows of {checkpoint:?} do not add up to its digest of {}",
                position.rows
            ),
        ));
    }
    index
        .apply_batch(&[StateRecord::row(&position)])
        .map_err(io::Error::other)?;
    index.flush().map_err(io::Error::other)?;
    Ok(position)
}

fn clear(index: &dyn IndexStore) -> Result<(), IndexError> {
    index.apply_batch(&[(STATE_KEY.to_vec(), None), (CLEAN_KEY.to_vec(), None)])?;
    index.flush()?;
    loop {
        let mut batch: Vec<Row> = Vec::new();
        index.scan(&[LOCAL_PREFIX + 1], &[0xFF; 32], &mut |key, _| {
            batch.push((key.to_vec(), None));
            Ok(if batch.len() < LOAD_BATCH_ROWS {
                Flow::More
            } else {
                Flow::Stop
            })
        })?;
        if batch.is_empty() {
            return Ok(());
        }
        index.apply_batch(&batch)?;
    }
}
