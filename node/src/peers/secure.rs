//! Ways to other nodes in the product: HTTP/2 over mTLS.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use malle_proto::NodeId;
use malle_proto::channel::{Broken, Channel};
use tonic::transport::Endpoint;
use tower::ServiceExt as _;
use tower::util::BoxCloneSyncService;

use super::{Channels, Lane};
use crate::security::connect;
use crate::security::tls::Tls;

/// Bytes in flight per stream and per connection: a window of bodies, not of packets.
const STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
/// A silent connection is asked for a sign of life after this, and closed after as long again.
const KEEP_ALIVE: Duration = Duration::from_secs(1);
const KEEP_ALIVE_ANSWER: Duration = Duration::from_secs(2);
/// A connection attempt takes at most this long.
const CONNECT: Duration = Duration::from_secs(2);

/// Connections over mTLS, a channel each.
pub struct SecureChannels(pub Arc<Tls>);

impl Channels for SecureChannels {
    fn channel(&self, node: NodeId, address: &str, _lane: Lane) -> Channel {
        let (tls, address) = (self.0.clone(), address.to_owned());
        let connector = tower::service_fn(move |_: http::Uri| {
            let (tls, address) = (tls.clone(), address.clone());
            async move {
                match malle_rt::timeout(CONNECT, connect::dial(&tls, &address, node)).await {
                    Ok(dialled) => dialled.map(TokioIo::new).map_err(io::Error::other),
                    Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut)),
                }
            }
        });
        let channel = Endpoint::from_static("http://peer")
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE_ANSWER)
            .keep_alive_while_idle(true)
            .connect_with_connector_lazy(connector);
        BoxCloneSyncService::new(channel.map_err(Broken::by))
    }
}
