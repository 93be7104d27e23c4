//! An index in memory: for tests, and for the simulator, where a disk of its own decides what a crash leaves.
//!
//! It behaves as the suite says and keeps nothing: a dropped store is gone, and the group rebuilds it as it would a lost disk.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{PoisonError, RwLock};

use bytes::Bytes;
use malle_machine::view::{Flow, RowVisitor};

use super::{IndexError, IndexStore, Row, check_sizes};

/// Rows copied out under one hold of the lock: a scan never keeps writers waiting longer, and its visitor may write.
const SCAN_STEP_ROWS: usize = 128;

/// Rows in a sorted map.
#[derive(Debug, Default)]
pub struct MemoryIndex {
    rows: RwLock<BTreeMap<Vec<u8>, Bytes>>,
}

impl MemoryIndex {
    /// Without rows.
    pub fn new() -> Self {
        Self::default()
    }

    fn step(&self, from: Bound<&[u8]>, to: Bound<&[u8]>, back: bool) -> Vec<(Vec<u8>, Bytes)> {
        let rows = self.rows.read().unwrap_or_else(PoisonError::into_inner);
        let range = rows.range::<[u8], _>((from, to));
        let copy = |(key, value): (&Vec<u8>, &Bytes)| (key.clone(), value.clone());
        if back {
            range.rev().take(SCAN_STEP_ROWS).map(copy).collect()
        } else {
            range.take(SCAN_STEP_ROWS).map(copy).collect()
        }
    }

    fn walk(&self, from: &[u8], to: &[u8], back: bool, visit: &mut RowVisitor<'_>) -> Result<(), IndexError> {
        // The key of the last row seen: the next step begins beyond it.
        let mut seen: Option<Vec<u8>> = None;
        loop {
            let (low, high) = match (&seen, back) {
                (None, _) => (Bound::Included(from), Bound::Excluded(to)),
                (Some(key), false) => (Bound::Excluded(key.as_slice()), Bound::Excluded(to)),
                (Some(key), true) => (Bound::Included(from), Bound::Excluded(key.as_slice())),
            };
            if is_empty(low, high) {
                return Ok(());
            }
            let rows = self.step(low, high, back);
            for (key, value) in &rows {
                if visit(key, value)? == Flow::Stop {
                    return Ok(());
                }
            }
            match rows.into_iter().next_back() {
                Some((key, _)) => seen = Some(key),
                None => return Ok(()),
            }
        }
    }
}

/// Whether no key lies between the bounds. `BTreeMap::range` panics on the ones that cross.
fn is_empty(low: Bound<&[u8]>, high: Bound<&[u8]>) -> bool {
    match (low, high) {
        (Bound::Included(low) | Bound::Excluded(low), Bound::Excluded(high)) => low >= high,
        _ => false,
    }
}

impl IndexStore for MemoryIndex {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, IndexError> {
        let rows = self.rows.read().unwrap_or_else(PoisonError::into_inner);
        Ok(rows.get(key).cloned())
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut RowVisitor<'_>) -> Result<(), IndexError> {
        self.walk(from, to, false, visit)
    }

    fn scan_back(&self, from: &[u8], to: &[u8], visit: &mut RowVisitor<'_>) -> Result<(), IndexError> {
        self.walk(from, to, true, visit)
    }

    fn apply_batch(&self, batch: &[Row]) -> Result<(), IndexError> {
        check_sizes(batch)?;
        let mut rows = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        for (key, value) in batch {
            match value {
                Some(value) => rows.insert(key.clone(), value.clone()),
                None => rows.remove(key),
            };
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), IndexError> {
        Ok(())
    }

    fn disk_bytes(&self) -> Result<u64, IndexError> {
        let rows = self.rows.read().unwrap_or_else(PoisonError::into_inner);
        Ok(rows.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::super::suite;
    use super::*;

    #[test]
    fn memory_passes_the_suite() {
        suite::every_claim(&|| Box::new(MemoryIndex::new()));
    }
}
