//! Sequence sets, `1,3:5,9:*` or `$`, and ranges of results, `1:100` or `-1:-100`.

use super::ast::{PartialRange, SequenceSet, Target};
use super::lex::{Cursor, Refusal};

/// `SP sequence-set SP`, as every command that names messages has it.
pub(super) fn target(cursor: &mut Cursor, by_uid: bool) -> Result<Target, Refusal> {
    cursor.space()?;
    let set = sequence_set(cursor)?;
    cursor.space()?;
    Ok(Target { by_uid, set })
}

/// `SP seq-number`: the one message that REPLACE names (RFC 8508 5).
pub(super) fn single_target(cursor: &mut Cursor, by_uid: bool) -> Result<Target, Refusal> {
    cursor.space()?;
    let number = sequence_number(cursor)?;
    let set = SequenceSet::Numbers(vec![(number, number)]);
    Ok(Target { by_uid, set })
}

/// RFC 3501 `sequence-set`.
pub(super) fn sequence_set(cursor: &mut Cursor) -> Result<SequenceSet, Refusal> {
    if cursor.eat(b'$') {
        return Ok(SequenceSet::Saved);
    }
    let mut ranges = Vec::new();
    loop {
        let first = sequence_number(cursor)?;
        let last = if cursor.eat(b':') {
            sequence_number(cursor)?
        } else {
            first
        };
        ranges.push((first, last));
        cursor.bounded(ranges.len())?;
        if !cursor.eat(b',') {
            return Ok(SequenceSet::Numbers(ranges));
        }
    }
}

fn sequence_number(cursor: &mut Cursor) -> Result<Option<u32>, Refusal> {
    if cursor.eat(b'*') {
        return Ok(None);
    }
    match cursor.peek() {
        Some(byte) if byte.is_ascii_digit() => cursor.nonzero().map(Some),
        _ => Err(Refusal("expected message numbers")),
    }
}

/// RFC 9394 `partial-range`.
pub(super) fn partial_range(cursor: &mut Cursor) -> Result<PartialRange, Refusal> {
    const EXPECTED: &str = "expected a range such as 1:100 or -1:-100";
    let from_end = cursor.eat(b'-');
    let first = cursor.nonzero()?;
    cursor.expect(b':', EXPECTED)?;
    if from_end {
        cursor.expect(b'-', EXPECTED)?;
    }
    let last = cursor.nonzero()?;
    Ok(PartialRange { from_end, first, last })
}
