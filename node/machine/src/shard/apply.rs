//! Applies a command: the only way in which a shard's rows change.
//!
//! A command works on a draft of its own. If it is refused anywhere on its way, however late, that draft is dropped and nothing but the
//! clock has moved: this is why no operation needs to undo anything. A delivery does the same for each of its recipients.
//!
//! Absent here: clocks (the command brings its time), random ids (the command brings fresh ones), and any order but that of the keys.

use malle_proto::{AccountId, OpId, limits};

use super::edit::Edit;
use super::rights::{self, Reach};
use super::{Command, Op, Outcome, Refusal};
use super::{accounts, bodies, copy, deliver, expunge, flags, keys, mailboxes, receipts, rows, sweep};
use crate::view::{Draft, Fault, View, Writes};

/// Why a command, or a part of one, goes no further.
#[derive(Debug)]
pub(super) enum Stop {
    /// An answer.
    Refused(Refusal),
    /// No answer: the group stops.
    Fault(Fault),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Stop::Refused(refusal)
    }
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Stop::Fault(fault)
    }
}

/// A step of a command.
pub(super) type Step<T> = Result<T, Stop>;

/// Applies one command.
///
/// # Errors
/// A [`Fault`] when a row cannot be read: nothing was changed.
pub fn apply(view: &dyn View, command: &Command) -> Result<(Outcome, Writes), Fault> {
    let mut draft = Draft::new(view);
    let now_ms = advance_clock(&mut draft, command.time_ms)?;
    let mut work = Draft::new(&draft);
    match run(&mut work, now_ms, &command.op) {
        Ok(outcome) => {
            let effect = work.writes;
            draft.absorb(effect);
            Ok((outcome, draft.writes))
        }
        Err(Stop::Refused(refusal)) => Ok((Outcome::Refused(refusal), draft.writes)),
        Err(Stop::Fault(fault)) => Err(fault),
    }
}

/// The machine's time now. A proposer whose clock runs wild moves it by a bounded step, never back (decision 5).
fn advance_clock(draft: &mut Draft<'_>, proposed_ms: u64) -> Result<u64, Fault> {
    let mut shard = rows::shard(draft)?;
    let now_ms = match shard.time_ms {
        0 => proposed_ms,
        time_ms => proposed_ms.clamp(time_ms, time_ms.saturating_add(limits::CLOCK_STEP_MAX_MS)),
    };
    if now_ms != shard.time_ms {
        shard.time_ms = now_ms;
        rows::put(draft, keys::SHARD.to_vec(), &shard);
    }
    Ok(now_ms)
}

fn run(draft: &mut Draft<'_>, now_ms: u64, op: &Op) -> Step<Outcome> {
    match op {
        Op::OpenAccounts { accounts, through } => accounts::open(draft, now_ms, accounts, *through),
        Op::Deliver { recipients, mail } => deliver::deliver(draft, now_ms, recipients, mail),
        Op::ReleaseBodies { hashes } => bodies::release(draft, hashes, now_ms),
        Op::ForgetBodies { hashes } => bodies::forget(draft, hashes),
        Op::Sweep { account } => sweep::command(draft, now_ms, *account),
        Op::FreeBodies { hashes, released_by_ms } => bodies::free(draft, hashes, *released_by_ms),
        Op::ForGuest { guest, op } => interactive(draft, now_ms, Some(*guest), op),
        Op::Append { .. }
        | Op::AppendAll { .. }
        | Op::Store { .. }
        | Op::Copy { .. }
        | Op::Expunge { .. }
        | Op::Mailbox { .. } => interactive(draft, now_ms, None, op),
    }
}

/// The account that an operation names, and its op id; `None` for one of the shard.
fn account_of(op: &Op) -> Option<(AccountId, OpId)> {
    match op {
        Op::Append { account, op_id, .. }
        | Op::AppendAll { account, op_id, .. }
        | Op::Store { account, op_id, .. }
        | Op::Copy { account, op_id, .. }
        | Op::Expunge { account, op_id, .. }
        | Op::Mailbox { account, op_id, .. } => Some((*account, *op_id)),
        Op::OpenAccounts { .. }
        | Op::Deliver { .. }
        | Op::ReleaseBodies { .. }
        | Op::ForgetBodies { .. }
        | Op::Sweep { .. }
        | Op::FreeBodies { .. }
        | Op::ForGuest { .. } => None,
    }
}

/// An operation of one account: once done, its receipt answers, also a guest from whom a right was taken back since.
fn interactive(draft: &mut Draft<'_>, now_ms: u64, guest: Option<AccountId>, op: &Op) -> Step<Outcome> {
    let Some((account, op_id)) = account_of(op) else {
        return Err(Refusal::NotPossible("not an operation of an account".into()).into());
    };
    let mut edit = Edit::open(draft, account, now_ms)?;
    // Receipts of guests stand apart: nobody gets an answer that was another's.
    let op_id = guest.map_or(op_id, |guest| rights::op_id_of(guest, op_id));
    if let Some(outcome) = receipts::find(&edit, op_id)? {
        return match answers(op, &outcome) {
            true => Ok(outcome),
            false => Err(Refusal::NotPossible("this op id was used for another operation".into()).into()),
        };
    }
    edit.require_active()?;
    let outcome = match guest {
        None => perform(&mut edit, op, Reach::ALL)?,
        Some(guest) => rights::perform(&mut edit, guest, op)?,
    };
    match guest {
        None => receipts::keep(&mut edit, receipts::Class::Interactive, op_id, &outcome)?,
        Some(guest) => receipts::keep_of_guest(&mut edit, guest, op_id, &outcome)?,
    }
    edit.finish()?;
    Ok(outcome)
}

/// Does an operation, with the flags that are within reach.
pub(super) fn perform(edit: &mut Edit<'_, '_>, op: &Op, reach: Reach) -> Step<Outcome> {
    match op {
        Op::Append {
            mailbox,
            flags,
            internal_date,
            mail,
            ..
        } => deliver::append(edit, *mailbox, &reach.within(flags), *internal_date, mail),
        Op::AppendAll {
            mailbox,
            messages,
            replaces,
            ..
        } => deliver::append_all(edit, *mailbox, messages, *replaces, reach),
        Op::Store {
            mailbox,
            uids,
            mode,
            flags,
            unchanged_since,
            ..
        } => {
            let change = flags::Change {
                mode: *mode,
                flags,
                reach,
            };
            flags::store(edit, *mailbox, uids, &change, *unchanged_since)
        }
        Op::Copy {
            mailbox,
            uids,
            to,
            remove,
            ..
        } => copy::copy(edit, *mailbox, uids, *to, *remove, reach),
        Op::Expunge { mailbox, uids, .. } => expunge::expunge(edit, *mailbox, uids),
        Op::Mailbox { change, fresh_ids, .. } => mailboxes::change(edit, change, fresh_ids),
        Op::OpenAccounts { .. }
        | Op::Deliver { .. }
        | Op::ReleaseBodies { .. }
        | Op::ForgetBodies { .. }
        | Op::Sweep { .. }
        | Op::FreeBodies { .. }
        | Op::ForGuest { .. } => {
            Err(Fault::Broken("an operation of the shard was taken for one of an account".into()).into())
        }
    }
}

/// Whether a receipt can be the answer to this operation. A front end that uses an op id twice is told so, and gets no answer that it
/// cannot read.
fn answers(op: &Op, outcome: &Outcome) -> bool {
    matches!(
        (op, outcome),
        (Op::Append { .. }, Outcome::Appended(_))
            | (Op::AppendAll { .. }, Outcome::AppendedAll(_))
            | (Op::Store { .. }, Outcome::FlagsStored(_))
            | (Op::Copy { .. }, Outcome::Copied(_))
            | (Op::Expunge { .. }, Outcome::Expunged(_))
            | (Op::Mailbox { .. }, Outcome::MailboxChanged { .. })
    )
}

#[cfg(test)]
mod tests;
