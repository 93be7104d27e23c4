//! The load against a store in memory that keeps every promise: its history must pass, and the load must have asked everything.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::check::{Verdict, check};
use crate::history::{AccountHeader, Final, FinalMailbox, FinalMessage, Header, History, PlaceHeader, SCHEMA};
use crate::plan::Timeline;
use crate::scenario::Engine;
use crate::workload::{MailboxRow, Row};

#[derive(Clone)]
struct Stored {
    modseq: u64,
    flags: Flags,
    body: Body,
}

#[derive(Default)]
struct Mailbox {
    uid_next: u32,
    highest: u64,
    messages: BTreeMap<u32, Stored>,
    gone: Vec<(u64, u32)>,
}

#[derive(Default)]
struct Account {
    modseq: u64,
    mailboxes: BTreeMap<String, Mailbox>,
    receipts: BTreeMap<OpId, Answer>,
}

/// A store that does at once what it is asked, and forgets its receipts when `forgetful`.
struct Store {
    accounts: Mutex<Vec<Account>>,
    calls: AtomicU64,
    forgetful: bool,
}

fn row(uid: u32, stored: &Stored) -> Row {
    Row {
        uid,
        modseq: stored.modseq,
        flags: stored.flags.clone(),
        size_bytes: None,
    }
}

impl Account {
    fn at(&mut self, name: &str) -> &mut Mailbox {
        self.mailboxes.entry(name.to_owned()).or_default()
    }

    fn shown(&mut self, name: &str) -> MailboxRow {
        let mailbox = self.at(name);
        MailboxRow {
            name: name.to_owned(),
            uid_validity: 1,
            uid_next: mailbox.uid_next + 1,
            highest_modseq: mailbox.highest.max(1),
            count: mailbox.messages.len() as u32,
        }
    }

    fn put(&mut self, name: &str, flags: Flags, body: Body) -> (u32, u64) {
        self.modseq += 1;
        let modseq = self.modseq;
        let mailbox = self.at(name);
        mailbox.uid_next += 1;
        mailbox.highest = modseq;
        mailbox
            .messages
            .insert(mailbox.uid_next, Stored { modseq, flags, body });
        (mailbox.uid_next, modseq)
    }

    fn remove(&mut self, name: &str, uid: u32) -> Option<Stored> {
        self.modseq += 1;
        let modseq = self.modseq;
        let mailbox = self.at(name);
        let stored = mailbox.messages.remove(&uid)?;
        mailbox.highest = modseq;
        mailbox.gone.push((modseq, uid));
        Some(stored)
    }

    fn store(&mut self, call: &Call) -> Answer {
        let Call::Store {
            mailbox,
            uids,
            mode,
            flags,
            unchanged_since,
        } = call
        else {
            unreachable!()
        };
        let (mut rows, mut modified) = (Vec::new(), Vec::new());
        for uid in uids {
            let next = self.modseq + 1;
            let here = self.at(mailbox);
            let Some(stored) = here.messages.get_mut(uid) else {
                continue;
            };
            if unchanged_since.is_some_and(|since| stored.modseq > since) {
                modified.push(*uid);
                continue;
            }
            let now = stored.flags.after(*mode, flags);
            if now != stored.flags {
                (stored.flags, stored.modseq, here.highest) = (now, next, next);
                self.modseq = next;
            }
            rows.push(row(*uid, &self.at(mailbox).messages[uid]));
        }
        Answer::FlagsStored { rows, modified }
    }

    fn copy(&mut self, mailbox: &str, uids: &[u32], to: &str, remove: bool) -> Answer {
        let mut pairs = Vec::new();
        for uid in uids {
            let source = self.at(mailbox).messages.get(uid).cloned();
            if let Some(stored) = source {
                pairs.push((*uid, self.put(to, stored.flags, stored.body).0));
                if remove {
                    self.remove(mailbox, *uid);
                }
            }
        }
        Answer::Copied { uid_validity: 1, pairs }
    }

    fn answer(&mut self, call: &Call) -> Answer {
        let stored = |(uid, modseq)| Answer::Stored {
            uid_validity: 1,
            uid,
            modseq,
            repeated: false,
        };
        match call {
            Call::Deliver { body } => stored(self.put("INBOX", Flags::default(), body.clone())),
            Call::Append { mailbox, flags, body } => stored(self.put(mailbox, flags.clone(), body.clone())),
            Call::Store { .. } => self.store(call),
            Call::Expunge { mailbox, uids } => {
                let deleted = |stored: &Stored| stored.flags.0.contains("\\Deleted");
                let gone: Vec<u32> = uids
                    .iter()
                    .copied()
                    .filter(|uid| self.at(mailbox).messages.get(uid).is_some_and(deleted))
                    .collect();
                gone.iter().for_each(|uid| drop(self.remove(mailbox, *uid)));
                Answer::Expunged { uids: gone }
            }
            Call::Copy { mailbox, uids, to } => self.copy(mailbox, uids, to, false),
            Call::Move { mailbox, uids, to } => self.copy(mailbox, uids, to, true),
            Call::Create { .. } | Call::Rename { .. } | Call::Delete { .. } => Answer::Changed,
            read => self.read(read),
        }
    }

    fn read(&mut self, call: &Call) -> Answer {
        match call {
            Call::Open { mailbox, .. } => Answer::Opened {
                uids: self.at(mailbox).messages.keys().map(|uid| (*uid, *uid)).collect(),
                mailbox: self.shown(mailbox),
            },
            Call::Fetch { mailbox, from, .. } => {
                let rows = self
                    .at(mailbox)
                    .messages
                    .range(from..)
                    .map(|(uid, stored)| row(*uid, stored));
                Answer::Fetched {
                    rows: rows.collect(),
                    pages: 1,
                }
            }
            Call::Changes { mailbox, since, .. } => {
                let here = self.at(mailbox);
                let changed = here.messages.iter().filter(|(_, stored)| stored.modseq > *since);
                let gone = here.gone.iter().filter(|(modseq, _)| modseq > since);
                Answer::Changes {
                    rows: changed.map(|(uid, stored)| row(*uid, stored)).collect(),
                    vanished: gone.map(|(_, uid)| *uid).collect(),
                    mailbox: self.shown(mailbox),
                    cannot_calculate: false,
                    pages: 1,
                }
            }
            Call::ReadBody { mailbox, uid } => match self.at(mailbox).messages.get(uid) {
                Some(stored) => Answer::Body {
                    hash: stored.body.hash.clone(),
                    size_bytes: stored.body.size_bytes,
                },
                None => Answer::Body {
                    hash: String::new(),
                    size_bytes: 0,
                },
            },
            Call::List { .. } => Answer::Listed { mailboxes: vec![] },
            _ => Answer::Status {
                modseq: self.modseq,
                used_bytes: 0,
                messages: 0,
            },
        }
    }
}

impl Target for Store {
    async fn call(&self, asked: Asked, call: &Call) -> Option<Outcome<Answer>> {
        // Some answers are lost on their way, so that there is something to repeat.
        let lost = self.calls.fetch_add(1, Ordering::SeqCst) % 7 == 3 && call.writes();
        let mut accounts = self.accounts.lock().unwrap();
        let account = &mut accounts[asked.account as usize];
        let value = match account
            .receipts
            .get(&asked.op)
            .filter(|_| call.writes() && !self.forgetful)
        {
            Some(Answer::Stored {
                uid_validity,
                uid,
                modseq,
                ..
            }) => Answer::Stored {
                uid_validity: *uid_validity,
                uid: *uid,
                modseq: *modseq,
                repeated: true,
            },
            Some(answer) => answer.clone(),
            None => account.answer(call),
        };
        account.receipts.insert(asked.op, value.clone());
        if matches!(
            (call, &value),
            (Call::ReadBody { .. }, Answer::Body { size_bytes: 0, .. })
        ) {
            return Some(Outcome::Refused {
                code: "not-found".to_owned(),
            });
        }
        Some(if lost {
            Outcome::Unknown {
                why: "the answer was lost".to_owned(),
            }
        } else {
            Outcome::Done { value }
        })
    }
}

fn finals(store: &Store) -> Vec<Final> {
    let mut accounts = store.accounts.lock().unwrap();
    let final_of = |(number, account): (usize, &mut Account)| {
        let names: Vec<String> = account.mailboxes.keys().cloned().collect();
        let mailbox = |name: &String| {
            let shown = account.shown(name);
            let messages = account.at(name).messages.iter().map(|(uid, stored)| FinalMessage {
                uid: *uid,
                modseq: stored.modseq,
                flags: stored.flags.clone(),
                size_bytes: stored.body.size_bytes,
                hash: Some(stored.body.hash.clone()),
                why: None,
            });
            FinalMailbox {
                name: name.clone(),
                uid_validity: 1,
                uid_next: shown.uid_next,
                highest_modseq: shown.highest_modseq,
                count: shown.count,
                messages: messages.collect(),
            }
        };
        let mailboxes: Vec<FinalMailbox> = names.iter().map(mailbox).collect();
        let messages = || mailboxes.iter().flat_map(|mailbox| &mailbox.messages);
        Final {
            at_us: 1,
            place: None,
            account: number as u32,
            modseq: account.modseq,
            used_bytes: messages().map(|message| message.size_bytes).sum(),
            quota_bytes: u64::MAX,
            messages: messages().count() as u64,
            mailboxes,
        }
    };
    accounts.iter_mut().enumerate().map(final_of).collect()
}

fn scenario() -> Scenario {
    let text = crate::scenario::SAMPLE
        .replace("W-mix\"", "W-imap\"\naccounts = 2")
        .replace("rate = 100", "rate = 4000")
        .replace("warmup = \"5s\"", "warmup = \"1ms\"")
        .replace("safety = \"60s\"", "safety = \"900ms\"")
        .replace("liveness = \"20s\"", "liveness = \"100ms\"");
    Scenario::parse(&text, Path::new("sample.toml")).unwrap()
}

/// The history of a short run against such a store.
fn run(forgetful: bool) -> History {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("history.jsonl");
    let scenario = Arc::new(scenario());
    let mut accounts: Vec<Account> = vec![Account::default(), Account::default()];
    for account in &mut accounts {
        fixed_mailboxes(3).iter().for_each(|name| {
            account.at(name);
        });
    }
    let store = Arc::new(Store {
        accounts: Mutex::new(accounts),
        calls: AtomicU64::new(0),
        forgetful,
    });
    let header = Header {
        schema: SCHEMA,
        scenario: "sample".to_owned(),
        scenario_hash: String::new(),
        seed: 1,
        engine: Engine::Sim,
        commit: String::new(),
        control: None,
        timeline: Timeline::of(&scenario),
        places: vec![PlaceHeader {
            place: 1,
            node: 1,
            region: "eu".to_owned(),
        }],
        accounts: (0..2)
            .map(|account| AccountHeader {
                account,
                shard: 1,
                quota_bytes: u64::MAX,
            })
            .collect(),
        mailboxes: fixed_mailboxes(3),
        deadline_us: 5_000_000,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let recorder = Recorder::create(&path, header).unwrap();
        let load = Drive {
            scenario,
            seed: 1,
            recorder: recorder.clone(),
        };
        drive(store.clone(), load).await.unwrap();
        finals(&store)
            .into_iter()
            .for_each(|last| recorder.write(&Record::Final(last)));
        recorder.finish().unwrap();
    });
    History::read(&path).unwrap()
}

#[test]
fn a_store_that_keeps_its_promises_passes_and_was_asked_everything() {
    let history = run(false);
    for finding in check(&history, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 15, 16]) {
        assert_eq!(finding.verdict, Verdict::Pass, "{finding:#?}");
    }
    let kinds: BTreeSet<&str> = history
        .operations
        .iter()
        .map(|operation| operation.call.kind())
        .collect();
    for kind in [
        "deliver",
        "append",
        "store",
        "expunge",
        "copy",
        "move",
        "open",
        "fetch",
        "changes",
        "status",
        "read-body",
    ] {
        assert!(
            kinds.contains(kind),
            "no {kind} among {} calls",
            history.operations.len()
        );
    }
    let mirrors = check(&history, &[5]).pop().unwrap().note.unwrap();
    assert!(!mirrors.starts_with("0 of"), "{mirrors}");
}

#[test]
fn a_store_that_forgets_its_receipts_is_found_out() {
    let findings = check(&run(true), &[2]);
    assert_eq!(findings[1].verdict, Verdict::Fail, "{findings:#?}");
}
