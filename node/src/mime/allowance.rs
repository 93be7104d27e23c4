//! The bound on a summary: each text that goes into it is paid for here, and a hostile mail runs out instead of growing the row.

use bytes::Bytes;
use malle_proto::limits::{MIME_PARTS_MAX, SUMMARY_MAX_BYTES, SUMMARY_TEXT_MAX_BYTES};

/// Lengths, tags and offsets that one part costs even when no text is paid for it.
const PART_BYTES: usize = 192;
/// Tags and lengths around one text, and its share of the message that holds it.
const TEXT_OVERHEAD_BYTES: usize = 16;

/// Bytes that a summary may still take.
#[derive(Debug)]
pub struct Allowance {
    left: usize,
}

impl Allowance {
    /// For one summary: what its parts cost in any case is taken off.
    pub fn for_summary() -> Self {
        Allowance {
            left: SUMMARY_MAX_BYTES - MIME_PARTS_MAX * PART_BYTES,
        }
    }

    /// Pays for a text, cut at `limits::SUMMARY_TEXT_MAX_BYTES`; `None` when there is not enough left for it.
    pub fn text(&mut self, mut text: Vec<u8>) -> Option<Bytes> {
        if text.len() > SUMMARY_TEXT_MAX_BYTES {
            // Not in the middle of a character, should it be UTF-8: 10xxxxxx continues one.
            let mut end = SUMMARY_TEXT_MAX_BYTES;
            while end > SUMMARY_TEXT_MAX_BYTES - 3 && text[end] & 0xC0 == 0x80 {
                end -= 1;
            }
            text.truncate(end);
        }
        self.pay(text.len()).then(|| text.into())
    }

    /// Pays for a text of this length; `false` when there is not enough left for it.
    pub fn pay(&mut self, text_bytes: usize) -> bool {
        let left = self.left.checked_sub(text_bytes + TEXT_OVERHEAD_BYTES);
        self.left = left.unwrap_or(self.left);
        left.is_some()
    }

    /// Pays for a text that the wire contract wants to be UTF-8.
    pub fn utf8(&mut self, text: &[u8]) -> Option<String> {
        let text = String::from_utf8_lossy(text).into_owned().into_bytes();
        let paid = self.text(text)?;
        // The cut may have left half a character only when the text was not UTF-8, and it is.
        Some(String::from_utf8_lossy(&paid).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_is_cut_between_characters() {
        let mut allowance = Allowance::for_summary();
        let long = "é".repeat(SUMMARY_TEXT_MAX_BYTES);
        let cut = allowance.text(format!("x{long}").into_bytes()).unwrap();
        assert_eq!(cut.len(), SUMMARY_TEXT_MAX_BYTES - 1);
        assert!(std::str::from_utf8(&cut).is_ok());
    }

    #[test]
    fn an_exhausted_allowance_refuses() {
        let mut allowance = Allowance { left: 40 };
        assert_eq!(allowance.text(b"abc".to_vec()), Some(Bytes::from_static(b"abc")));
        assert_eq!(allowance.text(b"0123456".to_vec()), None);
        assert_eq!(
            allowance.text(b"abc".to_vec()),
            Some(Bytes::from_static(b"abc")),
            "what fits is still taken"
        );
    }
}
