//! The directory: who has which account and address, and where everything lives.

use bytes::Bytes;
use malle_proto::v1::directory_client::DirectoryClient;
use malle_proto::v1::{self, account_show_request};
use malle_proto::{AccountId, Channel, ClusterId, NodeId, OpId, ShardId, limits};

use crate::client::Client;
use crate::convert;
use crate::error::Error;

/// An account to make.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewAccount {
    /// Its primary address.
    pub address: String,
    /// It cannot log in until it has one.
    pub password: Option<String>,
    /// [`crate::limits::DEFAULT_QUOTA_BYTES`] when `None`.
    pub quota_bytes: Option<u64>,
    /// The shard with the fewest accounts (of `region`) when `None`.
    pub shard: Option<ShardId>,
    /// Only shards that are at home here; all when `None`.
    pub region: Option<String>,
}

/// What to change of an account; `None` leaves as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccountChange {
    /// A new password.
    pub password: Option<String>,
    /// Suspend it (`true`) or take it up again.
    pub suspended: Option<bool>,
    /// A new quota.
    pub quota_bytes: Option<u64>,
}

/// A password for one program, beside the account's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppPassword {
    /// What its owner calls it.
    pub name: String,
    /// Good for reading mail.
    pub mail: bool,
    /// Good for sending mail.
    pub submission: bool,
    /// Milliseconds since 1970.
    pub created_ms: u64,
}

/// Names an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// By any of its addresses.
    Address(String),
    /// By its id.
    Account(AccountId),
}

/// One address of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressRecord {
    /// The address.
    pub address: String,
    /// The one that the account shows.
    pub primary: bool,
    /// Since when, milliseconds since 1970.
    pub since_ms: u64,
}

/// Something that happened to an account's addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressEvent {
    /// When, milliseconds since 1970.
    pub time_ms: u64,
    /// Which.
    pub address: String,
    /// "added", "removed" or "made primary".
    pub event: String,
}

/// What the directory knows of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountRecord {
    /// Its id.
    pub id: AccountId,
    /// Its shard.
    pub shard: ShardId,
    /// Rises whenever it changes its shard.
    pub placement_epoch: u64,
    /// It may not be used now.
    pub suspended: bool,
    /// Bytes it may hold.
    pub quota_bytes: u64,
    /// When it was made, milliseconds since 1970.
    pub created_ms: u64,
    /// The primary one first.
    pub addresses: Vec<AddressRecord>,
    /// Oldest first.
    pub history: Vec<AddressEvent>,
    /// Can it log in?
    pub has_password: bool,
}

/// A node as the directory knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its id.
    pub id: NodeId,
    /// Its region.
    pub region: String,
    /// Its zone in the region.
    pub zone: String,
    /// `HOST:PORT` for clients.
    pub client_address: String,
    /// `HOST:PORT` for other nodes.
    pub peer_address: String,
    /// It was taken out; its id never comes back.
    pub retired: bool,
}

/// A shard as the directory knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// Its id; [`ShardId::DIRECTORY`] is the directory itself.
    pub id: ShardId,
    /// Its voters, in order of preference for the leader.
    pub replicas: Vec<NodeId>,
    /// Where its leader should be.
    pub home_region: String,
    /// Who led it when the answering node last heard.
    pub leader: Option<NodeId>,
    /// Rises with every change of its replicas.
    pub epoch: u64,
    /// Accounts placed on it.
    pub accounts: u64,
}

/// Nodes and shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    /// The cluster's id.
    pub cluster: ClusterId,
    /// Its name: the trust domain of its certificates.
    pub cluster_name: String,
    /// All nodes that ever were, by id.
    pub nodes: Vec<Node>,
    /// All shards, by id.
    pub shards: Vec<Shard>,
    /// Log index of the directory that this was read at.
    pub directory_index: u64,
}

/// Calls on the directory. All writes take an op id and are repeated with it until the deadline.
#[derive(Clone)]
pub struct Directory {
    pub(crate) client: Client,
}

/// One call of the service, asked of the directory's group until it has an answer.
macro_rules! ask {
    ($self:expr, $method:ident, $message:expr) => {
        $self.client.core.ask(
            ShardId::DIRECTORY,
            $self.client.until(),
            $message,
            |channel, request| async move { service(channel).$method(request).await },
        )
    };
}

fn service(channel: Channel) -> DirectoryClient<Channel> {
    DirectoryClient::new(channel).max_decoding_message_size(limits::GRPC_MESSAGE_MAX_BYTES)
}

fn bytes(account: AccountId) -> Bytes {
    Bytes::copy_from_slice(account.as_bytes())
}

impl Directory {
    /// Makes an account.
    ///
    /// # Errors
    /// [`Error::Exists`] when the address is taken, [`Error::Invalid`] for a bad address.
    pub async fn account_create(&self, new: NewAccount, op_id: OpId) -> Result<AccountRecord, Error> {
        let message = v1::AccountCreateRequest {
            op_id: convert::op_id(op_id),
            address: new.address,
            password: new.password,
            quota_bytes: new.quota_bytes.unwrap_or(0),
            shard: new.shard.map_or(0, |shard| shard.0),
            region: new.region.unwrap_or_default(),
        };
        convert::account_record(ask!(self, account_create, message).await?)
    }

    /// Everything about an account but its secrets.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn account_show(&self, who: Who) -> Result<AccountRecord, Error> {
        let who = match who {
            Who::Address(address) => account_show_request::Who::Address(address),
            Who::Account(account) => account_show_request::Who::Account(bytes(account)),
        };
        convert::account_record(ask!(self, account_show, v1::AccountShowRequest { who: Some(who) }).await?)
    }

    /// Changes an account.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn account_set(
        &self,
        account: AccountId,
        change: AccountChange,
        op_id: OpId,
    ) -> Result<AccountRecord, Error> {
        let state = change.suspended.map(|suspended| match suspended {
            true => v1::AccountState::Suspended.into(),
            false => v1::AccountState::Active.into(),
        });
        let message = v1::AccountSetRequest {
            op_id: convert::op_id(op_id),
            account: bytes(account),
            password: change.password,
            state,
            quota_bytes: change.quota_bytes,
        };
        let changed = ask!(self, account_set, message).await;
        self.client.core.addresses.forget();
        convert::account_record(changed?)
    }

    /// Gives an account one more address; with `primary` the one that it shows.
    ///
    /// # Errors
    /// [`Error::Exists`] when another account has it, [`Error::Limit`].
    pub async fn address_add(
        &self,
        account: AccountId,
        address: &str,
        primary: bool,
        op_id: OpId,
    ) -> Result<AccountRecord, Error> {
        let message = v1::AddressAddRequest {
            op_id: convert::op_id(op_id),
            account: bytes(account),
            address: address.to_owned(),
            primary,
        };
        convert::account_record(ask!(self, address_add, message).await?)
    }

    /// Takes an address from an account. Its history keeps it.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Invalid`] for the primary address.
    pub async fn address_remove(&self, account: AccountId, address: &str, op_id: OpId) -> Result<AccountRecord, Error> {
        let message = v1::AddressRemoveRequest {
            op_id: convert::op_id(op_id),
            account: bytes(account),
            address: address.to_owned(),
        };
        let changed = ask!(self, address_remove, message).await;
        self.client.core.addresses.forget();
        convert::account_record(changed?)
    }

    /// Makes an application password. Its secret is drawn by the caller, once, and at least [`limits::APP_PASSWORD_MIN_BYTES`] long; nobody
    /// can be told it again.
    ///
    /// # Errors
    /// [`Error::Exists`] for a name that there is, [`Error::Limit`], [`Error::Invalid`].
    pub async fn app_password_add(
        &self,
        account: AccountId,
        password: AppPassword,
        secret: &str,
        op_id: OpId,
    ) -> Result<Vec<AppPassword>, Error> {
        let message = v1::AppPasswordAddRequest {
            op_id: convert::op_id(op_id),
            account: bytes(account),
            name: password.name,
            secret: secret.to_owned(),
            mail: password.mail,
            submission: password.submission,
        };
        Ok(app_passwords(ask!(self, app_password_add, message).await?))
    }

    /// Takes an application password back: it logs nobody in from now on, and what it opened is over within a minute.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn app_password_remove(
        &self,
        account: AccountId,
        name: &str,
        op_id: OpId,
    ) -> Result<Vec<AppPassword>, Error> {
        let message = v1::AppPasswordRemoveRequest {
            op_id: convert::op_id(op_id),
            account: bytes(account),
            name: name.to_owned(),
        };
        Ok(app_passwords(ask!(self, app_password_remove, message).await?))
    }

    /// The application passwords of an account, by name.
    ///
    /// # Errors
    /// As every read.
    pub async fn app_passwords(&self, account: AccountId) -> Result<Vec<AppPassword>, Error> {
        let message = v1::AppPasswordListRequest {
            account: bytes(account),
        };
        Ok(app_passwords(ask!(self, app_password_list, message).await?))
    }

    /// Nodes and shards as the directory has them now. The client's own routes learn from it too.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn topology(&self) -> Result<Topology, Error> {
        let topology = convert::topology(ask!(self, topology, v1::TopologyRequest {}).await?)?;
        self.client.core.routes.learn(&topology);
        Ok(topology)
    }
}

fn app_passwords(wire: v1::AppPasswords) -> Vec<AppPassword> {
    let one = |password: v1::AppPassword| AppPassword {
        name: password.name,
        mail: password.mail,
        submission: password.submission,
        created_ms: password.created_ms,
    };
    wire.passwords.into_iter().map(one).collect()
}
