//! COPY and MOVE within an account: another row that names the same body, never another body.
//!
//! A copy keeps flags, internal date, email id and thread id; its save date is the command's time (RFC 8514). A move is a copy and an
//! expunge in one command, so that nobody ever sees the message twice or not at all (RFC 6851). The target may be the source.

use malle_proto::{MailboxId, Uid, UidValidity, limits};

use super::apply::Step;
use super::edit::Edit;
use super::rights::Reach;
use super::{Copied, Flags, Outcome, UidRange, bodies, keys, keywords, messages, rows, sets, threads};

/// Copies, and with `remove` moves, the messages of a set. A copy that would be over quota is refused whole; a move needs no room.
pub(super) fn copy(
    edit: &mut Edit<'_, '_>,
    from: MailboxId,
    uids: &[UidRange],
    to: MailboxId,
    remove: bool,
    reach: Reach,
) -> Step<Outcome> {
    let ranges = sets::normalise(uids)?;
    edit.mailbox(from)?;
    let mut target = edit.mailbox(to)?;
    let (found, resume_from) = messages::find(edit, from, &ranges, limits::MESSAGES_PER_COMMAND_MAX)?;
    let mut pairs: Vec<(Uid, Uid)> = Vec::with_capacity(found.len());
    for (uid, state) in &found {
        let mut content: rows::Content = rows::must_get(edit.draft, &keys::content(edit.id, from, *uid), "content")?;
        if !remove {
            edit.require_room(content.size)?;
        }
        for hash in content.bodies() {
            bodies::name_again(edit.draft, hash)?;
        }
        for id in &content.thread_keys {
            threads::keep(edit, *id, content.thread_id)?;
        }
        content.save_date_ms = edit.now_ms;
        let kept = reach.within(&state.flags);
        let mut words = keywords::spell(edit, &mut target, &kept.keywords)?;
        keywords::sort(&mut words);
        let flags = Flags {
            system: kept.system,
            keywords: words,
        };
        let (new, _) = messages::insert(edit, &mut target, flags, &content)?;
        pairs.push((*uid, new));
    }
    let uid_validity = UidValidity(target.row.uid_validity);
    edit.save(&target);
    if remove {
        // Taken in hand only now: when the target is the source, this is the row with the copies in it.
        let mut source = edit.mailbox(from)?;
        for (uid, state) in &found {
            messages::expunge(edit, &mut source, *uid, state)?;
        }
        messages::trim_tombstones(edit, &mut source, limits::TOMBSTONES_PER_MAILBOX_MAX)?;
        edit.save(&source);
    }
    Ok(Outcome::Copied(Copied {
        uid_validity,
        pairs,
        resume_from,
        modseq: edit.modseq(),
    }))
}
