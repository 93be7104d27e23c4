//! Writes that the index does not have yet, and the view through them.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use malle_machine::Digest;
use malle_machine::view::{Fault, RowVisitor, View, merge_scan};

use crate::index::{IndexStore, IndexView};
use crate::log::types::{LogId, StoredMembership};

/// Rows by key; `None` hides the row below.
pub(super) type Rows = BTreeMap<Vec<u8>, Option<Bytes>>;

/// How far a view is: everything that must go to the index together with its rows.
#[derive(Debug, Clone, Default)]
pub(super) struct Position {
    /// Last entry applied.
    pub applied: Option<LogId>,
    /// Last membership applied.
    pub membership: StoredMembership,
    /// Digest of all replicated rows.
    pub digest: Digest,
    /// Number of replicated rows.
    pub rows: u64,
}

/// Writes above the index.
#[derive(Default)]
pub(super) struct Overlay {
    /// Newest writes.
    pub active: Rows,
    /// On their way into the index, or there since the last flush: the counters of every command are among them, and are read here
    /// instead of in the index.
    pub flushing: Arc<Rows>,
    /// Position with all of the above.
    pub position: Position,
    /// Commands since the last flush began.
    pub commands: usize,
    /// Entries were applied since the last flush began.
    pub dirty: bool,
}

/// A consistent look at the rows: the overlay is held still while it lives.
pub struct ReadView<'a> {
    pub(super) overlay: &'a Overlay,
    pub(super) index: &'a dyn IndexStore,
}

struct Below<'a> {
    flushing: &'a Rows,
    index: IndexView<'a>,
}

fn range<'r>(rows: &'r Rows, from: &[u8], to: &[u8], back: bool) -> Vec<(&'r Vec<u8>, &'r Option<Bytes>)> {
    let range = rows.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to)));
    if back { range.rev().collect() } else { range.collect() }
}

impl Below<'_> {
    fn merged(&self, from: &[u8], to: &[u8], back: bool, visit: &mut RowVisitor<'_>) -> Result<(), Fault> {
        if from >= to {
            return Ok(());
        }
        merge_scan(
            &self.index,
            &range(self.flushing, from, to, back),
            from,
            to,
            back,
            visit,
        )
    }
}

impl View for Below<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        match self.flushing.get(key) {
            Some(value) => Ok(value.clone()),
            None => self.index.get(key),
        }
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut RowVisitor<'_>) -> Result<(), Fault> {
        self.merged(from, to, false, visit)
    }

    fn scan_back(&self, from: &[u8], to: &[u8], visit: &mut RowVisitor<'_>) -> Result<(), Fault> {
        self.merged(from, to, true, visit)
    }
}

impl ReadView<'_> {
    fn below(&self) -> Below<'_> {
        Below {
            flushing: &self.overlay.flushing,
            index: IndexView(self.index),
        }
    }

    fn merged(&self, from: &[u8], to: &[u8], back: bool, visit: &mut RowVisitor<'_>) -> Result<(), Fault> {
        if from >= to {
            return Ok(());
        }
        merge_scan(
            &self.below(),
            &range(&self.overlay.active, from, to, back),
            from,
            to,
            back,
            visit,
        )
    }
}

impl View for ReadView<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        match self.overlay.active.get(key) {
            Some(value) => Ok(value.clone()),
            None => self.below().get(key),
        }
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut RowVisitor<'_>) -> Result<(), Fault> {
        self.merged(from, to, false, visit)
    }

    fn scan_back(&self, from: &[u8], to: &[u8], visit: &mut RowVisitor<'_>) -> Result<(), Fault> {
        self.merged(from, to, true, visit)
    }
}
