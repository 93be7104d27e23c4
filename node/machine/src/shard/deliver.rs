//! A message comes in: LMTP to several accounts, or APPEND to one; several messages by one APPEND.

use malle_proto::{EmailId, MailboxId, ThreadId, Uid, UidValidity, limits};

use super::apply::{Step, Stop};
use super::edit::{Edit, OpenMailbox};
use super::rights::Reach;
use super::{
    Arriving, Flags, InternalDate, NewMail, Outcome, Recipient, Refusal, SpecialUse, Stored, Summary, bodies, keys,
    keywords, messages, receipts, rows, threads,
};
use crate::controls::{self, Control};
use crate::view::{Draft, Fault};

/// Delivers to each recipient by itself: a refusal of one leaves the others their mail, and a repetition of the whole command finds the
/// receipts of those who have theirs.
pub(super) fn deliver(draft: &mut Draft<'_>, now_ms: u64, recipients: &[Recipient], mail: &NewMail) -> Step<Outcome> {
    if recipients.len() > limits::RECIPIENTS_PER_COMMAND_MAX {
        return Err(Refusal::Limit(format!(
            "{} recipients in a command",
            limits::RECIPIENTS_PER_COMMAND_MAX
        ))
        .into());
    }
    let mut outcomes = Vec::with_capacity(recipients.len());
    for recipient in recipients {
        let mut part = Draft::new(draft);
        match deliver_one(&mut part, now_ms, recipient, mail) {
            Ok(stored) => {
                let effect = part.writes;
                draft.absorb(effect);
                outcomes.push(Ok(stored));
            }
            Err(Stop::Refused(refusal)) => outcomes.push(Err(refusal)),
            Err(Stop::Fault(fault)) => return Err(fault.into()),
        }
    }
    Ok(Outcome::Delivered(outcomes))
}

fn deliver_one(draft: &mut Draft<'_>, now_ms: u64, recipient: &Recipient, mail: &NewMail) -> Step<Stored> {
    let mut edit = Edit::open(draft, recipient.account, now_ms)?;
    match receipts::find(&edit, recipient.op_id)? {
        Some(Outcome::Appended(stored)) => return Ok(stored),
        Some(_) => return Err(Refusal::NotPossible("this op id was used for another operation".into()).into()),
        None => {}
    }
    edit.require_active()?;
    let mailbox = target(&edit, recipient.into)?;
    let arrival = Arrival {
        flags: Flags::default(),
        internal_date: None,
        email_id: recipient.email_id,
        fresh_thread: recipient.fresh_thread,
    };
    let stored = put_in(&mut edit, mailbox, arrival, mail)?;
    // Kept in the shape of an append: an outcome of one message.
    let outcome = Outcome::Appended(stored.clone());
    if !controls::is_on(Control::LoseReceipt) {
        receipts::keep(&mut edit, receipts::Class::Delivery, recipient.op_id, &outcome)?;
    }
    edit.finish()?;
    Ok(stored)
}

/// The mailbox with this use, else INBOX: mail is never refused because a user has deleted Junk.
fn target(edit: &Edit<'_, '_>, into: SpecialUse) -> Step<OpenMailbox> {
    let with = |wanted: SpecialUse| edit.row.special.iter().find(|(special_use, _)| *special_use == wanted);
    let (_, id) = with(into)
        .or_else(|| with(SpecialUse::Inbox))
        .ok_or_else(|| Fault::Broken("an account has no INBOX".into()))?;
    edit.mailbox(*id)
}

/// APPEND (RFC 9051 6.3.12) of one message.
pub(super) fn append(
    edit: &mut Edit<'_, '_>,
    mailbox: MailboxId,
    flags: &Flags,
    internal_date: Option<InternalDate>,
    mail: &NewMail,
) -> Step<Outcome> {
    Ok(Outcome::Appended(append_one(
        edit,
        mailbox,
        flags,
        internal_date,
        mail,
    )?))
}

/// APPEND of several messages (RFC 3502): a refusal of one refuses them all. What they replace (RFC 8508) goes first, so that its room is
/// theirs.
pub(super) fn append_all(
    edit: &mut Edit<'_, '_>,
    mailbox: MailboxId,
    arriving: &[Arriving],
    replaces: Option<(MailboxId, Uid)>,
    reach: Reach,
) -> Step<Outcome> {
    if arriving.is_empty() || arriving.len() > limits::APPENDS_PER_COMMAND_MAX {
        return Err(Refusal::Limit(format!(
            "1 to {} messages in an append",
            limits::APPENDS_PER_COMMAND_MAX
        ))
        .into());
    }
    if let Some((mailbox, uid)) = replaces {
        take_out(edit, mailbox, uid)?;
    }
    let stored = arriving
        .iter()
        .map(|one| append_one(edit, mailbox, &reach.within(&one.flags), one.internal_date, &one.mail))
        .collect::<Step<Vec<Stored>>>()?;
    Ok(Outcome::AppendedAll(stored))
}

/// Expunges one message, whatever its flags.
fn take_out(edit: &mut Edit<'_, '_>, mailbox: MailboxId, uid: Uid) -> Step<()> {
    let mut mailbox = edit.mailbox(mailbox)?;
    let state: Option<rows::State> = rows::get(edit.draft, &keys::state(edit.id, mailbox.id, uid), "state")?;
    let state = state.ok_or_else(|| Refusal::NotPossible("the message to replace is gone".into()))?;
    messages::expunge(edit, &mut mailbox, uid, &state)?;
    messages::trim_tombstones(edit, &mut mailbox, limits::TOMBSTONES_PER_MAILBOX_MAX)?;
    edit.save(&mailbox);
    Ok(())
}

fn append_one(
    edit: &mut Edit<'_, '_>,
    mailbox: MailboxId,
    flags: &Flags,
    internal_date: Option<InternalDate>,
    mail: &NewMail,
) -> Step<Stored> {
    let flags = keywords::normalise(flags)?;
    let mut mailbox = edit.mailbox(mailbox)?;
    let mut words = keywords::spell(edit, &mut mailbox, &flags.keywords)?;
    keywords::sort(&mut words);
    let arrival = Arrival {
        flags: Flags {
            system: flags.system,
            keywords: words,
        },
        internal_date,
        email_id: mail.email_id,
        fresh_thread: mail.fresh_thread,
    };
    put_in(edit, mailbox, arrival, mail)
}

/// What differs between a delivery and an append.
struct Arrival {
    flags: Flags,
    internal_date: Option<InternalDate>,
    email_id: EmailId,
    fresh_thread: ThreadId,
}

fn put_in(edit: &mut Edit<'_, '_>, mut mailbox: OpenMailbox, arrival: Arrival, mail: &NewMail) -> Step<Stored> {
    require_bounded(mail)?;
    edit.require_room(mail.body.size)?;
    bodies::name(edit.draft, &mail.body)?;
    let summary = match &mail.summary {
        Summary::Inline(bytes) => rows::KeptSummary::Inline(bytes.clone()),
        Summary::Beside(put) => {
            bodies::name(edit.draft, put)?;
            rows::KeptSummary::Beside(put.hash)
        }
    };
    let (thread_id, thread_keys) = threads::join(edit, &mail.thread_keys, arrival.fresh_thread)?;
    let now = InternalDate {
        time_ms: edit.now_ms,
        zone_minutes: 0,
    };
    let content = rows::Content {
        size: mail.body.size,
        body: mail.body.hash,
        internal_date: arrival.internal_date.unwrap_or(now),
        save_date_ms: edit.now_ms,
        email_id: arrival.email_id,
        thread_id,
        thread_keys,
        summary,
    };
    let (uid, modseq) = messages::insert(edit, &mut mailbox, arrival.flags, &content)?;
    edit.save(&mailbox);
    Ok(Stored {
        mailbox: mailbox.id,
        uid_validity: UidValidity(mailbox.row.uid_validity),
        uid,
        modseq,
        repeated: false,
    })
}

fn require_bounded(mail: &NewMail) -> Result<(), Refusal> {
    if mail.body.size > limits::MESSAGE_MAX_BYTES as u64 {
        return Err(Refusal::Limit(format!(
            "{} bytes in a message",
            limits::MESSAGE_MAX_BYTES
        )));
    }
    if let Summary::Inline(bytes) = &mail.summary
        && bytes.len() > limits::INLINE_SUMMARY_MAX_BYTES
    {
        return Err(Refusal::Limit(format!(
            "{} bytes in a summary",
            limits::INLINE_SUMMARY_MAX_BYTES
        )));
    }
    if mail.thread_keys.len() > 1 + limits::THREAD_REFERENCES_MAX {
        return Err(Refusal::Limit(format!("{} references", limits::THREAD_REFERENCES_MAX)));
    }
    Ok(())
}
