//! The types that openraft runs on here, and their aliases. One configuration serves the directory and the shards: a command travels
//! as the bytes that its proposer encoded once.

use std::fmt;

use bytes::Bytes;
use malle_machine::{directory, shard};
use malle_proto::v1::Rider;
use serde::{Deserialize, Serialize};

/// What a leader proposes: a command, and the small bodies that go to the followers with it.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Proposal {
    /// An encoded command of a machine, with its envelope.
    pub command: Bytes,
    /// Bodies that the command names. They are on the leader's volumes already, travel beside the entry, and are no part of it: the log
    /// keeps none of them, and an entry that is read back from it has none.
    #[serde(skip)]
    pub riders: Vec<Rider>,
}

impl Proposal {
    /// A command alone.
    pub fn of(command: Bytes) -> Self {
        Proposal {
            command,
            riders: Vec::new(),
        }
    }
}

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Proposal({} bytes, {} riders)",
            self.command.len(),
            self.riders.len()
        )
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What applying an entry came to. Never stored by raft; receipts inside the machine are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// A blank or membership entry.
    None,
    /// A command of a shard.
    Shard(shard::Outcome),
    /// A command of the directory.
    Directory(directory::Outcome),
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Where a member's peers reach it; kept in the membership so that a group can find itself before it can read the directory.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Member {
    /// HOST:PORT of the peer service.
    pub peer_address: String,
}

openraft::declare_raft_types!(
    /// Raft as malle runs it.
    pub TypeConfig:
        D = Proposal,
        R = Reply,
        NodeId = u64,
        Node = Member,
        AsyncRuntime = malle_rt::Runtime,
);

/// (leader, index) of an entry.
pub type LogId = openraft::alias::LogIdOf<TypeConfig>;
/// Term and node, and whether a majority granted it.
pub type Vote = openraft::alias::VoteOf<TypeConfig>;
/// A log entry.
pub type Entry = openraft::alias::EntryOf<TypeConfig>;
/// Term and node of a leader.
pub type LeaderId = openraft::alias::CommittedLeaderIdOf<TypeConfig>;
/// Voters, possibly two sets of them, and learners.
pub type Membership = openraft::Membership<u64, Member>;
/// A membership with the entry that set it.
pub type StoredMembership = openraft::alias::StoredMembershipOf<TypeConfig>;
