//! METADATA (RFC 5464): entries of a mailbox, and of the account where the name is empty. An account belongs to one person, so that private
//! and shared entries of its mailboxes are both that person's; what all accounts would share is nobody's to set here.
//!
//! Absent: METADATA answers that nobody asked for, but for those of NOTIFY.

use bytes::Bytes;
use malle_client::{Annotation, Error, ModSeq, WatchEvent};
use malle_proto::limits;

use super::super::parse::{Depth, GetMetadata};
use super::super::respond::{Answer, Failure, Output};
use super::super::session::Session;
use super::listen::concerns_all;
use super::{account, because_of_name};

/// RFC 5464 4.2. An entry that is named and not there is told as NIL.
pub(super) async fn get(session: &mut Session, get: &GetMetadata) -> Result<Answer, Failure> {
    let all = account(session)?.annotations(&get.mailbox, None).await;
    let all = all.map_err(|error| because_of_name(error, "NONEXISTENT"))?;
    let mut told: Vec<(&str, Option<&Bytes>)> = Vec::new();
    let mut longest_left_out = None;
    for wanted in &get.entries {
        if !all.iter().any(|one| one.entry == *wanted) && get.depth == Depth::Zero {
            told.push((wanted, None));
        }
        for one in all.iter().filter(|one| get.depth.reaches(wanted, &one.entry)) {
            let bytes = one.value.as_ref().map_or(0, Bytes::len);
            if get.max_bytes.is_some_and(|max| bytes > max as usize) {
                longest_left_out = longest_left_out.max(Some(bytes));
            } else if !told.iter().any(|(entry, _)| *entry == one.entry) {
                told.push((&one.entry, one.value.as_ref()));
            }
        }
    }
    tell_values(&mut session.connection.output, &get.mailbox, &told);
    let answer = Answer::ok("Done");
    Ok(match longest_left_out {
        Some(bytes) => answer.with_code(format!("METADATA LONGENTRIES {bytes}")),
        None => answer,
    })
}

impl Depth {
    fn reaches(self, wanted: &str, entry: &str) -> bool {
        let below = || entry.strip_prefix(wanted).and_then(|rest| rest.strip_prefix('/'));
        entry == wanted
            || match self {
                Depth::Zero => false,
                Depth::One => below().is_some_and(|rest| !rest.contains('/')),
                Depth::Infinity => below().is_some(),
            }
    }
}

fn tell_values(out: &mut Output, mailbox: &str, entries: &[(&str, Option<&Bytes>)]) {
    if entries.is_empty() {
        return;
    }
    begin(out, mailbox);
    let mut before = " (";
    for (entry, value) in entries {
        out.raw(before.as_bytes());
        before = " ";
        out.astring(entry.as_bytes());
        out.raw(b" ");
        if value.is_some_and(|value| value.contains(&0)) {
            // A literal8 (RFC 5464 5).
            out.raw(b"~");
        }
        out.nstring(value.map(|value| &value[..]));
    }
    out.raw(b")\r\n");
}

fn begin(out: &mut Output, mailbox: &str) {
    out.raw(b"* METADATA ");
    out.mailbox(mailbox);
}

/// RFC 5464 4.3.
pub(super) async fn set(
    session: &mut Session,
    mailbox: &str,
    entries: Vec<(String, Option<Bytes>)>,
) -> Result<Answer, Failure> {
    const LARGEST: usize = limits::ANNOTATION_VALUE_MAX_BYTES;
    if mailbox.is_empty() && entries.iter().any(|(entry, _)| !entry.starts_with("/private/")) {
        return Err(Failure::no("NOPERM", "What all accounts share is not set here"));
    }
    let bytes = |value: &Option<Bytes>| value.as_ref().map_or(0, Bytes::len);
    if entries.iter().any(|(_, value)| bytes(value) > LARGEST) {
        let code = format!("METADATA MAXSIZE {LARGEST}");
        return Err(Failure::no(&code, "The value is too long"));
    }
    match account(session)?.annotate(mailbox, entries).await {
        Ok(()) => Ok(Answer::ok("Done")),
        Err(Error::Limit(_)) => Err(Failure::no("METADATA TOOMANY", "Too many entries, or too much at once")),
        Err(error) => Err(because_of_name(error, "NONEXISTENT")),
    }
}

/// Tells which entries changed, of the mailboxes that NOTIFY asks about (RFC 5465 5.6 and 5.7): their names, without values.
pub(super) async fn tell_changed(
    session: &mut Session,
    event: &WatchEvent,
    before: Option<ModSeq>,
) -> Result<(), Failure> {
    let Some((names, since)) = session.notify.as_ref().and_then(|notify| {
        notify.metadata_to_look_at(|id| concerns_all(event, before) || event.mailboxes.contains(&id))
    }) else {
        return Ok(());
    };
    let account = account(session)?;
    for name in names {
        let changed = match account.annotations(&name, Some(since)).await {
            Ok(changed) => changed,
            // Deleted or emptied a moment ago: its next event says so.
            Err(Error::NotFound(_) | Error::Invalid(_)) => continue,
            Err(error) => return Err(error.into()),
        };
        tell_names(&mut session.connection.output, &name, &changed);
    }
    if let Some(notify) = &mut session.notify {
        notify.metadata_told(event.modseq);
    }
    Ok(())
}

fn tell_names(out: &mut Output, mailbox: &str, changed: &[Annotation]) {
    if changed.is_empty() {
        return;
    }
    begin(out, mailbox);
    for one in changed {
        out.raw(b" ");
        out.astring(one.entry.as_bytes());
    }
    out.raw(b"\r\n");
}
