//! The doors of malle: the client crate, and through the gateway LMTP and IMAP.
//!
//! Which door a delivery takes follows from its body, so that every repeat takes the same one: LMTP makes the op id of the bytes, the client
//! crate takes the caller's. Half of the bodies are delivered by LMTP. Every second client reads bodies by IMAP. Everything else goes through the
//! client crate: a change by IMAP has no op id, so one that nobody answered could not be repeated.
//!
//! What the gateway adds to a mail on its way in is taken off before a body is hashed: the history knows what the client sent.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use harness::{Imap, Lmtp, Status};
use malle_client::Uid;
use tokio::sync::Mutex;

use super::finals::hash_of_sent;
use super::world::PASSWORD;
use crate::workload::{Answer, Asked, Body, Call, Outcome, OverClient, Target};

/// Envelope sender of every delivery.
const SENDER: &str = "sender@chaos.example";
/// What the gateway puts in front of what comes from [`SENDER`].
pub const RETURN_PATH: &str = "Return-Path: <sender@chaos.example>\r\n";

/// A [`Target`] through all doors.
pub struct Doors {
    over_client: OverClient,
    lmtp: String,
    imap: String,
    logins: Vec<String>,
    /// Open sessions, by client; IMAP has one for each account as well.
    lmtp_sessions: Mutex<BTreeMap<u32, Lmtp>>,
    imap_sessions: Mutex<BTreeMap<(u32, u32), Imap>>,
}

impl Doors {
    /// To a cluster whose gateway listens there, for accounts with these login names.
    pub fn new(over_client: OverClient, lmtp: &str, imap: &str, logins: Vec<String>) -> Doors {
        Doors {
            over_client,
            lmtp: lmtp.to_owned(),
            imap: imap.to_owned(),
            logins,
            lmtp_sessions: Mutex::default(),
            imap_sessions: Mutex::default(),
        }
    }

    async fn deliver(&self, asked: Asked, body: &Body) -> anyhow::Result<Outcome<Answer>> {
        // A session that broke is not put back: the next delivery opens another.
        let kept = self.lmtp_sessions.lock().await.remove(&asked.client);
        let mut session = match kept {
            Some(session) => session,
            None => Lmtp::connect(&self.lmtp).await?,
        };
        let login = self.logins[asked.account as usize].as_str();
        let replies = session.deliver(SENDER, &[login], &body.bytes()).await?;
        self.lmtp_sessions.lock().await.insert(asked.client, session);
        let reply = replies
            .first()
            .ok_or_else(|| anyhow::anyhow!("no reply for a recipient"))?;
        Ok(match reply.code {
            // LMTP tells no MODSEQ and no UIDVALIDITY.
            250 => Outcome::Done {
                value: Answer::Stored {
                    uid_validity: 0,
                    uid: 0,
                    modseq: 0,
                    repeated: false,
                },
            },
            // 552 is the quota's; the repeat of a delivery that was done is told 250.
            code @ 500..=599 => Outcome::Refused {
                code: format!("lmtp-{code}"),
            },
            code => Outcome::Unknown {
                why: format!("{code} {}", reply.lines.join(" ")),
            },
        })
    }

    async fn session(&self, asked: Asked) -> anyhow::Result<Imap> {
        let key = (asked.client, asked.account);
        if let Some(session) = self.imap_sessions.lock().await.remove(&key) {
            return Ok(session);
        }
        Imap::login(&self.imap, &self.logins[asked.account as usize], PASSWORD).await
    }

    async fn keep(&self, asked: Asked, session: Imap) {
        self.imap_sessions
            .lock()
            .await
            .insert((asked.client, asked.account), session);
    }

    async fn read_by_imap(&self, asked: Asked, mailbox: &str, uid: u32) -> anyhow::Result<Outcome<Answer>> {
        let mut session = self.session(asked).await?;
        let selected = session.command(&format!("EXAMINE {mailbox}")).await?;
        if selected.status != Status::Ok {
            self.keep(asked, session).await;
            return Ok(refused(&selected));
        }
        let answer = session.command(&format!("UID FETCH {uid} (UID BODY.PEEK[])")).await?;
        self.keep(asked, session).await;
        if answer.status != Status::Ok {
            return Ok(refused(&answer));
        }
        let mut literals = answer.untagged.iter().flatten().filter_map(|piece| match piece {
            harness::Piece::Literal(bytes) => Some(bytes),
            harness::Piece::Text(_) => None,
        });
        Ok(match literals.next() {
            Some(bytes) => Outcome::Done {
                value: body(&bytes.clone().into()),
            },
            // A UID that is not there is no error of FETCH (RFC 9051 6.4.9).
            None => Outcome::Refused {
                code: "not-found".to_owned(),
            },
        })
    }

    async fn read_by_client(&self, asked: Asked, mailbox: &str, uid: u32) -> anyhow::Result<Outcome<Answer>> {
        let read = async {
            let account = self.over_client.session(asked).await?;
            let id = account.open_named(mailbox).await?.mailbox.id;
            Ok(body(&account.read_body(id, Uid(uid)).await?))
        };
        Ok(match read.await {
            Ok(value) => Outcome::Done { value },
            Err(error) => crate::workload::outcome(&error),
        })
    }
}

fn body(stored: &bytes::Bytes) -> Answer {
    let added = if stored.starts_with(RETURN_PATH.as_bytes()) {
        RETURN_PATH.len()
    } else {
        0
    };
    Answer::Body {
        hash: hash_of_sent(stored),
        size_bytes: (stored.len() - added) as u64,
    }
}

/// A NO whose code says that there is no such mailbox; any other says nothing of the mail.
fn refused(answer: &harness::Answer) -> Outcome<Answer> {
    match answer.text.contains("[NONEXISTENT]") {
        true => Outcome::Refused {
            code: "not-found".to_owned(),
        },
        false => Outcome::Unknown {
            why: answer.text.clone(),
        },
    }
}

/// An outcome, or what broke: then nobody knows. The drivers of the harness have their own, longer deadlines, and what takes several calls of the
/// client crate has a deadline for each.
async fn by(deadline: Duration, door: impl Future<Output = anyhow::Result<Outcome<Answer>>>) -> Outcome<Answer> {
    match tokio::time::timeout(deadline, door).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(error)) => Outcome::Unknown {
            why: format!("{error:#}"),
        },
        Err(_) => Outcome::Unknown {
            why: "no answer by the deadline".to_owned(),
        },
    }
}

impl Target for Doors {
    async fn call(&self, asked: Asked, call: &Call) -> Option<Outcome<Answer>> {
        let by_imap = asked.client % 2 == 1;
        match call {
            Call::Deliver { body } if body.draw % 2 == 1 => Some(by(asked.deadline, self.deliver(asked, body)).await),
            Call::ReadBody { mailbox, uid } if by_imap => {
                Some(by(asked.deadline, self.read_by_imap(asked, mailbox, *uid)).await)
            }
            Call::ReadBody { mailbox, uid } => {
                Some(by(asked.deadline, self.read_by_client(asked, mailbox, *uid)).await)
            }
            _ => self.over_client.call(asked, call).await,
        }
    }
}
