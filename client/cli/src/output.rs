//! Printing data: tables for people, JSON for programs.

use std::io::{self, Write as _};

use comfy_table::Table;
use serde::Serialize;

use crate::context::Output;

/// Version of the JSON that this program prints. It rises when a field changes its meaning or goes, not when one is added.
const JSON_VERSION: u32 = 1;

#[derive(Serialize)]
struct Versioned<'a, T> {
    v: u32,
    #[serde(flatten)]
    data: &'a T,
}

/// Prints `data` as JSON, or the text that `table` makes of it.
///
/// # Errors
/// When standard output cannot be written to.
pub fn print<T: Serialize>(output: Output, data: &T, table: impl FnOnce(&T) -> String) -> io::Result<()> {
    let text = match output {
        Output::Table => table(data),
        Output::Json => json(data),
    };
    let mut out = anstream::stdout();
    writeln!(out, "{}", text.trim_end())
}

/// One JSON object with its version.
pub fn json<T: Serialize>(data: &T) -> String {
    serde_json::to_string_pretty(&Versioned { v: JSON_VERSION, data }).expect("what we print has text keys only")
}

/// A table without lines: columns that `cut` and `awk` read too.
pub fn table<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(header);
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// Names and values, one a line.
pub fn pairs<'a>(rows: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let rows: Vec<_> = rows.into_iter().collect();
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    rows.iter()
        .map(|(name, value)| format!("{name:width$}  {value}\n"))
        .collect()
}

/// `1.5 GiB`.
pub fn size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if value.fract() == 0.0 {
        format!("{value:.0} {}", units[unit])
    } else {
        format!("{value:.1} {}", units[unit])
    }
}

/// `3d 4h`, the two largest units.
pub fn span(ms: u64) -> String {
    let seconds = ms / 1000;
    match (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, s) => format!("{s}s"),
        (0, 0, m, s) => format!("{m}m {s}s"),
        (0, h, m, _) => format!("{h}h {m}m"),
        (d, h, _, _) => format!("{d}d {h}h"),
    }
}

/// `2026-11-23 22:00:46Z`. Days to years by the calendar's 400-year cycle, which begins on a first of March.
pub fn time(ms: u64) -> String {
    let seconds = ms / 1000;
    let days = seconds / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year_of_era = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day_of_month:02} {hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_civil_dates() {
        assert_eq!(time(0), "1970-01-01 00:00:00Z");
        assert_eq!(time(951_782_400_000), "2000-02-29 00:00:00Z");
        assert_eq!(time(1_709_251_199_000), "2024-02-29 23:59:59Z");
        assert_eq!(time(4_107_542_400_000), "2100-03-01 00:00:00Z");
    }

    #[test]
    fn sizes_and_spans_are_short() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(20 << 30), "20 GiB");
        assert_eq!(size(1_600), "1.6 KiB");
        assert_eq!(size(u64::MAX), "16 EiB");
        assert_eq!(span(59_999), "59s");
        assert_eq!(span(3_600_000), "1h 0m");
        assert_eq!(span(90_000_000), "1d 1h");
    }

    #[test]
    fn json_says_its_version_first() {
        #[derive(Serialize)]
        struct Data {
            shard: u32,
        }
        assert_eq!(json(&Data { shard: 3 }), "{\n  \"v\": 1,\n  \"shard\": 3\n}");
    }

    #[test]
    fn a_table_has_no_trailing_blanks() {
        let text = table(
            ["ID", "REGION"],
            [["1".into(), "nord".into()], ["12".into(), "sud".into()]],
        );
        assert_eq!(text, "ID  REGION\n1   nord\n12  sud");
    }
}
