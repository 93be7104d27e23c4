//! The page of one run.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::chart::{Chart, DONE, DOWN, FOLLOWER, LEADER, OTHER, REFUSED, UNKNOWN};
use super::{badge, escape, page_of, time};
use crate::check::Finding;
use crate::engine::RunResult;
use crate::history::{FaultState, History};
use crate::scenario::Scenario;

/// Rows of a table that may be long.
const ROWS_MAX: usize = 200;

/// The page of a run.
pub fn timeline(result: &RunResult, history: &History, scenario: &Scenario) -> String {
    let evidence = result
        .findings
        .iter()
        .flat_map(|finding| finding.evidence.iter().map(move |evidence| (finding, evidence)));
    let violations: Vec<(u64, String)> = evidence
        .filter_map(|(finding, evidence)| Some((evidence.at_us?, format!("{}: {}", finding.invariant, evidence.what))))
        .collect();
    let mut body = head(result, scenario);
    body.push_str(&cards(result));
    if !violations.is_empty() {
        body.push_str("<p>A dashed red line stands where a promise was broken; under the pointer it says which.</p>");
    }
    let chart = Chart::of(history, violations);
    body.push_str("<h2>What clients saw</h2>");
    body.push_str(&legend(&[(DONE, "done"), (REFUSED, "refused"), (UNKNOWN, "no answer")]));
    body.push_str(&chart.availability());
    body.push_str("<h2>What nodes were</h2>");
    body.push_str(&legend(&[
        (LEADER, "leads (with its term)"),
        (FOLLOWER, "follows"),
        (OTHER, "stands, learns or rebuilds"),
        (DOWN, "down"),
    ]));
    body.push_str("<p>One strip a group, the directory first; bands are faults.</p>");
    body.push_str(&chart.lanes());
    body.push_str("<h2>What each call took</h2>");
    body.push_str(&chart.calls());
    body.push_str("<h2>What was judged</h2>");
    body.push_str(&findings(&result.findings));
    body.push_str(&involved(&result.findings, history));
    body.push_str(&faults(history));
    page_of(
        &format!("{} seed {}: {}", result.scenario, result.seed, result.verdict),
        &body,
    )
}

fn head(result: &RunResult, scenario: &Scenario) -> String {
    let control = result.control.as_ref().map_or_else(String::new, |control| {
        format!(
            "<p>This build breaks a promise on purpose: <code>{}</code></p>",
            escape(control)
        )
    });
    format!(
        "<h1>{} {}</h1><p>{}</p>{control}<p>engine {} &middot; seed {} &middot; commit {} &middot; scenario {}{}</p><p><code>{}</code></p>",
        escape(&result.scenario),
        badge(result.verdict),
        escape(&scenario.summary),
        result.engine.name(),
        result.seed,
        escape(&result.commit),
        escape(&result.scenario_hash),
        result
            .trace
            .as_ref()
            .map_or_else(String::new, |trace| format!(" &middot; trace {}", escape(trace))),
        escape(&result.command),
    )
}

fn cards(result: &RunResult) -> String {
    let figures = &result.figures;
    let mut cards = String::from("<div class=\"cards\">");
    let outage = if figures.outage_us.count == 0 {
        "none".to_owned()
    } else {
        format!("{} / {}", time(figures.outage_us.p50), time(figures.outage_us.max))
    };
    for (value, name) in [
        (figures.acknowledged.to_string(), "changes acknowledged"),
        (figures.mails.to_string(), "mails among them"),
        (figures.unknown.to_string(), "calls without an answer"),
        (format!("{:.2} %", figures.answered_pct), "calls answered"),
        (
            format!("{} / {}", figures.faults, figures.faults_skipped),
            "faults made / skipped",
        ),
        (
            format!("{} / {}", time(figures.latency_us.p50), time(figures.latency_us.p99)),
            "latency p50 / p99",
        ),
        (outage, "outage of a group p50 / max"),
        (time(figures.lasted_us), "of the run's own time"),
        (format!("{:.1} s", result.wall_ms as f64 / 1e3), "of wall time"),
    ] {
        let _ = write!(
            cards,
            "<div class=\"card\"><b>{}</b><span>{name}</span></div>",
            escape(&value)
        );
    }
    cards.push_str("</div>");
    cards
}

fn legend(of: &[(&str, &str)]) -> String {
    let mut legend = String::from("<div class=\"legend\">");
    for (colour, name) in of {
        let _ = write!(legend, "<span><i style=\"background:{colour}\"></i>{name}</span>");
    }
    legend.push_str("</div>");
    legend
}

fn findings(findings: &[Finding]) -> String {
    let mut table = String::from(
        "<table><tr><th></th><th>promise</th><th></th><th class=\"n\">checked</th><th class=\"n\">broken</th></tr>",
    );
    for finding in findings {
        let _ = write!(
            table,
            "<tr><td>{}</td><td>{}",
            escape(&finding.invariant),
            escape(&finding.claim)
        );
        if let Some(note) = &finding.note {
            let _ = write!(table, "<p>{}</p>", escape(note));
        }
        if !finding.evidence.is_empty() {
            table.push_str("<ul>");
            for evidence in &finding.evidence {
                let at = evidence.at_us.map(|us| format!(" at {}", time(us))).unwrap_or_default();
                let ids: Vec<String> = evidence
                    .operations
                    .iter()
                    .take(12)
                    .map(|id| format!("<a href=\"#op{id}\">#{id}</a>"))
                    .collect();
                let _ = write!(
                    table,
                    "<li class=\"fail\">{}{at} {}</li>",
                    escape(&evidence.what),
                    ids.join(" ")
                );
            }
            table.push_str("</ul>");
        }
        let _ = write!(
            table,
            "</td><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
            badge(finding.verdict),
            finding.checked,
            finding.violations
        );
    }
    table.push_str("</table>");
    table
}

/// The operations that show a violation, whole.
fn involved(findings: &[Finding], history: &History) -> String {
    let ids: BTreeSet<u64> = findings
        .iter()
        .flat_map(|finding| &finding.evidence)
        .flat_map(|evidence| &evidence.operations)
        .copied()
        .collect();
    if ids.is_empty() {
        return String::new();
    }
    let mut table = String::from(
        "<h2>Operations that show it</h2><table><tr><th>id</th><th>client</th><th>from</th><th>to</th><th>call</th><th>outcome</th></tr>",
    );
    for operation in history
        .operations
        .iter()
        .filter(|operation| ids.contains(&operation.id))
        .take(ROWS_MAX)
    {
        let json = |value: serde_json::Result<String>| escape(&value.unwrap_or_default());
        let _ = write!(
            table,
            "<tr id=\"op{id}\"><td>#{id}</td><td>{}</td><td class=\"n\">{:.3}</td><td class=\"n\">{:.3}</td><td><code>{}</code></td><td><code>{}</code></td></tr>",
            operation.client,
            operation.invoked_us as f64 / 1e6,
            operation.completed_us as f64 / 1e6,
            json(serde_json::to_string(&operation.call)),
            json(serde_json::to_string(&operation.outcome)),
            id = operation.id
        );
    }
    table.push_str("</table>");
    table
}

fn faults(history: &History) -> String {
    let mut table = String::from(
        "<h2>Faults</h2><table><tr><th class=\"n\">at</th><th>fault</th><th>nodes</th><th>led groups</th><th>what became of it</th></tr>",
    );
    for event in history.faults.iter().take(ROWS_MAX) {
        let state = match &event.event {
            FaultState::Began => "began".to_owned(),
            FaultState::Ended => "ended".to_owned(),
            FaultState::Skipped(why) => format!("skipped: {why}"),
        };
        let _ = write!(
            table,
            "<tr><td class=\"n\">{:.3}</td><td>{}</td><td>{:?}</td><td>{:?}</td><td>{}</td></tr>",
            event.at_us as f64 / 1e6,
            escape(&event.fault.name()),
            event.places,
            event.led,
            escape(&state)
        );
    }
    table.push_str("</table>");
    if history.faults.len() > ROWS_MAX {
        let _ = write!(
            table,
            "<p>and {} more, see history.jsonl</p>",
            history.faults.len() - ROWS_MAX
        );
    }
    table
}
