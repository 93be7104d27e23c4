//! Which bodies are named, how often, and which may go (decision 4).
//!
//! ```text
//!   (no row) --name--> referenced --last reference ends--> waiting --release--> released --forget--> (no row)
//!                          ^                                  |                  |    | ^
//!                          +------------- name ---------------+-- name, put since+    free
//! ```
//!
//! The race that matters: a put finds its body on the volumes and transfers nothing, a collection releases the body, then the command
//! that names it comes. So a put carries the epoch in which it began, a release raises the epoch and stamps its bodies with it, and
//! whoever names a body with a put from before its release is told to put it again. An unknown body can be released too (its put may
//! have ended without a command): the stamp then keeps late commands off it. Once the stamp itself is forgotten, the shard remembers
//! the highest forgotten one and is as strict with every unknown body.
//!
//! A release lets go of no bytes. A replica that wants to free its copies of bodies released long enough ago asks again (`free`), which
//! gives them another epoch: the command was proposed after the replica marked its copies, so whoever was told before that mark that a
//! body is there has an older put, and can never name it. What is put after the mark, the replica itself keeps.

use malle_proto::{BodyHash, limits};

use super::apply::Step;
use super::{BodyPut, Outcome, Refusal, keys, rows};
use crate::view::{Draft, Fault};

/// A new row names a body that was put.
pub(super) fn name(draft: &mut Draft<'_>, put: &BodyPut) -> Step<()> {
    let shard = rows::shard(draft)?;
    let known: Option<rows::Body> = rows::get(draft, &keys::body(put.hash), "body")?;
    let not_before = match &known {
        None => shard.forgotten_epoch,
        Some(body) => body.released_epoch,
    };
    // An epoch that has not begun is a proposer's mistake, and no proof that the body was put after the last release.
    if put.epoch < not_before || put.epoch > shard.body_epoch {
        return Err(Refusal::StaleBody.into());
    }
    let body = match known {
        Some(body) if body.released_epoch == 0 => {
            if body.size != put.size {
                return Err(Refusal::NotPossible("a body has another length than before".into()).into());
            }
            rows::Body {
                references: body.references + 1,
                idle_since_ms: 0,
                ..body
            }
        }
        _ => rows::Body {
            size: put.size,
            references: 1,
            ..rows::Body::default()
        },
    };
    rows::put(draft, keys::body(put.hash), &body);
    if !draft.writes.bodies_named.contains(&put.hash) {
        draft.writes.bodies_named.push(put.hash);
    }
    Ok(())
}

/// One more row names a body that a row names already.
pub(super) fn name_again(draft: &mut Draft<'_>, hash: BodyHash) -> Result<(), Fault> {
    let mut body: rows::Body = rows::must_get(draft, &keys::body(hash), "body")?;
    body.references += 1;
    rows::put(draft, keys::body(hash), &body);
    Ok(())
}

/// A row that named a body is gone. Without references the body waits for collection, and may be named again meanwhile.
pub(super) fn unname(draft: &mut Draft<'_>, hash: BodyHash, now_ms: u64) -> Result<(), Fault> {
    let mut body: rows::Body = rows::must_get(draft, &keys::body(hash), "body")?;
    body.references = body
        .references
        .checked_sub(1)
        .ok_or_else(|| Fault::Broken(format!("body {hash} has fewer references than rows that name it")))?;
    if body.references == 0 {
        body.idle_since_ms = now_ms;
    }
    rows::put(draft, keys::body(hash), &body);
    Ok(())
}

/// Releases the bodies among these that no row names. Repeating it releases them again, at a higher epoch: a put that came between is
/// told to put again, which costs a transfer and loses nothing.
pub(super) fn release(draft: &mut Draft<'_>, hashes: &[BodyHash], now_ms: u64) -> Step<Outcome> {
    let outcome = stamp(draft, hashes, |body| {
        // Asked for again, it is released since the first time all the same.
        let since = if body.released_epoch > 0 {
            body.idle_since_ms
        } else {
            now_ms
        };
        (body.references == 0).then_some(since)
    })?;
    if let Outcome::BodiesReleased { released, .. } = &outcome {
        draft.writes.bodies_released.extend(released);
    }
    Ok(outcome)
}

/// Gives the bodies among these that have been released since `released_by_ms` or longer the next epoch: whoever marked his copies of
/// them before this was proposed may free those that no put has touched since.
pub(super) fn free(draft: &mut Draft<'_>, hashes: &[BodyHash], released_by_ms: u64) -> Step<Outcome> {
    stamp(draft, hashes, |body| {
        let due = body.released_epoch > 0 && body.idle_since_ms <= released_by_ms;
        due.then_some(body.idle_since_ms)
    })
}

/// Stamps those of the bodies that `since` gives a time for with a new epoch.
fn stamp(draft: &mut Draft<'_>, hashes: &[BodyHash], since: impl Fn(&rows::Body) -> Option<u64>) -> Step<Outcome> {
    require_bounded(hashes)?;
    let mut shard = rows::shard(draft)?;
    let epoch = shard.body_epoch + 1;
    let mut released: Vec<BodyHash> = Vec::new();
    for &hash in hashes {
        let body: rows::Body = rows::get(draft, &keys::body(hash), "body")?.unwrap_or_default();
        let Some(idle_since_ms) = since(&body).filter(|_| body.released_epoch < epoch) else {
            continue;
        };
        let body = rows::Body {
            released_epoch: epoch,
            idle_since_ms,
            ..body
        };
        rows::put(draft, keys::body(hash), &body);
        released.push(hash);
    }
    if !released.is_empty() {
        shard.body_epoch = epoch;
        rows::put(draft, keys::SHARD.to_vec(), &shard);
    }
    Ok(Outcome::BodiesReleased {
        epoch: shard.body_epoch,
        released,
    })
}

/// Forgets released bodies. Those that are named again, or were never released, stay.
pub(super) fn forget(draft: &mut Draft<'_>, hashes: &[BodyHash]) -> Step<Outcome> {
    require_bounded(hashes)?;
    let mut shard = rows::shard(draft)?;
    for &hash in hashes {
        let body: Option<rows::Body> = rows::get(draft, &keys::body(hash), "body")?;
        let Some(body) = body.filter(|body| body.released_epoch > 0) else {
            continue;
        };
        shard.forgotten_epoch = shard.forgotten_epoch.max(body.released_epoch);
        draft.remove(keys::body(hash));
    }
    rows::put(draft, keys::SHARD.to_vec(), &shard);
    Ok(Outcome::Done)
}

fn require_bounded(hashes: &[BodyHash]) -> Result<(), Refusal> {
    match hashes.len() > limits::MESSAGES_PER_COMMAND_MAX {
        true => Err(Refusal::Limit(format!(
            "{} bodies in a command",
            limits::MESSAGES_PER_COMMAND_MAX
        ))),
        false => Ok(()),
    }
}
