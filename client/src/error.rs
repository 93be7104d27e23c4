//! The one error of the client crate, and its classes.

use std::time::Duration;

use malle_proto::ShardId;

/// What a caller can do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Not done, or not known to be done: the same call with the same op id later.
    Retry,
    /// The answer: repeating the call changes nothing until something else changes.
    Refused,
    /// A defect or damage on malle's side: the same call later may find another replica.
    Fault,
}

/// Why a call failed. What the crate can mend itself (another leader, a moved account) it has mended or given up at the deadline.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No node, or no leader, answered within the deadline. A write may or may not have been done.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// More work than the store takes at once.
    #[error("busy, try again in {0:?}")]
    Busy(Duration),
    /// The directory knows the account, its shard does not have it yet.
    #[error("the account is not ready yet")]
    AccountNotReady,
    /// No such account, address, mailbox, message, node or shard.
    #[error("not found: {0}")]
    NotFound(String),
    /// There is one already.
    #[error("exists: {0}")]
    Exists(String),
    /// The account holds as much as it may.
    #[error("over quota of {limit_bytes} bytes")]
    OverQuota {
        /// The quota.
        limit_bytes: u64,
    },
    /// The message is larger than malle takes.
    #[error("larger than {limit_bytes} bytes")]
    TooLarge {
        /// The limit.
        limit_bytes: u64,
    },
    /// The caller's certificate or token does not allow it.
    #[error("permission denied: {0}")]
    Denied(String),
    /// The call makes no sense.
    #[error("invalid: {0}")]
    Invalid(String),
    /// One of the documented bounds.
    #[error("limit: {0}")]
    Limit(String),
    /// Log in again, or renew the token.
    #[error("the login token has expired")]
    TokenExpired,
    /// Wrong login name or password.
    #[error("wrong login name or password")]
    BadCredentials,
    /// The account is suspended.
    #[error("the account is suspended")]
    Suspended,
    /// Stored data is damaged here and is being repaired.
    #[error("damaged: {0}")]
    Corrupt(String),
    /// A defect of malle.
    #[error("internal error: {0}")]
    Internal(String),
    /// The certificates or addresses given do not work.
    #[error("configuration: {0}")]
    Config(String),
}

impl Error {
    /// What a caller can do.
    pub fn class(&self) -> Class {
        match self {
            Error::Unavailable(_) | Error::Busy(_) | Error::AccountNotReady => Class::Retry,
            Error::Corrupt(_) | Error::Internal(_) => Class::Fault,
            _ => Class::Refused,
        }
    }
}

/// Where a node sends a caller that came to the wrong place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Elsewhere {
    /// Another node leads; 0 when unknown.
    Leader(u64),
    /// The account lives in another shard.
    Shard(ShardId),
}
