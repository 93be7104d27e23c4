//! What no well-meaning client does, and what a busy one does.

use std::sync::Arc;

use proptest::prelude::{any, prop_assert, proptest};

use super::super::{SessionSettings, serve};
use super::dialogue::{Client, context_of, trusted};
use super::memory::MemoryStore;

async fn logged_in() -> Client {
    let mut client = Client::connect(trusted());
    client.line().await.unwrap();
    assert!(client.command("a LOGIN u1@example.org secret").await[0].starts_with("a OK"));
    client
}

#[tokio::test(start_paused = true)]
async fn pipelined_commands_are_answered_in_order() {
    let mut client = logged_in().await;
    client
        .send(b"b SELECT INBOX\r\nc FETCH 1 UID\r\nd STORE 1 +FLAGS (\\Deleted)\r\ne EXPUNGE\r\nf FETCH 1 UID\r\n")
        .await;
    client.until("b").await;
    assert_eq!(client.until("c").await, ["* 1 FETCH (UID 1)", "c OK Fetched"]);
    client.until("d").await;
    assert_eq!(client.until("e").await, ["* 1 EXPUNGE", "e OK Expunged"]);
    assert_eq!(client.until("f").await, ["* 1 FETCH (UID 2)", "f OK Fetched"]);
}

#[tokio::test(start_paused = true)]
async fn commands_put_before_a_handshake_are_not_taken_into_it() {
    let settings = SessionSettings {
        tls: false,
        starttls_offered: true,
        ..trusted()
    };
    let mut client = Client::connect(settings);
    client.line().await.unwrap();
    client.send(b"a STARTTLS\r\nb LOGIN u1@example.org secret\r\n").await;
    assert!(client.line().await.unwrap().unwrap().starts_with("* BYE"));
    assert_eq!(client.line().await, Ok(None));
}

#[tokio::test(start_paused = true)]
async fn a_line_without_an_end_ends_the_session() {
    let mut client = logged_in().await;
    client.send(&vec![b'x'; 100_000]).await;
    assert_eq!(
        client.line().await.unwrap().as_deref(),
        Some("* BYE the line is too long")
    );
}

#[tokio::test(start_paused = true)]
async fn a_message_of_a_megabyte_comes_back_byte_for_byte() {
    let mut client = logged_in().await;
    let line = b"0123456789 \xe9\xff \x80 and some more of the same\r\n";
    let mut message = b"Subject: large\r\n\r\n".to_vec();
    while message.len() < 1024 * 1024 {
        message.extend_from_slice(line);
    }
    client
        .send(format!("b APPEND INBOX {{{}+}}\r\n", message.len()).as_bytes())
        .await;
    client.send(&message).await;
    client.send(b"\r\n").await;
    assert!(client.until("b").await[0].starts_with("b OK [APPENDUID"));
    client.command("c SELECT INBOX").await;
    client.send(b"d FETCH 4 BODY.PEEK[]\r\n").await;
    let head = client.line().await.unwrap().unwrap();
    assert_eq!(head, format!("* 4 FETCH (BODY[] {{{}}}", message.len()));
    assert_eq!(client.bytes(message.len()).await, message);
    assert_eq!(client.until("d").await, [")", "d OK Fetched"]);
}

#[tokio::test(start_paused = true)]
async fn small_messages_are_read_together_and_large_ones_alone_in_the_order_of_the_mailbox() {
    let mut client = logged_in().await;
    client.store.set_page_rows(20);
    let sizes: Vec<usize> = (0..30)
        .map(|index| if index == 15 { 100_000 } else { 100 + index })
        .collect();
    for size in &sizes {
        let message = format!("Subject: x\r\n\r\n{}", "y".repeat(*size));
        client
            .send(format!("b APPEND INBOX {{{}+}}\r\n{message}\r\n", message.len()).as_bytes())
            .await;
        assert!(client.until("b").await[0].starts_with("b OK"));
    }
    client.command("c SELECT INBOX").await;
    let lines = client.command("d FETCH 4:* BODY.PEEK[TEXT]").await;
    let told: Vec<&String> = lines.iter().filter(|line| line.starts_with("* ")).collect();
    let expected: Vec<String> = sizes
        .iter()
        .enumerate()
        .map(|(index, size)| format!("* {} FETCH (BODY[TEXT] {{{size}}}", index + 4))
        .collect();
    assert_eq!(told, expected.iter().collect::<Vec<_>>());
    let store = client.hang_up().await;
    // Fifteen small ones are before the large one: all in one answer but for the last, which this store leaves out.
    assert_eq!(store.most_reading(), (14, 1));
}

#[tokio::test(start_paused = true)]
async fn a_nul_travels_in_a_literal8_and_nowhere_else() {
    let mut client = logged_in().await;
    let message =
        b"Subject: x\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\nAAEC\r\n";
    client
        .send(format!("b APPEND INBOX ~{{{}+}}\r\n", message.len()).as_bytes())
        .await;
    client.send(message).await;
    client.send(b"\r\n").await;
    assert!(client.until("b").await[0].starts_with("b OK [APPENDUID"));
    client.command("c SELECT INBOX").await;
    client.send(b"d FETCH 4 BINARY.PEEK[1]\r\n").await;
    assert_eq!(client.line().await.unwrap().unwrap(), "* 4 FETCH (BINARY[1] ~{3}");
    assert_eq!(client.bytes(3).await, [0, 1, 2]);
    assert_eq!(client.until("d").await, [")", "d OK Fetched"]);
    client.send(b"e FETCH 4 BINARY[1]<1.2>\r\n").await;
    assert_eq!(client.line().await.unwrap().unwrap(), "* 4 FETCH (BINARY[1]<1> {2}");
    assert_eq!(client.bytes(2).await, [1, 2]);
    assert_eq!(client.until("e").await, [" FLAGS (\\Seen))", "e OK Fetched"]);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_in_the_middle_of_an_append_leaves_nothing() {
    let mut client = logged_in().await;
    client.send(b"b APPEND INBOX {1000+}\r\nSubject: half").await;
    let store = client.hang_up().await;
    let account = super::super::store::Store::login(&*store, "u1@example.org", "secret")
        .await
        .unwrap();
    let mailboxes = account.mailboxes().await.unwrap();
    assert_eq!(
        mailboxes
            .iter()
            .find(|mailbox| mailbox.name == "INBOX")
            .unwrap()
            .messages,
        3
    );
}

#[tokio::test]
async fn a_session_that_waits_keeps_no_room_for_what_others_do() {
    let (near, _far) = tokio::io::duplex(64);
    let session = serve(Box::new(near), context_of(Arc::new(MemoryStore::new())));
    let bytes = size_of_val(&session);
    assert!(bytes <= 8 * 1024, "{bytes}");
}

proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    /// Whatever comes, the session answers or says BYE, and its task does not die on it.
    #[test]
    fn rubbish_gets_an_answer_or_a_bye(rubbish in any::<Vec<u8>>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let lines = runtime.block_on(async {
            let mut client = logged_in().await;
            client.send(&rubbish).await;
            client.send(b"\r\nz LOGOUT\r\n").await;
            let mut lines = Vec::new();
            for _ in 0..1000 {
                match client.line().await {
                    Ok(Some(line)) => lines.push(line),
                    // It waits for a literal that will not come.
                    Err(_) | Ok(None) => break,
                }
            }
            lines
        });
        let waits_for_a_literal = rubbish.contains(&b'}');
        prop_assert!(waits_for_a_literal || lines.iter().any(|line| line.starts_with("* BYE")), "{lines:?}");
    }
}
