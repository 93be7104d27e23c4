//! An LMTP client (RFC 2033) that says what it is told to say.

use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::wait::within;

/// The longest that any single answer may take; a cluster that just lost a leader needs seconds.
const ANSWER: Duration = Duration::from_secs(60);

/// An answer: its code, and the text of its lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// For example 250.
    pub code: u16,
    /// One line each, without code and line end.
    pub lines: Vec<String>,
}

impl Reply {
    /// The enhanced status code (RFC 3463) of the first line, for example `5.1.1`; empty when there is none.
    pub fn enhanced(&self) -> &str {
        let word = self
            .lines
            .first()
            .and_then(|line| line.split(' ').next())
            .unwrap_or_default();
        let is_code = word.split('.').count() == 3 && word.bytes().all(|byte| byte == b'.' || byte.is_ascii_digit());
        if is_code { word } else { "" }
    }

    /// The mail is in the store's hands.
    pub fn is_done(&self) -> bool {
        (200..300).contains(&self.code)
    }

    /// Not now; the same again later.
    pub fn is_later(&self) -> bool {
        (400..500).contains(&self.code)
    }
}

/// A session.
#[derive(Debug)]
pub struct Lmtp<S = TcpStream> {
    io: BufReader<S>,
    /// What the server said to LHLO.
    pub capabilities: Vec<String>,
}

impl Lmtp {
    /// Connects and says LHLO.
    ///
    /// # Errors
    /// When nobody listens or greets.
    pub async fn connect(address: &str) -> anyhow::Result<Lmtp> {
        let stream = TcpStream::connect(address)
            .await
            .with_context(|| format!("connecting to {address}"))?;
        Lmtp::greet(stream).await
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Lmtp<S> {
    /// Says LHLO on a new connection.
    ///
    /// # Errors
    /// When the server does not greet.
    pub async fn greet(stream: S) -> anyhow::Result<Lmtp<S>> {
        let mut lmtp = Lmtp {
            io: BufReader::new(stream),
            capabilities: Vec::new(),
        };
        let greeting = lmtp.reply().await?;
        if greeting.code != 220 {
            bail!("greeted with {greeting:?}");
        }
        let hello = lmtp.command("LHLO harness.example").await?;
        if hello.code != 250 {
            bail!("LHLO: {hello:?}");
        }
        lmtp.capabilities = hello.lines;
        Ok(lmtp)
    }

    /// Sends one line and reads the answer.
    ///
    /// # Errors
    /// When the connection ends or no answer comes.
    pub async fn command(&mut self, line: &str) -> anyhow::Result<Reply> {
        self.io.get_mut().write_all(format!("{line}\r\n").as_bytes()).await?;
        self.reply().await.with_context(|| line.to_string())
    }

    /// Delivers a mail. An answer for each recipient, in order: that to RCPT when it was refused there, else that after the data.
    /// A mail that does not end with CRLF gets one: DATA cannot say it otherwise.
    ///
    /// # Errors
    /// When the connection ends. What then became of the mail is not known.
    pub async fn deliver(&mut self, from: &str, to: &[&str], mail: &[u8]) -> anyhow::Result<Vec<Reply>> {
        let mail_from = self.command(&format!("MAIL FROM:<{from}>")).await?;
        if !mail_from.is_done() {
            self.command("RSET").await?;
            return Ok(vec![mail_from; to.len()]);
        }
        let mut replies = Vec::with_capacity(to.len());
        for recipient in to {
            replies.push(self.command(&format!("RCPT TO:<{recipient}>")).await?);
        }
        if !replies.iter().any(Reply::is_done) {
            self.command("RSET").await?;
            return Ok(replies);
        }
        let go_on = self.command("DATA").await?;
        if go_on.code != 354 {
            bail!("DATA: {go_on:?}");
        }
        // A server may answer before it has read everything; what it says counts more than that it stopped reading.
        let sent = self.io.get_mut().write_all(&stuffed(mail)).await;
        for reply in replies.iter_mut().filter(|reply| reply.is_done()) {
            *reply = self
                .reply()
                .await
                .with_context(|| format!("after the data, which was sent with {sent:?}"))?;
        }
        Ok(replies)
    }

    async fn reply(&mut self) -> anyhow::Result<Reply> {
        within("an LMTP reply", ANSWER, async {
            let mut lines = Vec::new();
            loop {
                let mut line = Vec::new();
                if self.io.read_until(b'\n', &mut line).await? == 0 {
                    bail!("the server closed the connection");
                }
                let line = String::from_utf8_lossy(&line).trim_end().to_string();
                let code = line
                    .get(..3)
                    .and_then(|code| code.parse().ok())
                    .with_context(|| format!("no reply: {line}"))?;
                lines.push(line.get(4..).unwrap_or_default().to_string());
                if line.as_bytes().get(3) != Some(&b'-') {
                    return Ok(Reply { code, lines });
                }
            }
        })
        .await
    }
}

/// The mail as DATA carries it: dots at line starts doubled (RFC 5321 4.5.2), and the end.
fn stuffed(mail: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(mail.len() + 8);
    let mut at_start = true;
    for (index, &byte) in mail.iter().enumerate() {
        if at_start && byte == b'.' {
            out.push(b'.');
        }
        out.push(byte);
        at_start = byte == b'\n' && index > 0 && mail[index - 1] == b'\r';
    }
    if !at_start || mail.is_empty() {
        out.extend(b"\r\n");
    }
    out.extend(b".\r\n");
    out
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[test]
    fn dots_at_line_starts_are_doubled_and_nothing_else() {
        assert_eq!(stuffed(b".a\r\n..b\r\nc.\n.d"), b"..a\r\n...b\r\nc.\n.d\r\n.\r\n");
        assert_eq!(stuffed(b"a\r\n"), b"a\r\n.\r\n");
        assert_eq!(stuffed(b""), b"\r\n.\r\n");
    }

    #[tokio::test]
    async fn each_recipient_gets_the_answer_that_decided() {
        let (ours, mut theirs) = tokio::io::duplex(4096);
        let script = "220 hi\r\n250-here\r\n250 SIZE 1\r\n250 2.1.0 ok\r\n250 2.1.5 ok\r\n550 5.1.1 no\r\n250 2.1.5 ok\r\n354 go\r\n250 2.6.0 in\r\n452 4.2.2 full\r\n";
        theirs.write_all(script.as_bytes()).await.unwrap();
        let mut lmtp = Lmtp::greet(ours).await.unwrap();
        assert_eq!(lmtp.capabilities, ["here", "SIZE 1"]);
        let replies = lmtp.deliver("a@x", &["b@x", "c@x", "d@x"], b"x\r\n").await.unwrap();
        assert_eq!(
            replies.iter().map(|reply| reply.code).collect::<Vec<_>>(),
            [250, 550, 452]
        );
        assert_eq!(replies[1].enhanced(), "5.1.1");
        assert!(replies[2].is_later() && !replies[2].is_done());
        drop(lmtp);
        let mut said = String::new();
        theirs.read_to_string(&mut said).await.unwrap();
        assert!(said.ends_with("DATA\r\nx\r\n.\r\n"), "{said}");
    }

    #[tokio::test]
    async fn a_closed_connection_is_an_error_and_no_answer() {
        let (ours, mut theirs) = tokio::io::duplex(4096);
        theirs.write_all(b"220 hi\r\n250 here\r\n").await.unwrap();
        let mut lmtp = Lmtp::greet(ours).await.unwrap();
        theirs.shutdown().await.unwrap();
        assert!(lmtp.command("NOOP").await.is_err());
    }
}
