//! Raft's words as malle keeps and sends them: frozen structs of our own, never a library's types.
//!
//! Type ids 32 to 47 belong to this file. A struct here is never edited after a release: a change is a new version with a `From`.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use malle_machine::first_version;
use malle_machine::format::FormatError;
use openraft::entry::RaftEntry;
use openraft::{EntryPayload, vote::RaftLeaderId};
use serde::{Deserialize, Serialize};

use super::types::{Entry, LeaderId, LogId, Member, Membership, Proposal, StoredMembership, TypeConfig, Vote};

/// (term, node, index) of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogIdRecord {
    /// Term of the leader that made it.
    pub term: u64,
    /// That leader.
    pub node: u64,
    /// Its index.
    pub index: u64,
}

impl From<LogId> for LogIdRecord {
    fn from(id: LogId) -> Self {
        LogIdRecord {
            term: id.leader_id.term,
            node: id.leader_id.node_id,
            index: id.index,
        }
    }
}

impl From<LogIdRecord> for LogId {
    fn from(id: LogIdRecord) -> Self {
        LogId {
            leader_id: LeaderId::new(id.term, id.node),
            index: id.index,
        }
    }
}

/// A vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoteRecord {
    /// Term.
    pub term: u64,
    /// For whom.
    pub node: u64,
    /// A majority granted it.
    pub committed: bool,
}

impl From<&Vote> for VoteRecord {
    fn from(vote: &Vote) -> Self {
        VoteRecord {
            term: vote.leader_id.term,
            node: vote.leader_id.node_id,
            committed: vote.committed,
        }
    }
}

impl From<VoteRecord> for Vote {
    fn from(vote: VoteRecord) -> Self {
        if vote.committed {
            Vote::new_committed(vote.term, vote.node)
        } else {
            Vote::new(vote.term, vote.node)
        }
    }
}

/// Voters and members of a group.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MembershipRecord {
    /// One set of voters, two while they change.
    pub voters: Vec<Vec<u64>>,
    /// Every member with the address of its peer service; those that are no voters are learners.
    pub members: Vec<(u64, String)>,
}

impl From<&Membership> for MembershipRecord {
    fn from(membership: &Membership) -> Self {
        MembershipRecord {
            voters: membership
                .get_joint_config()
                .iter()
                .map(|set| set.iter().copied().collect())
                .collect(),
            members: membership
                .nodes()
                .map(|(id, member)| (*id, member.peer_address.clone()))
                .collect(),
        }
    }
}

impl TryFrom<MembershipRecord> for Membership {
    type Error = FormatError;

    fn try_from(record: MembershipRecord) -> Result<Self, FormatError> {
        let voters: Vec<BTreeSet<u64>> = record.voters.into_iter().map(|set| set.into_iter().collect()).collect();
        let members: BTreeMap<u64, Member> = record
            .members
            .into_iter()
            .map(|(id, peer_address)| (id, Member { peer_address }))
            .collect();
        Membership::new(voters, members).map_err(|error| FormatError::Payload(error.to_string()))
    }
}

/// A membership with the entry that set it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StoredMembershipRecord {
    /// The entry; `None` for the empty one of a new group.
    pub log_id: Option<LogIdRecord>,
    /// The membership.
    pub membership: MembershipRecord,
}

impl From<&StoredMembership> for StoredMembershipRecord {
    fn from(stored: &StoredMembership) -> Self {
        StoredMembershipRecord {
            log_id: (*stored.log_id()).map(LogIdRecord::from),
            membership: MembershipRecord::from(stored.membership()),
        }
    }
}

impl TryFrom<StoredMembershipRecord> for StoredMembership {
    type Error = FormatError;

    fn try_from(record: StoredMembershipRecord) -> Result<Self, FormatError> {
        let log_id = record.log_id.map(LogId::from);
        if log_id.is_none() && record.membership.voters.is_empty() {
            return Ok(StoredMembership::default());
        }
        Ok(StoredMembership::new(log_id, record.membership.try_into()?))
    }
}

/// A log entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryRecord {
    /// Its name.
    pub id: LogIdRecord,
    /// What it says.
    pub payload: PayloadRecord,
}
first_version!(EntryRecord, 32);

/// What an entry says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PayloadRecord {
    /// Nothing: a new leader's first.
    Blank,
    /// An encoded command.
    Command(Bytes),
    /// A change of membership.
    Membership(MembershipRecord),
}

impl From<&Entry> for EntryRecord {
    fn from(entry: &Entry) -> Self {
        EntryRecord {
            id: entry.log_id().into(),
            payload: match &entry.payload {
                EntryPayload::Blank => PayloadRecord::Blank,
                EntryPayload::Normal(proposal) => PayloadRecord::Command(proposal.command.clone()),
                EntryPayload::Membership(membership) => PayloadRecord::Membership(membership.into()),
            },
        }
    }
}

impl EntryRecord {
    /// The entry that this is.
    ///
    /// # Errors
    /// When a membership in it makes no sense.
    pub fn into_entry(self) -> Result<Entry, FormatError> {
        let payload = match self.payload {
            PayloadRecord::Blank => EntryPayload::Blank,
            PayloadRecord::Command(bytes) => EntryPayload::Normal(Proposal::of(bytes)),
            PayloadRecord::Membership(membership) => EntryPayload::Membership(membership.try_into()?),
        };
        Ok(Entry {
            log_id: self.id.into(),
            payload,
        })
    }
}

/// Everything of a group's log that is not an entry, written whole whenever a part of it changes, so that one live record of it is
/// enough and old segments are free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HeadRecord {
    /// The vote.
    pub vote: Option<VoteRecord>,
    /// Entries up to here are gone.
    pub purged: Option<LogIdRecord>,
    /// What the view must at least have applied, and which database it is (storage.md, guard rail 2).
    pub floor: Option<FloorRecord>,
}
first_version!(HeadRecord, 33);

/// The floor of a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FloorRecord {
    /// Applied index that was flushed.
    pub applied_index: u64,
    /// Identity of the database that holds it.
    pub store: [u8; 16],
}

/// The group's replica is gone from this node: everything of it before this is void, the vote too. Without such a record a start would open
/// what segments still hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DroppedRecord {
    /// Where the log ended.
    pub last: Option<LogIdRecord>,
}
first_version!(DroppedRecord, 55);

/// Entries after this index are void.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TruncateRecord {
    /// The last index that stays; `None` when none does.
    pub last_index: Option<u64>,
}
first_version!(TruncateRecord, 34);

/// AppendEntries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppendRecord {
    /// The leader's vote.
    pub vote: VoteRecord,
    /// The entry before the first.
    pub previous: Option<LogIdRecord>,
    /// The entries.
    pub entries: Vec<EntryRecord>,
    /// Committed as far as the leader knows.
    pub committed: Option<LogIdRecord>,
}
first_version!(AppendRecord, 35);

/// Its answer, pipelined or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AppendedRecord {
    /// The follower's log agrees up to here.
    Matches(Option<LogIdRecord>),
    /// It has another entry, or none, here.
    Conflict(LogIdRecord),
    /// It knows of a higher vote.
    HigherVote(VoteRecord),
}
first_version!(AppendedRecord, 36);

/// RequestVote, also for a pre-vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoteRequestRecord {
    /// The candidate's.
    pub vote: VoteRecord,
    /// Its last entry.
    pub last: Option<LogIdRecord>,
    /// The leader asked for it: do not wait for its lease.
    pub leadership_transfer: bool,
}
first_version!(VoteRequestRecord, 37);

/// Its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VotedRecord {
    /// The voter's vote now.
    pub vote: VoteRecord,
    /// Granted.
    pub granted: bool,
    /// The voter's last entry.
    pub last: Option<LogIdRecord>,
}
first_version!(VotedRecord, 38);

/// A leader asks its successor to stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferRecord {
    /// The leader's vote.
    pub from: VoteRecord,
    /// The successor.
    pub to: u64,
    /// What the successor must have.
    pub last: Option<LogIdRecord>,
}
first_version!(TransferRecord, 39);

/// Its answer: `None` when the successor stands, else why not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferredRecord {
    /// Vote of the successor, when it is another.
    pub vote_changed: Option<VoteRecord>,
    /// Last flushed entry of the successor, when it lacks some.
    pub log_not_flushed: Option<Option<LogIdRecord>>,
}
first_version!(TransferredRecord, 40);

/// Says what a snapshot holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotHeadRecord {
    /// The leader's vote.
    pub vote: VoteRecord,
    /// Last entry in it.
    pub last: Option<LogIdRecord>,
    /// Membership at that entry.
    pub membership: StoredMembershipRecord,
}
first_version!(SnapshotHeadRecord, 41);

/// Its answer: the follower's vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotDoneRecord {
    /// The vote.
    pub vote: VoteRecord,
}
first_version!(SnapshotDoneRecord, 42);

/// The answer to a follower that wants to know how far fresh rows are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadIndexRecord {
    /// Everything that was acknowledged before the question is in the entries up to this one.
    pub index: u64,
}
first_version!(ReadIndexRecord, 44);

/// The answer to any raft frame: a record, or why there is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedRecord {
    /// For a person.
    pub reason: String,
}
first_version!(RefusedRecord, 43);

/// openraft's append request of a record, and back.
impl From<&openraft::raft::AppendEntriesRequest<TypeConfig>> for AppendRecord {
    fn from(request: &openraft::raft::AppendEntriesRequest<TypeConfig>) -> Self {
        AppendRecord {
            vote: (&request.vote).into(),
            previous: request.prev_log_id.map(Into::into),
            entries: request.entries.iter().map(Into::into).collect(),
            committed: request.leader_commit.map(Into::into),
        }
    }
}

impl TryFrom<AppendRecord> for openraft::raft::AppendEntriesRequest<TypeConfig> {
    type Error = FormatError;

    fn try_from(record: AppendRecord) -> Result<Self, FormatError> {
        Ok(openraft::raft::AppendEntriesRequest {
            vote: record.vote.into(),
            prev_log_id: record.previous.map(Into::into),
            entries: record
                .entries
                .into_iter()
                .map(EntryRecord::into_entry)
                .collect::<Result<_, _>>()?,
            leader_commit: record.committed.map(Into::into),
        })
    }
}
