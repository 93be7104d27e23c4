//! Where the bytes of a section are: `BODY[1.2.HEADER]` as a range of the message, by the part offsets of its summary
//! (RFC 3501 6.4.5). Nothing here reads a mail but [`header_fields`], which picks lines of a header.

use std::ops::Range;

use malle_client::{Part, Summary};

use super::parse::{Partial, Section, SectionText};
use super::structure::is_message;

/// The range of the section's bytes in a message of `size_bytes`; `None` when the message has no such part. For HEADER.FIELDS it is the range of
/// the whole header.
pub(super) fn span(summary: &Summary, size_bytes: u64, section: &Section) -> Option<Range<u64>> {
    let header_end = u64::from(summary.header_bytes).min(size_bytes);
    let span = if section.part.is_empty() {
        match section.text {
            SectionText::All => 0..size_bytes,
            SectionText::Text => header_end..size_bytes,
            SectionText::Header | SectionText::HeaderFields { .. } => 0..header_end,
            SectionText::Mime => return None,
        }
    } else {
        part_span(summary.root.as_ref()?, section)?
    };
    // Offsets beyond the message would be damage of the summary; they must not become a wild read.
    let end = span.end.min(size_bytes);
    Some(span.start.min(end)..end)
}

fn part_span(root: &Part, section: &Section) -> Option<Range<u64>> {
    let part = part_with_number(root, &section.part)?;
    let inner = || {
        part.message
            .as_ref()
            .filter(|_| is_message(part))
            .and_then(|inner| inner.root.as_ref())
    };
    let (start, end) = match section.text {
        SectionText::All => (part.body_start, part.body_end),
        SectionText::Mime => (part.header_start, part.body_start),
        SectionText::Text => (inner()?.body_start, part.body_end),
        SectionText::Header | SectionText::HeaderFields { .. } => {
            let inner = inner()?;
            (inner.header_start, inner.body_start)
        }
    };
    Some(u64::from(start)..u64::from(end))
}

/// The part with this number. A message that is not multipart has one part, its body, with number 1.
pub(super) fn part_with_number<'a>(root: &'a Part, numbers: &[u32]) -> Option<&'a Part> {
    let (&first, rest) = numbers.split_first()?;
    let index = usize::try_from(first).ok()?.checked_sub(1)?;
    let mut part = child_of_message(root, index)?;
    for &number in rest {
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        part = if part.r#type == "MULTIPART" {
            part.parts.get(index)?
        } else if is_message(part) {
            child_of_message(part.message.as_ref()?.root.as_ref()?, index)?
        } else {
            return None;
        };
    }
    Some(part)
}

fn child_of_message(root: &Part, index: usize) -> Option<&Part> {
    if root.r#type == "MULTIPART" {
        root.parts.get(index)
    } else {
        Some(root).filter(|_| index == 0)
    }
}

/// `<offset.length>` of a range; an offset behind its end gives the empty range.
pub(super) fn cut(span: Range<u64>, partial: Option<Partial>) -> Range<u64> {
    let Some(partial) = partial else { return span };
    let start = (span.start + u64::from(partial.offset)).min(span.end);
    start..(start + u64::from(partial.length)).min(span.end)
}

/// The fields of a header whose names are among `names` (or are not, with `not`), with their continuation lines and the empty line that ends every header
/// (RFC 3501 6.4.5). Broken lines without a colon belong to no field.
pub(super) fn header_fields(header: &[u8], names: &[Vec<u8>], not: bool) -> Vec<u8> {
    let mut picked = Vec::new();
    for field in fields(header) {
        let Some(colon) = field.iter().position(|&byte| byte == b':') else {
            continue;
        };
        let name = field[..colon].trim_ascii_end();
        if names.iter().any(|wanted| wanted.eq_ignore_ascii_case(name)) != not {
            picked.extend_from_slice(field);
        }
    }
    picked.extend_from_slice(b"\r\n");
    picked
}

/// The fields of a header, each with its continuation lines, up to the empty line.
pub(super) fn fields(header: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = header;
    std::iter::from_fn(move || {
        let mut length = 0;
        for line in rest.split_inclusive(|&byte| byte == b'\n') {
            let continues = matches!(line.first(), Some(b' ' | b'\t'));
            let empty = line.trim_ascii().is_empty();
            if length > 0 && (empty || !continues) {
                break;
            }
            if length == 0 && empty {
                return None;
            }
            length += line.len();
        }
        let (field, after) = rest.split_at(length);
        rest = after;
        (!field.is_empty()).then_some(field)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<Vec<u8>> {
        list.iter().map(|name| name.as_bytes().to_vec()).collect()
    }

    #[test]
    fn header_fields_come_with_their_continuation_lines_and_an_empty_line() {
        let header = b"From: a\r\nSubject: one\r\n two\r\n\tthree\r\nTo: b\r\nbroken\r\nsubject : again\r\n\r\n";
        let picked = header_fields(header, &names(&["SUBJECT"]), false);
        assert_eq!(picked, b"Subject: one\r\n two\r\n\tthree\r\nsubject : again\r\n\r\n");
        let rest = header_fields(header, &names(&["subject", "to"]), true);
        assert_eq!(rest, b"From: a\r\n\r\n");
    }

    #[test]
    fn a_header_without_an_end_gives_what_it_has() {
        assert_eq!(header_fields(b"To: b", &names(&["to"]), false), b"To: b\r\n");
        assert_eq!(header_fields(b"", &names(&["to"]), false), b"\r\n");
        assert_eq!(header_fields(b"\r\nTo: body\r\n", &names(&["to"]), false), b"\r\n");
    }

    #[test]
    fn a_partial_range_never_leaves_its_section() {
        let cut = |offset, length| cut(10..20, Some(Partial { offset, length }));
        assert_eq!(cut(0, 5), 10..15);
        assert_eq!(cut(5, 100), 15..20);
        assert_eq!(cut(100, 5), 20..20);
        assert_eq!(cut(u32::MAX, u32::MAX), 20..20);
    }

    #[test]
    fn damaged_offsets_are_cut_to_the_message() {
        let root = Part {
            r#type: "TEXT".into(),
            body_start: 50,
            body_end: 4_000_000_000,
            ..Part::default()
        };
        let summary = Summary {
            root: Some(root),
            header_bytes: 4_000_000_000,
            ..Summary::default()
        };
        let section = |part: &[u32], text| Section {
            part: part.to_vec(),
            text,
        };
        assert_eq!(span(&summary, 100, &section(&[1], SectionText::All)), Some(50..100));
        assert_eq!(span(&summary, 20, &section(&[1], SectionText::All)), Some(20..20));
        assert_eq!(span(&summary, 100, &section(&[], SectionText::Header)), Some(0..100));
        assert_eq!(span(&summary, 100, &section(&[1, 1], SectionText::All)), None);
        assert_eq!(span(&summary, 100, &section(&[2], SectionText::All)), None);
    }
}
