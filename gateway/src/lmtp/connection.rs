//! The driver of one LMTP connection: bytes in, replies out, nothing unbounded in between.
//!
//! Replies gather in memory while commands wait in the input (PIPELINING, RFC 2920) and go out before the driver waits for the peer
//! or for a commit. Every wait has an end: [`Timeouts`]. Lines are bounded, a mail is bounded (`body`), what is drained is bounded.
//! Command lines end in CRLF or in LF alone; the end of DATA is stricter (`data`).

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use malle_proto::limits;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use super::body::{Collected, Collector, RECEIVED_MAX_BYTES, Refusal, Room};
use super::data::Decoder;
use super::deliver::{self, Store};
use super::reply::{self, Reply};
use super::session::{Action, DRAIN_MAX_BYTES, Session, TOO_LARGE, Transaction};
use super::xclient::{self, Origin};

/// One read from the socket.
const READ_BYTES: usize = 64 * 1024;
/// Replies that gather before they are sent even though more commands wait.
const REPLIES_MAX_BYTES: usize = 16 * 1024;

/// How long a session waits (RFC 5321 4.5.3.2).
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// For the next bytes of a peer, and for a peer to take ours.
    pub peer: Duration,
    /// For one whole mail: a peer that trickles bytes holds a session and memory no longer.
    pub mail: Duration,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            peer: Duration::from_secs(5 * 60),
            mail: Duration::from_secs(30 * 60),
        }
    }
}

/// What a connection needs besides its socket.
#[derive(Clone)]
pub struct Context<S> {
    /// malle.
    pub store: S,
    /// Our name in greetings.
    pub host: String,
    /// Memory shared with all other sessions.
    pub room: Room,
    /// Turns true when the gateway stops: the session ends before its next command.
    pub stop: watch::Receiver<bool>,
    /// Waits.
    pub timeouts: Timeouts,
    /// Names the session in the log.
    pub session: u64,
    /// Where the relay comes from.
    pub peer: IpAddr,
    /// Relays that may say by XCLIENT for whom they speak.
    pub xclient_from: Arc<[IpAddr]>,
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// QUIT, or the peer closed between two commands.
    Quit,
    /// The peer went away or fell silent in the middle, or was sent away.
    Broken,
    /// The gateway stops.
    Stopped,
}

/// Serves one connection until it ends. Mails that are not answered when it breaks are the sender's to send again.
pub async fn serve<IO, S>(io: IO, context: Context<S>) -> Ended
where
    IO: AsyncRead + AsyncWrite + Unpin + Send,
    S: Store,
{
    let trusted = context.xclient_from.contains(&context.peer.to_canonical());
    let mut connection = Connection {
        wire: Wire {
            io,
            input: BytesMut::new(),
            output: Vec::new(),
            peer: context.timeouts.peer,
        },
        session: Session::of(trusted),
        origin: None,
        trusted,
        mail: None,
        context,
    };
    match connection.run().await {
        Ok(ended) => ended,
        Err(error) => {
            tracing::info!(session = connection.context.session, %error, "lmtp session broken off");
            Ended::Broken
        }
    }
}

struct Connection<IO, S> {
    wire: Wire<IO>,
    session: Session,
    /// For whom the relay speaks, once it said so.
    origin: Option<Origin>,
    trusted: bool,
    /// A mail that comes in chunks, between two BDATs.
    mail: Option<(Collector, Instant)>,
    context: Context<S>,
}

impl<IO: AsyncRead + AsyncWrite + Unpin + Send, S: Store> Connection<IO, S> {
    async fn run(&mut self) -> io::Result<Ended> {
        self.wire.reply(&self.greeting()).await?;
        loop {
            let line = match self.wire.line(&mut self.context.stop).await? {
                Line::Complete(line) => line,
                Line::Closed => return Ok(Ended::Quit),
                Line::TooLong => return self.close(Reply::fixed(500, "5.5.6", "line too long, closing")).await,
                Line::Silent => {
                    return self
                        .close(Reply::fixed(421, "4.4.2", "silent for too long, closing"))
                        .await;
                }
                Line::Stopping => {
                    self.close(Reply::fixed(421, "4.3.2", "the gateway stops, come again"))
                        .await?;
                    return Ok(Ended::Stopped);
                }
            };
            match self.session.command(&line) {
                Action::Reply(reply) => self.wire.reply(&reply).await?,
                Action::Greet => self.greet().await?,
                Action::SpeakFor(said) => {
                    self.origin.get_or_insert_default().learn(said);
                    self.wire.reply(&self.greeting()).await?;
                }
                Action::Resolve(path) => {
                    let answer = self.context.store.resolve(&path.lookup()).await;
                    if let Err(error) = &answer {
                        tracing::warn!(session = self.context.session, %error, "a recipient could not be looked up");
                    }
                    let reply = self.session.resolved(path, answer);
                    self.wire.reply(&reply).await?;
                }
                Action::ReceiveData => self.receive_data().await?,
                Action::ReceiveChunk { size_bytes, last } => self.receive_chunk(size_bytes, last).await?,
                Action::Drain { size_bytes, reply } => {
                    let deadline = Instant::now() + self.context.timeouts.mail;
                    self.wire.exactly(size_bytes, deadline, |_| {}).await?;
                    self.wire.reply(&reply).await?;
                }
                Action::Close(reply) => {
                    let quit = reply.code == 221;
                    let ended = self.close(reply).await?;
                    return Ok(if quit { Ended::Quit } else { ended });
                }
            }
            if self.session.transaction().is_none() {
                // RSET or LHLO in the middle of chunks: their room is free again.
                self.mail = None;
            }
        }
    }

    fn greeting(&self) -> Reply {
        Reply::made(220, "", &format!("{} LMTP malle", self.context.host))
    }

    async fn greet(&mut self) -> io::Result<()> {
        let keywords = [
            "PIPELINING",
            "ENHANCEDSTATUSCODES",
            "8BITMIME",
            "BINARYMIME",
            "CHUNKING",
            "SMTPUTF8",
        ];
        let mut keywords = keywords.map(str::to_owned).to_vec();
        if self.trusted {
            keywords.push(xclient::KEYWORD.to_owned());
        }
        keywords.push(format!("SIZE {RECEIVED_MAX_BYTES}"));
        reply::write_greeting(&self.context.host, &keywords, &mut self.wire.output);
        self.wire.flush_if_full().await
    }

    async fn close(&mut self, reply: Reply) -> io::Result<Ended> {
        self.wire.reply(&reply).await?;
        self.wire.flush().await?;
        Ok(Ended::Broken)
    }

    fn new_mail(&self) -> (Collector, Instant) {
        let sender = self
            .session
            .transaction()
            .map_or("", |transaction| transaction.mail.from.raw.as_str());
        (
            Collector::new(sender, self.context.room.clone()),
            Instant::now() + self.context.timeouts.mail,
        )
    }

    async fn receive_data(&mut self) -> io::Result<()> {
        self.wire
            .reply(&Reply::fixed(354, "", "send the mail, end with a dot"))
            .await?;
        let (mut mail, deadline) = self.new_mail();
        let mut decoder = Decoder::new();
        loop {
            let (used, ended) = decoder.decode(&self.wire.input, |piece| mail.push(piece));
            self.wire.input.advance(used);
            if ended {
                break;
            }
            if mail.received_bytes() > DRAIN_MAX_BYTES {
                self.close(TOO_LARGE).await?;
                return Err(io::Error::other("a mail without end"));
            }
            self.wire.fill(deadline).await?;
        }
        self.finish(mail.finish()).await
    }

    async fn receive_chunk(&mut self, size_bytes: u64, last: bool) -> io::Result<()> {
        let (mut mail, deadline) = match self.mail.take() {
            Some(mail) => mail,
            None => self.new_mail(),
        };
        self.wire
            .exactly(size_bytes, deadline, |piece| mail.push(piece))
            .await?;
        if mail.received_bytes() > DRAIN_MAX_BYTES {
            self.close(TOO_LARGE).await?;
            return Err(io::Error::other("a mail without end"));
        }
        if last {
            return self.finish(mail.finish()).await;
        }
        let reply = match mail.refusal() {
            Some(refusal) => refused(refusal),
            None => Reply::made(250, "2.0.0", &format!("{size_bytes} bytes taken")),
        };
        self.mail = Some((mail, deadline));
        self.wire.reply(&reply).await
    }

    /// The mail is over: one answer per recipient.
    async fn finish(&mut self, mail: Result<Collected, Refusal>) -> io::Result<()> {
        let transaction = self
            .session
            .take_transaction()
            .expect("mail bytes are read only inside a transaction");
        // What was already answered must not wait for the commit.
        self.wire.flush().await?;
        let replies = match &mail {
            Ok(mail) => {
                let outcome = deliver::deliver(&self.context.store, &transaction, mail).await;
                self.log(&transaction, mail.received().len() as u64, outcome.stored);
                outcome.replies
            }
            Err(refusal) => {
                self.log(&transaction, 0, 0);
                transaction.recipients.iter().map(|_| refused(*refusal)).collect()
            }
        };
        for reply in &replies {
            self.wire.reply(reply).await?;
        }
        Ok(())
    }

    fn log(&self, transaction: &Transaction, bytes: u64, stored: usize) {
        let origin = self.origin.as_ref().map(tracing::field::display);
        tracing::info!(
            session = self.context.session,
            relay = %self.context.peer,
            origin,
            sender = %transaction.mail.from.raw,
            recipients = transaction.recipients.len(),
            stored,
            bytes,
            "lmtp mail"
        );
    }
}

fn refused(refusal: Refusal) -> Reply {
    match refusal {
        Refusal::TooLarge => TOO_LARGE,
        Refusal::NoRoom => Reply::fixed(452, "4.3.1", "too much mail at once, try again later"),
    }
}

/// What waiting for a command line came to.
enum Line {
    Complete(BytesMut),
    Closed,
    TooLong,
    Silent,
    Stopping,
}

/// A socket with what was read too early and what is to be sent.
struct Wire<IO> {
    io: IO,
    input: BytesMut,
    output: Vec<u8>,
    peer: Duration,
}

impl<IO: AsyncRead + AsyncWrite + Unpin + Send> Wire<IO> {
    /// The next line without its end.
    async fn line(&mut self, stop: &mut watch::Receiver<bool>) -> io::Result<Line> {
        let mut searched = 0;
        loop {
            if *stop.borrow() {
                return Ok(Line::Stopping);
            }
            if let Some(at) = self.input[searched..].iter().position(|b| *b == b'\n') {
                let mut line = self.input.split_to(searched + at + 1);
                line.truncate(line.len() - 1);
                if line.last() == Some(&b'\r') {
                    line.truncate(line.len() - 1);
                }
                return Ok(if line.len() > limits::COMMAND_LINE_MAX_BYTES {
                    Line::TooLong
                } else {
                    Line::Complete(line)
                });
            }
            searched = self.input.len();
            if searched > limits::COMMAND_LINE_MAX_BYTES {
                return Ok(Line::TooLong);
            }
            self.flush().await?;
            self.input.reserve(READ_BYTES);
            tokio::select! {
                read = timeout(self.peer, self.io.read_buf(&mut self.input)) => match read {
                    Err(_) => return Ok(Line::Silent),
                    Ok(read) => match read? {
                        0 if self.input.is_empty() => return Ok(Line::Closed),
                        0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                        _ => {}
                    },
                },
                // An error means that the sender of the signal is gone, which is as good as the signal.
                _ = stop.wait_for(|stop| *stop) => return Ok(Line::Stopping),
            }
        }
    }

    /// Reads more, at least one byte.
    async fn fill(&mut self, deadline: Instant) -> io::Result<()> {
        self.flush().await?;
        self.input.reserve(READ_BYTES);
        let deadline = deadline.min(Instant::now() + self.peer);
        match timeout_at(deadline, self.io.read_buf(&mut self.input)).await {
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
            Ok(read) => match read? {
                0 => Err(io::ErrorKind::UnexpectedEof.into()),
                _ => Ok(()),
            },
        }
    }

    /// Hands exactly this many bytes to `sink`.
    async fn exactly(&mut self, bytes: u64, deadline: Instant, mut sink: impl FnMut(&[u8])) -> io::Result<()> {
        let mut left = bytes;
        loop {
            let take = self.input.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            sink(&self.input[..take]);
            self.input.advance(take);
            left -= take as u64;
            if left == 0 {
                return Ok(());
            }
            self.fill(deadline).await?;
        }
    }

    async fn reply(&mut self, reply: &Reply) -> io::Result<()> {
        reply.write_to(&mut self.output);
        self.flush_if_full().await
    }

    async fn flush_if_full(&mut self) -> io::Result<()> {
        if self.output.len() > REPLIES_MAX_BYTES {
            self.flush().await
        } else {
            Ok(())
        }
    }

    async fn flush(&mut self) -> io::Result<()> {
        if self.output.is_empty() {
            return Ok(());
        }
        let sent = timeout(self.peer, async {
            self.io.write_all(&self.output).await?;
            self.io.flush().await
        });
        sent.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        self.output.clear();
        Ok(())
    }
}
