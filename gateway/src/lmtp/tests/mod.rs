//! Dialogues with a whole session over an in-memory pipe and a store that remembers. One file per behaviour.

mod binary;
mod bounds;
mod corpus;
mod delivery;
mod grammar;
mod pipelining;
mod repeat;
mod stopping;
mod transparency;
mod trusted_relays;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use malle_client::{
    AccountId, Error, MailboxId, ModSeq, OpId, Recipient, Resolved, ShardId, SpecialUse, Stored, Uid, UidValidity,
};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::connection::Ended;
use super::deliver::Store;
use super::{Context, Room, Timeouts, serve};

/// What was delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    pub account: AccountId,
    pub op_id: OpId,
    pub into: SpecialUse,
    pub body: Bytes,
}

/// A store that keeps everything and fails as told. `u1@example.org` and others exist; `broken@` cannot be looked up.
#[derive(Clone, Default)]
pub struct Fake(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    accounts: BTreeMap<String, Resolved>,
    deliveries: Vec<Delivery>,
    failures: BTreeMap<AccountId, Error>,
    lookups: Vec<String>,
}

impl Fake {
    pub fn new() -> Fake {
        let fake = Fake::default();
        for n in 1..=9 {
            fake.add(&format!("u{n}@example.org"), n, false);
        }
        fake.add("frozen@example.org", 20, true);
        fake.add("andré@example.org", 21, false);
        fake.add("postmaster", 22, false);
        fake
    }

    fn add(&self, address: &str, id: u8, suspended: bool) {
        let account = AccountId([id; 16]);
        let resolved = Resolved {
            account,
            shard: ShardId(1),
            suspended,
            primary_address: address.to_owned(),
        };
        self.0.lock().unwrap().accounts.insert(address.to_owned(), resolved);
    }

    pub fn fail(&self, id: u8, error: Option<Error>) {
        let mut inner = self.0.lock().unwrap();
        match error {
            Some(error) => inner.failures.insert(AccountId([id; 16]), error),
            None => inner.failures.remove(&AccountId([id; 16])),
        };
    }

    pub fn deliveries(&self) -> Vec<Delivery> {
        self.0.lock().unwrap().deliveries.clone()
    }

    pub fn lookups(&self) -> usize {
        self.0.lock().unwrap().lookups.len()
    }
}

impl Store for Fake {
    async fn resolve(&self, address: &str) -> Result<Option<Resolved>, Error> {
        let mut inner = self.0.lock().unwrap();
        inner.lookups.push(address.to_owned());
        if address.starts_with("broken@") {
            return Err(Error::Unavailable("no leader".into()));
        }
        Ok(inner.accounts.get(address).cloned())
    }

    async fn deliver(&self, recipients: &[Recipient], body: Bytes) -> Vec<Result<Stored, Error>> {
        let mut inner = self.0.lock().unwrap();
        let mut answers = Vec::new();
        for recipient in recipients {
            if let Some(error) = inner.failures.get(&recipient.account) {
                answers.push(Err(error.clone()));
                continue;
            }
            let repeated = inner
                .deliveries
                .iter()
                .any(|delivery| delivery.op_id == recipient.op_id);
            if !repeated {
                inner.deliveries.push(Delivery {
                    account: recipient.account,
                    op_id: recipient.op_id,
                    into: recipient.into,
                    body: body.clone(),
                });
            }
            answers.push(Ok(Stored {
                mailbox: MailboxId([1; 16]),
                uid_validity: UidValidity(1),
                uid: Uid(7),
                modseq: ModSeq(1),
                repeated,
            }));
        }
        answers
    }
}

/// The peer's end of a session.
pub struct Peer {
    reader: BufReader<ReadHalf<DuplexStream>>,
    writer: WriteHalf<DuplexStream>,
    pub store: Fake,
    pub room: Room,
    pub stop: watch::Sender<bool>,
    pub session: JoinHandle<Ended>,
}

impl Peer {
    /// A session that was greeted and has said LHLO.
    pub async fn ready() -> Peer {
        Peer::ready_with(Fake::new(), Room::new(256 << 20)).await
    }

    pub async fn ready_with(store: Fake, room: Room) -> Peer {
        let mut peer = Peer::greeted(store, room, Timeouts::default()).await;
        peer.send("LHLO client\r\n").await;
        loop {
            let line = peer.line().await;
            assert!(line.starts_with("250"), "{line}");
            if line.starts_with("250 ") {
                return peer;
            }
        }
    }

    pub async fn greeted(store: Fake, room: Room, timeouts: Timeouts) -> Peer {
        Peer::greeted_as(store, room, timeouts, false).await
    }

    /// As a relay that may say XCLIENT.
    pub async fn trusted() -> Peer {
        Peer::greeted_as(Fake::new(), Room::new(1 << 20), Timeouts::default(), true).await
    }

    async fn greeted_as(store: Fake, room: Room, timeouts: Timeouts, trusted: bool) -> Peer {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let (stop, stopped) = watch::channel(false);
        let context = Context {
            store: store.clone(),
            host: "mx.example.org".to_owned(),
            room: room.clone(),
            stop: stopped,
            timeouts,
            session: 1,
            peer: "::ffff:10.0.0.7".parse().unwrap(),
            xclient_from: trusted.then(|| "10.0.0.7".parse().unwrap()).into_iter().collect(),
        };
        let session = tokio::spawn(serve(theirs, context));
        let (reader, writer) = tokio::io::split(ours);
        let mut peer = Peer {
            reader: BufReader::new(reader),
            writer,
            store,
            room,
            stop,
            session,
        };
        assert_eq!(peer.line().await, "220 mx.example.org LMTP malle");
        peer
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.writer.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Sends while the answers are read, so that neither side waits for the other with full pipes.
    pub async fn send_and_read(&mut self, bytes: &[u8], lines: usize) -> Vec<String> {
        let (writer, reader) = (&mut self.writer, &mut self.reader);
        let mut answers = Vec::new();
        let read = async {
            for _ in 0..lines {
                answers.push(read_line(reader).await);
            }
        };
        let (sent, ()) = tokio::join!(writer.write_all(bytes), read);
        sent.unwrap();
        answers
    }

    pub async fn line(&mut self) -> String {
        read_line(&mut self.reader).await
    }

    /// The next line, with no deadline of the test's own: for tests whose clock is paused.
    pub async fn line_however_late(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).await.unwrap();
        line
    }

    /// Sends a line and gives its one answer.
    pub async fn ask(&mut self, line: &str) -> String {
        self.send(format!("{line}\r\n")).await;
        self.line().await
    }

    /// `ask`, and the answer must begin so.
    pub async fn expect(&mut self, line: &str, answer: &str) {
        let got = self.ask(line).await;
        assert!(got.starts_with(answer), "{line}: wanted {answer}, got {got}");
    }

    /// MAIL, RCPT for each, DATA, the mail (stuffed already, without the final dot); the answers after it.
    pub async fn deliver(&mut self, recipients: &[&str], mail: &[u8]) -> Vec<String> {
        self.expect("MAIL FROM:<from@example.net>", "250 2.1.0").await;
        for recipient in recipients {
            self.expect(&format!("RCPT TO:<{recipient}>"), "250 2.1.5").await;
        }
        self.expect("DATA", "354").await;
        self.send_and_read(&[mail, b".\r\n"].concat(), recipients.len()).await
    }

    /// The session has closed; what it still said.
    pub async fn rest(&mut self) -> String {
        let mut rest = String::new();
        self.reader.read_to_string(&mut rest).await.unwrap();
        rest
    }
}

async fn read_line(reader: &mut BufReader<ReadHalf<DuplexStream>>) -> String {
    let mut line = String::new();
    let read = tokio::time::timeout(Duration::from_secs(60), reader.read_line(&mut line));
    read.await.expect("an answer comes within a minute").unwrap();
    line.trim_end_matches(['\r', '\n']).to_owned()
}
