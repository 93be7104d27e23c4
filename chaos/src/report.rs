//! What people look at: one page per run, one scoreboard over many.
//!
//! Pages are whole in themselves: no script, no font, no picture comes from elsewhere, so that a page from a bug report opens anywhere and
//! for ever. Drawings are SVG with a title on everything that has a story. The numbers stand in `result.json` and `scoreboard.json` as well.

mod chart;
mod page;
mod scoreboard;

pub use page::timeline;
pub use scoreboard::{Row, Scoreboard, collect};

use crate::check::Verdict;

/// Text for HTML.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            other => out.push(other),
        }
    }
    out
}

/// A verdict as a mark with its colour.
fn badge(verdict: Verdict) -> String {
    format!(
        "<span class=\"badge {}\">{verdict}</span>",
        format!("{verdict}").to_lowercase()
    )
}

/// Microseconds for people.
fn time(us: u64) -> String {
    match us {
        0..10_000 => format!("{:.1} ms", us as f64 / 1e3),
        10_000..10_000_000 => format!("{} ms", us / 1_000),
        _ => format!("{:.1} s", us as f64 / 1e6),
    }
}

/// A page with this title and body.
fn page_of(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>{}</title>\n<style>{STYLE}</style></head>\n<body>\n{body}\n</body>\n</html>\n",
        escape(title)
    )
}

const STYLE: &str = "
:root{--ink:#1c2024;--soft:#697177;--line:#dfe3e6;--paper:#fff;--tint:#f5f7f8;--pass:#2b8a3e;--fail:#c92a2a;--unknown:#b7791f;--skipped:#697177}
@media (prefers-color-scheme:dark){:root{--ink:#e8eaed;--soft:#9aa3ab;--line:#363c42;--paper:#16191c;--tint:#1f2428;--pass:#51cf66;--fail:#ff6b6b;--unknown:#fcc419;--skipped:#9aa3ab}}
body{font:14px/1.45 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:1240px;margin:24px auto;padding:0 16px}
h1{font-size:22px;margin:0 0 4px}h2{font-size:16px;margin:28px 0 8px}p{margin:4px 0;color:var(--soft)}
code{font:12.5px ui-monospace,monospace;background:var(--tint);padding:2px 5px;border-radius:4px;overflow-wrap:anywhere}
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:5px 10px 5px 0;border-bottom:1px solid var(--line);vertical-align:top}
th{font-weight:600;color:var(--soft)}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
.badge{font-weight:700;font-size:12px;padding:1px 7px;border-radius:9px;border:1.5px solid;white-space:nowrap}
.pass{color:var(--pass)}.fail{color:var(--fail)}.unknown{color:var(--unknown)}.skipped{color:var(--skipped)}
.cards{display:flex;flex-wrap:wrap;gap:8px;margin:14px 0}.card{background:var(--tint);border-radius:8px;padding:8px 14px}
.card b{display:block;font-size:18px;font-variant-numeric:tabular-nums}.card span{color:var(--soft);font-size:12px}
svg{width:100%;height:auto;display:block}svg text{fill:var(--soft);font:11px system-ui,sans-serif}svg .name{fill:var(--ink);font-weight:600}
.axis{stroke:var(--line)}.legend{display:flex;flex-wrap:wrap;gap:14px;color:var(--soft);font-size:12px;margin:4px 0}
.legend i{display:inline-block;width:11px;height:11px;border-radius:2px;margin-right:5px;vertical-align:-1px}
details summary{cursor:pointer;color:var(--soft)}ul{margin:4px 0;padding-left:18px}
";
