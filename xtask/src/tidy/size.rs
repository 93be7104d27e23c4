//! How long files and functions may be. Tests are stories and may be as long as the story.

use super::Finding;
use crate::tree::Tree;

/// House rule 12: 400 is a smell, above this it fails.
const FILE_LINES_MAX: usize = 600;
/// House rule 12.
const FUNCTION_LINES_MAX: usize = 70;

/// Files that are too long without their tests.
pub fn files(tree: &Tree) -> Vec<Finding> {
    let long = |(path, lines): (&str, usize)| {
        (lines > FILE_LINES_MAX).then(|| {
            Finding::new(
                path,
                0,
                format!("{lines} lines without tests, at most {FILE_LINES_MAX}: split it by what it owns"),
            )
        })
    };
    tree.sources
        .iter()
        .map(|source| (source.path.as_str(), source.lines_without_tests()))
        .filter_map(long)
        .collect()
}

/// Functions that are too long.
pub fn functions(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in &tree.sources {
        for (name, range) in source.functions() {
            let lines = source.line(range.end) - source.line(range.start) + 1;
            if lines > FUNCTION_LINES_MAX && !source.in_test(range.start) {
                let what = format!("{name} has {lines} lines, at most {FUNCTION_LINES_MAX}");
                findings.push(Finding::new(&source.path, source.line(range.start), what));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_file_is_found_and_its_tests_do_not_count() {
        let code = "const A: u8 = 1;\n".repeat(601);
        assert_eq!(files(&Tree::of("a/src/a.rs", &code)).len(), 1);
        assert_eq!(files(&Tree::of("a/src/a.rs", &code[..code.len() - 17])).len(), 0);
        let with_tests = format!(
            "{}#[cfg(test)]\nmod tests {{\n{code}}}\n",
            "const A: u8 = 1;\n".repeat(500)
        );
        assert_eq!(files(&Tree::of("a/src/a.rs", &with_tests)).len(), 0);
        assert_eq!(files(&Tree::of("a/src/a/tests.rs", &code)).len(), 0);
    }

    #[test]
    fn a_long_function_is_found() {
        let long = format!("fn f() {{\n{}}}\n", "    g();\n".repeat(69));
        assert_eq!(functions(&Tree::of("a/src/a.rs", &long)).len(), 1);
        let fits = format!("fn f() {{\n{}}}\n", "    g();\n".repeat(68));
        assert_eq!(functions(&Tree::of("a/src/a.rs", &fits)).len(), 0);
    }
}
