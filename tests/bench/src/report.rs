//! The report: tables for people, one JSON object for programs.

use std::path::Path;

use anyhow::Context;
use comfy_table::Table;
use serde::Serialize;

use crate::figures::{Ratio, Spread};
use crate::machine::Machine;
use crate::rounds::{Line, Measured, Row};

/// Rises when a field changes its meaning or goes, not when one is added.
const VERSION: u32 = 1;

/// All that is known at the end.
#[derive(Debug, Serialize)]
pub struct Report {
    v: u32,
    /// Of the sources that this program was built from, if they have not moved since.
    pub commit: String,
    /// What was measured on.
    pub machine: Machine,
    /// Seconds of one sample.
    pub sample_seconds: f64,
    /// What a reader should know: the peer's version, what was skipped and why.
    pub notes: Vec<String>,
    /// What came of it.
    pub measured: Vec<Measured>,
}

impl Report {
    /// Of nothing yet.
    pub fn new(commit: String, machine: Machine, sample_seconds: f64) -> Report {
        Report {
            v: VERSION,
            commit,
            machine,
            sample_seconds,
            notes: Vec::new(),
            measured: Vec::new(),
        }
    }

    /// Writes the JSON.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        std::fs::write(path, text + "\n").with_context(|| format!("writing {}", path.display()))
    }

    /// Whether a cell has no figures.
    pub fn failed(&self) -> bool {
        self.measured
            .iter()
            .flat_map(|measured| &measured.rows)
            .any(|row| row.failed.is_some())
    }

    /// What people read.
    pub fn text(&self) -> String {
        let machine = &self.machine;
        let mut text = format!(
            "commit {}; {} processors, {} GiB, {}, kernel {}; samples of {} s, each the median (lowest to highest)\n",
            self.commit, machine.cpus, machine.memory_gib, machine.file_system, machine.kernel, self.sample_seconds
        );
        for warning in machine.warnings() {
            text += &format!("WARNING: {warning}\n");
        }
        for note in &self.notes {
            text += &format!("{note}\n");
        }
        for measured in &self.measured {
            text += &format!("\n{}: {}\n", measured.name, measured.about);
            text += &match measured.sides.len() {
                1 => alone(measured),
                _ => compared(measured),
            };
            text += &warnings(measured);
        }
        text
    }
}

fn warnings(measured: &Measured) -> String {
    let mut text = String::new();
    for row in &measured.rows {
        if let Some(failed) = &row.failed {
            text += &format!("FAILED: {}: {failed}\n", row.cell);
        }
    }
    let disturbed: Vec<&Row> = measured
        .rows
        .iter()
        .filter(|row| row.disturbed_by.disturbed())
        .collect();
    let sum = |row: &&&Row| row.disturbed_by.others + row.disturbed_by.stolen;
    if let Some(worst) = disturbed.iter().max_by(|a, b| sum(a).total_cmp(&sum(b))) {
        text += &format!(
            "WARNING: {} of {} rows were disturbed; at worst others had {:.0} % of the processors and the host {:.0} %. \
             Believe ratios, not figures.\n",
            disturbed.len(),
            measured.rows.len(),
            worst.disturbed_by.others * 100.0,
            worst.disturbed_by.stolen * 100.0
        );
    }
    text
}

/// One side: a row for each cell, a column for each figure.
fn alone(measured: &Measured) -> String {
    let Some(widest) = measured.rows.iter().max_by_key(|row| row.figures.len()) else {
        return String::new();
    };
    let mut header = vec![measured.sides[0].clone()];
    header.extend(widest.figures.iter().map(|line| format!("{} {}", line.name, line.unit)));
    let rows = measured.rows.iter().map(|row| {
        let mut cells = vec![row.cell.to_string()];
        let found = |wanted: &Line| row.figures.iter().find(|line| line.name == wanted.name);
        cells.extend(widest.figures.iter().map(|line| match found(line) {
            Some(line) => spread(&line.sides[0]),
            None => "-".into(),
        }));
        cells
    });
    table(header, rows.collect())
}

/// Several sides: a row for each figure of each cell, a column for each side and for each ratio.
fn compared(measured: &Measured) -> String {
    let mut header = vec![String::new(), "figure".into()];
    header.extend(measured.sides.iter().cloned());
    let (ours, others) = measured.sides.split_first().expect("there is a side");
    header.extend(others.iter().map(|theirs| format!("{ours} / {theirs}")));
    let mut rows = Vec::new();
    for row in &measured.rows {
        for (at, line) in row.figures.iter().enumerate() {
            let cell = if at == 0 { row.cell.to_string() } else { String::new() };
            let mut cells = vec![cell, format!("{} {}", line.name, line.unit)];
            cells.extend(line.sides.iter().map(spread));
            cells.extend(line.ratios.iter().map(ratio));
            rows.push(cells);
        }
    }
    table(header, rows)
}

fn spread(spread: &Spread) -> String {
    match spread.samples {
        0 => "-".into(),
        1 => number(spread.median),
        _ => format!(
            "{} ({} to {})",
            number(spread.median),
            number(spread.low),
            number(spread.high)
        ),
    }
}

fn ratio(ratio: &Option<Ratio>) -> String {
    let Some(Ratio {
        ratio,
        starts,
        better_in,
    }) = ratio
    else {
        return "-".into();
    };
    let starts: Vec<String> = starts.iter().map(|start| number(*start)).collect();
    format!(
        "{} ({} to {}), better in {better_in} of {}; starts {}",
        number(ratio.median),
        number(ratio.low),
        number(ratio.high),
        ratio.samples,
        starts.join(" ")
    )
}

/// Three digits that count.
fn number(value: f64) -> String {
    match value {
        value if value.is_nan() => "-".into(),
        value if value >= 99.5 => format!("{value:.0}"),
        value if value >= 9.95 => format!("{value:.1}"),
        value if value >= 0.0995 || value == 0.0 => format!("{value:.2}"),
        value => format!("{value:.2e}"),
    }
}

fn table(header: Vec<String>, rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(header);
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::Better;
    use crate::machine::Others;
    use crate::measure::Cell;

    fn measured(sides: usize) -> Measured {
        let samples: Vec<Vec<f64>> = (0..sides).map(|side| vec![100.0 / (side + 1) as f64, 120.0]).collect();
        let ours = samples[0].clone();
        let line = Line {
            name: "rate",
            unit: "/s",
            better: Better::More,
            sides: samples.iter().filter_map(|samples| Spread::of(samples)).collect(),
            ratios: samples[1..]
                .iter()
                .map(|theirs| Ratio::of(&ours, theirs, Better::More, 1))
                .collect(),
            samples,
        };
        Measured {
            name: "deliver",
            about: "mails",
            sides: (0..sides).map(|side| format!("side-{side}")).collect(),
            rows: vec![Row {
                cell: Cell::of(&[("kib", 16)]),
                figures: vec![line],
                disturbed_by: Others {
                    others: 0.5,
                    stolen: 0.0,
                },
                failed: None,
            }],
        }
    }

    fn report(measured: Measured) -> Report {
        let machine = Machine {
            cpus: 2,
            memory_gib: 24,
            kernel: "6".into(),
            file_system: "tmpfs".into(),
            load_average: 3.0,
        };
        let mut report = Report::new("abc".into(), machine, 2.0);
        report.measured.push(measured);
        report
    }

    #[test]
    fn one_side_is_told_with_its_range_and_what_disturbed_it() {
        let text = report(measured(1)).text();
        assert!(text.contains("rate /s") && text.contains("110 (100 to 120)"), "{text}");
        assert!(text.contains("others had 50 %"), "{text}");
        assert!(text.contains("load average was 3") && text.contains("tmpfs"), "{text}");
    }

    #[test]
    fn two_sides_are_told_with_their_ratio() {
        let text = report(measured(2)).text();
        assert!(text.contains("side-0 / side-1"), "{text}");
        assert!(
            text.contains("1.50 (1.00 to 2.00), better in 1 of 2; starts 2.00 1.00"),
            "{text}"
        );
    }

    #[test]
    fn a_failed_cell_is_told_and_the_report_knows() {
        let mut broken = measured(1);
        broken.rows[0].failed = Some("no leader".into());
        let report = report(broken);
        assert!(report.failed() && report.text().contains("FAILED: kib=16: no leader"));
        let json: serde_json::Value = serde_json::to_value(&report).unwrap();
        assert_eq!(json["measured"][0]["rows"][0]["cell"]["kib"], 16);
    }
}
