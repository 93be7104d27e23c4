//! Repeats: an operation that took effect leaves a receipt, and its repeat gets the first answer again (decision 6).
//!
//! Receipts stand under (account, op id); the account of an AccountCreate is drawn by whoever proposes it and differs between two
//! tries, so its receipt stands under the account of zeros. A second index in the order of leaving lets every command remove what
//! is old, whoever left it: accounts that are made and then left alone keep no receipt behind.
//!
//! A success that changed no row leaves one too: a late repeat must not undo what others did in between.

use malle_proto::{AccountId, OpId, limits};

use super::apply::{Step, Turn};
use super::rows::{self, ReceiptKind, ReceiptOrderRow, ReceiptRow};
use super::{Op, Outcome, Refusal};
use crate::format;
use crate::view::{Fault, View};

/// Under which account an AccountCreate leaves its receipt.
const NEW_ACCOUNTS: AccountId = AccountId([0; 16]);

/// Where an operation's receipt stands; `None` for those that may be repeated without one.
fn place(op: &Op) -> Option<(AccountId, OpId, ReceiptKind)> {
    match op {
        Op::AccountCreate { op_id, .. } => Some((NEW_ACCOUNTS, *op_id, ReceiptKind::AccountCreate)),
        Op::AccountSet { op_id, account, .. } => Some((*account, *op_id, ReceiptKind::AccountSet)),
        Op::AddressAdd { op_id, account, .. } => Some((*account, *op_id, ReceiptKind::AddressAdd)),
        Op::AddressRemove { op_id, account, .. } => Some((*account, *op_id, ReceiptKind::AddressRemove)),
        Op::AppPasswordAdd { op_id, account, .. } => Some((*account, *op_id, ReceiptKind::AppPasswordAdd)),
        Op::AppPasswordRemove { op_id, account, .. } => Some((*account, *op_id, ReceiptKind::AppPasswordRemove)),
        Op::Init { .. }
        | Op::NodeSet { .. }
        | Op::NodeRetire { .. }
        | Op::ShardSet { .. }
        | Op::TokenKeyAdd { .. }
        | Op::SharingAdd { .. }
        | Op::SharingRemove { .. }
        | Op::LayoutStage { .. }
        | Op::LayoutApply { .. }
        | Op::LayoutRevert
        | Op::NodeStand { .. }
        | Op::NodeSilence { .. }
        | Op::TaskStart { .. }
        | Op::TaskAdvance { .. } => None,
    }
}

/// The first answer to an operation that was done before.
pub fn find(view: &dyn View, op: &Op) -> Step<Option<Outcome>> {
    let Some((scope, op_id, kind)) = place(op) else {
        return Ok(None);
    };
    match rows::load::<ReceiptRow>(view, "receipt", &rows::receipt(scope, op_id))? {
        Some(receipt) if receipt.kind == kind => Ok(Some(Outcome::Account {
            account: receipt.account,
            repeated: true,
        })),
        Some(_) => Err(Refusal::OpIdReused(op_id).into()),
        None => Ok(None),
    }
}

/// Leaves the receipt of an operation that took effect.
pub fn leave(turn: &mut Turn<'_>, op: &Op, outcome: &Outcome) {
    let (Some((scope, op_id, kind)), Outcome::Account { account, .. }) = (place(op), outcome) else {
        return;
    };
    let receipt = ReceiptRow {
        kind,
        account: *account,
        time_ms: turn.clock.time_ms,
    };
    turn.draft.put(rows::receipt(scope, op_id), format::encode(&receipt));
    let order = ReceiptOrderRow { scope, op_id };
    let number = turn.clock.receipts_next;
    turn.draft.put(rows::receipt_order(number), format::encode(&order));
    turn.clock.receipts_next += 1;
}

/// Removes a few receipts that are too old or too many.
pub fn expire(turn: &mut Turn<'_>) -> Result<(), Fault> {
    for _ in 0..limits::RECEIPTS_EXPIRED_PER_COMMAND {
        let number = turn.clock.receipts_first;
        let kept = turn.clock.receipts_next - number;
        if kept == 0 {
            return Ok(());
        }
        let order: ReceiptOrderRow = rows::must(&turn.draft, "receipt order", &rows::receipt_order(number))?;
        let at = rows::receipt(order.scope, order.op_id);
        let receipt: ReceiptRow = rows::must(&turn.draft, "receipt", &at)?;
        let old = turn.clock.time_ms.saturating_sub(receipt.time_ms) > limits::INTERACTIVE_RECEIPT_KEPT_MS;
        if !old && kept <= limits::DIRECTORY_RECEIPTS_MAX {
            return Ok(());
        }
        turn.draft.remove(at);
        turn.draft.remove(rows::receipt_order(number));
        turn.clock.receipts_first += 1;
    }
    Ok(())
}
