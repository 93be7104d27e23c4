//! Connections that go out, from node to node: dialled by address, believed by certificate.
//!
//! A node that came back under another id, or another machine that now has its address, is refused before the first request is
//! sent to it. What is absent: retries, and any pool; whoever dials decides.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use malle_proto::{NodeId, limits};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower::Service;

use super::Identity;
use super::identity::IdentityError;
use super::tls::{ALPN, Tls};

/// Rustls wants a name although none is sent or checked.
const UNCHECKED_NAME: &str = "node";

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nothing came in time.
    #[error("{address} did not answer in time")]
    Deadline {
        /// Who was dialled.
        address: String,
    },
    /// No connection, or no handshake.
    #[error("{address}: {source}")]
    Io {
        /// Who was dialled.
        address: String,
        /// What the system or TLS said.
        source: io::Error,
    },
    /// It does not speak HTTP/2.
    #[error("{address} does not speak HTTP/2")]
    Protocol {
        /// Who was dialled.
        address: String,
    },
    /// Its certificate says no identity of this cluster.
    #[error("{address}: {source}")]
    Identity {
        /// Who was dialled.
        address: String,
        /// What is wrong with the certificate.
        source: IdentityError,
    },
    /// It is somebody else.
    #[error("{address} is {found}, not node/{wanted}")]
    Other {
        /// Who was dialled.
        address: String,
        /// Who answered.
        found: Identity,
        /// Who was wanted.
        wanted: NodeId,
    },
}

/// Dials HOST:PORT and makes sure that `node` answers.
///
/// # Errors
/// A [`ConnectError`], after `limits::HANDSHAKE_MAX_MS` at the latest.
pub async fn dial(tls: &Tls, address: &str, node: NodeId) -> Result<TlsStream<TcpStream>, ConnectError> {
    let deadline = Duration::from_millis(limits::HANDSHAKE_MAX_MS);
    let connected = malle_rt::timeout(deadline, handshake(tls, address)).await;
    let address = address.to_owned();
    let stream = match connected {
        Ok(Ok(stream)) => stream,
        Ok(Err(source)) => return Err(ConnectError::Io { address, source }),
        Err(_) => return Err(ConnectError::Deadline { address }),
    };
    let (_, session) = stream.get_ref();
    if session.alpn_protocol() != Some(ALPN) {
        return Err(ConnectError::Protocol { address });
    }
    let certificate = session.peer_certificates().and_then(|chain| chain.first());
    let identity = match certificate {
        Some(certificate) => Identity::from_certificate(tls.cluster(), certificate),
        None => Err(IdentityError::None),
    };
    match identity {
        Ok(Identity::Node(found)) if found == node => Ok(stream),
        Ok(found) => Err(ConnectError::Other {
            address,
            found,
            wanted: node,
        }),
        Err(source) => Err(ConnectError::Identity { address, source }),
    }
}

async fn handshake(tls: &Tls, address: &str) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from(UNCHECKED_NAME).map_err(io::Error::other)?;
    TlsConnector::from(tls.client()).connect(name, stream).await
}

/// What tonic's `Endpoint::connect_with_connector` takes: dials the same node again and again.
#[derive(Clone)]
pub struct Connector {
    tls: Arc<Tls>,
    address: Arc<str>,
    node: NodeId,
}

/// A connector to `node` at HOST:PORT. The URI that tonic gives to it is not looked at.
pub fn client_connector(tls: Arc<Tls>, address: &str, node: NodeId) -> Connector {
    Connector {
        tls,
        address: address.into(),
        node,
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move {
            let stream = dial(&connector.tls, &connector.address, connector.node).await?;
            Ok(TokioIo::new(stream))
        })
    }
}
