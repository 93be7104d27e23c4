//! A mail comes in: a small body rides to the followers with the command that names it, a large one goes ahead. Either way the command
//! is committed only with the body durable on a majority.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use malle_machine::shard::{BodyPut, NewMail, Op, Outcome, Refusal, Summary};
use malle_proto::v1::{self, body};
use malle_proto::{AccountId, BodyHash, ShardId, limits};
use malle_rt::Instant;
use prost::Message;

use super::error::Refused;
use super::mail::{Asked, MailApi};
use super::room::Taken;
use crate::bodies::{Bodies, Members, StoredBody};
use crate::mime;
use crate::raft::{Group, GroupError, LeaderId};
use crate::security::{Identity, Peer};

/// Times a body is put again because the membership changed or collection was quicker.
const PUTS_MAX: usize = 3;
/// An upload that no command named is forgotten after this long; its bytes stay until collection.
const UPLOAD_KEPT: Duration = Duration::from_secs(600);
/// Collection that is quicker than that loses nothing: the command is told to put again. But it finds no bytes to put.
const _: () = assert!(UPLOAD_KEPT.as_millis() < limits::BODY_IDLE_MS as u128);
const _: () = assert!(UPLOAD_KEPT.as_millis() < limits::COLLECT_EVERY_MS as u128);
/// Uploads remembered at one time.
const UPLOADS_MAX: usize = 1_024;
/// A summary of a larger mail is made on the blocking pool.
const SUMMARY_INLINE_BYTES: usize = 32 * 1024;

/// Owners of one upload that are remembered: the same file sent by many at once.
const OWNERS_MAX: usize = 64;

/// Who sent a body ahead of its command. A ticket names a body by its hash: to anybody else it must be worth nothing, or knowing a
/// hash would be enough to read a stranger's mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner {
    gateway: String,
    /// The account whose token came with it; none for a delivery.
    account: Option<AccountId>,
}

impl Owner {
    /// The caller, with the account that it speaks for.
    ///
    /// # Errors
    /// Denied to everybody but gateways, as the table of roles says already.
    pub(super) fn of(peer: &Peer, account: Option<AccountId>) -> Result<Owner, Refused> {
        match &peer.identity {
            Identity::Gateway { name, .. } => Ok(Owner {
                gateway: name.clone(),
                account,
            }),
            Identity::Node(_) | Identity::Operator { .. } => Err(Refused::denied("mail goes through gateways")),
        }
    }

    /// Whether what this owner uploaded may be named by a command of that one.
    fn serves(&self, command: &Owner) -> bool {
        self.gateway == command.gateway && (self.account.is_none() || self.account == command.account)
    }
}

/// Uploads that wait for their command: whose they are, and so that they are not sent to the peers twice.
#[derive(Default)]
pub(super) struct Intake {
    uploads: Mutex<BTreeMap<(ShardId, BodyHash), Upload>>,
}

struct Upload {
    members: Members,
    put: BodyPut,
    until: Instant,
    owners: Vec<Owner>,
}

impl Intake {
    fn uploads(&self) -> MutexGuard<'_, BTreeMap<(ShardId, BodyHash), Upload>> {
        self.uploads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, shard: ShardId, put: BodyPut, members: Members, owner: Owner) {
        let now = malle_rt::now();
        let until = now + UPLOAD_KEPT;
        let mut uploads = self.uploads();
        uploads.retain(|_, upload| upload.until > now);
        let key = (shard, put.hash);
        if uploads.len() >= UPLOADS_MAX && !uploads.contains_key(&key) {
            // Whoever waited longest sends his again.
            let oldest = uploads
                .iter()
                .min_by_key(|(_, upload)| upload.until)
                .map(|(key, _)| *key);
            oldest.and_then(|key| uploads.remove(&key));
        }
        let mut owners = uploads.remove(&key).map(|upload| upload.owners).unwrap_or_default();
        owners.retain(|known| *known != owner);
        if owners.len() >= OWNERS_MAX {
            owners.remove(0);
        }
        owners.push(owner);
        uploads.insert(
            key,
            Upload {
                members,
                put,
                until,
                owners,
            },
        );
    }

    /// Length of the body, if one whom this command may speak for uploaded it.
    fn size_for(&self, shard: ShardId, hash: BodyHash, command: &Owner) -> Option<u64> {
        let uploads = self.uploads();
        let upload = uploads.get(&(shard, hash))?;
        let serves = upload.owners.iter().any(|owner| owner.serves(command));
        (serves && upload.until > malle_rt::now()).then_some(upload.put.size)
    }

    /// The put of a body that is on a majority of these members already.
    fn known(&self, shard: ShardId, hash: BodyHash, members: &Members) -> Option<BodyPut> {
        let uploads = self.uploads();
        let upload = uploads.get(&(shard, hash))?;
        (upload.members == *members && upload.until > malle_rt::now()).then_some(upload.put)
    }

    /// The put counts no more: the body is put again, the owners stay.
    fn stale(&self, shard: ShardId, hash: BodyHash) {
        if let Some(upload) = self.uploads().get_mut(&(shard, hash)) {
            upload.members = Members {
                index: u64::MAX,
                voters: Vec::new(),
            };
        }
    }
}

/// A body as a request brings it.
pub(super) enum Incoming {
    Bytes(Bytes),
    /// Uploaded before.
    Uploaded {
        /// Its name.
        hash: BodyHash,
        /// Its length, as the ticket says.
        size: u64,
    },
}

/// The body of a request.
pub(super) fn body(body: Option<v1::Body>) -> Result<Incoming, Refused> {
    match body.and_then(|body| body.source) {
        Some(body::Source::Inline(bytes)) if bytes.len() > limits::INLINE_BODY_MAX_BYTES => Err(Refused::invalid(
            format!("a body above {} bytes is uploaded", limits::INLINE_BODY_MAX_BYTES),
        )),
        Some(body::Source::Inline(bytes)) if bytes.is_empty() => Err(Refused::invalid("an empty mail")),
        Some(body::Source::Inline(bytes)) => Ok(Incoming::Bytes(bytes)),
        Some(body::Source::Ticket(ticket)) => {
            let hash = BodyHash::try_from(&ticket.hash[..]).map_err(|error| Refused::invalid(error.to_string()))?;
            Ok(Incoming::Uploaded {
                hash,
                size: ticket.size,
            })
        }
        None => Err(Refused::invalid("a mail without a body")),
    }
}

/// How a body comes to the followers.
enum Way {
    /// With the entry that names it.
    Rides(StoredBody),
    /// It is on a majority of these.
    Ahead(Members),
}

impl Way {
    /// The members changed since: the body must be put again.
    fn is_void(&self, group: &Group) -> bool {
        match self {
            Way::Rides(_) => false,
            Way::Ahead(members) => *members != group.members(),
        }
    }

    fn rider(self) -> Option<StoredBody> {
        match self {
            Way::Rides(stored) => Some(stored),
            Way::Ahead(_) => None,
        }
    }
}

/// A body that a command may name.
struct Carried {
    put: BodyPut,
    way: Way,
}

/// What a command already carries. Of one mail everything that is small enough rides; of many, as much as one request may hold.
#[derive(Default)]
struct Load {
    riders_bytes: usize,
    summaries_bytes: usize,
}

impl Load {
    fn takes_rider(&mut self, bytes: usize) -> bool {
        let takes = bytes <= limits::RIDER_MAX_BYTES && self.riders_bytes + bytes <= limits::RIDERS_PER_ENTRY_MAX_BYTES;
        self.riders_bytes += if takes { bytes } else { 0 };
        takes
    }

    fn takes_summary(&mut self, bytes: usize) -> bool {
        let takes = bytes <= limits::INLINE_SUMMARY_MAX_BYTES
            && self.summaries_bytes + bytes <= limits::APPEND_SUMMARIES_INLINE_MAX_BYTES;
        self.summaries_bytes += if takes { bytes } else { 0 };
        takes
    }
}

/// What is kept of a mail beside its body.
struct Summarized {
    summary: Bytes,
    thread_keys: Vec<[u8; 16]>,
}

async fn summarize(bytes: &Bytes) -> Summarized {
    let summarized = if bytes.len() <= SUMMARY_INLINE_BYTES {
        mime::summarize(bytes)
    } else {
        let bytes = bytes.clone();
        malle_rt::blocking(move || mime::summarize(&bytes)).await
    };
    Summarized {
        summary: summarized.summary.encode_to_vec().into(),
        thread_keys: summarized.thread_keys,
    }
}

impl MailApi {
    /// Proposes the command that `op` makes of the mail, as `leader` if one is given; puts the body again where that is needed.
    pub(super) async fn take_in(
        &self,
        asked: &Asked,
        incoming: Incoming,
        leader: Option<LeaderId>,
        op: impl Fn(NewMail) -> Op,
    ) -> Result<Outcome, Refused> {
        let op = |mails: Vec<NewMail>| {
            let mail = mails.into_iter().next();
            op(mail.expect("as many mails come out as came in"))
        };
        self.take_in_all(asked, vec![incoming], leader, op).await
    }

    /// As [`MailApi::take_in`], with several mails of one command.
    pub(super) async fn take_in_all(
        &self,
        asked: &Asked,
        incoming: Vec<Incoming>,
        leader: Option<LeaderId>,
        op: impl Fn(Vec<NewMail>) -> Op,
    ) -> Result<Outcome, Refused> {
        let group = &asked.group;
        if !group.is_leader() {
            return Err(GroupError::NotLeader { leader: group.leader() }.into());
        }
        group.takes_bodies()?;
        let (mut bodies, mut rooms, mut bytes_in_all) = (Vec::with_capacity(incoming.len()), Vec::new(), 0);
        for incoming in incoming {
            let (bytes, room) = self.bytes_of(asked, incoming).await?;
            bytes_in_all += bytes.len();
            if bytes_in_all > limits::MESSAGE_MAX_BYTES {
                return Err(Refused::too_large(limits::MESSAGE_MAX_BYTES as u64));
            }
            rooms.extend(room);
            bodies.push(bytes);
        }
        let _share = group.take_in(bytes_in_all)?;
        let mut mails = Vec::with_capacity(bodies.len());
        for bytes in bodies {
            let summarized = summarize(&bytes).await;
            mails.push((bytes, summarized));
        }
        let mut outcome = Outcome::Refused(Refusal::StaleBody);
        for _ in 0..PUTS_MAX {
            let Some((command, riders)) = self.named_mails(asked, &mails).await? else {
                continue;
            };
            let hashes: Vec<BodyHash> = command.iter().map(|mail| mail.body.hash).collect();
            outcome = group
                .propose_mail(asked.put(op(command)), riders, leader, asked.deadline)
                .await?;
            if !is_stale(&outcome) {
                return Ok(outcome);
            }
            for hash in hashes {
                self.intake.stale(group.shard(), hash);
            }
        }
        match outcome {
            Outcome::Refused(Refusal::StaleBody) => Err(Refused::unavailable(
                "members or collection were quicker each time; try again",
            )),
            outcome => Ok(outcome),
        }
    }

    /// The mails as a command names them, and the bodies that ride with it; `None` when a put does not count any more.
    async fn named_mails(
        &self,
        asked: &Asked,
        mails: &[(Bytes, Summarized)],
    ) -> Result<Option<(Vec<NewMail>, Vec<StoredBody>)>, Refused> {
        let group = &asked.group;
        let (mut named, mut carried, mut load) = (Vec::with_capacity(mails.len()), Vec::new(), Load::default());
        for (bytes, Summarized { summary, thread_keys }) in mails {
            let body = self.carry(group, bytes, &mut load, asked.deadline).await?;
            let body_put = body.put;
            carried.push(body);
            let kept = if load.takes_summary(summary.len()) {
                Summary::Inline(summary.clone())
            } else {
                let beside = self.carry(group, summary, &mut load, asked.deadline).await?;
                let put = beside.put;
                carried.push(beside);
                Summary::Beside(put)
            };
            named.push(NewMail {
                body: body_put,
                summary: kept,
                email_id: self.env.email_id(),
                fresh_thread: self.env.thread_id(),
                thread_keys: thread_keys.clone(),
            });
        }
        // A put ahead counts for the membership it was made under: a change since then asks for another.
        if carried.iter().any(|body| body.way.is_void(group)) {
            return Ok(None);
        }
        let riders = carried.into_iter().filter_map(|body| body.way.rider()).collect();
        Ok(Some((named, riders)))
    }

    /// The bytes of a mail, and room for them when they were not in the request.
    async fn bytes_of(&self, asked: &Asked, incoming: Incoming) -> Result<(Bytes, Option<Taken>), Refused> {
        let (hash, size) = match incoming {
            Incoming::Bytes(bytes) => return Ok((bytes, None)),
            Incoming::Uploaded { hash, size } => (hash, size),
        };
        let shard = asked.group.shard();
        let known = self.intake.size_for(shard, hash, &asked.owner);
        let known = known.ok_or_else(|| Refused::unavailable("no such upload on this node: send it again"))?;
        if known != size {
            return Err(Refused::invalid("the ticket's size is not the upload's"));
        }
        let room = self.room.take(usize::try_from(size).unwrap_or(usize::MAX)).await?;
        let sources = asked.group.bodies().sources();
        let bytes = self.bodies.get(shard, hash, &sources, asked.deadline).await;
        if bytes.is_err() {
            self.intake.stale(shard, hash);
        }
        let bytes = bytes?;
        Ok((bytes, Some(room)))
    }

    /// Makes a body durable where it must be before a command names it.
    async fn carry(
        &self,
        group: &Group,
        bytes: &Bytes,
        load: &mut Load,
        deadline: Instant,
    ) -> Result<Carried, Refused> {
        if !load.takes_rider(bytes.len()) {
            let (put, members) = self.put_or_known(group, bytes, deadline).await?;
            let way = Way::Ahead(members);
            return Ok(Carried { put, way });
        }
        // Read before the body is kept anywhere: collection after this point makes the command stale instead of losing the body.
        let epoch = group.body_epoch()?;
        let stored = Bodies::stored_form(group.shard(), bytes.clone()).await;
        let put = BodyPut {
            hash: stored.hash,
            size: stored.size,
            epoch,
        };
        let way = Way::Rides(stored);
        Ok(Carried { put, way })
    }

    async fn put_or_known(
        &self,
        group: &Group,
        bytes: &Bytes,
        deadline: Instant,
    ) -> Result<(BodyPut, Members), Refused> {
        let members = group.members();
        let hash = hash_of(bytes).await;
        if let Some(put) = self.intake.known(group.shard(), hash, &members) {
            return Ok((put, members));
        }
        // Read before the put begins: collection after this point makes the command stale instead of losing the body.
        let epoch = group.body_epoch()?;
        self.bodies
            .put(group.shard(), &members, hash, bytes.clone(), deadline)
            .await?;
        Ok((
            BodyPut {
                hash,
                size: bytes.len() as u64,
                epoch,
            },
            members,
        ))
    }

    /// A large body, ahead of the command that will name it.
    pub(super) async fn upload_put(
        &self,
        group: &Group,
        bytes: Bytes,
        owner: Owner,
        deadline: Instant,
    ) -> Result<BodyPut, Refused> {
        let (put, members) = self.put_or_known(group, &bytes, deadline).await?;
        self.intake.remember(group.shard(), put, members, owner);
        Ok(put)
    }
}

/// The name of a body. A large one is hashed where it delays nobody.
async fn hash_of(bytes: &Bytes) -> BodyHash {
    if bytes.len() <= SUMMARY_INLINE_BYTES {
        return Bodies::hash_of(bytes);
    }
    let bytes = bytes.clone();
    malle_rt::blocking(move || Bodies::hash_of(&bytes)).await
}

fn is_stale(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Refused(refusal) => *refusal == Refusal::StaleBody,
        Outcome::Delivered(outcomes) => outcomes.contains(&Err(Refusal::StaleBody)),
        _ => false,
    }
}
