//! Licences of everything that is built in, against the list in `deny.toml`. cargo-deny says the same where it is installed.

use std::path::Path;

use anyhow::Context;

use crate::cargo::{self, Ended};

/// Checks the licence expression of every package of the dependency graph.
///
/// # Errors
/// When `deny.toml` or cargo's metadata cannot be read.
pub fn run(root: &Path) -> anyhow::Result<Ended> {
    eprintln!("== licences");
    let text = std::fs::read_to_string(root.join("deny.toml")).context("reading deny.toml")?;
    let allowed = allowed(&text)?;
    let metadata = cargo::metadata(root, &[])?;
    let packages = metadata["packages"]
        .as_array()
        .context("cargo metadata lists no packages")?;
    let refused: Vec<String> = packages
        .iter()
        .filter_map(|package| refused(package, &allowed))
        .collect();
    for line in &refused {
        eprintln!("{line}");
    }
    if refused.is_empty() {
        eprintln!("== licences: passed for {} packages", packages.len());
        return Ok(Ended::Passed);
    }
    eprintln!("== licences: FAILED");
    Ok(Ended::Failed)
}

/// The licences that `deny.toml` allows.
fn allowed(text: &str) -> anyhow::Result<Vec<String>> {
    let table: toml::Table = text.parse().context("deny.toml is no TOML")?;
    let list = table
        .get("licenses")
        .and_then(|licences| licences.get("allow"))
        .and_then(|allow| allow.as_array());
    let list = list.context("deny.toml has no licenses.allow")?;
    Ok(list
        .iter()
        .filter_map(|licence| licence.as_str())
        .map(str::to_string)
        .collect())
}

/// Why a package is refused; `None` when it is not.
fn refused(package: &serde_json::Value, allowed: &[String]) -> Option<String> {
    let name = format!(
        "{} {}",
        package["name"].as_str().unwrap_or("?"),
        package["version"].as_str().unwrap_or("?")
    );
    let Some(expression) = package["license"].as_str() else {
        return Some(format!("{name}: says no licence"));
    };
    match satisfied(expression, allowed) {
        Some(true) => None,
        Some(false) => Some(format!("{name}: {expression} is not allowed by deny.toml")),
        None => Some(format!("{name}: {expression} is no licence expression")),
    }
}

/// Whether an SPDX expression can be met with the allowed licences alone; `None` when it cannot be read. `/` is the old way to
/// write OR. An exception (`WITH`) only ever permits more, so the licence before it decides.
fn satisfied(expression: &str, allowed: &[String]) -> Option<bool> {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    let value = any(&words, &mut at, allowed)?;
    (at == words.len()).then_some(value)
}

fn any(words: &[&str], at: &mut usize, allowed: &[String]) -> Option<bool> {
    let mut value = all(words, at, allowed)?;
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        value |= all(words, at, allowed)?;
    }
    Some(value)
}

fn all(words: &[&str], at: &mut usize, allowed: &[String]) -> Option<bool> {
    let mut value = one(words, at, allowed)?;
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        value &= one(words, at, allowed)?;
    }
    Some(value)
}

fn one(words: &[&str], at: &mut usize, allowed: &[String]) -> Option<bool> {
    let word = *words.get(*at)?;
    *at += 1;
    if word == "(" {
        let value = any(words, at, allowed)?;
        let closed = words.get(*at) == Some(&")");
        *at += 1;
        return closed.then_some(value);
    }
    if matches!(word, ")" | "OR" | "AND" | "WITH") {
        return None;
    }
    if words.get(*at) == Some(&"WITH") {
        words.get(*at + 1)?;
        *at += 2;
    }
    Some(allowed.iter().any(|allowed| allowed == word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn met(expression: &str) -> Option<bool> {
        satisfied(
            expression,
            &["MIT".to_string(), "Apache-2.0".to_string(), "ISC".to_string()],
        )
    }

    #[test]
    fn an_expression_is_met_or_not() {
        assert_eq!(met("MIT OR GPL-3.0-only"), Some(true));
        assert_eq!(met("MIT/Apache-2.0"), Some(true));
        assert_eq!(met("GPL-3.0-only"), Some(false));
        assert_eq!(met("MIT AND GPL-3.0-only"), Some(false));
        assert_eq!(met("(MIT OR GPL-3.0-only) AND ISC"), Some(true));
        assert_eq!(met("GPL-3.0-only OR MIT AND ISC"), Some(true), "AND binds tighter");
        assert_eq!(met("Apache-2.0 WITH LLVM-exception OR GPL-2.0-only"), Some(true));
    }

    #[test]
    fn what_is_no_expression_is_not_met() {
        for expression in ["", "MIT OR", "(MIT", "MIT Apache-2.0", "OR MIT", "MIT WITH"] {
            assert_eq!(met(expression), None, "{expression}");
        }
    }

    #[test]
    fn a_package_without_or_with_a_refused_licence_is_named() {
        let allowed = ["MIT".to_string()];
        let package = |licence| serde_json::json!({ "name": "a", "version": "1.0.0", "license": licence });
        assert_eq!(refused(&package(Some("MIT")), &allowed), None);
        assert!(
            refused(&package(Some("AGPL-3.0-only")), &allowed)
                .unwrap()
                .contains("a 1.0.0")
        );
        assert!(refused(&package(None), &allowed).is_some());
    }
}
