//! The ENVELOPE of RFC 9051 7.5.2.

use bytes::Bytes;
use malle_proto::limits::SUMMARY_TEXT_MAX_BYTES;
use malle_proto::v1::{Envelope, MailAddress};

use super::address;
use super::allowance::Allowance;
use super::fields::{Fields, Name};

/// The envelope of a message with this header. Sender and Reply-To without any address are those of From, as RFC 9051 wants.
pub fn envelope(fields: &Fields<'_>, allowance: &mut Allowance) -> Envelope {
    let from = list(fields, Name::From, allowance);
    let or_from = |name: Name, allowance: &mut Allowance| {
        let found = list(fields, name, allowance);
        if found.is_empty() {
            again(&from, allowance)
        } else {
            found
        }
    };
    Envelope {
        date: text(fields, Name::Date, allowance),
        subject: text(fields, Name::Subject, allowance),
        sender: or_from(Name::Sender, allowance),
        reply_to: or_from(Name::ReplyTo, allowance),
        to: list(fields, Name::To, allowance),
        cc: list(fields, Name::Cc, allowance),
        bcc: list(fields, Name::Bcc, allowance),
        in_reply_to: text(fields, Name::InReplyTo, allowance),
        message_id: text(fields, Name::MessageId, allowance),
        from,
    }
}

/// The text of a field, paid for; `None` when there is no such field or nothing left to pay it with.
pub fn text(fields: &Fields<'_>, name: Name, allowance: &mut Allowance) -> Option<Bytes> {
    // Twice the length that is kept: what folding and blanks take away is rarely more.
    fields
        .text(name, 2 * SUMMARY_TEXT_MAX_BYTES)
        .and_then(|text| allowance.text(text))
}

fn list(fields: &Fields<'_>, name: Name, allowance: &mut Allowance) -> Vec<MailAddress> {
    fields
        .raw(name)
        .map(|raw| address::parse(raw, allowance))
        .unwrap_or_default()
}

/// A second copy of a list, paid for like the first.
fn again(list: &[MailAddress], allowance: &mut Allowance) -> Vec<MailAddress> {
    let mut copy = Vec::with_capacity(list.len());
    for address in list {
        let texts = [&address.name, &address.mailbox, &address.host];
        if !texts.into_iter().flatten().all(|text| allowance.pay(text.len())) {
            break;
        }
        copy.push(address.clone());
    }
    copy
}
