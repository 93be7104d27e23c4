//! The one policy of repeating: what follows a failed try, and how long to wait before the next.
//!
//! A call is repeated with the same op id until it has an answer or the caller's deadline is over, never longer. What a node says
//! (another leads, later, moved) is followed; a broken connection means the next replica; a refusal is the answer. Pauses grow from
//! [`limits::RETRY_FIRST_MS`] to [`limits::RETRY_LARGEST_MS`] with jitter, so that a thousand sessions that lost the same leader do not
//! come back in step. What is absent: a number of tries, for only the caller knows how long it can wait.

use std::time::Duration;

use malle_proto::limits;
use malle_rt::Instant;

use crate::error::{Class, Error, Failure};

/// Hints and moves that are followed without a pause; more of them in a row means that the cluster does not agree with itself yet.
const HOPS_MAX: u32 = 3;
/// A replica that cannot read its data is no answer; three that cannot are.
const FAULTS_MAX: u32 = 3;
/// The shortest time of one try, unless the deadline is nearer: below it a busy machine would be taken for a dead one.
const TRY_MIN: Duration = Duration::from_millis(1_000);

/// One call's patience.
#[derive(Debug)]
pub(crate) struct Retry {
    deadline: Instant,
    pause_ms: u64,
    hops: u32,
    faults: u32,
}

impl Retry {
    pub(crate) fn until(deadline: Instant) -> Retry {
        Retry {
            deadline,
            pause_ms: limits::RETRY_FIRST_MS,
            hops: 0,
            faults: 0,
        }
    }

    /// What is left of the caller's time; `None` when it is over.
    pub(crate) fn left(&self) -> Option<Duration> {
        let now = malle_rt::now();
        (now < self.deadline).then(|| self.deadline - now)
    }

    /// Time for the next try. Half of what is left, so that a node that hangs leaves time for another; all of it for a `patient` call,
    /// whose bytes take their time and whose connection is watched by its keep-alive.
    pub(crate) fn time_for_a_try(&self, patient: bool) -> Option<Duration> {
        let left = self.left()?;
        Some(if patient {
            left
        } else {
            (left / 2).max(TRY_MIN).min(left)
        })
    }

    /// Decides what follows a failed try: returns once the next one is due, after a pause where one is needed, or gives the error for
    /// the caller. `another` says that there is a replica that was not asked yet since the last pause. True: there was a pause.
    pub(crate) async fn after(&mut self, failure: Failure, another: bool) -> Result<bool, Error> {
        let wish = match &failure {
            Failure::Answer(error) => {
                self.faults += 1;
                if error.class() != Class::Fault || self.faults >= FAULTS_MAX {
                    return Err(failure.into_error());
                }
                Duration::ZERO
            }
            // The node is about to give the lead away: another replica knows to whom.
            Failure::Later {
                error: Error::DiskFull(_),
                after,
            } if another && after.as_millis() <= u128::from(limits::DISK_SHORT_RETRY_MS) => Duration::ZERO,
            Failure::Later { after, .. } => return self.pause(*after, failure).await,
            Failure::NotLeader(Some(_)) | Failure::Moved(_) => {
                self.hops += 1;
                if self.hops > HOPS_MAX {
                    return self.pause(Duration::ZERO, failure).await;
                }
                return self.at_once(failure);
            }
            Failure::NotLeader(None) | Failure::Broken(_) | Failure::Silent(_) => Duration::ZERO,
        };
        if another {
            self.at_once(failure)
        } else {
            self.pause(wish, failure).await
        }
    }

    fn at_once(&self, failure: Failure) -> Result<bool, Error> {
        if self.left().is_some() {
            Ok(false)
        } else {
            Err(failure.into_error())
        }
    }

    /// Waits, or gives up at once when the wait would outlast the deadline: the caller gets its time back.
    async fn pause(&mut self, wish: Duration, failure: Failure) -> Result<bool, Error> {
        let half = self.pause_ms / 2;
        let wait = Duration::from_millis(half + malle_rt::random_below(half + 1)).max(wish);
        self.pause_ms = (self.pause_ms * 2).min(limits::RETRY_LARGEST_MS);
        self.hops = 0;
        match self.left() {
            Some(left) if left > wait => {
                tracing::debug!(?failure, ?wait, "the call is repeated");
                malle_rt::sleep(wait).await;
                Ok(true)
            }
            _ => Err(failure.into_error()),
        }
    }
}

#[cfg(test)]
mod tests {
    use malle_proto::NodeId;

    use super::*;

    fn retry(ms: u64) -> Retry {
        Retry::until(malle_rt::now() + Duration::from_millis(ms))
    }

    #[tokio::test]
    async fn a_refusal_is_returned_at_once() {
        let mut retry = retry(60_000);
        let answer = retry.after(Failure::Answer(Error::BadCredentials), true).await;
        assert_eq!(answer, Err(Error::BadCredentials));
    }

    #[tokio::test]
    async fn pauses_grow_to_the_largest_and_end_at_the_deadline() {
        let mut retry = retry(300);
        let mut pauses = 0;
        let error = loop {
            match retry.after(Failure::Broken("down".to_owned()), false).await {
                Ok(true) => pauses += 1,
                Ok(false) => panic!("nobody else to ask, and yet no pause"),
                Err(error) => break error,
            }
        };
        assert_eq!(error, Error::Unavailable("down".to_owned()));
        // At least 10 + 20 + 40 + 80 + 160 ms: the fifth pause at the latest would outlast the deadline.
        assert!((1..=5).contains(&pauses), "{pauses} pauses");
        assert_eq!(
            retry.pause_ms,
            (limits::RETRY_FIRST_MS << (pauses + 1)).min(limits::RETRY_LARGEST_MS)
        );
        retry.pause_ms = limits::RETRY_LARGEST_MS;
        retry
            .after(Failure::Broken("down".to_owned()), false)
            .await
            .unwrap_err();
        assert_eq!(retry.pause_ms, limits::RETRY_LARGEST_MS);
    }

    #[tokio::test]
    async fn a_wish_beyond_the_deadline_gives_the_time_back() {
        let failure = Failure::Later {
            error: Error::Busy(Duration::from_secs(900)),
            after: Duration::from_secs(900),
        };
        let mut retry = retry(600_000);
        let answer = malle_rt::timeout(Duration::from_secs(60), retry.after(failure, true)).await;
        assert_eq!(answer, Ok(Err(Error::Busy(Duration::from_secs(900)))));
    }

    #[tokio::test]
    async fn who_is_short_of_room_is_left_for_another_and_a_full_cluster_is_given_up() {
        let full = |after_ms| {
            let after = Duration::from_millis(after_ms);
            let error = Error::DiskFull(after);
            Failure::Later { error, after }
        };
        let mut retry = retry(20_000);
        assert_eq!(retry.after(full(limits::DISK_SHORT_RETRY_MS), true).await, Ok(false));
        let given_up = retry.after(full(limits::DISK_FULL_RETRY_MS), true).await;
        assert_eq!(
            given_up,
            Err(Error::DiskFull(Duration::from_millis(limits::DISK_FULL_RETRY_MS)))
        );
    }

    #[tokio::test]
    async fn hints_that_go_in_circles_are_paused() {
        let mut retry = retry(60_000);
        let mut follow = async || retry.after(Failure::NotLeader(Some(NodeId(1))), true).await.unwrap();
        let paused = [follow().await, follow().await, follow().await, follow().await];
        assert_eq!(paused, [false, false, false, true]);
    }

    #[tokio::test]
    async fn damage_on_every_replica_is_an_answer() {
        let mut retry = retry(60_000);
        let damage = || Failure::Answer(Error::Corrupt("row".to_owned()));
        assert_eq!(retry.after(damage(), true).await, Ok(false));
        assert_eq!(retry.after(damage(), true).await, Ok(false));
        assert_eq!(retry.after(damage(), true).await, Err(Error::Corrupt("row".to_owned())));
    }
}
