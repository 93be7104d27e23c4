//! NOTIFY (RFC 5465 8).

use super::ast::{Body, EventGroup, Events, MailboxFilter, NotifySet};
use super::lex::{Cursor, Refusal};
use super::{fetch, mailbox};

/// `NONE`, or `SET [STATUS] (filter events) ...`.
pub(super) fn notify(cursor: &mut Cursor) -> Result<Body, Refusal> {
    cursor.space()?;
    if cursor.eat_word("NONE") {
        return Ok(Body::Notify(NotifySet::default()));
    }
    if !cursor.eat_word("SET") {
        return Err(Refusal("expected SET or NONE"));
    }
    cursor.space()?;
    let mut set = NotifySet {
        status: cursor.eat_word("STATUS"),
        groups: Vec::new(),
    };
    if set.status {
        cursor.space()?;
    }
    loop {
        set.groups.push(group(cursor)?);
        cursor.bounded(set.groups.len())?;
        if cursor.at_end() {
            break;
        }
        cursor.space()?;
    }
    let of_selected = set.groups.iter().filter(|group| group.filter.is_selected()).count();
    if of_selected > 1 {
        return Err(Refusal("SELECTED or SELECTED-DELAYED may stand once"));
    }
    Ok(Body::Notify(set))
}

fn group(cursor: &mut Cursor) -> Result<EventGroup, Refusal> {
    cursor.expect(b'(', "expected mailboxes and events in parentheses")?;
    let filter = match cursor.word()?.as_str() {
        "SELECTED" => MailboxFilter::Selected,
        "SELECTED-DELAYED" => MailboxFilter::SelectedDelayed,
        "INBOXES" => MailboxFilter::Inboxes,
        "PERSONAL" => MailboxFilter::Personal,
        "SUBSCRIBED" => MailboxFilter::Subscribed,
        "SUBTREE" => MailboxFilter::Subtree(names(cursor)?),
        "MAILBOXES" => MailboxFilter::Mailboxes(names(cursor)?),
        _ => return Err(Refusal("unknown mailboxes in NOTIFY")),
    };
    cursor.space()?;
    let mut events = Events::default();
    if !cursor.eat_word("NONE") {
        let mut named = Named::default();
        cursor.list(|cursor| event(cursor, &mut events, &mut named))?;
        // One without the other would leave the client with wrong numbers (RFC 5465 5).
        if named.new != named.expunge || (events.flags && !named.new) {
            return Err(Refusal(
                "MessageNew, MessageExpunge and what builds on them go together",
            ));
        }
        events.messages = named.new;
    }
    cursor.expect(b')', "expected a closing parenthesis")?;
    let of_tree = events.names || events.subscriptions || events.metadata || events.server_metadata;
    if filter.is_selected() && of_tree {
        return Err(Refusal("only events of messages happen in the selected mailbox"));
    }
    if !filter.is_selected() && !events.fetch.is_empty() {
        return Err(Refusal("only in the selected mailbox can new messages be fetched"));
    }
    Ok(EventGroup { filter, events })
}

/// Which of the two that go together were named.
#[derive(Default)]
struct Named {
    new: bool,
    expunge: bool,
}

fn event(cursor: &mut Cursor, events: &mut Events, named: &mut Named) -> Result<(), Refusal> {
    match cursor.word()?.as_str() {
        "MESSAGENEW" => {
            named.new = true;
            if cursor.eat_text(b" (") {
                events.fetch = fetch::rest_of_items(cursor)?;
            }
        }
        "MESSAGEEXPUNGE" => named.expunge = true,
        "FLAGCHANGE" => events.flags = true,
        "MAILBOXNAME" => events.names = true,
        "SUBSCRIPTIONCHANGE" => events.subscriptions = true,
        "MAILBOXMETADATACHANGE" => events.metadata = true,
        "SERVERMETADATACHANGE" => events.server_metadata = true,
        _ => events.unknown = true,
    }
    Ok(())
}

/// `SP mailbox` or `SP "(" mailbox *(SP mailbox) ")"`.
fn names(cursor: &mut Cursor) -> Result<Vec<String>, Refusal> {
    cursor.space()?;
    let mut names = Vec::new();
    if cursor.peek() == Some(b'(') {
        cursor.list(|cursor| {
            names.push(mailbox::mailbox_name(cursor)?);
            Ok(())
        })?;
    } else {
        names.push(mailbox::mailbox_name(cursor)?);
    }
    if names.is_empty() {
        return Err(Refusal("expected a mailbox"));
    }
    Ok(names)
}
