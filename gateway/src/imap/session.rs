//! The loop of one session: read a command, see whether it may come now, do it, tell what changed meanwhile, answer.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use malle_client::{Class, Error, MailboxId, Rights};
use malle_proto::limits;
use tokio::time::{Instant, sleep};

use super::access::{Context, Ended};
use super::command::{self, Listening, Notifying, Tell};
use super::connection::{BoxedIo, Connection, FrameBounds, FrameError, Gone, Piece};
use super::gate::Place;
use super::parse::{self, Body, Command};
use super::respond::{Answer, Failure, Status, store_failure};
use super::roster::{Ending, Seat};
use super::state::{self, State};
use super::store::Account;
use super::view::View;

/// One client's session.
pub(super) struct Session {
    pub(super) connection: Connection,
    pub(super) context: Context,
    /// Set from login on.
    pub(super) account: Option<Arc<dyn Account>>,
    /// The account's place among its sessions.
    pub(super) place: Option<Place>,
    /// The session's own in the roster, from login on.
    pub(super) seat: Option<Seat>,
    /// Somebody outside wants it to end.
    pub(super) ending: Arc<Ending>,
    pub(super) selected: Option<Selected>,
    /// The account as the present command changes it: its last change tells what is new in the selected mailbox.
    pub(super) writer: Option<Arc<dyn Account>>,
    /// The client has shown that it knows MODSEQ (RFC 7162 3.1): from then on FETCH answers carry it.
    pub(super) condstore: bool,
    /// ENABLE QRESYNC was said: VANISHED stands for EXPUNGE (RFC 7162 3.2.3).
    pub(super) qresync: bool,
    /// ENABLE UTF8=ACCEPT was said (RFC 6855 3).
    pub(super) utf8_accept: bool,
    /// ENABLE IMAP4rev2 was said: answers are those of RFC 9051 (its appendix A).
    pub(super) rev2: bool,
    /// NOTIFY was said.
    pub(super) notify: Option<Box<Notifying>>,
    /// While NOTIFY is in force.
    pub(super) listening: Option<Listening>,
    pub(super) failed_logins: u32,
    /// COMPRESS was answered OK.
    pub(super) compressed: bool,
    bad_commands: u32,
}

/// The selected mailbox.
pub(super) struct Selected {
    pub(super) mailbox: MailboxId,
    pub(super) read_only: bool,
    /// What the session might do with it when it was opened. The store decides each time anew.
    pub(super) rights: Rights,
    /// Keywords that FLAGS has told.
    pub(super) keywords: Vec<String>,
    pub(super) view: View,
}

/// What comes after a command.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The next command.
    Read,
    /// LOGOUT.
    Close,
    /// The TLS handshake.
    StartTls,
    /// The next command, deflated.
    Compress,
}

/// Serves one client until it leaves, is sent away, or asks for TLS.
pub async fn serve(io: BoxedIo, context: Context) -> Ended {
    let mut session = Session {
        connection: Connection::new(io),
        context,
        account: None,
        place: None,
        seat: None,
        ending: Arc::default(),
        selected: None,
        writer: None,
        condstore: false,
        qresync: false,
        utf8_accept: false,
        rev2: false,
        compressed: false,
        notify: None,
        listening: None,
        failed_logins: 0,
        bad_commands: 0,
    };
    // After STARTTLS the client expects no second greeting (RFC 3501 6.2.1).
    if !session.context.settings.greeted {
        let capabilities = command::capabilities(&session);
        session
            .connection
            .output
            .untagged(format_args!("OK [CAPABILITY {capabilities}] malle is ready"));
    }
    let ending = Arc::clone(&session.ending);
    let cut = async {
        ending.ended().await;
        sleep(Duration::from_millis(limits::IMAP_LEAVE_MS)).await;
    };
    let run = tokio::select! {
        run = session.run() => run,
        // In the middle of a command that does not end: nothing that could be said now would be understood.
        () = cut => return Ended::Closed,
    };
    match run {
        Ok(Next::StartTls) => return Ended::StartTls(session.connection.into_io()),
        Ok(_) => {}
        Err(Failure::Gone(gone)) => session.lose(&gone),
        Err(failure) => session.connection.output.untagged(format_args!("BYE {failure}")),
    }
    session.connection.close().await;
    Ended::Closed
}

impl Session {
    pub(super) fn state(&self) -> State {
        match (&self.account, &self.selected) {
            (None, _) => State::Anonymous,
            (Some(_), None) => State::Authenticated,
            (Some(_), Some(_)) => State::Selected,
        }
    }

    pub(super) fn bounds(&self) -> FrameBounds {
        FrameBounds {
            authenticated: self.account.is_some(),
        }
    }

    /// Waits until the session must end: with the process, or because somebody outside wants it.
    pub(super) fn leave(&self) -> impl Future<Output = Failure> + use<> {
        let mut shutdown = self.context.shutdown.clone();
        let ending = Arc::clone(&self.ending);
        async move {
            tokio::select! {
                () = stopped(&mut shutdown) => Failure::Bye("malle is shutting down"),
                why = ending.ended() => Failure::Bye(why),
            }
        }
    }

    async fn run(&mut self) -> Result<Next, Failure> {
        loop {
            self.connection.flush().await?;
            if self.notify.is_some() {
                self.tell_until_input().await?;
            }
            let leave = self.leave();
            let bounds = self.bounds();
            let frame = tokio::select! {
                biased;
                why = leave => return Err(why),
                frame = self.connection.read_frame(bounds, &self.context.memory) => frame,
            };
            let frame = match frame {
                Ok(mut frame) => {
                    frame.utf8 = self.connection.output.utf8;
                    frame
                }
                Err(error) => {
                    self.refuse_frame(error)?;
                    continue;
                }
            };
            // An empty line between commands is a habit of people at a keyboard.
            if matches!(frame.pieces.as_slice(), [Piece::Text(text)] if text.is_empty()) {
                self.count_bad()?;
                continue;
            }
            let next = match parse::parse(&frame) {
                Ok(command) => self.execute(command).await?,
                Err(bad) => {
                    self.connection
                        .output
                        .answer(bad.tag.as_deref(), &Answer::bad(bad.reason));
                    self.count_bad()?;
                    Next::Read
                }
            };
            if next == Next::Read {
                continue;
            }
            self.connection.flush().await?;
            if next != Next::Compress {
                return Ok(next);
            }
            self.connection.compress();
        }
    }

    /// Tells what NOTIFY asked for until the client says something.
    async fn tell_until_input(&mut self) -> Result<(), Failure> {
        let Some(account) = self.account.clone() else {
            return Ok(());
        };
        let ends_at = Instant::now() + self.bounds().idle();
        let mut listening = self.listening.take().unwrap_or_else(Listening::new);
        loop {
            let leave = self.leave();
            let wanted = self.notify.as_ref().is_some_and(|notify| notify.is_wanted());
            let heard = tokio::select! {
                biased;
                why = leave => return Err(why),
                came = self.connection.wait(ends_at) => {
                    self.listening = Some(listening);
                    return Ok(came?);
                }
                heard = listening.next(&account, None, wanted) => heard,
            };
            command::tell_heard(self, &mut listening, heard).await?;
            self.connection.flush().await?;
        }
    }

    /// Answers what could not be read as a command. An error ends the session.
    fn refuse_frame(&mut self, error: FrameError) -> Result<(), Failure> {
        let too_big =
            |limit_bytes| Answer::no("TOOBIG", format!("A literal here may have {limit_bytes} bytes at most"));
        match error {
            FrameError::Gone(gone) => return Err(gone.into()),
            FrameError::Lost(reason) => return Err(Failure::Bye(reason)),
            FrameError::LiteralRefused { tag, limit_bytes } => {
                self.connection.output.answer(tag.as_deref(), &too_big(limit_bytes));
            }
            FrameError::TooManyMessages { tag, synchronising } => {
                let most = limits::APPENDS_PER_COMMAND_MAX;
                let answer = Answer::no("LIMIT", format!("One command brings {most} messages at most"));
                self.connection.output.answer(tag.as_deref(), &answer);
                if !synchronising {
                    return Err(Failure::Bye("too many messages in one command"));
                }
            }
            FrameError::LiteralTooLarge { tag, limit_bytes } => {
                // The literal follows and nobody reads it: the stream ends here (RFC 7888 4).
                self.connection.output.answer(tag.as_deref(), &too_big(limit_bytes));
                return Err(Failure::Bye("the literal is too large to be skipped"));
            }
            FrameError::NoMemory { tag, synchronising } => {
                let busy = Answer::no("UNAVAILABLE", "Too many large messages at this moment, try again later");
                self.connection.output.answer(tag.as_deref(), &busy);
                if !synchronising {
                    return Err(Failure::Bye("no memory for the message"));
                }
            }
        }
        self.count_bad()
    }

    fn count_bad(&mut self) -> Result<(), Failure> {
        self.bad_commands += 1;
        if self.bad_commands >= limits::IMAP_BAD_COMMANDS_MAX {
            return Err(Failure::Bye("too many commands that make no sense"));
        }
        Ok(())
    }

    async fn execute(&mut self, command: Command) -> Result<Next, Failure> {
        let Command { tag, body } = command;
        let allowed = state::allowed(&body);
        let tell = self.tell_at_end(&body);
        let has_news = !matches!(body, Body::Select { .. });
        let expunges = match &body {
            Body::Expunge { .. } => true,
            Body::Append(append) => append.replaces.is_some(),
            _ => false,
        };
        let result = if allowed.allows(self.state()) {
            command::execute(self, &tag, body).await
        } else {
            Err(Failure::bad(allowed.reason()))
        };
        let (mut answer, next) = match result {
            Ok(done) => done,
            Err(Failure::Refused(answer)) => (answer, Next::Read),
            Err(Failure::Store(error)) => (self.explain(&error)?, Next::Read),
            Err(fatal) => return Err(fatal),
        };
        // A mailbox that was opened just now has been told as it is.
        if let Some(tell) = tell.filter(|_| next == Next::Read && has_news) {
            self.tell_changes(tell).await?;
        }
        if expunges {
            self.tell_highest_modseq(&mut answer);
        }
        self.connection.output.answer(Some(&tag), &answer);
        if answer.status == Status::Bad {
            self.count_bad()?;
        }
        Ok(next)
    }

    /// What may be told of the selected mailbox at the end of a command; nothing to a client that asked not to hear of it.
    fn tell_at_end(&self, body: &Body) -> Option<Tell> {
        let wanted = match &self.notify {
            Some(notify) if !state::tells_own_changes(body) => notify.at_command_end()?,
            _ => Tell::ALL,
        };
        Some(Tell {
            expunges: state::may_tell_expunge(body),
            ..wanted
        })
    }

    /// Tells what others changed. When the store does not answer now, the client learns it at its next command.
    async fn tell_changes(&mut self, tell: Tell) -> Result<(), Failure> {
        match Box::pin(command::tell_changes(self, tell)).await {
            Err(Failure::Store(error)) => match command::end_of_selected(&error) {
                Some(end) => Err(end),
                None => self.explain(&error).map(|_| ()),
            },
            other => other,
        }
    }

    /// After an EXPUNGE the client may write down the MODSEQ up to which it was told everything (RFC 7162 3.2.7).
    fn tell_highest_modseq(&self, answer: &mut Answer) {
        if let Some(selected) = &self.selected
            && self.condstore
            && answer.status == Status::Ok
            && answer.code.is_none()
        {
            answer.code = Some(format!("HIGHESTMODSEQ {}", selected.view.modseq));
        }
    }

    /// The store's error as an answer; some end the session.
    pub(super) fn explain(&self, error: &Error) -> Result<Answer, Failure> {
        if error.class() != Class::Refused {
            tracing::warn!(peer = %self.context.peer, %error, "a call to the store failed");
        }
        match error {
            Error::TokenExpired => Err(Failure::Bye("the login has expired, log in again")),
            Error::Suspended if self.account.is_some() => Err(Failure::Bye("the account is suspended")),
            other => Ok(store_failure(other)),
        }
    }

    fn lose(&mut self, gone: &Gone) {
        tracing::debug!(peer = %self.context.peer, reason = %gone, "an IMAP session was lost");
        if matches!(gone, Gone::Silent) {
            self.connection.output.untagged(format_args!("BYE Idle for too long"));
        }
    }
}

/// Waits until the process stops; for ever when nobody is left to say so.
async fn stopped(shutdown: &mut tokio::sync::watch::Receiver<bool>) {
    if shutdown.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}
