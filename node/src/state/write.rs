//! The index's way into a checkpoint, and a snapshot's way into the index.

use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use malle_journal::{Disk, is_out_of_space};
use malle_machine::digest::LOCAL_PREFIX;
use malle_machine::view::{Fault, Flow};
use malle_proto::ShardId;
use tokio::sync::watch;

use super::checkpoint::{
    Changed, Checkpoint, CheckpointRecord, CheckpointWriter, Keys, Standing, Unnamed, Work, remove_unfinished,
    write_changed,
};
use super::open::{Flushed, GroupState};
use super::overlay::{Overlay, Rows};
use super::prove::load;
use crate::index::IndexStore;
use crate::log::records::{FloorRecord, LogIdRecord};

/// Where the rows of a checkpoint come from; what is flushed meanwhile is added to them.
enum Source {
    /// Every row of the index.
    Scan,
    /// These, after that checkpoint.
    Keys(Keys, Box<Checkpoint>),
}

impl GroupState {
    /// Whether a checkpoint is due: by log, by age, by the memory that changed keys take, or because none covers what was purged.
    pub async fn checkpoint_is_due(&self) -> bool {
        let flushed = self.inner.flushed.lock().await;
        let uncovered = self.inner.log.purged_index().is_some() && self.current_checkpoint().is_none();
        uncovered || self.standing(&flushed).due(self.inner.settings.env.now_ms())
    }

    pub(super) fn standing(&self, flushed: &Flushed) -> Standing {
        let checkpoint = self.current_checkpoint();
        let log_bytes = self.inner.log.status().bytes_since_checkpoint;
        let rows = flushed.position.rows;
        Standing::new(checkpoint.as_ref(), &flushed.changed, flushed.ledger, log_bytes, rows)
    }

    /// Writes a checkpoint of everything applied so far, while writes go on. Returns the current one when nothing is newer.
    ///
    /// # Errors
    /// What the disk, index or journal says. The old checkpoint stays then.
    pub async fn checkpoint(&self) -> io::Result<Checkpoint> {
        let state = self.clone();
        // A task of its own: a caller that goes away must not leave a file with its name, and a state that does not know of it.
        let made = malle_rt::spawn(async move { state.checkpoint_now().await }).await;
        made.map_err(io::Error::other)?
    }

    async fn checkpoint_now(&self) -> io::Result<Checkpoint> {
        let _one_at_a_time = self.inner.checkpointing.lock().await;
        let source = {
            let mut flushed = self.inner.flushed.lock().await;
            self.flush_locked(&mut flushed).await.map_err(io::Error::other)?;
            flushed.forget_what_was_not_covered();
            let current = self.current_checkpoint();
            if let Some(current) = &current
                && current.index() >= flushed.position.applied.map_or(0, |id| id.index)
            {
                return Ok(current.clone());
            }
            flushed.tee = Some(Vec::new());
            match (self.standing(&flushed).work(), current, &flushed.changed) {
                (Work::Delta, Some(after), Changed::Known(keys)) => Source::Keys(keys.clone(), Box::new(after)),
                _ => Source::Scan,
            }
        };
        let written = self.write_checkpoint(source).await;
        if let Err(error) = &written {
            self.inner.flushed.lock().await.tee = None;
            let (disk, dir) = (self.inner.settings.disk.clone(), self.inner.settings.dir.clone());
            malle_rt::blocking(move || remove_unfinished(&disk, &dir)).await;
            if is_out_of_space(error) {
                self.inner.no_room.send_modify(|times| *times += 1);
            }
        }
        written
    }

    async fn write_checkpoint(&self, source: Source) -> io::Result<Checkpoint> {
        let shard = self.inner.shard;
        let disk = self.inner.settings.disk.clone();
        let dir = self.inner.settings.dir.clone();
        let index = self.live().index.clone();
        let (scanned, written_in) = (index.clone(), dir.clone());
        let work = match source {
            Source::Scan => Work::Base,
            Source::Keys(..) => Work::Delta,
        };
        let writer =
            malle_rt::blocking(move || write_rows(&disk, &written_in, shard, source, scanned.as_ref())).await?;
        let (redo, position) = {
            let mut flushed = self.inner.flushed.lock().await;
            // From here on other keys count; these come back when the file does not become the checkpoint.
            flushed.covered = Some(std::mem::replace(&mut flushed.changed, Changed::none()));
            (flushed.tee.take().unwrap_or_default(), flushed.position.clone())
        };
        let record = (&position).into();
        let finished = malle_rt::blocking(move || finish(writer, &redo, record)).await;
        let unnamed = match finished {
            Ok(unnamed) => unnamed,
            Err(error) => {
                self.disk_failed(&error);
                let mut flushed = self.inner.flushed.lock().await;
                let covered = flushed.covered.take().unwrap_or(Changed::Lost);
                flushed.changed.absorb(covered);
                return Err(error);
            }
        };
        let (bytes, changes) = (unnamed.bytes(), unnamed.changes());
        let named = malle_rt::blocking(move || unnamed.name(&dir)).await;
        let checkpoint = match named {
            Ok(checkpoint) => checkpoint,
            Err(error) => {
                // Which chain the disk has is not known, so nothing can follow it: what is covered is not taken back.
                self.disk_failed(&error);
                return Err(error);
            }
        };
        self.inner.flushed.lock().await.covered = None;
        self.keep(checkpoint.clone());
        malle_rt::blocking(move || index.flush())
            .await
            .map_err(io::Error::other)?;
        let applied = checkpoint.index();
        let uuid = self.live().uuid;
        self.inner
            .log
            .write_floor(FloorRecord {
                applied_index: applied,
                store: uuid,
            })
            .await?;
        let log_bytes = self.inner.log.checkpointed(applied);
        let mut flushed = self.inner.flushed.lock().await;
        flushed.ledger.wrote(work, bytes, changes, log_bytes);
        flushed.ledger.wait(self.inner.settings.env.now_ms(), self.chance());
        tracing::info!(%shard, index = applied, ?work, bytes, log_bytes, "checkpoint written");
        Ok(checkpoint)
    }

    /// A file of a checkpoint was not written or not synced. For want of room that is no defect; else the disk is not believed again, though what it
    /// lost is still in log and index: what it loses next may not be.
    fn disk_failed(&self, error: &io::Error) {
        if !is_out_of_space(error) {
            let reason = format!("a checkpoint of shard {} was not written: {error}", self.inner.shard);
            self.inner.lost_write.send_replace(Some(reason));
        }
    }

    /// Rises with every checkpoint that the disk had no room for.
    pub fn checkpoints_without_room(&self) -> watch::Receiver<u64> {
        self.inner.no_room.subscribe()
    }

    /// For the age of the next checkpoint.
    pub(super) fn chance(&self) -> u64 {
        u64::from_le_bytes(self.inner.settings.env.bytes())
    }

    fn keep(&self, checkpoint: Checkpoint) {
        *self.inner.checkpoint.lock().unwrap_or_else(PoisonError::into_inner) = Some(checkpoint);
    }

    pub(super) fn current_checkpoint(&self) -> Option<Checkpoint> {
        self.inner
            .checkpoint
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Writes down which keys changed since the checkpoint, so that the first one after a clean stop need not be a base.
    pub(super) async fn leave_changed_keys(&self) {
        // A checkpoint under way is waited for: without it the next one would be a base, and cost more.
        let _one_at_a_time = self.inner.checkpointing.lock().await;
        let mut flushed = self.inner.flushed.lock().await;
        flushed.forget_what_was_not_covered();
        let (Some(after), Changed::Known(keys)) = (self.current_checkpoint(), &flushed.changed) else {
            return;
        };
        let applied = flushed.position.applied.map(LogIdRecord::from);
        if after.record().applied == applied {
            return;
        }
        let (disk, dir, keys) = (
            self.inner.settings.disk.clone(),
            self.inner.settings.dir.clone(),
            keys.clone(),
        );
        let written = malle_rt::blocking(move || write_changed(&disk, &dir, &after, applied, &keys)).await;
        if let Err(error) = written {
            tracing::warn!(shard = %self.inner.shard, %error, "the first checkpoint after the next start is a base");
        }
    }

    /// Replaces the whole state by a received snapshot. Installing one twice changes nothing.
    ///
    /// # Errors
    /// When the snapshot is damaged nothing was changed; when the disk or index fails the group must be opened again.
    pub(super) async fn install(&self, snapshot: Checkpoint) -> io::Result<()> {
        self.inner.hurry.fetch_add(1, Ordering::SeqCst);
        let one_at_a_time = self.inner.checkpointing.lock().await;
        self.inner.hurry.fetch_sub(1, Ordering::SeqCst);
        let installed = self.install_now(snapshot).await;
        drop(one_at_a_time);
        installed
    }

    async fn install_now(&self, snapshot: Checkpoint) -> io::Result<()> {
        let mut flushed = self.inner.flushed.lock().await;
        let checked = snapshot.clone();
        if malle_rt::blocking(move || checked.whole()).await.is_none() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the snapshot is damaged"));
        }
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
        flushed.proof = None;
        flushed.changed = Changed::none();
        flushed.covered = None;
        self.keep(checkpoint);
        self.inner
            .log
            .write_floor(FloorRecord {
                applied_index: applied,
                store: uuid,
            })
            .await?;
        self.inner.log.checkpointed(applied);
        self.inner.applied.send_replace(applied);
        Ok(())
    }
}

/// Begins the file and writes what its source says. Blocks.
fn write_rows(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    shard: ShardId,
    source: Source,
    index: &dyn IndexStore,
) -> io::Result<CheckpointWriter> {
    match source {
        Source::Scan => {
            let mut writer = CheckpointWriter::create(disk, dir, shard, None)?;
            scan_into(&mut writer, index)?;
            Ok(writer)
        }
        Source::Keys(keys, after) => {
            let mut writer = CheckpointWriter::create(disk, dir, shard, Some(*after))?;
            keys.each(&mut |key| {
                let value = index.get(key).map_err(io::Error::other)?;
                writer.change(key, value.as_deref())
            })?;
            Ok(writer)
        }
    }
}

pub(super) fn scan_into(writer: &mut CheckpointWriter, index: &dyn IndexStore) -> io::Result<()> {
    let mut failed = None;
    let scanned = index.scan(
        &[LOCAL_PREFIX + 1],
        &[0xFF; 32],
        &mut |key, value| match writer.change(key, Some(value)) {
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

/// Adds what was flushed while the rows were read, which makes the whole consistent at `record`. Blocks.
fn finish(mut writer: CheckpointWriter, redo: &[Arc<Rows>], record: CheckpointRecord) -> io::Result<Unnamed> {
    for rows in redo {
        for (key, value) in rows.iter() {
            writer.change(key, value.as_deref())?;
        }
    }
    writer.finish(record)
}
