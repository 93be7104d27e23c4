//! What holds whatever comes: random commands beside a simple model, and the bounds that no story reaches.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use malle_proto::{AccountId, BodyHash, EmailId, MailboxId, ModSeq, OpId, ThreadId, Uid, limits};
use proptest::prelude::{ProptestConfig, any, prop, proptest};

use crate::shard::edit::Edit;
use crate::shard::{
    AccountGrant, Arriving, BodyPut, Command, Flags, MailboxChange, NewMail, Op, Outcome, Recipient, Refusal,
    SpecialUse, StoreMode, Stored, Summary, UidRange, apply, audit, keys, messages, read, rows,
};
use crate::view::{Draft, Fault, MemoryView, View, Writes};
use crate::{Digest, format};

const ACCOUNTS: u8 = 3;

fn account(n: u8) -> AccountId {
    AccountId([n % ACCOUNTS + 1; 16])
}

fn numbered<const N: usize>(n: u64) -> [u8; N] {
    let mut bytes = [0x5A; N];
    bytes[..8].copy_from_slice(&n.to_be_bytes());
    bytes
}

fn range(first: u32, last: u32) -> UidRange {
    UidRange {
        first: Uid(first),
        last: Uid(last),
    }
}

/// A message as the model knows it.
#[derive(Debug, Clone, PartialEq)]
struct Known {
    size: u64,
    body: BodyHash,
    flags: Flags,
    modseq: ModSeq,
}

/// What outcomes say, believed.
#[derive(Default)]
struct Model {
    mailboxes: BTreeMap<(AccountId, MailboxId), BTreeMap<Uid, Known>>,
    modseq: BTreeMap<AccountId, ModSeq>,
    /// UIDVALIDITY and highest UID ever given; stays when the mailbox goes.
    highest_uid: BTreeMap<(AccountId, u32), Uid>,
    /// The epoch in which a replica last freed a body: no older put may count from then on, whatever becomes of its row.
    freed: BTreeMap<BodyHash, u64>,
    /// When a body was released, and has not been named since.
    released_ms: BTreeMap<BodyHash, u64>,
}

impl Model {
    fn added(&mut self, account: AccountId, at: &Stored, known: Known) {
        let highest = self.highest_uid.entry((account, at.uid_validity.0)).or_default();
        assert!(at.uid > *highest, "UID {} after {highest}", at.uid);
        *highest = at.uid;
        self.rises(account, at.modseq);
        let before = self
            .mailboxes
            .entry((account, at.mailbox))
            .or_default()
            .insert(at.uid, known);
        assert_eq!(before, None);
    }

    /// A command named what was put: its copies are there.
    fn named(&mut self, mail: &NewMail) {
        let beside = match &mail.summary {
            Summary::Beside(put) => Some(put),
            Summary::Inline(_) => None,
        };
        for put in beside.into_iter().chain([&mail.body]) {
            let freed = self.freed.get(&put.hash).copied().unwrap_or(0);
            assert!(
                put.epoch >= freed || !self.released_ms.contains_key(&put.hash),
                "{put:?} counts, and its copies were freed in epoch {freed}"
            );
            self.released_ms.remove(&put.hash);
        }
    }

    fn rises(&mut self, account: AccountId, modseq: ModSeq) {
        let before = self.modseq.insert(account, modseq).unwrap_or_default();
        assert!(modseq > before, "MODSEQ {modseq} after {before}");
    }

    fn not_below(&mut self, account: AccountId, modseq: ModSeq) {
        let before = self.modseq.insert(account, modseq).unwrap_or_default();
        assert!(modseq >= before, "MODSEQ {modseq} after {before}");
    }

    fn of(&mut self, account: AccountId, mailbox: MailboxId) -> &mut BTreeMap<Uid, Known> {
        self.mailboxes.entry((account, mailbox)).or_default()
    }
}

/// A shard with its model and its history.
#[derive(Default)]
struct World {
    view: MemoryView,
    digest: Digest,
    model: Model,
    history: Vec<(Command, Outcome)>,
    time_ms: u64,
    drawn: u64,
    /// Of each mailbox as it was when it was last looked at.
    outlines: BTreeMap<(AccountId, MailboxId), read::Outline>,
}

/// Without the mark of a repetition.
fn first_time(outcome: Outcome) -> Outcome {
    let plain = |stored: Stored| Stored {
        repeated: false,
        ..stored
    };
    match outcome {
        Outcome::Appended(stored) => Outcome::Appended(plain(stored)),
        Outcome::AppendedAll(all) => Outcome::AppendedAll(all.into_iter().map(plain).collect()),
        Outcome::Delivered(all) => Outcome::Delivered(all.into_iter().map(|one| one.map(plain)).collect()),
        other => other,
    }
}

fn leaves_receipt(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Delivered(all) => all.iter().all(Result::is_ok),
        Outcome::Appended(_)
        | Outcome::AppendedAll(_)
        | Outcome::FlagsStored(_)
        | Outcome::Copied(_)
        | Outcome::Expunged(_)
        | Outcome::MailboxChanged { .. } => true,
        Outcome::Done | Outcome::BodiesReleased { .. } | Outcome::Refused(_) => false,
    }
}

impl World {
    fn open() -> World {
        let mut world = World {
            time_ms: 1_000_000,
            ..World::default()
        };
        let accounts = (0..ACCOUNTS)
            .map(|n| AccountGrant {
                account: account(n),
                quota_bytes: if n == 0 { 200 } else { 5_000 },
                suspended: false,
                mailboxes: std::array::from_fn(|box_| MailboxId([10 * (n + 1) + box_ as u8; 16])),
            })
            .collect();
        world.run(Op::OpenAccounts { accounts, through: 1 });
        world
    }

    fn draw<const N: usize>(&mut self) -> [u8; N] {
        self.drawn += 1;
        numbered(self.drawn)
    }

    fn mailbox(&self, account: AccountId, n: u8) -> MailboxId {
        let listed: Vec<_> = read::mailboxes(&self.view, account).unwrap().unwrap();
        match n {
            255 => MailboxId([0xEE; 16]),
            n => listed[n as usize % listed.len()].id,
        }
    }

    /// Applies without looking at the model.
    fn commit(&mut self, op: Op) -> (Outcome, Writes) {
        let command = Command {
            time_ms: self.time_ms,
            op,
        };
        let (outcome, writes) = apply(&self.view, &command).unwrap();
        for (key, value) in &writes.rows {
            if let Some(old) = self.view.rows.get(key) {
                self.digest.subtract(key, old);
            }
            if let Some(new) = value {
                self.digest.add(key, new);
            }
        }
        self.view.commit(&writes);
        self.history.push((command, outcome.clone()));
        (outcome, writes)
    }

    fn run(&mut self, op: Op) -> Outcome {
        let (outcome, writes) = self.commit(op.clone());
        assert!(writes.rows.keys().all(|key| key[0] != crate::digest::LOCAL_PREFIX));
        if matches!(outcome, Outcome::Refused(_)) {
            assert!(
                writes.rows.keys().all(|key| key == keys::SHARD),
                "a refusal wrote {writes:?}"
            );
            assert!(writes.changes.is_empty() && writes.bodies_named.is_empty());
        }
        self.learn(&op, &outcome);
        if !matches!(op, Op::ReleaseBodies { .. } | Op::FreeBodies { .. }) {
            let (again, writes) = self.commit(op);
            assert_eq!(first_time(again.clone()), outcome, "the same again has the same answer");
            if leaves_receipt(&outcome) {
                assert!(writes.rows.is_empty(), "the same again changes nothing: {writes:?}");
            }
        }
        outcome
    }

    fn learn(&mut self, op: &Op, outcome: &Outcome) {
        let model = &mut self.model;
        match (op, outcome) {
            (Op::Deliver { recipients, mail }, Outcome::Delivered(outcomes)) => {
                for (recipient, outcome) in recipients.iter().zip(outcomes) {
                    if let Ok(stored) = outcome {
                        model.named(mail);
                        let known = known(mail, Flags::default(), stored.modseq);
                        model.added(recipient.account, stored, known);
                    }
                }
            }
            (
                Op::Append {
                    account,
                    mail,
                    flags,
                    mailbox,
                    ..
                },
                Outcome::Appended(stored),
            ) => {
                assert_eq!(stored.mailbox, *mailbox);
                model.named(mail);
                model.added(*account, stored, known(mail, flags.clone(), stored.modseq));
            }
            (
                Op::AppendAll {
                    account,
                    messages,
                    replaces,
                    ..
                },
                Outcome::AppendedAll(all),
            ) => {
                if let Some((mailbox, uid)) = replaces {
                    model.of(*account, *mailbox).remove(uid).unwrap();
                }
                assert_eq!(messages.len(), all.len());
                for (one, stored) in messages.iter().zip(all) {
                    model.named(&one.mail);
                    model.added(*account, stored, known(&one.mail, one.flags.clone(), stored.modseq));
                }
            }
            (Op::ReleaseBodies { .. }, Outcome::BodiesReleased { released, .. }) => {
                for hash in released {
                    model.released_ms.entry(*hash).or_insert(self.time_ms);
                }
            }
            (Op::FreeBodies { released_by_ms, .. }, Outcome::BodiesReleased { epoch, released }) => {
                for hash in released {
                    let since_ms = model.released_ms.get(hash).expect("only what is released is freed");
                    assert!(since_ms <= released_by_ms, "released at {since_ms}");
                    model.freed.insert(*hash, *epoch);
                }
            }
            (Op::Store { account, mailbox, .. }, Outcome::FlagsStored(stored)) => {
                model.not_below(*account, stored.modseq);
                for one in &stored.stored {
                    let known = model.of(*account, *mailbox).get_mut(&one.uid).unwrap();
                    assert_eq!(
                        known.modseq == one.modseq,
                        known.flags == one.flags,
                        "a MODSEQ rises with a change only"
                    );
                    assert!(one.modseq >= known.modseq);
                    (known.flags, known.modseq) = (one.flags.clone(), one.modseq);
                }
            }
            (
                Op::Copy {
                    account,
                    mailbox,
                    to,
                    remove,
                    ..
                },
                Outcome::Copied(copied),
            ) => {
                let before = model.modseq.get(account).copied().unwrap_or_default();
                model.not_below(*account, copied.modseq);
                for (from, new) in &copied.pairs {
                    let mut known = model.of(*account, *mailbox)[from].clone();
                    let highest = model.highest_uid.entry((*account, copied.uid_validity.0)).or_default();
                    assert!(new > highest);
                    *highest = *new;
                    let copy = read::message(&self.view, *account, *to, *new).unwrap().unwrap();
                    assert!(copy.modseq > before, "a copy has a MODSEQ of its own");
                    known.modseq = copy.modseq;
                    model.of(*account, *to).insert(*new, known);
                }
                for (from, _) in copied.pairs.iter().filter(|_| *remove) {
                    model.of(*account, *mailbox).remove(from);
                }
            }
            (Op::Expunge { account, mailbox, .. }, Outcome::Expunged(expunged)) => {
                model.not_below(*account, expunged.modseq);
                for range in &expunged.vanished {
                    for uid in range.first.0..=range.last.0 {
                        let gone = model.of(*account, *mailbox).remove(&Uid(uid)).unwrap();
                        assert_ne!(gone.flags.system & Flags::DELETED, 0, "only \\Deleted goes");
                    }
                }
            }
            (Op::Mailbox { account, .. }, Outcome::MailboxChanged { modseq, .. }) => {
                model.not_below(*account, *modseq);
                let there: BTreeSet<MailboxId> = read::mailboxes(&self.view, *account)
                    .unwrap()
                    .unwrap()
                    .iter()
                    .map(|one| one.id)
                    .collect();
                model
                    .mailboxes
                    .retain(|(owner, id), _| owner != account || there.contains(id));
            }
            _ => {}
        }
    }

    /// The view against the model, and against itself.
    fn check(&mut self) {
        assert_eq!(audit(&self.view).unwrap(), Vec::<String>::new());
        let mut scanned = Digest::default();
        for (key, value) in &self.view.rows {
            scanned.add(key, value);
            assert!(value.is_empty() || format::open(value).is_ok());
        }
        assert_eq!(scanned, self.digest);
        for n in 0..ACCOUNTS {
            let account = account(n);
            for mailbox in read::mailboxes(&self.view, account).unwrap().unwrap() {
                if !mailbox.no_select {
                    self.check_mailbox(account, &mailbox);
                }
            }
        }
    }

    fn check_mailbox(&mut self, account: AccountId, mailbox: &read::Mailbox) {
        let opened = read::open(&self.view, account, mailbox.id, None).unwrap().unwrap();
        assert_eq!(&opened.mailbox, mailbox);
        let known = self.outlines.insert((account, mailbox.id), opened.outline.clone());
        let followed = read::open(&self.view, account, mailbox.id, known.as_ref()).unwrap();
        assert_eq!(followed.unwrap(), opened, "from {known:?}");
        let known = self.model.of(account, mailbox.id).clone();
        let uids: Vec<Uid> = opened
            .outline
            .uids
            .iter()
            .flat_map(|range| range.first.0..=range.last.0)
            .map(Uid)
            .collect();
        assert_eq!(uids, known.keys().copied().collect::<Vec<_>>(), "{}", mailbox.name);
        let mut rows = Vec::new();
        let mut from = Uid(1);
        loop {
            let set = [range(from.0, u32::MAX)];
            let page = read::fetch(&self.view, account, mailbox.id, &set, ModSeq(0), 3)
                .unwrap()
                .unwrap();
            rows.extend(page.messages);
            match page.resume_from {
                Some(next) => from = next,
                None => break,
            }
        }
        assert_eq!(rows.len(), known.len());
        for (row, (uid, known)) in rows.iter().zip(&known) {
            assert_eq!(
                (row.uid, row.size, row.body, &row.flags),
                (*uid, known.size, known.body, &known.flags)
            );
            assert_eq!(known.modseq, row.modseq);
        }
        self.check_changes(account, mailbox, &rows);
    }

    /// `changes` from anywhere, page by page, and `fetch` with CHANGEDSINCE say the same as the rows.
    fn check_changes(&self, account: AccountId, mailbox: &read::Mailbox, rows: &[read::Message]) {
        for since in [0, mailbox.highest_modseq.0 / 2, mailbox.highest_modseq.0] {
            let (mut seen, mut at) = (Vec::new(), ModSeq(since));
            loop {
                let page = read::changes(&self.view, account, mailbox.id, at, 2).unwrap().unwrap();
                assert!(page.changed.len() <= 2 && !page.cannot_calculate);
                assert!(page.changed.is_sorted_by_key(|one| one.modseq));
                seen.extend(page.changed.into_iter().map(|one| (one.uid, one.modseq)));
                at = page.through;
                if at >= mailbox.highest_modseq {
                    break;
                }
            }
            seen.sort();
            let wanted: Vec<_> = rows
                .iter()
                .filter(|row| row.modseq.0 > since)
                .map(|row| (row.uid, row.modseq))
                .collect();
            assert_eq!(seen, wanted);
            let page = read::fetch(
                &self.view,
                account,
                mailbox.id,
                &[range(1, u32::MAX)],
                ModSeq(since),
                500,
            );
            let page = page.unwrap().unwrap();
            assert_eq!(
                page.messages
                    .iter()
                    .map(|row| (row.uid, row.modseq))
                    .collect::<Vec<_>>(),
                wanted
            );
        }
    }
}

fn known(mail: &NewMail, flags: Flags, modseq: ModSeq) -> Known {
    Known {
        size: mail.body.size,
        body: mail.body.hash,
        flags,
        modseq,
    }
}

fn some_flags(n: u8) -> Flags {
    Flags {
        system: n & Flags::SYSTEM,
        keywords: match n >> 5 {
            1 => vec!["home".into()],
            2 => vec!["home".into(), "work".into()],
            3 => vec!["work".into()],
            _ => Vec::new(),
        },
    }
}

const NAMES: [&str; 12] = [
    "INBOX",
    "inbox/x",
    "Work",
    "Work/a",
    "Work/a/b",
    "Sent",
    "Trash",
    "Trash/x",
    "x/y/z",
    "a//b",
    "",
    "Archive/Work",
];

fn mail(world: &mut World, n: u8) -> NewMail {
    let epoch = read::body_epoch(&world.view).unwrap();
    let body = n % 6;
    NewMail {
        body: BodyPut {
            hash: BodyHash([body + 1; 32]),
            size: 10 * u64::from(body + 1),
            // Mostly now, sometimes stale, sometimes not begun.
            epoch: (epoch + 1).saturating_sub(u64::from(!n.is_multiple_of(7)) + u64::from(n.is_multiple_of(11))),
        },
        summary: match n % 5 {
            0 => Summary::Beside(BodyPut {
                hash: BodyHash([0x77; 32]),
                size: 5_000,
                epoch,
            }),
            _ => Summary::Inline(Bytes::from_static(b"s")),
        },
        email_id: EmailId(world.draw()),
        fresh_thread: ThreadId(world.draw()),
        thread_keys: (0..n % 4).map(|k| [n.wrapping_mul(k + 1) % 9; 16]).collect(),
    }
}

fn some_uids(b: u8, c: u8) -> Vec<UidRange> {
    match b % 5 {
        0 => vec![range(1, u32::MAX)],
        1 => vec![],
        2 => vec![range(u32::from(c % 16), u32::from(c / 16))],
        3 => vec![range(7, 9), range(u32::from(c % 8), u32::from(c % 8) + 2), range(0, 0)],
        _ => vec![range(u32::from(c % 12), u32::from(c % 12))],
    }
}

/// Reads a command out of five bytes.
fn command(world: &mut World, [kind, a, b, c, d]: [u8; 5]) -> Op {
    let account = if a == 255 { AccountId([0xAA; 16]) } else { account(a) };
    let op_id = OpId(world.draw());
    let mailbox = world.mailbox(self::account(a), b);
    match kind % 16 {
        0 | 1 => Op::Deliver {
            recipients: (0..=a % 4)
                .map(|n| Recipient {
                    account: self::account(a.wrapping_add(n)),
                    op_id: OpId(world.draw()),
                    into: if c % 3 == 0 {
                        SpecialUse::Junk
                    } else {
                        SpecialUse::Inbox
                    },
                    email_id: EmailId(world.draw()),
                    fresh_thread: ThreadId(world.draw()),
                })
                .collect(),
            mail: mail(world, d),
        },
        4 => Op::AppendAll {
            account,
            op_id,
            mailbox,
            messages: (0..d % 4)
                .map(|n| Arriving {
                    flags: some_flags(c.wrapping_add(n)),
                    internal_date: None,
                    mail: mail(world, d.wrapping_mul(n + 1)),
                })
                .collect(),
            replaces: (c % 2 == 0).then(|| (world.mailbox(self::account(a), d), Uid(u32::from(c % 8)))),
        },
        2 | 3 => Op::Append {
            account,
            op_id,
            mailbox,
            flags: some_flags(c),
            internal_date: None,
            mail: mail(world, d),
        },
        5..=7 => Op::Store {
            account,
            op_id,
            mailbox,
            uids: some_uids(b, c),
            mode: [StoreMode::Add, StoreMode::Remove, StoreMode::Replace][kind as usize / 16 % 3],
            flags: some_flags(d),
            unchanged_since: (d % 4 == 0).then_some(ModSeq(u64::from(c))),
        },
        8 | 9 => {
            let to = world.mailbox(self::account(a), d);
            Op::Copy {
                account,
                op_id,
                mailbox,
                uids: some_uids(c, d),
                to,
                remove: kind % 2 == 1,
            }
        }
        10 | 11 => Op::Expunge {
            account,
            op_id,
            mailbox,
            uids: some_uids(c, d),
        },
        12 | 13 => {
            let name = NAMES[b as usize % NAMES.len()].to_string();
            let special_use = [SpecialUse::None, SpecialUse::Sent, SpecialUse::All, SpecialUse::Inbox][d as usize % 4];
            let change = match c % 7 {
                0 => MailboxChange::Create { name, special_use },
                1 | 2 => MailboxChange::Rename {
                    from: name,
                    to: NAMES[d as usize % NAMES.len()].to_string(),
                },
                3 => MailboxChange::Delete { name },
                6 => MailboxChange::Annotate {
                    name,
                    entries: vec![
                        (
                            format!("/private/{}", d % 3),
                            (d % 5 > 1).then(|| Bytes::from_static(b"x")),
                        ),
                        ("/shared/comment".into(), Some(Bytes::from_static(b"y"))),
                    ],
                },
                4 => MailboxChange::Subscribe {
                    name,
                    subscribed: d % 2 == 0,
                },
                _ => MailboxChange::SpecialUse { name, special_use },
            };
            let fresh_ids = (0..d % 8).map(|_| MailboxId(world.draw())).collect();
            Op::Mailbox {
                account,
                op_id,
                change,
                fresh_ids,
            }
        }
        14 => {
            let hashes = (b % 6..=c % 6).map(|n| BodyHash([n + 1; 32])).collect();
            let released_by_ms = world.time_ms.saturating_sub(u64::from(a));
            match d % 3 {
                0 => Op::ReleaseBodies { hashes },
                1 => Op::ForgetBodies { hashes },
                _ => Op::FreeBodies { hashes, released_by_ms },
            }
        }
        _ => Op::Sweep { account },
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_commands_keep_every_promise(seeds in prop::collection::vec(any::<[u8; 5]>(), 1..60), back in any::<u16>()) {
        let mut world = World::open();
        for seed in seeds {
            world.time_ms += u64::from(seed[4]);
            let op = command(&mut world, seed);
            world.run(op);
            world.check();
        }
        // Any operation of the past, repeated, has its first answer and changes nothing.
        let done: Vec<(Command, Outcome)> =
            world.history.iter().filter(|(_, outcome)| leaves_receipt(outcome)).cloned().collect();
        if !done.is_empty() {
            let (command, outcome) = done[back as usize % done.len()].clone();
            let (again, writes) = world.commit(command.op);
            assert_eq!(first_time(again), first_time(outcome));
            assert!(writes.rows.is_empty());
        }
        // A replica that applies the same log has the same rows.
        let mut replica = MemoryView::default();
        for (command, outcome) in &world.history {
            let (same, writes) = apply(&replica, command).unwrap();
            assert_eq!(&same, outcome);
            replica.commit(&writes);
        }
        assert_eq!(replica, world.view);
    }

    #[test]
    fn a_damaged_row_is_a_fault_and_never_a_panic(
        seeds in prop::collection::vec(any::<[u8; 5]>(), 4..24),
        victim in any::<u16>(),
        remove in any::<bool>(),
        last in any::<[u8; 5]>(),
    ) {
        let mut world = World::open();
        for seed in seeds {
            let op = command(&mut world, seed);
            world.commit(op);
        }
        let op = command(&mut world, last);
        let key = world.view.rows.keys().nth(victim as usize % world.view.rows.len()).unwrap().clone();
        if remove {
            world.view.rows.remove(&key);
        } else {
            world.view.rows.insert(key, Bytes::from_static(b"rubbish"));
        }
        // Whether the command meets the damage or not: an answer or a fault.
        let _ = apply(&world.view, &Command { time_ms: world.time_ms, op });
        let _ = audit(&world.view);
    }
}

fn append(world: &mut World, flags: Flags) -> Op {
    let mut mail = mail(world, 1);
    mail.body = BodyPut {
        hash: BodyHash(world.draw()),
        size: 1,
        epoch: 0,
    };
    Op::Append {
        account: account(1),
        op_id: OpId(world.draw()),
        mailbox: MailboxId([20; 16]),
        flags,
        internal_date: None,
        mail,
    }
}

#[test]
fn the_oldest_interactive_receipt_goes_first() {
    let mut world = World::open();
    let bound = limits::INTERACTIVE_RECEIPTS_PER_ACCOUNT_MAX;
    let op = |n: usize| Op::Store {
        account: account(1),
        op_id: OpId(numbered(1_000_000 + n as u64)),
        mailbox: MailboxId([20; 16]),
        uids: vec![],
        mode: StoreMode::Add,
        flags: Flags::default(),
        unchanged_since: None,
    };
    for n in 0..=bound {
        world.commit(op(n));
    }
    let receipt = |n: u64| {
        world
            .view
            .rows
            .contains_key(&keys::receipt(account(1), OpId(numbered(1_000_000 + n))))
    };
    assert!(!receipt(0) && receipt(1) && receipt(bound as u64));
    assert!(audit(&world.view).unwrap().is_empty());
    let row: rows::Account = rows::get(&world.view, &keys::account(account(1)), "account")
        .unwrap()
        .unwrap();
    assert_eq!(row.interactive_receipts as usize, bound);
}

#[test]
fn expired_receipts_go_a_few_per_command() {
    let mut world = World::open();
    for _ in 0..20 {
        let op = append(&mut world, Flags::default());
        world.commit(op);
    }
    world.time_ms += limits::INTERACTIVE_RECEIPT_KEPT_MS;
    let left = |world: &World| {
        let row: rows::Account = rows::get(&world.view, &keys::account(account(1)), "account")
            .unwrap()
            .unwrap();
        row.interactive_receipts
    };
    for wanted in [13, 6, 3, 4] {
        let op = append(&mut world, Flags::default());
        world.commit(op);
        assert_eq!(left(&world), wanted);
    }
    assert!(audit(&world.view).unwrap().is_empty());
}

/// The bound itself is a hundred thousand: the trimming is shown with a smaller one.
#[test]
fn trimmed_tombstones_raise_the_horizon() {
    let mut world = World::open();
    let deleted = Flags {
        system: Flags::DELETED,
        ..Flags::default()
    };
    for _ in 0..10 {
        let op = append(&mut world, deleted.clone());
        world.commit(op);
    }
    let (account, id) = (account(1), MailboxId([20; 16]));
    let op = Op::Expunge {
        account,
        op_id: OpId(world.draw()),
        mailbox: id,
        uids: vec![],
    };
    world.commit(op);
    let mut draft = Draft::new(&world.view);
    let mut edit = Edit::open(&mut draft, account, world.time_ms).unwrap();
    let mut mailbox = edit.mailbox(id).unwrap();
    messages::trim_tombstones(&mut edit, &mut mailbox, 4).unwrap();
    edit.save(&mailbox);
    edit.finish().unwrap();
    let writes = draft.writes;
    world.view.commit(&writes);
    assert!(audit(&world.view).unwrap().is_empty());
    // Ten appends took MODSEQs 2 to 11, the expunges 12 to 21; those up to 17 are trimmed.
    let changes = |since| {
        read::changes(&world.view, account, id, ModSeq(since), 9)
            .unwrap()
            .unwrap()
    };
    assert!(changes(16).cannot_calculate && changes(0).cannot_calculate);
    assert!(!changes(17).cannot_calculate);
    assert_eq!(changes(17).vanished, [range(7, 10)]);
}

#[test]
fn the_last_uid_is_refused_and_nothing_is_lost() {
    let mut world = World::open();
    let key = keys::mailbox(account(1), MailboxId([20; 16]));
    let mut row: rows::Mailbox = rows::get(&world.view, &key, "mailbox").unwrap().unwrap();
    row.uid_next = u32::MAX - 1;
    world.view.rows.insert(key, format::encode(&row));
    let op = append(&mut world, Flags::default());
    let Outcome::Appended(stored) = world.commit(op).0 else {
        panic!("one UID is left")
    };
    assert_eq!(stored.uid, Uid(u32::MAX - 1));
    let op = append(&mut world, Flags::default());
    assert_eq!(world.commit(op).0, Outcome::Refused(Refusal::UidsExhausted));
    let set = [range(1, u32::MAX)];
    let page = read::fetch(&world.view, account(1), MailboxId([20; 16]), &set, ModSeq(0), 9)
        .unwrap()
        .unwrap();
    assert_eq!(page.messages.len(), 1);
}

#[test]
fn a_store_of_many_long_keywords_stops_before_its_receipt_is_too_long() {
    let mut world = World::open();
    for _ in 0..4 {
        let op = append(&mut world, Flags::default());
        world.commit(op);
    }
    let keywords: Vec<String> = (0..64).map(|n| format!("{n:0>120}")).collect();
    let (mut from, mut rounds) = (Uid(1), 0);
    loop {
        let op = Op::Store {
            account: account(1),
            op_id: OpId(world.draw()),
            mailbox: MailboxId([20; 16]),
            uids: vec![range(from.0, u32::MAX)],
            mode: StoreMode::Add,
            flags: Flags {
                system: 0,
                keywords: keywords.clone(),
            },
            unchanged_since: None,
        };
        let (outcome, writes) = world.commit(op);
        let longest = writes.rows.values().flatten().map(Bytes::len).max().unwrap();
        assert!(longest <= limits::ROW_VALUE_MAX_BYTES, "{longest}");
        let Outcome::FlagsStored(stored) = outcome else {
            panic!("{outcome:?}")
        };
        assert_eq!(stored.stored.len(), 1, "two would not fit");
        rounds += 1;
        match stored.resume_from {
            Some(next) => from = next,
            None => break,
        }
    }
    assert_eq!(rounds, 4);
}

#[test]
fn bounds_of_a_command_are_answers() {
    let mut world = World::open();
    let refused = |world: &mut World, op: Op| match world.commit(op).0 {
        Outcome::Refused(refusal) => refusal,
        other => panic!("{other:?}"),
    };
    let recipient = Recipient {
        account: account(1),
        op_id: OpId([1; 16]),
        into: SpecialUse::Inbox,
        email_id: EmailId([1; 16]),
        fresh_thread: ThreadId([1; 16]),
    };
    let letter = mail(&mut world, 1);
    let recipients = vec![recipient; limits::RECIPIENTS_PER_COMMAND_MAX + 1];
    let op = Op::Deliver {
        recipients,
        mail: letter,
    };
    assert!(matches!(refused(&mut world, op), Refusal::Limit(_)));
    let hashes = vec![BodyHash([1; 32]); limits::MESSAGES_PER_COMMAND_MAX + 1];
    assert!(matches!(
        refused(&mut world, Op::ReleaseBodies { hashes: hashes.clone() }),
        Refusal::Limit(_)
    ));
    assert!(matches!(
        refused(&mut world, Op::ForgetBodies { hashes: hashes.clone() }),
        Refusal::Limit(_)
    ));
    let free = Op::FreeBodies {
        hashes,
        released_by_ms: u64::MAX,
    };
    assert!(matches!(refused(&mut world, free), Refusal::Limit(_)));
    let op = Op::Expunge {
        account: account(1),
        op_id: OpId([2; 16]),
        mailbox: MailboxId([20; 16]),
        uids: vec![range(1, 1); limits::UID_RANGES_PER_COMMAND_MAX + 1],
    };
    assert!(matches!(refused(&mut world, op), Refusal::Limit(_)));
    let change = MailboxChange::Create {
        name: "a/b/c".into(),
        special_use: SpecialUse::None,
    };
    // Ids that are taken, or that no mailbox may have, are passed over; then there are too few.
    let fresh_ids = vec![
        MailboxId([20; 16]),
        MailboxId([0; 16]),
        MailboxId([9; 16]),
        MailboxId([9; 16]),
    ];
    let op = Op::Mailbox {
        account: account(1),
        op_id: OpId([3; 16]),
        change,
        fresh_ids,
    };
    assert!(matches!(refused(&mut world, op), Refusal::Limit(_)));
    assert!(audit(&world.view).unwrap().is_empty());
}

#[test]
fn a_mailbox_sees_a_bounded_number_of_keywords() {
    let mut world = World::open();
    let store = |world: &mut World, from: usize, count: usize| {
        let op = append(
            world,
            Flags {
                system: 0,
                keywords: (from..from + count).map(|n| format!("k{n}")).collect(),
            },
        );
        world.commit(op).0
    };
    for from in (0..limits::KEYWORDS_PER_MAILBOX_MAX).step_by(64) {
        assert!(matches!(store(&mut world, from, 64), Outcome::Appended(_)));
    }
    assert!(matches!(
        store(&mut world, 1_000, 1),
        Outcome::Refused(Refusal::Limit(_))
    ));
    assert!(
        matches!(store(&mut world, 5, 10), Outcome::Appended(_)),
        "known ones are no new ones"
    );
}

/// A proposer whose clock is broken must not exhaust what is drawn from the clock.
#[test]
fn the_wildest_clock_stops_nothing() {
    let mut world = World {
        time_ms: u64::MAX,
        ..World::default()
    };
    let grant = AccountGrant {
        account: account(1),
        quota_bytes: u64::MAX,
        suspended: false,
        mailboxes: std::array::from_fn(|n| MailboxId([20 + n as u8; 16])),
    };
    assert_eq!(
        world
            .commit(Op::OpenAccounts {
                accounts: vec![grant],
                through: 0
            })
            .0,
        Outcome::Done
    );
    for _ in 0..3 {
        let op = append(&mut world, Flags::default());
        assert!(matches!(world.commit(op).0, Outcome::Appended(_)));
    }
    assert!(audit(&world.view).unwrap().is_empty());
}

/// A view that cannot read.
struct Broken;

impl View for Broken {
    fn get(&self, _: &[u8]) -> Result<Option<Bytes>, Fault> {
        Err(Fault::Storage("no disk".into()))
    }
    fn scan(&self, _: &[u8], _: &[u8], _: &mut crate::view::RowVisitor<'_>) -> Result<(), Fault> {
        Err(Fault::Storage("no disk".into()))
    }
    fn scan_back(&self, _: &[u8], _: &[u8], _: &mut crate::view::RowVisitor<'_>) -> Result<(), Fault> {
        Err(Fault::Storage("no disk".into()))
    }
}

#[test]
fn a_store_that_cannot_be_read_gives_no_answer() {
    let command = Command {
        time_ms: 1,
        op: Op::Sweep { account: account(1) },
    };
    assert_eq!(apply(&Broken, &command), Err(Fault::Storage("no disk".into())));
    assert!(read::account(&Broken, account(1)).is_err());
}
