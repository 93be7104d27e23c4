//! COPY and MOVE from one account to another: the bytes are read from the one and appended to the other.
//!
//! Each batch comes in whole or not at all, and MOVE takes a batch away where it was once it is safe where it goes: a crash in between leaves
//! messages in both places, never in none. The copies are new messages with the flags and dates of the old ones, as far as the rights there allow.

use std::sync::Arc;

use malle_client::{
    Copied, Error, Flags, MailboxId, Message, NewMessage, Rights, StoreMode, Uid, UidRange, UidValidity,
};
use malle_proto::limits;

use super::super::command::{ANY_MODSEQ, ranges_from};
use super::super::store::Account;
use super::Everything;

/// Messages of a batch together, unless one alone is larger.
const BATCH_BYTES: u64 = 1024 * 1024;

impl Everything {
    /// Are both mailboxes of one account?
    pub(super) fn share_an_owner(&self, one: MailboxId, other: MailboxId) -> bool {
        self.home(one).map(|owner| owner.id) == self.home(other).map(|owner| owner.id)
    }

    pub(super) async fn copy_across(&self, from: MailboxId, uids: &[UidRange], to: MailboxId) -> Result<Copied, Error> {
        self.bring_across(from, uids, to, false).await
    }

    pub(super) async fn move_across(&self, from: MailboxId, uids: &[UidRange], to: MailboxId) -> Result<Copied, Error> {
        if let Some(owner) = self.home(from) {
            // Seen before anything is copied: a message that may not go must not be there twice.
            let wanted = Rights::DELETE_MESSAGES.and(Rights::EXPUNGE);
            let mailboxes = self.mailboxes_of(&owner).await?;
            let held = mailboxes.into_iter().find(|mailbox| mailbox.id == from);
            let held = held.and_then(|mailbox| mailbox.rights).unwrap_or(Rights::NONE);
            if !held.hold(wanted) {
                return Err(Error::Denied(format!("no right {}", wanted.without(held))));
            }
        }
        self.bring_across(from, uids, to, true).await
    }

    async fn bring_across(
        &self,
        from: MailboxId,
        uids: &[UidRange],
        to: MailboxId,
        remove: bool,
    ) -> Result<Copied, Error> {
        let source = self.at(from);
        let mut copied = Copied::default();
        let mut left = uids.to_vec();
        while !left.is_empty() {
            let page = source.fetch(from, &left, ANY_MODSEQ, false).await?;
            for batch in batches(&page.messages) {
                let pairs = self
                    .bring_batch(&source, from, batch, to, &mut copied.uid_validity)
                    .await?;
                if remove && !pairs.is_empty() {
                    self.remove(from, &pairs).await?;
                }
                copied.pairs.extend(pairs);
            }
            left = match page.resume_from {
                Some(uid) => ranges_from(&left, uid)?,
                None => Vec::new(),
            };
        }
        Ok(copied)
    }

    /// Appends copies of these messages; those that are gone meanwhile are passed over.
    async fn bring_batch(
        &self,
        source: &Arc<dyn Account>,
        from: MailboxId,
        batch: &[Message],
        to: MailboxId,
        uid_validity: &mut UidValidity,
    ) -> Result<Vec<(Uid, Uid)>, Error> {
        let bytes = batch.iter().map(|message| message.size_bytes).sum();
        let room = self.memory.take(bytes).await;
        let _room = room.ok_or_else(|| Error::Busy(std::time::Duration::from_millis(limits::IMAP_MEMORY_WAIT_MS)))?;
        let (mut sources, mut messages) = (Vec::new(), Vec::new());
        for message in batch {
            let body = match source.read_body(from, message.uid).await {
                Ok(body) => body,
                Err(Error::NotFound(_)) => continue,
                Err(error) => return Err(error),
            };
            sources.push(message.uid);
            messages.push(NewMessage {
                flags: message.flags.clone(),
                internal_date: Some((message.internal_date_ms, message.internal_date_zone_minutes)),
                body,
            });
        }
        if messages.is_empty() {
            return Ok(Vec::new());
        }
        let stored = self.append_into(to, messages).await?;
        if let Some(first) = stored.first() {
            *uid_validity = first.uid_validity;
        }
        Ok(sources
            .into_iter()
            .zip(stored.iter().map(|stored| stored.uid))
            .collect())
    }

    /// Takes away what has been copied.
    async fn remove(&self, from: MailboxId, pairs: &[(Uid, Uid)]) -> Result<(), Error> {
        let uids: Vec<UidRange> = pairs
            .iter()
            .map(|&(uid, _)| UidRange { first: uid, last: uid })
            .collect();
        let deleted = Flags {
            system: Flags::DELETED,
            keywords: Vec::new(),
        };
        self.store(from, &uids, StoreMode::Add, deleted, None).await?;
        self.expunge(from, &uids).await?;
        Ok(())
    }
}

/// Cuts messages into what one command brings.
fn batches(messages: &[Message]) -> Vec<&[Message]> {
    let (mut batches, mut start, mut bytes) = (Vec::new(), 0, 0);
    for (index, message) in messages.iter().enumerate() {
        let is_full = index - start >= limits::APPENDS_PER_COMMAND_MAX || bytes + message.size_bytes > BATCH_BYTES;
        if is_full && index > start {
            batches.push(&messages[start..index]);
            (start, bytes) = (index, 0);
        }
        bytes += message.size_bytes;
    }
    if start < messages.len() {
        batches.push(&messages[start..]);
    }
    batches
}

#[cfg(test)]
mod tests {
    use malle_client::{EmailId, ModSeq, ThreadId};

    use super::*;

    fn sizes(of: &[u64]) -> Vec<usize> {
        let message = |size_bytes: &u64| Message {
            uid: Uid(1),
            modseq: ModSeq(1),
            flags: Flags::default(),
            size_bytes: *size_bytes,
            internal_date_ms: 0,
            internal_date_zone_minutes: 0,
            save_date_ms: 0,
            email_id: EmailId([0; 16]),
            thread_id: ThreadId([0; 16]),
            summary: None,
        };
        let messages: Vec<Message> = of.iter().map(message).collect();
        batches(&messages).iter().map(|batch| batch.len()).collect()
    }

    #[test]
    fn a_batch_is_what_one_command_brings_and_a_large_message_is_one_alone() {
        let most = limits::APPENDS_PER_COMMAND_MAX;
        assert_eq!(sizes(&[]), Vec::<usize>::new());
        assert_eq!(sizes(&vec![10; most + 1]), [most, 1]);
        assert_eq!(sizes(&[BATCH_BYTES, 1, 2, 50 * BATCH_BYTES, 3]), [1, 2, 1, 1]);
    }
}
