//! What was done under an op id: the same answer again instead of the same effect again (decision 6).
//!
//! Only effects leave receipts. A receipt that is past its time still answers until a later command of the account takes it away:
//! remembering longer than promised harms nobody, and it means that an op id never has two turns.

use malle_proto::{AccountId, OpId, limits};

use super::apply::Step;
use super::edit::Edit;
use super::{Outcome, keys, rows};
use crate::view::{Fault, Flow, View};

/// How long a receipt is kept, and which others it can push out. The numbers are in the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// `limits::DELIVERY_RECEIPT_KEPT_MS`.
    Delivery = 1,
    /// `limits::INTERACTIVE_RECEIPT_KEPT_MS`, and at most `limits::INTERACTIVE_RECEIPTS_PER_ACCOUNT_MAX` of them.
    Interactive = 2,
}

/// The class of a guest's receipts: each guest has `limits::GUEST_RECEIPTS_MAX` of his own, so that a busy one pushes out nobody else's, whose
/// repeat would then be done twice. They are kept as long as interactive ones.
pub(super) const OF_GUEST: u8 = 3;

/// The outcome of this operation if it was done before, marked as a repetition where the outcome can say so.
pub(super) fn find(edit: &Edit<'_, '_>, op_id: OpId) -> Result<Option<Outcome>, Fault> {
    let receipt: Option<rows::Receipt> = rows::get(edit.draft, &keys::receipt(edit.id, op_id), "receipt")?;
    Ok(receipt.map(|receipt| match receipt.outcome {
        Outcome::Appended(mut stored) => {
            stored.repeated = true;
            Outcome::Appended(stored)
        }
        Outcome::AppendedAll(mut all) => {
            all.iter_mut().for_each(|stored| stored.repeated = true);
            Outcome::AppendedAll(all)
        }
        other => other,
    }))
}

/// Remembers an outcome. The caller has looked for the op id before and found nothing.
pub(super) fn keep(edit: &mut Edit<'_, '_>, class: Class, op_id: OpId, outcome: &Outcome) -> Step<()> {
    let kept_ms = match class {
        Class::Delivery => limits::DELIVERY_RECEIPT_KEPT_MS,
        Class::Interactive => limits::INTERACTIVE_RECEIPT_KEPT_MS,
    };
    let number = edit.row.receipts_written;
    edit.row.receipts_written += 1;
    put(edit, keys::turn(edit.id, class as u8, number), kept_ms, op_id, outcome);
    if class == Class::Interactive {
        edit.row.interactive_receipts += 1;
        if edit.row.interactive_receipts as usize > limits::INTERACTIVE_RECEIPTS_PER_ACCOUNT_MAX {
            remove_oldest(edit, class, 1, u64::MAX)?;
        }
    }
    Ok(())
}

/// As [`keep`], of an operation of a guest.
pub(super) fn keep_of_guest(edit: &mut Edit<'_, '_>, guest: AccountId, op_id: OpId, outcome: &Outcome) -> Step<()> {
    let key = keys::visitor(edit.id, guest);
    let mut visitor: rows::Visitor = rows::get(edit.draft, &key, "visitor")?.unwrap_or_default();
    let turn = keys::guest_turn(edit.id, OF_GUEST, guest, visitor.next);
    let expires_ms = put(edit, turn, limits::INTERACTIVE_RECEIPT_KEPT_MS, op_id, outcome);
    if visitor.first == visitor.next {
        visitor.due_ms = expires_ms;
    }
    visitor.next += 1;
    if visitor.next - visitor.first > limits::GUEST_RECEIPTS_MAX {
        remove_first_of(edit, guest, &mut visitor)?;
    }
    rows::put(edit.draft, key, &visitor);
    Ok(())
}

/// Writes a receipt and its turn; the time when it goes.
fn put(edit: &mut Edit<'_, '_>, turn: Vec<u8>, kept_ms: u64, op_id: OpId, outcome: &Outcome) -> u64 {
    let expires_ms = edit.now_ms.saturating_add(kept_ms);
    edit.row.receipts_due_ms = edit.row.receipts_due_ms.min(expires_ms);
    rows::put_new(edit.draft, turn, &rows::Turn { op_id, expires_ms });
    let receipt = rows::Receipt {
        outcome: outcome.clone(),
    };
    rows::put(edit.draft, keys::receipt(edit.id, op_id), &receipt);
    expires_ms
}

/// Takes away at most `max` receipts whose time is over.
pub(super) fn expire(edit: &mut Edit<'_, '_>, max: usize) -> Step<()> {
    let now_ms = edit.now_ms;
    if now_ms < edit.row.receipts_due_ms {
        return Ok(());
    }
    let deliveries = remove_oldest(edit, Class::Delivery, max, now_ms)?;
    let interactive = remove_oldest(edit, Class::Interactive, max - deliveries.count, now_ms)?;
    let of_guests = expire_of_guests(edit, max - deliveries.count - interactive.count)?;
    let due_ms = deliveries.next_due_ms.min(interactive.next_due_ms).min(of_guests);
    edit.row.receipts_due_ms = due_ms;
    Ok(())
}

/// The same for guests; when the next one is due. A row is read for each guest who was here within the time that receipts are kept.
fn expire_of_guests(edit: &mut Edit<'_, '_>, max: usize) -> Step<u64> {
    let range = keys::of_kind(edit.id, keys::kind::VISITOR);
    let mut visitors: Vec<(AccountId, rows::Visitor)> = Vec::new();
    edit.draft.scan(&range.from, &range.to, &mut |key, value| {
        let guest = AccountId(keys::id_of(key).ok_or_else(rows::bad_key)?);
        visitors.push((guest, rows::read(value, "visitor")?));
        Ok(Flow::More)
    })?;
    let mut left = max;
    let mut next_due_ms = u64::MAX;
    for (guest, mut visitor) in visitors {
        let before = visitor.first;
        while left > 0 && visitor.first < visitor.next && visitor.due_ms <= edit.now_ms {
            remove_first_of(edit, guest, &mut visitor)?;
            left -= 1;
        }
        let key = keys::visitor(edit.id, guest);
        if visitor.first == visitor.next {
            edit.draft.remove(key);
            continue;
        }
        next_due_ms = next_due_ms.min(visitor.due_ms);
        if visitor.first != before {
            rows::put(edit.draft, key, &visitor);
        }
    }
    Ok(next_due_ms)
}

/// Takes away the oldest receipt of a guest who has one.
fn remove_first_of(edit: &mut Edit<'_, '_>, guest: AccountId, visitor: &mut rows::Visitor) -> Step<()> {
    let key = keys::guest_turn(edit.id, OF_GUEST, guest, visitor.first);
    let turn: rows::Turn = rows::must_get(edit.draft, &key, "turn")?;
    edit.draft.remove(key);
    edit.draft.remove(keys::receipt(edit.id, turn.op_id));
    visitor.first += 1;
    if visitor.first < visitor.next {
        let next = keys::guest_turn(edit.id, OF_GUEST, guest, visitor.first);
        let next: rows::Turn = rows::must_get(edit.draft, &next, "turn")?;
        visitor.due_ms = next.expires_ms;
    }
    Ok(())
}

struct Removed {
    count: usize,
    /// No receipt of the class expires before.
    next_due_ms: u64,
}

/// Takes away the oldest receipts of a class that expire until `until_ms`, at most `max`. Numbers rise with the machine's time, which
/// never falls: the first one that stays ends the search.
fn remove_oldest(edit: &mut Edit<'_, '_>, class: Class, max: usize, until_ms: u64) -> Step<Removed> {
    let mut gone: Vec<(Vec<u8>, OpId)> = Vec::new();
    let mut next_due_ms = u64::MAX;
    let range = keys::turns(edit.id, class as u8);
    edit.draft.scan(&range.from, &range.to, &mut |key, value| {
        let turn: rows::Turn = rows::read(value, "turn")?;
        if turn.expires_ms > until_ms || gone.len() == max {
            next_due_ms = turn.expires_ms;
            return Ok(Flow::Stop);
        }
        gone.push((key.to_vec(), turn.op_id));
        Ok(Flow::More)
    })?;
    for (turn, op_id) in &gone {
        edit.draft.remove(turn.clone());
        edit.draft.remove(keys::receipt(edit.id, *op_id));
    }
    if class == Class::Interactive {
        let left = edit.row.interactive_receipts.checked_sub(gone.len() as u32);
        edit.row.interactive_receipts =
            left.ok_or_else(|| Fault::Broken("more interactive receipts than were counted".into()))?;
    }
    Ok(Removed {
        count: gone.len(),
        next_due_ms,
    })
}
