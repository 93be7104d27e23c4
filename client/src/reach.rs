//! The seam to the network: how a node is reached.
//!
//! The product reaches it over TCP, TLS and HTTP/2 ([`crate::secure`]); a simulation gives a [`Reach`] of its own to
//! [`crate::Client::connect_over`], and everything above (routes, retries, op ids, sessions, the standing stream) runs unchanged.

use futures::future::BoxFuture;
use malle_proto::{Channel, NodeId};

/// A node that answers.
pub struct Reached {
    /// Who it is, proved by the way that was taken and not by its own word.
    pub node: NodeId,
    /// The way to it. Once it has broken it stays so; the next one is another.
    pub channel: Channel,
}

/// Why a node could not be reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct ReachError {
    /// What happened, for a person.
    pub text: String,
    /// Somebody answered and is not who we look for: another try changes nothing.
    pub untrusted: bool,
}

impl ReachError {
    /// Nobody answered.
    pub fn unreachable(text: String) -> ReachError {
        ReachError { text, untrusted: false }
    }

    /// Somebody else answered.
    pub fn untrusted(text: String) -> ReachError {
        ReachError { text, untrusted: true }
    }
}

/// Finds the way to the node at `HOST:PORT`. The caller bounds the time.
pub trait Reach: Send + Sync {
    /// One try.
    fn reach(&self, address: &str) -> BoxFuture<'_, Result<Reached, ReachError>>;
}
