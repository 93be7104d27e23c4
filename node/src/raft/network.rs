//! openraft's network over the peers' transport.
//!
//! Append is a pipeline: one stream per peer and group with a window of requests in flight, broken off when it falls silent while
//! something is in flight. Heartbeats are single calls that never wait behind it. Pre-votes are forwarded like votes.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use malle_machine::format::{self, FormatError, Record};
use malle_proto::v1::{RaftFrame, Rider};
use malle_proto::{NodeId, ShardId, limits};
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetworkFactory, RaftNetworkV2, stream_append_sequential};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError, StreamAppendResult,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{AnyError, EntryPayload, OptionalSend};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::riders::room_of_frame;
use crate::bodies::DiskWatch;
use crate::log::records::{
    AppendRecord, AppendedRecord, RefusedRecord, SnapshotDoneRecord, SnapshotHeadRecord, TransferRecord,
    TransferredRecord, VoteRequestRecord, VotedRecord,
};
use crate::log::types::{Member, TypeConfig, Vote};
use crate::peers::{AppendStream, PeerAddresses, PeerError, RaftCall, Transport};
use crate::state::{Checkpoint, Sending};

type Snapshot = openraft::alias::SnapshotOf<TypeConfig, Checkpoint>;
type RpcError = RPCError<TypeConfig>;

/// Pause between two tries to reach a peer that is not there.
const BACKOFF: Duration = Duration::from_millis(200);
/// A snapshot may take this long, and a second more for each of these bytes.
const SNAPSHOT_BASE: Duration = Duration::from_secs(60);
const SNAPSHOT_BYTES_PER_SECOND: u64 = 1024 * 1024;
/// Opening a stream may take this long: a TLS handshake on a busy machine.
const OPEN_STREAM: Duration = Duration::from_secs(2);

/// Makes the connections of one group.
#[derive(Clone)]
pub(super) struct Network {
    pub transport: Arc<dyn Transport>,
    pub addresses: Arc<PeerAddresses>,
    pub shard: ShardId,
    pub node: NodeId,
    /// Told how much room the peers have: each answer to a heartbeat says so.
    pub disk: Arc<DiskWatch>,
}

/// Speaks with one peer about one group.
pub(super) struct Peer {
    network: Network,
    to: NodeId,
    pipelined: bool,
    /// The highest entry that the peer acknowledged. Raft keeps a peer's client for as long as it leads and the peer is a member.
    acknowledged: Arc<AtomicU64>,
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, member: &Member) -> Peer {
        self.addresses.learn(NodeId(target), &member.peer_address);
        Peer {
            network: self.clone(),
            to: NodeId(target),
            pipelined: true,
            acknowledged: Arc::default(),
        }
    }

    async fn new_heartbeat_client(&mut self, target: u64, member: &Member) -> Peer {
        Peer {
            pipelined: false,
            ..self.new_client(target, member).await
        }
    }
}

fn unreachable(error: &dyn std::fmt::Display) -> RpcError {
    RPCError::Unreachable(Unreachable::from_string(error))
}

fn broken(error: &dyn std::fmt::Display) -> RpcError {
    RPCError::Network(NetworkError::new(&AnyError::error(error)))
}

fn peer_error(error: &PeerError) -> RpcError {
    match error {
        PeerError::Unreachable { .. } | PeerError::Refused { .. } => unreachable(error),
        PeerError::Deadline(_) => broken(error),
    }
}

/// The record in an answer, or why there is none.
pub(super) fn answer<T: Record>(frame: &RaftFrame) -> Result<T, String> {
    match format::decode::<T>(&frame.payload_data) {
        Ok(record) => Ok(record),
        Err(FormatError::Type {
            found: RefusedRecord::TYPE_ID,
            ..
        }) => match format::decode::<RefusedRecord>(&frame.payload_data) {
            Ok(refused) => Err(refused.reason),
            Err(error) => Err(error.to_string()),
        },
        Err(error) => Err(error.to_string()),
    }
}

fn appended(record: AppendedRecord) -> StreamAppendResult<TypeConfig> {
    match record {
        AppendedRecord::Matches(id) => Ok(id.map(Into::into)),
        AppendedRecord::Conflict(id) => Err(StreamAppendError::Conflict(id.into())),
        AppendedRecord::HigherVote(vote) => Err(StreamAppendError::HigherVote(vote.into())),
    }
}

impl Peer {
    fn frame(&self, payload: Bytes) -> RaftFrame {
        RaftFrame {
            shard: self.network.shard.0,
            from: self.network.node.0,
            to: self.to.0,
            payload_data: payload,
            ..RaftFrame::default()
        }
    }

    async fn call<Q: Record, A: Record>(&self, call: RaftCall, request: &Q, ttl: Duration) -> Result<A, RpcError> {
        self.send(call, self.frame(format::encode(request)), ttl).await
    }

    async fn send<A: Record>(&self, call: RaftCall, frame: RaftFrame, ttl: Duration) -> Result<A, RpcError> {
        let deadline = malle_rt::now() + ttl;
        let reply = self.network.transport.call(self.to, call, frame, deadline).await;
        let reply = reply.map_err(|error| peer_error(&error))?;
        self.network.disk.heard(self.to, room_of_frame(&reply));
        answer(&reply).map_err(|reason| unreachable(&reason))
    }

    async fn ask_vote(
        &self,
        call: RaftCall,
        request: VoteRequest<TypeConfig>,
        ttl: Duration,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        let record = VoteRequestRecord {
            vote: (&request.vote).into(),
            last: request.last_log_id.map(Into::into),
            leadership_transfer: request.leadership_transfer,
        };
        let voted: VotedRecord = self.call(call, &record, ttl).await?;
        Ok(VoteResponse::new(
            Vote::from(voted.vote),
            voted.last.map(Into::into),
            voted.granted,
        ))
    }

    async fn pipeline<S>(
        &self,
        input: S,
    ) -> Result<BoxStream<'static, Result<StreamAppendResult<TypeConfig>, RpcError>>, RpcError>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        let deadline = malle_rt::now() + OPEN_STREAM;
        let AppendStream { out, answers } = self
            .network
            .transport
            .append(self.to, deadline)
            .await
            .map_err(|error| peer_error(&error))?;
        let flow = Arc::new(Flow {
            window: Semaphore::new(limits::APPEND_WINDOW_REQUESTS),
            in_flight: AtomicUsize::new(0),
        });
        let (stop, stopped) = oneshot::channel();
        let empty = self.frame(Bytes::new());
        malle_rt::spawn(pump(input, out, empty, flow.clone(), stopped));
        let reader = Reader {
            answers,
            acknowledged: self.acknowledged.clone(),
            flow,
            _stop: stop,
            done: false,
        };
        Ok(Box::pin(futures::stream::unfold(reader, Reader::next)))
    }
}

/// What both directions of a pipeline share.
struct Flow {
    window: Semaphore,
    in_flight: AtomicUsize,
}

/// Takes the bodies out of the entries that they ride with.
fn riders(request: &mut AppendEntriesRequest<TypeConfig>) -> Vec<Rider> {
    let mut riders = Vec::new();
    for entry in &mut request.entries {
        if let EntryPayload::Normal(proposal) = &mut entry.payload {
            riders.append(&mut proposal.riders);
        }
    }
    riders
}

async fn pump<S>(
    mut input: S,
    out: mpsc::Sender<RaftFrame>,
    empty: RaftFrame,
    flow: Arc<Flow>,
    mut stopped: oneshot::Receiver<()>,
) where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
{
    loop {
        // `stopped` resolves when the reader is dropped: raft closed the stream.
        let request = tokio::select! {
            biased;
            _ = &mut stopped => return,
            request = input.next() => request,
        };
        let Some(mut request) = request else { return };
        tokio::select! {
            biased;
            _ = &mut stopped => return,
            permit = flow.window.acquire() => match permit {
                Ok(permit) => permit.forget(),
                Err(_) => return,
            },
        }
        flow.in_flight.fetch_add(1, Ordering::AcqRel);
        let riders = riders(&mut request);
        let payload_data = format::encode(&AppendRecord::from(&request));
        if out
            .send(RaftFrame {
                payload_data,
                riders,
                ..empty.clone()
            })
            .await
            .is_err()
        {
            return;
        }
    }
}

struct Reader {
    answers: mpsc::Receiver<Result<RaftFrame, PeerError>>,
    acknowledged: Arc<AtomicU64>,
    flow: Arc<Flow>,
    _stop: oneshot::Sender<()>,
    done: bool,
}

impl Reader {
    async fn next(mut self) -> Option<(Result<StreamAppendResult<TypeConfig>, RpcError>, Self)> {
        if self.done {
            return None;
        }
        let silence = Duration::from_millis(limits::APPEND_SILENCE_MS);
        let item = loop {
            let waiting = self.flow.in_flight.load(Ordering::Acquire) > 0;
            match malle_rt::timeout(silence, self.answers.recv()).await {
                Ok(None) => return None,
                Ok(Some(Ok(frame))) => break answer::<AppendedRecord>(&frame).map_err(|reason| unreachable(&reason)),
                Ok(Some(Err(error))) => break Err(peer_error(&error)),
                Err(_) if waiting => break Err(broken(&"the append stream fell silent with requests in flight")),
                Err(_) => {}
            }
        };
        self.flow.in_flight.fetch_sub(1, Ordering::AcqRel);
        self.flow.window.add_permits(1);
        let item = item.map(appended).and_then(|answer| self.kept(answer));
        self.done = !matches!(item, Ok(Ok(_)));
        Some((item, self))
    }

    /// A peer that no longer has what it acknowledged to this leader is no follower: raft would send it the same entry, and it would miss the
    /// one before, for ever. It learns what it is from the next heartbeat ([`super::serve`]).
    fn kept(&self, answer: StreamAppendResult<TypeConfig>) -> Result<StreamAppendResult<TypeConfig>, RpcError> {
        match &answer {
            Ok(Some(matching)) => drop(self.acknowledged.fetch_max(matching.index, Ordering::AcqRel)),
            Err(StreamAppendError::Conflict(at)) if at.index <= self.acknowledged.load(Ordering::Acquire) => {
                return Err(unreachable(&format!(
                    "entry {} is gone there, which it had acknowledged",
                    at.index
                )));
            }
            _ => {}
        }
        Ok(answer)
    }
}

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = Checkpoint;

    async fn append_entries(
        &mut self,
        mut request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RpcError> {
        let last = super::serve::last_of(&request);
        let riders = riders(&mut request);
        let frame = RaftFrame {
            riders,
            ..self.frame(format::encode(&AppendRecord::from(&request)))
        };
        match appended(self.send(RaftCall::Heartbeat, frame, option.soft_ttl()).await?) {
            Ok(matching) if matching == last => Ok(AppendEntriesResponse::Success),
            Ok(matching) => Ok(AppendEntriesResponse::PartialSuccess(matching)),
            Err(StreamAppendError::Conflict(_)) => Ok(AppendEntriesResponse::Conflict),
            Err(StreamAppendError::HigherVote(vote)) => Ok(AppendEntriesResponse::HigherVote(vote)),
        }
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RpcError>>, RpcError>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        if !self.pipelined {
            return stream_append_sequential(self, input, option);
        }
        Box::pin(async move {
            let stream = self.pipeline(input).await?;
            Ok(stream as BoxStream<'s, _>)
        })
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        self.ask_vote(RaftCall::Vote, request, option.soft_ttl()).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        self.ask_vote(RaftCall::PreVote, request, option.soft_ttl()).await
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RpcError> {
        let record = TransferRecord {
            from: request.from_leader().into(),
            to: *request.to_node_id(),
            last: request.last_log_id().map(|id| (*id).into()),
        };
        let done: TransferredRecord = self.call(RaftCall::TransferLeader, &record, option.soft_ttl()).await?;
        Ok(super::serve::transfer_result(&request, done))
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let head = SnapshotHeadRecord {
            vote: (&vote).into(),
            last: snapshot.meta.last_log_id.map(Into::into),
            membership: (&snapshot.meta.last_membership).into(),
        };
        let head = self.frame(format::encode(&head));
        let sent = send_checkpoint(self.network.transport.as_ref(), self.to, head, snapshot.snapshot);
        let done = tokio::select! {
            closed = cancel => return Err(StreamingError::Closed(closed)),
            done = sent => done,
        };
        // A newer checkpoint may have taken its place: raft asks for that one when it tries again.
        let done = done.map_err(|reason| StreamingError::Unreachable(Unreachable::from_string(reason)))?;
        Ok(SnapshotResponse::new(done.vote.into()))
    }

    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(std::iter::repeat(BACKOFF)))
    }
}

/// Sends a checkpoint as a snapshot under this head, and gives the receiver's answer.
pub(super) async fn send_checkpoint(
    transport: &dyn Transport,
    to: NodeId,
    head: RaftFrame,
    checkpoint: Checkpoint,
) -> Result<SnapshotDoneRecord, String> {
    let opened = malle_rt::blocking(move || checkpoint.send()).await;
    let sending = opened.map_err(|error| error.to_string())?;
    let size = sending.bytes();
    let (chunks_in, chunks) = mpsc::channel(4);
    malle_rt::spawn(read_chunks(ShardId(head.shard), sending, chunks_in));
    let ttl = SNAPSHOT_BASE + Duration::from_secs(size / SNAPSHOT_BYTES_PER_SECOND);
    let reply = transport.snapshot(to, head, size, chunks, malle_rt::now() + ttl).await;
    answer(&reply.map_err(|error| error.to_string())?)
}

/// Reads a checkpoint piece by piece; the receiver sees the end early, and refuses the whole, when reading fails.
async fn read_chunks(shard: ShardId, mut sending: Sending, chunks: mpsc::Sender<Bytes>) {
    loop {
        let (left, read) = malle_rt::blocking(move || {
            let read = sending.next(limits::BODY_CHUNK_BYTES);
            (sending, read)
        })
        .await;
        sending = left;
        match read {
            Ok(Some(piece)) => {
                if chunks.send(piece).await.is_err() {
                    return;
                }
            }
            Ok(None) => return,
            Err(error) => {
                tracing::error!(%shard, %error, "a checkpoint does not read; the snapshot is broken off");
                return;
            }
        }
    }
}
