//! Splitting a set of messages into commands.

use malle_proto::{OpId, Uid, limits};

use crate::error::Error;
use crate::types::UidRange;

/// Splits a UID set into commands: at most [`limits::UID_RANGES_PER_COMMAND_MAX`] ranges each, and again where a node says that a command's
/// bound was reached. The n-th command carries `op_id.piece(n)`: a repeated operation splits in the same way, because each of its
/// commands gets its first answer again.
pub(crate) struct Pieces {
    left: Vec<UidRange>,
    op_id: OpId,
    piece: u32,
    /// Ranges of the command that is out.
    out: usize,
}

impl Pieces {
    pub(crate) fn of(uids: &[UidRange], op_id: OpId) -> Pieces {
        Pieces {
            left: uids.to_vec(),
            op_id,
            piece: 0,
            out: 0,
        }
    }

    pub(crate) fn next(&mut self) -> Option<(Vec<UidRange>, OpId)> {
        self.out = self.left.len().min(limits::UID_RANGES_PER_COMMAND_MAX);
        let op_id = self.op_id.piece(self.piece);
        self.piece += 1;
        (self.out > 0).then(|| (self.left[..self.out].to_vec(), op_id))
    }

    /// The command that was out is done, up to `from` when that is given.
    pub(crate) fn resume(&mut self, from: Option<u32>) -> Result<(), Error> {
        let Some(from) = from.map(Uid) else {
            self.left.drain(..self.out);
            return Ok(());
        };
        let first = self.left[..self.out].iter().map(|range| range.first).min();
        if first.is_none_or(|first| from <= first) {
            return Err(Error::Internal(
                "a node made no progress on a set of messages".to_owned(),
            ));
        }
        let reached = |range: &UidRange| range.last >= from;
        let rest = self.left.drain(..self.out).filter(reached).map(|range| UidRange {
            first: range.first.max(from),
            ..range
        });
        let rest: Vec<UidRange> = rest.collect();
        self.left.splice(0..0, rest);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u32, last: u32) -> UidRange {
        UidRange {
            first: Uid(first),
            last: Uid(last),
        }
    }

    #[test]
    fn a_large_set_is_split_and_goes_on_where_a_command_stopped() {
        let many: Vec<UidRange> = (0..limits::UID_RANGES_PER_COMMAND_MAX as u32 + 5)
            .map(|n| range(n * 10 + 1, n * 10 + 4))
            .collect();
        let op_id = OpId([7; 16]);
        let mut pieces = Pieces::of(&many, op_id);

        let (first, first_op) = pieces.next().unwrap();
        assert_eq!((first.len(), first_op), (limits::UID_RANGES_PER_COMMAND_MAX, op_id));
        pieces.resume(Some(33)).unwrap();

        let (second, second_op) = pieces.next().unwrap();
        assert_eq!(second[..2], [range(33, 34), range(41, 44)]);
        assert_eq!(second.len(), limits::UID_RANGES_PER_COMMAND_MAX);
        assert_eq!(second_op, op_id.piece(1));
        pieces.resume(None).unwrap();

        let (rest, _) = pieces.next().unwrap();
        assert_eq!(rest.last(), many.last());
        pieces.resume(None).unwrap();
        assert_eq!(pieces.next(), None);
    }

    #[test]
    fn a_node_that_makes_no_progress_is_not_asked_for_ever() {
        let mut pieces = Pieces::of(&[range(5, 9)], OpId([1; 16]));
        pieces.next().unwrap();
        assert!(matches!(pieces.resume(Some(5)), Err(Error::Internal(_))));
    }

    #[test]
    fn an_empty_set_is_no_command() {
        assert_eq!(Pieces::of(&[], OpId([1; 16])).next(), None);
    }
}
