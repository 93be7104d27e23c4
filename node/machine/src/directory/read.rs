//! Looking at the directory's rows. Nothing here changes anything.

use std::collections::BTreeMap;

use malle_proto::{AccountId, ClusterId, NodeId, OpId, ShardId};

use super::cluster::TOKEN_KEYS_KEPT;
use super::growth::{Applied, Layout, NodeState, Staged, Task};
use super::rows::{
    self, AccountRow, AddressRow, AppPasswordRow, AppliedRow, ClockRow, ClusterRow, GrantRow, HistoryRow, NodeRow,
    OwnAddressRow, PasswordRow, ShardRow, SharingRow, StandingRow, Tag, TaskRow, TokenKeyRow,
};
use super::{AccountState, Node, Shard, TokenKey, address, layout};
use crate::format::Record;
use crate::view::{Fault, Flow, View};

/// Bytes of an own-address key before its text.
const OWN_ADDRESS_PREFIX_BYTES: usize = 1 + 16;
/// Bytes of a grant key before its sequence number.
const GRANT_PREFIX_BYTES: usize = 1 + 4;

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
pub fn normal_address(text: &str) -> Option<String> {
    address::normal(text)
}

/// The cluster; `None` before Init.
///
/// # Errors
/// A [`Fault`].
pub fn cluster(view: &dyn View) -> Result<Option<Cluster>, Fault> {
    let row: Option<ClusterRow> = rows::load(view, "cluster", &rows::first(Tag::Cluster))?;
    Ok(row.map(|row| Cluster {
        id: row.id,
        name: row.name,
    }))
}

/// The machine's time, milliseconds since 1970; 0 before Init.
///
/// # Errors
/// A [`Fault`].
pub fn time_ms(view: &dyn View) -> Result<u64, Fault> {
    let row: Option<ClockRow> = rows::load(view, "clock", &rows::first(Tag::Clock))?;
    Ok(row.map_or(0, |row| row.time_ms))
}

/// Every node, by id.
///
/// # Errors
/// A [`Fault`].
pub fn nodes(view: &dyn View) -> Result<Vec<Node>, Fault> {
    collect(view, "node", rows::first(Tag::Node), |_, NodeRow(node)| Ok(node))
}

/// Every shard, by id, with its number of accounts.
///
/// # Errors
/// A [`Fault`].
pub fn shards(view: &dyn View) -> Result<Vec<(Shard, u64)>, Fault> {
    collect(view, "shard", rows::first(Tag::Shard), |_, row: ShardRow| {
        Ok((row.shard, row.accounts))
    })
}

/// How the nodes are of which something was said; the others are as [`NodeState::FIRST`].
///
/// # Errors
/// A [`Fault`].
pub fn node_states(view: &dyn View) -> Result<BTreeMap<NodeId, NodeState>, Fault> {
    let states = collect(
        view,
        "standing",
        rows::first(Tag::Standing),
        |key, StandingRow(state)| Ok((rows::standing_of(key)?, state)),
    )?;
    Ok(states.into_iter().collect())
}

/// The layout that holds, also before one was applied.
///
/// # Errors
/// A [`Fault`].
pub fn layout(view: &dyn View) -> Result<Layout, Fault> {
    layout::current(view)
}

/// Changes of the layout that wait.
///
/// # Errors
/// A [`Fault`].
pub fn staged(view: &dyn View) -> Result<Option<Staged>, Fault> {
    layout::staged(view)
}

/// The layout and the nodes as they would be with the changes that wait.
///
/// # Errors
/// A [`Fault`].
pub fn layout_to_come(view: &dyn View) -> Result<(Layout, Vec<Node>), Fault> {
    let (now, nodes) = (layout::current(view)?, nodes(view)?);
    Ok(match layout::staged(view)? {
        None => (now, nodes),
        Some(staged) => {
            let mut after = layout::changed(&now, &staged.change);
            after.version = staged.version;
            (after, layout::moved(nodes, &staged.change))
        }
    })
}

/// The layouts that were applied, oldest first, at most `limits::LAYOUTS_KEPT`.
///
/// # Errors
/// A [`Fault`].
pub fn layout_history(view: &dyn View) -> Result<Vec<Applied>, Fault> {
    collect(
        view,
        "applied layout",
        rows::first(Tag::Applied),
        |_, AppliedRow(applied)| Ok(applied),
    )
}

/// Moves of replicas, oldest first: those under way, and the last `limits::TASKS_KEPT` that are over.
///
/// # Errors
/// A [`Fault`].
pub fn tasks(view: &dyn View) -> Result<Vec<Task>, Fault> {
    collect(view, "task", rows::first(Tag::Task), |_, TaskRow(task)| Ok(task))
}

/// The newest token keys, newest first, at most two.
///
/// # Errors
/// A [`Fault`].
pub fn token_keys(view: &dyn View) -> Result<Vec<TokenKey>, Fault> {
    let mut keys: Vec<TokenKey> = collect(view, "token key", rows::first(Tag::TokenKey), |_, TokenKeyRow(key)| {
        Ok(key)
    })?;
    keys.reverse();
    keys.truncate(TOKEN_KEYS_KEPT);
    Ok(keys)
}

/// The account behind a normalised address.
///
/// # Errors
/// A [`Fault`].
pub fn by_address(view: &dyn View, address: &str) -> Result<Option<Account>, Fault> {
    let Some(row) = rows::load::<AddressRow>(view, "address", &rows::address(address))? else {
        return Ok(None);
    };
    match account(view, row.account)? {
        Some(account) => Ok(Some(account)),
        None => Err(Fault::Broken(format!(
            "an address names the account {}, which is not there",
            row.account
        ))),
    }
}

/// The only domain that addresses have; `None` when there are none or several.
///
/// # Errors
/// A [`Fault`].
pub fn only_domain(view: &dyn View) -> Result<Option<String>, Fault> {
    let mut found = Vec::new();
    let from = rows::first(Tag::Domain);
    view.scan(&from, &rows::behind(from.clone()), &mut |key, _| {
        found.push(rows::text(key, 1)?.to_owned());
        Ok(if found.len() < 2 { Flow::More } else { Flow::Stop })
    })?;
    Ok(if found.len() == 1 { found.pop() } else { None })
}

/// An account.
///
/// # Errors
/// A [`Fault`].
pub fn account(view: &dyn View, account: AccountId) -> Result<Option<Account>, Fault> {
    let row: Option<AccountRow> = rows::load(view, "account", &rows::account(account))?;
    Ok(row.map(|row| shown(account, row)))
}

fn shown(id: AccountId, row: AccountRow) -> Account {
    Account {
        id,
        shard: row.shard,
        placement_epoch: row.placement_epoch,
        state: row.state,
        quota_bytes: row.quota_bytes,
        created_ms: row.created_ms,
        primary_address: row.primary_address,
    }
}

/// Its addresses, the primary one first.
///
/// # Errors
/// A [`Fault`].
pub fn addresses(view: &dyn View, account: AccountId) -> Result<Vec<Address>, Fault> {
    let Some(owner) = self::account(view, account)? else {
        return Ok(Vec::new());
    };
    let mut addresses = collect(
        view,
        "own address",
        rows::own_addresses(account),
        |key, row: OwnAddressRow| {
            let address = rows::text(key, OWN_ADDRESS_PREFIX_BYTES)?.to_owned();
            Ok(Address {
                primary: address == owner.primary_address,
                address,
                since_ms: row.since_ms,
            })
        },
    )?;
    // Stable: behind the primary one they stay in the order of their bytes.
    addresses.sort_by_key(|address| !address.primary);
    Ok(addresses)
}

/// What happened to its addresses, oldest first, at most `limits::ADDRESS_EVENTS_PER_ACCOUNT_MAX`.
///
/// # Errors
/// A [`Fault`].
pub fn history(view: &dyn View, account: AccountId) -> Result<Vec<AddressEvent>, Fault> {
    collect(view, "history", rows::histories(account), |_, row: HistoryRow| {
        Ok(AddressEvent {
            time_ms: row.time_ms,
            address: row.address,
            event: row.event.as_str().to_owned(),
        })
    })
}

/// Its password hash (PHC string).
///
/// # Errors
/// A [`Fault`].
pub fn password_hash(view: &dyn View, account: AccountId) -> Result<Option<String>, Fault> {
    let row: Option<PasswordRow> = rows::load(view, "password", &rows::password(account))?;
    Ok(row.map(|row| row.hash))
}

/// An application password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppPassword {
    /// What its owner calls it.
    pub name: String,
    /// The bits of [`super::AppScopes`].
    pub scopes: u8,
    /// Milliseconds since 1970.
    pub created_ms: u64,
    /// What its secret is compared with.
    pub digest: [u8; 32],
}

/// Its application passwords, by name.
///
/// # Errors
/// A [`Fault`].
pub fn app_passwords(view: &dyn View, account: AccountId) -> Result<Vec<AppPassword>, Fault> {
    let prefix = rows::app_passwords(account);
    let name_at = prefix.len();
    collect(view, "app password", prefix, |key, row: AppPasswordRow| {
        Ok(AppPassword {
            name: rows::text(key, name_at)?.to_owned(),
            scopes: row.scopes,
            created_ms: row.created_ms,
            digest: row.digest,
        })
    })
}

/// The accounts that have granted something to this one, by id, at most `limits::SHARERS_PER_ACCOUNT_MAX`. The grants may be gone by now.
///
/// # Errors
/// A [`Fault`].
pub fn sharers(view: &dyn View, guest: AccountId) -> Result<Vec<Account>, Fault> {
    let owners = collect(view, "sharing", rows::sharings(guest), |key, _: SharingRow| {
        let owner = key.last_chunk().map(|owner| AccountId(*owner));
        owner.ok_or_else(|| Fault::Broken(format!("no owner in the key {key:02x?}")))
    })?;
    let mut sharers = Vec::with_capacity(owners.len());
    for owner in owners {
        let row: AccountRow = rows::must(view, "account", &rows::account(owner))?;
        sharers.push(shown(owner, row));
    }
    Ok(sharers)
}

/// The mark of a pair; `None`: it is not there.
///
/// # Errors
/// A [`Fault`].
pub fn sharing(view: &dyn View, owner: AccountId, guest: AccountId) -> Result<Option<OpId>, Fault> {
    let row: Option<SharingRow> = rows::load(view, "sharing", &rows::sharing(guest, owner))?;
    Ok(row.map(|row| row.mark))
}

/// Accounts of a shard made or changed after `sequence`, in order, at most `max`.
///
/// # Errors
/// A [`Fault`].
pub fn grants(view: &dyn View, shard: ShardId, sequence: u64, max: usize) -> Result<Vec<Grant>, Fault> {
    let Some(after) = sequence.checked_add(1) else {
        return Ok(Vec::new());
    };
    let mut found: Vec<(u64, AccountId)> = Vec::new();
    view.scan(
        &rows::grant(shard, after),
        &rows::behind(rows::grant(shard, u64::MAX)),
        &mut |key, value| {
            if found.len() >= max {
                return Ok(Flow::Stop);
            }
            let row: GrantRow = rows::decode("grant", value)?;
            found.push((sequence_of(key)?, row.account));
            Ok(Flow::More)
        },
    )?;
    let mut grants = Vec::with_capacity(found.len());
    for (sequence, id) in found {
        let row: AccountRow = rows::must(view, "account", &rows::account(id))?;
        grants.push(Grant {
            sequence,
            account: shown(id, row),
        });
    }
    Ok(grants)
}

fn sequence_of(key: &[u8]) -> Result<u64, Fault> {
    key.get(GRANT_PREFIX_BYTES..)
        .and_then(|bytes| bytes.try_into().ok())
        .map(u64::from_be_bytes)
        .ok_or_else(|| Fault::Broken(format!("no sequence number in the key {key:02x?}")))
}

/// Every row that begins with `prefix`, in the order of the keys.
fn collect<R: Record, T>(
    view: &dyn View,
    what: &'static str,
    prefix: Vec<u8>,
    make: impl Fn(&[u8], R) -> Result<T, Fault>,
) -> Result<Vec<T>, Fault> {
    let mut found = Vec::new();
    view.scan(&prefix, &rows::behind(prefix.clone()), &mut |key, value| {
        found.push(make(key, rows::decode(what, value)?)?);
        Ok(Flow::More)
    })?;
    Ok(found)
}
