//! Which sessions are logged in, so that they can be told of and ended from outside: one roster for all IMAP listeners of a process.
//!
//! A session stands here from its login to its end ([`Seat`]). What must never be here: a mail, a mailbox's name, a password. Ending is a request:
//! the session finishes its command and says BYE; its connection is closed when that takes longer than [`limits::IMAP_LEAVE_MS`].

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use malle_client::{AccountId, LoginProof, MailSession};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::store::Account;

/// See the module's header.
#[derive(Default)]
pub struct Roster {
    ids: RandomState,
    seats: Mutex<Seats>,
}

#[derive(Default)]
struct Seats {
    last: u64,
    by_account: HashMap<AccountId, Vec<Arc<Sitting>>>,
}

struct Sitting {
    number: u64,
    id: String,
    peer: String,
    tls: bool,
    since: Instant,
    account: Arc<dyn Account>,
    ending: Arc<Ending>,
}

/// A session's place in the roster; free again when dropped.
pub(super) struct Seat {
    roster: Arc<Roster>,
    account: AccountId,
    number: u64,
}

/// How a session hears that it must end.
#[derive(Debug, Default)]
pub struct Ending {
    why: OnceLock<&'static str>,
    told: Notify,
}

impl Ending {
    /// Asks the session to end; the first reason counts.
    pub fn end(&self, why: &'static str) {
        let _ = self.why.set(why);
        self.told.notify_waiters();
    }

    /// Waits until it must, and says why.
    pub(super) async fn ended(&self) -> &'static str {
        loop {
            // Made before the look: whoever ends between the two wakes it.
            let told = self.told.notified();
            if let Some(why) = self.why.get() {
                return why;
            }
            told.await;
        }
    }
}

impl Roster {
    fn seats(&self) -> MutexGuard<'_, Seats> {
        // What is kept here is right after every statement.
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session has logged in.
    pub(super) fn enter(
        self: &Arc<Roster>,
        account: Arc<dyn Account>,
        peer: String,
        tls: bool,
        ending: Arc<Ending>,
    ) -> Seat {
        let mut seats = self.seats();
        seats.last += 1;
        let (number, owner) = (seats.last, account.id());
        let sitting = Sitting {
            number,
            // A keyed hash: gateways that count alike do not name alike.
            id: format!("{:016x}", self.ids.hash_one(number)),
            peer,
            tls,
            since: Instant::now(),
            account,
            ending,
        };
        seats.by_account.entry(owner).or_default().push(Arc::new(sitting));
        Seat {
            roster: Arc::clone(self),
            account: owner,
            number,
        }
    }

    /// The sessions of an account, or the one with this id; with `end` they are ended.
    pub fn sessions(&self, account: AccountId, id: Option<&str>, end: bool) -> Vec<MailSession> {
        let seats = self.seats();
        let meant = seats.by_account.get(&account).into_iter().flatten();
        let meant = meant.filter(|sitting| id.is_none_or(|id| sitting.id == id));
        meant
            .map(|sitting| {
                if end {
                    sitting.ending.end("the session was ended by an operator");
                }
                MailSession {
                    id: sitting.id.clone(),
                    protocol: "imap".to_owned(),
                    peer: sitting.peer.clone(),
                    tls: sitting.tls,
                    opened_by: sitting.account.opened_by().to_owned(),
                    open_ms: sitting.since.elapsed().as_millis() as u64,
                }
            })
            .collect()
    }

    /// Every session's login, and how to end the session.
    pub fn logins(&self) -> Vec<(LoginProof, Arc<Ending>)> {
        let seats = self.seats();
        let all = seats.by_account.values().flatten();
        all.map(|sitting| (sitting.account.proof(), Arc::clone(&sitting.ending)))
            .collect()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = self.roster.seats();
        if let Some(sittings) = seats.by_account.get_mut(&self.account) {
            sittings.retain(|sitting| sitting.number != self.number);
            if sittings.is_empty() {
                seats.by_account.remove(&self.account);
            }
        }
    }
}
