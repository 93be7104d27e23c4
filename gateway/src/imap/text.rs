//! Texts of mails as people compare them: decoded, without letter case and accents, subjects without `Re:`.
//!
//! [`folded`] is a little coarser than `i;unicode-casemap` (RFC 5051): it also leaves accents out, so that `eleve` finds `élève` and both stand
//! together when sorted; where a sort needs an order between them, the accented form decides ([`SortText`]).

use mail_parser::{DateTime, MessageParser};
use unicode_normalization::UnicodeNormalization as _;
use unicode_normalization::char::is_combining_mark;

/// Of a text that orders messages, this much is looked at.
const SORT_TEXT_MAX_CHARS: usize = 256;
/// Of a subject, this much is looked at for `Re:` and the like: what a stranger wrote must not cost more.
const SUBJECT_MAX_CHARS: usize = 1000;

/// A text without letter case, accents and compatibility forms.
pub(super) fn folded(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    let mut folded = String::with_capacity(text.len());
    for character in text.nfkd().filter(|character| !is_combining_mark(*character)) {
        match character {
            'œ' | 'Œ' => folded.push_str("oe"),
            'æ' | 'Æ' => folded.push_str("ae"),
            other => folded.extend(other.to_lowercase()),
        }
    }
    folded
}

/// A text by which messages are ordered: first without accents, then with them.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SortText {
    folded: String,
    exact: String,
}

impl SortText {
    pub(super) fn new(text: &str) -> SortText {
        let exact: String = text.chars().take(SORT_TEXT_MAX_CHARS).collect();
        SortText {
            folded: folded(&exact),
            exact: exact.nfc().flat_map(char::to_lowercase).collect(),
        }
    }
}

/// A header's text with its encoded words decoded (RFC 2047).
pub(super) fn decoded(raw: &[u8]) -> String {
    if !raw.windows(2).any(|pair| pair == b"=?") {
        return String::from_utf8_lossy(raw).into_owned();
    }
    let mut header = b"Subject: ".to_vec();
    header.extend(
        raw.iter()
            .map(|&byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { byte }),
    );
    header.extend_from_slice(b"\r\n\r\n");
    let message = MessageParser::default().parse(&header);
    let subject = message.as_ref().and_then(|message| message.subject());
    subject.map_or_else(|| String::from_utf8_lossy(raw).into_owned(), str::to_owned)
}

/// The moment that a Date field names; `None` when it names none.
pub(super) fn sent_date(raw: &[u8]) -> Option<DateTime> {
    let mut header = b"Date: ".to_vec();
    header.extend(
        raw.iter()
            .map(|&byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { byte }),
    );
    header.extend_from_slice(b"\r\n\r\n");
    let message = MessageParser::default().parse(&header)?;
    message.date().filter(|date| date.is_valid()).cloned()
}

/// What a subject is about (RFC 5256 2.1), and whether it said that it is a reply or forward. The subject is decoded already.
pub(super) fn base_subject(subject: &str) -> (String, bool) {
    let words: Vec<&str> = subject.split_whitespace().collect();
    let flat: String = words.join(" ").chars().take(SUBJECT_MAX_CHARS).collect();
    let (mut rest, mut is_reply) = (flat.as_str(), false);
    loop {
        rest = rest.trim();
        if let Some(shorter) = strip_suffix(rest, "(fwd)") {
            (rest, is_reply) = (shorter, true);
        } else if let Some(shorter) = after_leader(rest) {
            (rest, is_reply) = (shorter, true);
        } else if let Some(shorter) = after_blob(rest).filter(|shorter| !shorter.is_empty()) {
            rest = shorter;
        } else if let Some(inner) = strip_prefix(rest, "[fwd:").and_then(|inner| inner.strip_suffix(']')) {
            (rest, is_reply) = (inner, true);
        } else {
            return (folded(rest), is_reply);
        }
    }
}

fn strip_prefix<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let head = text.get(..prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then(|| &text[prefix.len()..])
}

fn strip_suffix<'a>(text: &'a str, suffix: &str) -> Option<&'a str> {
    let at = text.len().checked_sub(suffix.len())?;
    let tail = text.get(at..)?;
    tail.eq_ignore_ascii_case(suffix).then(|| &text[..at])
}

/// `subj-leader`: any number of `[..]`, then `Re:`, `Fw:` or `Fwd:`, perhaps with a `[..]` before the colon.
fn after_leader(text: &str) -> Option<&str> {
    let mut rest = text;
    while let Some(shorter) = after_blob(rest) {
        rest = shorter;
    }
    let rest = ["re", "fwd", "fw"]
        .iter()
        .find_map(|word| strip_prefix(rest, word))?
        .trim_start();
    after_blob(rest).unwrap_or(rest).strip_prefix(':')
}

/// `subj-blob`: a `[..]` without brackets inside, and the space behind it.
fn after_blob(text: &str) -> Option<&str> {
    let inside = text.strip_prefix('[')?;
    let end = inside.find(['[', ']'])?;
    inside[end..].strip_prefix(']').map(str::trim_start)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::*;

    #[test]
    fn folding_leaves_letter_case_and_accents_out() {
        for (text, plain) in [
            ("\u{c9}l\u{e8}ve", "eleve"),
            ("E\u{301}le\u{300}ve", "eleve"),
            ("\u{152}UVRE", "oeuvre"),
            ("Fran\u{e7}ois", "francois"),
            ("\u{fb01}n", "fin"),
            ("Plain", "plain"),
        ] {
            assert_eq!(folded(text), plain);
        }
    }

    #[test]
    fn accents_order_what_is_else_the_same() {
        let mut words = ["z\u{e8}bre", "\u{e9}t\u{e9}", "zebre", "Ete", "f\u{ea}te", "faute"];
        words.sort_by_key(|word| SortText::new(word));
        assert_eq!(
            words,
            ["Ete", "\u{e9}t\u{e9}", "faute", "f\u{ea}te", "zebre", "z\u{e8}bre"]
        );
    }

    #[test]
    fn a_subject_is_stripped_as_the_rfc_says() {
        for (subject, base, is_reply) in [
            ("Budget", "budget", false),
            ("Re: Budget", "budget", true),
            ("RE[2]: re: Fwd:  Budget (fwd)", "budget", true),
            ("[list] Budget", "budget", false),
            ("[list] Re: [other] Budget", "budget", true),
            ("[Fwd: Budget]", "budget", true),
            ("[Fwd: Re: Budget (fwd)]", "budget", true),
            ("[only]", "[only]", false),
            ("Reply to all", "reply to all", false),
            ("re:", "", true),
            ("a \t b", "a b", false),
            ("", "", false),
        ] {
            assert_eq!(base_subject(subject), (base.to_owned(), is_reply), "{subject}");
        }
    }

    proptest! {
        #[test]
        fn a_base_subject_has_no_leader_any_more(subject in any::<String>()) {
            let (base, _) = base_subject(&subject);
            let (again, _) = base_subject(&format!("Re: {subject}"));
            if subject.chars().count() < 900 {
                prop_assert_eq!(base, again);
            }
        }
    }
}
