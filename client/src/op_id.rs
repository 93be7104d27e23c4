//! Op ids of interactive operations: the one place of this crate that asks the operating system for chance.
//!
//! An op id names an effect for good (architecture, decision 6), so two clients must never draw the same one: the runtime's random
//! source, which is seeded under simulation, would do that. Callers that want a run to repeat itself give their own op ids.

use malle_proto::OpId;
use rand::Rng as _;

/// A new op id for one operation. Draw it once, before the first try, and keep it for every repeat of that operation.
pub fn fresh_op_id() -> OpId {
    let mut bytes = [0; 16];
    rand::rng().fill_bytes(&mut bytes);
    OpId(bytes)
}

#[cfg(test)]
mod tests {
    use super::fresh_op_id;

    #[test]
    fn two_op_ids_differ() {
        assert_ne!(fresh_op_id(), fresh_op_id());
    }
}
