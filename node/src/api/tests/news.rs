//! What a change tells besides itself.

use malle_proto::v1::mail_request::Call;
use malle_proto::v1::{self, MailRequest, mail_reply::Result as Reply};

use super::{ALICE, SHARD, World, imap};

impl World {
    async fn ask_with_news(&self, mailbox: &[u8], since_modseq: u64, call: Call) -> v1::MailReply {
        let request = MailRequest {
            id: 7,
            shard: SHARD.0,
            deadline_ms: 20_000,
            token: self.token(ALICE),
            news_of: Some(v1::NewsOf {
                mailbox: mailbox.to_vec().into(),
                since_modseq,
            }),
            call: Some(call),
        };
        self.api.answer(&imap(), request).await
    }
}

fn store(mailbox: &[u8], op: u8) -> Call {
    Call::Store(v1::Store {
        account: ALICE.to_vec().into(),
        op_id: vec![op; 16].into(),
        mailbox: mailbox.to_vec().into(),
        uids: vec![v1::UidRange { first: 1, last: 1 }],
        mode: v1::StoreMode::Add.into(),
        flags: Some(v1::Flags {
            keywords: vec!["$Done".to_owned()],
            ..v1::Flags::default()
        }),
        unchanged_since: None,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_tells_what_a_question_right_after_it_would() {
    let world = World::new().await;
    world.deliver(1, b"Subject: one\r\n\r\n1").await;
    let second = world.deliver(2, b"Subject: two\r\n\r\n2").await;
    let inbox = world.inboxes[0].to_vec();

    let reply = world.ask_with_news(&inbox, 0, store(&inbox, 3)).await;
    assert!(matches!(reply.result, Some(Reply::Store(_))));
    let news = reply.news.expect("the change was done");
    let changed: Vec<u32> = news.changed.iter().map(|message| message.uid).collect();
    assert_eq!(changed, [2, 1], "in rising order of MODSEQ");
    assert_eq!(news.keywords, ["$Done"]);
    let question = Call::Changes(v1::Changes {
        account: ALICE.to_vec().into(),
        mailbox: inbox.clone().into(),
        since_modseq: 0,
        consistency: None,
    });
    let Reply::Changes(asked) = world.ok(&imap(), world.token(ALICE), question.clone()).await else {
        panic!("another answer");
    };
    assert_eq!(news, asked);

    // Only what is above: the store again, and nothing of the second mail.
    let reply = world.ask_with_news(&inbox, second.modseq, store(&inbox, 3)).await;
    let changed: Vec<u32> = reply.news.unwrap().changed.iter().map(|message| message.uid).collect();
    assert_eq!(changed, [1]);

    // A question has no news, nor has a change that was refused; a change stays done when there is nothing to tell of.
    assert_eq!(world.ask_with_news(&inbox, 0, question).await.news, None);
    let reply = world.ask_with_news(&inbox, 0, store(&[9; 16], 4)).await;
    assert!(matches!(reply.result, Some(Reply::Error(_))) && reply.news.is_none());
    let reply = world.ask_with_news(&[9; 16], 0, store(&inbox, 5)).await;
    assert!(matches!(reply.result, Some(Reply::Store(_))) && reply.news.is_none());
}
