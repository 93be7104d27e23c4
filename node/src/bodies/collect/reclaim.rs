//! Volumes that are mostly garbage are emptied and given up, the worst first, one at a time.
//!
//! Carrying takes room before it gives any back, so the disk's state ([`DiskRoom`]) has a say. While it is at its marks, the volume comes first
//! of which least must be carried, so that each byte of the reserve buys the most room; when the state gets worse on the way, the choice is made
//! again. A body that finds no room ends carrying for this look: only volumes that nobody needs go then, and the next look tries again.
//!
//! What is needed is read, checked and written to the volume that is being filled; each copy keeps its old place until the new one is
//! durable. A copy that is damaged stays where it lies, and its volume with it, until a good one is here or nothing names the body: bytes
//! that are half readable may be all that is left of a mail.

use std::collections::BTreeSet;

use malle_proto::limits;

use super::{Collector, Go, Stop, Stopped};
use crate::bodies::pace::Pace;
use crate::bodies::volume::VolumeUse;
use crate::bodies::{BodiesError, DiskRoom};

/// The disk, as far as it matters here.
#[derive(Debug, Clone, Copy)]
struct Pressure {
    room: DiskRoom,
    /// A volume with so many hundredths of garbage is emptied.
    garbage_percent: u64,
    pace: Pace,
    /// Nothing can be carried: there is no room for another volume.
    no_room: bool,
}

impl Pressure {
    /// The volume that is emptied next.
    fn choose(&self, uses: &[VolumeUse]) -> Option<VolumeUse> {
        let bad = uses.iter().copied().filter(|volume| {
            let in_vain = self.no_room && volume.live_bytes > 0;
            !in_vain && volume.has_garbage(self.garbage_percent)
        });
        match self.room {
            DiskRoom::Enough => bad.max_by_key(VolumeUse::garbage_bytes),
            DiskRoom::Short | DiskRoom::None => bad.min_by_key(|volume| volume.live_bytes),
        }
    }
}

/// How the emptying of a volume ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Emptied {
    /// It is gone.
    Gone,
    /// Something in it must stay, or could not be carried.
    Stuck,
    /// A body found no room.
    Full,
    /// The disk's state got worse: another volume may be the better one now. What was carried is durable.
    Tighter,
}

impl Collector {
    /// Empties volumes until none is bad enough.
    pub(super) async fn reclaim(&self, stop: &mut Stop) -> Go {
        let (mut stuck, mut full) = (BTreeSet::new(), false);
        while let Some(mut pressure) = self.pressure().await {
            pressure.no_room |= full;
            let Some(volume) = self.worst(&pressure, &stuck) else {
                break;
            };
            match self.empty(volume, &pressure, stop).await? {
                Emptied::Gone => {
                    // What it gave back may be what the next one needs.
                    full = false;
                    let mut progress = self.progress();
                    progress.report.volumes_freed += 1;
                    progress.report.volumes_freed_bytes += volume.bytes;
                }
                Emptied::Stuck => drop(stuck.insert(volume.segment)),
                Emptied::Full => full = true,
                Emptied::Tighter => {}
            }
        }
        self.progress().report.stuck = stuck.len() as u64;
        self.bodies.volumes.renew_footers().await;
        Ok(())
    }

    /// `None` when the disk does not say, or takes nothing any more.
    async fn pressure(&self) -> Option<Pressure> {
        if self.bodies.failed().borrow().is_some() {
            return None;
        }
        let space = match self.bodies.volumes.disk_space().await {
            Ok(space) => space,
            Err(error) => {
                tracing::error!(%error, "collection cannot tell how full the disk is");
                return None;
            }
        };
        let room = self.bodies.disk().room();
        let used = u128::from(space.total_bytes - space.free_bytes.min(space.total_bytes));
        let over = used * 100 > u128::from(space.total_bytes) * u128::from(limits::DISK_FULL_PERCENT);
        // A small disk is at its marks, which count volumes there, before it is over the part.
        let (garbage_percent, rate) = match over || room != DiskRoom::Enough {
            true => (limits::COLLECT_GARBAGE_PERCENT_FULL, limits::SCRUB_BYTES_PER_SECOND_MAX),
            false => (limits::COLLECT_GARBAGE_PERCENT, limits::COLLECT_BYTES_PER_SECOND),
        };
        Some(Pressure {
            room,
            garbage_percent,
            pace: Pace::at(rate),
            // What is carried fills less than one; the rest is for the log and checkpoints.
            no_room: space.free_bytes < space.volume_bytes,
        })
    }

    fn worst(&self, pressure: &Pressure, stuck: &BTreeSet<u64>) -> Option<VolumeUse> {
        let mut uses = self.bodies.volumes.uses();
        uses.retain(|volume| !stuck.contains(&volume.segment));
        pressure.choose(&uses)
    }

    /// Carries what is needed out of a volume and gives it up.
    async fn empty(&self, volume: VolumeUse, pressure: &Pressure, stop: &mut Stop) -> Result<Emptied, Stopped> {
        let volumes = &self.bodies.volumes;
        for (key, from) in volumes.lying_in(volume).await {
            if self.bodies.disk().room() > pressure.room {
                return Ok(Emptied::Tighter);
            }
            let began = malle_rt::now();
            let (shard, hash) = key;
            match volumes.carry(key, from).await {
                Ok(()) => self.progress().report.carried_bytes += from.framed_bytes(),
                Err(error @ BodiesError::Corrupt(_)) => {
                    tracing::error!(%shard, %hash, %error, "a body is damaged: it is not carried, its volume stays until a peer has given it");
                    self.bodies.miss(shard, hash);
                }
                Err(BodiesError::Full) => {
                    tracing::warn!(%shard, %hash, "a body found no room in another volume; the next look tries again");
                    self.bodies.disk().found_none();
                    return Ok(Emptied::Full);
                }
                Err(error) => {
                    tracing::warn!(%shard, %hash, %error, "a body was not carried to another volume; the next look tries again");
                    return Ok(Emptied::Stuck);
                }
            }
            let took = malle_rt::now() - began;
            self.pause(pressure.pace.pause(from.framed_bytes(), took), stop).await?;
        }
        // In this order: no copy that is needed, no copy whose damage could be found now.
        if volumes.live_bytes(volume.segment) > 0 || self.is_held(volume.segment).await {
            return Ok(Emptied::Stuck);
        }
        match volumes.discard(volume).await {
            Ok(true) => Ok(Emptied::Gone),
            Ok(false) => Ok(Emptied::Stuck),
            Err(error) => {
                tracing::error!(segment = volume.segment, %error, "a volume that nobody needs was not removed");
                Ok(Emptied::Stuck)
            }
        }
    }

    /// Whether a damaged copy in this volume may be the last of its body.
    async fn is_held(&self, segment: u64) -> bool {
        for (shard, hash) in self.bodies.volumes.hurt(segment) {
            if self.log.is_named(shard, hash).await != Some(false) {
                return true;
            }
        }
        // Damage that the start found has no name. The rows have been compared with what is here by the end of the first round.
        let torn = self.bodies.volumes.is_torn(segment);
        torn && (self.progress().report.rounds == 0 || self.bodies.misses_any())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of 100 KiB each so much is needed; the last volume is half as long.
    const LIVE: [u64; 4] = [60, 45, 20, 10];

    fn uses() -> Vec<VolumeUse> {
        let of = |(segment, live): (usize, &u64)| VolumeUse {
            segment: segment as u64,
            generation: 0,
            bytes: if segment == 3 { 50 << 10 } else { 100 << 10 },
            live_bytes: live << 10,
        };
        LIVE.iter().enumerate().map(of).collect()
    }

    /// In which order volumes go, if nothing else changes.
    fn order(room: DiskRoom, garbage_percent: u64, no_room: bool) -> Vec<u64> {
        let pressure = Pressure {
            room,
            garbage_percent,
            pace: Pace::at(1),
            no_room,
        };
        let mut left = uses();
        left.push(VolumeUse {
            live_bytes: 0,
            segment: 4,
            ..left[3]
        });
        let mut order = Vec::new();
        while let Some(next) = pressure.choose(&left) {
            left.retain(|volume| volume.segment != next.segment);
            order.push(next.segment);
        }
        order
    }

    #[test]
    fn a_disk_with_room_gets_rid_of_most_garbage_first_and_one_at_its_marks_carries_least_first() {
        assert_eq!(order(DiskRoom::Enough, 50, false), [2, 1, 4, 3]);
        assert_eq!(order(DiskRoom::Enough, 30, false), [2, 1, 4, 3, 0]);
        for room in [DiskRoom::Short, DiskRoom::None] {
            assert_eq!(order(room, 30, false), [4, 3, 2, 1, 0]);
            assert_eq!(order(room, 30, true), [4], "what nobody needs is no weight");
        }
    }
}
