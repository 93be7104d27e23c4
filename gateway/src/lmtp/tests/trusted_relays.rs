//! XCLIENT (Postfix's XCLIENT_README) for those who may, and for nobody else.

use super::Peer;

/// The keywords of the answer to LHLO.
async fn greet(peer: &mut Peer) -> Vec<String> {
    peer.send("LHLO relay\r\n").await;
    let mut keywords = Vec::new();
    loop {
        let line = peer.line().await;
        let (head, keyword) = line.split_at(4);
        keywords.push(keyword.to_owned());
        if head == "250 " {
            return keywords;
        }
    }
}

const KEYWORD: &str = "XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT";

#[tokio::test]
async fn a_trusted_relay_says_for_whom_it_speaks_and_is_greeted_anew() {
    let mut peer = Peer::trusted().await;
    assert!(greet(&mut peer).await.contains(&KEYWORD.to_owned()));
    let greeting = "220 mx.example.org LMTP malle";
    peer.expect("XCLIENT NAME=mail.example.net ADDR=192.0.2.1 PROTO=ESMTP", greeting)
        .await;
    peer.expect("MAIL FROM:<a@b>", "503 5.5.1 say LHLO first").await;
    assert!(
        greet(&mut peer).await.contains(&KEYWORD.to_owned()),
        "it may say so again"
    );
    peer.expect("xclient login=[UNAVAILABLE] HELO=other", greeting).await;
    greet(&mut peer).await;
    let answers = peer.deliver(&["u1@example.org"], b"Subject: x\r\n\r\n").await;
    assert!(answers[0].starts_with("250 2.6.0"), "{answers:?}");
}

#[tokio::test]
async fn what_makes_no_sense_changes_nothing() {
    let mut peer = Peer::trusted().await;
    greet(&mut peer).await;
    peer.expect("XCLIENT", "501 5.5.4").await;
    peer.expect("XCLIENT ADDR=nowhere", "501 5.5.4").await;
    peer.expect("XCLIENT NAME=x COLOUR=red", "501 5.5.4").await;
    peer.expect("MAIL FROM:<a@b>", "250 2.1.0").await;
    peer.expect("XCLIENT NAME=x", "503 5.5.1 a mail is under way").await;
    peer.expect("RCPT TO:<u1@example.org>", "250 2.1.5").await;
}

#[tokio::test]
async fn nobody_else_may() {
    let mut peer = Peer::ready().await;
    assert!(
        !greet(&mut peer)
            .await
            .iter()
            .any(|keyword| keyword.starts_with("XCLIENT"))
    );
    peer.expect("XCLIENT ADDR=192.0.2.1", "550 5.7.1").await;
    peer.expect("XCLIENT nonsense", "550 5.7.1").await;
    peer.expect("MAIL FROM:<a@b>", "250 2.1.0").await;
}
