//! Which messages a partition drops.

use std::collections::BTreeSet;

use crate::scenario::Shape;

/// The directed links (from, to) between places that a partition of this shape cuts. `selected` and `all` are in rising order.
pub fn links(shape: Shape, selected: &[u32], all: &[u32]) -> BTreeSet<(u32, u32)> {
    let chosen = |place: u32| selected.contains(&place);
    let cut: Box<dyn Fn(u32, u32) -> bool> = match shape {
        Shape::Isolate => Box::new(move |from, to| chosen(from) || chosen(to)),
        Shape::Split => Box::new(move |from, to| chosen(from) != chosen(to)),
        Shape::OnewayOut => Box::new(move |from, to| chosen(from) && !chosen(to)),
        Shape::OnewayIn => Box::new(move |from, to| !chosen(from) && chosen(to)),
        Shape::Bridge => {
            let bridge = selected.first().copied();
            let others: Vec<u32> = all.iter().copied().filter(|place| Some(*place) != bridge).collect();
            let half = others.len() / 2;
            let first: BTreeSet<u32> = others.into_iter().take(half).collect();
            Box::new(move |from, to| {
                Some(from) != bridge && Some(to) != bridge && first.contains(&from) != first.contains(&to)
            })
        }
        Shape::Ring => Box::new(move |from, to| {
            let at = |place| all.iter().position(|other| *other == place).unwrap_or(0);
            let distance = at(from).abs_diff(at(to));
            distance > 1 && distance + 1 < all.len()
        }),
    };
    let pairs = all.iter().flat_map(|&from| all.iter().map(move |&to| (from, to)));
    pairs.filter(|&(from, to)| from != to && cut(from, to)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(shape: Shape, selected: &[u32], nodes: u32) -> Vec<(u32, u32)> {
        let all: Vec<u32> = (1..=nodes).collect();
        links(shape, selected, &all).into_iter().collect()
    }

    #[test]
    fn an_isolated_machine_neither_hears_nor_is_heard() {
        assert_eq!(cut(Shape::Isolate, &[2], 3), [(1, 2), (2, 1), (2, 3), (3, 2)]);
    }

    #[test]
    fn a_split_keeps_both_sides_together() {
        assert_eq!(cut(Shape::Split, &[1, 2], 3), [(1, 3), (2, 3), (3, 1), (3, 2)]);
    }

    #[test]
    fn one_way_cuts_one_way() {
        assert_eq!(cut(Shape::OnewayOut, &[1], 3), [(1, 2), (1, 3)]);
        assert_eq!(cut(Shape::OnewayIn, &[1], 3), [(2, 1), (3, 1)]);
    }

    #[test]
    fn halves_meet_only_on_the_bridge() {
        assert_eq!(
            cut(Shape::Bridge, &[3], 5),
            [(1, 4), (1, 5), (2, 4), (2, 5), (4, 1), (4, 2), (5, 1), (5, 2)]
        );
    }

    #[test]
    fn on_a_ring_everybody_sees_two() {
        let cut = cut(Shape::Ring, &[], 5);
        for place in 1..=5 {
            assert_eq!(cut.iter().filter(|(from, _)| *from == place).count(), 2, "{place}");
        }
    }
}
