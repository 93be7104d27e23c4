//! Commands of the selected state (RFC 3501 6.4), except SEARCH and FETCH.

use malle_client::{Copied, Error, FlagsStored, ModSeq, Rights, Uid, UidRange};
use malle_proto::limits;

use super::super::parse::{SequenceSet, StoreCommand, Target};
use super::super::respond::{Answer, Failure, number_set};
use super::super::session::{Selected, Session};
use super::super::view::{Picked, expanded};
use super::{find_selectable, mailbox, writer};

/// RFC 3501 6.4.2: removes what is \Deleted, and tells nothing of it; without the right e nothing is removed, and the mailbox is closed all the
/// same (RFC 4314 4).
pub(super) async fn close(session: &mut Session) -> Result<Answer, Failure> {
    let (account, selected) = mailbox(session)?;
    if !selected.read_only && selected.rights.hold(Rights::EXPUNGE) {
        match account.expunge(selected.mailbox, &[]).await {
            // The right was taken back since.
            Ok(_) | Err(Error::Denied(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    session.selected = None;
    Ok(Answer::ok("Closed"))
}

/// RFC 3691: as CLOSE, but nothing is removed.
pub(super) fn unselect(session: &mut Session) -> Answer {
    session.selected = None;
    Answer::ok("Closed, nothing removed")
}

pub(super) fn writable(selected: &Selected) -> Result<(), Failure> {
    if selected.read_only {
        Err(Failure::no("READ-ONLY", "The mailbox is opened to be read only"))
    } else {
        Ok(())
    }
}

/// The messages that the command names.
pub(super) fn picked(selected: &Selected, target: &Target) -> Result<Picked, Failure> {
    selected
        .view
        .pick(target)
        .map_err(|_| Failure::bad("There is no message with this number"))
}

/// RFC 3501 6.4.3, UID EXPUNGE of RFC 4315.
pub(super) async fn expunge(session: &mut Session, uids: Option<SequenceSet>) -> Result<Answer, Failure> {
    let account = writer(session)?;
    let (_, selected) = mailbox(session)?;
    writable(selected)?;
    let vanished = match uids {
        None => account.expunge(selected.mailbox, &[]).await?,
        Some(set) => {
            let picked = picked(selected, &Target { by_uid: true, set })?;
            let mut vanished = Vec::new();
            // Never an empty set: the store would take it for all of them. `chunks` gives none.
            for ranges in selected.view.ranges(&picked).chunks(limits::UID_RANGES_PER_COMMAND_MAX) {
                vanished.extend(account.expunge(selected.mailbox, ranges).await?);
            }
            vanished
        }
    };
    selected.view.lose(&vanished);
    Ok(Answer::ok("Expunged"))
}

/// RFC 3501 6.4.6, RFC 7162 3.1.3.
pub(super) async fn store(session: &mut Session, target: &Target, command: StoreCommand) -> Result<Answer, Failure> {
    session.condstore |= command.unchanged_since.is_some();
    let condstore = session.condstore;
    let account = writer(session)?;
    let (_, selected) = mailbox(session)?;
    writable(selected)?;
    let picked = picked(selected, target)?;
    let StoreCommand {
        unchanged_since,
        mode,
        silent,
        flags,
    } = command;
    let mut modified = Vec::new();
    let mut reached = 0;
    let (id, ranges) = (selected.mailbox, selected.view.ranges(&picked));
    for ranges in ranges.chunks(limits::UID_RANGES_PER_COMMAND_MAX) {
        let done = account.store(id, ranges, mode, flags.clone(), unchanged_since).await?;
        reached += done.stored.len();
        modified.extend_from_slice(&done.modified);
        tell_stored(session, target.by_uid || session.qresync, silent, condstore, done);
        session.connection.flush_if_much().await?;
    }
    let (_, selected) = mailbox(session)?;
    let mut answer = Answer::ok("Stored");
    if !modified.is_empty() {
        let set = if target.by_uid {
            uids(&modified)
        } else {
            numbers(selected, &modified)
        };
        answer = Answer::ok("Some messages changed before").with_code(format!("MODIFIED {set}"));
    } else if reached < picked.count() {
        answer = some_are_gone();
    }
    Ok(answer)
}

/// RFC 5530 EXPUNGEISSUED: the command was done for those that are there.
pub(super) fn some_are_gone() -> Answer {
    Answer::ok("Some of the messages are gone").with_code("EXPUNGEISSUED")
}

fn uids(uids: &[UidRange]) -> String {
    number_set(expanded(uids).map(|uid| uid.0))
}

fn numbers(selected: &Selected, uids: &[UidRange]) -> String {
    let numbers = expanded(uids).filter_map(|uid| selected.view.number(uid));
    number_set(numbers.filter_map(|number| u32::try_from(number).ok()))
}

/// FETCH answers of a STORE. Silent ones still tell the MODSEQ to a client that knows it (RFC 7162 3.1.3).
fn tell_stored(session: &mut Session, by_uid: bool, silent: bool, condstore: bool, done: FlagsStored) {
    let out = &mut session.connection.output;
    let Some(selected) = session.selected.as_mut() else {
        return;
    };
    for message in done.stored {
        let Some(number) = selected.view.number(message.uid) else {
            continue;
        };
        selected.view.tell(message.uid, message.modseq);
        if silent && !condstore {
            continue;
        }
        out.put(format_args!("* {number} FETCH ("));
        let mut separator = "";
        if by_uid {
            out.put(format_args!("UID {}", message.uid));
            separator = " ";
        }
        if condstore {
            out.put(format_args!("{separator}MODSEQ ({})", message.modseq));
            separator = " ";
        }
        if !silent {
            out.put(format_args!("{separator}FLAGS "));
            out.flags(&message.flags);
        }
        out.raw(b")\r\n");
    }
}

/// RFC 3501 6.4.7 and MOVE of RFC 6851, both with the COPYUID of RFC 4315.
pub(super) async fn copy(session: &mut Session, target: &Target, name: &str, remove: bool) -> Result<Answer, Failure> {
    let account = writer(session)?;
    let (_, selected) = mailbox(session)?;
    if remove {
        writable(selected)?;
    }
    let picked = picked(selected, target)?;
    let from = selected.mailbox;
    let to = find_selectable(&*account, name, "TRYCREATE").await?;
    if remove && to == from {
        return Err(Failure::no("CANNOT", "The messages are in this mailbox already"));
    }
    let mut all = Copied::default();
    let mut failed = None;
    for ranges in selected.view.ranges(&picked).chunks(limits::UID_RANGES_PER_COMMAND_MAX) {
        let done = if remove {
            account.move_messages(from, ranges, to).await
        } else {
            account.copy(from, ranges, to).await
        };
        match done {
            Ok(copied) => {
                all.uid_validity = copied.uid_validity;
                all.pairs.extend(copied.pairs);
            }
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    if remove {
        let moved: Vec<UidRange> = all
            .pairs
            .iter()
            .map(|&(uid, _)| UidRange { first: uid, last: uid })
            .collect();
        selected.view.lose(&moved);
    }
    let code = (!all.pairs.is_empty()).then(|| copy_uid(&all));
    if remove && let Some(code) = &code {
        // RFC 6851 4.3: COPYUID comes before the EXPUNGEs, so untagged.
        session.connection.output.untagged(format_args!("OK [{code}] Moved"));
    }
    match (failed, code) {
        (Some(Error::NotFound(_)), _) => Err(Failure::no("TRYCREATE", "There is no such mailbox")),
        (Some(error), _) => Err(error.into()),
        (None, Some(code)) if !remove => Ok(Answer::ok("Copied").with_code(code)),
        (None, _) if all.pairs.len() < picked.count() => Ok(some_are_gone()),
        (None, _) => Ok(Answer::ok("Done")),
    }
}

fn copy_uid(copied: &Copied) -> String {
    let from = number_set(copied.pairs.iter().map(|&(Uid(from), _)| from));
    let to = number_set(copied.pairs.iter().map(|&(_, Uid(to))| to));
    format!("COPYUID {} {from} {to}", copied.uid_validity)
}

/// The MODSEQ that stands for "any" in a fetch.
pub(in super::super) const ANY_MODSEQ: ModSeq = ModSeq(0);
