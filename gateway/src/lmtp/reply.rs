//! What the server says: a code, an enhanced status code (RFC 2034, RFC 3463) and a text for people.

use std::borrow::Cow;

/// One reply of one line. The text never holds a control character: what a peer sent is cleaned on its way in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// RFC 5321 4.2.
    pub code: u16,
    /// RFC 3463; empty where RFC 2034 asks for none (greeting, LHLO, 354).
    pub enhanced: &'static str,
    /// For a person.
    pub text: Cow<'static, str>,
}

impl Reply {
    /// A reply with a fixed text.
    pub const fn fixed(code: u16, enhanced: &'static str, text: &'static str) -> Reply {
        Reply {
            code,
            enhanced,
            text: Cow::Borrowed(text),
        }
    }

    /// A reply whose text is made up now; control characters become `?`, so that no text can end its line early.
    pub fn made(code: u16, enhanced: &'static str, text: &str) -> Reply {
        let clean = text
            .chars()
            .map(|c| if c.is_control() { '?' } else { c })
            .collect::<String>();
        Reply {
            code,
            enhanced,
            text: Cow::Owned(clean),
        }
    }

    /// Did the peer do something wrong? Those are counted (see `session`); temporary troubles of ours are not.
    pub fn blames_the_peer(&self) -> bool {
        matches!(self.code, 500..=504 | 555)
    }

    /// Appends the line as it goes over the wire.
    pub fn write_to(&self, output: &mut Vec<u8>) {
        output.extend_from_slice(self.code.to_string().as_bytes());
        output.push(b' ');
        if !self.enhanced.is_empty() {
            output.extend_from_slice(self.enhanced.as_bytes());
            output.push(b' ');
        }
        output.extend_from_slice(self.text.as_bytes());
        output.extend_from_slice(b"\r\n");
    }
}

/// Appends the answer to LHLO: one line per keyword (RFC 5321 4.1.1.1).
pub fn write_greeting(host: &str, keywords: &[String], output: &mut Vec<u8>) {
    let dash = if keywords.is_empty() { ' ' } else { '-' };
    output.extend_from_slice(format!("250{dash}{host}\r\n").as_bytes());
    for (i, keyword) in keywords.iter().enumerate() {
        let dash = if i + 1 == keywords.len() { ' ' } else { '-' };
        output.extend_from_slice(format!("250{dash}{keyword}\r\n").as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_text_cannot_end_its_line() {
        let mut output = Vec::new();
        Reply::made(550, "5.1.1", "no <a\r\n250 ok>").write_to(&mut output);
        assert_eq!(output, b"550 5.1.1 no <a??250 ok>\r\n");
    }

    #[test]
    fn the_last_line_of_a_greeting_has_no_dash() {
        let mut output = Vec::new();
        write_greeting("h", &["A".to_owned(), "B 1".to_owned()], &mut output);
        assert_eq!(output, b"250-h\r\n250-A\r\n250 B 1\r\n");
    }
}
