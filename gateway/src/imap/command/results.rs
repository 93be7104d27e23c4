//! What SEARCH and SORT found, told in the old way or as ESEARCH (RFC 4731, RFC 5267, RFC 9394), and kept as `$` (RFC 5182).

use malle_client::{ModSeq, UidRange};

use super::super::parse::{PartialRange, SearchReturn};
use super::super::respond::{Output, number_set};
use super::super::session::Session;
use super::super::view::{View, push};

/// A message that was found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hit {
    /// In the view.
    pub(super) index: usize,
    /// 0 where nobody asked for it.
    pub(super) modseq: ModSeq,
}

/// What was found, in the order in which it is told.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) hits: Vec<Hit>,
    /// The keys asked for MODSEQ, so the answer tells the highest one (RFC 7162 3.1.5).
    pub(super) asks_modseq: bool,
}

/// Writes the answer; `word` is what begins the old form. Keeps `$` where SAVE asks for it.
pub(super) fn tell(
    session: &mut Session,
    tag: &str,
    by_uid: bool,
    word: &str,
    returned: Option<&[SearchReturn]>,
    found: &Found,
) {
    let Some(selected) = session.selected.as_mut() else {
        return;
    };
    let out = &mut session.connection.output;
    let Some(returned) = returned else {
        out.put(format_args!("* {word}"));
        for &number in &numbers(&selected.view, by_uid, &found.hits) {
            out.put(format_args!(" {number}"));
        }
        if found.asks_modseq && !found.hits.is_empty() {
            out.put(format_args!(" (MODSEQ {})", highest(&found.hits)));
        }
        return out.raw(b"\r\n");
    };
    if returned.contains(&SearchReturn::Save) {
        let saved = uids(&selected.view, &chosen(returned, &found.hits));
        selected.view.save(saved);
    }
    // SAVE alone wants no answer (RFC 5182 2.1).
    if returned != [SearchReturn::Save] {
        out.raw(b"* ESEARCH (TAG ");
        out.string(tag.as_bytes());
        out.raw(if by_uid { b") UID".as_slice() } else { b")" });
        for option in returned {
            tell_option(out, &selected.view, by_uid, option, &found.hits);
        }
        if found.asks_modseq && !found.hits.is_empty() {
            let modseq = highest(&chosen(returned, &found.hits));
            out.put(format_args!(" MODSEQ {modseq}"));
        }
        out.raw(b"\r\n");
    }
}

fn tell_option(out: &mut Output, view: &View, by_uid: bool, option: &SearchReturn, hits: &[Hit]) {
    let one = |hit: &Hit| number(view, by_uid, hit);
    match option {
        SearchReturn::Min => {
            if let Some(first) = hits.first().map(one) {
                out.put(format_args!(" MIN {first}"));
            }
        }
        SearchReturn::Max => {
            if let Some(last) = hits.last().map(one) {
                out.put(format_args!(" MAX {last}"));
            }
        }
        SearchReturn::All if hits.is_empty() => {}
        SearchReturn::All => out.put(format_args!(" ALL {}", number_set(numbers(view, by_uid, hits)))),
        SearchReturn::Count => out.put(format_args!(" COUNT {}", hits.len())),
        SearchReturn::Save => {}
        SearchReturn::Partial(range) => {
            let PartialRange { from_end, first, last } = *range;
            let sign = if from_end { "-" } else { "" };
            out.put(format_args!(" PARTIAL ({sign}{first}:{sign}{last} "));
            let part = &hits[range.span(hits.len())];
            if part.is_empty() {
                out.raw(b"NIL)");
            } else {
                out.put(format_args!("{})", number_set(numbers(view, by_uid, part))));
            }
        }
    }
}

/// The hits that the options speak of (RFC 5182 2.1, RFC 9394 3.1): all of them when all or their number are asked for, else only those told.
fn chosen(returned: &[SearchReturn], hits: &[Hit]) -> Vec<Hit> {
    let mut chosen = Vec::new();
    let mut only_some = false;
    for option in returned {
        match option {
            SearchReturn::All | SearchReturn::Count => return hits.to_vec(),
            SearchReturn::Min => chosen.extend(hits.first()),
            SearchReturn::Max => chosen.extend(hits.last()),
            SearchReturn::Partial(range) => chosen.extend_from_slice(&hits[range.span(hits.len())]),
            SearchReturn::Save => continue,
        }
        only_some = true;
    }
    if only_some { chosen } else { hits.to_vec() }
}

fn highest(hits: &[Hit]) -> ModSeq {
    hits.iter().map(|hit| hit.modseq).max().unwrap_or_default()
}

fn number(view: &View, by_uid: bool, hit: &Hit) -> u32 {
    if by_uid {
        view.uid(hit.index).0
    } else {
        u32::try_from(hit.index + 1).unwrap_or(u32::MAX)
    }
}

fn numbers(view: &View, by_uid: bool, hits: &[Hit]) -> Vec<u32> {
    hits.iter().map(|hit| number(view, by_uid, hit)).collect()
}

fn uids(view: &View, hits: &[Hit]) -> Vec<UidRange> {
    let mut indexes: Vec<usize> = hits.iter().map(|hit| hit.index).collect();
    indexes.sort_unstable();
    indexes.dedup();
    let mut ranges = Vec::new();
    for index in indexes {
        push(&mut ranges, view.uid(index));
    }
    ranges
}
