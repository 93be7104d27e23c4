//! A history of three nodes and two clients that is right in everything, for tests that make it wrong in one way.

use crate::history::{
    AccountHeader, FaultEvent, FaultState, Final, FinalMailbox, FinalMessage, Header, History, NodeEvent, Operation,
    PlaceHeader, Record, SCHEMA,
};
use crate::plan::Timeline;
use crate::scenario::{Engine, Fault};
use crate::workload::{Answer, Body, Call, Flags, FlagsMode, Freshness, MailboxRow, Outcome, Row};

pub(crate) const LIN: Freshness = Freshness::Linearizable;

/// Operations of the sample by what they do; the value is the operation's id.
pub(crate) mod id {
    /// Message 1 of INBOX; answered the second time only.
    pub const DELIVER_UNKNOWN: u64 = 0;
    pub const DELIVER: u64 = 1;
    /// Message 2 of INBOX.
    pub const DELIVER_SECOND: u64 = 2;
    /// Message 1 of m1.
    pub const APPEND: u64 = 3;
    /// \Seen on message 1 of INBOX.
    pub const STORE: u64 = 4;
    /// Message 2 to m1, where it is 2.
    pub const MOVE: u64 = 5;
    /// Message 1 of INBOX to m1, where it is 3.
    pub const COPY: u64 = 6;
    /// Message 1 of m1 gets \Deleted.
    pub const DISCARD: u64 = 7;
    pub const EXPUNGE: u64 = 8;
    pub const FETCH: u64 = 9;
    pub const OPEN: u64 = 10;
    pub const CHANGES: u64 = 11;
    pub const STATUS: u64 = 12;
    pub const READ_BODY: u64 = 13;
    /// Refused: over quota.
    pub const REFUSED: u64 = 14;
    pub const CREATE: u64 = 15;
    /// After the faults, message 3 of INBOX.
    pub const ALIVE: u64 = 16;
    pub const STALE: u64 = 17;
    /// The last look of the client that asked for changes.
    pub const CHANGES_LAST: u64 = 18;
}

pub(crate) fn body(number: u64) -> Body {
    Body::of(number, 300)
}

pub(crate) fn row(uid: u32, modseq: u64, flags: &[&str]) -> Row {
    Row {
        uid,
        modseq,
        flags: Flags::of(flags),
        size_bytes: None,
    }
}

fn inbox(uid_next: u32, highest_modseq: u64, count: u32) -> MailboxRow {
    MailboxRow {
        name: "INBOX".to_owned(),
        uid_validity: 7,
        uid_next,
        highest_modseq,
        count,
    }
}

fn stored(uid_validity: u32, uid: u32, modseq: u64) -> Answer {
    Answer::Stored {
        uid_validity,
        uid,
        modseq,
        repeated: false,
    }
}

fn header() -> Header {
    Header {
        schema: SCHEMA,
        scenario: "sample".to_owned(),
        scenario_hash: "0".to_owned(),
        seed: 1,
        engine: Engine::Sim,
        commit: "unknown".to_owned(),
        control: None,
        timeline: Timeline {
            safety_us: 100,
            heal_us: 10_000,
            liveness_us: 11_000,
            end_us: 20_000,
        },
        places: (1..=3)
            .map(|place| PlaceHeader {
                place,
                node: u64::from(place),
                region: "eu".to_owned(),
            })
            .collect(),
        accounts: vec![AccountHeader {
            account: 0,
            shard: 1,
            quota_bytes: 100_000,
        }],
        mailboxes: vec!["INBOX".to_owned(), "m1".to_owned()],
        deadline_us: 5_000_000,
    }
}

/// Adds an operation that takes 50 from `at`.
fn add(history: &mut History, at: u64, op: &str, call: Call, outcome: Outcome<Answer>) {
    let id = history.operations.len() as u64;
    history.push(Record::Operation(Operation {
        id,
        client: 0,
        account: 0,
        op: op.to_owned(),
        call,
        invoked_us: at,
        completed_us: at + 50,
        outcome,
    }));
}

fn done(value: Answer) -> Outcome<Answer> {
    Outcome::Done { value }
}

fn changes_of_clients(history: &mut History) {
    let deliver = |number| Call::Deliver { body: body(number) };
    let unknown = Outcome::Unknown {
        why: "silence".to_owned(),
    };
    add(history, 200, "d1", deliver(1), unknown);
    add(history, 300, "d1", deliver(1), done(stored(7, 1, 1)));
    add(history, 400, "d2", deliver(2), done(stored(7, 2, 2)));
    let append = Call::Append {
        mailbox: "m1".to_owned(),
        flags: Flags::of(&["red"]),
        body: body(3),
    };
    add(history, 500, "a1", append, done(stored(8, 1, 3)));
    let store = |mailbox: &str, flags: &str| Call::Store {
        mailbox: mailbox.to_owned(),
        uids: vec![1],
        mode: FlagsMode::Add,
        flags: Flags::of(&[flags]),
        unchanged_since: None,
    };
    let rows = |row| {
        done(Answer::FlagsStored {
            rows: vec![row],
            modified: vec![],
        })
    };
    add(
        history,
        600,
        "s1",
        store("INBOX", "\\Seen"),
        rows(row(1, 4, &["\\Seen"])),
    );
    let (mailbox, to) = ("INBOX".to_owned(), "m1".to_owned());
    let moved = Call::Move {
        mailbox: mailbox.clone(),
        uids: vec![2],
        to: to.clone(),
    };
    let pairs = |pair| {
        done(Answer::Copied {
            uid_validity: 8,
            pairs: vec![pair],
        })
    };
    add(history, 700, "m1", moved, pairs((2, 2)));
    add(
        history,
        800,
        "c1",
        Call::Copy {
            mailbox,
            uids: vec![1],
            to,
        },
        pairs((1, 3)),
    );
    add(
        history,
        900,
        "s2",
        store("m1", "\\Deleted"),
        rows(row(1, 8, &["\\Deleted", "red"])),
    );
    let expunge = Call::Expunge {
        mailbox: "m1".to_owned(),
        uids: vec![1],
    };
    add(history, 1_000, "e1", expunge, done(Answer::Expunged { uids: vec![1] }));
}

fn reads(history: &mut History) {
    let mailbox = || "INBOX".to_owned();
    let seen = || vec![row(1, 4, &["\\Seen"])];
    let fetch = |fresh| Call::Fetch {
        mailbox: mailbox(),
        from: 1,
        fresh,
    };
    add(
        history,
        1_100,
        "",
        fetch(LIN),
        done(Answer::Fetched { rows: seen(), pages: 1 }),
    );
    let open = Call::Open {
        mailbox: mailbox(),
        fresh: LIN,
    };
    add(
        history,
        1_200,
        "",
        open,
        done(Answer::Opened {
            mailbox: inbox(3, 5, 1),
            uids: vec![(1, 1)],
        }),
    );
    let changes = |since| Call::Changes {
        mailbox: mailbox(),
        since,
        fresh: LIN,
    };
    let told = |mailbox, rows, vanished| {
        done(Answer::Changes {
            mailbox,
            rows,
            vanished,
            cannot_calculate: false,
            pages: 1,
        })
    };
    add(history, 1_300, "", changes(0), told(inbox(3, 5, 1), seen(), vec![2]));
    let status = Answer::Status {
        modseq: 9,
        used_bytes: 900,
        messages: 3,
    };
    add(history, 1_400, "", Call::Status { fresh: LIN }, done(status));
    let bytes = Answer::Body {
        hash: body(1).hash,
        size_bytes: 300,
    };
    add(
        history,
        1_500,
        "",
        Call::ReadBody {
            mailbox: mailbox(),
            uid: 1,
        },
        done(bytes),
    );
    let refused = Outcome::Refused {
        code: "over-quota".to_owned(),
    };
    add(history, 1_600, "d3", Call::Deliver { body: body(9) }, refused);
    add(
        history,
        1_700,
        "k1",
        Call::Create {
            name: "made/c0-1".to_owned(),
        },
        done(Answer::Changed),
    );
    add(
        history,
        12_000,
        "d4",
        Call::Deliver { body: body(4) },
        done(stored(7, 3, 11)),
    );
    let stale = Answer::Fetched { rows: seen(), pages: 1 };
    add(history, 12_100, "", fetch(Freshness::Stale(5_000)), done(stale));
    add(
        history,
        20_000,
        "",
        changes(5),
        told(inbox(4, 11, 2), vec![row(3, 11, &[])], vec![]),
    );
}

fn at_the_end(place: Option<u32>) -> Final {
    let message = |uid, modseq, flags: &[&str], number| {
        let body = body(number);
        FinalMessage {
            uid,
            modseq,
            flags: Flags::of(flags),
            size_bytes: body.size_bytes,
            hash: Some(body.hash),
            why: None,
        }
    };
    let mailbox = |name: &str, uid_validity, uid_next, highest_modseq, messages: Vec<FinalMessage>| FinalMailbox {
        name: name.to_owned(),
        uid_validity,
        uid_next,
        highest_modseq,
        count: messages.len() as u32,
        messages,
    };
    let inbox = vec![message(1, 4, &["\\Seen"], 1), message(3, 11, &[], 4)];
    let m1 = vec![message(2, 6, &[], 2), message(3, 7, &["\\Seen"], 1)];
    Final {
        at_us: 21_000,
        place,
        account: 0,
        modseq: 11,
        used_bytes: inbox.iter().chain(&m1).map(|message| message.size_bytes).sum(),
        quota_bytes: 100_000,
        messages: 4,
        mailboxes: vec![
            mailbox("INBOX", 7, 4, 11, inbox),
            mailbox("m1", 8, 4, 9, m1),
            mailbox("made", 9, 1, 1, vec![]),
            mailbox("made/c0-1", 10, 1, 1, vec![]),
        ],
    }
}

fn nodes_and_faults(history: &mut History) {
    let event = |at_us, place: u32, role: &str, term, applied: u64| NodeEvent {
        at_us,
        place,
        node: u64::from(place),
        group: 1,
        role: role.to_owned(),
        term,
        committed: applied,
        applied,
        digest: Some(format!("d{applied}")),
    };
    let fault = |at_us, event| FaultEvent {
        at_us,
        step: 1,
        fault: Fault::Kill,
        event,
        places: vec![1],
        led: vec![1],
    };
    for (place, role) in [(1, "leader"), (2, "follower"), (3, "follower")] {
        history.push(Record::Node(event(150, place, role, 1, 5)));
    }
    history.push(Record::Fault(fault(1_800, FaultState::Began)));
    history.push(Record::Node(event(2_000, 2, "leader", 2, 6)));
    history.push(Record::Fault(fault(3_000, FaultState::Ended)));
    for (place, role) in [(1, "follower"), (2, "leader"), (3, "follower")] {
        history.push(Record::Node(event(19_000, place, role, 2, 9)));
    }
}

/// The whole history.
pub(crate) fn right() -> History {
    let mut history = History::new(header());
    changes_of_clients(&mut history);
    reads(&mut history);
    nodes_and_faults(&mut history);
    for place in [None, Some(1), Some(2), Some(3)] {
        history.push(Record::Final(at_the_end(place)));
    }
    history.sort();
    history
}
