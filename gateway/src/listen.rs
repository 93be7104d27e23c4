//! Listeners: take connections within bounds, give each its protocol, and let them finish when the gateway stops.
//!
//! One task per listener, one per connection; the listener's task awaits its connections, and `main` awaits the listeners. A
//! listener that is full says so and closes, so that a flood on one port never takes from another. Enter at [`Listener::run`].

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use malle_client::Client;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::config::PlaintextLogin;
use crate::tls::PublicTls;
use crate::{imap, lmtp, postfix, proxy};

/// Sessions that still run this long after the stop are cut off. Their mails were not acknowledged.
const STOP_MAX: Duration = Duration::from_secs(10);
/// Pause after a failed accept: the usual reason, too many open files, does not pass by trying again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A session that was promised nothing yet.
pub const PLAIN: imap::SessionSettings = imap::SessionSettings {
    tls: false,
    starttls_offered: false,
    plaintext_login_allowed: false,
    greeted: false,
    access_tokens: false,
};

/// What a listener speaks.
#[derive(Clone)]
pub enum Service {
    /// LMTP.
    Lmtp(lmtp::Context<Client>),
    /// Who a recipient is, for a Postfix.
    PostfixMaps(postfix::Context<Client>),
    /// Who may send, for a Postfix.
    PostfixSasl(postfix::Context<Client>),
    /// IMAP that begins in plain text, with STARTTLS where there is a certificate.
    Imap {
        /// For every session.
        context: imap::Context,
        /// For STARTTLS.
        tls: Option<Arc<PublicTls>>,
        /// May a password come without TLS?
        plaintext_login: PlaintextLogin,
    },
    /// IMAP inside TLS.
    Imaps {
        /// For every session.
        context: imap::Context,
        /// The certificate.
        tls: Arc<PublicTls>,
    },
}

impl Service {
    /// For the log.
    pub fn name(&self) -> &'static str {
        match self {
            Service::Lmtp(_) => "lmtp",
            Service::PostfixMaps(_) => "postfix maps",
            Service::PostfixSasl(_) => "postfix sasl",
            Service::Imap { .. } => "imap",
            Service::Imaps { .. } => "imaps",
        }
    }

    /// What a client hears when there is no place for it. Inside TLS nothing can be said before the handshake.
    fn no_place(&self) -> &'static [u8] {
        match self {
            Service::Lmtp(_) => b"421 4.3.2 too many sessions, try again later\r\n",
            Service::Imap { .. } => b"* BYE [UNAVAILABLE] too many sessions, try again later\r\n",
            Service::Imaps { .. } | Service::PostfixMaps(_) | Service::PostfixSasl(_) => b"",
        }
    }

    /// Who counts its sessions.
    fn gate(&self) -> Option<&Arc<imap::Gate>> {
        match self {
            Service::Lmtp(_) | Service::PostfixMaps(_) | Service::PostfixSasl(_) => None,
            Service::Imap { context, .. } | Service::Imaps { context, .. } => Some(&context.gate),
        }
    }

    async fn serve(self, arrival: Arrival, session: u64) {
        let Arrival {
            mut stream,
            mut peer,
            behind,
        } = arrival;
        if behind {
            peer = match proxy::client(&mut stream, peer).await {
                Ok(client) => client,
                Err(error) => {
                    return tracing::warn!(service = self.name(), %peer, %error, "a load balancer was not understood");
                }
            };
        }
        let place = self.gate().map(|gate| gate.enter_from(peer.ip())).transpose();
        let Ok(_place) = place else {
            return turn_away(&self, stream, peer, "too many sessions of this address").await;
        };
        match self {
            Service::Lmtp(context) => {
                let context = lmtp::Context {
                    session,
                    peer: peer.ip(),
                    ..context
                };
                Box::pin(lmtp::serve(stream, context)).await;
            }
            Service::PostfixMaps(context) => Box::pin(postfix::serve_map(stream, context)).await,
            Service::PostfixSasl(context) => Box::pin(postfix::serve_sasl(stream, context)).await,
            Service::Imap {
                mut context,
                tls,
                plaintext_login,
            } => {
                // Loopback on both ends: a proxy on this machine that forwards strangers must speak TLS to us instead.
                let local = !behind
                    && stream.local_addr().is_ok_and(|address| address.ip().is_loopback())
                    && peer.ip().is_loopback();
                context.settings = imap::SessionSettings {
                    starttls_offered: tls.is_some(),
                    plaintext_login_allowed: plaintext_login == PlaintextLogin::Loopback && local,
                    ..context.settings
                };
                serve_imap(Box::new(stream), from(peer, context), tls).await;
            }
            Service::Imaps { mut context, tls } => {
                context.settings.tls = true;
                match Box::pin(tls.accept(stream)).await {
                    Ok(stream) => serve_imap(Box::new(stream), from(peer, context), None).await,
                    Err(error) => tracing::info!(%peer, %error, "tls handshake failed"),
                }
            }
        }
    }
}

/// The context of a session with this client.
fn from(peer: SocketAddr, context: imap::Context) -> imap::Context {
    imap::Context {
        peer: peer.to_string(),
        address: peer.ip(),
        ..context
    }
}

async fn serve_imap(io: imap::BoxedIo, mut context: imap::Context, tls: Option<Arc<PublicTls>>) {
    let plain = match imap::serve(io, context.clone()).await {
        imap::Ended::Closed => return,
        imap::Ended::StartTls(plain) => plain,
    };
    let Some(tls) = tls else { return };
    match Box::pin(tls.accept(plain)).await {
        Ok(stream) => {
            context.settings = context.settings.after_starttls();
            // A session inside TLS is offered no second STARTTLS: it only closes.
            imap::serve(Box::new(stream), context).await;
        }
        Err(error) => tracing::info!(peer = context.peer, %error, "tls handshake after STARTTLS failed"),
    }
}

/// A connection that was taken.
struct Arrival {
    stream: TcpStream,
    peer: SocketAddr,
    /// It comes from a load balancer that says where the client is.
    behind: bool,
}

/// A bound port.
pub struct Listener {
    socket: TcpListener,
    service: Service,
    sessions_max: usize,
    balancers: Arc<[IpAddr]>,
}

impl Listener {
    /// Opens the port.
    pub async fn bind(address: SocketAddr, service: Service, sessions_max: usize) -> std::io::Result<Listener> {
        let socket = TcpListener::bind(address).await?;
        tracing::info!(service = service.name(), address = %socket.local_addr()?, "listening");
        Ok(Listener {
            socket,
            service,
            sessions_max,
            balancers: Arc::new([]),
        })
    }

    /// From these addresses every connection begins with a header that says where its client is.
    #[must_use]
    pub fn behind(self, balancers: &[IpAddr]) -> Listener {
        Listener {
            balancers: balancers.iter().map(IpAddr::to_canonical).collect(),
            ..self
        }
    }

    /// Serves until `stop` turns true and the sessions are over, at most [`STOP_MAX`] later.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let Listener {
            socket,
            service,
            sessions_max,
            balancers,
        } = self;
        let mut sessions = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = socket.accept() => accepted,
                Some(ended) = sessions.join_next() => {
                    log_panic(&service, ended);
                    continue;
                }
                _ = stop.wait_for(|stop| *stop) => break,
            };
            match accepted {
                Ok((stream, peer)) if sessions.len() >= sessions_max => {
                    turn_away(&service, stream, peer, "too many sessions").await;
                }
                Ok((stream, peer)) => {
                    // Answers are small and awaited: Nagle's algorithm would only delay them. Failing here costs speed, nothing else.
                    let _ = stream.set_nodelay(true);
                    let session = Arrival {
                        stream,
                        peer,
                        behind: balancers.contains(&peer.ip().to_canonical()),
                    };
                    sessions.spawn(service.clone().serve(session, next_session()));
                }
                Err(error) => {
                    tracing::error!(service = service.name(), %error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(socket);
        let finished = timeout(STOP_MAX, async {
            while let Some(ended) = sessions.join_next().await {
                log_panic(&service, ended);
            }
        });
        if finished.await.is_err() {
            tracing::warn!(
                service = service.name(),
                sessions = sessions.len(),
                "sessions were cut off at the stop"
            );
            sessions.shutdown().await;
        }
    }
}

/// A panic is a defect of one session: it ends that session, and is told here.
fn log_panic(service: &Service, ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(service = service.name(), %error, "a session ended by a defect");
    }
}

async fn turn_away(service: &Service, mut stream: TcpStream, peer: SocketAddr, why: &str) {
    tracing::warn!(service = service.name(), %peer, why, "turned away");
    // A fresh socket takes one short line at once; whoever does not take it is closed all the same.
    let _ = timeout(ACCEPT_PAUSE, stream.write_all(service.no_place())).await;
}

fn next_session() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
