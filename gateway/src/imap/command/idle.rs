//! IDLE (RFC 2177): changes are told as they are committed, until the client says DONE.

use tokio::time::Instant;

use super::super::respond::{Answer, Failure};
use super::super::session::Session;
use super::account;
use super::anonymous::line_failure;
use super::listen::{Listening, tell_heard};

pub(super) async fn idle(session: &mut Session) -> Result<Answer, Failure> {
    let account = account(session)?;
    session.connection.output.raw(b"+ Idling\r\n");
    let ends_at = Instant::now() + session.bounds().idle();
    // Under NOTIFY there is one already, and it goes on afterwards.
    let mut listening = session.listening.take().unwrap_or_else(Listening::new);
    loop {
        session.connection.flush().await?;
        let leave = session.leave();
        let selected = session.selected.as_ref().map(|selected| selected.mailbox);
        let (of, wanted) = match &session.notify {
            Some(notify) => (None, notify.is_wanted()),
            None => (selected, selected.is_some()),
        };
        let heard = tokio::select! {
            biased;
            why = leave => return Err(why),
            line = session.connection.read_line(ends_at) => {
                session.listening = session.notify.is_some().then_some(listening);
                return done(&line.map_err(line_failure)?);
            }
            heard = listening.next(&account, of, wanted) => heard,
        };
        tell_heard(session, &mut listening, heard).await?;
    }
}

/// Only DONE ends IDLE well (RFC 2177 3).
fn done(line: &[u8]) -> Result<Answer, Failure> {
    if line.eq_ignore_ascii_case(b"DONE") {
        Ok(Answer::ok("Idle is over"))
    } else {
        Err(Failure::bad("Only DONE may follow IDLE"))
    }
}
