//! The normal form of addresses.
//!
//! Replicas of different versions must agree on what an address is, and tables of Unicode change with the compiler. So the part
//! that the machine runs, [`is_normal`], looks at ASCII and at ranges that are written down here; [`normal`], which also lowers
//! letters by the compiler's tables, is for whoever makes a command or asks a question.
//!
//! What is absent: quoted local parts and address literals (nobody in the ministry has one), comments, and any equation of
//! `xn--` labels with their Unicode form or of composed with decomposed letters: those are different addresses here.

use malle_proto::limits;

/// RFC 5321 4.5.3.1.1.
const LOCAL_PART_MAX_BYTES: usize = 64;
/// RFC 1035 2.3.4.
const LABEL_MAX_BYTES: usize = 63;

/// The normal form of `text`, or `None` when it is not an address that malle takes.
pub fn normal(text: &str) -> Option<String> {
    // A hostile text is not lowered before it is found too long.
    if text.len() > limits::ADDRESS_MAX_BYTES {
        return None;
    }
    let (local, domain) = text.split_once('@')?;
    let local: String = local.chars().flat_map(char::to_lowercase).collect();
    let address = format!("{local}@{}", domain.to_ascii_lowercase());
    is_normal(&address).then_some(address)
}

/// Could `address` have come out of [`normal`]? Letters beyond ASCII are taken as they are.
pub fn is_normal(address: &str) -> bool {
    if address.len() > limits::ADDRESS_MAX_BYTES {
        return false;
    }
    match address.split_once('@') {
        Some((local, domain)) => is_local_part(local) && is_domain(domain),
        None => false,
    }
}

/// What stands behind the `@`; the whole text when there is none.
pub fn domain(address: &str) -> &str {
    address.split_once('@').map_or(address, |(_, domain)| domain)
}

/// Dot-atom of RFC 5322 3.2.3 with the letters of RFC 6531 3.3, without upper-case ASCII.
fn is_local_part(local: &str) -> bool {
    let atom = |c: char| {
        c.is_ascii_lowercase() || c.is_ascii_digit() || "!#$%&'*+-/=?^_`{|}~".contains(c) || is_letter_beyond_ascii(c)
    };
    local.len() <= LOCAL_PART_MAX_BYTES && local.split('.').all(|word| !word.is_empty() && word.chars().all(atom))
}

fn is_domain(domain: &str) -> bool {
    domain.split('.').all(|label| {
        !label.is_empty()
            && label.len() <= LABEL_MAX_BYTES
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || is_letter_beyond_ascii(c))
    })
}

/// Everything beyond ASCII but controls, spaces, and what is invisible or turns the direction of writing: those make two
/// different addresses look the same.
fn is_letter_beyond_ascii(c: char) -> bool {
    let refused = matches!(c,
        '\0'..='\u{a0}'
            | '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{115f}'..='\u{1160}'
            | '\u{1680}'
            | '\u{180b}'..='\u{180f}'
            | '\u{2000}'..='\u{206f}'
            | '\u{3000}'
            | '\u{3164}'
            | '\u{e000}'..='\u{f8ff}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{ffff}'
            | '\u{e0000}'..='\u{10ffff}');
    !refused
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::{is_normal, normal};

    #[test]
    fn letter_case_is_lowered_and_nothing_else_changes() {
        assert_eq!(
            normal("Jean.Dupont@Example.ORG").as_deref(),
            Some("jean.dupont@example.org")
        );
        assert_eq!(
            normal("ÉLODIE+liste@exemple.fr").as_deref(),
            Some("élodie+liste@exemple.fr")
        );
        assert_eq!(normal("o'brien@école.fr").as_deref(), Some("o'brien@école.fr"));
        assert_eq!(normal("root@localhost").as_deref(), Some("root@localhost"));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let label = "a".repeat(64);
        for text in [
            "",
            "alice",
            "@example.org",
            "alice@",
            "a@b@c",
            "a..b@example.org",
            ".a@example.org",
            "a.@example.org",
            "\"a b\"@example.org",
            "a b@example.org",
            "a@[127.0.0.1]",
            "a@example.org.",
            "a@-example.org",
            "a@example-.org",
            "a@exa_mple.org",
            "a\u{202e}b@example.org",
            "a\u{200b}@example.org",
            "a\0@example.org",
            "a\r\nb@example.org",
            "<a@example.org>",
            &format!("{label}b@example.org"),
            &format!("a@{label}.org"),
        ] {
            assert_eq!(normal(text), None, "{text:?}");
        }
    }

    #[test]
    fn the_bound_counts_octets() {
        let domain = format!("{0}.{0}.{0}", "d".repeat(61));
        let address = |local: usize| format!("{}@{domain}", "l".repeat(local));
        assert_eq!(address(64).len(), 250);
        assert!(normal(&address(64)).is_some());
        assert_eq!(normal(&format!("{}{}", address(64), ".abcde")), None, "256 octets");
    }

    proptest! {
        #[test]
        fn a_normal_form_is_its_own_normal_form(text in "[a-zA-Zéİß.+@-]{0,40}", noise in any::<String>()) {
            for text in [text, noise] {
                if let Some(once) = normal(&text) {
                    assert!(is_normal(&once));
                    assert_eq!(normal(&once).as_deref(), Some(once.as_str()));
                }
            }
        }
    }
}
