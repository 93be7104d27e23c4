//! The disk of the operating system keeps the same contract as the one in memory.

use std::io::IoSlice;
use std::sync::Arc;

use super::{options, record};
use crate::{Disk, Journal, RealDisk, ReplayedRecord, read_file, replace_file};

#[tokio::test]
async fn a_journal_on_real_files_rotates_recycles_and_replays() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/journal");
    let mut last = None;
    for start in 0..3u8 {
        let mut replayed = 0;
        let replay = &mut |_: ReplayedRecord<'_>| {
            replayed += 1;
            Ok(())
        };
        let journal = Journal::open(Arc::new(RealDisk), &path, options(), replay).unwrap();
        assert_eq!(replayed > 0, start > 0);
        if let Some(last) = last {
            assert_eq!(journal.read(last).await.unwrap(), vec![start - 1; 500]);
        }
        for _ in 0..50 {
            let location = journal.append(record(1, &[start; 500])).await.unwrap();
            journal.release(1, location.segment);
            last = Some(location);
        }
        assert!(journal.live_segments() <= 3);
        journal.close().await;
    }
    assert!(RealDisk.list(&path).unwrap().len() < 8);
}

#[test]
fn more_parts_than_one_system_call_takes_are_written_whole() {
    let dir = tempfile::tempdir().unwrap();
    let file = RealDisk.create(&dir.path().join("f")).unwrap();
    let bytes: Vec<u8> = (0..5000u32).map(|number| number as u8).collect();
    let mut parts: Vec<IoSlice<'_>> = bytes.chunks(2).map(IoSlice::new).collect();
    file.write_at(3, &mut parts).unwrap();
    let mut read = vec![0; 5000];
    file.read_at(3, &mut read).unwrap();
    assert_eq!(read, bytes);
}

#[test]
fn a_file_is_replaced_whole_and_a_long_one_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("small");
    for content in [&b"one"[..], b"another"] {
        replace_file(&RealDisk, &path, content).unwrap();
        assert_eq!(read_file(&RealDisk, &path, 100).unwrap(), content);
    }
    assert!(read_file(&RealDisk, &path, 6).is_err());
    assert_eq!(RealDisk.list(dir.path()).unwrap(), ["small"]);
}

#[test]
fn a_lock_is_held_by_one_and_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lock");
    let held = RealDisk.lock(&path).unwrap();
    assert_eq!(
        RealDisk.lock(&path).err().unwrap().kind(),
        std::io::ErrorKind::WouldBlock
    );
    drop(held);
    RealDisk.lock(&path).unwrap();
}

#[test]
fn a_disk_has_no_more_free_than_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let (free, total) = (
        RealDisk.free_bytes(dir.path()).unwrap(),
        RealDisk.total_bytes(dir.path()).unwrap(),
    );
    assert!(0 < free && free <= total, "{free} of {total}");
    let nowhere = dir.path().join("nowhere");
    assert!(RealDisk.total_bytes(&nowhere).is_err());
}
