//! One message to many accounts.
//!
//! Recipients are grouped by shard; all shards work at the same time ([`limits::DELIVER_SHARDS_AT_ONCE`]), each gets the body once: inside
//! the command when it is small, else uploaded ahead. Each recipient has its own op id and its own answer. A recipient whose shard says
//! "later" or "moved" is tried again alone, with the same op id, while the others keep the answers that they have. At the deadline
//! whoever has no answer gets an error of class Retry: the caller's own queue repeats it, and the op id sees to it that nothing is
//! stored twice.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use malle_proto::v1::mail_reply::Result as Answer;
use malle_proto::v1::mail_request::Call;
use malle_proto::v1::recipient_outcome::Outcome;
use malle_proto::v1::{self, Body, Deliver, body};
use malle_proto::{ShardId, limits};
use malle_rt::Instant;

use crate::convert;
use crate::core::{Core, MailCall, Place, Prefer, Upload};
use crate::error::{Error, Failure};
use crate::retry::Retry;
use crate::types::{Recipient, Stored};

/// Accounts whose shard is asked of the directory at the same time.
const HOMES_AT_ONCE: usize = 16;

/// Answers by place in the caller's list.
type Answers = Vec<(usize, Result<Stored, Error>)>;

/// See [`crate::Client::deliver`].
pub(crate) async fn deliver(
    core: &Core,
    deadline: Instant,
    recipients: &[Recipient],
    body: Bytes,
) -> Vec<Result<Stored, Error>> {
    if body.len() > limits::MESSAGE_MAX_BYTES {
        let refusal = Error::TooLarge {
            limit_bytes: limits::MESSAGE_MAX_BYTES as u64,
        };
        return recipients.iter().map(|_| Err(refusal.clone())).collect();
    }
    let mut answers: Vec<Result<Stored, Error>> = recipients
        .iter()
        .map(|_| Err(Error::Unavailable("no shard answered for this recipient".to_owned())))
        .collect();
    let mut groups: BTreeMap<ShardId, Vec<usize>> = BTreeMap::new();
    let accounts: Vec<_> = recipients
        .iter()
        .map(|recipient| recipient.account)
        .enumerate()
        .collect();
    let homes = futures::stream::iter(accounts)
        .map(|(index, account)| async move { (index, core.home(account, deadline).await) })
        .buffered(HOMES_AT_ONCE);
    let homes: Vec<_> = homes.collect().await;
    for (index, home) in homes {
        match home {
            Ok(shard) => groups.entry(shard).or_default().push(index),
            Err(error) => answers[index] = Err(error),
        }
    }
    let work = groups.into_iter().map(|(shard, indexes)| {
        let delivery = Delivery {
            core,
            deadline,
            recipients,
            body: &body,
        };
        async move { delivery.run(shard, indexes).await }
    });
    let mut done = futures::stream::iter(work).buffer_unordered(limits::DELIVER_SHARDS_AT_ONCE);
    while let Some(part) = done.next().await {
        for (index, answer) in part {
            answers[index] = answer;
        }
    }
    answers
}

/// The recipients that one shard had when the delivery began, until each has an answer.
struct Delivery<'a> {
    core: &'a Core,
    deadline: Instant,
    recipients: &'a [Recipient],
    body: &'a Bytes,
}

impl Delivery<'_> {
    async fn run(&self, shard: ShardId, indexes: Vec<usize>) -> Answers {
        let mut answers = Answers::with_capacity(indexes.len());
        let mut queue: VecDeque<Group> = chunks(shard, &indexes, &self.source()).collect();
        let mut retry = Retry::until(self.deadline);
        while let Some(group) = queue.pop_front() {
            // What the chunk has to come back for, by where to: its own shard later, or another.
            let mut again: BTreeMap<ShardId, Vec<usize>> = BTreeMap::new();
            let mut why = None;
            for (index, outcome) in self.send(&group).await {
                match outcome {
                    Ok(stored) => answers.push((index, Ok(stored))),
                    Err(failure @ Failure::Answer(_)) => answers.push((index, Err(failure.into_error()))),
                    Err(failure) => {
                        let to = match &failure {
                            Failure::Moved(to) => {
                                self.core.routes.set_home(self.recipients[index].account, *to);
                                *to
                            }
                            _ => group.shard,
                        };
                        again.entry(to).or_default().push(index);
                        why = longer(why, failure);
                    }
                }
            }
            let Some(why) = why else { continue };
            match retry.after(why, false).await {
                Ok(_) => {
                    for (to, indexes) in again {
                        // The same body was uploaded to this shard already; another one gets its own.
                        let source = if to == group.shard {
                            group.source.clone()
                        } else {
                            self.source()
                        };
                        queue.extend(chunks(to, &indexes, &source));
                    }
                }
                Err(error) => answers.extend(again.into_values().flatten().map(|index| (index, Err(error.clone())))),
            }
        }
        answers
    }

    /// Small bodies ride along, large ones are uploaded once for all commands of a shard.
    fn source(&self) -> Option<Arc<Upload>> {
        (self.body.len() > limits::INLINE_BODY_MAX_BYTES).then(|| Upload::new(self.body.clone()))
    }

    /// One command, until the shard has answered it. What is said of the command as a whole holds for each of its recipients.
    async fn send(&self, group: &Group) -> Vec<(usize, Result<Stored, Failure>)> {
        let recipient = |index: &usize| {
            let recipient = &self.recipients[*index];
            v1::Recipient {
                account: Bytes::copy_from_slice(recipient.account.as_bytes()),
                op_id: convert::op_id(recipient.op_id),
                into: convert::special_use(recipient.into),
            }
        };
        let inline = group.source.is_none().then(|| Body {
            source: Some(body::Source::Inline(self.body.clone())),
        });
        let call = MailCall {
            place: Place::Shard(group.shard),
            prefer: Prefer::Leader,
            token: Bytes::new(),
            call: Call::Deliver(Deliver {
                recipients: group.indexes.iter().map(recipient).collect(),
                body: inline,
            }),
            news_of: None,
            uploads: group.source.iter().map(|upload| (0, upload.clone())).collect(),
        };
        let all = |error: Error| {
            group
                .indexes
                .iter()
                .map(|index| (*index, Err(Failure::Answer(error.clone()))))
                .collect()
        };
        let outcomes = match self.core.mail(self.deadline, call).await {
            Ok(reply) => match reply.result {
                Some(Answer::Deliver(reply)) if reply.outcomes.len() == group.indexes.len() => reply.outcomes,
                _ => {
                    return all(Error::Internal(
                        "a node answered a delivery with something else".to_owned(),
                    ));
                }
            },
            // The loop below has tried until the deadline, or has an answer: both are final here.
            Err(error) => return all(error),
        };
        let one = |outcome: v1::RecipientOutcome| match outcome.outcome {
            Some(Outcome::Delivered(delivered)) => convert::stored(&delivered).map_err(Failure::Answer),
            Some(Outcome::Error(error)) => Err(Failure::from_wire(error)),
            None => Err(Failure::Answer(Error::Internal(
                "a node sent an empty outcome".to_owned(),
            ))),
        };
        group
            .indexes
            .iter()
            .copied()
            .zip(outcomes.into_iter().map(one))
            .collect()
    }
}

/// Recipients of one command.
struct Group {
    shard: ShardId,
    indexes: Vec<usize>,
    source: Option<Arc<Upload>>,
}

fn chunks<'a>(
    shard: ShardId,
    indexes: &'a [usize],
    source: &'a Option<Arc<Upload>>,
) -> impl Iterator<Item = Group> + use<'a> {
    let chunks = indexes.chunks(limits::RECIPIENTS_PER_COMMAND_MAX);
    chunks.map(move |chunk| Group {
        shard,
        indexes: chunk.to_vec(),
        source: source.clone(),
    })
}

/// Of two reasons to come back the one that wants the longer wait.
fn longer(held: Option<Failure>, new: Failure) -> Option<Failure> {
    let wait = |failure: &Failure| match failure {
        Failure::Later { after, .. } => Some(*after),
        _ => None,
    };
    match held {
        Some(held) if wait(&held) >= wait(&new) => Some(held),
        _ => Some(new),
    }
}
