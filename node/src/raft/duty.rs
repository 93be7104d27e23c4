//! Whether this node may acknowledge, and whether it should lead.
//!
//! Two things that are said once and never taken back: *condemned*, the disk lost a write, so nothing is acknowledged any more; and
//! *leaving*, the node stops as it was asked to, finishes what is under way and leads nothing new. And one that is: *drained*, an operator wants
//! it to lead nothing for now.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::watch;

use super::GroupError;

/// Whether this node may acknowledge, and whether it should lead.
#[derive(Debug, Default)]
pub struct Duty {
    condemned: watch::Sender<Option<String>>,
    leaving: AtomicBool,
    /// An operator wants this node to lead nothing for now.
    drained: AtomicBool,
    /// Leaderships given to another node, and taken over from one.
    pub(super) given: AtomicU64,
    pub(super) taken: AtomicU64,
}

impl Duty {
    /// Nothing is acknowledged from here on; the first reason counts.
    pub fn condemn(&self, reason: &str) {
        let first = self.condemned.send_if_modified(|condemned| {
            let first = condemned.is_none();
            condemned.get_or_insert_with(|| reason.to_owned());
            first
        });
        if first {
            tracing::error!(reason, "this node acknowledges nothing any more and leaves");
        }
    }

    /// The node stops: others lead from here on.
    pub fn leave(&self) {
        self.leaving.store(true, Ordering::SeqCst);
    }

    /// The directory says that this node shall lead nothing, or may again. The only thing here that is taken back.
    pub fn drain(&self, drained: bool) {
        self.drained.store(drained, Ordering::SeqCst);
    }

    /// Becomes the reason once the node is condemned.
    pub fn condemned(&self) -> watch::Receiver<Option<String>> {
        self.condemned.subscribe()
    }

    /// The node stops as it was asked to.
    pub fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::SeqCst)
    }

    /// Why this node wants to lead nothing; `None` while it would.
    pub fn unwilling(&self) -> Option<String> {
        let condemned = self.condemned.borrow().clone();
        condemned
            .or_else(|| self.is_leaving().then(|| "the node is stopping".to_owned()))
            .or_else(|| {
                let drained = self.drained.load(Ordering::SeqCst);
                drained.then(|| "the node is drained".to_owned())
            })
    }

    /// Leaderships that were given to another node and taken over from one, at the other's request, since the start.
    pub fn transfers(&self) -> (u64, u64) {
        (self.given.load(Ordering::Relaxed), self.taken.load(Ordering::Relaxed))
    }

    /// Whether an answer may say that something is done.
    ///
    /// # Errors
    /// `Stopped` with the reason.
    pub(super) fn acknowledges(&self) -> Result<(), GroupError> {
        match self.condemned.borrow().as_ref() {
            Some(reason) => Err(GroupError::Stopped(reason.clone())),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condemned_node_acknowledges_nothing_and_keeps_its_first_reason() {
        let duty = Duty::default();
        assert!(duty.acknowledges().is_ok() && duty.unwilling().is_none());
        duty.drain(true);
        assert!(duty.acknowledges().is_ok() && duty.unwilling().is_some());
        duty.drain(false);
        assert!(duty.unwilling().is_none());
        duty.leave();
        assert!(duty.acknowledges().is_ok() && duty.unwilling().is_some());
        duty.condemn("the log failed");
        duty.condemn("closed");
        assert_eq!(duty.acknowledges(), Err(GroupError::Stopped("the log failed".into())));
        assert_eq!(duty.condemned().borrow().as_deref(), Some("the log failed"));
    }
}
