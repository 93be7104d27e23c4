//! An IMAP client (RFC 3501) that understands as much of an answer as tests ask about.

use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::wait::within;

/// The longest that any single answer may take.
const ANSWER: Duration = Duration::from_secs(60);
/// No literal of a test is larger; a larger number is a mistake of the server.
const LITERAL_MAX_BYTES: usize = 64 * 1024 * 1024;

/// A piece of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Text between literals, without the braces that announce them.
    Text(String),
    /// A literal's bytes.
    Literal(Vec<u8>),
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Ok,
    No,
    Bad,
}

/// The tagged response, and the untagged ones before it.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: Status,
    /// Text after the status, with its response code.
    pub text: String,
    pub untagged: Vec<Vec<Piece>>,
}

impl Answer {
    /// This answer if it is OK.
    ///
    /// # Errors
    /// When it is NO or BAD, with the server's text.
    pub fn ok(self) -> anyhow::Result<Answer> {
        if self.status != Status::Ok {
            bail!("{:?} {}", self.status, self.text);
        }
        Ok(self)
    }

    /// The untagged responses as text; a literal shows as `{bytes}`.
    pub fn lines(&self) -> Vec<String> {
        let show = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Literal(bytes) => format!("{{{}}}", bytes.len()),
        };
        self.untagged
            .iter()
            .map(|pieces| pieces.iter().map(show).collect())
            .collect()
    }
}

/// A session.
#[derive(Debug)]
pub struct Imap<S = TcpStream> {
    io: BufReader<S>,
    tag: u32,
}

impl Imap {
    /// Connects to the plaintext port and logs in.
    ///
    /// # Errors
    /// When nobody greets, or the login is refused.
    pub async fn login(address: &str, login: &str, password: &str) -> anyhow::Result<Imap> {
        let stream = TcpStream::connect(address)
            .await
            .with_context(|| format!("connecting to {address}"))?;
        let mut imap = Imap::greet(stream).await?;
        imap.command(&format!("LOGIN {login} {password}"))
            .await?
            .ok()
            .context("LOGIN")?;
        Ok(imap)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Imap<S> {
    /// Reads the greeting of a new connection.
    ///
    /// # Errors
    /// When it is not OK.
    pub async fn greet(stream: S) -> anyhow::Result<Imap<S>> {
        let mut imap = Imap {
            io: BufReader::new(stream),
            tag: 0,
        };
        let greeting = within("the greeting", ANSWER, imap.response()).await?;
        match greeting.first() {
            Some(Piece::Text(text)) if text.starts_with("* OK") => Ok(imap),
            _ => bail!("greeted with {greeting:?}"),
        }
    }

    /// Sends a command and reads until its tagged response.
    ///
    /// # Errors
    /// When the connection ends or the server breaks the protocol. NO and BAD are answers.
    pub async fn command(&mut self, command: &str) -> anyhow::Result<Answer> {
        self.send(command.as_bytes()).await
    }

    /// Appends a message with a non-synchronising literal (LITERAL+, RFC 7888).
    ///
    /// # Errors
    /// As [`Imap::command`].
    pub async fn append(&mut self, mailbox: &str, flags: &str, message: &[u8]) -> anyhow::Result<Answer> {
        let mut command = format!("APPEND {mailbox} ({flags}) {{{}+}}\r\n", message.len()).into_bytes();
        command.extend(message);
        self.send(&command).await
    }

    /// Selects a mailbox and gives its UIDVALIDITY.
    ///
    /// # Errors
    /// When it cannot be selected or says none.
    pub async fn select(&mut self, mailbox: &str) -> anyhow::Result<u32> {
        let answer = self.command(&format!("SELECT {mailbox}")).await?.ok()?;
        let lines = answer.lines();
        let validity = lines
            .iter()
            .find_map(|line| line.split("[UIDVALIDITY ").nth(1)?.split(']').next()?.parse().ok());
        validity.with_context(|| format!("no UIDVALIDITY in {lines:?}"))
    }

    /// UIDs of all messages, as the server lists them.
    ///
    /// # Errors
    /// As [`Imap::command`].
    pub async fn uids(&mut self) -> anyhow::Result<Vec<u32>> {
        let answer = self.command("UID SEARCH ALL").await?.ok()?;
        let mut uids = Vec::new();
        for line in answer.lines() {
            let Some(numbers) = line.strip_prefix("* SEARCH") else {
                continue;
            };
            for number in numbers.split_whitespace() {
                uids.push(number.parse().with_context(|| line.clone())?);
            }
        }
        Ok(uids)
    }

    /// The bytes of a message; \Seen is not touched.
    ///
    /// # Errors
    /// When there is no such message.
    pub async fn body(&mut self, uid: u32) -> anyhow::Result<Vec<u8>> {
        let answer = self
            .command(&format!("UID FETCH {uid} (UID BODY.PEEK[])"))
            .await?
            .ok()?;
        let wanted = format!("UID {uid}");
        for pieces in &answer.untagged {
            let is_it = pieces
                .iter()
                .any(|piece| matches!(piece, Piece::Text(text) if names(text, &wanted)));
            let literal = pieces.iter().find_map(|piece| match piece {
                Piece::Literal(bytes) => Some(bytes.clone()),
                Piece::Text(_) => None,
            });
            if let (true, Some(bytes)) = (is_it, literal) {
                return Ok(bytes);
            }
        }
        bail!("no message with UID {uid} in {:?}", answer.lines())
    }

    /// Every message of the selected mailbox: UID and bytes.
    ///
    /// # Errors
    /// As [`Imap::body`].
    pub async fn bodies(&mut self) -> anyhow::Result<Vec<(u32, Vec<u8>)>> {
        let mut bodies = Vec::new();
        for uid in self.uids().await? {
            bodies.push((uid, self.body(uid).await?));
        }
        Ok(bodies)
    }

    /// The flags of a message, sorted.
    ///
    /// # Errors
    /// When there is no such message.
    pub async fn flags(&mut self, uid: u32) -> anyhow::Result<Vec<String>> {
        let answer = self.command(&format!("UID FETCH {uid} (UID FLAGS)")).await?.ok()?;
        let wanted = format!("UID {uid}");
        let lines = answer.lines();
        let line = lines
            .iter()
            .find(|line| names(line, &wanted))
            .with_context(|| format!("no UID {uid} in {lines:?}"))?;
        let list = line
            .split("FLAGS (")
            .nth(1)
            .and_then(|rest| rest.split(')').next())
            .context("no FLAGS")?;
        let mut flags: Vec<String> = list.split_whitespace().map(str::to_string).collect();
        flags.sort();
        Ok(flags)
    }

    async fn send(&mut self, command: &[u8]) -> anyhow::Result<Answer> {
        self.tag += 1;
        let tag = format!("t{}", self.tag);
        let shown = String::from_utf8_lossy(&command[..command.len().min(80)]).into_owned();
        within(format!("IMAP {shown}"), ANSWER, async {
            let mut bytes = format!("{tag} ").into_bytes();
            bytes.extend(command);
            bytes.extend(b"\r\n");
            self.io.get_mut().write_all(&bytes).await?;
            let mut untagged = Vec::new();
            loop {
                let pieces = self.response().await?;
                let Some(Piece::Text(first)) = pieces.first() else {
                    bail!("an empty response")
                };
                match first.strip_prefix(&format!("{tag} ")) {
                    None => untagged.push(pieces),
                    Some(rest) => {
                        let (word, text) = rest.split_once(' ').unwrap_or((rest, ""));
                        let status = match word {
                            "OK" => Status::Ok,
                            "NO" => Status::No,
                            "BAD" => Status::Bad,
                            _ => bail!("no status: {first}"),
                        };
                        return Ok(Answer {
                            status,
                            text: text.to_string(),
                            untagged,
                        });
                    }
                }
            }
        })
        .await
    }

    /// Waits for BYE without saying anything, and gives its text.
    ///
    /// # Errors
    /// When it does not come in time.
    pub async fn farewell(&mut self, patience: Duration) -> anyhow::Result<String> {
        let bye = async {
            loop {
                if let Some(Piece::Text(text)) = self.response().await?.first()
                    && let Some(bye) = text.strip_prefix("* BYE ")
                {
                    return Ok(bye.to_owned());
                }
            }
        };
        within("BYE", patience, bye).await
    }

    /// One response with its literals.
    async fn response(&mut self) -> anyhow::Result<Vec<Piece>> {
        let mut pieces = Vec::new();
        loop {
            let mut line = Vec::new();
            if self.io.read_until(b'\n', &mut line).await? == 0 {
                bail!("the server closed the connection");
            }
            let line = String::from_utf8_lossy(&line)
                .trim_end_matches(['\r', '\n'])
                .to_string();
            let Some((text, length)) = announced(&line) else {
                pieces.push(Piece::Text(line));
                return Ok(pieces);
            };
            if length > LITERAL_MAX_BYTES {
                bail!("a literal of {length} bytes");
            }
            let mut literal = vec![0; length];
            self.io.read_exact(&mut literal).await?;
            pieces.push(Piece::Text(text.to_string()));
            pieces.push(Piece::Literal(literal));
        }
    }
}

/// Whether `wanted` ends at a word's end in `text`: `UID 1` is not in `UID 12`.
fn names(text: &str, wanted: &str) -> bool {
    text.match_indices(wanted)
        .any(|(at, _)| !text[at + wanted.len()..].starts_with(|c: char| c.is_ascii_digit()))
}

/// Splits `text {12}` into the text and the literal's length.
fn announced(line: &str) -> Option<(&str, usize)> {
    let (text, number) = line.strip_suffix('}')?.rsplit_once('{')?;
    Some((text, number.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn session(script: &str) -> Imap<tokio::io::DuplexStream> {
        let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
        theirs.write_all(script.as_bytes()).await.unwrap();
        // The peer must outlive the session, or reads end early; a test process is short.
        Box::leak(Box::new(theirs));
        Imap::greet(ours).await.unwrap()
    }

    #[tokio::test]
    async fn a_literal_is_read_whole_and_belongs_to_its_uid() {
        let mut imap = session("* OK hi\r\n* 1 FETCH (UID 12 BODY[] {3}\r\nno!)\r\n* 2 FETCH (UID 1 BODY[] {6}\r\na)\r\nb\r)\r\nt1 OK done\r\n").await;
        assert_eq!(imap.body(1).await.unwrap(), b"a)\r\nb\r");
    }

    #[tokio::test]
    async fn uids_validity_and_flags_are_read() {
        let mut imap = session(
            "* OK hi\r\n* 2 EXISTS\r\n* OK [UIDVALIDITY 77] yes\r\nt1 OK [READ-WRITE] selected\r\n* SEARCH 3 9\r\nt2 OK\r\n\
             * 1 FETCH (FLAGS (\\Seen $Work) UID 3)\r\nt3 OK\r\n",
        )
        .await;
        assert_eq!(imap.select("INBOX").await.unwrap(), 77);
        assert_eq!(imap.uids().await.unwrap(), [3, 9]);
        assert_eq!(imap.flags(3).await.unwrap(), ["$Work", "\\Seen"]);
    }

    #[tokio::test]
    async fn a_refusal_is_an_answer_and_not_ok() {
        let mut imap = session("* OK hi\r\nt1 NO [AUTHENTICATIONFAILED] no\r\n").await;
        let answer = imap.command("LOGIN a b").await.unwrap();
        assert_eq!(answer.status, Status::No);
        assert!(answer.ok().is_err());
    }
}
