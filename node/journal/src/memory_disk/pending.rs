//! What was asked of a disk and is not durable yet: since when, and from when on it will be.

use malle_rt::Instant;

/// A change that a sync has not made durable, or will have only later.
#[derive(Debug, Clone)]
pub(super) struct Pending<C> {
    pub change: C,
    /// When it was made; it was not if the power went before. Always for a disk without a pace.
    pub made: Option<Instant>,
    /// When the sync that covers it is over.
    pub durable: Option<Instant>,
}

impl<C> Pending<C> {
    pub fn is_made(&self, now: Option<Instant>) -> bool {
        self.made.is_none_or(|made| now.is_some_and(|now| made <= now))
    }

    pub fn is_durable(&self, now: Option<Instant>) -> bool {
        self.durable
            .is_some_and(|durable| now.is_some_and(|now| durable <= now))
    }
}

/// Takes those from the front that are durable by now.
pub(super) fn settled<C>(pending: &mut Vec<Pending<C>>, now: Option<Instant>) -> Vec<C> {
    let durable = pending.iter().take_while(|pending| pending.is_durable(now)).count();
    pending.drain(..durable).map(|pending| pending.change).collect()
}
