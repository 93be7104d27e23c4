//! What SELECT tells of a mailbox's messages, kept from one time to the next.
//!
//! Which UIDs there are and which is the first unseen depend on every message, and reading a row for each made the opening of a large mailbox
//! slow. But both follow from an older outline and from what changed since, and a mailbox whose HIGHESTMODSEQ is still the outline's
//! has not changed at all. So an outline is no state: whoever has none gets the same answer from the rows. What must never happen: an
//! outline of another history of the group, for MODSEQs are compared and nothing else.

use malle_proto::{AccountId, MailboxId, ModSeq, Uid};

use super::change::indexed;
use crate::shard::{Flags, UidRange, keys, rows, sets};
use crate::view::{Fault, Flow, View};

/// Changes that are worth following; beyond them the rows are read anew.
const STEPS_MAX: usize = 1_000;

/// The messages of a mailbox as of a MODSEQ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outline {
    /// Every UID.
    pub uids: Vec<UidRange>,
    /// Lowest UID without \Seen.
    pub first_unseen: Option<Uid>,
    /// HIGHESTMODSEQ of the mailbox then.
    pub(super) through: ModSeq,
}

/// A mailbox whose outline is wanted.
pub(super) struct Outlined<'a> {
    pub view: &'a dyn View,
    pub account: AccountId,
    pub mailbox: MailboxId,
    pub row: &'a rows::Mailbox,
}

impl Outlined<'_> {
    /// The outline now, from an older one where that is less work.
    pub fn now(&self, known: Option<&Outline>) -> Result<Outline, Fault> {
        let followed = match known {
            Some(known) => self.follow(known)?,
            None => None,
        };
        match followed {
            Some(outline) => Ok(outline),
            None => self.read_whole(),
        }
    }

    fn read_whole(&self) -> Result<Outline, Fault> {
        let (mut uids, mut first_unseen) = (Vec::new(), None);
        let range = keys::of_mailbox(self.account, keys::kind::STATE, self.mailbox);
        self.view.scan(&range.from, &range.to, &mut |key, value| {
            let uid = keys::uid_of(key).ok_or_else(rows::bad_key)?;
            sets::push(&mut uids, uid);
            if self.row.unseen > 0 && first_unseen.is_none() && is_unseen(value)? {
                first_unseen = Some(uid);
            }
            Ok(Flow::More)
        })?;
        Ok(self.of(uids, first_unseen))
    }

    fn of(&self, uids: Vec<UidRange>, first_unseen: Option<Uid>) -> Outline {
        Outline {
            uids,
            first_unseen,
            through: ModSeq(self.row.highest_modseq),
        }
    }

    /// `None` when too much has changed, or not all of it is known any more.
    fn follow(&self, known: &Outline) -> Result<Option<Outline>, Fault> {
        let now = ModSeq(self.row.highest_modseq);
        if known.through == now {
            return Ok(Some(known.clone()));
        }
        if known.through > now || known.through.0 < self.row.horizon {
            return Ok(None);
        }
        let (Some(changed), Some(gone)) = (
            self.since(keys::kind::CHANGE, known.through)?,
            self.since(keys::kind::TOMBSTONE, known.through)?,
        ) else {
            return Ok(None);
        };
        let mut uids = known.uids.clone();
        let highest = uids.last().map_or(Uid(0), |range| range.last);
        gone.iter().for_each(|uid| sets::remove(&mut uids, *uid));
        changed
            .iter()
            .filter(|uid| **uid > highest)
            .for_each(|uid| sets::push(&mut uids, *uid));
        let first_unseen = self.first_unseen(known.first_unseen, &changed, &gone)?;
        Ok(Some(self.of(uids, first_unseen)))
    }

    /// Messages in an index above `since`, rising; `None` when they are too many.
    fn since(&self, kind: u8, since: ModSeq) -> Result<Option<Vec<Uid>>, Fault> {
        let range = keys::modseqs(self.account, kind, self.mailbox, since, ModSeq(u64::MAX));
        let (entries, more) = indexed(self.view, range, STEPS_MAX)?;
        let mut uids: Vec<Uid> = entries.into_iter().map(|(_, uid)| uid).collect();
        uids.sort_unstable();
        Ok(more.is_none().then_some(uids))
    }

    fn first_unseen(&self, known: Option<Uid>, changed: &[Uid], gone: &[Uid]) -> Result<Option<Uid>, Fault> {
        if self.row.unseen == 0 {
            return Ok(None);
        }
        let mut first = None;
        for uid in changed {
            let state = self.view.get(&keys::state(self.account, self.mailbox, *uid))?;
            if is_unseen(&state.ok_or_else(|| rows::missing("state"))?)? {
                first = Some(*uid);
                break;
            }
        }
        let Some(known) = known else {
            return Ok(first);
        };
        let touched = [changed, gone].iter().any(|uids| uids.binary_search(&known).is_ok());
        if !touched {
            return Ok(Some(first.map_or(known, |first| first.min(known))));
        }
        if first.is_some_and(|first| first <= known) {
            return Ok(first);
        }
        // It was seen, or went: the next one comes after it, and may be one that did not change.
        let range = keys::of_mailbox(self.account, keys::kind::STATE, self.mailbox);
        let from = keys::state(self.account, self.mailbox, known);
        let mut next = None;
        self.view.scan(&from, &range.to, &mut |key, value| {
            if !is_unseen(value)? {
                return Ok(Flow::More);
            }
            next = Some(keys::uid_of(key).ok_or_else(rows::bad_key)?);
            Ok(Flow::Stop)
        })?;
        Ok(next)
    }
}

fn is_unseen(state: &[u8]) -> Result<bool, Fault> {
    let state: rows::State = rows::read(state, "state")?;
    Ok(state.flags.system & Flags::SEEN == 0)
}
