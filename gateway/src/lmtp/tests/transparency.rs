//! What was sent is what is stored, byte for byte.

use super::Peer;

async fn stored(wire: &[u8]) -> Vec<u8> {
    let mut peer = Peer::ready().await;
    let answers = peer.deliver(&["u1@example.org"], wire).await;
    assert!(answers[0].starts_with("250"), "{answers:?}");
    let body = peer.store.deliveries()[0].body.clone();
    body.strip_prefix(b"Return-Path: <from@example.net>\r\n")
        .unwrap()
        .to_vec()
}

#[tokio::test]
async fn eight_bit_rubbish_nul_bare_cr_and_bare_lf_stay_as_they_are() {
    let mut mail = (0..=255u8).cycle().take(70_000).collect::<Vec<_>>();
    mail.extend_from_slice(b"\x00\xff\r \n \r\r\n");
    assert_eq!(stored(&mail).await, mail);
}

#[tokio::test]
async fn dot_stuffing_is_removed_once() {
    assert_eq!(
        stored(b"a\r\n..\r\n...b\r\n..c\n.d\r\n").await,
        b"a\r\n.\r\n..b\r\n.c\n.d\r\n"
    );
}

#[tokio::test]
async fn a_second_mail_cannot_be_smuggled_behind_a_bare_line_feed() {
    let smuggled = b"a\n.\nMAIL FROM:<evil@x>\nRCPT TO:<u2@example.org>\nDATA\nhello\n.\r\nb\r.\rc\r\n";
    assert_eq!(stored(smuggled).await, smuggled);
}

#[tokio::test]
async fn a_line_of_two_mebibytes_is_one_line() {
    let mail = [b"Subject: ".as_slice(), &vec![b'x'; 2 << 20], b"\r\n"].concat();
    assert_eq!(stored(&mail).await, mail);
}
