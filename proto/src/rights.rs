//! Rights to a mailbox of somebody else (RFC 4314 2.1).

use std::fmt;

/// A set of rights, one bit each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rights(pub u16);

/// Letters in the order of their bits.
const LETTERS: &str = "lrswipkxtea";

impl Rights {
    /// None at all.
    pub const NONE: Rights = Rights(0);
    /// l: the mailbox is seen by LIST and may be subscribed.
    pub const LOOKUP: Rights = Rights(1);
    /// r: SELECT, FETCH, SEARCH, COPY from it, STATUS.
    pub const READ: Rights = Rights(1 << 1);
    /// s: \Seen may be changed.
    pub const SEEN: Rights = Rights(1 << 2);
    /// w: flags other than \Seen and \Deleted may be changed.
    pub const WRITE: Rights = Rights(1 << 3);
    /// i: APPEND, COPY into it.
    pub const INSERT: Rights = Rights(1 << 4);
    /// k: mailboxes may be made below it.
    pub const CREATE: Rights = Rights(1 << 6);
    /// x: it may be deleted and renamed.
    pub const DELETE_MAILBOX: Rights = Rights(1 << 7);
    /// t: \Deleted may be changed.
    pub const DELETE_MESSAGES: Rights = Rights(1 << 8);
    /// e: EXPUNGE.
    pub const EXPUNGE: Rights = Rights(1 << 9);
    /// a: rights may be given and taken away.
    pub const ADMINISTER: Rights = Rights(1 << 10);
    /// Every one.
    pub const ALL: Rights = Rights((1 << 11) - 1);

    /// Whether every right of `wanted` is among these.
    pub fn hold(self, wanted: Rights) -> bool {
        self.0 & wanted.0 == wanted.0
    }

    /// These and those.
    #[must_use]
    pub fn and(self, others: Rights) -> Rights {
        Rights(self.0 | others.0)
    }

    /// These without those.
    #[must_use]
    pub fn without(self, others: Rights) -> Rights {
        Rights(self.0 & !others.0)
    }

    /// From letters; the old `c` means k and x, the old `d` means t and e (RFC 4314 2.1.1). `None` for a letter that is no right.
    pub fn parse(letters: &str) -> Option<Rights> {
        letters.chars().try_fold(Rights::NONE, |rights, letter| {
            let more = match letter {
                'c' => Rights::CREATE.and(Rights::DELETE_MAILBOX),
                'd' => Rights::DELETE_MESSAGES.and(Rights::EXPUNGE),
                _ => Rights(1 << LETTERS.find(letter)?),
            };
            Some(rights.and(more))
        })
    }

    /// Each right as a set of its own.
    pub fn each(self) -> impl Iterator<Item = Rights> {
        (0..LETTERS.len())
            .map(|bit| Rights(1 << bit))
            .filter(move |one| self.hold(*one))
    }
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        LETTERS
            .char_indices()
            .filter(|(bit, _)| self.0 & (1 << bit) != 0)
            .try_for_each(|(_, letter)| write!(f, "{letter}"))
    }
}

#[cfg(test)]
mod tests {
    use super::Rights;

    #[test]
    fn letters_are_rights_and_back_and_the_old_ones_are_understood() {
        assert_eq!(Rights::parse("lrswipkxtea"), Some(Rights::ALL));
        assert_eq!(Rights::ALL.to_string(), "lrswipkxtea");
        assert_eq!(Rights::parse("cd"), Rights::parse("kxte"));
        assert_eq!(Rights::parse("lz"), None);
        assert_eq!(Rights::parse("rl").map(|rights| rights.to_string()), Some("lr".into()));
        assert_eq!(Rights::ALL.each().count(), 11);
    }
}
