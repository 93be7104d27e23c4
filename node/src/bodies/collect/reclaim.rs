//! Volumes that are mostly garbage are emptied and given up, the worst first, one at a time.
//!
//! What is needed is read, checked and written to the volume that is being filled; each copy keeps its old place until the new one is
//! durable. A copy that is damaged stays where it lies, and its volume with it, until a good one is here or nothing names the body: bytes
//! that are half readable may be all that is left of a mail.

use std::collections::BTreeSet;

use malle_proto::limits;

use super::{Collector, Go, Stop, Stopped};
use crate::bodies::BodiesError;
use crate::bodies::pace::Pace;
use crate::bodies::volume::VolumeUse;

/// The disk, as far as it matters here.
#[derive(Debug, Clone, Copy)]
struct Pressure {
    /// A volume with so many hundredths of garbage is emptied.
    garbage_percent: u64,
    pace: Pace,
    /// Nothing can be carried: there is no room for another volume.
    no_room: bool,
}

impl Collector {
    /// Empties volumes until none is bad enough.
    pub(super) async fn reclaim(&self, stop: &mut Stop) -> Go {
        let mut stuck = BTreeSet::new();
        while let Some(pressure) = self.pressure().await {
            let Some(volume) = self.worst(&pressure, &stuck) else {
                break;
            };
            match self.empty(volume, &pressure, stop).await? {
                true => {
                    let mut progress = self.progress();
                    progress.report.volumes_freed += 1;
                    progress.report.volumes_freed_bytes += volume.bytes;
                }
                false => drop(stuck.insert(volume.segment)),
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
        let used = u128::from(space.total_bytes - space.free_bytes.min(space.total_bytes));
        let full = used * 100 > u128::from(space.total_bytes) * u128::from(limits::DISK_FULL_PERCENT);
        let (garbage_percent, rate) = match full {
            true => (limits::COLLECT_GARBAGE_PERCENT_FULL, limits::SCRUB_BYTES_PER_SECOND_MAX),
            false => (limits::COLLECT_GARBAGE_PERCENT, limits::COLLECT_BYTES_PER_SECOND),
        };
        Some(Pressure {
            garbage_percent,
            pace: Pace::at(rate),
            // What is carried fills less than one; the rest is for the log and checkpoints.
            no_room: space.free_bytes < space.volume_bytes,
        })
    }

    fn worst(&self, pressure: &Pressure, stuck: &BTreeSet<u64>) -> Option<VolumeUse> {
        let uses = self.bodies.volumes.uses().into_iter().filter(|volume| {
            let in_vain = stuck.contains(&volume.segment) || pressure.no_room && volume.live_bytes > 0;
            !in_vain && volume.has_garbage(pressure.garbage_percent)
        });
        uses.max_by_key(|volume| volume.garbage_bytes())
    }

    /// Carries what is needed out of a volume and gives it up; false when something must stay.
    async fn empty(&self, volume: VolumeUse, pressure: &Pressure, stop: &mut Stop) -> Result<bool, Stopped> {
        let volumes = &self.bodies.volumes;
        for (key, from) in volumes.lying_in(volume).await {
            let began = malle_rt::now();
            let (shard, hash) = key;
            match volumes.carry(key, from).await {
                Ok(()) => self.progress().report.carried_bytes += from.framed_bytes(),
                Err(error @ BodiesError::Corrupt(_)) => {
                    tracing::error!(%shard, %hash, %error, "a body is damaged: it is not carried, its volume stays until a peer has given it");
                    self.bodies.miss(shard, hash);
                }
                Err(error) => {
                    tracing::warn!(%shard, %hash, %error, "a body was not carried to another volume; the next look tries again");
                    return Ok(false);
                }
            }
            let took = malle_rt::now() - began;
            self.pause(pressure.pace.pause(from.framed_bytes(), took), stop).await?;
        }
        // In this order: no copy that is needed, no copy whose damage could be found now.
        if volumes.live_bytes(volume.segment) > 0 || self.is_held(volume.segment).await {
            return Ok(false);
        }
        match volumes.discard(volume).await {
            Ok(gone) => Ok(gone),
            Err(error) => {
                tracing::error!(segment = volume.segment, %error, "a volume that nobody needs was not removed");
                Ok(false)
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
