//! Each checker passes the history that is right, and fails one that is wrong in just one way, naming who shows it.

use super::sample::{id, right, row};
use super::*;
use crate::history::{Broken, FaultState, FinalMessage, Record};
use crate::workload::{Answer, Body, Call, Flags, Outcome};

/// Changes the answer of an operation.
fn answer(history: &mut History, operation: u64, change: impl FnOnce(&mut Answer)) {
    match &mut history.operations[operation as usize].outcome {
        Outcome::Done { value } => change(value),
        other => panic!("operation {operation} has no answer: {other:?}"),
    }
}

/// Changes what every replica and the leader held.
fn finals(history: &mut History, change: impl Fn(&mut crate::history::Final)) {
    history.finals.iter_mut().for_each(change);
}

fn message(last: &mut crate::history::Final, mailbox: usize, at: usize) -> &mut FinalMessage {
    &mut last.mailboxes[mailbox].messages[at]
}

fn finding(history: &History, invariant: u8) -> Finding {
    check(history, &[invariant]).pop().unwrap()
}

/// The right history with one change breaks the invariant, and the evidence names these operations.
#[track_caller]
fn breaks(invariant: u8, operations: &[u64], change: impl FnOnce(&mut History)) {
    let mut history = right();
    change(&mut history);
    let finding = finding(&history, invariant);
    assert_eq!(finding.verdict, Verdict::Fail, "{finding:#?}");
    for operation in operations {
        let named = finding
            .evidence
            .iter()
            .any(|evidence| evidence.operations.contains(operation));
        assert!(named, "operation {operation} is not named: {finding:#?}");
    }
}

#[test]
fn a_right_history_passes_everything() {
    let wanted: Vec<u8> = (1..=16).filter(|invariant| *invariant != 10).collect();
    for finding in check(&right(), &wanted) {
        assert_eq!(finding.verdict, Verdict::Pass, "{finding:#?}");
        assert!(finding.checked > 0, "{finding:#?}");
    }
}

#[test]
fn an_empty_history_passes_nothing() {
    let mut history = right();
    let header = history.header.clone();
    history = History::new(crate::history::Header {
        accounts: vec![],
        ..header
    });
    for finding in check(&history, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16]) {
        assert_eq!(finding.verdict, Verdict::Unknown, "{finding:#?}");
    }
    assert_eq!(overall(&check(&history, &[1])), Verdict::Unknown);
}

#[test]
fn an_account_that_moves_is_skipped_until_accounts_move() {
    assert_eq!(finding(&right(), 10).verdict, Verdict::Skipped);
}

#[test]
fn a_broken_assertion_fails_the_run() {
    let mut history = right();
    history.push(Record::Broken(Broken {
        at_us: 5,
        place: Some(2),
        what: "panicked at the disco".to_owned(),
    }));
    let findings = check(&history, &[]);
    assert_eq!(findings[0].verdict, Verdict::Fail);
    assert!(findings[0].evidence[0].what.contains("node 2"));
}

#[test]
fn a_run_whose_faults_all_were_skipped_is_not_known() {
    let mut history = right();
    for event in &mut history.faults {
        event.event = FaultState::Skipped("not here".to_owned());
    }
    assert_eq!(check(&history, &[])[0].verdict, Verdict::Unknown);
}

#[test]
fn a_lost_mail_is_found() {
    breaks(1, &[id::DELIVER, id::DELIVER_UNKNOWN], |history| {
        finals(history, |last| drop(last.mailboxes[0].messages.remove(0)));
    });
}

#[test]
fn a_mail_lost_on_one_replica_is_found() {
    breaks(1, &[id::MOVE], |history| {
        drop(history.finals[2].mailboxes[1].messages.remove(0))
    });
}

#[test]
fn a_changed_mail_is_found() {
    breaks(1, &[id::DELIVER], |history| {
        finals(history, |last| message(last, 0, 0).hash = Some(Body::of(2, 300).hash));
    });
}

#[test]
fn a_lost_mailbox_is_found() {
    breaks(1, &[id::CREATE], |history| {
        finals(history, |last| drop(last.mailboxes.pop()))
    });
}

#[test]
fn a_mail_that_lmtp_took_is_found_by_its_body() {
    let lmtp = |history: &mut History| {
        answer(history, id::ALIVE, |answer| {
            *answer = Answer::Stored {
                uid_validity: 0,
                uid: 0,
                modseq: 0,
                repeated: false,
            };
        });
    };
    let mut history = right();
    lmtp(&mut history);
    assert_eq!(finding(&history, 1).verdict, Verdict::Pass);
    breaks(1, &[id::ALIVE], |history| {
        lmtp(history);
        finals(history, |last| drop(last.mailboxes[0].messages.remove(1)));
    });
}

#[test]
fn one_op_id_with_two_uids_is_found() {
    breaks(2, &[id::DELIVER_UNKNOWN, id::DELIVER], |history| {
        let value = Answer::Stored {
            uid_validity: 7,
            uid: 9,
            modseq: 1,
            repeated: false,
        };
        history.operations[id::DELIVER_UNKNOWN as usize].outcome = Outcome::Done { value };
    });
}

#[test]
fn a_mail_that_stands_twice_is_found() {
    breaks(2, &[id::ALIVE], |history| {
        finals(history, |last| {
            let again = FinalMessage {
                uid: 4,
                modseq: 12,
                ..message(last, 0, 1).clone()
            };
            last.mailboxes[0].messages.push(again);
        });
    });
}

#[test]
fn a_mail_that_nobody_sent_is_found() {
    breaks(3, &[], |history| {
        finals(history, |last| message(last, 1, 0).hash = Some("ab".to_owned()))
    });
}

#[test]
fn a_mail_that_was_refused_and_is_there_is_found() {
    breaks(3, &[id::REFUSED], |history| {
        finals(history, |last| message(last, 1, 0).hash = Some(Body::of(9, 300).hash));
    });
}

#[test]
fn an_expunged_mail_that_comes_back_is_found() {
    breaks(3, &[id::EXPUNGE], |history| {
        finals(history, |last| {
            let back = FinalMessage {
                uid: 1,
                hash: Some(Body::of(3, 300).hash),
                ..message(last, 1, 0).clone()
            };
            last.mailboxes[1].messages.insert(0, back);
        });
    });
}

#[test]
fn a_mailbox_that_nobody_made_is_found() {
    breaks(3, &[], |history| {
        finals(history, |last| last.mailboxes[3].name = "other".to_owned())
    });
}

#[test]
fn a_uid_given_twice_is_found() {
    let twice = |history: &mut History| {
        answer(history, id::DELIVER_SECOND, |answer| {
            *answer = Answer::Stored {
                uid_validity: 7,
                uid: 1,
                modseq: 2,
                repeated: false,
            };
        });
    };
    breaks(4, &[id::DELIVER, id::DELIVER_SECOND], twice);
    breaks(2, &[id::DELIVER, id::DELIVER_SECOND], twice);
}

#[test]
fn a_uid_that_falls_is_found() {
    breaks(4, &[id::ALIVE], |history| {
        answer(history, id::DELIVER, |answer| {
            *answer = Answer::Stored {
                uid_validity: 7,
                uid: 5,
                modseq: 1,
                repeated: false,
            };
        });
    });
}

#[test]
fn a_uidvalidity_that_changes_is_found() {
    breaks(4, &[id::APPEND], |history| {
        answer(history, id::APPEND, |answer| match answer {
            Answer::Stored { uid_validity, .. } => *uid_validity = 80,
            _ => unreachable!(),
        });
    });
    breaks(4, &[], |history| history.finals[3].mailboxes[0].uid_validity = 70);
}

#[test]
fn a_uidnext_that_falls_is_found() {
    breaks(4, &[id::OPEN, id::DELIVER_SECOND], |history| {
        answer(history, id::OPEN, |answer| match answer {
            Answer::Opened { mailbox, .. } => mailbox.uid_next = 2,
            _ => unreachable!(),
        });
    });
}

#[test]
fn a_modseq_given_twice_is_found() {
    breaks(5, &[id::DELIVER, id::DELIVER_SECOND], |history| {
        answer(history, id::DELIVER_SECOND, |answer| {
            *answer = Answer::Stored {
                uid_validity: 7,
                uid: 2,
                modseq: 1,
                repeated: false,
            };
        });
    });
}

#[test]
fn a_highest_modseq_that_falls_is_found() {
    breaks(5, &[id::OPEN, id::STORE], |history| {
        answer(history, id::OPEN, |answer| match answer {
            Answer::Opened { mailbox, .. } => mailbox.highest_modseq = 3,
            _ => unreachable!(),
        });
    });
}

#[test]
fn two_flags_at_one_modseq_are_found() {
    breaks(5, &[id::STORE, id::STALE], |history| {
        answer(history, id::STALE, |answer| match answer {
            Answer::Fetched { rows, .. } => rows[0].flags = Flags::of(&["\\Seen", "red"]),
            _ => unreachable!(),
        });
    });
}

#[test]
fn an_expunge_that_changes_did_not_tell_is_found() {
    breaks(5, &[id::CHANGES, id::CHANGES_LAST], |history| {
        answer(history, id::CHANGES, |answer| match answer {
            Answer::Changes { rows, vanished, .. } => {
                rows.push(row(2, 2, &[]));
                vanished.clear();
            }
            _ => unreachable!(),
        });
    });
}

#[test]
fn a_counter_that_is_not_the_sum_is_found() {
    breaks(6, &[], |history| finals(history, |last| last.used_bytes -= 1));
    breaks(6, &[], |history| history.finals[1].mailboxes[0].count += 1);
}

#[test]
fn an_account_over_its_quota_is_found() {
    breaks(6, &[id::STATUS], |history| {
        answer(history, id::STATUS, |answer| {
            *answer = Answer::Status {
                modseq: 9,
                used_bytes: 100_001,
                messages: 3,
            };
        });
    });
}

#[test]
fn a_lost_flag_is_found() {
    breaks(7, &[id::FETCH], |history| {
        answer(history, id::FETCH, |answer| match answer {
            Answer::Fetched { rows, .. } => rows[0] = row(1, 1, &[]),
            _ => unreachable!(),
        });
    });
}

#[test]
fn a_store_that_undoes_anothers_flag_is_found() {
    breaks(7, &[id::DISCARD], |history| {
        answer(history, id::DISCARD, |answer| match answer {
            Answer::FlagsStored { rows, .. } => rows[0].flags = Flags::of(&["\\Deleted"]),
            _ => unreachable!(),
        });
    });
}

#[test]
fn a_read_that_misses_an_acknowledged_mail_is_found() {
    breaks(8, &[id::DELIVER, id::FETCH], |history| {
        answer(history, id::FETCH, |answer| match answer {
            Answer::Fetched { rows, .. } => rows.clear(),
            _ => unreachable!(),
        });
    });
    breaks(8, &[id::DELIVER, id::OPEN], |history| {
        answer(history, id::OPEN, |answer| match answer {
            Answer::Opened { uids, .. } => uids.clear(),
            _ => unreachable!(),
        });
    });
}

#[test]
fn a_read_that_shows_what_was_moved_away_is_found() {
    breaks(8, &[id::MOVE, id::OPEN], |history| {
        answer(history, id::OPEN, |answer| match answer {
            Answer::Opened { uids, .. } => *uids = vec![(1, 2)],
            _ => unreachable!(),
        });
    });
}

#[test]
fn a_stale_read_that_is_older_than_it_may_be_is_found() {
    breaks(8, &[id::DELIVER, id::STALE], |history| {
        answer(history, id::STALE, |answer| match answer {
            Answer::Fetched { rows, .. } => rows.clear(),
            _ => unreachable!(),
        });
    });
}

#[test]
fn a_moved_mail_that_stays_where_it_was_is_found() {
    breaks(9, &[id::MOVE], |history| {
        finals(history, |last| {
            let stayed = FinalMessage {
                uid: 2,
                ..message(last, 1, 0).clone()
            };
            last.mailboxes[0].messages.insert(1, stayed);
        });
    });
}

#[test]
fn a_copy_of_another_message_is_found() {
    breaks(9, &[id::COPY], |history| {
        finals(history, |last| message(last, 1, 1).hash = Some(Body::of(4, 300).hash));
    });
}

#[test]
fn replicas_that_differ_are_found() {
    breaks(11, &[], |history| {
        history.nodes.last_mut().unwrap().digest = Some("other".to_owned())
    });
    breaks(11, &[], |history| {
        message(&mut history.finals[3], 0, 0).flags = Flags::default()
    });
}

#[test]
fn a_restarted_replica_that_differs_is_found() {
    breaks(12, &[], |history| {
        let restarted = history.nodes.iter_mut().rev().find(|event| event.place == 1);
        restarted.unwrap().digest = Some("other".to_owned());
    });
}

#[test]
fn a_body_of_another_message_is_found() {
    breaks(13, &[id::READ_BODY, id::DELIVER], |history| {
        answer(history, id::READ_BODY, |answer| {
            *answer = Answer::Body {
                hash: Body::of(2, 300).hash,
                size_bytes: 300,
            };
        });
    });
    breaks(13, &[], |history| {
        finals(history, |last| {
            message(last, 0, 0).hash = None;
            message(last, 0, 0).why = Some("damaged".to_owned());
        });
    });
}

/// At the end this node leads the term that node 2 has led since long before.
fn led_at_last_by(node: u32) -> impl FnOnce(&mut History) {
    move |history| {
        let last = history
            .nodes
            .iter()
            .find(|event| event.at_us == 19_000 && event.place == node);
        let mut event = last.expect("every node speaks at the end").clone();
        (event.at_us, event.role) = (19_500, "leader".to_owned());
        history.push(Record::Node(event));
    }
}

#[test]
fn a_leader_that_is_not_above_the_one_before_is_found() {
    breaks(14, &[], led_at_last_by(1));
}

#[test]
fn a_higher_node_may_lead_in_the_same_term() {
    let mut history = right();
    led_at_last_by(3)(&mut history);
    assert_eq!(finding(&history, 14).verdict, Verdict::Pass);
}

#[test]
fn a_term_that_falls_is_found() {
    breaks(14, &[], |history| history.nodes.last_mut().unwrap().term = 0);
}

#[test]
fn an_applied_entry_that_was_never_committed_is_found() {
    breaks(14, &[], |history| history.nodes.last_mut().unwrap().applied = 10);
}

#[test]
fn a_commit_that_is_taken_back_is_found() {
    breaks(14, &[], |history| {
        let mut back = history.nodes.last().unwrap().clone();
        (back.at_us, back.committed) = (19_500, 8);
        history.push(Record::Node(back));
    });
}

#[test]
fn a_group_that_serves_no_more_is_found() {
    breaks(15, &[], |history| {
        history.operations[id::ALIVE as usize].outcome = Outcome::Unknown {
            why: "silence".to_owned(),
        };
    });
}

#[test]
fn a_replica_that_stays_behind_is_found() {
    breaks(15, &[], |history| history.nodes.last_mut().unwrap().applied = 8);
}

#[test]
fn a_fault_that_does_not_end_is_found() {
    breaks(15, &[], |history| drop(history.faults.pop()));
}

#[test]
fn a_call_beyond_its_deadline_is_found() {
    breaks(16, &[id::ALIVE], |history| {
        let operation = &mut history.operations[id::ALIVE as usize];
        operation.completed_us = operation.invoked_us + 7_000_001;
    });
}

#[test]
fn an_undocumented_refusal_is_found() {
    breaks(16, &[id::REFUSED], |history| {
        history.operations[id::REFUSED as usize].outcome = Outcome::Refused {
            code: "oops".to_owned(),
        };
    });
}

#[test]
fn an_unknown_change_may_be_done_or_not() {
    let unknown = || Outcome::Unknown {
        why: "silence".to_owned(),
    };
    let wanted: Vec<u8> = (1..=9).collect();
    for operation in [id::EXPUNGE, id::COPY, id::STORE, id::MOVE] {
        let mut history = right();
        history.operations[operation as usize].outcome = unknown();
        for finding in check(&history, &wanted) {
            assert_ne!(finding.verdict, Verdict::Fail, "operation {operation}: {finding:#?}");
        }
    }
    assert!(matches!(
        right().operations[id::EXPUNGE as usize].call,
        Call::Expunge { .. }
    ));
}
