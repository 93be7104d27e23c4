//! What the client believes of the selected mailbox: which UID has which sequence number.
//!
//! Sequence numbers live here and nowhere else. The list only grows at its end, and only shrinks when EXPUNGE is told; a message that is
//! gone but whose EXPUNGE may not be told yet (RFC 3501 7.4.1) keeps its number. Flags are not kept: the store is asked.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use malle_client::{ModSeq, Uid, UidRange};

use super::parse::{PartialRange, SequenceSet, Target};

/// The messages of the selected mailbox as this session numbers them.
#[derive(Debug, Default)]
pub(super) struct View {
    /// Rising; index + 1 is the sequence number.
    uids: Vec<Uid>,
    /// In `uids`, but no longer in the mailbox.
    gone: BTreeSet<Uid>,
    /// Flags that this session was told by an answer to its own command, up to this MODSEQ of the message.
    told: BTreeMap<Uid, ModSeq>,
    /// `$`: rising and apart (RFC 5182). UIDs that went since are passed over when it is used.
    saved: Vec<UidRange>,
    /// Everything up to here is in this view.
    pub(super) modseq: ModSeq,
}

/// A sequence set applied to a view: index ranges, rising, apart, none empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Picked(Vec<Range<usize>>);

/// A number in the set has no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoSuchMessage;

impl View {
    pub(super) fn new(uids: &[UidRange], modseq: ModSeq) -> View {
        View {
            uids: expanded(uids).collect(),
            modseq,
            ..View::default()
        }
    }

    /// EXISTS.
    pub(super) fn len(&self) -> usize {
        self.uids.len()
    }

    pub(super) fn uid(&self, index: usize) -> Uid {
        self.uids[index]
    }

    /// The sequence number of a UID.
    pub(super) fn number(&self, uid: Uid) -> Option<usize> {
        self.uids.binary_search(&uid).ok().map(|index| index + 1)
    }

    /// The messages that a set names. UIDs without a message are passed over (RFC 3501 6.4.8); a sequence number without one is an error, but
    /// `1:*` of an empty mailbox is nothing.
    pub(super) fn pick(&self, target: &Target) -> Result<Picked, NoSuchMessage> {
        match &target.set {
            SequenceSet::Saved => Ok(self.pick_saved()),
            SequenceSet::Numbers(set) if target.by_uid => Ok(self.pick_uids(set)),
            SequenceSet::Numbers(set) => self.pick_numbers(set),
        }
    }

    /// What `$` names from now on.
    pub(super) fn save(&mut self, found: Vec<UidRange>) {
        self.saved = found;
    }

    fn pick_saved(&self) -> Picked {
        let ranges = self.saved.iter().map(|range| self.indexes(range.first, range.last));
        Picked::of(ranges.collect())
    }

    /// The indexes of the UIDs from `first` to `last`.
    fn indexes(&self, first: Uid, last: Uid) -> Range<usize> {
        let start = self.uids.partition_point(|&uid| uid < first);
        let end = self.uids.partition_point(|&uid| uid <= last);
        start..end
    }

    fn pick_numbers(&self, set: &[(Option<u32>, Option<u32>)]) -> Result<Picked, NoSuchMessage> {
        let length = self.uids.len();
        if length == 0 {
            let has_star = set.iter().all(|&(first, last)| first.is_none() || last.is_none());
            return if has_star {
                Ok(Picked::default())
            } else {
                Err(NoSuchMessage)
            };
        }
        let index = |number: Option<u32>| match number {
            None => Ok(length - 1),
            Some(number) => {
                let index = usize::try_from(number).map_err(|_| NoSuchMessage)? - 1;
                if index < length { Ok(index) } else { Err(NoSuchMessage) }
            }
        };
        let mut ranges = Vec::with_capacity(set.len());
        for &(first, last) in set {
            let (first, last) = (index(first)?, index(last)?);
            ranges.push(first.min(last)..first.max(last) + 1);
        }
        Ok(Picked::of(ranges))
    }

    fn pick_uids(&self, set: &[(Option<u32>, Option<u32>)]) -> Picked {
        let Some(&Uid(highest)) = self.uids.last() else {
            return Picked::default();
        };
        let ranges = set.iter().map(|&(first, last)| {
            let (first, last) = (first.unwrap_or(highest), last.unwrap_or(highest));
            self.indexes(Uid(first.min(last)), Uid(first.max(last)))
        });
        Picked::of(ranges.collect())
    }

    /// The picked messages as the store names them. A range may span UIDs that are not in the view: they are below its highest UID, so they are
    /// expunged and will not come back.
    pub(super) fn ranges(&self, picked: &Picked) -> Vec<UidRange> {
        let range = |range: &Range<usize>| UidRange {
            first: self.uids[range.start],
            last: self.uids[range.end - 1],
        };
        picked.0.iter().map(range).collect()
    }

    /// Does `picked` hold a message that is known to be gone?
    pub(super) fn has_gone(&self, picked: &Picked) -> bool {
        !self.gone.is_empty()
            && self
                .gone
                .iter()
                .any(|&uid| self.number(uid).is_some_and(|number| picked.contains(number - 1)))
    }

    /// The client was told this message's flags as of `modseq`.
    pub(super) fn tell(&mut self, uid: Uid, modseq: ModSeq) {
        if modseq <= self.modseq {
            return;
        }
        let told = self.told.entry(uid).or_insert(modseq);
        *told = (*told).max(modseq);
    }

    /// Does the client know the flags that the message has since `modseq`?
    pub(super) fn is_told(&self, uid: Uid, modseq: ModSeq) -> bool {
        self.told.get(&uid).is_some_and(|&told| told >= modseq)
    }

    /// Everything up to `modseq` is in the view and told.
    pub(super) fn advance(&mut self, modseq: ModSeq) {
        self.modseq = self.modseq.max(modseq);
        let reached = self.modseq;
        self.told.retain(|_, told| *told > reached);
    }

    /// Adds messages, given in rising order. False when one lies below what is there already: then the numbering cannot be kept.
    #[must_use]
    pub(super) fn add(&mut self, new: impl IntoIterator<Item = Uid>) -> bool {
        for uid in new {
            if self.uids.last().is_some_and(|&last| last >= uid) {
                return false;
            }
            self.uids.push(uid);
        }
        true
    }

    /// Messages left the mailbox. Those that the view does not have are passed over.
    pub(super) fn lose(&mut self, vanished: &[UidRange]) {
        for range in vanished {
            let start = self.uids.partition_point(|&uid| uid < range.first);
            let end = self.uids.partition_point(|&uid| uid <= range.last);
            self.gone.extend(self.uids[start..end.max(start)].iter().copied());
        }
    }

    /// The UIDs of the view that are not among `kept`.
    pub(super) fn missing_from(&self, kept: &[UidRange]) -> Vec<UidRange> {
        let mut kept = kept.iter().peekable();
        let mut missing = Vec::new();
        for &uid in &self.uids {
            while kept.next_if(|range| range.last < uid).is_some() {}
            if kept.peek().is_none_or(|range| uid < range.first) {
                missing.push(UidRange { first: uid, last: uid });
            }
        }
        missing
    }

    /// The UIDs of `ranges`, which rise and are apart, that are not in the view.
    pub(super) fn absent(&self, ranges: &[UidRange]) -> Vec<UidRange> {
        let mut absent = Vec::new();
        for range in ranges {
            let mut from = range.first.0;
            for &Uid(present) in &self.uids[self.indexes(range.first, range.last)] {
                if from < present {
                    absent.push(UidRange {
                        first: Uid(from),
                        last: Uid(present - 1),
                    });
                }
                from = present.saturating_add(1);
            }
            if from <= range.last.0 && self.number(Uid(from)).is_none() {
                absent.push(UidRange {
                    first: Uid(from),
                    last: range.last,
                });
            }
        }
        absent
    }

    /// Gone messages whose EXPUNGE is not told yet.
    pub(super) fn gone(&self) -> Vec<UidRange> {
        let mut ranges = Vec::new();
        for &uid in &self.gone {
            push(&mut ranges, uid);
        }
        ranges
    }

    /// The highest UID that the client may know of.
    pub(super) fn highest(&self) -> Option<Uid> {
        self.uids.last().copied()
    }

    /// Takes the gone messages out; returns the sequence numbers to tell in this order: from the highest down, so that none shifts another.
    pub(super) fn expunge(&mut self) -> Vec<usize> {
        let numbers = self.gone.iter().rev().filter_map(|&uid| self.number(uid)).collect();
        let gone = std::mem::take(&mut self.gone);
        self.uids.retain(|uid| !gone.contains(uid));
        self.told.retain(|uid, _| !gone.contains(uid));
        numbers
    }
}

impl Picked {
    fn of(mut ranges: Vec<Range<usize>>) -> Picked {
        ranges.retain(|range| !range.is_empty());
        ranges.sort_unstable_by_key(|range| range.start);
        let mut merged: Vec<Range<usize>> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match merged.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => merged.push(range),
            }
        }
        Picked(merged)
    }

    pub(super) fn contains(&self, index: usize) -> bool {
        let after = self.0.partition_point(|range| range.start <= index);
        after > 0 && index < self.0[after - 1].end
    }

    /// Those in this range of the picked ones (RFC 9394 3.2).
    pub(super) fn partial(&self, partial: PartialRange) -> Picked {
        let span = partial.span(self.count());
        let (mut passed, mut ranges) = (0, Vec::new());
        for range in &self.0 {
            let start = span.start.max(passed) - passed;
            let end = span.end.max(passed) - passed;
            ranges.push((range.start + start).min(range.end)..(range.start + end).min(range.end));
            passed += range.len();
        }
        Picked::of(ranges)
    }

    /// Messages picked.
    pub(super) fn count(&self) -> usize {
        self.0.iter().map(ExactSizeIterator::len).sum()
    }
}

impl PartialRange {
    /// Which of `count` results it names.
    pub(super) fn span(self, count: usize) -> Range<usize> {
        let position = |number: u32| usize::try_from(number).unwrap_or(usize::MAX).min(count + 1);
        let (low, high) = (
            position(self.first.min(self.last)),
            position(self.first.max(self.last)).min(count),
        );
        if low > high {
            return 0..0;
        }
        if self.from_end {
            count - high..count - low + 1
        } else {
            low - 1..high
        }
    }
}

/// Ranges in any order as rising ones that are apart.
pub(super) fn merged(mut ranges: Vec<UidRange>) -> Vec<UidRange> {
    ranges.sort_unstable_by_key(|range| range.first);
    let mut merged: Vec<UidRange> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.first.0 <= last.last.0.saturating_add(1) => last.last = last.last.max(range.last),
            _ => merged.push(range),
        }
    }
    merged
}

/// What two lists of rising ranges that are apart have in common.
pub(super) fn common(left: &[UidRange], right: &[UidRange]) -> Vec<UidRange> {
    let (mut left, mut right) = (left.iter().peekable(), right.iter().peekable());
    let mut common = Vec::new();
    while let (Some(one), Some(other)) = (left.peek(), right.peek()) {
        let (first, last) = (one.first.max(other.first), one.last.min(other.last));
        if first <= last {
            common.push(UidRange { first, last });
        }
        if one.last < other.last {
            left.next();
        } else {
            right.next();
        }
    }
    common
}

/// Adds a UID above all that are in.
pub(super) fn push(ranges: &mut Vec<UidRange>, uid: Uid) {
    match ranges.last_mut() {
        Some(range) if range.last.0.checked_add(1) == Some(uid.0) => range.last = uid,
        _ => ranges.push(UidRange { first: uid, last: uid }),
    }
}

/// Every UID of the ranges.
pub(super) fn expanded(ranges: &[UidRange]) -> impl Iterator<Item = Uid> {
    ranges.iter().flat_map(|range| (range.first.0..=range.last.0).map(Uid))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(uids: &[u32]) -> View {
        let mut view = View::default();
        assert!(view.add(uids.iter().copied().map(Uid)));
        view
    }

    fn ranges(list: &[(u32, u32)]) -> Vec<UidRange> {
        list.iter()
            .map(|&(first, last)| UidRange {
                first: Uid(first),
                last: Uid(last),
            })
            .collect()
    }

    fn picked(view: &View, by_uid: bool, set: &[(Option<u32>, Option<u32>)]) -> Option<Vec<UidRange>> {
        let target = Target {
            by_uid,
            set: SequenceSet::Numbers(set.to_vec()),
        };
        view.pick(&target).ok().map(|picked| view.ranges(&picked))
    }

    #[test]
    fn sequence_numbers_must_exist() {
        let view = view(&[10, 20, 30]);
        assert_eq!(picked(&view, false, &[(Some(1), Some(2))]), Some(ranges(&[(10, 20)])));
        assert_eq!(picked(&view, false, &[(None, Some(2))]), Some(ranges(&[(20, 30)])));
        assert_eq!(picked(&view, false, &[(Some(4), Some(4))]), None);
        assert_eq!(picked(&view, false, &[(Some(2), Some(u32::MAX))]), None);
    }

    #[test]
    fn uids_need_not_exist_and_a_star_is_the_last_message() {
        let view = view(&[10, 20, 30]);
        assert_eq!(picked(&view, true, &[(Some(1), Some(15))]), Some(ranges(&[(10, 10)])));
        assert_eq!(picked(&view, true, &[(Some(11), Some(19))]), Some(ranges(&[])));
        assert_eq!(picked(&view, true, &[(Some(100), None)]), Some(ranges(&[(30, 30)])));
        assert_eq!(
            picked(&view, true, &[(Some(20), Some(20)), (Some(10), Some(25))]),
            Some(ranges(&[(10, 20)]))
        );
    }

    #[test]
    fn all_of_nothing_is_nothing() {
        let view = view(&[]);
        assert_eq!(picked(&view, false, &[(Some(1), None)]), Some(vec![]));
        assert_eq!(picked(&view, true, &[(Some(1), None)]), Some(vec![]));
        assert_eq!(picked(&view, false, &[(Some(1), Some(1))]), None);
    }

    #[test]
    fn a_gone_message_keeps_its_number_until_it_is_told() {
        let mut view = view(&[10, 20, 30, 40]);
        view.lose(&ranges(&[(1, 10), (25, 35)]));
        assert_eq!(view.number(Uid(40)), Some(4));
        assert_eq!(view.expunge(), vec![3, 1]);
        assert_eq!(view.number(Uid(40)), Some(2));
        assert_eq!(view.number(Uid(30)), None);
        assert_eq!(view.expunge(), Vec::<usize>::new());
    }

    #[test]
    fn a_uid_below_the_highest_is_never_added() {
        let mut view = view(&[10, 20]);
        assert!(!view.add([Uid(15)]));
        assert!(!view.add([Uid(20)]));
        assert_eq!(view.len(), 2);
    }

    #[test]
    fn own_changes_are_told_once() {
        let mut view = view(&[10]);
        view.tell(Uid(10), ModSeq(5));
        assert!(view.is_told(Uid(10), ModSeq(5)));
        assert!(!view.is_told(Uid(10), ModSeq(6)));
        view.advance(ModSeq(5));
        assert!(!view.is_told(Uid(10), ModSeq(5)));
    }

    #[test]
    fn a_fresh_uid_list_tells_what_is_missing() {
        let view = view(&[1, 2, 3, 5, 9]);
        assert_eq!(
            view.missing_from(&ranges(&[(2, 2), (4, 6)])),
            ranges(&[(1, 1), (3, 3), (9, 9)])
        );
    }

    #[test]
    fn a_partial_range_counts_from_either_end() {
        let span = |from_end, first, last, count| PartialRange { from_end, first, last }.span(count);
        assert_eq!(span(false, 1, 3, 10), 0..3);
        assert_eq!(span(false, 3, 1, 10), 0..3);
        assert_eq!(span(false, 9, 20, 10), 8..10);
        assert_eq!(span(false, 11, 20, 10), 0..0);
        assert_eq!(span(true, 1, 3, 10), 7..10);
        assert_eq!(span(true, 30, 9, 10), 0..2);
        assert_eq!(span(true, 11, 12, 10), 0..0);
        assert_eq!(span(true, u32::MAX, 1, 0), 0..0);
        let view = view(&[10, 20, 30, 40]);
        let target = Target {
            by_uid: true,
            set: SequenceSet::Numbers(vec![(Some(10), Some(20)), (Some(40), Some(40))]),
        };
        let picked = view.pick(&target).unwrap();
        let partial = |from_end, first, last| view.ranges(&picked.partial(PartialRange { from_end, first, last }));
        assert_eq!(partial(false, 2, 3), ranges(&[(20, 20), (40, 40)]));
        assert_eq!(partial(true, 1, 1), ranges(&[(40, 40)]));
        assert_eq!(partial(false, 4, 9), ranges(&[]));
    }

    #[test]
    fn what_was_saved_and_then_expunged_is_passed_over() {
        let mut view = view(&[10, 11, 30]);
        view.save(ranges(&[(10, 11), (30, 30)]));
        let saved = Target {
            by_uid: false,
            set: SequenceSet::Saved,
        };
        view.lose(&ranges(&[(11, 11)]));
        view.expunge();
        let picked = view.pick(&saved).unwrap();
        assert_eq!(picked.count(), 2);
        assert!(picked.contains(0) && picked.contains(1));
    }

    #[test]
    fn ranges_are_merged_cut_and_compared_with_the_view() {
        let list = merged(ranges(&[(7, 9), (1, 2), (3, 3), (8, 12)]));
        assert_eq!(list, ranges(&[(1, 3), (7, 12)]));
        assert_eq!(
            common(&list, &ranges(&[(2, 7), (10, 10), (12, 40)])),
            ranges(&[(2, 3), (7, 7), (10, 10), (12, 12)])
        );
        let view = view(&[2, 8, 9, 12]);
        assert_eq!(view.absent(&list), ranges(&[(1, 1), (3, 3), (7, 7), (10, 11)]));
        assert_eq!(
            view.absent(&ranges(&[(1, u32::MAX)])).last(),
            ranges(&[(13, u32::MAX)]).last()
        );
    }
}
