//! Which command is answered how (RFC 2033 4, RFC 5321 4.1.4).

use super::{Ended, Fake, Peer};
use crate::lmtp::{Room, Timeouts};

#[tokio::test]
async fn lhlo_names_what_works_and_helo_is_refused() {
    let mut peer = Peer::greeted(Fake::new(), Room::new(1 << 20), Timeouts::default()).await;
    peer.expect("EHLO x", "500 5.5.1").await;
    peer.expect("HELO x", "500 5.5.1").await;
    peer.expect("MAIL FROM:<a@b>", "503 5.5.1").await;
    peer.send("LHLO x\r\n").await;
    let mut keywords = Vec::new();
    for _ in 0..8 {
        keywords.push(peer.line().await);
    }
    assert_eq!(keywords[0], "250-mx.example.org");
    assert_eq!(keywords[7], "250 SIZE 52428529");
    for keyword in [
        "PIPELINING",
        "ENHANCEDSTATUSCODES",
        "8BITMIME",
        "BINARYMIME",
        "CHUNKING",
        "SMTPUTF8",
    ] {
        assert!(keywords.contains(&format!("250-{keyword}")), "{keyword}");
    }
}

#[tokio::test]
async fn commands_out_of_order_are_refused_and_the_session_goes_on() {
    let mut peer = Peer::ready().await;
    peer.expect("RCPT TO:<u1@example.org>", "503 5.5.1").await;
    peer.expect("DATA", "503 5.5.1").await;
    peer.expect("MAIL FROM:<a@b>", "250 2.1.0").await;
    peer.expect("MAIL FROM:<a@b>", "503 5.5.1").await;
    peer.expect("DATA", "503 5.5.1").await;
    peer.expect("RSET", "250 2.0.0").await;
    peer.expect("RCPT TO:<u1@example.org>", "503 5.5.1").await;
    peer.expect("NOOP x", "250 2.0.0").await;
    peer.expect("VRFY u1", "252").await;
    peer.expect("EXPN all", "502 5.5.1").await;
    peer.expect("QUIT", "221 2.0.0").await;
    assert_eq!(peer.rest().await, "");
    assert_eq!(peer.session.await.unwrap(), Ended::Quit);
}

#[tokio::test]
async fn each_kind_of_recipient_gets_its_own_code() {
    let mut peer = Peer::ready().await;
    peer.expect("MAIL FROM:<>", "250 2.1.0").await;
    peer.expect("RCPT TO:<u1+detail@example.org>", "250 2.1.5").await;
    peer.expect("RCPT TO:<nobody@example.org>", "550 5.1.1").await;
    peer.expect("RCPT TO:<broken@example.org>", "451 4.4.3").await;
    peer.expect("RCPT TO:<frozen@example.org>", "450 4.2.1").await;
    peer.expect("RCPT TO:<andré@example.org>", "553 5.6.7").await;
    peer.expect("RCPT TO:<postmaster>", "250 2.1.5").await;
    peer.expect("RCPT TO:<u1>", "501 5.1.3").await;
    peer.expect(
        "RCPT TO:<u1@example.org> NOTIFY=NEVER ORCPT=rfc822;u1@example.org",
        "250 2.1.5",
    )
    .await;
    peer.expect("RCPT TO:<u1@example.org> XYZ=1", "555 5.5.4").await;
    peer.expect("RSET", "250").await;
    peer.expect("MAIL FROM:<a@b> SMTPUTF8", "250 2.1.0").await;
    peer.expect("RCPT TO:<andré@example.org>", "250 2.1.5").await;
}

#[tokio::test]
async fn twenty_mistakes_end_the_session() {
    let mut peer = Peer::ready().await;
    for _ in 0..19 {
        peer.expect("GET / HTTP/1.1", "500 5.5.2").await;
    }
    peer.expect("GET / HTTP/1.1", "421 4.7.0").await;
    assert_eq!(peer.session.await.unwrap(), Ended::Broken);
}
