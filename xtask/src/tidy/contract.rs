//! Ties the wire contract to its page: `docs/protocol.md` records the hash of `proto/malle/v1/*.proto`.
//!
//! The hash proves nothing about the page. It makes sure that whoever changes the contract opens the page and reads the rules for it.

use std::path::Path;

use anyhow::Context;

use super::Finding;
use crate::tree::Tree;

const PAGE: &str = "docs/protocol.md";
const MARK: &str = "Contract hash: `";

/// The page's hash is not the contract's.
pub fn recorded(tree: &Tree) -> Vec<Finding> {
    let Some(page) = tree.file(PAGE) else {
        return vec![Finding::new(PAGE, 0, "is not there")];
    };
    let want = hash(tree);
    match page.text.lines().position(|line| line.contains(MARK)) {
        None => vec![Finding::new(PAGE, 0, format!("has no line with {MARK}…`"))],
        Some(_) if read(&page.text) == Some(want.as_str()) => Vec::new(),
        Some(line) => vec![Finding::new(
            PAGE,
            line + 1,
            "the contract changed: bring the page up to date, then run `cargo xtask fix`",
        )],
    }
}

/// Writes the hash of the contract into its page; says whether that changed it.
///
/// # Errors
/// When the tree cannot be read, the page has no place for the hash, or it cannot be written.
pub fn record(root: &Path) -> anyhow::Result<bool> {
    let tree = Tree::read(root)?;
    let page = tree.file(PAGE).with_context(|| format!("{PAGE} is not there"))?;
    let old = read(&page.text).with_context(|| format!("{PAGE} has no line with {MARK}…`"))?;
    let new = hash(&tree);
    if old == new {
        return Ok(false);
    }
    let text = page
        .text
        .replacen(&format!("{MARK}{old}`"), &format!("{MARK}{new}`"), 1);
    std::fs::write(root.join(PAGE), text).with_context(|| format!("writing {PAGE}"))?;
    Ok(true)
}

fn read(page: &str) -> Option<&str> {
    page.split(MARK).nth(1)?.split('`').next()
}

/// BLAKE3 of the names and texts of all proto files, first 16 bytes in hex.
fn hash(tree: &Tree) -> String {
    let mut hasher = blake3::Hasher::new();
    for file in tree
        .files
        .iter()
        .filter(|file| file.path.starts_with("proto/malle/v1/") && file.path.ends_with(".proto"))
    {
        for part in [&file.path, &file.text] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
    }
    hasher.finalize().to_hex()[..32].to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::File;

    fn tree(hash: &str, proto: &str) -> Tree {
        let page = File {
            path: PAGE.into(),
            text: format!("# Protocol\n{MARK}{hash}`\n"),
        };
        let proto = File {
            path: "proto/malle/v1/mail.proto".into(),
            text: proto.into(),
        };
        Tree::new("".into(), vec![page, proto])
    }

    #[test]
    fn a_changed_contract_is_found() {
        let recorded_hash = hash(&tree("", "message A {}"));
        assert_eq!(recorded(&tree(&recorded_hash, "message A {}")), []);
        assert_eq!(recorded(&tree(&recorded_hash, "message B {}")).len(), 1);
        assert_eq!(recorded(&Tree::of(PAGE, "# Protocol\n")).len(), 1);
        assert_eq!(recorded(&Tree::default()).len(), 1);
    }

    #[test]
    fn fix_records_what_check_wants() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("proto/malle/v1")).unwrap();
        std::fs::create_dir_all(root.path().join("docs")).unwrap();
        std::fs::write(root.path().join("proto/malle/v1/mail.proto"), "message A {}").unwrap();
        std::fs::write(root.path().join(PAGE), format!("{MARK}old`\nmore\n")).unwrap();
        assert!(record(root.path()).unwrap());
        assert!(!record(root.path()).unwrap());
        assert_eq!(recorded(&Tree::read(root.path()).unwrap()), []);
    }
}
