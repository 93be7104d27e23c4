//! Parts without their transfer encoding (RFC 9051 6.4.5.1, RFC 3516): what BINARY and BINARY.SIZE tell.
//!
//! Which encoding a part has stands in its message's summary. A multipart and a message are told as they are: nothing but 7bit, 8bit and binary is
//! allowed on them (RFC 2045 6.4), and their own parts are asked for one by one. What does not decode is refused with UNKNOWN-CTE,
//! never told half.

use bytes::Bytes;
use mail_parser::decoders::base64::base64_decode;
use mail_parser::decoders::quoted_printable::quoted_printable_decode;
use malle_client::Summary;

use super::section::part_with_number;
use super::structure::is_message;

/// A part above this is decoded where it stalls no other session.
const DECODE_INLINE_BYTES: usize = 32 * 1024;

/// How the bytes of a part are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// As they are.
    Identity,
    Base64,
    QuotedPrintable,
    Unknown,
}

impl Encoding {
    /// Of the part with this number; the whole message when it is empty.
    pub(super) fn of(summary: &Summary, number: &[u32]) -> Encoding {
        let part = summary.root.as_ref().and_then(|root| part_with_number(root, number));
        let Some(part) = part.filter(|part| part.r#type != "MULTIPART" && !is_message(part)) else {
            return Encoding::Identity;
        };
        match part.encoding.to_ascii_uppercase().as_str() {
            "" | "7BIT" | "8BIT" | "BINARY" => Encoding::Identity,
            "BASE64" => Encoding::Base64,
            "QUOTED-PRINTABLE" => Encoding::QuotedPrintable,
            _ => Encoding::Unknown,
        }
    }

    /// The bytes behind the encoding; `None` when they cannot be had.
    pub(super) async fn decoded(self, bytes: Bytes) -> Option<Bytes> {
        if self == Encoding::Identity || bytes.len() <= DECODE_INLINE_BYTES {
            return self.decode(bytes);
        }
        // A part that the decoder cannot bear is one that cannot be decoded, and its session goes on.
        let decoding = tokio::task::spawn_blocking(move || self.decode(bytes));
        decoding.await.unwrap_or_else(|error| {
            tracing::error!(%error, "a part could not be decoded for BINARY");
            None
        })
    }

    fn decode(self, bytes: Bytes) -> Option<Bytes> {
        match self {
            Encoding::Identity => Some(bytes),
            Encoding::Base64 => base64_decode(&bytes).map(Bytes::from),
            Encoding::QuotedPrintable => quoted_printable_decode(&bytes).map(Bytes::from),
            Encoding::Unknown => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use malle_client::Part;

    use super::*;

    fn summary(r#type: &str, encoding: &str) -> Summary {
        let root = Part {
            r#type: r#type.into(),
            encoding: encoding.into(),
            ..Part::default()
        };
        Summary {
            root: Some(root),
            ..Summary::default()
        }
    }

    #[test]
    fn only_a_leaf_has_an_encoding() {
        let of = |kind, encoding, number: &[u32]| Encoding::of(&summary(kind, encoding), number);
        assert_eq!(of("TEXT", "base64", &[1]), Encoding::Base64);
        assert_eq!(of("TEXT", "QUOTED-PRINTABLE", &[1]), Encoding::QuotedPrintable);
        assert_eq!(of("TEXT", "X-UUENCODE", &[1]), Encoding::Unknown);
        assert_eq!(of("TEXT", "BASE64", &[]), Encoding::Identity);
        assert_eq!(of("TEXT", "BASE64", &[2]), Encoding::Identity);
        assert_eq!(of("MULTIPART", "BASE64", &[1]), Encoding::Identity);
    }

    #[tokio::test]
    async fn a_large_part_is_decoded_like_a_small_one() {
        let lines = "QUJD".repeat(19) + "\r\n";
        for count in [1, 2000] {
            let decoded = Encoding::Base64.decoded(lines.repeat(count).into()).await.unwrap();
            assert_eq!(decoded, "ABC".repeat(19 * count));
        }
    }

    #[test]
    fn what_does_not_decode_is_not_told_half() {
        let decode = |encoding: Encoding, text: &'static [u8]| encoding.decode(Bytes::from_static(text));
        assert_eq!(decode(Encoding::Base64, b"QUJD!!!!"), None);
        assert_eq!(decode(Encoding::QuotedPrintable, b"a=ZZ"), None);
        assert_eq!(decode(Encoding::Unknown, b"a"), None);
        let soft = decode(Encoding::QuotedPrintable, b"caf=C3=A9=\r\n=00\r\n");
        assert_eq!(soft.unwrap(), "caf\u{e9}\0\r\n");
    }
}
