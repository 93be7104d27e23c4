//! Wire types become the machine's, and back. Everything a caller can say wrong is found here, before it costs anything.

use std::time::Duration;

use malle_machine::shard::{self, read};
use malle_proto::v1;
use malle_proto::{AccountId, MailboxId, ModSeq, OpId, Uid, limits};

use super::error::Refused;
use crate::bodies::{CollectReport, ScrubReport};
use crate::raft::Barrier;

/// Wire form of an id.
pub(super) fn account(bytes: &[u8]) -> Result<AccountId, Refused> {
    AccountId::try_from(bytes).map_err(|error| Refused::invalid(error.to_string()))
}

pub(super) fn mailbox(bytes: &[u8]) -> Result<MailboxId, Refused> {
    MailboxId::try_from(bytes).map_err(|error| Refused::invalid(error.to_string()))
}

pub(super) fn op_id(bytes: &[u8]) -> Result<OpId, Refused> {
    OpId::try_from(bytes).map_err(|error| Refused::invalid(error.to_string()))
}

/// A barrier for reads of this account.
pub(super) fn barrier(consistency: Option<v1::Consistency>, account: AccountId) -> Barrier {
    match consistency.and_then(|consistency| consistency.kind) {
        None | Some(v1::consistency::Kind::Linearizable(_)) => Barrier::Linearizable,
        Some(v1::consistency::Kind::AtLeastModseq(modseq)) => Barrier::AtLeast {
            account,
            modseq: ModSeq(modseq),
        },
        Some(v1::consistency::Kind::StaleMs(age)) => Barrier::Stale(Duration::from_millis(u64::from(age))),
    }
}

fn keyword_is_atom(keyword: &str) -> bool {
    // RFC 9051 flag-keyword: an atom that does not begin with a backslash.
    !keyword.is_empty()
        && keyword.len() <= limits::KEYWORD_MAX_BYTES
        && keyword
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !br#"(){%*"\]"#.contains(&byte))
}

/// Flags, their keywords sorted and without doubles.
pub(super) fn flags(flags: Option<v1::Flags>) -> Result<shard::Flags, Refused> {
    let flags = flags.unwrap_or_default();
    let system = u8::try_from(flags.system).unwrap_or(u8::MAX);
    if system & !shard::Flags::SYSTEM != 0 {
        return Err(Refused::invalid("a system flag that does not exist"));
    }
    if flags.keywords.len() > limits::KEYWORDS_PER_MESSAGE_MAX {
        return Err(Refused::limit(format!(
            "{} keywords are the limit of a message",
            limits::KEYWORDS_PER_MESSAGE_MAX
        )));
    }
    if let Some(bad) = flags.keywords.iter().find(|keyword| !keyword_is_atom(keyword)) {
        return Err(Refused::invalid(format!(
            "not a keyword: {}",
            bad.chars().take(40).collect::<String>()
        )));
    }
    let mut keywords = flags.keywords;
    keywords.sort_by_key(|keyword| keyword.to_ascii_lowercase());
    keywords.dedup_by(|a, b| a.eq_ignore_ascii_case(b));
    Ok(shard::Flags { system, keywords })
}

pub(super) fn flags_out(flags: shard::Flags) -> v1::Flags {
    v1::Flags {
        system: u32::from(flags.system),
        keywords: flags.keywords,
    }
}

/// A UID set: sorted, touching ranges joined.
pub(super) fn uids(ranges: &[v1::UidRange]) -> Result<Vec<shard::UidRange>, Refused> {
    if ranges.len() > limits::UID_RANGES_PER_COMMAND_MAX {
        return Err(Refused::limit(format!(
            "{} UID ranges are the limit of a command",
            limits::UID_RANGES_PER_COMMAND_MAX
        )));
    }
    if ranges.iter().any(|range| range.first == 0 || range.first > range.last) {
        return Err(Refused::invalid(
            "a UID range runs from a UID of 1 or more to one that is not lower",
        ));
    }
    let mut sorted: Vec<(u32, u32)> = ranges.iter().map(|range| (range.first, range.last)).collect();
    sorted.sort_unstable();
    let mut joined: Vec<shard::UidRange> = Vec::with_capacity(sorted.len());
    for (first, last) in sorted {
        match joined.last_mut() {
            Some(before) if first <= before.last.0.saturating_add(1) => before.last.0 = before.last.0.max(last),
            _ => joined.push(shard::UidRange {
                first: Uid(first),
                last: Uid(last),
            }),
        }
    }
    Ok(joined)
}

pub(super) fn uids_out(ranges: Vec<shard::UidRange>) -> Vec<v1::UidRange> {
    ranges
        .into_iter()
        .map(|range| v1::UidRange {
            first: range.first.0,
            last: range.last.0,
        })
        .collect()
}

pub(super) fn special_use(number: i32) -> Result<shard::SpecialUse, Refused> {
    use shard::SpecialUse as Machine;
    use v1::SpecialUse as Wire;
    match Wire::try_from(number) {
        Ok(Wire::None) => Ok(Machine::None),
        Ok(Wire::Inbox) => Ok(Machine::Inbox),
        Ok(Wire::Sent) => Ok(Machine::Sent),
        Ok(Wire::Drafts) => Ok(Machine::Drafts),
        Ok(Wire::Trash) => Ok(Machine::Trash),
        Ok(Wire::Junk) => Ok(Machine::Junk),
        Ok(Wire::Archive) => Ok(Machine::Archive),
        Ok(Wire::Flagged) => Ok(Machine::Flagged),
        Ok(Wire::All) => Ok(Machine::All),
        Err(_) => Err(Refused::invalid(format!("special use {number} is unknown here"))),
    }
}

fn special_use_out(special_use: shard::SpecialUse) -> v1::SpecialUse {
    use shard::SpecialUse as Machine;
    use v1::SpecialUse as Wire;
    match special_use {
        Machine::None => Wire::None,
        Machine::Inbox => Wire::Inbox,
        Machine::Sent => Wire::Sent,
        Machine::Drafts => Wire::Drafts,
        Machine::Trash => Wire::Trash,
        Machine::Junk => Wire::Junk,
        Machine::Archive => Wire::Archive,
        Machine::Flagged => Wire::Flagged,
        Machine::All => Wire::All,
    }
}

pub(super) fn store_mode(number: i32) -> Result<shard::StoreMode, Refused> {
    match v1::StoreMode::try_from(number) {
        Ok(v1::StoreMode::Add) => Ok(shard::StoreMode::Add),
        Ok(v1::StoreMode::Remove) => Ok(shard::StoreMode::Remove),
        Ok(v1::StoreMode::Replace) => Ok(shard::StoreMode::Replace),
        Ok(v1::StoreMode::Unspecified) | Err(_) => Err(Refused::invalid("a store adds, removes or replaces")),
    }
}

pub(super) fn mailbox_change(change: Option<v1::mailbox_change::Change>) -> Result<shard::MailboxChange, Refused> {
    use v1::mailbox_change::Change;
    Ok(match change {
        Some(Change::Create(create)) => shard::MailboxChange::Create {
            name: create.name,
            special_use: special_use(create.special_use)?,
        },
        Some(Change::Rename(rename)) => shard::MailboxChange::Rename {
            from: rename.from,
            to: rename.to,
        },
        Some(Change::Delete(delete)) => shard::MailboxChange::Delete { name: delete.name },
        Some(Change::Subscribe(subscribe)) => shard::MailboxChange::Subscribe {
            name: subscribe.name,
            subscribed: subscribe.subscribed,
        },
        Some(Change::SpecialUse(change)) => shard::MailboxChange::SpecialUse {
            name: change.name,
            special_use: special_use(change.special_use)?,
        },
        Some(Change::Annotate(annotate)) => shard::MailboxChange::Annotate {
            name: annotate.name,
            entries: annotate
                .entries
                .into_iter()
                .map(|annotation| (annotation.entry, annotation.value))
                .collect(),
        },
        Some(Change::Grant(grant)) => shard::MailboxChange::Grant {
            name: grant.name,
            guest: account(&grant.guest)?,
            mode: store_mode(grant.mode)?,
            rights: u16::try_from(grant.rights).map_err(|_| Refused::invalid("a right that is not known"))?,
        },
        None => return Err(Refused::invalid("a mailbox change of no known kind")),
    })
}

/// The end of the year 9999: RFC 9051 date-time has four digits for it.
const INTERNAL_DATE_MAX_MS: u64 = 253_402_300_799_999;

pub(super) fn internal_date(time_ms: u64, zone_minutes: i32) -> Result<Option<shard::InternalDate>, Refused> {
    if time_ms == 0 {
        return Ok(None);
    }
    if time_ms > INTERNAL_DATE_MAX_MS {
        return Err(Refused::invalid("a date has a year of four digits"));
    }
    match i16::try_from(zone_minutes) {
        Ok(zone_minutes) if zone_minutes.abs() < 24 * 60 => Ok(Some(shard::InternalDate { time_ms, zone_minutes })),
        _ => Err(Refused::invalid("a zone is less than a day from UTC")),
    }
}

pub(super) fn delivered(stored: shard::Stored) -> v1::Delivered {
    v1::Delivered {
        mailbox: stored.mailbox.to_vec().into(),
        uid_validity: stored.uid_validity.0,
        uid: stored.uid.0,
        modseq: stored.modseq.0,
        repeated: stored.repeated,
    }
}

pub(super) fn message_flags(flags: Vec<shard::MessageFlags>) -> Vec<v1::MessageFlags> {
    flags
        .into_iter()
        .map(|row| v1::MessageFlags {
            uid: row.uid.0,
            modseq: row.modseq.0,
            flags: Some(flags_out(row.flags)),
        })
        .collect()
}

pub(super) fn mailbox_out(mailbox: read::Mailbox) -> v1::Mailbox {
    v1::Mailbox {
        id: mailbox.id.to_vec().into(),
        name: mailbox.name,
        uid_validity: mailbox.uid_validity.0,
        uid_next: mailbox.uid_next.0,
        highest_modseq: mailbox.highest_modseq.0,
        messages: mailbox.messages,
        unseen: mailbox.unseen,
        size_bytes: mailbox.size_bytes,
        special_use: special_use_out(mailbox.special_use).into(),
        subscribed: mailbox.subscribed,
        no_select: mailbox.no_select,
        deleted: mailbox.deleted,
        rights: None,
    }
}

pub(super) fn changes_out(found: read::Changes) -> v1::ChangesReply {
    v1::ChangesReply {
        mailbox: Some(mailbox_out(found.mailbox)),
        changed: message_flags(found.changed),
        vanished: uids_out(found.vanished),
        through_modseq: found.through.0,
        cannot_calculate: found.cannot_calculate,
        keywords: found.keywords,
    }
}

pub(super) fn message_out(message: read::Message, summary: bytes::Bytes) -> v1::Message {
    v1::Message {
        uid: message.uid.0,
        modseq: message.modseq.0,
        flags: Some(flags_out(message.flags)),
        size_bytes: message.size,
        internal_date_ms: message.internal_date.time_ms,
        internal_date_zone_minutes: i32::from(message.internal_date.zone_minutes),
        save_date_ms: message.save_date_ms,
        email_id: message.email_id.to_vec().into(),
        thread_id: message.thread_id.to_vec().into(),
        summary,
    }
}

/// One recipient's outcome.
pub(super) fn recipient_outcome(outcome: Result<shard::Stored, shard::Refusal>) -> v1::RecipientOutcome {
    use v1::recipient_outcome::Outcome;
    let outcome = match outcome {
        Ok(stored) => Outcome::Delivered(delivered(stored)),
        Err(refusal) => Outcome::Error(Refused::from(refusal).0),
    };
    v1::RecipientOutcome { outcome: Some(outcome) }
}

/// What the scrub has done, for the wire.
pub(super) fn scrub(report: ScrubReport) -> v1::ScrubStatus {
    v1::ScrubStatus {
        running: report.running,
        started_ms: report.started_ms,
        bodies: report.bodies,
        bytes: report.bytes,
        rounds: report.rounds,
        finished_ms: report.finished_ms,
        took_ms: report.took_ms,
        rotten: report.rotten,
        unreadable: report.unreadable,
        absent: report.absent,
        repaired: report.repaired,
        open: report.open,
    }
}

/// What collection has done, for the wire.
pub(super) fn collect(report: CollectReport) -> v1::CollectStatus {
    v1::CollectStatus {
        rounds: report.rounds,
        finished_ms: report.finished_ms,
        freed: report.freed,
        freed_bytes: report.freed_bytes,
        carried_bytes: report.carried_bytes,
        volumes_freed: report.volumes_freed,
        volumes_freed_bytes: report.volumes_freed_bytes,
        volume_bytes: report.volume_bytes,
        garbage_bytes: report.garbage_bytes,
        stuck: report.stuck,
    }
}

#[cfg(test)]
mod tests {
    use super::{flags, internal_date, uids};
    use malle_proto::v1::{Flags, UidRange};

    fn range(first: u32, last: u32) -> UidRange {
        UidRange { first, last }
    }

    #[test]
    fn uid_sets_are_sorted_and_joined_and_nonsense_is_refused() {
        let set = uids(&[
            range(7, 9),
            range(1, 3),
            range(4, 5),
            range(u32::MAX, u32::MAX),
            range(2, 8),
        ])
        .unwrap();
        let set: Vec<(u32, u32)> = set.iter().map(|range| (range.first.0, range.last.0)).collect();
        assert_eq!(set, [(1, 9), (u32::MAX, u32::MAX)]);
        assert!(uids(&[range(0, 1)]).is_err());
        assert!(uids(&[range(5, 4)]).is_err());
        assert!(uids(&vec![range(1, 1); 2_001]).is_err());
    }

    #[test]
    fn keywords_are_atoms_once_each() {
        let said = |keywords: &[&str]| {
            flags(Some(Flags {
                system: 1,
                keywords: keywords.iter().map(ToString::to_string).collect(),
            }))
        };
        assert_eq!(said(&["b", "$Label1", "B"]).unwrap().keywords, ["$Label1", "b"]);
        for bad in ["", "\\Seen", "a b", "x\"", "é", "(", "]"] {
            assert!(said(&[bad]).is_err(), "{bad}");
        }
        assert!(
            flags(Some(Flags {
                system: 32,
                keywords: vec![]
            }))
            .is_err()
        );
    }

    #[test]
    fn a_zone_is_less_than_a_day_away() {
        assert!(internal_date(1, 24 * 60).is_err());
        assert!(internal_date(u64::MAX, 0).is_err());
        assert!(internal_date(253_402_300_799_999, 0).is_ok());
        assert!(internal_date(0, 0).unwrap().is_none());
        assert_eq!(internal_date(5, -90).unwrap().unwrap().zone_minutes, -90);
    }
}
