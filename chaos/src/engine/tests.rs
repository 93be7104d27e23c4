//! From a scenario to its page, with a program in place of the engine that answers with a history of its own: a good one, or one in which a
//! mail is lost when the plan holds a kill.

use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::check::sample;
use crate::history::{History, Record};
use crate::report::{Scoreboard, collect};

fn lines(history: &History) -> String {
    let records = std::iter::once(Record::Header(history.header.clone()))
        .chain(history.operations.iter().cloned().map(Record::Operation))
        .chain(history.faults.iter().cloned().map(Record::Fault))
        .chain(history.nodes.iter().cloned().map(Record::Node))
        .chain(history.finals.iter().cloned().map(Record::Final));
    records
        .map(|record| serde_json::to_string(&record).unwrap() + "\n")
        .collect()
}

/// A directory with the program and its two histories.
fn engine() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let mut lost = sample::right();
    lost.finals
        .iter_mut()
        .for_each(|last| drop(last.mailboxes[0].messages.remove(0)));
    std::fs::write(at("good"), lines(&sample::right())).unwrap();
    std::fs::write(at("lost"), lines(&lost)).unwrap();
    let script = "#!/bin/sh\nhere=$(dirname \"$0\")\nwhile [ $# -gt 0 ]; do\n  case $1 in --out) out=$2;; --plan) plan=$2;; --seed) seed=$2;; esac\n  shift\ndone\n\
        [ \"$seed\" = 13 ] && { echo 'no such luck' >&2; exit 1; }\n\
        if grep -q '\"kind\":\"kill\"' \"$plan\"; then cp \"$here/lost\" \"$out/history.jsonl\"; else cp \"$here/good\" \"$out/history.jsonl\"; fi\n\
        echo '{\"trace\":\"abc\"}' > \"$out/run.json\"\n";
    std::fs::write(at("chaos-sim"), script).unwrap();
    std::fs::set_permissions(at("chaos-sim"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let quiet = crate::scenario::SAMPLE.replace("name = \"sample\"", "name = \"quiet\"");
    let kill = "\n[[fault]]\nkind = \"kill\"\nselect = \"random:1\"\nat = \"3s\"\n";
    std::fs::write(at("quiet.toml"), &quiet).unwrap();
    std::fs::write(at("sample.toml"), format!("{}{kill}", crate::scenario::SAMPLE)).unwrap();
    directory
}

fn job(engine: &tempfile::TempDir, scenario: &str, seed: u64) -> Job {
    let path = engine.path().join(format!("{scenario}.toml"));
    let mut job = Job::read(&path, Engine::Sim, seed, PathBuf::new()).unwrap();
    job.sim = Some(engine.path().join("chaos-sim"));
    job.out = engine.path().join("runs").join(job.name());
    job
}

#[test]
fn a_good_history_passes_and_a_lost_mail_fails_with_the_command_that_runs_it_again() {
    let engine = engine();
    let good = job(&engine, "quiet", 1).run().unwrap();
    assert_eq!(
        (good.verdict, good.trace.as_deref()),
        (Verdict::Pass, Some("abc")),
        "{good:#?}"
    );
    let lost = job(&engine, "sample", 7);
    let result = lost.run().unwrap();
    assert_eq!(result.verdict, Verdict::Fail);
    assert_eq!(result.findings, read_result(&lost.out).unwrap().findings);
    assert!(
        result.command.contains("sample.toml --engine sim --seed 7"),
        "{}",
        result.command
    );
    let page = std::fs::read_to_string(lost.out.join(TIMELINE)).unwrap();
    assert!(page.contains("acknowledged message 1 of INBOX is not there") && page.contains(&result.command));
    assert!(!page.contains("http") && !page.contains("<script"));
    let board = Scoreboard::of(&collect(&engine.path().join("runs")).unwrap());
    assert_eq!(board.closing(), "1 passed, 1 failed, 0 skipped");
}

#[test]
fn a_run_is_judged_again_from_its_directory() {
    let engine = engine();
    let mut job = job(&engine, "sample", 7);
    let first = job.run().unwrap();
    job.made_by = Some("chaos run elsewhere".to_owned());
    std::fs::copy(engine.path().join("good"), job.out.join(history::FILE)).unwrap();
    assert_eq!(first.verdict, Verdict::Fail);
    let again = job.judge(0).unwrap();
    assert_eq!(
        (again.verdict, again.command.as_str()),
        (Verdict::Pass, "chaos run elsewhere")
    );
}

#[test]
fn a_plan_replaces_the_scenarios_own() {
    let engine = engine();
    let mut job = job(&engine, "sample", 7);
    job.steps = Some(Vec::new());
    assert_eq!(job.run().unwrap().verdict, Verdict::Pass);
    assert!(job.command().contains("--plan"));
}

#[test]
fn an_engine_that_fails_is_no_verdict() {
    let engine = engine();
    let error = job(&engine, "quiet", 13).run().unwrap_err();
    assert!(error.to_string().contains("no such luck"), "{error:#}");
}

#[test]
fn what_the_engine_cannot_run_is_skipped_with_the_reason() {
    let engine = engine();
    let mut job = job(&engine, "quiet", 1);
    job.scenario.engines = vec![Engine::Proc];
    let result = job.run().unwrap();
    assert_eq!(result.verdict, Verdict::Skipped);
    assert!(result.reason.unwrap().contains("not for the engine sim"));
}
