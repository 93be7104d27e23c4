//! Who shares mailboxes with whom (RFC 4314): a row for each pair of an owner and a guest, so that the guest's LIST asks the shards of those owners
//! and no others. The rights themselves are not here; they lie with the mailboxes, and a row without a grant behind it shows nobody anything.
//!
//! Whoever grants adds the row before the grant and once more behind it; whoever takes the last grant back removes it, but only as he found it
//! before he saw that there is no grant left: an addition in between has left its own mark, and the row stays.

use malle_proto::{AccountId, OpId, limits};

use super::accounts::find;
use super::apply::{Step, Turn};
use super::rows::{self, SharingRow};
use super::{Outcome, Refusal};
use crate::format;
use crate::view::{Flow, View};

/// The pair is there, with this mark.
pub fn add(turn: &mut Turn<'_>, owner: AccountId, guest: AccountId, mark: OpId) -> Step<Outcome> {
    find(turn, owner)?;
    find(turn, guest)?;
    if owner == guest {
        return Err(Refusal::Invalid("an account shares nothing with itself".into()).into());
    }
    let key = rows::sharing(guest, owner);
    if turn.draft.get(&key)?.is_none() && count(turn, guest)? >= limits::SHARERS_PER_ACCOUNT_MAX {
        let most = limits::SHARERS_PER_ACCOUNT_MAX;
        return Err(Refusal::Limit(format!("{most} accounts that share with one")).into());
    }
    turn.draft.put(key, format::encode(&SharingRow { mark }));
    Ok(Outcome::Done)
}

/// The pair goes, if nobody has added it since it got this mark.
pub fn remove(turn: &mut Turn<'_>, owner: AccountId, guest: AccountId, mark: OpId) -> Step<Outcome> {
    let key = rows::sharing(guest, owner);
    let row: Option<SharingRow> = rows::load(&turn.draft, "sharing", &key)?;
    if row.is_some_and(|row| row.mark == mark) {
        turn.draft.remove(key);
    }
    Ok(Outcome::Done)
}

fn count(turn: &Turn<'_>, guest: AccountId) -> Step<usize> {
    let from = rows::sharings(guest);
    let mut count = 0;
    turn.draft.scan(&from, &rows::behind(from.clone()), &mut |_, _| {
        count += 1;
        Ok(Flow::More)
    })?;
    Ok(count)
}
