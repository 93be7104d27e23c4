//! What the `Mail` service has answered since the start, in numbers.

use std::sync::atomic::{AtomicU64, Ordering};

use malle_machine::shard::{Refusal, Stored};
use malle_proto::v1::ErrorCode;

/// Codes are numbered without gaps from 0; one that a later contract adds beyond this is counted as INTERNAL.
const CODES: usize = 32;

/// Counts while the service works.
#[derive(Default)]
pub(super) struct Tally {
    refusals: [AtomicU64; CODES],
    stored: AtomicU64,
    repeated: AtomicU64,
    refused: AtomicU64,
    appended: AtomicU64,
}

/// What the `Mail` service has answered since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MailCounts {
    /// Deliveries by recipient: stored now.
    pub stored: u64,
    /// Stored before, under the same op id.
    pub repeated: u64,
    /// Refused for this recipient.
    pub refused: u64,
    /// Mails appended by their owners.
    pub appended: u64,
    /// Requests that were not done, by code; every code is there.
    pub refusals: Vec<(ErrorCode, u64)>,
    /// Bytes that requests and answers under way take in memory.
    pub bytes_in_flight: u64,
}

impl Tally {
    pub fn delivered(&self, outcomes: &[Result<Stored, Refusal>]) {
        for outcome in outcomes {
            let counter = match outcome {
                Ok(stored) if stored.repeated => &self.repeated,
                Ok(_) => &self.stored,
                Err(_) => &self.refused,
            };
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn appended(&self) {
        self.appended.fetch_add(1, Ordering::Relaxed);
    }

    pub fn refused(&self, code: ErrorCode) {
        let place = usize::try_from(i32::from(code)).unwrap_or(CODES);
        let counter = self
            .refusals
            .get(place)
            .unwrap_or(&self.refusals[ErrorCode::Internal as usize]);
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub fn read(&self, bytes_in_flight: u64) -> MailCounts {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let refusals = self.refusals.iter().zip(0..).filter_map(|(counter, code)| {
            let code = ErrorCode::try_from(code).ok()?;
            (code != ErrorCode::Unspecified).then(|| (code, count(counter)))
        });
        MailCounts {
            stored: count(&self.stored),
            repeated: count(&self.repeated),
            refused: count(&self.refused),
            appended: count(&self.appended),
            refusals: refusals.collect(),
            bytes_in_flight,
        }
    }
}
