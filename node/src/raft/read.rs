//! Reads of a group's rows, each behind its barrier.
//!
//! A linearizable read asks a majority whether this node still leads, after the read began (ReadIndex). One question serves everybody
//! who was waiting when it was put: readers that come while a round is under way share the next one, so that a thousand sessions cost
//! as many messages as one. [`ReadRounds`] is that sharing; it never lets a reader use a round that began before the reader came.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use malle_machine::shard;
use malle_machine::view::{Fault, View};
use malle_proto::v1::RaftFrame;
use malle_rt::Instant;
use openraft::ReadPolicy;
use openraft::async_runtime::WatchReceiver;
use openraft::raft::linearizable_read::Linearizer;

use super::group::Group;
use super::network::answer;
use super::{Barrier, GroupError};
use crate::controls;
use crate::log::records::ReadIndexRecord;
use crate::log::types::{LeaderId, TypeConfig};
use crate::peers::RaftCall;

/// A leader asks its majority within this, or a reader goes to another replica.
const LEADER_ANSWERS: Duration = Duration::from_secs(2);

/// One round and what it found; whoever shares it may drive it.
type Work = BoxFuture<'static, Result<(), GroupError>>;

/// Rounds of ReadIndex, one at a time.
#[derive(Clone, Default)]
pub(super) struct ReadRounds {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Held while a round is under way.
    running: tokio::sync::Mutex<()>,
    /// The round that has not begun: whoever comes now may share it. It belongs to its readers and goes with the last of them.
    next: Mutex<Option<WeakShared<Work>>>,
}

impl ReadRounds {
    /// Waits for a round that begins after this call: `ask`, one at a time, then `settle` with what it found.
    async fn join<T, F, G>(
        &self,
        ask: impl FnOnce() -> F + Send + 'static,
        settle: impl FnOnce(T) -> G + Send + 'static,
    ) -> Result<(), GroupError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, GroupError>> + Send + 'static,
        G: Future<Output = Result<(), GroupError>> + Send + 'static,
    {
        let round = {
            let mut next = self.next();
            match next.as_ref().and_then(WeakShared::upgrade) {
                Some(round) => round,
                None => {
                    let rounds = self.clone();
                    let work = async move {
                        let found = {
                            let _running = rounds.inner.running.lock().await;
                            // From here on it is too late to join.
                            rounds.next().take();
                            ask().await?
                        };
                        settle(found).await
                    };
                    let round: Shared<Work> = work.boxed().shared();
                    *next = round.downgrade();
                    round
                }
            }
        };
        round.await
    }

    fn next(&self) -> MutexGuard<'_, Option<WeakShared<Work>>> {
        self.inner.next.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Group {
    /// Looks at the rows once the barrier holds.
    ///
    /// # Errors
    /// See [`GroupError`]; a fault of the view is `Stopped`.
    pub async fn read<T: Send + 'static>(
        &self,
        barrier: Barrier,
        deadline: Instant,
        look: impl FnOnce(&dyn View) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, GroupError> {
        match malle_rt::timeout_at(deadline, self.wait_for(barrier)).await {
            Ok(ready) => ready?,
            Err(_) => return Err(GroupError::Deadline),
        }
        self.state().read(look).await.map_err(|fault| self.read_failed(fault))
    }

    /// Looks at rows on which a write will be built, and says as which leader it did. The answer has everything that was acknowledged before,
    /// once a proposal by that same leader is committed: until then nobody else can have led, and what others had acknowledged before this
    /// node led was applied before its own first entry. So a majority is asked once, by the write. Until then it is a guess, and no answer to
    /// anybody: a refusal that is made of it needs a proposal too.
    ///
    /// # Errors
    /// As [`Group::read`].
    pub async fn read_before_write<T: Send + 'static>(
        &self,
        deadline: Instant,
        look: impl FnOnce(&dyn View) -> Result<T, Fault> + Send + 'static,
    ) -> Result<(T, Option<LeaderId>), GroupError> {
        let leader = self.leads_as();
        let barrier = match leader {
            Some(_) => Barrier::Local,
            None => Barrier::Linearizable,
        };
        Ok((self.read(barrier, deadline, look).await?, leader))
    }

    /// As which leader this node leads, once it has applied an entry of its own as that.
    fn leads_as(&self) -> Option<LeaderId> {
        let applied = self.state().applied_id()?.leader_id;
        let term = self.raft().metrics().borrow_watched().current_term;
        (self.is_leader() && applied.term == term && applied.node_id == self.node().0).then_some(applied)
    }

    /// The epoch that a put which begins now belongs to, as far as this replica has applied.
    ///
    /// # Errors
    /// A fault of the view is `Stopped`.
    pub fn body_epoch(&self) -> Result<u64, GroupError> {
        let epoch = self.state().glance(shard::read::body_epoch);
        epoch.map_err(|fault| self.read_failed(fault))
    }

    fn read_failed(&self, fault: Fault) -> GroupError {
        match fault {
            Fault::Storage(reason) => {
                tracing::error!(shard = %self.shard(), reason, "a read failed");
                GroupError::Rebuilding
            }
            other => GroupError::Stopped(other.to_string()),
        }
    }

    async fn wait_for(&self, barrier: Barrier) -> Result<(), GroupError> {
        match barrier {
            Barrier::Linearizable if self.is_leader() && controls::is_on(controls::Control::StaleRead) => Ok(()),
            Barrier::Linearizable => {
                let (asks, waits) = (self.raft().clone(), self.raft().clone());
                let ask = move || async move { Ok(asks.get_read_linearizer(ReadPolicy::ReadIndex).await?) };
                let settle = move |linearizer: Linearizer<TypeConfig>| async move {
                    linearizer.await_ready(&waits).await?;
                    Ok(())
                };
                self.rounds().join(ask, settle).await
            }
            Barrier::AtLeast { account, modseq } => {
                let mut applied = self.state().applied();
                loop {
                    applied.borrow_and_update();
                    let found = self.state().read(move |view| shard::read::account(view, account)).await;
                    match found {
                        Ok(Some(account)) if account.modseq >= modseq => return Ok(()),
                        Ok(_) => {}
                        Err(fault) => return Err(GroupError::Stopped(fault.to_string())),
                    }
                    if applied.changed().await.is_err() {
                        return Err(GroupError::Stopped("the group closed".into()));
                    }
                }
            }
            Barrier::Stale(age) => self.be_fresh(age).await,
            Barrier::OwnChange | Barrier::Local => Ok(()),
        }
    }

    /// A leader is fresh while its lease lasts, a follower once it has applied what its leader said within `age`: see [`super::fresh`].
    async fn be_fresh(&self, age: Duration) -> Result<(), GroupError> {
        if self.is_leader() {
            return self.wait_leader_lease().await;
        }
        let index = self.freshness().index(age, || self.ask_leader()).await?;
        let mut applied = self.state().applied();
        let reached = applied.wait_for(|applied| *applied >= index).await;
        reached
            .map(drop)
            .map_err(|_| GroupError::Stopped("the group closed".into()))
    }

    /// The index of a linearizable read, from the leader.
    async fn ask_leader(&self) -> Result<u64, GroupError> {
        let leader = self.leader().filter(|leader| *leader != self.node());
        let leader = leader.ok_or(GroupError::NotLeader { leader: None })?;
        let frame = RaftFrame {
            shard: self.shard().0,
            from: self.node().0,
            to: leader.0,
            ..RaftFrame::default()
        };
        let unavailable = |reason: String| GroupError::Unavailable(reason);
        let deadline = malle_rt::now() + LEADER_ANSWERS;
        let reply = self
            .transport()
            .call(leader, RaftCall::ReadIndex, frame, deadline)
            .await;
        let reply = reply.map_err(|error| unavailable(error.to_string()))?;
        let said: ReadIndexRecord = answer(&reply).map_err(unavailable)?;
        Ok(said.index)
    }

    /// Everything that was acknowledged before this call is in the entries up to this index.
    ///
    /// # Errors
    /// `NotLeader`, or `Unavailable` without a majority.
    pub(super) async fn read_index(&self) -> Result<u64, GroupError> {
        let linearizer = self.raft().get_read_linearizer(ReadPolicy::ReadIndex).await?;
        Ok(linearizer.read_log_id().index())
    }

    async fn wait_leader_lease(&self) -> Result<(), GroupError> {
        let linearizer = self.raft().get_read_linearizer(ReadPolicy::LeaseRead).await?;
        linearizer.await_ready(self.raft()).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::sync::Semaphore;

    use super::*;

    async fn settled(_: ()) -> Result<(), GroupError> {
        Ok(())
    }

    #[tokio::test]
    async fn readers_share_the_next_round_and_never_one_that_began_before_them() {
        let rounds = ReadRounds::default();
        let (begun, gate) = (Arc::new(AtomicU32::new(0)), Arc::new(Semaphore::new(0)));
        let reader = || {
            let (rounds, begun, gate) = (rounds.clone(), begun.clone(), gate.clone());
            let came_after = begun.load(Ordering::SeqCst);
            async move {
                let (counted, held) = (begun.clone(), gate.clone());
                rounds
                    .join(
                        move || async move {
                            counted.fetch_add(1, Ordering::SeqCst);
                            held.acquire().await.expect("never closed").forget();
                            Ok(())
                        },
                        settled,
                    )
                    .await
                    .unwrap();
                assert!(begun.load(Ordering::SeqCst) > came_after);
            }
        };
        let first = tokio::spawn(reader());
        while begun.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        // These come while the first round is under way: they need another, and share it.
        let later: Vec<_> = (0..10).map(|_| tokio::spawn(reader())).collect();
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(begun.load(Ordering::SeqCst), 1);
        gate.add_permits(1);
        first.await.unwrap();
        gate.add_permits(1);
        for reader in later {
            reader.await.unwrap();
        }
        assert_eq!(begun.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_reader_that_gives_up_leaves_the_round_to_the_others() {
        let rounds = ReadRounds::default();
        let gate = Arc::new(Semaphore::new(0));
        let held = gate.clone();
        let ask = move || async move {
            held.acquire().await.expect("never closed").forget();
            Ok(())
        };
        let mut first = Box::pin(rounds.join(ask, settled));
        assert!(futures::poll!(&mut first).is_pending());
        let mut second = Box::pin(rounds.join(|| async { Err(GroupError::Deadline) }, settled));
        assert!(futures::poll!(&mut second).is_pending());
        drop(first);
        assert_eq!(second.await, Err(GroupError::Deadline));
        gate.add_permits(1);
        assert_eq!(rounds.join(|| async { Ok(()) }, settled).await, Ok(()));
    }
}
