//! Places for clusters on this machine. A cluster is four processes with their disks: as many as have a place run at the same time, so that a small machine
//! stays within the tests' deadlines. Files are locked, so a test that dies gives its place back.

use std::fs::{File, TryLockError};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;

use crate::wait::until;

/// One cluster waits much of its time, for elections and timeouts; two use two processors.
const PLACES: usize = 2;
/// Longer than any test may take: whoever waits in vain is ended by the runner.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    _locked: File,
}

impl Place {
    /// Waits for a place.
    ///
    /// # Errors
    /// When a file cannot be locked.
    pub async fn take() -> anyhow::Result<Place> {
        until("a place for a cluster", PATIENCE, || async {
            for place in 0..PLACES {
                let (file, path) = open(&place.to_string())?;
                match file.try_lock() {
                    Ok(()) => return Ok(Some(Place { _locked: file })),
                    Err(TryLockError::WouldBlock) => {}
                    Err(TryLockError::Error(error)) => return Err(error).with_context(|| path.display().to_string()),
                }
            }
            Ok(None)
        })
        .await
    }
}

/// Waits until no other cluster is starting: between the choice of a port and its opening somebody else could choose it.
///
/// # Errors
/// When the file cannot be locked.
pub async fn start_alone() -> anyhow::Result<File> {
    wait_for("start").await
}

/// Waits until nobody else uses the network of namespaces, whose addresses are always the same.
///
/// # Errors
/// When the file cannot be locked.
pub async fn network_alone() -> anyhow::Result<File> {
    wait_for("network").await
}

async fn wait_for(name: &str) -> anyhow::Result<File> {
    let (file, path) = open(name)?;
    let waited = tokio::task::spawn_blocking(move || file.lock().map(|()| file)).await?;
    waited.with_context(|| format!("locking {}", path.display()))
}

fn open(name: &str) -> anyhow::Result<(File, PathBuf)> {
    let path = std::env::temp_dir().join(format!("malle-cluster-{name}.lock"));
    let file = File::create(&path).with_context(|| path.display().to_string())?;
    Ok((file, path))
}
