//! Repeating and alternating.
//!
//! Sides of a comparison run side by side, and their samples are taken in turns, A B B A A B B A: a machine that becomes slower, or a store
//! that becomes fuller, meets both alike. The n-th samples of two sides are neighbours in time; they are the pairs whose ratios count.

use std::path::Path;

use anyhow::Context;
use serde::Serialize;

use crate::figures::{Better, Ratio, Spread};
use crate::machine::{Others, Stretch};
use crate::measure::{Cell, Effort, Measurement};
use crate::world::{Side, World};

/// What came of one measurement.
#[derive(Debug, Serialize)]
pub struct Measured {
    /// Its name.
    pub name: &'static str,
    /// Its line of explanation.
    pub about: &'static str,
    /// Names of the sides; ratios are of the first to each other.
    pub sides: Vec<String>,
    /// Its cells.
    pub rows: Vec<Row>,
}

/// What came of one cell.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Its parameters.
    pub cell: Cell,
    /// Figure by figure.
    pub figures: Vec<Line>,
    /// Of the most disturbed sample.
    pub disturbed_by: Others,
    /// Why there are no figures.
    pub failed: Option<String>,
}

/// One figure of all sides.
#[derive(Debug, Serialize)]
pub struct Line {
    /// Its name.
    pub name: &'static str,
    /// Its unit.
    pub unit: &'static str,
    /// Which way is good.
    pub better: Better,
    /// Side by side.
    pub sides: Vec<Spread>,
    /// The first side beside each other one.
    pub ratios: Vec<Option<Ratio>>,
    /// Every sample, side by side, in the order in which they were taken.
    pub samples: Vec<Vec<f64>>,
}

/// Measures these cells on these sides.
///
/// # Errors
/// When a side does not start or stop. A cell that fails is a row that says why.
pub async fn measure(
    measurement: &'static dyn Measurement,
    cells: &[Cell],
    sides: &[Side],
    effort: &Effort,
    directory: &Path,
) -> anyhow::Result<Measured> {
    let mut rows: Vec<Row> = cells.iter().cloned().map(Row::of).collect();
    // Neighbours of one shape share a world.
    for rows in rows.chunk_by_mut(|a, b| measurement.shape(&a.cell) == measurement.shape(&b.cell)) {
        for start in 0..effort.starts {
            let mut worlds = start_all(measurement, &rows[0].cell, sides, start, directory).await?;
            for row in rows.iter_mut().filter(|row| row.failed.is_none()) {
                eprintln!(
                    "== {}: {}, start {} of {}",
                    measurement.name(),
                    row.cell,
                    start + 1,
                    effort.starts
                );
                if let Err(error) = fill(row, measurement, &mut worlds, effort).await {
                    eprintln!("== {}: {} failed: {error:#}", measurement.name(), row.cell);
                    row.figures.clear();
                    row.failed = Some(format!("{error:#}"));
                }
            }
            for world in worlds {
                world.stop().await?;
            }
        }
    }
    let lines = rows.iter_mut().flat_map(|row| &mut row.figures);
    lines.for_each(|line| line.conclude(effort.rounds));
    Ok(Measured {
        name: measurement.name(),
        about: measurement.about(),
        sides: sides.iter().map(|side| side.name.clone()).collect(),
        rows,
    })
}

/// A world of each side, in the order of the sides. Who starts first changes from start to start.
async fn start_all(
    measurement: &dyn Measurement,
    cell: &Cell,
    sides: &[Side],
    start: usize,
    directory: &Path,
) -> anyhow::Result<Vec<World>> {
    let mut worlds: Vec<Option<World>> = sides.iter().map(|_| None).collect();
    for at in turns(sides.len(), start + 1).into_iter().skip(start * sides.len()) {
        eprintln!("== {}: starting {}", measurement.name(), sides[at].name);
        let started = sides[at].start(measurement.shape(cell), directory).await;
        let mut world = started.with_context(|| format!("starting {}", sides[at].name))?;
        let prepared = measurement.prepare(&mut world).await;
        prepared.with_context(|| format!("preparing {}", sides[at].name))?;
        worlds[at] = Some(world);
    }
    Ok(worlds.into_iter().flatten().collect())
}

/// All samples of one cell in one start of the worlds.
async fn fill(
    row: &mut Row,
    measurement: &dyn Measurement,
    worlds: &mut [World],
    effort: &Effort,
) -> anyhow::Result<()> {
    let able = |side: &usize| measurement.peer(&row.cell) || !matches!(worlds[*side], World::Dovecot(_));
    let able: Vec<usize> = (0..worlds.len()).filter(able).collect();
    for &side in able.iter().filter(|_| measurement.warms_up()) {
        measurement.run(&mut worlds[side], &row.cell, effort).await?;
    }
    for turn in turns(able.len(), effort.rounds) {
        let side = able[turn];
        let stretch = Stretch::begin(worlds)?;
        let figures = measurement.run(&mut worlds[side], &row.cell, effort).await?;
        let others = stretch.end(worlds)?;
        if others.others + others.stolen > row.disturbed_by.others + row.disturbed_by.stolen {
            row.disturbed_by = others;
        }
        for figure in figures {
            let known = row.figures.iter().position(|line| line.name == figure.name);
            let at = known.unwrap_or_else(|| {
                row.figures.push(Line {
                    name: figure.name,
                    unit: figure.unit,
                    better: figure.better,
                    sides: Vec::new(),
                    ratios: Vec::new(),
                    samples: vec![Vec::new(); worlds.len()],
                });
                row.figures.len() - 1
            });
            row.figures[at].samples[side].push(figure.value);
        }
    }
    Ok(())
}

impl Row {
    fn of(cell: Cell) -> Row {
        Row {
            cell,
            figures: Vec::new(),
            disturbed_by: Others::default(),
            failed: None,
        }
    }
}

impl Line {
    fn conclude(&mut self, per_start: usize) {
        let nothing = Spread {
            median: f64::NAN,
            low: f64::NAN,
            high: f64::NAN,
            samples: 0,
        };
        let of = |samples: &Vec<f64>| Spread::of(samples).unwrap_or(nothing);
        self.sides = self.samples.iter().map(of).collect();
        let (ours, others) = self.samples.split_first().expect("there is a side");
        let ratio = |theirs: &Vec<f64>| Ratio::of(ours, theirs, self.better, per_start);
        self.ratios = others.iter().map(ratio).collect();
    }
}

/// Whose turn it is: forth and back.
fn turns(sides: usize, rounds: usize) -> Vec<usize> {
    let forth = |round: usize| round.is_multiple_of(2);
    let one = |round: usize| (0..sides).map(move |at| if forth(round) { at } else { sides - 1 - at });
    (0..rounds).flat_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_go_forth_and_back() {
        assert_eq!(turns(1, 3), [0, 0, 0]);
        assert_eq!(turns(2, 3), [0, 1, 1, 0, 0, 1]);
        assert_eq!(turns(3, 2), [0, 1, 2, 2, 1, 0]);
    }

    #[test]
    fn pairs_are_neighbours() {
        // A B B A: the first of both are neighbours, and the second of both.
        let mut line = Line {
            name: "rate",
            unit: "/s",
            better: Better::More,
            sides: Vec::new(),
            ratios: Vec::new(),
            samples: vec![vec![100.0, 10.0], vec![50.0, 5.0]],
        };
        line.conclude(2);
        assert_eq!(line.sides[0].median, 55.0);
        let ratio = line.ratios[0].clone().unwrap();
        assert_eq!((ratio.ratio.low, ratio.ratio.high, ratio.better_in), (2.0, 2.0, 2));
    }
}
