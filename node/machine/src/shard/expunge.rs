//! EXPUNGE and UID EXPUNGE (RFC 9051 6.4.3, 6.4.9): messages with \Deleted go, and each leaves a tombstone.
//!
//! An index has the messages with \Deleted, so that expunging one of a hundred thousand costs one.

use malle_proto::{MailboxId, Uid, limits};

use super::apply::Step;
use super::edit::Edit;
use super::{Expunged, Outcome, UidRange, keys, messages, rows, sets};
use crate::controls::{self, Control};
use crate::view::{Fault, Flow, View};

/// Removes the messages of a set that have \Deleted; of the whole mailbox when the set is empty.
pub(super) fn expunge(edit: &mut Edit<'_, '_>, mailbox: MailboxId, uids: &[UidRange]) -> Step<Outcome> {
    let all = [UidRange {
        first: Uid(1),
        last: Uid(u32::MAX),
    }];
    let ranges = match uids.is_empty() {
        true => all.to_vec(),
        false => sets::normalise(uids)?,
    };
    let mut mailbox = edit.mailbox(mailbox)?;
    let (found, resume_from) = find_deleted(edit, mailbox.id, &ranges)?;
    for &uid in &found {
        let state: rows::State = rows::must_get(edit.draft, &keys::state(edit.id, mailbox.id, uid), "state")?;
        messages::expunge(edit, &mut mailbox, uid, &state)?;
    }
    if controls::is_on(Control::ReuseUid)
        && let Some(first) = found.first()
    {
        messages::give_back(edit, &mut mailbox, *first)?;
    }
    messages::trim_tombstones(edit, &mut mailbox, limits::TOMBSTONES_PER_MAILBOX_MAX)?;
    edit.save(&mailbox);
    Ok(Outcome::Expunged(Expunged {
        vanished: sets::of_rising(found),
        resume_from,
        modseq: edit.modseq(),
    }))
}

fn find_deleted(
    edit: &Edit<'_, '_>,
    mailbox: MailboxId,
    ranges: &[UidRange],
) -> Result<(Vec<Uid>, Option<Uid>), Fault> {
    let (mut found, mut resume_from) = (Vec::new(), None);
    for range in ranges {
        let keys = keys::uids(edit.id, keys::kind::DELETED, mailbox, range.first, range.last);
        edit.draft.scan(&keys.from, &keys.to, &mut |key, _| {
            let uid = keys::uid_of(key).ok_or_else(rows::bad_key)?;
            if found.len() == limits::MESSAGES_PER_COMMAND_MAX {
                resume_from = Some(uid);
                return Ok(Flow::Stop);
            }
            found.push(uid);
            Ok(Flow::More)
        })?;
        if resume_from.is_some() {
            break;
        }
    }
    Ok((found, resume_from))
}
