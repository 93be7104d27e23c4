//! Pages whose links lead somewhere, whose promises have tests, and a front door of one page.

use super::Finding;
use crate::tree::{File, Tree};

const README_LINES_MAX: usize = 119;

/// Relative links in Markdown that lead to no file.
pub fn links(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.files.iter().filter(|file| file.path.ends_with(".md")) {
        for (line, target) in targets(&file.text) {
            let path = target.split('#').next().unwrap_or_default();
            let elsewhere = target.contains("://") || target.starts_with("mailto:") || path.is_empty();
            if !elsewhere && !exists(tree, file, path) {
                findings.push(Finding::new(
                    &file.path,
                    line,
                    format!("the link to {target} leads nowhere"),
                ));
            }
        }
    }
    findings
}

fn exists(tree: &Tree, from: &File, target: &str) -> bool {
    let directory = from.path.rsplit_once('/').map_or("", |(directory, _)| directory);
    tree.root.join(directory).join(target).exists()
}

/// Targets of `](target)` outside code, with their line.
fn targets(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut in_code = false;
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
            continue;
        }
        if in_code {
            continue;
        }
        // Every second piece between backticks is code.
        let prose: String = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
        for piece in prose.split("](").skip(1) {
            let target = piece.split(')').next().unwrap_or_default().trim();
            found.push((number + 1, target.to_string()));
        }
    }
    found
}

/// A README that is longer than a page.
pub fn readme(tree: &Tree) -> Vec<Finding> {
    let Some(file) = tree.file("README.md") else {
        return vec![Finding::new("README.md", 0, "is not there")];
    };
    let lines = file.text.lines().count();
    if lines <= README_LINES_MAX {
        return Vec::new();
    }
    vec![Finding::new(
        "README.md",
        0,
        format!("{lines} lines, at most {README_LINES_MAX}"),
    )]
}

/// `Shown by:` paragraphs of docs/consistency.md that name no test or script that exists.
pub fn promises(tree: &Tree) -> Vec<Finding> {
    let Some(file) = tree.file("docs/consistency.md") else {
        return vec![Finding::new("docs/consistency.md", 0, "is not there")];
    };
    let mut findings = Vec::new();
    let lines: Vec<&str> = file.text.lines().collect();
    for (number, line) in lines.iter().enumerate() {
        if !line.starts_with("Shown by:") {
            continue;
        }
        let paragraph: String = lines[number..]
            .iter()
            .take_while(|line| !line.is_empty())
            .copied()
            .collect();
        let mut names = paragraph.split('`').skip(1).step_by(2).peekable();
        if names.peek().is_none() {
            findings.push(Finding::new(&file.path, number + 1, "shown by nothing"));
        }
        for name in names.filter(|name| !is_shown(tree, name)) {
            findings.push(Finding::new(
                &file.path,
                number + 1,
                format!("no test or script is named {name}"),
            ));
        }
    }
    findings
}

/// A test function, or a golden script, of this name.
fn is_shown(tree: &Tree, name: &str) -> bool {
    let is_script = |file: &File| file.path.contains("/scripts/") && file.path.rsplit('/').next() == Some(name);
    let declaration = format!("fn {name}(");
    let is_test = |source: &super::source::Source| {
        source
            .code
            .match_indices(&declaration)
            .any(|(at, _)| source.in_test(at))
    };
    tree.sources.iter().any(is_test) || tree.files.iter().any(is_script)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_leads_nowhere_is_found_outside_code_only() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("b.md"), "").unwrap();
        let text = "[a](b.md) [c](c.md#x) [h](#here) [w](https://x.example) `[q](q.md)`\n```\n[z](z.md)\n```\n";
        let tree = Tree::new(
            directory.path().into(),
            vec![File {
                path: "a.md".into(),
                text: text.into(),
            }],
        );
        let findings = links(&tree);
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert!(findings[0].what.contains("c.md#x"));
    }

    #[test]
    fn a_long_readme_is_found() {
        assert_eq!(readme(&Tree::of("README.md", &"x\n".repeat(120))).len(), 1);
        assert_eq!(readme(&Tree::of("README.md", &"x\n".repeat(119))).len(), 0);
    }

    #[test]
    fn a_promise_without_a_test_is_found() {
        let page = |names: &str| File {
            path: "docs/consistency.md".into(),
            text: format!("Shown by: {names}\n"),
        };
        let shown = File {
            path: "tests/cluster/a.rs".into(),
            text: "async fn it_holds() {}\n".into(),
        };
        let script = File {
            path: "node/machine/scripts/shard/a_story".into(),
            text: String::new(),
        };
        let count =
            |names: &str| promises(&Tree::new("".into(), vec![page(names), shown.clone(), script.clone()])).len();
        assert_eq!(count("`it_holds`, `a_story`"), 0);
        assert_eq!(count("`it_holds`, `another`"), 1);
        assert_eq!(count("`it_holds`,\n`another`\n\n`prose`"), 1);
        assert_eq!(count("review"), 1);
    }
}
