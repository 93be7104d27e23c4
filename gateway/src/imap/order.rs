//! The order of messages in SORT (RFC 5256 3, RFC 5957): keys from rows, no mail is read.

use std::cmp::Ordering;

use malle_client::{Envelope, MailAddress, Message};

use super::parse::{SortBy, SortKey};
use super::text::{SortText, base_subject, decoded, sent_date};

/// What one criterion compares.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Value {
    Number(i64),
    Text(SortText),
}

/// The values of a message, one for each criterion.
pub(super) fn values(message: &Message, order: &[SortKey]) -> Vec<Value> {
    let nothing = Envelope::default();
    let envelope = message.summary.as_ref().and_then(|summary| summary.envelope.as_ref());
    let envelope = envelope.unwrap_or(&nothing);
    order.iter().map(|key| value(message, envelope, key.by)).collect()
}

fn value(message: &Message, envelope: &Envelope, by: SortBy) -> Value {
    let text = |text: String| Value::Text(SortText::new(&text));
    match by {
        SortBy::Arrival => Value::Number(i64::try_from(message.internal_date_ms).unwrap_or(i64::MAX)),
        SortBy::Date => Value::Number(sent_ms(message)),
        SortBy::Size => Value::Number(i64::try_from(message.size_bytes).unwrap_or(i64::MAX)),
        SortBy::Subject => text(base_subject(&subject(envelope)).0),
        SortBy::Cc => text(mailbox(&envelope.cc)),
        SortBy::From => text(mailbox(&envelope.from)),
        SortBy::To => text(mailbox(&envelope.to)),
        SortBy::DisplayFrom => text(display(&envelope.from)),
        SortBy::DisplayTo => text(display(&envelope.to)),
    }
}

/// Which of two messages comes first; equal ones keep the order of the mailbox.
pub(super) fn compare(left: &[Value], right: &[Value], order: &[SortKey]) -> Ordering {
    let mut keys = order.iter().zip(left.iter().zip(right));
    keys.find_map(|(key, (left, right))| {
        let ordering = left.cmp(right);
        let ordering = if key.reverse { ordering.reverse() } else { ordering };
        (ordering != Ordering::Equal).then_some(ordering)
    })
    .unwrap_or(Ordering::Equal)
}

/// When the message was sent, in milliseconds since 1970; where it does not say so, when it came (RFC 5256 2.2).
pub(super) fn sent_ms(message: &Message) -> i64 {
    let envelope = message.summary.as_ref().and_then(|summary| summary.envelope.as_ref());
    let date = envelope.and_then(|envelope| sent_date(envelope.date.as_deref()?));
    match date {
        Some(date) => date.to_timestamp().saturating_mul(1000),
        None => i64::try_from(message.internal_date_ms).unwrap_or(i64::MAX),
    }
}

/// The decoded subject; empty when there is none.
pub(super) fn subject(envelope: &Envelope) -> String {
    envelope.subject.as_deref().map(decoded).unwrap_or_default()
}

/// The local part of the first address.
fn mailbox(addresses: &[MailAddress]) -> String {
    let first = addresses.first().and_then(|address| address.mailbox.as_deref());
    first.map(decoded).unwrap_or_default()
}

/// What a person sees of the first address (RFC 5957 3).
fn display(addresses: &[MailAddress]) -> String {
    let Some(first) = addresses.first() else {
        return String::new();
    };
    let text = |bytes: Option<&[u8]>| bytes.map(decoded).unwrap_or_default();
    let name = text(first.name.as_deref());
    if !name.trim().is_empty() {
        return name;
    }
    match first.host.as_deref() {
        Some(host) => format!("{}@{}", text(first.mailbox.as_deref()), decoded(host)),
        None => text(first.mailbox.as_deref()),
    }
}
