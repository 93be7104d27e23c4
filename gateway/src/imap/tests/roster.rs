//! Sessions as operators see them, and their end from outside.

use std::sync::Arc;
use std::time::Duration;

use malle_client::AccountId;
use malle_proto::limits;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::super::{Context, Roster, serve};
use super::dialogue::{context_of, mail, trusted};
use super::memory::MemoryStore;

/// A session that has logged in, by its client's end.
async fn logged_in(roster: &Arc<Roster>) -> (tokio::io::DuplexStream, tokio::task::JoinHandle<()>) {
    let store = Arc::new(MemoryStore::new());
    for _ in 0..40 {
        store.event("deliver INBOX multipart", mail);
    }
    // So small that a client that does not read holds the session in the middle of an answer.
    let (near, mut far) = tokio::io::duplex(256);
    let context = Context {
        settings: trusted(),
        roster: Arc::clone(roster),
        ..context_of(store)
    };
    let session = tokio::spawn(async move {
        serve(Box::new(near), context).await;
    });
    far.write_all(b"a LOGIN u1@example.org secret\r\n").await.unwrap();
    read_until(&mut far, "Logged in").await;
    (far, session)
}

async fn read_until(far: &mut tokio::io::DuplexStream, text: &str) -> String {
    let mut read = Vec::new();
    let mut piece = [0; 512];
    loop {
        let count = far.read(&mut piece).await.unwrap();
        read.extend_from_slice(&piece[..count]);
        let said = String::from_utf8_lossy(&read);
        if count == 0 || said.contains(text) {
            return said.into_owned();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn sessions_are_told_and_one_of_them_is_ended() {
    let roster = Arc::new(Roster::default());
    let (mut first, _session) = logged_in(&roster).await;
    let (mut second, session) = logged_in(&roster).await;
    tokio::time::advance(Duration::from_secs(5)).await;
    let all = roster.sessions(MemoryStore::ACCOUNT, None, false);
    assert_eq!(all.len(), 2);
    assert_ne!(all[0].id, all[1].id);
    assert!(all[0].open_ms >= 5000 && all[0].tls && all[0].opened_by == "password");
    assert!(roster.sessions(AccountId([9; 16]), None, true).is_empty(), "another's");

    let ended = roster.sessions(MemoryStore::ACCOUNT, Some(&all[0].id), true);
    assert_eq!(ended.len(), 1);
    assert!(
        read_until(&mut first, "\n")
            .await
            .starts_with("* BYE the session was ended")
    );
    assert_eq!(read_until(&mut first, "never").await, "", "and hung up");
    second.write_all(b"b NOOP\r\n").await.unwrap();
    assert!(read_until(&mut second, "b OK").await.contains("b OK"));
    let left = roster.sessions(MemoryStore::ACCOUNT, None, false);
    assert_eq!(left.len(), 1);
    drop(second);
    session.await.unwrap();
    assert!(roster.logins().is_empty(), "who has no session is not kept");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_no_answers_does_not_keep_its_session() {
    let roster = Arc::new(Roster::default());
    let (mut far, session) = logged_in(&roster).await;
    far.write_all(b"s SELECT INBOX\r\nf FETCH 1:* BODY.PEEK[]\r\n")
        .await
        .unwrap();
    read_until(&mut far, "FETCH").await;
    let since = tokio::time::Instant::now();
    assert_eq!(roster.sessions(MemoryStore::ACCOUNT, None, true).len(), 1);
    session.await.unwrap();
    assert_eq!(since.elapsed().as_millis() as u64, limits::IMAP_LEAVE_MS);
}
