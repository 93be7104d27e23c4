//! A mail comes in: its body durable on a majority, then the command that names it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use malle_machine::shard::{BodyPut, NewMail, Op, Outcome, Refusal, Summary, read};
use malle_proto::v1::{self, body};
use malle_proto::{BodyHash, ShardId, limits};
use malle_rt::Instant;
use prost::Message;

use super::error::Refused;
use super::mail::MailApi;
use crate::bodies::{Bodies, Members};
use crate::mime;
use crate::raft::{Barrier, Group, GroupError};

/// Times a body is put again because the membership changed or collection was quicker.
const PUTS_MAX: usize = 3;
/// An upload that no command named is forgotten after this long; its bytes stay until collection.
const UPLOAD_KEPT: Duration = Duration::from_secs(600);
/// Uploads remembered at one time.
const UPLOADS_MAX: usize = 1_024;
/// A summary of a larger mail is made on the blocking pool.
const SUMMARY_INLINE_BYTES: usize = 32 * 1024;

/// Uploads that wait for their command: so that they are not sent to the peers twice.
#[derive(Default)]
pub(super) struct Intake {
    uploads: Mutex<BTreeMap<(ShardId, BodyHash), Upload>>,
}

struct Upload {
    members: Members,
    put: BodyPut,
    until: Instant,
}

/// A body as a request brings it.
pub(super) enum Incoming {
    Bytes(Bytes),
    Uploaded(BodyHash),
}

/// The body of a request.
pub(super) fn body(body: Option<v1::Body>) -> Result<Incoming, Refused> {
    match body.and_then(|body| body.source) {
        Some(body::Source::Inline(bytes)) if bytes.len() > limits::INLINE_BODY_MAX_BYTES => Err(Refused::invalid(
            format!("a body above {} bytes is uploaded", limits::INLINE_BODY_MAX_BYTES),
        )),
        Some(body::Source::Inline(bytes)) => Ok(Incoming::Bytes(bytes)),
        Some(body::Source::Ticket(ticket)) => {
            let hash = BodyHash::try_from(&ticket.hash[..]).map_err(|error| Refused::invalid(error.to_string()))?;
            Ok(Incoming::Uploaded(hash))
        }
        None => Err(Refused::invalid("a mail without a body")),
    }
}

impl MailApi {
    /// Proposes the command that `op` makes of the mail; puts the body again where that is needed.
    pub(super) async fn take_in(
        &self,
        group: &Group,
        incoming: Incoming,
        deadline: Instant,
        op: impl Fn(NewMail) -> Op,
    ) -> Result<Outcome, Refused> {
        if !group.is_leader() {
            return Err(GroupError::NotLeader { leader: group.leader() }.into());
        }
        let bytes = match &incoming {
            Incoming::Bytes(bytes) => bytes.clone(),
            Incoming::Uploaded(hash) => {
                self.bodies
                    .get(group.shard(), *hash, &group.bodies().sources(), deadline)
                    .await?
            }
        };
        let summarized = if bytes.len() <= SUMMARY_INLINE_BYTES {
            mime::summarize(&bytes)
        } else {
            let bytes = bytes.clone();
            malle_rt::blocking(move || mime::summarize(&bytes)).await
        };
        let summary = Bytes::from(summarized.summary.encode_to_vec());
        let mut outcome = Outcome::Refused(Refusal::StaleBody);
        for _ in 0..PUTS_MAX {
            let (body, members) = self.put_or_known(group, &bytes, deadline).await?;
            let summary = if summary.len() <= limits::INLINE_SUMMARY_MAX_BYTES {
                Summary::Inline(summary.clone())
            } else {
                Summary::Beside(self.put_or_known(group, &summary, deadline).await?.0)
            };
            // A put counts for the membership it was made under: a change since then asks for another.
            if group.members() != members {
                self.forget_upload(group.shard(), body.hash);
                continue;
            }
            let mail = NewMail {
                body,
                summary,
                email_id: self.env.email_id(),
                fresh_thread: self.env.thread_id(),
                thread_keys: summarized.thread_keys.clone(),
            };
            outcome = group.propose_shard(op(mail), deadline).await?;
            if !is_stale(&outcome) {
                self.forget_upload(group.shard(), body.hash);
                return Ok(outcome);
            }
            self.forget_upload(group.shard(), body.hash);
        }
        match outcome {
            Outcome::Refused(Refusal::StaleBody) => {
                Err(Refused::unavailable("the group's members keep changing; try again"))
            }
            outcome => Ok(outcome),
        }
    }

    async fn put_or_known(
        &self,
        group: &Group,
        bytes: &Bytes,
        deadline: Instant,
    ) -> Result<(BodyPut, Members), Refused> {
        let members = group.members();
        let hash = Bodies::hash_of(bytes);
        if let Some(put) = self.known_upload(group.shard(), hash, &members) {
            return Ok((put, members));
        }
        // Read before the put begins: collection after this point makes the command stale instead of losing the body.
        let epoch = group.read(Barrier::Local, deadline, read::body_epoch).await?;
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
    pub(super) async fn intake_put(&self, group: &Group, bytes: Bytes, deadline: Instant) -> Result<BodyPut, Refused> {
        if !group.is_leader() {
            return Err(GroupError::NotLeader { leader: group.leader() }.into());
        }
        let (put, members) = self.put_or_known(group, &bytes, deadline).await?;
        let now = malle_rt::now();
        let mut uploads = self.intake.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        uploads.retain(|_, upload| upload.until > now);
        if uploads.len() < UPLOADS_MAX {
            uploads.insert(
                (group.shard(), put.hash),
                Upload {
                    members,
                    put,
                    until: now + UPLOAD_KEPT,
                },
            );
        }
        Ok(put)
    }

    fn known_upload(&self, shard: ShardId, hash: BodyHash, members: &Members) -> Option<BodyPut> {
        let uploads = self.intake.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        let upload = uploads.get(&(shard, hash))?;
        (upload.members == *members && upload.until > malle_rt::now()).then_some(upload.put)
    }

    fn forget_upload(&self, shard: ShardId, hash: BodyHash) {
        self.intake
            .uploads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&(shard, hash));
    }
}

fn is_stale(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Refused(refusal) => *refusal == Refusal::StaleBody,
        Outcome::Delivered(outcomes) => outcomes.iter().any(|outcome| *outcome == Err(Refusal::StaleBody)),
        _ => false,
    }
}
