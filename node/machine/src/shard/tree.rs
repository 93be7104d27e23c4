//! Finding one's way in the tree of places. Nothing here writes.

use std::collections::BTreeMap;

use malle_proto::{AccountId, MailboxId, limits};

use super::{keys, rows};
use crate::view::{Fault, Flow, View};

/// A place with its id.
pub(super) struct Found {
    pub(super) id: MailboxId,
    pub(super) row: rows::Place,
}

/// The place with this part below `parent`.
pub(super) fn below(
    view: &dyn View,
    account: AccountId,
    parent: MailboxId,
    part: &str,
) -> Result<Option<Found>, Fault> {
    let child: Option<rows::Child> = rows::get(view, &keys::child(account, parent, part), "child")?;
    let Some(rows::Child { place: id }) = child else {
        return Ok(None);
    };
    let row = rows::must_get(view, &keys::place(account, id), "place")?;
    Ok(Some(Found { id, row }))
}

/// The place with this full name.
pub(super) fn find(view: &dyn View, account: AccountId, parts: &[&str]) -> Result<Option<Found>, Fault> {
    let mut found: Option<Found> = None;
    for part in parts {
        let parent = found.as_ref().map_or(keys::ROOT, |place| place.id);
        found = below(view, account, parent, part)?;
        if found.is_none() {
            break;
        }
    }
    Ok(found)
}

/// Whether anything is below a place.
pub(super) fn has_children(view: &dyn View, account: AccountId, place: MailboxId) -> Result<bool, Fault> {
    let range = keys::children(account, place);
    let mut any = false;
    view.scan(&range.from, &range.to, &mut |_, _| {
        any = true;
        Ok(Flow::Stop)
    })?;
    Ok(any)
}

/// How many parts, and how many bytes with their slashes, the longest names below a place add to its own.
pub(super) fn extent(view: &dyn View, account: AccountId, place: MailboxId) -> Result<(usize, usize), Fault> {
    let (mut depth, mut bytes) = (0, 0);
    let mut open = vec![(place, 0, 0)];
    while let Some((place, place_depth, place_bytes)) = open.pop() {
        let range = keys::children(account, place);
        let part_at = range.from.len();
        view.scan(&range.from, &range.to, &mut |key, value| {
            let child: rows::Child = rows::read(value, "child")?;
            let below = (child.place, place_depth + 1, place_bytes + 1 + key.len() - part_at);
            depth = depth.max(below.1);
            bytes = bytes.max(below.2);
            open.push(below);
            Ok(Flow::More)
        })?;
        if depth > limits::MAILBOX_DEPTH_MAX {
            return Err(too_deep());
        }
    }
    Ok((depth, bytes))
}

/// The full name of a place.
pub(super) fn name(view: &dyn View, account: AccountId, place: &rows::Place) -> Result<String, Fault> {
    let mut parts = vec![place.part.clone()];
    let mut parent = place.parent;
    while parent != keys::ROOT {
        let above: rows::Place = rows::must_get(view, &keys::place(account, parent), "place")?;
        parts.push(above.part);
        parent = above.parent;
        if parts.len() > limits::MAILBOX_DEPTH_MAX {
            return Err(too_deep());
        }
    }
    parts.reverse();
    Ok(parts.join("/"))
}

/// Every place of an account by its full name.
pub(super) fn all(view: &dyn View, account: AccountId) -> Result<BTreeMap<String, Found>, Fault> {
    let range = keys::of_kind(account, keys::kind::PLACE);
    let mut places: BTreeMap<MailboxId, rows::Place> = BTreeMap::new();
    view.scan(&range.from, &range.to, &mut |key, value| {
        let id = keys::id_of(key).map(MailboxId).ok_or_else(rows::bad_key)?;
        places.insert(id, rows::read(value, "place")?);
        Ok(Flow::More)
    })?;
    let mut named = BTreeMap::new();
    for (id, place) in &places {
        let mut parts = vec![place.part.as_str()];
        let mut parent = place.parent;
        while parent != keys::ROOT {
            let above = places.get(&parent).ok_or_else(|| rows::missing("place"))?;
            parts.push(&above.part);
            parent = above.parent;
            if parts.len() > limits::MAILBOX_DEPTH_MAX {
                return Err(too_deep());
            }
        }
        parts.reverse();
        let found = Found {
            id: *id,
            row: place.clone(),
        };
        named.insert(parts.join("/"), found);
    }
    Ok(named)
}

fn too_deep() -> Fault {
    Fault::Broken("the tree of places is deeper than any name may be".into())
}
