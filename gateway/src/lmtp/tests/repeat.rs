//! The same mail again is the same delivery; a genuine twin is not (architecture, decision 6).

use super::{Fake, Peer};
use crate::lmtp::Room;

const MARKED: &[u8] = b"Received: by x; today\r\n\r\nhello\r\n";
const UNMARKED: &[u8] = b"Subject: twin\r\n\r\nhello\r\n";

async fn twice(mail: &[u8]) -> (Fake, Vec<String>) {
    let store = Fake::new();
    let mut answers = Vec::new();
    for _ in 0..2 {
        let mut peer = Peer::ready_with(store.clone(), Room::new(1 << 20)).await;
        answers.extend(peer.deliver(&["u1@example.org"], mail).await);
    }
    (store, answers)
}

#[tokio::test]
async fn a_redelivery_of_equal_bytes_in_another_session_is_stored_once() {
    let (store, answers) = twice(MARKED).await;
    assert_eq!(store.deliveries().len(), 1);
    assert!(answers[1].contains("(already)"), "{}", answers[1]);
}

#[tokio::test]
async fn twins_without_a_message_id_are_two_mails() {
    let (store, _) = twice(UNMARKED).await;
    assert_eq!(store.deliveries().len(), 2);
}

#[tokio::test]
async fn the_same_bytes_to_another_recipient_are_another_delivery() {
    let mut peer = Peer::ready().await;
    peer.deliver(&["u1@example.org", "u2@example.org"], MARKED).await;
    let deliveries = peer.store.deliveries();
    assert_eq!(deliveries.len(), 2);
    assert_ne!(deliveries[0].op_id, deliveries[1].op_id);
}

#[tokio::test]
async fn a_recipient_named_twice_is_answered_twice_and_delivered_once() {
    for mail in [MARKED, UNMARKED] {
        let mut peer = Peer::ready().await;
        peer.expect("MAIL FROM:<a@b>", "250").await;
        peer.expect("RCPT TO:<u1@example.org>", "250").await;
        peer.expect("RCPT TO:<\"u1\"@EXAMPLE.org>", "550").await;
        peer.expect("RCPT TO:<\"u1\"@example.org>", "250").await;
        peer.expect("DATA", "354").await;
        let answers = peer.send_and_read(&[mail, b".\r\n"].concat(), 2).await;
        assert!(answers.iter().all(|answer| answer.starts_with("250")), "{answers:?}");
        assert_eq!(peer.store.deliveries().len(), 1);
    }
}
