//! ENVELOPE, BODY and BODYSTRUCTURE (RFC 3501 7.4.2) from the summary that was made at delivery: no mail is read for them.

use malle_client::{Envelope, MailAddress, Parameter, Part};

use super::respond::Output;

/// The summary nests at most `limits::MIME_DEPTH_MAX` deep; a deeper one is damage, and is cut here rather than followed.
const DEPTH_MAX: usize = malle_proto::limits::MIME_DEPTH_MAX * 2 + 2;

/// `envelope`: ten fields. Without Sender or Reply-To the From stands in (RFC 3501 7.4.2).
pub(super) fn envelope(out: &mut Output, envelope: &Envelope) {
    out.raw(b"(");
    out.nstring(envelope.date.as_deref());
    out.raw(b" ");
    out.nstring(envelope.subject.as_deref());
    let or_from = |list: &'_ Vec<MailAddress>| {
        if list.is_empty() {
            envelope.from.clone()
        } else {
            list.clone()
        }
    };
    for list in [&envelope.from, &or_from(&envelope.sender), &or_from(&envelope.reply_to)] {
        out.raw(b" ");
        addresses(out, list);
    }
    for list in [&envelope.to, &envelope.cc, &envelope.bcc] {
        out.raw(b" ");
        addresses(out, list);
    }
    out.raw(b" ");
    out.nstring(envelope.in_reply_to.as_deref());
    out.raw(b" ");
    out.nstring(envelope.message_id.as_deref());
    out.raw(b")");
}

fn addresses(out: &mut Output, list: &[MailAddress]) {
    if list.is_empty() {
        return out.raw(b"NIL");
    }
    out.raw(b"(");
    for address in list {
        out.raw(b"(");
        out.nstring(address.name.as_deref());
        // Source routes are gone since RFC 2822.
        out.raw(b" NIL ");
        out.nstring(address.mailbox.as_deref());
        out.raw(b" ");
        out.nstring(address.host.as_deref());
        out.raw(b")");
    }
    out.raw(b")");
}

/// `body`: with extension data for BODYSTRUCTURE, without for BODY.
pub(super) fn body(out: &mut Output, part: &Part, extended: bool) {
    write_part(out, part, extended, 0);
}

fn write_part(out: &mut Output, part: &Part, extended: bool, depth: usize) {
    out.raw(b"(");
    if part.r#type == "MULTIPART" {
        multipart(out, part, extended, depth);
    } else {
        single_part(out, part, extended, depth);
    }
    out.raw(b")");
}

fn multipart(out: &mut Output, part: &Part, extended: bool, depth: usize) {
    if part.parts.is_empty() || depth >= DEPTH_MAX {
        // The grammar wants a part at least.
        out.raw(b"(\"TEXT\" \"PLAIN\" NIL NIL NIL \"7BIT\" 0 0)");
    } else {
        for inner in &part.parts {
            write_part(out, inner, extended, depth + 1);
        }
    }
    out.raw(b" ");
    out.string(part.subtype.as_bytes());
    if extended {
        out.raw(b" ");
        parameters(out, &part.parameters);
        extension(out, part);
    }
}

fn single_part(out: &mut Output, part: &Part, extended: bool, depth: usize) {
    let inner = part
        .message
        .as_ref()
        .and_then(|inner| Some((inner.envelope.as_ref()?, inner.root.as_ref()?)));
    let inner = inner.filter(|_| depth < DEPTH_MAX && is_message(part));
    // A message whose inside is not described would lack the fields that its type asks for.
    let (r#type, subtype) = if is_message(part) && inner.is_none() {
        ("APPLICATION", "OCTET-STREAM")
    } else {
        (&*part.r#type, &*part.subtype)
    };
    out.string(r#type.as_bytes());
    out.raw(b" ");
    out.string(subtype.as_bytes());
    out.raw(b" ");
    parameters(out, &part.parameters);
    out.raw(b" ");
    out.nstring(part.id.as_deref());
    out.raw(b" ");
    out.nstring(part.description.as_deref());
    out.raw(b" ");
    out.string(part.encoding.as_bytes());
    out.put(format_args!(" {}", part.body_end.saturating_sub(part.body_start)));
    if let Some((inner_envelope, inner_root)) = inner {
        out.raw(b" ");
        envelope(out, inner_envelope);
        out.raw(b" ");
        write_part(out, inner_root, extended, depth + 1);
        out.put(format_args!(" {}", part.lines));
    } else if r#type == "TEXT" {
        out.put(format_args!(" {}", part.lines));
    }
    if extended {
        out.raw(b" ");
        out.nstring(part.md5.as_deref());
        extension(out, part);
    }
}

/// Is this a message that carries a message (RFC 2046 5.2.1, RFC 6532)?
pub(super) fn is_message(part: &Part) -> bool {
    part.r#type == "MESSAGE" && matches!(&*part.subtype, "RFC822" | "GLOBAL")
}

/// Disposition, language, location.
fn extension(out: &mut Output, part: &Part) {
    out.raw(b" ");
    match &part.disposition {
        Some(disposition) => {
            out.raw(b"(");
            out.string(disposition.as_bytes());
            out.raw(b" ");
            parameters(out, &part.disposition_parameters);
            out.raw(b")");
        }
        None => out.raw(b"NIL"),
    }
    out.raw(b" ");
    match part.language.as_slice() {
        [] => out.raw(b"NIL"),
        [one] => out.string(one.as_bytes()),
        several => {
            out.raw(b"(");
            for (index, language) in several.iter().enumerate() {
                if index > 0 {
                    out.raw(b" ");
                }
                out.string(language.as_bytes());
            }
            out.raw(b")");
        }
    }
    out.raw(b" ");
    out.nstring(part.location.as_deref());
}

fn parameters(out: &mut Output, parameters: &[Parameter]) {
    if parameters.is_empty() {
        return out.raw(b"NIL");
    }
    out.raw(b"(");
    for (index, parameter) in parameters.iter().enumerate() {
        if index > 0 {
            out.raw(b" ");
        }
        out.string(&parameter.name);
        out.raw(b" ");
        out.string(&parameter.value);
    }
    out.raw(b")");
}
