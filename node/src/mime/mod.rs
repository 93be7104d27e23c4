//! What a message row says about a mail, computed once when it comes in (RFC 9051 7.5.2).
//!
//! Everything is found by byte offsets into the mail as it stands: a gateway cuts `BODY[2.1.MIME]` out by them without parsing
//! anything again, so they are part of what is kept. The rules, where RFC 2045 and 2046 leave a choice:
//!
//! * A line ends with LF; a CR before it belongs to the end. A lone CR is text.
//! * A header ends with its first empty line, which belongs to it. Without one, all of it is header and the body is empty.
//! * The line end before a delimiter belongs to the delimiter. A delimiter is `--boundary`, perhaps `--`, then only blanks; the one of
//!   an outer multipart ends everything inside.
//! * A multipart without a boundary, without any delimiter, or nested deeper than `limits::MIME_DEPTH_MAX` is a text/plain leaf; a
//!   message/rfc822 that cannot be opened is an application/octet-stream leaf. Parts beyond `limits::MIME_PARTS_MAX` belong to the last.
//! * Header text is kept as sent, unfolded and without NUL: RFC 2047 words and RFC 2231 continuations are the client's business.
//!
//! Every input has an answer: nothing here fails or panics, each byte is looked at a bounded number of times, and an encoded summary
//! stays below `limits::SUMMARY_MAX_BYTES`. Only [`preview`] decodes content, and only there is mail-parser (its charsets) used.
//! Absent on purpose: any judgement of the mail (spam, signatures), and any access to where it is stored.

mod address;
mod allowance;
mod envelope;
mod fields;
mod parameters;
mod preview;
mod scan;
mod structure;
mod thread;

use malle_proto::v1;

use allowance::Allowance;

/// What is to be known of a mail.
#[derive(Debug, Clone, PartialEq)]
pub struct Summarized {
    /// Envelope, structure, preview.
    pub summary: v1::Summary,
    /// Names of the conversation it belongs to: first 16 bytes of the BLAKE3 of its Message-ID (if it has one), then of the newest
    /// `limits::THREAD_REFERENCES_MAX` it refers to, newest first. No two equal.
    pub thread_keys: Vec<[u8; 16]>,
}

/// Looks through a mail, at most 4 GiB long. Takes time linear in its length: for a large one, go through `malle_rt::blocking`.
pub fn summarize(message: &[u8]) -> Summarized {
    let mut allowance = Allowance::for_summary();
    let (header, root) = structure::structure(message, &mut allowance);
    let preview = preview::preview(message, &root);
    Summarized {
        thread_keys: thread::keys(&header),
        summary: v1::Summary {
            envelope: Some(envelope::envelope(&header, &mut allowance)),
            header_bytes: root.body_start - root.header_start,
            root: Some(root),
            preview,
        },
    }
}

#[cfg(test)]
mod tests;
