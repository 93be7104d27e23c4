//! A gateway that stops finishes the mail in flight and takes no other.

use super::{Ended, Peer};

#[tokio::test]
async fn an_idle_session_is_told_to_come_again() {
    let mut peer = Peer::ready().await;
    peer.stop.send(true).unwrap();
    assert!(peer.line().await.starts_with("421 4.3.2"));
    assert_eq!(peer.session.await.unwrap(), Ended::Stopped);
}

#[tokio::test]
async fn a_mail_that_is_being_sent_is_finished_and_answered() {
    let mut peer = Peer::ready().await;
    peer.expect("MAIL FROM:<a@b>", "250").await;
    peer.expect("RCPT TO:<u1@example.org>", "250").await;
    peer.expect("DATA", "354").await;
    peer.send("half\r\n").await;
    peer.stop.send(true).unwrap();
    peer.send("whole\r\n.\r\n").await;
    assert!(peer.line().await.starts_with("250 2.6.0"));
    assert!(peer.line().await.starts_with("421 4.3.2"));
    assert_eq!(peer.store.deliveries().len(), 1);
}

#[tokio::test]
async fn a_peer_that_leaves_in_the_middle_of_a_mail_delivers_nothing() {
    let mut peer = Peer::ready().await;
    peer.expect("MAIL FROM:<a@b>", "250").await;
    peer.expect("RCPT TO:<u1@example.org>", "250").await;
    peer.expect("DATA", "354").await;
    peer.send("Subject: half\r\n").await;
    let Peer {
        reader,
        writer,
        store,
        session,
        room,
        ..
    } = peer;
    drop((reader, writer));
    assert_eq!(session.await.unwrap(), Ended::Broken);
    assert!(store.deliveries().is_empty());
    assert_eq!(room.free_bytes(), 256 << 20);
}
