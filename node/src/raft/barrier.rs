//! How fresh a read must be (architecture, decision 8).

use std::time::Duration;

use malle_proto::{AccountId, ModSeq};

/// What must hold before the rows are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Barrier {
    /// Everything acknowledged before the read began is applied here: ReadIndex, on the leader.
    Linearizable,
    /// This replica has applied the account's MODSEQ.
    AtLeast {
        /// Whose.
        account: AccountId,
        /// Which.
        modseq: ModSeq,
    },
    /// What is applied here has everything that was acknowledged up to this long ago.
    Stale(Duration),
    /// A change that was proposed here after the caller asked is committed and applied: that was as good a question to a majority as
    /// ReadIndex, and what is applied here has everything that was acknowledged before the caller asked.
    OwnChange,
    /// Whatever this replica has: for its own housekeeping, for hints that the caller proves elsewhere, and for what never changes once
    /// it is there (a message's body). Never a "no" to a client.
    Local,
}
