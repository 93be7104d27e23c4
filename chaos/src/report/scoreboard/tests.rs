use super::*;
use crate::check::Evidence;
use crate::check::Finding;
use crate::figures::Figures;
use crate::scenario::Engine;

fn result(seed: u64, control: Option<&str>, verdict: Verdict) -> RunResult {
    RunResult {
        scenario: "s01-leader-kill".to_owned(),
        seed,
        engine: Engine::Sim,
        control: control.map(str::to_owned),
        commit: "abc".to_owned(),
        scenario_hash: "0".to_owned(),
        verdict,
        reason: (verdict == Verdict::Skipped).then(|| "no <nft> here".to_owned()),
        findings: vec![Finding {
            invariant: "I1".to_owned(),
            claim: "nothing is lost".to_owned(),
            verdict,
            checked: 10,
            violations: u64::from(verdict == Verdict::Fail),
            evidence: vec![Evidence {
                what: "message 7 is not there".to_owned(),
                operations: vec![3],
                at_us: Some(1),
            }],
            note: None,
        }],
        figures: Figures {
            acknowledged: 100,
            faults: 3,
            ..Figures::default()
        },
        trace: None,
        wall_ms: 5,
        command: format!("chaos run s01 --seed {seed}"),
    }
}

fn board(results: Vec<RunResult>) -> Scoreboard {
    let named: Vec<(String, RunResult)> = results
        .into_iter()
        .map(|result| (format!("run-{}", result.seed), result))
        .collect();
    Scoreboard::of(&named)
}

#[test]
fn a_control_passes_when_it_is_found_out() {
    let board = board(vec![
        result(1, None, Verdict::Pass),
        result(2, None, Verdict::Fail),
        result(3, None, Verdict::Unknown),
        result(4, None, Verdict::Skipped),
        result(5, Some("lying-sync"), Verdict::Fail),
        result(6, Some("lying-sync"), Verdict::Pass),
    ]);
    assert_eq!(board.closing(), "2 passed, 2 failed, 1 skipped");
    let red: Vec<&str> = board.red.iter().map(|red| red.directory.as_str()).collect();
    assert_eq!(red, ["run-2", "run-3"]);
    assert_eq!(board.red[0].what, "I1: message 7 is not there");
    assert_eq!(board.rows[0].proved_by, ["lying-sync"]);
}

#[test]
fn a_control_that_no_seed_finds_out_fails_once() {
    let board = board(vec![
        result(5, Some("lying-sync"), Verdict::Pass),
        result(6, Some("lying-sync"), Verdict::Unknown),
    ]);
    assert_eq!(board.closing(), "0 passed, 1 failed, 0 skipped");
    assert_eq!(board.red[0].what, "nobody noticed lying-sync");
}

#[test]
fn a_red_run_names_the_command_that_runs_it_again() {
    let html = board(vec![result(2, None, Verdict::Fail)]).html();
    assert!(
        html.contains("chaos run s01 --seed 2") && html.contains("run-2/timeline.html"),
        "{html}"
    );
}

#[test]
fn what_was_skipped_says_why_and_is_not_green() {
    let html = board(vec![result(4, None, Verdict::Skipped)]).html();
    assert!(html.contains("no &lt;nft&gt; here"));
    assert!(html.contains("badge unknown"));
}

#[test]
fn pages_load_nothing() {
    let html = board(vec![result(1, None, Verdict::Pass)]).html();
    assert!(!html.contains("http") && !html.contains("src=") && !html.contains("@import"));
}
