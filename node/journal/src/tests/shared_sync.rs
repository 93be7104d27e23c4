use std::sync::{Arc, Mutex};

use super::{open, record};
use crate::{Durability, JournalError, MemoryDisk};

#[tokio::test]
async fn concurrent_submitters_share_syncs_and_are_answered_in_the_order_of_the_disk() {
    let disk = MemoryDisk::new();
    let (journal, _) = open(&disk);
    let answered = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = Vec::new();
    for group in 0..64u64 {
        let (journal, answered) = (journal.clone(), Arc::clone(&answered));
        tasks.push(tokio::spawn(async move {
            for number in 0..10u8 {
                let (tell, told) = tokio::sync::oneshot::channel();
                let answered = Arc::clone(&answered);
                let done = move |outcome: Result<crate::Location, JournalError>| {
                    answered.lock().unwrap().push((group, number, outcome.unwrap()));
                    tell.send(()).unwrap();
                };
                journal
                    .submit(record(group, &[number; 40]), Durability::Sync, done)
                    .await;
                told.await.unwrap();
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(journal.records(), 640);
    assert!(journal.syncs() < 640 / 4, "{} syncs for 640 records", journal.syncs());
    let answered = answered.lock().unwrap().clone();
    assert!(
        answered.is_sorted_by_key(|(_, _, location)| *location),
        "completions follow the order of the disk"
    );
    journal.close().await;
    let (_journal, seen) = open(&disk);
    let replayed: Vec<_> = seen
        .iter()
        .map(|one| (one.group, one.payload[0], one.location))
        .collect();
    assert_eq!(replayed, answered);
}

#[tokio::test]
async fn a_riding_record_costs_no_sync_and_goes_out_with_the_next_or_at_the_end() {
    let disk = MemoryDisk::new();
    let (journal, _) = open(&disk);
    let order = Arc::new(Mutex::new(Vec::new()));
    let note = |name: &'static str| {
        let order = Arc::clone(&order);
        move |outcome: Result<crate::Location, JournalError>| order.lock().unwrap().push((name, outcome.is_ok()))
    };
    journal.submit(record(1, b"ride"), Durability::Ride, note("ride")).await;
    journal.append(record(1, b"sync")).await.unwrap();
    assert_eq!(*order.lock().unwrap(), [("ride", true)]);
    assert_eq!(journal.syncs(), 1);
    journal
        .submit(record(1, b"last ride"), Durability::Ride, note("last ride"))
        .await;
    journal.close().await;
    assert_eq!(*order.lock().unwrap(), [("ride", true), ("last ride", true)]);
    drop(journal);
    let (_journal, seen) = open(&disk);
    let payloads: Vec<&[u8]> = seen.iter().map(|one| &one.payload[..]).collect();
    assert_eq!(payloads, [&b"ride"[..], b"sync", b"last ride"]);
}

#[tokio::test]
async fn riders_never_starve_a_record_that_needs_all_the_room() {
    let disk = MemoryDisk::new();
    let options = crate::Options {
        in_flight_max_bytes: 1000,
        ..super::options()
    };
    let (journal, _) = super::open_with(&disk, options).unwrap();
    for _ in 0..20 {
        journal.submit(record(1, &[0; 60]), Durability::Ride, |_| {}).await;
    }
    journal.append(record(1, &[1; 2000])).await.unwrap();
}

#[tokio::test]
async fn a_try_without_room_says_busy_and_a_wait_gets_its_turn() {
    let disk = MemoryDisk::new();
    let (journal, _) = open(&disk);
    // This thread runs nothing else until it awaits, so the writer takes nothing meanwhile.
    let mut taken = 0;
    let refused = loop {
        match journal.try_submit(record(1, &[0; 1000]), Durability::Sync, |outcome| {
            assert!(outcome.is_ok())
        }) {
            Ok(()) => taken += 1,
            Err(refused) => break refused,
        }
    };
    assert!(matches!(refused, JournalError::Busy));
    assert_eq!(taken, 8192 / 1032);
    journal.append(record(1, &[0; 1000])).await.unwrap();
    assert_eq!(journal.records(), taken as u64 + 1);
}

#[tokio::test]
async fn a_submit_that_is_given_up_is_still_answered() {
    let disk = MemoryDisk::new();
    let (journal, _) = open(&disk);
    while journal
        .try_submit(record(1, &[0; 1000]), Durability::Sync, |_| {})
        .is_ok()
    {}
    let (tell, told) = tokio::sync::oneshot::channel();
    {
        let submit = journal.submit(record(1, &[0; 1000]), Durability::Sync, move |outcome| {
            tell.send(outcome).unwrap();
        });
        let mut submit = std::pin::pin!(submit);
        assert!(futures::poll!(&mut submit).is_pending());
    }
    assert!(matches!(told.await.unwrap(), Err(JournalError::Failed { .. })));
}
