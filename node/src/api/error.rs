//! Refusals on their way to a caller, and the only maker of a tonic status.
//!
//! [`Refused`] is `malle.v1.Error`: streams carry it inside their replies, unary calls as the details of a status. A message is for a
//! person and never holds a secret or a mail's content.

use std::time::Duration;

use malle_machine::{directory, shard};
use malle_proto::limits;
use malle_proto::v1::{Error, ErrorCode};
use prost::Message;
use tonic::{Code, Request, Response, Status};

use crate::bodies::BodiesError;
use crate::raft::GroupError;
use crate::security::password::PasswordError;
use crate::security::{Call, Denied, Peer, Rule, TokenError, permit};

/// Why a call is not done.
#[derive(Debug, Clone, PartialEq)]
pub struct Refused(pub Error);

impl Refused {
    fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Refused(Error {
            code: code.into(),
            message: message.into(),
            ..Error::default()
        })
    }

    /// The call makes no sense.
    pub fn invalid(message: impl Into<String>) -> Self {
        Refused::new(ErrorCode::Invalid, message)
    }

    /// There is no such thing.
    pub fn not_found(message: impl Into<String>) -> Self {
        Refused::new(ErrorCode::NotFound, message)
    }

    /// Again later, or elsewhere.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Refused::new(ErrorCode::Unavailable, message)
    }

    /// One of the bounds.
    pub fn limit(message: impl Into<String>) -> Self {
        Refused::new(ErrorCode::Limit, message)
    }

    /// The caller may not.
    pub fn denied(message: impl Into<String>) -> Self {
        Refused::new(ErrorCode::Denied, message)
    }

    /// Larger than malle takes.
    pub fn too_large(limit_bytes: u64) -> Self {
        let mut refused = Refused::new(ErrorCode::TooLarge, format!("larger than {limit_bytes} bytes"));
        refused.0.limit_bytes = limit_bytes;
        refused
    }

    /// More than is taken at once.
    pub fn busy(retry_after: Duration) -> Self {
        let mut refused = Refused::new(ErrorCode::Busy, "busy");
        refused.0.retry_after_ms = u32::try_from(retry_after.as_millis()).unwrap_or(u32::MAX);
        refused
    }

    /// No disk has room for another body where it would have to lie.
    pub fn disk_full(retry_after: Duration) -> Self {
        let mut refused = Refused::new(ErrorCode::DiskFull, "no room on the disks for another mail");
        refused.0.retry_after_ms = u32::try_from(retry_after.as_millis()).unwrap_or(u32::MAX);
        refused
    }

    /// Wrong login name or password; which of the two is not said.
    pub fn bad_credentials() -> Self {
        Refused::new(ErrorCode::BadCredentials, "wrong login name or password")
    }

    /// The login token is over: renew it.
    pub fn token_expired() -> Self {
        Refused::new(ErrorCode::TokenExpired, "the login token has expired")
    }

    /// The account is suspended.
    pub fn suspended() -> Self {
        Refused::new(ErrorCode::Suspended, "the account is suspended")
    }

    /// A defect.
    pub fn internal(message: impl Into<String>) -> Self {
        Refused::new(ErrorCode::Internal, message)
    }

    fn grpc_code(&self) -> Code {
        match self.0.code() {
            ErrorCode::NotFound => Code::NotFound,
            ErrorCode::Exists => Code::AlreadyExists,
            ErrorCode::Denied | ErrorCode::Suspended => Code::PermissionDenied,
            ErrorCode::TokenExpired | ErrorCode::BadCredentials => Code::Unauthenticated,
            ErrorCode::Invalid => Code::InvalidArgument,
            ErrorCode::OverQuota | ErrorCode::TooLarge | ErrorCode::Limit | ErrorCode::Busy | ErrorCode::DiskFull => {
                Code::ResourceExhausted
            }
            ErrorCode::NotLeader | ErrorCode::Moved => Code::FailedPrecondition,
            ErrorCode::Unavailable | ErrorCode::AccountNotReady => Code::Unavailable,
            ErrorCode::Corrupt => Code::DataLoss,
            ErrorCode::Internal | ErrorCode::Unspecified => Code::Internal,
        }
    }
}

impl From<Refused> for Status {
    fn from(refused: Refused) -> Status {
        let details = refused.0.encode_to_vec().into();
        Status::with_details(refused.grpc_code(), refused.0.message, details)
    }
}

impl From<GroupError> for Refused {
    fn from(error: GroupError) -> Self {
        let message = error.to_string();
        match error {
            GroupError::NotLeader { leader } => {
                let mut refused = Refused::new(ErrorCode::NotLeader, message);
                refused.0.leader_node = leader.map_or(0, |node| node.0);
                refused
            }
            GroupError::Busy { retry_after } => Refused::busy(retry_after),
            GroupError::DiskFull { retry_after } => Refused::disk_full(retry_after),
            GroupError::Invalid(_) => Refused::invalid(message),
            GroupError::Unavailable(_) | GroupError::Deadline | GroupError::Rebuilding | GroupError::Stopped(_) => {
                Refused::unavailable(message)
            }
        }
    }
}

impl From<shard::Refusal> for Refused {
    fn from(refusal: shard::Refusal) -> Self {
        use shard::Refusal;
        let message = refusal.to_string();
        match refusal {
            Refusal::NoAccount => Refused::new(ErrorCode::AccountNotReady, message),
            Refusal::Suspended => Refused::suspended(),
            Refusal::NoMailbox => Refused::not_found(message),
            Refusal::MailboxExists => Refused::new(ErrorCode::Exists, message),
            Refusal::BadName(_) | Refusal::NotPossible(_) => Refused::invalid(message),
            Refusal::OverQuota { quota_bytes } => {
                let mut refused = Refused::new(ErrorCode::OverQuota, message);
                refused.0.limit_bytes = quota_bytes;
                refused
            }
            Refusal::Limit(_) | Refusal::UidsExhausted => Refused::limit(message),
            Refusal::StaleBody => Refused::unavailable(message),
            Refusal::NoRight(_) => Refused::denied(message),
        }
    }
}

impl From<directory::Refusal> for Refused {
    fn from(refusal: directory::Refusal) -> Self {
        use directory::Refusal;
        let message = refusal.to_string();
        match refusal {
            Refusal::Initialised
            | Refusal::AddressTaken(_)
            | Refusal::AddressRests(_)
            | Refusal::AppPasswordExists(_) => Refused::new(ErrorCode::Exists, message),
            Refusal::NoAccount
            | Refusal::NoAddress(_)
            | Refusal::NoNode(_)
            | Refusal::NoShard
            | Refusal::NoAppPassword(_)
            | Refusal::NoTask(_) => Refused::not_found(message),
            Refusal::NotInitialised | Refusal::Epoch(_) => Refused::unavailable(message),
            Refusal::BadAddress(_) | Refusal::PrimaryAddress(_) | Refusal::NodeInUse(..) => Refused::invalid(message),
            Refusal::Limit(_) => Refused::limit(message),
            #[allow(unreachable_patterns, reason = "refusals are added at their end")]
            _ => Refused::invalid(message),
        }
    }
}

impl From<BodiesError> for Refused {
    fn from(error: BodiesError) -> Self {
        match error {
            BodiesError::TooLarge { limit_bytes } => Refused::too_large(limit_bytes),
            BodiesError::Hash => Refused::invalid(error.to_string()),
            BodiesError::Full => Refused::disk_full(Duration::from_millis(limits::DISK_SHORT_RETRY_MS)),
            BodiesError::Corrupt(_) => Refused::new(ErrorCode::Corrupt, error.to_string()),
            other => Refused::unavailable(other.to_string()),
        }
    }
}

impl From<Denied> for Refused {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Token(TokenError::Expired) => Refused::token_expired(),
            // The key was made moments ago and this node's directory has not heard of it: another moment will do.
            Denied::Token(TokenError::UnknownKey(_)) => Refused::unavailable(denied.to_string()),
            denied => Refused::denied(denied.to_string()),
        }
    }
}

impl From<PasswordError> for Refused {
    fn from(error: PasswordError) -> Self {
        match error {
            PasswordError::Busy => Refused::busy(Duration::from_millis(500)),
            PasswordError::Length => Refused::invalid(error.to_string()),
            PasswordError::Hash(reason) => Refused::internal(reason),
        }
    }
}

/// The caller, when the table of roles lets it make this call at all.
///
/// # Errors
/// `PermissionDenied`.
pub fn permitted<T>(request: &Request<T>, call: Call) -> Result<(Peer, Rule), Status> {
    let Some(peer) = request.extensions().get::<Peer>() else {
        return Err(Refused::denied("a connection without an identity").into());
    };
    match permit(peer, call) {
        Ok(rule) => Ok((peer.clone(), rule)),
        Err(denied) => Err(Refused::from(denied).into()),
    }
}

/// A reply, or the status of a refusal.
///
/// # Errors
/// The refusal.
pub fn reply<T>(result: Result<T, Refused>) -> Result<Response<T>, Status> {
    result.map(Response::new).map_err(Status::from)
}

/// What a status of this node says.
pub fn code_of(status: &Status) -> ErrorCode {
    Error::decode(status.details()).map_or(ErrorCode::Unspecified, |error| error.code())
}

/// A peer asked for what is not here.
pub fn peer_not_found(message: &str) -> Status {
    Refused::not_found(message).into()
}

/// A peer's request failed here.
pub fn peer_failed(message: &str) -> Status {
    Refused::unavailable(message).into()
}

/// A peer's request makes no sense.
pub fn peer_invalid(message: &str) -> Status {
    Refused::invalid(message).into()
}

/// A peer that is none.
pub fn peer_denied(message: &str) -> Status {
    Refused::denied(message).into()
}
