//! The index of one Raft group: an ordered map of rows on this node's disk, and nothing more.
//!
//! An index is a view (architecture, decision 2). The truth of a group is its checkpoint, its log and its bodies; whatever an index
//! loses or breaks is thrown away and rebuilt from them. So this room promises little and says loudly when it cannot keep it:
//!
//! * a batch is seen whole or not at all, also after the process was killed;
//! * after [`IndexStore::flush`] the rows survive a power cut, as far as the engine can be believed, which is why the caller keeps
//!   the database's uuid and applied index as a floor elsewhere and compares at each open;
//! * a store that failed once answers [`IndexError::Broken`] for ever. Nothing here repairs: [`dirs::set_aside`] the directory, rebuild.
//!
//! Scans are not snapshots: a row that is written during a scan may be seen or missed, every other row is seen exactly once and in
//! order. Calls block: from a task, go through `malle_rt::blocking`.
//!
//! [`sled`] is the only file of malle that knows sled; [`memory`] is its twin for tests and simulation; redb stands behind a feature of
//! that name, for comparison (decision 12). The suite in `suite.rs` holds all of them to the same behaviour. Absent on purpose: transactions, several trees, watching, and any knowledge of what a row means.

pub mod dirs;
mod fence;
pub mod memory;
#[cfg(feature = "redb")]
pub mod redb;
pub mod sled;
#[cfg(test)]
pub(crate) mod suite;

use bytes::Bytes;
use malle_machine::view::{Fault, RowVisitor, View};

pub use memory::MemoryIndex;
#[cfg(feature = "redb")]
pub use redb::RedbIndex;
pub use sled::{Opened, Options, SledIndex};

/// A key and its new value; `None` removes the row.
pub type Row = (Vec<u8>, Option<Bytes>);

/// Longest key: account, mailbox and a mailbox name (`limits::MAILBOX_NAME_MAX_BYTES`) fit twice.
pub const KEY_MAX_BYTES: usize = 2_048;
/// Longest value. Rows stay below `limits::ROW_VALUE_MAX_BYTES` by the machine's own rules; this is where the store itself says no.
pub const VALUE_MAX_BYTES: usize = malle_machine::format::PAYLOAD_MAX_BYTES + malle_machine::format::HEADER_BYTES;

/// Why an index did not do as it was told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// The store failed, panicked or contradicts itself, now or earlier. It stays so: set it aside and rebuild.
    #[error("the index is broken: {0}")]
    Broken(String),
    /// Another process, or a store that is still closing, holds the directory. Nothing is known about the rows.
    #[error("the index is in use: {0}")]
    InUse(String),
    /// A key or value that no row may have. Nothing of the batch was written.
    #[error("a row of {key_bytes} + {value_bytes} bytes is too large")]
    TooLarge {
        /// Length of the key.
        key_bytes: usize,
        /// Length of the value.
        value_bytes: usize,
    },
    /// The visitor of a scan ended it with this fault. The store is sound.
    #[error(transparent)]
    Visitor(#[from] Fault),
}

impl From<IndexError> for Fault {
    fn from(error: IndexError) -> Fault {
        match error {
            IndexError::Visitor(fault) => fault,
            other => Fault::Storage(other.to_string()),
        }
    }
}

/// An ordered map of rows, keys compared byte by byte.
pub trait IndexStore: Send + Sync {
    /// The value of a key.
    ///
    /// # Errors
    /// [`IndexError::Broken`].
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, IndexError>;

    /// Visits the rows with `from <= key < to` in rising order. The visitor may write to the store.
    ///
    /// # Errors
    /// [`IndexError::Broken`], or what the visitor said.
    fn scan(&self, from: &[u8], to: &[u8], visit: &mut RowVisitor<'_>) -> Result<(), IndexError>;

    /// Visits the rows with `from <= key < to` in falling order. The visitor may write to the store.
    ///
    /// # Errors
    /// [`IndexError::Broken`], or what the visitor said.
    fn scan_back(&self, from: &[u8], to: &[u8], visit: &mut RowVisitor<'_>) -> Result<(), IndexError>;

    /// Writes all rows or none. Of several rows with one key the last counts.
    ///
    /// # Errors
    /// [`IndexError::TooLarge`] before anything was written, else [`IndexError::Broken`].
    fn apply_batch(&self, rows: &[Row]) -> Result<(), IndexError>;

    /// When it returns, every batch that was applied before is durable.
    ///
    /// # Errors
    /// [`IndexError::Broken`].
    fn flush(&self) -> Result<(), IndexError>;

    /// Bytes on disk (in memory for a store without one).
    ///
    /// # Errors
    /// [`IndexError::Broken`].
    fn disk_bytes(&self) -> Result<u64, IndexError>;
}

/// Shows a store as the view that the machines read.
#[derive(Clone, Copy)]
pub struct IndexView<'s>(pub &'s dyn IndexStore);

impl View for IndexView<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        Ok(self.0.get(key)?)
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut RowVisitor<'_>) -> Result<(), Fault> {
        Ok(self.0.scan(from, to, visit)?)
    }

    fn scan_back(&self, from: &[u8], to: &[u8], visit: &mut RowVisitor<'_>) -> Result<(), Fault> {
        Ok(self.0.scan_back(from, to, visit)?)
    }
}

/// Refuses rows that no store takes, before any of the batch is written.
fn check_sizes(rows: &[Row]) -> Result<(), IndexError> {
    for (key, value) in rows {
        let value_bytes = value.as_ref().map_or(0, Bytes::len);
        if key.len() > KEY_MAX_BYTES || value_bytes > VALUE_MAX_BYTES {
            return Err(IndexError::TooLarge {
                key_bytes: key.len(),
                value_bytes,
            });
        }
    }
    Ok(())
}
