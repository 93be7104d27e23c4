//! Which conversation a mail belongs to: hashes of its Message-ID and of those that it refers to (RFC 5322 3.6.4).

use malle_proto::limits::THREAD_REFERENCES_MAX;

use super::fields::{Fields, Name, is_blank, unfold};

/// Longest header text that is searched for ids, from its end: References grow there.
const SEARCHED_MAX_BYTES: usize = 64 * 1024;

/// The mail's own key if it has an id, then the newest it refers to, newest first.
pub fn keys(fields: &Fields<'_>) -> Vec<[u8; 16]> {
    let own = ids(fields, Name::MessageId).into_iter().next();
    let mut keys: Vec<[u8; 16]> = own.map(|id| key(&id)).into_iter().collect();
    let most = keys.len() + THREAD_REFERENCES_MAX;
    // In-Reply-To names the parent, which References should end with, and does not always.
    let referred = ids(fields, Name::InReplyTo)
        .into_iter()
        .take(1)
        .chain(ids(fields, Name::References).into_iter().rev());
    for id in referred {
        if keys.len() == most {
            break;
        }
        let key = key(&id);
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys
}

fn key(id: &[u8]) -> [u8; 16] {
    let hash = blake3::hash(id);
    *hash.as_bytes().first_chunk().expect("a BLAKE3 hash has 32 bytes")
}

/// The ids of a field without their angle brackets and blanks. A text without brackets is one id.
fn ids(fields: &Fields<'_>, name: Name) -> Vec<Vec<u8>> {
    let Some(raw) = fields.raw(name) else {
        return Vec::new();
    };
    let text = unfold(&raw[raw.len().saturating_sub(SEARCHED_MAX_BYTES)..]);
    let mut found = Vec::new();
    let mut rest = text.as_slice();
    while let Some(open) = memchr::memchr(b'<', rest) {
        let Some(length) = memchr::memchr(b'>', &rest[open..]) else {
            break;
        };
        found.push(without_blanks(&rest[open + 1..open + length]));
        rest = &rest[open + length + 1..];
    }
    if found.is_empty() {
        found.push(without_blanks(&text));
    }
    found.retain(|id| !id.is_empty());
    found
}

fn without_blanks(text: &[u8]) -> Vec<u8> {
    text.iter().copied().filter(|byte| !is_blank(*byte)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::summarize;
    use super::*;

    fn keys_of(header: &str) -> Vec<[u8; 16]> {
        summarize(format!("{header}\r\n\r\n").as_bytes()).thread_keys
    }

    #[test]
    fn own_id_first_then_the_newest_references() {
        let found = keys_of("References: <a@x> <b@x>\r\n <c@x>\r\nMessage-ID: <own@x>\r\nIn-Reply-To: <c@x>");
        assert_eq!(found, [key(b"own@x"), key(b"c@x"), key(b"b@x"), key(b"a@x")]);
    }

    #[test]
    fn only_the_newest_references_count() {
        let references = (0..50).map(|i| format!("<r{i}@x>")).collect::<Vec<_>>().join("\r\n ");
        let found = keys_of(&format!("Message-ID: <own@x>\r\nReferences: {references}"));
        assert_eq!(found.len(), 1 + THREAD_REFERENCES_MAX);
        assert_eq!(found[1], key(b"r49@x"));
        assert_eq!(found[THREAD_REFERENCES_MAX], key(b"r40@x"));
    }

    #[test]
    fn an_answer_without_references_still_finds_its_parent() {
        assert_eq!(keys_of("In-Reply-To: your mail of today <p@x> (Jean)"), [key(b"p@x")]);
        assert_eq!(keys_of("Message-ID: no-brackets@x"), [key(b"no-brackets@x")]);
        assert_eq!(keys_of("Message-ID: < folded@\r\n x >"), [key(b"folded@x")]);
    }

    #[test]
    fn a_mail_without_ids_has_no_keys() {
        assert_eq!(
            keys_of("Subject: x\r\nMessage-ID: <>\r\nReferences: "),
            Vec::<[u8; 16]>::new()
        );
    }
}
