//! More than a shard takes.

use std::task::Poll;

use futures::future::join_all;
use futures::poll;

use super::*;

/// A delivery to Alice with an op id that this number makes.
fn numbered(number: usize) -> Call {
    let op_id = (number as u128 + 1).to_be_bytes().to_vec();
    let recipient = v1::Recipient {
        account: ALICE.to_vec().into(),
        op_id: op_id.into(),
        into: 0,
    };
    Call::Deliver(v1::Deliver {
        recipients: vec![recipient],
        body: Some(inline(format!("Subject: {number}\r\n\r\nOne of many.\r\n").as_bytes())),
    })
}

fn uid(reply: v1::MailReply) -> u32 {
    let Some(Reply::Deliver(reply)) = reply.result else {
        panic!("{reply:?}")
    };
    match reply.outcomes.into_iter().next().unwrap().outcome.unwrap() {
        v1::recipient_outcome::Outcome::Delivered(delivered) => delivered.uid,
        v1::recipient_outcome::Outcome::Error(error) => panic!("{error:?}"),
    }
}

// One thread, which goes from delivery to delivery without a pause: nobody's proposal ends before all of them are under way.
#[tokio::test(flavor = "current_thread")]
async fn one_more_than_a_shard_takes_is_told_when_to_come_again_and_those_that_were_taken_are_answered_once() {
    let world = World::new().await;
    let peer = lmtp();
    let answer = |number| {
        // Budgets of the runtime would be a pause.
        let asked = world.ask(&peer, Bytes::new(), numbered(number));
        Box::pin(tokio::task::unconstrained(asked))
    };
    let mut taken: Vec<_> = (0..limits::PROPOSALS_PER_SHARD_MAX).map(&answer).collect();
    for delivery in &mut taken {
        assert!(poll!(delivery).is_pending(), "nothing is synced yet");
    }
    for one_more in 0..2 {
        let Poll::Ready(reply) = poll!(answer(limits::PROPOSALS_PER_SHARD_MAX + one_more)) else {
            panic!("a full shard lets another wait")
        };
        let Some(Reply::Error(error)) = reply.result else {
            panic!("a full shard took more: {reply:?}")
        };
        assert_eq!(error.code(), ErrorCode::Busy);
        assert!(error.retry_after_ms > 0);
    }
    let mut uids: Vec<u32> = join_all(taken).await.into_iter().map(uid).collect();
    uids.sort_unstable();
    let all = limits::PROPOSALS_PER_SHARD_MAX as u32;
    assert_eq!(uids, (1..=all).collect::<Vec<u32>>());
    // Who was turned away left nothing behind, and who comes again has his mail taken in.
    assert_eq!(uid(answer(limits::PROPOSALS_PER_SHARD_MAX).await), all + 1);
    assert_eq!(world.fetch(1, all + 1).await.messages.len(), 1);
}
