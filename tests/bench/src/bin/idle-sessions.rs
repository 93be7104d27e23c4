//! `idle-sessions`: what a session that waits costs a gateway. Opens many IMAP sessions inside TLS, each in IDLE with INBOX selected, and tells after each
//! step how much memory the gateway's process has in RAM.
//!
//! Run it beside `malle demo --accounts 100`: a gateway takes 1,000 sessions from one address and 100 of one account, so that 10,000 sessions come from
//! twenty addresses of the loopback and belong to 100 accounts. Each session is an open file on both sides.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Parser;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Passwords are checked two at a time on a node; more would only wait there.
const LOGINS_AT_ONCE: usize = 8;
/// Sessions of one source address.
const PER_ADDRESS: usize = 500;
/// The longest that an answer may take on a busy machine.
const ANSWER: Duration = Duration::from_secs(120);

/// Opens sessions that wait, and tells what they cost
#[derive(Debug, Parser)]
struct Flags {
    /// ADDRESS:PORT of IMAP inside TLS
    #[arg(long)]
    imaps: SocketAddr,
    /// The certificate to trust
    #[arg(long, value_name = "FILE")]
    certificate: PathBuf,
    /// The gateway's process
    #[arg(long)]
    pid: u32,
    /// How many sessions
    #[arg(long, default_value_t = 10_000)]
    sessions: usize,
    /// Accounts u1@example.org to uN@example.org
    #[arg(long, default_value_t = 100)]
    accounts: usize,
    /// Their password
    #[arg(long)]
    password: String,
    /// Memory is told after so many sessions
    #[arg(long, default_value_t = 1_000)]
    step: usize,
}

type Session = BufReader<TlsStream<TcpStream>>;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    ensure!(
        flags.accounts > 0 && flags.step > 0,
        "at least one account, and steps of at least one session"
    );
    let flags = Arc::new(flags);
    let connector = connector(&flags)?;
    let base = rss_kib(flags.pid)?;
    println!("{:>8} sessions {base:>9} KiB", 0);
    let begun = Instant::now();
    let mut sessions: Vec<Session> = Vec::with_capacity(flags.sessions);
    while sessions.len() < flags.sessions {
        let from = sessions.len();
        let to = (from + flags.step).min(flags.sessions);
        for first in (from..to).step_by(LOGINS_AT_ONCE) {
            let opening = (first..to.min(first + LOGINS_AT_ONCE)).map(|number| {
                let (flags, connector) = (Arc::clone(&flags), connector.clone());
                tokio::spawn(async move { open(&flags, &connector, number).await })
            });
            for opened in opening.collect::<Vec<_>>() {
                sessions.push(opened.await??);
            }
        }
        let rss = rss_kib(flags.pid)?;
        let each = rss.saturating_sub(base) as f64 / sessions.len() as f64;
        let seconds = begun.elapsed().as_secs();
        println!(
            "{:>8} sessions {rss:>9} KiB, {each:.1} KiB each, after {seconds} s",
            sessions.len()
        );
    }
    Ok(())
}

fn connector(flags: &Flags) -> anyhow::Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&flags.certificate).context("reading the certificate")?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// A session that has said IDLE.
async fn open(flags: &Flags, connector: &TlsConnector, number: usize) -> anyhow::Result<Session> {
    let socket = TcpSocket::new_v4()?;
    if flags.imaps.ip().is_loopback() {
        let part = |number: usize| u8::try_from(number % 250 + 1).unwrap_or(1);
        let place = number / PER_ADDRESS;
        socket.bind((Ipv4Addr::new(127, 0, part(place / 250), part(place)), 0).into())?;
    }
    let stream = socket.connect(flags.imaps).await?;
    let name = ServerName::try_from("localhost")?;
    let stream = connector.connect(name, stream).await?;
    let mut session = BufReader::with_capacity(256, stream);
    said(&mut session, "* OK").await?;
    let user = number % flags.accounts + 1;
    say(&mut session, &format!("a LOGIN u{user}@example.org {}", flags.password)).await?;
    said(&mut session, "a OK").await?;
    say(&mut session, "b SELECT INBOX").await?;
    said(&mut session, "b OK").await?;
    say(&mut session, "c IDLE").await?;
    said(&mut session, "+ ").await?;
    Ok(session)
}

async fn say(session: &mut Session, line: &str) -> anyhow::Result<()> {
    let stream = session.get_mut();
    stream.write_all(format!("{line}\r\n").as_bytes()).await?;
    Ok(stream.flush().await?)
}

/// Reads to the line that begins so.
async fn said(session: &mut Session, wanted: &str) -> anyhow::Result<()> {
    let mut line = String::new();
    loop {
        line.clear();
        let read = tokio::time::timeout(ANSWER, session.read_line(&mut line));
        let count = read.await.with_context(|| format!("waiting for {wanted}"))??;
        if count == 0 {
            bail!("the gateway closed the connection before {wanted}");
        }
        if line.starts_with(wanted) {
            return Ok(());
        }
        ensure!(
            line.starts_with("* ") && !line.starts_with("* BYE"),
            "instead of {wanted}: {}",
            line.trim()
        );
    }
}

/// Memory of the process that is in RAM.
fn rss_kib(pid: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("reading the gateway's status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .context("a process has a VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
