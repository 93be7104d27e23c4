//! Addresses that were taken from an account: for a time nobody else gets them.
//!
//! Front ends remember for a while where an address leads, so mail for it may go to the account that had it. It must never go there once it
//! is somebody else's. So an address rests after its removal, longer than anybody may remember it; only its former account gets it back
//! at once. A second index in the order of removal lets every command forget a few that rested long ago.
//!
//! Time is the earlier one of the machine's and the proposer's: a clock that is ahead for a few commands ends no rest, for the machine's time
//! stays ahead and the next proposer's is right.

use bytes::Bytes;
use malle_proto::{AccountId, limits};

use super::Refusal;
use super::apply::{Step, Turn};
use super::rows::{self, FormerRow, Tag};
use crate::format;
use crate::view::{Fault, Flow, View};

/// The address is nobody's from this command on.
pub fn leave(turn: &mut Turn<'_>, account: AccountId, address: &str) {
    let removed_ms = turn.clock.time_ms.max(turn.proposed_ms);
    let row = FormerRow { account, removed_ms };
    turn.draft.put(rows::former(address), format::encode(&row));
    turn.draft.put(rows::former_order(removed_ms, address), Bytes::new());
}

/// Whether this account may have the address, which is nobody's.
pub fn require_rested(turn: &Turn<'_>, account: AccountId, address: &str) -> Step<()> {
    match rows::load::<FormerRow>(&turn.draft, "former address", &rows::former(address))? {
        Some(former) if former.account != account && age_ms(turn, former.removed_ms) < limits::ADDRESS_RESTS_MS => {
            Err(Refusal::AddressRests(address.into()).into())
        }
        _ => Ok(()),
    }
}

/// The address is an account's again.
pub fn take(turn: &mut Turn<'_>, address: &str) -> Result<(), Fault> {
    let key = rows::former(address);
    if let Some(former) = rows::load::<FormerRow>(&turn.draft, "former address", &key)? {
        turn.draft.remove(key);
        turn.draft.remove(rows::former_order(former.removed_ms, address));
    }
    Ok(())
}

/// Forgets a few that rested long ago.
pub fn expire(turn: &mut Turn<'_>) -> Result<(), Fault> {
    let from = rows::first(Tag::FormerOrder);
    let mut rested = Vec::new();
    turn.draft.scan(&from, &rows::behind(from.clone()), &mut |key, _| {
        let (removed_ms, address) = rows::removal(key)?;
        if rested.len() == limits::RECEIPTS_EXPIRED_PER_COMMAND
            || age_ms(turn, removed_ms) < limits::ADDRESS_FORMER_KEPT_MS
        {
            return Ok(Flow::Stop);
        }
        rested.push(address.to_owned());
        Ok(Flow::More)
    })?;
    rested.iter().try_for_each(|address| take(turn, address))
}

fn age_ms(turn: &Turn<'_>, removed_ms: u64) -> u64 {
    let now_ms = turn.clock.time_ms.min(turn.proposed_ms);
    now_ms.saturating_sub(removed_ms)
}
