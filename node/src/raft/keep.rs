//! What goes on by itself beside an open group: its log is kept short, and its view small.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use malle_proto::limits;
use tokio::sync::Semaphore;

use super::GroupError;
use super::group::Group;
use crate::bodies::DiskRoom;
use crate::log::GroupLog;
use crate::state::CompactError;

/// Pause between two looks at a group's log.
const LOOK: Duration = Duration::from_secs(1);

/// Before the next try after one that failed: a full disk stays full for minutes.
const AFTER_FAILURE: Duration = Duration::from_secs(10);

/// Makes a checkpoint whenever one is due, and when a quiet group holds up the whole journal.
pub(super) async fn keep_log_short(group: Weak<Group>, log: GroupLog, kept_entries: u64, checkpoints: Arc<Semaphore>) {
    loop {
        malle_rt::sleep(LOOK).await;
        let Some(group) = group.upgrade() else { return };
        let made = if log.pins_the_journal(limits::JOURNAL_SEGMENTS_AIM) {
            // A follower that is behind gets a snapshot: rare, and better than a disk full of log.
            match group.checkpoint(0).await {
                Ok(_) => log
                    .move_head()
                    .await
                    .map_err(|error| GroupError::Stopped(error.to_string())),
                Err(error) => Err(error),
            }
        } else if group.state().checkpoint_is_due().await {
            // Nobody else waits for this place, and it is never closed.
            let _place = checkpoints.acquire().await;
            group.checkpoint(kept_entries).await.map(drop)
        } else {
            Ok(())
        };
        match made {
            Ok(()) => {}
            // Raft has ended: whoever opens the group again looks after its log.
            Err(GroupError::Stopped(_)) => return,
            Err(error) => {
                tracing::warn!(shard = %group.shard(), %error, "no checkpoint was made; the log stays");
                drop(group);
                malle_rt::sleep(AFTER_FAILURE).await;
            }
        }
    }
}

/// What was done to the views of a node since its start.
#[derive(Debug, Default)]
pub(super) struct ViewCare {
    /// Copied into a fresh database.
    pub compacted: AtomicU64,
    /// Every row was read, and they added up.
    pub proved: AtomicU64,
}

/// Copies a view into a fresh database when it takes much more room than its rows, and has every row read from time to time.
pub(super) async fn keep_view_sound(group: Weak<Group>, one_at_a_time: Arc<Semaphore>, care: Arc<ViewCare>) {
    loop {
        malle_rt::sleep(Duration::from_millis(limits::VIEW_COMPACT_LOOK_MS)).await;
        // One at a time for the weighing too, which reads every row. Never closed. Who waits holds no view open meanwhile.
        let _place = one_at_a_time.acquire().await;
        let Some(open) = group.upgrade() else { return };
        // What is left of a full disk belongs to the log, the rows and collection, which gives volumes back.
        let full = open.bodies().disk().room() == DiskRoom::None;
        let state = open.state().clone();
        drop(open);
        if state.proof_is_due() {
            match state.prove_again().await {
                Ok(()) => drop(care.proved.fetch_add(1, Ordering::Relaxed)),
                // Damage is told of where the group stops.
                Err(error) => tracing::debug!(%error, "a view was not proved"),
            }
        }
        if full {
            continue;
        }
        let made = match state.compaction_is_due().await {
            Ok(true) => state.compact().await.map(|()| true),
            due => due,
        };
        match made {
            Ok(true) => drop(care.compacted.fetch_add(1, Ordering::Relaxed)),
            Ok(false) | Err(CompactError::GivenUp) => {}
            Err(error) => tracing::warn!(%error, "a view was not compacted; it stays as it is"),
        }
    }
}
