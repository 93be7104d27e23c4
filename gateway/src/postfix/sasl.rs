//! Dovecot's authentication protocol, version 1.2, as its clients (Postfix: `smtpd_sasl_type = dovecot`) speak it: lines of words with tabs
//! between them.
//!
//! We greet with the mechanisms, the client with its version and process; then each AUTH is answered by OK with the account's primary address, by
//! FAIL, or by CONT and a question. Mechanisms are PLAIN and LOGIN; a request is answered before the next one is read. The client's address (`rip`) is
//! where a failed login is counted.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use malle_client::Error;
use malle_proto::limits;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::time::timeout;

use super::{Context, IDLE, Store, WRITE, stopped};

/// An answer in base64, with some parameters before it.
const LINE_MAX_BYTES: usize = 8 * 1024;
const USER_NAME: &str = "VXNlcm5hbWU6";
const PASSWORD: &str = "UGFzc3dvcmQ6";

/// One connection.
struct Conversation<IO, S> {
    io: BufReader<IO>,
    context: Context<S>,
}

/// The words of an AUTH line that count here.
struct Request {
    id: String,
    mechanism: String,
    remote: IpAddr,
    response: Option<String>,
}

/// What an exchange came to.
enum Verdict {
    /// The account's primary address.
    Right(String),
    Wrong,
    /// Nobody knows now.
    Later,
}

/// Answers one connection until it ends.
pub async fn serve<IO, S>(io: IO, context: Context<S>)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send,
    S: Store,
{
    let mut stop = context.stop.clone();
    let mut conversation = Conversation {
        io: BufReader::new(io),
        context,
    };
    tokio::select! {
        () = stopped(&mut stop) => {}
        ended = conversation.run() => if let Err(error) = ended {
            tracing::info!(%error, "a client of the SASL service was left");
        },
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin + Send, S: Store> Conversation<IO, S> {
    async fn run(&mut self) -> io::Result<()> {
        let process = std::process::id();
        self.say(&format!(
            "VERSION\t1\t2\nMECH\tPLAIN\tplaintext\nMECH\tLOGIN\tplaintext\nSPID\t{process}\nCUID\t1\n\
             COOKIE\t00000000000000000000000000000000\nDONE\n"
        ))
        .await?;
        while let Some(line) = self.line().await? {
            let words: Vec<&str> = line.split('\t').collect();
            match words.as_slice() {
                ["VERSION", "1", ..] | ["CPID", ..] | ["CANCEL", ..] => {}
                ["AUTH", id, mechanism, parameters @ ..] => {
                    let request = Request::of(id, mechanism, parameters);
                    self.authenticate(request).await?;
                }
                _ => return Err(io::Error::other("a line that makes no sense")),
            }
        }
        Ok(())
    }

    async fn authenticate(&mut self, request: Request) -> io::Result<()> {
        let credentials = match request.mechanism.as_str() {
            "PLAIN" => self.plain(&request).await?,
            "LOGIN" => self.login(&request).await?,
            _ => None,
        };
        let (name, verdict) = match credentials {
            Some((name, password)) => {
                let verdict = self.check(request.remote, &name, &password).await;
                (name, verdict)
            }
            None => (String::new(), Verdict::Wrong),
        };
        let id = &request.id;
        match verdict {
            Verdict::Right(user) => self.say(&format!("OK\t{id}\tuser={user}\n")).await,
            Verdict::Wrong => self.say(&format!("FAIL\t{id}{}\n", user(&name))).await,
            Verdict::Later => self.say(&format!("FAIL\t{id}{}\ttemp\n", user(&name))).await,
        }
    }

    /// RFC 4616.
    async fn plain(&mut self, request: &Request) -> io::Result<Option<(String, String)>> {
        let response = match &request.response {
            Some(response) => response.clone(),
            None => self.ask(&request.id, "").await?,
        };
        let Some(answer) = decoded(&response) else {
            return Ok(None);
        };
        let parts: Vec<&str> = answer.split('\0').collect();
        Ok(match parts.as_slice() {
            [authorize_as, name, password] if authorize_as.is_empty() || authorize_as == name => {
                Some(((*name).to_owned(), (*password).to_owned()))
            }
            _ => None,
        })
    }

    /// Name and password, each asked for; the name may come at once.
    async fn login(&mut self, request: &Request) -> io::Result<Option<(String, String)>> {
        let name = match &request.response {
            Some(response) if !response.is_empty() => response.clone(),
            _ => self.ask(&request.id, USER_NAME).await?,
        };
        let password = self.ask(&request.id, PASSWORD).await?;
        Ok(decoded(&name).zip(decoded(&password)))
    }

    /// CONT, and the client's answer to it in base64.
    async fn ask(&mut self, id: &str, question: &str) -> io::Result<String> {
        self.say(&format!("CONT\t{id}\t{question}\n")).await?;
        let line = self.line().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        match line.split('\t').collect::<Vec<_>>().as_slice() {
            ["CONT", answered, answer] if *answered == id => Ok((*answer).to_owned()),
            _ => Err(io::Error::other("another answer than was asked for")),
        }
    }

    async fn check(&self, remote: IpAddr, name: &str, password: &str) -> Verdict {
        if name.len() > limits::ADDRESS_MAX_BYTES || password.len() > limits::PASSWORD_MAX_BYTES {
            return Verdict::Wrong;
        }
        let gate = &self.context.gate;
        let Ok(wait) = gate.turn(remote, name) else {
            tracing::info!(%remote, "a submission login was refused: too many failed ones before it");
            return Verdict::Later;
        };
        tokio::time::sleep(wait).await;
        match self.context.store.may_submit(name, password).await {
            Ok(user) => {
                gate.succeeded(remote, name);
                Verdict::Right(user)
            }
            Err(Error::BadCredentials | Error::Suspended | Error::NotFound(_) | Error::Invalid(_)) => {
                gate.failed(remote, name);
                tracing::info!(%remote, "a submission login failed");
                tokio::time::sleep(Duration::from_millis(limits::IMAP_LOGIN_PAUSE_FIRST_MS)).await;
                Verdict::Wrong
            }
            Err(error) => {
                tracing::warn!(%error, "a submission login could not be checked");
                Verdict::Later
            }
        }
    }

    async fn line(&mut self) -> io::Result<Option<String>> {
        let line = timeout(IDLE, read_line(&mut self.io)).await;
        line.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    async fn say(&mut self, text: &str) -> io::Result<()> {
        let stream = self.io.get_mut();
        let sent = timeout(WRITE, async {
            stream.write_all(text.as_bytes()).await?;
            stream.flush().await
        });
        sent.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }
}

impl Request {
    fn of(id: &str, mechanism: &str, parameters: &[&str]) -> Request {
        let value = |name: &str| parameters.iter().find_map(|parameter| parameter.strip_prefix(name));
        Request {
            // It stands in our answer: only a number is one.
            id: id.chars().filter(char::is_ascii_digit).take(10).collect(),
            mechanism: mechanism.to_ascii_uppercase(),
            remote: value("rip=")
                .and_then(|address| address.parse().ok())
                .unwrap_or(Ipv4Addr::UNSPECIFIED.into()),
            response: value("resp=").map(str::to_owned),
        }
    }
}

fn decoded(base64: &str) -> Option<String> {
    String::from_utf8(STANDARD.decode(base64).ok()?).ok()
}

/// The name as it may stand in a line.
fn user(name: &str) -> String {
    if name.is_empty() || name.chars().any(char::is_control) {
        return String::new();
    }
    format!("\tuser={name}")
}

/// A line without its end; `None` at the end of the stream.
async fn read_line(io: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    io.take(LINE_MAX_BYTES as u64).read_until(b'\n', &mut line).await?;
    if line.is_empty() {
        return Ok(None);
    }
    match line.pop() {
        Some(b'\n') => String::from_utf8(line).map(Some).map_err(io::Error::other),
        _ => Err(io::Error::other("a line that is too long or has no end")),
    }
}
