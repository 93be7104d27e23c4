//! A lane over the peer service, joined by a pipe instead of a socket.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use hyper_util::rt::TokioIo;
use malle_proto::v1::GroupStatus;
use malle_proto::v1::peer_server::PeerServer;
use malle_proto::{BodyHash, ShardId};
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Status};

use super::*;
use crate::peers::{PeerHandler, PeerService, RaftCall, StoredBody};
use crate::security::{Identity, Peer};

/// Answers a heartbeat of shard 1 after the first of any other shard, every other at once, with the payload that came.
#[derive(Default)]
struct Echo {
    other: tokio::sync::Notify,
}

#[async_trait]
impl PeerHandler for Echo {
    async fn call(&self, from: NodeId, call: RaftCall, frame: RaftFrame) -> RaftFrame {
        assert_eq!((from, call), (NodeId(2), RaftCall::Heartbeat));
        if frame.shard == 1 {
            self.other.notified().await;
        } else {
            self.other.notify_one();
        }
        frame
    }

    async fn append(&self, _: NodeId, _: mpsc::Receiver<RaftFrame>, _: mpsc::Sender<RaftFrame>) {}

    async fn snapshot(&self, _: NodeId, frame: RaftFrame, _: u64, _: mpsc::Receiver<bytes::Bytes>) -> RaftFrame {
        frame
    }

    async fn put_body(&self, _: StoredBody) -> Result<(), String> {
        Err("only heartbeats are sent".to_owned())
    }

    async fn get_body(&self, _: ShardId, _: BodyHash) -> Result<Option<StoredBody>, String> {
        Ok(None)
    }

    async fn replica(&self, _: ShardId) -> Option<GroupStatus> {
        None
    }
}

/// Nothing here takes that long.
const WAIT: Duration = Duration::from_secs(20);

fn frame(shard: u32) -> RaftFrame {
    RaftFrame {
        shard,
        payload_data: vec![shard as u8].into(),
        ..RaftFrame::default()
    }
}

#[tokio::test]
async fn heartbeats_of_all_groups_share_a_stream_and_none_waits_for_another() {
    let (near, mut middle) = tokio::io::duplex(64 * 1024);
    let (mut beyond, far) = tokio::io::duplex(64 * 1024);
    let wire = malle_rt::spawn(async move { tokio::io::copy_bidirectional(&mut middle, &mut beyond).await });
    let peer = Peer {
        identity: Identity::Node(NodeId(2)),
        address: "127.0.0.1:1".parse().unwrap(),
    };
    let service = PeerService::new(Arc::new(Echo::default()));
    let service = PeerServer::with_interceptor(service, move |mut request: Request<()>| {
        request.extensions_mut().insert(peer.clone());
        Ok::<_, Status>(request)
    });
    let server = Server::builder().add_service(service);
    let incoming = tokio_stream::once(Ok::<_, std::io::Error>(far));
    malle_rt::spawn(server.serve_with_incoming(incoming.chain(futures::stream::pending())));

    let mut once = Some(near);
    let dialled = Arc::new(AtomicBool::new(false));
    let counted = dialled.clone();
    let connector = tower::service_fn(move |_: http::Uri| {
        assert!(!counted.swap(true, Ordering::SeqCst), "one connection");
        let io = once.take().map(TokioIo::new);
        async move { io.ok_or_else(|| std::io::Error::from(std::io::ErrorKind::ConnectionRefused)) }
    });
    let channel = Endpoint::from_static("http://peer").connect_with_connector_lazy(connector);
    let channel =
        tower::util::BoxCloneSyncService::new(tower::ServiceExt::map_err(channel, malle_proto::channel::Broken::by));
    let lane = HeartbeatLane::open(NodeId(1), "here".to_owned(), PeerClient::new(channel));

    // The first is answered last: the second lets it go.
    let both = async { futures::join!(lane.call(frame(1)), lane.call(frame(7))) };
    let (slow, quick) = tokio::time::timeout(WAIT, both).await.unwrap();
    assert_eq!((slow.unwrap(), quick.unwrap()), (frame(1), frame(7)));
    assert!(lane.is_open_to("here") && !lane.is_open_to("elsewhere"));

    // Whoever waits when the stream ends is told, and nobody waits on it any more.
    let waiting = lane.call(frame(1));
    futures::pin_mut!(waiting);
    assert!(futures::poll!(&mut waiting).is_pending());
    wire.abort();
    let told = tokio::time::timeout(WAIT, waiting).await;
    assert!(matches!(told.unwrap(), Err(PeerError::Unreachable { .. })));
    assert!(!lane.is_open_to("here"));
    assert!(lane.call(frame(7)).await.is_err());
}
