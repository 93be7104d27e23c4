//! Looking at the directory's rows. Nothing here changes anything.

use malle_proto::{AccountId, ClusterId, ShardId};

use super::{AccountState, Node, Shard, TokenKey};
use crate::view::{Fault, View};

/// The cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// Its id.
    pub id: ClusterId,
    /// The trust domain of its certificates.
    pub name: String,
}

/// Where an account is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its id.
    pub id: AccountId,
    /// Its shard.
    pub shard: ShardId,
    /// Rises when the shard changes.
    pub placement_epoch: u64,
    /// May it be used?
    pub state: AccountState,
    /// Bytes it may hold.
    pub quota_bytes: u64,
    /// When it was made, milliseconds since 1970.
    pub created_ms: u64,
    /// Its primary address.
    pub primary_address: String,
}

/// An address of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Normalised.
    pub address: String,
    /// The one that mail from the account carries.
    pub primary: bool,
    /// Milliseconds since 1970.
    pub since_ms: u64,
}

/// Something that happened to an account's addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressEvent {
    /// Milliseconds since 1970.
    pub time_ms: u64,
    /// Which address.
    pub address: String,
    /// `added`, `removed`, `made primary`.
    pub event: String,
}

/// An account of a shard as its grant needs it, in the order of its directory sequence number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Rises with every account made and every quota or state changed.
    pub sequence: u64,
    /// The account.
    pub account: Account,
}

/// The normal form of an address: domain in lower case (with ASCII letters lowered, other letters kept), local part in lower case,
/// no quotes needed, one `@`, at most `limits::ADDRESS_MAX_BYTES`; `None` when it is not an address that malle takes.
/// (Malle's local parts ignore letter case, as RFC 5321 2.4 lets a receiver choose.)
pub fn normal_address(_text: &str) -> Option<String> {
    None
}

/// The cluster; `None` before Init.
///
/// # Errors
/// A [`Fault`].
pub fn cluster(_view: &dyn View) -> Result<Option<Cluster>, Fault> {
    unwritten()
}

/// Every node, by id.
///
/// # Errors
/// A [`Fault`].
pub fn nodes(_view: &dyn View) -> Result<Vec<Node>, Fault> {
    unwritten()
}

/// Every shard, by id, with its number of accounts.
///
/// # Errors
/// A [`Fault`].
pub fn shards(_view: &dyn View) -> Result<Vec<(Shard, u64)>, Fault> {
    unwritten()
}

/// The newest token keys, newest first, at most two.
///
/// # Errors
/// A [`Fault`].
pub fn token_keys(_view: &dyn View) -> Result<Vec<TokenKey>, Fault> {
    unwritten()
}

/// The account behind a normalised address.
///
/// # Errors
/// A [`Fault`].
pub fn by_address(_view: &dyn View, _address: &str) -> Result<Option<Account>, Fault> {
    unwritten()
}

/// The only domain that addresses have; `None` when there are none or several.
///
/// # Errors
/// A [`Fault`].
pub fn only_domain(_view: &dyn View) -> Result<Option<String>, Fault> {
    unwritten()
}

/// An account.
///
/// # Errors
/// A [`Fault`].
pub fn account(_view: &dyn View, _account: AccountId) -> Result<Option<Account>, Fault> {
    unwritten()
}

/// Its addresses, the primary one first.
///
/// # Errors
/// A [`Fault`].
pub fn addresses(_view: &dyn View, _account: AccountId) -> Result<Vec<Address>, Fault> {
    unwritten()
}

/// What happened to its addresses, oldest first.
///
/// # Errors
/// A [`Fault`].
pub fn history(_view: &dyn View, _account: AccountId) -> Result<Vec<AddressEvent>, Fault> {
    unwritten()
}

/// Its password hash (PHC string).
///
/// # Errors
/// A [`Fault`].
pub fn password_hash(_view: &dyn View, _account: AccountId) -> Result<Option<String>, Fault> {
    unwritten()
}

/// Accounts of a shard made or changed after `sequence`, in order, at most `max`.
///
/// # Errors
/// A [`Fault`].
pub fn grants(_view: &dyn View, _shard: ShardId, _sequence: u64, _max: usize) -> Result<Vec<Grant>, Fault> {
    unwritten()
}

fn unwritten<T>() -> Result<T, Fault> {
    Err(Fault::Broken("not written yet".into()))
}
