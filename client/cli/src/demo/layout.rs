//! What lies where in the demo's directory, and what it remembers from one run to the next.
//!
//! ```text
//! demo.toml        what is remembered: ports, nodes, password (0600)
//! demo.json        for programs: who runs now, and where
//! context.toml     for `malle --context`
//! lock             held while a demo runs here
//! control.sock     where `malle demo node ...` asks the running demo
//! ca/ certs/       the authority and the certificates it signed
//! nodes/ID/        malled.toml and data/
//! gateway/         gateway.toml, and the certificate that mail clients see
//! logs/            one file per process, appended
//! ```
//!
//! `--fresh` removes exactly these and nothing else that may lie in the directory.

use std::fs::{self, File};
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use rand::RngExt as _;
use serde::{Deserialize, Serialize};

/// Trust domain of the demo's certificates.
pub const CLUSTER: &str = "malle.demo";
/// Domain of the demo's accounts.
pub const DOMAIN: &str = "example.org";
/// Where the three first nodes stand.
pub const REGIONS: [&str; 3] = ["nord", "centre", "sud"];
/// Registered ports below the kernel's own range (`ip_local_port_range`, from 32768).
const PORTS: Range<u16> = 15_000..32_000;
/// Draws until enough are free.
const PORT_TRIES: usize = 1_000;

/// A directory that this process holds.
#[derive(Debug)]
pub struct Layout {
    root: PathBuf,
    _lock: File,
}

impl Layout {
    /// Makes the directory where needed and locks it.
    pub fn open(root: &Path, fresh: bool) -> anyhow::Result<Layout> {
        let mut maker = fs::DirBuilder::new();
        maker.recursive(true).mode(0o700);
        maker
            .create(root)
            .with_context(|| format!("cannot make {}", root.display()))?;
        let root = root.canonicalize()?;
        let lock = File::options().create(true).append(true).open(root.join("lock"))?;
        if lock.try_lock().is_err() {
            bail!(
                "a demo runs in {} already; stop it, or choose another directory with --dir",
                root.display()
            );
        }
        let layout = Layout { root, _lock: lock };
        if fresh {
            layout.clear()?;
        }
        for part in ["nodes", "certs", "ca", "gateway", "logs"] {
            maker.create(layout.path(part))?;
        }
        Ok(layout)
    }

    fn clear(&self) -> anyhow::Result<()> {
        let gone = |done: std::io::Result<()>| match done {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        for part in ["nodes", "certs", "ca", "gateway", "logs"] {
            gone(fs::remove_dir_all(self.path(part))).with_context(|| format!("cannot remove {part}"))?;
        }
        for file in ["demo.toml", "demo.json", "context.toml"] {
            gone(fs::remove_file(self.path(file))).with_context(|| format!("cannot remove {file}"))?;
        }
        Ok(())
    }

    /// A path inside.
    pub fn path(&self, inside: impl AsRef<Path>) -> PathBuf {
        self.root.join(inside)
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What was remembered, if this is not the first run.
    pub fn remembered(&self) -> anyhow::Result<Option<Memory>> {
        let path = self.path("demo.toml");
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(
                toml::from_str(&text).with_context(|| format!("in {}", path.display()))?,
            )),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Remembers.
    pub fn remember(&self, memory: &Memory) -> anyhow::Result<()> {
        self.write("demo.toml", &toml::to_string(memory)?)
    }

    /// Writes a file in one step: a reader sees the old one or the new one. Only the owner may read it.
    pub fn write(&self, inside: impl AsRef<Path>, text: &str) -> anyhow::Result<()> {
        let path = self.path(inside);
        let beside = path.with_extension("new");
        let written = (|| {
            let mut file = File::options()
                .create(true)
                .write(true)
                .truncate(true)
                .mode(0o600)
                .open(&beside)?;
            file.write_all(text.as_bytes())?;
            fs::rename(&beside, &path)
        })();
        written.with_context(|| format!("cannot write {}", path.display()))
    }
}

/// What a directory remembers from one run to the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// Of every account.
    pub password: String,
    /// u1 to uN exist.
    pub accounts: u32,
    /// Of the gateway.
    pub lmtp: SocketAddr,
    /// Of the gateway.
    pub imap: SocketAddr,
    /// Of the gateway.
    pub imaps: SocketAddr,
    /// All that belong to the cluster now.
    pub node: Vec<NodePlace>,
}

/// One node's place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodePlace {
    /// Its id.
    pub id: u64,
    /// Its region.
    pub region: String,
    /// For clients.
    pub client: SocketAddr,
    /// For other nodes.
    pub peer: SocketAddr,
}

/// Ports of this machine that are free now, below those that the kernel gives to outgoing connections: a node that is down finds its port
/// free when it comes back. All are held until all are known, so no two are the same.
pub fn free_addresses(count: usize) -> anyhow::Result<Vec<SocketAddr>> {
    let mut random = rand::rng();
    let mut held = Vec::new();
    for _ in 0..PORT_TRIES {
        held.extend(TcpListener::bind(("127.0.0.1", random.random_range(PORTS))));
        if held.len() == count {
            return Ok(held.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?);
        }
    }
    bail!("no {count} free ports among {PORTS:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> Memory {
        let addresses = free_addresses(5).unwrap();
        Memory {
            password: "p".into(),
            accounts: 3,
            lmtp: addresses[0],
            imap: addresses[1],
            imaps: addresses[2],
            node: vec![NodePlace {
                id: 1,
                region: "nord".into(),
                client: addresses[3],
                peer: addresses[4],
            }],
        }
    }

    #[test]
    fn what_is_remembered_comes_back_until_fresh() {
        let dir = tempfile::tempdir().unwrap();
        let memory = memory();
        fs::write(dir.path().join("mine.txt"), "x").unwrap();
        let layout = Layout::open(dir.path(), false).unwrap();
        assert_eq!(layout.remembered().unwrap(), None);
        layout.remember(&memory).unwrap();
        drop(layout);
        let layout = Layout::open(dir.path(), false).unwrap();
        assert_eq!(layout.remembered().unwrap(), Some(memory));
        drop(layout);
        let layout = Layout::open(dir.path(), true).unwrap();
        assert_eq!(layout.remembered().unwrap(), None);
        assert!(dir.path().join("mine.txt").exists());
    }

    #[test]
    fn two_demos_never_share_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let _first = Layout::open(dir.path(), false).unwrap();
        assert!(
            Layout::open(dir.path(), true)
                .unwrap_err()
                .to_string()
                .contains("already")
        );
    }

    #[test]
    fn free_addresses_are_all_different() {
        let addresses = free_addresses(9).unwrap();
        assert_eq!(addresses.iter().collect::<std::collections::BTreeSet<_>>().len(), 9);
    }
}
