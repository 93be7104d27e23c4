use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::{append_numbered, open, options};
use crate::{Disk, Journal, JournalError, MemoryDisk, Mode, Options, Replay, ReplayRefusal, ReplayedRecord};

fn keep() -> Options {
    Options {
        mode: Mode::Keep,
        pool: 0,
        ..options()
    }
}

/// An owner that does without any segment, and says what it was told.
#[derive(Debug, Default)]
struct Owner {
    payloads: BTreeSet<u8>,
    lost: Vec<u64>,
    damaged: Vec<(u64, Range<u32>)>,
}

impl Replay for Owner {
    fn record(&mut self, record: ReplayedRecord<'_>) -> Result<(), ReplayRefusal> {
        self.payloads.insert(record.payload[0]);
        Ok(())
    }

    fn lost(&mut self, segment: u64) -> bool {
        self.lost.push(segment);
        true
    }

    fn damaged(&mut self, segment: u64, bytes: Range<u32>) -> bool {
        self.damaged.push((segment, bytes));
        true
    }
}

fn reopen(disk: &MemoryDisk) -> (Journal, Owner) {
    let mut owner = Owner::default();
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let journal = Journal::open(disk, Path::new("/j"), keep(), &mut owner).unwrap();
    (journal, owner)
}

fn files(disk: &MemoryDisk) -> usize {
    let names = disk.list(Path::new("/j")).unwrap();
    names.iter().filter(|name| name.ends_with(".seg")).count()
}

fn generation_of(journal: &Journal, segment: u64) -> u64 {
    let kept = journal.kept();
    kept.iter().find(|kept| kept.segment == segment).unwrap().generation
}

#[tokio::test]
async fn a_segment_that_was_given_up_is_gone_with_its_file_and_the_others_stay() {
    let disk = MemoryDisk::new();
    let (journal, _) = reopen(&disk);
    let appended = append_numbered(&journal, 1, 0..100).await;
    let (before, kept) = (files(&disk), journal.kept());
    assert!(kept.len() >= 4, "{kept:?}");
    let generation = kept[1].generation;
    assert!(journal.discard(2, generation).await.unwrap());
    assert_eq!(files(&disk), before - 1);
    assert!(journal.kept().iter().all(|kept| kept.segment != 2));
    for one in &appended {
        match journal.read(one.location).await {
            Ok(payload) => assert_eq!(payload, one.payload),
            Err(JournalError::Gone { segment: 2 }) => assert_eq!(one.location.segment, 2),
            Err(error) => panic!("{error}"),
        }
    }
    let again = journal.discard(2, generation).await;
    assert!(matches!(again, Err(JournalError::Gone { segment: 2 })));
    let later = append_numbered(&journal, 1, 100..130).await;
    assert!(
        later
            .iter()
            .all(|one| one.location.segment >= kept.last().unwrap().segment)
    );
    journal.close().await;
    let (journal, owner) = reopen(&disk);
    assert_eq!((&owner.lost[..], &owner.damaged[..]), (&[2][..], &[][..]));
    let there: BTreeSet<u8> = appended
        .iter()
        .chain(&later)
        .filter(|one| one.location.segment != 2)
        .map(|one| one.payload[0])
        .collect();
    assert_eq!(owner.payloads, there);
    assert_eq!(append_numbered(&journal, 1, 0..1).await.len(), 1);
}

#[tokio::test]
async fn the_newest_segment_one_with_a_reader_and_one_of_another_life_are_left() {
    let disk = MemoryDisk::new();
    let (journal, _) = reopen(&disk);
    append_numbered(&journal, 1, 0..60).await;
    let kept = journal.kept();
    let newest = kept.last().unwrap();
    assert!(!journal.discard(newest.segment, newest.generation).await.unwrap());
    let other_life = journal.discard(1, kept[0].generation ^ 1).await;
    assert!(matches!(other_life, Err(JournalError::Gone { segment: 1 })));
    let reader = Arc::clone(&journal.inner.shared.segments().live[&1]);
    assert!(!journal.discard(1, reader.generation).await.unwrap());
    assert_eq!(journal.kept(), kept);
    let generation = reader.generation;
    drop(reader);
    assert!(journal.discard(1, generation).await.unwrap());
    journal.close().await;
    let closed = journal.discard(2, kept[1].generation).await;
    assert!(matches!(closed, Err(JournalError::Failed { .. })));
    // After a start nobody writes the newest any more: it carries the numbering all the same.
    let (journal, _) = reopen(&disk);
    assert!(!journal.discard(newest.segment, newest.generation).await.unwrap());
}

#[tokio::test]
async fn a_log_gives_up_nothing_but_what_its_groups_release() {
    let disk = MemoryDisk::new();
    let (journal, _) = open(&disk);
    append_numbered(&journal, 1, 0..60).await;
    let refused = journal.discard(1, generation_of(&journal, 1)).await;
    assert!(matches!(refused, Err(JournalError::Options(_))));
}

#[tokio::test]
async fn the_lengths_that_are_told_are_those_of_the_records_before_and_after_a_start() {
    let disk = MemoryDisk::new();
    let (journal, _) = reopen(&disk);
    let appended = append_numbered(&journal, 1, 0..100).await;
    let kept = journal.kept();
    for segment in &kept {
        let records = appended.iter().filter(|one| one.location.segment == segment.segment);
        assert_eq!(
            segment.bytes,
            64 + records.count() as u64 * 136,
            "segment {}",
            segment.segment
        );
    }
    journal.close().await;
    assert_eq!(reopen(&disk).0.kept(), kept);
}

/// The power goes at each step of giving a segment up: the segment is as it was, or gone; no other lacks a record, and none is called
/// damaged.
#[tokio::test]
async fn a_crash_at_any_step_leaves_the_segment_whole_or_gone() {
    let mut outcomes = BTreeSet::new();
    for seed in 0..300 {
        let disk = MemoryDisk::new();
        let (journal, _) = reopen(&disk);
        let appended = append_numbered(&journal, 1, 0..100).await;
        let victim = 1 + seed % 3;
        let step = seed as u32 / 3 % 4;
        if step < 3 {
            disk.crash_at_sync(step, seed);
        }
        let outcome = journal.discard(victim, generation_of(&journal, victim)).await;
        disk.crash(seed);
        drop(journal);
        let (journal, owner) = reopen(&disk);
        assert!(owner.damaged.is_empty(), "seed {seed}: {owner:?}");
        assert!(
            owner.lost.is_empty() || owner.lost == [victim],
            "seed {seed}: {owner:?}"
        );
        let gone = journal.kept().iter().all(|kept| kept.segment != victim);
        assert!(gone || outcome.is_err(), "seed {seed}: an answer that was not durable");
        for one in &appended {
            let there = !gone || one.location.segment != victim;
            assert_eq!(owner.payloads.contains(&one.payload[0]), there, "seed {seed}: {one:?}");
        }
        // A file whose header says that it was given up is used again.
        let later = append_numbered(&journal, 1, 100..130).await;
        for one in &later {
            assert_eq!(journal.read(one.location).await.unwrap(), one.payload, "seed {seed}");
        }
        outcomes.insert((step, gone));
    }
    let expected = [(0, false), (1, false), (1, true), (3, true)];
    assert!(
        expected.iter().all(|outcome| outcomes.contains(outcome)),
        "{outcomes:?}"
    );
}
