//! Requests that change mail: converted, proposed, and their outcome converted back.
//!
//! None of them reads before it writes, but for a mailbox that is named: what a command means is decided where it is applied.

use malle_machine::shard::{self, Op, Outcome, read};
use malle_machine::view::View;
use malle_proto::v1::{self, mail_reply};
use malle_proto::{AccountId, MailboxId, limits};

use super::error::Refused;
use super::mail::{Answer, Asked, MailApi};
use super::{convert, intake};
use crate::raft::LeaderId;

impl MailApi {
    pub(super) async fn deliver(&self, asked: &Asked, deliver: v1::Deliver) -> Answer {
        if deliver.recipients.is_empty() || deliver.recipients.len() > limits::RECIPIENTS_PER_COMMAND_MAX {
            return Err(Refused::limit(format!(
                "1 to {} recipients",
                limits::RECIPIENTS_PER_COMMAND_MAX
            )));
        }
        let recipients: Vec<shard::Recipient> = deliver
            .recipients
            .iter()
            .map(|recipient| {
                Ok(shard::Recipient {
                    account: convert::account(&recipient.account)?,
                    op_id: convert::op_id(&recipient.op_id)?,
                    into: convert::special_use(recipient.into)?,
                    email_id: self.env.email_id(),
                    fresh_thread: self.env.thread_id(),
                })
            })
            .collect::<Result<_, Refused>>()?;
        let body = intake::body(deliver.body)?;
        let outcome = self
            .take_in(asked, body, None, |mail| Op::Deliver {
                recipients: recipients.clone(),
                mail,
            })
            .await?;
        let Outcome::Delivered(outcomes) = outcome else {
            return Err(unexpected(outcome));
        };
        self.tally.delivered(&outcomes);
        let outcomes = outcomes.into_iter().map(convert::recipient_outcome).collect();
        Ok((mail_reply::Result::Deliver(v1::DeliverReply { outcomes }), 0))
    }

    pub(super) async fn append(&self, asked: &Asked, append: v1::Append) -> Answer {
        let account = convert::account(&append.account)?;
        let op_id = convert::op_id(&append.op_id)?;
        let (mailbox, leader) = self.named(asked, account, append.mailbox_name, &append.mailbox).await?;
        let flags = convert::flags(append.flags)?;
        let internal_date = convert::internal_date(append.internal_date_ms, append.internal_date_zone_minutes)?;
        let body = intake::body(append.body)?;
        let outcome = self
            .take_in(asked, body, leader, |mail| Op::Append {
                account,
                op_id,
                mailbox,
                flags: flags.clone(),
                internal_date,
                mail,
            })
            .await?;
        let Outcome::Appended(stored) = outcome else {
            return Err(unexpected(outcome));
        };
        self.tally.appended();
        let modseq = stored.modseq.0;
        Ok((
            mail_reply::Result::Append(v1::AppendReply {
                appended: Some(convert::delivered(stored)),
            }),
            modseq,
        ))
    }

    /// The mailbox that a write means, and as which leader it must be proposed for that to be still true.
    async fn named(
        &self,
        asked: &Asked,
        account: AccountId,
        name: String,
        id: &[u8],
    ) -> Result<(MailboxId, Option<LeaderId>), Refused> {
        if name.is_empty() {
            return Ok((convert::mailbox(id)?, None));
        }
        let look = move |view: &dyn View| read::named(view, account, &name);
        let (mailbox, leader) = asked.group.read_before_write(asked.deadline, look).await?;
        Ok((mailbox?, leader))
    }

    pub(super) async fn store(&self, asked: &Asked, store: v1::Store) -> Answer {
        let op = Op::Store {
            account: convert::account(&store.account)?,
            op_id: convert::op_id(&store.op_id)?,
            mailbox: convert::mailbox(&store.mailbox)?,
            uids: convert::uids(&store.uids)?,
            mode: convert::store_mode(store.mode)?,
            flags: convert::flags(store.flags)?,
            unchanged_since: store.unchanged_since.map(malle_proto::ModSeq),
        };
        match asked.group.propose_shard(op, asked.deadline).await? {
            Outcome::FlagsStored(done) => {
                let reply = v1::StoreReply {
                    stored: convert::message_flags(done.stored),
                    modified: convert::uids_out(done.modified),
                    resume_from: done.resume_from.map(|uid| uid.0),
                };
                Ok((mail_reply::Result::Store(reply), done.modseq.0))
            }
            other => Err(unexpected(other)),
        }
    }

    pub(super) async fn copy(&self, asked: &Asked, copy: v1::Copy) -> Answer {
        let op = Op::Copy {
            account: convert::account(&copy.account)?,
            op_id: convert::op_id(&copy.op_id)?,
            mailbox: convert::mailbox(&copy.mailbox)?,
            uids: convert::uids(&copy.uids)?,
            to: convert::mailbox(&copy.to)?,
            remove: copy.remove,
        };
        match asked.group.propose_shard(op, asked.deadline).await? {
            Outcome::Copied(done) => {
                let reply = v1::CopyReply {
                    uid_validity: done.uid_validity.0,
                    pairs: done
                        .pairs
                        .iter()
                        .map(|(from, to)| v1::UidPair { from: from.0, to: to.0 })
                        .collect(),
                    resume_from: done.resume_from.map(|uid| uid.0),
                    modseq: done.modseq.0,
                };
                Ok((mail_reply::Result::Copy(reply), done.modseq.0))
            }
            other => Err(unexpected(other)),
        }
    }

    pub(super) async fn expunge(&self, asked: &Asked, expunge: v1::Expunge) -> Answer {
        let op = Op::Expunge {
            account: convert::account(&expunge.account)?,
            op_id: convert::op_id(&expunge.op_id)?,
            mailbox: convert::mailbox(&expunge.mailbox)?,
            uids: convert::uids(&expunge.uids)?,
        };
        match asked.group.propose_shard(op, asked.deadline).await? {
            Outcome::Expunged(done) => {
                let reply = v1::ExpungeReply {
                    vanished: convert::uids_out(done.vanished),
                    modseq: done.modseq.0,
                    resume_from: done.resume_from.map(|uid| uid.0),
                };
                Ok((mail_reply::Result::Expunge(reply), done.modseq.0))
            }
            other => Err(unexpected(other)),
        }
    }

    pub(super) async fn mailbox_change(&self, asked: &Asked, change: v1::MailboxChange) -> Answer {
        let op = Op::Mailbox {
            account: convert::account(&change.account)?,
            op_id: convert::op_id(&change.op_id)?,
            change: convert::mailbox_change(change.change)?,
            fresh_ids: (0..=limits::MAILBOX_DEPTH_MAX).map(|_| self.env.mailbox_id()).collect(),
        };
        match asked.group.propose_shard(op, asked.deadline).await? {
            Outcome::MailboxChanged { mailbox, modseq } => {
                let reply = v1::MailboxChangeReply {
                    mailbox: mailbox.map(|id| id.to_vec()).unwrap_or_default().into(),
                    modseq: modseq.0,
                };
                Ok((mail_reply::Result::MailboxChange(reply), modseq.0))
            }
            other => Err(unexpected(other)),
        }
    }
}

fn unexpected(outcome: Outcome) -> Refused {
    match outcome {
        Outcome::Refused(refusal) => refusal.into(),
        other => Refused::internal(
            format!("an outcome of another kind: {other:?}")
                .chars()
                .take(200)
                .collect::<String>(),
        ),
    }
}
