//! Reaching a node in the product: TCP, mutual TLS and HTTP/2. The one place of this crate that opens a socket.

use std::io;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::future::BoxFuture;
use hyper_util::rt::TokioIo;
use malle_proto::channel::{Broken, Channel};
use malle_proto::limits;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::Endpoint;
use tower::ServiceExt as _;
use tower::util::BoxCloneSyncService;

use crate::reach::{Reach, ReachError, Reached};
use crate::tls::{self, Tls};

/// See the module's header.
pub(crate) struct Secure {
    tls: ArcSwap<Tls>,
}

impl Secure {
    pub(crate) fn new(tls: Tls) -> Secure {
        Secure {
            tls: ArcSwap::from_pointee(tls),
        }
    }

    /// Uses other certificates for every connection from now on.
    pub(crate) fn replace_tls(&self, tls: Tls) {
        self.tls.store(tls.into());
    }

    /// Dials, shakes hands and checks who answers.
    async fn open(&self, address: &str) -> Result<Reached, ReachError> {
        let tls = self.tls.load_full();
        let failed = |error: &dyn std::fmt::Display| ReachError::unreachable(format!("{address}: {error}"));
        let socket = dial(address).await.map_err(|error| failed(&error))?;
        let name =
            ServerName::try_from("node.malle").expect("a constant host name is well-formed; it is never checked");
        let stream = match TlsConnector::from(tls.config.clone()).connect(name, socket).await {
            Ok(stream) => stream,
            Err(error) => {
                let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
                let untrusted = matches!(cause, Some(rustls::Error::InvalidCertificate(_)));
                return Err(ReachError {
                    text: format!("{address}: {error}"),
                    untrusted,
                });
            }
        };
        let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let certificate =
            certificate.ok_or_else(|| ReachError::untrusted(format!("{address} shows no certificate")))?;
        let node = tls::node_of(certificate, &tls.cluster)
            .map_err(|text| ReachError::untrusted(format!("the certificate of {address} {text}")))?;
        let channel = http2(stream).await.map_err(|error| failed(&error))?;
        Ok(Reached { node, channel })
    }
}

impl Reach for Secure {
    fn reach(&self, address: &str) -> BoxFuture<'_, Result<Reached, ReachError>> {
        let address = address.to_owned();
        Box::pin(async move { self.open(&address).await })
    }
}

async fn dial(address: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    // Requests are small and latency counts; HTTP/2 gathers what it can itself.
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The HTTP/2 layer over a TLS stream that is up. It gets this one stream and never another: reconnecting is [`crate::nodes`]' work,
/// which checks the certificate again.
async fn http2(stream: TlsStream<TcpStream>) -> Result<Channel, tonic::transport::Error> {
    let keepalive = Duration::from_millis(limits::HTTP2_KEEPALIVE_MS);
    let endpoint = Endpoint::from_static("http://node.malle")
        .initial_stream_window_size(limits::HTTP2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::HTTP2_CONNECTION_WINDOW_BYTES)
        .http2_keep_alive_interval(keepalive)
        .keep_alive_timeout(keepalive)
        .keep_alive_while_idle(true);
    let mut once = Some(stream);
    let connector = tower::service_fn(move |_: http::Uri| {
        let stream = once.take().map(TokioIo::new);
        async move { stream.ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionAborted)) }
    });
    let channel = endpoint.connect_with_connector(connector).await?;
    Ok(BoxCloneSyncService::new(channel.map_err(Broken::by)))
}
