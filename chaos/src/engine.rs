//! Starting a run on an engine and judging what came of it.
//!
//! A run has a directory: `scenario.toml` and `plan.jsonl` say what was to happen, `history.jsonl` what did, `run.json` what the engine says
//! of itself, `result.json` the judgement, `timeline.html` all of it to look at. Nothing else is needed to judge it again, elsewhere or later.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::check::{self, Finding, Verdict};
use crate::figures::Figures;
use crate::history::{self, History};
use crate::plan::{self, Step};
use crate::proc;
use crate::report;
use crate::scenario::{Engine, Scenario};
use crate::workload::hex;

/// The judgement of a run, `result.json`.
pub const RESULT: &str = "result.json";
/// What the engine says of itself.
pub const RUN: &str = "run.json";
/// The scenario as it was run.
pub const SCENARIO: &str = "scenario.toml";
/// The plan as it was run.
pub const PLAN: &str = "plan.jsonl";
/// What people look at.
pub const TIMELINE: &str = "timeline.html";

/// What is to be run.
#[derive(Debug, Clone)]
pub struct Job {
    /// Parsed.
    pub scenario: Scenario,
    /// Its text.
    pub text: String,
    /// Where the text came from, for the command that runs it again.
    pub path: PathBuf,
    /// Where it runs.
    pub engine: Engine,
    /// Its seed.
    pub seed: u64,
    /// Its faults: those of scenario and seed when `None`.
    pub steps: Option<Vec<Step>>,
    /// The promise to break on purpose.
    pub control: Option<String>,
    /// The directory of the run.
    pub out: PathBuf,
    /// Where `chaos-sim` is, when it is not beside this program.
    pub sim: Option<PathBuf>,
    /// Let the engine log.
    pub trace: bool,
    /// The command that made this run, when it is only judged again.
    pub made_by: Option<String>,
}

/// The judgement of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunResult {
    /// The scenario's name.
    pub scenario: String,
    /// Its seed.
    pub seed: u64,
    /// Where it ran.
    pub engine: Engine,
    /// The promise that was broken on purpose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<String>,
    /// What was built.
    pub commit: String,
    /// BLAKE3 of the scenario's text, the first 16 digits.
    pub scenario_hash: String,
    /// The worst of the findings; SKIPPED when it did not run.
    pub verdict: Verdict,
    /// Why it was skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What was found about each promise.
    pub findings: Vec<Finding>,
    /// What was measured.
    pub figures: Figures,
    /// The same for every run of one build with one scenario, plan and seed; `sim` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
    /// How long it took.
    pub wall_ms: u64,
    /// What runs it again.
    pub command: String,
}

/// How an engine ended.
enum Ran {
    Whole,
    Skipped(String),
}

impl Job {
    /// Reads a scenario.
    ///
    /// # Errors
    /// When it cannot be used.
    pub fn read(path: &Path, engine: Engine, seed: u64, out: PathBuf) -> anyhow::Result<Job> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Job {
            scenario: Scenario::parse(&text, path)?,
            text,
            path: path.to_owned(),
            engine,
            seed,
            steps: None,
            control: None,
            out,
            sim: None,
            trace: false,
            made_by: None,
        })
    }

    /// Names the text of the scenario.
    pub fn scenario_hash(&self) -> String {
        hex(blake3::hash(self.text.as_bytes()).as_bytes())[..16].to_owned()
    }

    /// The directory name of this run below a directory of runs.
    pub fn name(&self) -> String {
        let control = self
            .control
            .as_ref()
            .map(|control| format!("-{control}"))
            .unwrap_or_default();
        format!("{}-{}-{}{control}", self.scenario.name, self.engine.name(), self.seed)
    }

    /// The one command that runs it again.
    pub fn command(&self) -> String {
        if let Some(command) = &self.made_by {
            return command.clone();
        }
        let mut command = format!(
            "chaos run {} --engine {} --seed {}",
            self.path.display(),
            self.engine.name(),
            self.seed
        );
        if let Some(control) = &self.control {
            command.push_str(&format!(" --control {control}"));
        }
        if self.steps.is_some() {
            command.push_str(&format!(" --plan {}", self.out.join(PLAN).display()));
        }
        command
    }

    /// Runs it, judges it, and writes everything into its directory.
    ///
    /// # Errors
    /// When the engine could not run; a promise that was found broken is a result.
    pub fn run(&self) -> anyhow::Result<RunResult> {
        let begun = Instant::now();
        std::fs::create_dir_all(&self.out).with_context(|| format!("cannot make {}", self.out.display()))?;
        self.write(SCENARIO, self.text.as_bytes())?;
        let steps = match &self.steps {
            Some(steps) => steps.clone(),
            None => plan::plan(&self.scenario, self.seed)?,
        };
        plan::write(&self.out.join(PLAN), &steps)?;
        let ran = if self.scenario.engines.contains(&self.engine) {
            match self.engine {
                Engine::Sim => self.run_sim()?,
                Engine::Proc => self.run_proc(&steps)?,
            }
        } else {
            Ran::Skipped(format!(
                "{} is not for the engine {}",
                self.scenario.name,
                self.engine.name()
            ))
        };
        let wall_ms = begun.elapsed().as_millis() as u64;
        match ran {
            Ran::Whole => self.judge(wall_ms),
            Ran::Skipped(reason) => self.keep(self.skipped(reason, wall_ms), None),
        }
    }

    fn write(&self, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        let path = self.out.join(name);
        std::fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))
    }

    /// `chaos-sim`: given, named by CHAOS_SIM, or beside this program.
    fn sim_binary(&self) -> anyhow::Result<PathBuf> {
        let named = self
            .sim
            .clone()
            .or_else(|| std::env::var_os("CHAOS_SIM").map(PathBuf::from));
        if let Some(path) = named {
            anyhow::ensure!(path.is_file(), "{} is not there", path.display());
            return Ok(path);
        }
        let own = std::env::current_exe().context("where this program is")?;
        let beside = own.with_file_name("chaos-sim");
        anyhow::ensure!(
            beside.is_file(),
            "{} is not there: build it (chaos/README.md), or name it with --sim or CHAOS_SIM",
            beside.display()
        );
        Ok(beside)
    }

    fn run_sim(&self) -> anyhow::Result<Ran> {
        let binary = self.sim_binary()?;
        let mut command = Command::new(&binary);
        command
            .arg("--scenario")
            .arg(self.out.join(SCENARIO))
            .args(["--seed", &self.seed.to_string()])
            .arg("--out")
            .arg(&self.out)
            .arg("--plan")
            .arg(self.out.join(PLAN));
        if let Some(control) = &self.control {
            command.args(["--control", control]);
        }
        if self.trace {
            command.arg("--trace");
        }
        let output = command
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("starting {}", binary.display()))?;
        let said = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(
            output.status.success(),
            "{} ended with {}: {}",
            binary.display(),
            output.status,
            last_lines(&said)
        );
        Ok(Ran::Whole)
    }

    fn run_proc(&self, steps: &[Step]) -> anyhow::Result<Ran> {
        let ran = proc::run(proc::Job {
            scenario: self.scenario.clone(),
            scenario_hash: self.scenario_hash(),
            seed: self.seed,
            steps: steps.to_vec(),
            out: self.out.clone(),
            control: self.control.clone(),
        })?;
        Ok(match ran {
            proc::Ran::Whole => Ran::Whole,
            proc::Ran::Skipped(reason) => Ran::Skipped(reason),
        })
    }

    /// Judges the history that is in the directory.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn judge(&self, wall_ms: u64) -> anyhow::Result<RunResult> {
        let history = History::read(&self.out.join(history::FILE))?;
        let findings = check::check(&history, &self.scenario.invariants());
        let run = std::fs::read(self.out.join(RUN)).ok();
        let run: Option<serde_json::Value> = run.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let result = RunResult {
            commit: history.header.commit.clone(),
            verdict: check::overall(&findings),
            findings,
            figures: Figures::of(&history),
            trace: run.and_then(|run| run["trace"].as_str().map(str::to_owned)),
            ..self.skipped(String::new(), wall_ms)
        };
        self.keep(RunResult { reason: None, ..result }, Some(&history))
    }

    fn skipped(&self, reason: String, wall_ms: u64) -> RunResult {
        RunResult {
            scenario: self.scenario.name.clone(),
            seed: self.seed,
            engine: self.engine,
            control: self.control.clone(),
            commit: history::UNKNOWN.to_owned(),
            scenario_hash: self.scenario_hash(),
            verdict: Verdict::Skipped,
            reason: Some(reason),
            findings: Vec::new(),
            figures: Figures::default(),
            trace: None,
            wall_ms,
            command: self.command(),
        }
    }

    fn keep(&self, result: RunResult, history: Option<&History>) -> anyhow::Result<RunResult> {
        self.write(RESULT, &serde_json::to_vec_pretty(&result)?)?;
        if let Some(history) = history {
            self.write(TIMELINE, report::timeline(&result, history, &self.scenario).as_bytes())?;
        }
        Ok(result)
    }
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(8)..].join("\n")
}

/// Reads the result of a run.
///
/// # Errors
/// When there is none that can be read.
pub fn read_result(directory: &Path) -> anyhow::Result<RunResult> {
    let path = directory.join(RESULT);
    let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("{} is no result", path.display()))
}

#[cfg(test)]
mod tests;
