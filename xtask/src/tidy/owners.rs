//! One owner per dependency, and what no code of ours may write.

use super::Finding;
use super::source::Source;
use crate::tree::Tree;

/// A dependency and the only places that may name it.
struct Owned {
    /// First part of its paths.
    dependency: &'static str,
    /// Where the rule looks.
    within: &'static [&'static str],
    /// Places that may.
    owners: &'static [&'static str],
}

const OWNED: &[Owned] = &[
    Owned {
        dependency: "openraft",
        within: &[""],
        owners: &[
            "node/src/raft/",
            "node/src/log/",
            "node/src/state/",
            "node/src/raft.rs",
            "node/src/log.rs",
            "node/src/state.rs",
        ],
    },
    Owned {
        dependency: "sled",
        within: &[""],
        owners: &["node/src/index/sled", "node/src/index/mod.rs"],
    },
    Owned {
        dependency: "redb",
        within: &[""],
        owners: &["node/src/index/redb.rs", "node/src/index/mod.rs"],
    },
    Owned {
        dependency: "bincode",
        within: &[""],
        owners: &["node/machine/src/format.rs"],
    },
    // Rule 11: a room has a small error enum of its own; anyhow is for programs that only print what went wrong.
    Owned {
        dependency: "anyhow",
        within: &[
            "node/src/",
            "node/machine/",
            "node/journal/",
            "client/src/",
            "gateway/",
            "proto/",
        ],
        owners: &[
            "node/src/main.rs",
            "node/src/server.rs",
            "node/src/server/interior.rs",
            "gateway/src/main.rs",
            "gateway/src/config.rs",
            "gateway/src/listen.rs",
            "gateway/src/tls.rs",
        ],
    },
];

/// What makes a `tonic::Status`; matching on one is free.
const STATUS_MAKERS: [&str; 20] = [
    "new",
    "with_details",
    "with_metadata",
    "from_error",
    "cancelled",
    "unknown",
    "invalid_argument",
    "deadline_exceeded",
    "not_found",
    "already_exists",
    "permission_denied",
    "resource_exhausted",
    "failed_precondition",
    "aborted",
    "out_of_range",
    "unimplemented",
    "internal",
    "unavailable",
    "data_loss",
    "unauthenticated",
];

/// Dependencies named outside their owner's room.
pub fn owners(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in &tree.sources {
        for owned in OWNED {
            let inside = owned.within.iter().any(|within| source.path.starts_with(within));
            if !inside || owned.owners.iter().any(|owner| source.path.starts_with(owner)) {
                continue;
            }
            let in_full = format!("{}::", owned.dependency);
            let mut offsets: Vec<usize> = source.occurrences(&in_full).collect();
            offsets.extend(
                source
                    .uses()
                    .into_iter()
                    .filter(|named| named.path == owned.dependency)
                    .map(|named| named.offset),
            );
            for offset in offsets.into_iter().filter(|&offset| !source.in_test(offset)) {
                let what = format!(
                    "names {}, which belongs to {}",
                    owned.dependency,
                    owned.owners.join(", ")
                );
                findings.push(Finding::new(&source.path, source.line(offset), what));
            }
        }
        if source.path.starts_with("node/src/") && source.path != "node/src/api/error.rs" {
            findings.extend(statuses(source));
        }
    }
    findings
}

fn statuses(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for before in ["Status::", "tonic::Status::"] {
        for at in source.occurrences(before).filter(|&at| !source.in_test(at)) {
            let call: String = source.code[at + before.len()..]
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            if STATUS_MAKERS.contains(&call.as_str()) {
                let what = format!("makes a tonic Status ({call}); only node/src/api/error.rs does");
                findings.push(Finding::new(&source.path, source.line(at), what));
            }
        }
    }
    findings
}

/// `unwrap` outside tests.
pub fn unwraps(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in &tree.sources {
        for (at, _) in source
            .code
            .match_indices(".unwrap()")
            .filter(|(at, _)| !source.in_test(*at))
        {
            let what = "unwrap(): use expect(\"why this cannot happen\") or an error";
            findings.push(Finding::new(&source.path, source.line(at), what));
        }
    }
    findings
}

/// Globs outside tests; a prelude exists to be used so.
pub fn globs(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in &tree.sources {
        for named in source.uses() {
            if named.path.ends_with('*') && !named.path.contains("prelude::") && !source.in_test(named.offset) {
                findings.push(Finding::new(
                    &source.path,
                    source.line(named.offset),
                    format!("use {}", named.path),
                ));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dependency_outside_its_room_is_found() {
        let count = |path: &str, text: &str| owners(&Tree::of(path, text)).len();
        assert_eq!(count("node/src/bodies/put.rs", "use openraft::LogId;"), 1);
        assert_eq!(count("node/src/raft/group.rs", "use openraft::LogId;"), 0);
        assert_eq!(count("node/src/index/memory.rs", "fn f(db: sled::Db) {}"), 1);
        assert_eq!(count("node/src/index/sled.rs", "fn f(db: sled::Db) {}"), 0);
        assert_eq!(count("node/src/log/entry.rs", "bincode::serde::encode_to_vec(x)"), 1);
        assert_eq!(
            count("node/src/log/entry.rs", "fn f() -> anyhow::Result<()> { g() }"),
            1
        );
        assert_eq!(count("proto/rt/src/lib.rs", "use openraft_rt::AsyncRuntime;"), 0);
    }

    #[test]
    fn a_status_made_outside_the_error_page_is_found() {
        let count = |path: &str, text: &str| owners(&Tree::of(path, text)).len();
        assert_eq!(count("node/src/api/mail.rs", "return Err(Status::internal(x));"), 1);
        assert_eq!(
            count("node/src/api/mail.rs", "return Err(tonic::Status::new(c, x));"),
            1
        );
        assert_eq!(
            count(
                "node/src/api/mail.rs",
                "fn f() -> Result<(), tonic::Status> { let s = GroupStatus::new(); }"
            ),
            0
        );
        assert_eq!(count("node/src/api/error.rs", "Status::internal(x)"), 0);
    }

    #[test]
    fn an_unwrap_and_a_glob_are_found_outside_tests_only() {
        let text = "use a::*;\nuse b::prelude::*;\nfn f() { x.unwrap(); y.unwrap_or(1); }\n#[cfg(test)]\nmod tests { use super::*; fn g() { x.unwrap(); } }";
        let tree = Tree::of("node/src/log/a.rs", text);
        assert_eq!(unwraps(&tree).len(), 1);
        assert_eq!(globs(&tree).len(), 1);
    }
}
