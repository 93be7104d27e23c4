//! Keywords: compared without regard to letter case, shown as the mailbox first saw them, bounded per mailbox (RFC 9051 2.3.2).

use malle_proto::limits;

use super::apply::Step;
use super::edit::{Edit, OpenMailbox};
use super::{Flags, Refusal, keys, rows};

/// Flags as rows hold them: only known bits, keywords valid, sorted, none twice.
///
/// # Errors
/// [`Refusal::Limit`].
pub(super) fn normalise(flags: &Flags) -> Result<Flags, Refusal> {
    if flags.system & !Flags::SYSTEM != 0 {
        return Err(Refusal::Limit("the system flags are five".into()));
    }
    // Checked before anything is sorted: a hostile list costs no more than its own length.
    for word in &flags.keywords {
        if !is_keyword(word) {
            let shown: String = word.chars().take(40).collect();
            return Err(Refusal::Limit(format!(
                "a keyword is an atom of at most {} bytes, {shown:?} is not",
                limits::KEYWORD_MAX_BYTES
            )));
        }
    }
    let mut normal = Flags {
        system: flags.system,
        keywords: flags.keywords.clone(),
    };
    sort(&mut normal.keywords);
    require_bounded(&normal)?;
    Ok(normal)
}

/// Refuses more keywords than one message may have.
pub(super) fn require_bounded(flags: &Flags) -> Result<(), Refusal> {
    match flags.keywords.len() > limits::KEYWORDS_PER_MESSAGE_MAX {
        true => Err(Refusal::Limit(format!(
            "{} keywords on a message",
            limits::KEYWORDS_PER_MESSAGE_MAX
        ))),
        false => Ok(()),
    }
}

/// Sorts without regard to letter case and drops the later of two equal ones.
pub(super) fn sort(words: &mut Vec<String>) {
    words.sort_by_cached_key(|word| word.to_ascii_lowercase());
    words.dedup_by(|later, earlier| later.eq_ignore_ascii_case(earlier));
}

/// An atom of RFC 9051 without a leading backslash.
fn is_keyword(word: &str) -> bool {
    (1..=limits::KEYWORD_MAX_BYTES).contains(&word.len())
        && word
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !br#"(){%*"\]"#.contains(&byte))
}

/// The mailbox's spelling of these keywords; those that it has not seen are written down as they are.
pub(super) fn spell(edit: &mut Edit<'_, '_>, mailbox: &mut OpenMailbox, words: &[String]) -> Step<Vec<String>> {
    let mut spelled = Vec::with_capacity(words.len());
    for word in words {
        let key = keys::keyword(edit.id, mailbox.id, &word.to_ascii_lowercase());
        let known: Option<rows::Keyword> = rows::get(edit.draft, &key, "keyword")?;
        if let Some(known) = known {
            spelled.push(known.spelling);
            continue;
        }
        if mailbox.row.keywords as usize >= limits::KEYWORDS_PER_MAILBOX_MAX {
            let bound = limits::KEYWORDS_PER_MAILBOX_MAX;
            return Err(Refusal::Limit(format!("{bound} keywords in a mailbox")).into());
        }
        mailbox.row.keywords += 1;
        let row = rows::Keyword { spelling: word.clone() };
        rows::put(edit.draft, key, &row);
        spelled.push(row.spelling);
    }
    Ok(spelled)
}

#[cfg(test)]
mod tests {
    use super::normalise;
    use crate::shard::Flags;

    fn words(words: &[&str]) -> Flags {
        Flags {
            system: 0,
            keywords: words.iter().map(|word| word.to_string()).collect(),
        }
    }

    #[test]
    fn keywords_are_sorted_and_each_comes_once_in_its_first_spelling() {
        let flags = normalise(&words(&["b", "$Forwarded", "B", "a"])).unwrap();
        assert_eq!(flags, words(&["$Forwarded", "a", "b"]));
    }

    #[test]
    fn what_is_no_atom_is_refused() {
        let long = "x".repeat(129);
        for bad in [
            "",
            "\\Seen",
            "a b",
            "é",
            "a\r\nb",
            "a*",
            "a%",
            "a(",
            "a]",
            "a\"",
            long.as_str(),
        ] {
            assert!(normalise(&words(&[bad])).is_err(), "{bad:?}");
        }
        assert!(
            normalise(&Flags {
                system: 32,
                keywords: vec![]
            })
            .is_err()
        );
        let many: Vec<String> = (0..65).map(|n| format!("k{n}")).collect();
        assert!(
            normalise(&Flags {
                system: 0,
                keywords: many
            })
            .is_err()
        );
    }
}
