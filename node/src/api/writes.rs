//! Requests that change mail: converted, proposed, and their outcome converted back.
//!
//! None of them reads before it writes, but for a mailbox that is named: what a command means is decided where it is applied.

use bytes::Bytes;
use malle_machine::shard::{self, Arriving, BodyPut, NewMail, Op, Outcome, Summary, read};
use malle_machine::view::View;
use malle_proto::v1::{self, mail_reply};
use malle_proto::{AccountId, BodyHash, MailboxId, Uid, limits};

use super::error::Refused;
use super::mail::{Answer, Asked, MailApi};
use super::sharing::Sharing;
use super::{convert, intake};
use crate::raft::LeaderId;

/// A mailbox that was looked up by name, and as which leader.
type Named = (Result<MailboxId, shard::Refusal>, Option<LeaderId>);

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
        let (named, leader) = self.named(asked, account, &append.mailbox, append.mailbox_name).await?;
        let flags = convert::flags(append.flags)?;
        let internal_date = convert::internal_date(append.internal_date_ms, append.internal_date_zone_minutes)?;
        let body = intake::body(append.body)?;
        let op = move |mailbox, mail| Op::Append {
            account,
            op_id,
            mailbox,
            flags: flags.clone(),
            internal_date,
            mail,
        };
        let outcome = match named {
            Ok(mailbox) => self.take_in(asked, body, leader, |mail| op(mailbox, mail)).await?,
            Err(refusal) => {
                let nothing = op(MailboxId([0; 16]), self.no_mail());
                Self::appended_before(asked, nothing, leader, refusal).await?
            }
        };
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

    pub(super) async fn append_all(&self, asked: &Asked, append: v1::AppendAll) -> Answer {
        let account = convert::account(&append.account)?;
        let op_id = convert::op_id(&append.op_id)?;
        if append.messages.is_empty() || append.messages.len() > limits::APPENDS_PER_COMMAND_MAX {
            return Err(Refused::limit(format!(
                "1 to {} messages",
                limits::APPENDS_PER_COMMAND_MAX
            )));
        }
        let replaces = match append.replaces {
            Some(at) => Some((convert::mailbox(&at.mailbox)?, Uid(at.uid))),
            None => None,
        };
        let (named, leader) = self.named(asked, account, &append.mailbox, append.mailbox_name).await?;
        let (mut bodies, mut heads) = (Vec::new(), Vec::new());
        for message in append.messages {
            let date = convert::internal_date(message.internal_date_ms, message.internal_date_zone_minutes)?;
            heads.push((convert::flags(message.flags)?, date));
            bodies.push(intake::body(message.body)?);
        }
        let op = move |mailbox, mails: Vec<NewMail>| {
            let arriving = |((flags, internal_date), mail): (&(shard::Flags, _), _)| Arriving {
                flags: flags.clone(),
                internal_date: *internal_date,
                mail,
            };
            Op::AppendAll {
                account,
                op_id,
                mailbox,
                messages: heads.iter().zip(mails).map(arriving).collect(),
                replaces,
            }
        };
        let outcome = match named {
            Ok(mailbox) => {
                self.take_in_all(asked, bodies, leader, |mails| op(mailbox, mails))
                    .await?
            }
            Err(refusal) => {
                let nothing = op(MailboxId([0; 16]), vec![self.no_mail()]);
                Self::appended_before(asked, nothing, leader, refusal).await?
            }
        };
        let Outcome::AppendedAll(all) = outcome else {
            return Err(unexpected(outcome));
        };
        all.iter().for_each(|_| self.tally.appended());
        let modseq = all.last().map_or(0, |stored| stored.modseq.0);
        let appended = all.into_iter().map(convert::delivered).collect();
        Ok((mail_reply::Result::AppendAll(v1::AppendAllReply { appended }), modseq))
    }

    /// The mailbox that an append means, and as which leader it must be proposed for that to be still true; inside, why it means none.
    async fn named(&self, asked: &Asked, account: AccountId, id: &[u8], name: String) -> Result<Named, Refused> {
        if name.is_empty() {
            return Ok((Ok(convert::mailbox(id)?), None));
        }
        let look = move |view: &dyn View| read::named(view, account, &name);
        Ok(asked.group.read_before_write(asked.deadline, look).await?)
    }

    /// A mail that no command can bring: nobody has put it.
    fn no_mail(&self) -> NewMail {
        NewMail {
            body: BodyPut {
                hash: BodyHash([0; 32]),
                size: 1,
                epoch: 0,
            },
            summary: Summary::Inline(Bytes::new()),
            email_id: self.env.email_id(),
            fresh_thread: self.env.thread_id(),
            thread_keys: Vec::new(),
        }
    }

    /// The answer to an append whose mailbox no longer has the name: its first answer, or else `refusal`. Either is proved by a proposal,
    /// which cannot append anything, for no mailbox has the id that `nothing` names.
    async fn appended_before(
        asked: &Asked,
        nothing: Op,
        leader: Option<LeaderId>,
        refusal: shard::Refusal,
    ) -> Result<Outcome, Refused> {
        match asked
            .group
            .propose_mail(asked.put(nothing), Vec::new(), leader, asked.deadline)
            .await?
        {
            Outcome::Refused(shard::Refusal::NoMailbox | shard::Refusal::StaleBody) => Err(refusal.into()),
            outcome => Ok(outcome),
        }
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
        match asked.group.propose_shard(asked.put(op), asked.deadline).await? {
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
        match asked.group.propose_shard(asked.put(op), asked.deadline).await? {
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
        match asked.group.propose_shard(asked.put(op), asked.deadline).await? {
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

    /// A grant is made known to the directory before it is made, so that nobody has rights and cannot find out, and once more behind it, so that
    /// whoever just saw the last grant go does not take the pair away.
    pub(super) async fn mailbox_change(&self, asked: &Asked, change: v1::MailboxChange) -> Answer {
        let (owner, sharing) = (convert::account(&change.account)?, Sharing::of(&change)?);
        if let Sharing::Grants(guest) = sharing {
            self.share(asked, owner, guest).await?;
        }
        let answer = self.change_mailbox(asked, change).await;
        match (&sharing, &answer) {
            (Sharing::Grants(guest), Ok(_)) => self.share(asked, owner, *guest).await?,
            (Sharing::Grants(guest), Err(_)) | (Sharing::TakesBack(guest), Ok(_)) => {
                self.forget_sharing(asked, owner, *guest).await;
            }
            (Sharing::TakesBack(_), Err(_)) | (Sharing::Same, _) => {}
        }
        answer
    }

    async fn change_mailbox(&self, asked: &Asked, change: v1::MailboxChange) -> Answer {
        let op = Op::Mailbox {
            account: convert::account(&change.account)?,
            op_id: convert::op_id(&change.op_id)?,
            change: convert::mailbox_change(change.change)?,
            fresh_ids: (0..=limits::MAILBOX_DEPTH_MAX).map(|_| self.env.mailbox_id()).collect(),
        };
        match asked.group.propose_shard(asked.put(op), asked.deadline).await? {
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
