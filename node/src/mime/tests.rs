//! Mails and what is to be found in them, then what holds for every mail, honest or not.

mod corpus;
mod hostile;

use malle_proto::limits;
use malle_proto::v1::{Envelope, Part, Summary};
use prost::Message as _;

use super::summarize;

/// The structure of a mail in one line: `TYPE/SUBTYPE{parameters}ENCODING:lines"content"`, parts in brackets, an inner message after
/// `=>`. Content is shown escaped, cut after 40 bytes.
fn shown(message: &[u8], part: &Part) -> String {
    let parameters = |list: &[malle_proto::v1::Parameter]| {
        let pairs: Vec<String> = list
            .iter()
            .map(|p| format!("{}={}", p.name.escape_ascii(), p.value.escape_ascii()))
            .collect();
        if pairs.is_empty() {
            String::new()
        } else {
            format!("{{{}}}", pairs.join(" "))
        }
    };
    let mut out = format!("{}/{}{}", part.r#type, part.subtype, parameters(&part.parameters));
    if let Some(kind) = &part.disposition {
        out += &format!("<{kind}{}>", parameters(&part.disposition_parameters));
    }
    let content = &message[part.body_start as usize..part.body_end as usize];
    if let Some(inner) = &part.message {
        let subject = inner
            .envelope
            .as_ref()
            .and_then(|envelope| envelope.subject.clone())
            .unwrap_or_default();
        let root = inner.root.as_ref().expect("an inner message has a root");
        return format!(
            "{out}:{}=>'{}' {}",
            part.lines,
            subject.escape_ascii(),
            shown(message, root)
        );
    }
    if !part.parts.is_empty() {
        let parts: Vec<String> = part.parts.iter().map(|inner| shown(message, inner)).collect();
        return format!("{out}[{}]", parts.join(", "));
    }
    let cut = &content[..content.len().min(40)];
    format!("{out} {}:{}\"{}\"", part.encoding, part.lines, cut.escape_ascii())
}

/// What holds for the summary of any mail.
fn check(message: &[u8]) -> Summary {
    let found = summarize(message);
    let summary = found.summary;
    let root = summary.root.as_ref().expect("every mail has a root part");
    assert_eq!((root.header_start, root.body_end as usize), (0, message.len()));
    assert_eq!(summary.header_bytes, root.body_start);
    let parts = count(root);
    assert!(parts <= limits::MIME_PARTS_MAX, "{parts} parts");
    // The last part of so many takes the rest in, whatever stands there.
    check_part(message, root, 1, parts == limits::MIME_PARTS_MAX);
    check_envelope(summary.envelope.as_ref().expect("every mail has an envelope"));
    assert!(summary.preview.chars().count() <= limits::PREVIEW_MAX_CHARS);
    assert!(!summary.preview.chars().any(char::is_control));
    assert!(found.thread_keys.len() <= 1 + limits::THREAD_REFERENCES_MAX);
    let encoded = summary.encode_to_vec();
    assert!(
        encoded.len() < limits::SUMMARY_MAX_BYTES,
        "a summary of {} bytes",
        encoded.len()
    );
    assert_eq!(
        Summary::decode(encoded.as_slice()).unwrap(),
        summary,
        "what is kept can be read"
    );
    summary
}

/// Parts of a tree, inner messages included.
fn count(part: &Part) -> usize {
    let inner = part.message.iter().filter_map(|message| message.root.as_deref());
    1 + part.parts.iter().chain(inner).map(count).sum::<usize>()
}

fn check_part(message: &[u8], part: &Part, depth: usize, full: bool) {
    assert!(depth <= limits::MIME_DEPTH_MAX);
    assert!(part.header_start <= part.body_start && part.body_start <= part.body_end);
    assert!(part.body_end as usize <= message.len());
    let upper = |text: &str| !text.is_empty() && text.is_ascii() && text == text.to_ascii_uppercase();
    assert!(
        upper(&part.r#type) && upper(&part.subtype) && upper(&part.encoding),
        "{part:?}"
    );
    let header = &message[part.header_start as usize..part.body_start as usize];
    if part.body_end > part.body_start && !full {
        let ends = header == b"\n" || header == b"\r\n" || header.ends_with(b"\n\n") || header.ends_with(b"\n\r\n");
        assert!(
            ends,
            "a body has an empty line before it: {}",
            header[..header.len().min(2_000)].escape_ascii()
        );
    }
    let content = &message[part.body_start as usize..part.body_end as usize];
    if matches!(part.r#type.as_str(), "TEXT" | "MESSAGE") {
        let unfinished = usize::from(!content.is_empty() && !content.ends_with(b"\n"));
        let lines = content.iter().filter(|byte| **byte == b'\n').count() + unfinished;
        assert_eq!(
            part.lines as usize,
            lines,
            "{}",
            content[..content.len().min(2_000)].escape_ascii()
        );
    }
    assert_eq!(
        part.r#type == "MULTIPART",
        !part.parts.is_empty(),
        "a multipart has parts, nothing else has"
    );
    let inner = matches!(
        (part.r#type.as_str(), part.subtype.as_str()),
        ("MESSAGE", "RFC822" | "GLOBAL")
    );
    assert_eq!(
        inner,
        part.message.is_some(),
        "a message/rfc822 has its message, nothing else has"
    );
    let mut at = part.body_start;
    for child in &part.parts {
        assert!(
            child.header_start >= at && child.body_end <= part.body_end,
            "parts lie one after the other, inside"
        );
        at = child.body_end;
        check_part(message, child, depth + 1, full);
    }
    if let Some(inner) = &part.message {
        let root = inner.root.as_ref().expect("an inner message has a root");
        assert_eq!((root.header_start, root.body_end), (part.body_start, part.body_end));
        check_envelope(inner.envelope.as_ref().expect("an inner message has an envelope"));
        check_part(message, root, depth + 1, full);
    }
}

fn check_envelope(envelope: &Envelope) {
    let texts = [
        &envelope.date,
        &envelope.subject,
        &envelope.in_reply_to,
        &envelope.message_id,
    ];
    for text in texts.into_iter().flatten() {
        assert!(text.len() <= limits::SUMMARY_TEXT_MAX_BYTES);
        assert!(
            !text.iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n')),
            "{}",
            text.escape_ascii()
        );
    }
    for list in [
        &envelope.from,
        &envelope.sender,
        &envelope.reply_to,
        &envelope.to,
        &envelope.cc,
        &envelope.bcc,
    ] {
        assert!(list.len() <= limits::SUMMARY_ADDRESSES_MAX);
        for address in list {
            assert!(address.host.is_none() || address.mailbox.is_some());
        }
    }
}
