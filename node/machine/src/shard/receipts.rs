//! What was done under an op id: the same answer again instead of the same effect again (decision 6).
//!
//! Only effects leave receipts. A receipt that is past its time still answers until a later command of the account takes it away:
//! remembering longer than promised harms nobody, and it means that an op id never has two turns.

use malle_proto::{OpId, limits};

use super::apply::Step;
use super::edit::Edit;
use super::{Outcome, keys, rows};
use crate::view::{Fault, Flow, View};

/// How long a receipt is kept. The numbers are in the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// `limits::DELIVERY_RECEIPT_KEPT_MS`.
    Delivery = 1,
    /// `limits::INTERACTIVE_RECEIPT_KEPT_MS`, and at most `limits::INTERACTIVE_RECEIPTS_PER_ACCOUNT_MAX` of them.
    Interactive = 2,
}

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
    let turn = rows::Turn {
        op_id,
        expires_ms: edit.now_ms.saturating_add(kept_ms),
    };
    let receipt = rows::Receipt {
        outcome: outcome.clone(),
    };
    edit.row.receipts_due_ms = edit.row.receipts_due_ms.min(turn.expires_ms);
    let number = edit.row.receipts_written;
    edit.row.receipts_written += 1;
    rows::put_new(edit.draft, keys::turn(edit.id, class as u8, number), &turn);
    rows::put(edit.draft, keys::receipt(edit.id, op_id), &receipt);
    if class == Class::Interactive {
        edit.row.interactive_receipts += 1;
        if edit.row.interactive_receipts as usize > limits::INTERACTIVE_RECEIPTS_PER_ACCOUNT_MAX {
            remove_oldest(edit, class, 1, u64::MAX)?;
        }
    }
    Ok(())
}

/// Takes away at most `max` receipts whose time is over.
pub(super) fn expire(edit: &mut Edit<'_, '_>, max: usize) -> Step<()> {
    let now_ms = edit.now_ms;
    if now_ms < edit.row.receipts_due_ms {
        return Ok(());
    }
    let deliveries = remove_oldest(edit, Class::Delivery, max, now_ms)?;
    let interactive = remove_oldest(edit, Class::Interactive, max - deliveries.count, now_ms)?;
    edit.row.receipts_due_ms = deliveries.next_due_ms.min(interactive.next_due_ms);
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
