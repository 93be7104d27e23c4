//! What delivery needs to know of a mail's header: three fields, found without decoding anything.

/// What the header of a mail says about its delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Marks {
    /// It carries a Message-ID or a Received field, so two mails with equal bytes are one mail sent again (architecture, decision 6).
    pub identified: bool,
    /// `X-Spam-Flag: YES`: it belongs into Junk.
    pub spam: bool,
}

/// Reads the header of a mail. Lines may end in CRLF or LF; an empty line ends the header. Whatever is no field is passed over, so
/// that a broken line hides nothing that stands after it.
pub fn marks(mail: &[u8]) -> Marks {
    let mut marks = Marks::default();
    for line in mail.split(|b| *b == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            break;
        }
        let Some(colon) = line.iter().position(|b| *b == b':') else {
            continue;
        };
        // RFC 5322 4.5.8 lets obsolete mail have blanks before the colon; a line that begins with one continues a field.
        let name = line[..colon].trim_ascii_end();
        let value = line[colon + 1..].trim_ascii();
        if name.eq_ignore_ascii_case(b"message-id") || name.eq_ignore_ascii_case(b"received") {
            marks.identified = true;
        } else if name.eq_ignore_ascii_case(b"x-spam-flag") {
            marks.spam |= value.eq_ignore_ascii_case(b"yes");
        }
    }
    marks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(mail: &str) -> (bool, bool) {
        let marks = marks(mail.as_bytes());
        (marks.identified, marks.spam)
    }

    #[test]
    fn fields_count_in_the_header_only() {
        assert_eq!(
            of("Subject: x\r\n\r\nMessage-ID: <a>\r\nX-Spam-Flag: YES\r\n"),
            (false, false)
        );
        assert_eq!(of("message-id : <a>\r\nX-SPAM-Flag:yes\r\n\r\n"), (true, true));
        assert_eq!(of("Received: by x\n\n"), (true, false));
        assert_eq!(of("X-Spam-Flag: NO\r\n\r\n"), (false, false));
    }

    #[test]
    fn a_folded_line_is_no_field() {
        assert_eq!(
            of("Subject: x\r\n Message-ID: <a>\r\n\tX-Spam-Flag: YES\r\n\r\n"),
            (false, false)
        );
    }

    #[test]
    fn a_broken_line_hides_nothing_after_it() {
        assert_eq!(of("\u{ff}\u{fe} rubbish\r\nMessage-ID: <a>\r\n"), (true, false));
    }
}
