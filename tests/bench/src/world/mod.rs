//! What is measured: a cluster of the shipped binaries, or another mail store beside it. Real processes, all on this machine, on one disk.
//!
//! A [`Side`] says what to start, a [`World`] is what runs. Sides of one comparison run at the same time, so that their samples can
//! alternate within seconds; the one that is not measured idles. A world's directory goes with it.

mod binaries;
mod cluster;
mod process;

use std::path::Path;

pub use binaries::Binaries;
pub use cluster::{Account, Cluster, PASSWORD, Shape, deliver};

use crate::load::Watched;

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
}

/// A side that runs.
pub enum World {
    /// Three nodes and a gateway.
    Malle(Box<Cluster>),
}

impl Side {
    /// Starts it, in a new directory inside `directory`.
    ///
    /// # Errors
    /// With the log's end, when a process does not come up.
    pub async fn start(&self, shape: Shape, directory: &Path) -> anyhow::Result<World> {
        match &self.what {
            What::Malle(binaries) => Ok(World::Malle(Box::new(
                Cluster::start(binaries, shape, directory).await?,
            ))),
        }
    }
}

impl World {
    /// Its processes, by what they are.
    pub fn watched(&self) -> Watched {
        match self {
            World::Malle(cluster) => cluster.watched(),
        }
    }

    /// Every process id.
    pub fn pids(&self) -> Vec<u32> {
        self.watched().into_values().flatten().collect()
    }

    /// Stops it and removes its directory.
    ///
    /// # Errors
    /// When a process did not end.
    pub async fn stop(self) -> anyhow::Result<()> {
        match self {
            World::Malle(cluster) => cluster.stop().await,
        }
    }
}
