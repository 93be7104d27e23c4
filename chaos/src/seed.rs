//! Chance that can be repeated: one seed, split into streams by name.
//!
//! Each use of chance has a stream of its own, so that a fault that is taken out of a plan, or a client that does one call less, does not
//! shift what the others draw. The generator is SplitMix64 (Steele, Lea, Flood 2014): every start is a good one, and it is a dozen lines
//! that never change under us; a seed in a bug report must mean the same in a year.

/// A stream of chance.
#[derive(Debug, Clone)]
pub struct Chance {
    state: u64,
}

/// The constant by which SplitMix64 steps.
const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

fn mixed(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

impl Chance {
    /// The stream of this name and number under a run's seed.
    pub fn of(seed: u64, name: &str, number: u64) -> Chance {
        let mut state = mixed(seed.wrapping_add(STEP));
        for &byte in name.as_bytes() {
            state = mixed(state ^ u64::from(byte)).wrapping_add(STEP);
        }
        Chance {
            state: mixed(state ^ mixed(number.wrapping_add(STEP))),
        }
    }

    /// The next 64 bits.
    #[allow(clippy::should_implement_trait)] // It has no end and is not walked through.
    pub fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(STEP);
        mixed(self.state)
    }

    /// One of `0..below`; 0 when `below` is 0.
    pub fn below(&mut self, below: u64) -> u64 {
        // The high half of a product: a bias below 2^-32 for every bound used here, and no loop.
        ((u128::from(self.next()) * u128::from(below)) >> 64) as u64
    }

    /// One of `low..=high`; `low` when they are the wrong way round.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        if high <= low {
            return low;
        }
        low + self.below(high - low + 1)
    }

    /// True this many times in a thousand.
    pub fn per_mille(&mut self, times: u64) -> bool {
        self.below(1000) < times
    }

    /// One of these; `None` when there is none.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        of.get(self.below(of.len() as u64) as usize)
    }

    /// `count` of these in random order, or all when there are fewer.
    pub fn draw<T: Clone>(&mut self, of: &[T], count: usize) -> Vec<T> {
        let mut left = of.to_vec();
        let mut drawn = Vec::new();
        while drawn.len() < count && !left.is_empty() {
            let at = self.below(left.len() as u64) as usize;
            drawn.push(left.swap_remove(at));
        }
        drawn
    }

    /// 16 bytes, for an op id.
    pub fn bytes16(&mut self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.next().to_be_bytes());
        bytes[8..].copy_from_slice(&self.next().to_be_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_means_the_same_for_ever() {
        let mut chance = Chance::of(3053, "nemesis", 0);
        assert_eq!(
            [chance.next(), chance.next(), chance.next()],
            [0x80ff57c9351f0943, 0x3b5783d811fd5125, 0xab51f8fb3c08d554]
        );
    }

    #[test]
    fn streams_of_other_names_and_numbers_differ() {
        let first = |name, number| Chance::of(1, name, number).next();
        assert_ne!(first("net", 0), first("disk", 0));
        assert_ne!(first("client", 0), first("client", 1));
        assert_ne!(first("ab", 0), first("ba", 0));
    }

    #[test]
    fn a_draw_has_no_doubles_and_no_more_than_there_is() {
        let mut drawn = Chance::of(9, "draw", 0).draw(&[1, 2, 3, 4, 5], 9);
        drawn.sort_unstable();
        assert_eq!(drawn, [1, 2, 3, 4, 5]);
    }

    #[test]
    fn bounds_are_kept() {
        let mut chance = Chance::of(2, "bounds", 0);
        assert_eq!(chance.below(0), 0);
        assert!((0..1000).all(|_| chance.below(7) < 7));
        assert!((0..1000).all(|_| (5..=9).contains(&chance.between(5, 9))));
        assert_eq!(chance.between(9, 5), 9);
    }
}
