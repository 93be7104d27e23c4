//! The rules of the house as code. Each rule has a name, a reason, and a test beside it that shows that it can fail.
//!
//! A rule reads the [`Tree`] and returns what breaks it; it never writes. What a rule must let pass is data beside the rule, one line
//! each with its reason, so that an exception is read in review like any other change.

pub mod contract;
mod docs;
mod golden;
mod owners;
mod pins;
mod rooms;
mod seams;
mod shipped;
mod size;
pub mod source;
mod tests_honest;
mod words;

use crate::cargo::Ended;
use crate::tree::Tree;

/// Something that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// File, from the root.
    pub path: String,
    /// Line, from 1; 0 for the file as a whole.
    pub line: usize,
    /// What is wrong there.
    pub what: String,
}

impl Finding {
    fn new(path: &str, line: usize, what: impl Into<String>) -> Finding {
        Finding {
            path: path.into(),
            line,
            what: what.into(),
        }
    }
}

/// A rule.
struct Rule {
    name: &'static str,
    why: &'static str,
    check: fn(&Tree) -> Vec<Finding>,
}

const RULES: &[Rule] = &[
    Rule {
        name: "file length",
        why: "a room that does not fit into a head hides its defects",
        check: size::files,
    },
    Rule {
        name: "function length",
        why: "a function is read at once or not understood",
        check: size::functions,
    },
    Rule {
        name: "seams",
        why: "the simulator must run this code and not a copy of it",
        check: seams::seams,
    },
    Rule {
        name: "pure machine",
        why: "replicas agree only if apply depends on nothing but its input",
        check: seams::pure,
    },
    Rule {
        name: "rooms",
        why: "arrows point one way, or everything knows everything",
        check: rooms::rooms,
    },
    Rule {
        name: "crate arrows",
        why: "front ends know only the client; client and node never meet",
        check: rooms::crates,
    },
    Rule {
        name: "shipped features",
        why: "a promise that can be broken on purpose must not be in a binary that anybody runs",
        check: shipped::shipped,
    },
    Rule {
        name: "owners",
        why: "a dependency with one owner can be replaced",
        check: owners::owners,
    },
    Rule {
        name: "no unwrap",
        why: "a panic needs a sentence that says why it cannot happen",
        check: owners::unwraps,
    },
    Rule {
        name: "no globs",
        why: "a reader must see where a name comes from",
        check: owners::globs,
    },
    Rule {
        name: "nothing unfinished",
        why: "a stub that compiles is a promise that nobody keeps",
        check: tests_honest::unfinished,
    },
    Rule {
        name: "honest tests",
        why: "an ignored test checks nothing, a sleeping one checks the weather",
        check: tests_honest::tests,
    },
    Rule {
        name: "golden bytes",
        why: "what was written once must be readable for ever",
        check: golden::golden,
    },
    Rule {
        name: "file names",
        why: "a name says what a room owns; these say nothing",
        check: words::file_names,
    },
    Rule {
        name: "banned words",
        why: "the tree builds anywhere and speaks of itself only",
        check: words::banned,
    },
    Rule {
        name: "pins",
        why: "an alpha, a frozen format and a tombstone must not move by themselves",
        check: pins::pins,
    },
    Rule {
        name: "lock file",
        why: "two TLS providers in one tree panic at run time",
        check: pins::lock,
    },
    Rule {
        name: "links",
        why: "a page that leads nowhere is not read twice",
        check: docs::links,
    },
    Rule {
        name: "README length",
        why: "the front door is one page",
        check: docs::readme,
    },
    Rule {
        name: "promises",
        why: "a promise in docs/consistency.md names the test that shows it",
        check: docs::promises,
    },
    Rule {
        name: "contract hash",
        why: "who changes the wire contract reads its page",
        check: contract::recorded,
    },
];

/// Runs every rule and prints what breaks them.
pub fn run(tree: &Tree) -> Ended {
    eprintln!("== tidy");
    let mut broken = 0;
    for rule in RULES {
        let mut findings = (rule.check)(tree);
        findings.sort();
        findings.dedup();
        for Finding { path, line, what } in &findings {
            eprintln!("{path}:{line}: {what} [{}: {}]", rule.name, rule.why);
        }
        broken += findings.len();
    }
    if broken == 0 {
        eprintln!("== tidy: {} rules passed on {} files", RULES.len(), tree.files.len());
        return Ended::Passed;
    }
    eprintln!("== tidy: FAILED: {broken} findings");
    Ended::Failed
}
