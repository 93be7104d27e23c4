//! Which thread a message belongs to: that of the first of its Message-IDs that the account knows.
//!
//! A row per Message-ID counts the messages that keep it, so that it goes with the last of them. A message keeps the rows of its own id,
//! of its first and of its last reference: siblings whose parent never came share one of these.

use malle_proto::ThreadId;

use super::apply::Step;
use super::edit::Edit;
use super::{keys, rows};
use crate::view::Fault;

/// The thread of a message with these ids (own first), and the ids among them whose rows it keeps.
pub(super) fn join(edit: &mut Edit<'_, '_>, ids: &[[u8; 16]], fresh: ThreadId) -> Step<(ThreadId, Vec<[u8; 16]>)> {
    let mut thread_id = None;
    for &id in ids {
        let known: Option<rows::Thread> = rows::get(edit.draft, &keys::thread(edit.id, id), "thread")?;
        if let Some(known) = known {
            thread_id = Some(known.thread_id);
            break;
        }
    }
    let thread_id = thread_id.unwrap_or(fresh);
    let mut kept: Vec<[u8; 16]> = Vec::new();
    for id in [ids.first(), ids.get(1), ids.last()].into_iter().flatten() {
        if !kept.contains(id) {
            kept.push(*id);
        }
    }
    for &id in &kept {
        keep(edit, id, thread_id)?;
    }
    Ok((thread_id, kept))
}

/// One more message keeps the row of this id; where there is none it is made for `thread_id`.
pub(super) fn keep(edit: &mut Edit<'_, '_>, id: [u8; 16], thread_id: ThreadId) -> Result<(), Fault> {
    let key = keys::thread(edit.id, id);
    let row = match rows::get::<rows::Thread>(edit.draft, &key, "thread")? {
        Some(row) => rows::Thread {
            messages: row.messages + 1,
            ..row
        },
        None => rows::Thread { thread_id, messages: 1 },
    };
    rows::put(edit.draft, key, &row);
    Ok(())
}

/// A message that kept the row of this id is gone.
pub(super) fn leave(edit: &mut Edit<'_, '_>, id: [u8; 16]) -> Result<(), Fault> {
    let key = keys::thread(edit.id, id);
    let row: rows::Thread = rows::must_get(edit.draft, &key, "thread")?;
    match row.messages {
        0 | 1 => edit.draft.remove(key),
        messages => rows::put(
            edit.draft,
            key,
            &rows::Thread {
                messages: messages - 1,
                ..row
            },
        ),
    }
    Ok(())
}
