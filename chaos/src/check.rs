//! Judging a history: for each invariant a pure function from the history to a [`Finding`].
//!
//! A finding says how much was looked at and, when the promise was broken, by which operations. A checker that had nothing to look at says
//! UNKNOWN, never PASS: no violation over no checks proves nothing. The invariants are listed in `chaos/README.md` with the promises of
//! docs/consistency.md that they come from; [`claim`] has them in a sentence.
//!
//! What a client was not told is not known: such a change may have been done, at any time after it was asked, or never. Every checker
//! allows for both. Absent on purpose: looking into the nodes' logs. A promise is what its holder can see.

mod bodies;
mod bounds;
mod delivery;
mod flags;
mod ledger;
mod liveness;
mod modseq;
mod moves;
mod quota;
mod raft;
mod reads;
mod replicas;
#[cfg(test)]
pub(crate) mod sample;
mod uids;

use serde::{Deserialize, Serialize};

use crate::history::History;
use ledger::Ledger;

/// Evidence kept of one finding; the rest is counted.
const EVIDENCE_MAX: usize = 20;

/// What was found about a promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    /// It held wherever it was looked at.
    Pass,
    /// What it asks does not exist here, or this machine cannot make the fault.
    Skipped,
    /// Nothing was there to look at, or looking took too long.
    Unknown,
    /// It was broken.
    Fail,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Verdict::Pass => "PASS",
            Verdict::Skipped => "SKIPPED",
            Verdict::Unknown => "UNKNOWN",
            Verdict::Fail => "FAIL",
        })
    }
}

/// What shows that a promise was broken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// In words.
    pub what: String,
    /// The operations of the history that show it.
    pub operations: Vec<u64>,
    /// When it could be seen first.
    pub at_us: Option<u64>,
}

impl Evidence {
    /// Shown by these operations.
    fn of(what: impl Into<String>, operations: &[u64], at_us: u64) -> Evidence {
        Evidence {
            what: what.into(),
            operations: operations.to_vec(),
            at_us: Some(at_us),
        }
    }
}

/// The judgement of one invariant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// `I1` to `I16`, or `run` for what no run may show.
    pub invariant: String,
    /// The promise in a sentence.
    pub claim: String,
    /// The judgement.
    pub verdict: Verdict,
    /// How much was looked at.
    pub checked: u64,
    /// How often it was broken.
    pub violations: u64,
    /// The first of them.
    pub evidence: Vec<Evidence>,
    /// What else is to be said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What an invariant claims.
pub fn claim(invariant: u8) -> &'static str {
    match invariant {
        1 => "every acknowledged mail and mailbox is there, unchanged, on every replica",
        2 => "one op id stores one message: all its answers name the same UID",
        3 => "nothing is there that nobody sent, that was refused, or that was expunged",
        4 => "UIDs rise and keep their message; UIDVALIDITY stays; UIDNEXT never falls",
        5 => "MODSEQ never falls; changes since a state plus that state are the state now",
        6 => "the quota counter is the sum of the rows and within the quota",
        7 => "the flags of each message have a linearizable history",
        8 => "no read is older than what its reader was promised",
        9 => "a move shows a message in one place, a copy pairs the right UIDs",
        10 => "an account that moves keeps everything and has one owner",
        11 => "replicas are equal at the same applied index",
        12 => "a replica that restarted is what the others are",
        13 => "every body that is read is the one that was stored",
        14 => "leaders come in their order, by term and node; terms and commits never go back",
        15 => "after the faults every group serves and all replicas agree",
        16 => "every call ends by its deadline, with a documented code",
        _ => "no such invariant",
    }
}

/// Counts what holds and keeps what does not.
#[derive(Debug, Default)]
struct Judge {
    checked: u64,
    violations: u64,
    evidence: Vec<Evidence>,
    /// Why the verdict cannot be PASS even though nothing was broken.
    unknown: Option<String>,
    note: Option<String>,
}

impl Judge {
    /// One thing was looked at; `evidence` says what is wrong when it does not hold.
    fn holds(&mut self, holds: bool, evidence: impl FnOnce() -> Evidence) {
        self.checked += 1;
        if holds {
            return;
        }
        self.violations += 1;
        if self.evidence.len() < EVIDENCE_MAX {
            self.evidence.push(evidence());
        }
    }

    fn finding(self, invariant: u8) -> Finding {
        let verdict = match (self.violations, self.checked, &self.unknown) {
            (1.., _, _) => Verdict::Fail,
            (0, _, Some(_)) | (0, 0, None) => Verdict::Unknown,
            (0, _, None) => Verdict::Pass,
        };
        let nothing = (self.checked == 0).then(|| "there was nothing to check".to_owned());
        Finding {
            invariant: format!("I{invariant}"),
            claim: claim(invariant).to_owned(),
            verdict,
            checked: self.checked,
            violations: self.violations,
            evidence: self.evidence,
            note: self.unknown.or(nothing).or(self.note),
        }
    }
}

/// Judges a history: the run itself first, then the wanted invariants in their order.
pub fn check(history: &History, wanted: &[u8]) -> Vec<Finding> {
    let ledger = Ledger::of(history);
    let mut findings = vec![the_run(history)];
    findings.extend(wanted.iter().map(|&invariant| invariant_of(&ledger, invariant)));
    findings
}

fn invariant_of(ledger: &Ledger<'_>, invariant: u8) -> Finding {
    let judge = match invariant {
        1 => delivery::nothing_lost(ledger),
        2 => delivery::nothing_doubled(ledger),
        3 => delivery::no_phantom(ledger),
        4 => uids::rise(ledger),
        5 => modseq::rise_and_tell(ledger),
        6 => quota::is_the_sum(ledger),
        7 => flags::linearizable(ledger),
        8 => reads::fresh(ledger),
        9 => moves::atomic(ledger),
        11 => replicas::equal(ledger),
        12 => replicas::equal_after_restart(ledger),
        13 => bodies::unchanged(ledger),
        14 => raft::safe(ledger),
        15 => liveness::serves(ledger),
        16 => bounds::kept(ledger),
        other => {
            let mut finding = Judge::default().finding(other);
            finding.verdict = Verdict::Skipped;
            finding.note = Some("malle does not have this yet".to_owned());
            return finding;
        }
    };
    judge.finding(invariant)
}

/// The verdict of a whole run: the worst of its findings.
pub fn overall(findings: &[Finding]) -> Verdict {
    findings
        .iter()
        .map(|finding| finding.verdict)
        .max()
        .unwrap_or(Verdict::Unknown)
}

/// What no run may show, and what every run must show: an answer, and a fault when faults were planned.
fn the_run(history: &History) -> Finding {
    let mut judge = Judge::default();
    for broken in &history.broken {
        let place = broken.place.map(|place| format!("node {place}: ")).unwrap_or_default();
        judge.holds(false, || {
            Evidence::of(format!("{place}{}", broken.what), &[], broken.at_us)
        });
    }
    let done = history
        .operations
        .iter()
        .filter(|operation| operation.outcome.done().is_some())
        .count();
    judge.checked += done as u64;
    let faults = |wanted: fn(&crate::history::FaultState) -> bool| {
        history.faults.iter().filter(|event| wanted(&event.event)).count()
    };
    let began = faults(|state| *state == crate::history::FaultState::Began);
    let skipped = faults(|state| matches!(state, crate::history::FaultState::Skipped(_)));
    if began == 0 && skipped > 0 {
        judge.unknown = Some(format!("none of {skipped} faults happened"));
    }
    judge.note = Some(format!("{done} calls done, {began} faults, {skipped} faults skipped"));
    let mut finding = judge.finding(0);
    "run".clone_into(&mut finding.invariant);
    "the cluster answered, the faults happened, nothing panicked".clone_into(&mut finding.claim);
    finding
}

#[cfg(test)]
mod tests;
