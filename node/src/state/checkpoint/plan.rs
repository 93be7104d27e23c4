//! When a checkpoint is due, and whether it is a base or a delta.
//!
//! Every byte of log pays for `limits::CHECKPOINT_BYTES_PER_LOG_BYTE` bytes of checkpoints. Deltas are merged into a new base when they
//! reach half of the old one and the new one is paid for. With `r` bytes of delta per byte of log a shard that only grows costs about
//! `4 r`: the deltas `r`, and for each half base of deltas a base and a half. So at `r` up to one half every checkpoint is paid for when
//! its bytes of log have come. Above that (a command that flags 500 messages is a few bytes of log and a thousand rows) the next
//! checkpoint waits until the log has paid for it. It waits no longer than `limits::CHECKPOINT_LOG_TIMES_MAX` times the usual: the log of a shard stays
//! short enough to be applied at a start, and only where one base is larger than what that much log pays for does more get written.

use malle_proto::limits;

use super::{Changed, Checkpoint};

/// What is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::state) enum Work {
    /// Every row.
    Base,
    /// The rows that changed.
    Delta,
}

/// What checkpoints have cost so far, since this state was opened.
#[derive(Debug, Clone, Copy)]
pub(in crate::state) struct Ledger {
    /// Bytes of log that make a checkpoint due.
    log_bytes: u64,
    /// Bytes that the log has paid for and nobody has written; below zero when a checkpoint had to be made before it was paid for.
    credit: i64,
    /// Bytes and changes of the last delta.
    last_delta: Option<(u64, u64)>,
    /// When a checkpoint is due whatever it costs, in milliseconds of the wall clock.
    due_ms: u64,
}

impl Ledger {
    /// Nothing paid and nothing written; a checkpoint is due after so many bytes of log.
    pub fn new(log_bytes: u64, now_ms: u64, chance: u64) -> Ledger {
        let mut ledger = Ledger {
            log_bytes,
            credit: 0,
            last_delta: None,
            due_ms: 0,
        };
        ledger.wait(now_ms, chance);
        ledger
    }

    /// The age at which the next checkpoint is due: up to a quarter less than the limit, so that shards which were opened together do
    /// not write together.
    pub fn wait(&mut self, now_ms: u64, chance: u64) {
        self.due_ms = now_ms + limits::CHECKPOINT_AGE_MS - chance % (limits::CHECKPOINT_AGE_MS / 4);
    }

    /// A checkpoint was written.
    pub fn wrote(&mut self, work: Work, bytes: u64, changes: u64, log_bytes: u64) {
        self.credit += (log_bytes * limits::CHECKPOINT_BYTES_PER_LOG_BYTE) as i64 - bytes as i64;
        if work == Work::Delta && changes > 0 {
            self.last_delta = Some((bytes, changes));
        }
    }
}

/// Everything that the decision needs.
#[derive(Debug, Clone, Copy)]
pub(in crate::state) struct Standing {
    /// Bytes of log behind the checkpoint.
    pub log_bytes: u64,
    /// Rows that there are.
    pub rows: u64,
    /// Bytes and rows of the base.
    base: Option<(u64, u64)>,
    /// How many deltas, and their bytes.
    deltas: (usize, u64),
    /// How many keys changed, and their bytes in memory; `None` when it is not known which.
    changed: Option<(u64, usize)>,
    ledger: Ledger,
}

impl Standing {
    pub fn new(checkpoint: Option<&Checkpoint>, changed: &Changed, ledger: Ledger, log_bytes: u64, rows: u64) -> Self {
        Standing {
            log_bytes,
            rows,
            base: checkpoint.map(|chain| (chain.base.file.bytes, chain.base.changes)),
            deltas: checkpoint.map_or((0, 0), |chain| {
                (
                    chain.deltas.len(),
                    chain.deltas.iter().map(|link| link.file.bytes).sum(),
                )
            }),
            changed: match changed {
                Changed::Known(keys) => Some((keys.count(), keys.bytes())),
                Changed::Lost => None,
            },
            ledger,
        }
    }

    /// What the next checkpoint is.
    pub fn work(&self) -> Work {
        let (Some((base_bytes, _)), Some(_)) = (self.base, self.changed) else {
            return Work::Base;
        };
        let (count, bytes) = self.deltas;
        let too_long = count >= limits::CHECKPOINT_DELTAS_MAX || bytes >= base_bytes;
        let merge = bytes * 2 >= base_bytes && self.paid(Work::Base);
        if too_long || merge || self.estimate(Work::Delta) >= self.estimate(Work::Base) {
            Work::Base
        } else {
            Work::Delta
        }
    }

    /// Bytes that it will have, as far as that can be told.
    fn estimate(&self, work: Work) -> u64 {
        let of_rows = |rows: u64| self.base.map_or(0, |(bytes, of)| scale(bytes, rows, of));
        match (work, self.changed) {
            (Work::Base, _) | (Work::Delta, None) => of_rows(self.rows),
            (Work::Delta, Some((keys, _))) => match self.ledger.last_delta {
                Some((bytes, changes)) => scale(bytes, keys, changes),
                None => of_rows(keys),
            },
        }
    }

    fn paid(&self, work: Work) -> bool {
        let paid = (self.log_bytes * limits::CHECKPOINT_BYTES_PER_LOG_BYTE) as i64 + self.ledger.credit;
        // The new rows may compress less well than those that the estimate is drawn from.
        let estimate = self.estimate(work);
        paid >= i64::try_from(estimate.saturating_add(estimate / 4)).unwrap_or(i64::MAX)
    }

    /// Whether a checkpoint is to be made now.
    pub fn due(&self, now_ms: u64) -> bool {
        if self.log_bytes == 0 {
            return false;
        }
        let key_bytes = self.changed.map_or(0, |(_, bytes)| bytes);
        let wanted = self.log_bytes >= self.ledger.log_bytes || key_bytes >= limits::CHECKPOINT_KEYS_BYTES;
        now_ms >= self.ledger.due_ms
            || self.log_bytes >= self.ledger.log_bytes * limits::CHECKPOINT_LOG_TIMES_MAX
            || (wanted && self.paid(self.work()))
    }
}

/// `bytes` of `of` things, for `count` of them.
fn scale(bytes: u64, count: u64, of: u64) -> u64 {
    let scaled = u128::from(bytes) * u128::from(count) / u128::from(of.max(1));
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn standing() -> Standing {
        Standing {
            log_bytes: 64 * MIB,
            rows: 1_000_000,
            base: Some((100 * MIB, 1_000_000)),
            deltas: (2, 20 * MIB),
            changed: Some((100_000, 2 * 1024 * 1024)),
            ledger: Ledger::new(64 * MIB, 0, 0),
        }
    }

    #[test]
    fn what_is_written_follows_from_what_there_is() {
        let usual = standing();
        assert_eq!(usual.work(), Work::Delta);
        let cases = [
            ("no base", Standing { base: None, ..usual }),
            ("keys lost", Standing { changed: None, ..usual }),
            (
                "half a base of deltas",
                Standing {
                    deltas: (4, 50 * MIB),
                    ..usual
                },
            ),
            (
                "a chain too long",
                Standing {
                    deltas: (limits::CHECKPOINT_DELTAS_MAX, 1),
                    ..usual
                },
            ),
            (
                "more changes than rows",
                Standing {
                    changed: Some((1_000_000, 1)),
                    ..usual
                },
            ),
        ];
        for (why, standing) in cases {
            assert_eq!(standing.work(), Work::Base, "{why}");
        }
        let unpaid = Standing {
            deltas: (4, 50 * MIB),
            log_bytes: MIB,
            ..usual
        };
        assert_eq!(unpaid.work(), Work::Delta, "the base is not paid for yet");
        let too_long = Standing {
            deltas: (4, 100 * MIB),
            log_bytes: MIB,
            ..usual
        };
        assert_eq!(too_long.work(), Work::Base, "a chain of two bases gets no longer");
    }

    #[test]
    fn a_checkpoint_is_due_when_its_log_has_come_and_paid() {
        let day = limits::CHECKPOINT_AGE_MS;
        let due = |log_bytes, change: fn(&mut Standing)| {
            let mut standing = Standing {
                log_bytes,
                ..standing()
            };
            change(&mut standing);
            standing.due(day / 2)
        };
        assert!(due(64 * MIB, |_| {}));
        assert!(!due(64 * MIB - 1, |_| {}));
        assert!(due(16 * MIB, |at| at.changed =
            Some((100_000, limits::CHECKPOINT_KEYS_BYTES))));
        assert!(
            !due(1, |at| at.changed = Some((100_000, limits::CHECKPOINT_KEYS_BYTES))),
            "not paid for"
        );
        assert!(
            !due(64 * MIB, |at| at.ledger.credit = -120 * MIB as i64),
            "the last one is not paid for yet"
        );
        assert!(
            !due(64 * MIB, |at| {
                at.changed = None;
                at.rows = 1_030_000;
            }),
            "a base of 103 MiB, and a quarter to be sure"
        );
        assert!(due(65 * MIB, |at| {
            at.changed = None;
            at.rows = 1_030_000;
        }));
        assert!(
            due(256 * MIB, |at| at.ledger.credit = i64::MIN / 2),
            "the log gets no longer"
        );
        assert!(due(64 * MIB, |at| at.base = None));
    }

    #[test]
    fn age_makes_a_checkpoint_due_within_its_last_quarter_and_only_with_something_in_it() {
        let day = limits::CHECKPOINT_AGE_MS;
        let mut at = standing();
        at.log_bytes = 1;
        for chance in [0, 7, day / 8, day / 4 - 1, u64::MAX] {
            at.ledger = Ledger::new(64 * MIB, 1_000, chance);
            assert!(!at.due(1_000 + day * 3 / 4 - 1));
            assert!(at.due(1_000 + day));
        }
        at.ledger = Ledger::new(64 * MIB, 0, 0);
        assert!(!at.due(day - 1));
        at.ledger = Ledger::new(64 * MIB, 0, day / 4 - 1);
        assert!(
            at.due(day - 1),
            "shards that were opened together are due one after the other"
        );
        at.log_bytes = 0;
        assert!(!at.due(2 * day));
    }

    #[test]
    fn a_checkpoint_before_its_time_is_paid_for_afterwards() {
        let mut ledger = Ledger::new(64 * MIB, 0, 0);
        ledger.wrote(Work::Base, 100 * MIB, 1_000_000, 10 * MIB);
        assert_eq!(ledger.credit, -80 * MIB as i64);
        ledger.wrote(Work::Delta, 10 * MIB, 50_000, 64 * MIB);
        assert_eq!(ledger.credit, 38 * MIB as i64);
        assert_eq!(ledger.last_delta, Some((10 * MIB, 50_000)));
    }
}
