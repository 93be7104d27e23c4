//! `malle`: what an operator asks of a cluster, one file per noun.
//!
//! Standard output carries data and nothing else, as a table or, with `--output json`, as one JSON object with `"v": 1`; what is said
//! to a person goes to standard error. The exit code tells what happened: see [`exit`]. This program knows the cluster only through the
//! client crate, with an operator's certificate, which reads nobody's mail. What is absent: prompts, so that every verb can stand in a
//! script, and any change of a cluster that is not a call that the nodes check themselves.

mod account;
mod address;
mod app_password;
mod cert;
mod cluster;
mod context;
mod demo;
mod exit;
mod layout;
mod node;
mod output;
mod password;
mod session;
mod shard;
mod standing;
mod status;
mod task;

use clap::{Parser, Subcommand};

use crate::context::Global;
use crate::exit::Exit;

/// Operates a malle cluster.
#[derive(Debug, Parser)]
#[command(name = "malle", version, max_term_width = 120, after_help = exit::HELP)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    noun: Noun,
}

#[derive(Debug, Subcommand)]
enum Noun {
    /// The cluster as a whole: make it, look at it.
    #[command(subcommand)]
    Cluster(cluster::Verb),
    /// The machines.
    #[command(subcommand)]
    Node(node::Verb),
    /// What the cluster is meant to be: weights of nodes, and what shards survive.
    #[command(subcommand)]
    Layout(layout::Verb),
    /// Moves of replicas.
    #[command(subcommand)]
    Task(task::Verb),
    /// The raft groups that hold accounts.
    #[command(subcommand)]
    Shard(shard::Verb),
    /// Accounts.
    #[command(subcommand)]
    Account(account::Verb),
    /// Addresses of accounts.
    #[command(subcommand)]
    Address(address::Verb),
    /// Passwords for single programs, beside an account's own.
    #[command(subcommand)]
    AppPassword(app_password::Verb),
    /// Sessions of mail programs.
    #[command(subcommand)]
    Session(session::Verb),
    /// Certificates: an authority, and identities signed by it. Works on files, asks no cluster.
    #[command(subcommand)]
    Cert(cert::Verb),
    /// A whole cluster on this machine, to look around and to check.
    Demo(demo::Arguments),
}

#[tokio::main]
async fn main() -> std::process::ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .init();
    if cli.global.no_color {
        anstream::ColorChoice::Never.write_global();
    }
    let done = match cli.noun {
        Noun::Cluster(verb) => cluster::run(&cli.global, verb).await,
        Noun::Node(verb) => node::run(&cli.global, verb).await,
        Noun::Layout(verb) => layout::run(&cli.global, verb).await,
        Noun::Task(verb) => task::run(&cli.global, verb).await,
        Noun::Shard(verb) => shard::run(&cli.global, verb).await,
        Noun::Account(verb) => account::run(&cli.global, verb).await,
        Noun::Address(verb) => address::run(&cli.global, verb).await,
        Noun::AppPassword(verb) => app_password::run(&cli.global, verb).await,
        Noun::Session(verb) => session::run(&cli.global, verb).await,
        Noun::Cert(verb) => cert::run(&cli.global, verb),
        // The demo speaks for itself, and ends with codes of its own.
        Noun::Demo(args) => match demo::run(args).await {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
    };
    let exit = done.unwrap_or_else(|error| {
        anstream::eprintln!("\x1b[31merror\x1b[0m: {error:#}");
        exit::advise(&error);
        Exit::of(&error)
    });
    exit.into()
}

#[cfg(test)]
mod tests;
