//! Mailbox names: modified UTF-7 on the wire (RFC 3501 5.1.3), UTF-8 inside.

use base64::Engine as _;
use base64::alphabet::IMAP_MUTF7;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use unicode_normalization::UnicodeNormalization as _;

const MODIFIED_BASE64: GeneralPurpose = GeneralPurpose::new(
    &IMAP_MUTF7,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone),
);

/// The wire form of a name.
pub(super) fn encode(name: &str) -> String {
    let mut wire = String::with_capacity(name.len());
    let mut shifted: Vec<u8> = Vec::new();
    let end_shift = |wire: &mut String, shifted: &mut Vec<u8>| {
        if !shifted.is_empty() {
            wire.push('&');
            MODIFIED_BASE64.encode_string(&*shifted, wire);
            wire.push('-');
            shifted.clear();
        }
    };
    for character in name.chars() {
        if matches!(character, ' '..='~') {
            end_shift(&mut wire, &mut shifted);
            wire.push(character);
            if character == '&' {
                wire.push('-');
            }
        } else {
            let mut units = [0; 2];
            shifted.extend(
                character
                    .encode_utf16(&mut units)
                    .iter()
                    .flat_map(|unit| unit.to_be_bytes()),
            );
        }
    }
    end_shift(&mut wire, &mut shifted);
    wire
}

/// The name behind a wire form; `None` when it is not modified UTF-7. Lenient in one thing: printable characters that are encoded without need
/// are taken.
pub(super) fn decode(wire: &[u8]) -> Option<String> {
    let mut name = String::with_capacity(wire.len());
    let mut rest = wire;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'&' => {
                let end = rest.iter().position(|&byte| byte == b'-')?;
                if end == 0 {
                    name.push('&');
                } else {
                    name.push_str(&decode_shifted(&rest[..end])?);
                }
                rest = &rest[end + 1..];
            }
            b' '..=b'~' => name.push(char::from(byte)),
            _ => return None,
        }
    }
    Some(name)
}

fn decode_shifted(shifted: &[u8]) -> Option<String> {
    let bytes = MODIFIED_BASE64.decode(shifted).ok()?;
    if bytes.len() % 2 != 0 {
        return None;
    }
    let units: Vec<u16> = bytes
        .chunks_exact(2)
        .map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
        .collect();
    String::from_utf16(&units).ok()
}

/// Spells a name the one way that the store knows: accents composed (NFC), and INBOX, which has no letter case, in capitals.
pub(super) fn normalised(name: String) -> String {
    let name = composed(name);
    let head = name.split('/').next().unwrap_or_default();
    if head.eq_ignore_ascii_case("INBOX") {
        format!("INBOX{}", &name[head.len()..])
    } else {
        name
    }
}

/// One name, one spelling: macOS takes accents apart, everybody else composes them (RFC 9051 5.1).
pub(super) fn composed(name: String) -> String {
    if name.is_ascii() { name } else { name.nfc().collect() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    use super::*;

    #[test]
    fn names_are_encoded_as_the_rfc_shows() {
        for (name, wire) in [
            ("~peter/mail/台北/日本語", "~peter/mail/&U,BTFw-/&ZeVnLIqe-"),
            ("Envoyés", "Envoy&AOk-s"),
            ("R&D", "R&-D"),
            ("😀", "&2D3eAA-"),
            ("", ""),
        ] {
            assert_eq!(encode(name), wire);
            assert_eq!(decode(wire.as_bytes()).as_deref(), Some(name));
        }
    }

    #[test]
    fn what_is_not_modified_utf7_is_refused() {
        for wire in [
            &b"&"[..],
            b"&AOk",
            b"&A-",
            b"&2D0-",
            b"\xc3\xa9",
            b"a\0b",
            b"&!!!!-",
            b"&AOk=-",
        ] {
            assert_eq!(decode(wire), None, "{wire:?}");
        }
    }

    #[test]
    fn inbox_has_no_letter_case() {
        assert_eq!(normalised("inBox".into()), "INBOX");
        assert_eq!(normalised("inbox/Sub".into()), "INBOX/Sub");
        assert_eq!(normalised("Inboxes".into()), "Inboxes");
        assert_eq!(normalised(String::new()), "");
    }

    #[test]
    fn accents_are_composed() {
        assert_eq!(normalised("Envoye\u{301}s".into()), "Envoy\u{e9}s");
        assert_eq!(normalised("inbox/E\u{301}te\u{301}".into()), "INBOX/\u{c9}t\u{e9}");
    }

    proptest! {
        #[test]
        fn every_name_comes_back(name in any::<String>()) {
            let wire = encode(&name);
            prop_assert!(wire.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            prop_assert_eq!(decode(wire.as_bytes()), Some(name));
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(wire in any::<Vec<u8>>()) {
            let _ = decode(&wire);
        }
    }
}
