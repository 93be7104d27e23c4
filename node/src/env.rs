//! The wall clock and entropy: the one place where a node learns the time of day and draws ids and secrets.
//!
//! Both travel in commands (architecture, decision 5), so whoever proposes one holds an [`Env`]. [`Env::real`] is what `malled`
//! runs with; [`Env::manual`] is for tests and simulation: a clock that only moves when told, and bytes that follow from a seed.
//! What is absent: monotonic time and timers (`malle_rt`), and jitter (`malle_rt::random_below`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use malle_machine::directory::TokenKey;
use malle_proto::{AccountId, ClusterId, EmailId, MailboxId, OpId, ThreadId};
use ring::rand::{SecureRandom, SystemRandom};

/// Tells the time of day.
pub trait Clock: Send + Sync {
    /// Milliseconds since 1970. May fall and jump, as an operator's hand or NTP moves it.
    fn now_ms(&self) -> u64;
}

/// Gives bytes that nobody can guess.
pub trait Entropy: Send + Sync {
    /// Fills `bytes`.
    fn fill(&self, bytes: &mut [u8]);
}

/// A clock and a source of entropy.
#[derive(Clone)]
pub struct Env {
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

impl Env {
    /// The machine's own.
    pub fn real() -> Env {
        Env::new(Arc::new(SystemClock), Arc::new(SystemEntropy(SystemRandom::new())))
    }

    /// These.
    pub fn new(clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Env {
        Env { clock, entropy }
    }

    /// A clock that stands at `start_ms` until it is moved, and bytes that follow from `seed`.
    pub fn manual(start_ms: u64, seed: u64) -> (Env, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock(AtomicU64::new(start_ms)));
        let entropy = SeededEntropy {
            seed,
            drawn: AtomicU64::new(0),
        };
        (Env::new(clock.clone(), Arc::new(entropy)), clock)
    }

    /// Milliseconds since 1970.
    pub fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    /// Fills `bytes` with what nobody can guess.
    pub fn fill(&self, bytes: &mut [u8]) {
        self.entropy.fill(bytes);
    }

    /// `N` bytes that nobody can guess.
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }

    /// A fresh account id.
    pub fn account_id(&self) -> AccountId {
        AccountId(self.bytes())
    }

    /// A fresh mailbox id.
    pub fn mailbox_id(&self) -> MailboxId {
        MailboxId(self.bytes())
    }

    /// A fresh email id.
    pub fn email_id(&self) -> EmailId {
        EmailId(self.bytes())
    }

    /// A fresh thread id.
    pub fn thread_id(&self) -> ThreadId {
        ThreadId(self.bytes())
    }

    /// A fresh op id.
    pub fn op_id(&self) -> OpId {
        OpId(self.bytes())
    }

    /// A fresh cluster id.
    pub fn cluster_id(&self) -> ClusterId {
        ClusterId(self.bytes())
    }

    /// A fresh key for login tokens.
    pub fn token_key(&self, id: u32) -> TokenKey {
        TokenKey {
            id,
            secret: self.bytes(),
        }
    }
}

struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> u64 {
        // Before 1970 the clock is wrong; the machine's time stands still until it is right again.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

struct SystemEntropy(SystemRandom);

impl Entropy for SystemEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        self.0
            .fill(bytes)
            .expect("the kernel gives random bytes; a node that has none must stop before it repeats an id");
    }
}

/// Stands still until it is moved.
#[derive(Debug)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    /// Moves forward.
    pub fn advance_ms(&self, step_ms: u64) {
        self.0.fetch_add(step_ms, Ordering::SeqCst);
    }

    /// Moves anywhere.
    pub fn set_ms(&self, now_ms: u64) {
        self.0.store(now_ms, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

struct SeededEntropy {
    seed: u64,
    drawn: AtomicU64,
}

impl Entropy for SeededEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.seed.to_le_bytes());
        hasher.update(&self.drawn.fetch_add(1, Ordering::SeqCst).to_le_bytes());
        hasher.finalize_xof().fill(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::Env;

    #[test]
    fn a_manual_environment_repeats_itself_and_moves_only_when_told() {
        let (first, clock) = Env::manual(1000, 7);
        let (second, _) = Env::manual(1000, 7);
        let (other, _) = Env::manual(1000, 8);
        let ids = |env: &Env| (env.account_id(), env.mailbox_id(), env.op_id());
        let drawn = ids(&first);
        assert_eq!(drawn, ids(&second));
        assert_ne!(drawn, ids(&other));
        assert_ne!(drawn, ids(&first), "no id twice");
        clock.advance_ms(5);
        assert_eq!((first.now_ms(), second.now_ms()), (1005, 1000));
        clock.set_ms(3);
        assert_eq!(first.now_ms(), 3);
    }

    #[test]
    fn the_real_environment_knows_this_century_and_repeats_nothing() {
        let env = Env::real();
        assert!(env.now_ms() > 1_767_225_600_000, "later than 2026-01-01");
        assert_ne!(env.op_id(), env.op_id());
    }
}
