//! Waiting for changes of an account.
//!
//! A watch is a stream of its own to one replica. It outlives that replica: when the stream ends, or stays silent for longer than its
//! heartbeat allows, the next call opens another one elsewhere and reports an event with `overflow`, because changes may have gone by in
//! between. It holds at most the events that HTTP/2's window lets through; the node coalesces what a slow watcher does not take.

use std::time::Duration;

use bytes::Bytes;
use malle_proto::{AccountId, ModSeq, limits, v1};
use tonic::Streaming;

use crate::client::Client;
use crate::convert;
use crate::core::{Place, Prefer};
use crate::error::{Error, Failure};
use crate::session::Session;
use crate::types::WatchEvent;

/// Two heartbeats may be late; a third one is not coming.
const SILENCE: Duration = Duration::from_millis(3 * limits::WATCH_HEARTBEAT_MS);

/// Tells of every committed change of an account, for as long as it is held.
pub struct Watch {
    client: Client,
    session: std::sync::Arc<Session>,
    /// Which account is watched.
    account: AccountId,
    /// How far it is, as it was told.
    seen: ModSeq,
    stream: Option<Streaming<v1::WatchEvent>>,
    /// The first event of a stream is told always, a heartbeat never.
    fresh: bool,
    /// Changes may have gone by.
    missed: bool,
}

impl Watch {
    pub(crate) async fn open(
        client: Client,
        session: std::sync::Arc<Session>,
        account: AccountId,
    ) -> Result<Watch, Error> {
        let mut watch = Watch {
            client,
            seen: if account == session.account {
                session.modseq()
            } else {
                ModSeq(0)
            },
            session,
            account,
            stream: None,
            fresh: true,
            missed: false,
        };
        watch.connect().await?;
        Ok(watch)
    }

    /// The next change. The first one comes at once and says how far the account is.
    ///
    /// It outlives leaders and connections: after a reconnect the event has `overflow` and `tree_changed` set, because changes may have
    /// gone by. Dropping the future loses nothing, so it may stand in a `select!`.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when no replica took the watch for the client's deadline; call again to go on trying.
    /// [`Error::TokenExpired`] and [`Error::Denied`] are for good.
    pub async fn next(&mut self) -> Result<WatchEvent, Error> {
        loop {
            let Some(stream) = &mut self.stream else {
                self.connect().await?;
                continue;
            };
            let failure = match malle_rt::timeout(SILENCE, stream.message()).await {
                Ok(Ok(Some(event))) => {
                    // A session that only waits renews its token here, or it would be refused when the stream breaks.
                    let event = self.tell(convert::watch_event(&event)?);
                    self.session.token(&self.client.core, self.client.until()).await;
                    match event {
                        Some(event) => return Ok(event),
                        None => continue,
                    }
                }
                Ok(Ok(None)) => Failure::Broken("the node ended the watch".to_owned()),
                Ok(Err(status)) => Failure::from_status(&status),
                Err(_) => Failure::Silent("the watch was silent for too long".to_owned()),
            };
            tracing::debug!(account = %self.account, ?failure, "the watch is renewed");
            self.stream = None;
            self.missed = true;
            if let Failure::Answer(error) = failure
                && error != Error::TokenExpired
            {
                return Err(error);
            }
        }
    }

    /// What of an event the caller wants to know; `None` for a mere heartbeat.
    fn tell(&mut self, mut event: WatchEvent) -> Option<WatchEvent> {
        let news = event.overflow || event.tree_changed || !event.mailboxes.is_empty();
        if self.account == self.session.account {
            self.seen = self.seen.max(self.session.modseq());
            self.session.saw(event.modseq.0);
        }
        let rose = event.modseq > self.seen;
        self.seen = self.seen.max(event.modseq);
        if std::mem::take(&mut self.missed) {
            event.overflow = true;
            event.tree_changed = true;
        } else if !(news || rose || self.fresh) {
            return None;
        }
        self.fresh = false;
        Some(event)
    }

    async fn connect(&mut self) -> Result<(), Error> {
        let deadline = self.client.until();
        let core = &self.client.core;
        let mut token = self.session.token(core, deadline).await;
        let mut renewed = false;
        loop {
            let account = Bytes::copy_from_slice(self.account.as_bytes());
            let place = Place::Account(self.account);
            let opened = core.repeat(place, Prefer::Leader, false, deadline, |at, shard, _| {
                let request = v1::WatchRequest {
                    shard: shard.0,
                    token: token.clone(),
                    account: account.clone(),
                };
                async move {
                    let opened = at.mail().watch(request).await;
                    opened
                        .map(tonic::Response::into_inner)
                        .map_err(|status| Failure::from_status(&status))
                }
            });
            match opened.await {
                Ok(stream) => {
                    self.stream = Some(stream);
                    return Ok(());
                }
                Err(Error::TokenExpired) if !renewed => {
                    token = self.session.renew(core, deadline).await?;
                    renewed = true;
                }
                Err(error) => return Err(error),
            }
        }
    }
}
