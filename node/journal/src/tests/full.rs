//! A disk without room for another segment: volumes refuse, a log waits, nobody forgets anything, and both go on when there is room.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{Seen, append_numbered, open, open_with, options, record};
use crate::{Durability, Journal, JournalError, Location, MemoryDisk, Mode, Options};

fn keep() -> Options {
    Options {
        mode: Mode::Keep,
        pool: 0,
        ..options()
    }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = malle_rt::now() + Duration::from_secs(30);
    while !condition() {
        assert!(malle_rt::now() < deadline, "never: {what}");
        tokio::task::yield_now().await;
    }
}

type Outcomes = Arc<Mutex<Vec<Result<Location, JournalError>>>>;

/// Submits records of 500 bytes without waiting for them, within what may be in flight.
fn submit(journal: &Journal, count: u8) -> Outcomes {
    let outcomes = Outcomes::default();
    for number in 0..count {
        let told = outcomes.clone();
        let done = move |outcome| told.lock().unwrap().push(outcome);
        journal
            .try_submit(record(1, &[number; 500]), Durability::Sync, done)
            .unwrap();
    }
    outcomes
}

#[tokio::test]
async fn volumes_refuse_what_finds_no_segment_and_take_it_once_there_is_room() {
    let disk = MemoryDisk::new();
    let (journal, _) = open_with(&disk, keep()).unwrap();
    let mut all = append_numbered(&journal, 1, 0..3).await;
    disk.set_free_bytes(Some(6_000));
    let refused = loop {
        match journal.append(record(1, &[9; 100])).await {
            Ok(location) => all.push(Seen {
                group: 1,
                kind: 7,
                payload: vec![9; 100],
                location,
            }),
            Err(refused) => break refused,
        }
        assert!(all.len() < 1000, "the disk never filled");
    };
    assert!(matches!(refused, JournalError::Full), "{refused}");
    assert!(journal.is_full() && journal.failed().borrow().is_none());
    assert!(matches!(
        journal.append(record(1, &[8; 100])).await,
        Err(JournalError::Full)
    ));
    for one in &all {
        assert_eq!(journal.read(one.location).await.unwrap(), one.payload);
    }
    disk.set_free_bytes(None);
    all.extend(append_numbered(&journal, 1, 100..160).await);
    assert!(!journal.is_full());
    disk.crash(3);
    drop(journal);
    let (_journal, seen) = open_with(&disk, keep()).unwrap();
    assert_eq!(seen, all, "what was refused is nowhere");
}

#[tokio::test]
async fn a_preparation_that_finds_no_room_leaves_nothing_behind() {
    let disk = MemoryDisk::new();
    let (journal, _) = open_with(&disk, keep()).unwrap();
    append_numbered(&journal, 1, 0..3).await;
    disk.set_free_bytes(Some(1_000));
    let before = disk.used_bytes();
    while journal.append(record(1, &[9; 100])).await.is_ok() {}
    for _ in 0..10 {
        assert!(journal.append(record(1, &[9; 100])).await.is_err());
    }
    assert!(disk.used_bytes() <= before, "tries do not fill the disk");
}

#[tokio::test]
async fn a_log_waits_for_room_and_answers_in_its_order() {
    let disk = MemoryDisk::new();
    let (journal, _) = open(&disk);
    append_numbered(&journal, 1, 0..3).await;
    disk.set_free_bytes(Some(0));
    let outcomes = submit(&journal, 14);
    until("the log is full", || journal.is_full()).await;
    let answered = outcomes.lock().unwrap().len();
    assert!(answered < 14 && journal.failed().borrow().is_none());
    disk.set_free_bytes(None);
    until("all are answered", || outcomes.lock().unwrap().len() == 14).await;
    let locations: Vec<Location> = outcomes
        .lock()
        .unwrap()
        .drain(..)
        .map(|outcome| outcome.unwrap())
        .collect();
    assert!(locations.is_sorted());
    journal.close().await;
    let (_journal, seen) = open(&disk);
    assert_eq!(seen.len(), 3 + 14);
}

#[tokio::test]
async fn a_log_that_waits_uses_a_segment_as_soon_as_one_is_released() {
    let disk = MemoryDisk::new();
    let (journal, _) = open(&disk);
    append_numbered(&journal, 1, 0..3).await;
    disk.set_free_bytes(Some(0));
    let outcomes = submit(&journal, 14);
    until("the log is full", || journal.is_full()).await;
    let answered = outcomes.lock().unwrap().len();
    journal.release(1, u64::MAX);
    until("it goes on", || outcomes.lock().unwrap().len() > answered).await;
    assert!(outcomes.lock().unwrap().iter().all(Result::is_ok));
}

#[tokio::test]
async fn a_log_lives_on_its_reserve_while_there_is_no_room() {
    let with_reserve = Options {
        reserve: 4,
        ..options()
    };
    let disk = MemoryDisk::new();
    let (journal, _) = open_with(&disk, with_reserve.clone()).unwrap();
    append_numbered(&journal, 1, 0..1).await;
    disk.set_free_bytes(Some(0));
    // A segment takes 29 of them.
    let appended = append_numbered(&journal, 1, 1..116).await;
    assert!(!journal.is_full());
    assert_eq!(appended.last().unwrap().location.segment, 4);
    journal.close().await;
    drop(journal);
    disk.kill();
    // The start, too, makes up for what was used, as far as it can.
    let (journal, seen) = open_with(&disk, with_reserve.clone()).unwrap();
    assert_eq!(seen.len(), appended.len() + 1);
    journal.close().await;
    drop(journal);
    disk.set_free_bytes(None);
    let (journal, _) = open_with(&disk, with_reserve).unwrap();
    let free = journal.inner.shared.segments().free.len();
    assert_eq!(free, 4);
}

#[tokio::test]
async fn a_log_that_waits_ends_when_it_is_closed_and_its_records_say_so() {
    let disk = MemoryDisk::new();
    let (journal, _) = open(&disk);
    let before = append_numbered(&journal, 1, 0..3).await;
    disk.set_free_bytes(Some(0));
    let outcomes = submit(&journal, 14);
    until("the log is full", || journal.is_full()).await;
    journal.close().await;
    let outcomes = std::mem::take(&mut *outcomes.lock().unwrap());
    assert_eq!(outcomes.len(), 14, "each is answered exactly once");
    let written = outcomes.iter().take_while(|outcome| outcome.is_ok()).count();
    assert!(written < 14 && outcomes[written..].iter().all(Result::is_err));
    drop(journal);
    let (_journal, seen) = open(&disk);
    assert_eq!(seen.len(), before.len() + written);
}

#[tokio::test]
async fn the_first_start_on_a_full_disk_opens_and_goes_on_when_there_is_room() {
    for options in [options(), keep()] {
        let disk = MemoryDisk::new();
        disk.set_free_bytes(Some(100));
        let (journal, _) = open_with(&disk, options).unwrap();
        let outcomes = submit(&journal, 1);
        until("it finds no room", || journal.is_full()).await;
        disk.set_free_bytes(None);
        if outcomes.lock().unwrap().is_empty() {
            until("the log goes on", || !outcomes.lock().unwrap().is_empty()).await;
            assert!(outcomes.lock().unwrap()[0].is_ok());
        }
        append_numbered(&journal, 1, 0..1).await;
    }
}
