//! Commands sent without waiting are answered in order, and mail bytes behind DATA are never read as commands (RFC 2920).

use super::Peer;

#[tokio::test]
async fn a_whole_transaction_in_one_write_is_answered_in_order() {
    let mut peer = Peer::ready().await;
    let wire = "MAIL FROM:<a@b>\r\nRCPT TO:<u1@example.org>\r\nRCPT TO:<nobody@example.org>\r\nDATA\r\n\
                Message-ID: <1@x>\r\n\r\nMAIL FROM:<x@y>\r\n.\r\nMAIL FROM:<a@b>\r\nQUIT\r\n";
    peer.send(wire).await;
    let mut codes = Vec::new();
    for _ in 0..7 {
        codes.push(peer.line().await[..3].to_owned());
    }
    assert_eq!(codes, ["250", "250", "550", "354", "250", "250", "221"]);
    assert_eq!(peer.store.deliveries().len(), 1);
}

#[tokio::test]
async fn command_lines_may_come_in_pieces_and_end_in_lf() {
    let mut peer = Peer::ready().await;
    for piece in ["MAI", "L FROM:<", "a@b>", "\r", "\nNOO", "P\n"] {
        peer.send(piece).await;
        tokio::task::yield_now().await;
    }
    assert!(peer.line().await.starts_with("250 2.1.0"));
    assert!(peer.line().await.starts_with("250 2.0.0"));
}
