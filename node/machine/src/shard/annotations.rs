//! METADATA (RFC 5464): entries of a mailbox or of the account itself, each with a value.
//!
//! An account belongs to one person, so that private and shared entries are kept alike; which of them may be set is the front end's to
//! say. Entries belong to the mailbox and go with it wherever it is renamed to; the account's own stand under the root.

use bytes::Bytes;
use malle_proto::{MailboxId, limits};

use super::apply::Step;
use super::edit::Edit;
use super::{Refusal, SpecialUse, keys, names, rows, tree};
use crate::view::{Flow, View};

/// Sets and takes away entries; gives the mailbox, `None` for the account.
pub(super) fn set(edit: &mut Edit<'_, '_>, name: &str, entries: &[(String, Option<Bytes>)]) -> Step<Option<MailboxId>> {
    require_bounded(entries)?;
    let mailbox = target(edit, name)?;
    let modseq = edit.next_modseq();
    for (entry, value) in entries {
        let key = keys::annotation(edit.id, mailbox.unwrap_or(keys::ROOT), entry);
        let before: Option<rows::Annotation> = rows::get(edit.draft, &key, "annotation")?;
        let was_there = before.is_some_and(|row| row.value.is_some());
        // What was not there leaves no trace of having been taken away.
        if value.is_some() || was_there {
            let row = rows::Annotation {
                modseq: modseq.0,
                value: value.clone(),
            };
            rows::put(edit.draft, key, &row);
        }
    }
    let adds = entries.iter().any(|(_, value)| value.is_some());
    tidy(edit, mailbox.unwrap_or(keys::ROOT), adds)?;
    // The account is no mailbox: INBOX, which it always has, brings the news.
    let inbox = edit
        .row
        .special
        .iter()
        .find(|(special_use, _)| *special_use == SpecialUse::Inbox);
    if let Some(shown) = mailbox.or(inbox.map(|(_, id)| *id)) {
        edit.note_change(shown, true);
    }
    Ok(mailbox)
}

fn target(edit: &Edit<'_, '_>, name: &str) -> Step<Option<MailboxId>> {
    if name.is_empty() {
        return Ok(None);
    }
    let place = tree::find(edit.draft, edit.id, &names::parts(name)?)?.ok_or(Refusal::NoMailbox)?;
    let mailbox = place.row.mailbox;
    Ok(Some(mailbox.ok_or_else(|| {
        Refusal::NotPossible("it only holds other mailboxes".into())
    })?))
}

fn require_bounded(entries: &[(String, Option<Bytes>)]) -> Result<(), Refusal> {
    if entries.len() > limits::ANNOTATIONS_PER_MAILBOX_MAX {
        return Err(Refusal::Limit(format!(
            "{} annotations",
            limits::ANNOTATIONS_PER_MAILBOX_MAX
        )));
    }
    let mut bytes = 0;
    for (entry, value) in entries {
        if !is_entry(entry) {
            return Err(Refusal::BadName("not the name of an annotation".into()));
        }
        let length = value.as_ref().map_or(0, Bytes::len);
        if length > limits::ANNOTATION_VALUE_MAX_BYTES {
            return Err(Refusal::Limit(format!(
                "{} bytes in an annotation",
                limits::ANNOTATION_VALUE_MAX_BYTES
            )));
        }
        bytes += length + entry.len();
    }
    if bytes > limits::ANNOTATIONS_PER_COMMAND_MAX_BYTES {
        return Err(Refusal::Limit(format!(
            "{} bytes of annotations at once",
            limits::ANNOTATIONS_PER_COMMAND_MAX_BYTES
        )));
    }
    Ok(())
}

/// RFC 5464 3.2: parts with a slash before each, none empty, no wildcard; here in ASCII lower case.
fn is_entry(entry: &str) -> bool {
    let printable = |byte: u8| (byte.is_ascii_graphic() || byte == b' ') && !byte.is_ascii_uppercase();
    entry.len() <= limits::ANNOTATION_ENTRY_MAX_BYTES
        && entry
            .bytes()
            .all(|byte| printable(byte) && !matches!(byte, b'*' | b'%'))
        && entry
            .strip_prefix('/')
            .is_some_and(|rest| rest.split('/').all(|part| !part.is_empty()))
}

/// Refuses more entries than a mailbox may have, or more bytes of them than the account, and forgets the oldest of those that were taken
/// away from the mailbox. A command that only takes away is never refused.
fn tidy(edit: &mut Edit<'_, '_>, mailbox: MailboxId, adds: bool) -> Step<()> {
    let all = keys::of_kind(edit.id, keys::kind::ANNOTATION);
    let own = keys::of_mailbox(edit.id, keys::kind::ANNOTATION, mailbox).from;
    let (mut there, mut bytes, mut taken_away) = (0, 0, Vec::new());
    edit.draft.scan(&all.from, &all.to, &mut |key, value| {
        bytes += key.len() + value.len();
        if key.starts_with(&own) {
            let row: rows::Annotation = rows::read(value, "annotation")?;
            match row.value {
                Some(_) => there += 1,
                None => taken_away.push((row.modseq, key.to_vec())),
            }
        }
        Ok(Flow::More)
    })?;
    if adds && there > limits::ANNOTATIONS_PER_MAILBOX_MAX {
        return Err(Refusal::Limit(format!("{} annotations", limits::ANNOTATIONS_PER_MAILBOX_MAX)).into());
    }
    if adds && bytes > limits::ANNOTATIONS_PER_ACCOUNT_MAX_BYTES {
        let most = limits::ANNOTATIONS_PER_ACCOUNT_MAX_BYTES;
        return Err(Refusal::Limit(format!("{most} bytes of annotations in an account")).into());
    }
    taken_away.sort_unstable();
    let over = taken_away.len().saturating_sub(limits::ANNOTATIONS_PER_MAILBOX_MAX);
    for (_, key) in taken_away.into_iter().take(over) {
        edit.draft.remove(key);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::is_entry;

    #[test]
    fn an_entry_is_a_path_in_lower_case() {
        for good in ["/private/comment", "/shared/vendor/x/y z", "/a"] {
            assert!(is_entry(good), "{good}");
        }
        let long = format!("/{}", "a".repeat(256));
        for bad in ["", "/", "a", "/a/", "//a", "/A", "/a*", "/%", "/\u{e9}", "/a\0", &long] {
            assert!(!is_entry(bad), "{bad:?}");
        }
    }
}
