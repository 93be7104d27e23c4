//! Whether what opened an account still holds: the password has not been changed, the application password not taken back, the access token not run
//! out, the account not been suspended.
//!
//! A login token is good for an hour, which is too long for who has lost a telephone. So every call with a token asks here, at most every
//! [`limits::LOGIN_CHECK_MS`] the node's own replica of the directory, and a majority before anybody is refused: a replica that is behind must not end
//! a session that began a moment ago. What is kept here is only what was looked at and when.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use malle_machine::directory::{AccountState, AppScopes, read};
use malle_machine::view::{Fault, View};
use malle_proto::{AccountId, ShardId, limits};
use malle_rt::Instant;

use super::error::Refused;
use crate::env::Env;
use crate::raft::{Barrier, Groups};
use crate::security::{Proof, Token};

/// See the module's header.
#[derive(Clone)]
pub(super) struct Standing {
    groups: Arc<Groups>,
    env: Env,
    looked: Arc<Mutex<Looked>>,
}

/// What was found to hold since `since`; all of it is forgotten together.
struct Looked {
    since: Instant,
    hold: BTreeSet<(AccountId, Proof)>,
}

impl Standing {
    pub(super) fn new(groups: Arc<Groups>, env: Env) -> Standing {
        let looked = Looked {
            since: malle_rt::now(),
            hold: BTreeSet::new(),
        };
        Standing {
            groups,
            env,
            looked: Arc::new(Mutex::new(looked)),
        }
    }

    /// Refuses a token whose login is over; it cannot be renewed either.
    pub(super) async fn require(&self, token: &Token) -> Result<(), Refused> {
        if ended(token.proof, self.env.now_ms()) {
            return Err(Refused::token_expired());
        }
        if self.was_looked_at(token) || self.holds_now(token).await? {
            return Ok(());
        }
        Err(Refused::token_expired())
    }

    /// Looks, whatever was found before.
    pub(super) async fn holds_now(&self, token: &Token) -> Result<bool, Refused> {
        for barrier in [Barrier::Local, Barrier::Linearizable] {
            let (wanted, now_ms) = (token.clone(), self.env.now_ms());
            let group = self
                .groups
                .get(ShardId::DIRECTORY)
                .ok_or_else(|| Refused::unavailable("the directory is not open here"))?;
            let deadline = malle_rt::now() + Duration::from_millis(limits::DEFAULT_DEADLINE_MS);
            if group
                .read(barrier, deadline, move |view| holds(view, &wanted, now_ms))
                .await?
            {
                self.remember(token);
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn was_looked_at(&self, token: &Token) -> bool {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        if malle_rt::now() - looked.since >= Duration::from_millis(limits::LOGIN_CHECK_MS) {
            looked.since = malle_rt::now();
            looked.hold.clear();
        }
        looked.hold.contains(&(token.account, token.proof))
    }

    /// As after [`limits::LOGIN_CHECK_MS`].
    #[cfg(test)]
    pub(super) fn forget(&self) {
        self.looked.lock().unwrap_or_else(PoisonError::into_inner).hold.clear();
    }

    fn remember(&self, token: &Token) {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        if looked.hold.len() >= limits::LOGINS_CHECKED_MAX {
            looked.hold.clear();
        }
        looked.hold.insert((token.account, token.proof));
    }
}

/// Does what opened the account still hold?
///
/// # Errors
/// A [`Fault`].
pub(super) fn holds(view: &dyn View, token: &Token, now_ms: u64) -> Result<bool, Fault> {
    let Some(account) = read::account(view, token.account)? else {
        return Ok(false);
    };
    if account.state == AccountState::Suspended {
        return Ok(false);
    }
    Ok(match token.proof {
        Proof::Password(_) => {
            read::password_hash(view, token.account)?.is_some_and(|hash| Proof::of_password(&hash) == token.proof)
        }
        Proof::AppPassword(_) => read::app_passwords(view, token.account)?
            .iter()
            .any(|one| one.scopes & AppScopes::MAIL != 0 && Proof::of_app_password(&one.digest) == token.proof),
        Proof::AccessToken { .. } => !ended(token.proof, now_ms),
    })
}

fn ended(proof: Proof, now_ms: u64) -> bool {
    match proof {
        Proof::AccessToken { ends_ms } => now_ms >= ends_ms.saturating_add(limits::CLOCK_SKEW_MS),
        Proof::Password(_) | Proof::AppPassword(_) => false,
    }
}
