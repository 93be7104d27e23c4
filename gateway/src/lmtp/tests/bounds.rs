//! A peer that sends too much gets a clear answer and costs nobody else anything.

use std::time::Duration;

use malle_proto::limits;

use super::{Ended, Fake, Peer};
use crate::lmtp::{Room, Timeouts};

#[tokio::test]
async fn ten_thousand_recipients_are_answered_and_a_thousand_taken() {
    let mut peer = Peer::ready().await;
    peer.expect("MAIL FROM:<a@b>", "250").await;
    let lines = (0..10_000)
        .map(|n| format!("RCPT TO:<u1+{n}@example.org>\r\n"))
        .collect::<String>();
    let answers = peer.send_and_read(lines.as_bytes(), 10_000).await;
    let taken = answers.iter().filter(|answer| answer.starts_with("250")).count();
    let put_off = answers.iter().filter(|answer| answer.starts_with("452 4.5.3")).count();
    assert_eq!((taken, put_off), (limits::RECIPIENTS_PER_TRANSACTION_MAX, 9_000));
    assert_eq!(peer.store.lookups(), limits::RECIPIENTS_PER_TRANSACTION_MAX);
    peer.expect("DATA", "354").await;
    let answers = peer.send_and_read(b"Message-ID: <1@x>\r\n\r\n.\r\n", taken).await;
    assert!(answers.iter().all(|answer| answer.starts_with("250 2.6.0")));
}

#[tokio::test]
async fn a_mail_announced_too_large_is_refused_at_mail() {
    let mut peer = Peer::ready().await;
    peer.expect("MAIL FROM:<a@b> SIZE=53477376", "552 5.3.4").await;
    peer.expect("MAIL FROM:<a@b> SIZE=1000", "250").await;
}

#[tokio::test]
async fn a_mail_of_51_mebibytes_is_drained_refused_and_holds_no_memory() {
    let mut peer = Peer::ready().await;
    let free = peer.room.free_bytes();
    let line = [vec![b'x'; 1022], b"\r\n".to_vec()].concat();
    let answers = peer
        .deliver(&["u1@example.org", "u2@example.org"], &line.repeat(51 * 1024))
        .await;
    assert!(
        answers.iter().all(|answer| answer.starts_with("552 5.3.4")),
        "{answers:?}"
    );
    assert!(peer.store.deliveries().is_empty());
    assert_eq!(peer.room.free_bytes(), free);
    let answers = peer.deliver(&["u1@example.org"], b"Subject: next\r\n\r\n").await;
    assert!(answers[0].starts_with("250"));
}

#[tokio::test]
async fn without_room_a_mail_is_put_off_and_the_session_goes_on() {
    let mut peer = Peer::ready_with(Fake::new(), Room::new(512 * 1024)).await;
    let answers = peer.deliver(&["u1@example.org"], &b"x\r\n".repeat(300_000)).await;
    assert!(answers[0].starts_with("452 4.3.1"), "{answers:?}");
    assert!(peer.deliver(&["u1@example.org"], b"small\r\n").await[0].starts_with("250"));
}

#[tokio::test]
async fn a_command_line_without_end_closes_the_session() {
    let mut peer = Peer::ready().await;
    let line = vec![b'x'; limits::COMMAND_LINE_MAX_BYTES + 10];
    let answers = peer.send_and_read(&line, 1).await;
    assert!(answers[0].starts_with("500 5.5.6"), "{answers:?}");
    assert_eq!(peer.session.await.unwrap(), Ended::Broken);
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_sent_away() {
    let timeouts = Timeouts {
        peer: Duration::from_secs(300),
        mail: Duration::from_secs(1800),
    };
    let mut peer = Peer::greeted(Fake::new(), Room::new(1 << 20), timeouts).await;
    assert!(peer.line_however_late().await.starts_with("421 4.4.2"));
    assert_eq!(peer.session.await.unwrap(), Ended::Broken);
}
