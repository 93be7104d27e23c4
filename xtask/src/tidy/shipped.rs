//! What is never in a shipped binary: the simulated runtime, and promises that can be broken on purpose.
//!
//! Both are cargo features, and cargo unites the features of everything that is built together: one manifest that turns one on would give it
//! to `malled`. So only the simulator's manifest may, and it is built apart.

use super::Finding;
use crate::tree::{File, Tree};

/// Features of ours that must not be shipped.
const APART: [&str; 2] = ["sim", "controls"];
/// Who may turn them on.
const SIMULATOR: &str = "chaos/sim/Cargo.toml";

/// Manifests that turn such a feature on.
pub fn shipped(tree: &Tree) -> Vec<Finding> {
    let manifests = tree
        .files
        .iter()
        .filter(|file| file.path.ends_with("Cargo.toml") && file.path != SIMULATOR);
    manifests.flat_map(turned_on).collect()
}

fn turned_on(file: &File) -> Vec<Finding> {
    // What is no TOML is found elsewhere.
    let Ok(parsed) = file.text.parse::<toml::Table>() else {
        return Vec::new();
    };
    let mut found = Vec::new();
    let workspace = parsed.get("workspace").and_then(|workspace| workspace.as_table());
    for table in [Some(&parsed), workspace].into_iter().flatten() {
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let Some(dependencies) = table.get(section).and_then(|section| section.as_table()) else {
                continue;
            };
            for (name, dependency) in dependencies.iter().filter(|(name, _)| name.starts_with("malle-")) {
                let features = dependency.get("features").and_then(|features| features.as_array());
                let on = features.into_iter().flatten().filter_map(|feature| feature.as_str());
                found.extend(
                    on.filter(|feature| APART.contains(feature))
                        .map(|feature| format!("{name}/{feature}")),
                );
            }
        }
    }
    if let Some(features) = parsed.get("features").and_then(|features| features.as_table()) {
        for (feature, turns_on) in features {
            let turns_on = turns_on
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|other| other.as_str());
            for other in turns_on {
                let apart = APART.contains(&other.rsplit('/').next().unwrap_or_default());
                // A feature that is not shipped itself may hand the wish on.
                if apart && !APART.contains(&feature.as_str()) {
                    found.push(format!("{other}, by its feature {feature}"));
                }
            }
        }
    }
    let finding = |what| Finding::new(&file.path, 0, format!("turns on {what}: only {SIMULATOR} may"));
    found.into_iter().map(finding).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> usize {
        shipped(&Tree::of(path, text)).len()
    }

    #[test]
    fn a_manifest_that_turns_a_control_on_is_found() {
        let direct = "[dependencies]\nmalle-node = { path = \"node\", features = [\"controls\"] }\n";
        assert_eq!(findings("gateway/Cargo.toml", direct), 1);
        assert_eq!(findings(SIMULATOR, direct), 0);
        assert_eq!(findings("Cargo.toml", &direct.replace("[dep", "[workspace.dep")), 1);
        assert_eq!(findings("node/Cargo.toml", "[features]\ndefault = [\"controls\"]\n"), 1);
        assert_eq!(
            findings("tests/Cargo.toml", "[features]\nquick = [\"malle-rt/sim\"]\n"),
            1
        );
    }

    #[test]
    fn handing_the_wish_on_is_free() {
        let handed = "[features]\ncontrols = [\"malle-machine/controls\"]\n";
        assert_eq!(findings("node/Cargo.toml", handed), 0);
        let other = "[dependencies]\ntokio = { version = \"1\", features = [\"sim\"] }\n";
        assert_eq!(findings("node/Cargo.toml", other), 0);
    }
}
