//! Commands that change something.

use bytes::Bytes;
use malle_machine::shard::{
    AccountGrant, Arriving, BodyPut, InternalDate, MailboxChange, NewMail, Op, Outcome, Recipient, Refusal, SpecialUse,
    StoreMode, Stored, Summary,
};
use malle_proto::{AccountId, EmailId, MailboxId, ModSeq, OpId, ThreadId, Uid};

use super::ShardPlayer;
use super::names;
use crate::script_format::Line;

impl ShardPlayer {
    /// A name that nothing has yet.
    fn draw(&mut self, prefix: &str) -> String {
        self.drawn += 1;
        format!("{prefix}{}", self.drawn)
    }

    fn op_id(&mut self, line: &mut Line) -> OpId {
        let name = line.optional("op").unwrap_or_else(|| self.draw("op"));
        names::op_id(&name)
    }

    fn fresh_mailboxes<const N: usize>(&mut self) -> [MailboxId; N] {
        std::array::from_fn(|_| MailboxId(names::thread_key(&self.draw("box"))))
    }

    /// accounts NAME.. [quota=BYTES] [through=N] [suspended=yes]
    pub fn open_accounts(&mut self, line: &mut Line) -> Result<String, String> {
        let quota_bytes = line.optional_number("quota")?.unwrap_or(1_000_000);
        let through = line.optional_number("through")?.unwrap_or(0);
        let suspended = line.optional("suspended").is_some_and(|value| value == "yes");
        let mut accounts = Vec::new();
        while let Some(name) = line.optional_word() {
            accounts.push(AccountGrant {
                account: names::account(&name),
                quota_bytes,
                suspended,
                mailboxes: self.fresh_mailboxes(),
            });
            if !self.accounts.contains(&name) {
                self.accounts.push(name);
            }
        }
        let outcome = self.apply(Op::OpenAccounts { accounts, through })?;
        self.show(None, outcome)
    }

    /// body=NAME [size=] [epoch=] [keys=a,b] [beside=NAME]
    fn mail(&mut self, line: &mut Line) -> Result<NewMail, String> {
        let epoch = line.optional_number("epoch")?.unwrap_or(0);
        let body = BodyPut {
            hash: names::body(&line.named("body")?),
            size: line.optional_number("size")?.unwrap_or(100),
            epoch,
        };
        let summary = match line.optional("beside") {
            None => Summary::Inline(Bytes::from_static(b"summary")),
            Some(name) => Summary::Beside(BodyPut {
                hash: names::body(&name),
                size: 5000,
                epoch,
            }),
        };
        let keys = line.optional("keys").unwrap_or_default();
        let (email_id, fresh_thread) = self.ids();
        Ok(NewMail {
            body,
            summary,
            email_id,
            fresh_thread,
            thread_keys: keys
                .split(',')
                .filter(|key| !key.is_empty())
                .map(names::thread_key)
                .collect(),
        })
    }

    fn ids(&mut self) -> (EmailId, ThreadId) {
        let email_id = EmailId(names::thread_key(&self.draw("email")));
        (email_id, ThreadId(names::thread_key(&self.draw("thread"))))
    }

    /// deliver ACCOUNT[:USE].. op=NAME mail..: each recipient's op id is NAME and its account.
    pub fn deliver(&mut self, line: &mut Line) -> Result<String, String> {
        let mail = self.mail(line)?;
        let op = line.optional("op").unwrap_or_else(|| self.draw("op"));
        let mut recipients = Vec::new();
        while let Some(word) = line.optional_word() {
            let (name, into) = word.split_once(':').unwrap_or((&word, "Inbox"));
            let (email_id, fresh_thread) = self.ids();
            recipients.push(Recipient {
                account: names::account(name),
                op_id: names::op_id(&format!("{op}-{name}")),
                into: names::special_use(into)?,
                email_id,
                fresh_thread,
            });
        }
        let accounts: Vec<AccountId> = recipients.iter().map(|recipient| recipient.account).collect();
        let outcomes = match self.apply(Op::Deliver { recipients, mail })? {
            Outcome::Delivered(outcomes) => outcomes,
            other => return self.show(None, other),
        };
        let shown: Vec<String> = accounts
            .into_iter()
            .zip(outcomes)
            .map(|(account, outcome)| {
                format!(
                    "{}: {}",
                    names::account_name(account),
                    self.show_stored(account, outcome)
                )
            })
            .collect();
        Ok(shown.join("\n"))
    }

    fn show_stored(&self, account: AccountId, stored: Result<Stored, Refusal>) -> String {
        match stored {
            Err(refusal) => format!("refused: {refusal}"),
            Ok(stored) => {
                let receipt = if stored.repeated { " (receipt)" } else { "" };
                let mailbox = self.name_of(account, stored.mailbox);
                format!(
                    "{mailbox} {} uid={} modseq={}{receipt}",
                    stored.uid_validity, stored.uid, stored.modseq
                )
            }
        }
    }

    /// append ACCOUNT MAILBOX mail.. [flags=] [date=MS]
    pub fn append(&mut self, line: &mut Line) -> Result<String, String> {
        let account = names::account(&line.word("an account")?);
        let mailbox = self.mailbox_word(account, line, "a mailbox")?;
        let date: Option<u64> = line.optional_number("date")?;
        let op = Op::Append {
            account,
            op_id: self.op_id(line),
            mailbox,
            flags: names::flags(&line.optional("flags").unwrap_or_default()),
            internal_date: date.map(|time_ms| InternalDate {
                time_ms,
                zone_minutes: 60,
            }),
            mail: self.mail(line)?,
        };
        let outcome = self.apply(op)?;
        self.show(Some(account), outcome)
    }

    /// append-all ACCOUNT MAILBOX BODY[:SIZE].. [flags=] [epoch=] [replaces=MAILBOX:UID]
    pub fn append_all(&mut self, line: &mut Line) -> Result<String, String> {
        let account = names::account(&line.word("an account")?);
        let mailbox = self.mailbox_word(account, line, "a mailbox")?;
        let flags = names::flags(&line.optional("flags").unwrap_or_default());
        let epoch = line.optional_number("epoch")?.unwrap_or(0);
        let op_id = self.op_id(line);
        let replaces = match line.optional("replaces") {
            None => None,
            Some(text) => {
                let (name, uid) = text.split_once(':').ok_or("replaces=MAILBOX:UID")?;
                let uid = uid.parse().map_err(|_| format!("{uid} is no UID"))?;
                Some((self.mailbox_named(account, name)?, Uid(uid)))
            }
        };
        let mut messages = Vec::new();
        while let Some(word) = line.optional_word() {
            let (name, size) = word.split_once(':').unwrap_or((&word, "100"));
            let text = format!("body={name} size={size} epoch={epoch}");
            messages.push(Arriving {
                flags: flags.clone(),
                internal_date: None,
                mail: self.mail(&mut Line::parse(line.number, &text)?)?,
            });
        }
        let op = Op::AppendAll {
            account,
            op_id,
            mailbox,
            messages,
            replaces,
        };
        match self.apply(op)? {
            Outcome::AppendedAll(all) => {
                let lines: Vec<String> = all
                    .into_iter()
                    .map(|stored| self.show_stored(account, Ok(stored)))
                    .collect();
                Ok(lines.join("\n"))
            }
            other => self.show(Some(account), other),
        }
    }

    /// annotate ACCOUNT NAME|- ENTRY~VALUE|ENTRY..: without a value the entry goes; - is the account itself.
    pub fn annotate(&mut self, line: &mut Line) -> Result<String, String> {
        let account = names::account(&line.word("an account")?);
        let name = line.word("a name or -")?;
        let op_id = self.op_id(line);
        let mut entries = Vec::new();
        while let Some(word) = line.optional_word() {
            let (entry, value) = word
                .split_once('~')
                .map_or((&*word, None), |(entry, value)| (entry, Some(value)));
            let value = value.map(|value| match value.strip_prefix("bytes:") {
                Some(count) => Bytes::from(vec![b'x'; count.parse().unwrap_or(0)]),
                None => Bytes::copy_from_slice(value.as_bytes()),
            });
            entries.push((entry.to_string(), value));
        }
        let change = MailboxChange::Annotate {
            name: if name == "-" { String::new() } else { name },
            entries,
        };
        let outcome = self.apply(Op::Mailbox {
            account,
            op_id,
            change,
            fresh_ids: Vec::new(),
        })?;
        self.show(Some(account), outcome)
    }

    /// fill ACCOUNT MAILBOX COUNT [flags=]: as many appends of one byte, each a body of its own.
    pub fn fill(&mut self, line: &mut Line) -> Result<String, String> {
        let account = line.word("an account")?;
        let mailbox = line.word("a mailbox")?;
        let count: u32 = line.word("a number")?.parse().map_err(|_| "not a number")?;
        let flags = line.optional("flags").unwrap_or_default();
        // Recounting after each of hundreds would take longer than it tells.
        self.auditing = false;
        for number in 1..=count {
            self.auditing = number == count;
            let body = self.draw("fill");
            let text = format!("{account} {mailbox} body={body} size=1 flags={flags}");
            let answer = self.append(&mut Line::parse(line.number, &text)?)?;
            if answer.starts_with("refused") {
                self.auditing = true;
                return Ok(answer);
            }
        }
        self.auditing = true;
        Ok(format!("{count} appended"))
    }

    /// store ACCOUNT MAILBOX UIDS +FLAGS|-FLAGS|=FLAGS [since=MODSEQ]
    pub fn store(&mut self, line: &mut Line) -> Result<String, String> {
        let account = names::account(&line.word("an account")?);
        let mailbox = self.mailbox_word(account, line, "a mailbox")?;
        let uids = names::uids(&line.word("UIDs")?)?;
        let flags = line.word("flags")?;
        let mode = match flags.chars().next() {
            Some('+') => StoreMode::Add,
            Some('-') => StoreMode::Remove,
            Some('=') => StoreMode::Replace,
            _ => return Err("flags begin with +, - or =".into()),
        };
        let op = Op::Store {
            account,
            op_id: self.op_id(line),
            mailbox,
            uids,
            mode,
            flags: names::flags(&flags[1..]),
            unchanged_since: line.optional_number("since")?.map(ModSeq),
        };
        let outcome = self.apply(op)?;
        self.show(Some(account), outcome)
    }

    /// copy|move ACCOUNT MAILBOX UIDS to=MAILBOX
    pub fn copy(&mut self, line: &mut Line, remove: bool) -> Result<String, String> {
        let account = names::account(&line.word("an account")?);
        let op = Op::Copy {
            account,
            op_id: self.op_id(line),
            mailbox: self.mailbox_word(account, line, "a mailbox")?,
            uids: names::uids(&line.word("UIDs")?)?,
            to: self.mailbox_named(account, &line.named("to")?)?,
            remove,
        };
        let outcome = self.apply(op)?;
        self.show(Some(account), outcome)
    }

    /// expunge ACCOUNT MAILBOX [UIDS]
    pub fn expunge(&mut self, line: &mut Line) -> Result<String, String> {
        let account = names::account(&line.word("an account")?);
        let op = Op::Expunge {
            account,
            op_id: self.op_id(line),
            mailbox: self.mailbox_word(account, line, "a mailbox")?,
            uids: match line.optional_word() {
                None => Vec::new(),
                Some(text) => names::uids(&text)?,
            },
        };
        let outcome = self.apply(op)?;
        self.show(Some(account), outcome)
    }

    /// create ACCOUNT NAME [use=] | rename ACCOUNT FROM TO | delete|subscribe|unsubscribe ACCOUNT NAME | use ACCOUNT NAME USE
    pub fn mailbox(&mut self, verb: &str, line: &mut Line) -> Result<String, String> {
        let account = names::account(&line.word("an account")?);
        let name = line.word("a name")?;
        let change = match verb {
            "create" => MailboxChange::Create {
                name,
                special_use: line
                    .optional("use")
                    .map_or(Ok(SpecialUse::None), |text| names::special_use(&text))?,
            },
            "rename" => MailboxChange::Rename {
                from: name,
                to: line.word("a new name")?,
            },
            "delete" => MailboxChange::Delete { name },
            "use" => MailboxChange::SpecialUse {
                name,
                special_use: names::special_use(&line.word("a special use")?)?,
            },
            _ => MailboxChange::Subscribe {
                name,
                subscribed: verb == "subscribe",
            },
        };
        let fresh: [MailboxId; 33] = self.fresh_mailboxes();
        let op = Op::Mailbox {
            account,
            op_id: self.op_id(line),
            change,
            fresh_ids: fresh.to_vec(),
        };
        let outcome = self.apply(op)?;
        self.show(Some(account), outcome)
    }

    /// release|forget BODY.. or free BODY.. by=TIME
    pub fn collect(&mut self, verb: &str, line: &mut Line) -> Result<String, String> {
        let released_by_ms = line.optional_number("by")?.unwrap_or(u64::MAX);
        let mut hashes = Vec::new();
        while let Some(name) = line.optional_word() {
            hashes.push(names::body(&name));
        }
        let op = match verb {
            "release" => Op::ReleaseBodies { hashes },
            "free" => Op::FreeBodies { hashes, released_by_ms },
            _ => Op::ForgetBodies { hashes },
        };
        let outcome = self.apply(op)?;
        self.show(None, outcome)
    }

    /// sweep ACCOUNT
    pub fn sweep(&mut self, line: &mut Line) -> Result<String, String> {
        let account = names::account(&line.word("an account")?);
        let outcome = self.apply(Op::Sweep { account })?;
        self.show(Some(account), outcome)
    }

    /// An outcome in words.
    fn show(&self, account: Option<AccountId>, outcome: Outcome) -> Result<String, String> {
        let named = |mailbox| account.map_or_else(String::new, |account| self.name_of(account, mailbox));
        let resume = |from: Option<malle_proto::Uid>| from.map_or_else(String::new, |uid| format!(" resume={uid}"));
        Ok(match outcome {
            Outcome::Done => "done".into(),
            Outcome::Refused(refusal) => format!("refused: {refusal}"),
            Outcome::Delivered(_) => return Err("a delivery where none was asked for".into()),
            Outcome::Appended(stored) => match account {
                Some(account) => self.show_stored(account, Ok(stored)),
                None => return Err("an append where none was asked for".into()),
            },
            Outcome::AppendedAll(_) => return Err("an append of several where none was asked for".into()),
            Outcome::FlagsStored(stored) => {
                let mut lines: Vec<String> = Vec::new();
                if stored.stored.len() <= 10 {
                    let line = |one: &malle_machine::shard::MessageFlags| {
                        format!(
                            "uid={} modseq={} {}",
                            one.uid,
                            one.modseq,
                            names::show_flags(&one.flags)
                        )
                    };
                    lines.extend(stored.stored.iter().map(line));
                }
                let (modified, resume) = (names::show_uids(&stored.modified), resume(stored.resume_from));
                lines.push(format!(
                    "stored={} modified={modified}{resume} modseq={}",
                    stored.stored.len(),
                    stored.modseq
                ));
                lines.join("\n")
            }
            Outcome::Copied(copied) => {
                let pairs: Vec<String> = copied
                    .pairs
                    .iter()
                    .take(10)
                    .map(|(from, to)| format!("{from}->{to}"))
                    .collect();
                let (validity, resume) = (copied.uid_validity, resume(copied.resume_from));
                let (count, modseq) = (copied.pairs.len(), copied.modseq);
                format!(
                    "copied={count} to {validity}{resume} modseq={modseq} {}",
                    pairs.join(" ")
                )
            }
            Outcome::Expunged(expunged) => {
                let (vanished, resume) = (names::show_uids(&expunged.vanished), resume(expunged.resume_from));
                format!("vanished={vanished}{resume} modseq={}", expunged.modseq)
            }
            Outcome::MailboxChanged { mailbox, modseq } => {
                format!(
                    "changed {} modseq={modseq}",
                    mailbox.map_or_else(|| "nothing".into(), named)
                )
            }
            Outcome::BodiesReleased { epoch, released } => {
                let released: Vec<String> = released.into_iter().map(names::body_name).collect();
                format!("epoch={epoch} released={}", released.join(","))
            }
        })
    }
}
