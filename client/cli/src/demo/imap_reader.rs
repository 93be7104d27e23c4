//! A tiny IMAP reader: log in, look into a mailbox, take every message with its UID. It reads literals as bytes and nothing of their
//! content, one message in memory at a time. Every wait and every length is bounded.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longest wait for more bytes.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// Longest line of an answer, literals not counted.
const LINE_MAX_BYTES: usize = 1 << 20;
/// Longest literal: the largest mail and some room.
const LITERAL_MAX_BYTES: usize = malle_client::limits::MESSAGE_MAX_BYTES + (1 << 20);

/// A session that is logged in.
pub struct Imap {
    stream: BufReader<TcpStream>,
    tag: u32,
}

/// One line of an answer with its literals taken out.
struct Response {
    /// The text; each literal is left as its `{n}`.
    text: String,
    literals: Vec<Vec<u8>>,
}

/// A mailbox that was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Selected {
    /// UIDVALIDITY.
    pub uid_validity: u32,
    /// Messages.
    pub exists: u32,
}

impl Imap {
    /// Connects and logs in.
    pub async fn login(address: SocketAddr, user: &str, password: &str) -> anyhow::Result<Imap> {
        let stream = timeout(ANSWER_MAX, TcpStream::connect(address))
            .await
            .context("connecting took too long")??;
        stream.set_nodelay(true)?;
        let mut imap = Imap {
            stream: BufReader::new(stream),
            tag: 0,
        };
        let greeting = imap.response().await?;
        ensure!(greeting.text.starts_with("* OK"), "greeted with {}", greeting.text);
        imap.command(&format!("LOGIN {} {}", quoted(user), quoted(password)), |_| Ok(()))
            .await?;
        Ok(imap)
    }

    /// Opens a mailbox without changing anything in it.
    pub async fn examine(&mut self, mailbox: &str) -> anyhow::Result<Selected> {
        let mut selected = Selected {
            uid_validity: 0,
            exists: 0,
        };
        self.command(&format!("EXAMINE {}", quoted(mailbox)), |response| {
            if let Some(rest) = response.text.strip_prefix("* OK [UIDVALIDITY ") {
                selected.uid_validity = number_at(rest)?;
            }
            if let Some(count) = response
                .text
                .strip_prefix("* ")
                .and_then(|rest| rest.strip_suffix(" EXISTS"))
            {
                selected.exists = number_at(count)?;
            }
            Ok(())
        })
        .await?;
        ensure!(selected.uid_validity != 0, "EXAMINE {mailbox} tells no UIDVALIDITY");
        Ok(selected)
    }

    /// Hands every message of the open mailbox to `take`, with its UID.
    pub async fn messages(&mut self, mut take: impl FnMut(u32, Vec<u8>) -> anyhow::Result<()>) -> anyhow::Result<()> {
        self.command("UID FETCH 1:* (UID BODY.PEEK[])", |mut response| {
            if !response.text.starts_with("* ") || !response.text.contains(" FETCH (") {
                return Ok(());
            }
            let Some(body) = response.literals.pop() else {
                return Ok(());
            };
            ensure!(
                response.literals.is_empty(),
                "more than one literal in {}",
                response.text
            );
            let (_, rest) = response.text.split_once("UID ").context("a FETCH without UID")?;
            take(number_at(rest)?, body)
        })
        .await
    }

    /// Sends a command, hands every untagged answer on, and ends at the tagged one, which must be OK.
    async fn command(
        &mut self,
        command: &str,
        mut untagged: impl FnMut(Response) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        self.tag += 1;
        let tag = format!("a{} ", self.tag);
        let line = format!("{tag}{command}\r\n");
        timeout(ANSWER_MAX, self.stream.get_mut().write_all(line.as_bytes()))
            .await
            .context("the gateway takes no bytes")??;
        loop {
            let response = self.response().await?;
            match response.text.strip_prefix(&tag) {
                Some(result) if result.starts_with("OK") => return Ok(()),
                // The password stands in a LOGIN: only its verb is told.
                Some(result) => bail!("{}: {result}", command.split(' ').next().unwrap_or_default()),
                None if response.text.starts_with("* BYE") => bail!("the gateway says {}", response.text),
                None => untagged(response)?,
            }
        }
    }

    async fn response(&mut self) -> anyhow::Result<Response> {
        let mut response = Response {
            text: String::new(),
            literals: Vec::new(),
        };
        loop {
            let mut line = Vec::new();
            timeout(ANSWER_MAX, read_line(&mut self.stream, &mut line))
                .await
                .context("no answer from the gateway")??;
            let text = String::from_utf8_lossy(&line);
            let text = text.trim_end_matches(['\r', '\n']);
            response.text.push_str(text);
            ensure!(response.text.len() <= LINE_MAX_BYTES, "an answer without end");
            let Some(length) = literal_length(text) else {
                return Ok(response);
            };
            ensure!(length <= LITERAL_MAX_BYTES, "a literal of {length} bytes");
            let mut literal = vec![0; length];
            let mut filled = 0;
            while filled < length {
                let read = timeout(ANSWER_MAX, self.stream.read(&mut literal[filled..]))
                    .await
                    .context("a literal stalls")??;
                ensure!(read > 0, "the gateway closed inside a literal");
                filled += read;
            }
            response.literals.push(literal);
        }
    }
}

async fn read_line(stream: &mut BufReader<TcpStream>, line: &mut Vec<u8>) -> anyhow::Result<()> {
    let mut bounded = stream.take(LINE_MAX_BYTES as u64);
    bounded.read_until(b'\n', line).await?;
    ensure!(
        line.ends_with(b"\n"),
        "the gateway closed the session or sends a line without end"
    );
    Ok(())
}

/// The length of the literal that a line announces at its end.
fn literal_length(line: &str) -> Option<usize> {
    line.strip_suffix('}')?.rsplit_once('{')?.1.parse().ok()
}

/// The number that a text begins with.
fn number_at(text: &str) -> anyhow::Result<u32> {
    let digits = text.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
    digits.parse().with_context(|| format!("no number where {text} begins"))
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn messages_come_whole_with_their_uids_wherever_the_uid_stands() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = async {
            let (socket, _) = listener.accept().await.unwrap();
            let mut socket = BufReader::new(socket);
            let said: [&[u8]; 3] = [
                b"* OK ready\r\na1 OK in\r\n",
                b"* 2 EXISTS\r\n* OK [UIDVALIDITY 77] ok\r\na2 OK [READ-ONLY] done\r\n",
                b"* 1 FETCH (UID 4 BODY[] {5}\r\na{1}\r)\r\n* 2 FETCH (BODY[] {0}\r\n UID 9)\r\n* 2 FETCH (FLAGS ())\r\na3 OK done\r\n",
            ];
            for answer in said {
                if !answer.starts_with(b"* OK ready") {
                    socket.read_until(b'\n', &mut Vec::new()).await.unwrap();
                }
                socket.get_mut().write_all(answer).await.unwrap();
            }
            socket
        };
        let reader = async {
            let mut imap = Imap::login(address, "u", "p\"w").await.unwrap();
            assert_eq!(
                imap.examine("INBOX").await.unwrap(),
                Selected {
                    uid_validity: 77,
                    exists: 2
                }
            );
            let mut got = Vec::new();
            imap.messages(|uid, body| {
                got.push((uid, body));
                Ok(())
            })
            .await
            .unwrap();
            got
        };
        let (_socket, got) = tokio::join!(server, reader);
        assert_eq!(got, [(4, b"a{1}\r".to_vec()), (9, Vec::new())]);
    }

    #[test]
    fn a_brace_inside_a_line_is_no_literal() {
        assert_eq!(literal_length("* 1 FETCH (BODY[] {12}"), Some(12));
        assert_eq!(literal_length("* OK {12} done"), None);
        assert_eq!(literal_length("* OK {x}"), None);
    }
}
