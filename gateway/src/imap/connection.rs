//! Bytes in, complete commands out; answers in, bytes out.
//!
//! [`Connection::read_frame`] reads one command with all its literals (RFC 3501 4.3, RFC 7888) before anybody interprets it: the parser then
//! works on memory and never waits. Everything a client can make us hold or wait for is bounded here: line length, literal size (known
//! before the client may send it), size and time of a command, and how long it may refuse to take our answers.

use std::future::Future;
use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use malle_proto::limits;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};

use super::access::{BodyMemory, Share};
use super::deflate::Deflated;
use super::respond::Output;

/// The buffer of a session that waits for its next command: most of them fit.
const WAITING_BYTES: usize = 256;

/// A stream that carries IMAP: a socket, or TLS over one.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// Any [`Io`].
pub type BoxedIo = Box<dyn Io>;

/// The conversation is over; there is nobody left to answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Gone {
    #[error("the client closed the connection")]
    Closed,
    #[error("the client sent nothing for too long")]
    Silent,
    #[error("the client takes no answers")]
    Stalled,
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Why there is no frame.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    #[error(transparent)]
    Gone(#[from] Gone),
    /// The stream cannot be followed any further: where the next command begins is unknown.
    #[error("{0}")]
    Lost(&'static str),
    /// A synchronising literal was not asked for: the client sends its next command instead.
    #[error("a literal of more than {limit_bytes} bytes")]
    LiteralRefused { tag: Option<String>, limit_bytes: usize },
    /// More messages than one command may bring.
    #[error("too many messages in one command")]
    TooManyMessages { tag: Option<String>, synchronising: bool },
    /// A literal that comes without being asked for is too large to be skipped.
    #[error("a non-synchronising literal of more than {limit_bytes} bytes")]
    LiteralTooLarge { tag: Option<String>, limit_bytes: usize },
    /// The memory for message bytes is taken.
    #[error("no memory for a message")]
    NoMemory { tag: Option<String>, synchronising: bool },
}

/// Part of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    /// A line, or what stands between two literals; without CRLF and without the `{n}` that announces a literal.
    Text(Vec<u8>),
    /// A literal's bytes.
    Literal(Bytes),
}

/// One complete command: text and literals by turns, text first and last.
#[derive(Debug, Default)]
pub(super) struct Frame {
    /// The client said ENABLE UTF8=ACCEPT or IMAP4rev2: names are UTF-8 (RFC 6855, RFC 9051 5.1).
    pub(super) utf8: bool,
    pub(super) pieces: Vec<Piece>,
    /// Held as long as the frame's large literals are.
    memory: Vec<Share>,
    /// Messages so far, and their bytes.
    messages: usize,
    message_bytes: usize,
}

impl Frame {
    /// A frame from memory.
    #[cfg_attr(not(test), allow(dead_code, reason = "of tests and the fuzzer"))]
    pub(super) fn of(pieces: Vec<Piece>) -> Frame {
        Frame {
            pieces,
            ..Frame::default()
        }
    }

    fn tag(&self) -> Option<String> {
        let Some(Piece::Text(first)) = self.pieces.first() else {
            return None;
        };
        let end = first.iter().position(|&byte| byte == b' ')?;
        let tag = std::str::from_utf8(&first[..end]).ok()?;
        let printable = tag
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !b"(){%*\"\\+".contains(&byte));
        (printable && !tag.is_empty() && tag.len() <= 256).then(|| tag.to_owned())
    }

    /// The next literal is a message of an APPEND or REPLACE: before it stands what may be the mailbox, and every literal behind it is one too.
    fn message_comes_next(&self) -> bool {
        let Some(Piece::Text(first)) = self.pieces.first() else {
            return false;
        };
        let mut words = first.split(|&byte| byte == b' ').skip(1);
        let mut command = words.next().unwrap_or_default();
        if command.eq_ignore_ascii_case(b"UID") {
            command = words.next().unwrap_or_default();
        }
        let numbers = if command.eq_ignore_ascii_case(b"REPLACE") {
            1
        } else if command.eq_ignore_ascii_case(b"APPEND") {
            0
        } else {
            return false;
        };
        self.pieces.len() > 1 || words.nth(numbers).is_some_and(|mailbox| !mailbox.is_empty())
    }
}

/// What a command may cost, by the session's state.
#[derive(Debug, Clone, Copy)]
pub(super) struct FrameBounds {
    /// Logged in: longer waits, larger literals, messages.
    pub(super) authenticated: bool,
}

impl FrameBounds {
    fn literal_max_bytes(self, frame: &Frame) -> usize {
        match (self.authenticated, frame.message_comes_next()) {
            (true, true) => limits::MESSAGE_MAX_BYTES - frame.message_bytes,
            (true, false) => limits::IMAP_LITERAL_MAX_BYTES,
            (false, _) => limits::IMAP_LITERAL_BEFORE_LOGIN_MAX_BYTES,
        }
    }

    /// How long the session may be silent.
    pub(super) fn idle(self) -> Duration {
        Duration::from_millis(if self.authenticated {
            limits::IMAP_IDLE_MS
        } else {
            limits::IMAP_IDLE_BEFORE_LOGIN_MS
        })
    }
}

/// A stream with its buffers.
pub(super) struct Connection {
    io: BoxedIo,
    input: BytesMut,
    /// Answers that are not sent yet.
    pub(super) output: Output,
}

impl Connection {
    pub(super) fn new(io: BoxedIo) -> Connection {
        Connection {
            io,
            input: BytesMut::new(),
            output: Output::default(),
        }
    }

    /// The bare stream, without what the client sent too early.
    pub(super) fn into_io(self) -> BoxedIo {
        self.io
    }

    /// From now on both directions are deflated. Everything before must be flushed.
    pub(super) fn compress(&mut self) {
        let bare: BoxedIo = std::mem::replace(&mut self.io, Box::new(tokio::io::empty()));
        self.io = Box::new(Deflated::new(bare));
    }

    /// Bytes that came but were not asked for yet.
    pub(super) fn has_input(&self) -> bool {
        !self.input.is_empty()
    }

    /// Waits until there is input that was not asked for yet. Dropping the future loses nothing.
    pub(super) async fn wait(&mut self, deadline: Instant) -> Result<(), Gone> {
        if self.input.is_empty() {
            self.fill(deadline).await?;
        }
        Ok(())
    }

    /// One complete command, or an empty line as a frame with one empty text.
    pub(super) async fn read_frame(&mut self, bounds: FrameBounds, memory: &BodyMemory) -> Result<Frame, FrameError> {
        let idle_until = Instant::now() + bounds.idle();
        if self.input.is_empty() {
            self.fill(idle_until).await?;
        }
        let mut deadline = Instant::now() + Duration::from_millis(limits::IMAP_COMMAND_TIME_MS);
        if !bounds.authenticated {
            deadline = deadline.min(idle_until);
        }
        let mut frame = Frame::default();
        let mut small_bytes = 0;
        loop {
            let mut line = self.read_line(deadline).await?;
            small_bytes += line.len() + 2;
            let Some(literal) = announced_literal(&line) else {
                frame.pieces.push(Piece::Text(line));
                return Ok(frame);
            };
            line.truncate(literal.text_bytes);
            frame.pieces.push(Piece::Text(line));
            let length = self.admit(bounds, &mut frame, literal, memory).await?;
            if bounds.authenticated && frame.message_comes_next() {
                frame.messages += 1;
                frame.message_bytes += length;
            } else {
                small_bytes += length;
            }
            if small_bytes > limits::IMAP_COMMAND_MAX_BYTES {
                return Err(FrameError::Lost("the command is too large"));
            }
            if literal.synchronising {
                self.output.raw(b"+ Ready for the literal\r\n");
                self.flush().await?;
            }
            deadline += Duration::from_secs(length as u64 / limits::IMAP_SLOWEST_UPLOAD_BYTES_PER_SECOND);
            let bytes = self.read_exact(length, deadline).await?;
            frame.pieces.push(Piece::Literal(bytes));
        }
    }

    /// May this literal come? Its length if so.
    async fn admit(
        &mut self,
        bounds: FrameBounds,
        frame: &mut Frame,
        literal: Announced,
        memory: &BodyMemory,
    ) -> Result<usize, FrameError> {
        let limit_bytes = bounds.literal_max_bytes(frame);
        let length = match literal.length {
            Some(length) if length <= limit_bytes => length,
            _ if literal.synchronising => {
                return Err(FrameError::LiteralRefused {
                    tag: frame.tag(),
                    limit_bytes,
                });
            }
            _ => {
                return Err(FrameError::LiteralTooLarge {
                    tag: frame.tag(),
                    limit_bytes,
                });
            }
        };
        let is_message = bounds.authenticated && frame.message_comes_next();
        if is_message && frame.messages >= limits::APPENDS_PER_COMMAND_MAX {
            return Err(FrameError::TooManyMessages {
                tag: frame.tag(),
                synchronising: literal.synchronising,
            });
        }
        if is_message && frame.message_bytes + length > limits::IMAP_LITERAL_MAX_BYTES {
            let Some(share) = memory.take(length as u64).await else {
                return Err(FrameError::NoMemory {
                    tag: frame.tag(),
                    synchronising: literal.synchronising,
                });
            };
            frame.memory.push(share);
        }
        Ok(length)
    }

    /// One line without its end. Dropping the future loses nothing, so it may stand in a `select!`.
    pub(super) async fn read_line(&mut self, deadline: Instant) -> Result<Vec<u8>, FrameError> {
        let mut searched = 0;
        loop {
            if let Some(found) = self.input[searched..].iter().position(|&byte| byte == b'\n') {
                let mut line = self.input.split_to(searched + found + 1).to_vec();
                line.pop();
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
                return Ok(line);
            }
            searched = self.input.len();
            if searched > limits::COMMAND_LINE_MAX_BYTES {
                return Err(FrameError::Lost("the line is too long"));
            }
            self.fill(deadline).await?;
        }
    }

    async fn read_exact(&mut self, length: usize, deadline: Instant) -> Result<Bytes, Gone> {
        let mut literal = self.input.split_to(length.min(self.input.len()));
        while literal.len() < length {
            // Memory is taken as the bytes come, never as they are announced.
            literal.reserve((length - literal.len()).min(64 * 1024));
            let left = (length - literal.len()) as u64;
            let mut limited = (&mut self.io).take(left);
            match timeout_at(deadline, limited.read_buf(&mut literal)).await {
                Ok(Ok(0)) => return Err(Gone::Closed),
                Ok(read) => read?,
                Err(_) => return Err(Gone::Silent),
            };
        }
        Ok(literal.freeze())
    }

    /// Waits for more input.
    async fn fill(&mut self, deadline: Instant) -> Result<(), Gone> {
        if self.input.is_empty() {
            // Most sessions wait nearly always: what they wait with is small.
            self.input = BytesMut::with_capacity(WAITING_BYTES);
        } else {
            self.input.reserve(8 * 1024);
        }
        match timeout_at(deadline, self.io.read_buf(&mut self.input)).await {
            Ok(Ok(0)) => Err(Gone::Closed),
            Ok(read) => read.map(|_| ()).map_err(Gone::from),
            Err(_) => Err(Gone::Silent),
        }
    }

    /// Sends what waits to be sent.
    pub(super) async fn flush(&mut self) -> Result<(), Gone> {
        let waiting = self.output.take();
        self.send(&waiting).await?;
        bounded(self.io.flush()).await
    }

    /// Sends what waits if it is much: for the middle of a long answer.
    pub(super) async fn flush_if_much(&mut self) -> Result<(), Gone> {
        if self.output.len() < limits::IMAP_OUTPUT_BYTES {
            return Ok(());
        }
        let waiting = self.output.take();
        self.send(&waiting).await
    }

    /// Sends `bytes` after what waits, without copying them into the buffer when they are many.
    pub(super) async fn send_bytes(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        if bytes.len() < limits::IMAP_OUTPUT_BYTES {
            self.output.raw(bytes);
            return self.flush_if_much().await;
        }
        let waiting = self.output.take();
        self.send(&waiting).await?;
        self.send(bytes).await
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        for chunk in bytes.chunks(limits::IMAP_OUTPUT_BYTES) {
            bounded(self.io.write_all(chunk)).await?;
        }
        Ok(())
    }

    /// Says the last words, as far as the client takes them.
    pub(super) async fn close(mut self) {
        if self.flush().await.is_ok() {
            // The peer may be gone already; there is nothing to do about it.
            let _ = bounded(self.io.shutdown()).await;
        }
    }
}

async fn bounded(write: impl Future<Output = io::Result<()>>) -> Result<(), Gone> {
    match timeout(Duration::from_millis(limits::IMAP_WRITE_STALL_MS), write).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(Gone::Stalled),
    }
}

/// The `{n}` at the end of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Announced {
    /// Bytes of the line before it.
    text_bytes: usize,
    /// `None` when it is beyond all counting.
    length: Option<usize>,
    /// The client waits for a continuation.
    synchronising: bool,
}

/// RFC 7888 section 8: `["~"] "{" number ["+" / "-"] "}"` at the end of a line.
fn announced_literal(line: &[u8]) -> Option<Announced> {
    let inside = line.strip_suffix(b"}")?;
    let open = inside.iter().rposition(|&byte| byte == b'{')?;
    let (digits, synchronising) = match &inside[open + 1..] {
        [digits @ .., b'+' | b'-'] => (digits, false),
        digits => (digits, true),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let length = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
    let text_bytes = if inside[..open].ends_with(b"~") { open - 1 } else { open };
    Some(Announced {
        text_bytes,
        length,
        synchronising,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn frame(input: &[u8], authenticated: bool) -> (Result<Frame, FrameError>, Vec<u8>) {
        let (near, mut far) = tokio::io::duplex(1024 * 1024);
        far.write_all(input).await.unwrap();
        let mut connection = Connection::new(Box::new(near));
        let bounds = FrameBounds { authenticated };
        let read = connection.read_frame(bounds, &BodyMemory::default()).await;
        drop(connection);
        let mut said = Vec::new();
        far.read_to_end(&mut said).await.unwrap();
        (read, said)
    }

    #[test]
    fn only_a_number_in_braces_at_the_end_announces_a_literal() {
        let literal = |text_bytes, length, synchronising| {
            Some(Announced {
                text_bytes,
                length,
                synchronising,
            })
        };
        assert_eq!(announced_literal(b"a LOGIN {5}"), literal(8, Some(5), true));
        assert_eq!(announced_literal(b"a LOGIN {5+}"), literal(8, Some(5), false));
        assert_eq!(announced_literal(b"a LOGIN {5-}"), literal(8, Some(5), false));
        assert_eq!(announced_literal(b"a APPEND x ~{5}"), literal(11, Some(5), true));
        assert_eq!(
            announced_literal(b"a {99999999999999999999999}"),
            literal(2, None, true)
        );
        assert_eq!(announced_literal(b"a LOGIN {}"), None);
        assert_eq!(announced_literal(b"a LOGIN {5 }"), None);
        assert_eq!(announced_literal(b"a LOGIN {5} "), None);
        assert_eq!(announced_literal(b"}"), None);
    }

    #[tokio::test]
    async fn literals_are_part_of_the_command() {
        let (read, said) = frame(b"a LOGIN {2}\r\nme {3+}\r\nabc\r\nb NOOP\r\n", false).await;
        let pieces = read.unwrap().pieces;
        let text = |text: &str| Piece::Text(text.as_bytes().to_vec());
        let literal = |bytes: &'static [u8]| Piece::Literal(Bytes::from_static(bytes));
        assert_eq!(
            pieces,
            vec![text("a LOGIN "), literal(b"me"), text(" "), literal(b"abc"), text("")]
        );
        assert_eq!(said, b"+ Ready for the literal\r\n");
    }

    #[tokio::test]
    async fn a_literal_that_is_too_large_is_not_asked_for() {
        let (read, said) = frame(b"a LOGIN {5000}\r\n", false).await;
        assert!(matches!(read, Err(FrameError::LiteralRefused { tag: Some(tag), .. }) if tag == "a"));
        assert!(said.is_empty());
        let (read, _) = frame(b"a LOGIN {5000+}\r\n", false).await;
        assert!(matches!(read, Err(FrameError::LiteralTooLarge { .. })));
    }

    #[tokio::test]
    async fn only_the_messages_of_an_append_may_be_large_and_only_after_login() {
        let large = limits::IMAP_LITERAL_MAX_BYTES + 1;
        for (line, authenticated, fits) in [
            (format!("a APPEND INBOX {{{large}}}\r\n"), true, true),
            (format!("a append {{5+}}\r\nINBOX {{{large}}}\r\n"), true, true),
            (format!("a APPEND INBOX {{{large}}}\r\n"), false, false),
            (format!("a APPEND {{{large}}}\r\n"), true, false),
            (format!("a SEARCH BODY {{{large}}}\r\n"), true, false),
            (format!("a APPEND INBOX {{1+}}\r\nx {{{large}}}\r\n"), true, true),
            (format!("a REPLACE 4 INBOX {{{large}}}\r\n"), true, true),
            (format!("a uid replace 4 {{5+}}\r\nINBOX {{{large}}}\r\n"), true, true),
            (format!("a REPLACE 4 {{{large}}}\r\n"), true, false),
            (
                format!("a APPEND INBOX {{1+}}\r\nx {{{}}}\r\n", limits::MESSAGE_MAX_BYTES),
                true,
                false,
            ),
            (
                format!("a APPEND INBOX {{{}}}\r\n", limits::MESSAGE_MAX_BYTES + 1),
                true,
                false,
            ),
        ] {
            let mut input = line.clone().into_bytes();
            if fits {
                input.extend(vec![b'x'; large]);
                input.extend(b"\r\n");
            }
            let (read, _) = frame(&input, authenticated).await;
            assert_eq!(read.is_ok(), fits, "{line}");
        }
    }

    #[tokio::test]
    async fn an_append_brings_so_many_messages_and_no_more() {
        let append = |messages: usize| format!("a APPEND INBOX{}\r\n", " {1+}\r\nx".repeat(messages));
        let (read, _) = frame(append(limits::APPENDS_PER_COMMAND_MAX).as_bytes(), true).await;
        assert!(read.is_ok());
        let (read, _) = frame(append(limits::APPENDS_PER_COMMAND_MAX + 1).as_bytes(), true).await;
        assert!(matches!(read, Err(FrameError::TooManyMessages { .. })));
    }

    #[tokio::test]
    async fn a_line_without_an_end_is_given_up() {
        let (read, _) = frame(&vec![b'a'; limits::COMMAND_LINE_MAX_BYTES + 20_000], true).await;
        assert!(matches!(read, Err(FrameError::Lost(_))));
    }

    #[tokio::test]
    async fn many_small_literals_are_bounded_together() {
        let mut input = b"a SEARCH".to_vec();
        for _ in 0..20 {
            input.extend(format!(" BODY {{{}+}}\r\n", 40_000).bytes());
            input.extend(vec![b'x'; 40_000]);
        }
        let (read, _) = frame(&input, true).await;
        assert!(matches!(read, Err(FrameError::Lost("the command is too large"))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_stops_in_the_middle_of_a_command_is_given_up() {
        let (near, mut far) = tokio::io::duplex(1024);
        far.write_all(b"a LOG").await.unwrap();
        let mut connection = Connection::new(Box::new(near));
        let begun = Instant::now();
        let read = connection
            .read_frame(FrameBounds { authenticated: true }, &BodyMemory::default())
            .await;
        assert!(matches!(read, Err(FrameError::Gone(Gone::Silent))));
        assert!(begun.elapsed() <= Duration::from_millis(limits::IMAP_COMMAND_TIME_MS + 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_no_answers_is_given_up() {
        let (near, _far) = tokio::io::duplex(1024);
        let mut connection = Connection::new(Box::new(near));
        let sent = connection.send_bytes(&vec![b'x'; 1024 * 1024]).await;
        assert!(matches!(sent, Err(Gone::Stalled)));
    }
}
