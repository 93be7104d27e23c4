//! Between an append and the journal: an entry is handed over once the small bodies that ride with it are durable on this node.
//!
//! So an entry that is in a node's log has its riders on that node's volumes, whatever a power cut leaves: the majority that has the
//! entry is the majority that has the body, and nobody's log names a body that nobody has. A leader sends entry and bodies to its
//! followers meanwhile. Entries are handed over in their order, so those behind wait too, and so do votes and truncations: the journal's
//! order is the log's.
//!
//! A disk without room for a rider lets its entry wait, and tries again. When a majority commits the entry meanwhile it goes into the log
//! without its body: this node's word was not needed, and it fetches the body as one that lags does.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use malle_journal::is_out_of_space;
use malle_proto::v1::Rider;
use tokio::sync::Notify;

use super::group::GroupLog;
use super::types::LogId;

/// Between two tries to keep a body on a full disk.
const LOOK_FOR_ROOM: Duration = Duration::from_millis(50);

/// Where the bodies that ride with entries are kept.
#[async_trait]
pub trait KeepsRiders: Send + Sync + 'static {
    /// Returns once this body is durable on this node.
    ///
    /// # Errors
    /// `StorageFull`: there is no room for it now. Any other: it never will be, and the log of the group stops.
    async fn keep(&self, rider: Rider) -> io::Result<()>;
}

/// Told once, when the last entry of an append is synced or never will be.
pub(super) type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// Entries of one append.
pub(super) struct Batch {
    /// In order; at least one.
    pub entries: Vec<(LogId, Bytes)>,
    pub riders: Vec<Rider>,
    pub done: Done,
}

/// What waits for its riders. Bounded by the proposals that a shard takes.
#[derive(Default)]
pub(super) struct RidersFirst {
    line: Mutex<Line>,
    emptied: Notify,
    keeper: Mutex<Option<Arc<dyn KeepsRiders>>>,
}

#[derive(Default)]
struct Line {
    waiting: VecDeque<Batch>,
    /// A task takes them from the front; it is there while the line is not empty.
    moving: bool,
    /// Why nothing is handed over any more: a record behind one that is missing would be a hole.
    failed: Option<String>,
}

impl RidersFirst {
    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keeper(&self) -> MutexGuard<'_, Option<Arc<dyn KeepsRiders>>> {
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns once everything appended so far is in the journal's hands.
    pub async fn done_so_far(&self) {
        loop {
            let emptied = self.emptied.notified();
            if !self.line().moving {
                return;
            }
            emptied.await;
        }
    }

    /// Nothing is handed over any more; gives what waited.
    fn fail(&self, reason: &str) -> VecDeque<Batch> {
        let mut line = self.line();
        line.failed = Some(reason.to_owned());
        std::mem::take(&mut line.waiting)
    }

    async fn keep_all(&self, riders: Vec<Rider>) -> io::Result<()> {
        if riders.is_empty() {
            return Ok(());
        }
        let keeper = self.keeper().clone();
        let keeper = keeper.ok_or_else(|| io::Error::other("nobody keeps the bodies of this group"))?;
        let kept = riders.into_iter().map(|rider| keeper.keep(rider));
        futures::future::try_join_all(kept).await.map(drop)
    }
}

impl GroupLog {
    /// Whose volumes the bodies go to that ride with entries of this group.
    pub fn keep_riders_with(&self, keeper: Arc<dyn KeepsRiders>) {
        *self.shared.riders_first.keeper() = Some(keeper);
    }

    /// Hands a batch to the journal: at once when nothing has to be waited for.
    pub(super) async fn submit_behind_riders(&self, batch: Batch) -> io::Result<()> {
        {
            let mut line = self.shared.riders_first.line();
            if let Some(reason) = &line.failed {
                return Err(io::Error::other(reason.clone()));
            }
            if line.moving || !batch.riders.is_empty() {
                line.waiting.push_back(batch);
                if !line.moving {
                    line.moving = true;
                    malle_rt::spawn(move_line(self.clone()));
                }
                return Ok(());
            }
        }
        self.submit(batch).await;
        Ok(())
    }
}

impl GroupLog {
    /// Returns once the riders of entries up to `last` are durable here, or are not needed.
    async fn keep_riders(&self, riders: Vec<Rider>, last: u64) -> io::Result<()> {
        let mut said = false;
        loop {
            match self.shared.riders_first.keep_all(riders.clone()).await {
                Err(error) if is_out_of_space(&error) => {}
                kept => return kept,
            }
            if self.contents().committed >= Some(last) {
                return Ok(());
            }
            if !std::mem::replace(&mut said, true) {
                tracing::error!(shard = %self.shared.shard, "the disk has no room for a body: its entry waits");
            }
            malle_rt::sleep(LOOK_FOR_ROOM).await;
        }
    }
}

async fn move_line(log: GroupLog) {
    let riders_first = &log.shared.riders_first;
    loop {
        // All that came while the last ones were synced go together: one sync of the volumes serves them all.
        let mut batches = {
            let mut line = riders_first.line();
            if line.waiting.is_empty() {
                line.moving = false;
                riders_first.emptied.notify_waiters();
                return;
            }
            std::mem::take(&mut line.waiting)
        };
        let last = batches.iter().flat_map(|batch| &batch.entries).next_back();
        let last = last.map_or(0, |(id, _)| id.index);
        let riders = batches.iter_mut().flat_map(|batch| std::mem::take(&mut batch.riders));
        match log.keep_riders(riders.collect(), last).await {
            Ok(()) => {
                for batch in batches {
                    log.submit(batch).await;
                }
            }
            Err(error) => {
                let reason = format!("a body that rides with an entry: {error}");
                batches.append(&mut riders_first.fail(&reason));
                for batch in batches {
                    (batch.done)(Err(io::Error::other(reason.clone())));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
