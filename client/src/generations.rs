//! A memory of at most so many entries, without a clock: two generations, and what was not asked for during a whole one is forgotten.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;

/// See the module's header.
pub(crate) struct Generations<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    most: usize,
}

impl<K: Hash + Eq, V> Generations<K, V> {
    /// A memory of at most this many.
    pub(crate) fn of(most: usize) -> Generations<K, V> {
        Generations {
            young: HashMap::new(),
            old: HashMap::new(),
            most,
        }
    }

    pub(crate) fn get<Q>(&mut self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        if let Some((key, value)) = self.old.remove_entry(key) {
            self.set(key, value);
        }
        self.young.get(key)
    }

    pub(crate) fn set(&mut self, key: K, value: V) {
        self.old.remove(&key);
        if self.young.len() >= self.most / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    pub(crate) fn remove<Q>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.young.remove(key);
        self.old.remove(key);
    }

    pub(crate) fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::Generations;

    #[test]
    fn the_memory_is_bounded_and_keeps_what_is_used() {
        const MOST: usize = 100;
        let mut kept = Generations::of(MOST);
        kept.set(0, 7);
        for n in 1..=MOST * 2 {
            kept.set(n, 1);
            assert_eq!(kept.get(&0), Some(&7));
        }
        assert!(kept.young.len() + kept.old.len() <= MOST);
        assert_eq!(kept.get(&1), None);
        kept.remove(&0);
        assert_eq!(kept.get(&0), None);
        kept.clear();
        assert_eq!(kept.get(&(MOST * 2)), None);
    }
}
