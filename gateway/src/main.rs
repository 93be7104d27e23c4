//! `malle-gateway`: LMTP and IMAP in front of malle, over the client crate alone.
//!
//! Flags, then configuration, then wiring: nothing else happens here. No port opens before malle answered once, so a load balancer
//! never sends mail to a gateway that cannot reach its store. SIGTERM, ctrl-C, or the end of standard input where
//! `--stop-when-stdin-closes` says so: ports close, commands in flight finish, at most ten seconds. SIGHUP: the public certificate is
//! read again.

mod config;
mod imap;
mod listen;
mod lmtp;
mod postfix;
mod proxy;
mod sessions;
mod tls;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use malle_client::Client;
use malle_proto::limits;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing_subscriber::EnvFilter;

use crate::config::{Config, Overrides};
use crate::listen::{Listener, Service};
use crate::tls::PublicTls;

/// A relay waits ten minutes for the answer to a mail (RFC 5321 4.5.3.2.6); we know much earlier whether the store takes it.
const LMTP_DEADLINE: Duration = Duration::from_secs(60);
/// Pause between two tries to reach malle at the start.
const CONNECT_PAUSE: Duration = Duration::from_secs(1);

/// LMTP and IMAP front end of malle
#[derive(Debug, Parser)]
#[command(name = "malle-gateway", version)]
struct Flags {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Check the configuration and its files, then exit
    #[arg(long)]
    check: bool,
    /// Stop when standard input ends: a parent that dies takes the gateway with it
    #[arg(long)]
    stop_when_stdin_closes: bool,
    #[command(flatten)]
    overrides: Overrides,
}

fn main() -> ExitCode {
    match start(&Flags::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("malle-gateway: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Reads the configuration and serves until asked to stop.
fn start(flags: &Flags) -> anyhow::Result<()> {
    let config = Config::load(&flags.config, &flags.overrides)?;
    start_log(&config.log)?;
    let tls = config
        .public_tls
        .as_ref()
        .map(PublicTls::load)
        .transpose()?
        .map(Arc::new);
    let client =
        malle_client::Config::from_files(&config.endpoints, &config.tls.ca, &config.tls.cert, &config.tls.key)?;
    if flags.check {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(flags.stop_when_stdin_closes, config, client, tls))
}

fn start_log(log: &config::Log) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&log.level).context("log.level")?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match log.format {
        config::LogFormat::Text => lines.with_ansi(false).init(),
        config::LogFormat::Json => lines.json().init(),
    }
    Ok(())
}

async fn run(
    stop_when_stdin_closes: bool,
    config: Config,
    client: malle_client::Config,
    tls: Option<Arc<PublicTls>>,
) -> anyhow::Result<()> {
    let (stop, stopped) = watch::channel(false);
    let stop = Arc::new(stop);
    watch_signals(Arc::clone(&stop), tls.clone())?;
    if stop_when_stdin_closes {
        watch_stdin(stop);
    }
    let Some(client) = connect(client, stopped.clone()).await? else {
        return Ok(());
    };
    let mut listeners = JoinSet::new();
    let roster = Arc::new(imap::Roster::default());
    if config.imap.is_some() || config.imaps.is_some() {
        listeners.spawn(sessions::attend(client.clone(), Arc::clone(&roster), stopped.clone()));
        listeners.spawn(sessions::check(client.clone(), Arc::clone(&roster), stopped.clone()));
    }
    for (address, service, sessions_max) in services(&config, &client, &tls, &roster, &stopped)? {
        let name = service.name();
        let bound = Listener::bind(address, service, sessions_max).await;
        let listener = bound
            .with_context(|| format!("cannot listen on {address} for {name}"))?
            .behind(&config.proxy_protocol_from);
        listeners.spawn(listener.run(stopped.clone()));
    }
    while let Some(ended) = listeners.join_next().await {
        ended.context("a listener ended by a defect")?;
    }
    tracing::info!("stopped");
    Ok(())
}

/// Reaches malle, however long that takes: a gateway may start before its nodes. `None` when the stop came first.
async fn connect(config: malle_client::Config, mut stop: watch::Receiver<bool>) -> anyhow::Result<Option<Client>> {
    loop {
        tokio::select! {
            connected = Client::connect(config.clone()) => match connected {
                Ok(client) => return Ok(Some(client)),
                Err(error @ malle_client::Error::Config(_)) => return Err(error.into()),
                Err(error) => tracing::warn!(%error, "malle does not answer yet"),
            },
            _ = stop.wait_for(|stop| *stop) => return Ok(None),
        }
        tokio::select! {
            () = tokio::time::sleep(CONNECT_PAUSE) => {}
            _ = stop.wait_for(|stop| *stop) => return Ok(None),
        }
    }
}

type Place = (std::net::SocketAddr, Service, usize);

fn services(
    config: &Config,
    client: &Client,
    tls: &Option<Arc<PublicTls>>,
    roster: &Arc<imap::Roster>,
    stop: &watch::Receiver<bool>,
) -> anyhow::Result<Vec<Place>> {
    let mut places = lmtp_services(config, client, stop);
    let gate = Arc::new(imap::Gate::new(config.sessions.bounds()));
    places.extend(postfix_services(config, client, &gate, stop));
    let context = imap::Context {
        store: Arc::new(imap::ClientStore::new(client.clone())),
        settings: imap::SessionSettings {
            access_tokens: config.sessions.access_tokens,
            ..listen::PLAIN
        },
        memory: imap::BodyMemory::default(),
        gate,
        roster: Arc::clone(roster),
        shutdown: stop.clone(),
        peer: String::new(),
        address: std::net::Ipv4Addr::UNSPECIFIED.into(),
    };
    if let Some(section) = &config.imap {
        let plaintext_login = section.plaintext_login;
        let service = Service::Imap {
            context: context.clone(),
            tls: tls.clone(),
            plaintext_login,
        };
        places.extend(
            section
                .listen
                .iter()
                .map(|address| (*address, service.clone(), section.sessions_max)),
        );
    }
    if let Some(section) = &config.imaps {
        let tls = tls.clone().context("[imaps] needs [public_tls]")?;
        let service = Service::Imaps { context, tls };
        places.extend(
            section
                .listen
                .iter()
                .map(|address| (*address, service.clone(), section.sessions_max)),
        );
    }
    Ok(places)
}

fn lmtp_services(config: &Config, client: &Client, stop: &watch::Receiver<bool>) -> Vec<Place> {
    let Some(section) = &config.lmtp else {
        return Vec::new();
    };
    let relays = section.xclient_from.iter().map(std::net::IpAddr::to_canonical);
    let service = Service::Lmtp(lmtp::Context {
        store: client.with_deadline(LMTP_DEADLINE),
        host: config.host.clone(),
        room: lmtp::Room::new(limits::BODY_BYTES_IN_FLIGHT_MAX),
        stop: stop.clone(),
        timeouts: lmtp::Timeouts::default(),
        session: 0,
        peer: std::net::Ipv4Addr::UNSPECIFIED.into(),
        xclient_from: relays.collect(),
    });
    let listen = section.listen.iter();
    listen
        .map(|address| (*address, service.clone(), section.sessions_max))
        .collect()
}

fn postfix_services(
    config: &Config,
    client: &Client,
    gate: &Arc<imap::Gate>,
    stop: &watch::Receiver<bool>,
) -> Vec<Place> {
    let Some(section) = &config.postfix else {
        return Vec::new();
    };
    let context = postfix::Context {
        store: client.clone(),
        gate: Arc::clone(gate),
        stop: stop.clone(),
    };
    let maps = section
        .maps
        .iter()
        .map(|address| (*address, Service::PostfixMaps(context.clone())));
    let sasl = section
        .sasl
        .iter()
        .map(|address| (*address, Service::PostfixSasl(context.clone())));
    maps.chain(sasl)
        .map(|(address, service)| (address, service, section.sessions_max))
        .collect()
}

/// Turns signals into the stop and into reloads, for as long as the process lives.
fn watch_signals(stop: Arc<watch::Sender<bool>>, tls: Option<Arc<PublicTls>>) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hangup.recv() => reload(tls.as_deref()),
            }
        }
        tracing::info!("stopping");
        stop.send_replace(true);
    });
    Ok(())
}

fn reload(tls: Option<&PublicTls>) {
    match tls.map(PublicTls::reload) {
        Some(Ok(())) => tracing::info!("the public certificate was read again"),
        Some(Err(error)) => tracing::error!(error = format!("{error:#}"), "the old public certificate stays in use"),
        None => tracing::info!("nothing to read again: no public certificate"),
    }
}

/// Waits for the end of standard input on a thread of its own: the runtime could not give up a blocked read when it stops.
fn watch_stdin(stop: Arc<watch::Sender<bool>>) {
    std::thread::spawn(move || {
        // What is written to us means nothing, and an error is an end as well.
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        stop.send_replace(true);
    });
}
