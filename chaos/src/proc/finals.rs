//! What every account holds at the end, read as a client reads it: linearizably, with every body.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use harness::until;
use malle_client::{Account, Mailbox, ModSeq, Uid, UidRange};

use super::world::{PASSWORD, Seat, World};
use crate::history::{Final, FinalMailbox, FinalMessage, Record, Recorder};
use crate::workload::{from_client, hex};

/// A cluster without faults answers within this, on a busy machine too.
const ANSWER: Duration = Duration::from_secs(60);
/// Bodies read at the same time.
const AT_ONCE: usize = 8;

/// Reads all accounts into the history.
///
/// # Errors
/// When an account cannot be read although nothing attacks the cluster any more. A body that cannot be read is no error: it is written
/// down with the reason.
pub async fn read(world: &World, seats: &[Seat], quota_bytes: u64, recorder: &Recorder) -> anyhow::Result<()> {
    let client = world.load().await?.with_deadline(ANSWER);
    for (number, seat) in (0..).zip(seats) {
        let account = until(format!("a login of {}", seat.login), ANSWER, || async {
            Ok(Some(client.login(&seat.login, PASSWORD).await?))
        })
        .await?;
        let status = account.status().await?;
        let mut mailboxes = Vec::new();
        for mailbox in account.mailboxes().await? {
            mailboxes.push(read_mailbox(&account, mailbox).await?);
        }
        recorder.write(&Record::Final(Final {
            at_us: recorder.now_us(),
            place: None,
            account: number,
            modseq: status.modseq.0,
            used_bytes: status.used_bytes,
            quota_bytes,
            messages: status.messages,
            mailboxes,
        }));
    }
    Ok(())
}

async fn read_mailbox(account: &Account, mailbox: Mailbox) -> anyhow::Result<FinalMailbox> {
    let mut messages = Vec::new();
    let mut from = Some(Uid(1));
    while let Some(first) = from {
        let rest = [UidRange {
            first,
            last: Uid(u32::MAX),
        }];
        let page = account.fetch(mailbox.id, &rest, ModSeq(0), false).await?;
        messages.extend(page.messages);
        from = page.resume_from;
    }
    let id = mailbox.id;
    let bodies = futures::stream::iter(messages).map(|message| async move {
        let body = account.read_body(id, message.uid).await;
        let (hash, why) = match body {
            Ok(bytes) => (Some(hash_of_sent(&bytes)), None),
            Err(error) => (None, Some(error.to_string())),
        };
        FinalMessage {
            uid: message.uid.0,
            modseq: message.modseq.0,
            flags: from_client(&message.flags),
            size_bytes: message.size_bytes,
            hash,
            why,
        }
    });
    Ok(FinalMailbox {
        name: mailbox.name,
        uid_validity: mailbox.uid_validity.0,
        uid_next: mailbox.uid_next.0,
        highest_modseq: mailbox.highest_modseq.0,
        count: mailbox.messages,
        messages: bodies.buffered(AT_ONCE).collect().await,
    })
}

/// The hash of the bytes that a client sent. What came by LMTP has the envelope's sender in front, which the gateway put there.
pub fn hash_of_sent(stored: &Bytes) -> String {
    let line = super::via::RETURN_PATH.as_bytes();
    let sent = stored.strip_prefix(line).unwrap_or(stored);
    hex(blake3::hash(sent).as_bytes())
}
