//! `malled`: one node of a malle cluster.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use malle_node::config::Config;
use malle_node::security::tls::install_provider;
use malle_node::server::Node;
use malle_node::telemetry;
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{SignalKind, signal};

/// Mail is many small pieces of memory, made on one thread and freed on another: glibc spent a sixth of a delivery on them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// One node of a malle cluster: holds replicas of shards and serves them to front ends, operators and other nodes.
#[derive(Debug, Parser)]
#[command(name = "malled", version)]
struct Arguments {
    /// The node's configuration (see deploy/malled.example.toml).
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Read the configuration, say whether it would do, and exit.
    #[arg(long)]
    check: bool,
    /// Stop when standard input ends: whoever started this node lives no longer.
    #[arg(long)]
    stop_when_stdin_closes: bool,
}

/// How a node exits whose disk lost a write (EX_IOERR of sysexits.h): starting it again is for whoever has looked at the disk.
const DISK_FAILED: u8 = 74;

/// Why a node ends.
enum End {
    Asked(&'static str),
    Condemned(String),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    install_provider();
    match run(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("malled: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let config = Config::load(&arguments.config)?;
    if arguments.check {
        println!(
            "{}: node {} of {}, ok",
            arguments.config.display(),
            config.node,
            config.cluster
        );
        return Ok(ExitCode::SUCCESS);
    }
    telemetry::init(&config.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("malled")
        .build()?;
    let code = runtime.block_on(serve(&config, arguments.stop_when_stdin_closes));
    // A read of standard input cannot be called off: everything that matters is stopped and synced by now.
    runtime.shutdown_background();
    code
}

async fn serve(config: &Config, stop_when_stdin_closes: bool) -> anyhow::Result<ExitCode> {
    let node = Node::start(config).await?;
    match wait(&node, stop_when_stdin_closes).await? {
        End::Asked(by) => {
            tracing::info!(by, "stopping");
            node.stop().await;
            Ok(ExitCode::SUCCESS)
        }
        End::Condemned(reason) => {
            node.abandon().await;
            tracing::error!(
                reason,
                exit = DISK_FAILED,
                "this node has left until its disk is looked at"
            );
            Ok(ExitCode::from(DISK_FAILED))
        }
    }
}

async fn wait(node: &Node, stop_when_stdin_closes: bool) -> anyhow::Result<End> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut condemned = node.condemned();
    let stdin_closed = async {
        if !stop_when_stdin_closes {
            std::future::pending::<()>().await;
        }
        let mut stdin = tokio::io::stdin();
        let mut ignored = [0; 64];
        while stdin.read(&mut ignored).await.is_ok_and(|count| count > 0) {}
    };
    tokio::pin!(stdin_closed);
    loop {
        if let Some(reason) = condemned.borrow_and_update().clone() {
            return Ok(End::Condemned(reason));
        }
        tokio::select! {
            _ = terminate.recv() => return Ok(End::Asked("SIGTERM")),
            _ = interrupt.recv() => return Ok(End::Asked("SIGINT")),
            () = &mut stdin_closed => return Ok(End::Asked("the end of standard input")),
            _ = hang_up.recv() => node.reload(),
            changed = condemned.changed() => changed?,
        }
    }
}
