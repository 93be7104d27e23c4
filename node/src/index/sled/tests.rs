//! sled under the suite, over restarts, and over files that a disk or a crash damaged.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use malle_machine::Digest;
use malle_machine::digest::LOCAL_PREFIX;

use super::super::dirs::set_aside;
use super::super::suite::{Chance, Rows, every_claim, follow, put, rows_of};
use super::super::{IndexError, IndexStore};
use super::{Opened, Options, SledIndex};

fn open(dir: &Path, uuid: u8) -> Result<Opened, IndexError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let options = Options {
        open_deadline: Duration::from_secs(30),
        ..Options::new(dir, [uuid; 16])
    };
    runtime.block_on(SledIndex::open(options))
}

/// The row that every batch carries, as a group's applied index: a node's own, below the rows of the state.
const APPLIED: &[u8] = &[LOCAL_PREFIX, b'a'];
/// Batches of [`filled`], each flushed: the floor that its caller would keep elsewhere.
const FLOOR: u64 = 201;

/// A closed database with rows of some age, opened twice, as a group would write it; and what it must hold.
fn filled(dir: &Path) -> Rows {
    let mut chance = Chance(11);
    let mut model = BTreeMap::new();
    for half in [0..100, 100..FLOOR] {
        let store = open(dir, 1).unwrap().store;
        for applied in half {
            let mut batch = chance.batch(20);
            if applied == 90 {
                batch.push(put(vec![3, 3], vec![7; 200_000]));
            }
            follow(&mut model, &batch);
            batch.push(put(APPLIED, (applied + 1).to_be_bytes()));
            batch.push(put(DIGEST, digest(model.iter()).to_bytes()));
            store.apply_batch(&batch).unwrap();
            store.flush().unwrap();
        }
    }
    model.into_iter().collect()
}

/// The digest of the rows, beside the applied index.
const DIGEST: &[u8] = &[LOCAL_PREFIX, b'd'];

fn digest<'a>(rows: impl Iterator<Item = (&'a Vec<u8>, &'a Vec<u8>)>) -> Digest {
    let mut digest = Digest::default();
    rows.for_each(|(key, value)| digest.add(key, value));
    digest
}

/// Copies a closed database.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// What the caller of a damaged database learns by the checks that it makes at each open after an unclean stop.
#[derive(Debug, PartialEq, Eq)]
enum Honest {
    /// An error that says so.
    Broken,
    /// Another uuid than the floor's.
    NewUuid,
    /// An applied index below the floor's.
    BehindFloor,
    /// Rows that do not add up to the digest.
    DigestWrong,
    /// Every flushed row is there.
    Whole,
}

/// Opens a database that was flushed at [`FLOOR`] and makes a caller's checks. Fails the test when they all pass over a loss.
fn judge(dir: &Path, wanted: &Rows) -> Honest {
    let opened = match open(dir, 2) {
        Ok(opened) => opened,
        Err(IndexError::Broken(_)) => return Honest::Broken,
        Err(other) => panic!("neither open nor broken: {other}"),
    };
    if opened.uuid != [1; 16] {
        assert!(opened.created);
        assert_eq!(opened.uuid, [2; 16]);
        return Honest::NewUuid;
    }
    match look(&opened.store, wanted) {
        Ok(verdict) => verdict,
        Err(IndexError::Broken(_)) => {
            assert!(
                matches!(opened.store.get(&[1]), Err(IndexError::Broken(_))),
                "broken once is broken for ever"
            );
            Honest::Broken
        }
        Err(other) => panic!("reading a damaged database: {other}"),
    }
}

fn look(store: &SledIndex, wanted: &Rows) -> Result<Honest, IndexError> {
    let applied = store
        .get(APPLIED)?
        .map_or(0, |row| u64::from_be_bytes(row.as_ref().try_into().unwrap()));
    if applied < FLOOR {
        return Ok(Honest::BehindFloor);
    }
    let rows = rows_of(store)?;
    if store.get(DIGEST)?.as_deref() != Some(&digest(rows.iter().map(|(key, value)| (key, value))).to_bytes()[..]) {
        return Ok(Honest::DigestWrong);
    }
    assert!(
        rows == *wanted,
        "{} rows instead of {}, and no check said so",
        rows.len(),
        wanted.len()
    );
    Ok(Honest::Whole)
}

#[test]
fn sled_passes_the_suite() {
    let dir = tempfile::tempdir().unwrap();
    let number = std::cell::Cell::new(0);
    every_claim(&|| {
        number.set(number.get() + 1);
        Box::new(open(&dir.path().join(number.get().to_string()), 1).unwrap().store)
    });
}

#[test]
fn a_database_keeps_its_rows_and_its_uuid_over_reopens() {
    let dir = tempfile::tempdir().unwrap();
    let mut model = BTreeMap::new();
    let mut chance = Chance(3);
    for round in 0..8u8 {
        let opened = open(dir.path(), 1 + round).unwrap();
        assert_eq!(opened.uuid, [1; 16]);
        assert_eq!(opened.created, round == 0);
        assert_eq!(
            rows_of(&opened.store).unwrap(),
            model.clone().into_iter().collect::<Rows>()
        );
        for _ in 0..50 {
            let batch = chance.batch(20);
            opened.store.apply_batch(&batch).unwrap();
            follow(&mut model, &batch);
        }
        if round % 2 == 0 {
            opened.store.flush().unwrap();
        }
    }
}

#[test]
fn a_second_store_on_one_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _first = open(dir.path(), 1).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let options = Options {
        open_deadline: Duration::from_secs(2),
        ..Options::new(dir.path(), [2; 16])
    };
    let second = runtime.block_on(SledIndex::open(options));
    assert!(matches!(second.err(), Some(IndexError::InUse(_))));
}

#[test]
fn a_torn_snapshot_of_sleds_own_is_removed_before_it_can_break_the_open() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("db");
    let wanted = filled(&dir);
    for (name, content) in [
        ("snap.00000000000F0000.generating", &b""[..]),
        ("snap.FFFFFFFFFFFFFFF0.generating", &b"torn in the middle of a wri"[..]),
    ] {
        std::fs::write(dir.join(name), content).unwrap();
        assert_eq!(judge(&dir, &wanted), Honest::Whole);
        assert!(!dir.join(name).exists());
    }
}

#[test]
fn flipped_bits_are_reported_or_harmless() {
    let base = tempfile::tempdir().unwrap();
    let sound = base.path().join("sound");
    let wanted = filled(&sound);
    let bytes = std::fs::read(sound.join("db")).unwrap();
    let mut chance = Chance(5);
    let mut broken = 0;
    for round in 0..40 {
        let dir = base.path().join(format!("flip-{round}"));
        copy(&sound, &dir);
        let mut damaged = bytes.clone();
        let at = chance.below(damaged.len() as u64) as usize;
        damaged[at] ^= 1 << chance.below(8);
        std::fs::write(dir.join("db"), damaged).unwrap();
        broken += usize::from(judge(&dir, &wanted) != Honest::Whole);
        std::fs::remove_dir_all(&dir).unwrap();
    }
    assert!(
        broken > 0,
        "not one of 40 flips hit anything: the test looks at the wrong file"
    );
}

#[test]
fn truncated_files_never_pass_for_the_whole_database() {
    let base = tempfile::tempdir().unwrap();
    let sound = base.path().join("sound");
    let wanted = filled(&sound);
    let mut files = vec!["db".to_owned(), "conf".to_owned()];
    for entry in std::fs::read_dir(&sound).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.starts_with("snap.") {
            files.push(name);
        }
    }
    for entry in std::fs::read_dir(sound.join("blobs")).unwrap() {
        files.push(format!("blobs/{}", entry.unwrap().file_name().into_string().unwrap()));
    }
    assert!(files.len() > 3, "snapshot and blob are part of the test: {files:?}");
    for name in files {
        let length = std::fs::metadata(sound.join(&name)).unwrap().len();
        for kept in [0, 1, length / 2, length - 1] {
            let dir = base.path().join("cut");
            copy(&sound, &dir);
            std::fs::OpenOptions::new()
                .write(true)
                .open(dir.join(&name))
                .unwrap()
                .set_len(kept)
                .unwrap();
            // `conf` and snapshots hold nothing that sled cannot find again, an old blob may be garbage already, and the last
            // bytes of `db` may be padding: for these it is enough that the checks do not pass over a loss.
            let holds_rows = name == "db" && kept <= length / 2;
            let verdict = judge(&dir, &wanted);
            assert!(
                !holds_rows || verdict != Honest::Whole,
                "{name} cut to {kept}: {verdict:?}"
            );
            std::fs::remove_dir_all(&dir).unwrap();
        }
    }
}

#[test]
fn an_emptied_directory_comes_back_under_a_new_uuid() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("db");
    let wanted = filled(&dir);
    std::fs::remove_dir_all(&dir).unwrap();
    std::fs::create_dir(&dir).unwrap();
    assert_eq!(judge(&dir, &wanted), Honest::NewUuid);
}

#[test]
fn a_database_set_aside_leaves_room_for_a_new_one() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("db");
    filled(&dir);
    std::fs::write(dir.join("conf"), "segment_size: rubbish\n").unwrap();
    assert!(matches!(open(&dir, 2).err(), Some(IndexError::Broken(_))));
    let kept = set_aside(&dir, 1234).unwrap();
    assert_eq!(kept, base.path().join("db.bad-1234"));
    assert!(kept.join("db").exists());
    let opened = open(&dir, 3).unwrap();
    assert!(opened.created);
    assert_eq!(rows_of(&opened.store).unwrap(), Rows::new());
}

#[test]
fn a_failed_file_poisons_the_store_for_good() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("db");
    let store = open(&dir, 1).unwrap().store;
    store.apply_batch(&[put("a", "1")]).unwrap();
    std::fs::rename(dir.join("blobs"), dir.join("gone")).unwrap();
    assert!(matches!(store.flush(), Err(IndexError::Broken(_))));
    std::fs::rename(dir.join("gone"), dir.join("blobs")).unwrap();
    for said in [
        store.get(b"a").err(),
        store.flush().err(),
        store.apply_batch(&[]).err(),
        rows_of(&store).err(),
    ] {
        assert!(matches!(said, Some(IndexError::Broken(_))), "{said:?}");
    }
}
