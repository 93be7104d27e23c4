//! Application passwords: several per account, each for one program, good for reading mail, for sending it, or both, and gone when its
//! owner takes it back.

use malle_proto::{AccountId, limits};

use super::accounts::{done, find};
use super::apply::{Step, Turn};
use super::rows::{self, AppPasswordRow};
use super::{AppScopes, Outcome, Refusal};
use crate::format;
use crate::view::{Flow, View};

/// One more.
pub fn add(turn: &mut Turn<'_>, account: AccountId, name: &str, digest: [u8; 32], scopes: u8) -> Step<Outcome> {
    find(turn, account)?;
    check_name(name)?;
    if scopes == 0 || scopes & !AppScopes::ALL != 0 {
        return Err(Refusal::Invalid("an application password is for mail, for submission, or both".into()).into());
    }
    if turn.draft.get(&rows::app_password(account, name))?.is_some() {
        return Err(Refusal::AppPasswordExists(name.into()).into());
    }
    let from = rows::app_passwords(account);
    let mut count = 0;
    turn.draft.scan(&from, &rows::behind(from.clone()), &mut |_, _| {
        count += 1;
        Ok(Flow::More)
    })?;
    if count >= limits::APP_PASSWORDS_PER_ACCOUNT_MAX {
        let most = limits::APP_PASSWORDS_PER_ACCOUNT_MAX;
        return Err(Refusal::Limit(format!("{most} application passwords")).into());
    }
    let row = AppPasswordRow {
        digest,
        scopes,
        created_ms: turn.clock.time_ms,
    };
    turn.draft.put(rows::app_password(account, name), format::encode(&row));
    Ok(done(account))
}

/// One less.
pub fn remove(turn: &mut Turn<'_>, account: AccountId, name: &str) -> Step<Outcome> {
    find(turn, account)?;
    check_name(name)?;
    let key = rows::app_password(account, name);
    if turn.draft.get(&key)?.is_none() {
        return Err(Refusal::NoAppPassword(name.into()).into());
    }
    turn.draft.remove(key);
    Ok(done(account))
}

/// A name is shown to people: so it is short, and printed as it is.
fn check_name(name: &str) -> Result<(), Refusal> {
    let fits = (1..=limits::APP_PASSWORD_NAME_MAX_BYTES).contains(&name.len());
    if fits && name.trim() == name && !name.chars().any(char::is_control) {
        Ok(())
    } else {
        Err(Refusal::Invalid(format!(
            "the name of an application password has 1 to {} bytes that are printed",
            limits::APP_PASSWORD_NAME_MAX_BYTES
        )))
    }
}
