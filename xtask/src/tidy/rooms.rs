//! Who may know whom: the rooms of the node, and the crates.

use std::collections::BTreeMap;

use super::Finding;
use crate::tree::{File, Tree};

/// Rooms of `node/src` and what each may use, each one only rooms that stand below it: so the table has no circle.
/// `bodies` knows `state` and not the other way: state tells what is named and released through a trait of its own.
const ROOMS: &[(&str, &[&str])] = &[
    ("api", &["security", "placement", "raft", "state", "bodies", "mime"]),
    ("placement", &["raft", "peers"]),
    ("raft", &["log", "state", "bodies", "peers"]),
    ("bodies", &["state", "peers"]),
    ("state", &["log", "index"]),
    ("log", &[]),
    ("index", &[]),
    ("peers", &["security"]),
    ("security", &[]),
    ("mime", &[]),
    ("telemetry", &[]),
    ("config", &[]),
    ("env", &[]),
    ("controls", &[]),
];
/// Rooms that know no other and that every room may use.
const OPEN: [&str; 4] = ["config", "env", "telemetry", "controls"];
/// The one maker of a tonic Status is open to every room that serves gRPC; it knows no other room.
const STATUS_MAKER: &str = "crate::api::error";
/// The files that wire the rooms together.
const WIRING: [&str; 3] = ["lib", "main", "server"];

/// Crates of ours and which of ours they may depend on. The arrows end at proto.
const CRATES: &[(&str, &[&str])] = &[
    ("malle-proto", &[]),
    ("malle-rt", &[]),
    ("malle-machine", &["malle-proto"]),
    ("malle-journal", &["malle-rt"]),
    (
        "malle-node",
        &["malle-proto", "malle-rt", "malle-machine", "malle-journal"],
    ),
    (
        "malle-node-bench",
        &[
            "malle-proto",
            "malle-rt",
            "malle-machine",
            "malle-journal",
            "malle-node",
        ],
    ),
    ("malle-client", &["malle-proto", "malle-rt"]),
    ("malle-cli", &["malle-client", "malle-proto"]),
    ("malle-gateway", &["malle-client", "malle-proto"]),
    ("malle-gateway-fuzz", &["malle-client", "malle-proto"]),
    ("malle-tests", &["malle-client", "malle-proto"]),
    ("malle-bench", &["malle-client", "malle-tests"]),
    (
        "malle-chaos",
        &["malle-client", "malle-proto", "malle-rt", "malle-tests"],
    ),
    (
        "malle-chaos-sim",
        &[
            "malle-chaos",
            "malle-client",
            "malle-proto",
            "malle-rt",
            "malle-machine",
            "malle-journal",
            "malle-node",
        ],
    ),
    ("xtask", &[]),
];
/// What a crate may depend on beside that, in its tests only.
const CRATES_OF_TESTS: &[(&str, &[&str])] = &[("malle-node", &["malle-tests"])];

/// Rooms that use what the table does not give them, and files outside every room.
pub fn rooms(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in &tree.sources {
        let Some(inside) = source.path.strip_prefix("node/src/") else {
            continue;
        };
        let room = inside.split(['/', '.']).next().unwrap_or_default();
        if WIRING.contains(&room) {
            continue;
        }
        let Some((_, may_use)) = ROOMS.iter().find(|(name, _)| *name == room) else {
            findings.push(Finding::new(
                &source.path,
                0,
                format!("{room} is no room of the table in rooms.rs"),
            ));
            continue;
        };
        let mut named: Vec<(String, usize)> = source
            .uses()
            .into_iter()
            .map(|named| (named.path, named.offset))
            .collect();
        // Paths in full, for example `crate::peers::Link::new`; a group after `crate::` is part of a `use` and spelled out above.
        named.extend(source.occurrences("crate::").map(|at| {
            let path = source.code[at..]
                .chars()
                .take_while(|&c| c.is_alphanumeric() || c == '_' || c == ':')
                .collect();
            (path, at)
        }));
        named.sort_by_key(|(_, offset)| *offset);
        named.dedup_by_key(|(_, offset)| *offset);
        for (path, offset) in named {
            let Some(other) = path.strip_prefix("crate::").and_then(|rest| rest.split("::").next()) else {
                continue;
            };
            let is_room = ROOMS.iter().any(|(name, _)| *name == other);
            let open = OPEN.contains(&other) || path == STATUS_MAKER || path.starts_with(&format!("{STATUS_MAKER}::"));
            let may = other == room || may_use.contains(&other) || open;
            if is_room && !may && !source.in_test(offset) {
                findings.push(Finding::new(
                    &source.path,
                    source.line(offset),
                    format!("{room} may not use {other}"),
                ));
            }
        }
    }
    findings
}

/// Crates that depend on a crate of ours that the table does not give them.
pub fn crates(tree: &Tree) -> Vec<Finding> {
    let manifests = tree.files.iter().filter(|file| file.path.ends_with("/Cargo.toml"));
    manifests.flat_map(manifest).collect()
}

fn manifest(file: &File) -> Vec<Finding> {
    let parsed: toml::Table = match file.text.parse() {
        Ok(parsed) => parsed,
        Err(error) => return vec![Finding::new(&file.path, 0, format!("no TOML: {error}"))],
    };
    let name = parsed
        .get("package")
        .and_then(|package| package.get("name"))
        .and_then(|name| name.as_str())
        .unwrap_or_default();
    let table: BTreeMap<&str, &[&str]> = CRATES.iter().copied().collect();
    let Some(may_use) = table.get(name) else {
        return vec![Finding::new(
            &file.path,
            0,
            format!("crate {name} is not in the table of rooms.rs"),
        )];
    };
    let mut findings = Vec::new();
    for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
        let Some(dependencies) = parsed.get(section).and_then(|section| section.as_table()) else {
            continue;
        };
        for dependency in dependencies
            .keys()
            .filter(|dependency| table.contains_key(dependency.as_str()))
        {
            let in_tests = section == "dev-dependencies"
                && CRATES_OF_TESTS
                    .iter()
                    .any(|(of, may_use)| *of == name && may_use.contains(&dependency.as_str()));
            if !may_use.contains(&dependency.as_str()) && !in_tests {
                findings.push(Finding::new(
                    &file.path,
                    0,
                    format!("{name} may not depend on {dependency} ({section})"),
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
    fn an_arrow_against_the_table_is_found() {
        let count = |path: &str, text: &str| rooms(&Tree::of(path, text)).len();
        assert_eq!(count("node/src/index/sled.rs", "use crate::raft::Group;"), 1);
        assert_eq!(count("node/src/index.rs", "fn f() { crate::state::apply(); }"), 1);
        assert_eq!(
            count("node/src/state/apply.rs", "use crate::{index::Row, raft::Group};"),
            1
        );
        assert_eq!(
            count(
                "node/src/state/apply.rs",
                "use crate::index::Row;\nuse crate::state::X;\nuse crate::env::Clock;\nuse crate::api::error;"
            ),
            0
        );
        assert_eq!(count("node/src/server.rs", "use crate::raft::Group;"), 0);
    }

    #[test]
    fn the_table_has_no_circle() {
        for (at, (room, may_use)) in ROOMS.iter().enumerate() {
            for other in *may_use {
                let below = ROOMS.iter().position(|(name, _)| name == other);
                assert!(
                    below.is_some_and(|below| below > at),
                    "{room} uses {other}, which does not stand below it"
                );
            }
        }
    }

    #[test]
    fn a_file_outside_every_room_is_found() {
        assert_eq!(rooms(&Tree::of("node/src/extra/a.rs", "")).len(), 1);
    }

    #[test]
    fn a_front_end_that_depends_on_the_node_is_found() {
        let manifest = "[package]\nname = \"malle-gateway\"\n[dependencies]\nmalle-client.workspace = true\nmalle-node.workspace = true\n";
        assert_eq!(crates(&Tree::of("gateway/Cargo.toml", manifest)).len(), 1);
        let own = "[package]\nname = \"malle-gateway\"\n[dependencies]\nmalle-client.workspace = true\n[dev-dependencies]\nmalle-machine.workspace = true\n";
        assert_eq!(crates(&Tree::of("gateway/Cargo.toml", own)).len(), 1);
        assert_eq!(
            crates(&Tree::of("more/Cargo.toml", "[package]\nname = \"more\"\n")).len(),
            1
        );
    }
}
