//! Ways: what the product's clients call instead of a connection of HTTP/2.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use http_body_util::BodyExt as _;
use malle_client::{Reach, ReachError, Reached};
use malle_node::peers::{Channels, Lane};
use malle_node::security::{Identity, Peer};
use malle_proto::channel::{Answered, Asked, Broken};
use malle_proto::{Channel, NodeId, limits};
use malle_rt::sim::Host;
use tokio::sync::oneshot;
use tonic::Status;
use tonic::body::Body as GrpcBody;
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceExt as _};

use super::message::Direction;
use super::wire::Wire;
use super::{CLIENTS, Door, Net};

/// A connection attempt between nodes takes at most this long, as in the product.
const CONNECT: Duration = Duration::from_secs(2);
/// Silence that a connection between nodes bears: the product asks after one second and waits two more.
const PEER_PATIENCE: Duration = Duration::from_secs(3);
/// TCP, then TLS.
const HANDSHAKE_TRIPS: u32 = 3;

/// Who calls, from where.
#[derive(Clone)]
struct Caller {
    net: Arc<Net>,
    place: u32,
    host: Option<Arc<Host>>,
    identity: Identity,
    patience: Duration,
}

impl Caller {
    fn peer(&self) -> Peer {
        Peer {
            identity: self.identity.clone(),
            address: std::net::SocketAddr::from(([10, 0, 0, self.place as u8], 1)),
        }
    }

    /// Shakes hands with whoever answers at an address.
    async fn connect(&self, address: &str) -> Result<Arc<Wire>, Status> {
        let unreachable = || Status::unavailable(format!("{address}: connection refused"));
        let door = self.net.door(address);
        let Some(door) = door else {
            // A machine without power answers nothing at all; one without the process refuses. Which one it is is known by the address.
            let place = place_of(address);
            if place.is_some_and(|place| self.net.is_dark(place) || !self.net.is_open(self.place, place)) {
                std::future::pending::<()>().await;
            }
            malle_rt::sleep(Duration::from_micros(500)).await;
            return Err(unreachable());
        };
        for _ in 0..HANDSHAKE_TRIPS {
            for (from, to) in [(self.place, door.place), (door.place, self.place)] {
                self.net.until_open(from, to).await;
                malle_rt::sleep_until(self.net.arrival(from, to, 300, None)).await;
            }
            // A process that stands still shakes no hands; one that went away in the middle resets.
            while door.host.is_alive() && !door.host.runs() {
                malle_rt::sleep(Duration::from_millis(10)).await;
            }
            if !door.host.is_alive() {
                return Err(unreachable());
            }
        }
        Ok(Wire::begin(
            &self.net,
            (self.place, self.host.clone()),
            door,
            self.patience,
        ))
    }

    /// One call on one connection.
    async fn call(self, wire: Arc<Wire>, mut asked: Asked) -> Result<Answered, Status> {
        asked.extensions_mut().insert(self.peer());
        let forward = Direction {
            net: self.net.clone(),
            wire: wire.clone(),
            forward: true,
        };
        if is_unary(asked.uri().path()) {
            asked = self.doubled(&forward, asked).await;
        }
        let (head, body) = asked.into_parts();
        let sent = tokio::select! {
            biased;
            () = wire.broken() => return Err(wire.status()),
            sent = forward.send(head.uri.path().len() + 100, None) => sent,
        };
        let asked = http::Request::from_parts(head, forward.carry(body, Some(sent)));
        let (tell, told) = oneshot::channel();
        malle_rt::sim::spawn_outside(serve(forward, sent, asked, tell));
        let answered = tokio::select! {
            biased;
            answered = told => answered,
            () = wire.broken() => return Err(wire.status()),
        };
        match answered {
            Ok(answered) => Ok(answered),
            // Whoever would have answered is gone; that is learned when the connection breaks.
            Err(_) => {
                wire.broken().await;
                Err(wire.status())
            }
        }
    }

    /// A unary call that arrives once more, some time later, as a repeated datagram or a confused proxy would have it.
    async fn doubled(&self, forward: &Direction, asked: Asked) -> Asked {
        let (from, to) = forward.wire.places();
        if !self.net.doubles(from, to) {
            return asked;
        }
        let (head, body) = asked.into_parts();
        // The body of a unary call is there already.
        let Ok(body) = body.collect().await.map(|collected| collected.to_bytes()) else {
            return http::Request::from_parts(head, GrpcBody::empty());
        };
        let again = |head: http::request::Parts| {
            http::Request::from_parts(head, GrpcBody::new(http_body_util::Full::new(body.clone())))
        };
        let (copy, forward) = (again(head.clone()), forward.clone());
        malle_rt::sim::spawn_outside(async move {
            let sent = forward.send(100, None).await;
            let (tell, _nobody) = oneshot::channel();
            serve(forward, sent + Duration::from_millis(30), copy, tell).await;
        });
        again(head)
    }
}

/// `n7:...` is at place 7.
fn place_of(address: &str) -> Option<u32> {
    address.strip_prefix('n')?.split([':', '.']).next()?.parse().ok()
}

fn is_unary(path: &str) -> bool {
    let streams = [
        "Append",
        "Heartbeat",
        "Snapshot",
        "PutBodies",
        "GetBody",
        "Call",
        "Upload",
        "Download",
        "Watch",
    ];
    !streams.iter().any(|stream| path.ends_with(&format!("/{stream}")))
}

/// Brings a request to the node, and its answer back.
async fn serve(forward: Direction, sent: malle_rt::Instant, asked: Asked, mut tell: oneshot::Sender<Answered>) {
    let wire = forward.wire.clone();
    tokio::select! {
        biased;
        () = wire.broken() => return,
        () = forward.arrive(sent) => {}
    }
    let Door { host, services, .. } = wire.door().clone();
    if !host.is_alive() {
        return;
    }
    let back = Direction {
        forward: false,
        ..forward.clone()
    };
    let (answer, answered) = oneshot::channel();
    let (gone, caller_gone) = oneshot::channel::<()>();
    let (answering, broken) = (back.clone(), wire.clone());
    // The node's own task: it ends with the node, and it stops with it.
    host.spawn(async move {
        let work = async move {
            // A router of services never fails, it answers.
            let Ok(done) = services.oneshot(asked).await;
            let (head, body) = done.into_parts();
            let sent = answering.send(100, None).await;
            let body = answering.carry(body, Some(sent));
            let _ = answer.send((sent, http::Response::from_parts(head, body)));
        };
        tokio::select! {
            biased;
            () = broken.broken() => {}
            _ = caller_gone => {}
            () = work => {}
        }
    });
    let told = tokio::select! {
        biased;
        () = tell.closed() => {
            // The caller gave up: its reset travels as any message does.
            let at = forward.send(20, None).await;
            forward.arrive(at).await;
            drop(gone);
            return;
        }
        told = answered => told,
    };
    if let Ok((at, answer)) = told {
        back.arrive(at).await;
        let _ = tell.send(answer);
    }
    // `gone` must outlive the work: dropped earlier it would end it.
    drop(gone);
}

/// From one node to others.
pub struct NodeWays {
    caller: Caller,
}

impl NodeWays {
    /// For the node at this place.
    pub fn new(net: Arc<Net>, place: u32, node: NodeId, host: Arc<Host>) -> NodeWays {
        NodeWays {
            caller: Caller {
                net,
                place,
                host: Some(host),
                identity: Identity::Node(node),
                patience: PEER_PATIENCE,
            },
        }
    }
}

impl Channels for NodeWays {
    fn channel(&self, node: NodeId, address: &str, _lane: Lane) -> Channel {
        BoxCloneSyncService::new(Lazy {
            caller: self.caller.clone(),
            node,
            address: address.into(),
            wire: Arc::default(),
        })
    }
}

/// Connects with its first call, and again after a break.
#[derive(Clone)]
struct Lazy {
    caller: Caller,
    node: NodeId,
    address: Arc<str>,
    wire: Arc<tokio::sync::Mutex<Option<Arc<Wire>>>>,
}

impl Lazy {
    async fn wire(&self) -> Result<Arc<Wire>, Status> {
        let mut held = self.wire.lock().await;
        if let Some(wire) = held.as_ref().filter(|wire| !wire.is_broken()) {
            return Ok(wire.clone());
        }
        *held = None;
        let connected = malle_rt::timeout(CONNECT, self.caller.connect(&self.address)).await;
        let wire = connected.unwrap_or_else(|_| Err(Status::unavailable(format!("{}: timed out", self.address))))?;
        if wire.door().node != self.node {
            return Err(Status::unavailable(format!(
                "{} is node {}, not {}",
                self.address,
                wire.door().node,
                self.node
            )));
        }
        *held = Some(wire.clone());
        Ok(wire)
    }
}

impl Service<Asked> for Lazy {
    type Response = Answered;
    type Error = Broken;
    type Future = Pin<Box<dyn Future<Output = Result<Answered, Broken>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, asked: Asked) -> Self::Future {
        let lazy = self.clone();
        Box::pin(async move {
            let wire = lazy.wire().await.map_err(Broken::by)?;
            lazy.caller.call(wire, asked).await.map_err(Broken::by)
        })
    }
}

/// From a client to nodes.
pub struct ClientWays {
    caller: Caller,
}

impl ClientWays {
    /// For a client with this identity.
    pub fn new(net: Arc<Net>, identity: Identity) -> ClientWays {
        ClientWays {
            caller: Caller {
                net,
                place: CLIENTS,
                host: None,
                identity,
                patience: Duration::from_millis(2 * limits::HTTP2_KEEPALIVE_MS),
            },
        }
    }
}

impl Reach for ClientWays {
    fn reach(&self, address: &str) -> BoxFuture<'_, Result<Reached, ReachError>> {
        let address = address.to_owned();
        Box::pin(async move {
            let connected = self.caller.connect(&address).await;
            let wire = connected.map_err(|status| ReachError::unreachable(status.message().to_owned()))?;
            Ok(Reached {
                node: wire.door().node,
                channel: BoxCloneSyncService::new(Fixed {
                    caller: self.caller.clone(),
                    wire,
                }),
            })
        })
    }
}

/// One connection; once it has broken it stays so.
#[derive(Clone)]
struct Fixed {
    caller: Caller,
    wire: Arc<Wire>,
}

impl Service<Asked> for Fixed {
    type Response = Answered;
    type Error = Broken;
    type Future = Pin<Box<dyn Future<Output = Result<Answered, Broken>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, asked: Asked) -> Self::Future {
        let fixed = self.clone();
        Box::pin(async move { fixed.caller.clone().call(fixed.wire, asked).await.map_err(Broken::by) })
    }
}
