//! The raft log of every group of a disk, kept in one shared journal.
//!
//! [`Logs`] replays the journal once at start and hands out a [`GroupLog`] per group. Entries, votes, truncations and purges of a
//! group are records of one ordered stream, so a vote never overtakes an entry. An append is readable when it returns and is
//! acknowledged only by the journal's completion, after the sync. An entry with riders is handed to the journal behind them.
//!
//! What this room must never do: acknowledge before the sync, retry after a failed one, drop an entry that no fsynced checkpoint
//! covers (purging is logical until then), or keep openraft's own types on disk.

#[cfg(test)]
pub(crate) mod golden;
mod group;
pub mod records;
mod replay;
mod riders_first;
mod storage;
pub mod types;

pub use group::{GroupLog, LogStatus};
pub use replay::{LogError, Logs};
pub use riders_first::KeepsRiders;
