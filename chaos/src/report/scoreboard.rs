//! Many runs on one page: what ran, what it did, what broke. The last line says it all: `N passed, N failed, N skipped`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::{badge, escape, page_of, time};
use crate::check::Verdict;
use crate::engine::{RESULT, RunResult, read_result};
use crate::figures::Percentiles;

/// All runs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Scoreboard {
    /// By scenario, engine and control.
    pub rows: Vec<Row>,
    /// Runs that failed or are not known, with the command that runs each again.
    pub red: Vec<Red>,
    /// Runs of builds that keep their promises.
    pub passed: u64,
    /// The same.
    pub failed: u64,
    /// The same.
    pub skipped: u64,
}

/// Runs of one scenario.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Which scenario.
    pub scenario: String,
    /// On which engine.
    pub engine: String,
    /// With which promise broken on purpose: such a run must fail, and counts as passed when it does.
    pub control: Option<String>,
    /// How many.
    pub runs: u64,
    /// As they should be.
    pub passed: u64,
    /// Not.
    pub failed: u64,
    /// Not run.
    pub skipped: u64,
    /// Promises that were broken on purpose under this scenario and found out, in these runs. A scenario without any proves little.
    pub proved_by: Vec<String>,
    /// Why not.
    pub reasons: Vec<String>,
    /// Changes acknowledged.
    pub acknowledged: u64,
    /// Faults made.
    pub faults: u64,
    /// The clusters' own time.
    pub lasted_us: u64,
    /// Outages of groups.
    pub outage_us: Percentiles,
}

/// A run that is not as it should be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Red {
    /// Its directory below the directory of runs.
    pub directory: String,
    /// Its verdict.
    pub verdict: Verdict,
    /// The first thing that is wrong.
    pub what: String,
    /// What runs it again.
    pub command: String,
}

/// Scenario, engine, control.
type Key = (String, String, Option<String>);

/// A row while runs are added to it.
struct Gathered {
    row: Row,
    outages: Vec<u64>,
    red: Vec<Red>,
}

impl Gathered {
    fn new((scenario, engine, control): Key) -> Gathered {
        Gathered {
            row: Row {
                scenario,
                engine,
                control,
                ..Row::default()
            },
            outages: Vec::new(),
            red: Vec::new(),
        }
    }

    fn add(&mut self, directory: &str, result: &RunResult) {
        let row = &mut self.row;
        row.runs += 1;
        row.acknowledged += result.figures.acknowledged;
        row.faults += result.figures.faults;
        self.outages
            .extend(result.figures.outages.iter().map(|outage| outage.took_us));
        if result.verdict == Verdict::Skipped {
            row.skipped += 1;
            row.reasons.extend(result.reason.clone());
            return;
        }
        row.lasted_us += result.figures.lasted_us;
        if as_it_should_be(result) {
            row.passed += 1;
        } else {
            row.failed += 1;
            self.red.push(Red::of(directory, result));
        }
    }

    /// A promise that is broken on purpose counts once: it is enough that one of its seeds finds it out.
    fn close(self) -> (Row, Vec<Red>) {
        let Gathered {
            mut row,
            outages,
            mut red,
        } = self;
        row.outage_us = Percentiles::of(outages);
        row.reasons.sort();
        row.reasons.dedup();
        if row.control.is_some() {
            row.passed = row.passed.min(1);
            row.failed = u64::from(row.passed == 0 && row.failed > 0);
            red.truncate(row.failed as usize);
        }
        (row, red)
    }
}

/// Is it as it should be? A build that breaks a promise on purpose must be found out.
fn as_it_should_be(result: &RunResult) -> bool {
    match result.control {
        Some(_) => result.verdict == Verdict::Fail,
        None => result.verdict == Verdict::Pass,
    }
}

impl Scoreboard {
    /// Of these runs, each with the name of its directory.
    pub fn of(results: &[(String, RunResult)]) -> Scoreboard {
        let mut board = Scoreboard::default();
        let mut rows: BTreeMap<Key, Gathered> = BTreeMap::new();
        for (directory, result) in results {
            let key = (
                result.scenario.clone(),
                result.engine.name().to_owned(),
                result.control.clone(),
            );
            let gathered = rows.entry(key.clone()).or_insert_with(|| Gathered::new(key));
            gathered.add(directory, result);
        }
        let proved: Vec<(String, String, String)> = rows
            .iter()
            .filter(|(_, gathered)| gathered.row.passed > 0)
            .filter_map(|((scenario, engine, control), _)| Some((scenario.clone(), engine.clone(), control.clone()?)))
            .collect();
        for gathered in rows.into_values() {
            let (mut row, red) = gathered.close();
            if row.control.is_none() {
                let here = proved
                    .iter()
                    .filter(|(scenario, engine, _)| (scenario, engine) == (&row.scenario, &row.engine));
                row.proved_by = here.map(|(_, _, control)| control.clone()).collect();
            }
            board.passed += row.passed;
            board.failed += row.failed;
            board.skipped += row.skipped;
            board.red.extend(red);
            board.rows.push(row);
        }
        board
    }

    /// The closing line.
    pub fn closing(&self) -> String {
        format!(
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }

    /// The page.
    pub fn html(&self) -> String {
        let sum = |of: fn(&Row) -> u64| {
            self.rows
                .iter()
                .filter(|row| row.control.is_none())
                .map(of)
                .sum::<u64>()
        };
        let verdict = match (self.failed, self.passed) {
            (1.., _) => Verdict::Fail,
            (0, 0) => Verdict::Unknown,
            _ => Verdict::Pass,
        };
        let mut body = format!(
            "<h1>Chaos {}</h1><p>{}</p><div class=\"cards\">{}{}{}{}</div>",
            badge(verdict),
            self.closing(),
            card(&sum(|row| row.runs).to_string(), "runs"),
            card(&sum(|row| row.acknowledged).to_string(), "changes acknowledged"),
            card(&sum(|row| row.faults).to_string(), "faults"),
            card(&time(sum(|row| row.lasted_us)), "of the clusters' own time"),
        );
        body.push_str(
            "<table><tr><th>scenario</th><th>engine</th><th>broken on purpose</th><th class=\"n\">runs</th><th class=\"n\">passed</th>\
             <th class=\"n\">failed</th><th class=\"n\">skipped</th><th class=\"n\">acknowledged</th><th class=\"n\">faults</th>\
             <th class=\"n\">outages</th><th class=\"n\">p50</th><th class=\"n\">p99</th><th class=\"n\">max</th></tr>",
        );
        for row in &self.rows {
            body.push_str(&row.html());
        }
        body.push_str("</table>");
        if !self.red.is_empty() {
            body.push_str(
                "<h2>Not as it should be</h2><table><tr><th>run</th><th></th><th>what</th><th>again</th></tr>",
            );
            for red in &self.red {
                let _ = write!(
                    body,
                    "<tr><td><a href=\"{name}/timeline.html\">{name}</a></td><td>{}</td><td>{}</td><td><code>{}</code></td></tr>",
                    badge(red.verdict),
                    escape(&red.what),
                    escape(&red.command),
                    name = escape(&red.directory)
                );
            }
            body.push_str("</table>");
        }
        page_of(&format!("chaos: {}", self.closing()), &body)
    }

    /// Writes `scoreboard.json` and `scoreboard.html`.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write(&self, directory: &Path) -> anyhow::Result<()> {
        let json = serde_json::to_vec_pretty(self)?;
        for (name, bytes) in [("scoreboard.json", json), ("scoreboard.html", self.html().into_bytes())] {
            let path = directory.join(name);
            std::fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }
}

fn card(value: &str, name: &str) -> String {
    format!("<div class=\"card\"><b>{}</b><span>{name}</span></div>", escape(value))
}

impl Row {
    fn html(&self) -> String {
        let reasons = self.reasons.iter().map(|reason| format!("<p>{}</p>", escape(reason)));
        let mut reasons: String = reasons.collect();
        if !self.proved_by.is_empty() {
            reasons.push_str(&format!("<p>found out: {}</p>", escape(&self.proved_by.join(", "))));
        }
        let outage = |us: u64| {
            if self.outage_us.count == 0 {
                String::new()
            } else {
                time(us)
            }
        };
        let class = if self.failed > 0 {
            " class=\"n fail\""
        } else {
            " class=\"n\""
        };
        format!(
            "<tr><td>{}{reasons}</td><td>{}</td><td>{}</td><td class=\"n\">{}</td><td class=\"n pass\">{}</td><td{class}>{}</td>\
             <td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>\
             <td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
            escape(&self.scenario),
            escape(&self.engine),
            escape(self.control.as_deref().unwrap_or("")),
            self.runs,
            self.passed,
            self.failed,
            self.skipped,
            self.acknowledged,
            self.faults,
            self.outage_us.count,
            outage(self.outage_us.p50),
            outage(self.outage_us.p99),
            outage(self.outage_us.max),
        )
    }
}

impl Red {
    fn of(directory: &str, result: &RunResult) -> Red {
        let worst = result
            .findings
            .iter()
            .filter(|finding| finding.verdict == result.verdict)
            .max_by_key(|finding| finding.violations);
        let what = match (worst, &result.control) {
            (_, Some(control)) if result.verdict != Verdict::Fail => format!("nobody noticed {control}"),
            (Some(finding), _) => {
                let evidence = finding.evidence.first().map(|evidence| evidence.what.clone());
                format!(
                    "{}: {}",
                    finding.invariant,
                    evidence.or_else(|| finding.note.clone()).unwrap_or_default()
                )
            }
            (None, _) => "nothing was judged".to_owned(),
        };
        Red {
            directory: directory.to_owned(),
            verdict: result.verdict,
            what,
            command: result.command.clone(),
        }
    }
}

/// Every run below a directory, by name.
///
/// # Errors
/// When the directory cannot be read or a result is damaged.
pub fn collect(directory: &Path) -> anyhow::Result<Vec<(String, RunResult)>> {
    let entries = std::fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let mut results = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot read {}", directory.display()))?;
        if entry.path().join(RESULT).is_file() {
            results.push((
                entry.file_name().to_string_lossy().into_owned(),
                read_result(&entry.path())?,
            ));
        }
    }
    results.sort_by(|one, other| one.0.cmp(&other.0));
    Ok(results)
}

#[cfg(test)]
mod tests;
