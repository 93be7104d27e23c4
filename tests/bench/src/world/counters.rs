//! What a node counts itself: bytes and syncs of its journals, from `/metrics`.
//!
//! Nodes of a build that has no such page are measured all the same; then these figures are absent, and only these.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A page of figures takes milliseconds.
const ANSWER: Duration = Duration::from_secs(10);

/// Counters of one node, or of several together, by name with labels: `malle_journal_syncs_total{kind="log"}`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Counters(BTreeMap<String, f64>);

impl Counters {
    /// Reads them from a node's address.
    ///
    /// # Errors
    /// When the page does not come.
    pub async fn read(address: &str) -> anyhow::Result<Counters> {
        let page = tokio::time::timeout(ANSWER, get(address));
        let page = page
            .await
            .with_context(|| format!("http://{address}/metrics: no end"))??;
        Ok(Counters::parse(&page))
    }

    fn parse(page: &str) -> Counters {
        let mut counters = Counters::default();
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            // A label's value may hold blanks; the number is what stands behind the last one.
            let Some((name, number)) = line.trim_end().rsplit_once(' ') else {
                continue;
            };
            if let Ok(number) = number.parse::<f64>() {
                *counters.0.entry(name.into()).or_default() += number;
            }
        }
        counters
    }

    /// Adds another node's.
    pub fn add(&mut self, other: Counters) {
        for (name, number) in other.0 {
            *self.0.entry(name).or_default() += number;
        }
    }

    /// How much a journal's counter, `syncs` or `bytes`, of this `kind`, `log` or `volumes`, rose since `before`.
    ///
    /// # Errors
    /// When the nodes do not count it.
    pub fn journal_since(&self, before: &Counters, what: &str, kind: &str) -> anyhow::Result<f64> {
        let name = format!("malle_journal_{what}_total{{kind=\"{kind}\"}}");
        let now = self.0.get(&name).with_context(|| format!("the nodes tell no {name}"))?;
        Ok(now - before.0.get(&name).copied().unwrap_or_default())
    }
}

async fn get(address: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, page) = answer.split_once("\r\n\r\n").context("an answer without a body")?;
    ensure!(
        head.starts_with("HTTP/1.1 200"),
        "{}",
        head.lines().next().unwrap_or_default()
    );
    Ok(page.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# TYPE malle_journal_syncs counter\nmalle_journal_syncs_total{kind=\"log\"} 12\n\
        malle_journal_bytes_total{kind=\"log\"} 4096\nmalle_build_info{version=\"0.1 x\"} 1\n# EOF\n";

    #[test]
    fn counters_of_nodes_add_up_and_rise() {
        let before = Counters::parse(PAGE);
        let mut now = Counters::parse(PAGE);
        now.add(Counters::parse(PAGE));
        assert_eq!(now.journal_since(&before, "syncs", "log").unwrap(), 12.0);
        assert_eq!(now.journal_since(&before, "bytes", "log").unwrap(), 4096.0);
        assert!(now.journal_since(&before, "syncs", "volumes").is_err());
    }

    #[tokio::test]
    async fn a_page_is_read_and_another_status_is_an_error() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = tokio::spawn(async move {
            for status in ["200 OK", "404 Not Found"] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 1024];
                assert!(stream.read(&mut request).await.unwrap() > 0);
                let answer = format!("HTTP/1.1 {status}\r\nContent-Type: text/plain\r\n\r\n{PAGE}");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        assert_eq!(Counters::read(&address).await.unwrap(), Counters::parse(PAGE));
        assert!(Counters::read(&address).await.is_err());
        server.await.unwrap();
    }
}
