//! What a node tells monitoring: `GET` over plain HTTP, and the figures of a scrape.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::wait::within;

/// A scrape takes milliseconds; an unoptimised node under load takes longer.
const ANSWER: Duration = Duration::from_secs(20);

/// Fetches `path` from `address`; status code and content.
///
/// # Errors
/// When nobody answers, or not in HTTP.
pub async fn get(address: &str, path: &str) -> anyhow::Result<(u16, String)> {
    within(format!("GET {path} from {address}"), ANSWER, async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let (head, content) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
        let status = head.split(' ').nth(1).context("no status line")?.parse()?;
        Ok((status, content.to_owned()))
    })
    .await
}

/// The figures of one scrape, by series as the text has them: `malle_journal_syncs_total{kind="log"}`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    /// Takes the text of `/metrics`.
    ///
    /// # Errors
    /// When a line is no series with a number.
    pub fn parse(text: &str) -> anyhow::Result<Metrics> {
        let mut series = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let (name, value) = line.rsplit_once(' ').with_context(|| format!("no figure: {line}"))?;
            let value = value.parse().with_context(|| line.to_owned())?;
            series.insert(name.to_owned(), value);
        }
        Ok(Metrics(series))
    }

    /// One series; `None` when the node does not tell it.
    pub fn get(&self, series: &str) -> Option<f64> {
        self.0.get(series).copied()
    }

    /// All series of a name together, whatever their labels.
    pub fn sum(&self, name: &str) -> f64 {
        let of_name = |series: &&String| series.split('{').next() == Some(name);
        self.0.keys().filter(of_name).map(|series| self.0[series]).sum()
    }

    /// Every series with its value.
    pub fn series(&self) -> impl Iterator<Item = (&str, f64)> {
        self.0.iter().map(|(series, value)| (series.as_str(), *value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found_by_series_and_summed_by_name() {
        let text =
            "# HELP a Text.\n# TYPE a counter\na_total{kind=\"x\"} 3\na_total{kind=\"y z\"} 1.5\nab_total 9\n# EOF\n";
        let metrics = Metrics::parse(text).unwrap();
        assert_eq!(metrics.get("a_total{kind=\"y z\"}"), Some(1.5));
        assert_eq!(metrics.get("a_total"), None);
        assert_eq!(metrics.sum("a_total"), 4.5);
        assert_eq!(metrics.series().count(), 3);
        assert!(Metrics::parse("<html>").is_err());
    }
}
