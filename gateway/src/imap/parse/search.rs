//! SEARCH (RFC 3501 6.4.4 and the keys of RFC 5032, RFC 7162, RFC 8474, RFC 8514), with the return options of RFC 4731, RFC 5182 and RFC 9394.

use malle_client::{Flags, ModSeq};

use super::super::date;
use super::ast::{DayRange, SearchKey, SearchQuery, SearchReturn, Target};
use super::lex::{Cursor, Refusal, ascii};
use super::set;

/// `[RETURN (options)] [CHARSET astring] key *(SP key)`.
pub(super) fn query(cursor: &mut Cursor) -> Result<SearchQuery, Refusal> {
    cursor.space()?;
    let returned = return_options(cursor)?;
    let mut charset = None;
    if cursor.eat_word("CHARSET") {
        cursor.space()?;
        charset = Some(charset_name(cursor)?);
        cursor.space()?;
    }
    keys(cursor, returned, charset)
}

/// `charset key *(SP key)`, as SORT and THREAD have it.
pub(super) fn with_charset(cursor: &mut Cursor, returned: Option<Vec<SearchReturn>>) -> Result<SearchQuery, Refusal> {
    let charset = Some(charset_name(cursor)?);
    cursor.space()?;
    keys(cursor, returned, charset)
}

fn charset_name(cursor: &mut Cursor) -> Result<String, Refusal> {
    Ok(String::from_utf8_lossy(&cursor.astring()?).to_ascii_uppercase())
}

fn keys(
    cursor: &mut Cursor,
    returned: Option<Vec<SearchReturn>>,
    charset: Option<String>,
) -> Result<SearchQuery, Refusal> {
    let mut keys = vec![key(cursor)?];
    while !cursor.at_end() {
        cursor.space()?;
        keys.push(key(cursor)?);
        cursor.bounded(keys.len())?;
    }
    Ok(SearchQuery {
        returned,
        charset,
        keys,
    })
}

/// `[RETURN (options) SP]`. No option at all means ALL (RFC 4731 3.1).
pub(super) fn return_options(cursor: &mut Cursor) -> Result<Option<Vec<SearchReturn>>, Refusal> {
    if !cursor.eat_word("RETURN") {
        return Ok(None);
    }
    cursor.space()?;
    let mut options = Vec::new();
    cursor.list(|cursor| {
        let option = return_option(cursor)?;
        if !options.contains(&option) {
            options.push(option);
        }
        Ok(())
    })?;
    cursor.space()?;
    let partials = options
        .iter()
        .filter(|option| matches!(option, SearchReturn::Partial(_)))
        .count();
    if partials > 1 || (partials == 1 && options.contains(&SearchReturn::All)) {
        return Err(Refusal("PARTIAL comes once, and not with ALL"));
    }
    if options.is_empty() {
        options.push(SearchReturn::All);
    }
    Ok(Some(options))
}

fn return_option(cursor: &mut Cursor) -> Result<SearchReturn, Refusal> {
    Ok(match cursor.word()?.as_str() {
        "MIN" => SearchReturn::Min,
        "MAX" => SearchReturn::Max,
        "ALL" => SearchReturn::All,
        "COUNT" => SearchReturn::Count,
        "SAVE" => SearchReturn::Save,
        "PARTIAL" => {
            cursor.space()?;
            SearchReturn::Partial(set::partial_range(cursor)?)
        }
        _ => return Err(Refusal("unknown return option")),
    })
}

fn key(cursor: &mut Cursor) -> Result<SearchKey, Refusal> {
    match cursor.peek() {
        Some(b'(') => {
            let mut keys = Vec::new();
            cursor.list(|cursor| {
                keys.push(key(cursor)?);
                Ok(())
            })?;
            return if keys.is_empty() {
                Err(Refusal("empty parentheses in SEARCH"))
            } else {
                Ok(SearchKey::And(keys))
            };
        }
        Some(b'*' | b'$' | b'0'..=b'9') => {
            return Ok(SearchKey::Numbers(Target {
                by_uid: false,
                set: set::sequence_set(cursor)?,
            }));
        }
        _ => {}
    }
    let name = cursor.word()?;
    if let Some(key) = plain_key(&name) {
        return Ok(key);
    }
    cursor.expect(b' ', "unknown search key, or its argument is missing")?;
    match name.as_str() {
        "NOT" => Ok(SearchKey::Not(Box::new(cursor.nested(key)?))),
        "OR" => {
            let left = cursor.nested(key)?;
            cursor.space()?;
            let right = cursor.nested(key)?;
            Ok(SearchKey::Or(Box::new(left), Box::new(right)))
        }
        "UID" => Ok(SearchKey::Numbers(Target {
            by_uid: true,
            set: set::sequence_set(cursor)?,
        })),
        other => key_with_argument(cursor, other),
    }
}

fn key_with_argument(cursor: &mut Cursor, name: &str) -> Result<SearchKey, Refusal> {
    if let Some(key) = text_key(cursor, name)? {
        return Ok(key);
    }
    if let Some(key) = number_key(cursor, name)? {
        return Ok(key);
    }
    date_key(cursor, name)
}

fn negated(key: SearchKey) -> SearchKey {
    SearchKey::Not(Box::new(key))
}

/// Keys without an argument.
fn plain_key(name: &str) -> Option<SearchKey> {
    Some(match name {
        "ALL" | "OLD" => SearchKey::All,
        "NEW" | "RECENT" => SearchKey::Nothing,
        "SEEN" => SearchKey::Flag(Flags::SEEN),
        "ANSWERED" => SearchKey::Flag(Flags::ANSWERED),
        "FLAGGED" => SearchKey::Flag(Flags::FLAGGED),
        "DELETED" => SearchKey::Flag(Flags::DELETED),
        "DRAFT" => SearchKey::Flag(Flags::DRAFT),
        "UNSEEN" => negated(SearchKey::Flag(Flags::SEEN)),
        "UNANSWERED" => negated(SearchKey::Flag(Flags::ANSWERED)),
        "UNFLAGGED" => negated(SearchKey::Flag(Flags::FLAGGED)),
        "UNDELETED" => negated(SearchKey::Flag(Flags::DELETED)),
        "UNDRAFT" => negated(SearchKey::Flag(Flags::DRAFT)),
        "SAVEDATESUPPORTED" => SearchKey::SaveDateSupported,
        _ => return None,
    })
}

/// `None`, and nothing is consumed, when the name is not one of its own.
fn text_key(cursor: &mut Cursor, name: &str) -> Result<Option<SearchKey>, Refusal> {
    let header = |field: &str, text: Vec<u8>| SearchKey::Header {
        field: field.as_bytes().to_vec(),
        text,
    };
    Ok(Some(match name {
        "BCC" | "CC" | "FROM" | "SUBJECT" | "TO" => header(name, cursor.astring()?.into_owned()),
        "HEADER" => {
            let field = cursor.astring()?.into_owned();
            cursor.space()?;
            SearchKey::Header {
                field,
                text: cursor.astring()?.into_owned(),
            }
        }
        "BODY" => SearchKey::Body(cursor.astring()?.into_owned()),
        "TEXT" => SearchKey::Text(cursor.astring()?.into_owned()),
        "KEYWORD" => SearchKey::Keyword(ascii(cursor.atom()?)),
        "UNKEYWORD" => negated(SearchKey::Keyword(ascii(cursor.atom()?))),
        "EMAILID" => SearchKey::EmailId(cursor.astring()?.into_owned()),
        "THREADID" => SearchKey::ThreadId(cursor.astring()?.into_owned()),
        _ => return Ok(None),
    }))
}

/// As [`text_key`].
fn number_key(cursor: &mut Cursor, name: &str) -> Result<Option<SearchKey>, Refusal> {
    Ok(Some(match name {
        "LARGER" => SearchKey::Larger(cursor.number64()?),
        "SMALLER" => SearchKey::Smaller(cursor.number64()?),
        "OLDER" => SearchKey::Older(cursor.nonzero()?),
        "YOUNGER" => SearchKey::Younger(cursor.nonzero()?),
        "MODSEQ" => modseq(cursor)?,
        _ => return Ok(None),
    }))
}

/// RFC 7162 3.1.5: an entry (`"/flags/\\Seen" all`) may stand before the number. We keep one MODSEQ per message, so it selects nothing.
fn modseq(cursor: &mut Cursor) -> Result<SearchKey, Refusal> {
    if cursor.peek() == Some(b'"') {
        cursor.string()?;
        cursor.space()?;
        if !matches!(cursor.word()?.as_str(), "PRIV" | "SHARED" | "ALL") {
            return Err(Refusal("expected priv, shared or all"));
        }
        cursor.space()?;
    }
    Ok(SearchKey::ModSeq(ModSeq(cursor.number64()?)))
}

fn date_key(cursor: &mut Cursor, name: &str) -> Result<SearchKey, Refusal> {
    let (kind, comparison): (fn(DayRange) -> SearchKey, &str) = match name {
        "BEFORE" | "ON" | "SINCE" => (SearchKey::Internal, name),
        "SENTBEFORE" | "SENTON" | "SENTSINCE" => (SearchKey::Sent, &name[4..]),
        "SAVEDBEFORE" | "SAVEDON" | "SAVEDSINCE" => (SearchKey::Saved, &name[5..]),
        _ => return Err(Refusal("unknown search key")),
    };
    let text = if cursor.peek() == Some(b'"') {
        cursor.string()?.into_owned()
    } else {
        cursor.atom()?.to_vec()
    };
    let day = std::str::from_utf8(&text)
        .ok()
        .and_then(date::day_of)
        .ok_or(Refusal("expected a date such as 1-Feb-1994"))?;
    Ok(kind(match comparison {
        "BEFORE" => DayRange {
            first: None,
            end: Some(day),
        },
        "SINCE" => DayRange {
            first: Some(day),
            end: None,
        },
        _ => DayRange {
            first: Some(day),
            end: Some(day + 1),
        },
    }))
}
