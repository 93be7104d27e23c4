//! Files of every kind as they were written once: `node/golden/checkpoint/*.hex` are read for ever.
//!
//! They are never compared with what is written now: zstd may find a shorter form one day. `UPDATE_SCRIPTS=1` writes those that are
//! missing.

use bytes::Bytes;

use super::*;
use crate::log::records::{LogIdRecord, StoredMembershipRecord};
use crate::state::checkpoint::{Changed, Checkpoint, CheckpointRecord, CheckpointWriter, read_changed, write_changed};

const FILES: [&str; 3] = ["checkpoint", "delta-0001", "changed"];

fn record(index: u64, rows: u64) -> CheckpointRecord {
    CheckpointRecord {
        applied: Some(entry(index)),
        membership: StoredMembershipRecord::default(),
        digest: Digest(u128::from(rows)),
        rows,
    }
}

fn entry(index: u64) -> LogIdRecord {
    LogIdRecord {
        term: 3,
        node: 2,
        index,
    }
}

fn rows_of_the_base() -> Vec<(Vec<u8>, Option<Bytes>)> {
    let row = |number: u8| (vec![1, number], Some(Bytes::from(vec![number; 20])));
    (0..50).map(row).collect()
}

fn rows_of_the_delta() -> Vec<(Vec<u8>, Option<Bytes>)> {
    vec![
        (vec![1, 7], None),
        (vec![1, 8], Some(Bytes::from_static(b"changed"))),
        (vec![2], Some(Bytes::new())),
    ]
}

fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/checkpoint")
}

fn write(disk: &Arc<dyn Disk>) {
    let write = |after, rows: Vec<(Vec<u8>, Option<Bytes>)>, record| {
        let mut writer = CheckpointWriter::create(disk, Path::new(DIR), SHARD, after).unwrap();
        for (key, value) in rows {
            writer.change(&key, value.as_deref()).unwrap();
        }
        writer.finish(record).unwrap().name(Path::new(DIR)).unwrap()
    };
    let base = write(None, rows_of_the_base(), record(9, 50));
    let chain = write(Some(base), rows_of_the_delta(), record(11, 50));
    let mut changed = Changed::none();
    changed.add([&[1, 1][..], &[1, 2, 3]].into_iter());
    let Changed::Known(keys) = changed else {
        unreachable!("two keys")
    };
    write_changed(disk, Path::new(DIR), &chain, Some(entry(12)), &keys).unwrap();
}

fn keep(disk: &Arc<dyn Disk>) {
    std::fs::create_dir_all(dir()).unwrap();
    for name in FILES {
        let kept = dir().join(format!("{name}.hex"));
        if kept.exists() {
            continue;
        }
        let bytes = malle_journal::read_file(disk.as_ref(), &World::path(name), 1 << 20).unwrap();
        let lines: Vec<String> = bytes
            .chunks(64)
            .map(|some| some.iter().map(|byte| format!("{byte:02x}")).collect())
            .collect();
        std::fs::write(kept, lines.join("\n") + "\n").unwrap();
    }
}

fn take(disk: &Arc<dyn Disk>) {
    for name in FILES {
        let text = std::fs::read_to_string(dir().join(format!("{name}.hex"))).unwrap();
        let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        let bytes: Vec<u8> = digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect();
        let file = disk.create(&World::path(name)).unwrap();
        file.write_at(0, &mut [IoSlice::new(&bytes)]).unwrap();
    }
}

fn empty_disk() -> Arc<dyn Disk> {
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new());
    disk.create_dir_all(Path::new(DIR)).unwrap();
    disk
}

#[test]
fn files_of_every_version_are_read_for_ever() {
    if std::env::var_os("UPDATE_SCRIPTS").is_some() {
        let disk = empty_disk();
        write(&disk);
        keep(&disk);
    }
    let disk = empty_disk();
    take(&disk);
    let chain = Checkpoint::open(&disk, Path::new(DIR), SHARD)
        .unwrap()
        .unwrap()
        .whole()
        .unwrap();
    assert_eq!(chain.deltas.len(), 1);
    assert_eq!(chain.base.record, record(9, 50));
    assert_eq!(chain.record(), &record(11, 50));
    let mut changes = Vec::new();
    chain
        .changes(&mut |key, value| {
            changes.push((key, value));
            Ok(())
        })
        .unwrap();
    assert_eq!(changes, [rows_of_the_base(), rows_of_the_delta()].concat());
    let keys = read_changed(&disk, Path::new(DIR), &chain, Some(entry(12))).unwrap();
    let mut found = Vec::new();
    keys.each(&mut |key| {
        found.push(key.to_vec());
        Ok(())
    })
    .unwrap();
    assert_eq!(found, [vec![1, 1], vec![1, 2, 3]]);
    assert!(read_changed(&disk, Path::new(DIR), &chain, Some(entry(13))).is_none());
}
