//! SETACL, DELETEACL and LISTRIGHTS (RFC 4314 3 and 7).

use malle_client::{Rights, StoreMode};
use malle_proto::limits;

use super::ast::Body;
use super::lex::{Cursor, Refusal, ascii};
use super::mailbox;

/// `SP mailbox SP identifier SP mod-rights`.
pub(super) fn set(cursor: &mut Cursor) -> Result<Body, Refusal> {
    let mailbox = mailbox::name_argument(cursor)?;
    let identifier = identifier(cursor)?;
    cursor.space()?;
    let text = cursor.astring()?;
    let (mode, letters) = match text.split_first() {
        Some((b'+', letters)) => (StoreMode::Add, letters),
        Some((b'-', letters)) => (StoreMode::Remove, letters),
        _ => (StoreMode::Replace, &text[..]),
    };
    // An unknown right is BAD (RFC 4314 3.1).
    let rights = Rights::parse(&ascii(letters)).ok_or(Refusal("expected rights of lrswipkxteacd"))?;
    Ok(Body::SetAcl {
        mailbox,
        identifier,
        change: (mode, rights),
    })
}

/// `SP mailbox SP identifier`.
pub(super) fn delete(cursor: &mut Cursor) -> Result<Body, Refusal> {
    Ok(Body::SetAcl {
        mailbox: mailbox::name_argument(cursor)?,
        identifier: identifier(cursor)?,
        change: (StoreMode::Replace, Rights::NONE),
    })
}

/// `SP mailbox SP identifier`.
pub(super) fn list_rights(cursor: &mut Cursor) -> Result<Body, Refusal> {
    Ok(Body::ListRights {
        mailbox: mailbox::name_argument(cursor)?,
        identifier: identifier(cursor)?,
    })
}

fn identifier(cursor: &mut Cursor) -> Result<String, Refusal> {
    cursor.space()?;
    let identifier = cursor.astring()?;
    if identifier.len() > limits::ADDRESS_MAX_BYTES {
        return Err(Refusal("the identifier is too long"));
    }
    String::from_utf8(identifier.into_owned()).map_err(|_| Refusal("an identifier is UTF-8"))
}
