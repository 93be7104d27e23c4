//! Connections that come in: from a socket to an [`Io`] whose other end is known.
//!
//! One task accepts; each handshake runs in a task of its own with a deadline, so that a slow stranger delays nobody. Two bounds:
//! handshakes under way, which strangers use, and connections held, which only certificates of the cluster reach. Whoever is at the
//! wrong [`Door`] is closed before its first byte is read as HTTP.
//!
//! The accepting task ends when the [`Incoming`] is dropped; handshakes under way end with it or at their deadline.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use malle_proto::limits;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use super::tls::{ALPN, Tls};
use super::{Identity, Peer, audit};

/// Handshakes that are done and wait for the server to take them.
const READY_MAX: usize = 16;
/// After the system refused a connection for lack of something, it is asked again no sooner.
const ACCEPT_PAUSE_MS: u64 = 100;

/// Which listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// For front ends, operators, and nodes that ask for the topology.
    Clients,
    /// For nodes only.
    Peers,
}

impl Door {
    fn admits(self, identity: &Identity) -> bool {
        match self {
            Door::Clients => true,
            Door::Peers => matches!(identity, Identity::Node(_)),
        }
    }
}

/// Listens on an address; with port 0 the system chooses one.
///
/// # Errors
/// What the system says, with the address.
pub async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}")))
}

/// Accepted connections, for tonic's `serve_with_incoming`.
pub struct Incoming {
    ready: mpsc::Receiver<Io>,
}

impl Stream for Incoming {
    type Item = io::Result<Io>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.ready.poll_recv(context).map(|io| io.map(Ok))
    }
}

/// Accepts what comes to `listener`.
pub fn incoming(listener: TcpListener, tls: Arc<Tls>, door: Door) -> Incoming {
    incoming_bounded(listener, tls, door, limits::CONNECTIONS_MAX)
}

pub(super) fn incoming_bounded(listener: TcpListener, tls: Arc<Tls>, door: Door, connections_max: usize) -> Incoming {
    let (done, ready) = mpsc::channel(READY_MAX);
    let gate = Gate {
        tls,
        door,
        handshakes: Arc::new(Semaphore::new(limits::HANDSHAKES_AT_ONCE_MAX)),
        connections: Arc::new(Semaphore::new(connections_max)),
        done,
    };
    malle_rt::spawn(gate.accept(listener));
    Incoming { ready }
}

#[derive(Clone)]
struct Gate {
    tls: Arc<Tls>,
    door: Door,
    handshakes: Arc<Semaphore>,
    connections: Arc<Semaphore>,
    done: mpsc::Sender<Io>,
}

impl Gate {
    async fn accept(self, listener: TcpListener) {
        loop {
            let Ok(place) = self.handshakes.clone().acquire_owned().await else {
                return;
            };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.done.closed() => return,
            };
            match accepted {
                Ok((stream, address)) => {
                    malle_rt::spawn(self.clone().welcome(stream, address, place));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    malle_rt::sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
                }
            }
        }
    }

    /// Shakes hands, and hands over who it is.
    async fn welcome(self, stream: TcpStream, address: SocketAddr, handshake: OwnedSemaphorePermit) {
        let deadline = Duration::from_millis(limits::HANDSHAKE_MAX_MS);
        let shaken = match malle_rt::timeout(deadline, self.shake(stream, address)).await {
            Ok(shaken) => shaken,
            Err(elapsed) => Err(Box::from(elapsed)),
        };
        drop(handshake);
        match shaken {
            // The receiver is gone when the server stops: so is the connection.
            Ok(io) => drop(self.done.send(io).await),
            Err(reason) => audit::connection_refused(address, &reason),
        }
    }

    async fn shake(
        &self,
        stream: TcpStream,
        address: SocketAddr,
    ) -> Result<Io, Box<dyn std::error::Error + Send + Sync>> {
        // Small answers must not wait for more of them.
        stream.set_nodelay(true)?;
        let stream = TlsAcceptor::from(self.tls.server()).accept(stream).await?;
        let (_, session) = stream.get_ref();
        if session.alpn_protocol() != Some(ALPN) {
            return Err("it does not speak HTTP/2".into());
        }
        let certificate = session.peer_certificates().and_then(|chain| chain.first());
        let certificate = certificate.ok_or("it showed no certificate")?;
        let identity = Identity::from_certificate(self.tls.cluster(), certificate)?;
        if !self.door.admits(&identity) {
            return Err(format!("{identity} does not belong at the door for nodes").into());
        }
        let place = self.connections.clone().try_acquire_owned();
        let place = place.map_err(|_| format!("{identity} is one more than this listener holds"))?;
        Ok(Io {
            stream,
            peer: Peer { identity, address },
            _place: place,
        })
    }
}

/// A connection whose other end is known.
pub struct Io {
    stream: TlsStream<TcpStream>,
    peer: Peer,
    /// Given back when the connection closes.
    _place: OwnedSemaphorePermit,
}

impl Io {
    /// The other end.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }
}

impl Connected for Io {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
