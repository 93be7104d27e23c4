//! openraft's log storage, told in this room's words.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};

use futures::Stream;
use malle_proto::limits;
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader};

use crate::controls;

use super::group::GroupLog;
use super::records::VoteRecord;
use super::types::{Entry, LogId, TypeConfig, Vote};

fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let from = match range.start_bound() {
        Bound::Included(index) => *index,
        Bound::Excluded(index) => index + 1,
        Bound::Unbounded => 0,
    };
    let to = match range.end_bound() {
        Bound::Included(index) => index + 1,
        Bound::Excluded(index) => *index,
        Bound::Unbounded => u64::MAX,
    };
    (from, to)
}

impl GroupLog {
    /// `from`, raised to the first entry there is: the range of a reader may begin in the purged part.
    fn clamp(&self, from: u64, to: u64) -> (u64, u64) {
        let contents = self.contents();
        let Some(first) = contents.slots.front().map(|slot| slot.id.index) else {
            return (0, 0);
        };
        (from.max(first), to.min(first + contents.slots.len() as u64))
    }
}

impl RaftLogReader<TypeConfig> for GroupLog {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let (from, to) = bounds(&range);
        let (from, to) = self.clamp(from, to);
        self.read(from, to, usize::MAX, false).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.contents().head.vote.map(Vote::from))
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        let (from, to) = self.clamp(start, end);
        self.read(from, to, limits::APPEND_REQUEST_MAX_BYTES, true).await
    }

    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = io::Result<Entry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (from, to) = bounds(&range);
        let (from, to) = self.clamp(from, to);
        // Piece by piece: a long backlog never stands in memory whole.
        let pieces = futures::stream::try_unfold((self.clone(), from), move |(log, from)| async move {
            if from >= to {
                return Ok(None);
            }
            let entries = log.read(from, to, limits::APPEND_REQUEST_MAX_BYTES, false).await?;
            let Some(last) = entries.last() else { return Ok(None) };
            let next = last.log_id.index + 1;
            Ok::<_, io::Error>(Some((futures::stream::iter(entries.into_iter().map(Ok)), (log, next))))
        });
        Box::pin(futures::TryStreamExt::try_flatten(pieces))
    }
}

impl RaftLogStorage<TypeConfig> for GroupLog {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let contents = self.contents();
        Ok(LogState {
            last_purged_log_id: contents.head.purged.map(LogId::from),
            last_log_id: contents.last(),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        if controls::is_on(controls::Control::ForgetVote) {
            return Ok(());
        }
        let vote = VoteRecord::from(vote);
        // A vote that is synced says to raft that the entries before it are.
        self.shared.riders_first.done_so_far().await;
        self.write_head(|head| head.vote = Some(vote)).await
    }

    /// Kept in memory alone: it tells which entries need no word of this node any more.
    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        let mut contents = self.contents();
        contents.committed = contents.committed.max(committed.map(|id| id.index));
        Ok(())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        self.append_entries(entries, |result| callback.io_completed(result))
            .await
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        self.truncate(last_log_id.map(|id| id.index)).await
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        GroupLog::purge(self, log_id).await
    }
}
