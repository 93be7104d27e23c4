//! A scenario: what is built, what works on it, what attacks it, and what must hold. One TOML file of `chaos/scenarios`.
//!
//! [`Scenario::read`] parses and validates; every error names the file and the line. What a field means stands at the field, and
//! `chaos/README.md` shows a whole file. Values that are ranges or depend on the present (which node leads) stay as they are here and are
//! drawn by [`crate::plan`].

mod fault;
mod select;
mod span;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use fault::{DiskFault, Fault, FaultTable, Guard, Quality, Shape, When};
pub use select::{Select, Selector};
pub use span::Span;

/// The version of the format.
pub const SCHEMA: u32 = 1;

/// Why a scenario cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no scenario of this version.
    #[error("{path}: {what}")]
    Parse {
        /// Which.
        path: PathBuf,
        /// Where and why.
        what: String,
    },
    /// It can be read and makes no sense.
    #[error("{path}:{line}: {what}")]
    Invalid {
        /// Which.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// Why.
        what: String,
    },
}

/// Where a scenario can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// The whole cluster in one process, simulated.
    Sim,
    /// The shipped binaries.
    Proc,
}

impl Engine {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Engine::Sim => "sim",
            Engine::Proc => "proc",
        }
    }
}

/// A whole scenario file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// [`SCHEMA`].
    pub schema: u32,
    /// `s07-minority-leader`: as the file is named.
    pub name: String,
    /// What is attacked, in a sentence.
    pub summary: String,
    /// Headings of docs/consistency.md whose promises this guards.
    pub guards: Vec<String>,
    /// Where it can run.
    pub engines: Vec<Engine>,
    /// What is built.
    pub topology: Topology,
    /// What works on it.
    pub workload: Workload,
    /// How long.
    pub phases: Phases,
    /// What attacks it.
    #[serde(default, rename = "fault")]
    pub faults: Vec<FaultTable>,
    /// What must hold.
    pub expect: Expect,
    /// What it may cost.
    #[serde(default)]
    pub budget: Budget,
}

/// What is built. (Tables stand last, here and below: a scenario that was made smaller is written as TOML again.)
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topology {
    /// Shards of accounts; the directory's group comes on top as group 0.
    #[serde(default = "one")]
    pub groups: u32,
    /// Replicas of each shard.
    #[serde(default = "three")]
    pub voters: u32,
    /// Round trips between regions: two names, mean and jitter in milliseconds. Others take the engine's default.
    #[serde(default)]
    pub rtt_ms: Vec<(String, String, u64, u64)>,
    /// Size of each machine's disk in MiB.
    #[serde(default = "default_disk_mib")]
    pub disk_mib: u64,
    /// Where machines stand.
    pub regions: Vec<Region>,
    /// Settings of malled by their name in its configuration; a list is a choice, drawn from the seed.
    #[serde(default)]
    pub config: BTreeMap<String, Setting>,
}

impl Topology {
    /// Whether regions are so far from each other that their nodes run with `timing = "wan"`: a heartbeat of `local` is over before its answer
    /// has crossed the sea.
    pub fn is_wide(&self) -> bool {
        !self.rtt_ms.is_empty()
    }
}

/// A value or a choice.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Setting {
    /// The value.
    One(u64),
    /// One of these, drawn from the seed.
    Choice(Vec<u64>),
}

/// Machines in one place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Region {
    /// Its name.
    pub name: String,
    /// How many machines.
    pub nodes: u32,
}

/// What a client does how often: weights of [`crate::workload`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Profile {
    /// Deliveries, repeated ones among them.
    #[serde(rename = "W-deliver")]
    Deliver,
    /// Flags, expunges, copies, moves, reads.
    #[serde(rename = "W-imap")]
    Imap,
    /// 60 of 100 as W-deliver, the rest as W-imap.
    #[serde(rename = "W-mix")]
    Mix,
    /// As W-mix, half of it on one mailbox.
    #[serde(rename = "W-hot")]
    Hot,
    /// As W-mix on accounts that are nearly full.
    #[serde(rename = "W-quota")]
    Quota,
    /// Mailboxes are made, renamed, deleted.
    #[serde(rename = "W-pop")]
    Pop,
}

/// What works on the cluster.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// What a client does how often.
    pub profile: Profile,
    /// Clients at work at once, each with one call at a time.
    pub clients: u32,
    /// Calls a second of all clients together.
    pub rate: u32,
    /// Accounts, spread over the shards.
    #[serde(default = "default_accounts")]
    pub accounts: u32,
    /// Mailboxes of each account, INBOX among them.
    #[serde(default = "three")]
    pub mailboxes: u32,
    /// Smallest and largest body; most are small.
    #[serde(default = "default_message_bytes")]
    pub message_bytes: (u64, u64),
    /// How long a call may take before its client gives up.
    #[serde(default = "default_deadline")]
    pub deadline: Span,
    /// How often a client repeats a call that got no answer, under its op id.
    #[serde(default = "default_repeats")]
    pub repeats: u32,
    /// Quota of each account in bytes.
    #[serde(default = "default_quota_bytes")]
    pub quota_bytes: u64,
}

/// How long each part of a run takes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phases {
    /// Load, no faults yet.
    #[serde(default)]
    pub warmup: Span,
    /// Load and faults. Times of faults count from its start.
    pub safety: Span,
    /// All faults end; load goes on. For the cluster to find itself again.
    #[serde(default)]
    pub heal: Span,
    /// Load without faults: everything must work.
    pub liveness: Span,
}

/// What must hold.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// `I1`, `I14` or a range `I1..I8`.
    pub invariants: Vec<String>,
    /// Reported beside the measured value, never a verdict: machines differ.
    pub outage_p99_ms: Option<u64>,
    /// Reported beside the measured value, never a verdict.
    pub availability_pct: Option<f64>,
    /// For each engine, names of controls (builds that break a promise on purpose) under which this scenario must turn red, and the
    /// invariants of which one must.
    #[serde(default)]
    pub controls: BTreeMap<Engine, BTreeMap<String, Vec<String>>>,
}

/// What a run may cost.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// Wall time of a run in `sim`.
    #[serde(default)]
    pub sim: Span,
    /// Wall time of a run in `proc`.
    #[serde(default)]
    pub proc: Span,
    /// What `proc` needs of the machine, by the names of `chaos probe`. What is missing makes the run SKIPPED.
    #[serde(default)]
    pub host_needs: Vec<String>,
}

fn one() -> u32 {
    1
}

fn three() -> u32 {
    3
}

fn default_accounts() -> u32 {
    12
}

fn default_disk_mib() -> u64 {
    256
}

fn default_message_bytes() -> (u64, u64) {
    (300, 16 * 1024)
}

fn default_deadline() -> Span {
    Span::from_ms(5_000)
}

fn default_repeats() -> u32 {
    3
}

fn default_quota_bytes() -> u64 {
    1 << 30
}

impl Scenario {
    /// Reads and validates a file.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn read(path: &Path) -> Result<Scenario, Error> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Read {
            path: path.to_owned(),
            source,
        })?;
        Scenario::parse(&text, path)
    }

    /// The same for text that came from `path`.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn parse(text: &str, path: &Path) -> Result<Scenario, Error> {
        let scenario: Scenario = toml::from_str(text).map_err(|error| Error::Parse {
            path: path.to_owned(),
            what: error.to_string().trim_end().to_owned(),
        })?;
        scenario.validate().map_err(|(what, near)| Error::Invalid {
            path: path.to_owned(),
            line: line_of(text, &near),
            what,
        })?;
        Ok(scenario)
    }

    /// Machines of all regions, numbered from 1 in the order of the file: place and region.
    pub fn places(&self) -> Vec<(u32, &str)> {
        let regions = self.topology.regions.iter();
        let names = regions.flat_map(|region| (0..region.nodes).map(|_| region.name.as_str()));
        names.enumerate().map(|(at, name)| (at as u32 + 1, name)).collect()
    }

    /// The invariants that must hold, ranges spelled out, in rising order.
    pub fn invariants(&self) -> Vec<u8> {
        let mut numbers: Vec<u8> = self
            .expect
            .invariants
            .iter()
            .filter_map(|text| invariant_range(text))
            .flatten()
            .collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }
}

/// `I4` or `I1..I8`.
fn invariant_range(text: &str) -> Option<std::ops::RangeInclusive<u8>> {
    let number = |text: &str| {
        let number: u8 = text.strip_prefix('I')?.parse().ok()?;
        (1..=16).contains(&number).then_some(number)
    };
    match text.split_once("..") {
        Some((first, last)) => Some(number(first)?..=number(last)?),
        None => number(text).map(|number| number..=number),
    }
}

/// The line in which `near` (`[[fault]] 3`, or any text) stands; 1 when it cannot be found.
fn line_of(text: &str, near: &str) -> usize {
    let at = match near
        .strip_prefix("[[fault]] ")
        .and_then(|number| number.parse::<usize>().ok())
    {
        Some(number) => text.match_indices("[[fault]]").nth(number).map(|(at, _)| at),
        None => text.find(near),
    };
    text[..at.unwrap_or(0)].matches('\n').count() + 1
}

/// What is wrong, and text near which it stands.
type Wrong = (String, String);

fn wrong(what: impl Into<String>, near: &str) -> Wrong {
    (what.into(), near.to_owned())
}

impl Scenario {
    fn validate(&self) -> Result<(), Wrong> {
        if self.schema != SCHEMA {
            return Err(wrong(
                format!("schema is {}, this is schema {SCHEMA}", self.schema),
                "schema",
            ));
        }
        if self.engines.is_empty() {
            return Err(wrong("no engine is named", "engines"));
        }
        if self.guards.is_empty() {
            return Err(wrong("names no promise that it guards", "guards"));
        }
        self.validate_topology()?;
        self.validate_workload()?;
        for text in &self.expect.invariants {
            if invariant_range(text).is_none() {
                return Err(wrong(format!("{text:?} is no invariant: I1 to I16, or I1..I8"), text));
            }
        }
        if self.invariants().is_empty() {
            return Err(wrong("expects nothing", "invariants"));
        }
        for (control, invariants) in self.expect.controls.values().flatten() {
            let judged = |text: &String| {
                invariant_range(text).is_some_and(|mut range| range.all(|number| self.invariants().contains(&number)))
            };
            if invariants.is_empty() || !invariants.iter().all(judged) {
                let what = format!("{control} must break invariants that this scenario judges");
                return Err(wrong(what, control));
            }
        }
        for (number, table) in self.faults.iter().enumerate() {
            let near = format!("[[fault]] {number}");
            table.fault().map_err(|what| wrong(what, &near))?;
            table.when().map_err(|what| wrong(what, &near))?;
            self.validate_select(table).map_err(|what| wrong(what, &near))?;
        }
        Ok(())
    }

    fn validate_topology(&self) -> Result<(), Wrong> {
        let places = self.places().len() as u32;
        if places == 0 || self.topology.groups == 0 {
            return Err(wrong("needs at least one node and one group", "[topology]"));
        }
        if self.topology.voters == 0 || self.topology.voters > places {
            let what = format!("{} voters on {places} nodes", self.topology.voters);
            return Err(wrong(what, "voters"));
        }
        let known = |name: &String| self.topology.regions.iter().any(|region| &region.name == name);
        for (one, other, _, _) in &self.topology.rtt_ms {
            if let Some(name) = [one, other].into_iter().find(|name| !known(name)) {
                return Err(wrong(
                    format!("rtt_ms names region {name:?}, which is not there"),
                    "rtt_ms",
                ));
            }
        }
        for (name, setting) in &self.topology.config {
            if matches!(setting, Setting::Choice(choice) if choice.is_empty()) {
                return Err(wrong(format!("{name} is a choice of nothing"), name));
            }
        }
        Ok(())
    }

    fn validate_workload(&self) -> Result<(), Wrong> {
        let load = &self.workload;
        if load.clients == 0 || load.rate == 0 || load.accounts == 0 || load.mailboxes == 0 {
            return Err(wrong(
                "clients, rate, accounts and mailboxes must be above 0",
                "[workload]",
            ));
        }
        let (least, most) = load.message_bytes;
        if least < crate::workload::BODY_MIN_BYTES || most < least {
            let what = format!(
                "message_bytes must rise and start at {} or above",
                crate::workload::BODY_MIN_BYTES
            );
            return Err(wrong(what, "message_bytes"));
        }
        if self.phases.safety.us() == 0 || self.phases.liveness.us() == 0 {
            return Err(wrong("safety and liveness must take time", "[phases]"));
        }
        Ok(())
    }

    fn validate_select(&self, table: &FaultTable) -> Result<(), String> {
        let places = self.places();
        for selector in table.select()?.0 {
            let there = match &selector {
                Selector::Leader(group) | Selector::Follower(group) => *group <= self.topology.groups,
                Selector::Node(place) => places.iter().any(|(number, _)| number == place),
                Selector::Region(name) => places.iter().any(|(_, region)| region == name),
                Selector::Random(count) => *count as usize <= places.len(),
                Selector::All => true,
            };
            if !there {
                return Err(format!("selects {selector}, which this topology does not have"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;

/// A scenario without faults, for tests.
#[cfg(test)]
pub(crate) const SAMPLE: &str = r#"
schema = 1
name = "sample"
summary = "nothing happens"
guards = ["Delivery"]
engines = ["sim", "proc"]

[topology]
regions = [{ name = "eu", nodes = 3 }, { name = "us", nodes = 2 }]
rtt_ms = [["eu", "us", 90, 10]]
groups = 4
config = { election_timeout_min_ms = 300, snapshot_every = [50, 200] }

[workload]
profile = "W-mix"
clients = 4
rate = 100

[phases]
warmup = "5s"
safety = "60s"
liveness = "20s"

[expect]
invariants = ["I1..I8", "I11"]
"#;
