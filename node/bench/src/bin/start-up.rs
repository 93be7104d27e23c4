//! How long a node with many shards takes to serve after a clean stop.
//!
//! ```text
//! start-up fill DIR --shards 64 --messages 1000000     makes the data directory, once
//! start-up serve DIR                                   starts a node over it, prints the time, stops it cleanly
//! start-up crash DIR                                   the same, and ends without a stop: the next start scans every view
//! ```

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use malle_node::config::{Config, Log, Telemetry, Timing, TlsFiles};
use malle_node::security::tls::install_provider;
use malle_node::server::Node;
use malle_node_bench::alone::{Alone, CLUSTER, NODE};
use malle_node_bench::fill::fill;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Makes the data directory.
    Fill {
        dir: PathBuf,
        #[arg(long, default_value_t = 64)]
        shards: u32,
        #[arg(long, default_value_t = 1_000_000)]
        messages: u64,
        #[arg(long, default_value_t = 200)]
        accounts_each: usize,
    },
    /// Starts and stops a node over it.
    Serve { dir: PathBuf },
    /// Starts a node over it and ends without a stop.
    Crash { dir: PathBuf },
}

fn main() -> anyhow::Result<()> {
    install_provider();
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn,openraft=error".into()),
        )
        .with_writer(std::io::stderr)
        .init();
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async move {
        match arguments.verb {
            Verb::Fill {
                dir,
                shards,
                messages,
                accounts_each,
            } => {
                let began = Instant::now();
                let node = Alone::open(&dir, 16 * 1024 * 1024).await?;
                fill(&node, shards, accounts_each, messages).await?;
                println!("filled in {:.1} s", began.elapsed().as_secs_f64());
                let stopping = Instant::now();
                node.close().await;
                println!("stopped in {:.2} s", stopping.elapsed().as_secs_f64());
                Ok(())
            }
            Verb::Serve { dir } => serve(&dir, true).await,
            Verb::Crash { dir } => serve(&dir, false).await,
        }
    })
}

async fn serve(dir: &Path, clean: bool) -> anyhow::Result<()> {
    let config = configuration(dir)?;
    let began = Instant::now();
    let node = Node::start(&config).await?;
    println!(
        "serves after {:.2} s, {} MiB resident",
        began.elapsed().as_secs_f64(),
        resident_mib()
    );
    if !clean {
        std::process::exit(0);
    }
    let stopping = Instant::now();
    node.stop().await;
    println!("stopped in {:.2} s", stopping.elapsed().as_secs_f64());
    Ok(())
}

fn configuration(dir: &Path) -> anyhow::Result<Config> {
    let listen = "127.0.0.1:0".parse()?;
    Ok(Config {
        node: NODE,
        region: "nord".into(),
        zone: "nord-a".into(),
        cluster: CLUSTER.into(),
        data_dir: dir.to_owned(),
        client_listen: listen,
        peer_listen: listen,
        client_address: "localhost:1".into(),
        peer_address: "localhost:2".into(),
        tls: certificates(dir).context("certificates")?,
        timing: Timing::Local,
        log: Log::default(),
        index_cache_bytes: 256 * 1024 * 1024,
        scrub_days: 30,
        oauth: None,
        telemetry: Telemetry::default(),
    })
}

fn certificates(dir: &Path) -> anyhow::Result<TlsFiles> {
    let files = TlsFiles {
        ca: dir.join("ca.pem"),
        cert: dir.join("node.pem"),
        key: dir.join("node.key"),
    };
    if files.key.exists() {
        return Ok(files);
    }
    let authority_key = KeyPair::generate()?;
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_pem = authority.self_signed(&authority_key)?.pem();
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec!["localhost".into()])?;
    let identity = format!("spiffe://{CLUSTER}/node/{NODE}");
    params
        .subject_alt_names
        .push(SanType::URI(identity.as_str().try_into()?));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    std::fs::write(&files.ca, authority_pem)?;
    std::fs::write(&files.cert, params.signed_by(&key, &issuer)?.pem())?;
    std::fs::write(&files.key, key.serialize_pem())?;
    Ok(files)
}

/// Memory of this process; 0 where the system does not tell.
fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.unwrap_or_default() / 1024
}
