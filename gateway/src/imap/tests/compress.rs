//! COMPRESS=DEFLATE (RFC 4978), with flate2's own streams at the client's end.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::{DeflateDecoder, DeflateEncoder};

use super::dialogue::{Client, trusted};

struct Compressed {
    client: Client,
    deflate: DeflateEncoder<Vec<u8>>,
    inflate: DeflateDecoder<Vec<u8>>,
}

impl Compressed {
    async fn begin() -> Compressed {
        let mut client = Client::connect(trusted());
        client.line().await.unwrap();
        let login = client.command("a LOGIN u1@example.org secret").await;
        assert!(login[0].contains(" COMPRESS=DEFLATE"), "{login:?}");
        assert_eq!(client.command("b COMPRESS DEFLATE").await, ["b OK DEFLATE is active"]);
        Compressed {
            client,
            deflate: DeflateEncoder::new(Vec::new(), Compression::best()),
            inflate: DeflateDecoder::new(Vec::new()),
        }
    }

    /// Sends in pieces of this size, and returns what comes up to the line that ends with `last`.
    async fn exchange(&mut self, sent: &[u8], piece_bytes: usize, last: &str) -> Vec<u8> {
        self.deflate.write_all(sent).unwrap();
        self.deflate.flush().unwrap();
        let deflated = std::mem::take(self.deflate.get_mut());
        for piece in deflated.chunks(piece_bytes) {
            self.client.send(piece).await;
        }
        let mut came = Vec::new();
        while !came.ends_with(last.as_bytes()) {
            let bytes = self.client.some_bytes().await;
            assert!(
                !bytes.is_empty(),
                "the stream ended after {}",
                String::from_utf8_lossy(&came)
            );
            self.inflate.write_all(&bytes).unwrap();
            self.inflate.flush().unwrap();
            came.append(self.inflate.get_mut());
        }
        came
    }
}

#[tokio::test(start_paused = true)]
async fn commands_and_answers_are_deflated() {
    let mut stream = Compressed::begin().await;
    let came = stream
        .exchange(b"c SELECT INBOX\r\nd FETCH 1 UID\r\n", 1, "d OK Fetched\r\n")
        .await;
    assert!(String::from_utf8_lossy(&came).contains("* 1 FETCH (UID 1)\r\n"));
    let again = stream
        .exchange(b"e COMPRESS DEFLATE\r\n", 100, "active already\r\n")
        .await;
    assert!(again.starts_with(b"e NO [COMPRESSIONACTIVE]"));
    let list = stream.exchange(b"f CAPABILITY\r\n", 100, "f OK These work\r\n").await;
    assert!(!String::from_utf8_lossy(&list).contains("COMPRESS"));
}

#[tokio::test(start_paused = true)]
async fn a_large_message_goes_both_ways_byte_for_byte() {
    let mut stream = Compressed::begin().await;
    let mut message = b"Subject: large\r\n\r\n".to_vec();
    let mut state = 1u32;
    while message.len() < 300_000 {
        // Bytes that do not compress, and then zeros that do.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        message.extend_from_slice(&state.to_be_bytes());
        if message.len() % 1000 < 4 {
            message.extend_from_slice(&[0; 500]);
        }
    }
    let mut append = format!("c APPEND INBOX {{{}+}}\r\n", message.len()).into_bytes();
    append.extend_from_slice(&message);
    append.extend_from_slice(b"\r\n");
    stream.exchange(&append, 5000, "Appended\r\n").await;
    let came = stream
        .exchange(b"d SELECT INBOX\r\ne FETCH 4 BODY.PEEK[]\r\n", 7, "e OK Fetched\r\n")
        .await;
    let at = came.windows(message.len()).position(|window| window == message);
    assert!(at.is_some());
}

#[tokio::test(start_paused = true)]
async fn what_is_not_deflated_ends_the_session() {
    let mut stream = Compressed::begin().await;
    stream.client.send(&[0xff; 100]).await;
    while !stream.client.some_bytes().await.is_empty() {}
    stream.client.hang_up().await;
}

#[tokio::test(start_paused = true)]
async fn no_command_may_stand_behind_compress() {
    let mut client = Client::connect(trusted());
    client.line().await.unwrap();
    client.command("a LOGIN u1@example.org secret").await;
    client.send(b"b COMPRESS DEFLATE\r\nc NOOP\r\n").await;
    assert!(client.line().await.unwrap().unwrap().starts_with("* BYE"));
}
