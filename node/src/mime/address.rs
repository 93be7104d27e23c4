//! Address lists (RFC 5322 3.4 and 4.4), for the ENVELOPE of RFC 9051 7.5.2.
//!
//! Quotes and comments are taken off, RFC 2047 words stay. What no grammar allows still comes out as something a person recognises:
//! words without an `@` are a mailbox with an empty host (an absent host would mean a group). Source routes are dropped.

use malle_proto::limits::{SUMMARY_ADDRESSES_MAX, SUMMARY_TEXT_MAX_BYTES};
use malle_proto::v1::MailAddress;

use super::allowance::Allowance;
use super::fields::{is_blank, unfold};
use super::parameters::{comment_end, quoted};

/// Most bytes of one header field that are looked at for addresses.
const LIST_MAX_BYTES: usize = 64 * SUMMARY_TEXT_MAX_BYTES;

/// The addresses of a raw header value, in their order.
pub fn parse(raw: &[u8], allowance: &mut Allowance) -> Vec<MailAddress> {
    let text = unfold(&raw[..raw.len().min(LIST_MAX_BYTES)]);
    let mut list = List {
        tokens: Tokens { text: &text, at: 0 },
        out: Vec::new(),
        in_group: false,
        full: false,
        allowance,
    };
    list.read();
    list.out
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    /// An atom with dots, an unquoted quoted string, or a domain literal.
    Word(Vec<u8>),
    Comment(Vec<u8>),
    Special(u8),
}

struct Tokens<'t> {
    text: &'t [u8],
    at: usize,
}

impl Iterator for Tokens<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        while self.text.get(self.at).is_some_and(|byte| is_blank(*byte)) {
            self.at += 1;
        }
        let start = self.at;
        let token = match *self.text.get(start)? {
            b'"' => {
                let (word, end) = quoted(self.text, start + 1);
                self.at = end;
                Token::Word(word)
            }
            b'(' => {
                self.at = comment_end(self.text, start);
                let inside = &self.text[start + 1..self.at];
                Token::Comment(unescape(inside.strip_suffix(b")").unwrap_or(inside)))
            }
            b'[' => {
                let close = self.text[start..].iter().position(|byte| *byte == b']');
                self.at = close.map_or(self.text.len(), |close| start + close + 1);
                Token::Word(self.text[start..self.at].to_vec())
            }
            special if is_special(special) => {
                self.at += 1;
                Token::Special(special)
            }
            _ => {
                self.at = encoded_word_end(self.text, start).unwrap_or(start);
                while self.text.get(self.at).is_some_and(|byte| !ends_atom(*byte)) {
                    self.at += 1;
                }
                Token::Word(self.text[start..self.at].to_vec())
            }
        };
        Some(token)
    }
}

fn is_special(byte: u8) -> bool {
    matches!(byte, b',' | b';' | b':' | b'<' | b'>' | b'@' | b')' | b']')
}

fn ends_atom(byte: u8) -> bool {
    is_special(byte) || is_blank(byte) || matches!(byte, b'"' | b'(' | b'[')
}

fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        out.extend(if *byte == b'\\' { bytes.next() } else { Some(byte) });
    }
    out
}

/// End of the RFC 2047 word that begins here. Such words hold bare commas and the like in real mail, against RFC 2047 5 (3).
fn encoded_word_end(text: &[u8], start: usize) -> Option<usize> {
    let word = text[start..].strip_prefix(b"=?")?;
    // RFC 2047 2 allows 75 bytes; writers that ignore it stay below this.
    let word = &word[..word.len().min(1024)];
    let word = &word[..word.iter().position(|byte| is_blank(*byte)).unwrap_or(word.len())];
    let charset = word.iter().position(|byte| *byte == b'?')?;
    let text_start = charset + 3;
    if word.get(charset + 2) != Some(&b'?') {
        return None;
    }
    let end = memchr::memmem::find(word.get(text_start..)?, b"?=")?;
    Some(start + 2 + text_start + end + 2)
}

struct List<'t, 'a> {
    tokens: Tokens<'t>,
    out: Vec<MailAddress>,
    in_group: bool,
    full: bool,
    allowance: &'a mut Allowance,
}

/// What was read of one address.
#[derive(Default)]
struct Pending {
    words: Vec<Vec<u8>>,
    comment: Option<Vec<u8>>,
    /// Local part and domain.
    found: Option<(Vec<u8>, Vec<u8>)>,
}

impl List<'_, '_> {
    fn read(&mut self) {
        let mut pending = Pending::default();
        while let Some(token) = self.tokens.next() {
            match token {
                Token::Word(word) if pending.found.is_none() => pending.words.push(word),
                // Words after an address belong to nothing.
                Token::Word(_) => {}
                Token::Comment(comment) => pending.comment = Some(comment),
                Token::Special(b',') => self.finish(&mut pending),
                Token::Special(b';') => {
                    self.finish(&mut pending);
                    self.end_group();
                }
                Token::Special(b':') if !self.in_group && pending.found.is_none() => {
                    let name = join(&pending.words, b" ");
                    pending = Pending::default();
                    self.push(None, Some(name), None);
                    self.in_group = true;
                }
                Token::Special(b'<') => pending.found = Some(self.angle()),
                Token::Special(b'@') if pending.found.is_none() => {
                    let local = split_local(&mut pending.words);
                    pending.found = Some((local, self.domain()));
                }
                Token::Special(_) => {}
            }
            if self.full {
                break;
            }
        }
        self.finish(&mut pending);
        self.end_group();
    }

    /// Reads `local@domain>`, or what stands there instead, from behind the `<`.
    fn angle(&mut self) -> (Vec<u8>, Vec<u8>) {
        let mut local: Vec<Vec<u8>> = Vec::new();
        let mut domain = Vec::new();
        let mut in_domain = false;
        let mut closed = false;
        while !closed {
            let before = self.tokens.at;
            match self.tokens.next() {
                None | Some(Token::Special(b'>')) => closed = true,
                Some(Token::Special(b'@')) => {
                    // A second `@`: the first stood in the local part.
                    if in_domain && !local.is_empty() {
                        local.push(b"@".to_vec());
                        local.append(&mut domain);
                    }
                    in_domain = true;
                }
                // The end of a source route: what came before named relays only.
                Some(Token::Special(b':')) => {
                    (local, domain, in_domain) = (Vec::new(), Vec::new(), false);
                }
                // Never closed; inside a source route the comma separates relays.
                Some(Token::Special(b',' | b';')) if !(in_domain && local.is_empty()) => {
                    self.tokens.at = before;
                    closed = true;
                }
                Some(Token::Word(word)) if in_domain => domain.push(word),
                Some(Token::Word(word)) => local.push(word),
                Some(Token::Special(_) | Token::Comment(_)) => {}
            }
        }
        (join(&local, b""), join(&domain, b""))
    }

    /// Reads the domain behind a bare `@`: words that only dots hold together.
    fn domain(&mut self) -> Vec<u8> {
        let mut domain: Vec<u8> = Vec::new();
        loop {
            let before = self.tokens.at;
            match self.tokens.next() {
                Some(Token::Word(word)) if domain.is_empty() || domain.ends_with(b".") || word.starts_with(b".") => {
                    domain.extend(word);
                }
                _ => {
                    self.tokens.at = before;
                    return domain;
                }
            }
        }
    }

    fn finish(&mut self, pending: &mut Pending) {
        let Pending { words, comment, found } = std::mem::take(pending);
        match found {
            Some((local, domain)) => {
                let name = if words.is_empty() {
                    comment
                } else {
                    Some(join(&words, b" "))
                };
                self.push(name, Some(local), Some(domain));
            }
            None if words.is_empty() => {}
            None => self.push(comment, Some(join(&words, b" ")), Some(Vec::new())),
        }
    }

    fn end_group(&mut self) {
        if std::mem::take(&mut self.in_group) {
            self.out.push(MailAddress::default());
        }
    }

    fn push(&mut self, name: Option<Vec<u8>>, mailbox: Option<Vec<u8>>, host: Option<Vec<u8>>) {
        self.full |= self.out.len() + 2 > SUMMARY_ADDRESSES_MAX;
        if self.full {
            return;
        }
        let name = name.filter(|name| !name.is_empty());
        let mut pay = |text: Option<Vec<u8>>| text.map(|text| self.allowance.text(text));
        match (pay(name), pay(mailbox), pay(host)) {
            (Some(None), ..) | (_, Some(None), _) | (_, _, Some(None)) => self.full = true,
            (name, mailbox, host) => self.out.push(MailAddress {
                name: name.flatten(),
                mailbox: mailbox.flatten(),
                host: host.flatten(),
            }),
        }
    }
}

/// Takes the local part off the end of the words before an `@`: the last word, and those that dots join to it.
fn split_local(words: &mut Vec<Vec<u8>>) -> Vec<u8> {
    let mut local = words.pop().unwrap_or_default();
    while let Some(before) = words.pop() {
        if !(local.starts_with(b".") || before.ends_with(b".")) {
            words.push(before);
            break;
        }
        local.splice(0..0, before);
    }
    local
}

fn join(words: &[Vec<u8>], between: &[u8]) -> Vec<u8> {
    words.join(between)
}

#[cfg(test)]
mod tests;
