//! The raft groups of this node: proposing, reading, members, leaders.
//!
//! [`Groups`] holds every group that has a replica here, [`Group`] is the handle that the api and placement work with: propose a
//! command, read behind a barrier, ask who leads. `network` speaks to the peers, `serve` answers them. [`Duty`] says whether the node may
//! acknowledge and lead at all, `hand_over` gives leadership away.
//!
//! With `log` and `state` this is the only room that knows openraft. What it must never do: answer a proposal that is not committed
//! and applied, answer a linearizable read without hearing from a majority after the read began, start a group over a log that lost
//! records, or use a node id again.

mod barrier;
mod body_rows;
mod committed;
mod duty;
mod error;
mod fresh;
mod group;
mod groups;
mod hand_over;
mod keep;
mod leave;
mod network;
mod read;
mod restore;
mod riders;
mod serve;
mod timing;

pub use crate::log::types::LeaderId;
pub use barrier::Barrier;
pub use duty::Duty;
pub use error::GroupError;
pub use group::Group;
pub use groups::{Groups, GroupsSettings, LogKept};
pub use hand_over::HandedOver;
pub use serve::RaftServer;
pub use timing::Timing;
