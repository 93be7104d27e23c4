//! Outlines of the mailboxes that were opened here, so that the next SELECT costs what changed since.
//!
//! They are kept in two generations, so that the memory is bounded without a clock: what was not opened during a whole one is forgotten.
//! Nothing depends on them: a mailbox whose outline is not here is read whole.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use malle_machine::shard::read::Outline;
use malle_proto::{AccountId, MailboxId, ShardId, limits};

/// A mailbox of this node.
pub(super) type Place = (ShardId, AccountId, MailboxId);

/// See the module's header.
#[derive(Default)]
pub(super) struct Outlines(Mutex<Generations>);

#[derive(Default)]
struct Generations {
    young: HashMap<Place, Arc<Outline>>,
    old: HashMap<Place, Arc<Outline>>,
    /// Ranges of the young, and a few for each outline itself.
    young_ranges: usize,
}

/// What an outline takes beside its ranges, counted in ranges.
const OUTLINE_RANGES: usize = 16;

impl Outlines {
    pub fn get(&self, place: &Place) -> Option<Arc<Outline>> {
        let generations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = generations.young.get(place).or_else(|| generations.old.get(place));
        found.cloned()
    }

    pub fn keep(&self, place: Place, outline: &Outline) {
        let mut generations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if generations.young.get(&place).is_some_and(|kept| **kept == *outline) {
            return;
        }
        let ranges = outline.uids.len() + OUTLINE_RANGES;
        if ranges > limits::OUTLINE_RANGES_MAX / 2 {
            return;
        }
        if generations.young_ranges + ranges > limits::OUTLINE_RANGES_MAX / 2 {
            generations.old = std::mem::take(&mut generations.young);
            generations.young_ranges = 0;
        }
        generations.old.remove(&place);
        let outline = Arc::new(outline.clone());
        if let Some(before) = generations.young.insert(place, outline) {
            generations.young_ranges -= before.uids.len() + OUTLINE_RANGES;
        }
        generations.young_ranges += ranges;
    }
}
