//! The directory's rows: their keys, their records, and reading one.
//!
//! A key is a tag, then ids big-endian, so that rows sort by id. Text comes last in a key, so it needs no terminator.
//!
//! ```text
//! 01                            Cluster        02                            Clock
//! 03 node:8                     Node           04 shard:4                    ShardRow
//! 05 key:4                      TokenKeyRow    06 account:16                 AccountRow
//! 07 account:16                 PasswordRow    08 address                    AddressRow
//! 09 account:16 address         OwnAddressRow  0a account:16 number:8        HistoryRow
//! 0b domain                     DomainRow      0c shard:4 sequence:8         GrantRow
//! 0d account:16 op:16           ReceiptRow     0e number:8                   ReceiptOrderRow
//! 0f address                    FormerRow      10 removed_ms:8 address       empty, in order
//! 11 account:16 name            AppPasswordRow
//! 18 guest:16 owner:16          SharingRow
//! 19                            LayoutRow      1a                            StagedRow
//! 1b version:8                  AppliedRow     1c node:8                     StandingRow
//! 1d task:8                     TaskRow        1e                            GrowthRow
//! ```

use malle_proto::{AccountId, ClusterId, NodeId, OpId, ShardId};
use serde::{Deserialize, Serialize};

use super::growth::{Applied, Layout, NodeState, Staged, Task};
use super::{AccountState, Node, Shard, TokenKey};
use crate::format::{self, Record};
use crate::view::{Fault, View};

/// The first byte of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Tag {
    Cluster = 0x01,
    Clock = 0x02,
    Node = 0x03,
    Shard = 0x04,
    TokenKey = 0x05,
    Account = 0x06,
    Password = 0x07,
    Address = 0x08,
    OwnAddress = 0x09,
    History = 0x0a,
    Domain = 0x0b,
    Grant = 0x0c,
    Receipt = 0x0d,
    ReceiptOrder = 0x0e,
    Former = 0x0f,
    FormerOrder = 0x10,
    AppPassword = 0x11,
    Sharing = 0x18,
    Layout = 0x19,
    Staged = 0x1a,
    Applied = 0x1b,
    Standing = 0x1c,
    Task = 0x1d,
    Growth = 0x1e,
}

/// The cluster, made by Init.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterRow {
    pub id: ClusterId,
    pub name: String,
}
crate::first_version!(ClusterRow, 64);

/// What changes with every command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockRow {
    /// The machine's time: it never falls.
    pub time_ms: u64,
    /// Number of the oldest receipt that is kept.
    pub receipts_first: u64,
    /// Number of the next receipt.
    pub receipts_next: u64,
}
crate::first_version!(ClockRow, 65);

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRow(pub Node);
crate::first_version!(NodeRow, 66);

/// A shard with its counters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardRow {
    pub shard: Shard,
    pub accounts: u64,
    /// The newest sequence number that was given to an account of this shard.
    pub last_sequence: u64,
}
crate::first_version!(ShardRow, 67);

/// A key for login tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenKeyRow(pub TokenKey);
crate::first_version!(TokenKeyRow, 68);

/// An account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountRow {
    pub shard: ShardId,
    pub placement_epoch: u64,
    pub state: AccountState,
    pub quota_bytes: u64,
    pub created_ms: u64,
    pub primary_address: String,
    /// How many addresses it has, the primary one included.
    pub addresses: u32,
    /// Number of the oldest history row that is kept.
    pub history_first: u64,
    /// Number of the next history row.
    pub history_next: u64,
    /// Where its grant row is.
    pub sequence: u64,
}
crate::first_version!(AccountRow, 69);

/// A password hash: apart from the account, so that only who verifies it reads it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PasswordRow {
    pub hash: String,
}
crate::first_version!(PasswordRow, 70);

impl std::fmt::Debug for PasswordRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PasswordRow { hash: .. }")
    }
}

/// Who has an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressRow {
    pub account: AccountId,
}
crate::first_version!(AddressRow, 71);

/// An address of an account, under the account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnAddressRow {
    pub since_ms: u64,
}
crate::first_version!(OwnAddressRow, 72);

/// What happened to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    Added,
    Removed,
    MadePrimary,
}

impl Event {
    /// As the wire contract spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Event::Added => "added",
            Event::Removed => "removed",
            Event::MadePrimary => "made primary",
        }
    }
}

/// One line of an account's history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryRow {
    pub time_ms: u64,
    pub address: String,
    pub event: Event,
}
crate::first_version!(HistoryRow, 73);

/// A domain that addresses have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainRow {
    pub addresses: u64,
}
crate::first_version!(DomainRow, 74);

/// An account of a shard, under the sequence number of its last change that the shard must know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantRow {
    pub account: AccountId,
}
crate::first_version!(GrantRow, 75);

/// Which operation a receipt is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReceiptKind {
    AccountCreate,
    AccountSet,
    AddressAdd,
    AddressRemove,
    AppPasswordAdd,
    AppPasswordRemove,
}

/// An operation that took effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptRow {
    pub kind: ReceiptKind,
    /// The account that was made or changed.
    pub account: AccountId,
    pub time_ms: u64,
}
crate::first_version!(ReceiptRow, 76);

/// The receipts in the order in which they were left: where the receipt is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptOrderRow {
    pub scope: AccountId,
    pub op_id: OpId,
}
crate::first_version!(ReceiptOrderRow, 77);

/// Who had an address that is nobody's now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormerRow {
    pub account: AccountId,
    pub removed_ms: u64,
}
crate::first_version!(FormerRow, 78);

/// An application password, under its account and name.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppPasswordRow {
    pub digest: [u8; 32],
    pub scopes: u8,
    pub created_ms: u64,
}
crate::first_version!(AppPasswordRow, 79);

impl std::fmt::Debug for AppPasswordRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (scopes, created_ms) = (self.scopes, self.created_ms);
        write!(
            f,
            "AppPasswordRow {{ digest: .., scopes: {scopes}, created_ms: {created_ms} }}"
        )
    }
}

/// An owner who has granted something to a guest, or is about to, or did until a moment ago.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharingRow {
    /// Of the last addition, drawn by its proposer.
    pub mark: OpId,
}
crate::first_version!(SharingRow, 91);

/// The layout; absent before the first one is applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayoutRow(pub Layout);
crate::first_version!(LayoutRow, 80);

/// What is staged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagedRow(pub Staged);
crate::first_version!(StagedRow, 81);

/// A layout that was applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppliedRow(pub Applied);
crate::first_version!(AppliedRow, 82);

/// How a node is; absent while nothing was said of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandingRow(pub NodeState);
crate::first_version!(StandingRow, 83);

/// A move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRow(pub Task);
crate::first_version!(TaskRow, 84);

/// Counters of the rows above.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrowthRow {
    /// The last version that was given to a staging.
    pub layout_version: u64,
    /// The last task's number.
    pub last_task: u64,
}
crate::first_version!(GrowthRow, 86);

/// Tag and parts, one after the other.
fn key(tag: Tag, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + parts.iter().map(|part| part.len()).sum::<usize>());
    key.push(tag as u8);
    for part in parts {
        key.extend_from_slice(part);
    }
    key
}

/// Key of the row that a tag has one of; also where a tag's rows begin.
pub fn first(tag: Tag) -> Vec<u8> {
    key(tag, &[])
}

/// The first key behind all that begin with `prefix`. The prefix begins with a tag, which is never 0xff.
pub fn behind(mut prefix: Vec<u8>) -> Vec<u8> {
    while prefix.last() == Some(&0xff) {
        prefix.pop();
    }
    if let Some(last) = prefix.last_mut() {
        *last += 1;
    }
    prefix
}

pub fn node(node: NodeId) -> Vec<u8> {
    key(Tag::Node, &[&node.0.to_be_bytes()])
}

pub fn shard(shard: ShardId) -> Vec<u8> {
    key(Tag::Shard, &[&shard.0.to_be_bytes()])
}

pub fn token_key(id: u32) -> Vec<u8> {
    key(Tag::TokenKey, &[&id.to_be_bytes()])
}

pub fn account(account: AccountId) -> Vec<u8> {
    key(Tag::Account, &[&account.0])
}

pub fn password(account: AccountId) -> Vec<u8> {
    key(Tag::Password, &[&account.0])
}

pub fn address(address: &str) -> Vec<u8> {
    key(Tag::Address, &[address.as_bytes()])
}

pub fn own_address(account: AccountId, address: &str) -> Vec<u8> {
    key(Tag::OwnAddress, &[&account.0, address.as_bytes()])
}

pub fn own_addresses(account: AccountId) -> Vec<u8> {
    key(Tag::OwnAddress, &[&account.0])
}

pub fn history(account: AccountId, number: u64) -> Vec<u8> {
    key(Tag::History, &[&account.0, &number.to_be_bytes()])
}

pub fn histories(account: AccountId) -> Vec<u8> {
    key(Tag::History, &[&account.0])
}

pub fn domain(domain: &str) -> Vec<u8> {
    key(Tag::Domain, &[domain.as_bytes()])
}

pub fn grant(shard: ShardId, sequence: u64) -> Vec<u8> {
    key(Tag::Grant, &[&shard.0.to_be_bytes(), &sequence.to_be_bytes()])
}

pub fn receipt(scope: AccountId, op_id: OpId) -> Vec<u8> {
    key(Tag::Receipt, &[&scope.0, &op_id.0])
}

pub fn receipt_order(number: u64) -> Vec<u8> {
    key(Tag::ReceiptOrder, &[&number.to_be_bytes()])
}

pub fn former(address: &str) -> Vec<u8> {
    key(Tag::Former, &[address.as_bytes()])
}

pub fn former_order(removed_ms: u64, address: &str) -> Vec<u8> {
    key(Tag::FormerOrder, &[&removed_ms.to_be_bytes(), address.as_bytes()])
}

pub fn app_password(account: AccountId, name: &str) -> Vec<u8> {
    key(Tag::AppPassword, &[&account.0, name.as_bytes()])
}

pub fn app_passwords(account: AccountId) -> Vec<u8> {
    key(Tag::AppPassword, &[&account.0])
}

pub fn sharing(guest: AccountId, owner: AccountId) -> Vec<u8> {
    key(Tag::Sharing, &[&guest.0, &owner.0])
}

pub fn sharings(guest: AccountId) -> Vec<u8> {
    key(Tag::Sharing, &[&guest.0])
}

pub fn applied(version: u64) -> Vec<u8> {
    key(Tag::Applied, &[&version.to_be_bytes()])
}

pub fn standing(node: NodeId) -> Vec<u8> {
    key(Tag::Standing, &[&node.0.to_be_bytes()])
}

pub fn task(task: u64) -> Vec<u8> {
    key(Tag::Task, &[&task.to_be_bytes()])
}

/// The node of a key of [`standing`].
pub fn standing_of(key: &[u8]) -> Result<NodeId, Fault> {
    let id = key.get(1..).and_then(|bytes| bytes.try_into().ok());
    let id = id.map(u64::from_be_bytes);
    id.map(NodeId)
        .ok_or_else(|| Fault::Broken(format!("no node in the key {key:02x?}")))
}

/// What a key of [`former_order`] says.
pub fn removal(key: &[u8]) -> Result<(u64, &str), Fault> {
    let time = key.get(1..9).and_then(|bytes| bytes.try_into().ok());
    let removed_ms = time.map(u64::from_be_bytes);
    let removed_ms = removed_ms.ok_or_else(|| Fault::Broken(format!("no time in the key {key:02x?}")))?;
    Ok((removed_ms, text(key, 9)?))
}

/// Decodes a row.
pub fn decode<T: Record>(what: &'static str, bytes: &[u8]) -> Result<T, Fault> {
    format::decode(bytes).map_err(|error| Fault::Format { what, error })
}

/// Reads a row.
pub fn load<T: Record>(view: &dyn View, what: &'static str, key: &[u8]) -> Result<Option<T>, Fault> {
    view.get(key)?.map(|bytes| decode(what, &bytes)).transpose()
}

/// Reads a row that another row says is there.
pub fn must<T: Record>(view: &dyn View, what: &'static str, key: &[u8]) -> Result<T, Fault> {
    load(view, what, key)?.ok_or_else(|| Fault::Broken(format!("no {what} row under {key:02x?}")))
}

/// The counters of layouts and tasks.
pub fn growth(view: &dyn View) -> Result<GrowthRow, Fault> {
    Ok(load(view, "growth", &first(Tag::Growth))?.unwrap_or_default())
}

/// The text behind the first `skip` bytes of a key.
pub fn text(key: &[u8], skip: usize) -> Result<&str, Fault> {
    key.get(skip..)
        .and_then(|bytes| std::str::from_utf8(bytes).ok())
        .ok_or_else(|| Fault::Broken(format!("no text in the key {key:02x?}")))
}
