//! Between the crate's types and the contract's messages. An answer that does not keep the contract becomes [`Error::Internal`].

use bytes::Bytes;
use malle_proto::ids::BadId;
use malle_proto::{ClusterId, ModSeq, NodeId, OpId, Rights, ShardId, Uid, UidValidity, v1};
use prost::Message as _;

use crate::cluster::{CollectStatus, GroupStatus, NodeStatus, ScrubStatus};
use crate::directory::{AccountRecord, AddressEvent, AddressRecord, Node, Shard, Topology};
use crate::error::Error;
use crate::types::{
    AccountStatus, Changes, Consistency, Flags, Mailbox, Message, MessageFlags, Opened, Page, Resolved, SpecialUse,
    StoreMode, Stored, UidRange, WatchEvent,
};

/// An id from a field of an answer.
pub(crate) fn id<'a, I: TryFrom<&'a [u8], Error = BadId>>(bytes: &'a [u8]) -> Result<I, Error> {
    I::try_from(bytes).map_err(|error| Error::Internal(format!("a node sent {error}")))
}

fn absent(what: &str) -> Error {
    Error::Internal(format!("a node sent an answer without {what}"))
}

pub(crate) fn op_id(op_id: OpId) -> Bytes {
    Bytes::copy_from_slice(op_id.as_bytes())
}

pub(crate) fn special_use(of: SpecialUse) -> i32 {
    let wire = match of {
        SpecialUse::None => v1::SpecialUse::None,
        SpecialUse::Inbox => v1::SpecialUse::Inbox,
        SpecialUse::Sent => v1::SpecialUse::Sent,
        SpecialUse::Drafts => v1::SpecialUse::Drafts,
        SpecialUse::Trash => v1::SpecialUse::Trash,
        SpecialUse::Junk => v1::SpecialUse::Junk,
        SpecialUse::Archive => v1::SpecialUse::Archive,
        SpecialUse::Flagged => v1::SpecialUse::Flagged,
        SpecialUse::All => v1::SpecialUse::All,
    };
    wire.into()
}

/// A use that this version does not know is none.
fn special_use_back(wire: v1::SpecialUse) -> SpecialUse {
    match wire {
        v1::SpecialUse::None => SpecialUse::None,
        v1::SpecialUse::Inbox => SpecialUse::Inbox,
        v1::SpecialUse::Sent => SpecialUse::Sent,
        v1::SpecialUse::Drafts => SpecialUse::Drafts,
        v1::SpecialUse::Trash => SpecialUse::Trash,
        v1::SpecialUse::Junk => SpecialUse::Junk,
        v1::SpecialUse::Archive => SpecialUse::Archive,
        v1::SpecialUse::Flagged => SpecialUse::Flagged,
        v1::SpecialUse::All => SpecialUse::All,
    }
}

pub(crate) fn store_mode(mode: StoreMode) -> i32 {
    let wire = match mode {
        StoreMode::Add => v1::StoreMode::Add,
        StoreMode::Remove => v1::StoreMode::Remove,
        StoreMode::Replace => v1::StoreMode::Replace,
    };
    wire.into()
}

/// `AtLeast` never asks for less than the session has seen.
pub(crate) fn consistency(wanted: Consistency, session: ModSeq) -> Option<v1::Consistency> {
    use v1::consistency::Kind;
    let kind = match wanted {
        Consistency::Linearizable => Kind::Linearizable(true),
        Consistency::AtLeast(modseq) => Kind::AtLeastModseq(modseq.max(session).0),
        Consistency::Stale(age) => Kind::StaleMs(u32::try_from(age.as_millis()).unwrap_or(u32::MAX)),
    };
    Some(v1::Consistency { kind: Some(kind) })
}

pub(crate) fn flags(flags: Flags) -> Option<v1::Flags> {
    Some(v1::Flags {
        system: u32::from(flags.system),
        keywords: flags.keywords,
    })
}

fn flags_back(wire: Option<v1::Flags>) -> Flags {
    let wire = wire.unwrap_or_default();
    // Bits above the eighth are flags of a later version, which this one does not show.
    Flags {
        system: (wire.system & 0xff) as u8,
        keywords: wire.keywords,
    }
}

pub(crate) fn ranges(uids: &[UidRange]) -> Vec<v1::UidRange> {
    uids.iter()
        .map(|range| v1::UidRange {
            first: range.first.0,
            last: range.last.0,
        })
        .collect()
}

pub(crate) fn ranges_back(wire: &[v1::UidRange]) -> Vec<UidRange> {
    wire.iter()
        .map(|range| UidRange {
            first: Uid(range.first),
            last: Uid(range.last),
        })
        .collect()
}

pub(crate) fn message_flags(wire: Vec<v1::MessageFlags>) -> Vec<MessageFlags> {
    let one = |row: v1::MessageFlags| MessageFlags {
        uid: Uid(row.uid),
        modseq: ModSeq(row.modseq),
        flags: flags_back(row.flags),
    };
    wire.into_iter().map(one).collect()
}

pub(crate) fn stored(wire: &v1::Delivered) -> Result<Stored, Error> {
    Ok(Stored {
        mailbox: id(&wire.mailbox)?,
        uid_validity: UidValidity(wire.uid_validity),
        uid: Uid(wire.uid),
        modseq: ModSeq(wire.modseq),
        repeated: wire.repeated,
    })
}

/// Rights of a later version than this one grant nothing here.
pub(crate) fn rights(wire: u32) -> Rights {
    Rights((wire & u32::from(Rights::ALL.0)) as u16)
}

pub(crate) fn mailbox(wire: v1::Mailbox) -> Result<Mailbox, Error> {
    Ok(Mailbox {
        id: id(&wire.id)?,
        uid_validity: UidValidity(wire.uid_validity),
        uid_next: Uid(wire.uid_next),
        highest_modseq: ModSeq(wire.highest_modseq),
        messages: wire.messages,
        unseen: wire.unseen,
        deleted: wire.deleted,
        size_bytes: wire.size_bytes,
        special_use: special_use_back(wire.special_use()),
        subscribed: wire.subscribed,
        no_select: wire.no_select,
        rights: wire.rights.map(rights),
        name: wire.name,
    })
}

pub(crate) fn opened(wire: v1::MailboxOpenReply) -> Result<Opened, Error> {
    Ok(Opened {
        mailbox: mailbox(wire.mailbox.ok_or_else(|| absent("the mailbox"))?)?,
        uids: ranges_back(&wire.uids),
        keywords: wire.keywords,
        first_unseen: wire.first_unseen.map(Uid),
    })
}

fn message(wire: v1::Message, with_summary: bool) -> Result<Message, Error> {
    let summary = match with_summary {
        true => Some(
            v1::Summary::decode(wire.summary)
                .map_err(|error| Error::Corrupt(format!("the summary of UID {} is unreadable: {error}", wire.uid)))?,
        ),
        false => None,
    };
    Ok(Message {
        uid: Uid(wire.uid),
        modseq: ModSeq(wire.modseq),
        flags: flags_back(wire.flags),
        size_bytes: wire.size_bytes,
        internal_date_ms: wire.internal_date_ms,
        internal_date_zone_minutes: i16::try_from(wire.internal_date_zone_minutes).unwrap_or(0),
        save_date_ms: wire.save_date_ms,
        email_id: id(&wire.email_id)?,
        thread_id: id(&wire.thread_id)?,
        summary,
    })
}

pub(crate) fn page(wire: v1::FetchReply, with_summary: bool) -> Result<Page, Error> {
    let messages = wire
        .messages
        .into_iter()
        .map(|row| message(row, with_summary))
        .collect::<Result<_, _>>()?;
    Ok(Page {
        messages,
        resume_from: wire.resume_from.map(Uid),
    })
}

pub(crate) fn changes(wire: v1::ChangesReply) -> Result<Changes, Error> {
    Ok(Changes {
        mailbox: mailbox(wire.mailbox.ok_or_else(|| absent("the mailbox"))?)?,
        changed: message_flags(wire.changed),
        vanished: ranges_back(&wire.vanished),
        through: ModSeq(wire.through_modseq),
        cannot_calculate: wire.cannot_calculate,
        keywords: wire.keywords,
    })
}

pub(crate) fn account_status(wire: &v1::AccountStatusReply) -> AccountStatus {
    AccountStatus {
        modseq: ModSeq(wire.modseq),
        quota_bytes: wire.quota_bytes,
        used_bytes: wire.used_bytes,
        messages: wire.messages,
    }
}

pub(crate) fn watch_event(wire: &v1::WatchEvent) -> Result<WatchEvent, Error> {
    Ok(WatchEvent {
        modseq: ModSeq(wire.modseq),
        mailboxes: wire.mailboxes.iter().map(|bytes| id(bytes)).collect::<Result<_, _>>()?,
        overflow: wire.overflow,
        tree_changed: wire.tree_changed,
    })
}

pub(crate) fn resolved(wire: v1::ResolveReply) -> Result<Resolved, Error> {
    Ok(Resolved {
        account: id(&wire.account)?,
        shard: ShardId(wire.shard),
        suspended: wire.state() == v1::AccountState::Suspended,
        primary_address: wire.primary_address,
    })
}

pub(crate) fn account_record(wire: v1::Account) -> Result<AccountRecord, Error> {
    let address = |row: v1::Address| AddressRecord {
        address: row.address,
        primary: row.primary,
        since_ms: row.since_ms,
    };
    let event = |row: v1::AddressEvent| AddressEvent {
        time_ms: row.time_ms,
        address: row.address,
        event: row.event,
    };
    Ok(AccountRecord {
        id: id(&wire.id)?,
        shard: ShardId(wire.shard),
        placement_epoch: wire.placement_epoch,
        suspended: wire.state() == v1::AccountState::Suspended,
        quota_bytes: wire.quota_bytes,
        created_ms: wire.created_ms,
        addresses: wire.addresses.into_iter().map(address).collect(),
        history: wire.history.into_iter().map(event).collect(),
        has_password: wire.has_password,
    })
}

fn some_node(wire: u64) -> Option<NodeId> {
    (wire != 0).then_some(NodeId(wire))
}

pub(crate) fn node(node: Node) -> v1::Node {
    let state = if node.retired {
        v1::NodeState::Retired
    } else {
        v1::NodeState::Active
    };
    v1::Node {
        id: node.id.0,
        region: node.region,
        zone: node.zone,
        client_address: node.client_address,
        peer_address: node.peer_address,
        state: state.into(),
    }
}

pub(crate) fn topology(wire: v1::TopologyReply) -> Result<Topology, Error> {
    let node = |row: v1::Node| Node {
        id: NodeId(row.id),
        retired: row.state() == v1::NodeState::Retired,
        region: row.region,
        zone: row.zone,
        client_address: row.client_address,
        peer_address: row.peer_address,
    };
    let shard = |row: v1::Shard| Shard {
        id: ShardId(row.id),
        replicas: row.replicas.into_iter().map(NodeId).collect(),
        home_region: row.home_region,
        leader: some_node(row.leader),
        epoch: row.epoch,
        accounts: row.accounts,
    };
    Ok(Topology {
        cluster: id::<ClusterId>(&wire.cluster)?,
        cluster_name: wire.cluster_name,
        nodes: wire.nodes.into_iter().map(node).collect(),
        shards: wire.shards.into_iter().map(shard).collect(),
        directory_index: wire.directory_index,
    })
}

pub(crate) fn node_status(wire: v1::NodeStatusReply) -> Result<NodeStatus, Error> {
    let groups = wire.groups.into_iter().map(group_status).collect::<Result<_, _>>()?;
    Ok(NodeStatus {
        node: NodeId(wire.node),
        region: wire.region,
        version: wire.version,
        uptime_ms: wire.uptime_ms,
        groups,
        failed: (!wire.failed.is_empty()).then_some(wire.failed),
        disk_free_bytes: wire.disk_free_bytes,
        disk_total_bytes: wire.disk_total_bytes,
        bodies: wire.bodies,
        body_bytes: wire.body_bytes,
        scrub: scrub(wire.scrub.unwrap_or_default()),
        telemetry_address: (!wire.telemetry_address.is_empty()).then_some(wire.telemetry_address),
        short_of_room: (!wire.short_of_room.is_empty()).then_some(wire.short_of_room),
        collect: collect(wire.collect.unwrap_or_default()),
    })
}

fn collect(wire: v1::CollectStatus) -> CollectStatus {
    CollectStatus {
        rounds: wire.rounds,
        finished_ms: wire.finished_ms,
        freed: wire.freed,
        freed_bytes: wire.freed_bytes,
        carried_bytes: wire.carried_bytes,
        volumes_freed: wire.volumes_freed,
        volumes_freed_bytes: wire.volumes_freed_bytes,
        volume_bytes: wire.volume_bytes,
        garbage_bytes: wire.garbage_bytes,
        stuck: wire.stuck,
    }
}

fn scrub(wire: v1::ScrubStatus) -> ScrubStatus {
    ScrubStatus {
        running: wire.running,
        started_ms: wire.started_ms,
        bodies: wire.bodies,
        bytes: wire.bytes,
        rounds: wire.rounds,
        finished_ms: wire.finished_ms,
        took_ms: wire.took_ms,
        rotten: wire.rotten,
        unreadable: wire.unreadable,
        absent: wire.absent,
        repaired: wire.repaired,
        open: wire.open,
    }
}

fn group_status(wire: v1::GroupStatus) -> Result<GroupStatus, Error> {
    let digest = match wire.digest.len() {
        0 => None,
        _ => Some(<[u8; 16]>::try_from(&wire.digest[..]).map_err(|_| absent("a digest of 16 bytes"))?),
    };
    Ok(GroupStatus {
        shard: ShardId(wire.shard),
        role: wire.role,
        term: wire.term,
        leader: some_node(wire.leader),
        last_log_index: wire.last_log_index,
        committed_index: wire.committed_index,
        applied_index: wire.applied_index,
        checkpoint_index: wire.checkpoint_index,
        bodies_complete_through: wire.bodies_complete_through,
        digest,
        voters: wire.voters.into_iter().map(NodeId).collect(),
        learners: wire.learners.into_iter().map(NodeId).collect(),
        rebuilds: wire.rebuilds,
        rows: wire.rows,
        accounts: wire.accounts,
    })
}
