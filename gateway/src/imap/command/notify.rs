//! NOTIFY (RFC 5465): which changes are told at once, of which mailboxes, also while no command runs.
//!
//! The selected mailbox is told as IDLE tells it. For the others the session keeps what LIST and STATUS would say (one row per
//! mailbox), looks again when something changed, and tells the difference: changes that come quickly one after the other
//! are told together, so nothing overflows. A change that this session made itself in another mailbox is told like everybody's.

use std::collections::BTreeMap;

use malle_client::{Mailbox, MailboxId, ModSeq, Rights, SpecialUse, Uid, WatchEvent};

use super::super::parse::{EventGroup, Events, FetchQuery, MailboxFilter, NotifySet, SequenceSet, StatusItem, Target};
use super::super::respond::{Answer, Failure, Output};
use super::super::session::Session;
use super::super::shared::{OTHERS, is_of_others};
use super::authenticated::tell_status;
use super::changes::{self, Tell};
use super::list::{tell_changed, tell_gone};
use super::listen::{concerns, concerns_all};
use super::{account, fetch, metadata, rights};

/// What the client wants to be told, and what it was told.
pub(in super::super) struct Notifying {
    groups: Vec<EventGroup>,
    known: BTreeMap<MailboxId, Mailbox>,
    /// Changes of METADATA were told up to here; `None` where nobody asked.
    metadata_through: Option<ModSeq>,
}

impl Notifying {
    /// Does the client want anything at all?
    pub(in super::super) fn is_wanted(&self) -> bool {
        self.groups.iter().any(|group| group.events != Events::default())
    }

    /// What it wants of the selected mailbox.
    fn of_selected(&self) -> Option<&EventGroup> {
        let group = self.groups.iter().find(|group| group.filter.is_selected());
        group.filter(|group| group.events.messages)
    }

    /// What is told of the selected mailbox at the end of a command.
    pub(in super::super) fn at_command_end(&self) -> Option<Tell> {
        self.of_selected().map(|group| Tell {
            expunges: true,
            flags: group.events.flags,
        })
    }

    /// Where METADATA may have changed that the client wants to hear of (empty: the account), and since when.
    pub(super) fn metadata_to_look_at(&self, changed: impl Fn(MailboxId) -> bool) -> Option<(Vec<String>, ModSeq)> {
        let since = self.metadata_through?;
        let wanted = |mailbox: &&Mailbox| {
            !mailbox.no_select
                && !is_of_others(&mailbox.name)
                && changed(mailbox.id)
                && self.wants(mailbox, |events| events.metadata)
        };
        let mut names: Vec<String> = self
            .known
            .values()
            .filter(wanted)
            .map(|mailbox| mailbox.name.clone())
            .collect();
        // INBOX brings the news of the account.
        let of_account = |mailbox: &Mailbox| mailbox.special_use == SpecialUse::Inbox && changed(mailbox.id);
        if self.groups.iter().any(|group| group.events.server_metadata) && self.known.values().any(of_account) {
            names.push(String::new());
        }
        Some((names, since))
    }

    pub(super) fn metadata_told(&mut self, through: ModSeq) {
        self.metadata_through = self.metadata_through.max(Some(through));
    }

    fn wants(&self, mailbox: &Mailbox, event: impl Fn(&Events) -> bool) -> bool {
        let mut groups = self.groups.iter();
        groups.any(|group| event(&group.events) && group.filter.holds(mailbox))
    }
}

impl MailboxFilter {
    fn holds(&self, mailbox: &Mailbox) -> bool {
        let below = |top: &String| {
            mailbox
                .name
                .strip_prefix(top.as_str())
                .is_some_and(|rest| rest.starts_with('/'))
        };
        match self {
            MailboxFilter::Selected | MailboxFilter::SelectedDelayed => false,
            // Where deliveries land.
            MailboxFilter::Inboxes => matches!(mailbox.special_use, SpecialUse::Inbox | SpecialUse::Junk),
            MailboxFilter::Personal => !is_of_others(&mailbox.name) && mailbox.name != OTHERS,
            MailboxFilter::Subscribed => mailbox.subscribed,
            MailboxFilter::Subtree(tops) => tops.contains(&mailbox.name) || tops.iter().any(below),
            MailboxFilter::Mailboxes(names) => names.contains(&mailbox.name),
        }
    }
}

/// RFC 5465 3.1.
pub(super) async fn notify(session: &mut Session, set: NotifySet) -> Result<Answer, Failure> {
    if set.groups.iter().any(|group| group.events.unknown) {
        return Err(Failure::no(
            "BADEVENT (MessageNew MessageExpunge FlagChange MailboxName SubscriptionChange MailboxMetadataChange \
             ServerMetadataChange)",
            "There are other events than are known here",
        ));
    }
    let account = account(session)?;
    let mut notifying = Notifying {
        groups: set.groups,
        known: BTreeMap::new(),
        metadata_through: None,
    };
    let of_metadata = |group: &EventGroup| group.events.metadata || group.events.server_metadata;
    if notifying.groups.iter().any(of_metadata) {
        notifying.metadata_through = Some(account.status().await?.modseq);
    }
    if notifying.is_wanted() {
        let mailboxes = account.mailboxes().await?;
        if set.status {
            let out = &mut session.connection.output;
            let selected = session.selected.as_ref().map(|selected| selected.mailbox);
            for mailbox in mailboxes.iter().filter(|mailbox| Some(mailbox.id) != selected) {
                tell_counters(out, &notifying, mailbox);
            }
        }
        notifying.known = by_id(mailboxes);
    }
    session.notify = Some(Box::new(notifying));
    // A new watch begins with an event: what happens from now on is compared with what was told.
    session.listening = None;
    Ok(Answer::ok("Noted"))
}

fn by_id(mailboxes: Vec<Mailbox>) -> BTreeMap<MailboxId, Mailbox> {
    mailboxes.into_iter().map(|mailbox| (mailbox.id, mailbox)).collect()
}

/// Tells what an event is about, as far as it is wanted.
pub(super) async fn tell(session: &mut Session, event: &WatchEvent, before: Option<ModSeq>) -> Result<(), Failure> {
    let Some(notifying) = &session.notify else {
        return Ok(());
    };
    let selected = session.selected.as_ref().map(|selected| selected.mailbox);
    let of_selected = notifying.of_selected().cloned();
    let looks_elsewhere = notifying.groups.iter().any(|group| !group.filter.is_selected());
    let is_elsewhere = event.tree_changed
        || concerns_all(event, before)
        || event.mailboxes.iter().any(|&mailbox| Some(mailbox) != selected);
    if let Some(group) = of_selected
        && selected.is_some()
        && concerns(event, before, selected)
    {
        tell_selected(session, group).await?;
    }
    if looks_elsewhere && is_elsewhere {
        tell_elsewhere(session).await?;
        metadata::tell_changed(session, event, before).await?;
    }
    Ok(())
}

async fn tell_selected(session: &mut Session, group: EventGroup) -> Result<(), Failure> {
    let highest = |session: &Session| session.selected.as_ref().and_then(|selected| selected.view.highest());
    let before = highest(session);
    let tell = Tell {
        expunges: group.filter == MailboxFilter::Selected,
        flags: group.events.flags,
    };
    changes::tell_changes(session, tell).await?;
    if group.events.fetch.is_empty() || highest(session) <= before {
        return Ok(());
    }
    let first = before.map_or(1, |Uid(highest)| highest.saturating_add(1));
    let new = Target {
        by_uid: true,
        set: SequenceSet::Numbers(vec![(Some(first), None)]),
    };
    let query = FetchQuery {
        items: group.events.fetch,
        changed_since: None,
        vanished: false,
        partial: None,
    };
    match fetch::fetch(session, &new, query).await {
        // A new message that cannot be read is no reason not to hear of the next one.
        Ok(_) | Err(Failure::Refused(_)) => Ok(()),
        Err(other) => Err(other),
    }
}

async fn tell_elsewhere(session: &mut Session) -> Result<(), Failure> {
    let mailboxes = account(session)?.mailboxes().await?;
    let selected = session.selected.as_ref().map(|selected| selected.mailbox);
    let Some(notifying) = session.notify.as_mut() else {
        return Ok(());
    };
    let out = &mut session.connection.output;
    let before = std::mem::take(&mut notifying.known);
    for mailbox in &mailboxes {
        let old = before.get(&mailbox.id);
        let wants = |event: fn(&Events) -> bool| {
            notifying.wants(mailbox, event) || old.is_some_and(|old| notifying.wants(old, event))
        };
        let renamed = old.filter(|old| old.name != mailbox.name).map(|old| &*old.name);
        let other_name = renamed.is_some() || old.is_none_or(|old| old.no_select != mailbox.no_select);
        let other_subscription = old.is_some_and(|old| old.subscribed != mailbox.subscribed);
        if (other_name && wants(|events| events.names)) || (other_subscription && wants(|events| events.subscriptions))
        {
            tell_changed(out, &mailboxes, mailbox, renamed);
        }
        let counters = |mailbox: &Mailbox| (mailbox.messages, mailbox.uid_next);
        let has_news = old.is_none_or(|old| counters(old) != counters(mailbox));
        let has_flags = old.is_none_or(|old| old.highest_modseq != mailbox.highest_modseq);
        let is_told = has_news || (has_flags && notifying.wants(mailbox, |events| events.flags));
        if Some(mailbox.id) != selected && is_told {
            tell_counters(out, notifying, mailbox);
        }
    }
    let there: std::collections::BTreeSet<MailboxId> = mailboxes.iter().map(|mailbox| mailbox.id).collect();
    let names: std::collections::BTreeSet<&str> = mailboxes.iter().map(|mailbox| &*mailbox.name).collect();
    let gone = before
        .iter()
        .filter(|(id, _)| !there.contains(id))
        .map(|(_, gone)| gone);
    // Where another one has its name by now, that one has been told.
    for gone in gone.filter(|gone| !names.contains(&*gone.name)) {
        if notifying.wants(gone, |events| events.names) {
            tell_gone(out, &gone.name);
        }
    }
    notifying.known = by_id(mailboxes);
    Ok(())
}

/// STATUS of a mailbox whose messages are wanted (RFC 5465 5.1 to 5.3).
fn tell_counters(out: &mut Output, notifying: &Notifying, mailbox: &Mailbox) {
    if mailbox.no_select || !rights(mailbox).hold(Rights::READ) || !notifying.wants(mailbox, |events| events.messages) {
        return;
    }
    let mut items = vec![
        StatusItem::Messages,
        StatusItem::UidNext,
        StatusItem::UidValidity,
        StatusItem::Unseen,
    ];
    if notifying.wants(mailbox, |events| events.flags) {
        items.push(StatusItem::HighestModSeq);
    }
    tell_status(out, mailbox, &items, 0);
}
