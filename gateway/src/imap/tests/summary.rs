//! A small summary of a well-formed mail, so that the dialogues need no node. The real one is made by the shard at delivery.

use malle_client::{Envelope, InnerMessage, MailAddress, Parameter, Part, Summary};

use super::super::section::fields;

pub(super) fn summary_of(mail: &[u8]) -> Summary {
    let (envelope, root) = message(mail, 0, mail.len());
    let text = String::from_utf8_lossy(&mail[root.body_start as usize..]).into_owned();
    Summary {
        preview: text.lines().next().unwrap_or_default().to_owned(),
        header_bytes: root.body_start,
        envelope: Some(envelope),
        root: Some(root),
    }
}

fn at(offset: usize) -> u32 {
    u32::try_from(offset).unwrap()
}

fn message(mail: &[u8], start: usize, end: usize) -> (Envelope, Part) {
    (envelope(&mail[start..end]), part(mail, start, end))
}

fn field(header: &[u8], wanted: &str) -> Option<String> {
    fields(header).find_map(|field| {
        let text = String::from_utf8_lossy(field).replace("\r\n", "");
        let (name, value) = text.split_once(':')?;
        name.eq_ignore_ascii_case(wanted).then(|| value.trim().to_owned())
    })
}

fn envelope(header: &[u8]) -> Envelope {
    let raw = |name| field(header, name).map(|value| value.into_bytes().into());
    let list = |name| {
        field(header, name)
            .map(|value| value.split(',').map(address).collect())
            .unwrap_or_default()
    };
    Envelope {
        date: raw("Date"),
        subject: raw("Subject"),
        from: list("From"),
        sender: list("Sender"),
        reply_to: list("Reply-To"),
        to: list("To"),
        cc: list("Cc"),
        bcc: list("Bcc"),
        in_reply_to: raw("In-Reply-To"),
        message_id: raw("Message-ID"),
    }
}

fn address(text: &str) -> MailAddress {
    let (name, address) = text.split_once('<').unwrap_or(("", text));
    let (mailbox, host) = address.trim().trim_end_matches('>').split_once('@').unwrap();
    let name = name.trim().trim_matches('"');
    let bytes = |text: &str| Some(text.as_bytes().to_vec().into());
    MailAddress {
        name: if name.is_empty() { None } else { bytes(name) },
        mailbox: bytes(mailbox),
        host: bytes(host),
    }
}

/// `type/subtype; name=value`.
fn with_parameters(value: &str) -> (String, Vec<Parameter>) {
    let mut pieces = value.split(';');
    let head = pieces.next().unwrap().trim().to_owned();
    let parameters = pieces.filter_map(|piece| {
        let (name, value) = piece.trim().split_once('=')?;
        Some(Parameter {
            name: name.to_ascii_uppercase().into_bytes().into(),
            value: value.trim_matches('"').as_bytes().to_vec().into(),
        })
    });
    (head, parameters.collect())
}

fn part(mail: &[u8], start: usize, end: usize) -> Part {
    let body = mail[start..end]
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .map_or(end, |found| start + found + 4);
    let header = &mail[start..body];
    let (kind, parameters) = with_parameters(&field(header, "Content-Type").unwrap_or("text/plain".into()));
    let (kind, subtype) = kind.split_once('/').unwrap();
    let disposition = field(header, "Content-Disposition").map(|value| with_parameters(&value));
    let mut part = Part {
        r#type: kind.to_ascii_uppercase(),
        subtype: subtype.to_ascii_uppercase(),
        encoding: field(header, "Content-Transfer-Encoding")
            .unwrap_or("7bit".into())
            .to_ascii_uppercase(),
        id: field(header, "Content-ID").map(|id| id.into_bytes().into()),
        disposition: disposition.as_ref().map(|(kind, _)| kind.to_ascii_uppercase()),
        disposition_parameters: disposition.map(|(_, parameters)| parameters).unwrap_or_default(),
        header_start: at(start),
        body_start: at(body),
        body_end: at(end),
        lines: at(mail[body..end].iter().filter(|&&byte| byte == b'\n').count()),
        parameters,
        ..Part::default()
    };
    if part.r#type == "MULTIPART" {
        let boundary = part
            .parameters
            .iter()
            .find(|parameter| &*parameter.name == b"BOUNDARY")
            .unwrap();
        let boundary = format!("--{}", String::from_utf8_lossy(&boundary.value));
        part.parts = between(mail, body, end, boundary.as_bytes());
    } else if part.subtype == "RFC822" {
        let (envelope, root) = message(mail, body, end);
        part.message = Some(Box::new(InnerMessage {
            envelope: Some(envelope),
            root: Some(Box::new(root)),
        }));
    }
    part
}

fn between(mail: &[u8], start: usize, end: usize, boundary: &[u8]) -> Vec<Part> {
    let starts: Vec<usize> = (start..end - boundary.len())
        .filter(|&at| mail[at..].starts_with(boundary))
        .collect();
    let bounds = starts
        .windows(2)
        .map(|pair| (pair[0] + boundary.len() + 2, pair[1] - 2));
    bounds.map(|(from, to)| part(mail, from, to)).collect()
}
