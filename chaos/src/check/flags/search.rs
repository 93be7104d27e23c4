//! The search of Wing and Gong, with the memory of Lowe, for one register of flags with its MODSEQ.
//!
//! An event may be next if nothing that is still to come had ended before it began. The search tries them in turn, steps back when an
//! answer does not fit, and never enters the same set of events in the same state twice. Bounded by steps, not by a clock: the same history
//! gets the same verdict on every machine. (porcupine-rs does the same search; it stops by the clock and brings a benchmark framework.)

use std::collections::HashSet;

use super::after;
use crate::workload::FlagsMode;

/// What an event did or saw.
#[derive(Debug, Clone)]
pub(super) enum Kind {
    /// A store, and flags and MODSEQ in its answer.
    Set {
        mode: FlagsMode,
        argument: u32,
        /// Only if MODSEQ is at most this.
        since: Option<u64>,
        seen: Option<(u32, u64)>,
    },
    /// A store that left the message alone because MODSEQ was above.
    LeftAlone { since: u64 },
    /// A linearizable read.
    Read { flags: u32, modseq: u64 },
}

/// One event of a message.
#[derive(Debug, Clone)]
pub(super) struct Event {
    pub invoked_us: u64,
    /// `u64::MAX` when nobody knows.
    pub completed_us: u64,
    /// It was answered; others may have had no effect.
    pub certain: bool,
    pub kind: Kind,
    /// For the evidence.
    pub operations: Vec<u64>,
}

/// What is known of flags and MODSEQ.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct Register {
    /// `None`: not known, as for a copy.
    flags: Option<u32>,
    /// MODSEQ when `exact`; else MODSEQ is above this.
    modseq: u64,
    exact: bool,
}

impl Register {
    /// As an answer told it.
    pub fn known(flags: u32, modseq: u64) -> Register {
        Register {
            flags: Some(flags),
            modseq,
            exact: true,
        }
    }

    /// Can MODSEQ be this now?
    fn may_be(&self, modseq: u64) -> bool {
        if self.exact {
            modseq == self.modseq
        } else {
            modseq > self.modseq
        }
    }

    /// After this event, or `None` when its answer cannot be.
    fn step(self, kind: &Kind) -> Option<Register> {
        match *kind {
            Kind::Read { flags, modseq } => {
                let fits = self.flags.is_none_or(|known| known == flags) && self.may_be(modseq);
                fits.then(|| Register::known(flags, modseq))
            }
            Kind::LeftAlone { since } => (!self.exact || self.modseq > since).then_some(self),
            Kind::Set {
                mode,
                argument,
                since,
                seen,
            } => {
                let allowed = since.is_none_or(|since| {
                    if self.exact {
                        self.modseq <= since
                    } else {
                        self.modseq < since
                    }
                });
                match (allowed, seen) {
                    (false, Some(_)) => None,
                    (false, None) => Some(self),
                    (true, Some((flags, modseq))) => self.set_seen(mode, argument, flags, modseq),
                    (true, None) => Some(self.set_unseen(mode, argument)),
                }
            }
        }
    }

    fn set_seen(self, mode: FlagsMode, argument: u32, flags: u32, modseq: u64) -> Option<Register> {
        let fits = match self.flags {
            Some(before) => {
                let now = after(mode, before, argument);
                // A store that changes nothing keeps the MODSEQ.
                now == flags
                    && if now == before {
                        self.may_be(modseq)
                    } else {
                        modseq > self.modseq
                    }
            }
            None => after(mode, flags, argument) == flags && (self.may_be(modseq) || modseq > self.modseq),
        };
        fits.then(|| Register::known(flags, modseq))
    }

    fn set_unseen(self, mode: FlagsMode, argument: u32) -> Register {
        match self.flags {
            Some(before) if after(mode, before, argument) == before => self,
            known => Register {
                flags: known.map(|before| after(mode, before, argument)),
                modseq: self.modseq,
                exact: false,
            },
        }
    }
}

/// What the search found.
#[derive(Debug)]
pub(super) enum Sought<'e> {
    /// An order that explains everything.
    Found,
    /// None does. The events that fitted nowhere at the deepest point.
    None { stuck: Vec<&'e Event> },
    /// It took too long.
    GaveUp,
}

/// One level of the search: events that may be next, which of them is tried now, and the state before it.
struct Level {
    candidates: Vec<usize>,
    tried: usize,
    before: Register,
    chosen: Option<usize>,
}

/// Looks for an order of the events.
pub(super) fn order<'e>(start: &Register, events: &'e [Event], steps_max: u64) -> Sought<'e> {
    let mut events: Vec<&Event> = events.iter().collect();
    events.sort_by_key(|event| (event.invoked_us, event.completed_us));
    let mut taken = vec![false; events.len()];
    let mut seen: HashSet<(Vec<bool>, Register)> = HashSet::new();
    let level = |taken: &[bool], before| Level {
        candidates: candidates(&events, taken),
        tried: 0,
        before,
        chosen: None,
    };
    let (mut deepest, mut stuck, mut steps) = (0, Vec::new(), 0_u64);
    let mut levels = vec![level(&taken, *start)];
    while let Some(now) = levels.last_mut() {
        if let Some(chosen) = now.chosen.take() {
            taken[chosen] = false;
        }
        let before = now.before;
        let Some(&next) = now.candidates.get(now.tried) else {
            let depth = levels.len();
            if depth > deepest {
                deepest = depth;
                stuck = levels.last().map_or_else(Vec::new, |level| level.candidates.clone());
            }
            levels.pop();
            continue;
        };
        now.tried += 1;
        steps += 1;
        if steps > steps_max {
            return Sought::GaveUp;
        }
        let Some(state) = before.step(&events[next].kind) else {
            continue;
        };
        taken[next] = true;
        now.chosen = Some(next);
        if events.iter().zip(&taken).all(|(event, taken)| *taken || !event.certain) {
            return Sought::Found;
        }
        if seen.insert((taken.clone(), state)) {
            levels.push(level(&taken, state));
        }
    }
    let stuck = stuck
        .into_iter()
        .filter(|&at| events[at].certain)
        .map(|at| events[at])
        .collect();
    Sought::None { stuck }
}

/// Events that may be next: not taken, and begun before the end of each that is left.
fn candidates(events: &[&Event], taken: &[bool]) -> Vec<usize> {
    let left = || events.iter().enumerate().filter(|(at, _)| !taken[*at]);
    let first_end_us = left().map(|(_, event)| event.completed_us).min().unwrap_or(u64::MAX);
    let open = left().take_while(|(_, event)| event.invoked_us <= first_end_us);
    let mut candidates: Vec<usize> = open.map(|(at, _)| at).collect();
    // What was answered first: it is most often next.
    candidates.sort_by_key(|&at| events[at].completed_us);
    candidates
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(from: u64, to: u64, kind: Kind) -> Event {
        Event {
            invoked_us: from,
            completed_us: to,
            certain: to != u64::MAX,
            kind,
            operations: vec![from],
        }
    }

    fn add(from: u64, to: u64, argument: u32, seen: Option<(u32, u64)>) -> Event {
        let kind = Kind::Set {
            mode: FlagsMode::Add,
            argument,
            since: None,
            seen,
        };
        event(from, to, kind)
    }

    fn read(from: u64, to: u64, flags: u32, modseq: u64) -> Event {
        event(from, to, Kind::Read { flags, modseq })
    }

    fn sought(events: &[Event]) -> &'static str {
        match order(&Register::known(0, 1), events, 10_000) {
            Sought::Found => "found",
            Sought::None { .. } => "none",
            Sought::GaveUp => "gave up",
        }
    }

    #[test]
    fn stores_of_two_clients_at_once_have_an_order() {
        assert_eq!(
            sought(&[add(0, 10, 1, Some((3, 3))), add(0, 10, 2, Some((2, 2)))]),
            "found"
        );
    }

    #[test]
    fn a_lost_flag_has_no_order() {
        assert_eq!(
            sought(&[add(0, 10, 1, Some((1, 2))), add(0, 10, 2, Some((2, 3)))]),
            "none"
        );
    }

    #[test]
    fn a_stale_read_has_no_order() {
        assert_eq!(sought(&[add(0, 10, 1, Some((1, 2))), read(11, 12, 0, 1)]), "none");
        assert_eq!(sought(&[add(0, 10, 1, Some((1, 2))), read(9, 12, 0, 1)]), "found");
    }

    #[test]
    fn a_store_without_an_answer_may_be_done_late_or_never() {
        let unknown = || add(0, u64::MAX, 1, None);
        assert_eq!(sought(&[unknown(), read(5, 6, 0, 1), read(7, 8, 1, 2)]), "found");
        assert_eq!(sought(&[unknown(), read(5, 6, 0, 1)]), "found");
        assert_eq!(sought(&[unknown(), read(5, 6, 1, 2), read(7, 8, 0, 1)]), "none");
    }

    #[test]
    fn a_store_that_changes_nothing_keeps_the_modseq() {
        assert_eq!(
            sought(&[add(0, 1, 1, Some((1, 2))), add(2, 3, 1, Some((1, 2)))]),
            "found"
        );
        assert_eq!(
            sought(&[add(0, 1, 1, Some((1, 2))), add(2, 3, 1, Some((1, 3)))]),
            "none"
        );
    }

    #[test]
    fn a_conditional_store_is_refused_only_when_the_message_changed() {
        let left = |since| event(2, 3, Kind::LeftAlone { since });
        assert_eq!(sought(&[add(0, 1, 1, Some((1, 5))), left(4)]), "found");
        assert_eq!(sought(&[add(0, 1, 1, Some((1, 5))), left(5)]), "none");
    }

    #[test]
    fn too_many_orders_are_given_up() {
        let mut many: Vec<Event> = (0..20).map(|bit| add(0, u64::MAX, 1 << bit, None)).collect();
        many.push(read(5, 6, 1 << 25, 9));
        assert_eq!(sought(&many), "gave up");
    }
}
