//! IDLE (RFC 2177): changes are told as they are committed, until the client says DONE.

use std::sync::Arc;
use std::time::Duration;

use malle_client::{Error, MailboxId, ModSeq, WatchEvent};
use malle_proto::limits;
use tokio::time::{Instant, sleep_until};

use super::super::respond::{Answer, Failure};
use super::super::session::{Session, stopped};
use super::super::store::{Account, Watch};
use super::anonymous::line_failure;
use super::{account, changes};

/// How long after a failed watch the next one is tried.
const RETRY: Duration = Duration::from_secs(10);

pub(super) async fn idle(session: &mut Session) -> Result<Answer, Failure> {
    let account = account(session)?;
    session.connection.output.raw(b"+ Idling\r\n");
    let ends_at = Instant::now() + session.bounds().idle();
    let mut shutdown = session.context.shutdown.clone();
    let mut watch: Option<Box<dyn Watch>> = None;
    let mut seen: Option<ModSeq> = None;
    let mut quiet_until: Option<Instant> = None;
    let mut still_here_at = Instant::now() + Duration::from_millis(limits::IMAP_STILL_HERE_MS);
    loop {
        session.connection.flush().await?;
        let watching = session.selected.is_some() && quiet_until.is_none();
        let wake_at = quiet_until.unwrap_or(still_here_at).min(still_here_at);
        let event = tokio::select! {
            biased;
            () = stopped(&mut shutdown) => return Err(Failure::Bye("malle is shutting down")),
            line = session.connection.read_line(ends_at) => return done(&line.map_err(line_failure)?),
            event = next_event(&account, &mut watch), if watching => Some(event),
            () = sleep_until(wake_at) => None,
        };
        let told = match event {
            Some(Ok(event)) => {
                let mailbox = session.selected.as_ref().map(|selected| selected.mailbox);
                let look = concerns(&event, seen.replace(event.modseq), mailbox);
                if look { tell(session).await? } else { true }
            }
            Some(Err(error)) => {
                session.explain(&error)?;
                false
            }
            None => {
                quiet_until = None;
                if Instant::now() >= still_here_at {
                    session.connection.output.untagged(format_args!("OK Still here"));
                    still_here_at = Instant::now() + Duration::from_millis(limits::IMAP_STILL_HERE_MS);
                }
                true
            }
        };
        if !told {
            // A new watch begins with an event, so nothing is missed.
            watch = None;
            seen = None;
            quiet_until = Some(Instant::now() + RETRY);
        }
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

/// The next change; begins the watch when there is none. May be dropped at any time.
async fn next_event(account: &Arc<dyn Account>, watch: &mut Option<Box<dyn Watch>>) -> Result<WatchEvent, Error> {
    if watch.is_none() {
        *watch = Some(account.watch().await?);
    }
    match watch {
        Some(watch) => watch.next().await,
        None => Err(Error::Internal("a watch that was begun is not there".to_owned())),
    }
}

/// Is there something to look at? The first event of a watch always says so; a later one that names no mailbox is a heartbeat, unless the account
/// moved on since the last event.
fn concerns(event: &WatchEvent, seen: Option<ModSeq>, selected: Option<MailboxId>) -> bool {
    let Some(seen) = seen else { return true };
    let named = selected.is_some_and(|selected| event.mailboxes.contains(&selected));
    event.overflow || named || (event.mailboxes.is_empty() && event.modseq > seen)
}

/// False when the store did not answer: try again later.
async fn tell(session: &mut Session) -> Result<bool, Failure> {
    match changes::tell_changes(session, true).await {
        Ok(()) => Ok(true),
        Err(Failure::Store(Error::NotFound(_))) => Err(Failure::Bye("the selected mailbox was deleted")),
        Err(Failure::Store(error)) => session.explain(&error).map(|_| false),
        Err(other) => Err(other),
    }
}
