//! What an LMTP session may do next: the state machine of RFC 2033 and RFC 5321 4.1.4, without a socket.
//!
//! [`Session::command`] takes one line and says what its driver (`connection`) has to do: send a reply, ask the directory about a
//! recipient, or read mail bytes. The machine never waits, never allocates by what a peer merely announces, and counts a peer's
//! mistakes: after [`MISTAKES_MAX`] the session ends, so that a client that speaks another protocol does not stay.
//!
//! Choices where the RFCs leave one: a suspended account is `450 4.2.1` (it may come back, the sender's queue decides how long it
//! waits); a recipient named twice in one transaction is answered twice and delivered once; BDAT LAST is answered once per recipient
//! also when an earlier chunk failed, so that the number of replies never depends on the mail.

use malle_client::{Error, Resolved};
use malle_proto::limits;

use super::body::RECEIVED_MAX_BYTES;
use super::parse::{self, BodyKind, Command, Mail, Path};
use super::reply::Reply;
use super::xclient::Said;

/// Mistakes that end a session.
pub const MISTAKES_MAX: u32 = 20;
/// Most bytes read of a mail that will be refused anyway; a peer that sends or announces more is disconnected.
pub const DRAIN_MAX_BYTES: u64 = 4 * limits::MESSAGE_MAX_BYTES as u64;

/// A recipient that was answered 250.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// As it was named.
    pub path: Path,
    /// Where it leads.
    pub resolved: Resolved,
}

/// One mail on its way: from MAIL to the answers after its last byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// MAIL.
    pub mail: Mail,
    /// In the order in which they were accepted, which is the order of the answers.
    pub recipients: Vec<Accepted>,
    /// A BDAT was seen: DATA and RCPT are over.
    pub chunking: bool,
}

/// What the driver does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send this.
    Reply(Reply),
    /// Send the LHLO answer.
    Greet,
    /// Remember for whom the relay speaks, and greet anew.
    SpeakFor(Vec<Said>),
    /// Look this address up and hand the answer to [`Session::resolved`].
    Resolve(Path),
    /// Send 354, read up to the end of data, deliver.
    ReceiveData,
    /// Read this many bytes; deliver when `last`.
    ReceiveChunk {
        /// Bytes to read.
        size_bytes: u64,
        /// They end the mail.
        last: bool,
    },
    /// Read this many bytes, keep none, then send the reply.
    Drain {
        /// Bytes to read.
        size_bytes: u64,
        /// The answer.
        reply: Reply,
    },
    /// Send this and close.
    Close(Reply),
}

/// The state of one session.
#[derive(Debug, Default)]
pub struct Session {
    /// The peer may say XCLIENT.
    trusted: bool,
    greeted: bool,
    transaction: Option<Transaction>,
    mistakes: u32,
}

impl Session {
    /// A new session; a trusted peer may say for whom it speaks.
    pub fn of(trusted: bool) -> Session {
        Session {
            trusted,
            ..Session::default()
        }
    }

    /// Takes one command line, without its line end.
    pub fn command(&mut self, line: &[u8]) -> Action {
        let action = match parse::parse(line) {
            Ok(command) => self.step(command),
            Err(reply) => Action::Reply(reply),
        };
        self.count_mistakes(action)
    }

    /// The directory's answer to [`Action::Resolve`].
    pub fn resolved(&mut self, path: Path, answer: Result<Option<Resolved>, Error>) -> Reply {
        let Some(transaction) = &mut self.transaction else {
            return NEED_MAIL;
        };
        match answer {
            Ok(Some(resolved)) if resolved.suspended => {
                Reply::fixed(450, "4.2.1", "this mailbox is suspended, try again later")
            }
            Ok(Some(resolved)) => {
                transaction.recipients.push(Accepted { path, resolved });
                Reply::fixed(250, "2.1.5", "recipient ok")
            }
            // The client crate answers `None` only after a linearizable read: this is the one way to a 5.1.1 (architecture, decision 8).
            Ok(None) => Reply::made(550, "5.1.1", &format!("<{}> no such recipient here", path.raw)),
            Err(Error::Invalid(_)) => Reply::fixed(550, "5.1.3", "this is no address that the directory could hold"),
            Err(Error::Busy(_)) => Reply::fixed(451, "4.3.2", "the directory is busy, try again later"),
            Err(Error::Unavailable(_)) => Reply::fixed(451, "4.4.3", "the directory does not answer, try again later"),
            Err(_) => Reply::fixed(451, "4.3.0", "this recipient cannot be looked up now, try again later"),
        }
    }

    /// The transaction that is receiving its mail.
    pub fn transaction(&self) -> Option<&Transaction> {
        self.transaction.as_ref()
    }

    /// Ends the transaction: its mail is complete.
    pub fn take_transaction(&mut self) -> Option<Transaction> {
        self.transaction.take()
    }

    fn step(&mut self, command: Command) -> Action {
        match command {
            Command::Lhlo => {
                self.greeted = true;
                self.transaction = None;
                Action::Greet
            }
            Command::Rset => {
                self.transaction = None;
                Action::Reply(Reply::fixed(250, "2.0.0", "forgotten"))
            }
            Command::Noop => Action::Reply(Reply::fixed(250, "2.0.0", "ok")),
            Command::Help => Action::Reply(Reply::fixed(
                214,
                "2.0.0",
                "LHLO MAIL RCPT DATA BDAT RSET NOOP VRFY QUIT",
            )),
            Command::Vrfy => Action::Reply(Reply::fixed(252, "2.1.5", "not said here, send the mail")),
            Command::Quit => Action::Close(Reply::fixed(221, "2.0.0", "bye")),
            Command::Bdat { size_bytes, last } => self.bdat(size_bytes, last),
            Command::Xclient(said) => self.xclient(said),
            _ if !self.greeted => Action::Reply(Reply::fixed(503, "5.5.1", "say LHLO first")),
            Command::Mail(mail) => self.mail(mail),
            Command::Rcpt(path) => self.rcpt(path),
            Command::Data => self.data(),
        }
    }

    /// Postfix's XCLIENT_README: afterwards the session is as new, and the relay greets again.
    fn xclient(&mut self, said: Result<Vec<Said>, Reply>) -> Action {
        if !self.trusted {
            return Action::Reply(Reply::fixed(550, "5.7.1", "you are not trusted to speak for others"));
        }
        if self.transaction.is_some() {
            return Action::Reply(Reply::fixed(503, "5.5.1", "a mail is under way, finish it or say RSET"));
        }
        match said {
            Ok(said) => {
                self.greeted = false;
                Action::SpeakFor(said)
            }
            Err(reply) => Action::Reply(reply),
        }
    }

    fn mail(&mut self, mail: Mail) -> Action {
        if self.transaction.is_some() {
            return Action::Reply(Reply::fixed(503, "5.5.1", "a mail is under way, finish it or say RSET"));
        }
        if mail.size_bytes > RECEIVED_MAX_BYTES as u64 {
            return Action::Reply(TOO_LARGE);
        }
        self.transaction = Some(Transaction {
            mail,
            recipients: Vec::new(),
            chunking: false,
        });
        Action::Reply(Reply::fixed(250, "2.1.0", "sender ok"))
    }

    fn rcpt(&mut self, path: Path) -> Action {
        let Some(transaction) = &self.transaction else {
            return Action::Reply(NEED_MAIL);
        };
        if transaction.chunking {
            return Action::Reply(Reply::fixed(503, "5.5.1", "the mail has begun, no more recipients"));
        }
        if let Err(reply) = parse::refuse_undeclared_utf8(&path, transaction.mail.smtputf8) {
            return Action::Reply(reply);
        }
        if transaction.recipients.len() >= limits::RECIPIENTS_PER_TRANSACTION_MAX {
            return Action::Reply(Reply::fixed(
                452,
                "4.5.3",
                "too many recipients, send the others in another mail",
            ));
        }
        Action::Resolve(path)
    }

    fn data(&mut self) -> Action {
        let Some(transaction) = &self.transaction else {
            return Action::Reply(NEED_MAIL);
        };
        if transaction.chunking || transaction.mail.body == BodyKind::Binary {
            // RFC 3030 3: a binary mail has no line ends that DATA could trust.
            return Action::Reply(Reply::fixed(503, "5.5.1", "this mail comes by BDAT"));
        }
        if transaction.recipients.is_empty() {
            return Action::Reply(NEED_RCPT);
        }
        Action::ReceiveData
    }

    fn bdat(&mut self, size_bytes: u64, last: bool) -> Action {
        if size_bytes > DRAIN_MAX_BYTES {
            return Action::Close(TOO_LARGE);
        }
        // RFC 3030 2: the bytes come whatever the answer is, so they are read even where the command makes no sense.
        let refused = match &self.transaction {
            None => NEED_MAIL,
            Some(transaction) if transaction.recipients.is_empty() => NEED_RCPT,
            Some(_) => {
                if let Some(transaction) = &mut self.transaction {
                    transaction.chunking = true;
                }
                return Action::ReceiveChunk { size_bytes, last };
            }
        };
        Action::Drain {
            size_bytes,
            reply: refused,
        }
    }

    fn count_mistakes(&mut self, action: Action) -> Action {
        let mistake = match &action {
            Action::Reply(reply) | Action::Drain { reply, .. } => reply.blames_the_peer(),
            _ => false,
        };
        self.mistakes += u32::from(mistake);
        if self.mistakes >= MISTAKES_MAX {
            return Action::Close(Reply::fixed(421, "4.7.0", "too many mistakes, closing"));
        }
        action
    }
}

const NEED_MAIL: Reply = Reply::fixed(503, "5.5.1", "say MAIL first");
const NEED_RCPT: Reply = Reply::fixed(503, "5.5.1", "no recipient was accepted");
/// Over the limit of one mail.
pub const TOO_LARGE: Reply = Reply::fixed(552, "5.3.4", "the mail is larger than is taken here");
