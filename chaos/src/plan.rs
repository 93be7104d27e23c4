//! A plan: the faults of a scenario under one seed, as a flat list in order of time.
//!
//! A [`Step`] begins a fault at one time and ends it at another. All that chance decides is drawn here, per fault and per repetition from
//! a stream of its own, so that a step that is left out (by `chaos shrink`) changes no other. Whom a step hits may depend on who leads
//! when it begins; [`Step::targets`] decides that from what the engine sees, and the engine writes the answer to the history. The plan of
//! a run is kept beside it as `plan.jsonl`, one step a line, and a run can be told to follow such a file.

mod links;
mod targets;

use std::io::{BufRead as _, Write as _};
use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

pub use links::links;
pub use targets::{Present, Skipped};

use crate::scenario::{Fault, FaultTable, Guard, Scenario, Select, Setting};
use crate::seed::Chance;

/// More steps than this is a mistake in the scenario.
pub const STEPS_MAX: usize = 10_000;

/// One fault of a plan. Times count from the start of the run, in microseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Unique in its plan, and the same when other steps are left out.
    pub id: u32,
    /// When it begins.
    pub at_us: u64,
    /// How long it lasts; it ends with the safety phase at the latest. 0: it has no end.
    pub lasts_us: u64,
    /// What it does.
    pub fault: Fault,
    /// Whom it hits.
    pub select: Select,
    /// What must be left.
    pub guard: Guard,
    /// Seed of what is drawn when it begins.
    pub draw: u64,
}

/// When the parts of a run begin and end, from its start, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeline {
    /// Faults may begin.
    pub safety_us: u64,
    /// All faults end.
    pub heal_us: u64,
    /// Everything must work.
    pub liveness_us: u64,
    /// Clients stop.
    pub end_us: u64,
}

impl Timeline {
    /// Of a scenario.
    pub fn of(scenario: &Scenario) -> Timeline {
        let phases = &scenario.phases;
        let safety_us = phases.warmup.us();
        let heal_us = safety_us + phases.safety.us();
        let liveness_us = heal_us + phases.heal.us();
        Timeline {
            safety_us,
            heal_us,
            liveness_us,
            end_us: liveness_us + phases.liveness.us(),
        }
    }

    /// The same when the faults were undone only at `healed_us`: everything after them is later, and lasts as long.
    #[must_use]
    pub fn healed_at(self, healed_us: u64) -> Timeline {
        let late_us = healed_us.saturating_sub(self.heal_us);
        Timeline {
            safety_us: self.safety_us,
            heal_us: self.heal_us + late_us,
            liveness_us: self.liveness_us + late_us,
            end_us: self.end_us + late_us,
        }
    }
}

/// The plan of a scenario under a seed, in order of time.
///
/// # Errors
/// When a fault is not valid or there are more than [`STEPS_MAX`] steps.
pub fn plan(scenario: &Scenario, seed: u64) -> anyhow::Result<Vec<Step>> {
    let timeline = Timeline::of(scenario);
    let mut steps = Vec::new();
    for (number, table) in scenario.faults.iter().enumerate() {
        let fault = format!("fault {number} of {}", scenario.name);
        steps.extend(
            steps_of(table, number as u32, seed, timeline)
                .map_err(anyhow::Error::msg)
                .context(fault)?,
        );
    }
    anyhow::ensure!(steps.len() <= STEPS_MAX, "{} steps, at most {STEPS_MAX}", steps.len());
    steps.sort_by_key(|step| (step.at_us, step.id));
    Ok(steps)
}

/// Repetitions of one fault. A step's id is made of the fault's number and the repetition's, so it stays when others go.
fn steps_of(table: &FaultTable, number: u32, seed: u64, timeline: Timeline) -> Result<Vec<Step>, String> {
    let (fault, when, select) = (table.fault()?, table.when()?, table.select()?);
    let last_us = when
        .until
        .map_or(u64::MAX, |until| timeline.safety_us.saturating_add(until.us()));
    let mut steps = Vec::new();
    for repetition in 0..when.times.unwrap_or(if when.every.is_some() { u32::MAX } else { 1 }) {
        let distance_us = when.every.map_or(0, |every| every.us());
        let base_us = timeline.safety_us + when.at.us() + distance_us.saturating_mul(u64::from(repetition));
        if base_us >= timeline.heal_us || base_us > last_us || steps.len() > STEPS_MAX {
            break;
        }
        let mut chance = Chance::of(seed, "nemesis", (u64::from(number) << 32) | u64::from(repetition));
        let at_us = base_us + chance.between(0, when.jitter.us());
        // Chance put it behind the end of all faults.
        let Some(left_us) = timeline.heal_us.checked_sub(at_us).filter(|left| *left > 0) else {
            continue;
        };
        steps.push(Step {
            id: number * STEPS_MAX as u32 + repetition,
            at_us,
            lasts_us: if fault.has_end() {
                when.lasts.map_or(left_us, |lasts| lasts.us().min(left_us))
            } else {
                0
            },
            fault: fault.clone(),
            select: select.clone(),
            guard: table.guard,
            draw: chance.next(),
        });
    }
    Ok(steps)
}

/// The settings of malled for this run: choices of the scenario, drawn.
pub fn settings(scenario: &Scenario, seed: u64) -> std::collections::BTreeMap<String, u64> {
    let config = scenario.topology.config.iter().enumerate();
    let drawn = config.map(|(number, (name, setting))| {
        let value = match setting {
            Setting::One(value) => *value,
            Setting::Choice(choice) => {
                let mut chance = Chance::of(seed, "topology", number as u64);
                chance.pick(choice).copied().unwrap_or_default()
            }
        };
        (name.clone(), value)
    });
    drawn.collect()
}

/// Writes a plan, one step a line.
///
/// # Errors
/// When the file cannot be written.
pub fn write(path: &Path, steps: &[Step]) -> anyhow::Result<()> {
    let context = || format!("writing the plan {}", path.display());
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).with_context(context)?);
    for step in steps {
        serde_json::to_writer(&mut file, step).with_context(context)?;
        file.write_all(b"\n").with_context(context)?;
    }
    file.flush().with_context(context)
}

/// Reads a plan.
///
/// # Errors
/// When the file cannot be read or a line is no step.
pub fn read(path: &Path) -> anyhow::Result<Vec<Step>> {
    let context = || format!("reading the plan {}", path.display());
    let file = std::io::BufReader::new(std::fs::File::open(path).with_context(context)?);
    let mut steps = Vec::new();
    for (number, line) in file.lines().enumerate() {
        let line = line.with_context(context)?;
        let step = serde_json::from_str(&line).with_context(|| format!("{}:{}", path.display(), number + 1))?;
        anyhow::ensure!(
            steps.len() < STEPS_MAX,
            "{}: more than {STEPS_MAX} steps",
            path.display()
        );
        steps.push(step);
    }
    Ok(steps)
}

#[cfg(test)]
mod tests;
