//! The overlay's way into the index.

use std::sync::Arc;
use std::time::Duration;

use malle_proto::limits;

use super::checkpoint::Changed;
use super::open::{Flushed, GroupState};
use super::prove::StateRecord;
use crate::index::{IndexError, Row};

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

    pub(super) async fn flush_locked(&self, flushed: &mut Flushed) -> Result<(), IndexError> {
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
        // Lost, should this call be given up half-way.
        let mut changed = std::mem::replace(&mut flushed.changed, Changed::Lost);
        let mut proof = flushed.proof.take();
        (flushed.changed, flushed.proof) = malle_rt::blocking(move || {
            if let Some(proof) = &mut proof {
                proof.follow(index.as_ref(), &batch_rows)?;
            }
            let mut batch: Vec<Row> = Vec::with_capacity(batch_rows.len() + 1);
            batch.extend(batch_rows.iter().map(|(key, value)| (key.clone(), value.clone())));
            batch.push(state_row);
            index.apply_batch(&batch)?;
            changed.add(batch_rows.keys().map(Vec::as_slice));
            Ok::<_, IndexError>((changed, proof))
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
}
