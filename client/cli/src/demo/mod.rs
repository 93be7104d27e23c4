//! `malle demo`: a cluster of three regions and a gateway on this machine, and `--check`, which attacks it.
//!
//! The demo uses what an operator uses: the binaries, their configuration files, certificates, and the client crate. It holds no way
//! of its own into a node. Everything it makes lies in one directory (`layout`), everything it starts ends with it (`processes`).

mod certificates;
mod check;
mod cluster;
mod control;
mod corpus;
mod imap_reader;
mod layout;
mod ledger;
mod lmtp_writer;
mod processes;
mod stream;
mod wait;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Subcommand;
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::cluster::{Cluster, Wishes, address};
use self::control::Request;
use self::layout::Layout;

/// How often the demo looks whether a child died.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// Flags of `malle demo`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Arguments {
    /// Where everything lies; kept from run to run [default: .malle-demo, with --check a new temporary directory]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Make u1@example.org to uN@example.org [default: 10]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    accounts: Option<u32>,
    /// Password of every account [default: a new one, which is printed]
    #[arg(long, value_name = "P")]
    password: Option<String>,
    /// Where the gateway listens for LMTP; whoever reaches it can deliver to anybody [default: a free loopback port]
    #[arg(long, value_name = "HOST:PORT")]
    lmtp: Option<SocketAddr>,
    /// Where the gateway listens for IMAP [default: a free loopback port]
    #[arg(long, value_name = "HOST:PORT")]
    imap: Option<SocketAddr>,
    /// Where the gateway listens for IMAP inside TLS [default: a free loopback port]
    #[arg(long, value_name = "HOST:PORT")]
    imaps: Option<SocketAddr>,
    /// Forget what is in the directory
    #[arg(long)]
    fresh: bool,
    /// Deliver, kill a leader, compare, report, stop: exit code 0 only if nothing was lost, doubled or changed
    #[arg(long)]
    check: bool,
    #[command(subcommand)]
    command: Option<Noun>,
}

#[derive(Debug, Subcommand)]
enum Noun {
    /// A node of the demo that runs
    #[command(subcommand)]
    Node(Verb),
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Start a node that is dead
    Start(Which),
    /// Kill a node with SIGKILL
    Kill(Which),
    /// Kill a node, throw its disk away, and bring a new node in its place
    WipeReplace(Which),
}

#[derive(Debug, clap::Args)]
struct Which {
    /// The node's id
    id: u64,
    /// The directory of the demo
    #[arg(long, value_name = "DIR", default_value = DEFAULT_DIR)]
    dir: PathBuf,
}

const DEFAULT_DIR: &str = ".malle-demo";

/// Runs the command.
///
/// # Errors
/// What kept the cluster from starting, or from answering.
pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    if let Some(Noun::Node(verb)) = arguments.command {
        let (which, request): (Which, fn(u64) -> Request) = match verb {
            Verb::Start(which) => (which, Request::Start),
            Verb::Kill(which) => (which, Request::Kill),
            Verb::WipeReplace(which) => (which, Request::WipeReplace),
        };
        println!("{}", control::ask(&which.dir, request(which.id)).await?);
        return Ok(ExitCode::SUCCESS);
    }
    let mut stop = Stop::new()?;
    let temporary = arguments.check && arguments.dir.is_none();
    let dir = match (&arguments.dir, temporary) {
        (Some(dir), _) => dir.clone(),
        (None, true) => std::env::temp_dir().join(format!("malle-check-{}", std::process::id())),
        (None, false) => PathBuf::from(DEFAULT_DIR),
    };
    let layout = Layout::open(&dir, arguments.fresh || temporary)?;
    let wishes = Wishes {
        accounts: arguments.accounts,
        password: arguments.password,
        lmtp: arguments.lmtp,
        imap: arguments.imap,
        imaps: arguments.imaps,
    };
    println!("starting three nodes and a gateway in {}", layout.root().display());
    let mut cluster = tokio::select! {
        started = Cluster::start(layout, &wishes) => started?,
        () = stop.asked() => return Ok(ExitCode::FAILURE),
    };
    if !arguments.check {
        return serve(cluster, stop).await;
    }
    let report = tokio::select! {
        report = check::run(&mut cluster) => report,
        () = stop.asked() => Err(anyhow::anyhow!("interrupted")),
    };
    cluster.stop().await?;
    let passed = report.as_ref().is_ok_and(check::Report::passed);
    if temporary && passed {
        std::fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    } else {
        println!("data and logs are kept in {}", dir.display());
    }
    print!("{}", report?.table());
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Until Ctrl-C or SIGTERM: answers `malle demo node ...` and tells of processes that died.
async fn serve(mut cluster: Cluster, mut stop: Stop) -> anyhow::Result<ExitCode> {
    let control = control::listen(&cluster.layout().path("control.sock"))?;
    print!("{}", what_to_type(&cluster));
    let mut told = Vec::new();
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        tokio::select! {
            () = stop.asked() => break,
            accepted = control.accept() => {
                let (stream, _) = accepted?;
                tokio::select! {
                    answered = control::answer(stream, &mut cluster) => {
                        if let Err(error) = answered {
                            eprintln!("a request was not answered: {error:#}");
                        }
                    }
                    () = stop.asked() => break,
                }
            }
            _ = look.tick() => {
                for dead in cluster.newly_dead(&mut told)? {
                    eprintln!("{dead}");
                }
            }
        }
    }
    println!("stopping");
    cluster.stop().await?;
    Ok(ExitCode::SUCCESS)
}

fn what_to_type(cluster: &Cluster) -> String {
    let memory = cluster.memory();
    let (user, password) = (address(1), &memory.password);
    let dir = cluster.layout().root().display();
    let shown = shown(cluster.layout().root());
    format!(
        "\nready: {n} accounts, u1@example.org to {last}, password {password}\n\
         LMTP {lmtp}   IMAP {imap} (plaintext and STARTTLS)   IMAPS {imaps}\n\n\
         deliver:  swaks --protocol LMTP --server {lmtp_host} --port {lmtp_port} --from a@example.net --to {user}\n\
         read:     curl --user '{user}:{password}' 'imap://{imap}/INBOX;UID=*'\n\
         read:     curl --cacert {dir}/gateway/public.pem --user '{user}:{password}' 'imaps://{imaps}/INBOX;UID=*'\n\
         read:     mutt -e 'set ssl_starttls=no' -f 'imap://u1%40example.org:{password}@{imap}/INBOX'\n\
         look:     malle --context {dir}/context.toml cluster status\n\
         break:    malle demo node kill 2{shown}\n\
         mend:     malle demo node start 2{shown}\n\n\
         Ctrl-C stops everything; the data stays in {dir}\n",
        n = memory.accounts,
        last = address(memory.accounts),
        lmtp = memory.lmtp,
        lmtp_host = memory.lmtp.ip(),
        lmtp_port = memory.lmtp.port(),
        imap = memory.imap,
        imaps = memory.imaps,
    )
}

/// ` --dir DIR` where the default would not find it.
fn shown(root: &Path) -> String {
    match PathBuf::from(DEFAULT_DIR).canonicalize() {
        Ok(default) if default == root => String::new(),
        _ => format!(" --dir {}", root.display()),
    }
}

/// Ctrl-C and SIGTERM.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    fn new() -> anyhow::Result<Stop> {
        Ok(Stop {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
