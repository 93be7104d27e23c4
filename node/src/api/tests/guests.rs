//! What another account may do is what its owner granted, and the node says so, whatever the gateway asks (RFC 4314).

use super::*;
use malle_proto::Rights;
use malle_proto::v1::mailbox_change::Change;

pub(super) fn id(account: AccountId) -> Bytes {
    Bytes::copy_from_slice(account.as_bytes())
}

impl World {
    pub(super) fn tree(&self, account: AccountId, change: Change) -> Call {
        Call::MailboxChange(v1::MailboxChange {
            account: id(account),
            op_id: self.api.env.op_id().to_vec().into(),
            change: Some(change),
        })
    }

    fn granting(&self, guest: AccountId, letters: &str) -> Call {
        self.tree(
            ALICE,
            Change::Grant(v1::MailboxGrant {
                name: "INBOX".into(),
                guest: id(guest),
                mode: v1::StoreMode::Replace.into(),
                rights: u32::from(Rights::parse(letters).unwrap().0),
            }),
        )
    }

    pub(super) async fn grant_bob(&self, letters: &str) {
        self.ok(&imap(), self.token(ALICE), self.granting(BOB, letters)).await;
    }

    pub(super) fn flagging(&self, system: u32) -> Call {
        Call::Store(v1::Store {
            account: id(ALICE),
            op_id: self.api.env.op_id().to_vec().into(),
            mailbox: self.inboxes[0].to_vec().into(),
            uids: vec![v1::UidRange { first: 1, last: 1 }],
            mode: v1::StoreMode::Add.into(),
            flags: Some(v1::Flags {
                system,
                keywords: Vec::new(),
            }),
            unchanged_since: None,
        })
    }
}

fn opening() -> Call {
    Call::MailboxOpen(v1::MailboxOpen {
        account: id(ALICE),
        name: "inbox".into(),
        ..v1::MailboxOpen::default()
    })
}

fn listing() -> Call {
    Call::MailboxList(v1::MailboxList {
        account: id(ALICE),
        consistency: None,
    })
}

fn acl() -> Call {
    Call::Grants(v1::Grants {
        account: id(ALICE),
        name: "INBOX".into(),
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_reads_what_is_granted_until_it_is_taken_back() {
    let world = World::new().await;
    world.deliver(1, MAIL).await;
    let (peer, bob) = (imap(), world.token(BOB));
    let read = || world.read_body(ALICE, world.inboxes[0], 1, 0, 100);
    for call in [opening(), listing(), acl(), read()] {
        assert_eq!(world.refused(&peer, bob.clone(), call).await, ErrorCode::Denied);
    }
    // Nobody grants himself anything.
    let call = world.granting(BOB, "lr");
    assert_eq!(world.refused(&peer, bob.clone(), call).await, ErrorCode::Denied);

    world.grant_bob("lr").await;
    let Reply::MailboxList(list) = world.ok(&peer, bob.clone(), listing()).await else {
        panic!("another answer")
    };
    let [inbox] = &list.mailboxes[..] else {
        panic!("more than was granted: {list:?}")
    };
    assert_eq!((inbox.name.as_str(), inbox.rights), ("INBOX", Some(3)));
    world.ok(&peer, bob.clone(), opening()).await;
    world.ok(&peer, bob.clone(), read()).await;
    let sent = v1::MailboxOpen {
        account: id(ALICE),
        name: "Sent".into(),
        ..v1::MailboxOpen::default()
    };
    assert_eq!(
        world.refused(&peer, bob.clone(), Call::MailboxOpen(sent)).await,
        ErrorCode::Denied
    );
    // A gateway without Bob's token has no more than before.
    assert_eq!(world.refused(&peer, Bytes::new(), read()).await, ErrorCode::Denied);

    world.grant_bob("").await;
    for call in [opening(), listing(), read()] {
        assert_eq!(world.refused(&peer, bob.clone(), call).await, ErrorCode::Denied);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_changes_only_what_is_granted() {
    let world = World::new().await;
    world.deliver(1, MAIL).await;
    let (peer, bob) = (imap(), world.token(BOB));
    world.grant_bob("lrs").await;
    let seen = || world.flagging(u32::from(shard::Flags::SEEN));
    let deleted = || world.flagging(u32::from(shard::Flags::DELETED));
    world.ok(&peer, bob.clone(), seen()).await;
    assert_eq!(world.refused(&peer, bob.clone(), deleted()).await, ErrorCode::Denied);
    let make = Change::Create(v1::MailboxCreate {
        name: "INBOX/Bob".into(),
        special_use: 0,
    });
    let make = || world.tree(ALICE, make.clone());
    assert_eq!(world.refused(&peer, bob.clone(), make()).await, ErrorCode::Denied);
    world.grant_bob("lrstek").await;
    world.ok(&peer, bob.clone(), deleted()).await;
    world.ok(&peer, bob.clone(), make()).await;
    // What is made below is shared like it.
    let Reply::MailboxList(list) = world.ok(&peer, bob.clone(), listing()).await else {
        panic!("another answer")
    };
    let names: Vec<&str> = list.mailboxes.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["INBOX", "INBOX/Bob"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_grants_are_told_to_who_administers_them() {
    let world = World::new().await;
    let told = |reply| match reply {
        Reply::Grants(reply) => (reply.mine, reply.grants.len()),
        other => panic!("{other:?}"),
    };
    world.grant_bob("l").await;
    assert_eq!(told(world.ok(&imap(), world.token(ALICE), acl()).await), (0x7FF, 1));
    assert_eq!(told(world.ok(&imap(), world.token(BOB), acl()).await), (1, 0));
    world.grant_bob("la").await;
    assert_eq!(told(world.ok(&imap(), world.token(BOB), acl()).await).1, 1);
    let status = Call::AccountStatus(v1::AccountStatus {
        account: id(ALICE),
        consistency: None,
    });
    assert_eq!(
        world.refused(&imap(), world.token(BOB), status).await,
        ErrorCode::Denied
    );
}
