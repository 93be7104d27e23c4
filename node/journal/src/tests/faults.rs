use std::io::IoSlice;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{append_numbered, open, open_with, options, record};
use crate::record::{RECORD_HEADER_BYTES, framed_bytes};
use crate::shared::slot_path;
use crate::{Disk, Durability, Journal, JournalError, MemoryDisk, Mode, Replay, ReplayRefusal, ReplayedRecord};

/// The slot file that holds this segment.
fn file_of(journal: &Journal, segment: u64) -> std::path::PathBuf {
    let slot = journal.inner.shared.segments().live[&segment].slot;
    slot_path(Path::new("/j"), slot)
}

#[tokio::test]
async fn what_was_appended_is_replayed_and_read_after_a_clean_end() {
    let disk = MemoryDisk::new();
    let (journal, _) = open(&disk);
    let appended = append_numbered(&journal, 5, 0..100).await;
    assert!(appended.last().unwrap().location.segment > 3, "the test rotates");
    journal.close().await;
    let (journal, seen) = open(&disk);
    assert_eq!(seen, appended);
    for one in &appended {
        assert_eq!(journal.read(one.location).await.unwrap(), one.payload);
    }
}

#[tokio::test]
async fn a_second_journal_on_the_same_directory_is_refused() {
    let disk = MemoryDisk::new();
    let (_journal, _) = open(&disk);
    assert!(matches!(open_with(&disk, options()), Err(JournalError::Locked { .. })));
}

#[tokio::test]
async fn a_journal_of_another_node_is_refused() {
    let disk = MemoryDisk::new();
    let (journal, _) = open(&disk);
    append_numbered(&journal, 1, 0..1).await;
    journal.close().await;
    let other = open_with(&disk, crate::Options { node: 2, ..options() });
    assert!(matches!(other, Err(JournalError::WrongNode { expected: 2, found: 1 })));
}

#[tokio::test]
async fn any_flipped_bit_in_a_durable_record_before_others_is_refused_by_name() {
    for bit in (0..8 * (RECORD_HEADER_BYTES as u64 + 100)).step_by(7) {
        let disk = MemoryDisk::new();
        let (journal, _) = open(&disk);
        let appended = append_numbered(&journal, 1, 0..3).await;
        let hit = appended[1].location;
        disk.flip_bit(
            &file_of(&journal, hit.segment),
            u64::from(hit.offset) + bit / 8,
            (bit % 8) as u8,
        );
        assert!(
            matches!(journal.read(hit).await, Err(JournalError::Corrupt { .. })),
            "bit {bit}"
        );
        journal.close().await;
        match open_with(&disk, options()) {
            Err(JournalError::Damaged { segment, offset }) => assert_eq!((segment, offset), (hit.segment, hit.offset)),
            other => panic!("bit {bit}: {:?}", other.map(|(_, seen)| seen)),
        }
    }
}

#[tokio::test]
async fn the_last_record_of_a_full_segment_is_not_taken_for_a_torn_tail() {
    let disk = MemoryDisk::new();
    let (journal, _) = open(&disk);
    let appended = append_numbered(&journal, 1, 0..60).await;
    let place = appended.iter().position(|one| one.location.segment == 2).unwrap();
    let hit = appended[place - 1].location;
    disk.flip_bit(&file_of(&journal, 1), u64::from(hit.offset) + 40, 0);
    journal.close().await;
    let refused = open_with(&disk, options());
    assert!(matches!(refused, Err(JournalError::Damaged { segment: 1, offset }) if offset == hit.offset));
}

#[tokio::test]
async fn a_missing_segment_and_a_damaged_header_are_refused() {
    let disk = MemoryDisk::new();
    let (journal, _) = open(&disk);
    append_numbered(&journal, 1, 0..90).await;
    let (first, second) = (file_of(&journal, 1), file_of(&journal, 2));
    journal.close().await;
    disk.flip_bit(&first, 20, 3);
    assert!(matches!(
        open_with(&disk, options()),
        Err(JournalError::DamagedHeader { .. })
    ));
    disk.flip_bit(&first, 20, 3);
    disk.remove(&second).unwrap();
    assert!(matches!(
        open_with(&disk, options()),
        Err(JournalError::Missing { segment: 2 })
    ));
}

#[tokio::test]
async fn hostile_lengths_in_a_header_cost_nothing_and_end_the_tail() {
    let disk = MemoryDisk::new();
    let (journal, _) = open(&disk);
    let appended = append_numbered(&journal, 1, 0..2).await;
    let path = file_of(&journal, 1);
    journal.close().await;
    let last = appended[1].location;
    let behind = u64::from(last.offset) + framed_bytes(100) as u64;
    for length in [u32::MAX, u32::MAX - 7, 1 << 31, 4096, 100] {
        let generation = last.generation;
        // Even with a checksum that fits, as nothing but our own writer could make it.
        let forged = crate::record::RecordHeader {
            payload_bytes: length,
            group: 1,
            payload_crc: 1,
            durable_below: last.offset,
            kind: 1,
        };
        let bytes = forged.encode(generation, behind as u32);
        disk.open(&path)
            .unwrap()
            .write_at(behind, &mut [IoSlice::new(&bytes)])
            .unwrap();
        let (journal, seen) = open(&disk);
        assert_eq!(seen, appended, "length {length}");
        journal.close().await;
    }
}

/// Keeps what is whole and notes what is not, as volumes do.
#[derive(Default)]
struct Lenient {
    payloads: Vec<u8>,
    damaged: Vec<(u64, Range<u32>)>,
}

impl Replay for Lenient {
    fn record(&mut self, record: ReplayedRecord<'_>) -> Result<(), ReplayRefusal> {
        self.payloads.push(record.payload[0]);
        Ok(())
    }

    fn damaged(&mut self, segment: u64, bytes: Range<u32>) -> bool {
        self.damaged.push((segment, bytes));
        true
    }
}

#[tokio::test]
async fn a_caller_whose_records_stand_alone_may_go_on_behind_damage() {
    let disk = MemoryDisk::new();
    let keep = crate::Options {
        mode: Mode::Keep,
        pool: 0,
        ..options()
    };
    let (journal, _) = open_with(&disk, keep.clone()).unwrap();
    let appended = append_numbered(&journal, 1, 0..60).await;
    for hit in [3, 50] {
        let location = appended[hit].location;
        disk.flip_bit(&file_of(&journal, location.segment), u64::from(location.offset) + 60, 1);
    }
    journal.close().await;
    drop(journal);
    let mut lenient = Lenient::default();
    let disk: Arc<dyn Disk> = Arc::new(disk);
    let _journal = Journal::open(disk, Path::new("/j"), keep, &mut lenient).unwrap();
    assert_eq!(
        lenient.payloads,
        (0..60).filter(|number| ![3, 50].contains(number)).collect::<Vec<u8>>()
    );
    let [one, other] = &lenient.damaged[..] else {
        panic!("two places are damaged: {:?}", lenient.damaged)
    };
    for ((segment, bytes), hit) in [(one, 3), (other, 50)] {
        let (here, next) = (appended[hit].location, appended[hit + 1].location);
        let until = if next.segment == here.segment {
            next.offset
        } else {
            bytes.end
        };
        assert_eq!((*segment, bytes.clone()), (here.segment, here.offset..until));
    }
}

#[tokio::test]
async fn a_failed_sync_stops_the_journal_for_good() {
    let disk = MemoryDisk::new();
    let (journal, _) = open(&disk);
    let before = append_numbered(&journal, 1, 0..3).await;
    let mut failed = journal.failed();
    disk.fail_next_syncs(1);
    let outcomes = Arc::new(Mutex::new(Vec::new()));
    for number in 0..20 {
        let outcomes = Arc::clone(&outcomes);
        let done =
            move |outcome: Result<_, JournalError>| outcomes.lock().unwrap().push(outcome.map_err(|e| e.to_string()));
        journal.submit(record(1, &[number; 100]), Durability::Sync, done).await;
    }
    let stopped = malle_rt::timeout(Duration::from_secs(10), failed.wait_for(Option::is_some)).await;
    let reason = stopped.unwrap().unwrap().clone().unwrap();
    assert!(reason.contains("sync failed"), "{reason}");
    let late = journal.append(record(1, b"late")).await;
    assert!(matches!(late, Err(JournalError::Failed { reason }) if reason.contains("sync failed")));
    journal.close().await;
    let outcomes = outcomes.lock().unwrap().clone();
    assert_eq!(outcomes.len(), 20, "each is answered exactly once");
    assert!(
        outcomes
            .iter()
            .all(|outcome| matches!(outcome, Err(why) if why.contains("sync failed"))),
        "{outcomes:?}"
    );
    assert_eq!(
        journal.read(before[0].location).await.unwrap(),
        before[0].payload,
        "what was durable is still read"
    );
}

#[tokio::test]
async fn what_a_killed_process_left_in_the_page_cache_is_durable_before_it_is_replayed() {
    for seed in 0..16 {
        let disk = MemoryDisk::new();
        let (journal, _) = open(&disk);
        append_numbered(&journal, 1, 0..2).await;
        disk.kill_at_sync(0);
        assert!(journal.append(record(1, b"not acknowledged")).await.is_err());
        drop(journal);
        let (journal, replayed) = open(&disk);
        assert_eq!(replayed.len(), 3, "the machine still has it");
        disk.crash(seed);
        drop(journal);
        let (_journal, after) = open(&disk);
        assert_eq!(after, replayed, "whoever saw the replay may have built on it");
    }
}

#[tokio::test]
async fn what_a_failed_sync_left_in_the_page_cache_is_durable_before_it_is_replayed() {
    for (seed, already) in (0..32).map(|seed| (seed, seed as u8 % 2)) {
        let disk = MemoryDisk::new();
        let (journal, _) = open(&disk);
        append_numbered(&journal, 1, 0..already).await;
        disk.fail_next_syncs(1);
        assert!(journal.append(record(1, b"not acknowledged")).await.is_err());
        journal.close().await;
        drop(journal);
        let (journal, replayed) = open(&disk);
        assert_eq!(replayed.len(), usize::from(already) + 1, "readers still see it");
        disk.crash(seed);
        drop(journal);
        let (_journal, after) = open(&disk);
        assert_eq!(after, replayed, "the next sync wrote what the failed one had lost");
    }
}

#[tokio::test]
async fn a_record_that_no_segment_holds_is_refused_and_the_next_goes_on() {
    let disk = MemoryDisk::new();
    let (journal, _) = open(&disk);
    let refused = journal.append(record(1, &[0; 4096])).await;
    assert!(matches!(
        refused,
        Err(JournalError::TooLarge { bytes: 4096, max: 4000 })
    ));
    let largest = journal.append(record(1, &[1; 4000])).await.unwrap();
    assert_eq!(journal.read(largest).await.unwrap().len(), 4000);
}
