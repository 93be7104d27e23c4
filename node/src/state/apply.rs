//! Entries become rows.

use openraft::EntryPayload;
use openraft::entry::RaftEntry;

use malle_machine::Digest;
use malle_machine::view::{Change, Fault, View, Writes};
use malle_proto::limits;

use super::open::GroupState;
use super::overlay::ReadView;
use crate::log::types::{Entry, Reply, StoredMembership};

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
        let view = ReadView {
            overlay: &live.overlay,
            index: live.index.as_ref(),
        };
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
