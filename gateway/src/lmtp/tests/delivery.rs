//! One answer per recipient, each the truth about that recipient (RFC 2033 4.2).

use malle_client::{AccountId, Error, SpecialUse};

use super::Peer;

#[tokio::test]
async fn each_recipient_gets_an_answer_of_their_own_in_order() {
    let mut peer = Peer::ready().await;
    peer.store.fail(2, Some(Error::OverQuota { limit_bytes: 1 }));
    peer.store.fail(3, Some(Error::Unavailable("no leader".into())));
    let recipients = ["u1@example.org", "u2@example.org", "u3@example.org", "u4@example.org"];
    let answers = peer.deliver(&recipients, b"Message-ID: <1@x>\r\n\r\nhello\r\n").await;
    let codes = answers.iter().map(|answer| &answer[..9]).collect::<Vec<_>>();
    assert_eq!(codes, ["250 2.6.0", "452 4.2.2", "451 4.4.2", "250 2.6.0"]);
    assert!(answers[0].contains("uid=7"), "{}", answers[0]);
    let accounts = peer
        .store
        .deliveries()
        .iter()
        .map(|delivery| delivery.account)
        .collect::<Vec<_>>();
    assert_eq!(accounts, [AccountId([1; 16]), AccountId([4; 16])]);
}

#[tokio::test]
async fn a_refused_recipient_gets_no_answer_after_the_mail() {
    let mut peer = Peer::ready().await;
    peer.expect("MAIL FROM:<a@b>", "250").await;
    peer.expect("RCPT TO:<nobody@example.org>", "550 5.1.1").await;
    peer.expect("RCPT TO:<u1@example.org>", "250").await;
    peer.expect("DATA", "354").await;
    peer.send("Subject: x\r\n\r\n.\r\n").await;
    assert!(peer.line().await.starts_with("250 2.6.0 <u1@example.org>"));
    peer.expect("NOOP", "250 2.0.0").await;
}

#[tokio::test]
async fn only_the_return_path_is_put_before_the_mail() {
    let mut peer = Peer::ready().await;
    peer.deliver(
        &["u1@example.org"],
        b"Return-Path: <old@x>\r\nSubject: x\r\n\r\nhello\r\n",
    )
    .await;
    let want = b"Return-Path: <from@example.net>\r\nReturn-Path: <old@x>\r\nSubject: x\r\n\r\nhello\r\n";
    assert_eq!(&peer.store.deliveries()[0].body[..], want);
}

#[tokio::test]
async fn a_bounce_has_an_empty_return_path() {
    let mut peer = Peer::ready().await;
    peer.expect("MAIL FROM:<>", "250").await;
    peer.expect("RCPT TO:<u1@example.org>", "250").await;
    peer.expect("DATA", "354").await;
    peer.send("x\r\n.\r\n").await;
    assert!(peer.line().await.starts_with("250"));
    assert_eq!(&peer.store.deliveries()[0].body[..], b"Return-Path: <>\r\nx\r\n");
}

#[tokio::test]
async fn mail_marked_as_spam_goes_to_junk() {
    let mut peer = Peer::ready().await;
    peer.deliver(&["u1@example.org"], b"X-Spam-Flag: YES\r\n\r\nbuy\r\n")
        .await;
    peer.deliver(&["u1@example.org"], b"X-Spam-Flag: NO\r\n\r\nX-Spam-Flag: YES\r\n")
        .await;
    let into = peer
        .store
        .deliveries()
        .iter()
        .map(|delivery| delivery.into)
        .collect::<Vec<_>>();
    assert_eq!(into, [SpecialUse::Junk, SpecialUse::Inbox]);
}

#[tokio::test]
async fn over_quota_is_temporary_and_a_later_retry_succeeds() {
    let mut peer = Peer::ready().await;
    let mail = b"Message-ID: <q@x>\r\n\r\n";
    peer.store.fail(1, Some(Error::OverQuota { limit_bytes: 1 }));
    assert!(peer.deliver(&["u1@example.org"], mail).await[0].starts_with("452 4.2.2"));
    peer.store.fail(1, None);
    assert!(peer.deliver(&["u1@example.org"], mail).await[0].starts_with("250"));
    assert_eq!(peer.store.deliveries().len(), 1);
}
