//! Characters, atoms, strings and lists: the lower half of RFC 3501 9.

use std::borrow::Cow;

use malle_proto::limits;

use super::super::connection::Piece;

/// Why a command is refused: what was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal(pub(super) &'static str);

/// `ATOM-CHAR`: any printable ASCII but the specials.
pub(in super::super) fn is_atom_char(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'(' | b')' | b'{' | b'%' | b'*' | b'"' | b'\\' | b']')
}

/// `ASTRING-CHAR`: an atom's, or `]`.
pub(in super::super) fn is_astring_char(byte: u8) -> bool {
    is_atom_char(byte) || byte == b']'
}

/// `list-char`: an astring's, or a wildcard.
fn is_list_char(byte: u8) -> bool {
    is_astring_char(byte) || matches!(byte, b'%' | b'*')
}

/// A place in a frame. Everything it returns borrows from the frame.
pub(super) struct Cursor<'a> {
    pieces: &'a [Piece],
    offset: usize,
    depth: usize,
    /// Mailbox names are UTF-8 (RFC 6855), not modified UTF-7.
    pub(super) utf8: bool,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(pieces: &'a [Piece]) -> Cursor<'a> {
        Cursor {
            pieces,
            offset: 0,
            depth: 0,
            utf8: false,
        }
    }

    /// What is left of the text before the next literal.
    fn text(&self) -> &'a [u8] {
        match self.pieces.first() {
            Some(Piece::Text(text)) => &text[self.offset..],
            _ => &[],
        }
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.text().first().copied()
    }

    /// Nothing is left.
    pub(super) fn at_end(&self) -> bool {
        self.text().is_empty() && self.pieces.len() <= 1
    }

    pub(super) fn end(&self) -> Result<(), Refusal> {
        if self.at_end() {
            Ok(())
        } else {
            Err(Refusal("unexpected text at the end of the command"))
        }
    }

    pub(super) fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        if found {
            self.offset += 1;
        }
        found
    }

    pub(super) fn expect(&mut self, byte: u8, reason: &'static str) -> Result<(), Refusal> {
        if self.eat(byte) { Ok(()) } else { Err(Refusal(reason)) }
    }

    pub(super) fn space(&mut self) -> Result<(), Refusal> {
        self.expect(b' ', "expected one space and an argument")
    }

    fn while_char(&mut self, holds: impl Fn(u8) -> bool) -> &'a [u8] {
        let text = self.text();
        let length = text.iter().position(|&byte| !holds(byte)).unwrap_or(text.len());
        self.offset += length;
        &text[..length]
    }

    /// RFC 3501 `tag`: astring characters but `+`.
    pub(super) fn tag(&mut self) -> Result<String, Refusal> {
        const TAG_MAX_BYTES: usize = 256;
        let tag = self.while_char(|byte| is_astring_char(byte) && byte != b'+');
        if tag.is_empty() || tag.len() > TAG_MAX_BYTES || !matches!(self.peek(), Some(b' ') | None) {
            return Err(Refusal("expected a tag"));
        }
        Ok(ascii(tag))
    }

    pub(super) fn atom(&mut self) -> Result<&'a [u8], Refusal> {
        let atom = self.while_char(is_atom_char);
        if atom.is_empty() {
            Err(Refusal("expected an atom"))
        } else {
            Ok(atom)
        }
    }

    /// An atom that is a keyword of the protocol, in upper case.
    pub(super) fn word(&mut self) -> Result<String, Refusal> {
        self.atom().map(|atom| ascii(atom).to_ascii_uppercase())
    }

    /// A keyword made of letters, digits, dots and minus only: what may stand before a bracket or parenthesis.
    pub(super) fn item_name(&mut self) -> Result<String, Refusal> {
        let name = self.while_char(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'));
        if name.is_empty() {
            Err(Refusal("expected an item's name"))
        } else {
            Ok(ascii(name).to_ascii_uppercase())
        }
    }

    /// Consumes this keyword if it is the whole next atom.
    pub(super) fn eat_word(&mut self, word: &str) -> bool {
        let before = self.offset;
        let found = self.while_char(is_atom_char).eq_ignore_ascii_case(word.as_bytes());
        if !found {
            self.offset = before;
        }
        found
    }

    /// Does exactly this text stand here, in any letter case?
    pub(super) fn has_text(&self, wanted: &[u8]) -> bool {
        let head = self.text().get(..wanted.len());
        head.is_some_and(|head| head.eq_ignore_ascii_case(wanted))
    }

    /// Consumes exactly this text, in any letter case, if it stands here.
    pub(super) fn eat_text(&mut self, wanted: &[u8]) -> bool {
        let found = self.has_text(wanted);
        if found {
            self.offset += wanted.len();
        }
        found
    }

    /// A system flag's name with its backslash, or a keyword.
    pub(super) fn flag(&mut self) -> Result<&'a [u8], Refusal> {
        let start = self.text();
        let backslash = usize::from(self.eat(b'\\'));
        let name = self.atom().map_err(|_| Refusal("expected a flag"))?;
        Ok(&start[..backslash + name.len()])
    }

    pub(super) fn number(&mut self) -> Result<u32, Refusal> {
        let number = self.number64()?;
        u32::try_from(number).map_err(|_| Refusal("the number is beyond 32 bits"))
    }

    pub(super) fn nonzero(&mut self) -> Result<u32, Refusal> {
        match self.number()? {
            0 => Err(Refusal("zero is not a message number")),
            number => Ok(number),
        }
    }

    /// Up to 63 bits (RFC 7162, RFC 9051 `number64`).
    pub(super) fn number64(&mut self) -> Result<u64, Refusal> {
        let digits = self.while_char(|byte| byte.is_ascii_digit());
        if digits.is_empty() {
            return Err(Refusal("expected a number"));
        }
        let number = ascii(digits)
            .parse::<u64>()
            .map_err(|_| Refusal("the number is beyond 63 bits"))?;
        if number >> 63 == 0 {
            Ok(number)
        } else {
            Err(Refusal("the number is beyond 63 bits"))
        }
    }

    /// A quoted string or a literal.
    pub(super) fn string(&mut self) -> Result<Cow<'a, [u8]>, Refusal> {
        match self.peek() {
            Some(b'"') => self.quoted(),
            Some(_) => Err(Refusal("expected a quoted string or a literal")),
            None => self.literal().map(|literal| Cow::Borrowed(literal.as_ref())),
        }
    }

    /// The literal that stands here.
    pub(super) fn literal(&mut self) -> Result<&'a bytes::Bytes, Refusal> {
        match self.pieces {
            [_, Piece::Literal(literal), rest @ ..] if self.text().is_empty() => {
                self.pieces = rest;
                self.offset = 0;
                Ok(literal)
            }
            _ => Err(Refusal("expected a string")),
        }
    }

    /// Takes UTF-8 too: IMAP4rev2 allows it, and clients send it in passwords.
    fn quoted(&mut self) -> Result<Cow<'a, [u8]>, Refusal> {
        let text = &self.text()[1..];
        let end = unescaped_quote(text).ok_or(Refusal("the quoted string does not end"))?;
        let inside = &text[..end];
        self.offset += end + 2;
        if inside.iter().any(|byte| matches!(byte, b'\0' | b'\r' | b'\n')) {
            return Err(Refusal("a quoted string holds no NUL, CR or LF"));
        }
        if !inside.contains(&b'\\') {
            return Ok(Cow::Borrowed(inside));
        }
        let mut plain = Vec::with_capacity(inside.len());
        let mut bytes = inside.iter();
        while let Some(&byte) = bytes.next() {
            match (byte, bytes.as_slice().first()) {
                (b'\\', Some(b'"' | b'\\')) => plain.extend(bytes.next()),
                (b'\\', _) => return Err(Refusal("only a quote or a backslash may follow a backslash")),
                _ => plain.push(byte),
            }
        }
        Ok(Cow::Owned(plain))
    }

    pub(super) fn nstring(&mut self) -> Result<Option<Cow<'a, [u8]>>, Refusal> {
        if self.eat_word("NIL") {
            Ok(None)
        } else {
            self.string().map(Some)
        }
    }

    pub(super) fn astring(&mut self) -> Result<Cow<'a, [u8]>, Refusal> {
        self.string_of(is_astring_char)
    }

    /// `list-mailbox`: a name with wildcards.
    pub(super) fn list_mailbox(&mut self) -> Result<Cow<'a, [u8]>, Refusal> {
        self.string_of(is_list_char)
    }

    fn string_of(&mut self, holds: fn(u8) -> bool) -> Result<Cow<'a, [u8]>, Refusal> {
        match self.peek() {
            Some(byte) if holds(byte) => Ok(Cow::Borrowed(self.while_char(holds))),
            _ => self.string(),
        }
    }

    /// The rest of the line, which no literal may follow.
    pub(super) fn rest_of_text(&mut self) -> Result<&'a [u8], Refusal> {
        if self.pieces.len() > 1 {
            return Err(Refusal("no literal may stand here"));
        }
        Ok(self.while_char(|_| true))
    }

    /// Refuses more elements than any command needs.
    pub(super) fn bounded(&self, elements: usize) -> Result<(), Refusal> {
        if elements > limits::IMAP_ITEMS_MAX {
            Err(Refusal("too many elements in one command"))
        } else {
            Ok(())
        }
    }

    /// Runs `inner` one level deeper.
    pub(super) fn nested<T>(&mut self, inner: impl FnOnce(&mut Self) -> Result<T, Refusal>) -> Result<T, Refusal> {
        if self.depth >= limits::IMAP_NESTING_MAX {
            return Err(Refusal("the command is nested too deeply"));
        }
        self.depth += 1;
        let result = inner(self);
        self.depth -= 1;
        result
    }

    /// `"(" [element *(SP element)] ")"`.
    pub(super) fn list(&mut self, mut element: impl FnMut(&mut Self) -> Result<(), Refusal>) -> Result<(), Refusal> {
        self.expect(b'(', "expected an opening parenthesis")?;
        if self.eat(b')') {
            return Ok(());
        }
        let mut elements = 0;
        loop {
            self.nested(&mut element)?;
            elements += 1;
            self.bounded(elements)?;
            if self.eat(b')') {
                return Ok(());
            }
            self.expect(b' ', "expected a space or a closing parenthesis")?;
        }
    }
}

fn unescaped_quote(text: &[u8]) -> Option<usize> {
    let mut escaped = false;
    text.iter().position(|&byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })
}

/// Bytes that a character class has shown to be ASCII.
pub(super) fn ascii(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| char::from(byte)).collect()
}
