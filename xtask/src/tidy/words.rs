//! Words that say nothing as a name, and words that belong to one machine.

use super::Finding;
use crate::tree::Tree;

/// House rule 9.
const EMPTY_NAMES: [&str; 6] = ["util", "utils", "common", "helpers", "manager", "misc"];

/// Text that ties the tree to one machine. Written in pieces, so that this list does not find itself.
const MACHINE_WORDS: [&str; 4] = [
    concat!("/wo", "rk/"),
    concat!(".lib", "rary"),
    concat!("fa", "rm-"),
    concat!("/ro", "ot/"),
];

/// Files and directories whose name says nothing.
pub fn file_names(tree: &Tree) -> Vec<Finding> {
    let empty = |path: &str| {
        path.split('/')
            .find(|part| EMPTY_NAMES.contains(&part.split('.').next().unwrap_or_default()))
            .map(str::to_string)
    };
    let finding =
        |path: &str| empty(path).map(|name| Finding::new(path, 0, format!("{name}: name it by what it owns")));
    tree.files.iter().filter_map(|file| finding(&file.path)).collect()
}

/// Machine paths and the like, in every text file.
pub fn banned(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &tree.files {
        for (number, line) in file.text.lines().enumerate() {
            for word in MACHINE_WORDS.iter().filter(|word| line.contains(**word)) {
                findings.push(Finding::new(
                    &file.path,
                    number + 1,
                    format!("{word} belongs to one machine"),
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
    fn an_empty_name_is_found() {
        assert_eq!(file_names(&Tree::of("node/src/util/a.rs", "")).len(), 1);
        assert_eq!(file_names(&Tree::of("node/src/common.rs", "")).len(), 1);
        assert_eq!(file_names(&Tree::of("node/src/commonality.rs", "")).len(), 0);
    }

    #[test]
    fn a_machine_path_is_found() {
        assert_eq!(
            banned(&Tree::of("docs/a.md", concat!("see /wo", "rk/target\n"))).len(),
            1
        );
        assert_eq!(banned(&Tree::of("docs/a.md", "see target/release\n")).len(), 0);
    }
}
