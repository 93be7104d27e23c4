//! What the rows say of bodies: which are named, which wait, which are released. For whoever keeps the bytes.

use malle_proto::BodyHash;

use crate::shard::{keys, rows};
use crate::view::{Fault, Flow, View};

/// How a body stands with the shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyStanding {
    /// Messages name it.
    Named,
    /// No message names it, since this machine time; a command may name it again without another put.
    Waiting {
        /// Milliseconds since 1970.
        since_ms: u64,
    },
    /// Collection released it at this machine time: whoever wants to name it puts it again.
    Released {
        /// Milliseconds since 1970.
        since_ms: u64,
    },
    /// No row: it was put and no command named it, or its release is forgotten.
    Unknown,
}

impl BodyStanding {
    fn of(body: &rows::Body) -> BodyStanding {
        let since_ms = body.idle_since_ms;
        match (body.references, body.released_epoch) {
            (1.., _) => BodyStanding::Named,
            (0, 0) => BodyStanding::Waiting { since_ms },
            (0, _) => BodyStanding::Released { since_ms },
        }
    }
}

/// How this body stands.
///
/// # Errors
/// A [`Fault`].
pub fn body_standing(view: &dyn View, hash: BodyHash) -> Result<BodyStanding, Fault> {
    let body: Option<rows::Body> = rows::get(view, &keys::body(hash), "body")?;
    Ok(body.as_ref().map_or(BodyStanding::Unknown, BodyStanding::of))
}

/// Whether the bytes of this body must be kept: a message names it, or it waits for collection and may be named again without another
/// put. A released body is not named.
///
/// # Errors
/// A [`Fault`].
pub fn body_is_named(view: &dyn View, hash: BodyHash) -> Result<bool, Fault> {
    let standing = body_standing(view, hash)?;
    Ok(matches!(standing, BodyStanding::Named | BodyStanding::Waiting { .. }))
}

/// Visits every body whose bytes must be kept, with its number of references (0: waits for collection) and, then, since when, in
/// milliseconds of the machine's time. Released bodies are not among them.
///
/// # Errors
/// A [`Fault`] of the view or of the visitor.
pub fn bodies(view: &dyn View, visit: &mut dyn FnMut(BodyHash, u64, u64) -> Result<(), Fault>) -> Result<(), Fault> {
    let range = keys::bodies();
    view.scan(&range.from, &range.to, &mut |key, value| {
        let hash = keys::hash_of(key).ok_or_else(rows::bad_key)?;
        let body: rows::Body = rows::read(value, "body")?;
        if body.released_epoch == 0 {
            visit(hash, body.references, body.idle_since_ms)?;
        }
        Ok(Flow::More)
    })
}

/// Up to `most` bodies behind `after`, in order, that messages name: a page of [`bodies`] for whoever must not hold the view long. `most` counts
/// rows, so that a page ends even where messages name nothing; the second part is where the next page begins, `None` at the end.
///
/// # Errors
/// A [`Fault`].
pub fn bodies_behind(
    view: &dyn View,
    after: Option<BodyHash>,
    most: usize,
) -> Result<(Vec<BodyHash>, Option<BodyHash>), Fault> {
    let (page, next) = page(view, after, most, |standing| standing == BodyStanding::Named)?;
    Ok((page.into_iter().map(|(hash, _)| hash).collect(), next))
}

/// A page, like [`bodies_behind`], of the bodies that no message names: those that wait and those that are released.
///
/// # Errors
/// A [`Fault`].
pub fn idle_bodies_behind(view: &dyn View, after: Option<BodyHash>, most: usize) -> Result<BodyPage, Fault> {
    page(view, after, most, |standing| standing != BodyStanding::Named)
}

/// Bodies with their standings, and where the next page begins.
pub type BodyPage = (Vec<(BodyHash, BodyStanding)>, Option<BodyHash>);

fn page(
    view: &dyn View,
    after: Option<BodyHash>,
    most: usize,
    wanted: impl Fn(BodyStanding) -> bool,
) -> Result<BodyPage, Fault> {
    let range = keys::bodies();
    // The key that follows directly.
    let from = after.map_or(range.from, |after| [&keys::body(after)[..], &[0]].concat());
    let (mut found, mut rows_seen, mut last) = (Vec::new(), 0, None);
    view.scan(&from, &range.to, &mut |key, value| {
        let hash = keys::hash_of(key).ok_or_else(rows::bad_key)?;
        let standing = BodyStanding::of(&rows::read(value, "body")?);
        if wanted(standing) {
            found.push((hash, standing));
        }
        rows_seen += 1;
        last = Some(hash);
        Ok(if rows_seen < most { Flow::More } else { Flow::Stop })
    })?;
    Ok((found, last.filter(|_| rows_seen >= most)))
}
