//! Answers raft messages of the peers.

use std::io::IoSlice;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use malle_journal::Disk;
use malle_machine::format::{self, Record};
use malle_machine::{directory, shard};
use malle_proto::v1::{RaftFrame, Rider};
use malle_proto::{NodeId, ShardId, limits};
use openraft::entry::RaftEntry;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, StreamAppendError, StreamAppendResult, TransferLeaderError,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use tokio::sync::mpsc;

use super::group::Group;
use super::groups::Groups;
use super::restore;
use super::riders::{room_in_frame, stored_body};
use crate::bodies::BodiesError;
use crate::log::records::{
    AppendRecord, AppendedRecord, ReadIndexRecord, RefusedRecord, SnapshotDoneRecord, SnapshotHeadRecord,
    TransferRecord, TransferredRecord, VoteRequestRecord, VotedRecord,
};
use crate::log::types::{LogId, StoredMembership, TypeConfig, Vote};
use crate::peers::RaftCall;
use crate::state::Checkpoint;

/// A forwarded command may take this long: its sender repeats it.
const FORWARDED: Duration = Duration::from_secs(5);

/// A disk without room waits this long for entries to be committed without it; then the leader is told, and sends them again. Less than a
/// leader takes for silence.
const COMMITTED_WITHOUT_US: Duration = Duration::from_millis(limits::APPEND_SILENCE_MS / 2);

/// Answers raft messages of the peers.
#[derive(Clone)]
pub struct RaftServer {
    groups: Arc<Groups>,
    disk: Arc<dyn Disk>,
    /// Where snapshots are received.
    dir: PathBuf,
    received: Arc<AtomicU64>,
}

fn encode_appended(result: StreamAppendResult<TypeConfig>) -> Bytes {
    format::encode(&match result {
        Ok(id) => AppendedRecord::Matches(id.map(Into::into)),
        Err(StreamAppendError::Conflict(id)) => AppendedRecord::Conflict(id.into()),
        Err(StreamAppendError::HigherVote(vote)) => AppendedRecord::HigherVote((&vote).into()),
    })
}

fn voted(response: &VoteResponse<TypeConfig>) -> Bytes {
    format::encode(&VotedRecord {
        vote: (&response.vote).into(),
        granted: response.vote_granted,
        last: response.last_log_id.map(Into::into),
    })
}

/// What the successor's answer means to the leader.
pub(super) fn transfer_result(
    request: &TransferLeaderRequest<TypeConfig>,
    done: TransferredRecord,
) -> TransferLeaderResponse<TypeConfig> {
    if let Some(vote) = done.vote_changed {
        return Err(TransferLeaderError::VoteChanged {
            expected: *request.from_leader(),
            actual: vote.into(),
        });
    }
    if let Some(last) = done.log_not_flushed {
        return Err(TransferLeaderError::LogNotFlushed {
            expected: request.last_log_id().copied(),
            actual: last.map(Into::into),
        });
    }
    Ok(())
}

/// Up to where a follower's log is the leader's once it has taken this.
pub(super) fn last_of(request: &AppendEntriesRequest<TypeConfig>) -> Option<LogId> {
    let last = request.entries.last().map(|entry| entry.log_id());
    last.or(request.prev_log_id)
}

impl RaftServer {
    /// Answers for these groups; snapshots are received into `dir`.
    pub fn new(groups: Arc<Groups>, disk: Arc<dyn Disk>, dir: PathBuf) -> Self {
        RaftServer {
            groups,
            disk,
            dir,
            received: Arc::default(),
        }
    }

    async fn group(&self, frame: &RaftFrame) -> Result<Arc<Group>, String> {
        if frame.to != self.groups.node().0 {
            return Err(format!("this is node {}, not {}", self.groups.node(), frame.to));
        }
        let shard = ShardId(frame.shard);
        if let Some(group) = self.groups.get(shard) {
            return Ok(group);
        }
        // A leader that adds this node to its group speaks first; the directory names the new replica only afterwards.
        if !self.groups.admits(shard, NodeId(frame.from)).await {
            return Err(format!("no replica of shard {shard} here"));
        }
        self.groups.open(shard).await.map_err(|error| error.to_string())
    }

    fn reply(&self, to: &RaftFrame, payload: Result<Bytes, String>) -> RaftFrame {
        let payload_data = payload.unwrap_or_else(|reason| format::encode(&RefusedRecord { reason }));
        RaftFrame {
            shard: to.shard,
            from: self.groups.node().0,
            to: to.from,
            payload_data,
            riders: Vec::new(),
            disk_room: room_in_frame(self.groups.bodies().disk().room()).into(),
        }
    }

    /// Stores the bodies that came with entries. Before the entries are taken: so an entry that is in a node's log has its small bodies on
    /// that node's volumes, and a committed one has them on a majority. A disk without room waits until the majority has the entries without
    /// this node; then they are taken without their bodies, which are missed and fetched when there is room.
    async fn store_riders(
        &self,
        group: &Group,
        riders: Vec<Rider>,
        request: &AppendEntriesRequest<TypeConfig>,
    ) -> Result<(), String> {
        let bodies: Vec<_> = riders
            .into_iter()
            .map(|rider| stored_body(group.shard(), rider))
            .collect::<Result<_, String>>()?;
        let stored = bodies.into_iter().map(|body| self.groups.bodies().receive(body));
        let Err(error) = futures::future::try_join_all(stored).await else {
            return Ok(());
        };
        let last = request.entries.last().map(|entry| entry.log_id().index);
        if error == BodiesError::Full
            && let Some(last) = last
            && group
                .committed()
                .reaches(&request.vote, last, COMMITTED_WITHOUT_US)
                .await
        {
            return Ok(());
        }
        Err(format!("a body that came with its entry: {error}"))
    }

    /// The request in a frame of the pipeline, its riders stored.
    async fn append_request(
        &self,
        group: &Group,
        mut frame: RaftFrame,
    ) -> Result<AppendEntriesRequest<TypeConfig>, String> {
        if frame.shard != group.shard().0 {
            return Err("a frame of another shard on this stream".to_owned());
        }
        let riders = std::mem::take(&mut frame.riders);
        let record = decode::<AppendRecord>(&frame)?;
        let request = AppendEntriesRequest::try_from(record).map_err(|error| error.to_string())?;
        if let Some(committed) = &request.leader_commit {
            group.committed().note(&request.vote, committed.index);
        }
        if !riders.is_empty() {
            self.store_riders(group, riders, &request).await?;
        }
        Ok(request)
    }

    /// One message, one answer. `from` is whose certificate it came under.
    pub async fn call(&self, from: NodeId, call: RaftCall, frame: RaftFrame) -> RaftFrame {
        let answer = self.answer(from, call, &frame).await;
        self.reply(&frame, answer)
    }

    async fn answer(&self, from: NodeId, call: RaftCall, frame: &RaftFrame) -> Result<Bytes, String> {
        if frame.from != from.0 {
            return Err(format!("node {from} speaks for node {}", frame.from));
        }
        let group = self.group(frame).await?;
        let raft = group.raft();
        match call {
            RaftCall::Heartbeat => {
                let request = self.append_request(&group, frame.clone()).await?;
                let (before, last) = (request.prev_log_id, last_of(&request));
                let answer = raft.append_entries(request).await.map_err(|error| error.to_string())?;
                Ok(encode_appended(match (answer, before) {
                    (AppendEntriesResponse::Success, _) => Ok(last),
                    (AppendEntriesResponse::PartialSuccess(matching), _) => Ok(matching),
                    (AppendEntriesResponse::HigherVote(vote), _) => Err(StreamAppendError::HigherVote(vote)),
                    (AppendEntriesResponse::Conflict, Some(at)) => return Err(self.has_lost(&group, at)),
                    (AppendEntriesResponse::Conflict, None) => return Err("a conflict before the first entry".into()),
                }))
            }
            RaftCall::Vote | RaftCall::PreVote => {
                let record = decode::<VoteRequestRecord>(frame)?;
                let mut request = VoteRequest::new(Vote::from(record.vote), record.last.map(Into::into));
                request.leadership_transfer = record.leadership_transfer;
                let response = if call == RaftCall::Vote {
                    raft.vote(request).await
                } else {
                    raft.pre_vote(request).await
                };
                response
                    .map(|response| voted(&response))
                    .map_err(|error| error.to_string())
            }
            RaftCall::TransferLeader => {
                let record = decode::<TransferRecord>(frame)?;
                let request = TransferLeaderRequest::new(record.from.into(), record.to, record.last.map(Into::into));
                let successor = request.to_node_id() == &self.groups.node().0;
                let result = raft
                    .handle_transfer_leader(request)
                    .await
                    .map_err(|error| error.to_string())?;
                if successor && result.is_ok() {
                    self.groups.duty().taken.fetch_add(1, Ordering::Relaxed);
                    tracing::info!(shard = %group.shard(), %from, "this node takes leadership over");
                }
                Ok(format::encode(&transferred(result)))
            }
            RaftCall::Propose => self.propose(&group, frame).await,
            RaftCall::ReadIndex => {
                let index = group.read_index().await.map_err(|error| error.to_string())?;
                Ok(format::encode(&ReadIndexRecord { index }))
            }
            RaftCall::SendSnapshot => restore::send(self.groups.transport().as_ref(), &group, from).await,
        }
    }

    /// A leader's heartbeat names the entry up to which this node acknowledged its log to it. Without that entry the disk did not keep what it
    /// had said it would, or was put back to an earlier state: then no vote from here is worth anything, and the node leaves.
    fn has_lost(&self, group: &Group, acknowledged: LogId) -> String {
        let last = group.status().last_log_index;
        if last == 0 {
            // A replica that was just made has lost nothing.
            return "this replica is empty".to_owned();
        }
        let shard = group.shard();
        let reason = format!(
            "the disk lost entries of shard {shard} that this node had acknowledged: it had entry {}, and the last one here is {last}",
            acknowledged.index
        );
        self.groups.duty().condemn(&reason);
        reason
    }

    /// A command that a node sends to whoever leads: any of the directory, and of a shard the steps of collection, which let go of nothing
    /// that is named. What a gateway asks never comes this way.
    async fn propose(&self, group: &Group, frame: &RaftFrame) -> Result<Bytes, String> {
        let deadline = malle_rt::now() + FORWARDED;
        if group.shard() == ShardId::DIRECTORY {
            let command: directory::Command = decode(frame)?;
            let outcome = group.propose_directory(command.op, deadline).await;
            return outcome
                .map(|outcome| format::encode(&outcome))
                .map_err(|error| error.to_string());
        }
        let command: shard::Command = decode(frame)?;
        if !matches!(
            command.op,
            shard::Op::ReleaseBodies { .. } | shard::Op::FreeBodies { .. }
        ) {
            return Err("only collection sends commands to a shard".into());
        }
        let outcome = group.propose_shard(command.op, deadline).await;
        outcome
            .map(|outcome| format::encode(&outcome))
            .map_err(|error| error.to_string())
    }

    /// A pipelined append: frames of one group in, answers out in the same order. Ends when either side does.
    pub async fn append(&self, from: NodeId, mut frames: mpsc::Receiver<RaftFrame>, answers: mpsc::Sender<RaftFrame>) {
        let Some(first) = frames.recv().await else { return };
        let group = match self.group(&first).await {
            Ok(group) if first.from == from.0 => group,
            Ok(_) => {
                let refused = Err(format!("node {from} speaks for node {}", first.from));
                let _ = answers.send(self.reply(&first, refused)).await;
                return;
            }
            Err(reason) => {
                // The sender closed its side if this does not arrive: nobody is left to tell.
                let _ = answers.send(self.reply(&first, Err(reason))).await;
                return;
            }
        };
        let head = RaftFrame {
            shard: first.shard,
            from: first.from,
            to: first.to,
            ..RaftFrame::default()
        };
        let refused = Arc::new(std::sync::Mutex::new(None));
        let told = refused.clone();
        let (server, of) = (self.clone(), group.clone());
        let requests = futures::stream::unfold((Some(first), frames), |(first, mut frames)| async move {
            let frame = match first {
                Some(frame) => frame,
                None => frames.recv().await?,
            };
            Some((frame, (None, frames)))
        })
        .map(move |frame| {
            let (server, group) = (server.clone(), of.clone());
            async move { server.append_request(&group, frame).await }
        })
        // In order; the riders of a frame are synced together with those of the frames around it.
        .buffered(limits::APPEND_WINDOW_REQUESTS)
        .scan((), move |(), request| {
            let request = request.map_err(|reason| {
                *told.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(reason);
            });
            std::future::ready(request.ok())
        });
        let mut results = Box::pin(group.raft().stream_append(Box::pin(requests)));
        while let Some(result) = results.next().await {
            let payload = result.map(encode_appended).map_err(|fatal| fatal.to_string());
            let last = payload.is_err();
            if answers.send(self.reply(&head, payload)).await.is_err() || last {
                return;
            }
        }
        let reason = refused.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if let Some(reason) = reason {
            let _ = answers.send(self.reply(&head, Err(reason))).await;
        }
    }

    /// Receives a snapshot of `size` bytes and installs it.
    pub async fn snapshot(&self, from: NodeId, head: RaftFrame, size: u64, chunks: mpsc::Receiver<Bytes>) -> RaftFrame {
        let answer = if head.from == from.0 {
            self.receive(&head, size, chunks).await
        } else {
            Err(format!("node {from} speaks for node {}", head.from))
        };
        self.reply(&head, answer)
    }

    async fn receive(&self, head: &RaftFrame, size: u64, mut chunks: mpsc::Receiver<Bytes>) -> Result<Bytes, String> {
        let shard = ShardId(head.shard);
        // A group that waits for a snapshot is not open; whatever member sends one, it is checked before it counts.
        let group = match self.groups.wants(shard) && head.to == self.groups.node().0 {
            true => None,
            false => Some(self.group(head).await?),
        };
        let record = decode::<SnapshotHeadRecord>(head)?;
        let number = self.received.fetch_add(1, Ordering::Relaxed);
        let path = self.dir.join(format!("snapshot-{}-{number}", head.shard));
        let disk = self.disk.clone();
        let (create_disk, create_path) = (disk.clone(), path.clone());
        let file = malle_rt::blocking(move || create_disk.create(&create_path))
            .await
            .map_err(|error| error.to_string())?;
        let mut at = 0u64;
        let mut failed = None;
        while let Some(chunk) = chunks.recv().await {
            if chunk.len() > limits::GRPC_MESSAGE_MAX_BYTES || at + chunk.len() as u64 > size {
                failed = Some("more bytes than announced".to_owned());
                break;
            }
            let (file, length) = (file.clone(), chunk.len() as u64);
            let written = malle_rt::blocking(move || file.write_at(at, &mut [IoSlice::new(&chunk)])).await;
            if let Err(error) = written {
                failed = Some(error.to_string());
                break;
            }
            at += length;
        }
        if failed.is_none() && at != size {
            failed = Some(format!("{at} of {size} bytes came"));
        }
        let opened = match failed {
            Some(reason) => Err(reason),
            None => {
                let (disk, path) = (disk.clone(), path.clone());
                malle_rt::blocking(move || {
                    file.sync_all()?;
                    Checkpoint::received(&disk, &path, shard)
                })
                .await
                .map_err(|error| error.to_string())
            }
        };
        let installed = match (opened, group) {
            (Ok(snapshot), Some(group)) => install(&group, record, snapshot).await,
            (Ok(snapshot), None) => self.groups.restore(shard, snapshot).await.map(|()| {
                let vote = record.vote;
                format::encode(&SnapshotDoneRecord { vote })
            }),
            (Err(reason), _) => Err(reason),
        };
        // Installed, it has another name; refused or superseded, nobody needs it.
        malle_rt::blocking(move || disk.remove(&path).ok()).await;
        installed
    }
}

async fn install(group: &Group, record: SnapshotHeadRecord, file: Checkpoint) -> Result<Bytes, String> {
    let last_membership = StoredMembership::try_from(record.membership).map_err(|error| error.to_string())?;
    let meta = openraft::alias::SnapshotMetaOf::<TypeConfig> {
        last_log_id: record.last.map(Into::into),
        last_membership,
    };
    if record.last != file.record().applied {
        return Err("the snapshot is not what its head says".into());
    }
    let snapshot = openraft::alias::SnapshotOf::<TypeConfig, Checkpoint> { meta, snapshot: file };
    // Between its installing and the reading of its rows nobody may hear that all bodies are here.
    let _unread = group.bodies().unread();
    let response = group
        .raft()
        .install_full_snapshot(record.vote.into(), snapshot)
        .await
        .map_err(|error| error.to_string())?;
    group.bodies_after_snapshot().await;
    Ok(format::encode(&SnapshotDoneRecord {
        vote: (&response.vote).into(),
    }))
}

fn transferred(result: TransferLeaderResponse<TypeConfig>) -> TransferredRecord {
    let mut record = TransferredRecord {
        vote_changed: None,
        log_not_flushed: None,
    };
    match result {
        Ok(()) => {}
        Err(TransferLeaderError::VoteChanged { actual, .. }) => record.vote_changed = Some((&actual).into()),
        Err(TransferLeaderError::LogNotFlushed { actual, .. }) => {
            record.log_not_flushed = Some(actual.map(Into::into));
        }
    }
    record
}

fn decode<T: Record>(frame: &RaftFrame) -> Result<T, String> {
    format::decode(&frame.payload_data).map_err(|error| error.to_string())
}
