//! FETCH and STORE.

use malle_client::{Flags, ModSeq, StoreMode};
use malle_proto::limits;

use super::ast::{FetchItem, FetchQuery, Partial, Section, SectionText, Shape, StoreCommand};
use super::lex::{Cursor, Refusal, ascii};
use super::set;

/// RFC 3501 6.4.5, RFC 7162 3.1.4, RFC 9394 3.2: a macro, one item or a list of items, and modifiers.
pub(super) fn query(cursor: &mut Cursor) -> Result<FetchQuery, Refusal> {
    let mut items = Vec::new();
    if cursor.peek() == Some(b'(') {
        cursor.list(|cursor| {
            let name = cursor.item_name()?;
            push(&mut items, item(cursor, &name)?);
            Ok(())
        })?;
        if items.is_empty() {
            return Err(Refusal("FETCH needs an item"));
        }
    } else {
        let name = cursor.item_name()?;
        match fetch_macro(&name) {
            Some(macro_items) => items = macro_items,
            None => items.push(item(cursor, &name)?),
        }
    }
    let mut query = FetchQuery {
        items,
        changed_since: None,
        vanished: false,
        partial: None,
    };
    if !cursor.at_end() {
        cursor.space()?;
        cursor.list(|cursor| modifier(cursor, &mut query))?;
    }
    Ok(query)
}

/// The items of a list that has begun, to its end.
pub(super) fn rest_of_items(cursor: &mut Cursor) -> Result<Vec<FetchItem>, Refusal> {
    let mut items = Vec::new();
    loop {
        let name = cursor.item_name()?;
        push(&mut items, item(cursor, &name)?);
        cursor.bounded(items.len())?;
        if cursor.eat(b')') {
            return Ok(items);
        }
        cursor.space()?;
    }
}

fn modifier(cursor: &mut Cursor, query: &mut FetchQuery) -> Result<(), Refusal> {
    match cursor.word()?.as_str() {
        "CHANGEDSINCE" => {
            cursor.space()?;
            query.changed_since = Some(ModSeq(cursor.number64()?));
        }
        "VANISHED" => query.vanished = true,
        "PARTIAL" => {
            cursor.space()?;
            query.partial = Some(set::partial_range(cursor)?);
        }
        _ => return Err(Refusal("unknown modifier of FETCH")),
    }
    Ok(())
}

fn push(items: &mut Vec<FetchItem>, item: FetchItem) {
    if !items.contains(&item) {
        items.push(item);
    }
}

fn fetch_macro(name: &str) -> Option<Vec<FetchItem>> {
    let fast = [FetchItem::Flags, FetchItem::InternalDate, FetchItem::Size];
    let mut items = fast.to_vec();
    match name {
        "FAST" => {}
        "ALL" => items.push(FetchItem::Envelope),
        "FULL" => items.extend([FetchItem::Envelope, FetchItem::Body]),
        _ => return None,
    }
    Some(items)
}

fn item(cursor: &mut Cursor, name: &str) -> Result<FetchItem, Refusal> {
    let whole = |text, peek, shape| {
        let section = Section { part: Vec::new(), text };
        FetchItem::Section {
            section,
            peek,
            partial: None,
            shape,
        }
    };
    Ok(match name {
        "FLAGS" => FetchItem::Flags,
        "UID" => FetchItem::Uid,
        "INTERNALDATE" => FetchItem::InternalDate,
        "RFC822.SIZE" => FetchItem::Size,
        "ENVELOPE" => FetchItem::Envelope,
        "BODYSTRUCTURE" => FetchItem::BodyStructure,
        "MODSEQ" => FetchItem::ModSeq,
        "EMAILID" => FetchItem::EmailId,
        "THREADID" => FetchItem::ThreadId,
        "SAVEDATE" => FetchItem::SaveDate,
        "PREVIEW" => {
            // Every preview was made at delivery: a lazy one is no other.
            cursor.eat_text(b" (LAZY)");
            FetchItem::Preview
        }
        "RFC822" => whole(SectionText::All, false, Shape::Rfc822),
        "RFC822.HEADER" => whole(SectionText::Header, true, Shape::Rfc822Header),
        "RFC822.TEXT" => whole(SectionText::Text, false, Shape::Rfc822Text),
        "BODY" if cursor.peek() != Some(b'[') => FetchItem::Body,
        "BODY" => section_item(cursor, false)?,
        "BODY.PEEK" => section_item(cursor, true)?,
        "BINARY" => binary_item(cursor, false)?,
        "BINARY.PEEK" => binary_item(cursor, true)?,
        "BINARY.SIZE" => FetchItem::BinarySize(binary_part(cursor)?),
        _ => return Err(Refusal("unknown item of FETCH")),
    })
}

fn section_item(cursor: &mut Cursor, peek: bool) -> Result<FetchItem, Refusal> {
    cursor.expect(b'[', "expected a section in brackets")?;
    let section = section(cursor)?;
    cursor.expect(b']', "expected a closing bracket")?;
    Ok(FetchItem::Section {
        section,
        peek,
        partial: partial(cursor)?,
        shape: Shape::Body,
    })
}

/// `["<" offset "." length ">"]`.
fn partial(cursor: &mut Cursor) -> Result<Option<Partial>, Refusal> {
    if !cursor.eat(b'<') {
        return Ok(None);
    }
    let offset = cursor.number()?;
    cursor.expect(b'.', "expected a partial range such as <0.100>")?;
    let length = cursor.nonzero()?;
    cursor.expect(b'>', "expected a partial range such as <0.100>")?;
    Ok(Some(Partial { offset, length }))
}

fn binary_item(cursor: &mut Cursor, peek: bool) -> Result<FetchItem, Refusal> {
    Ok(FetchItem::Binary {
        part: binary_part(cursor)?,
        peek,
        partial: partial(cursor)?,
    })
}

/// RFC 9051 `section-binary`: a part's number, or nothing for the whole message.
fn binary_part(cursor: &mut Cursor) -> Result<Vec<u32>, Refusal> {
    cursor.expect(b'[', "expected a part's number in brackets")?;
    let (part, ends_with_dot) = part_number(cursor)?;
    if ends_with_dot {
        return Err(Refusal("expected a part's number"));
    }
    cursor.expect(b']', "expected a closing bracket")?;
    Ok(part)
}

/// `1.2.3`, perhaps with a dot behind it.
fn part_number(cursor: &mut Cursor) -> Result<(Vec<u32>, bool), Refusal> {
    let mut part = Vec::new();
    while cursor.peek().is_some_and(|byte| byte.is_ascii_digit()) {
        part.push(cursor.nonzero()?);
        if part.len() > limits::IMAP_NESTING_MAX {
            return Err(Refusal("the part number is too deep"));
        }
        if !cursor.eat(b'.') {
            return Ok((part, false));
        }
    }
    let ends_with_dot = !part.is_empty();
    Ok((part, ends_with_dot))
}

fn section(cursor: &mut Cursor) -> Result<Section, Refusal> {
    let (part, text_follows) = part_number(cursor)?;
    if !text_follows && (!part.is_empty() || cursor.peek() == Some(b']')) {
        return Ok(Section {
            part,
            text: SectionText::All,
        });
    }
    let text = match cursor.item_name()?.as_str() {
        "HEADER" => SectionText::Header,
        "TEXT" => SectionText::Text,
        "MIME" if !part.is_empty() => SectionText::Mime,
        "HEADER.FIELDS" => SectionText::HeaderFields {
            not: false,
            names: field_names(cursor)?,
        },
        "HEADER.FIELDS.NOT" => SectionText::HeaderFields {
            not: true,
            names: field_names(cursor)?,
        },
        _ => return Err(Refusal("unknown section")),
    };
    Ok(Section { part, text })
}

fn field_names(cursor: &mut Cursor) -> Result<Vec<Vec<u8>>, Refusal> {
    cursor.space()?;
    let mut names = Vec::new();
    cursor.list(|cursor| {
        names.push(cursor.astring()?.into_owned());
        Ok(())
    })?;
    if names.is_empty() {
        Err(Refusal("HEADER.FIELDS needs a name"))
    } else {
        Ok(names)
    }
}

/// RFC 3501 6.4.6, RFC 7162 3.1.3.
pub(super) fn store(cursor: &mut Cursor) -> Result<StoreCommand, Refusal> {
    let mut unchanged_since = None;
    if cursor.peek() == Some(b'(') {
        cursor.list(|cursor| {
            if cursor.word()? != "UNCHANGEDSINCE" {
                return Err(Refusal("unknown modifier of STORE"));
            }
            cursor.space()?;
            unchanged_since = Some(ModSeq(cursor.number64()?));
            Ok(())
        })?;
        cursor.space()?;
    }
    let mode = match cursor.peek() {
        Some(b'+') => StoreMode::Add,
        Some(b'-') => StoreMode::Remove,
        _ => StoreMode::Replace,
    };
    if mode != StoreMode::Replace {
        cursor
            .expect(b'+', "")
            .or_else(|_| cursor.expect(b'-', "expected FLAGS"))?;
    }
    let silent = match cursor.item_name()?.as_str() {
        "FLAGS" => false,
        "FLAGS.SILENT" => true,
        _ => return Err(Refusal("expected FLAGS or FLAGS.SILENT")),
    };
    cursor.space()?;
    let flags = if cursor.peek() == Some(b'(') {
        flag_list(cursor)?
    } else {
        bare_flags(cursor)?
    };
    Ok(StoreCommand {
        unchanged_since,
        mode,
        silent,
        flags,
    })
}

/// `"(" [flag *(SP flag)] ")"`.
pub(super) fn flag_list(cursor: &mut Cursor) -> Result<Flags, Refusal> {
    let mut flags = Flags::default();
    cursor.list(|cursor| add_flag(&mut flags, cursor.flag()?))?;
    flags.keywords.sort_unstable();
    Ok(flags)
}

fn bare_flags(cursor: &mut Cursor) -> Result<Flags, Refusal> {
    let mut flags = Flags::default();
    add_flag(&mut flags, cursor.flag()?)?;
    while cursor.eat(b' ') {
        add_flag(&mut flags, cursor.flag()?)?;
    }
    flags.keywords.sort_unstable();
    Ok(flags)
}

fn add_flag(flags: &mut Flags, name: &[u8]) -> Result<(), Refusal> {
    if let Some(bit) = system_flag(name) {
        flags.system |= bit;
        return Ok(());
    }
    if name.starts_with(b"\\") {
        return Err(Refusal("unknown system flag"));
    }
    if name.len() > limits::KEYWORD_MAX_BYTES {
        return Err(Refusal("the keyword is too long"));
    }
    let keyword = ascii(name);
    if flags.keywords.iter().any(|known| known.eq_ignore_ascii_case(&keyword)) {
        return Ok(());
    }
    if flags.keywords.len() >= limits::KEYWORDS_PER_MESSAGE_MAX {
        return Err(Refusal("too many keywords"));
    }
    flags.keywords.push(keyword);
    Ok(())
}

fn system_flag(name: &[u8]) -> Option<u8> {
    const FLAGS: [(&[u8], u8); 5] = [
        (b"\\Seen", Flags::SEEN),
        (b"\\Answered", Flags::ANSWERED),
        (b"\\Flagged", Flags::FLAGGED),
        (b"\\Deleted", Flags::DELETED),
        (b"\\Draft", Flags::DRAFT),
    ];
    FLAGS
        .iter()
        .find(|(flag, _)| flag.eq_ignore_ascii_case(name))
        .map(|&(_, bit)| bit)
}
