//! Versions that must not move by themselves, and crates that must not be in the tree.

use super::Finding;
use crate::tree::Tree;

/// Pinned to one version, and why. Everything else follows its semver range through the lock file.
const EXACT: &[(&str, &str)] = &[
    ("openraft", "an alpha: any step may change its storage or its wire"),
    ("openraft-rt", "must be openraft's own"),
    ("openraft-rt-sim", "must be openraft's own"),
    ("openraft-rt-tokio", "must be openraft's own"),
    ("sled", "the only version that was put through power cuts"),
    ("redb", "measured beside sled with this version"),
    ("bincode", "the next release is an empty tombstone"),
];

/// Never in the lock file.
const BANNED: &[(&str, &str)] = &[
    ("aws-lc-sys", "rustls takes one provider: ring"),
    ("aws-lc-rs", "rustls takes one provider: ring"),
    ("openssl-sys", "TLS is rustls"),
    ("native-tls", "TLS is rustls"),
];

/// Workspace dependencies that must be pinned and are not.
pub fn pins(tree: &Tree) -> Vec<Finding> {
    let Some(file) = tree.file("Cargo.toml") else {
        return Vec::new();
    };
    let parsed: toml::Table = match file.text.parse() {
        Ok(parsed) => parsed,
        Err(error) => return vec![Finding::new("Cargo.toml", 0, format!("no TOML: {error}"))],
    };
    let dependencies = parsed
        .get("workspace")
        .and_then(|workspace| workspace.get("dependencies"));
    let version = |name: &str| {
        let dependency = dependencies?.get(name)?;
        dependency
            .as_str()
            .or_else(|| dependency.get("version")?.as_str())
            .map(str::to_string)
    };
    let loose = |(name, why): &(&str, &str)| {
        let version = version(name)?;
        (!version.starts_with('=')).then(|| {
            Finding::new(
                "Cargo.toml",
                0,
                format!("{name} = \"{version}\" is not pinned with `=`: {why}"),
            )
        })
    };
    EXACT.iter().filter_map(loose).collect()
}

/// Banned crates in the lock file.
pub fn lock(tree: &Tree) -> Vec<Finding> {
    let Some(file) = tree.file("Cargo.lock") else {
        return vec![Finding::new(
            "Cargo.lock",
            0,
            "is not there: the lock file is committed",
        )];
    };
    let line = |name: &str| file.text.lines().position(|line| line == format!("name = \"{name}\""));
    let found =
        |(name, why): &(&str, &str)| line(name).map(|at| Finding::new("Cargo.lock", at + 1, format!("{name}: {why}")));
    BANNED.iter().filter_map(found).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loose_pin_is_found() {
        let tree = |version: &str| {
            Tree::of(
                "Cargo.toml",
                &format!("[workspace.dependencies]\nsled = \"{version}\"\nbincode = {{ version = \"=2.0.1\" }}\n"),
            )
        };
        assert_eq!(pins(&tree("0.34.7")).len(), 1);
        assert_eq!(pins(&tree("=0.34.7")).len(), 0);
    }

    #[test]
    fn a_second_tls_provider_and_a_missing_lock_file_are_found() {
        assert_eq!(
            lock(&Tree::of("Cargo.lock", "[[package]]\nname = \"aws-lc-sys\"\n")).len(),
            1
        );
        assert_eq!(lock(&Tree::of("Cargo.lock", "[[package]]\nname = \"ring\"\n")).len(), 0);
        assert_eq!(lock(&Tree::default()).len(), 1);
    }
}
