//! APPEND (RFC 3501 6.3.11), of several messages at once (RFC 3502), and REPLACE (RFC 8508).

use malle_client::{MailboxId, Uid};

use super::super::parse::{Append, Target};
use super::super::respond::{Answer, Failure, number_set};
use super::super::session::Session;
use super::selected::{picked, writable};
use super::{because_of_name, mailbox, writer};

/// All messages come in, or none. The answer is the APPENDUID of RFC 4315; when a message goes, it comes before that is told
/// (RFC 8508 3.3).
pub(super) async fn append(session: &mut Session, append: Append) -> Result<Answer, Failure> {
    let Append {
        mailbox,
        mut messages,
        replaces,
    } = append;
    let account = writer(session)?;
    if messages.iter().any(|message| message.body.is_empty()) {
        // So may a client also give up an APPEND that it has begun (RFC 3502 3).
        return Err(Failure::no("CANNOT", "An empty message is no message"));
    }
    let replaces = replaces.map(|target| replaced(session, &target)).transpose()?;
    let stored = match (messages.pop(), replaces) {
        (Some(message), None) if messages.is_empty() => {
            let stored = account.append(&mailbox, message).await;
            stored.map(|stored| vec![stored])
        }
        (last, replaces) => {
            messages.extend(last);
            account.append_all(&mailbox, messages, replaces).await
        }
    };
    let stored = stored.map_err(|error| because_of_name(error, "TRYCREATE"))?;
    let uids = number_set(stored.iter().map(|stored| stored.uid.0));
    let code = stored
        .first()
        .map(|first| format!("APPENDUID {} {uids}", first.uid_validity));
    let Some((_, uid)) = replaces else {
        return Ok(Answer {
            code,
            ..Answer::ok("Appended")
        });
    };
    if let Some(code) = code {
        session
            .connection
            .output
            .untagged(format_args!("OK [{code}] Its successor"));
    }
    let (_, selected) = super::mailbox(session)?;
    selected.view.lose(&[malle_client::UidRange { first: uid, last: uid }]);
    Ok(Answer::ok("Replaced"))
}

/// The message of the selected mailbox that is to go.
fn replaced(session: &mut Session, target: &Target) -> Result<(MailboxId, Uid), Failure> {
    let (_, selected) = mailbox(session)?;
    writable(selected)?;
    let picked = picked(selected, target)?;
    let ranges = selected.view.ranges(&picked);
    let uid = ranges.first().map(|range| range.first);
    let uid = uid.filter(|_| !selected.view.has_gone(&picked));
    uid.map(|uid| (selected.mailbox, uid))
        .ok_or_else(|| Failure::no("NONEXISTENT", "The message to replace is not there"))
}
