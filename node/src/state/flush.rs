//! The overlay's way into the index, and the index's way into a checkpoint.

use std::io;
use std::sync::Arc;
use std::sync::PoisonError;
use std::time::Duration;

use malle_machine::digest::LOCAL_PREFIX;
use malle_machine::view::{Fault, Flow};
use malle_proto::limits;

use super::checkpoint::{CheckpointFile, CheckpointRecord, CheckpointWriter};
use super::open::{Flushed, GroupState, StateRecord, load};
use super::overlay::Overlay;
use crate::index::{IndexError, IndexStore, Row};
use crate::log::records::{FloorRecord, LogIdRecord};

impl GroupState {
    /// Flushes while anything is there to flush; ends when the state is dropped.
    pub(super) fn start_flusher(&self) {
        let weak = Arc::downgrade(&self.inner);
        malle_rt::spawn(async move {
            loop {
                malle_rt::sleep(Duration::from_millis(limits::VIEW_FLUSH_MS)).await;
                let Some(inner) = weak.upgrade() else { return };
                let state = GroupState { inner };
                if let Err(error) = state.flush().await {
                    state.fail(&error);
                    return;
                }
            }
        });
    }

    /// The view cannot be trusted any more: the group stops.
    pub(super) fn fail(&self, error: &dyn std::fmt::Display) {
        tracing::error!(shard = %self.inner.shard, %error, "the view failed; the group stops and rebuilds it");
        self.inner.fault.send_replace(Some(error.to_string()));
    }

    /// Brings the index up to what was applied when the call began.
    ///
    /// # Errors
    /// What the index says: it is broken then.
    pub async fn flush(&self) -> Result<(), IndexError> {
        let mut flushed = self.inner.flushed.lock().await;
        self.flush_locked(&mut flushed).await
    }

    async fn flush_locked(&self, flushed: &mut Flushed) -> Result<(), IndexError> {
        let (index, rows, position) = {
            if !self.live().overlay.dirty {
                self.forget_flushed();
                return Ok(());
            }
            let mut live = self.live_mut();
            let rows = Arc::new(std::mem::take(&mut live.overlay.active));
            live.overlay.flushing = rows.clone();
            live.overlay.commands = 0;
            live.overlay.dirty = false;
            (live.index.clone(), rows, live.overlay.position.clone())
        };
        let state_row = StateRecord::row(&position);
        let batch_rows = rows.clone();
        malle_rt::blocking(move || {
            let mut batch: Vec<Row> = Vec::with_capacity(batch_rows.len() + 1);
            batch.extend(batch_rows.iter().map(|(key, value)| (key.clone(), value.clone())));
            batch.push(state_row);
            index.apply_batch(&batch)
        })
        .await?;
        if let Some(tee) = &mut flushed.tee {
            tee.push(rows);
        }
        flushed.position = position;
        Ok(())
    }

    /// Bodies that went to the followers with applied entries are kept up to these bytes, for those that lag.
    pub(super) fn forget_riders(&self, kept_bytes: usize) {
        self.inner.log.forget_riders(*self.inner.applied.borrow(), kept_bytes);
    }

    /// A quiet group keeps no rows in memory that the index has, and no bodies for followers, which had their time.
    fn forget_flushed(&self) {
        self.forget_riders(0);
        if !self.live().overlay.flushing.is_empty() {
            self.live_mut().overlay.flushing = Arc::default();
        }
    }

    /// Writes a checkpoint of everything applied so far, while writes go on. Returns the current one when nothing is newer.
    ///
    /// # Errors
    /// What the disk, index or journal says. The old checkpoint stays then.
    pub async fn checkpoint(&self) -> io::Result<CheckpointFile> {
        let _one_at_a_time = self.inner.checkpointing.lock().await;
        {
            let mut flushed = self.inner.flushed.lock().await;
            self.flush_locked(&mut flushed).await.map_err(io::Error::other)?;
            let applied = flushed.position.applied.map_or(0, |id| id.index);
            if let Some(current) = self.current_checkpoint()
                && current.index() >= applied
            {
                return Ok(current);
            }
            flushed.tee = Some(Vec::new());
        }
        let written = self.write_checkpoint().await;
        if written.is_err() {
            self.inner.flushed.lock().await.tee = None;
        }
        written
    }

    async fn write_checkpoint(&self) -> io::Result<CheckpointFile> {
        let shard = self.inner.shard;
        let disk = self.inner.settings.disk.clone();
        let dir = self.inner.settings.dir.clone();
        let index = self.live().index.clone();
        let scanned = index.clone();
        let path = dir.join("checkpoint.writing");
        let mut writer = malle_rt::blocking(move || {
            let mut writer = CheckpointWriter::create(&disk, &path, shard)?;
            scan_into(&mut writer, scanned.as_ref())?;
            Ok::<_, io::Error>(writer)
        })
        .await?;
        let (redo, position) = {
            let mut flushed = self.inner.flushed.lock().await;
            (flushed.tee.take().unwrap_or_default(), flushed.position.clone())
        };
        let applied = position.applied.map_or(0, |id| id.index);
        let record = CheckpointRecord {
            applied: position.applied.map(LogIdRecord::from),
            membership: (&position.membership).into(),
            digest: position.digest,
            rows: position.rows,
        };
        let checkpoint = malle_rt::blocking(move || {
            for rows in redo {
                for (key, value) in rows.iter() {
                    writer.row(key, value.as_deref())?;
                }
            }
            let checkpoint = writer.finish(&record)?.become_current(&dir)?;
            index.flush().map_err(io::Error::other)?;
            Ok::<_, io::Error>(checkpoint)
        })
        .await?;
        let uuid = self.live().uuid;
        self.inner
            .log
            .write_floor(FloorRecord {
                applied_index: applied,
                store: uuid,
            })
            .await?;
        self.inner.log.checkpointed(applied);
        self.keep(checkpoint.clone());
        tracing::info!(%shard, index = applied, bytes = checkpoint.bytes, "checkpoint written");
        Ok(checkpoint)
    }

    fn keep(&self, checkpoint: CheckpointFile) {
        *self.inner.checkpoint.lock().unwrap_or_else(PoisonError::into_inner) = Some(checkpoint);
    }

    pub(super) fn current_checkpoint(&self) -> Option<CheckpointFile> {
        self.inner
            .checkpoint
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Replaces the whole state by a received snapshot. Installing one twice changes nothing.
    ///
    /// # Errors
    /// When the snapshot is damaged nothing was changed; when the disk or index fails the group must be opened again.
    pub(super) async fn install(&self, snapshot: CheckpointFile) -> io::Result<()> {
        let _one_at_a_time = self.inner.checkpointing.lock().await;
        let mut flushed = self.inner.flushed.lock().await;
        let checked = snapshot.clone();
        malle_rt::blocking(move || checked.verify()).await?;
        let dir = self.inner.settings.dir.clone();
        let index = {
            let mut live = self.live_mut();
            live.ready = false;
            live.index.clone()
        };
        let installed = malle_rt::blocking(move || {
            let checkpoint = snapshot.become_current(&dir)?;
            let position = load(&checkpoint, index.as_ref())?;
            Ok::<_, io::Error>((checkpoint, position))
        })
        .await;
        let (checkpoint, position) = match installed {
            Ok(installed) => installed,
            Err(error) => {
                self.fail(&error);
                return Err(error);
            }
        };
        let applied = checkpoint.index();
        let uuid = {
            let mut live = self.live_mut();
            live.overlay = Overlay {
                position: position.clone(),
                ..Overlay::default()
            };
            live.ready = true;
            live.uuid
        };
        flushed.position = position;
        flushed.tee = None;
        self.inner
            .log
            .write_floor(FloorRecord {
                applied_index: applied,
                store: uuid,
            })
            .await?;
        self.inner.log.checkpointed(applied);
        self.keep(checkpoint);
        self.inner.applied.send_replace(applied);
        Ok(())
    }
}

fn scan_into(writer: &mut CheckpointWriter, index: &dyn IndexStore) -> io::Result<()> {
    let mut failed = None;
    let scanned = index.scan(
        &[LOCAL_PREFIX + 1],
        &[0xFF; 32],
        &mut |key, value| match writer.row(key, Some(value)) {
            Ok(()) => Ok(Flow::More),
            Err(error) => {
                let said = error.to_string();
                failed = Some(error);
                Err(Fault::Storage(said))
            }
        },
    );
    match (failed, scanned) {
        (Some(error), _) => Err(error),
        (None, scanned) => scanned.map_err(io::Error::other),
    }
}
