//! What a client remembers of the answers that it got: which messages it may pick for the next call. Bounded: it forgets the oldest.

use std::collections::BTreeMap;

use super::call::{Answer, Call, Flags, Row};

/// Messages of one mailbox that a client remembers.
const MESSAGES_MAX: usize = 128;

/// A client's memory.
#[derive(Debug, Default)]
pub(super) struct Memory {
    mailboxes: BTreeMap<(u32, String), Known>,
    /// Highest MODSEQ of each account that an answer showed.
    modseqs: BTreeMap<u32, u64>,
    /// Mailboxes that this client made and that are still there as far as it knows.
    pub made: Vec<(u32, String)>,
}

/// What is known of one mailbox.
#[derive(Debug, Default, Clone)]
pub(super) struct Known {
    /// By UID.
    pub messages: BTreeMap<u32, (u64, Flags)>,
    /// Complete up to here, by this client's own changes calls.
    pub synced: u64,
}

impl Memory {
    /// What is known of a mailbox.
    pub fn of(&self, account: u32, mailbox: &str) -> Known {
        self.mailboxes
            .get(&(account, mailbox.to_owned()))
            .cloned()
            .unwrap_or_default()
    }

    /// The highest MODSEQ of the account that this client has seen.
    pub fn modseq(&self, account: u32) -> u64 {
        self.modseqs.get(&account).copied().unwrap_or(0)
    }

    /// Mailboxes that this client follows by asking for changes: account, name, complete up to here.
    pub fn followed(&self) -> Vec<(u32, String, u64)> {
        let followed = self.mailboxes.iter().filter(|(_, known)| known.synced > 0);
        followed
            .map(|((account, name), known)| (*account, name.clone(), known.synced))
            .collect()
    }

    fn saw(&mut self, account: u32, modseq: u64) {
        let highest = self.modseqs.entry(account).or_default();
        *highest = (*highest).max(modseq);
    }

    fn known(&mut self, account: u32, mailbox: &str) -> &mut Known {
        self.mailboxes.entry((account, mailbox.to_owned())).or_default()
    }

    fn rows(&mut self, account: u32, mailbox: &str, rows: &[Row]) {
        for row in rows {
            self.saw(account, row.modseq);
            let known = self.known(account, mailbox);
            known.messages.insert(row.uid, (row.modseq, row.flags.clone()));
            if known.messages.len() > MESSAGES_MAX {
                known.messages.pop_first();
            }
        }
    }

    fn gone(&mut self, account: u32, mailbox: &str, uids: impl IntoIterator<Item = u32>) {
        let known = self.known(account, mailbox);
        for uid in uids {
            known.messages.remove(&uid);
        }
    }

    /// Takes in an answer.
    pub fn learn(&mut self, account: u32, call: &Call, answer: &Answer) {
        match (call, answer) {
            (Call::Deliver { .. }, Answer::Stored { uid, modseq, .. }) if *uid > 0 => {
                self.rows(account, "INBOX", &[row(*uid, *modseq, Flags::default())]);
            }
            (Call::Append { mailbox, flags, .. }, Answer::Stored { uid, modseq, .. }) if *uid > 0 => {
                self.rows(account, mailbox, &[row(*uid, *modseq, flags.clone())]);
            }
            (Call::Store { mailbox, .. }, Answer::FlagsStored { rows, .. })
            | (Call::Fetch { mailbox, .. }, Answer::Fetched { rows, .. }) => self.rows(account, mailbox, rows),
            (Call::Expunge { mailbox, .. }, Answer::Expunged { uids }) => {
                self.gone(account, mailbox, uids.iter().copied());
            }
            (Call::Move { mailbox, .. }, Answer::Copied { pairs, .. }) => {
                self.gone(account, mailbox, pairs.iter().map(|(from, _)| *from));
            }
            (
                Call::Changes { mailbox, .. },
                Answer::Changes {
                    mailbox: now,
                    rows,
                    vanished,
                    ..
                },
            ) => {
                self.rows(account, mailbox, rows);
                self.gone(account, mailbox, vanished.iter().copied());
                // A replica that is behind tells nothing new and takes nothing back.
                let known = self.known(account, mailbox);
                known.synced = known.synced.max(now.highest_modseq);
            }
            (_, Answer::Status { modseq, .. }) => self.saw(account, *modseq),
            (Call::Create { name } | Call::Rename { to: name, .. }, Answer::Changed) => {
                self.made.push((account, name.clone()));
            }
            _ => {}
        }
    }
}

fn row(uid: u32, modseq: u64, flags: Flags) -> Row {
    Row {
        uid,
        modseq,
        flags,
        size_bytes: None,
    }
}
