//! A rolling digest of all rows: replicas with the same digest at the same applied index hold the same state.
//!
//! A multiset hash: the sum, modulo 2^128, of a keyed hash of every (key, value). Putting or removing a row adds or subtracts one
//! term, so a batch updates the digest without a scan, and a scan can check it. It guards against faults, not against an adversary
//! who writes rows.

use serde::{Deserialize, Serialize};

/// First byte of rows that are a node's own (applied index, digest, floor): never part of the digest, never in a snapshot.
pub const LOCAL_PREFIX: u8 = 0x00;

/// Sum of the terms of all rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Digest(pub u128);

impl Digest {
    /// A row is there now.
    pub fn add(&mut self, key: &[u8], value: &[u8]) {
        self.0 = self.0.wrapping_add(term(key, value));
    }

    /// A row is gone.
    pub fn subtract(&mut self, key: &[u8], value: &[u8]) {
        self.0 = self.0.wrapping_sub(term(key, value));
    }

    /// 16 bytes, big-endian.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }
}

fn term(key: &[u8], value: &[u8]) -> u128 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(key.len() as u32).to_le_bytes());
    hasher.update(key);
    hasher.update(value);
    let mut out = [0; 16];
    hasher.finalize_xof().fill(&mut out);
    u128::from_le_bytes(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_does_not_matter_and_removal_undoes() {
        let mut a = Digest::default();
        a.add(b"k", b"v");
        a.add(b"l", b"w");
        let mut b = Digest::default();
        b.add(b"l", b"w");
        b.add(b"x", b"y");
        b.add(b"k", b"v");
        b.subtract(b"x", b"y");
        assert_eq!(a, b);
        a.add(b"kv", b"");
        b.add(b"k", b"v");
        assert_ne!(a, b, "a boundary moved between key and value is another row");
    }
}
