//! Several bodies in one answer.

use malle_proto::v1::mail_request::Call;
use malle_proto::v1::{self, ErrorCode, mail_reply::Result as Reply};

use super::{ALICE, BOB, World, imap};

fn read(mailbox: &[u8], first: u32, last: u32) -> Call {
    Call::ReadBodies(v1::ReadBodies {
        account: ALICE.to_vec().into(),
        mailbox: mailbox.to_vec().into(),
        uids: vec![v1::UidRange { first, last }],
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_come_together_as_many_as_an_answer_takes_and_to_nobody_else() {
    let world = World::new().await;
    let large = format!("Subject: large\r\n\r\n{}", "x".repeat(100 * 1024));
    let mails = ["Subject: one\r\n\r\n1", "Subject: two\r\n\r\n2", &large, &large, &large];
    for (number, mail) in mails.iter().enumerate() {
        world.deliver(number as u8 + 1, mail.as_bytes()).await;
    }
    let inbox = world.inboxes[0].to_vec();
    let bodies = async |first, last| match world.ok(&imap(), world.token(ALICE), read(&inbox, first, last)).await {
        Reply::ReadBodies(reply) => reply.bodies,
        other => panic!("another answer: {other:?}"),
    };
    let all = bodies(1, 9).await;
    let uids: Vec<u32> = all.iter().map(|body| body.uid).collect();
    assert_eq!(uids, [1, 2, 3, 4], "the fifth does not fit any more");
    for (body, mail) in all.iter().zip(mails) {
        assert_eq!(body.data, mail.as_bytes());
    }
    assert_eq!(bodies(2, 2).await[0].data, mails[1].as_bytes());
    assert!(bodies(7, 9).await.is_empty());

    for token in [world.token(BOB), bytes::Bytes::new()] {
        let code = world.refused(&imap(), token, read(&inbox, 1, 2)).await;
        assert_eq!(code, ErrorCode::Denied);
    }
}
