//! Every kind of record that is kept has bytes that are read for ever.

use super::Finding;
use super::source::Source;
use crate::tree::Tree;

/// What declares a kind of record: its name, and the number that its envelope bears.
const DECLARES: &str = "first_version!(";

/// Kinds of records without golden bytes.
pub fn golden(tree: &Tree) -> Vec<Finding> {
    let kinds = tree.sources.iter().flat_map(|source| {
        // With a path before it or without.
        let found = source.code.match_indices(DECLARES).map(|(offset, _)| offset);
        found
            .filter(move |offset| !source.in_test(*offset))
            .filter_map(move |offset| Some((source, offset, declared(source, offset)?)))
    });
    let without = kinds.filter(|(_, _, (_, id))| !is_kept(tree, id));
    without
        .map(|(source, offset, (name, id))| {
            let what =
                format!("{name} is kept as record {id} and has no golden bytes, neither a file `*.{id}.v1` nor a line");
            Finding::new(&source.path, source.line(offset), what)
        })
        .collect()
}

/// `Name, 51` of `first_version!(Name, 51)`. The macro itself declares nothing.
fn declared(source: &Source, offset: usize) -> Option<(String, String)> {
    let inside = &source.code[offset + DECLARES.len()..];
    let (name, rest) = inside[..inside.find(')')?].split_once(',')?;
    let id: String = rest.trim().chars().filter(|letter| *letter != '_').collect();
    let number = !id.is_empty() && id.bytes().all(|letter| letter.is_ascii_digit());
    number.then(|| (name.trim().to_owned(), id))
}

/// A file of its own, named by the record; or a line of a file with many: name, `<id>.v<version>`, bytes.
fn is_kept(tree: &Tree, id: &str) -> bool {
    let (file, line) = (format!(".{id}.v1"), format!(" {id}.v1 "));
    let mut golden = tree.files.iter().filter(|file| file.path.contains("/golden/"));
    golden.any(|golden| golden.path.ends_with(&file) || golden.text.contains(&line))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::tree::File;

    fn tree(files: &[(&str, &str)]) -> Tree {
        let file = |(path, text): &(&str, &str)| File {
            path: (*path).into(),
            text: (*text).into(),
        };
        Tree::new(PathBuf::new(), files.iter().map(file).collect())
    }

    #[test]
    fn a_record_without_golden_bytes_is_found() {
        let source = (
            "node/src/a.rs",
            "first_version!(Head, 51);\ncrate::first_version!(Row, 16);\n",
        );
        let line = ("node/golden/volumes.txt", "head 51.v1 4d4c\n");
        let file = ("node/machine/golden/shard/row.16.v1", "4d4c\n");
        assert!(golden(&tree(&[source, line, file])).is_empty());
        assert_eq!(golden(&tree(&[source, line])).len(), 1);
        assert_eq!(golden(&tree(&[source, file])).len(), 1);
        let other = ("node/golden/volumes.txt", "head 151.v1 4d4c\n");
        assert_eq!(golden(&tree(&[source, other, file])).len(), 1);
    }

    #[test]
    fn records_of_tests_and_the_macro_itself_need_none() {
        let source = "macro_rules! first_version { ($name:ty, $id:literal) => {}; }\n#[cfg(test)]\nmod tests {\n    crate::first_version!(Sample, 9_999);\n}\n";
        assert!(golden(&tree(&[("node/machine/src/format.rs", source)])).is_empty());
    }
}
