//! Data on standard output: a table for people, JSON with `"v": 1` for programs.

use comfy_table::{Table, presets};
use serde::Serialize;

/// How data is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// One JSON object.
    Json,
}

#[derive(Serialize)]
struct Versioned<'a, T: Serialize> {
    v: u32,
    #[serde(flatten)]
    data: &'a T,
}

/// Prints `data` as JSON, or what `table` makes of it.
///
/// # Errors
/// When standard output is closed.
pub fn print<T: Serialize>(format: Format, data: &T, table: impl FnOnce(&T) -> String) -> anyhow::Result<()> {
    let text = match format {
        Format::Table => table(data),
        Format::Json => serde_json::to_string_pretty(&Versioned { v: 1, data })?,
    };
    anstream::println!("{}", text.trim_end());
    Ok(())
}

/// A table with these heads.
pub fn table<const N: usize>(heads: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(heads);
    for row in rows {
        table.add_row(row);
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// A size for people: 3 digits at least, 1024 to the unit.
pub fn bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 || unit == "TiB" {
            return if unit == "B" {
                format!("{bytes} B")
            } else {
                format!("{value:.1} {unit}")
            };
        }
        value /= 1024.0;
    }
    format!("{bytes} B")
}

/// A duration for people.
pub fn duration_ms(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::{Versioned, bytes, duration_ms, table};

    #[test]
    fn tables_line_up_and_json_says_its_version() {
        let text = table(
            ["NODE", "REGION"],
            [["1".into(), "nord".into()], ["22".into(), "sud".into()]],
        );
        assert_eq!(text, " NODE  REGION\n 1     nord\n 22    sud\n");
        let json = serde_json::to_string(&Versioned {
            v: 1,
            data: &serde_json::json!({"a": 2}),
        })
        .unwrap();
        assert_eq!(json, r#"{"v":1,"a":2}"#);
    }

    #[test]
    fn sizes_and_times_are_short() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(20 * 1024 * 1024 * 1024), "20.0 GiB");
        assert_eq!(duration_ms(59_999), "59 s");
        assert_eq!(duration_ms(3_600_000 * 50), "2 d");
    }
}
