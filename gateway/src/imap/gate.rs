//! Who may have a session, and how soon a password is looked at. One gate for all IMAP listeners of a process, and for submission.
//!
//! Sessions are counted per address and per account. Failed logins are remembered per address and per name: beyond a few of them passwords of
//! that address or name are looked at one after the other, each a growing delay after the one before, however many
//! connections try. Nobody is locked out by a stranger's guesses: an address from which a name has logged in before does not wait for
//! that name's failures, until it fails itself.
//!
//! What must never be here: a password, or a name (only keyed hashes of names are kept). Every table is bounded; what is pushed out of one is
//! what was not asked for the longest. Absent: a memory that outlives the process or reaches other gateways.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use malle_client::AccountId;
use malle_proto::limits;
use tokio::time::Instant;

/// What the configuration says of sessions.
#[derive(Debug, Clone)]
pub struct GateBounds {
    /// Sessions from one address (of IPv6: from one /64) at the same time.
    pub sessions_per_address_max: usize,
    /// Sessions of one account at the same time.
    pub sessions_per_account_max: usize,
    /// Behind these addresses are many people: they are neither counted nor slowed down as one.
    pub proxies: Vec<IpAddr>,
}

impl Default for GateBounds {
    fn default() -> GateBounds {
        GateBounds {
            sessions_per_address_max: limits::IMAP_SESSIONS_PER_ADDRESS_MAX,
            sessions_per_account_max: limits::IMAP_SESSIONS_PER_ACCOUNT_MAX,
            proxies: Vec::new(),
        }
    }
}

/// See the module's header.
#[derive(Debug)]
pub struct Gate {
    bounds: GateBounds,
    hasher: RandomState,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    sessions: HashMap<Holder, usize>,
    failures: Remembered<Failures>,
    /// Pairs of address and name that logged in.
    familiar: Remembered<()>,
}

/// Who holds sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Holder {
    Address(IpAddr),
    Account(AccountId),
}

/// A session's place among those of its address or account; free again when dropped.
#[derive(Debug)]
pub struct Place {
    gate: Arc<Gate>,
    holder: Holder,
}

/// So many failed logins that nobody could wait for their turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooManyFailures;

impl Gate {
    /// An open gate.
    pub fn new(bounds: GateBounds) -> Gate {
        Gate {
            bounds,
            hasher: RandomState::new(),
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // What is counted here is right after every statement.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more session from this address; `Err` when it has as many as it may.
    pub fn enter_from(self: &Arc<Gate>, address: IpAddr) -> Result<Option<Place>, TooManySessions> {
        match self.counted(address) {
            Some(network) => self
                .enter(Holder::Address(network), self.bounds.sessions_per_address_max)
                .map(Some),
            None => Ok(None),
        }
    }

    /// A place for one more session of this account.
    pub(super) fn enter_as(self: &Arc<Gate>, account: AccountId) -> Result<Place, TooManySessions> {
        self.enter(Holder::Account(account), self.bounds.sessions_per_account_max)
    }

    fn enter(self: &Arc<Gate>, holder: Holder, sessions_max: usize) -> Result<Place, TooManySessions> {
        let mut state = self.state();
        let sessions = state.sessions.entry(holder).or_default();
        if *sessions >= sessions_max {
            return Err(TooManySessions);
        }
        *sessions += 1;
        Ok(Place {
            gate: Arc::clone(self),
            holder,
        })
    }

    /// How long this login waits before its password is looked at; its turn is taken from now on.
    pub fn turn(&self, address: IpAddr, name: &str) -> Result<Duration, TooManyFailures> {
        let now = Instant::now();
        let keys = self.keys(address, name);
        let mut state = self.state();
        if state.familiar.get(self.pair(address, name)).is_some() {
            return Ok(Duration::ZERO);
        }
        let mut turn = now;
        for &key in &keys {
            if let Some(failures) = state.failures.get(key) {
                turn = turn.max(failures.next_turn(now));
            }
        }
        if turn > now + Duration::from_millis(limits::IMAP_LOGIN_WAIT_MAX_MS) {
            return Err(TooManyFailures);
        }
        for &key in &keys {
            if let Some(failures) = state.failures.get(key) {
                failures.turn = turn + failures.delay(now);
            }
        }
        Ok(turn - now)
    }

    /// The password was wrong, or there is no such name.
    pub fn failed(&self, address: IpAddr, name: &str) {
        let now = Instant::now();
        let mut state = self.state();
        state.familiar.remove(self.pair(address, name));
        for key in self.keys(address, name) {
            match state.failures.get(key) {
                Some(failures) => {
                    failures.count = failures.now(now).saturating_add(1);
                    failures.at = now;
                    failures.turn = failures.turn.max(now + failures.delay(now));
                }
                None => state.failures.insert(
                    key,
                    Failures {
                        count: 1,
                        at: now,
                        turn: now,
                    },
                ),
            }
        }
    }

    /// The password was right: this address knows this name.
    pub fn succeeded(&self, address: IpAddr, name: &str) {
        self.state().familiar.insert(self.pair(address, name), ());
    }

    /// Under which failures are counted: the name, and the address unless many people are behind it.
    fn keys(&self, address: IpAddr, name: &str) -> Vec<u64> {
        let name = self.hasher.hash_one(("name", name.to_lowercase()));
        let network = self
            .counted(address)
            .map(|network| self.hasher.hash_one(("from", network)));
        network.into_iter().chain([name]).collect()
    }

    fn pair(&self, address: IpAddr, name: &str) -> u64 {
        self.hasher.hash_one((network(address), name.to_lowercase()))
    }

    /// The address as it is counted; `None` for a proxy.
    fn counted(&self, address: IpAddr) -> Option<IpAddr> {
        let address = address.to_canonical();
        (!self.bounds.proxies.contains(&address)).then(|| network(address))
    }
}

impl Default for Gate {
    fn default() -> Gate {
        Gate::new(GateBounds::default())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.gate.state();
        if let Some(sessions) = state.sessions.get_mut(&self.holder) {
            *sessions -= 1;
            if *sessions == 0 {
                state.sessions.remove(&self.holder);
            }
        }
    }
}

/// An address or account has as many sessions as it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many sessions")]
pub struct TooManySessions;

/// One subscriber has a whole /64 of IPv6.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
        four => four,
    }
}

/// Failed logins of an address or name.
#[derive(Debug, Clone, Copy)]
struct Failures {
    /// As of `at`.
    count: u32,
    at: Instant,
    /// When the next password may be looked at.
    turn: Instant,
}

impl Failures {
    /// What is left of them: half is forgotten with each such span.
    fn now(&self, now: Instant) -> u32 {
        let span = Duration::from_millis(limits::IMAP_LOGIN_FAILURES_HALVED_MS);
        let halvings = (now - self.at).as_millis() / span.as_millis();
        self.count
            .checked_shr(u32::try_from(halvings).unwrap_or(u32::MAX))
            .unwrap_or(0)
    }

    fn delay(&self, now: Instant) -> Duration {
        let Some(beyond) = self.now(now).checked_sub(limits::IMAP_LOGIN_FAILURES_FREE + 1) else {
            return Duration::ZERO;
        };
        let doubled = limits::IMAP_LOGIN_PAUSE_FIRST_MS << beyond.min(16);
        Duration::from_millis(doubled.min(limits::IMAP_LOGIN_PAUSE_LARGEST_MS))
    }

    fn next_turn(&self, now: Instant) -> Instant {
        if self.delay(now).is_zero() {
            now
        } else {
            self.turn.max(now)
        }
    }
}

/// A bounded memory: what was not asked for while half of it filled anew is forgotten.
#[derive(Debug)]
struct Remembered<T> {
    recent: HashMap<u64, T>,
    earlier: HashMap<u64, T>,
}

impl<T> Default for Remembered<T> {
    fn default() -> Remembered<T> {
        Remembered {
            recent: HashMap::new(),
            earlier: HashMap::new(),
        }
    }
}

impl<T> Remembered<T> {
    fn get(&mut self, key: u64) -> Option<&mut T> {
        if let Some(earlier) = self.earlier.remove(&key) {
            self.insert(key, earlier);
        }
        self.recent.get_mut(&key)
    }

    fn insert(&mut self, key: u64, value: T) {
        if self.recent.len() >= limits::IMAP_LOGINS_REMEMBERED_MAX / 2 {
            self.earlier = std::mem::take(&mut self.recent);
        }
        self.recent.insert(key, value);
    }

    fn remove(&mut self, key: u64) {
        self.recent.remove(&key);
        self.earlier.remove(&key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const THERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 7));
    const FREE: u32 = limits::IMAP_LOGIN_FAILURES_FREE;

    fn fail(gate: &Gate, address: IpAddr, name: &str, times: u32) {
        for _ in 0..times {
            gate.failed(address, name);
        }
    }

    #[test]
    fn an_address_and_an_account_have_so_many_sessions_and_no_more() {
        let gate = Arc::new(Gate::new(GateBounds {
            sessions_per_address_max: 2,
            sessions_per_account_max: 1,
            proxies: vec![THERE],
        }));
        let first = gate.enter_from(HERE).unwrap().unwrap();
        let _second = gate.enter_from(HERE).unwrap().unwrap();
        assert_eq!(gate.enter_from(HERE).unwrap_err(), TooManySessions);
        drop(first);
        let _third = gate.enter_from(HERE).unwrap().unwrap();
        let mapped: IpAddr = "::ffff:192.0.2.1".parse().unwrap();
        assert_eq!(gate.enter_from(mapped).unwrap_err(), TooManySessions);
        assert!((0..5).all(|_| gate.enter_from(THERE).unwrap().is_none()));
        let account = AccountId([1; 16]);
        let place = gate.enter_as(account).unwrap();
        assert_eq!(gate.enter_as(account).unwrap_err(), TooManySessions);
        let _other = gate.enter_as(AccountId([2; 16])).unwrap();
        drop(place);
        drop(gate.enter_as(account).unwrap());
        assert_eq!(gate.state().sessions.len(), 2, "who has no session is not kept");
    }

    #[test]
    fn a_whole_network_of_ipv6_is_one_address() {
        let gate = Arc::new(Gate::new(GateBounds {
            sessions_per_address_max: 1,
            ..GateBounds::default()
        }));
        let _first = gate.enter_from("2001:db8:1:2::1".parse().unwrap()).unwrap();
        assert!(gate.enter_from("2001:db8:1:2:ffff::9".parse().unwrap()).is_err());
        assert!(gate.enter_from("2001:db8:1:3::1".parse().unwrap()).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_few_failures_cost_nothing_and_more_cost_more_and_more() {
        let gate = Gate::default();
        fail(&gate, HERE, "a", FREE);
        assert_eq!(gate.turn(HERE, "a"), Ok(Duration::ZERO));
        let mut waits = Vec::new();
        for _ in 0..6 {
            gate.failed(HERE, "a");
            waits.push(gate.turn(HERE, "a").unwrap().as_secs());
            tokio::time::advance(Duration::from_secs(30)).await;
        }
        assert_eq!(waits, [1, 2, 4, 8, 15, 15]);
    }

    #[tokio::test(start_paused = true)]
    async fn many_connections_wait_one_behind_the_other() {
        let gate = Gate::default();
        fail(&gate, HERE, "a", FREE + 4);
        assert_eq!(gate.turn(HERE, "b").unwrap().as_secs(), 8);
        assert_eq!(gate.turn(THERE, "A").unwrap().as_secs(), 8);
        assert_eq!(gate.turn(HERE, "c").unwrap().as_secs(), 16);
        assert_eq!(gate.turn(HERE, "d").unwrap().as_secs(), 24);
        assert_eq!(gate.turn(HERE, "e"), Err(TooManyFailures));
        assert_eq!(gate.turn(THERE, "e"), Ok(Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stranger_locks_nobody_out() {
        let gate = Gate::default();
        gate.succeeded(HERE, "a");
        fail(&gate, THERE, "a", 50);
        assert_eq!(gate.turn(HERE, "a"), Ok(Duration::ZERO));
        assert!(gate.turn(THERE, "a").unwrap() > Duration::ZERO);
        gate.failed(HERE, "a");
        assert!(gate.turn(HERE, "a").unwrap_or(Duration::MAX) > Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_forgotten_in_time() {
        let gate = Gate::default();
        fail(&gate, HERE, "a", 40);
        let span = Duration::from_millis(limits::IMAP_LOGIN_FAILURES_HALVED_MS);
        tokio::time::advance(4 * span).await;
        assert_eq!(gate.turn(HERE, "a"), Ok(Duration::ZERO));
    }

    #[test]
    fn the_memory_is_bounded_and_keeps_what_is_asked_for() {
        let mut memory = Remembered::default();
        memory.insert(0, 0);
        for key in 1..5 * limits::IMAP_LOGINS_REMEMBERED_MAX as u64 {
            memory.insert(key, key);
            if key.is_multiple_of(1000) {
                assert_eq!(memory.get(0), Some(&mut 0));
            }
        }
        let kept = memory.recent.len() + memory.earlier.len();
        assert!(kept <= limits::IMAP_LOGINS_REMEMBERED_MAX, "{kept}");
        assert_eq!(memory.get(1), None);
    }
}
