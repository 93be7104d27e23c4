//! Opening a group's state, and proving its view before anybody reads it.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use malle_journal::Disk;
use malle_machine::Digest;
use malle_machine::view::{Change, Fault, View};
use malle_proto::{BodyHash, ShardId, limits};
use tokio::sync::{broadcast, watch};

use super::checkpoint::{Changed, Checkpoint, Ledger, read_changed};
use super::compact::Weight;
use super::indexes::Indexes;
use super::machine::MachineKind;
use super::overlay::{Overlay, Position, ReadView, Rows};
use super::prove::{CLEAN_KEY, open_index, prove, rebuild};
use super::prove_again::{Proof, first_due_ms};
use crate::env::Env;
use crate::index::{IndexError, IndexStore};
use crate::log::GroupLog;
use crate::log::records::{FloorRecord, LogIdRecord};
use crate::log::types::LogId;

/// What a group's state is made of.
#[derive(Clone)]
pub struct Settings {
    /// Clock and entropy.
    pub env: Env,
    /// For checkpoints.
    pub disk: Arc<dyn Disk>,
    /// Directory of this group's checkpoints.
    pub dir: PathBuf,
    /// Bytes of log behind a checkpoint that make the next one due; `limits::CHECKPOINT_LOG_BYTES` but in tests.
    pub checkpoint_log_bytes: u64,
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
        "shard {shard}: the view is gone, the log begins after {purged} and the checkpoint does not read; a member must send its snapshot"
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
pub(super) struct Flushed {
    /// Position of the index.
    pub position: Position,
    /// While a checkpoint scans: everything flushed meanwhile.
    pub tee: Option<Vec<Arc<Rows>>>,
    /// While the view is proved: what was read of it.
    pub proof: Option<Proof>,
    /// Keys that the index got since the checkpoint.
    pub changed: Changed,
    /// Keys that the checkpoint under way will have, once it is one.
    pub covered: Option<Changed>,
    /// What checkpoints have cost.
    pub ledger: Ledger,
}

impl Flushed {
    /// A checkpoint that ended without a word has left keys that are in no chain, or in one that nobody knows.
    pub fn forget_what_was_not_covered(&mut self) {
        if self.covered.take().is_some() {
            self.changed = Changed::Lost;
        }
    }
}

pub(super) struct Inner {
    pub shard: ShardId,
    pub kind: MachineKind,
    pub settings: Settings,
    pub log: GroupLog,
    pub live: RwLock<Live>,
    pub flushed: tokio::sync::Mutex<Flushed>,
    pub checkpointing: tokio::sync::Mutex<()>,
    pub checkpoint: Mutex<Option<Checkpoint>>,
    pub changes: broadcast::Sender<Change>,
    pub applied: watch::Sender<u64>,
    pub fault: watch::Sender<Option<String>>,
    /// Counts checkpoints that found no room on the disk.
    pub no_room: watch::Sender<u64>,
    /// Why the disk cannot be believed any more.
    pub lost_write: watch::Sender<Option<String>>,
    pub rebuilds: AtomicU64,
    /// What the rows weigh, when somebody looked.
    pub weight: Mutex<Option<Weight>>,
    /// When every row is read the next time.
    pub proof_due_ms: AtomicU64,
    /// Who waits for a compaction to give up.
    pub hurry: AtomicUsize,
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
        let checkpoint = read_checkpoint(&settings, shard, &log).await.map_err(disk_error)?;
        let found = if throw_view_away {
            Err(IndexError::Broken("it failed while it served".into()))
        } else {
            open_index(&settings, shard, &log).await
        };
        let proved = match found {
            Ok(opened) => prove(opened, &log, checkpoint.as_ref()).await,
            Err(error @ IndexError::InUse(_)) => return Err(OpenError::Index { shard, error }),
            Err(error) => Err(error.to_string()),
        };
        let (opened, position, checkpoint, rebuilds) = match proved {
            Ok((opened, position)) => (opened, position, checkpoint, 0),
            Err(reason) => {
                tracing::warn!(%shard, reason, "the view is thrown away and rebuilt");
                let (opened, position, checkpoint) = rebuild(&settings, shard, &log, checkpoint).await?;
                (opened, position, checkpoint, 1)
            }
        };
        if let Some(checkpoint) = &checkpoint {
            log.checkpointed(checkpoint.index());
        }
        let flushed = flushed_at(&settings, position.clone(), checkpoint.as_ref()).await;
        let floor = FloorRecord {
            applied_index: position.applied.map_or(0, |id| id.index),
            store: opened.uuid,
        };
        log.write_floor(floor).await.map_err(disk_error)?;
        let (changes, _) = broadcast::channel(limits::WATCH_QUEUE_MAX);
        let live = Live {
            overlay: Overlay {
                position,
                ..Overlay::default()
            },
            index: opened.store,
            uuid: opened.uuid,
            ready: true,
        };
        let proof_due_ms = AtomicU64::new(first_due_ms(settings.env.now_ms(), opened.uuid));
        let inner = Inner {
            shard,
            kind: MachineKind::of(shard),
            settings,
            log,
            live: RwLock::new(live),
            flushed: tokio::sync::Mutex::new(flushed),
            checkpointing: tokio::sync::Mutex::new(()),
            checkpoint: Mutex::new(checkpoint),
            changes,
            applied: watch::channel(floor.applied_index).0,
            fault: watch::channel(None).0,
            no_room: watch::channel(0).0,
            lost_write: watch::channel(None).0,
            rebuilds: AtomicU64::new(rebuilds),
            weight: Mutex::default(),
            proof_due_ms,
            hurry: AtomicUsize::new(0),
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
        self.applied_id().map_or(0, |id| id.index)
    }

    /// The last applied entry.
    pub fn applied_id(&self) -> Option<LogId> {
        self.live().overlay.position.applied
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

    /// Set once a write or sync of a checkpoint has failed other than for want of room.
    pub fn lost_write(&self) -> watch::Receiver<Option<String>> {
        self.inner.lost_write.subscribe()
    }

    /// How often this state had to be rebuilt since it was opened.
    pub fn rebuilds(&self) -> u64 {
        self.inner.rebuilds.load(Ordering::Relaxed)
    }

    /// Index of the current checkpoint, 0 when there is none.
    pub fn checkpoint_index(&self) -> u64 {
        let checkpoint = self.inner.checkpoint.lock().unwrap_or_else(PoisonError::into_inner);
        checkpoint.as_ref().map_or(0, Checkpoint::index)
    }

    /// Flushes everything and leaves the mark of a clean stop, so that the next start need not scan.
    ///
    /// # Errors
    /// What the index or the journal says; the next start scans or rebuilds then.
    pub async fn close(&self) -> io::Result<()> {
        self.inner.hurry.fetch_add(1, Ordering::SeqCst);
        self.flush().await.map_err(io::Error::other)?;
        self.leave_changed_keys().await;
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

/// The checkpoint as it stands on disk; none when the log does not reach back to it, for then nothing comes of it.
async fn read_checkpoint(settings: &Settings, shard: ShardId, log: &GroupLog) -> io::Result<Option<Checkpoint>> {
    let (disk, dir) = (settings.disk.clone(), settings.dir.clone());
    let found = malle_rt::blocking(move || Checkpoint::open(&disk, &dir, shard)).await?;
    let purged = log.purged_index();
    if let Some(short) = found.as_ref().filter(|found| !found.reaches(purged)) {
        tracing::error!(%shard, checkpoint = short.index(), ?purged, "the checkpoint ends before the log begins");
        return Ok(None);
    }
    Ok(found)
}

/// What is known of the keys that changed since the checkpoint, in an index at this position.
async fn flushed_at(settings: &Settings, position: Position, checkpoint: Option<&Checkpoint>) -> Flushed {
    let applied = position.applied.map(LogIdRecord::from);
    let changed = match checkpoint {
        None => Changed::Lost,
        Some(chain) if chain.record().applied == applied && chain.record().digest == position.digest => Changed::none(),
        Some(chain) => {
            let (disk, dir, chain) = (settings.disk.clone(), settings.dir.clone(), chain.clone());
            malle_rt::blocking(move || read_changed(&disk, &dir, &chain, applied))
                .await
                .map_or(Changed::Lost, Changed::Known)
        }
    };
    Flushed {
        position,
        tee: None,
        proof: None,
        changed,
        covered: None,
        ledger: Ledger::new(
            settings.checkpoint_log_bytes,
            settings.env.now_ms(),
            u64::from_le_bytes(settings.env.bytes()),
        ),
    }
}
