//! How a node leaves: asked to, or because its disk lost a write.

use std::sync::Arc;
use std::time::Duration;

use malle_journal::Journal;
use tokio::sync::watch;

use crate::raft::{Duty, Groups};

/// A planned stop waits this long for others to take the groups over: milliseconds and a few round trips each, all at the same time.
pub(super) const PLANNED: Duration = Duration::from_secs(2);
/// A node whose journal failed waits no longer than this: what it cannot give away the others take after their timeout.
const CONDEMNED: Duration = Duration::from_secs(1);

/// A journal, its name in reasons, and its failure.
pub(super) struct Watched {
    kind: &'static str,
    failed: watch::Receiver<Option<String>>,
}

impl Watched {
    pub fn new(kind: &'static str, journal: &Journal) -> Watched {
        Watched {
            kind,
            failed: journal.failed(),
        }
    }

    /// Why it failed, once it has. A journal that is gone was closed, and tells no more.
    async fn reason(&mut self) -> String {
        let told = self.failed.wait_for(Option::is_some).await;
        let reason = told.ok().and_then(|reason| reason.clone());
        match reason {
            Some(reason) => format!("the journal of the {} failed: {reason}", self.kind),
            None => std::future::pending().await,
        }
    }
}

/// Condemns the node at the first failure of either journal; ends then, or when the node stops. After a failed sync nothing is known of
/// the pages that it covered, so whatever the disk says from then on: this node acknowledges nothing any more.
pub(super) async fn watch_journals(
    mut log: Watched,
    mut volumes: Watched,
    duty: Arc<Duty>,
    mut stop: watch::Receiver<bool>,
) {
    let reason = tokio::select! {
        // A journal that is closed counts as failed: the stop is looked at first.
        biased;
        _ = stop.wait_for(|stop| *stop) => return,
        reason = log.reason() => reason,
        reason = volumes.reason() => reason,
    };
    duty.condemn(&reason);
}

/// Gives every group away that the node leads, as long as is proper.
pub(super) async fn give_groups_away(groups: &Arc<Groups>) {
    let condemned = groups.duty().condemned().borrow().is_some();
    let patience = if condemned { CONDEMNED } else { PLANNED };
    let begun = malle_rt::now();
    let done = groups.stop_leading(begun + patience).await;
    let took_ms = (malle_rt::now() - begun).as_millis();
    let (given, kept) = (done.given.len(), done.kept.len());
    tracing::info!(given, kept, took_ms, "this node leads nothing any more");
    // The others elect. Why nobody took it over is much the same for every group: one stands for all.
    if let Some((shard, reason)) = done.kept.first() {
        tracing::warn!(kept, %shard, reason, "nobody took these groups over");
    }
}
