//! The replicated state of malle: two machines of one shape, and nothing that is not pure.
//!
//! * [`shard`]: the accounts of one Raft group with their mailboxes, messages, quotas and receipts.
//! * [`directory`]: nodes, shards, accounts, addresses, password hashes, placements.
//!
//! Both are a function `apply(&view, &command) -> Result<(Outcome, Writes), Fault>`. The view is an ordered map of rows; the
//! writes are put into it by the caller, in one batch with the applied index. A refusal is an [`Outcome`](shard::Outcome) and is
//! replicated like any answer; a [`Fault`] means that a row could not be read or made no sense: the group stops.
//!
//! Beside them [`planner`], as pure: where the replicas of the shards should stand.
//!
//! What is absent: clocks, random numbers, disks, networks, tasks, floating point, and any iteration whose order is not the order of
//! the keys. Time, ids and chance are chosen by the proposer and travel in the command. The crate's dependencies are the proof.

pub mod controls;
pub mod digest;
pub mod directory;
pub mod format;
#[cfg(test)]
mod golden;
pub mod planner;
pub mod shard;
pub mod view;

pub use digest::Digest;
pub use format::FormatError;
pub use view::{Draft, Fault, Flow, MemoryView, View, Writes};
