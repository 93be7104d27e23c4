//! The life of a shard as commands, from a seed: what tests and measurements feed to a machine.
//!
//! [`Sample::day`] is the mix of an ordinary day: mail comes in, most of it is read, some is moved, some deleted. The other calls are
//! its parts, and the hardest thing that a shard can be asked: flags on as many messages as one command may touch. The body of each mail
//! is its summary once more ([`body_of`]), for those who want bodies to be there. Nothing in `malled` calls this; it stands here because it is pure and every crate above needs the same mail.

use bytes::Bytes;
use malle_proto::{AccountId, BodyHash, EmailId, MailboxId, OpId, ThreadId, Uid, limits};

use super::{AccountGrant, BodyPut, Flags, NewMail, Op, Recipient, SpecialUse, StoreMode, Summary, UidRange};

/// Accounts, and what is in their INBOXes.
#[derive(Debug, Clone)]
pub struct Sample {
    chance: u64,
    accounts: Vec<Account>,
    /// Deliveries so far.
    pub delivered: u64,
}

#[derive(Debug, Clone)]
struct Account {
    id: AccountId,
    mailboxes: [MailboxId; 6],
    /// Messages that INBOX ever got: their UIDs are 1 to this.
    inbox: u32,
}

impl Sample {
    /// So many accounts. The same seed gives the same commands.
    pub fn new(seed: u64, accounts: usize) -> Sample {
        let mut sample = Sample {
            chance: seed,
            accounts: Vec::with_capacity(accounts),
            delivered: 0,
        };
        for _ in 0..accounts {
            let account = Account {
                id: AccountId(sample.bytes()),
                mailboxes: std::array::from_fn(|_| MailboxId(sample.bytes())),
                inbox: 0,
            };
            sample.accounts.push(account);
        }
        sample
    }

    /// Opens all accounts; to be proposed before anything else.
    pub fn open(&self) -> Vec<Op> {
        let mut ops = Vec::new();
        let mut through = 0;
        for some in self.accounts.chunks(100) {
            through += some.len() as u64;
            let accounts = some
                .iter()
                .map(|account| AccountGrant {
                    account: account.id,
                    quota_bytes: u64::MAX / 2,
                    suspended: false,
                    mailboxes: account.mailboxes,
                })
                .collect();
            ops.push(Op::OpenAccounts { accounts, through });
        }
        ops
    }

    /// One command of an ordinary day: of 100, 45 are mails for one account and 5 for several, 35 mark a message as read, 5 a page of
    /// them, 7 move one, 3 mark one for deletion.
    pub fn day(&mut self) -> Op {
        match self.below(100) {
            0..45 => self.deliver(1),
            45..50 => {
                let recipients = 2 + self.below(8) as usize;
                self.deliver(recipients)
            }
            50..85 => self.flag(1, Flags::SEEN),
            85..90 => self.flag(50, Flags::SEEN),
            90..97 => self.relocate(),
            _ => self.flag(1, Flags::DELETED),
        }
    }

    /// One mail to the INBOXes of so many accounts.
    pub fn deliver(&mut self, recipients: usize) -> Op {
        let first = self.below(self.accounts.len() as u64) as usize;
        let recipients = recipients
            .min(self.accounts.len())
            .min(limits::RECIPIENTS_PER_COMMAND_MAX);
        let recipients = (first..first + recipients)
            .map(|number| {
                let number = number % self.accounts.len();
                self.accounts[number].inbox += 1;
                self.delivered += 1;
                Recipient {
                    account: self.accounts[number].id,
                    op_id: OpId(self.bytes()),
                    into: SpecialUse::Inbox,
                    email_id: EmailId(self.bytes()),
                    fresh_thread: ThreadId(self.bytes()),
                }
            })
            .collect();
        let mail = self.mail();
        Op::Deliver { recipients, mail }
    }

    fn mail(&mut self) -> NewMail {
        let references = self.below(3);
        let summary = self.summary();
        NewMail {
            body: BodyPut {
                hash: BodyHash(*blake3::hash(&summary).as_bytes()),
                size: summary.len() as u64,
                epoch: 0,
            },
            summary: Summary::Inline(summary),
            email_id: EmailId([0; 16]),
            fresh_thread: ThreadId([0; 16]),
            thread_keys: (0..=references).map(|_| self.bytes()).collect(),
        }
    }

    /// Names and words out of a small stock, and numbers that no other mail has: about 500 bytes that compress like a summary's.
    fn summary(&mut self) -> Bytes {
        const WORDS: [&str; 16] = [
            "réunion", "compte", "rendu", "projet", "budget", "dossier", "lundi", "service", "urgent", "facture",
            "région", "mise", "à", "jour", "planning", "congés",
        ];
        let mut text = String::with_capacity(600);
        for field in ["From", "To", "Reply-To", "Sender"] {
            let person = self.below(5_000);
            text.push_str(&format!(
                "{field} Agent {person} agent{person}@region{}.example.org ",
                person % 13
            ));
        }
        for _ in 0..40 {
            text.push_str(WORDS[self.below(16) as usize]);
            text.push(' ');
        }
        let own: [u8; 16] = self.bytes();
        text.push_str(&format!("<{:032x}@mail.example.org>", u128::from_le_bytes(own)));
        text.push_str(" text/plain utf-8 quoted-printable ");
        Bytes::from(text)
    }

    /// An account that has mail, and as many of its newest messages as there are, up to `count`.
    fn some_messages(&mut self, count: u32) -> Option<(usize, UidRange)> {
        let start = self.below(self.accounts.len() as u64) as usize;
        let number = (start..start + self.accounts.len())
            .map(|number| number % self.accounts.len())
            .find(|number| self.accounts[*number].inbox > 0)?;
        let inbox = self.accounts[number].inbox;
        let last = inbox - self.below(u64::from(inbox / 2).max(1)) as u32;
        let range = UidRange {
            first: Uid(last.saturating_sub(count - 1).max(1)),
            last: Uid(last),
        };
        Some((number, range))
    }

    /// Sets or takes away these system flags on up to `count` messages of one INBOX. Delivers when nobody has mail.
    pub fn flag(&mut self, count: u32, system: u8) -> Op {
        let Some((number, range)) = self.some_messages(count) else {
            return self.deliver(1);
        };
        let mode = if self.below(4) == 0 {
            StoreMode::Remove
        } else {
            StoreMode::Add
        };
        self.store(number, range, mode, system)
    }

    /// Turns a flag on every message of one INBOX, or of its newest as one command may touch: the most rows for a byte of log.
    pub fn flag_as_many_as_may_be(&mut self, mode: StoreMode) -> Op {
        let Some((number, range)) = self.some_messages(limits::MESSAGES_PER_COMMAND_MAX as u32) else {
            return self.deliver(1);
        };
        self.store(number, range, mode, Flags::FLAGGED)
    }

    fn store(&mut self, number: usize, range: UidRange, mode: StoreMode, system: u8) -> Op {
        Op::Store {
            account: self.accounts[number].id,
            op_id: OpId(self.bytes()),
            mailbox: self.accounts[number].mailboxes[0],
            uids: vec![range],
            mode,
            flags: Flags {
                system,
                keywords: Vec::new(),
            },
            unchanged_since: None,
        }
    }

    /// Moves one message to Archive. Delivers when nobody has mail.
    pub fn relocate(&mut self) -> Op {
        let Some((number, range)) = self.some_messages(1) else {
            return self.deliver(1);
        };
        Op::Copy {
            account: self.accounts[number].id,
            op_id: OpId(self.bytes()),
            mailbox: self.accounts[number].mailboxes[0],
            uids: vec![range],
            to: self.accounts[number].mailboxes[5],
            remove: true,
        }
    }

    /// Removes what is marked for deletion from one INBOX.
    pub fn expunge(&mut self) -> Op {
        let number = self.below(self.accounts.len() as u64) as usize;
        Op::Expunge {
            account: self.accounts[number].id,
            op_id: OpId(self.bytes()),
            mailbox: self.accounts[number].mailboxes[0],
            uids: Vec::new(),
        }
    }

    /// SplitMix64: the commands follow from the seed alone.
    fn next(&mut self) -> u64 {
        self.chance = self.chance.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.chance;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, below: u64) -> u64 {
        self.next() % below
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        for some in bytes.chunks_mut(8) {
            let drawn = self.next().to_le_bytes();
            some.copy_from_slice(&drawn[..some.len()]);
        }
        bytes
    }
}

/// The body that a sampled delivery names.
pub fn body_of(op: &Op) -> Option<(BodyHash, Bytes)> {
    match op {
        Op::Deliver {
            mail:
                NewMail {
                    body,
                    summary: Summary::Inline(bytes),
                    ..
                },
            ..
        } => Some((body.hash, bytes.clone())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Command, Outcome, apply, audit};
    use super::*;
    use crate::MemoryView;

    #[test]
    fn a_sampled_shard_refuses_little_and_adds_up() {
        let mut sample = Sample::new(1, 20);
        let mut view = MemoryView::default();
        let (mut refused, mut asked) = (0, 0);
        let opened = sample.open();
        let mut run = |op| {
            let command = Command { time_ms: 1_000_000, op };
            let (outcome, writes) = apply(&view, &command).unwrap();
            view.commit(&writes);
            asked += 1;
            refused += u32::from(matches!(outcome, Outcome::Refused(_)));
        };
        opened.into_iter().for_each(&mut run);
        for round in 0..1_500 {
            run(sample.day());
            if round % 10 == 0 {
                run(sample.flag_as_many_as_may_be(StoreMode::Add));
                run(sample.expunge());
            }
        }
        assert!(sample.delivered > 700, "{}", sample.delivered);
        assert!(refused * 20 < asked, "{refused} of {asked} refused");
        assert_eq!(audit(&view).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn the_same_seed_gives_the_same_commands() {
        let commands = |seed| -> Vec<Op> {
            let mut sample = Sample::new(seed, 3);
            (0..50).map(|_| sample.day()).collect()
        };
        assert_eq!(commands(7), commands(7));
        assert_ne!(commands(7), commands(8));
    }
}
