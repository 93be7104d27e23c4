//! What a Postfix beside us asks, so that malle is the only directory that it needs: who a recipient is ([`map`], socketmap), and whether
//! somebody may send mail ([`sasl`], Dovecot's protocol for its clients).
//!
//! Whoever reaches these ports can try passwords and addresses: they are for the machine's own Postfix, or a network of relays. Failed
//! logins are counted by the same gate as those of IMAP. This room opens no account and reads no mail.

mod map;
mod sasl;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use malle_client::{Error, Resolved};
use tokio::sync::watch;

use crate::imap::Gate;

pub use map::serve as serve_map;
pub use sasl::serve as serve_sasl;

/// Postfix closes what it does not use; whoever keeps a connection longer than this without a word is somebody else.
const IDLE: Duration = Duration::from_secs(60 * 60);
/// An answer that nobody takes for this long is given up.
const WRITE: Duration = Duration::from_secs(60);

/// What is asked of malle: the client crate, or a fake in tests.
pub trait Store: Clone + Send + Sync + 'static {
    /// Where an address leads; `None` only after a linearizable read.
    fn resolve(&self, address: &str) -> impl Future<Output = Result<Option<Resolved>, Error>> + Send;
    /// The primary address of the account that may send mail with this password.
    fn may_submit(&self, login: &str, password: &str) -> impl Future<Output = Result<String, Error>> + Send;
}

impl Store for malle_client::Client {
    async fn resolve(&self, address: &str) -> Result<Option<Resolved>, Error> {
        self.resolve(address).await
    }

    async fn may_submit(&self, login: &str, password: &str) -> Result<String, Error> {
        self.may_submit(login, password).await
    }
}

/// What a connection lives on.
#[derive(Clone)]
pub struct Context<S> {
    /// malle.
    pub store: S,
    /// Shared with the IMAP sessions of the process.
    pub gate: Arc<Gate>,
    /// Turns true when the gateway stops.
    pub stop: watch::Receiver<bool>,
}

/// Waits until the process stops; for ever when nobody is left to say so.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}
