//! The one error of the client crate, and its classes.

use std::time::Duration;

use malle_proto::v1::{self, ErrorCode};
use malle_proto::{NodeId, ShardId};
use prost::Message as _;
use tonic::{Code, Status};

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
    /// No disk has room for another mail where it would have to lie.
    #[error("the disks are full, try again in {0:?}")]
    DiskFull(Duration),
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
            Error::Unavailable(_) | Error::Busy(_) | Error::DiskFull(_) | Error::AccountNotReady => Class::Retry,
            Error::Corrupt(_) | Error::Internal(_) => Class::Fault,
            _ => Class::Refused,
        }
    }
}

/// Why one try of a call failed. [`crate::retry`] decides what follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Another node leads, perhaps this one.
    NotLeader(Option<NodeId>),
    /// The account lives in another shard.
    Moved(ShardId),
    /// The connection broke or could not be made: the call may have been done.
    Broken(String),
    /// No answer in the time of one try, on a connection that may be whole: the call may have been done.
    Silent(String),
    /// Not done; the node says when to come back, 0 for whenever.
    Later {
        /// What to tell the caller when there is no time left.
        error: Error,
        /// The node's wish.
        after: Duration,
    },
    /// The answer, of class Refused or Fault.
    Answer(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error.class() {
            Class::Retry => Failure::Later {
                error,
                after: Duration::ZERO,
            },
            Class::Refused | Class::Fault => Failure::Answer(error),
        }
    }
}

impl Failure {
    /// The failure as the contract words it (proto/malle/v1/types.proto).
    pub(crate) fn from_wire(wire: v1::Error) -> Failure {
        let after = Duration::from_millis(u64::from(wire.retry_after_ms));
        let code = wire.code();
        let text = wire.message;
        Failure::Answer(match code {
            ErrorCode::NotLeader => {
                return Failure::NotLeader(Some(NodeId(wire.leader_node)).filter(|node| node.0 != 0));
            }
            ErrorCode::Moved => return Failure::Moved(ShardId(wire.shard)),
            ErrorCode::Unavailable => {
                return Failure::Later {
                    error: Error::Unavailable(text),
                    after,
                };
            }
            ErrorCode::Busy => {
                return Failure::Later {
                    error: Error::Busy(after),
                    after,
                };
            }
            ErrorCode::DiskFull => {
                return Failure::Later {
                    error: Error::DiskFull(after),
                    after,
                };
            }
            ErrorCode::AccountNotReady => {
                return Failure::Later {
                    error: Error::AccountNotReady,
                    after,
                };
            }
            ErrorCode::NotFound => Error::NotFound(text),
            ErrorCode::Exists => Error::Exists(text),
            ErrorCode::OverQuota => Error::OverQuota {
                limit_bytes: wire.limit_bytes,
            },
            ErrorCode::TooLarge => Error::TooLarge {
                limit_bytes: wire.limit_bytes,
            },
            ErrorCode::Denied => Error::Denied(text),
            ErrorCode::Invalid => Error::Invalid(text),
            ErrorCode::Limit => Error::Limit(text),
            ErrorCode::TokenExpired => Error::TokenExpired,
            ErrorCode::BadCredentials => Error::BadCredentials,
            ErrorCode::Suspended => Error::Suspended,
            ErrorCode::Corrupt => Error::Corrupt(text),
            ErrorCode::Internal => Error::Internal(text),
            ErrorCode::Unspecified => Error::Internal(format!("a node sent an error of an unknown kind: {text}")),
        })
    }

    /// A status of a unary call or of a stream. With details it is the node's own word; without, it comes from the layers below, and
    /// only what cannot be a broken connection counts as an answer.
    pub(crate) fn from_status(status: &Status) -> Failure {
        if !status.details().is_empty() {
            return match v1::Error::decode(status.details()) {
                Ok(wire) => Failure::from_wire(wire),
                Err(error) => Failure::Answer(Error::Internal(format!("a node sent an unreadable error: {error}"))),
            };
        }
        let text = status.message().to_owned();
        match status.code() {
            Code::PermissionDenied | Code::Unauthenticated => Failure::Answer(Error::Denied(text)),
            Code::InvalidArgument => Failure::Answer(Error::Invalid(text)),
            Code::OutOfRange => Failure::Answer(Error::Limit(text)),
            Code::Unimplemented => Failure::Answer(Error::Internal(format!(
                "the node does not know this call, its version differs: {text}"
            ))),
            Code::DeadlineExceeded => Failure::Silent(text),
            code => Failure::Broken(format!("{code:?}: {text}")),
        }
    }

    /// What the caller is told when nothing more can be tried.
    pub(crate) fn into_error(self) -> Error {
        match self {
            Failure::NotLeader(_) => Error::Unavailable("the group has no leader that could be reached".to_owned()),
            Failure::Moved(shard) => Error::Unavailable(format!("the account is moving to shard {shard}")),
            Failure::Broken(text) | Failure::Silent(text) => Error::Unavailable(text),
            Failure::Later { error, .. } | Failure::Answer(error) => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_with_details_is_the_nodes_own_word() {
        let wire = v1::Error {
            code: ErrorCode::NotLeader.into(),
            leader_node: 3,
            ..Default::default()
        };
        let status = Status::with_details(Code::Unavailable, "not leader", wire.encode_to_vec().into());
        assert_eq!(Failure::from_status(&status), Failure::NotLeader(Some(NodeId(3))));
    }

    #[test]
    fn a_status_of_the_layers_below_may_be_repeated() {
        for code in [
            Code::Unavailable,
            Code::Unknown,
            Code::Internal,
            Code::Cancelled,
            Code::Aborted,
        ] {
            assert!(
                matches!(Failure::from_status(&Status::new(code, "h2")), Failure::Broken(_)),
                "{code:?}"
            );
        }
        assert!(matches!(
            Failure::from_status(&Status::permission_denied("role")),
            Failure::Answer(Error::Denied(_))
        ));
    }

    #[test]
    fn a_full_disk_is_tried_again_when_the_node_says_so() {
        let failure = Failure::from_wire(v1::Error {
            code: ErrorCode::DiskFull.into(),
            retry_after_ms: 30_000,
            ..Default::default()
        });
        let after = Duration::from_secs(30);
        let error = Error::DiskFull(after);
        assert_eq!(error.class(), Class::Retry);
        assert_eq!(failure, Failure::Later { error, after });
    }

    #[test]
    fn an_error_code_of_a_later_version_is_a_fault_and_no_success() {
        let failure = Failure::from_wire(v1::Error {
            code: 4711,
            message: "new".into(),
            ..Default::default()
        });
        assert_eq!(failure.into_error().class(), Class::Fault);
    }
}
