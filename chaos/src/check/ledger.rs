//! What a history says of changes and messages, put in order once for all checkers.
//!
//! Repeats of a call under one op id are one [`Change`]. A message has a [`Birth`], when an answer named its UID, and [`Removal`]s, which
//! are certain when an answer named it and possible when nobody knows. Only mailboxes that keep their name hold messages of the load.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Final, FinalMessage, History, Operation};
use crate::workload::{Answer, Call, Flags};

/// A change that was asked once or several times under one op id.
#[derive(Debug)]
pub(super) struct Change<'h> {
    pub account: u32,
    pub call: &'h Call,
    /// In the order in which they began.
    pub attempts: Vec<&'h Operation>,
}

impl<'h> Change<'h> {
    /// When it was asked first.
    pub fn invoked_us(&self) -> u64 {
        self.attempts.first().map_or(0, |first| first.invoked_us)
    }

    /// The attempt whose answer came first.
    pub fn done(&self) -> Option<&'h Operation> {
        let done = self.attempts.iter().filter(|attempt| attempt.outcome.done().is_some());
        done.min_by_key(|attempt| attempt.completed_us).copied()
    }

    /// What the first answer showed.
    pub fn answer(&self) -> Option<&'h Answer> {
        self.done()?.outcome.done()
    }

    /// Every attempt was refused: it must have had no effect.
    pub fn refused(&self) -> bool {
        self.attempts.iter().all(|attempt| attempt.outcome.is_refused())
    }

    /// It may have been done or not.
    pub fn unknown(&self) -> bool {
        self.done().is_none() && !self.refused()
    }

    /// Ids of its attempts.
    pub fn ids(&self) -> Vec<u64> {
        self.attempts.iter().map(|attempt| attempt.id).collect()
    }
}

/// How a message came into its mailbox, as an answer told it.
#[derive(Debug, Clone)]
pub(super) struct Birth {
    /// The change: its place in [`Ledger::changes`].
    pub change: usize,
    pub uid_validity: u32,
    /// The hash of its body; `None` for the copy of a message that nobody knows.
    pub hash: Option<String>,
    /// `None` for copies, which take the flags of their source.
    pub flags: Option<Flags>,
    /// `None` for copies.
    pub modseq: Option<u64>,
    /// When it was acknowledged.
    pub completed_us: u64,
    /// A copy or a moved message, whose source this is.
    pub source: Option<(String, u32)>,
}

/// What removed a message from its mailbox, or may have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Removal {
    pub change: usize,
    /// An answer said so.
    pub certain: bool,
    /// It cannot have been gone before.
    pub invoked_us: u64,
    /// If certain, it is gone after.
    pub completed_us: u64,
}

/// UIDs of one mailbox.
pub(super) type ByUid<T> = BTreeMap<u32, T>;
/// Account and mailbox.
pub(super) type MailboxKey = (u32, String);

/// Everything in order.
pub(super) struct Ledger<'h> {
    pub history: &'h History,
    pub changes: Vec<Change<'h>>,
    pub births: BTreeMap<MailboxKey, ByUid<Birth>>,
    pub removals: BTreeMap<MailboxKey, ByUid<Vec<Removal>>>,
    /// Two answers of different changes that named the same UID: operation ids.
    pub clashes: Vec<(MailboxKey, u32, Vec<u64>)>,
    /// Hashes of the bodies that somebody tried to store in each account, and the change.
    pub bodies: BTreeMap<(u32, &'h str), usize>,
}

impl<'h> Ledger<'h> {
    /// Of a history.
    pub fn of(history: &'h History) -> Ledger<'h> {
        let mut ledger = Ledger {
            history,
            changes: changes(history),
            births: BTreeMap::new(),
            removals: BTreeMap::new(),
            clashes: Vec::new(),
            bodies: BTreeMap::new(),
        };
        // A copy takes the body of its source, so births are entered in the order in which they were acknowledged.
        let mut order: Vec<usize> = (0..ledger.changes.len()).collect();
        order.sort_by_key(|&at| ledger.changes[at].done().map_or(u64::MAX, |done| done.completed_us));
        for at in order {
            ledger.enter(at);
        }
        ledger
    }

    fn enter(&mut self, at: usize) {
        let (account, call) = (self.changes[at].account, self.changes[at].call);
        if let Call::Deliver { body } | Call::Append { body, .. } = call {
            self.bodies.entry((account, body.hash.as_str())).or_insert(at);
        }
        match (call, self.changes[at].done()) {
            (Call::Deliver { .. } | Call::Append { .. }, Some(done)) => self.enter_stored(at, done),
            (Call::Copy { mailbox, to, .. } | Call::Move { mailbox, to, .. }, Some(done)) => {
                self.enter_copied(at, done, mailbox, to);
            }
            _ => {}
        }
        self.enter_removals(at);
    }

    fn enter_stored(&mut self, at: usize, done: &Operation) {
        let (mailbox, body, flags) = match self.changes[at].call {
            Call::Deliver { body } => ("INBOX", body, Flags::default()),
            Call::Append { mailbox, flags, body } => (mailbox.as_str(), body, flags.clone()),
            _ => return,
        };
        let Some(Answer::Stored {
            uid_validity,
            uid,
            modseq,
            ..
        }) = done.outcome.done()
        else {
            return;
        };
        let birth = Birth {
            change: at,
            uid_validity: *uid_validity,
            hash: Some(body.hash.clone()),
            flags: Some(flags),
            modseq: (*modseq > 0).then_some(*modseq),
            completed_us: done.completed_us,
            source: None,
        };
        // LMTP tells no UID.
        if *uid > 0 {
            self.born(done.account, mailbox, *uid, birth);
        }
    }

    fn enter_copied(&mut self, at: usize, done: &Operation, from: &str, to: &str) {
        let Some(Answer::Copied { uid_validity, pairs }) = done.outcome.done() else {
            return;
        };
        for (source, target) in pairs {
            let hash = self
                .birth(done.account, from, *source)
                .and_then(|birth| birth.hash.clone());
            let birth = Birth {
                change: at,
                uid_validity: *uid_validity,
                hash,
                flags: None,
                modseq: None,
                completed_us: done.completed_us,
                source: Some((from.to_owned(), *source)),
            };
            self.born(done.account, to, *target, birth);
        }
    }

    fn born(&mut self, account: u32, mailbox: &str, uid: u32, birth: Birth) {
        let key = (account, mailbox.to_owned());
        let here = self.births.entry(key.clone()).or_default();
        if let Some(other) = here.get(&uid).filter(|other| other.change != birth.change) {
            let mut ids = self.changes[other.change].ids();
            ids.extend(self.changes[birth.change].ids());
            self.clashes.push((key, uid, ids));
            return;
        }
        here.insert(uid, birth);
    }

    fn enter_removals(&mut self, at: usize) {
        let change = &self.changes[at];
        let (mailbox, uids) = match change.call {
            Call::Expunge { mailbox, uids } | Call::Move { mailbox, uids, .. } => (mailbox, uids),
            _ => return,
        };
        let done = change.done();
        let certain: BTreeSet<u32> = match done.and_then(|done| done.outcome.done()) {
            Some(Answer::Expunged { uids }) => uids.iter().copied().collect(),
            Some(Answer::Copied { pairs, .. }) => pairs.iter().map(|(from, _)| *from).collect(),
            Some(_) => BTreeSet::new(),
            None if change.refused() => BTreeSet::new(),
            None => uids.iter().copied().collect(),
        };
        let removal = Removal {
            change: at,
            certain: done.is_some(),
            invoked_us: change.invoked_us(),
            completed_us: done.map_or(u64::MAX, |done| done.completed_us),
        };
        let here = self.removals.entry((change.account, mailbox.clone())).or_default();
        for uid in certain {
            here.entry(uid).or_default().push(removal);
        }
    }

    /// How a message came.
    pub fn birth(&self, account: u32, mailbox: &str, uid: u32) -> Option<&Birth> {
        self.births.get(&(account, mailbox.to_owned()))?.get(&uid)
    }

    /// What removed it, or may have.
    pub fn removals(&self, account: u32, mailbox: &str, uid: u32) -> &[Removal] {
        let here = self.removals.get(&(account, mailbox.to_owned()));
        here.and_then(|here| here.get(&uid)).map_or(&[], Vec::as_slice)
    }

    /// Every message with a known birth.
    pub fn messages(&self) -> impl Iterator<Item = (&MailboxKey, u32, &Birth)> {
        let mailboxes = self.births.iter();
        mailboxes.flat_map(|(key, here)| here.iter().map(move |(uid, birth)| (key, *uid, birth)))
    }

    /// Does the mailbox keep its name?
    pub fn is_fixed(&self, mailbox: &str) -> bool {
        self.history.header.mailboxes.iter().any(|name| name == mailbox)
    }

    /// Calls that were answered.
    pub fn done(&self) -> impl Iterator<Item = (&'h Operation, &'h Answer)> {
        let operations = self.history.operations.iter();
        operations.filter_map(|operation| Some((operation, operation.outcome.done()?)))
    }
}

fn changes(history: &History) -> Vec<Change<'_>> {
    let mut changes: Vec<Change<'_>> = Vec::new();
    let mut known: BTreeMap<(u32, &str), usize> = BTreeMap::new();
    for operation in history.operations.iter().filter(|operation| operation.call.writes()) {
        let at = match operation.op.as_str() {
            "" => None,
            op => Some(*known.entry((operation.account, op)).or_insert(changes.len())),
        };
        match at.and_then(|at| changes.get_mut(at)) {
            Some(change) => change.attempts.push(operation),
            None => changes.push(Change {
                account: operation.account,
                call: &operation.call,
                attempts: vec![operation],
            }),
        }
    }
    changes
}

/// The messages of a final state by mailbox and UID.
pub(super) fn rows(last: &Final) -> BTreeMap<(&str, u32), &FinalMessage> {
    let mailboxes = last.mailboxes.iter();
    mailboxes
        .flat_map(|mailbox| {
            mailbox
                .messages
                .iter()
                .map(move |message| ((mailbox.name.as_str(), message.uid), message))
        })
        .collect()
}

/// Where a final state was read, in words.
pub(super) fn whence(last: &Final) -> String {
    match last.place {
        Some(place) => format!("account {} on node {place}", last.account),
        None => format!("account {}", last.account),
    }
}
