//! BDAT and BINARYMIME (RFC 3030).

use proptest::prelude::*;

use super::{Fake, Peer};
use crate::lmtp::Room;

async fn begin(peer: &mut Peer, recipients: &[&str]) {
    peer.expect("MAIL FROM:<a@b> BODY=BINARYMIME", "250").await;
    for recipient in recipients {
        peer.expect(&format!("RCPT TO:<{recipient}>"), "250").await;
    }
}

fn body_of(store: &Fake, place: usize) -> Vec<u8> {
    store.deliveries()[place]
        .body
        .strip_prefix(b"Return-Path: <a@b>\r\n")
        .unwrap()
        .to_vec()
}

#[tokio::test]
async fn a_binary_mail_is_taken_by_bdat_only() {
    let mut peer = Peer::ready().await;
    begin(&mut peer, &["u1@example.org", "u2@example.org"]).await;
    peer.expect("DATA", "503 5.5.1").await;
    peer.send(b"BDAT 5\r\na\r\n.\r").await;
    assert!(peer.line().await.starts_with("250 2.0.0 5 bytes"));
    peer.expect("RCPT TO:<u3@example.org>", "503 5.5.1").await;
    peer.send(b"BDAT 3 LAST\r\n\n\x00\xff").await;
    assert!(peer.line().await.starts_with("250 2.6.0 <u1"));
    assert!(peer.line().await.starts_with("250 2.6.0 <u2"));
    assert_eq!(body_of(&peer.store, 0), b"a\r\n.\r\n\x00\xff");
    peer.expect("NOOP", "250 2.0.0").await;
}

#[tokio::test]
async fn an_empty_last_chunk_ends_a_mail() {
    let mut peer = Peer::ready().await;
    begin(&mut peer, &["u1@example.org"]).await;
    peer.send(b"BDAT 3\r\nabcBDAT 0 LAST\r\n").await;
    assert!(peer.line().await.starts_with("250 2.0.0"));
    assert!(peer.line().await.starts_with("250 2.6.0"));
    assert_eq!(body_of(&peer.store, 0), b"abc");
}

#[tokio::test]
async fn a_chunk_that_makes_no_sense_is_read_and_never_taken_for_commands() {
    let mut peer = Peer::ready().await;
    peer.send(b"BDAT 6\r\nQUIT\r\nBDAT 6 LAST\r\nQUIT\r\nNOOP\r\n").await;
    assert!(peer.line().await.starts_with("503 5.5.1"));
    assert!(peer.line().await.starts_with("503 5.5.1"));
    assert!(peer.line().await.starts_with("250 2.0.0"));
}

#[tokio::test]
async fn rset_between_chunks_forgets_them_and_frees_their_room() {
    let mut peer = Peer::ready().await;
    let free = peer.room.free_bytes();
    begin(&mut peer, &["u1@example.org"]).await;
    peer.send(b"BDAT 3\r\nabc").await;
    assert!(peer.line().await.starts_with("250"));
    assert!(peer.room.free_bytes() < free);
    peer.expect("RSET", "250").await;
    peer.expect("NOOP", "250").await;
    assert_eq!(peer.room.free_bytes(), free);
    begin(&mut peer, &["u1@example.org"]).await;
    peer.send(b"BDAT 3 LAST\r\nxyz").await;
    assert!(peer.line().await.starts_with("250 2.6.0"));
    assert_eq!(body_of(&peer.store, 0), b"xyz");
}

#[tokio::test]
async fn an_absurd_chunk_size_closes_the_session_with_a_reason() {
    let mut peer = Peer::ready().await;
    begin(&mut peer, &["u1@example.org"]).await;
    peer.expect("BDAT 18446744073709551615 LAST", "552 5.3.4").await;
    assert_eq!(peer.rest().await, "");
}

fn chunked(mail: &[u8], cuts: &[usize]) -> (Vec<u8>, usize) {
    let mut bounds = cuts.iter().map(|cut| cut % (mail.len() + 1)).collect::<Vec<_>>();
    bounds.sort_unstable();
    let (mut wire, mut from) = (Vec::new(), 0);
    for bound in bounds {
        wire.extend_from_slice(format!("BDAT {}\r\n", bound - from).as_bytes());
        wire.extend_from_slice(&mail[from..bound]);
        from = bound;
    }
    wire.extend_from_slice(format!("BDAT {} LAST\r\n", mail.len() - from).as_bytes());
    wire.extend_from_slice(&mail[from..]);
    (wire, cuts.len() + 1)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn chunks_of_any_size_give_the_same_bytes(
        mail in proptest::collection::vec(any::<u8>(), 0..3000),
        cuts in proptest::collection::vec(any::<usize>(), 0..12),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let got = runtime.block_on(async {
            let mut peer = Peer::ready_with(Fake::new(), Room::new(1 << 20)).await;
            begin(&mut peer, &["u1@example.org"]).await;
            let (wire, answers) = chunked(&mail, &cuts);
            let answers = peer.send_and_read(&wire, answers).await;
            assert!(answers.iter().all(|answer| answer.starts_with("250")), "{answers:?}");
            body_of(&peer.store, 0)
        });
        prop_assert_eq!(got, mail);
    }
}
