//! An IMAP session that reads answers as fast as they come and looks at nothing but their end.
//!
//! The tests' own client takes every response apart; here that would be half of what is measured.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use crate::world::PASSWORD;

/// The longest that an answer may take: 50,000 messages are copied in one command.
const ANSWER: Duration = Duration::from_secs(300);
/// One large read is cheaper than many.
const BUFFER_BYTES: usize = 256 * 1024;

/// A session.
pub struct Session {
    io: BufReader<TcpStream>,
    tag: u64,
    line: Vec<u8>,
}

/// What an answer was made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Answer {
    /// Untagged responses.
    pub responses: usize,
    /// Bytes of literals.
    pub literal_bytes: usize,
}

impl Session {
    /// Connects and logs in.
    ///
    /// # Errors
    /// When nobody listens, or the login is refused.
    pub async fn login(address: &str, user: &str) -> anyhow::Result<Session> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut session = Session {
            io: BufReader::with_capacity(BUFFER_BYTES, stream),
            tag: 0,
            line: Vec::new(),
        };
        session.read_line().await?;
        session
            .command(&format!("LOGIN {user} {PASSWORD}"))
            .await
            .context("LOGIN")?;
        Ok(session)
    }

    /// Sends a command and reads to its tagged OK.
    ///
    /// # Errors
    /// When it is not OK, or the connection ends.
    pub async fn command(&mut self, command: &str) -> anyhow::Result<Answer> {
        self.send(command.as_bytes()).await
    }

    /// Appends a message to a mailbox (LITERAL+, RFC 7888).
    ///
    /// # Errors
    /// As [`Session::command`].
    pub async fn append(&mut self, mailbox: &str, message: &[u8]) -> anyhow::Result<Answer> {
        let mut command = format!("APPEND {mailbox} {{{}+}}\r\n", message.len()).into_bytes();
        command.extend(message);
        self.send(&command).await
    }

    /// Begins to wait for news (RFC 2177).
    ///
    /// # Errors
    /// When the server does not go on.
    pub async fn idle(&mut self) -> anyhow::Result<()> {
        self.tag += 1;
        let line = format!("t{} IDLE\r\n", self.tag);
        self.io.get_mut().write_all(line.as_bytes()).await?;
        self.read_line().await?;
        ensure!(
            self.line.starts_with(b"+"),
            "IDLE: {}",
            String::from_utf8_lossy(&self.line)
        );
        Ok(())
    }

    /// Waits until the server says how many messages there are.
    ///
    /// # Errors
    /// When the connection ends.
    pub async fn news(&mut self) -> anyhow::Result<()> {
        loop {
            self.read_line().await?;
            if self.line.ends_with(b" EXISTS\r\n") {
                return Ok(());
            }
        }
    }

    async fn send(&mut self, command: &[u8]) -> anyhow::Result<Answer> {
        self.tag += 1;
        let tag = format!("t{} ", self.tag);
        let bytes = [tag.as_bytes(), command, b"\r\n"].concat();
        self.io.get_mut().write_all(&bytes).await?;
        let answer = tokio::time::timeout(ANSWER, self.answer(tag.as_bytes())).await;
        let shown = || String::from_utf8_lossy(&command[..command.len().min(60)]).into_owned();
        answer
            .with_context(|| format!("{}: no end", shown()))?
            .with_context(shown)
    }

    async fn answer(&mut self, tag: &[u8]) -> anyhow::Result<Answer> {
        let mut answer = Answer::default();
        // A line behind a literal goes on with the response that it belongs to.
        let mut inside = false;
        loop {
            self.read_line().await?;
            if !inside && self.line.starts_with(tag) {
                let status = &self.line[tag.len()..];
                ensure!(status.starts_with(b"OK"), "{}", String::from_utf8_lossy(status).trim());
                return Ok(answer);
            }
            answer.responses += usize::from(!inside);
            let literal = literal(&self.line);
            inside = literal.is_some();
            if let Some(length) = literal {
                answer.literal_bytes += length;
                self.skip(length).await?;
            }
        }
    }

    async fn skip(&mut self, length: usize) -> anyhow::Result<()> {
        let skipped = tokio::io::copy_buf(&mut (&mut self.io).take(length as u64), &mut tokio::io::sink()).await?;
        ensure!(skipped == length as u64, "the connection ended inside a literal");
        Ok(())
    }

    async fn read_line(&mut self) -> anyhow::Result<()> {
        self.line.clear();
        self.io.read_until(b'\n', &mut self.line).await?;
        if self.line.is_empty() {
            bail!("the server closed the connection");
        }
        Ok(())
    }
}

/// The length of the literal that a line announces at its end.
fn literal(line: &[u8]) -> Option<usize> {
    let inside = line.strip_suffix(b"}\r\n")?;
    let open = inside.iter().rposition(|byte| *byte == b'{')?;
    std::str::from_utf8(&inside[open + 1..]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn an_answer_ends_at_its_tag_and_not_inside_a_literal() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let script = b"* OK hi\r\nt1 OK in\r\n* 1 FETCH (BODY[] {11}\r\nt2 OK lie\r\n)\r\n* 2 FETCH (FLAGS ())\r\nt2 OK\r\nt3 NO\r\n";
            stream.write_all(script).await.unwrap();
            let mut said = Vec::new();
            stream.read_to_end(&mut said).await.unwrap();
            String::from_utf8(said).unwrap()
        });
        let mut session = Session::login(&address, "u").await.unwrap();
        let answer = session.command("FETCH 1:2 (BODY[])").await.unwrap();
        assert_eq!((answer.responses, answer.literal_bytes), (2, 11));
        assert!(session.command("STORE 1 X").await.is_err());
        drop(session);
        assert!(server.await.unwrap().starts_with("t1 LOGIN u "));
    }
}
