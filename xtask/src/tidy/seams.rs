//! Time, chance, tasks, threads, files and sockets enter the node and the client at named places only.
//!
//! Everywhere else the code calls `malle_rt` (spawn, sleep, timeout, now, random, blocking) or a trait of its own (`Disk`, `IndexStore`,
//! `Transport`): the simulator that runs a whole cluster in one thread then runs this code, not a copy. tokio's channels and mutexes
//! work under both runtimes and are free to use.

use super::Finding;
use super::source::Source;
use crate::tree::Tree;

/// Where the rule holds.
const ROOMS: [&str; 3] = ["node/src/", "node/journal/src/", "client/src/"];

/// What is banned, and what to call instead.
const BANNED: &[(&str, &str)] = &[
    ("tokio::spawn", "malle_rt::spawn"),
    ("tokio::task", "malle_rt::spawn or malle_rt::blocking"),
    ("tokio::time", "malle_rt::{sleep, timeout, now}"),
    ("tokio::fs", "a trait of the room, and malle_rt::blocking"),
    ("tokio::net", "the transport's dial or accept"),
    ("std::fs", "the room's disk trait"),
    ("std::net::TcpStream", "the transport's dial"),
    ("std::net::TcpListener", "the transport's accept"),
    ("std::net::UdpSocket", "nothing: malle speaks TCP"),
    ("std::thread", "malle_rt::blocking"),
    ("std::time::Instant", "malle_rt::now"),
    ("std::time::SystemTime", "env::Clock"),
    ("rand", "malle_rt::random, or env for secrets"),
];

/// A place that may name what it wraps.
struct Allowed {
    /// The file, or with a `/` at the end the directory.
    path: &'static str,
    /// Which banned path.
    what: &'static str,
    /// Why this place.
    why: &'static str,
}

const ALLOWED: &[Allowed] = &[
    Allowed {
        path: "node/src/env.rs",
        what: "std::time::SystemTime",
        why: "the wall clock enters here",
    },
    Allowed {
        path: "node/src/config.rs",
        what: "std::fs",
        why: "read once, before anything runs",
    },
    Allowed {
        path: "node/src/security/accept.rs",
        what: "tokio::net",
        why: "the listeners",
    },
    Allowed {
        path: "node/src/security/connect.rs",
        what: "tokio::net",
        why: "connections to other nodes begin here",
    },
    Allowed {
        path: "node/src/security/provider.rs",
        what: "tokio::net",
        why: "the identity provider is asked for its keys; no simulated node is",
    },
    Allowed {
        path: "node/src/telemetry/http.rs",
        what: "tokio::net",
        why: "the listener for monitoring",
    },
    Allowed {
        path: "node/src/index/dirs.rs",
        what: "std::fs",
        why: "a broken view is renamed away, whatever engine made it",
    },
    Allowed {
        path: "node/src/index/sled.rs",
        what: "std::fs",
        why: "sled is a disk of its own; the simulator runs the twin in memory",
    },
    Allowed {
        path: "node/src/index/redb.rs",
        what: "std::fs",
        why: "redb is a disk of its own, as sled is",
    },
    Allowed {
        path: "node/journal/src/disk.rs",
        what: "std::fs",
        why: "RealDisk, behind the trait Disk",
    },
    Allowed {
        path: "client/src/client.rs",
        what: "std::fs",
        why: "PEM files, before anything runs",
    },
    Allowed {
        path: "client/src/secure.rs",
        what: "tokio::net",
        why: "connections to nodes begin here",
    },
    Allowed {
        path: "client/src/op_id.rs",
        what: "rand",
        why: "op ids must not repeat, and must not be guessed",
    },
];

/// Banned calls outside the named places, and named places that are no longer needed.
pub fn seams(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in tree
        .sources
        .iter()
        .filter(|source| ROOMS.iter().any(|room| source.path.starts_with(room)))
    {
        for (what, instead) in BANNED {
            let allowed = ALLOWED
                .iter()
                .any(|allowed| allowed.what == *what && covers(allowed.path, &source.path));
            for offset in named(source, what) {
                if !allowed {
                    let what = format!("names {what}; use {instead}");
                    findings.push(Finding::new(&source.path, source.line(offset), what));
                }
            }
        }
    }
    findings.extend(stale(tree));
    findings
}

/// An allowance for a file that does not need it any more would cover the next mistake there.
fn stale(tree: &Tree) -> Vec<Finding> {
    let needless = |allowed: &&Allowed| {
        let mut here = tree
            .sources
            .iter()
            .filter(|source| covers(allowed.path, &source.path))
            .peekable();
        here.peek().is_some() && here.all(|source| named(source, allowed.what).is_empty())
    };
    let finding = |allowed: &Allowed| {
        let what = format!(
            "does not name {} any more: remove its line from seams.rs ({})",
            allowed.what, allowed.why
        );
        Finding::new(allowed.path, 0, what)
    };
    ALLOWED.iter().filter(needless).map(finding).collect()
}

fn covers(allowed: &str, path: &str) -> bool {
    if allowed.ends_with('/') {
        path.starts_with(allowed)
    } else {
        path == allowed
    }
}

/// Offsets outside tests where the code names `what` or something inside it, in a `use` or in full, or imports the module around it
/// (`use std::time;` would let `time::Instant` pass unseen).
fn named(source: &Source, what: &str) -> Vec<usize> {
    let inside = |outer: &str, inner: &str| inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with("::"));
    let names = |path: &str| path == what || inside(what, path) || inside(path, what);
    // A bare crate name must be followed by a path: `rand` may also be a variable.
    let in_full = if what.contains("::") {
        what.to_string()
    } else {
        format!("{what}::")
    };
    let mut offsets: Vec<usize> = source.occurrences(&in_full).collect();
    offsets.extend(
        source
            .uses()
            .into_iter()
            .filter(|named| names(&named.path))
            .map(|named| named.offset),
    );
    offsets.retain(|&offset| !source.in_test(offset));
    offsets.sort_unstable();
    offsets.dedup();
    offsets
}

/// What a pure function has no use for.
const IMPURE: &[(&str, &str)] = &[
    ("std::time", "time travels in the command"),
    ("std::fs", "rows come through the view"),
    ("std::net", "the machine talks to nobody"),
    ("std::thread", "apply is one function call"),
    ("std::env", "configuration travels in the command"),
    ("std::process", "a fault is an answer, not an exit"),
    ("HashMap", "its order differs from replica to replica: use BTreeMap"),
    ("HashSet", "its order differs from replica to replica: use BTreeSet"),
    ("f32", "floating point differs from machine to machine"),
    ("f64", "floating point differs from machine to machine"),
];

/// Impurities of the machine. Its Cargo.toml proves the rest: it has no runtime, no disk, no random source to call.
pub fn pure(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in tree
        .sources
        .iter()
        .filter(|source| source.path.starts_with("node/machine/src/"))
    {
        for (what, why) in IMPURE {
            let mut offsets: Vec<usize> = source.occurrences(what).collect();
            offsets.extend(
                source
                    .uses()
                    .into_iter()
                    .filter(|named| named.path.ends_with(what))
                    .map(|named| named.offset),
            );
            offsets.retain(|&offset| !source.in_test(offset));
            findings.extend(offsets.into_iter().map(|offset| {
                Finding::new(
                    &source.path,
                    source.line(offset),
                    format!("names {what} in the machine: {why}"),
                )
            }));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaks(path: &str, text: &str) -> usize {
        seams(&Tree::of(path, text))
            .iter()
            .filter(|finding| finding.line > 0)
            .count()
    }

    #[test]
    fn a_direct_call_is_found_in_full_and_in_a_group() {
        assert_eq!(
            breaks("node/src/bodies/put.rs", "fn f() { tokio::spawn(async {}); }"),
            1
        );
        assert_eq!(
            breaks("node/src/bodies/put.rs", "use tokio::{sync::mpsc, time::sleep};"),
            1
        );
        assert_eq!(breaks("client/src/retry.rs", "use rand::Rng;"), 1);
        assert_eq!(
            breaks("client/src/retry.rs", "fn f() { let t = std::time::Instant::now(); }"),
            1
        );
        assert_eq!(breaks("node/journal/src/writer.rs", "use std::{fs, thread};"), 2);
        assert_eq!(
            breaks("node/journal/src/writer.rs", "use std::time;\nuse std::time::Duration;"),
            2
        );
    }

    #[test]
    fn channels_comments_tests_and_other_rooms_are_free() {
        assert_eq!(
            breaks("node/src/bodies/put.rs", "use tokio::sync::mpsc; // tokio::spawn"),
            0
        );
        assert_eq!(
            breaks(
                "node/src/bodies/put.rs",
                "#[cfg(test)]\nmod tests { fn f() { tokio::spawn(g()); } }"
            ),
            0
        );
        assert_eq!(breaks("gateway/src/main.rs", "fn f() { tokio::spawn(g()); }"), 0);
        assert_eq!(breaks("client/cli/src/main.rs", "fn f() { std::thread::sleep(d); }"), 0);
    }

    #[test]
    fn a_named_place_may_and_only_while_it_does() {
        let clock = "fn f() { SystemTime::now(); }\nuse std::time::SystemTime;";
        assert_eq!(seams(&Tree::of("node/src/env.rs", clock)), []);
        assert_eq!(stale(&Tree::of("node/src/env.rs", "fn f() {}")).len(), 1);
    }

    #[test]
    fn a_machine_with_a_clock_or_a_hash_map_is_found() {
        let path = "node/machine/src/shard/apply.rs";
        assert_eq!(pure(&Tree::of(path, "fn f() -> HashMap<u8, u8> { g() }")).len(), 1);
        assert_eq!(pure(&Tree::of(path, "fn f() { std::time::Duration::ZERO; }")).len(), 1);
        assert_eq!(pure(&Tree::of(path, "fn f(x: f64) {}")).len(), 1);
        assert_eq!(pure(&Tree::of(path, "use std::collections::BTreeMap;")), []);
    }
}
