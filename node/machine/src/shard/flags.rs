//! STORE: flags as deltas, so that two clients that set different flags at once both have their way (decision 7).

use malle_proto::{MailboxId, ModSeq, Uid, limits};

use super::apply::Step;
use super::edit::Edit;
use super::rights::Reach;
use super::{Flags, FlagsStored, MessageFlags, Outcome, Refusal, StoreMode, UidRange, keywords, messages, sets};
use crate::controls::{self, Control};

/// Bytes of an outcome that a message takes beside its keywords: UID, MODSEQ, bits and lengths at their longest.
const MESSAGE_BYTES: usize = 18;
/// Bytes that a UID of `modified` takes at most, as a range of its own.
const MODIFIED_BYTES: usize = 10;

/// What a STORE wants.
pub(super) struct Change<'a> {
    pub(super) mode: StoreMode,
    pub(super) flags: &'a Flags,
    /// Flags beyond it stay as they are.
    pub(super) reach: Reach,
}

/// Changes flags. A message that has them already keeps its MODSEQ; one whose MODSEQ is above `unchanged_since` is left alone whatever
/// its flags are (RFC 7162 3.1.3). Stops early, with `resume_from`, at the bound of messages or of the outcome's length.
pub(super) fn store(
    edit: &mut Edit<'_, '_>,
    mailbox: MailboxId,
    uids: &[UidRange],
    wanted: &Change<'_>,
    unchanged_since: Option<ModSeq>,
) -> Step<Outcome> {
    let (mode, reach) = (wanted.mode, wanted.reach);
    let asked = keywords::normalise(wanted.flags)?;
    let mut change = reach.within(&asked);
    if reach == Reach::NONE || (change == Flags::default() && asked != change) {
        // RFC 4314 4: refused only when nothing of it may be done.
        return Err(Refusal::NoRight("s, w or t".into()).into());
    }
    let ranges = sets::normalise(uids)?;
    let mut mailbox = edit.mailbox(mailbox)?;
    let (found, mut resume_from) = messages::find(edit, mailbox.id, &ranges, limits::MESSAGES_PER_COMMAND_MAX)?;
    if !found.is_empty() && mode != StoreMode::Remove {
        change.keywords = keywords::spell(edit, &mut mailbox, &change.keywords)?;
        keywords::sort(&mut change.keywords);
    }
    let (mut stored, mut modified): (Vec<MessageFlags>, Vec<Uid>) = (Vec::new(), Vec::new());
    let mut bytes = 0;
    for (uid, state) in found {
        let fresh = unchanged_since.is_some_and(|since| state.modseq > since.0);
        let flags = match fresh {
            true => None,
            false => Some(changed(&state.flags, mode, &change, reach)),
        };
        bytes += flags.as_ref().map_or(MODIFIED_BYTES, outcome_bytes);
        if bytes > limits::OUTCOME_MAX_BYTES {
            resume_from = Some(uid);
            break;
        }
        let Some(flags) = flags else {
            modified.push(uid);
            continue;
        };
        keywords::require_bounded(&flags)?;
        let dropped = mode == StoreMode::Remove && controls::is_on(Control::DropFlagDelta);
        let modseq = match flags == state.flags || dropped {
            true => ModSeq(state.modseq),
            false => messages::reflag(edit, &mut mailbox, uid, &state, &flags)?,
        };
        stored.push(MessageFlags { uid, modseq, flags });
    }
    edit.save(&mailbox);
    Ok(Outcome::FlagsStored(FlagsStored {
        stored,
        modified: sets::of_rising(modified),
        resume_from,
        modseq: edit.modseq(),
    }))
}

fn changed(old: &Flags, mode: StoreMode, change: &Flags, reach: Reach) -> Flags {
    match mode {
        StoreMode::Replace => Flags {
            system: (old.system & !reach.system) | change.system,
            keywords: match reach.keywords {
                true => change.keywords.clone(),
                false => old.keywords.clone(),
            },
        },
        StoreMode::Add => {
            let mut keywords: Vec<String> = old.keywords.iter().chain(&change.keywords).cloned().collect();
            keywords::sort(&mut keywords);
            Flags {
                system: old.system | change.system,
                keywords,
            }
        }
        StoreMode::Remove => {
            let goes = |word: &String| change.keywords.iter().any(|other| other.eq_ignore_ascii_case(word));
            Flags {
                system: old.system & !change.system,
                keywords: old.keywords.iter().filter(|word| !goes(word)).cloned().collect(),
            }
        }
    }
}

fn outcome_bytes(flags: &Flags) -> usize {
    MESSAGE_BYTES + flags.keywords.iter().map(|word| word.len() + 2).sum::<usize>()
}
