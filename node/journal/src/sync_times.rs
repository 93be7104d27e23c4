//! How long syncs take, counted in classes: what a slow disk is found by before it fails.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the classes. A sync behind a write cache takes a tenth of a millisecond, an honest disk without one some
/// milliseconds, a disk that is about to die seconds.
const BOUNDS_US: [u64; 14] = [
    64, 128, 256, 512, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 256_000, 1_000_000, 4_000_000,
];

/// Syncs of a journal since its start, by how long they took.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SyncTimes {
    /// Upper bound of each class in microseconds, with the syncs that took so long and longer than the class before.
    pub classes: Vec<(u64, u64)>,
    /// Syncs above the last class.
    pub longer: u64,
    /// All syncs together, in microseconds.
    pub sum_us: u64,
}

impl SyncTimes {
    /// How many there were.
    pub fn count(&self) -> u64 {
        self.classes.iter().map(|(_, syncs)| syncs).sum::<u64>() + self.longer
    }
}

/// Counts while the journal writes.
#[derive(Debug, Default)]
pub(crate) struct SyncClock {
    classes: [AtomicU64; BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

impl SyncClock {
    pub fn note(&self, took: Duration) {
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let class = BOUNDS_US.partition_point(|bound| *bound < took_us);
        self.classes[class].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(took_us, Ordering::Relaxed);
    }

    pub fn read(&self) -> SyncTimes {
        let counts: Vec<u64> = self.classes.iter().map(|class| class.load(Ordering::Relaxed)).collect();
        SyncTimes {
            classes: BOUNDS_US.into_iter().zip(counts.iter().copied()).collect(),
            longer: counts[BOUNDS_US.len()],
            sum_us: self.sum_us.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sync_counts_in_the_class_that_it_just_fits() {
        let clock = SyncClock::default();
        for took_us in [1, 64, 65, 1_000, 9_000_000] {
            clock.note(Duration::from_micros(took_us));
        }
        let times = clock.read();
        assert_eq!(times.classes[0], (64, 2));
        assert_eq!(times.classes[1], (128, 1));
        assert_eq!(times.classes[4], (1_000, 1));
        assert_eq!((times.longer, times.count(), times.sum_us), (1, 5, 9_001_130));
    }
}
