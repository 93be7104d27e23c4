//! What is measured: a cluster of the shipped binaries, or another mail store beside it. Real processes, all on this machine, on one disk.
//!
//! A [`Side`] says what to start, a [`World`] is what runs. Sides of one comparison run at the same time, so that their samples can
//! alternate within seconds; the one that is not measured idles. A world's directory goes with it.

mod binaries;
mod cluster;
mod counters;
mod dovecot;
mod files;
mod process;

use std::path::Path;

use anyhow::bail;

pub use binaries::Binaries;
pub use cluster::{Account, Cluster, Shape, deliver};
pub use dovecot::{Dovecot, Installed};

use crate::load::Watched;

/// Password of the accounts that can log in: the first of each shard. Hashing more of them costs what nobody measures here.
pub const PASSWORD: &str = "correct-horse-7";

/// One of those that are compared.
#[derive(Debug, Clone)]
pub struct Side {
    /// What the table calls it.
    pub name: String,
    /// What it is.
    pub what: What,
}

/// What a side is.
#[derive(Debug, Clone)]
pub enum What {
    /// Malle, of these binaries.
    Malle(Binaries),
    /// Dovecot, as the system has it.
    Dovecot(Installed),
}

/// A side that runs.
pub enum World {
    /// Three nodes and a gateway.
    Malle(Box<Cluster>),
    /// One server.
    Dovecot(Box<Dovecot>),
}

impl Side {
    /// Whether it is another mail store, which knows LMTP and IMAP only.
    pub fn is_peer(&self) -> bool {
        matches!(self.what, What::Dovecot(_))
    }

    /// Starts it, in a new directory inside `directory`.
    ///
    /// # Errors
    /// With the log's end, when a process does not come up.
    pub async fn start(&self, shape: Shape, directory: &Path) -> anyhow::Result<World> {
        Ok(match &self.what {
            What::Malle(binaries) => World::Malle(Box::new(Cluster::start(binaries, shape, directory).await?)),
            What::Dovecot(installed) => World::Dovecot(Box::new(Dovecot::start(installed, shape, directory).await?)),
        })
    }
}

impl World {
    /// The cluster.
    ///
    /// # Errors
    /// When it is a peer: the measurement said that it does without the client crate.
    pub fn cluster(&mut self) -> anyhow::Result<&mut Cluster> {
        match self {
            World::Malle(cluster) => Ok(cluster),
            World::Dovecot(_) => bail!("this is measured through the client crate"),
        }
    }

    /// `HOST:PORT` of LMTP.
    pub fn lmtp(&self) -> &str {
        match self {
            World::Malle(cluster) => &cluster.lmtp,
            World::Dovecot(dovecot) => &dovecot.lmtp,
        }
    }

    /// `HOST:PORT` of IMAP, plaintext.
    pub fn imap(&self) -> &str {
        match self {
            World::Malle(cluster) => &cluster.imap,
            World::Dovecot(dovecot) => &dovecot.imap,
        }
    }

    /// Addresses of all accounts, the same in every world of one shape.
    pub fn addresses(&self) -> Vec<String> {
        match self {
            World::Malle(cluster) => cluster.accounts.iter().map(|account| account.address.clone()).collect(),
            World::Dovecot(dovecot) => dovecot.addresses.clone(),
        }
    }

    /// Addresses of the accounts that can log in: the first of each shard.
    pub fn users(&self) -> Vec<String> {
        let first = |address: &String| address.starts_with("u1-");
        self.addresses().into_iter().filter(first).collect()
    }

    /// Its processes, by what they are.
    ///
    /// # Errors
    /// When the kernel does not tell them.
    pub fn watched(&self) -> anyhow::Result<Watched> {
        match self {
            World::Malle(cluster) => Ok(cluster.watched()),
            World::Dovecot(dovecot) => dovecot.watched(),
        }
    }

    /// Its processes but the gateway, when what is measured goes past it.
    ///
    /// # Errors
    /// As [`World::watched`].
    pub fn watched_by(&self, client_crate: bool) -> anyhow::Result<Watched> {
        let mut watched = self.watched()?;
        if client_crate {
            watched.remove("gateway");
        }
        Ok(watched)
    }

    /// Every process id.
    ///
    /// # Errors
    /// As [`World::watched`].
    pub fn pids(&self) -> anyhow::Result<Vec<u32>> {
        Ok(self.watched()?.into_values().flatten().collect())
    }

    /// Stops it and removes its directory.
    ///
    /// # Errors
    /// When a process did not end.
    pub async fn stop(self) -> anyhow::Result<()> {
        match self {
            World::Malle(cluster) => cluster.stop().await,
            World::Dovecot(dovecot) => dovecot.stop().await,
        }
    }
}
