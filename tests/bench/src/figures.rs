//! What a measurement gives, and what is made of several: medians with their range, and ratios of neighbours.
//!
//! On a machine that others use too, a figure of one minute says nothing about a figure of the next. So sides are compared pair by pair,
//! each pair measured one right after the other, and the median of the pairs' ratios is told with its range and with how many pairs agree.
//! Two starts of the same binaries differ by several percent for as long as they run (where memory and files came to lie, in which phase
//! flushes fell), so each side is started anew a few times, and the ratio of each start is told: where those disagree, nothing is shown.

use serde::Serialize;

/// Which way is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// Deliveries per second.
    More,
    /// Milliseconds, bytes, CPU time.
    Less,
}

/// One number of one sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// For example `p99`.
    pub name: &'static str,
    /// For example `ms`.
    pub unit: &'static str,
    /// Which way is good.
    pub better: Better,
    /// The number.
    pub value: f64,
}

impl Figure {
    /// A figure of which more is better.
    pub fn more(name: &'static str, unit: &'static str, value: f64) -> Figure {
        Figure {
            name,
            unit,
            better: Better::More,
            value,
        }
    }

    /// A figure of which less is better.
    pub fn less(name: &'static str, unit: &'static str, value: f64) -> Figure {
        Figure {
            name,
            unit,
            better: Better::Less,
            value,
        }
    }
}

/// Several numbers of one thing.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// Half lies below.
    pub median: f64,
    /// The lowest.
    pub low: f64,
    /// The highest.
    pub high: f64,
    /// How many.
    pub samples: usize,
}

impl Spread {
    /// Of these numbers; `None` of none.
    pub fn of(values: &[f64]) -> Option<Spread> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (low, high) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        };
        Some(Spread {
            median,
            low,
            high,
            samples: sorted.len(),
        })
    }
}

/// One side beside another.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Ratio {
    /// Ours divided by theirs, pair by pair.
    pub ratio: Spread,
    /// The median of each start of the two.
    pub starts: Vec<f64>,
    /// Pairs in which ours was the better one.
    pub better_in: usize,
}

impl Ratio {
    /// Pairs are what stands at the same place of both, `per_start` of each start; `None` when there is none with a number in it.
    pub fn of(ours: &[f64], theirs: &[f64], better: Better, per_start: usize) -> Option<Ratio> {
        let ratios: Vec<f64> = ours
            .iter()
            .zip(theirs)
            .map(|(ours, theirs)| if *theirs > 0.0 { ours / theirs } else { f64::NAN })
            .collect();
        let numbers = |ratios: &[f64]| {
            ratios
                .iter()
                .copied()
                .filter(|ratio| !ratio.is_nan())
                .collect::<Vec<_>>()
        };
        let starts = ratios
            .chunks(per_start.max(1))
            .filter_map(|start| Spread::of(&numbers(start)));
        let wins = |ratio: &&f64| match better {
            Better::More => **ratio > 1.0,
            Better::Less => **ratio < 1.0,
        };
        Some(Ratio {
            ratio: Spread::of(&numbers(&ratios))?,
            starts: starts.map(|start| start.median).collect(),
            better_in: ratios.iter().filter(wins).count(),
        })
    }
}

/// The value below which the share `p` (0 to 1) of a sorted list lies.
pub fn percentile(sorted: &[f64], p: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    let at = (last as f64 * p).round() as usize;
    sorted.get(at).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        let spread = Spread::of(&[4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!(
            (spread.median, spread.low, spread.high, spread.samples),
            (2.5, 1.0, 4.0, 4)
        );
        assert_eq!(Spread::of(&[7.0, 9.0, 8.0]).unwrap().median, 8.0);
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn a_ratio_is_of_neighbours_and_not_of_medians() {
        // The machine became ten times slower in the middle; in each pair ours is twice as fast.
        let ratio = Ratio::of(&[200.0, 200.0, 20.0], &[100.0, 100.0, 10.0], Better::More, 3).unwrap();
        assert_eq!((ratio.ratio.median, ratio.ratio.low, ratio.better_in), (2.0, 2.0, 3));
        let slower = Ratio::of(&[2.0], &[1.0], Better::Less, 1).unwrap();
        assert_eq!(slower.better_in, 0);
        assert_eq!(Ratio::of(&[1.0], &[0.0], Better::Less, 1), None);
    }

    #[test]
    fn each_start_has_a_ratio_of_its_own() {
        let ratio = Ratio::of(&[1.0, 1.0, 3.0, 3.0], &[1.0, 1.0, 1.0, 0.0], Better::More, 2).unwrap();
        assert_eq!((ratio.starts, ratio.ratio.samples), (vec![1.0, 3.0], 3));
    }

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let sorted: Vec<f64> = (0..=100).map(f64::from).collect();
        assert_eq!((percentile(&sorted, 0.5), percentile(&sorted, 0.99)), (50.0, 99.0));
        assert!(percentile(&[], 0.5).is_nan());
    }
}
