//! Bodies of messages: made from the seed, kept in the history by their hash.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::call::hex;
use crate::seed::Chance;

/// The header alone takes nearly this much.
pub const BODY_MIN_BYTES: u64 = 200;

/// A line of a body, with its end.
const LINE_BYTES: usize = 66;

/// A body by what it is made of. The same three numbers always make the same bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Body {
    /// What it is drawn from.
    pub draw: u64,
    /// Its size.
    pub size_bytes: u64,
    /// BLAKE3 of its bytes.
    pub hash: String,
}

impl Body {
    /// The body of these numbers.
    pub fn of(draw: u64, size_bytes: u64) -> Body {
        let bytes = bytes_of(draw, size_bytes);
        Body {
            draw,
            size_bytes: bytes.len() as u64,
            hash: hex(blake3::hash(&bytes).as_bytes()),
        }
    }

    /// Its bytes: a message of RFC 5322 with CRLF.
    pub fn bytes(&self) -> Bytes {
        bytes_of(self.draw, self.size_bytes)
    }
}

fn bytes_of(draw: u64, size_bytes: u64) -> Bytes {
    let size = size_bytes.max(BODY_MIN_BYTES) as usize;
    let mut text = format!(
        "From: sender@chaos.example\r\nTo: reader@chaos.example\r\nSubject: {draw:016x}\r\n\
         Message-ID: <{draw:016x}.{size}@chaos.example>\r\nDate: Sat, 28 Nov 2026 12:00:00 +0000\r\n\r\n"
    )
    .into_bytes();
    let mut chance = Chance::of(draw, "body", size_bytes);
    // Lines of 64 digits, the last one as long as is left: bodies that do not compress to nothing, and no line that LMTP would have to stuff.
    while text.len() < size {
        let left = size - text.len();
        let line = if left <= LINE_BYTES + 3 { left } else { LINE_BYTES };
        let mut digits = String::new();
        while digits.len() + 2 < line {
            digits.push_str(&format!("{:016x}", chance.next()));
        }
        text.extend_from_slice(&digits.as_bytes()[..line - 2]);
        text.extend_from_slice(b"\r\n");
    }
    Bytes::from(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_what_its_numbers_say() {
        for size in (BODY_MIN_BYTES..BODY_MIN_BYTES + 140).chain([70_000]) {
            let body = Body::of(7, size);
            assert_eq!(body.bytes().len() as u64, body.size_bytes, "{size}");
            assert_eq!(body.size_bytes, size);
            assert_eq!(hex(blake3::hash(&body.bytes()).as_bytes()), body.hash);
            assert!(body.bytes().ends_with(b"\r\n"));
        }
        assert_ne!(Body::of(7, 1000).hash, Body::of(8, 1000).hash);
    }
}
