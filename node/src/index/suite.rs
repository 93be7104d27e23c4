//! What every index does, whatever engine is below. Each claim gets a fresh, empty store.
//!
//! A store may hold rows of its own below key `[1]` (sled's names its database): the claims stay above it, as the machines do.

use std::collections::BTreeMap;

use bytes::Bytes;
use malle_machine::view::{Fault, Flow, View};

use super::{IndexError, IndexStore, IndexView, KEY_MAX_BYTES, Row, VALUE_MAX_BYTES};

/// Makes an empty store.
pub type Fresh<'a> = dyn Fn() -> Box<dyn IndexStore> + 'a;
/// Rows as owned pairs.
pub type Rows = Vec<(Vec<u8>, Vec<u8>)>;

/// Runs the whole suite.
pub fn every_claim(fresh: &Fresh<'_>) {
    an_empty_store_has_nothing(&*fresh());
    a_batch_is_read_back(&*fresh());
    keys_come_in_byte_order_both_ways(&*fresh());
    ranges_include_their_start_and_exclude_their_end(&*fresh());
    a_scan_stops_when_told_and_passes_faults_on(&*fresh());
    the_last_of_equal_keys_in_a_batch_counts(&*fresh());
    large_values_come_back(&*fresh());
    a_row_too_large_refuses_the_whole_batch(&*fresh());
    a_scan_sees_every_untouched_row_once_while_its_visitor_writes(&*fresh());
    a_reader_never_sees_half_a_batch(&*fresh());
    the_view_of_a_store_is_the_store(&*fresh());
    ten_thousand_random_operations_agree_with_a_map(&*fresh());
}

pub fn put(key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Row {
    (key.into(), Some(Bytes::from(value.into())))
}

pub fn remove(key: impl Into<Vec<u8>>) -> Row {
    (key.into(), None)
}

/// Every row from key `[1]` on.
pub fn rows_of(store: &dyn IndexStore) -> Result<Rows, IndexError> {
    range_of(store, &[1], &[255; 9], false)
}

fn range_of(store: &dyn IndexStore, from: &[u8], to: &[u8], back: bool) -> Result<Rows, IndexError> {
    let mut rows = Vec::new();
    let mut take = |key: &[u8], value: &[u8]| {
        rows.push((key.to_vec(), value.to_vec()));
        Ok(Flow::More)
    };
    if back {
        store.scan_back(from, to, &mut take)?;
    } else {
        store.scan(from, to, &mut take)?;
    }
    Ok(rows)
}

fn keys(rows: &Rows) -> Vec<&[u8]> {
    rows.iter().map(|(key, _)| key.as_slice()).collect()
}

fn an_empty_store_has_nothing(store: &dyn IndexStore) {
    assert_eq!(store.get(b"k").unwrap(), None);
    assert_eq!(rows_of(store).unwrap(), Vec::new());
    assert_eq!(range_of(store, &[1], &[255; 9], true).unwrap(), Vec::new());
    store.apply_batch(&[]).unwrap();
    store.apply_batch(&[remove("absent")]).unwrap();
    store.flush().unwrap();
    assert_eq!(rows_of(store).unwrap(), Vec::new());
}

fn a_batch_is_read_back(store: &dyn IndexStore) {
    store
        .apply_batch(&[put("a", "1"), put("b", ""), put("c", "3")])
        .unwrap();
    assert_eq!(store.get(b"a").unwrap().as_deref(), Some(&b"1"[..]));
    assert_eq!(
        store.get(b"b").unwrap().as_deref(),
        Some(&b""[..]),
        "an empty value is a value"
    );
    store.apply_batch(&[remove("a"), put("c", "4")]).unwrap();
    assert_eq!(store.get(b"a").unwrap(), None);
    assert_eq!(store.get(b"c").unwrap().as_deref(), Some(&b"4"[..]));
    assert!(store.disk_bytes().unwrap() > 0);
}

fn keys_come_in_byte_order_both_ways(store: &dyn IndexStore) {
    let sorted: Vec<Vec<u8>> = vec![
        vec![1],
        vec![1, 0],
        vec![1, 0, 0],
        vec![1, 0, 255],
        vec![1, 1],
        vec![2],
        vec![127, 255],
        vec![128],
        vec![255],
        vec![255, 255],
    ];
    let mut shuffled: Vec<Row> = sorted.iter().map(|key| put(key.clone(), "v")).collect();
    shuffled.reverse();
    shuffled.swap(2, 7);
    store.apply_batch(&shuffled).unwrap();
    let up = rows_of(store).unwrap();
    assert_eq!(keys(&up), sorted.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let mut down = range_of(store, &[1], &[255; 9], true).unwrap();
    down.reverse();
    assert_eq!(up, down);
}

fn ranges_include_their_start_and_exclude_their_end(store: &dyn IndexStore) {
    store
        .apply_batch(&[put("b", "1"), put("c", "2"), put("d", "3")])
        .unwrap();
    for back in [false, true] {
        let seen = |from: &str, to: &str| {
            let mut rows = range_of(store, from.as_bytes(), to.as_bytes(), back).unwrap();
            rows.sort();
            rows.into_iter()
                .map(|(key, _)| String::from_utf8(key).unwrap())
                .collect::<String>()
        };
        assert_eq!(seen("b", "d"), "bc");
        assert_eq!(seen("a", "z"), "bcd");
        assert_eq!(seen("bb", "cc"), "c");
        assert_eq!(seen("c", "c"), "");
        assert_eq!(seen("d", "b"), "", "a range that crosses itself is empty");
        assert_eq!(seen("e", "z"), "");
    }
}

fn a_scan_stops_when_told_and_passes_faults_on(store: &dyn IndexStore) {
    store
        .apply_batch(&[put("a", "1"), put("b", "2"), put("c", "3")])
        .unwrap();
    let mut seen = 0;
    store
        .scan(b"a", b"z", &mut |_, _| {
            seen += 1;
            Ok(if seen == 2 { Flow::Stop } else { Flow::More })
        })
        .unwrap();
    assert_eq!(seen, 2);
    let fault = Fault::Broken("the visitor's own".into());
    let said = store.scan_back(b"a", b"z", &mut |_, _| Err(fault.clone()));
    assert_eq!(said, Err(IndexError::Visitor(fault)));
    assert_eq!(
        rows_of(store).unwrap().len(),
        3,
        "a visitor's fault does not break the store"
    );
}

fn the_last_of_equal_keys_in_a_batch_counts(store: &dyn IndexStore) {
    store
        .apply_batch(&[
            put("a", "1"),
            put("a", "2"),
            put("b", "1"),
            remove("b"),
            remove("c"),
            put("c", "3"),
        ])
        .unwrap();
    assert_eq!(
        rows_of(store).unwrap(),
        vec![(b"a".to_vec(), b"2".to_vec()), (b"c".to_vec(), b"3".to_vec())]
    );
}

fn large_values_come_back(store: &dyn IndexStore) {
    let value = |bytes: usize| (0..bytes).map(|i| (i * 31 % 251) as u8).collect::<Vec<_>>();
    let sizes = [malle_proto::limits::ROW_VALUE_MAX_BYTES, 200_000, VALUE_MAX_BYTES];
    for (i, size) in sizes.iter().enumerate() {
        store
            .apply_batch(&[put(vec![7, i as u8], value(*size)), put(vec![8, i as u8], "small")])
            .unwrap();
    }
    store
        .apply_batch(&[put(vec![9; KEY_MAX_BYTES], "at the longest key")])
        .unwrap();
    store.flush().unwrap();
    for (i, size) in sizes.iter().enumerate() {
        assert_eq!(store.get(&[7, i as u8]).unwrap().unwrap(), value(*size));
    }
    assert_eq!(rows_of(store).unwrap().len(), 7);
}

fn a_row_too_large_refuses_the_whole_batch(store: &dyn IndexStore) {
    let long = store.apply_batch(&[put("a", "1"), put("b", vec![0; VALUE_MAX_BYTES + 1])]);
    assert_eq!(
        long,
        Err(IndexError::TooLarge {
            key_bytes: 1,
            value_bytes: VALUE_MAX_BYTES + 1
        })
    );
    let key = store.apply_batch(&[put("a", "1"), put(vec![9; KEY_MAX_BYTES + 1], "")]);
    assert!(matches!(key, Err(IndexError::TooLarge { .. })));
    assert_eq!(rows_of(store).unwrap(), Vec::new());
    store.apply_batch(&[put("a", "1")]).unwrap();
}

fn a_scan_sees_every_untouched_row_once_while_its_visitor_writes(store: &dyn IndexStore) {
    let key = |i: u32| [&[5][..], &i.to_be_bytes()].concat();
    let even: Vec<Row> = (0..2_000).map(|i| put(key(i * 2), "old")).collect();
    store.apply_batch(&even).unwrap();
    for back in [false, true] {
        let mut seen = Vec::new();
        let mut visit = |k: &[u8], value: &[u8]| {
            if value == b"old" {
                let i = u32::from_be_bytes(k[1..].try_into().unwrap());
                // Odd rows come and go on both sides of the scan. Only old rows bring new ones: the scan ends.
                store.apply_batch(&[put(key((i + 101) | 1), "new"), remove(key(i.saturating_sub(100) | 1))])?;
                seen.push(k.to_vec());
            }
            Ok(Flow::More)
        };
        if back {
            store.scan_back(&[5], &[6], &mut visit).unwrap();
            seen.reverse();
        } else {
            store.scan(&[5], &[6], &mut visit).unwrap();
        }
        let wanted: Vec<Vec<u8>> = (0..2_000).map(|i| key(i * 2)).collect();
        assert!(
            seen == wanted,
            "back {back}: saw {} of {} rows",
            seen.len(),
            wanted.len()
        );
    }
}

fn a_reader_never_sees_half_a_batch(store: &dyn IndexStore) {
    store.apply_batch(&[put("n", vec![0]), put("z", vec![0])]).unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for i in 1..=200u8 {
                store.apply_batch(&[put("n", vec![i]), put("z", vec![i])]).unwrap();
            }
        });
        while !writer.is_finished() {
            // `z` is read after `n`: it is never older.
            let n = store.get(b"n").unwrap().unwrap()[0];
            let z = store.get(b"z").unwrap().unwrap()[0];
            assert!(z >= n, "n {n}, z {z}");
        }
    });
}

fn the_view_of_a_store_is_the_store(store: &dyn IndexStore) {
    store.apply_batch(&[put("a", "1"), put("b", "2")]).unwrap();
    let view = IndexView(store);
    assert_eq!(View::get(&view, b"a").unwrap().as_deref(), Some(&b"1"[..]));
    let mut seen = Vec::new();
    let mut take = |key: &[u8], _: &[u8]| {
        seen.extend_from_slice(key);
        Ok(Flow::More)
    };
    View::scan(&view, b"a", b"z", &mut take).unwrap();
    View::scan_back(&view, b"a", b"z", &mut take).unwrap();
    assert_eq!(seen, b"abba");
    let fault = Fault::Broken("mine".into());
    assert_eq!(
        View::scan(&view, b"a", b"z", &mut |_, _| Err(fault.clone())),
        Err(fault)
    );
}

/// A small generator of its own (splitmix64): the same operations in every run.
pub struct Chance(pub u64);

impl Chance {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }

    pub fn key(&mut self) -> Vec<u8> {
        // Few different keys of different lengths, so that removals and overwrites meet.
        let length = 1 + self.below(4);
        let mut key = vec![1 + self.below(3) as u8];
        key.extend((0..length).map(|_| [0, 1, 128, 255][self.below(4) as usize]));
        key
    }

    pub fn batch(&mut self, rows: u64) -> Vec<Row> {
        (0..rows)
            .map(|_| {
                let key = self.key();
                if self.below(3) == 0 {
                    return remove(key);
                }
                let length = self.below(300);
                let value = vec![self.below(256) as u8; length as usize];
                put(key, value)
            })
            .collect()
    }
}

/// What the store should hold after a batch.
pub fn follow(model: &mut BTreeMap<Vec<u8>, Vec<u8>>, batch: &[Row]) {
    for (key, value) in batch {
        match value {
            Some(value) => model.insert(key.clone(), value.to_vec()),
            None => model.remove(key),
        };
    }
}

fn ten_thousand_random_operations_agree_with_a_map(store: &dyn IndexStore) {
    let mut chance = Chance(7);
    let mut model = BTreeMap::new();
    for round in 0..10_000 {
        match chance.below(10) {
            0..5 => {
                let rows = 1 + chance.below(8);
                let batch = chance.batch(rows);
                store.apply_batch(&batch).unwrap();
                follow(&mut model, &batch);
            }
            5..8 => {
                let key = chance.key();
                let found = store.get(&key).unwrap().map(Vec::from);
                assert_eq!(found, model.get(&key).cloned(), "round {round}");
            }
            8 if chance.below(100) == 0 => store.flush().unwrap(),
            _ => {
                let (from, to, back) = (chance.key(), chance.key(), chance.below(2) == 0);
                let mut found = range_of(store, &from, &to, back).unwrap();
                if back {
                    found.reverse();
                }
                let wanted: Rows = model
                    .iter()
                    .filter(|(key, _)| **key >= from && **key < to)
                    .map(|(key, value)| (key.clone(), value.clone()))
                    .collect();
                assert_eq!(found, wanted, "round {round}, back {back}");
            }
        }
    }
    assert_eq!(rows_of(store).unwrap(), model.into_iter().collect::<Rows>());
}
