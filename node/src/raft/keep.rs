//! What goes on by itself beside an open group: its log is kept short.

use std::sync::{Arc, Weak};
use std::time::Duration;

use malle_proto::limits;
use tokio::sync::Semaphore;

use super::GroupError;
use super::group::Group;
use crate::log::GroupLog;

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
