//! Mailbox names: UTF-8, '/' between parts, INBOX in any letter case (RFC 9051 5.1).

use malle_proto::limits;

use super::Refusal;

/// The name that every account has.
pub(super) const INBOX: &str = "INBOX";

/// The parts of a full name, with INBOX in capitals where it is the first.
///
/// # Errors
/// [`Refusal::BadName`]: empty, too long, too deep, an empty part, a control character, a line separator, or a wildcard of LIST.
pub(super) fn parts(name: &str) -> Result<Vec<&str>, Refusal> {
    let bad = |why: String| Err(Refusal::BadName(why));
    if name.len() > limits::MAILBOX_NAME_MAX_BYTES {
        return bad(format!("longer than {} bytes", limits::MAILBOX_NAME_MAX_BYTES));
    }
    // RFC 9051 5.1 bans what RFC 5198 bans; % and * could never be listed by themselves.
    let banned = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '%' | '*');
    if let Some(c) = name.chars().find(|c| banned(*c)) {
        return bad(format!("{c:?} is not allowed"));
    }
    let mut parts: Vec<&str> = name.split('/').collect();
    if parts.iter().any(|part| part.is_empty()) {
        return bad("a part is empty".into());
    }
    if parts.len() > limits::MAILBOX_DEPTH_MAX {
        return bad(format!("deeper than {} parts", limits::MAILBOX_DEPTH_MAX));
    }
    if parts[0].eq_ignore_ascii_case(INBOX) {
        parts[0] = INBOX;
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::parts;

    #[test]
    fn inbox_is_inbox_in_any_letters_and_only_at_the_top() {
        assert_eq!(parts("inBox").unwrap(), ["INBOX"]);
        assert_eq!(parts("inbox/x").unwrap(), ["INBOX", "x"]);
        assert_eq!(parts("a/inbox").unwrap(), ["a", "inbox"]);
        assert_eq!(parts("Réunions/Été").unwrap(), ["Réunions", "Été"]);
    }

    #[test]
    fn hostile_names_are_refused() {
        let deep = vec!["a"; 33].join("/");
        let long = "é".repeat(501);
        for bad in [
            "", "/", "/a", "a/", "a//b", "a\0b", "a\r\nb", "a*", "%", "\u{7f}", "\u{85}", "\u{2028}", &deep, &long,
        ] {
            assert!(parts(bad).is_err(), "{bad:?}");
        }
        assert!(parts(&vec!["a"; 32].join("/")).is_ok());
        assert!(parts(&"a".repeat(1000)).is_ok());
    }
}
