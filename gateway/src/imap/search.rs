//! What a SEARCH asks of one message (RFC 3501 6.4.4).
//!
//! A [`Test`] is decided with as little as will do: [`Test::decide`] answers `None` while it needs the row, the header or the whole mail. Texts
//! are compared after RFC 2047 and MIME decoding, as substrings, without letter case and accents ([`folded`]). Not decoded: what is not
//! text/* (a PDF or an Office file is not searched), and the markup of HTML (tags are text). From, To, Cc, Bcc and Subject come from the
//! envelope, so they cost no reading.

use std::time::{SystemTime, UNIX_EPOCH};

use mail_parser::{MessageParser, PartType};
use malle_client::{Envelope, MailAddress, Message, ModSeq};

use super::bodies::Held;
use super::date;
use super::parse::{DayRange, SearchKey};
use super::respond::Failure;
use super::section::fields;
use super::text::{decoded, folded, sent_date};
use super::view::{Picked, View};

/// A mail above this is decoded where it stalls no other session.
const DECODE_INLINE_BYTES: usize = 32 * 1024;
/// Messages inside messages are searched this deep.
const DEPTH_MAX: usize = 10;

/// A search key, ready to be asked. Texts are decoded and folded, numbers applied to the view.
#[derive(Debug)]
pub(super) enum Test {
    All,
    Nothing,
    Flag(u8),
    Keyword(String),
    Envelope(EnvelopeField, String),
    Header(String, String),
    Body(String),
    Text(String),
    Internal(DayRange),
    Sent(DayRange),
    Saved(DayRange),
    Larger(u64),
    Smaller(u64),
    /// INTERNALDATE before this moment in milliseconds.
    Before(u64),
    After(u64),
    ModSeq(ModSeq),
    EmailId(Vec<u8>),
    ThreadId(Vec<u8>),
    Picked(Picked),
    Not(Box<Test>),
    Or(Box<Test>, Box<Test>),
    And(Vec<Test>),
}

/// Fields that the summary holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EnvelopeField {
    From,
    To,
    Cc,
    Bcc,
    Subject,
}

/// How much of a message must be read when its row does not decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Need {
    Row,
    Header,
    Body,
}

/// What is known of the message so far.
pub(super) struct Candidate<'a> {
    pub(super) index: usize,
    pub(super) message: Option<&'a Message>,
    pub(super) content: Option<&'a Content>,
}

impl Candidate<'_> {
    pub(super) fn numbered(index: usize) -> Candidate<'static> {
        Candidate {
            index,
            message: None,
            content: None,
        }
    }
}

/// The texts of a mail, decoded and folded.
#[derive(Debug, Default)]
pub(super) struct Content {
    /// Names in lower case.
    fields: Vec<(String, String)>,
    /// `None`: only the header was read.
    body: Option<Vec<String>>,
}

/// Makes a test of the keys, which all must hold.
pub(super) fn compile(keys: Vec<SearchKey>, view: &View) -> Result<Test, Failure> {
    let mut tests = keys
        .into_iter()
        .map(|key| test(key, view))
        .collect::<Result<Vec<_>, _>>()?;
    // Cheap ones first: one that fails spares the rest.
    tests.sort_by_key(Test::need);
    Ok(Test::And(tests))
}

fn test(key: SearchKey, view: &View) -> Result<Test, Failure> {
    Ok(match key {
        SearchKey::All | SearchKey::SaveDateSupported => Test::All,
        SearchKey::Nothing => Test::Nothing,
        SearchKey::Flag(bit) => Test::Flag(bit),
        SearchKey::Keyword(keyword) => Test::Keyword(keyword),
        SearchKey::Header { field, text } => header_test(&field, folded_argument(text)?),
        SearchKey::Body(text) => Test::Body(folded_argument(text)?),
        SearchKey::Text(text) => Test::Text(folded_argument(text)?),
        SearchKey::Internal(range) => Test::Internal(range),
        SearchKey::Sent(range) => Test::Sent(range),
        SearchKey::Saved(range) => Test::Saved(range),
        SearchKey::Larger(bytes) => Test::Larger(bytes),
        SearchKey::Smaller(bytes) => Test::Smaller(bytes),
        SearchKey::Older(seconds) => Test::Before(moment_before_now(seconds)),
        SearchKey::Younger(seconds) => Test::After(moment_before_now(seconds)),
        SearchKey::ModSeq(modseq) => Test::ModSeq(modseq),
        SearchKey::EmailId(id) => Test::EmailId(id),
        SearchKey::ThreadId(id) => Test::ThreadId(id),
        SearchKey::Numbers(target) => {
            let picked = view
                .pick(&target)
                .map_err(|_| Failure::bad("There is no message with this number"))?;
            Test::Picked(picked)
        }
        SearchKey::Not(key) => Test::Not(Box::new(test(*key, view)?)),
        SearchKey::Or(left, right) => Test::Or(Box::new(test(*left, view)?), Box::new(test(*right, view)?)),
        SearchKey::And(keys) => compile(keys, view)?,
    })
}

fn folded_argument(text: Vec<u8>) -> Result<String, Failure> {
    let text = String::from_utf8(text).map_err(|_| Failure::bad("The search text is not UTF-8"))?;
    Ok(folded(&text))
}

fn header_test(field: &[u8], text: String) -> Test {
    let field = String::from_utf8_lossy(field).to_lowercase();
    match field.as_str() {
        "from" => Test::Envelope(EnvelopeField::From, text),
        "to" => Test::Envelope(EnvelopeField::To, text),
        "cc" => Test::Envelope(EnvelopeField::Cc, text),
        "bcc" => Test::Envelope(EnvelopeField::Bcc, text),
        "subject" => Test::Envelope(EnvelopeField::Subject, text),
        _ => Test::Header(field, text),
    }
}

/// RFC 5032 counts from the server's now.
fn moment_before_now(seconds: u32) -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis());
    u64::try_from(now)
        .unwrap_or(u64::MAX)
        .saturating_sub(u64::from(seconds) * 1000)
}

fn in_range(range: DayRange, day: i64) -> bool {
    range.first.is_none_or(|first| day >= first) && range.end.is_none_or(|end| day < end)
}

impl Test {
    /// Whether the message matches; `None` when that takes more than `candidate` has.
    pub(super) fn decide(&self, candidate: &Candidate) -> Option<bool> {
        match self {
            Test::All => Some(true),
            Test::Nothing => Some(false),
            Test::Picked(picked) => Some(picked.contains(candidate.index)),
            Test::Not(inner) => inner.decide(candidate).map(|holds| !holds),
            Test::Or(left, right) => match (left.decide(candidate), right.decide(candidate)) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), Some(false)) => Some(false),
                _ => None,
            },
            Test::And(tests) => {
                let mut all = Some(true);
                for test in tests {
                    match test.decide(candidate) {
                        Some(false) => return Some(false),
                        Some(true) => {}
                        None => all = None,
                    }
                }
                all
            }
            Test::Header(..) | Test::Body(_) | Test::Text(_) => self.decide_by_content(candidate.content?),
            _ => self.decide_by_row(candidate.message?),
        }
    }

    fn decide_by_row(&self, message: &Message) -> Option<bool> {
        let envelope = || message.summary.as_ref()?.envelope.as_ref();
        Some(match self {
            Test::Flag(bit) => message.flags.system & bit != 0,
            Test::Keyword(keyword) => message
                .flags
                .keywords
                .iter()
                .any(|has| has.eq_ignore_ascii_case(keyword)),
            Test::Envelope(field, text) => envelope().is_some_and(|envelope| field.contains(envelope, text)),
            Test::Internal(range) => in_range(
                *range,
                date::day_in_zone(message.internal_date_ms, message.internal_date_zone_minutes),
            ),
            Test::Saved(range) => in_range(*range, date::day_in_zone(message.save_date_ms, 0)),
            Test::Sent(range) => {
                let day = envelope().and_then(|envelope| sent_day(envelope.date.as_deref()?));
                day.is_some_and(|day| in_range(*range, day))
            }
            Test::Larger(bytes) => message.size_bytes > *bytes,
            Test::Smaller(bytes) => message.size_bytes < *bytes,
            Test::Before(moment_ms) => message.internal_date_ms <= *moment_ms,
            Test::After(moment_ms) => message.internal_date_ms >= *moment_ms,
            Test::ModSeq(modseq) => message.modseq >= *modseq,
            Test::EmailId(id) => message.email_id.to_string().as_bytes() == id,
            Test::ThreadId(id) => message.thread_id.to_string().as_bytes() == id,
            _ => return None,
        })
    }

    fn decide_by_content(&self, content: &Content) -> Option<bool> {
        let body_contains = |text: &str| {
            content
                .body
                .as_ref()
                .map(|body| body.iter().any(|part| part.contains(text)))
        };
        match self {
            Test::Header(name, text) => Some(
                content
                    .fields
                    .iter()
                    .any(|(field, value)| field == name && value.contains(text.as_str())),
            ),
            Test::Body(text) => body_contains(text),
            Test::Text(text) => {
                let in_header = content.fields.iter().any(|(name, value)| {
                    value.contains(text.as_str()) || format!("{name}: {value}").contains(text.as_str())
                });
                if in_header { Some(true) } else { body_contains(text) }
            }
            _ => None,
        }
    }

    /// How much must be read at most.
    pub(super) fn need(&self) -> Need {
        match self {
            Test::Header(..) => Need::Header,
            Test::Body(_) | Test::Text(_) => Need::Body,
            Test::Not(inner) => inner.need(),
            Test::Or(left, right) => left.need().max(right.need()),
            Test::And(tests) => tests.iter().map(Test::need).max().unwrap_or(Need::Row),
            _ => Need::Row,
        }
    }

    /// Does the row's summary take part?
    pub(super) fn needs_summary(&self) -> bool {
        self.any(&|test| matches!(test, Test::Envelope(..) | Test::Sent(_) | Test::Header(..)))
    }

    /// MODSEQ was asked for: the answer tells the highest one found (RFC 7162 3.1.5).
    pub(super) fn asks_modseq(&self) -> bool {
        self.any(&|test| matches!(test, Test::ModSeq(_)))
    }

    fn any(&self, holds: &dyn Fn(&Test) -> bool) -> bool {
        match self {
            Test::Not(inner) => inner.any(holds),
            Test::Or(left, right) => left.any(holds) || right.any(holds),
            Test::And(tests) => tests.iter().any(|test| test.any(holds)),
            other => holds(other),
        }
    }
}

impl EnvelopeField {
    fn contains(self, envelope: &Envelope, text: &str) -> bool {
        let addresses = match self {
            EnvelopeField::Subject => {
                return envelope
                    .subject
                    .as_ref()
                    .is_some_and(|subject| folded(&decoded(subject)).contains(text));
            }
            EnvelopeField::From => &envelope.from,
            EnvelopeField::To => &envelope.to,
            EnvelopeField::Cc => &envelope.cc,
            EnvelopeField::Bcc => &envelope.bcc,
        };
        addresses
            .iter()
            .any(|address| folded(&address_text(address)).contains(text))
    }
}

/// `name <mailbox@host>`.
fn address_text(address: &MailAddress) -> String {
    let text = |bytes: Option<&[u8]>| bytes.map(decoded).unwrap_or_default();
    let (name, mailbox) = (text(address.name.as_deref()), text(address.mailbox.as_deref()));
    format!("{name} <{mailbox}@{}>", text(address.host.as_deref()))
}

/// The day that a Date field names, in its own zone.
fn sent_day(raw: &[u8]) -> Option<i64> {
    let date = sent_date(raw)?;
    date::days(i64::from(date.year), u32::from(date.month), u32::from(date.day))
}

/// Decodes a header, or a `whole` mail.
pub(super) async fn content(held: Held, whole: bool) -> Content {
    if held.bytes.len() <= DECODE_INLINE_BYTES {
        return decode(&held.bytes, whole);
    }
    // A mail that the decoder cannot bear matches nothing, and its session goes on.
    let decoding = tokio::task::spawn_blocking(move || decode(&held.bytes, whole));
    decoding.await.unwrap_or_else(|error| {
        tracing::error!(%error, "a mail could not be decoded for SEARCH");
        Content {
            body: Some(Vec::new()),
            ..Content::default()
        }
    })
}

fn decode(bytes: &[u8], whole: bool) -> Content {
    let mut content = Content::default();
    for field in fields(bytes) {
        let Some(colon) = field.iter().position(|&byte| byte == b':') else {
            continue;
        };
        let name = String::from_utf8_lossy(field[..colon].trim_ascii()).to_lowercase();
        content.fields.push((name, folded(&unfolded(&field[colon + 1..]))));
    }
    if whole {
        let mut texts = Vec::new();
        match MessageParser::default().parse(bytes) {
            Some(message) => collect_texts(&message, 0, &mut texts),
            None => texts.push(folded(&String::from_utf8_lossy(bytes))),
        }
        content.body = Some(texts);
    }
    content
}

fn unfolded(value: &[u8]) -> String {
    let flat: Vec<u8> = value
        .iter()
        .copied()
        .filter(|byte| !matches!(byte, b'\r' | b'\n'))
        .collect();
    decoded(flat.trim_ascii())
}

fn collect_texts(message: &mail_parser::Message, depth: usize, texts: &mut Vec<String>) {
    for part in &message.parts {
        match &part.body {
            PartType::Text(text) | PartType::Html(text) => texts.push(folded(text)),
            PartType::Message(inner) if depth < DEPTH_MAX => {
                texts.extend(
                    inner
                        .headers_raw()
                        .map(|(_, value)| folded(&unfolded(value.as_bytes()))),
                );
                collect_texts(inner, depth + 1, texts);
            }
            _ => {}
        }
    }
}
