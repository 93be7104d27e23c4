//! QUOTA (RFC 9208): an account has one root, with the empty name, that counts the bytes of all its mailboxes. Nobody sets a quota by IMAP.

use malle_client::{Flags, Mailbox, Uid, UidRange};

use super::super::parse::StatusItem;
use super::super::respond::{Answer, Failure};
use super::super::session::Session;
use super::super::shared::is_of_others;
use super::super::store::Account;
use super::authenticated::require_read;
use super::fetch::ranges_from;
use super::selected::ANY_MODSEQ;
use super::{account, find};

pub(super) async fn get_quota(session: &mut Session, root: &[u8]) -> Result<Answer, Failure> {
    if !root.is_empty() {
        return Err(Failure::no("NONEXISTENT", "There is no such quota root"));
    }
    tell_quota(session).await?;
    Ok(Answer::ok("Done"))
}

pub(super) async fn get_quota_root(session: &mut Session, name: &str) -> Result<Answer, Failure> {
    let account = account(session)?;
    let mailbox = find(&*account, name, "NONEXISTENT").await?;
    require_read(&mailbox)?;
    let out = &mut session.connection.output;
    out.raw(b"* QUOTAROOT ");
    out.mailbox(&mailbox.name);
    if is_of_others(&mailbox.name) {
        // What its owner may hold and holds is his business.
        out.raw(b"\r\n");
        return Ok(Answer::ok("Its owner has a quota, which is not told"));
    }
    out.raw(b" \"\"\r\n");
    tell_quota(session).await?;
    Ok(Answer::ok("Done"))
}

/// In units of 1024 bytes: what is used is rounded up, what may be used is rounded down.
async fn tell_quota(session: &mut Session) -> Result<(), Failure> {
    let status = account(session)?.status().await?;
    let (used, limit) = (status.used_bytes.div_ceil(1024), status.quota_bytes / 1024);
    session
        .connection
        .output
        .untagged(format_args!("QUOTA \"\" (STORAGE {used} {limit})"));
    Ok(())
}

/// Bytes of the messages with \Deleted, for DELETED-STORAGE; the rows are only read when somebody asks and there are such messages.
pub(super) async fn deleted_bytes(
    account: &dyn Account,
    mailbox: &Mailbox,
    items: &[StatusItem],
) -> Result<u64, Failure> {
    if mailbox.deleted == 0 || !items.contains(&StatusItem::DeletedStorage) {
        return Ok(0);
    }
    let mut left = vec![UidRange {
        first: Uid(1),
        last: Uid(u32::MAX),
    }];
    let mut bytes = 0;
    while !left.is_empty() {
        let page = account.fetch(mailbox.id, &left, ANY_MODSEQ, false).await?;
        let deleted = page
            .messages
            .iter()
            .filter(|message| message.flags.system & Flags::DELETED != 0);
        bytes += deleted.map(|message| message.size_bytes).sum::<u64>();
        left = match page.resume_from {
            Some(uid) => ranges_from(&left, uid)?,
            None => Vec::new(),
        };
    }
    Ok(bytes)
}
