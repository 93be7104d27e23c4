//! Tells a front end that an account changed. Events are coalesced: whoever reads slowly gets fewer and fuller ones.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use malle_machine::shard::{self, read};
use malle_machine::view::Change;
use malle_proto::v1::WatchEvent;
use malle_proto::{AccountId, MailboxId, limits};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::mpsc;
use tonic::Status;

use super::error::Refused;
use crate::raft::{Barrier, Group};

/// Events that wait for a slow reader; what comes meanwhile is gathered into the next one.
const EVENTS_WAITING: usize = 4;
/// Mailboxes named in one event; beyond it the reader is told to look at all.
const MAILBOXES_NAMED_MAX: usize = 100;

/// What has changed since the last event.
#[derive(Default)]
struct News {
    modseq: u64,
    mailboxes: BTreeSet<MailboxId>,
    overflow: bool,
    tree: bool,
    any: bool,
}

impl News {
    fn add(&mut self, change: &Change) {
        self.any = true;
        self.modseq = self.modseq.max(change.modseq.0);
        self.mailboxes.insert(change.mailbox);
        self.tree |= change.tree;
        if self.mailboxes.len() > MAILBOXES_NAMED_MAX {
            self.lose();
        }
    }

    fn lose(&mut self) {
        self.any = true;
        self.overflow = true;
        self.mailboxes.clear();
    }

    fn event(&mut self) -> WatchEvent {
        let event = WatchEvent {
            modseq: self.modseq,
            mailboxes: std::mem::take(&mut self.mailboxes)
                .iter()
                .map(|id| id.to_vec().into())
                .collect(),
            overflow: std::mem::take(&mut self.overflow),
            tree_changed: std::mem::take(&mut self.tree),
        };
        self.any = false;
        event
    }
}

/// Follows one account from now on; the first event says where it stands. It ends when its login is `over`.
pub(super) async fn follow(
    group: Arc<Group>,
    account: AccountId,
    over: impl Future<Output = ()> + Send + 'static,
) -> Result<mpsc::Receiver<Result<WatchEvent, Status>>, Refused> {
    // Subscribed before the first look, so that nothing falls in between.
    let changes = group.changes();
    let deadline = malle_rt::now() + Duration::from_millis(limits::DEFAULT_DEADLINE_MS);
    let now = group
        .read(Barrier::Linearizable, deadline, move |view| {
            read::account(view, account)
        })
        .await?;
    let now = now.ok_or(shard::Refusal::NoAccount)?;
    let (out, events) = mpsc::channel(EVENTS_WAITING);
    let first = News {
        modseq: now.modseq.0,
        any: true,
        ..News::default()
    };
    malle_rt::spawn(async move {
        let over = tokio::select! {
            () = tell(changes, account, first, &out) => false,
            () = over => true,
        };
        if over {
            // Whoever left meanwhile needs no reason.
            let _ = out.send(Err(Refused::token_expired().into())).await;
        }
    });
    Ok(events)
}

async fn tell(
    mut changes: Receiver<Change>,
    account: AccountId,
    mut news: News,
    out: &mpsc::Sender<Result<WatchEvent, Status>>,
) {
    let heartbeat = Duration::from_millis(limits::WATCH_HEARTBEAT_MS);
    loop {
        if news.any && out.send(Ok(news.event())).await.is_err() {
            return;
        }
        let first = tokio::select! {
            () = out.closed() => return,
            first = malle_rt::timeout(heartbeat, changes.recv()) => first,
        };
        match first {
            Err(_) => news.any = true,
            Ok(Ok(change)) if change.account == account => news.add(&change),
            Ok(Ok(_)) => {}
            Ok(Err(RecvError::Lagged(_))) => news.lose(),
            // The group left this node or is opened again: the reader asks again, and finds it where it is.
            Ok(Err(RecvError::Closed)) => return,
        }
        gather(&mut changes, account, &mut news);
    }
}

/// Everything that is there already goes into the same event.
fn gather(changes: &mut Receiver<Change>, account: AccountId, news: &mut News) {
    loop {
        match changes.try_recv() {
            Ok(change) if change.account == account => news.add(&change),
            Ok(_) => {}
            Err(TryRecvError::Lagged(_)) => news.lose(),
            Err(TryRecvError::Empty | TryRecvError::Closed) => return,
        }
    }
}
