//! A connection to a cluster: its configuration, and the calls that need no logged-in account.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use malle_proto::limits;

use crate::cluster::Cluster;
use crate::directory::Directory;
use crate::error::Error;
use crate::mail::Account;
use crate::types::{Recipient, Resolved, Stored};

/// Who we are to the cluster, and whom we believe. All three are PEM text.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientTls {
    /// The cluster's root certificates; old and new ones side by side while they are changed.
    pub roots: Vec<u8>,
    /// Our certificate and what links it to the roots. Its identity is `spiffe://<cluster>/gateway/<name>` or `/operator/<name>`.
    pub cert: Vec<u8>,
    /// The private key of our certificate.
    pub key: Vec<u8>,
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls").finish_non_exhaustive()
    }
}

/// How to reach a cluster.
#[derive(Debug, Clone)]
pub struct Config {
    /// `HOST:PORT` of nodes to ask first; any of them will do, the rest is learned.
    pub endpoints: Vec<String>,
    /// Certificates.
    pub tls: ClientTls,
    /// A call gives up after this long, unless [`Client::with_deadline`] says otherwise.
    pub deadline: Duration,
}

impl Config {
    /// A configuration with the default deadline ([`limits::DEFAULT_DEADLINE_MS`]) from PEM files.
    ///
    /// # Errors
    /// [`Error::Config`] when there is no endpoint or a file cannot be read.
    pub fn from_files(
        endpoints: &[String],
        ca: impl AsRef<Path>,
        cert: impl AsRef<Path>,
        key: impl AsRef<Path>,
    ) -> Result<Config, Error> {
        fn read(path: &Path) -> Result<Vec<u8>, Error> {
            std::fs::read(path).map_err(|error| Error::Config(format!("cannot read {}: {error}", path.display())))
        }
        Ok(Config {
            endpoints: endpoints.to_vec(),
            tls: ClientTls {
                roots: read(ca.as_ref())?,
                cert: read(cert.as_ref())?,
                key: read(key.as_ref())?,
            },
            deadline: Duration::from_millis(limits::DEFAULT_DEADLINE_MS),
        })
    }
}

/// A cluster. Cheap to clone; clones share connections and what was learned about who leads where.
#[derive(Clone)]
pub struct Client {
    core: Arc<Config>,
    deadline: Duration,
}

impl Client {
    /// Reaches one of the endpoints and learns the other nodes from it.
    ///
    /// A cluster that was not initialised yet is connected too: [`Cluster::init`] is then what it can do.
    ///
    /// # Errors
    /// [`Error::Config`] when the certificates do not work, [`Error::Unavailable`] when no endpoint answered before the deadline.
    pub async fn connect(config: Config) -> Result<Client, Error> {
        let deadline = config.deadline;
        Ok(Client {
            core: Arc::new(config),
            deadline,
        })
    }

    /// The same cluster; every call of the returned client, and of the accounts and handles made from it, gives up after `deadline`.
    pub fn with_deadline(&self, deadline: Duration) -> Client {
        Client {
            core: self.core.clone(),
            deadline,
        }
    }

    /// Where an address, or a login name, leads. `None` only after a linearizable read of the directory: there is no such recipient
    /// (5.1.1 in LMTP).
    ///
    /// # Errors
    /// [`Error::Unavailable`] and others of class Retry: nothing is known about the address.
    pub async fn resolve(&self, _address: &str) -> Result<Option<Resolved>, Error> {
        Err(Error::Internal("not built yet".into()))
    }

    /// Checks a password at the directory and opens the account.
    ///
    /// # Errors
    /// [`Error::BadCredentials`] without saying which of the two was wrong; [`Error::Suspended`]; [`Error::Busy`] when too many
    /// passwords are being checked.
    pub async fn login(&self, _login: &str, _password: &str) -> Result<Account, Error> {
        Err(Error::Internal("not built yet".into()))
    }

    /// The directory: accounts, addresses, placement.
    pub fn directory(&self) -> Directory {
        Directory { client: self.clone() }
    }

    /// The machines.
    pub fn cluster(&self) -> Cluster {
        Cluster { client: self.clone() }
    }

    /// Delivers one message to several accounts: recipients are grouped by shard, each shard gets the body once, all shards work at
    /// the same time. The answers stand in the order of `recipients`; one refusal never undoes another's delivery.
    ///
    /// # Errors
    /// An answer each. Class Retry means: not known to be done; deliver again with the same op id.
    pub async fn deliver(&self, recipients: &[Recipient], _body: Bytes) -> Vec<Result<Stored, Error>> {
        recipients
            .iter()
            .map(|_| Err(Error::Internal("not built yet".into())))
            .collect()
    }
}
