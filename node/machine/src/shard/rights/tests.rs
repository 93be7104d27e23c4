//! Each right by itself, and what becomes of grants when mailboxes come and go.

use bytes::Bytes;
use malle_proto::{AccountId, BodyHash, EmailId, MailboxId, OpId, Rights, ThreadId, Uid, limits};

use crate::shard::{
    AccountGrant, BodyPut, Command, Flags, MailboxChange, NewMail, Op, Outcome, Refusal, SpecialUse, StoreMode,
    Summary, UidRange, apply, audit, keys, read, rows,
};
use crate::view::{Flow, MemoryView, View};

const OWNER: AccountId = AccountId([1; 16]);
const GUEST: AccountId = AccountId([2; 16]);
const INBOX: MailboxId = MailboxId([10; 16]);
const SENT: MailboxId = MailboxId([11; 16]);

#[derive(Default)]
struct World {
    view: MemoryView,
    drawn: u8,
    time_ms: u64,
}

impl World {
    /// One message in INBOX.
    fn open() -> World {
        let mut world = World {
            time_ms: 1000,
            ..World::default()
        };
        let grant = AccountGrant {
            account: OWNER,
            quota_bytes: 1000,
            suspended: false,
            mailboxes: std::array::from_fn(|n| MailboxId([10 + n as u8; 16])),
        };
        world.run(Op::OpenAccounts {
            accounts: vec![grant],
            through: 1,
        });
        let append = world.append(Flags::default());
        world.run(append);
        world
    }

    fn run(&mut self, op: Op) -> Outcome {
        let command = Command {
            time_ms: self.time_ms,
            op,
        };
        let (outcome, writes) = apply(&self.view, &command).unwrap();
        self.view.commit(&writes);
        assert_eq!(audit(&self.view).unwrap(), Vec::<String>::new());
        outcome
    }

    fn guest(&mut self, op: Op) -> Outcome {
        self.run(Op::ForGuest {
            guest: GUEST,
            op: Box::new(op),
        })
    }

    fn op_id(&mut self) -> OpId {
        self.drawn += 1;
        OpId([self.drawn; 16])
    }

    /// So many operations of a guest, each with an op id of its own.
    fn flood(&mut self, guest: AccountId, count: u64) {
        for number in 0..count {
            let mut op = self.store(StoreMode::Add, Flags::SEEN, &[]);
            if let Op::Store { op_id, .. } = &mut op {
                op_id.0[..8].copy_from_slice(&number.to_be_bytes());
            }
            let op = Op::ForGuest {
                guest,
                op: Box::new(op),
            };
            self.drawn -= 1;
            let command = Command {
                time_ms: self.time_ms,
                op,
            };
            let (outcome, writes) = apply(&self.view, &command).unwrap();
            self.view.commit(&writes);
            assert!(matches!(outcome, Outcome::FlagsStored(_)), "{outcome:?}");
        }
        assert_eq!(audit(&self.view).unwrap(), Vec::<String>::new());
    }

    fn visitors(&self) -> Vec<rows::Visitor> {
        let range = keys::of_kind(OWNER, keys::kind::VISITOR);
        let mut found = Vec::new();
        let mut take = |_: &[u8], value: &[u8]| {
            found.push(rows::read(value, "visitor")?);
            Ok(Flow::More)
        };
        self.view.scan(&range.from, &range.to, &mut take).unwrap();
        found
    }

    fn append(&mut self, flags: Flags) -> Op {
        let op_id = self.op_id();
        Op::Append {
            account: OWNER,
            op_id,
            mailbox: INBOX,
            flags,
            internal_date: None,
            mail: NewMail {
                body: BodyPut {
                    hash: BodyHash([self.drawn; 32]),
                    size: 1,
                    epoch: 0,
                },
                summary: Summary::Inline(Bytes::new()),
                email_id: EmailId([self.drawn; 16]),
                fresh_thread: ThreadId([self.drawn; 16]),
                thread_keys: Vec::new(),
            },
        }
    }

    fn store(&mut self, mode: StoreMode, system: u8, keywords: &[&str]) -> Op {
        Op::Store {
            account: OWNER,
            op_id: self.op_id(),
            mailbox: INBOX,
            uids: everything(),
            mode,
            flags: Flags {
                system,
                keywords: keywords.iter().map(ToString::to_string).collect(),
            },
            unchanged_since: None,
        }
    }

    fn copy(&mut self, remove: bool) -> Op {
        Op::Copy {
            account: OWNER,
            op_id: self.op_id(),
            mailbox: INBOX,
            uids: everything(),
            to: SENT,
            remove,
        }
    }

    fn change(&mut self, change: MailboxChange) -> Op {
        let op_id = self.op_id();
        Op::Mailbox {
            account: OWNER,
            op_id,
            change,
            fresh_ids: vec![MailboxId([100 + self.drawn; 16])],
        }
    }

    fn create(&mut self, name: &str) -> Op {
        self.change(MailboxChange::Create {
            name: name.into(),
            special_use: SpecialUse::None,
        })
    }

    fn grant(&mut self, name: &str, letters: &str) {
        self.grant_to(GUEST, name, letters);
    }

    fn grant_to(&mut self, guest: AccountId, name: &str, letters: &str) {
        let op = self.change(MailboxChange::Grant {
            name: name.into(),
            guest,
            mode: StoreMode::Replace,
            rights: Rights::parse(letters).unwrap().0,
        });
        assert!(matches!(self.run(op), Outcome::MailboxChanged { .. }));
    }

    fn flags(&self) -> Flags {
        let page = read::fetch(&self.view, OWNER, INBOX, &everything(), malle_proto::ModSeq(0), 1);
        page.unwrap().unwrap().messages[0].flags.clone()
    }
}

fn everything() -> Vec<UidRange> {
    vec![UidRange {
        first: Uid(1),
        last: Uid(u32::MAX),
    }]
}

fn lacks(letters: &str) -> Outcome {
    Outcome::Refused(Refusal::NoRight(letters.into()))
}

#[test]
fn without_a_grant_there_is_no_mailbox() {
    let mut world = World::open();
    let ops = [
        world.append(Flags::default()),
        world.store(StoreMode::Add, Flags::SEEN, &[]),
        world.copy(false),
        world.create("INBOX/x"),
    ];
    for op in ops {
        assert_eq!(world.guest(op), Outcome::Refused(Refusal::NoMailbox));
    }
    assert!(
        read::mailboxes_for(&world.view, OWNER, GUEST)
            .unwrap()
            .unwrap()
            .is_empty()
    );
}

#[test]
fn each_operation_needs_its_right() {
    let mut world = World::open();
    world.grant("INBOX", "l");
    world.grant("Sent", "l");
    for (op, missing) in [
        (world.append(Flags::default()), "i"),
        (world.store(StoreMode::Add, Flags::SEEN, &[]), "s, w or t"),
        (world.copy(false), "r"),
        (world.copy(true), "rte"),
        (world.create("INBOX/x"), "k"),
        (world.create("top"), "k"),
        (world.change(MailboxChange::Delete { name: "Sent".into() }), "x"),
    ] {
        assert_eq!(world.guest(op), lacks(missing));
    }
    world.grant("INBOX", "lr");
    let copy = world.copy(false);
    assert_eq!(world.guest(copy), lacks("i"), "of the target");
    world.grant("Sent", "li");
    let copy = world.copy(false);
    assert!(matches!(world.guest(copy), Outcome::Copied(_)));
    let own = world.change(MailboxChange::Grant {
        name: "INBOX".into(),
        guest: GUEST,
        mode: StoreMode::Add,
        rights: Rights::ALL.0,
    });
    assert_eq!(world.guest(own), lacks("a"));
}

#[test]
fn flags_beyond_reach_stay_as_they_are() {
    let mut world = World::open();
    let owned = world.store(StoreMode::Replace, Flags::FLAGGED | Flags::DELETED, &["Work"]);
    world.run(owned);
    world.grant("INBOX", "lrsi");
    let replace = world.store(StoreMode::Replace, Flags::SEEN | Flags::DRAFT, &["Mine"]);
    assert!(matches!(world.guest(replace), Outcome::FlagsStored(_)));
    let now = world.flags();
    assert_eq!(now.system, Flags::FLAGGED | Flags::DELETED | Flags::SEEN);
    assert_eq!(now.keywords, ["Work"]);
    let add = world.store(StoreMode::Add, Flags::ANSWERED, &[]);
    assert_eq!(world.guest(add), lacks("s, w or t"));
    // An append keeps what may be set and drops the rest (RFC 4314 4).
    let append = world.append(Flags {
        system: Flags::SEEN | Flags::DELETED,
        keywords: vec!["Mine".into()],
    });
    let Outcome::Appended(stored) = world.guest(append) else {
        panic!("not appended")
    };
    let row = read::message(&world.view, OWNER, INBOX, stored.uid).unwrap().unwrap();
    assert_eq!((row.flags.system, row.flags.keywords.len()), (Flags::SEEN, 0));
}

#[test]
fn grants_go_with_the_mailbox_and_end_with_it() {
    let mut world = World::open();
    world.grant("Sent", "lrkx");
    let child = world.create("Sent/child");
    world.guest(child);
    let rename = world.change(MailboxChange::Rename {
        from: "Sent".into(),
        to: "Envois".into(),
    });
    world.run(rename);
    let names = |world: &World| -> Vec<String> {
        let shown = read::mailboxes_for(&world.view, OWNER, GUEST).unwrap().unwrap();
        shown.into_iter().map(|(mailbox, _)| mailbox.name).collect()
    };
    assert_eq!(names(&world), ["Envois", "Envois/child"]);
    for name in ["Envois/child", "Envois"] {
        let delete = world.change(MailboxChange::Delete { name: name.into() });
        assert!(matches!(world.guest(delete), Outcome::MailboxChanged { .. }));
    }
    assert!(names(&world).is_empty());
    assert_eq!(read::rights_of(&world.view, OWNER, SENT, GUEST).unwrap(), Rights::NONE);
    // The name comes back, the grants do not.
    let again = world.create("Envois");
    world.run(again);
    assert!(names(&world).is_empty());
}

#[test]
fn who_subscribes_subscribes_for_himself_and_a_receipt_answers_whom_it_was_given_to() {
    let mut world = World::open();
    world.grant("INBOX", "lrs");
    let off = world.change(MailboxChange::Subscribe {
        name: "INBOX".into(),
        subscribed: true,
    });
    assert!(matches!(world.guest(off), Outcome::MailboxChanged { .. }));
    assert!(
        read::mailboxes_for(&world.view, OWNER, GUEST).unwrap().unwrap()[0]
            .0
            .subscribed
    );
    let flag = world.store(StoreMode::Add, Flags::DELETED, &[]);
    world.run(flag.clone());
    assert_eq!(world.guest(flag), lacks("s, w or t"), "not the owner's answer");
    world.grant("INBOX", "");
    assert!(read::granted(&world.view, OWNER, GUEST).unwrap().is_empty());
}

#[test]
fn a_flood_of_a_guest_pushes_out_only_his_own_receipts() {
    const OTHER: AccountId = AccountId([3; 16]);
    let mut world = World::open();
    world.grant("INBOX", "lrsi");
    world.grant_to(OTHER, "INBOX", "lrsi");
    let of_owner = world.append(Flags::default());
    let of_other = Op::ForGuest {
        guest: OTHER,
        op: Box::new(world.append(Flags::default())),
    };
    let of_guest = world.append(Flags::default());
    let first = [
        world.run(of_owner.clone()),
        world.run(of_other.clone()),
        world.guest(of_guest.clone()),
    ];
    world.flood(GUEST, limits::INTERACTIVE_RECEIPTS_PER_ACCOUNT_MAX as u64 + 1);
    let again = [world.run(of_owner), world.run(of_other)];
    for (first, again) in first.iter().zip(&again) {
        let (Outcome::Appended(first), Outcome::Appended(again)) = (first, again) else {
            panic!("{first:?} {again:?}")
        };
        assert_eq!((again.uid, again.repeated), (first.uid, true));
    }
    // His own is forgotten: that is what the bound costs him who fills it.
    let Outcome::Appended(twice) = world.guest(of_guest) else {
        panic!("not appended")
    };
    assert!(!twice.repeated);
    let kept: Vec<u64> = world.visitors().iter().map(|one| one.next - one.first).collect();
    assert_eq!(kept, [limits::GUEST_RECEIPTS_MAX, 1]);
}

#[test]
fn receipts_of_guests_go_when_their_time_is_over() {
    let mut world = World::open();
    world.grant("INBOX", "lrs");
    world.flood(GUEST, 20);
    world.time_ms += limits::INTERACTIVE_RECEIPT_KEPT_MS - 1;
    world.run(Op::Sweep { account: OWNER });
    assert_eq!(world.visitors().len(), 1, "not a moment before");
    // A retry that comes late is still known to be one, and what it leaves behind is taken away by whoever comes next.
    world.time_ms += 1;
    world.flood(GUEST, 20);
    let before = world.visitors()[0].next - world.visitors()[0].first;
    for _ in 0..3 {
        let subscribe = world.change(MailboxChange::Subscribe {
            name: "Sent".into(),
            subscribed: false,
        });
        world.run(subscribe);
    }
    let kept = world.visitors().first().map_or(0, |one| one.next - one.first);
    assert!(kept < before, "{kept} of {before}");
    world.run(Op::Sweep { account: OWNER });
    assert!(world.visitors().is_empty());
}
