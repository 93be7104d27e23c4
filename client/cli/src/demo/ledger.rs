//! What was promised and what is there: the books that `--check` balances.
//!
//! Every mail is entered before it is sent; an entry becomes acknowledged by a 250 and by nothing else. A reading of all mailboxes is
//! then held against the entries. Pure: no network, no clock.

use std::collections::BTreeMap;

/// One mail to one account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    /// Of the bytes that must be stored, Return-Path included.
    hash: blake3::Hash,
    acknowledged: bool,
    spam: bool,
}

/// Everything that was sent, by account and mail id.
#[derive(Debug, Default)]
pub struct Ledger {
    entries: BTreeMap<(u32, String), Entry>,
}

/// Where a mail lies.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// u1 is 1.
    pub account: u32,
    /// Its name.
    pub mailbox: &'static str,
    /// UIDVALIDITY.
    pub uid_validity: u32,
    /// UID.
    pub uid: u32,
}

/// All mails of all accounts as they were read.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Reading {
    found: BTreeMap<Place, (String, blake3::Hash)>,
}

/// The balance.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Balance {
    /// Mails sent, one for each recipient.
    pub deliveries: usize,
    /// Answered 250.
    pub acknowledged: usize,
    /// Acknowledged and not there.
    pub lost: usize,
    /// Copies too many, acknowledged or not.
    pub doubled: usize,
    /// There, and not the bytes that were sent.
    pub changed: usize,
    /// There, but in the wrong mailbox, or never sent to this account.
    pub misplaced: usize,
    /// The first few troubles in words.
    pub details: Vec<String>,
}

impl Balance {
    /// Nothing is wrong.
    pub fn is_even(&self) -> bool {
        (self.lost, self.doubled, self.changed, self.misplaced) == (0, 0, 0, 0)
    }

    fn tell(&mut self, trouble: String) {
        if self.details.len() < 20 {
            self.details.push(trouble);
        }
    }
}

impl Ledger {
    /// A mail that is about to be sent for the first time. `stored` is what must be found later.
    pub fn enter(&mut self, account: u32, id: &str, stored: blake3::Hash, spam: bool) {
        self.entries.insert(
            (account, id.to_owned()),
            Entry {
                hash: stored,
                acknowledged: false,
                spam,
            },
        );
    }

    /// It was answered 250.
    pub fn acknowledge(&mut self, account: u32, id: &str) {
        if let Some(entry) = self.entries.get_mut(&(account, id.to_owned())) {
            entry.acknowledged = true;
        }
    }

    /// Deliveries that were not acknowledged.
    pub fn unacknowledged(&self) -> usize {
        self.entries.values().filter(|entry| !entry.acknowledged).count()
    }

    /// Holds a reading against the entries.
    pub fn balance(&self, reading: &Reading) -> Balance {
        let mut balance = Balance {
            deliveries: self.entries.len(),
            ..Balance::default()
        };
        let mut copies: BTreeMap<(u32, &str), usize> = BTreeMap::new();
        for (place, (id, hash)) in &reading.found {
            let Some(entry) = self.entries.get(&(place.account, id.clone())) else {
                balance.misplaced += 1;
                balance.tell(format!("{place:?} holds {id}, which was never sent there"));
                continue;
            };
            *copies.entry((place.account, id)).or_default() += 1;
            if entry.hash != *hash {
                balance.changed += 1;
                balance.tell(format!("{id} in {place:?} is not what was sent"));
            }
            let mailbox = if entry.spam { "Junk" } else { "INBOX" };
            if place.mailbox != mailbox {
                balance.misplaced += 1;
                balance.tell(format!("{id} lies in {place:?}, not in {mailbox}"));
            }
        }
        for ((account, id), entry) in &self.entries {
            let count = copies.get(&(*account, id.as_str())).copied().unwrap_or(0);
            balance.acknowledged += usize::from(entry.acknowledged);
            if entry.acknowledged && count == 0 {
                balance.lost += 1;
                balance.tell(format!("{id} for u{account} was acknowledged and is not there"));
            }
            if count > 1 {
                balance.doubled += count - 1;
                balance.tell(format!("{id} for u{account} is there {count} times"));
            }
        }
        balance
    }
}

impl Reading {
    /// A mail was found.
    pub fn found(&mut self, place: Place, id: String, hash: blake3::Hash) {
        self.found.insert(place, (id, hash));
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.found.len()
    }

    /// Mails of this reading that do not lie under the same UID in a later one.
    pub fn moved_in(&self, later: &Reading) -> usize {
        self.found
            .iter()
            .filter(|(place, mail)| later.found.get(place) != Some(mail))
            .count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(account: u32, mailbox: &'static str, uid: u32) -> Place {
        Place {
            account,
            mailbox,
            uid_validity: 1,
            uid,
        }
    }

    fn ledger() -> Ledger {
        let mut ledger = Ledger::default();
        for id in ["a", "b"] {
            ledger.enter(1, id, blake3::hash(id.as_bytes()), false);
        }
        ledger.enter(2, "spam", blake3::hash(b"spam"), true);
        ledger.acknowledge(1, "a");
        ledger.acknowledge(2, "spam");
        ledger
    }

    fn reading(found: &[(Place, &str, &[u8])]) -> Reading {
        let mut reading = Reading::default();
        for (place, id, bytes) in found {
            reading.found(place.clone(), (*id).to_owned(), blake3::hash(bytes));
        }
        reading
    }

    #[test]
    fn an_unacknowledged_mail_may_be_there_or_not() {
        let there = reading(&[
            (place(1, "INBOX", 1), "a", b"a"),
            (place(1, "INBOX", 2), "b", b"b"),
            (place(2, "Junk", 1), "spam", b"spam"),
        ]);
        let balance = ledger().balance(&there);
        assert!(balance.is_even(), "{balance:?}");
        assert_eq!((balance.deliveries, balance.acknowledged), (3, 2));
        let absent = reading(&[
            (place(1, "INBOX", 1), "a", b"a"),
            (place(2, "Junk", 1), "spam", b"spam"),
        ]);
        assert!(ledger().balance(&absent).is_even());
    }

    #[test]
    fn every_kind_of_trouble_is_counted() {
        let wrong = reading(&[
            (place(1, "INBOX", 1), "b", b"b"),
            (place(1, "INBOX", 2), "b", b"B"),
            (place(2, "INBOX", 1), "spam", b"spam"),
            (place(2, "INBOX", 2), "a", b"a"),
        ]);
        let balance = ledger().balance(&wrong);
        assert_eq!(
            (balance.lost, balance.doubled, balance.changed, balance.misplaced),
            (1, 1, 1, 2)
        );
        assert_eq!(balance.details.len(), 5);
    }

    #[test]
    fn a_mail_under_another_uid_has_moved() {
        let before = reading(&[(place(1, "INBOX", 1), "a", b"a"), (place(1, "INBOX", 2), "b", b"b")]);
        let after = reading(&[(place(1, "INBOX", 1), "a", b"a"), (place(1, "INBOX", 3), "b", b"b")]);
        assert_eq!(before.moved_in(&after), 1);
        assert_eq!(before.moved_in(&before), 0);
    }
}
