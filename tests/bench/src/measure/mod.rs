//! The measurements, one file each.
//!
//! To add one: a file with a unit struct that implements [`Measurement`], and a line in [`ALL`]. It says which cells it has (points of
//! its parameters), which cluster it needs, and turns one cell and one running world into figures. What is absent here: repeating,
//! alternating, medians, printing; that is `rounds`' and `report`'s, the same for all.

mod append;
mod deliver;
mod failover;
mod fetch;
mod flags;
mod idle;
mod lmtp;
mod notify;
mod overload;
mod select;
mod written;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use serde::Serialize;

use crate::figures::Figure;
use crate::load::Window;
use crate::world::{Shape, World};

/// Every measurement, in the order of the report.
pub const ALL: &[&dyn Measurement] = &[
    &deliver::Deliver,
    &lmtp::Lmtp,
    &append::Append,
    &flags::Flags,
    &fetch::Fetch,
    &select::Select,
    &notify::Notify,
    &written::Written,
    &idle::Idle,
    &failover::Failover,
    &overload::Overload,
];

/// One thing to measure.
#[async_trait]
pub trait Measurement: Sync {
    /// What `--only` calls it.
    fn name(&self) -> &'static str;

    /// One line above its table: what is done, by whom, in which unit figures are.
    fn about(&self) -> &'static str;

    /// Whether another mail store can do it too: by LMTP and IMAP alone.
    fn peer(&self, _: &Cell) -> bool {
        false
    }

    /// What must be there before the first sample, in each world once.
    ///
    /// # Errors
    /// When it did not come about.
    async fn prepare(&self, _: &mut World) -> anyhow::Result<()> {
        Ok(())
    }

    /// Its points.
    fn cells(&self) -> Vec<Cell>;

    /// The cluster that a cell needs. Cells of one shape are measured in one world.
    fn shape(&self, _: &Cell) -> Shape {
        Shape::default()
    }

    /// Whether the first sample of a cell is thrown away, because sessions and caches are cold.
    fn warms_up(&self) -> bool {
        true
    }

    /// One sample.
    ///
    /// # Errors
    /// When something failed that is not part of what is measured.
    async fn run(&self, world: &mut World, cell: &Cell, effort: &Effort) -> anyhow::Result<Vec<Figure>>;
}

/// Numbers of mails: no two of a run have the same body.
static NUMBER: AtomicU64 = AtomicU64::new(0);

/// The number of the next mail.
fn next_number() -> u64 {
    NUMBER.fetch_add(1, Ordering::Relaxed)
}

/// How much.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Effort {
    /// Of one sample.
    pub window: Window,
    /// Samples of each side in each start.
    pub rounds: usize,
    /// How often everything is started anew.
    pub starts: usize,
}

/// A point: parameters with their values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell(Vec<(&'static str, Value)>);

/// A value of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(untagged)]
enum Value {
    Number(u64),
    Word(&'static str),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Number(number) => number.fmt(f),
            Value::Word(word) => f.write_str(word),
        }
    }
}

impl Cell {
    /// Of these parameters.
    pub fn of(parameters: &[(&'static str, u64)]) -> Cell {
        let number = |(name, value): &(&'static str, u64)| (*name, Value::Number(*value));
        Cell(parameters.iter().map(number).collect())
    }

    /// With one more parameter, in front of the others.
    pub fn with(mut self, name: &'static str, word: &'static str) -> Cell {
        self.0.insert(0, (name, Value::Word(word)));
        self
    }

    /// The number of a parameter.
    pub fn get(&self, name: &str) -> u64 {
        match self.value(name) {
            Value::Number(number) => number,
            Value::Word(_) => panic!("{name} is a word"),
        }
    }

    /// Whether a parameter is this word.
    pub fn is(&self, name: &str, word: &'static str) -> bool {
        self.value(name) == Value::Word(word)
    }

    fn value(&self, name: &str) -> Value {
        let found = self.0.iter().find(|(known, _)| *known == name);
        found
            .map(|(_, value)| *value)
            .expect("a measurement asks for parameters that it made")
    }

    /// Whether every word of `filter`, such as `kib=16 c=64`, is one of the parameters. A parameter that the cell does not have is no
    /// reason to leave it out: one filter serves several measurements.
    pub fn passes(&self, filter: &str) -> bool {
        filter.split_whitespace().all(|word| {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            let own = self.0.iter().find(|(known, _)| *known == name);
            own.is_none_or(|(_, own)| own.to_string() == value)
        })
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (name, value)) in self.0.iter().enumerate() {
            write!(f, "{}{name}={value}", if at == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

impl Serialize for Cell {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_measurement_has_a_name_of_its_own_and_cells_that_differ() {
        let names: BTreeSet<_> = ALL.iter().map(|measurement| measurement.name()).collect();
        assert_eq!(names.len(), ALL.len());
        for measurement in ALL {
            let cells: BTreeSet<_> = measurement.cells().iter().map(Cell::to_string).collect();
            assert_eq!(cells.len(), measurement.cells().len(), "{}", measurement.name());
            assert!(!cells.is_empty() && !measurement.about().is_empty());
        }
    }

    #[test]
    fn a_filter_passes_what_it_names_and_what_it_cannot_name() {
        let cell = Cell::of(&[("kib", 16), ("c", 64)]);
        assert!(cell.passes("kib=16") && cell.passes("c=64 kib=16") && cell.passes("shards=1"));
        assert!(!cell.passes("kib=1") && !cell.passes("c=6") && !cell.passes("kib=16 c=1"));
        assert_eq!(cell.to_string(), "kib=16 c=64");
    }
}
