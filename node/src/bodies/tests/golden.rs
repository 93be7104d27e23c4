//! What volumes hold, byte for byte, and a volume as it was written once: `node/golden/volume/*.hex` is read for ever.
//!
//! A volume is never compared with what is written now: its generation is drawn, and zstd may find a shorter form one day.
//! `UPDATE_SCRIPTS=1` writes it when there is none.

use std::io::IoSlice;
use std::path::PathBuf;

use malle_journal::read_file;

use super::*;
use crate::bodies::footer::{FooterEntry, FooterRecord};
use crate::bodies::volume::BodyHead;
use crate::bodies::volume::discarded::DiscardedRecord;
use crate::log::golden::{is_kept, line};

#[test]
fn records_of_volumes_are_what_they_always_were() {
    let mut lines = String::new();
    let hash = BodyHash([0xAB; 32]);
    for (name, size, encoding) in [("body-raw", 3_000, 0), ("body-zstd", 52_428_800, 1)] {
        line(&mut lines, name, &BodyHead { hash, size, encoding });
    }
    let entry = FooterEntry {
        shard: SHARD,
        hash,
        offset: 64,
        payload_bytes: 3_040,
    };
    let footer = |entries, last| FooterRecord { entries, last };
    line(&mut lines, "footer", &footer(vec![entry, entry], false));
    line(&mut lines, "footer-empty", &footer(vec![], true));
    let runs = vec![(1, 1), (3, 70_000)];
    line(&mut lines, "discarded", &DiscardedRecord { runs });
    is_kept("volumes.txt", &lines);
}

fn bodies() -> [Bytes; 3] {
    let text = "It is said twice, it is said twice, and then it is said once more. ".repeat(8);
    [noise(1, 300), Bytes::from(text), Bytes::new()]
}

fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/volume")
}

/// Writes the volume, without the zeros behind its last record.
async fn write() {
    let (net, disks) = cluster(1);
    for body in bodies() {
        let stored = Bodies::stored_form(SHARD, body).await;
        net.node(1).keep(stored).await.unwrap();
    }
    net.stop(1).await;
    std::fs::create_dir_all(dir()).unwrap();
    for (path, bytes) in disks[&1].files_below(Path::new("/bodies")) {
        let content = read_file(&disks[&1], &path, bytes).unwrap();
        let Some(last) = content.iter().rposition(|byte| *byte != 0) else {
            continue;
        };
        let lines: Vec<String> = content[..=last]
            .chunks(64)
            .map(|some| some.iter().map(|byte| format!("{byte:02x}")).collect())
            .collect();
        let name = path.file_name().unwrap().to_str().unwrap();
        std::fs::write(dir().join(format!("{name}.hex")), lines.join("\n") + "\n").unwrap();
    }
}

/// A disk with the volume on it.
fn take() -> MemoryDisk {
    let disk = MemoryDisk::new();
    disk.create_dir_all(Path::new("/bodies")).unwrap();
    for entry in std::fs::read_dir(dir()).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        let bytes: Vec<u8> = digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect();
        let name = path.file_stem().unwrap();
        let file = disk.create(&Path::new("/bodies").join(name)).unwrap();
        file.write_at(0, &mut [IoSlice::new(&bytes)]).unwrap();
        file.set_len(VOLUME_BYTES).unwrap();
    }
    disk
}

#[tokio::test]
async fn a_volume_of_every_version_is_read_for_ever() {
    if std::env::var_os("UPDATE_SCRIPTS").is_some() && !dir().exists() {
        write().await;
    }
    let net = Net::default();
    let node = net.start(1, &take());
    assert_eq!(node.counts().0, bodies().len() as u64);
    for body in bodies() {
        let read = node.get(SHARD, Bodies::hash_of(&body), &[], soon()).await;
        assert_eq!(read, Ok(body));
    }
}
