//! Entries become rows.

use std::cell::RefCell;
use std::collections::BTreeMap;

use bytes::Bytes;
use openraft::EntryPayload;
use openraft::entry::RaftEntry;

use malle_machine::Digest;
use malle_machine::view::{Change, Fault, RowVisitor, View, Writes};
use malle_proto::limits;

use super::open::GroupState;
use super::overlay::ReadView;
use crate::log::types::{Entry, Reply, StoredMembership};

/// A view that reads each key once: what a command looked up is what the digest asks for again.
struct Remembering<'a> {
    below: ReadView<'a>,
    seen: RefCell<BTreeMap<Vec<u8>, Option<Bytes>>>,
}

impl<'a> Remembering<'a> {
    fn over(below: ReadView<'a>) -> Self {
        Remembering {
            below,
            seen: RefCell::default(),
        }
    }
}

impl View for Remembering<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        if let Some(value) = self.seen.borrow().get(key) {
            return Ok(value.clone());
        }
        let value = self.below.get(key)?;
        self.seen.borrow_mut().insert(key.to_vec(), value.clone());
        Ok(value)
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut RowVisitor<'_>) -> Result<(), Fault> {
        self.below.scan(from, to, visit)
    }

    fn scan_back(&self, from: &[u8], to: &[u8], visit: &mut RowVisitor<'_>) -> Result<(), Fault> {
        self.below.scan_back(from, to, visit)
    }

    fn has_none(&self, key: &[u8]) {
        // Were it wrong, the digest would keep a row that is gone, on every replica alike.
        // An index that does not answer says nothing about the key: whoever reads it next is told.
        debug_assert!(
            !self.below.get(key).is_ok_and(|row| row.is_some()),
            "a key is used twice"
        );
        self.seen.borrow_mut().insert(key.to_vec(), None);
    }
}

/// What one entry did.
struct Effect {
    reply: Reply,
    writes: Writes,
    digest: Digest,
    rows: u64,
}

impl GroupState {
    /// Applies entries in order; their replies in the same order. Blocks: machine and index work.
    ///
    /// # Errors
    /// A [`Fault`]: entries before the faulty one are applied, it and the rest are not. The group must stop.
    pub(super) fn apply_entries(&self, entries: &[Entry]) -> Result<Vec<Reply>, Fault> {
        let mut replies = Vec::with_capacity(entries.len());
        let mut changes: Vec<Change> = Vec::new();
        for entry in entries {
            let effect = self.effect(entry)?;
            let index = entry.log_id().index;
            {
                let mut live = self.live_mut();
                let overlay = &mut live.overlay;
                overlay.active.extend(effect.writes.rows);
                overlay.position.applied = Some(entry.log_id());
                overlay.position.digest = effect.digest;
                overlay.position.rows = effect.rows;
                if let EntryPayload::Membership(membership) = &entry.payload {
                    overlay.position.membership = StoredMembership::new(Some(entry.log_id()), membership.clone());
                }
                overlay.commands += 1;
                overlay.dirty = true;
            }
            let bodies = &self.inner.settings.bodies;
            if !effect.writes.bodies_named.is_empty() {
                bodies.named(index, &effect.writes.bodies_named);
            }
            if !effect.writes.bodies_released.is_empty() {
                bodies.released(&effect.writes.bodies_released);
            }
            changes.extend(effect.writes.changes);
            replies.push(effect.reply);
        }
        for change in changes {
            // Nobody watching is no error.
            let _ = self.inner.changes.send(change);
        }
        if let Some(last) = entries.last() {
            self.inner.applied.send_replace(last.log_id().index);
        }
        Ok(replies)
    }

    /// Only apply and install change the rows, and never at the same time: what this reads still holds when it is written.
    fn effect(&self, entry: &Entry) -> Result<Effect, Fault> {
        let live = self.live();
        let view = Remembering::over(ReadView {
            overlay: &live.overlay,
            index: live.index.as_ref(),
        });
        let (reply, writes) = match &entry.payload {
            EntryPayload::Blank | EntryPayload::Membership(_) => (Reply::None, Writes::default()),
            EntryPayload::Normal(proposal) => self.inner.kind.apply(&view, proposal)?,
        };
        let mut digest = live.overlay.position.digest;
        let mut rows = live.overlay.position.rows;
        for (key, value) in &writes.rows {
            if let Some(old) = view.get(key)? {
                digest.subtract(key, &old);
                rows -= 1;
            }
            if let Some(new) = value {
                digest.add(key, new);
                rows += 1;
            }
        }
        Ok(Effect {
            reply,
            writes,
            digest,
            rows,
        })
    }

    /// The overlay is as large as it may get: the next entries wait for a flush.
    pub(super) fn overlay_is_full(&self) -> bool {
        self.live().overlay.commands >= limits::VIEW_FLUSH_COMMANDS
    }
}
