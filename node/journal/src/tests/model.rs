//! The journal against a list: whatever happens, what was acknowledged is there, in order, and nothing else is.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::{Seen, open_with, options, record};
use crate::{Durability, Journal, JournalError, Location, MemoryDisk, Mode, Options};

#[derive(Debug, Clone)]
enum Step {
    /// Submits records of these sizes without waiting between them; awaits the last when the flag is set.
    Submit(Vec<(u16, bool)>, bool),
    /// A group says that it needs nothing before its latest acknowledged record.
    Release(u8),
    Close,
    Kill,
    Crash(u64),
    /// The power is cut, or the process killed, in the middle of this many syncs while these are being written.
    Cut(Vec<(u16, bool)>, u32, Option<u64>),
    /// The disk has so many bytes left while these are being written. Then space comes back; or the process ends first, and starts on the
    /// full disk.
    Full(Vec<(u16, bool)>, u64, FullEnd),
}

/// What comes first on a full disk.
#[derive(Debug, Clone)]
enum FullEnd {
    Space,
    Kill,
    Crash(u64),
}

fn full_end() -> impl Strategy<Value = FullEnd> {
    prop_oneof![
        3 => Just(FullEnd::Space),
        1 => Just(FullEnd::Kill),
        1 => any::<u64>().prop_map(FullEnd::Crash),
    ]
}

fn records() -> impl Strategy<Value = Vec<(u16, bool)>> {
    prop::collection::vec((0u16..3000, prop::bool::weighted(0.8)), 1..12)
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (records(), any::<bool>()).prop_map(|(records, wait)| Step::Submit(records, wait)),
        3 => (records(), 0u32..3, prop::option::weighted(0.8, any::<u64>()))
            .prop_map(|(records, syncs, crash)| Step::Cut(records, syncs, crash)),
        4 => (records(), prop_oneof![Just(0), 0u64..60_000], full_end())
            .prop_map(|(records, left, end)| Step::Full(records, left, end)),
        3 => (0u8..3).prop_map(Step::Release),
        1 => Just(Step::Close),
        1 => Just(Step::Kill),
        2 => any::<u64>().prop_map(Step::Crash),
    ]
}

/// A record's fate, shared with its completion.
#[derive(Debug, Clone)]
struct Submitted {
    group: u64,
    payload: Vec<u8>,
    location: Arc<Mutex<Option<Location>>>,
    /// It was answered that there is no room for it.
    refused: Arc<AtomicBool>,
}

struct World {
    disk: MemoryDisk,
    options: Options,
    journal: Option<Journal>,
    /// All records that may still be on disk, in the order of their submits.
    submitted: Vec<Submitted>,
    /// What each group released up to.
    floors: [u64; 3],
    count: u64,
}

impl World {
    async fn submit(&mut self, records: &[(u16, bool)], wait: bool) {
        let journal = self.journal.clone().unwrap();
        for &(bytes, sync) in records {
            self.count += 1;
            let group = self.count % 3;
            let mut payload = self.count.to_le_bytes().to_vec();
            payload.resize(8 + usize::from(bytes), self.count as u8);
            let location = Arc::new(Mutex::new(None));
            let refused = Arc::new(AtomicBool::new(false));
            self.submitted.push(Submitted {
                group,
                payload: payload.clone(),
                location: Arc::clone(&location),
                refused: Arc::clone(&refused),
            });
            let durability = if sync { Durability::Sync } else { Durability::Ride };
            let done = move |outcome: Result<Location, JournalError>| {
                refused.store(matches!(outcome, Err(JournalError::Full)), Ordering::SeqCst);
                *location.lock().unwrap() = outcome.ok();
            };
            journal.submit(record(group, &payload), durability, done).await;
        }
        if wait {
            self.count += 1;
            let (group, payload) = (0, self.count.to_be_bytes().to_vec());
            let location = journal.append(record(group, &payload)).await.unwrap();
            let location = Arc::new(Mutex::new(Some(location)));
            self.submitted.push(Submitted {
                group,
                payload,
                location,
                refused: Arc::default(),
            });
        }
    }

    /// Submits as much as may be in flight, while the disk has this much left, and waits until all is answered or nothing moves any more.
    async fn submit_until_full(&mut self, records: &[(u16, bool)], left: u64) -> Result<(), TestCaseError> {
        let journal = self.journal.clone().unwrap();
        self.disk.set_free_bytes(Some(left));
        let answered = Arc::new(Mutex::new(0));
        let mut taken = 0;
        for &(bytes, _) in records {
            self.count += 1;
            let group = self.count % 3;
            let mut payload = self.count.to_le_bytes().to_vec();
            payload.resize(8 + usize::from(bytes), self.count as u8);
            let one = Submitted {
                group,
                payload: payload.clone(),
                location: Arc::default(),
                refused: Arc::default(),
            };
            let (told, count) = (one.clone(), Arc::clone(&answered));
            let done = move |outcome: Result<Location, JournalError>| {
                told.refused
                    .store(matches!(outcome, Err(JournalError::Full)), Ordering::SeqCst);
                *told.location.lock().unwrap() = outcome.ok();
                *count.lock().unwrap() += 1;
            };
            if journal
                .try_submit(record(group, &payload), Durability::Sync, done)
                .is_err()
            {
                break;
            }
            taken += 1;
            self.submitted.push(one);
        }
        let waits = |journal: &Journal| self.options.mode == Mode::Recycle && journal.is_full();
        let until = malle_rt::now() + std::time::Duration::from_secs(30);
        while *answered.lock().unwrap() < taken && !waits(&journal) {
            prop_assert!(malle_rt::now() < until, "neither answered nor full");
            tokio::task::yield_now().await;
        }
        prop_assert!(journal.failed().borrow().is_none(), "a full disk is no failure");
        Ok(())
    }

    /// There is room again: a log that waited answers everything, and nothing with a refusal.
    async fn room_again(&mut self) -> Result<(), TestCaseError> {
        self.disk.set_free_bytes(None);
        self.submit(&[], true).await;
        for one in &self.submitted {
            let refused = one.refused.load(Ordering::SeqCst);
            prop_assert!(!refused || self.options.mode == Mode::Keep, "a log refuses nothing");
        }
        Ok(())
    }

    fn release(&mut self, group: u8) {
        let latest = self.submitted.iter().rev().filter(|one| one.group == u64::from(group));
        let Some(floor) = latest
            .filter_map(|one| *one.location.lock().unwrap())
            .map(|at| at.segment)
            .next()
        else {
            return;
        };
        self.floors[usize::from(group)] = floor;
        self.journal.as_ref().unwrap().release(u64::from(group), floor);
    }

    /// The process is dead, or gets no further; so is what it wrote last.
    async fn end(&mut self) -> Result<(), TestCaseError> {
        self.journal.as_ref().unwrap().close().await;
        self.disk.kill();
        self.reopen()
    }

    /// Opens again and compares.
    fn reopen(&mut self) -> Result<(), TestCaseError> {
        self.journal = None;
        let (journal, seen) =
            open_with(&self.disk, self.options.clone()).map_err(|e| TestCaseError::fail(e.to_string()))?;
        self.compare(&seen)?;
        for floor in 0..3u64 {
            journal.release(floor, self.floors[floor as usize]);
        }
        self.journal = Some(journal);
        Ok(())
    }

    fn compare(&mut self, seen: &[Seen]) -> Result<(), TestCaseError> {
        let mut replayed = seen.iter().peekable();
        let mut kept = Vec::new();
        for one in self.submitted.drain(..) {
            let location = *one.location.lock().unwrap();
            if replayed
                .peek()
                .is_some_and(|next| next.payload == one.payload && next.group == one.group)
            {
                let next = replayed.next().expect("just peeked");
                prop_assert!(!one.refused.load(Ordering::SeqCst), "refused, and yet there");
                prop_assert!(location.is_none_or(|location| location == next.location));
                *one.location.lock().unwrap() = Some(next.location);
                kept.push(one);
            } else if let Some(location) = location {
                let released = location.segment < self.floors[one.group as usize];
                prop_assert!(
                    released,
                    "acknowledged at {:?} and gone; floors {:?}",
                    location,
                    self.floors
                );
            }
        }
        prop_assert_eq!(
            replayed.next(),
            None,
            "replayed what was not submitted, or out of order"
        );
        self.submitted = kept;
        Ok(())
    }
}

async fn run(steps: Vec<Step>, mode: Mode) -> Result<(), TestCaseError> {
    // Segments of several pages: a batch can be torn in its middle, and a first batch without its header.
    let options = Options {
        mode,
        segment_bytes: 5 * 4096,
        batch_max_bytes: 4 * 4096,
        in_flight_max_bytes: 32_768,
        ..options()
    };
    let disk = MemoryDisk::new();
    let mut world = World {
        disk,
        options,
        journal: None,
        submitted: Vec::new(),
        floors: [0; 3],
        count: 0,
    };
    world.reopen()?;
    for step in steps {
        match step {
            Step::Submit(records, wait) => world.submit(&records, wait).await,
            Step::Release(group) => world.release(group),
            Step::Close => {
                world.journal.as_ref().unwrap().close().await;
                let is_answered =
                    |one: &Submitted| one.location.lock().unwrap().is_some() || one.refused.load(Ordering::SeqCst);
                prop_assert!(world.submitted.iter().all(is_answered));
                world.reopen()?;
            }
            Step::Kill => {
                world.disk.kill();
                world.end().await?;
            }
            Step::Crash(seed) => {
                world.disk.crash(seed);
                world.end().await?;
            }
            Step::Cut(records, syncs, crash) => {
                match crash {
                    Some(seed) => world.disk.crash_at_sync(syncs, seed),
                    None => world.disk.kill_at_sync(syncs),
                }
                world.submit(&records, false).await;
                world.end().await?;
            }
            Step::Full(records, left, end) => {
                world.submit_until_full(&records, left).await?;
                match end {
                    FullEnd::Space => {}
                    FullEnd::Kill => {
                        world.disk.kill();
                        world.end().await?;
                    }
                    FullEnd::Crash(seed) => {
                        world.disk.crash(seed);
                        world.end().await?;
                    }
                }
                world.room_again().await?;
            }
        }
    }
    world.disk.crash(1);
    // A slot that is still being prepared must not be given up under the eyes of the next process.
    world.end().await
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_log_keeps_what_it_acknowledged_through_crashes_kills_and_recycling(
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(steps, Mode::Recycle))?;
    }

    #[test]
    fn volumes_keep_what_they_acknowledged_through_crashes_and_kills(steps in prop::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(steps, Mode::Keep))?;
    }
}
