//! The first words of a mail, for lists of messages (RFC 8970).
//!
//! The first text/plain that is not an attachment, else the first text/html, without tags. Only its beginning is decoded: whatever
//! the mail, this costs the same. The preview is a courtesy: what cannot be decoded is left out, and nothing else depends on it.

use mail_parser::decoders::charsets::map::charset_decoder;
use mail_parser::decoders::html::html_to_text;
use malle_proto::limits::PREVIEW_MAX_CHARS;
use malle_proto::v1::Part;

/// Encoded bytes of a plain text that are looked at: quoted-printable takes three a byte, and blanks are collapsed.
const PLAIN_BYTES: usize = 8 * 1024;
/// Encoded bytes of an HTML text that are looked at: styles stand before the first word.
const HTML_BYTES: usize = 64 * 1024;

/// At most `limits::PREVIEW_MAX_CHARS` characters on one line; empty when there is no text.
pub fn preview(message: &[u8], root: &Part) -> String {
    if let Some(part) = first_text(root, "PLAIN") {
        return one_line(&decoded(message, part, PLAIN_BYTES));
    }
    match first_text(root, "HTML") {
        Some(part) => one_line(&html_to_text(&decoded(message, part, HTML_BYTES))),
        None => String::new(),
    }
}

/// The first such part of the mail itself: messages inside it are not its own words.
fn first_text<'p>(part: &'p Part, subtype: &str) -> Option<&'p Part> {
    let attached = part
        .disposition
        .as_ref()
        .is_some_and(|kind| kind.eq_ignore_ascii_case("attachment"));
    if part.r#type == "TEXT" && part.subtype == subtype && !attached && part.body_end > part.body_start {
        return Some(part);
    }
    part.parts.iter().find_map(|inner| first_text(inner, subtype))
}

fn decoded(message: &[u8], part: &Part, max_bytes: usize) -> String {
    let start = part.body_start as usize;
    let end = (part.body_end as usize).min(start + max_bytes);
    let content = &message[start..end];
    let bytes = match part.encoding.as_str() {
        "BASE64" => base64(content),
        "QUOTED-PRINTABLE" => quoted_printable(content),
        _ => content.to_vec(),
    };
    let charset = part
        .parameters
        .iter()
        .find(|parameter| parameter.name.eq_ignore_ascii_case(b"charset"));
    let decoder = charset.and_then(|charset| charset_decoder(&charset.value));
    match (std::str::from_utf8(&bytes), decoder) {
        // UTF-8 that says otherwise is still UTF-8 nearly always; text in ISO-2022 is ASCII with escapes.
        (Ok(text), _) if !text.contains('\u{1b}') => text.to_owned(),
        (_, Some(decode)) => decode(&bytes),
        (_, None) => String::from_utf8_lossy(&bytes).into_owned(),
    }
}

/// Decodes what there is; bytes outside the alphabet are passed over (RFC 2045 6.8), an incomplete last group is dropped.
fn base64(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len() / 4 * 3);
    let (mut bits, mut count) = (0u32, 0);
    for byte in content {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' => break,
            _ => continue,
        };
        bits = (bits << 6 | u32::from(value)) & 0xFF_FFFF;
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count & 0xFF) as u8);
        }
    }
    out
}

/// RFC 2045 6.7; an equals sign that escapes nothing stands for itself.
fn quoted_printable(content: &[u8]) -> Vec<u8> {
    let hex = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let mut out = Vec::with_capacity(content.len());
    let mut at = 0;
    while let Some(byte) = content.get(at) {
        at += 1;
        if *byte != b'=' {
            out.push(*byte);
            continue;
        }
        match (content.get(at), hex(content.get(at)), hex(content.get(at + 1))) {
            (_, Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 2;
            }
            (Some(b'\n'), ..) => at += 1,
            (Some(b'\r'), ..) if content.get(at + 1) == Some(&b'\n') => at += 2,
            _ => out.push(b'='),
        }
    }
    out
}

/// Blanks and line ends collapsed, characters that show nothing left out, cut.
fn one_line(text: &str) -> String {
    let mut out = String::new();
    let mut chars = 0;
    let mut gap = false;
    for char in text.chars() {
        if char.is_whitespace() || char == '\u{feff}' || char == '\u{200b}' {
            gap = chars > 0;
            continue;
        }
        if char.is_control() || char == char::REPLACEMENT_CHARACTER {
            continue;
        }
        let needed = 1 + usize::from(gap);
        if chars + needed > PREVIEW_MAX_CHARS {
            break;
        }
        if std::mem::take(&mut gap) {
            out.push(' ');
        }
        out.push(char);
        chars += needed;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::summarize;

    fn of(mail: &[u8]) -> String {
        summarize(mail).summary.preview
    }

    #[test]
    fn text_is_decoded_and_put_on_one_line() {
        assert_eq!(of(b"\r\n Bonjour  \r\n\t monde\r\n"), "Bonjour monde");
        assert_eq!(
            of(b"Content-Type: text/plain; charset=iso-8859-1\n\n\xe9t\xe9\n"),
            "été"
        );
        assert_eq!(
            of("Content-Type: text/plain; charset=iso-8859-1\n\nété\n".as_bytes()),
            "été"
        );
        assert_eq!(
            of(b"Content-Transfer-Encoding: quoted-printable\nContent-Type: text/plain; charset=utf-8\n\n=C3=A9t=\n=C3=A9 a=b=\r\n!"),
            "été a=b!"
        );
        assert_eq!(
            of(b"Content-Transfer-Encoding: BASE64\n\nQm9u\r\nam91ciA9IHg=\r\nrubbish"),
            "Bonjour = x"
        );
        assert_eq!(of(b"Content-Transfer-Encoding: base64\n\nQm9uam91"), "Bonjou");
        assert_eq!(of(b"\n\x1b[1m\0\x07bold"), "[1mbold");
    }

    #[test]
    fn html_is_used_only_when_there_is_no_text() {
        let html = "Content-Type: text/html\n\n<html><head><style>p{color:red}</style></head><p>Caf&eacute;&nbsp;&lt;ouvert&gt;</p>";
        assert_eq!(of(html.as_bytes()), "Café <ouvert>");
        let both = "Content-Type: multipart/alternative; boundary=b\n\n--b\nContent-Type: text/html\n\n<p>html\n--b\n\nplain\n--b--\n";
        assert_eq!(of(both.as_bytes()), "plain");
        let attached = "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Disposition: attachment\n\nfile\n--b\n\nwords\n--b--\n";
        assert_eq!(of(attached.as_bytes()), "words");
        assert_eq!(of(b"Content-Type: image/png\n\nnot text"), "");
    }

    #[test]
    fn a_preview_has_two_hundred_characters_at_most() {
        let long = format!("\n{}", "é ".repeat(5000));
        let found = of(long.as_bytes());
        assert_eq!(found.chars().count(), 199, "it does not end with a blank");
        assert!(found.ends_with('é'));
    }
}
