//! Where addresses led a short time ago, so that not every recipient of every mail is a question to the directory.
//!
//! Only what is good for a delivery is remembered: an account that is there and in use. That there is no such address is asked anew each
//! time, so that a new one works at once. An answer is believed for [`limits::ADDRESS_REMEMBERED_MS`] from the moment in which it was asked
//! for, and an address that is removed goes to nobody else for far longer ([`limits::ADDRESS_RESTS_MS`]): mail may reach for that long
//! the account that had the address a moment ago, and never a third one.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use malle_proto::limits;
use malle_rt::Instant;

use crate::generations::Generations;
use crate::types::Resolved;

/// See the module's header.
pub(crate) struct Addresses(Mutex<Generations<String, (Instant, Resolved)>>);

impl Addresses {
    pub(crate) fn new() -> Addresses {
        Addresses(Mutex::new(Generations::of(limits::CLIENT_ADDRESSES_MAX)))
    }

    /// Where the address led, if that may still be believed.
    pub(crate) fn get(&self, address: &str) -> Option<Resolved> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (asked, resolved) = kept.get(address)?;
        if malle_rt::now() < *asked + Duration::from_millis(limits::ADDRESS_REMEMBERED_MS) {
            return Some(resolved.clone());
        }
        kept.remove(address);
        None
    }

    /// The directory's answer to a question of the moment `asked`.
    pub(crate) fn learn(&self, asked: Instant, address: &str, resolved: &Resolved) {
        if !resolved.suspended {
            let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            kept.set(address.to_owned(), (asked, resolved.clone()));
        }
    }

    /// The directory was changed from here: what is asked from now on shows it.
    pub(crate) fn forget(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

#[cfg(test)]
mod tests {
    use malle_proto::{AccountId, ShardId};

    use super::*;

    fn resolved(suspended: bool) -> Resolved {
        Resolved {
            account: AccountId([1; 16]),
            shard: ShardId(1),
            suspended,
            primary_address: "paul@example.org".into(),
        }
    }

    #[test]
    fn an_address_is_asked_for_again_when_its_answer_is_old() {
        let addresses = Addresses::new();
        let now = malle_rt::now();
        addresses.learn(now, "paul@example.org", &resolved(false));
        assert_eq!(addresses.get("paul@example.org"), Some(resolved(false)));
        let life = Duration::from_millis(limits::ADDRESS_REMEMBERED_MS);
        let long_ago = now - life;
        addresses.learn(long_ago, "paul@example.org", &resolved(false));
        assert_eq!(addresses.get("paul@example.org"), None);
    }

    #[test]
    fn who_is_suspended_is_asked_for_each_time_and_a_change_forgets_all() {
        let addresses = Addresses::new();
        addresses.learn(malle_rt::now(), "paul@example.org", &resolved(true));
        assert_eq!(addresses.get("paul@example.org"), None);
        addresses.learn(malle_rt::now(), "paul@example.org", &resolved(false));
        addresses.forget();
        assert_eq!(addresses.get("paul@example.org"), None);
    }
}
