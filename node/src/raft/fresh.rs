//! How old the rows of a follower are at most: what it asked its leader, and when.
//!
//! Hearing from a leader proves nothing of that. A follower that comes back hears at once and lags for long; a message may have lain in a
//! queue while the follower stood still; and who speaks may be a leader that has lost its majority. So a follower asks its leader
//! for the index of a linearizable read (ReadIndex), and remembers by its own clock when it began to ask: once that index is applied here,
//! the rows have everything that was acknowledged before it asked. One answer serves all reads for as long as they may be old, and
//! one question is under way at a time.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use malle_rt::Instant;

/// See the module.
#[derive(Default)]
pub(super) struct Freshness {
    /// The newest answer.
    known: Mutex<Option<Known>>,
    /// Held by whoever asks.
    asking: tokio::sync::Mutex<()>,
}

/// What was acknowledged before `asked` is in the entries up to `index`.
#[derive(Clone, Copy)]
struct Known {
    asked: Instant,
    index: u64,
}

impl Freshness {
    /// The index that rows must have applied to be at most this old now. `ask` gives the index of a linearizable read that begins when it is
    /// called.
    pub async fn index<E, F: Future<Output = Result<u64, E>>>(
        &self,
        age: Duration,
        ask: impl FnOnce() -> F,
    ) -> Result<u64, E> {
        let begun = malle_rt::now();
        if let Some(index) = self.known_within(age, begun) {
            return Ok(index);
        }
        let _one_at_a_time = self.asking.lock().await;
        // Who asked meanwhile asked for this reader as well, when it began late enough.
        if let Some(index) = self.known_within(age, begun) {
            return Ok(index);
        }
        let asked = malle_rt::now();
        let index = ask().await?;
        *self.known() = Some(Known { asked, index });
        Ok(index)
    }

    fn known_within(&self, age: Duration, reader: Instant) -> Option<u64> {
        let known = *self.known();
        known
            .filter(|known| known.asked + age >= reader)
            .map(|known| known.index)
    }

    fn known(&self) -> MutexGuard<'_, Option<Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    async fn index(fresh: &Freshness, age: Duration, asked: &AtomicU64) -> u64 {
        let ask = || async { Ok::<_, Infallible>(10 * (asked.fetch_add(1, Ordering::SeqCst) + 1)) };
        fresh.index(age, ask).await.unwrap_or_else(|never| match never {})
    }

    #[tokio::test]
    async fn one_answer_serves_all_who_may_be_told_what_is_old() {
        let (fresh, asked) = (Freshness::default(), AtomicU64::new(0));
        assert_eq!(index(&fresh, LONG, &asked).await, 10);
        assert_eq!(index(&fresh, LONG, &asked).await, 10);
        // Who may be told nothing old asks, and what it learnt serves the others.
        assert_eq!(index(&fresh, Duration::ZERO, &asked).await, 20);
        assert_eq!(index(&fresh, LONG, &asked).await, 20);
    }

    #[tokio::test]
    async fn an_answer_that_did_not_come_is_asked_for_again() {
        let fresh = Freshness::default();
        assert_eq!(fresh.index(LONG, || async { Err("silence") }).await, Err("silence"));
        assert_eq!(fresh.index(LONG, || async { Ok::<_, &str>(3) }).await, Ok(3));
    }

    #[tokio::test]
    async fn who_comes_while_somebody_asks_asks_again_when_nothing_old_will_do() {
        let fresh = Freshness::default();
        let (answer, told) = tokio::sync::oneshot::channel();
        let mut first = Box::pin(fresh.index(LONG, || async { Ok::<u64, &str>(told.await.expect("it is told")) }));
        assert!(futures::poll!(&mut first).is_pending());
        let mut second = Box::pin(fresh.index(Duration::ZERO, || async { Ok::<u64, &str>(8) }));
        let mut third = Box::pin(fresh.index(LONG, || async { Err::<u64, &str>("not asked") }));
        assert!(futures::poll!(&mut second).is_pending() && futures::poll!(&mut third).is_pending());
        answer.send(7).expect("somebody waits");
        assert_eq!(first.await, Ok(7));
        assert_eq!(second.await, Ok(8));
        assert_eq!(third.await, Ok(8));
    }
}
