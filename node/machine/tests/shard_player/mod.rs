//! Gives the words of the shard's scripts their meaning.

mod names;
mod show;
mod write;

use std::collections::BTreeMap;

use malle_machine::shard::{Command, Op, Outcome, apply, audit, read};
use malle_machine::{Digest, MemoryView, Writes};
use malle_proto::{AccountId, MailboxId, ModSeq};

use crate::script_format::{Line, Player};

/// The clock of a story begins here, in milliseconds: UIDVALIDITYs begin at 1000.
const BEGINNING_MS: u64 = 1_000_000;

/// A shard and what the story calls things.
pub struct ShardPlayer {
    view: MemoryView,
    digest: Digest,
    /// The last command's news.
    news: Writes,
    time_ms: u64,
    drawn: u64,
    /// Recount after each command.
    auditing: bool,
    accounts: Vec<String>,
    mailboxes: BTreeMap<(AccountId, String), MailboxId>,
}

impl Default for ShardPlayer {
    fn default() -> Self {
        ShardPlayer {
            view: MemoryView::default(),
            digest: Digest::default(),
            news: Writes::default(),
            time_ms: BEGINNING_MS,
            drawn: 0,
            auditing: true,
            accounts: Vec::new(),
            mailboxes: BTreeMap::new(),
        }
    }
}

impl Player for ShardPlayer {
    fn play(&mut self, line: &mut Line) -> Result<String, String> {
        let verb = line.word("a command")?;
        match verb.as_str() {
            "accounts" => self.open_accounts(line),
            "deliver" => self.deliver(line),
            "append" => self.append(line),
            "append-all" => self.append_all(line),
            "annotate" => self.annotate(line),
            "annotations" => self.show_annotations(line),
            "fill" => self.fill(line),
            "store" => self.store(line),
            "copy" => self.copy(line, false),
            "move" => self.copy(line, true),
            "expunge" => self.expunge(line),
            "create" | "rename" | "delete" | "subscribe" | "unsubscribe" | "use" => self.mailbox(&verb, line),
            "release" | "free" | "forget" => self.collect(&verb, line),
            "sweep" => self.sweep(line),
            "wait" => self.wait(line),
            "account" => self.show_account(line),
            "list" => self.show_list(line),
            "open" => self.show_open(line),
            "fetch" => self.show_fetch(line),
            "changes" => self.show_changes(line),
            "body" => self.show_body(line),
            "bodies" => self.show_bodies(),
            "shard" => self.show_shard(),
            "news" => self.show_news(),
            other => Err(format!("unknown command {other}")),
        }
    }
}

impl ShardPlayer {
    /// Applies a command, takes its writes over, and checks all that must hold whatever the command was.
    fn apply(&mut self, op: Op) -> Result<Outcome, String> {
        let command = Command {
            time_ms: self.time_ms,
            op,
        };
        let fault = |fault| format!("fault: {fault}");
        let (outcome, writes) = apply(&self.view, &command).map_err(fault)?;
        if apply(&self.view, &command).map_err(fault)? != (outcome.clone(), writes.clone()) {
            return Err("applied twice, it gives two things".into());
        }
        for (key, value) in &writes.rows {
            if let Some(old) = self.view.rows.get(key) {
                self.digest.subtract(key, old);
            }
            if let Some(new) = value {
                self.digest.add(key, new);
            }
        }
        self.view.commit(&writes);
        self.news = writes;
        if self.auditing {
            self.check()?;
        }
        Ok(outcome)
    }

    /// What must hold after every command.
    fn check(&mut self) -> Result<(), String> {
        let mut scanned = Digest::default();
        for (key, value) in &self.view.rows {
            scanned.add(key, value);
        }
        if scanned != self.digest {
            return Err("the digest by writes is not the digest by scan".into());
        }
        let wrong = audit(&self.view).map_err(|fault| format!("fault: {fault}"))?;
        if !wrong.is_empty() {
            return Err(wrong.join("; "));
        }
        self.learn_names()
    }

    fn learn_names(&mut self) -> Result<(), String> {
        for name in &self.accounts {
            let account = names::account(name);
            let listed = read::mailboxes(&self.view, account).map_err(|fault| format!("fault: {fault}"))?;
            for mailbox in listed.into_iter().flatten().filter(|mailbox| !mailbox.no_select) {
                self.mailboxes.insert((account, mailbox.name), mailbox.id);
            }
        }
        Ok(())
    }

    /// What the story calls a mailbox: its name now, or its last one.
    fn name_of(&self, account: AccountId, mailbox: MailboxId) -> String {
        let listed = read::mailboxes(&self.view, account).expect("the view reads");
        let now = listed.into_iter().flatten().find(|one| one.id == mailbox);
        let last = || {
            let mut known = self.mailboxes.iter();
            known
                .find(|((_, _), id)| **id == mailbox)
                .map(|((_, name), _)| format!("{name}(gone)"))
        };
        now.map(|one| one.name)
            .or_else(last)
            .unwrap_or_else(|| "unknown".into())
    }

    fn mailbox_word(&self, account: AccountId, line: &mut Line, what: &str) -> Result<MailboxId, String> {
        self.mailbox_named(account, &line.word(what)?)
    }

    fn mailbox_named(&self, account: AccountId, name: &str) -> Result<MailboxId, String> {
        let known = self.mailboxes.get(&(account, name.to_string()));
        known
            .copied()
            .ok_or_else(|| format!("no mailbox was ever called {name}"))
    }

    fn wait(&mut self, line: &mut Line) -> Result<String, String> {
        let text = line.word("how long")?;
        let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
        let number: u64 = text[..text.len() - unit.len()]
            .parse()
            .map_err(|_| format!("{text} is no time"))?;
        let unit_ms = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(format!("{text} has no unit")),
        };
        self.time_ms += number * unit_ms;
        Ok("ok".into())
    }
}

fn modseq(line: &mut Line, name: &str) -> Result<ModSeq, String> {
    Ok(ModSeq(line.optional_number(name)?.unwrap_or(0)))
}
