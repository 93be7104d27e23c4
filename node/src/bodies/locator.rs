//! Where every body is, how much of each volume is still needed, and which copies are about to be freed.
//!
//! One lock guards all of it, and that is the point: whoever is told "it is here" takes the mark of collection off the copy in the same
//! step, and collection frees only what still bears its mark. So a copy that somebody counts on is never freed behind his back.
//!
//! Nothing here is kept: a start makes it anew from footers and volumes. What was freed since a footer was written comes back then as a
//! body that nothing names, and is collected once more.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use malle_journal::Location;
use malle_proto::{BodyHash, ShardId};
use tokio::sync::watch;

pub(super) type Key = (ShardId, BodyHash);

/// Where a body is.
#[derive(Debug)]
enum Slot {
    /// On its way to the disk; the channel closes when it is there or has failed.
    Writing(watch::Receiver<()>),
    At(Location),
}

/// Bodies here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub bodies: u64,
    /// What their stored forms take.
    pub payload_bytes: u64,
    /// The same with headers and padding.
    pub disk_bytes: u64,
}

/// What a put is to do.
#[derive(Debug)]
pub(super) enum Put {
    /// Nothing: a durable copy is here, and stays.
    Here,
    /// Wait for somebody who writes it, and look again.
    Wait(watch::Receiver<()>),
    /// Write it.
    Write,
}

/// See the module. In order, so that the scrub goes through the bodies in pages, however many there are.
#[derive(Debug, Default)]
pub(super) struct Locator {
    slots: BTreeMap<Key, Slot>,
    counts: Counts,
    /// Bytes on disk of the copies that each volume is needed for, by segment. A volume without any is absent.
    live: BTreeMap<u64, u64>,
    /// Copies that collection is about to free.
    marked: BTreeSet<Key>,
    /// Bytes on disk of the copies of each shard. One without any is absent.
    shards: BTreeMap<ShardId, u64>,
    /// Damaged copies by the segment that still has them: what is left of a body may be all that there is.
    hurt: BTreeMap<u64, BTreeSet<Key>>,
    /// Volumes with damage of which nobody knows what it was.
    torn: BTreeSet<u64>,
}

impl Locator {
    /// The place of a durable copy.
    pub fn at(&self, key: &Key) -> Option<Location> {
        match self.slots.get(key) {
            Some(Slot::At(at)) => Some(*at),
            _ => None,
        }
    }

    /// Whether a durable copy is here, which stays from now on: the caller counts on it.
    pub fn hold(&mut self, key: &Key) -> bool {
        self.marked.remove(key);
        self.at(key).is_some()
    }

    /// Begins a put: `writing` stands for it while it is being written.
    pub fn put(&mut self, key: Key, writing: &watch::Receiver<()>) -> Put {
        if self.hold(&key) {
            return Put::Here;
        }
        match self.slots.get(&key) {
            // A closed channel is a writer that gave up.
            Some(Slot::Writing(other)) if other.has_changed().is_ok() => Put::Wait(other.clone()),
            _ => {
                self.slots.insert(key, Slot::Writing(writing.clone()));
                Put::Write
            }
        }
    }

    /// What was being written is not there.
    pub fn not_written(&mut self, key: &Key) {
        if let Some(Slot::Writing(_)) = self.slots.get(key) {
            self.slots.remove(key);
        }
    }

    /// A durable copy is here. It takes the place of one before it.
    pub fn set(&mut self, key: Key, at: Location) {
        self.take(&key);
        self.marked.remove(&key);
        self.slots.insert(key, Slot::At(at));
        self.counts.bodies += 1;
        self.counts.payload_bytes += u64::from(at.payload_bytes);
        self.counts.disk_bytes += at.framed_bytes();
        *self.live.entry(at.segment).or_default() += at.framed_bytes();
        *self.shards.entry(key.0).or_default() += at.framed_bytes();
    }

    fn take(&mut self, key: &Key) -> Option<Location> {
        let at = self.at(key)?;
        self.slots.remove(key);
        self.counts.bodies -= 1;
        self.counts.payload_bytes -= u64::from(at.payload_bytes);
        self.counts.disk_bytes -= at.framed_bytes();
        let live = self.live.entry(at.segment).or_default();
        *live -= at.framed_bytes();
        if *live == 0 {
            self.live.remove(&at.segment);
        }
        let of_shard = self.shards.entry(key.0).or_default();
        *of_shard -= at.framed_bytes();
        if *of_shard == 0 {
            self.shards.remove(&key.0);
        }
        Some(at)
    }

    /// The copy at this place is taken out. One that was written since stays.
    pub fn forget(&mut self, key: &Key, at: Location) -> bool {
        self.at(key) == Some(at) && self.take(key).is_some()
    }

    /// [`Locator::forget`], because the copy is damaged.
    pub fn forget_damaged(&mut self, key: &Key, at: Location) {
        if self.forget(key, at) {
            self.hurt.entry(at.segment).or_default().insert(*key);
        }
    }

    /// Puts a place back where no other has come since.
    pub fn restore(&mut self, key: Key, at: Location) {
        if !self.slots.contains_key(&key) {
            self.set(key, at);
        }
    }

    /// The copy at `from` is durable at `to` as well: that is its place from now on. False when it is not at `from` any more.
    pub fn switch(&mut self, key: &Key, from: Location, to: Location) -> bool {
        let still = self.at(key) == Some(from);
        if still {
            let marked = self.marked.contains(key);
            self.set(*key, to);
            // Nobody has counted on the copy by this.
            if marked {
                self.marked.insert(*key);
            }
        }
        still
    }

    /// Marks the copy as one that is about to be freed; false when there is none.
    pub fn mark(&mut self, key: Key) -> bool {
        self.at(&key).is_some() && {
            self.marked.insert(key);
            true
        }
    }

    /// Takes the mark off.
    pub fn unmark(&mut self, key: &Key) {
        self.marked.remove(key);
    }

    /// Takes the copy out that has borne its mark ever since [`Locator::mark`], and gives its place.
    pub fn free(&mut self, key: &Key) -> Option<Location> {
        self.marked.remove(key).then(|| self.take(key)).flatten()
    }

    /// Up to `most` bodies behind `after`, in order, with their places.
    pub fn behind(&self, after: Option<Key>, most: usize) -> Vec<(Key, Location)> {
        let behind = after.map_or(Bound::Unbounded, Bound::Excluded);
        let slots = self.slots.range((behind, Bound::Unbounded));
        let stored = slots.filter_map(|(key, slot)| match slot {
            Slot::At(at) => Some((*key, *at)),
            Slot::Writing(_) => None,
        });
        stored.take(most).collect()
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Bytes on disk of the copies of a shard.
    pub fn shard_bytes(&self, shard: ShardId) -> u64 {
        self.shards.get(&shard).copied().unwrap_or(0)
    }

    /// Shards of which copies are here.
    pub fn shards(&self) -> Vec<ShardId> {
        self.shards.keys().copied().collect()
    }

    /// Takes out up to `most` copies of a shard whose replica is gone from this node; gives their number.
    pub fn drop_some(&mut self, shard: ShardId, most: usize) -> usize {
        let (first, last) = ((shard, BodyHash([0; 32])), (shard, BodyHash([0xff; 32])));
        let keys: Vec<Key> = self.slots.range(first..=last).map(|(key, _)| *key).take(most).collect();
        for key in &keys {
            self.marked.remove(key);
            if self.take(key).is_none() {
                // What is being written lands later, and is dropped the next time.
                self.slots.remove(key);
            }
        }
        keys.len()
    }

    /// Bytes on disk of the copies that a volume is needed for.
    pub fn live_bytes(&self, segment: u64) -> u64 {
        self.live.get(&segment).copied().unwrap_or(0)
    }

    /// Damaged copies that lie in a volume and of which no good one has come since.
    pub fn hurt(&self, segment: u64) -> Vec<Key> {
        let hurt = self.hurt.get(&segment);
        hurt.into_iter()
            .flatten()
            .filter(|key| self.at(key).is_none())
            .copied()
            .collect()
    }

    /// The start could not read all of this volume.
    pub fn tear(&mut self, segment: u64) {
        self.torn.insert(segment);
    }

    /// Whether something in this volume could not be read, and nobody knows what it was.
    pub fn is_torn(&self, segment: u64) -> bool {
        self.torn.contains(&segment)
    }

    /// The volume is gone.
    pub fn gone(&mut self, segment: u64) {
        self.hurt.remove(&segment);
        self.torn.remove(&segment);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u8) -> Key {
        (ShardId(1), BodyHash([number; 32]))
    }

    fn at(segment: u64, offset: u32) -> Location {
        Location {
            segment,
            generation: segment,
            offset,
            payload_bytes: 100,
        }
    }

    fn with(places: &[(u8, Location)]) -> Locator {
        let mut locator = Locator::default();
        for (number, at) in places {
            locator.set(key(*number), *at);
        }
        locator
    }

    #[test]
    fn whoever_is_told_that_a_copy_is_here_keeps_it() {
        let (_done, writing) = watch::channel(());
        let needs: [fn(&mut Locator, &watch::Receiver<()>); 3] = [
            |locator, _| assert!(locator.hold(&key(1))),
            |locator, writing| assert!(matches!(locator.put(key(1), writing), Put::Here)),
            |locator, _| {
                assert!(locator.forget(&key(1), at(1, 64)));
                locator.set(key(1), at(2, 64));
            },
        ];
        for need in needs {
            let mut locator = with(&[(1, at(1, 64))]);
            assert!(locator.mark(key(1)));
            need(&mut locator, &writing);
            assert_eq!(locator.free(&key(1)), None);
            assert!(locator.at(&key(1)).is_some());
        }
        let mut locator = with(&[(1, at(1, 64))]);
        assert!(locator.mark(key(1)));
        assert_eq!(locator.free(&key(1)), Some(at(1, 64)));
        assert!(!locator.hold(&key(1)), "whoever comes later writes it");
        assert!(matches!(locator.put(key(1), &writing), Put::Write));
        assert!(!locator.mark(key(1)), "what is being written is not marked");
        assert_eq!(locator.free(&key(2)), None, "nor what never was here");
    }

    #[test]
    fn a_moved_copy_keeps_its_mark_and_another_does_not_move() {
        let mut locator = with(&[(1, at(1, 64))]);
        assert!(locator.mark(key(1)));
        assert!(locator.switch(&key(1), at(1, 64), at(2, 64)));
        assert!(!locator.switch(&key(1), at(1, 64), at(3, 64)), "it is elsewhere by now");
        assert_eq!(locator.free(&key(1)), Some(at(2, 64)));
        assert!(!locator.switch(&key(1), at(2, 64), at(3, 64)), "it was freed meanwhile");
    }

    #[test]
    fn what_a_volume_is_needed_for_is_counted_through_every_change() {
        let framed = at(1, 64).framed_bytes();
        let mut locator = with(&[(1, at(1, 64)), (2, at(1, 200)), (3, at(2, 64))]);
        assert_eq!((locator.live_bytes(1), locator.live_bytes(2)), (2 * framed, framed));
        assert!(locator.switch(&key(1), at(1, 64), at(2, 200)));
        locator.forget_damaged(&key(2), at(1, 200));
        assert_eq!((locator.live_bytes(1), locator.live_bytes(2)), (0, 2 * framed));
        assert_eq!(locator.hurt(1), [key(2)]);
        locator.set(key(2), at(2, 400));
        assert_eq!(locator.hurt(1), [], "a good copy has come");
        locator.restore(key(2), at(1, 200));
        assert_eq!(locator.at(&key(2)), Some(at(2, 400)));
        let counts = locator.counts();
        assert_eq!(
            (counts.bodies, counts.payload_bytes, counts.disk_bytes),
            (3, 300, 3 * framed)
        );
        for number in 1..=3 {
            assert!(locator.mark(key(number)));
            assert!(locator.free(&key(number)).is_some());
        }
        assert_eq!(locator.counts(), Counts::default());
        assert!(locator.live.is_empty() && locator.marked.is_empty());
    }
}
