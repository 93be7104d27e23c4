//! The history of a run: what clients asked and were told, what faults and nodes did, what every replica held at the end.
//!
//! One file, `history.jsonl`, one [`Record`] a line, the [`Header`] first. Engines write it with a [`Recorder`]; the checkers read it
//! whole. All times are microseconds from the start of the run, by one clock, which is the simulated one in `sim`. An operation is written
//! when it ends, so lines stand in the order of their ends.

mod recorder;

use std::collections::BTreeMap;
use std::io::BufRead as _;
use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

pub use recorder::Recorder;

use crate::plan::Timeline;
use crate::scenario::{Engine, Fault};
use crate::workload::{Answer, Call, Flags, Outcome};

/// The version of the format.
pub const SCHEMA: u32 = 1;

/// The file's name in the directory of a run.
pub const FILE: &str = "history.jsonl";

/// The commit of a tree that nobody can name.
pub const UNKNOWN: &str = "unknown";

/// The commit of the working tree that this is run in, with `-dirty` behind it when the tree has changed since; [`UNKNOWN`] where there is none.
/// `MALLE_COMMIT` says it for binaries that are run elsewhere.
pub fn commit() -> String {
    if let Ok(commit) = std::env::var("MALLE_COMMIT") {
        return commit;
    }
    let said = harness::host::run("git", &["describe", "--always", "--dirty", "--abbrev=12"]);
    said.map_or_else(|_| UNKNOWN.to_owned(), |commit| commit.trim().to_owned())
}

/// Whether this commit is just one tree: what was run on it once need not be run again.
pub fn is_one_tree(commit: &str) -> bool {
    commit != UNKNOWN && !commit.ends_with("-dirty")
}

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "kebab-case")]
pub enum Record {
    /// What was run; the first line.
    Header(Header),
    /// A call of a client and its answer.
    Operation(Operation),
    /// A fault began, ended or was skipped.
    Fault(FaultEvent),
    /// The last fault was undone, which real machines may take long about: what follows in the timeline counts from here.
    Healed {
        /// When.
        at_us: u64,
    },
    /// What a node said of one of its groups.
    Node(NodeEvent),
    /// What was left of the machine's means: see [`Sample`].
    Sample(Sample),
    /// What one replica, or the leader, held at the end.
    Final(Final),
    /// Something that no run may show: a panic, a failed assertion, a node that does not come back. It fails the run by itself.
    Broken(Broken),
}

/// What was run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The scenario's name.
    pub scenario: String,
    /// BLAKE3 of its text, the first 16 digits.
    pub scenario_hash: String,
    /// The seed.
    pub seed: u64,
    /// Which engine.
    pub engine: Engine,
    /// The commit that was built, `unknown` when nobody said.
    pub commit: String,
    /// The promise that this build breaks on purpose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<String>,
    /// When the parts begin; of a history that was read, when they began.
    pub timeline: Timeline,
    /// The machines.
    pub places: Vec<PlaceHeader>,
    /// The accounts.
    pub accounts: Vec<AccountHeader>,
    /// Mailboxes that each account has from the beginning and keeps, INBOX first.
    pub mailboxes: Vec<String>,
    /// How long a call may take, in microseconds.
    pub deadline_us: u64,
}

/// A machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaceHeader {
    /// Its number, from 1.
    pub place: u32,
    /// Its node's id at the beginning.
    pub node: u64,
    /// Its region.
    pub region: String,
}

/// An account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountHeader {
    /// Its number, from 0.
    pub account: u32,
    /// Its shard.
    pub shard: u32,
    /// Its quota.
    pub quota_bytes: u64,
}

/// A call of a client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Operation {
    /// Unique, in the order in which calls began.
    pub id: u64,
    /// Who called. A client makes one call at a time.
    pub client: u32,
    /// Which account.
    pub account: u32,
    /// Names a change; calls with the same op id are repeats of one. Empty for reads.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub op: String,
    /// What was asked.
    pub call: Call,
    /// When it was asked.
    pub invoked_us: u64,
    /// When the answer came, or the client gave up.
    pub completed_us: u64,
    /// What the answer was.
    pub outcome: Outcome<Answer>,
}

/// What became of a step of the plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FaultEvent {
    /// When.
    pub at_us: u64,
    /// Which step.
    pub step: u32,
    /// What it does.
    pub fault: Fault,
    /// What became of it.
    pub event: FaultState,
    /// Whom it hit.
    pub places: Vec<u32>,
    /// Groups that the hit machines led.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub led: Vec<u32>,
}

/// What became of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultState {
    /// It hit.
    Began,
    /// It is undone.
    Ended,
    /// It did not happen, and why.
    Skipped(String),
}

/// What a node said of one of its groups.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeEvent {
    /// When.
    pub at_us: u64,
    /// Which machine.
    pub place: u32,
    /// Its node's id then.
    pub node: u64,
    /// Which group; 0 is the directory.
    pub group: u32,
    /// leader, follower, learner, candidate, rebuilding, failed, stopped, down.
    pub role: String,
    /// Raft's term.
    pub term: u64,
    /// What it knows to be committed.
    #[serde(default)]
    pub committed: u64,
    /// What its view holds.
    pub applied: u64,
    /// Digest of its rows at `applied`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

/// What a process used.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// When.
    pub at_us: u64,
    /// Which machine.
    pub place: u32,
    /// What is measured: `rss_bytes`, `files`, `disk_bytes`, or a metric of malled by its name. Bounds are judged by name, see check.
    pub values: BTreeMap<String, u64>,
}

/// Something that no run may show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broken {
    /// When.
    pub at_us: u64,
    /// Where, when it is one machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<u32>,
    /// What.
    pub what: String,
}

/// What an account was at the end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Final {
    /// When it was read.
    pub at_us: u64,
    /// The replica that it was read from; `None`: read linearizably, as every client would.
    pub place: Option<u32>,
    /// Which account.
    pub account: u32,
    /// Its MODSEQ.
    pub modseq: u64,
    /// What it counts as used.
    pub used_bytes: u64,
    /// What it may use.
    pub quota_bytes: u64,
    /// How many messages it counts.
    pub messages: u64,
    /// All of its mailboxes.
    pub mailboxes: Vec<FinalMailbox>,
}

/// What a mailbox was at the end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FinalMailbox {
    /// Its full name.
    pub name: String,
    /// Its UIDVALIDITY.
    pub uid_validity: u32,
    /// Its UIDNEXT.
    pub uid_next: u32,
    /// Its HIGHESTMODSEQ.
    pub highest_modseq: u64,
    /// How many messages it counts.
    pub count: u32,
    /// Its messages in rising UID order.
    pub messages: Vec<FinalMessage>,
}

/// What a message was at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinalMessage {
    /// Its UID.
    pub uid: u32,
    /// Its MODSEQ.
    pub modseq: u64,
    /// Its flags.
    pub flags: Flags,
    /// Its size as the mailbox tells it.
    pub size_bytes: u64,
    /// BLAKE3 of its bytes as they were read; `None`: they could not be read, and `why` says why.
    pub hash: Option<String>,
    /// Why the bytes could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// A whole history in memory.
#[derive(Debug, Clone)]
pub struct History {
    /// What was run.
    pub header: Header,
    /// Calls in the order in which they began.
    pub operations: Vec<Operation>,
    /// Faults in the order of time.
    pub faults: Vec<FaultEvent>,
    /// What nodes said, in the order of time.
    pub nodes: Vec<NodeEvent>,
    /// What processes used, in the order of time.
    pub samples: Vec<Sample>,
    /// What was left.
    pub finals: Vec<Final>,
    /// What no run may show.
    pub broken: Vec<Broken>,
}

impl History {
    /// An empty one.
    pub fn new(header: Header) -> History {
        History {
            header,
            operations: Vec::new(),
            faults: Vec::new(),
            nodes: Vec::new(),
            samples: Vec::new(),
            finals: Vec::new(),
            broken: Vec::new(),
        }
    }

    /// Reads `history.jsonl` of a run.
    ///
    /// # Errors
    /// When it cannot be read, a line is no record, or the first is no header of this version.
    pub fn read(path: &Path) -> anyhow::Result<History> {
        let name = path.display();
        let file = std::fs::File::open(path).with_context(|| format!("opening the history {name}"))?;
        let mut lines = std::io::BufReader::new(file).lines().enumerate();
        let mut record = || -> anyhow::Result<Option<Record>> {
            let Some((number, line)) = lines.next() else {
                return Ok(None);
            };
            let line = line.with_context(|| format!("reading the history {name}"))?;
            let record = serde_json::from_str(&line).with_context(|| format!("{name}:{}", number + 1))?;
            Ok(Some(record))
        };
        let header = match record()? {
            Some(Record::Header(header)) if header.schema == SCHEMA => header,
            Some(Record::Header(header)) => anyhow::bail!("{name} has schema {}, this is {SCHEMA}", header.schema),
            _ => anyhow::bail!("{name} does not begin with a header"),
        };
        let mut history = History::new(header);
        while let Some(record) = record()? {
            history.push(record);
        }
        history.sort();
        Ok(history)
    }

    /// Adds a record.
    pub fn push(&mut self, record: Record) {
        match record {
            Record::Header(header) => self.header = header,
            Record::Operation(operation) => self.operations.push(operation),
            Record::Fault(event) => self.faults.push(event),
            Record::Healed { at_us } => self.header.timeline = self.header.timeline.healed_at(at_us),
            Record::Node(event) => self.nodes.push(event),
            Record::Sample(sample) => self.samples.push(sample),
            Record::Final(last) => self.finals.push(last),
            Record::Broken(broken) => self.broken.push(broken),
        }
    }

    /// Brings everything into its order.
    pub fn sort(&mut self) {
        self.operations.sort_by_key(|operation| operation.id);
        self.faults.sort_by_key(|event| event.at_us);
        self.nodes.sort_by_key(|event| event.at_us);
        self.samples.sort_by_key(|sample| sample.at_us);
    }
}
