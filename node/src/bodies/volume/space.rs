//! What collection does to volumes: frees marked copies, carries what is needed to another volume, gives a volume up.
//!
//! Nothing here decides that a body may go: whoever calls [`Volumes::free`] has the word of the shard's log for it. A volume is given up
//! only when the locator needs nothing in it, and everything that was carried out of it is durable by then, because the locator names a
//! place only once it is.

use std::io;

use malle_journal::{KeptSegment, Location};

use super::{Key, Volumes};
use crate::bodies::BodiesError;
use crate::bodies::footer::{self, FooterEntry};

/// Bytes of a segment that hold no record.
const SEGMENT_HEAD_BYTES: u64 = 64;
/// Names that are looked at under one lock.
const PAGE: usize = 1024;
/// A footer is written anew when this part of what it lists is needed no more: that much a start may find again.
const FOOTER_STALE_PART: u64 = 16;

/// A full volume and what it is needed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::bodies) struct VolumeUse {
    pub segment: u64,
    pub generation: u64,
    /// Bytes of all its records.
    pub bytes: u64,
    /// Bytes of those that somebody needs.
    pub live_bytes: u64,
}

/// The disk of the volumes.
#[derive(Debug, Clone, Copy)]
pub(in crate::bodies) struct DiskSpace {
    pub free_bytes: u64,
    pub total_bytes: u64,
    /// What a new volume takes.
    pub volume_bytes: u64,
}

impl VolumeUse {
    pub fn garbage_bytes(&self) -> u64 {
        self.bytes.saturating_sub(self.live_bytes)
    }

    /// Whether at least so many hundredths of it are garbage.
    pub fn has_garbage(&self, percent: u64) -> bool {
        self.garbage_bytes() * 100 >= self.bytes * percent
    }
}

impl Volumes {
    /// Marks copies that are about to be freed; gives those that are here.
    pub fn mark(&self, keys: &[Key]) -> Vec<Key> {
        let mut locator = self.locator();
        keys.iter().filter(|key| locator.mark(**key)).copied().collect()
    }

    /// Takes the marks off.
    pub fn unmark(&self, keys: &[Key]) {
        let mut locator = self.locator();
        keys.iter().for_each(|key| locator.unmark(key));
    }

    /// Frees those of these copies that nobody has counted on since they were marked. The log must have said since then that they may go.
    /// How many, and their bytes on disk.
    pub fn free(&self, keys: &[Key]) -> (u64, u64) {
        let mut locator = self.locator();
        let freed = keys.iter().filter_map(|key| locator.free(key));
        freed.fold((0, 0), |(bodies, bytes), at| (bodies + 1, bytes + at.framed_bytes()))
    }

    /// Every full volume, oldest first. The one that is being filled is not among them.
    pub fn uses(&self) -> Vec<VolumeUse> {
        let mut kept = self.inner.journal.kept();
        kept.pop();
        let filling = self.filling().volume.map(|(segment, _)| segment);
        kept.retain(|kept| Some(kept.segment) != filling);
        let locator = self.locator();
        let uses = kept.into_iter().map(|kept: KeptSegment| VolumeUse {
            segment: kept.segment,
            generation: kept.generation,
            bytes: kept.bytes.saturating_sub(SEGMENT_HEAD_BYTES),
            live_bytes: locator.live_bytes(kept.segment),
        });
        uses.collect()
    }

    /// Bytes of the records of all volumes, and of those that somebody needs.
    pub fn space(&self) -> (u64, u64) {
        let kept = self.inner.journal.kept();
        let bytes = kept.iter().map(|kept| kept.bytes.saturating_sub(SEGMENT_HEAD_BYTES));
        (bytes.sum(), self.locator().counts().disk_bytes)
    }

    /// How much room the disk has.
    ///
    /// # Errors
    /// The disk's.
    pub async fn disk_space(&self) -> io::Result<DiskSpace> {
        let inner = self.inner.clone();
        malle_rt::blocking(move || {
            Ok(DiskSpace {
                free_bytes: inner.disk.free_bytes(&inner.dir)?,
                total_bytes: inner.disk.total_bytes(&inner.dir)?,
                volume_bytes: inner.volume_bytes,
            })
        })
        .await
    }

    pub fn live_bytes(&self, segment: u64) -> u64 {
        self.locator().live_bytes(segment)
    }

    /// Damaged copies in a volume of which no good one is here.
    pub fn hurt(&self, segment: u64) -> Vec<Key> {
        self.locator().hurt(segment)
    }

    /// Whether something in this volume could not be read at the start, and nobody knows what it was.
    pub fn is_torn(&self, segment: u64) -> bool {
        self.locator().is_torn(segment)
    }

    /// The copies that a volume is needed for, in the order in which they lie.
    pub async fn lying_in(&self, volume: VolumeUse) -> Vec<(Key, Location)> {
        let volumes = self.clone();
        malle_rt::blocking(move || {
            let mut found = volumes.listed(volume);
            let bytes: u64 = found.iter().map(|(_, at)| at.framed_bytes()).sum();
            if bytes != volumes.live_bytes(volume.segment) {
                // No footer, or one that lacks some: the locator knows them all.
                found = volumes.searched(volume.segment);
            }
            found.sort_unstable_by_key(|(_, at)| at.offset);
            found
        })
        .await
    }

    fn listed(&self, volume: VolumeUse) -> Vec<(Key, Location)> {
        let inner = &self.inner;
        let entries = footer::read(inner.disk.as_ref(), &inner.dir, volume.segment, volume.generation);
        let mut found = Vec::new();
        for entries in entries.unwrap_or_default().chunks(PAGE) {
            let locator = self.locator();
            let places = entries
                .iter()
                .map(|entry| (entry.key(), entry.location(volume.segment, volume.generation)));
            found.extend(places.filter(|(key, at)| locator.at(key) == Some(*at)));
        }
        found
    }

    fn searched(&self, segment: u64) -> Vec<(Key, Location)> {
        let (mut found, mut behind) = (Vec::new(), None);
        loop {
            let page = self.locator().behind(behind, PAGE);
            let Some((last, _)) = page.last() else { return found };
            behind = Some(*last);
            found.extend(page.into_iter().filter(|(_, at)| at.segment == segment));
        }
    }

    /// Writes a copy once more, into the volume that is being filled, and makes that its place once it is durable. A copy that is not at
    /// `from` any more, or goes elsewhere meanwhile, is left alone.
    ///
    /// # Errors
    /// `Corrupt`: the copy is damaged; it stays where it lies, forgotten. `Volumes`.
    pub async fn carry(&self, key: Key, from: Location) -> Result<(), BodiesError> {
        let checked = match self.read(key.0, key.1, from).await {
            Ok(checked) => checked,
            Err(BodiesError::Corrupt(_)) if self.locator().at(&key) != Some(from) => return Ok(()),
            Err(error @ BodiesError::Corrupt(_)) => {
                self.locator().forget_damaged(&key, from);
                return Err(error);
            }
            Err(error) => return Err(error),
        };
        let volumes = self.clone();
        let landed = move |written: Result<Location, &_>| {
            if let Ok(to) = written {
                let moved = volumes.locator().switch(&key, from, to);
                volumes.fills(to, moved.then_some(key));
            }
        };
        self.write(checked.stored, landed).await.map(drop)
    }

    /// Gives up a volume that nobody needs; false when somebody does, or reads it now.
    ///
    /// # Errors
    /// `Volumes`: the next start may find it again.
    pub async fn discard(&self, volume: VolumeUse) -> Result<bool, BodiesError> {
        let VolumeUse {
            segment, generation, ..
        } = volume;
        let discarded = {
            let mut upkeep = self.upkeep();
            if upkeep.footing.contains(&segment) || self.live_bytes(segment) > 0 {
                return Ok(false);
            }
            upkeep.discarded.insert(segment);
            upkeep.discarded.clone()
        };
        let failed = |error: io::Error| BodiesError::Volumes(error.to_string());
        let inner = self.inner.clone();
        let listed = malle_rt::blocking(move || super::discarded::write(inner.disk.as_ref(), &inner.dir, &discarded));
        match listed.await {
            // The volume that goes makes room again; without the list the next start calls it lost, and that is all.
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                tracing::warn!(
                    segment,
                    "the disk is too full for the list of volumes that were given up"
                );
            }
            listed => listed.map_err(failed)?,
        }
        if !self.inner.journal.discard(segment, generation).await? {
            return Ok(false);
        }
        self.locator().gone(segment);
        self.upkeep().footed.remove(&segment);
        let inner = self.inner.clone();
        let removed = malle_rt::blocking(move || footer::remove(inner.disk.as_ref(), &inner.dir, segment, generation));
        removed.await.map_err(failed)?;
        Ok(true)
    }

    /// No footer is being written.
    #[cfg(test)]
    pub fn idle(&self) -> bool {
        self.upkeep().footing.is_empty()
    }

    #[cfg(test)]
    pub fn gave_up(&self, segment: u64) -> bool {
        self.upkeep().discarded.contains(segment)
    }

    #[cfg(test)]
    pub fn segments(&self) -> std::collections::BTreeSet<u64> {
        self.inner.journal.kept().iter().map(|kept| kept.segment).collect()
    }

    /// Writes the footers anew of which a good part is needed no more, so that a start does not find that again.
    pub async fn renew_footers(&self) {
        for volume in self.uses() {
            let stale = {
                let mut upkeep = self.upkeep();
                let footed = upkeep.footed.get(&volume.segment).copied().unwrap_or(0);
                let stale = volume.live_bytes < footed - footed / FOOTER_STALE_PART;
                stale && upkeep.footing.insert(volume.segment)
            };
            if stale {
                let volumes = self.clone();
                malle_rt::blocking(move || volumes.renew_footer(volume)).await;
            }
        }
    }

    /// A footer that reads lists all that its volume held; one that does not read is left to the next start, which scans.
    fn renew_footer(&self, volume: VolumeUse) {
        let VolumeUse {
            segment, generation, ..
        } = volume;
        let inner = &self.inner;
        let written = footer::read(inner.disk.as_ref(), &inner.dir, segment, generation).map(|entries| {
            let entries = self.still_needed(volume, &entries);
            footer::write(inner.disk.as_ref(), &inner.dir, segment, generation, entries)
        });
        let mut upkeep = self.upkeep();
        upkeep.footing.remove(&segment);
        match written {
            Some(Ok(())) => drop(upkeep.footed.insert(segment, volume.live_bytes)),
            None => drop(upkeep.footed.remove(&segment)),
            Some(Err(error)) => {
                tracing::warn!(segment, %error, "a footer was not written anew; a start finds freed bodies again");
            }
        }
    }

    /// Entries of copies that are needed, and of damaged ones: those must be found damaged again after a start, too.
    fn still_needed(&self, volume: VolumeUse, entries: &[FooterEntry]) -> Vec<FooterEntry> {
        let mut needed = Vec::new();
        for entries in entries.chunks(PAGE) {
            let locator = self.locator();
            let hurt = locator.hurt(volume.segment);
            needed.extend(entries.iter().copied().filter(|entry| {
                let at = entry.location(volume.segment, volume.generation);
                locator.at(&entry.key()) == Some(at) || hurt.contains(&entry.key())
            }));
        }
        needed
    }
}
