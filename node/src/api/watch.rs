//! Tells a front end that an account changed. Events are coalesced: whoever reads slowly gets fewer and fuller ones.
//!
//! A guest hears of the mailboxes that he may see or read, as this replica has it once the change is applied here: a right that was taken back
//! before a change is taken back here before the change is told. Of a mailbox that he no longer may see he hears once more.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use malle_machine::shard::{self, read};
use malle_machine::view::{Change, Fault, View};
use malle_proto::v1::WatchEvent;
use malle_proto::{AccountId, MailboxId, Rights, limits};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::mpsc;
use tonic::Status;

use super::error::Refused;
use super::guests::nothing_granted;
use crate::raft::{Barrier, Group};

/// Events that wait for a slow reader; what comes meanwhile is gathered into the next one.
const EVENTS_WAITING: usize = 4;
/// Mailboxes named in one event; beyond it the reader is told to look at all.
const MAILBOXES_NAMED_MAX: usize = 100;

/// What has changed since the last event.
#[derive(Default)]
struct News {
    modseq: u64,
    /// `true`: it was made, renamed, deleted, subscribed or shared.
    mailboxes: BTreeMap<MailboxId, bool>,
    /// There are too many to name, or some may have been missed.
    overflow: bool,
    any: bool,
}

impl News {
    fn add(&mut self, change: &Change) {
        self.any = true;
        self.modseq = self.modseq.max(change.modseq.0);
        *self.mailboxes.entry(change.mailbox).or_default() |= change.tree;
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
        let mailboxes = std::mem::take(&mut self.mailboxes);
        let overflow = std::mem::take(&mut self.overflow);
        self.any = false;
        WatchEvent {
            modseq: self.modseq,
            mailboxes: mailboxes.keys().map(|id| id.to_vec().into()).collect(),
            overflow,
            tree_changed: overflow || mailboxes.values().any(|tree| *tree),
        }
    }
}

/// Who follows an account of somebody else.
pub(super) struct Guest {
    group: Arc<Group>,
    account: AccountId,
    guest: AccountId,
    /// What he may see or read, as far as he was told.
    visible: BTreeSet<MailboxId>,
    /// The account's MODSEQ as he was told it.
    modseq: u64,
}

fn is_visible(rights: Rights) -> bool {
    rights.hold(Rights::LOOKUP) || rights.hold(Rights::READ)
}

impl Guest {
    /// Leaves in the news what the guest may hear of.
    async fn sift(&mut self, news: &mut News) {
        let (account, guest) = (self.account, self.guest);
        let named: Vec<MailboxId> = news.mailboxes.keys().copied().collect();
        let overflow = news.overflow;
        let look = move |view: &dyn View| {
            if overflow {
                return Ok(read::granted(view, account, guest)?.into_iter().collect());
            }
            let of = |id: MailboxId| Ok((id, read::rights_of(view, account, id, guest)?));
            named.into_iter().map(of).collect::<Result<Vec<_>, Fault>>()
        };
        let deadline = malle_rt::now() + Duration::from_millis(limits::DEFAULT_DEADLINE_MS);
        let Ok(rights) = self.group.read(Barrier::Local, deadline, look).await else {
            // The group is leaving this node: whoever looks for himself is told what he may know.
            news.lose();
            return;
        };
        if overflow {
            self.visible.clear();
        }
        for (mailbox, rights) in rights {
            let was = match is_visible(rights) {
                true => !self.visible.insert(mailbox),
                false => self.visible.remove(&mailbox),
            };
            if !was && !is_visible(rights) {
                news.mailboxes.remove(&mailbox);
            }
        }
        if news.mailboxes.is_empty() && !overflow {
            // How far the account is says that something happened in it.
            news.modseq = self.modseq;
        }
        self.modseq = news.modseq;
    }
}

/// Follows one account from now on, for its owner or for a `guest`; the first event says where it stands. It ends when its login is `over`.
pub(super) async fn follow(
    group: Arc<Group>,
    account: AccountId,
    guest: Option<AccountId>,
    over: impl Future<Output = ()> + Send + 'static,
) -> Result<mpsc::Receiver<Result<WatchEvent, Status>>, Refused> {
    // Subscribed before the first look, so that nothing falls in between.
    let changes = group.changes();
    let deadline = malle_rt::now() + Duration::from_millis(limits::DEFAULT_DEADLINE_MS);
    let (now, granted) = group
        .read(Barrier::Linearizable, deadline, move |view| {
            let granted = guest.map(|guest| read::granted(view, account, guest));
            Ok((read::account(view, account)?, granted.transpose()?))
        })
        .await?;
    if granted.as_ref().is_some_and(BTreeMap::is_empty) {
        return Err(nothing_granted());
    }
    let now = now.ok_or(shard::Refusal::NoAccount)?;
    let guest = guest.zip(granted).map(|(guest, granted)| Guest {
        group,
        account,
        guest,
        visible: granted
            .into_iter()
            .filter(|(_, rights)| is_visible(*rights))
            .map(|(mailbox, _)| mailbox)
            .collect(),
        modseq: now.modseq.0,
    });
    let (out, events) = mpsc::channel(EVENTS_WAITING);
    let first = News {
        modseq: now.modseq.0,
        any: true,
        ..News::default()
    };
    malle_rt::spawn(async move {
        let over = tokio::select! {
            () = tell(changes, account, first, guest, &out) => false,
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
    mut guest: Option<Guest>,
    out: &mpsc::Sender<Result<WatchEvent, Status>>,
) {
    let heartbeat = Duration::from_millis(limits::WATCH_HEARTBEAT_MS);
    loop {
        if let Some(guest) = &mut guest
            && (news.overflow || !news.mailboxes.is_empty())
        {
            guest.sift(&mut news).await;
            news.any = news.overflow || !news.mailboxes.is_empty();
        }
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
