//! `malle`: what operators and newcomers type.
//!
//! One file per noun. Data goes to standard output, as a table or as JSON; talk goes to standard error. The exit code says how it
//! ended (`exit.rs`), so that a script need not read either.

mod account;
mod address;
mod cert;
mod cluster;
mod context;
mod demo;
mod exit;
mod node;
mod output;
mod shard;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use context::Connection;
use output::Format;

/// Operates a malle cluster.
#[derive(Debug, Parser)]
#[command(name = "malle", version, max_term_width = 120)]
struct Arguments {
    #[command(flatten)]
    connection: Connection,
    /// How data is printed.
    #[arg(long, value_enum, default_value = "table", global = true)]
    output: Format,
    #[command(subcommand)]
    noun: Noun,
}

#[derive(Debug, Subcommand)]
enum Noun {
    /// The cluster as a whole.
    #[command(subcommand)]
    Cluster(cluster::Verb),
    /// Machines.
    #[command(subcommand)]
    Node(node::Verb),
    /// Raft groups and their replicas.
    #[command(subcommand)]
    Shard(shard::Verb),
    /// People's and functions' stores.
    #[command(subcommand)]
    Account(account::Verb),
    /// What leads to an account.
    #[command(subcommand)]
    Address(address::Verb),
    /// Certificates for development and tests; a ministry has its own authority.
    #[command(subcommand)]
    Cert(cert::Verb),
    /// A whole cluster of three regions on this machine.
    Demo(demo::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Only a second provider could be there before, and there is none.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("malle: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(arguments)) {
        Ok(code) => code,
        Err(error) => exit::explain(&error),
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let Arguments {
        connection,
        output,
        noun,
    } = arguments;
    match noun {
        Noun::Cert(verb) => cert::run(verb),
        Noun::Demo(arguments) => demo::run(arguments).await,
        Noun::Cluster(verb) => cluster::run(verb, &connection.connect().await?, output).await,
        Noun::Node(verb) => node::run(verb, &connection.connect().await?, output).await,
        Noun::Shard(verb) => shard::run(verb, &connection.connect().await?, output).await,
        Noun::Account(verb) => account::run(verb, &connection.connect().await?, output).await,
        Noun::Address(verb) => address::run(verb, &connection.connect().await?, output).await,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_grammar_holds_together() {
        super::Arguments::command().debug_assert();
    }
}
