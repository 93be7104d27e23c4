//! Which keys changed since the last checkpoint: what the next delta holds.
//!
//! Every flush adds its keys as one sorted run, each key as what it does not share with the one before it (keys of one mailbox share
//! 35 bytes and more). Runs of like size are merged, so there are few of them, and a key that every command writes is held a handful of
//! times. Beyond `limits::CHECKPOINT_KEYS_MAX_BYTES` the keys are given up, and the next checkpoint is a base.

use std::cmp::Ordering;
use std::io;
use std::sync::Arc;

use malle_proto::limits;

/// The keys, if they are known.
#[derive(Debug, Clone)]
pub(in crate::state) enum Changed {
    /// All of them.
    Known(Keys),
    /// There may be others: after an unclean stop, or when they became too many.
    Lost,
}

impl Changed {
    /// None changed.
    pub fn none() -> Changed {
        Changed::Known(Keys::default())
    }

    /// The keys of a flush, in order.
    pub fn add<'k>(&mut self, sorted: impl Iterator<Item = &'k [u8]>) {
        if let Changed::Known(keys) = self {
            keys.add(sorted);
            self.bound();
        }
    }

    /// What changed before as well.
    pub fn absorb(&mut self, before: Changed) {
        match (&mut *self, before) {
            (Changed::Known(keys), Changed::Known(before)) => {
                for run in before.runs {
                    keys.push(run);
                }
                self.bound();
            }
            _ => *self = Changed::Lost,
        }
    }

    fn bound(&mut self) {
        if let Changed::Known(keys) = self
            && keys.bytes() > limits::CHECKPOINT_KEYS_MAX_BYTES
        {
            *self = Changed::Lost;
        }
    }
}

/// A set of keys. Clones share the runs.
#[derive(Debug, Clone, Default)]
pub(in crate::state) struct Keys {
    /// The older the larger.
    runs: Vec<Arc<Run>>,
}

impl Keys {
    /// Keys in rising order.
    pub fn add<'k>(&mut self, sorted: impl Iterator<Item = &'k [u8]>) {
        let mut run = Run::default();
        let mut last: &[u8] = &[];
        for key in sorted {
            run.push(last, key);
            last = key;
        }
        self.push(Arc::new(run));
    }

    fn push(&mut self, run: Arc<Run>) {
        if run.keys == 0 {
            return;
        }
        self.runs.push(run);
        while let [.., older, newer] = self.runs.as_slice()
            && older.keys <= newer.keys * 2
        {
            let merged = Arc::new(merge(older, newer));
            self.runs.truncate(self.runs.len() - 2);
            self.runs.push(merged);
        }
    }

    /// At least as many as there are: a key may be in several runs.
    pub fn count(&self) -> u64 {
        self.runs.iter().map(|run| run.keys).sum()
    }

    /// Bytes that they take in memory.
    pub fn bytes(&self) -> usize {
        self.runs.iter().map(|run| run.coded.len()).sum()
    }

    /// Visits each key once, in rising order.
    ///
    /// # Errors
    /// What the visitor says.
    pub fn each(&self, visit: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut newest_first = self.runs.iter().rev();
        let Some(first) = newest_first.next() else {
            return Ok(());
        };
        let merged = newest_first.fold(first.clone(), |merged, run| Arc::new(merge(run, &merged)));
        let mut reader = merged.reader();
        while reader.next() {
            visit(&reader.key)?;
        }
        Ok(())
    }
}

/// Sorted keys, each once: bytes shared with the key before, bytes of its own (both as LEB128), and these.
#[derive(Debug, Default)]
struct Run {
    coded: Vec<u8>,
    keys: u64,
}

impl Run {
    fn push(&mut self, last: &[u8], key: &[u8]) {
        debug_assert!(self.keys == 0 || last < key, "the keys of a run rise");
        let shared = last.iter().zip(key).take_while(|(a, b)| a == b).count();
        write_length(&mut self.coded, shared);
        write_length(&mut self.coded, key.len() - shared);
        self.coded.extend_from_slice(&key[shared..]);
        self.keys += 1;
    }

    fn reader(&self) -> Reader<'_> {
        Reader {
            rest: &self.coded,
            key: Vec::new(),
        }
    }
}

struct Reader<'r> {
    rest: &'r [u8],
    key: Vec<u8>,
}

impl Reader<'_> {
    /// Goes to the next key; false at the end.
    fn next(&mut self) -> bool {
        if self.rest.is_empty() {
            return false;
        }
        let shared = self.length();
        let own = self.length();
        let (bytes, rest) = self.rest.split_at(own);
        self.rest = rest;
        self.key.truncate(shared);
        self.key.extend_from_slice(bytes);
        true
    }

    fn length(&mut self) -> usize {
        let mut length = 0;
        let mut shift = 0;
        loop {
            let (byte, rest) = self.rest.split_first().expect("a run is only what `push` wrote");
            self.rest = rest;
            length |= usize::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return length;
            }
            shift += 7;
        }
    }
}

fn write_length(out: &mut Vec<u8>, mut length: usize) {
    while length > 0x7F {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}

fn merge(a: &Run, b: &Run) -> Run {
    let mut merged = Run {
        coded: Vec::with_capacity(a.coded.len() + b.coded.len()),
        keys: 0,
    };
    let (mut left, mut right) = (a.reader(), b.reader());
    let (mut more_left, mut more_right) = (left.next(), right.next());
    let mut last = Vec::new();
    while more_left || more_right {
        let order = match (more_left, more_right) {
            (true, true) => left.key.cmp(&right.key),
            (true, false) => Ordering::Less,
            _ => Ordering::Greater,
        };
        let key = if order == Ordering::Greater {
            &right.key
        } else {
            &left.key
        };
        merged.push(&last, key);
        last.clone_from(key);
        more_left = if order == Ordering::Greater {
            more_left
        } else {
            left.next()
        };
        more_right = if order == Ordering::Less {
            more_right
        } else {
            right.next()
        };
    }
    merged.coded.shrink_to_fit();
    merged
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::{any, proptest};

    use super::*;

    fn keys_of(keys: &Keys) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        keys.each(&mut |key| {
            all.push(key.to_vec());
            Ok(())
        })
        .unwrap();
        all
    }

    proptest! {
        #[test]
        fn the_keys_are_the_union_of_all_flushes_in_order(
            flushes in proptest::collection::vec(proptest::collection::btree_set(proptest::collection::vec(0u8..4, 0..200), 0..40), 0..20),
            split in any::<u8>(),
        ) {
            let model: BTreeSet<Vec<u8>> = flushes.iter().flatten().cloned().collect();
            let split = usize::from(split) % (flushes.len() + 1);
            let gather = |some: &[BTreeSet<Vec<u8>>]| {
                let mut changed = Changed::none();
                for flush in some {
                    changed.add(flush.iter().map(Vec::as_slice));
                }
                changed
            };
            let mut changed = gather(&flushes[split..]);
            changed.absorb(gather(&flushes[..split]));
            let Changed::Known(keys) = changed else { panic!("few keys are known") };
            assert_eq!(keys_of(&keys), model.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_key_of_every_flush_is_held_a_handful_of_times_and_a_shared_beginning_once() {
        let mut keys = Keys::default();
        for number in 0..10_000u32 {
            let mut key = vec![7; 40];
            let counter = key.clone();
            key.extend_from_slice(&number.to_be_bytes());
            keys.add([counter.as_slice(), key.as_slice()].into_iter());
        }
        assert_eq!(keys_of(&keys).len(), 10_001);
        assert!(keys.count() < 10_050, "{}", keys.count());
        assert!(keys.bytes() < 10_000 * 8, "{}", keys.bytes());
    }

    #[test]
    fn too_many_keys_are_given_up_and_stay_so() {
        let mut changed = Changed::none();
        let mut flush = 0u32;
        while let Changed::Known(keys) = &changed {
            assert!(keys.bytes() <= limits::CHECKPOINT_KEYS_MAX_BYTES);
            let keys: Vec<[u8; 32]> = (0..20_000u32)
                .map(|key| *blake3::hash(&[flush.to_le_bytes(), key.to_le_bytes()].concat()).as_bytes())
                .collect();
            let sorted: BTreeSet<&[u8]> = keys.iter().map(|key| &key[..]).collect();
            changed.add(sorted.into_iter());
            flush += 1;
        }
        changed.add([&b"one more"[..]].into_iter());
        assert!(matches!(changed, Changed::Lost));
        let mut fresh = Changed::none();
        fresh.absorb(changed);
        assert!(matches!(fresh, Changed::Lost));
    }
}
