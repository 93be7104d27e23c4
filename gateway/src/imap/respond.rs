//! Answers: how they are written, and how an error of the store is told.
//!
//! A string goes out quoted when it is short printable ASCII, as a literal else: a mail's own bytes are never changed on the way. (A NUL in
//! a mail goes out as it is, though RFC 3501 `CHAR8` excludes it: changing the mail would be worse.)

use std::fmt;
use std::io::Write as _;

use malle_client::{Error, Flags, UidRange};
use malle_proto::limits;

use super::connection::Gone;
use super::name;
use super::parse::{is_astring_char, is_atom_char};

/// Longest string that goes out quoted.
const QUOTED_MAX_BYTES: usize = 1000;
/// Longest text of a status answer.
const TEXT_MAX_CHARS: usize = 200;

/// Bytes on their way out.
#[derive(Debug, Default)]
pub(super) struct Output {
    bytes: Vec<u8>,
    /// Mailbox names go out in UTF-8 (RFC 6855 3, RFC 9051 5.1).
    pub(super) utf8: bool,
}

impl Output {
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// What was written so far, which is then gone from here.
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn put(&mut self, text: fmt::Arguments) {
        self.bytes.write_fmt(text).expect("a Vec takes every byte");
    }

    /// A string: quoted, or as a literal.
    pub(super) fn string(&mut self, bytes: &[u8]) {
        let quotable = bytes.len() <= QUOTED_MAX_BYTES && bytes.iter().all(|byte| (b' '..=b'~').contains(byte));
        if !quotable {
            self.literal_head(bytes.len());
            self.raw(bytes);
            return;
        }
        self.quoted(bytes);
    }

    fn quoted(&mut self, bytes: &[u8]) {
        self.bytes.push(b'"');
        for &byte in bytes {
            if matches!(byte, b'"' | b'\\') {
                self.bytes.push(b'\\');
            }
            self.bytes.push(byte);
        }
        self.bytes.push(b'"');
    }

    /// The announcement of a literal whose bytes the caller sends.
    pub(super) fn literal_head(&mut self, length: usize) {
        self.put(format_args!("{{{length}}}\r\n"));
    }

    pub(super) fn nstring(&mut self, bytes: Option<&[u8]>) {
        match bytes {
            Some(bytes) => self.string(bytes),
            None => self.raw(b"NIL"),
        }
    }

    /// A bare word where it can be one, else a string.
    pub(super) fn astring(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() && bytes.iter().all(|&byte| is_astring_char(byte)) {
            self.raw(bytes);
        } else {
            self.string(bytes);
        }
    }

    /// A mailbox name in its wire form. NIL as a name must not look like no name.
    pub(super) fn mailbox(&mut self, name: &str) {
        if self.utf8 && !name.is_ascii() && name.len() <= QUOTED_MAX_BYTES && !name.chars().any(char::is_control) {
            return self.quoted(name.as_bytes());
        }
        let wire = if self.utf8 { name.to_owned() } else { name::encode(name) };
        let bare = !wire.is_empty() && wire.bytes().all(is_atom_char) && !wire.eq_ignore_ascii_case("NIL");
        if bare {
            self.raw(wire.as_bytes())
        } else {
            self.string(wire.as_bytes())
        }
    }

    /// `(\Seen keyword)`.
    pub(super) fn flags(&mut self, flags: &Flags) {
        let system = SYSTEM_FLAGS
            .iter()
            .filter(|(bit, _)| flags.system & bit != 0)
            .map(|(_, name)| *name);
        // The store's keywords are atoms, but what stands here must be one whatever the store holds.
        let keywords = flags
            .keywords
            .iter()
            .map(String::as_str)
            .filter(|keyword| is_keyword(keyword));
        self.words(system.chain(keywords));
    }

    /// `(a b c)`.
    pub(super) fn words<'a>(&mut self, words: impl Iterator<Item = &'a str>) {
        self.raw(b"(");
        for (index, word) in words.enumerate() {
            if index > 0 {
                self.raw(b" ");
            }
            self.raw(word.as_bytes());
        }
        self.raw(b")");
    }

    /// A line that belongs to no command.
    pub(super) fn untagged(&mut self, text: fmt::Arguments) {
        self.put(format_args!("* {text}\r\n"));
    }

    /// The answer that ends a command; untagged where no tag could be read.
    pub(super) fn answer(&mut self, tag: Option<&str>, answer: &Answer) {
        let tag = tag.unwrap_or("*");
        self.put(format_args!("{tag} {}", answer.status.word()));
        if let Some(code) = &answer.code {
            self.put(format_args!(" [{code}]"));
        }
        self.put(format_args!(" {}\r\n", printable(&answer.text)));
    }
}

/// Bits and names of RFC 9051 2.3.2.
pub(super) const SYSTEM_FLAGS: [(u8, &str); 5] = [
    (Flags::ANSWERED, "\\Answered"),
    (Flags::FLAGGED, "\\Flagged"),
    (Flags::DELETED, "\\Deleted"),
    (Flags::SEEN, "\\Seen"),
    (Flags::DRAFT, "\\Draft"),
];

/// May this stand in a list of flags?
pub(super) fn is_keyword(keyword: &str) -> bool {
    !keyword.is_empty() && keyword.bytes().all(is_atom_char)
}

/// What may stand in a line of text: printable ASCII, not too much of it.
fn printable(text: &str) -> String {
    let clean = text
        .chars()
        .map(|character| if matches!(character, ' '..='~') { character } else { '?' });
    let line: String = clean.take(TEXT_MAX_CHARS).collect();
    // The grammar wants one character at least, and no bracket where a response code would stand.
    if line.is_empty() || line.starts_with('[') {
        format!("-{line}")
    } else {
        line
    }
}

/// OK, NO or BAD.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Ok,
    No,
    Bad,
}

impl Status {
    fn word(self) -> &'static str {
        match self {
            Status::Ok => "OK",
            Status::No => "NO",
            Status::Bad => "BAD",
        }
    }
}

/// The answer that ends a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: Status,
    /// Without its brackets.
    pub(super) code: Option<String>,
    pub(super) text: String,
}

impl Answer {
    pub(super) fn ok(text: impl Into<String>) -> Answer {
        Answer {
            status: Status::Ok,
            code: None,
            text: text.into(),
        }
    }

    pub(super) fn no(code: &str, text: impl Into<String>) -> Answer {
        Answer {
            status: Status::No,
            code: Some(code.to_owned()),
            text: text.into(),
        }
    }

    pub(super) fn bad(text: impl Into<String>) -> Answer {
        Answer {
            status: Status::Bad,
            code: None,
            text: text.into(),
        }
    }

    pub(super) fn with_code(mut self, code: impl Into<String>) -> Answer {
        self.code = Some(code.into());
        self
    }
}

/// Why a command was not done.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The protocol's own refusal.
    #[error("{}", .0.text)]
    Refused(Answer),
    /// The store's answer.
    #[error(transparent)]
    Store(#[from] Error),
    /// There is nobody to answer.
    #[error(transparent)]
    Gone(#[from] Gone),
    /// The session cannot go on: `* BYE`.
    #[error("{0}")]
    Bye(&'static str),
}

impl Failure {
    pub(super) fn no(code: &str, text: &str) -> Failure {
        Failure::Refused(Answer::no(code, text))
    }

    pub(super) fn bad(text: &str) -> Failure {
        Failure::Refused(Answer::bad(text))
    }
}

/// How a store's error is told (response codes of RFC 5530 and RFC 7889).
pub(super) fn store_failure(error: &Error) -> Answer {
    match error {
        Error::Unavailable(_) | Error::Busy(_) | Error::AccountNotReady => {
            Answer::no("UNAVAILABLE", "The mail store does not answer now, try again later")
        }
        // Not OVERQUOTA: the account has room, and deleting mail of one's own helps nothing at once.
        Error::DiskFull(_) => Answer::no(
            "UNAVAILABLE",
            "The mail store has no room for new mail now, try again later",
        ),
        Error::NotFound(_) => Answer::no("NONEXISTENT", "There is no such mailbox"),
        Error::Exists(_) => Answer::no("ALREADYEXISTS", "There is one already"),
        Error::OverQuota { limit_bytes } => Answer::no("OVERQUOTA", format!("Over the quota of {limit_bytes} bytes")),
        Error::TooLarge { limit_bytes } => Answer::no("TOOBIG", format!("Larger than {limit_bytes} bytes")),
        Error::Denied(_) => Answer::no("NOPERM", "Permission denied"),
        Error::Invalid(reason) => Answer::no("CANNOT", reason.clone()),
        Error::Limit(reason) => Answer::no("LIMIT", reason.clone()),
        Error::TokenExpired => Answer::no("EXPIRED", "The login has expired, log in again"),
        Error::BadCredentials => Answer::no("AUTHENTICATIONFAILED", "Wrong login name or password"),
        Error::Suspended => Answer::no("CONTACTADMIN", "The account is suspended"),
        Error::Corrupt(_) => Answer::no("CORRUPTION", "The stored data is damaged and being repaired"),
        // New variants of the client crate are its defects until they are told apart here.
        _ => Answer::no("SERVERBUG", "The server made a mistake; it is in its log"),
    }
}

/// Rising UIDs or numbers as `1:3,7`.
pub(super) fn number_set(numbers: impl IntoIterator<Item = u32>) -> String {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(number) => *last = number,
            _ => runs.push((number, number)),
        }
    }
    let one = |(first, last)| {
        if first == last {
            format!("{first}")
        } else {
            format!("{first}:{last}")
        }
    };
    runs.into_iter().map(one).collect::<Vec<_>>().join(",")
}

/// Rising ranges of UIDs as `1:3,7`.
pub(super) fn uid_set(ranges: &[UidRange]) -> String {
    let one = |range: &UidRange| match (range.first, range.last) {
        (first, last) if first == last => format!("{first}"),
        (first, last) => format!("{first}:{last}"),
    };
    ranges.iter().map(one).collect::<Vec<_>>().join(",")
}

/// The largest message, as CAPABILITY and STATUS tell it (RFC 7889).
pub(super) const APPEND_LIMIT_BYTES: usize = limits::MESSAGE_MAX_BYTES;

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Output)) -> String {
        let mut output = Output::default();
        write(&mut output);
        String::from_utf8(output.take()).unwrap()
    }

    #[test]
    fn strings_are_quoted_where_they_can_be() {
        assert_eq!(written(|out| out.string(b"plain \"q\" \\")), r#""plain \"q\" \\""#);
        assert_eq!(written(|out| out.string("é".as_bytes())), "{2}\r\né");
        assert_eq!(written(|out| out.string(b"two\r\nlines")), "{10}\r\ntwo\r\nlines");
        assert_eq!(written(|out| out.string(b"")), "\"\"");
        assert_eq!(written(|out| out.nstring(None)), "NIL");
        assert_eq!(written(|out| out.mailbox("NIL")), "\"NIL\"");
        assert_eq!(written(|out| out.mailbox("Envoyés")), "Envoy&AOk-s");
        assert_eq!(written(|out| out.mailbox("two words")), "\"two words\"");
    }

    #[test]
    fn no_text_of_an_error_breaks_out_of_its_line() {
        let answer = Answer::no("CANNOT", "[x] bad\r\n* BYE é");
        assert_eq!(
            written(|out| out.answer(Some("a"), &answer)),
            "a NO [CANNOT] -[x] bad??* BYE ?\r\n"
        );
        assert_eq!(written(|out| out.answer(None, &Answer::bad(""))), "* BAD -\r\n");
    }

    #[test]
    fn numbers_that_follow_each_other_become_ranges() {
        assert_eq!(number_set([1, 2, 3, 7, 9, 10]), "1:3,7,9:10");
        assert_eq!(number_set([u32::MAX]), "4294967295");
        assert_eq!(number_set([]), "");
    }

    #[test]
    fn only_flags_that_the_grammar_knows_go_out() {
        let flags = Flags {
            system: Flags::SEEN | Flags::DRAFT,
            keywords: vec!["$Ok".into(), "not ok".into()],
        };
        assert_eq!(written(|out| out.flags(&flags)), "(\\Seen \\Draft $Ok)");
    }
}
