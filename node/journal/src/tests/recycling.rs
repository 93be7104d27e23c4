use super::{append_numbered, open, open_with, options};
use crate::{Disk, JournalError, MemoryDisk, Mode};
use std::path::Path;

#[tokio::test]
async fn released_segments_are_used_again_and_their_records_never_come_back() {
    let disk = MemoryDisk::new();
    let (journal, _) = open(&disk);
    let mut all = Vec::new();
    for round in 0..30 {
        let appended = append_numbered(&journal, 1, round * 8..round * 8 + 8).await;
        let floor = appended[0].location.segment;
        all.extend(appended);
        journal.release(1, floor);
    }
    let files = disk.list(Path::new("/j")).unwrap();
    assert!(files.len() < 8, "{files:?}");
    let oldest = journal.oldest_live_segment().unwrap();
    assert!(oldest > 3);
    let stale = all[0].location;
    assert!(matches!(
        journal.read(stale).await,
        Err(JournalError::Gone { segment: 1 })
    ));
    journal.close().await;
    let (_journal, seen) = open(&disk);
    all.retain(|one| one.location.segment >= oldest);
    assert_eq!(seen, all);
}

#[tokio::test]
async fn a_group_that_lags_pins_its_segment_and_is_named_until_it_is_dropped() {
    let disk = MemoryDisk::new();
    let (journal, _) = open(&disk);
    append_numbered(&journal, 9, 0..1).await;
    let last = append_numbered(&journal, 1, 0..100).await.pop().unwrap();
    journal.release(1, last.location.segment);
    append_numbered(&journal, 1, 0..60).await;
    assert_eq!(journal.oldest_live_segment(), Some(1));
    assert_eq!(journal.pinned_by()[0], (9, 1));
    journal.release(9, u64::MAX);
    append_numbered(&journal, 1, 0..60).await;
    assert_eq!(journal.oldest_live_segment(), Some(last.location.segment));
    assert_eq!(journal.pinned_by(), [(1, last.location.segment)]);
}

#[tokio::test]
async fn a_crash_while_a_segment_is_used_again_leaves_a_journal_that_opens() {
    for seed in 0..200 {
        let disk = MemoryDisk::new();
        let (journal, _) = open(&disk);
        let mut acknowledged = append_numbered(&journal, 1, 0..70).await;
        let floor = acknowledged.last().unwrap().location.segment;
        journal.release(1, floor);
        acknowledged.extend(append_numbered(&journal, 1, 70..70 + (seed % 50) as u8).await);
        disk.crash(seed);
        drop(journal);
        let (_journal, seen) = open(&disk);
        acknowledged.retain(|one| one.location.segment >= seen[0].location.segment);
        assert!(seen[0].location.segment <= floor);
        assert_eq!(seen, acknowledged, "seed {seed}");
    }
}

#[tokio::test]
async fn kept_segments_are_cut_to_their_length_and_never_used_again() {
    let disk = MemoryDisk::new();
    let keep = crate::Options {
        mode: Mode::Keep,
        pool: 0,
        ..options()
    };
    let mut all = Vec::new();
    for _ in 0..3 {
        let (journal, seen) = open_with(&disk, keep.clone()).unwrap();
        assert_eq!(seen, all);
        all.extend(append_numbered(&journal, 1, 0..40).await);
        journal.release(1, u64::MAX);
        journal.close().await;
    }
    let (journal, seen) = open_with(&disk, keep).unwrap();
    assert_eq!(seen, all);
    for one in &all {
        assert_eq!(journal.read(one.location).await.unwrap(), one.payload);
    }
    let first = disk.open(Path::new("/j/00000000.seg")).unwrap();
    assert!(first.len().unwrap() < 4096);
}
