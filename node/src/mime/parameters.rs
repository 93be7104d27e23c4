//! Structured values: a head, then parameters (RFC 2045 5.1, RFC 2183), read as leniently as mail needs.
//!
//! Comments are dropped. A value without quotes reaches to the next semicolon, so that `boundary=a=b` and `filename=mon fichier.pdf`
//! come out as their writers meant. RFC 2231 names (`filename*0*`) and values stay as they were sent.

use malle_proto::limits::{SUMMARY_PARAMETERS_MAX, SUMMARY_TEXT_MAX_BYTES};

use super::fields::{is_blank, trim, unfold};

/// A structured value in pieces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parameterised {
    /// What stands before the first semicolon, without comments and blanks.
    pub head: Vec<u8>,
    /// Names and values in their order, at most `limits::SUMMARY_PARAMETERS_MAX`.
    pub parameters: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Parameterised {
    /// The first parameter of this name.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.parameters
            .iter()
            .find(|(found, _)| found.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| value.as_slice())
    }
}

/// Takes a raw header value to pieces. Looks at a bounded part of it.
pub fn parse(raw: &[u8]) -> Parameterised {
    // Enough for many texts of the longest length: what lies behind could not be kept anyway.
    let text = unfold(&raw[..raw.len().min(8 * SUMMARY_TEXT_MAX_BYTES)]);
    let mut reader = Reader { text: &text, at: 0 };
    let mut head = reader.plain();
    head.retain(|byte| !is_blank(*byte));
    let mut parameters = Vec::new();
    while reader.eat(b';') && parameters.len() < SUMMARY_PARAMETERS_MAX {
        let Some(name) = reader.name() else { continue };
        let value = reader.value();
        parameters.push((name, value));
    }
    Parameterised { head, parameters }
}

/// Whether this is a token of RFC 2045 5.1 of a reasonable length.
pub fn is_token(text: &[u8]) -> bool {
    let special = |byte: &u8| b"()<>@,;:\\\"/[]?=".contains(byte);
    (1..=127).contains(&text.len()) && text.iter().all(|byte| byte.is_ascii_graphic() && !special(byte))
}

struct Reader<'t> {
    text: &'t [u8],
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn eat(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    /// Passes over blanks and comments.
    fn skip_blanks(&mut self) {
        while let Some(byte) = self.peek() {
            match byte {
                b'(' => self.at = comment_end(self.text, self.at),
                byte if is_blank(byte) => self.at += 1,
                _ => return,
            }
        }
    }

    /// Text up to the next semicolon, without comments; trimmed.
    fn plain(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        while let Some(byte) = self.peek() {
            // Within a word a parenthesis is more often part of a careless name than a comment.
            let apart = out.last().is_none_or(|last| is_blank(*last));
            match byte {
                b';' => break,
                b'(' if apart => self.at = comment_end(self.text, self.at),
                _ => {
                    out.push(byte);
                    self.at += 1;
                }
            }
        }
        trim(&out).to_vec()
    }

    /// A parameter's name and its equals sign; `None` when this stretch has none, and then the reader stands at its end.
    fn name(&mut self) -> Option<Vec<u8>> {
        self.skip_blanks();
        let start = self.at;
        while self.peek().is_some_and(|byte| byte != b'=' && byte != b';') {
            self.at += 1;
        }
        let name = trim(&self.text[start..self.at]);
        if !self.eat(b'=') {
            return None;
        }
        if !is_token(name) {
            self.value();
            return None;
        }
        Some(name.to_vec())
    }

    fn value(&mut self) -> Vec<u8> {
        self.skip_blanks();
        if !self.eat(b'"') {
            return self.plain();
        }
        let (value, end) = quoted(self.text, self.at);
        self.at = end;
        while self.peek().is_some_and(|byte| byte != b';') {
            self.at += 1;
        }
        value
    }
}

/// The text of a quoted string whose opening quote lies before `at`, and where it ends. Unterminated, it reaches to the end.
pub fn quoted(text: &[u8], mut at: usize) -> (Vec<u8>, usize) {
    let mut out = Vec::new();
    while let Some(byte) = text.get(at) {
        at += 1;
        match byte {
            b'"' => return (out, at),
            b'\\' => {
                out.extend(text.get(at));
                at += 1;
            }
            _ => out.push(*byte),
        }
    }
    (out, text.len())
}

/// First byte after the comment that begins at `at`; comments nest. Unterminated, it reaches to the end.
pub fn comment_end(text: &[u8], mut at: usize) -> usize {
    let mut depth = 0usize;
    while let Some(byte) = text.get(at) {
        at += 1;
        match byte {
            b'(' => depth += 1,
            b')' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at;
                }
            }
            b'\\' => at += 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(raw: &str) -> (String, Vec<(String, String)>) {
        let found = parse(raw.as_bytes());
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let parameters = found
            .parameters
            .into_iter()
            .map(|(name, value)| (text(name), text(value)))
            .collect();
        (text(found.head), parameters)
    }

    fn check(raw: &str, head: &str, parameters: &[(&str, &str)]) {
        let wanted = parameters
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        assert_eq!(pieces(raw), (head.to_owned(), wanted), "{raw}");
    }

    #[test]
    fn parameters_are_read_as_their_writers_meant() {
        check(" text/plain", "text/plain", &[]);
        check("text / plain ; charset = utf-8", "text/plain", &[("charset", "utf-8")]);
        check(
            "text/plain; charset=us-ascii (Plain text)",
            "text/plain",
            &[("charset", "us-ascii")],
        );
        check(
            "text/plain (a (nested) one); charset=\"us-ascii\"",
            "text/plain",
            &[("charset", "us-ascii")],
        );
        check(
            "multipart/mixed;\r\n boundary=\"=_a b;c\"",
            "multipart/mixed",
            &[("boundary", "=_a b;c")],
        );
        check(
            "multipart/mixed; boundary=----=_Part=1",
            "multipart/mixed",
            &[("boundary", "----=_Part=1")],
        );
        check(
            "a/b; name=mon fichier (2).pdf; x=1",
            "a/b",
            &[("name", "mon fichier"), ("x", "1")]
                .map(|p| if p.0 == "name" { ("name", "mon fichier .pdf") } else { p }),
        );
        check(
            r#"a/b; name="a \"b\" \\ c" junk; x=y"#,
            "a/b",
            &[("name", r#"a "b" \ c"#), ("x", "y")],
        );
        check(
            "a/b; filename*0*=utf-8''%C3%A9; filename*1=t.txt",
            "a/b",
            &[("filename*0*", "utf-8''%C3%A9"), ("filename*1", "t.txt")],
        );
        check("a/b; name=\"never closed; x=y", "a/b", &[("name", "never closed; x=y")]);
        check("a/b;;; ;x=1;", "a/b", &[("x", "1")]);
        check(
            "a/b; novalue; x=; =v; bad name=\"q;\"; y=2",
            "a/b",
            &[("x", ""), ("y", "2")],
        );
        check("", "", &[]);
        check("; x=1", "", &[("x", "1")]);
    }

    #[test]
    fn tokens_are_those_of_rfc_2045() {
        assert!(is_token(b"octet-stream") && is_token(b"vnd.ms-excel+x!#$%&'*^_`{|}~"));
        for bad in [&b""[..], b"a b", b"a/b", b"\"a\"", b"\xc3\xa9", b"a\0", &[b'a'; 128]] {
            assert!(!is_token(bad), "{bad:?}");
        }
    }
}
