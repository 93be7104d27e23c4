//! I7: the flags of each message are a linearizable register.
//!
//! A message is judged by itself: its stores, and what linearizable reads showed of it. [`search`] looks for an order of them that agrees
//! with the clock and in which every answer is right; a message for which it must try too many orders is UNKNOWN.

mod search;

use std::collections::BTreeMap;

use super::ledger::{Change, Ledger, MailboxKey};
use super::{Evidence, Judge};
use crate::workload::{Answer, Call, Flags, FlagsMode, Freshness, Row};
use search::{Event, Kind, Register, Sought};

/// Orders tried for one message before the verdict is UNKNOWN. A message of the load has tens of events, most of them one after the other.
const STEPS_MAX: u64 = 500_000;
/// Different flags on one message: bits of [`search::Bits`]. The load uses seven.
const NAMES_MAX: usize = 32;

/// I7.
pub(super) fn linearizable(ledger: &Ledger<'_>) -> Judge {
    let mut judge = Judge::default();
    let mut undecided = 0;
    for ((key, uid), story) in stories(ledger) {
        if story.events.is_empty() {
            continue;
        }
        match search::order(&story.register, &story.events, STEPS_MAX) {
            Sought::Found => judge.holds(true, || Evidence::of("", &[], 0)),
            Sought::GaveUp => undecided += 1,
            Sought::None { stuck } => judge.holds(false, || {
                let at = stuck.iter().map(|event| event.completed_us).min().unwrap_or(0);
                let ids: Vec<u64> = stuck.iter().flat_map(|event| event.operations.clone()).collect();
                let what = format!(
                    "no order of the stores and reads of message {uid} of {} of account {} explains these",
                    key.1, key.0
                );
                Evidence::of(what, &ids, at)
            }),
        }
    }
    if undecided > 0 {
        judge.unknown = Some(format!("{undecided} messages need more than {STEPS_MAX} steps"));
    }
    judge
}

/// What happened to one message.
#[derive(Default)]
struct Story {
    names: Vec<String>,
    register: Register,
    events: Vec<Event>,
    too_many: bool,
}

impl Story {
    fn bits(&mut self, flags: &Flags) -> u32 {
        let mut bits = 0;
        for name in &flags.0 {
            let at = self.names.iter().position(|known| known == name).unwrap_or_else(|| {
                self.names.push(name.clone());
                self.names.len() - 1
            });
            self.too_many |= at >= NAMES_MAX;
            bits |= 1_u32.checked_shl(at as u32).unwrap_or(0);
        }
        bits
    }

    fn seen(&mut self, row: &Row) -> (u32, u64) {
        (self.bits(&row.flags), row.modseq)
    }
}

fn stories(ledger: &Ledger<'_>) -> BTreeMap<(MailboxKey, u32), Story> {
    let mut stories: BTreeMap<(MailboxKey, u32), Story> = BTreeMap::new();
    for (key, uid, birth) in ledger.messages() {
        let story = stories.entry((key.clone(), uid)).or_default();
        if let (Some(flags), Some(modseq)) = (&birth.flags, birth.modseq) {
            let bits = story.bits(flags);
            story.register = Register::known(bits, modseq);
        }
    }
    for change in &ledger.changes {
        if let Call::Store { .. } = change.call {
            add_store(change, &mut stories);
        }
    }
    for (operation, answer) in ledger.done() {
        if operation.call.fresh() != Some(Freshness::Linearizable) {
            continue;
        }
        let (Call::Fetch { mailbox, .. } | Call::Changes { mailbox, .. }) = &operation.call else {
            continue;
        };
        let (Answer::Fetched { rows, .. } | Answer::Changes { rows, .. }) = answer else {
            continue;
        };
        for row in rows {
            let story = stories
                .entry(((operation.account, mailbox.clone()), row.uid))
                .or_default();
            let (flags, modseq) = story.seen(row);
            story.events.push(Event {
                invoked_us: operation.invoked_us,
                completed_us: operation.completed_us,
                certain: true,
                kind: Kind::Read { flags, modseq },
                operations: vec![operation.id],
            });
        }
    }
    stories.retain(|_, story| !story.too_many);
    stories
}

/// A store becomes an event of each message that it reached, or may have reached.
fn add_store(change: &Change<'_>, stories: &mut BTreeMap<(MailboxKey, u32), Story>) {
    let Call::Store {
        mailbox,
        uids,
        mode,
        flags,
        unchanged_since,
    } = change.call
    else {
        return;
    };
    if change.refused() {
        return;
    }
    let done = change.done();
    let answer = done.and_then(|done| done.outcome.done());
    for uid in uids {
        let story = stories.entry(((change.account, mailbox.clone()), *uid)).or_default();
        let argument = story.bits(flags);
        let set = |seen| Kind::Set {
            mode: *mode,
            argument,
            since: *unchanged_since,
            seen,
        };
        let kind = match answer {
            Some(Answer::FlagsStored { rows, modified }) => match rows.iter().find(|row| row.uid == *uid) {
                Some(row) => {
                    let seen = story.seen(row);
                    set(Some(seen))
                }
                None if modified.contains(uid) => Kind::LeftAlone {
                    since: unchanged_since.unwrap_or(0),
                },
                // The message was gone.
                None => continue,
            },
            Some(_) => continue,
            None => set(None),
        };
        story.events.push(Event {
            invoked_us: change.invoked_us(),
            completed_us: done.map_or(u64::MAX, |done| done.completed_us),
            certain: done.is_some(),
            kind,
            operations: change.ids(),
        });
    }
}

/// The flags after a store.
fn after(mode: FlagsMode, flags: u32, argument: u32) -> u32 {
    match mode {
        FlagsMode::Add => flags | argument,
        FlagsMode::Remove => flags & !argument,
        FlagsMode::Replace => argument,
    }
}
