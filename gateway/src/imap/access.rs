//! What a session is given by its caller, and what it gives back.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use malle_proto::limits;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::connection::BoxedIo;
use super::gate::Gate;
use super::roster::Roster;
use super::store::Store;

/// How one listener treats its sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionSettings {
    /// The stream is encrypted: from the first byte, or since STARTTLS.
    pub tls: bool,
    /// The caller can wrap the stream when [`serve`](super::serve) returns [`Ended::StartTls`].
    pub starttls_offered: bool,
    /// LOGIN and AUTHENTICATE PLAIN are taken without TLS: only for loopback, only by configuration.
    pub plaintext_login_allowed: bool,
    /// The client was greeted already: it comes back from STARTTLS.
    pub greeted: bool,
    /// Access tokens of an identity provider are taken: OAUTHBEARER and XOAUTH2 are offered.
    pub access_tokens: bool,
}

impl SessionSettings {
    /// The settings of the same session after its TLS handshake.
    #[must_use]
    pub fn after_starttls(self) -> SessionSettings {
        SessionSettings {
            tls: true,
            starttls_offered: false,
            greeted: true,
            ..self
        }
    }

    /// May a password travel on this stream?
    pub fn login_allowed(&self) -> bool {
        self.tls || self.plaintext_login_allowed
    }
}

/// What a session lives on. Made once per listener and cloned for each connection.
#[derive(Clone)]
pub struct Context {
    /// The way to the data.
    pub store: Arc<dyn Store>,
    /// How sessions of this listener are treated.
    pub settings: SessionSettings,
    /// Shared by all sessions of the process.
    pub memory: BodyMemory,
    /// Shared by all sessions of the process.
    pub gate: Arc<Gate>,
    /// Shared by all sessions of the process.
    pub roster: Arc<Roster>,
    /// Becomes true when the process stops: sessions say BYE.
    pub shutdown: watch::Receiver<bool>,
    /// Where the client comes from, for the log.
    pub peer: String,
    /// The same for the gate.
    pub address: IpAddr,
}

/// How a session ended.
pub enum Ended {
    /// The stream is of no use any more; closing it is all that is left.
    Closed,
    /// STARTTLS was answered OK: wrap the stream and serve it again with
    /// [`SessionSettings::after_starttls`]. Nothing the client sent before the handshake is
    /// kept (RFC 3501 6.2.1, CVE-2011-0411).
    StartTls(BoxedIo),
}

/// The message bytes that all sessions hold in memory at the same time, in units of 1 KiB.
#[derive(Debug, Clone)]
pub struct BodyMemory {
    free_kib: Arc<Semaphore>,
}

/// A share of the memory; given back when dropped.
#[derive(Debug)]
pub struct Share {
    _permit: OwnedSemaphorePermit,
}

impl BodyMemory {
    /// At most this many bytes; at least one largest message, so that every message can pass.
    pub fn new(bytes: usize) -> BodyMemory {
        let kib = bytes.max(limits::MESSAGE_MAX_BYTES).div_ceil(1024);
        BodyMemory {
            free_kib: Arc::new(Semaphore::new(kib)),
        }
    }

    /// Room for `bytes` if there is some now: for what may as well be done without.
    pub fn spare(&self, bytes: u64) -> Option<Share> {
        let kib = u32::try_from(bytes.div_ceil(1024)).ok()?;
        let permit = Arc::clone(&self.free_kib).try_acquire_many_owned(kib).ok()?;
        Some(Share { _permit: permit })
    }

    /// Waits for room for `bytes`; `None` when there was none in time, or when no message may be that large.
    pub async fn take(&self, bytes: u64) -> Option<Share> {
        let kib = u32::try_from(bytes.div_ceil(1024)).ok()?;
        if bytes > limits::MESSAGE_MAX_BYTES as u64 + 1024 * 1024 {
            return None;
        }
        let wait = Duration::from_millis(limits::IMAP_MEMORY_WAIT_MS);
        let permit = tokio::time::timeout(wait, Arc::clone(&self.free_kib).acquire_many_owned(kib)).await;
        Some(Share {
            _permit: permit.ok()?.ok()?,
        })
    }
}

impl Default for BodyMemory {
    fn default() -> BodyMemory {
        BodyMemory::new(limits::IMAP_BODY_BYTES_IN_MEMORY_MAX)
    }
}
