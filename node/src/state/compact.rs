//! A view that takes much more room than its rows is copied into a fresh database, which then takes its place.
//!
//! sled never gives space back: after churn a database holds several times what its rows need. The copy is made while the group serves:
//!
//! 1. an empty index is made beside the view;
//! 2. a few rows at a time are copied in key order, at a bounded rate; what is flushed into the view meanwhile is written into the copy
//!    behind them, as far as the copy has come, so that no more than a second of flushes waits in memory;
//! 3. with flushes held back: the rest of them, the position, a sync; the copy must add up to the digest of the view's position;
//! 4. the floor names the copy, durably: from here on it is the group's index, before it the old one was;
//! 5. reads and flushes go to the copy, the old one is closed and removed.
//!
//! A crash leaves two indexes and a floor that names one: the next start opens that one and removes the other (`index::dirs`). A copy
//! that does not add up says that the view lost or changed a row: the group stops and rebuilds it, as at any other damage.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use malle_machine::Digest;
use malle_machine::digest::LOCAL_PREFIX;
use malle_machine::view::Flow;
use malle_proto::limits;

use super::open::{Flushed, GroupState};
use super::overlay::{Position, Rows};
use super::prove::StateRecord;
use crate::index::{IndexError, IndexStore, Row};
use crate::log::records::FloorRecord;

/// Rows of one step of a copy, or of weighing.
const STEP_ROWS: usize = 1_000;
/// No key is as large as this.
const END: [u8; 32] = [0xFF; 32];
/// Readers of the old index are gone within a moment; a start removes it otherwise.
const OLD_INDEX_WAIT: Duration = Duration::from_secs(10);
/// Pause between two looks whether they are.
const OLD_INDEX_LOOK: Duration = Duration::from_millis(20);

/// Why a view was not compacted.
#[derive(Debug, thiserror::Error)]
pub enum CompactError {
    /// An index failed: the view's own, or the copy.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The view does not hold the rows that it should.
    #[error("{rows} rows copied, {wanted} in the view's position, or another digest")]
    Damaged {
        /// Rows of the copy.
        rows: u64,
        /// Rows of the position.
        wanted: u64,
    },
    /// The journal did not take the floor.
    #[error("the floor: {0}")]
    Floor(io::Error),
    /// The group closes, failed, or installs a snapshot.
    #[error("the group has something more urgent to do")]
    GivenUp,
    /// Others have filled the disk meanwhile.
    #[error("the disk fills up: what is left is not for a copy")]
    NoRoom,
}

/// What the rows of a view weigh, and what its database took when they were weighed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weight {
    live_bytes: u64,
    disk_bytes: u64,
}

impl Weight {
    fn too_much(self, disk_bytes: u64) -> bool {
        disk_bytes > self.live_bytes.saturating_mul(limits::VIEW_COMPACT_TIMES)
    }

    /// The database has grown by a quarter since: the rows may have, too.
    fn is_old(self, disk_bytes: u64) -> bool {
        disk_bytes > self.disk_bytes + self.disk_bytes / 4
    }
}

/// The copy, and how far it is.
struct Copy {
    to: Arc<dyn IndexStore>,
    /// Keys below this one are copied.
    cursor: Vec<u8>,
    position: Position,
}

impl Copy {
    /// Copies the next rows; their bytes, 0 at the end. Blocks.
    fn step(&mut self, from: &dyn IndexStore) -> Result<u64, IndexError> {
        let mut batch: Vec<Row> = Vec::with_capacity(STEP_ROWS);
        let bytes = some_rows(from, &mut self.cursor, &mut |key, value| {
            self.position.digest.add(key, value);
            batch.push((key.to_vec(), Some(bytes::Bytes::copy_from_slice(value))));
        })?;
        self.position.rows += batch.len() as u64;
        self.to.apply_batch(&batch)?;
        Ok(bytes)
    }

    /// Writes what was flushed into the view since, of the keys that are copied; the others come in their turn. Blocks.
    fn follow(&mut self, flushes: &[Arc<Rows>]) -> Result<(), IndexError> {
        for rows in flushes {
            let mut batch: Vec<Row> = Vec::with_capacity(rows.len());
            for (key, value) in rows.range(..self.cursor.clone()) {
                if let Some(old) = self.to.get(key)? {
                    self.position.digest.subtract(key, &old);
                    self.position.rows -= 1;
                }
                if let Some(new) = value {
                    self.position.digest.add(key, new);
                    self.position.rows += 1;
                }
                batch.push((key.clone(), value.clone()));
            }
            self.to.apply_batch(&batch)?;
        }
        Ok(())
    }
}

/// Visits the next rows from `cursor` on and moves it behind them; their bytes, 0 at the end. Blocks.
pub(super) fn some_rows(
    index: &dyn IndexStore,
    cursor: &mut Vec<u8>,
    visit: &mut dyn FnMut(&[u8], &[u8]),
) -> Result<u64, IndexError> {
    let (mut rows, mut bytes) = (0, 0);
    let mut last = END.to_vec();
    index.scan(cursor, &END, &mut |key, value| {
        visit(key, value);
        rows += 1;
        bytes += (key.len() + value.len()) as u64;
        if rows < STEP_ROWS {
            return Ok(Flow::More);
        }
        last = key.to_vec();
        last.push(0);
        Ok(Flow::Stop)
    })?;
    *cursor = last;
    Ok(bytes)
}

/// What to wait behind a step: the rate is kept, and the disk belongs to others for half of the time.
pub(super) fn pause(bytes: u64, took: Duration) -> Duration {
    let share = Duration::from_secs_f64(bytes as f64 / limits::VIEW_COMPACT_BYTES_PER_SECOND as f64);
    share.saturating_sub(took).max(took)
}

impl GroupState {
    /// Whether the database takes so much more than its rows that a copy pays. Weighs the rows, a few at a time, when it is not known.
    ///
    /// # Errors
    /// What the index says.
    pub async fn compaction_is_due(&self) -> Result<bool, CompactError> {
        let disk_bytes = self.disk_bytes().await?;
        if disk_bytes < limits::VIEW_COMPACT_BYTES_MIN {
            return Ok(false);
        }
        let known = *self.weight();
        let weight = match known.filter(|weight| !weight.is_old(disk_bytes)) {
            Some(weight) => weight,
            None => self.weigh(disk_bytes).await?,
        };
        *self.weight() = Some(weight);
        Ok(weight.too_much(disk_bytes) && self.has_room_for(weight.live_bytes))
    }

    /// Bytes of the view's database.
    ///
    /// # Errors
    /// What the index says.
    pub async fn disk_bytes(&self) -> Result<u64, IndexError> {
        let index = self.live().index.clone();
        malle_rt::blocking(move || index.disk_bytes()).await
    }

    fn weight(&self) -> std::sync::MutexGuard<'_, Option<Weight>> {
        let weight = self.inner.weight.lock();
        weight.unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// A fresh database takes up to three times its rows, and others need the disk too.
    fn has_room_for(&self, live_bytes: u64) -> bool {
        let needed = live_bytes.saturating_mul(4) + limits::VIEW_COMPACT_BYTES_LEFT;
        self.has_free_bytes(needed)
    }

    fn has_free_bytes(&self, needed: u64) -> bool {
        let settings = &self.inner.settings;
        match settings.disk.free_bytes(&settings.dir) {
            Ok(free) if free >= needed => true,
            Ok(free) => {
                tracing::warn!(shard = %self.inner.shard, free, needed, "a view takes too much of the disk, which has too little room to compact it");
                false
            }
            Err(error) => {
                tracing::warn!(shard = %self.inner.shard, %error, "how much of the disk is free is not known");
                false
            }
        }
    }

    async fn weigh(&self, disk_bytes: u64) -> Result<Weight, CompactError> {
        let index = self.live().index.clone();
        let (mut cursor, mut live_bytes) = (vec![LOCAL_PREFIX + 1], 0);
        loop {
            self.no_hurry()?;
            let (index, began) = (index.clone(), malle_rt::now());
            let (bytes, next) = malle_rt::blocking(move || {
                let bytes = some_rows(index.as_ref(), &mut cursor, &mut |_, _| {})?;
                Ok::<_, IndexError>((bytes, cursor))
            })
            .await?;
            if bytes == 0 {
                return Ok(Weight { live_bytes, disk_bytes });
            }
            live_bytes += bytes;
            cursor = next;
            malle_rt::sleep(malle_rt::now() - began).await;
        }
    }

    fn no_hurry(&self) -> Result<(), CompactError> {
        match self.has_hurry() {
            true => Err(CompactError::GivenUp),
            false => Ok(()),
        }
    }

    /// Somebody waits for what takes long to give up, or nothing is worth waiting for any more.
    pub(super) fn has_hurry(&self) -> bool {
        self.inner.hurry.load(Ordering::SeqCst) > 0 || self.inner.fault.borrow().is_some()
    }

    /// Copies the view into a fresh database and lets it take the view's place.
    ///
    /// # Errors
    /// See [`CompactError`]. The old index stays; after `Damaged` the group has failed and is rebuilt.
    pub async fn compact(&self) -> Result<(), CompactError> {
        let _one_at_a_time = self.inner.checkpointing.lock().await;
        self.no_hurry()?;
        let before = self.live().uuid;
        let mut uuid = [0; 16];
        self.inner.settings.env.fill(&mut uuid);
        let opened = self.inner.settings.indexes.beside(self.inner.shard, uuid).await?;
        let made = self.copy_into(opened.store.clone(), uuid).await;
        self.inner.flushed.lock().await.tee = None;
        malle_rt::blocking(move || drop(opened.store)).await;
        match &made {
            // Where the floor is, only the disk knows: the next start opens what it names.
            Ok(()) | Err(CompactError::Floor(_)) => {}
            Err(error) => {
                self.remove_all_but(before).await;
                if matches!(error, CompactError::Damaged { .. }) {
                    self.fail(error);
                }
            }
        }
        made
    }

    async fn copy_into(&self, to: Arc<dyn IndexStore>, uuid: [u8; 16]) -> Result<(), CompactError> {
        self.inner.flushed.lock().await.tee = Some(Vec::new());
        let mut copy = Copy {
            to,
            cursor: vec![LOCAL_PREFIX + 1],
            position: Position::default(),
        };
        let from = self.live().index.clone();
        loop {
            self.no_hurry()?;
            if !self.has_free_bytes(limits::VIEW_COMPACT_BYTES_LEFT) {
                return Err(CompactError::NoRoom);
            }
            let (from, began) = (from.clone(), malle_rt::now());
            let flushes = self.inner.flushed.lock().await.tee.replace(Vec::new());
            let (stepped, bytes) = malle_rt::blocking(move || {
                copy.follow(&flushes.unwrap_or_default())?;
                let bytes = copy.step(from.as_ref())?;
                Ok::<_, IndexError>((copy, bytes))
            })
            .await?;
            copy = stepped;
            if bytes == 0 {
                break;
            }
            malle_rt::sleep(pause(bytes, malle_rt::now() - began)).await;
        }
        drop(from);
        // Most of it is durable before the flushes are held back.
        let copied = copy.to.clone();
        malle_rt::blocking(move || copied.flush()).await?;
        let mut flushed = self.inner.flushed.lock().await;
        self.no_hurry()?;
        let old = self.switch(&mut flushed, copy, uuid).await?;
        drop(flushed);
        self.close_old(old).await;
        self.remove_all_but(uuid).await;
        *self.weight() = None;
        tracing::info!(shard = %self.inner.shard, "the view was copied into a fresh database");
        Ok(())
    }

    /// Makes the copy the view, with flushes held back; gives the old index.
    async fn switch(
        &self,
        flushed: &mut Flushed,
        mut copy: Copy,
        uuid: [u8; 16],
    ) -> Result<Arc<dyn IndexStore>, CompactError> {
        let flushes = flushed.tee.take().unwrap_or_default();
        let position = flushed.position.clone();
        let state_row = StateRecord::row(&position);
        let copy = malle_rt::blocking(move || {
            copy.follow(&flushes)?;
            copy.to.apply_batch(&[state_row])?;
            copy.to.flush()?;
            Ok::<_, IndexError>(copy)
        })
        .await?;
        let copied: (Digest, u64) = (copy.position.digest, copy.position.rows);
        if copied != (position.digest, position.rows) {
            return Err(CompactError::Damaged {
                rows: copied.1,
                wanted: position.rows,
            });
        }
        let floor = FloorRecord {
            applied_index: position.applied.map_or(0, |id| id.index),
            store: uuid,
        };
        self.inner.log.write_floor(floor).await.map_err(CompactError::Floor)?;
        let mut live = self.live_mut();
        live.uuid = uuid;
        Ok(std::mem::replace(&mut live.index, copy.to))
    }

    /// Closes the index that was replaced, once its last reader is gone.
    async fn close_old(&self, old: Arc<dyn IndexStore>) {
        let deadline = malle_rt::now() + OLD_INDEX_WAIT;
        while Arc::strong_count(&old) > 1 && malle_rt::now() < deadline {
            malle_rt::sleep(OLD_INDEX_LOOK).await;
        }
        malle_rt::blocking(move || drop(old)).await;
    }

    async fn remove_all_but(&self, uuid: [u8; 16]) {
        let removed = self.inner.settings.indexes.keep_only(self.inner.shard, uuid).await;
        if let Err(error) = removed {
            tracing::warn!(shard = %self.inner.shard, %error, "an index that does not count stays until the next start");
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
