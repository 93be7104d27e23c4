//! Requests that look at mail: a barrier, the rows, and for a body the replica that has it.
//!
//! A page is bounded by its bytes as well as its rows: an answer that the stream cannot carry would end the stream for everybody on it.

use bytes::Bytes;
use futures::StreamExt as _;
use malle_machine::View;
use malle_machine::shard::{self, read};
use malle_proto::v1::{self, mail_reply};
use malle_proto::{AccountId, BodyHash, MailboxId, ModSeq, Rights, Uid, limits};
use prost::Message as _;

use super::convert;
use super::error::Refused;
use super::mail::{Answer, Asked, MailApi};
use super::room::Taken;
use crate::raft::Barrier;

impl MailApi {
    pub(super) async fn mailbox_list(&self, asked: &Asked, list: v1::MailboxList) -> Answer {
        let account = convert::account(&list.account)?;
        if let Some(guest) = asked.guest {
            return self.guest_list(asked, guest, account).await;
        }
        let barrier = convert::barrier(list.consistency, account);
        let (mailboxes, modseq) = asked
            .group
            .read(barrier, asked.deadline, move |view| {
                let modseq = read::account(view, account)?.map_or(0, |account| account.modseq.0);
                Ok((read::mailboxes(view, account)?, modseq))
            })
            .await?;
        let mailboxes = mailboxes?.into_iter().map(convert::mailbox_out).collect();
        Ok((
            mail_reply::Result::MailboxList(v1::MailboxListReply { mailboxes }),
            modseq,
        ))
    }

    pub(super) async fn mailbox_open(&self, asked: &Asked, open: v1::MailboxOpen) -> Answer {
        let account = convert::account(&open.account)?;
        let named = match open.name.as_str() {
            "" => Ok(convert::mailbox(&open.mailbox)?),
            _ => Err(open.name),
        };
        let barrier = convert::barrier(open.consistency, account);
        let (outlines, group, guest) = (self.outlines.clone(), asked.group.shard(), asked.guest);
        let look = move |view: &dyn View| {
            let mailbox = match named {
                Ok(id) => id,
                Err(name) => match read::named(view, account, &name)? {
                    Ok(id) => id,
                    Err(refusal) => return Ok(Err(refusal)),
                },
            };
            // In this very view: what a name meant a moment ago, it may mean no more.
            let rights = guest.map(|guest| read::rights_of(view, account, mailbox, guest));
            let rights = rights.transpose()?;
            if rights.is_some_and(|rights| !rights.hold(Rights::READ)) {
                return Ok(Err(shard::Refusal::NoMailbox));
            }
            let place = (group, account, mailbox);
            let opened = read::open(view, account, mailbox, outlines.get(&place).as_deref())?;
            if let Ok(opened) = &opened {
                outlines.keep(place, &opened.outline);
            }
            Ok(opened.map(|opened| (opened, rights)))
        };
        let (opened, rights) = asked.group.read(barrier, asked.deadline, look).await??;
        let modseq = opened.mailbox.highest_modseq.0;
        let reply = v1::MailboxOpenReply {
            mailbox: Some(v1::Mailbox {
                rights: rights.map(|rights| u32::from(rights.0)),
                ..convert::mailbox_out(opened.mailbox)
            }),
            uids: convert::uids_out(opened.outline.uids),
            keywords: opened.keywords,
            first_unseen: opened.outline.first_unseen.map(|uid| uid.0),
        };
        Ok((mail_reply::Result::MailboxOpen(reply), modseq))
    }

    pub(super) async fn fetch(&self, asked: &Asked, fetch: v1::Fetch) -> Answer {
        let (account, mailbox) = (convert::account(&fetch.account)?, convert::mailbox(&fetch.mailbox)?);
        let barrier = convert::barrier(fetch.consistency, account);
        let uids = convert::uids(&fetch.uids)?;
        let since = ModSeq(fetch.changed_since);
        let max_rows = match fetch.max_rows as usize {
            0 => limits::FETCH_PAGE_ROWS_MAX,
            rows => rows.min(limits::FETCH_PAGE_ROWS_MAX),
        };
        let page = asked
            .group
            .read(barrier, asked.deadline, move |view| {
                read::fetch(view, account, mailbox, &uids, since, max_rows)
            })
            .await??;
        let mut messages = Vec::with_capacity(page.messages.len());
        let mut resume_from = page.resume_from.map(|uid| uid.0);
        let mut page_bytes = 0;
        for message in page.messages {
            let uid = message.uid.0;
            let summary = match &message.summary {
                _ if fetch.without_summary => Bytes::new(),
                read::SummaryAt::Inline(summary) => summary.clone(),
                read::SummaryAt::Beside(hash) => self.body(asked, *hash).await?,
            };
            let message = convert::message_out(message, summary);
            page_bytes += message.encoded_len();
            if page_bytes > limits::FETCH_PAGE_BYTES_MAX && !messages.is_empty() {
                resume_from = Some(uid);
                break;
            }
            messages.push(message);
        }
        Ok((mail_reply::Result::Fetch(v1::FetchReply { messages, resume_from }), 0))
    }

    pub(super) async fn changes(&self, asked: &Asked, changes: v1::Changes) -> Answer {
        let (account, mailbox) = (convert::account(&changes.account)?, convert::mailbox(&changes.mailbox)?);
        let barrier = convert::barrier(changes.consistency, account);
        let since = ModSeq(changes.since_modseq);
        let found = changes_behind(barrier, asked, account, mailbox, since).await?;
        let modseq = found.mailbox.highest_modseq.0;
        Ok((mail_reply::Result::Changes(convert::changes_out(found)), modseq))
    }

    /// What is new in a mailbox, right after a change that this request has made. Nothing when it cannot be read: the change is done.
    pub(super) async fn news(&self, asked: &Asked, account: AccountId, of: v1::NewsOf) -> Option<v1::ChangesReply> {
        let mailbox = convert::mailbox(&of.mailbox).ok()?;
        let found = changes_behind(Barrier::OwnChange, asked, account, mailbox, ModSeq(of.since_modseq)).await;
        found.ok().map(convert::changes_out)
    }

    pub(super) async fn read_body(&self, asked: &Asked, wanted: v1::ReadBody) -> Answer {
        let (account, mailbox) = (convert::account(&wanted.account)?, convert::mailbox(&wanted.mailbox)?);
        let (body, _room) = self.message_body(asked, account, mailbox, Uid(wanted.uid)).await?;
        let size_bytes = body.len() as u64;
        let from = wanted.offset.min(size_bytes) as usize;
        let length = wanted.length.min(limits::INLINE_BODY_MAX_BYTES as u64) as usize;
        let data = body.slice(from..(from + length).min(body.len()));
        // A few bytes of a large body must not hold all of it in memory until they are sent.
        let data = if data.len() < body.len() / 2 {
            Bytes::copy_from_slice(&data)
        } else {
            data
        };
        Ok((mail_reply::Result::ReadBody(v1::ReadBodyReply { size_bytes, data }), 0))
    }

    /// Bodies that do not read are left out: whoever misses one asks for it alone and is told why.
    pub(super) async fn read_bodies(&self, asked: &Asked, wanted: v1::ReadBodies) -> Answer {
        let (account, mailbox) = (convert::account(&wanted.account)?, convert::mailbox(&wanted.mailbox)?);
        let uids = convert::uids(&wanted.uids)?;
        // As with one body: what a row names never changes, so any replica that has it may answer.
        let look =
            move |view: &dyn View| read::fetch(view, account, mailbox, &uids, ModSeq(0), limits::FETCH_PAGE_ROWS_MAX);
        let page = asked.group.read(Barrier::Local, asked.deadline, look).await??;
        let mut bytes = 0;
        let fits = |message: &read::Message| {
            bytes += message.size;
            bytes <= limits::BODIES_PAGE_BYTES_MAX as u64
        };
        let reads = page.messages.into_iter().take_while(fits).map(|message| async move {
            let data = self.body(asked, message.body).await.ok()?;
            let uid = message.uid.0;
            Some(v1::MessageBody { uid, data })
        });
        let reads = futures::stream::iter(reads).buffered(limits::BODIES_READ_AT_ONCE);
        let bodies = reads.filter_map(std::future::ready).collect().await;
        let reply = v1::ReadBodiesReply { bodies };
        Ok((mail_reply::Result::ReadBodies(reply), 0))
    }

    pub(super) async fn annotations(&self, asked: &Asked, annotations: v1::Annotations) -> Answer {
        let account = convert::account(&annotations.account)?;
        let barrier = convert::barrier(annotations.consistency, account);
        let since = annotations.since_modseq.map(ModSeq);
        let look = move |view: &dyn View| read::annotations(view, account, &annotations.name, since);
        let entries = asked.group.read(barrier, asked.deadline, look).await??;
        let entries = entries
            .into_iter()
            .map(|one| v1::Annotation {
                entry: one.entry,
                value: one.value,
                modseq: one.modseq.0,
            })
            .collect();
        let reply = v1::AnnotationsReply { entries };
        Ok((mail_reply::Result::Annotations(reply), 0))
    }

    pub(super) async fn account_status(&self, asked: &Asked, status: v1::AccountStatus) -> Answer {
        let account = convert::account(&status.account)?;
        let barrier = convert::barrier(status.consistency, account);
        let found = asked
            .group
            .read(barrier, asked.deadline, move |view| read::account(view, account))
            .await?;
        let found = found.ok_or(shard::Refusal::NoAccount)?;
        let reply = v1::AccountStatusReply {
            modseq: found.modseq.0,
            quota_bytes: found.quota_bytes,
            used_bytes: found.used_bytes,
            messages: found.messages,
        };
        Ok((mail_reply::Result::AccountStatus(reply), found.modseq.0))
    }

    pub(super) async fn body(&self, asked: &Asked, hash: BodyHash) -> Result<Bytes, Refused> {
        let sources = asked.group.bodies().sources();
        Ok(self
            .bodies
            .get(asked.group.shard(), hash, &sources, asked.deadline)
            .await?)
    }

    /// A body is found by account and message, never by its hash alone. Rows of messages do not change what body they name, so any
    /// replica that has the row may answer.
    pub(super) async fn message_body(
        &self,
        asked: &Asked,
        account: AccountId,
        mailbox: MailboxId,
        uid: Uid,
    ) -> Result<(Bytes, Taken), Refused> {
        let look = move |view: &dyn View| read::message(view, account, mailbox, uid);
        let mut found = asked.group.read(Barrier::Local, asked.deadline, look).await?;
        if found.is_none() {
            // Perhaps not applied here yet: ask again behind a barrier before saying no.
            found = asked.group.read(Barrier::Linearizable, asked.deadline, look).await?;
        }
        let message = found.ok_or_else(|| Refused::not_found("no such message"))?;
        let room = self
            .room
            .take(usize::try_from(message.size).unwrap_or(usize::MAX))
            .await?;
        Ok((self.body(asked, message.body).await?, room))
    }
}

async fn changes_behind(
    barrier: Barrier,
    asked: &Asked,
    account: AccountId,
    mailbox: MailboxId,
    since: ModSeq,
) -> Result<read::Changes, Refused> {
    let look = move |view: &dyn View| read::changes(view, account, mailbox, since, limits::FETCH_PAGE_ROWS_MAX);
    Ok(asked.group.read(barrier, asked.deadline, look).await??)
}
