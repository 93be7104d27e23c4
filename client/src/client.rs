//! A connection to a cluster: its configuration, and the calls that need no logged-in account.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use malle_proto::v1::directory_client::DirectoryClient;
use malle_proto::v1::{LoginPurpose, LoginReply, LoginRequest, ResolveRequest, resolve_request};
use malle_proto::{AccountId, ShardId, limits};
use malle_rt::Instant;

use crate::addresses::Addresses;
use crate::cluster::Cluster;
use crate::core::Core;
use crate::directory::Directory;
use crate::error::{Error, Failure};
use crate::mail::Account;
use crate::nodes::{Nodes, Target};
use crate::reach::Reach;
use crate::retry::Retry;
use crate::route::Routes;
use crate::secure::Secure;
use crate::tls::Tls;
use crate::types::{Recipient, Resolved, Stored};
use crate::{convert, deliver};

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
    pub(crate) core: Arc<Core>,
    deadline: Duration,
    /// `None` over a network that is not ours.
    secure: Option<Arc<Secure>>,
}

impl Client {
    /// Reaches one of the endpoints and learns the other nodes from it.
    ///
    /// A cluster that was not initialised yet is connected too: [`Cluster::init`] is then what it can do.
    ///
    /// # Errors
    /// [`Error::Config`] when the certificates do not work, [`Error::Unavailable`] when no endpoint answered before the deadline.
    pub async fn connect(config: Config) -> Result<Client, Error> {
        let secure = Arc::new(Secure::new(Tls::new(&config.tls)?));
        Client::over(&config.endpoints, config.deadline, secure.clone(), Some(secure)).await
    }

    /// As [`Client::connect`], over a network that says itself who answers: a simulated one.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub async fn connect_over(
        endpoints: &[String],
        deadline: Duration,
        reach: Arc<dyn Reach>,
    ) -> Result<Client, Error> {
        Client::over(endpoints, deadline, reach, None).await
    }

    async fn over(
        endpoints: &[String],
        deadline: Duration,
        reach: Arc<dyn Reach>,
        secure: Option<Arc<Secure>>,
    ) -> Result<Client, Error> {
        if endpoints.is_empty() {
            return Err(Error::Config(
                "no endpoint is given: name at least one node as HOST:PORT".to_owned(),
            ));
        }
        let core = Core {
            nodes: Nodes::new(reach),
            routes: Routes::new(endpoints.to_vec()),
            addresses: Addresses::new(),
        };
        let client = Client {
            core: Arc::new(core),
            deadline,
            secure,
        };
        client.reach(endpoints).await?;
        client.core.refresh(client.until()).await;
        Ok(client)
    }

    /// Goes round the endpoints until one shakes hands. When all that answered showed a certificate that is not of our cluster, waiting
    /// would change nothing.
    async fn reach(&self, endpoints: &[String]) -> Result<(), Error> {
        let mut retry = Retry::until(self.until());
        loop {
            let mut last = None;
            let mut untrusted = 0;
            for endpoint in endpoints {
                match self
                    .core
                    .nodes
                    .get(&Target {
                        address: endpoint.clone(),
                        node: None,
                    })
                    .await
                {
                    Ok(_) => return Ok(()),
                    Err(error) => {
                        untrusted += usize::from(error.untrusted);
                        last = Some(error.text);
                    }
                }
            }
            let text = last.unwrap_or_default();
            if untrusted == endpoints.len() {
                return Err(Error::Config(format!(
                    "{text}; is this the cluster that our certificates are for?"
                )));
            }
            retry.after(Failure::Broken(text), false).await?;
        }
    }

    /// The same cluster; every call of the returned client, and of the accounts and handles made from it, gives up after `deadline`.
    pub fn with_deadline(&self, deadline: Duration) -> Client {
        Client {
            core: self.core.clone(),
            deadline,
            secure: self.secure.clone(),
        }
    }

    /// When a call that begins now gives up.
    pub(crate) fn until(&self) -> Instant {
        malle_rt::now() + self.deadline
    }

    /// Takes other certificates, for connections made from now on; calls on the present ones end undisturbed.
    ///
    /// # Errors
    /// [`Error::Config`]; the old ones stay in use.
    pub fn replace_tls(&self, tls: &ClientTls) -> Result<(), Error> {
        let Some(secure) = &self.secure else {
            return Err(Error::Config("this network has no certificates".to_owned()));
        };
        secure.replace_tls(Tls::new(tls)?);
        self.core.nodes.forget_all();
        Ok(())
    }

    /// Where an address, or a login name, leads; an account in use as the directory had it at most [`limits::ADDRESS_REMEMBERED_MS`] ago.
    /// `None` only after a linearizable read of the directory: there is no such recipient (5.1.1 in LMTP).
    ///
    /// # Errors
    /// [`Error::Unavailable`] and others of class Retry: nothing is known about the address.
    pub async fn resolve(&self, address: &str) -> Result<Option<Resolved>, Error> {
        if let Some(resolved) = self.core.addresses.get(address) {
            return Ok(Some(resolved));
        }
        let begun = malle_rt::now();
        let who = resolve_request::Who::Address(address.to_owned());
        let message = ResolveRequest {
            who: Some(who),
            linearizable: true,
        };
        let asked = self.core.ask(
            ShardId::DIRECTORY,
            self.until(),
            message,
            |channel, request| async move { DirectoryClient::new(channel).resolve(request).await },
        );
        match asked.await {
            Ok(reply) => {
                let resolved = convert::resolved(reply)?;
                self.core.routes.set_home(resolved.account, resolved.shard);
                self.core.addresses.learn(begun, address, &resolved);
                Ok(Some(resolved))
            }
            Err(Error::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// An account by its id, as the directory has it now. `None`: there is none.
    ///
    /// # Errors
    /// As [`Client::resolve`].
    pub async fn resolve_account(&self, account: AccountId) -> Result<Option<Resolved>, Error> {
        let message = ResolveRequest {
            who: Some(resolve_request::Who::Account(Bytes::copy_from_slice(
                account.as_bytes(),
            ))),
            linearizable: false,
        };
        let asked = self.core.ask(
            ShardId::DIRECTORY,
            self.until(),
            message,
            |channel, request| async move { DirectoryClient::new(channel).resolve(request).await },
        );
        match asked.await {
            Ok(reply) => convert::resolved(reply).map(Some),
            Err(Error::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Checks a password at the directory and opens the account.
    ///
    /// # Errors
    /// [`Error::BadCredentials`] without saying which of the two was wrong; [`Error::Suspended`]; [`Error::Busy`] when too many
    /// passwords are being checked.
    pub async fn login(&self, login: &str, password: &str) -> Result<Account, Error> {
        let message = LoginRequest {
            login: login.to_owned(),
            password: password.to_owned(),
            ..LoginRequest::default()
        };
        Account::open_session(self.clone(), self.ask_login(message).await?)
    }

    /// Opens an account with an access token (JWT) of the identity provider that the nodes believe. With a `login` the token must be for
    /// that account.
    ///
    /// # Errors
    /// [`Error::BadCredentials`] for every token that is not taken; [`Error::Suspended`].
    pub async fn login_with_token(&self, login: &str, token: &str) -> Result<Account, Error> {
        let message = LoginRequest {
            login: login.to_owned(),
            bearer_token: token.to_owned(),
            ..LoginRequest::default()
        };
        Account::open_session(self.clone(), self.ask_login(message).await?)
    }

    /// Checks that somebody may send mail as this account, and gives its primary address. Nothing is opened.
    ///
    /// # Errors
    /// As [`Client::login`].
    pub async fn may_submit(&self, login: &str, password: &str) -> Result<String, Error> {
        let message = LoginRequest {
            login: login.to_owned(),
            password: password.to_owned(),
            purpose: LoginPurpose::Submission.into(),
            ..LoginRequest::default()
        };
        Ok(self.ask_login(message).await?.primary_address)
    }

    async fn ask_login(&self, message: LoginRequest) -> Result<LoginReply, Error> {
        self.core
            .ask(
                ShardId::DIRECTORY,
                self.until(),
                message,
                |channel, request| async move { DirectoryClient::new(channel).login(request).await },
            )
            .await
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
    pub async fn deliver(&self, recipients: &[Recipient], body: Bytes) -> Vec<Result<Stored, Error>> {
        deliver::deliver(&self.core, self.until(), recipients, body).await
    }
}
