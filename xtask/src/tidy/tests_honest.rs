//! Nothing unfinished is shipped, and a test can fail.

use super::Finding;
use crate::tree::Tree;

/// Marks of unfinished work, anywhere.
const UNFINISHED: [&str; 3] = ["todo!", "unimplemented!", "dbg!"];

/// A place in tests that may sleep.
struct Allowed {
    path: &'static str,
    why: &'static str,
}

const MAY_SLEEP: &[Allowed] = &[
    Allowed {
        path: "tests/harness/src/wait.rs",
        why: "the pause between two looks at a condition, inside a deadline",
    },
    Allowed {
        path: "tests/bench/src/load.rs",
        why: "a window of measurement is a time",
    },
    Allowed {
        path: "node/src/server/power_cut/world.rs",
        why: "the pause between two looks at a cluster that runs beside the test, each with a deadline",
    },
];

/// Unfinished work.
pub fn unfinished(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in &tree.sources {
        for what in UNFINISHED {
            findings.extend(
                source
                    .occurrences(what)
                    .map(|at| Finding::new(&source.path, source.line(at), what)),
            );
        }
    }
    findings
}

/// Ignored tests, and tests that sleep instead of waiting for a condition.
pub fn tests(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in &tree.sources {
        for (at, _) in source.code.match_indices("#[ignore") {
            findings.push(Finding::new(&source.path, source.line(at), "an ignored test"));
        }
        let allowed = MAY_SLEEP.iter().find(|allowed| allowed.path == source.path);
        let mut sleeps: Vec<usize> = [
            "sleep(",
            "thread::sleep(",
            "std::thread::sleep(",
            "time::sleep(",
            "tokio::time::sleep(",
            "malle_rt::sleep(",
        ]
        .iter()
        .flat_map(|call| source.occurrences(call))
        .filter(|&at| source.in_test(at))
        .collect();
        sleeps.sort_unstable();
        match allowed {
            None => findings.extend(sleeps.iter().map(|&at| {
                Finding::new(
                    &source.path,
                    source.line(at),
                    "a test sleeps: wait for the condition, with a deadline",
                )
            })),
            Some(allowed) if sleeps.is_empty() => {
                let what = format!("does not sleep any more: remove it from MAY_SLEEP ({})", allowed.why);
                findings.push(Finding::new(&source.path, 0, what));
            }
            Some(_) => {}
        }
    }
    findings
}

#[cfg(test)]
mod sample {
    use super::*;

    #[test]
    fn unfinished_work_is_found() {
        assert_eq!(
            unfinished(&Tree::of(
                "a/src/a.rs",
                "fn f() { todo!() }\nfn g() { dbg!(1); unimplemented!(); }"
            ))
            .len(),
            3
        );
        assert_eq!(unfinished(&Tree::of("a/src/a.rs", "// todo!\nfn mytodo() {}")).len(), 0);
    }

    #[test]
    fn ignored_and_sleeping_tests_are_found() {
        let text = "#[cfg(test)]\nmod tests {\n#[test]\n#[ignore]\nfn a() { std::thread::sleep(d); }\n}\nfn pause() { sleep(d); }";
        assert_eq!(tests(&Tree::of("a/src/a.rs", text)).len(), 2);
        assert_eq!(
            tests(&Tree::of(
                "tests/cluster/main.rs",
                "async fn a() { tokio::time::sleep(d).await; }"
            ))
            .len(),
            1
        );
        assert_eq!(
            tests(&Tree::of(
                "tests/harness/src/wait.rs",
                "async fn a() { tokio::time::sleep(d).await; }"
            )),
            []
        );
        assert_eq!(
            tests(&Tree::of("tests/harness/src/wait.rs", "async fn a() {}")).len(),
            1
        );
    }
}
