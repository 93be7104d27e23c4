//! Runs the machine of a group over its view.
//!
//! [`GroupState`] owns the view of one group: an index (sled, a thing that can always be thrown away) under an overlay of writes that
//! are not in it yet. Entries are applied in order, only once this node's own log has synced them; a few commands later, or
//! `limits::VIEW_FLUSH_MS`, the overlay goes to the index as one batch with the applied index and the digest. Checkpoints are files
//! of our own; they, the log behind them and the bodies are the truth.
//!
//! ```text
//! read:   overlay.active -> overlay.flushing -> index
//! apply:  machine::apply over that view -> overlay.active, digest, news for bodies and watchers
//! flush:  active becomes flushing and goes to the index with the state row; the next flush takes its place
//! ```
//!
//! What this room must never do: serve a view that has not been proved (floor and digest after an unclean stop), answer from a fault,
//! or change a row in any way but by the machine's writes. Enter by [`GroupState::open`].

mod apply;
pub mod by_hand;
pub mod checkpoint;
mod compact;
mod flush;
mod indexes;
#[cfg(test)]
mod killed;
mod machine;
mod open;
mod overlay;
mod prove;
mod prove_again;
#[cfg(test)]
mod rebuild;
mod storage;
#[cfg(test)]
mod suite;
mod write;

pub use checkpoint::{Checkpoint, Sending};
pub use compact::CompactError;
pub use indexes::{Indexes, MemoryIndexes, OpenedIndex, SledIndexes};
pub use machine::MachineKind;
pub use open::{BodyNews, GroupState, OpenError, Settings};
pub use overlay::ReadView;
pub use prove_again::ProofError;
pub use storage::StateMachine;
