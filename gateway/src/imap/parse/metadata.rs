//! GETMETADATA and SETMETADATA (RFC 5464 5).

use bytes::Bytes;
use malle_proto::limits;

use super::ast::{Body, Depth, GetMetadata};
use super::lex::{Cursor, Refusal, ascii};
use super::mailbox;

/// `[(options)] mailbox [(options)] entries`: the grammar has the options before the mailbox, the examples of the RFC behind it.
pub(super) fn get(cursor: &mut Cursor) -> Result<Body, Refusal> {
    let mut get = GetMetadata {
        mailbox: String::new(),
        entries: Vec::new(),
        max_bytes: None,
        depth: Depth::Zero,
    };
    cursor.space()?;
    if cursor.peek() == Some(b'(') {
        options(cursor, &mut get)?;
        cursor.space()?;
    }
    get.mailbox = mailbox::mailbox_name(cursor)?;
    cursor.space()?;
    if cursor.has_text(b"(MAXSIZE ") || cursor.has_text(b"(DEPTH ") {
        options(cursor, &mut get)?;
        cursor.space()?;
    }
    if cursor.peek() == Some(b'(') {
        cursor.list(|cursor| {
            get.entries.push(entry(cursor)?);
            Ok(())
        })?;
    } else {
        get.entries.push(entry(cursor)?);
    }
    if get.entries.is_empty() || get.entries.len() > limits::ANNOTATIONS_PER_MAILBOX_MAX {
        return Err(Refusal("expected the names of 1 to 100 entries"));
    }
    Ok(Body::GetMetadata(get))
}

fn options(cursor: &mut Cursor, get: &mut GetMetadata) -> Result<(), Refusal> {
    cursor.list(|cursor| {
        match cursor.word()?.as_str() {
            "MAXSIZE" => {
                cursor.space()?;
                get.max_bytes = Some(cursor.number()?);
            }
            "DEPTH" => {
                cursor.space()?;
                get.depth = match cursor.word()?.as_str() {
                    "0" => Depth::Zero,
                    "1" => Depth::One,
                    "INFINITY" => Depth::Infinity,
                    _ => return Err(Refusal("DEPTH is 0, 1 or infinity")),
                };
            }
            _ => return Err(Refusal("unknown option of GETMETADATA")),
        }
        Ok(())
    })
}

/// `mailbox (entry value ...)`.
pub(super) fn set(cursor: &mut Cursor) -> Result<Body, Refusal> {
    let mailbox = mailbox::name_argument(cursor)?;
    cursor.space()?;
    let mut entries = Vec::new();
    cursor.list(|cursor| {
        let entry = entry(cursor)?;
        if !entry.starts_with("/private/") && !entry.starts_with("/shared/") {
            return Err(Refusal("an entry is below /private or /shared"));
        }
        cursor.space()?;
        let value = cursor.nstring()?.map(|value| Bytes::copy_from_slice(&value));
        entries.push((entry, value));
        Ok(())
    })?;
    if entries.is_empty() {
        return Err(Refusal("expected an entry and its value"));
    }
    Ok(Body::SetMetadata { mailbox, entries })
}

/// RFC 5464 3.2: a path without wildcards and empty parts; letter case does not count.
fn entry(cursor: &mut Cursor) -> Result<String, Refusal> {
    let entry = cursor.astring()?;
    let printable = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'*' | b'%');
    if entry.len() > limits::ANNOTATION_ENTRY_MAX_BYTES {
        return Err(Refusal("the name of the entry is too long"));
    }
    let is_path = entry.strip_prefix(b"/").is_some_and(|rest| {
        let mut parts = rest.split(|&byte| byte == b'/');
        parts.all(|part| !part.is_empty())
    });
    if !is_path || !entry.iter().all(printable) {
        return Err(Refusal("the name of an entry is a path such as /private/comment"));
    }
    Ok(ascii(&entry).to_ascii_lowercase())
}
