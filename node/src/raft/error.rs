//! Why a group did not do what it was asked.

use std::time::Duration;

use malle_proto::NodeId;
use openraft::errors::{ClientWriteError, Fatal, LinearizableReadError, RaftError};

use crate::log::types::TypeConfig;

/// Why a group did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// Another replica leads.
    #[error("not the leader")]
    NotLeader {
        /// Who does, as far as known.
        leader: Option<NodeId>,
    },
    /// No majority, or the leader changed while the request was under way: it may or may not be done.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// Too much is waiting.
    #[error("busy")]
    Busy {
        /// When to try again.
        retry_after: Duration,
    },
    /// The disks of the replicas have no room for another body.
    #[error("no room on the disks for another body")]
    DiskFull {
        /// When to try again.
        retry_after: Duration,
    },
    /// The caller's time is over; what was proposed may or may not be done.
    #[error("deadline passed")]
    Deadline,
    /// The view is being rebuilt here.
    #[error("this replica is rebuilding its view")]
    Rebuilding,
    /// The group stopped here: damage, or the node is going down.
    #[error("stopped: {0}")]
    Stopped(String),
    /// The change cannot be made as asked.
    #[error("{0}")]
    Invalid(String),
}

impl From<Fatal<TypeConfig>> for GroupError {
    fn from(fatal: Fatal<TypeConfig>) -> Self {
        GroupError::Stopped(fatal.to_string())
    }
}

impl From<RaftError<TypeConfig, ClientWriteError<TypeConfig>>> for GroupError {
    fn from(error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> Self {
        match error {
            RaftError::Fatal(fatal) => fatal.into(),
            RaftError::APIError(ClientWriteError::ForwardToLeader(to)) => GroupError::NotLeader {
                leader: to.leader_id.map(NodeId),
            },
            RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) => {
                GroupError::Unavailable("the leader changed".into())
            }
            RaftError::APIError(other) => GroupError::Invalid(other.to_string()),
        }
    }
}

impl From<RaftError<TypeConfig, LinearizableReadError<TypeConfig>>> for GroupError {
    fn from(error: RaftError<TypeConfig, LinearizableReadError<TypeConfig>>) -> Self {
        match error {
            RaftError::Fatal(fatal) => fatal.into(),
            RaftError::APIError(LinearizableReadError::ForwardToLeader(to)) => GroupError::NotLeader {
                leader: to.leader_id.map(NodeId),
            },
            RaftError::APIError(LinearizableReadError::QuorumNotEnough(quorum)) => {
                GroupError::Unavailable(quorum.to_string())
            }
        }
    }
}
