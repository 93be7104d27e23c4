//! Header fields by name, and their text without folding (RFC 5322 2.2).

/// A field that a summary looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    Date,
    Subject,
    From,
    Sender,
    ReplyTo,
    To,
    Cc,
    Bcc,
    InReplyTo,
    MessageId,
    References,
    ContentType,
    ContentTransferEncoding,
    ContentId,
    ContentDescription,
    ContentDisposition,
    ContentMd5,
    ContentLanguage,
    ContentLocation,
}

const NAMES: [(Name, &[u8]); 19] = [
    (Name::Date, b"date"),
    (Name::Subject, b"subject"),
    (Name::From, b"from"),
    (Name::Sender, b"sender"),
    (Name::ReplyTo, b"reply-to"),
    (Name::To, b"to"),
    (Name::Cc, b"cc"),
    (Name::Bcc, b"bcc"),
    (Name::InReplyTo, b"in-reply-to"),
    (Name::MessageId, b"message-id"),
    (Name::References, b"references"),
    (Name::ContentType, b"content-type"),
    (Name::ContentTransferEncoding, b"content-transfer-encoding"),
    (Name::ContentId, b"content-id"),
    (Name::ContentDescription, b"content-description"),
    (Name::ContentDisposition, b"content-disposition"),
    (Name::ContentMd5, b"content-md5"),
    (Name::ContentLanguage, b"content-language"),
    (Name::ContentLocation, b"content-location"),
];

impl Name {
    /// The field that a header line begins, with the offset of its value in the line; `None` for any other line.
    pub fn of_line(line: &[u8]) -> Option<(Name, usize)> {
        // The longest name that counts has 25 bytes; blanks before the colon are allowed by RFC 5322 4.5 and rare.
        let window = &line[..line.len().min(64)];
        let colon = window.iter().position(|byte| *byte == b':')?;
        let name = trim_end(&line[..colon]);
        NAMES
            .iter()
            .find(|(_, known)| known.eq_ignore_ascii_case(name))
            .map(|(found, _)| (*found, colon + 1))
    }
}

/// The fields of one header, the first of each name.
#[derive(Debug, Clone, Default)]
pub struct Fields<'m> {
    found: Vec<(Name, &'m [u8])>,
}

impl<'m> Fields<'m> {
    /// Keeps a field unless there was one of this name.
    pub fn keep(&mut self, name: Name, raw: &'m [u8]) {
        if self.raw(name).is_none() {
            self.found.push((name, raw));
        }
    }

    /// A field's value as it stands in the mail, folding included.
    pub fn raw(&self, name: Name) -> Option<&'m [u8]> {
        self.found.iter().find(|(found, _)| *found == name).map(|(_, raw)| *raw)
    }

    /// A field's text: unfolded, trimmed, without NUL, at most `max_bytes` of the value looked at.
    pub fn text(&self, name: Name, max_bytes: usize) -> Option<Vec<u8>> {
        self.raw(name).map(|raw| unfold(&raw[..raw.len().min(max_bytes)]))
    }
}

/// Takes line ends (and lone CR and NUL, which no IMAP string may hold) out, and the blanks around the text.
pub fn unfold(raw: &[u8]) -> Vec<u8> {
    let text: Vec<u8> = raw
        .iter()
        .copied()
        .filter(|byte| !matches!(byte, b'\r' | b'\n' | 0))
        .collect();
    let trimmed = trim(&text);
    if trimmed.len() == text.len() {
        text
    } else {
        trimmed.to_vec()
    }
}

/// Without blanks (space, tab) at both ends.
pub fn trim(text: &[u8]) -> &[u8] {
    let start = text.iter().position(|byte| !is_blank(*byte)).unwrap_or(text.len());
    trim_end(&text[start..])
}

/// Without blanks at the end.
pub fn trim_end(text: &[u8]) -> &[u8] {
    let end = text
        .iter()
        .rposition(|byte| !is_blank(*byte))
        .map_or(0, |last| last + 1);
    &text[..end]
}

/// Space or tab: the white space of RFC 5322.
pub fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_any_case_and_with_blanks_before_the_colon() {
        assert_eq!(Name::of_line(b"SUBJECT: x"), Some((Name::Subject, 8)));
        assert_eq!(Name::of_line(b"Subject \t: x"), Some((Name::Subject, 10)));
        assert_eq!(Name::of_line(b"Subject x: y"), None);
        assert_eq!(
            Name::of_line(b"From alice@example.org Mon Nov 23 12:00:00"),
            None,
            "an mbox line is no field"
        );
        assert_eq!(Name::of_line(b": y"), None);
        assert_eq!(Name::of_line(b"no colon"), None);
    }

    #[test]
    fn unfolding_takes_only_line_ends() {
        assert_eq!(unfold(b" one\r\n two\r\n\tthree \r\n"), b"one two\tthree");
        assert_eq!(unfold(b"a\n b\0c\rd"), b"a bcd");
        assert_eq!(unfold(b" \r\n \r\n"), b"");
        assert_eq!(unfold("\u{e9}t\u{e9}".as_bytes()), "\u{e9}t\u{e9}".as_bytes());
    }
}
