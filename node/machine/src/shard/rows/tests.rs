//! Every kept record of a shard against its golden file.

use std::fmt::Debug;

use bytes::Bytes;
use malle_proto::{AccountId, BodyHash, EmailId, MailboxId, ModSeq, OpId, ThreadId, Uid, UidValidity};

use super::{
    Account, Annotation, Body, Child, Content, Grant, KeptSummary, Keyword, Mailbox, Place, Receipt, Shard, State,
    Thread, Turn, Visitor,
};
use crate::format::Record;
use crate::shard::{
    AccountGrant, Arriving, BodyPut, Command, Copied, Expunged, Flags, FlagsStored, InternalDate, MailboxChange,
    MessageFlags, NewMail, Op, Outcome, Recipient, Refusal, SpecialUse, StoreMode, Stored, Summary, UidRange,
};

fn golden<T: Record + Debug + PartialEq>(name: &str, sample: T) {
    crate::golden::check("shard", name, sample);
}

fn flags() -> Flags {
    Flags {
        system: Flags::SEEN | Flags::DELETED,
        keywords: vec!["$Forwarded".into(), "Work".into()],
    }
}

fn put() -> BodyPut {
    BodyPut {
        hash: BodyHash([7; 32]),
        size: 70_000,
        epoch: 3,
    }
}

#[test]
fn rows_of_the_tree_keep_their_bytes() {
    golden(
        "shard",
        Shard {
            time_ms: 1_700_000_000_000,
            body_epoch: 5,
            forgotten_epoch: 4,
            accounts: 300,
            accounts_through: 70_000,
        },
    );
    golden(
        "account",
        Account {
            modseq: 400,
            quota_bytes: 20 << 30,
            used_bytes: 123_456,
            messages: 300,
            suspended: true,
            places: 7,
            uid_validity: 1_700_000_006,
            receipts_written: 900,
            interactive_receipts: 12,
            receipts_due_ms: 1_700_000_900_000,
            doomed: 1,
            special: vec![
                (SpecialUse::Inbox, MailboxId([1; 16])),
                (SpecialUse::All, MailboxId([2; 16])),
            ],
        },
    );
    golden(
        "place",
        Place {
            parent: MailboxId([1; 16]),
            part: "Été".into(),
            mailbox: Some(MailboxId([2; 16])),
            subscribed: true,
        },
    );
    golden(
        "child",
        Child {
            place: MailboxId([3; 16]),
        },
    );
    golden(
        "mailbox",
        Mailbox {
            place: MailboxId([3; 16]),
            uid_validity: 1_700_000_001,
            uid_next: 301,
            highest_modseq: 400,
            messages: 250,
            unseen: 3,
            deleted: 2,
            size_bytes: 99_999,
            keywords: 2,
            tombstones: 50,
            horizon: 17,
        },
    );
    golden(
        "keyword",
        Keyword {
            spelling: "Work".into(),
        },
    );
    golden(
        "annotation",
        Annotation {
            modseq: 400,
            value: Some(Bytes::from_static(b"\0 is a byte like others")),
        },
    );
    golden(
        "grant",
        Grant {
            rights: 0x7FF,
            subscribed: true,
        },
    );
    golden(
        "visitor",
        Visitor {
            first: 300,
            next: 556,
            due_ms: 1_700_000_900_000,
        },
    );
}

#[test]
fn rows_of_messages_keep_their_bytes() {
    golden(
        "state",
        State {
            modseq: 300,
            flags: flags(),
        },
    );
    let content = |summary| Content {
        size: 70_000,
        body: BodyHash([7; 32]),
        internal_date: InternalDate {
            time_ms: 1_700_000_000_000,
            zone_minutes: -210,
        },
        save_date_ms: 1_700_000_000_001,
        email_id: EmailId([8; 16]),
        thread_id: ThreadId([9; 16]),
        thread_keys: vec![[10; 16], [11; 16]],
        summary,
    };
    golden(
        "content",
        content(KeptSummary::Inline(Bytes::from_static(b"\x0a\x03abc"))),
    );
    golden("content-beside", content(KeptSummary::Beside(BodyHash([12; 32]))));
    golden(
        "thread",
        Thread {
            thread_id: ThreadId([9; 16]),
            messages: 2,
        },
    );
    golden(
        "body",
        Body {
            size: 70_000,
            references: 0,
            idle_since_ms: 1_700_000_000_000,
            released_epoch: 5,
        },
    );
    golden(
        "turn",
        Turn {
            op_id: OpId([13; 16]),
            expires_ms: 1_700_000_900_000,
        },
    );
    golden(
        "receipt",
        Receipt {
            outcome: Outcome::Appended(stored()),
        },
    );
}

fn stored() -> Stored {
    Stored {
        mailbox: MailboxId([2; 16]),
        uid_validity: UidValidity(1_700_000_001),
        uid: Uid(300),
        modseq: ModSeq(400),
        repeated: false,
    }
}

/// A command of every kind: variants only grow at their end.
#[test]
fn commands_keep_their_bytes() {
    let (account, op_id, mailbox) = (AccountId([1; 16]), OpId([13; 16]), MailboxId([2; 16]));
    let uids = vec![UidRange {
        first: Uid(1),
        last: Uid(300),
    }];
    let mail = |summary| NewMail {
        body: put(),
        summary,
        email_id: EmailId([8; 16]),
        fresh_thread: ThreadId([9; 16]),
        thread_keys: vec![[10; 16]],
    };
    let grant = AccountGrant {
        account,
        quota_bytes: 20 << 30,
        suspended: false,
        mailboxes: std::array::from_fn(|n| MailboxId([n as u8; 16])),
    };
    let recipient = Recipient {
        account,
        op_id,
        into: SpecialUse::Junk,
        email_id: EmailId([8; 16]),
        fresh_thread: ThreadId([9; 16]),
    };
    let ops = [
        (
            "open",
            Op::OpenAccounts {
                accounts: vec![grant],
                through: 7,
            },
        ),
        (
            "deliver",
            Op::Deliver {
                recipients: vec![recipient],
                mail: mail(Summary::Beside(put())),
            },
        ),
        (
            "append",
            Op::Append {
                account,
                op_id,
                mailbox,
                flags: flags(),
                internal_date: Some(InternalDate {
                    time_ms: 5,
                    zone_minutes: 60,
                }),
                mail: mail(Summary::Inline(Bytes::from_static(b"abc"))),
            },
        ),
        (
            "store",
            Op::Store {
                account,
                op_id,
                mailbox,
                uids: uids.clone(),
                mode: StoreMode::Replace,
                flags: flags(),
                unchanged_since: Some(ModSeq(9)),
            },
        ),
        (
            "copy",
            Op::Copy {
                account,
                op_id,
                mailbox,
                uids: uids.clone(),
                to: MailboxId([3; 16]),
                remove: true,
            },
        ),
        (
            "expunge",
            Op::Expunge {
                account,
                op_id,
                mailbox,
                uids,
            },
        ),
        (
            "release",
            Op::ReleaseBodies {
                hashes: vec![BodyHash([7; 32])],
            },
        ),
        (
            "forget",
            Op::ForgetBodies {
                hashes: vec![BodyHash([7; 32])],
            },
        ),
        ("sweep", Op::Sweep { account }),
        (
            "free",
            Op::FreeBodies {
                hashes: vec![BodyHash([7; 32])],
                released_by_ms: 1_700_000_000_000,
            },
        ),
        (
            "append-all",
            Op::AppendAll {
                account,
                op_id,
                mailbox,
                messages: vec![Arriving {
                    flags: flags(),
                    internal_date: None,
                    mail: mail(Summary::Inline(Bytes::from_static(b"abc"))),
                }],
                replaces: Some((MailboxId([3; 16]), Uid(5))),
            },
        ),
    ];
    for (name, op) in ops {
        golden(
            &format!("command-{name}"),
            Command {
                time_ms: 1_700_000_000_000,
                op,
            },
        );
    }
    let name = || "Work/Été".to_string();
    let changes = [
        (
            "create",
            MailboxChange::Create {
                name: name(),
                special_use: SpecialUse::Archive,
            },
        ),
        (
            "rename",
            MailboxChange::Rename {
                from: name(),
                to: "x".into(),
            },
        ),
        ("delete", MailboxChange::Delete { name: name() }),
        (
            "subscribe",
            MailboxChange::Subscribe {
                name: name(),
                subscribed: true,
            },
        ),
        (
            "use",
            MailboxChange::SpecialUse {
                name: name(),
                special_use: SpecialUse::None,
            },
        ),
        (
            "annotate",
            MailboxChange::Annotate {
                name: name(),
                entries: vec![
                    ("/private/comment".into(), Some(Bytes::from_static(b"mine"))),
                    ("/shared/comment".into(), None),
                ],
            },
        ),
        (
            "grant",
            MailboxChange::Grant {
                name: name(),
                guest: AccountId([9; 16]),
                mode: StoreMode::Add,
                rights: 3,
            },
        ),
    ];
    for (name, change) in changes {
        let op = Op::Mailbox {
            account,
            op_id,
            change,
            fresh_ids: vec![mailbox],
        };
        golden(&format!("command-{name}"), Command { time_ms: 5, op });
    }
    let op = Op::ForGuest {
        guest: AccountId([9; 16]),
        op: Box::new(Op::Expunge {
            account,
            op_id,
            mailbox,
            uids: Vec::new(),
        }),
    };
    golden("command-for-guest", Command { time_ms: 5, op });
}

/// An outcome of every kind, since receipts keep them.
#[test]
fn outcomes_keep_their_bytes() {
    let range = UidRange {
        first: Uid(1),
        last: Uid(2),
    };
    let refusals = [
        Refusal::NoAccount,
        Refusal::Suspended,
        Refusal::NoMailbox,
        Refusal::MailboxExists,
        Refusal::BadName("why".into()),
        Refusal::NotPossible("why".into()),
        Refusal::OverQuota { quota_bytes: 5 },
        Refusal::Limit("what".into()),
        Refusal::StaleBody,
        Refusal::UidsExhausted,
    ];
    let mut delivered: Vec<Result<Stored, Refusal>> = refusals.into_iter().map(Err).collect();
    delivered.push(Ok(stored()));
    let outcomes = [
        ("done", Outcome::Done),
        ("delivered", Outcome::Delivered(delivered)),
        ("appended", Outcome::Appended(stored())),
        (
            "stored",
            Outcome::FlagsStored(FlagsStored {
                stored: vec![MessageFlags {
                    uid: Uid(1),
                    modseq: ModSeq(2),
                    flags: flags(),
                }],
                modified: vec![range],
                resume_from: Some(Uid(9)),
                modseq: ModSeq(3),
            }),
        ),
        (
            "copied",
            Outcome::Copied(Copied {
                uid_validity: UidValidity(7),
                pairs: vec![(Uid(1), Uid(2))],
                resume_from: None,
                modseq: ModSeq(3),
            }),
        ),
        (
            "expunged",
            Outcome::Expunged(Expunged {
                vanished: vec![range],
                resume_from: None,
                modseq: ModSeq(3),
            }),
        ),
        (
            "changed",
            Outcome::MailboxChanged {
                mailbox: Some(MailboxId([2; 16])),
                modseq: ModSeq(3),
            },
        ),
        (
            "released",
            Outcome::BodiesReleased {
                epoch: 4,
                released: vec![BodyHash([7; 32])],
            },
        ),
        ("refused", Outcome::Refused(Refusal::StaleBody)),
        ("no-right", Outcome::Refused(Refusal::NoRight("rw".into()))),
        ("appended-all", Outcome::AppendedAll(vec![stored()])),
    ];
    for (name, outcome) in outcomes {
        golden(&format!("outcome-{name}"), outcome);
    }
}
