//! The rows that a machine reads, and the writes that it answers with.
//!
//! A [`View`] is what the index, its overlay, or a test's map shows: keys in order, values as bytes. [`Draft`] lays the writes of the
//! command that is being applied over a view, so that a command sees its own effects.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use malle_proto::{AccountId, BodyHash, MailboxId, ModSeq};

use crate::format::FormatError;

/// The state cannot be read or contradicts itself. The group stops and rebuilds; nobody gets an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The store below failed.
    #[error("reading the view: {0}")]
    Storage(String),
    /// A row or command does not decode.
    #[error("{what}: {error}")]
    Format {
        /// Which row or command.
        what: &'static str,
        /// Why it does not decode.
        error: FormatError,
    },
    /// Two rows contradict each other.
    #[error("the state contradicts itself: {0}")]
    Broken(String),
}

/// Whether a scan goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Next row.
    More,
    /// Enough.
    Stop,
}

/// Receives a row of a scan.
pub type RowVisitor<'a> = dyn FnMut(&[u8], &[u8]) -> Result<Flow, Fault> + 'a;

/// An ordered map of rows.
pub trait View {
    /// The value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Fault>;

    /// Visits the rows with `from <= key < to` in order.
    fn scan(&self, from: &[u8], to: &[u8], visit: &mut RowVisitor<'_>) -> Result<(), Fault>;

    /// Visits the rows with `from <= key < to` in descending order.
    fn scan_back(&self, from: &[u8], to: &[u8], visit: &mut RowVisitor<'_>) -> Result<(), Fault>;

    /// The machine knows that this key has no row, because a counter that never falls is part of it. A view that would have to look for
    /// the row later need not.
    fn has_none(&self, _key: &[u8]) {}
}

/// What a command changes: rows for the batch, and news for the rooms around the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Writes {
    /// Key and new value; `None` removes. Each key once.
    pub rows: BTreeMap<Vec<u8>, Option<Bytes>>,
    /// Bodies that a row now names: a replica without one fetches it at once.
    pub bodies_named: Vec<BodyHash>,
    /// Bodies that collection released: their space may be reused after the delay.
    pub bodies_released: Vec<BodyHash>,
    /// Accounts that changed, for watchers.
    pub changes: Vec<Change>,
}

/// An account changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Whose.
    pub account: AccountId,
    /// Its MODSEQ now.
    pub modseq: ModSeq,
    /// The mailbox that changed.
    pub mailbox: MailboxId,
    /// A mailbox was made, renamed, deleted or subscribed.
    pub tree: bool,
}

/// A view with the writes of one command laid over it.
pub struct Draft<'v> {
    base: &'v dyn View,
    /// What the command has written so far.
    pub writes: Writes,
}

impl<'v> Draft<'v> {
    /// No writes yet.
    pub fn new(base: &'v dyn View) -> Self {
        Draft {
            base,
            writes: Writes::default(),
        }
    }

    /// Writes a row.
    pub fn put(&mut self, key: Vec<u8>, value: impl Into<Bytes>) {
        self.writes.rows.insert(key, Some(value.into()));
    }

    /// Writes a row under a key that was never used: a counter that never falls is part of it.
    pub fn put_new(&mut self, key: Vec<u8>, value: impl Into<Bytes>) {
        self.has_none(&key);
        self.put(key, value);
    }

    /// Removes a row.
    pub fn remove(&mut self, key: Vec<u8>) {
        self.writes.rows.insert(key, None);
    }

    /// Takes over the writes of a draft that was laid over this one: all of a part of a command that came to an effect.
    pub fn absorb(&mut self, part: Writes) {
        self.writes.rows.extend(part.rows);
        for hash in part.bodies_named {
            if !self.writes.bodies_named.contains(&hash) {
                self.writes.bodies_named.push(hash);
            }
        }
        self.writes.bodies_released.extend(part.bodies_released);
        self.writes.changes.extend(part.changes);
    }

    fn merged(&self, from: &[u8], to: &[u8], back: bool, visit: &mut RowVisitor<'_>) -> Result<(), Fault> {
        if from >= to {
            return Ok(());
        }
        let range = (Bound::Included(from), Bound::Excluded(to));
        let mine: Vec<(&Vec<u8>, &Option<Bytes>)> = if back {
            self.writes.rows.range::<[u8], _>(range).rev().collect()
        } else {
            self.writes.rows.range::<[u8], _>(range).collect()
        };
        merge_scan(self.base, &mine, from, to, back, visit)
    }
}

impl View for Draft<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        match self.writes.rows.get(key) {
            Some(value) => Ok(value.clone()),
            None => self.base.get(key),
        }
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut RowVisitor<'_>) -> Result<(), Fault> {
        self.merged(from, to, false, visit)
    }

    fn scan_back(&self, from: &[u8], to: &[u8], visit: &mut RowVisitor<'_>) -> Result<(), Fault> {
        self.merged(from, to, true, visit)
    }

    fn has_none(&self, key: &[u8]) {
        self.base.has_none(key);
    }
}

/// Scans `base` with `over` laid above it. `over` is in scan order; `None` hides a row of the base.
///
/// # Errors
/// What the base or the visitor says.
pub fn merge_scan(
    base: &dyn View,
    over: &[(&Vec<u8>, &Option<Bytes>)],
    from: &[u8],
    to: &[u8],
    back: bool,
    visit: &mut RowVisitor<'_>,
) -> Result<(), Fault> {
    let mut over = over.iter().peekable();
    let mut stopped = false;
    let before = |a: &[u8], b: &[u8]| if back { a > b } else { a < b };
    {
        let mut step = |key: &[u8], value: &[u8]| -> Result<Flow, Fault> {
            while let Some((mine, new)) = over.peek() {
                if before(mine, key) {
                    if let Some(new) = new
                        && visit(mine, new)? == Flow::Stop
                    {
                        stopped = true;
                        return Ok(Flow::Stop);
                    }
                    over.next();
                    continue;
                }
                if mine.as_slice() == key {
                    let flow = match new {
                        Some(new) => visit(mine, new)?,
                        None => Flow::More,
                    };
                    over.next();
                    stopped = flow == Flow::Stop;
                    return Ok(flow);
                }
                break;
            }
            let flow = visit(key, value)?;
            stopped = flow == Flow::Stop;
            Ok(flow)
        };
        if back {
            base.scan_back(from, to, &mut step)?;
        } else {
            base.scan(from, to, &mut step)?;
        }
    }
    if stopped {
        return Ok(());
    }
    for (key, value) in over {
        if let Some(value) = value
            && visit(key, value)? == Flow::Stop
        {
            return Ok(());
        }
    }
    Ok(())
}

/// A view in memory, for tests and golden scripts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryView {
    /// The rows.
    pub rows: BTreeMap<Vec<u8>, Bytes>,
}

impl MemoryView {
    /// Puts the rows of one command in.
    pub fn commit(&mut self, writes: &Writes) {
        for (key, value) in &writes.rows {
            match value {
                Some(value) => self.rows.insert(key.clone(), value.clone()),
                None => self.rows.remove(key),
            };
        }
    }
}

impl View for MemoryView {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        Ok(self.rows.get(key).cloned())
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut RowVisitor<'_>) -> Result<(), Fault> {
        if from >= to {
            return Ok(());
        }
        for (key, value) in self.rows.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to))) {
            if visit(key, value)? == Flow::Stop {
                break;
            }
        }
        Ok(())
    }

    fn scan_back(&self, from: &[u8], to: &[u8], visit: &mut RowVisitor<'_>) -> Result<(), Fault> {
        if from >= to {
            return Ok(());
        }
        for (key, value) in self
            .rows
            .range::<[u8], _>((Bound::Included(from), Bound::Excluded(to)))
            .rev()
        {
            if visit(key, value)? == Flow::Stop {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Change, Draft, Flow, MemoryView, View, Writes};
    use bytes::Bytes;
    use malle_proto::{AccountId, BodyHash, MailboxId, ModSeq};
    use proptest::prelude::{any, prop, proptest};

    fn rows(view: &dyn View, from: &[u8], to: &[u8], back: bool, max: usize) -> Vec<(Vec<u8>, Bytes)> {
        let mut rows = Vec::new();
        let mut visit = |key: &[u8], value: &[u8]| {
            rows.push((key.to_vec(), Bytes::copy_from_slice(value)));
            Ok(if rows.len() < max { Flow::More } else { Flow::Stop })
        };
        match back {
            true => view.scan_back(from, to, &mut visit).unwrap(),
            false => view.scan(from, to, &mut visit).unwrap(),
        }
        rows
    }

    fn write(draft: &mut Draft<'_>, writes: &[(u8, Option<u8>)]) {
        for (key, value) in writes {
            match value {
                Some(value) => draft.put(vec![*key], vec![*value]),
                None => draft.remove(vec![*key]),
            }
        }
    }

    proptest! {
        /// Keys of a few values only, so that writes meet rows and each other.
        #[test]
        fn a_draft_shows_what_committing_it_would(
            base in prop::collection::vec((0..20_u8, any::<u8>()), 0..20),
            lower in prop::collection::vec((0..20_u8, any::<Option<u8>>()), 0..20),
            upper in prop::collection::vec((0..20_u8, any::<Option<u8>>()), 0..20),
            (from, to) in (0..20_u8, 0..22_u8),
            back in any::<bool>(),
            max in 1..25_usize,
        ) {
            let mut view = MemoryView::default();
            for (key, value) in base {
                view.rows.insert(vec![key], vec![value].into());
            }
            let mut below = Draft::new(&view);
            write(&mut below, &lower);
            let mut above = Draft::new(&below);
            write(&mut above, &upper);
            let seen = rows(&above, &[from], &[to], back, max);
            let got: Vec<Option<Bytes>> = (0..20).map(|key| above.get(&[key]).unwrap()).collect();
            let part = above.writes;
            below.absorb(part);
            let writes = below.writes;
            view.commit(&writes);
            assert_eq!(seen, rows(&view, &[from], &[to], back, max));
            assert_eq!(got, (0..20).map(|key| view.get(&[key]).unwrap()).collect::<Vec<_>>());
        }
    }

    #[test]
    fn an_empty_range_shows_nothing() {
        let mut view = MemoryView::default();
        view.rows.insert(vec![1], Bytes::new());
        let draft = Draft::new(&view);
        for view in [&view as &dyn View, &draft] {
            assert!(rows(view, &[2], &[1], false, 9).is_empty() && rows(view, &[1], &[1], true, 9).is_empty());
            assert_eq!(rows(view, &[1], &[2], true, 9).len(), 1);
        }
    }

    #[test]
    fn absorbing_keeps_the_news_and_names_a_body_once() {
        let view = MemoryView::default();
        let mut draft = Draft::new(&view);
        let change = Change {
            account: AccountId([1; 16]),
            modseq: ModSeq(1),
            mailbox: MailboxId([2; 16]),
            tree: false,
        };
        let part = Writes {
            bodies_named: vec![BodyHash([1; 32])],
            bodies_released: vec![BodyHash([2; 32])],
            changes: vec![change],
            ..Writes::default()
        };
        draft.absorb(part.clone());
        draft.absorb(part);
        assert_eq!(draft.writes.bodies_named, [BodyHash([1; 32])]);
        assert_eq!((draft.writes.bodies_released.len(), draft.writes.changes.len()), (2, 2));
    }
}
