//! Sets of UIDs as ranges.

use malle_proto::{Uid, limits};

use super::{Refusal, UidRange};

/// Sorted, without overlaps, without UID 0; a range written backwards counts as RFC 9051 reads it ("4:2" is "2:4").
///
/// # Errors
/// More ranges than `limits::UID_RANGES_PER_COMMAND_MAX`.
pub(super) fn normalise(ranges: &[UidRange]) -> Result<Vec<UidRange>, Refusal> {
    if ranges.len() > limits::UID_RANGES_PER_COMMAND_MAX {
        return Err(Refusal::Limit(format!(
            "{} UID ranges",
            limits::UID_RANGES_PER_COMMAND_MAX
        )));
    }
    Ok(sorted(ranges))
}

/// What [`normalise`] does, for any number of ranges.
pub(super) fn sorted(ranges: &[UidRange]) -> Vec<UidRange> {
    let mut sorted: Vec<UidRange> = ranges
        .iter()
        .map(|range| UidRange {
            first: range.first.min(range.last).max(Uid(1)),
            last: range.first.max(range.last),
        })
        .filter(|range| range.first <= range.last)
        .collect();
    sorted.sort_by_key(|range| range.first);
    let mut out: Vec<UidRange> = Vec::with_capacity(sorted.len());
    for range in sorted {
        match out.last_mut() {
            Some(before) if range.first.0 <= before.last.0.saturating_add(1) => {
                before.last = before.last.max(range.last)
            }
            _ => out.push(range),
        }
    }
    out
}

/// Adds a UID above all of the set.
pub(super) fn push(ranges: &mut Vec<UidRange>, uid: Uid) {
    match ranges.last_mut() {
        Some(last) if last.last.0.checked_add(1) == Some(uid.0) => last.last = uid,
        _ => ranges.push(UidRange { first: uid, last: uid }),
    }
}

/// Takes a UID out of a set.
pub(super) fn remove(ranges: &mut Vec<UidRange>, uid: Uid) {
    let after = ranges.partition_point(|range| range.first <= uid);
    let Some(at) = after.checked_sub(1).filter(|at| ranges[*at].last >= uid) else {
        return;
    };
    let UidRange { first, last } = ranges[at];
    let before = (first < uid).then(|| UidRange {
        first,
        last: Uid(uid.0 - 1),
    });
    let behind = (uid < last).then(|| UidRange {
        first: Uid(uid.0 + 1),
        last,
    });
    ranges.splice(at..after, before.into_iter().chain(behind));
}

/// The set of these UIDs, which come in rising order.
pub(super) fn of_rising(uids: impl IntoIterator<Item = Uid>) -> Vec<UidRange> {
    let mut ranges = Vec::new();
    for uid in uids {
        push(&mut ranges, uid);
    }
    ranges
}

/// Whether a set made by [`normalise`] has this UID.
pub(super) fn contains(ranges: &[UidRange], uid: Uid) -> bool {
    let after = ranges.partition_point(|range| range.first <= uid);
    after > 0 && ranges[after - 1].last >= uid
}

#[cfg(test)]
mod tests {
    use super::{contains, normalise, of_rising, remove};
    use crate::shard::UidRange;
    use malle_proto::Uid;

    fn ranges(pairs: &[(u32, u32)]) -> Vec<UidRange> {
        pairs
            .iter()
            .map(|&(first, last)| UidRange {
                first: Uid(first),
                last: Uid(last),
            })
            .collect()
    }

    #[test]
    fn ranges_are_sorted_turned_round_and_joined() {
        let all = u32::MAX;
        for (given, wanted) in [
            (vec![(4, 2), (3, 6), (7, 7)], vec![(2, 7)]),
            (vec![(9, all), (1, 1), (all, all)], vec![(1, 1), (9, all)]),
            (vec![(0, 0)], vec![]),
            (vec![(0, 3)], vec![(1, 3)]),
        ] {
            assert_eq!(normalise(&ranges(&given)).unwrap(), ranges(&wanted), "{given:?}");
        }
        assert!(normalise(&ranges(&[(1, 1); 2_001])).is_err());
    }

    #[test]
    fn a_uid_leaves_a_set_from_anywhere_in_it() {
        for (uid, left) in [
            (1, vec![(2, 4), (7, 7), (9, 10)]),
            (3, vec![(1, 2), (4, 4), (7, 7), (9, 10)]),
            (4, vec![(1, 3), (7, 7), (9, 10)]),
            (6, vec![(1, 4), (7, 7), (9, 10)]),
            (7, vec![(1, 4), (9, 10)]),
            (10, vec![(1, 4), (7, 7), (9, 9)]),
            (11, vec![(1, 4), (7, 7), (9, 10)]),
        ] {
            let mut set = ranges(&[(1, 4), (7, 7), (9, 10)]);
            remove(&mut set, Uid(uid));
            assert_eq!(set, ranges(&left), "{uid}");
        }
    }

    #[test]
    fn a_set_has_its_ends_and_not_its_gaps() {
        let set = of_rising([1, 2, 5, 6, 9].map(Uid));
        assert_eq!(set, ranges(&[(1, 2), (5, 6), (9, 9)]));
        let members: Vec<u32> = (0..12).filter(|&uid| contains(&set, Uid(uid))).collect();
        assert_eq!(members, [1, 2, 5, 6, 9]);
    }
}
