//! SORT and THREAD (RFC 5256, RFC 5957), with the return options of RFC 5267.

use super::ast::{Body, SortBy, SortKey, ThreadAlgorithm};
use super::lex::{Cursor, Refusal};
use super::search;

/// More criteria than this repeat themselves.
const CRITERIA_MAX: usize = 20;

/// `[RETURN (options)] (criteria) charset keys`.
pub(super) fn sort(cursor: &mut Cursor, by_uid: bool) -> Result<Body, Refusal> {
    cursor.space()?;
    let returned = search::return_options(cursor)?;
    let mut order = Vec::new();
    cursor.list(|cursor| {
        order.push(criterion(cursor)?);
        if order.len() > CRITERIA_MAX {
            Err(Refusal("too many criteria of SORT"))
        } else {
            Ok(())
        }
    })?;
    if order.is_empty() {
        return Err(Refusal("SORT needs a criterion"));
    }
    cursor.space()?;
    let query = search::with_charset(cursor, returned)?;
    Ok(Body::Sort { by_uid, order, query })
}

fn criterion(cursor: &mut Cursor) -> Result<SortKey, Refusal> {
    let mut name = cursor.word()?;
    let reverse = name == "REVERSE";
    if reverse {
        cursor.space()?;
        name = cursor.word()?;
    }
    let by = match name.as_str() {
        "ARRIVAL" => SortBy::Arrival,
        "CC" => SortBy::Cc,
        "DATE" => SortBy::Date,
        "FROM" => SortBy::From,
        "SIZE" => SortBy::Size,
        "SUBJECT" => SortBy::Subject,
        "TO" => SortBy::To,
        "DISPLAYFROM" => SortBy::DisplayFrom,
        "DISPLAYTO" => SortBy::DisplayTo,
        _ => return Err(Refusal("unknown criterion of SORT")),
    };
    Ok(SortKey { reverse, by })
}

/// `algorithm charset keys`.
pub(super) fn thread(cursor: &mut Cursor, by_uid: bool) -> Result<Body, Refusal> {
    cursor.space()?;
    let algorithm = match cursor.word()?.as_str() {
        "ORDEREDSUBJECT" => ThreadAlgorithm::OrderedSubject,
        "REFERENCES" => ThreadAlgorithm::References,
        _ => return Err(Refusal("unknown algorithm of THREAD")),
    };
    cursor.space()?;
    let query = search::with_charset(cursor, None)?;
    Ok(Body::Thread {
        by_uid,
        algorithm,
        query,
    })
}
