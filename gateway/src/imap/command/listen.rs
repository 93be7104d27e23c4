//! Waiting for changes of the account as they are committed, for IDLE (RFC 2177) and NOTIFY (RFC 5465): one watch, tried again later when the store
//! does not answer, and a sign of life for NAT.

use std::sync::Arc;
use std::time::Duration;

use malle_client::{Error, MailboxId, ModSeq, WatchEvent};
use malle_proto::limits;
use tokio::time::{Instant, sleep_until};

use super::super::respond::Failure;
use super::super::session::Session;
use super::super::store::{Account, Watch};
use super::changes::{self, Tell};
use super::notify;

/// How long after a failed watch the next one is tried.
const RETRY: Duration = Duration::from_secs(10);

/// A session's watch, and where it is.
pub(in super::super) struct Listening {
    watch: Option<Box<dyn Watch>>,
    /// The account's MODSEQ at the last event; `None` before the first.
    seen: Option<ModSeq>,
    quiet_until: Option<Instant>,
    still_here_at: Instant,
}

/// What there is to do.
pub(in super::super) enum Heard {
    Change {
        event: WatchEvent,
        /// The account's MODSEQ at the event before; `None` for the first.
        before: Option<ModSeq>,
    },
    Failed(Error),
    /// Nothing was said for a while.
    StillHere,
    Nothing,
}

impl Listening {
    pub(in super::super) fn new() -> Listening {
        Listening {
            watch: None,
            seen: None,
            quiet_until: None,
            still_here_at: still_here_at(),
        }
    }

    /// The next change, if anybody wants to know, or sign of life. Dropping the future loses nothing.
    /// `of`: the mailbox that is selected where only that one matters.
    pub(in super::super) async fn next(
        &mut self,
        account: &Arc<dyn Account>,
        of: Option<MailboxId>,
        wanted: bool,
    ) -> Heard {
        let watching = wanted && self.quiet_until.is_none();
        let wake_at = self.quiet_until.unwrap_or(self.still_here_at).min(self.still_here_at);
        tokio::select! {
            event = next_event(account, of, &mut self.watch), if watching => match event {
                Ok(event) => Heard::Change { before: self.seen.replace(event.modseq), event },
                Err(error) => Heard::Failed(error),
            },
            () = sleep_until(wake_at) => {
                self.quiet_until = None;
                if Instant::now() < self.still_here_at {
                    return Heard::Nothing;
                }
                self.still_here_at = still_here_at();
                Heard::StillHere
            }
        }
    }

    /// The store did not answer: a new watch is tried later. It begins with an event, so nothing is missed.
    fn lose(&mut self) {
        self.watch = None;
        self.seen = None;
        self.quiet_until = Some(Instant::now() + RETRY);
    }
}

fn still_here_at() -> Instant {
    Instant::now() + Duration::from_millis(limits::IMAP_STILL_HERE_MS)
}

/// The next change; begins the watch when there is none. May be dropped at any time.
async fn next_event(
    account: &Arc<dyn Account>,
    of: Option<MailboxId>,
    watch: &mut Option<Box<dyn Watch>>,
) -> Result<WatchEvent, Error> {
    if watch.is_none() {
        *watch = Some(account.watch(of).await?);
    }
    match watch {
        Some(watch) => watch.next().await,
        None => Err(Error::Internal("a watch that was begun is not there".to_owned())),
    }
}

/// Tells the client what was heard, as far as it wants to know.
pub(in super::super) async fn tell_heard(
    session: &mut Session,
    listening: &mut Listening,
    heard: Heard,
) -> Result<(), Failure> {
    let told = match heard {
        Heard::Change { event, before } if session.notify.is_some() => {
            Box::pin(notify::tell(session, &event, before)).await
        }
        Heard::Change { event, before } => {
            let selected = session.selected.as_ref().map(|selected| selected.mailbox);
            if concerns(&event, before, selected) {
                Box::pin(changes::tell_changes(session, Tell::ALL)).await
            } else {
                Ok(())
            }
        }
        Heard::Failed(error) => {
            // A watch of one's own account is not refused: the selected mailbox is somebody else's.
            if let Error::Denied(_) = error {
                return Err(Failure::Bye(NOT_SHARED));
            }
            session.explain(&error)?;
            listening.lose();
            return Ok(());
        }
        Heard::StillHere => {
            session.connection.output.untagged(format_args!("OK Still here"));
            Ok(())
        }
        Heard::Nothing => Ok(()),
    };
    match told {
        Err(Failure::Store(error)) => {
            if let Some(end) = end_of_selected(&error) {
                return Err(end);
            }
            session.explain(&error)?;
            listening.lose();
            Ok(())
        }
        other => other,
    }
}

const NOT_SHARED: &str = "the selected mailbox is not shared with you any more";

/// Whether an error about the selected mailbox says that it cannot stay selected: every sequence number has lost its meaning.
pub(in super::super) fn end_of_selected(error: &Error) -> Option<Failure> {
    match error {
        Error::NotFound(_) => Some(Failure::Bye("the selected mailbox was deleted")),
        Error::Denied(_) => Some(Failure::Bye(NOT_SHARED)),
        _ => None,
    }
}

/// Is there something to look at in this mailbox? The first event of a watch always says so; a later one that names no mailbox is a
/// heartbeat, unless the account moved on since the last event.
pub(super) fn concerns(event: &WatchEvent, before: Option<ModSeq>, mailbox: Option<MailboxId>) -> bool {
    let named = mailbox.is_some_and(|mailbox| event.mailboxes.contains(&mailbox));
    named || concerns_all(event, before)
}

/// Is there something to look at anywhere?
pub(super) fn concerns_all(event: &WatchEvent, before: Option<ModSeq>) -> bool {
    let Some(before) = before else { return true };
    event.overflow || (event.mailboxes.is_empty() && event.modseq > before)
}
