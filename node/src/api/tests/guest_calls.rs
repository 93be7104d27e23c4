//! Every call that a guest can make: with its right, and without it.

use futures::StreamExt as _;
use malle_proto::Rights;
use malle_proto::v1::mail_server::Mail as _;
use malle_proto::v1::mailbox_change::Change;
use tonic::Request;

use super::guests::id;
use super::*;

fn everything() -> Vec<v1::UidRange> {
    vec![v1::UidRange {
        first: 1,
        last: u32::MAX,
    }]
}

impl World {
    fn inbox(&self) -> Bytes {
        self.inboxes[0].to_vec().into()
    }

    fn op(&self) -> Bytes {
        self.api.env.op_id().to_vec().into()
    }

    /// Each read of Alice's INBOX.
    fn reads(&self) -> Vec<Call> {
        vec![
            Call::Fetch(v1::Fetch {
                account: id(ALICE),
                mailbox: self.inbox(),
                uids: everything(),
                ..v1::Fetch::default()
            }),
            Call::Changes(v1::Changes {
                account: id(ALICE),
                mailbox: self.inbox(),
                ..v1::Changes::default()
            }),
            self.read_body(ALICE, self.inboxes[0], 1, 0, 100),
            Call::ReadBodies(v1::ReadBodies {
                account: id(ALICE),
                mailbox: self.inbox(),
                uids: everything(),
            }),
        ]
    }

    fn expunging(&self) -> Call {
        Call::Expunge(v1::Expunge {
            account: id(ALICE),
            op_id: self.op(),
            mailbox: self.inbox(),
            uids: Vec::new(),
        })
    }

    fn appending(&self, op_id: Bytes, body: v1::Body) -> Call {
        Call::Append(v1::Append {
            account: id(ALICE),
            op_id,
            mailbox_name: "INBOX".into(),
            body: Some(body),
            ..v1::Append::default()
        })
    }

    /// REPLACE of this message of INBOX.
    fn replacing(&self, uid: u32) -> Call {
        Call::AppendAll(v1::AppendAll {
            account: id(ALICE),
            op_id: self.op(),
            mailbox_name: "INBOX".into(),
            messages: vec![v1::Arriving {
                body: Some(inline(b"Subject: other\r\n\r\n")),
                ..v1::Arriving::default()
            }],
            replaces: Some(v1::MessageAt {
                mailbox: self.inbox(),
                uid,
            }),
            ..v1::AppendAll::default()
        })
    }

    async fn download(&self, token: Bytes) -> Result<Vec<u8>, tonic::Status> {
        let mut request = Request::new(v1::DownloadRequest {
            shard: SHARD.0,
            token,
            account: id(ALICE),
            mailbox: self.inbox(),
            uid: 1,
            ..v1::DownloadRequest::default()
        });
        request.extensions_mut().insert(imap());
        let mut chunks = self.api.download(request).await?.into_inner();
        let mut all = Vec::new();
        while let Some(chunk) = chunks.next().await {
            all.extend_from_slice(&chunk?.data);
        }
        Ok(all)
    }

    async fn ask_for_news(&self, token: Bytes, of: MailboxId, call: Call) -> v1::MailReply {
        let request = MailRequest {
            id: 7,
            shard: SHARD.0,
            deadline_ms: 20_000,
            token,
            news_of: Some(v1::NewsOf {
                mailbox: of.to_vec().into(),
                since_modseq: 0,
            }),
            call: Some(call),
        };
        self.api.answer(&imap(), request).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_to_read_needs_the_right_r() {
    let world = World::new().await;
    world.deliver(1, MAIL).await;
    for letters in ["", "l", "lswipkxtea"] {
        world.grant_bob(letters).await;
        for call in world.reads() {
            let asked = format!("{call:?}");
            assert_eq!(
                world.refused(&imap(), world.token(BOB), call).await,
                ErrorCode::Denied,
                "{letters} {asked}"
            );
        }
        assert!(world.download(world.token(BOB)).await.is_err());
    }
    world.grant_bob("r").await;
    for call in world.reads() {
        match world.ok(&imap(), world.token(BOB), call).await {
            Reply::Fetch(reply) => assert_eq!(reply.messages.len(), 1),
            Reply::Changes(reply) => assert_eq!(reply.changed.len(), 1),
            Reply::ReadBody(reply) => assert_eq!(reply.data, MAIL),
            Reply::ReadBodies(reply) => assert_eq!(reply.bodies[0].data, MAIL),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(world.download(world.token(BOB)).await.unwrap(), MAIL);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_tells_a_guest_no_news_of_what_he_may_not_read() {
    let world = World::new().await;
    world.deliver(1, MAIL).await;
    let seen = || world.flagging(u32::from(shard::Flags::SEEN));
    world.grant_bob("ls").await;
    let reply = world.ask_for_news(world.token(BOB), world.inboxes[0], seen()).await;
    assert!(matches!(reply.result, Some(Reply::Store(_))), "{reply:?}");
    assert_eq!(reply.news, None);
    world.grant_bob("lrs").await;
    let reply = world.ask_for_news(world.token(BOB), world.inboxes[0], seen()).await;
    assert_eq!(reply.news.map(|news| news.changed.len()), Some(1));
    // Of a mailbox that is not Alice's, or not shared, there is nothing.
    let reply = world.ask_for_news(world.token(BOB), world.inboxes[1], seen()).await;
    assert_eq!(reply.news, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_guest_uploads_is_his_and_goes_where_he_may_insert() {
    let world = World::new().await;
    let large = vec![b'x'; 2 * limits::INLINE_BODY_MAX_BYTES];
    let ticket = world.upload(&imap(), Some(BOB), &large).await;
    world.grant_bob("lr").await;
    let call = world.appending(world.op(), ticket.clone());
    assert_eq!(world.refused(&imap(), world.token(BOB), call).await, ErrorCode::Denied);
    world.grant_bob("lri").await;
    // The owner's command cannot name it: nobody appends what another one has uploaded.
    let call = world.appending(world.op(), ticket.clone());
    assert_eq!(
        world.refused(&imap(), world.token(ALICE), call).await,
        ErrorCode::Unavailable
    );
    let op_id = world.op();
    for repeated in [false, true] {
        let call = world.appending(op_id.clone(), ticket.clone());
        let Reply::Append(reply) = world.ok(&imap(), world.token(BOB), call).await else {
            panic!("another answer")
        };
        assert_eq!(reply.appended.unwrap().repeated, repeated);
    }
    // The same op id from the owner is another operation.
    let call = world.appending(op_id, inline(MAIL));
    let Reply::Append(reply) = world.ok(&imap(), world.token(ALICE), call).await else {
        panic!("another answer")
    };
    let appended = reply.appended.unwrap();
    assert_eq!((appended.uid, appended.repeated), (2, false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removing_needs_its_rights_in_each_way_to_do_it() {
    let world = World::new().await;
    world.deliver(1, MAIL).await;
    let (peer, bob) = (imap(), world.token(BOB));
    world.grant_bob("lrswt").await;
    world
        .ok(&peer, bob.clone(), world.flagging(u32::from(shard::Flags::DELETED)))
        .await;
    assert_eq!(
        world.refused(&peer, bob.clone(), world.expunging()).await,
        ErrorCode::Denied,
        "EXPUNGE without the right e"
    );
    world.grant_bob("lrie").await;
    assert_eq!(
        world.refused(&peer, bob.clone(), world.replacing(1)).await,
        ErrorCode::Denied,
        "REPLACE without the right t"
    );
    world.grant_bob("lrite").await;
    let Reply::AppendAll(reply) = world.ok(&peer, bob.clone(), world.replacing(1)).await else {
        panic!("another answer")
    };
    assert_eq!(reply.appended[0].uid, 2);
    world
        .ok(&peer, bob.clone(), world.flagging(u32::from(shard::Flags::DELETED)))
        .await;
    let Reply::Expunge(reply) = world.ok(&peer, bob.clone(), world.expunging()).await else {
        panic!("another answer")
    };
    assert_eq!(reply.vanished, Vec::new(), "the first went with REPLACE");
    assert_eq!(world.fetch(0, 1).await.messages.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_renames_and_deletes_with_x_and_never_to_the_top() {
    let world = World::new().await;
    let (peer, bob) = (imap(), world.token(BOB));
    world.grant_bob("lrk").await;
    let make = Change::Create(v1::MailboxCreate {
        name: "INBOX/Projet".into(),
        special_use: 0,
    });
    world.ok(&peer, bob.clone(), world.tree(ALICE, make)).await;
    let rename = |to: &str| {
        world.tree(
            ALICE,
            Change::Rename(v1::MailboxRename {
                from: "INBOX/Projet".into(),
                to: to.into(),
            }),
        )
    };
    let delete = |name: &str| world.tree(ALICE, Change::Delete(v1::MailboxDelete { name: name.into() }));
    for call in [rename("INBOX/Autre"), delete("INBOX/Projet")] {
        assert_eq!(world.refused(&peer, bob.clone(), call).await, ErrorCode::Denied);
    }
    let grant = Change::Grant(v1::MailboxGrant {
        name: "INBOX/Projet".into(),
        guest: id(BOB),
        mode: v1::StoreMode::Add.into(),
        rights: u32::from(Rights::DELETE_MAILBOX.0),
    });
    world.ok(&peer, world.token(ALICE), world.tree(ALICE, grant)).await;
    assert_eq!(
        world.refused(&peer, bob.clone(), rename("Autre")).await,
        ErrorCode::Denied,
        "the top is the owner's"
    );
    world.ok(&peer, bob.clone(), rename("INBOX/Autre")).await;
    world.ok(&peer, bob.clone(), delete("INBOX/Autre")).await;
    // What is not there and what is not shared are answered alike.
    for name in ["INBOX/Autre", "Sent"] {
        let code = world.refused(&peer, bob.clone(), delete(name)).await;
        assert_eq!(code, ErrorCode::NotFound, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_without_the_right_r_tells_names_and_no_counters() {
    let world = World::new().await;
    world.deliver(1, MAIL).await;
    let listing = || {
        Call::MailboxList(v1::MailboxList {
            account: id(ALICE),
            consistency: None,
        })
    };
    for (letters, messages) in [("l", 0), ("lr", 1)] {
        world.grant_bob(letters).await;
        let Reply::MailboxList(list) = world.ok(&imap(), world.token(BOB), listing()).await else {
            panic!("another answer")
        };
        let shown = &list.mailboxes[0];
        assert_eq!(
            (shown.name.as_str(), shown.messages, shown.unseen),
            ("INBOX", messages, messages)
        );
        assert_eq!(shown.highest_modseq > 0, messages > 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_hears_of_what_he_may_see_and_once_more_of_what_he_no_longer_may() {
    let world = World::new().await;
    let follow = || super::super::watch::follow(world.group.clone(), ALICE, Some(BOB), std::future::pending());
    let refused = follow().await.expect_err("nothing is granted");
    assert_eq!(refused.0.code(), ErrorCode::Denied);
    world.grant_bob("lr").await;
    let mut events = follow().await.unwrap();
    let first = events.recv().await.unwrap().unwrap();
    assert!(first.mailboxes.is_empty() && !first.overflow);
    // Something that is none of his business, and then something that is: he hears of the second alone.
    let private = Change::Create(v1::MailboxCreate {
        name: "Secret".into(),
        special_use: 0,
    });
    world.ok(&imap(), world.token(ALICE), world.tree(ALICE, private)).await;
    let mut next = async || {
        let event = malle_rt::timeout(Duration::from_secs(20), events.recv()).await;
        event.expect("an event").unwrap().unwrap()
    };
    let delivered = world.deliver(1, MAIL).await;
    let event = next().await;
    assert_eq!(event.mailboxes, [world.inbox()]);
    assert_eq!((event.modseq, event.tree_changed), (delivered.modseq, false));
    world.grant_bob("").await;
    let event = next().await;
    assert_eq!(event.mailboxes, [world.inbox()]);
    assert!(event.tree_changed, "it is gone for him");
    // From now on nothing, until it is granted again.
    world.deliver(2, b"Subject: private\r\n\r\n").await;
    world.grant_bob("l").await;
    let event = next().await;
    assert_eq!((&event.mailboxes[..], event.tree_changed), (&[world.inbox()][..], true));
}
