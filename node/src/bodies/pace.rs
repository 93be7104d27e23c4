//! How fast the scrub and collection go over the bodies: a rate with a floor and a ceiling, and at most half of a slow disk's time.
//!
//! Arithmetic only, so that it is tested without a clock. A body costs its bytes and [`limits::SCRUB_BYTES_PER_READ`] for the seek.

use std::time::Duration;

use malle_proto::limits;

/// How fast bodies are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pace {
    bytes_per_second: u64,
    late: bool,
}

impl Pace {
    /// The pace that reads so many bodies with so many bytes within the days.
    pub fn new(bodies: u64, bytes: u64, days: u32) -> Pace {
        let seconds = u64::from(days.max(1)) * 86_400;
        let wanted = bytes
            .saturating_add(bodies.saturating_mul(limits::SCRUB_BYTES_PER_READ))
            .div_ceil(seconds);
        Pace {
            bytes_per_second: wanted.clamp(limits::SCRUB_BYTES_PER_SECOND_MIN, limits::SCRUB_BYTES_PER_SECOND_MAX),
            late: wanted > limits::SCRUB_BYTES_PER_SECOND_MAX,
        }
    }

    /// The pace of so many bytes a second.
    pub fn at(bytes_per_second: u64) -> Pace {
        Pace {
            bytes_per_second: bytes_per_second.max(1),
            late: false,
        }
    }

    /// Even the ceiling is too slow for the days.
    pub fn is_late(self) -> bool {
        self.late
    }

    /// What is left of the time that so many bytes may take, when they took this long. Never more than `most`, so that whoever waits looks up
    /// from time to time.
    pub fn rest(self, bytes: u64, took: Duration, most: Duration) -> Duration {
        let share = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        share.saturating_sub(took).min(most)
    }

    /// What to wait behind a body of so many bytes that took so long to read. A slow disk is not asked for more than the pace, and
    /// gets at least as long a rest as its read took: then the task never has more than half of its time.
    pub fn pause(self, bytes: u64, took: Duration) -> Duration {
        let cost = bytes.saturating_add(limits::SCRUB_BYTES_PER_READ);
        let share = Duration::from_secs_f64(cost as f64 / self.bytes_per_second as f64);
        share.saturating_sub(took).max(took)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_S: u64 = 86_400;
    const MIB: u64 = 1024 * 1024;

    /// A round of `bodies` bodies of `bytes` each, none of which takes time to read.
    fn round(bodies: u64, bytes: u64, days: u32) -> Duration {
        let pace = Pace::new(bodies, bodies * bytes, days);
        pace.pause(bytes, Duration::ZERO).mul_f64(bodies as f64)
    }

    #[test]
    fn what_is_copied_faster_than_its_pace_rests_and_what_is_slower_does_not() {
        let (pace, second, most) = (Pace::at(64 * MIB), Duration::from_secs(1), Duration::from_secs(5));
        assert_eq!(pace.rest(128 * MIB, second, most), second);
        assert_eq!(pace.rest(32 * MIB, second, most), Duration::ZERO);
        assert_eq!(pace.rest(1 << 40, second, most), most);
    }

    #[test]
    fn the_pauses_of_a_round_add_up_to_its_days() {
        // 1 TiB of small and of large mail.
        for bytes in [10 * 1024, 20 * MIB] {
            let bodies = (1 << 40) / bytes;
            for days in [5, 7] {
                let took = round(bodies, bytes, days).as_secs_f64() / (DAY_S * u64::from(days)) as f64;
                assert!((0.99..=1.0001).contains(&took), "{bytes} bytes, {days} days: {took}");
            }
        }
    }

    #[test]
    fn a_small_node_is_read_at_the_floor_and_a_huge_one_at_the_ceiling() {
        let hour = round(300_000, 8 * 1024, 30);
        assert_eq!(hour.as_secs(), 300_000 * 12 * 1024 / limits::SCRUB_BYTES_PER_SECOND_MIN);
        assert!(!Pace::new(300_000, 300_000 * 8192, 30).is_late());
        let huge = Pace::new(1, 1 << 50, 30);
        assert!(huge.is_late());
        assert_eq!(huge.bytes_per_second, limits::SCRUB_BYTES_PER_SECOND_MAX);
        assert_eq!(
            Pace::new(0, 0, 0),
            Pace::new(0, 0, 30),
            "an empty node divides by nothing"
        );
        assert!(Pace::new(u64::MAX, u64::MAX, 1).is_late(), "and nothing overflows");
    }

    #[test]
    fn the_time_of_a_read_counts_and_a_slow_disk_has_half_of_the_time_for_others() {
        let pace = Pace::new(0, 0, 30);
        let share = pace.pause(MIB - limits::SCRUB_BYTES_PER_READ, Duration::ZERO);
        assert_eq!(share, Duration::from_secs(1));
        let ms = Duration::from_millis;
        assert_eq!(pace.pause(MIB - limits::SCRUB_BYTES_PER_READ, ms(200)), ms(800));
        assert_eq!(pace.pause(MIB - limits::SCRUB_BYTES_PER_READ, ms(3000)), ms(3000));
    }
}
