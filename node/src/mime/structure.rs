//! The tree of MIME parts (RFC 2045, 2046), with the offsets by which parts are cut out of the mail.

use bytes::Bytes;
use malle_proto::limits::{MIME_DEPTH_MAX, MIME_PARTS_MAX};
use malle_proto::v1::{Envelope, InnerMessage, Parameter, Part};

use super::allowance::Allowance;
use super::envelope::{envelope, text};
use super::fields::{Fields, Name, is_blank, trim};
use super::parameters::{self, Parameterised, is_token};
use super::scan::{Delimiter, Header, Scanner, Stop};

/// Longest boundary that is looked for. RFC 2046 allows 70 bytes.
const BOUNDARY_MAX_BYTES: usize = 1_000;

/// The fields of the message's header, and its root part.
pub fn structure<'m>(message: &'m [u8], allowance: &mut Allowance) -> (Fields<'m>, Part) {
    let mut walk = Walk {
        scanner: Scanner::new(message),
        message,
        parts: 1,
        allowance,
    };
    let root = walk.entity(1, false);
    (root.fields, root.part)
}

struct Walk<'m, 'a> {
    scanner: Scanner<'m>,
    message: &'m [u8],
    /// Parts so far, the root and those of inner messages included.
    parts: usize,
    allowance: &'a mut Allowance,
}

struct Entity<'m> {
    part: Part,
    fields: Fields<'m>,
    stop: Stop,
}

/// What a part's header declares its content to be.
enum Media {
    Leaf,
    Multipart { boundary: Vec<u8>, digest: bool },
    Message,
}

impl<'m> Walk<'m, '_> {
    /// Reads a header and its body. `depth` counts from 1; in a digest the default type is message/rfc822 (RFC 2046 5.1.5).
    fn entity(&mut self, depth: usize, in_digest: bool) -> Entity<'m> {
        let header = self.scanner.header();
        let (mut part, media) = self.declared(&header, depth, in_digest);
        let stop = match (header.stop, media) {
            (Some(stop), Media::Message) => {
                part.message = Some(Box::new(no_message(part.body_start)));
                stop
            }
            (Some(stop), Media::Multipart { .. }) => {
                into_text(&mut part);
                stop
            }
            (Some(stop), Media::Leaf) => stop,
            (None, Media::Leaf) => self.scanner.skip_content(),
            (None, Media::Message) => {
                self.parts += 1;
                let inner = self.entity(depth + 1, false);
                part.message = Some(Box::new(InnerMessage {
                    envelope: Some(envelope(&inner.fields, self.allowance)),
                    root: Some(Box::new(inner.part)),
                }));
                inner.stop
            }
            (None, Media::Multipart { boundary, digest }) => self.multipart(&mut part, boundary, digest, depth),
        };
        // A header keeps its last line end although a delimiter follows: then content reaches up to the delimiter itself.
        let inner_end = part
            .message
            .iter()
            .filter_map(|message| message.root.as_deref())
            .chain(part.parts.last());
        let inner_end = inner_end.map(|inner| inner.body_end).max().unwrap_or(part.body_start);
        part.body_end = offset(stop.content_end).max(inner_end);
        if part.body_end > part.body_start && has_lines(&part) {
            let to_delimiter = part.body_end > offset(stop.content_end);
            let end = if to_delimiter { stop.delimiter_line } else { stop.line };
            part.lines = offset(end.saturating_sub(header.line));
        }
        Entity {
            part,
            fields: header.fields,
            stop,
        }
    }

    /// Reads the parts of a multipart. One without any becomes a leaf.
    fn multipart(&mut self, part: &mut Part, boundary: Vec<u8>, digest: bool, depth: usize) -> Stop {
        let level = self.scanner.open(boundary);
        let mine = |stop: &Stop, end: bool| stop.delimiter == Some(Delimiter { level, closing: end });
        let mut left_over = false;
        let mut stop = self.scanner.skip_content();
        while mine(&stop, false) {
            if self.parts >= MIME_PARTS_MAX {
                left_over = true;
                stop = self.scanner.skip_content();
                continue;
            }
            self.parts += 1;
            let child = self.entity(depth + 1, digest);
            part.parts.push(child.part);
            stop = child.stop;
        }
        self.scanner.close(level);
        match part.parts.last_mut() {
            None => into_text(part),
            Some(last) if left_over => self.extend(last, stop.content_end),
            Some(_) => {}
        }
        if mine(&stop, true) {
            // The epilogue belongs to the multipart, and this boundary means nothing in it.
            stop = self.scanner.skip_content();
        }
        stop
    }

    /// Makes a part reach to `end`, over parts that are too many to be shown.
    fn extend(&self, last: &mut Part, end: usize) {
        last.body_end = offset(end).max(last.body_start);
        if has_lines(last) {
            let content = &self.message[last.body_start as usize..last.body_end as usize];
            let unfinished = usize::from(!content.is_empty() && !content.ends_with(b"\n"));
            last.lines = offset(memchr::memchr_iter(b'\n', content).count() + unfinished);
        }
    }

    /// The part that a header declares, without its content, and how to read that content.
    fn declared(&mut self, header: &Header<'m>, depth: usize, in_digest: bool) -> (Part, Media) {
        let fields = &header.fields;
        let mut part = Part {
            header_start: offset(header.start),
            body_start: offset(header.body_start),
            body_end: offset(header.body_start),
            encoding: encoding(fields),
            ..Part::default()
        };
        let content_type = fields.raw(Name::ContentType).map(parameters::parse);
        let media = self.media(&mut part, content_type, depth, in_digest);
        part.id = text(fields, Name::ContentId, self.allowance);
        part.description = text(fields, Name::ContentDescription, self.allowance);
        part.md5 = text(fields, Name::ContentMd5, self.allowance);
        part.location = text(fields, Name::ContentLocation, self.allowance);
        part.language = self.language(fields);
        if let Some(raw) = fields.raw(Name::ContentDisposition) {
            let disposition = parameters::parse(raw);
            if is_token(&disposition.head)
                && let Some(kind) = self.allowance.utf8(&disposition.head)
            {
                part.disposition = Some(kind);
                part.disposition_parameters = self.pay(disposition.parameters);
            }
        }
        (part, media)
    }

    /// Sets type, subtype and parameters.
    fn media(&mut self, part: &mut Part, content_type: Option<Parameterised>, depth: usize, in_digest: bool) -> Media {
        let declared = content_type.unwrap_or_default();
        let found = split_type(&declared.head);
        // RFC 2045 5.2, unless a careless header at least says which charset it is.
        let no_charset = found.is_none() && !in_digest && declared.parameters.is_empty();
        let (kind, subtype) = match found {
            Some((kind, subtype)) => (kind, subtype),
            None if in_digest => ("MESSAGE".to_owned(), "RFC822".to_owned()),
            None => ("TEXT".to_owned(), "PLAIN".to_owned()),
        };
        let media = match (kind.as_str(), subtype.as_str()) {
            ("MULTIPART", _) => match declared
                .get("boundary")
                .map(boundary)
                .filter(|_| depth < MIME_DEPTH_MAX)
            {
                Some(boundary) if (1..=BOUNDARY_MAX_BYTES).contains(&boundary.len()) => Media::Multipart {
                    boundary: boundary.to_vec(),
                    digest: subtype == "DIGEST",
                },
                _ => {
                    into_text(part);
                    return Media::Leaf;
                }
            },
            ("MESSAGE", "RFC822" | "GLOBAL") => {
                let readable = matches!(part.encoding.as_str(), "7BIT" | "8BIT" | "BINARY");
                if !readable || depth >= MIME_DEPTH_MAX || self.parts >= MIME_PARTS_MAX {
                    (part.r#type, part.subtype) = ("APPLICATION".to_owned(), "OCTET-STREAM".to_owned());
                    part.parameters = self.pay(declared.parameters);
                    return Media::Leaf;
                }
                Media::Message
            }
            _ => Media::Leaf,
        };
        let paid = self
            .allowance
            .utf8(kind.as_bytes())
            .zip(self.allowance.utf8(subtype.as_bytes()));
        // Known types are short and few: their bytes are covered by what every part costs.
        (part.r#type, part.subtype) = match (paid, &media) {
            (Some(paid), _) => paid,
            (None, Media::Leaf) => ("APPLICATION".to_owned(), "OCTET-STREAM".to_owned()),
            (None, Media::Message) => (kind, subtype),
            (None, Media::Multipart { .. }) => (kind, "MIXED".to_owned()),
        };
        part.parameters = if no_charset {
            us_ascii()
        } else {
            self.pay(declared.parameters)
        };
        media
    }

    fn pay(&mut self, parameters: Vec<(Vec<u8>, Vec<u8>)>) -> Vec<Parameter> {
        let mut paid = Vec::with_capacity(parameters.len());
        for (name, value) in parameters {
            let Some((name, value)) = self.allowance.text(name).zip(self.allowance.text(value)) else {
                break;
            };
            paid.push(Parameter { name, value });
        }
        paid
    }

    /// The tags of Content-Language (RFC 3282).
    fn language(&mut self, fields: &Fields<'_>) -> Vec<String> {
        let Some(raw) = fields.raw(Name::ContentLanguage) else {
            return Vec::new();
        };
        parameters::parse(raw)
            .head
            .split(|byte| *byte == b',')
            .filter(|tag| is_token(tag))
            .map_while(|tag| self.allowance.utf8(tag))
            .collect()
    }
}

/// Whether lines are counted: RFC 9051 wants them for texts and messages.
fn has_lines(part: &Part) -> bool {
    matches!(part.r#type.as_str(), "TEXT" | "MESSAGE")
}

/// RFC 2045 5.2: what a part without a readable type is.
fn us_ascii() -> Vec<Parameter> {
    vec![Parameter {
        name: Bytes::from_static(b"charset"),
        value: Bytes::from_static(b"us-ascii"),
    }]
}

/// A multipart that has no parts is shown as the text that it is.
fn into_text(part: &mut Part) {
    (part.r#type, part.subtype) = ("TEXT".to_owned(), "PLAIN".to_owned());
    part.parameters = us_ascii();
    // RFC 2045 6.4 forbids every other encoding on a multipart: whoever wrote one did not apply it to this text.
    if !matches!(part.encoding.as_str(), "7BIT" | "8BIT" | "BINARY") {
        part.encoding = "7BIT".to_owned();
    }
}

/// The message inside a message/rfc822 that ended before it began.
fn no_message(at: u32) -> InnerMessage {
    let mut root = Part {
        header_start: at,
        body_start: at,
        body_end: at,
        encoding: "7BIT".to_owned(),
        ..Part::default()
    };
    into_text(&mut root);
    InnerMessage {
        envelope: Some(Envelope::default()),
        root: Some(Box::new(root)),
    }
}

/// Type and subtype in upper case; `None` when it is not two tokens.
fn split_type(head: &[u8]) -> Option<(String, String)> {
    let slash = head.iter().position(|byte| *byte == b'/')?;
    let upper = |text: &[u8]| is_token(text).then(|| String::from_utf8_lossy(text).to_ascii_uppercase());
    Some((upper(&head[..slash])?, upper(&head[slash + 1..])?))
}

/// RFC 2046 5.1.1: a boundary does not end with a blank.
fn boundary(value: &[u8]) -> &[u8] {
    super::fields::trim_end(value)
}

/// Content-Transfer-Encoding in upper case, 7BIT when there is none that could be one.
fn encoding(fields: &Fields<'_>) -> String {
    let head = fields
        .raw(Name::ContentTransferEncoding)
        .map(|raw| parameters::parse(raw).head)
        .unwrap_or_default();
    let first = trim(&head).split(|byte| is_blank(*byte)).next().unwrap_or_default();
    if is_token(first) && first.len() <= 32 {
        String::from_utf8_lossy(first).to_ascii_uppercase()
    } else {
        "7BIT".to_owned()
    }
}

/// An offset or count in a mail as the wire has it. A mail is at most `limits::MESSAGE_MAX_BYTES` long.
fn offset(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
