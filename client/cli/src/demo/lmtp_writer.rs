//! A small LMTP client: the relay's side of RFC 2033, with DATA and with BDAT. Every wait is bounded.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longest wait for one answer: the gateway gives a delivery a minute.
const ANSWER_MAX: Duration = Duration::from_secs(90);
/// Longest line that the gateway may send.
const LINE_MAX_BYTES: usize = 16 * 1024;
/// Bytes of one BDAT chunk.
const CHUNK_BYTES: usize = 1 << 20;

/// How a mail is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// DATA with dot-stuffing: the mail must end in CRLF.
    Data,
    /// BDAT: any bytes.
    Chunks,
}

/// A session that has said LHLO.
pub struct Lmtp {
    stream: BufReader<TcpStream>,
}

/// An answer: its code and its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// RFC 5321 4.2.
    pub code: u16,
    /// The rest of the line.
    pub text: String,
}

impl Answer {
    /// 2xx.
    pub fn is_ok(&self) -> bool {
        (200..300).contains(&self.code)
    }
}

impl Lmtp {
    /// Connects and says LHLO.
    pub async fn connect(address: SocketAddr) -> anyhow::Result<Lmtp> {
        let stream = timeout(ANSWER_MAX, TcpStream::connect(address))
            .await
            .context("connecting took too long")??;
        stream.set_nodelay(true)?;
        let mut lmtp = Lmtp {
            stream: BufReader::new(stream),
        };
        let greeting = lmtp.answer().await?;
        ensure!(greeting.code == 220, "greeted with {} {}", greeting.code, greeting.text);
        let hello = lmtp.ask("LHLO malle-demo").await?;
        ensure!(hello.is_ok(), "LHLO: {} {}", hello.code, hello.text);
        Ok(lmtp)
    }

    /// Sends one mail; the answer for each recipient, in order: from RCPT where that refused, else from after the mail.
    ///
    /// # Errors
    /// When the session is over: what had no answer yet may or may not have been delivered.
    pub async fn deliver(
        &mut self,
        sender: &str,
        recipients: &[String],
        mail: &[u8],
        framing: Framing,
    ) -> anyhow::Result<Vec<Answer>> {
        let utf8 = if sender.is_ascii() { "" } else { " SMTPUTF8" };
        let body = if framing == Framing::Chunks {
            "BINARYMIME"
        } else {
            "8BITMIME"
        };
        let from = format!("MAIL FROM:<{sender}> SIZE={} BODY={body}{utf8}", mail.len());
        let started = self.ask(&from).await?;
        if !started.is_ok() {
            return Ok(recipients.iter().map(|_| started.clone()).collect());
        }
        let mut answers = Vec::new();
        for recipient in recipients {
            answers.push(self.ask(&format!("RCPT TO:<{recipient}>")).await?);
        }
        if !answers.iter().any(Answer::is_ok) {
            self.ask("RSET").await?;
            return Ok(answers);
        }
        match framing {
            Framing::Data => self.send_data(mail).await?,
            Framing::Chunks => self.send_chunks(mail).await?,
        }
        for answer in answers.iter_mut().filter(|answer| answer.is_ok()) {
            *answer = self.answer().await?;
        }
        Ok(answers)
    }

    async fn send_data(&mut self, mail: &[u8]) -> anyhow::Result<()> {
        ensure!(
            mail.is_empty() || mail.ends_with(b"\r\n"),
            "DATA carries only mails that end in CRLF"
        );
        let go = self.ask("DATA").await?;
        ensure!(go.code == 354, "DATA: {} {}", go.code, go.text);
        let mut stuffed = stuff(mail);
        stuffed.extend_from_slice(b".\r\n");
        self.send(&stuffed).await
    }

    async fn send_chunks(&mut self, mail: &[u8]) -> anyhow::Result<()> {
        let mut chunks = mail.chunks(CHUNK_BYTES).peekable();
        loop {
            let chunk = chunks.next().unwrap_or_default();
            let last = chunks.peek().is_none();
            self.send(format!("BDAT {}{}\r\n", chunk.len(), if last { " LAST" } else { "" }).as_bytes())
                .await?;
            self.send(chunk).await?;
            if last {
                return Ok(());
            }
            let taken = self.answer().await?;
            ensure!(taken.is_ok(), "BDAT: {} {}", taken.code, taken.text);
        }
    }

    async fn ask(&mut self, line: &str) -> anyhow::Result<Answer> {
        self.send(format!("{line}\r\n").as_bytes()).await?;
        self.answer().await
    }

    async fn send(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        timeout(ANSWER_MAX, self.stream.get_mut().write_all(bytes))
            .await
            .context("the gateway takes no bytes")??;
        Ok(())
    }

    async fn answer(&mut self) -> anyhow::Result<Answer> {
        loop {
            let mut line = Vec::new();
            timeout(ANSWER_MAX, read_line(&mut self.stream, &mut line))
                .await
                .context("no answer from the gateway")??;
            let text = String::from_utf8_lossy(&line);
            let code = text.get(..3).and_then(|code| code.parse().ok());
            let Some(code) = code else {
                bail!("the gateway does not speak LMTP: {text}")
            };
            if text.as_bytes().get(3) != Some(&b'-') {
                return Ok(Answer {
                    code,
                    text: text.get(4..).unwrap_or_default().trim_end().to_owned(),
                });
            }
        }
    }
}

/// Reads up to and with LF, within [`LINE_MAX_BYTES`].
async fn read_line(stream: &mut BufReader<TcpStream>, line: &mut Vec<u8>) -> anyhow::Result<()> {
    loop {
        let available = stream.fill_buf().await?;
        ensure!(!available.is_empty(), "the gateway closed the session");
        let end = available.iter().position(|b| *b == b'\n').map(|at| at + 1);
        let take = end.unwrap_or(available.len());
        line.extend_from_slice(&available[..take]);
        stream.consume(take);
        ensure!(line.len() <= LINE_MAX_BYTES, "the gateway sends a line without end");
        if end.is_some() {
            return Ok(());
        }
    }
}

/// A dot more before each dot that begins a line (RFC 5321 4.5.2). Only CRLF begins a line.
fn stuff(mail: &[u8]) -> Vec<u8> {
    let mut stuffed = Vec::with_capacity(mail.len() + 64);
    for line in mail.split_inclusive(|b| *b == b'\n') {
        if line.starts_with(b".") && (stuffed.is_empty() || stuffed.ends_with(b"\r\n")) {
            stuffed.push(b'.');
        }
        stuffed.extend_from_slice(line);
    }
    stuffed
}

#[cfg(test)]
mod tests {
    use super::stuff;

    #[test]
    fn only_a_dot_after_crlf_is_stuffed() {
        assert_eq!(stuff(b".a\r\n.\r\nb\n.c\r\n"), b"..a\r\n..\r\nb\n.c\r\n");
    }
}
