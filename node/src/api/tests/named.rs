//! Mailboxes that a request names instead of giving their id.

use bytes::Bytes;
use malle_machine::shard::{self, read};
use malle_machine::view::View;
use malle_proto::v1::mail_request::Call;
use malle_proto::v1::{self, ErrorCode, mail_reply::Result as Reply};

use super::{ALICE, World, imap, inline, soon};
use crate::raft::{GroupError, LeaderId};

fn append(name: &str, op: u8) -> Call {
    Call::Append(v1::Append {
        account: ALICE.to_vec().into(),
        op_id: vec![op; 16].into(),
        mailbox_name: name.to_owned(),
        body: Some(inline(b"Subject: kept\r\n\r\nx")),
        ..v1::Append::default()
    })
}

fn open(name: &str, mailbox: Bytes) -> Call {
    Call::MailboxOpen(v1::MailboxOpen {
        account: ALICE.to_vec().into(),
        mailbox,
        name: name.to_owned(),
        consistency: None,
    })
}

fn change(op: u8, change: v1::mailbox_change::Change) -> Call {
    Call::MailboxChange(v1::MailboxChange {
        account: ALICE.to_vec().into(),
        op_id: vec![op; 16].into(),
        change: Some(change),
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_means_the_mailbox_that_has_it_when_it_is_asked() {
    use v1::mailbox_change::Change;
    let world = World::new().await;
    let token = world.token(ALICE);
    let name = "Trips/2026".to_owned();
    let create = v1::MailboxCreate {
        name: name.clone(),
        special_use: 0,
    };
    world
        .ok(&imap(), token.clone(), change(1, Change::Create(create.clone())))
        .await;
    let opened = async |name: &str, id: Bytes| match world.ok(&imap(), token.clone(), open(name, id)).await {
        Reply::MailboxOpen(opened) => opened,
        other => panic!("another answer: {other:?}"),
    };
    for round in 1..=3 {
        let Reply::Append(reply) = world.ok(&imap(), token.clone(), append(&name, 10 + round)).await else {
            panic!("another answer");
        };
        let id = reply.appended.unwrap().mailbox;
        // The first time it is read whole, then followed: the answers are the same as by id.
        let by_name = opened(&name, Bytes::new()).await;
        assert_eq!(by_name, opened("", id).await);
        assert_eq!(
            (by_name.uids[0].last, by_name.first_unseen),
            (u32::from(round), Some(1))
        );
    }
    let before = opened(&name, Bytes::new()).await.mailbox.unwrap().id;
    let rename = v1::MailboxRename {
        from: name.clone(),
        to: "Past".to_owned(),
    };
    world
        .ok(&imap(), token.clone(), change(2, Change::Rename(rename)))
        .await;
    assert_eq!(
        world.refused(&imap(), token.clone(), append(&name, 20)).await,
        ErrorCode::NotFound
    );
    // What was stored before stays so for who repeats it, whatever the mailbox is called now.
    let Reply::Append(repeated) = world.ok(&imap(), token.clone(), append(&name, 12)).await else {
        panic!("another answer");
    };
    let repeated = repeated.appended.unwrap();
    assert_eq!((repeated.uid, repeated.repeated), (2, true));
    world
        .ok(&imap(), token.clone(), change(3, Change::Create(create)))
        .await;
    world.ok(&imap(), token.clone(), append(&name, 21)).await;
    assert_eq!(opened("Past", Bytes::new()).await.mailbox.unwrap().id, before);
    assert_eq!(opened(&name, Bytes::new()).await.mailbox.unwrap().messages, 1);

    let delete = v1::MailboxDelete {
        name: "Trips".to_owned(),
    };
    world
        .ok(&imap(), token.clone(), change(4, Change::Delete(delete)))
        .await;
    for call in [append("Trips", 30), open("Trips", Bytes::new())] {
        assert_eq!(world.refused(&imap(), token.clone(), call).await, ErrorCode::Invalid);
    }
    for call in [append("No/such", 31), open("%", Bytes::new())] {
        assert_eq!(world.refused(&imap(), token.clone(), call).await, ErrorCode::NotFound);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_looked_up_as_one_leader_is_not_proposed_as_another() {
    let world = World::new().await;
    let look = |view: &dyn View| read::named(view, ALICE, "Inbox");
    let (found, leader) = world.group.read_before_write(soon(), look).await.unwrap();
    assert_eq!(found.unwrap(), world.inboxes[0]);
    let leader = leader.expect("it has applied entries of its own");
    let propose = async |leader| {
        let op = shard::Op::Expunge {
            account: ALICE,
            op_id: malle_proto::OpId([50; 16]),
            mailbox: world.inboxes[0],
            uids: vec![],
        };
        world.group.propose_mail(op, Vec::new(), Some(leader), soon()).await
    };
    assert!(matches!(propose(leader).await, Ok(shard::Outcome::Expunged(_))));
    let other = LeaderId {
        term: leader.term + 1,
        ..leader
    };
    assert!(matches!(propose(other).await, Err(GroupError::NotLeader { .. })));
}
