//! Accounts and their addresses.

use malle_proto::{AccountId, ShardId, limits};

use super::apply::{Step, Turn};
use super::rows::{
    self, AccountRow, AddressRow, DomainRow, Event, GrantRow, HistoryRow, OwnAddressRow, PasswordRow, ShardRow,
};
use super::{AccountState, Outcome, Refusal, address, cluster, former};
use crate::format;
use crate::view::{Fault, View};

/// Longest PHC string: twice what argon2id with 32 bytes of salt and of hash needs.
const PASSWORD_HASH_MAX_BYTES: usize = 256;

/// What an AccountCreate asks for.
pub struct NewAccount<'c> {
    pub id: AccountId,
    pub address: &'c str,
    pub password_hash: Option<&'c str>,
    pub quota_bytes: u64,
    pub shard: Option<ShardId>,
    pub region: Option<&'c str>,
}

/// A new account with its first address.
pub fn create(turn: &mut Turn<'_>, new: &NewAccount<'_>) -> Step<Outcome> {
    check_address(new.address)?;
    check_password_hash(new.password_hash)?;
    if turn.draft.get(&rows::address(new.address))?.is_some() {
        return Err(Refusal::AddressTaken(new.address.into()).into());
    }
    former::require_rested(turn, new.id, new.address)?;
    if turn.draft.get(&rows::account(new.id))?.is_some() {
        return Err(Refusal::AccountExists(new.id).into());
    }
    let shard = match new.shard {
        Some(shard) => shard,
        None => cluster::emptiest_shard(&turn.draft, new.region)?.ok_or(Refusal::NoShard)?,
    };
    let Some(mut shard_row) = rows::load::<ShardRow>(&turn.draft, "shard", &rows::shard(shard))? else {
        return Err(Refusal::NoShard.into());
    };
    shard_row.accounts += 1;
    turn.draft.put(rows::shard(shard), format::encode(&shard_row));

    let mut row = AccountRow {
        shard,
        placement_epoch: 1,
        state: AccountState::Active,
        quota_bytes: new.quota_bytes,
        created_ms: turn.clock.time_ms,
        primary_address: new.address.into(),
        addresses: 0,
        history_first: 0,
        history_next: 0,
        sequence: 0,
    };
    attach(turn, new.id, &mut row, new.address)?;
    record(turn, new.id, &mut row, new.address, Event::MadePrimary);
    grant(turn, new.id, &mut row)?;
    put_password(turn, new.id, new.password_hash);
    turn.draft.put(rows::account(new.id), format::encode(&row));
    Ok(done(new.id))
}

/// Changes what is given.
pub fn set(
    turn: &mut Turn<'_>,
    account: AccountId,
    password_hash: Option<&str>,
    state: Option<AccountState>,
    quota_bytes: Option<u64>,
) -> Step<Outcome> {
    let mut row = find(turn, account)?;
    check_password_hash(password_hash)?;
    put_password(turn, account, password_hash);
    let before = (row.state, row.quota_bytes);
    row.state = state.unwrap_or(row.state);
    row.quota_bytes = quota_bytes.unwrap_or(row.quota_bytes);
    if (row.state, row.quota_bytes) != before {
        // The shard learns of it because the account comes up again behind the sequence that the shard has seen.
        grant(turn, account, &mut row)?;
        turn.draft.put(rows::account(account), format::encode(&row));
    }
    Ok(done(account))
}

/// One more address, or an address made the primary one. What is so already stays so.
pub fn address_add(turn: &mut Turn<'_>, account: AccountId, address: &str, primary: bool) -> Step<Outcome> {
    let mut row = find(turn, account)?;
    check_address(address)?;
    match rows::load::<AddressRow>(&turn.draft, "address", &rows::address(address))? {
        Some(there) if there.account != account => return Err(Refusal::AddressTaken(address.into()).into()),
        Some(_) => {}
        None if row.addresses as usize >= limits::ADDRESSES_PER_ACCOUNT_MAX => {
            return Err(Refusal::Limit(format!("{} addresses", limits::ADDRESSES_PER_ACCOUNT_MAX)).into());
        }
        None => {
            former::require_rested(turn, account, address)?;
            attach(turn, account, &mut row, address)?;
        }
    }
    if primary && row.primary_address != address {
        row.primary_address = address.into();
        record(turn, account, &mut row, address, Event::MadePrimary);
    }
    turn.draft.put(rows::account(account), format::encode(&row));
    Ok(done(account))
}

/// One address less. Once it has rested anybody may have it; both histories keep that it was here.
pub fn address_remove(turn: &mut Turn<'_>, account: AccountId, address: &str) -> Step<Outcome> {
    let mut row = find(turn, account)?;
    let owner: Option<AddressRow> = rows::load(&turn.draft, "address", &rows::address(address))?;
    if owner.is_none_or(|owner| owner.account != account) {
        return Err(Refusal::NoAddress(address.into()).into());
    }
    if row.primary_address == address {
        return Err(Refusal::PrimaryAddress(address.into()).into());
    }
    turn.draft.remove(rows::address(address));
    turn.draft.remove(rows::own_address(account, address));
    row.addresses -= 1;
    record(turn, account, &mut row, address, Event::Removed);
    former::leave(turn, account, address);
    turn.draft.put(rows::account(account), format::encode(&row));

    let domain = rows::domain(address::domain(address));
    let mut count: DomainRow = rows::must(&turn.draft, "domain", &domain)?;
    count.addresses -= 1;
    if count.addresses == 0 {
        turn.draft.remove(domain);
    } else {
        turn.draft.put(domain, format::encode(&count));
    }
    Ok(done(account))
}

pub(super) fn done(account: AccountId) -> Outcome {
    Outcome::Account {
        account,
        repeated: false,
    }
}

pub(super) fn find(turn: &Turn<'_>, account: AccountId) -> Step<AccountRow> {
    let row = rows::load(&turn.draft, "account", &rows::account(account))?;
    row.ok_or_else(|| Refusal::NoAccount.into())
}

fn check_address(address: &str) -> Result<(), Refusal> {
    if address::is_normal(address) {
        Ok(())
    } else {
        // A hostile text is not copied into an answer that is kept and shown.
        Err(Refusal::BadAddress(address.chars().take(80).collect()))
    }
}

fn check_password_hash(hash: Option<&str>) -> Result<(), Refusal> {
    match hash {
        Some(hash) if !hash.starts_with("$argon2id$") || hash.len() > PASSWORD_HASH_MAX_BYTES => Err(Refusal::Invalid(
            "a password is kept as a PHC string of argon2id".into(),
        )),
        _ => Ok(()),
    }
}

fn put_password(turn: &mut Turn<'_>, account: AccountId, hash: Option<&str>) {
    if let Some(hash) = hash {
        let row = PasswordRow { hash: hash.into() };
        turn.draft.put(rows::password(account), format::encode(&row));
    }
}

/// Gives a free address to the account. The caller puts the account's row.
fn attach(turn: &mut Turn<'_>, account: AccountId, row: &mut AccountRow, address: &str) -> Result<(), Fault> {
    former::take(turn, address)?;
    let since_ms = turn.clock.time_ms;
    turn.draft
        .put(rows::address(address), format::encode(&AddressRow { account }));
    let own = OwnAddressRow { since_ms };
    turn.draft
        .put(rows::own_address(account, address), format::encode(&own));
    let domain = rows::domain(address::domain(address));
    let count: Option<DomainRow> = rows::load(&turn.draft, "domain", &domain)?;
    let addresses = count.map_or(0, |count| count.addresses) + 1;
    turn.draft.put(domain, format::encode(&DomainRow { addresses }));
    row.addresses += 1;
    record(turn, account, row, address, Event::Added);
    Ok(())
}

/// Adds a line to the account's history; beyond the bound the oldest line goes. The caller puts the account's row.
fn record(turn: &mut Turn<'_>, account: AccountId, row: &mut AccountRow, address: &str, event: Event) {
    let line = HistoryRow {
        time_ms: turn.clock.time_ms,
        address: address.into(),
        event,
    };
    turn.draft
        .put(rows::history(account, row.history_next), format::encode(&line));
    row.history_next += 1;
    if row.history_next - row.history_first > limits::ADDRESS_EVENTS_PER_ACCOUNT_MAX {
        turn.draft.remove(rows::history(account, row.history_first));
        row.history_first += 1;
    }
}

/// Puts the account under a new sequence number of its shard. The caller puts the account's row.
fn grant(turn: &mut Turn<'_>, account: AccountId, row: &mut AccountRow) -> Result<(), Fault> {
    let key = rows::shard(row.shard);
    let mut shard: ShardRow = rows::must(&turn.draft, "shard", &key)?;
    if row.sequence != 0 {
        turn.draft.remove(rows::grant(row.shard, row.sequence));
    }
    shard.last_sequence += 1;
    row.sequence = shard.last_sequence;
    let grant = GrantRow { account };
    turn.draft
        .put(rows::grant(row.shard, row.sequence), format::encode(&grant));
    turn.draft.put(key, format::encode(&shard));
    Ok(())
}
