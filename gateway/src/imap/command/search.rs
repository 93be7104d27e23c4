//! SEARCH and UID SEARCH (RFC 3501 6.4.4): first by number alone, then by rows, and only for what is still open by reading mails.

use malle_client::{Message, ModSeq, Uid, UidRange};
use malle_proto::limits;

use super::super::bodies::Reader;
use super::super::parse::SearchQuery;
use super::super::respond::{Answer, Failure};
use super::super::search::{Candidate, Content, Need, Test, compile, content};
use super::super::session::Session;
use super::fetch::ranges_from;
use super::mailbox;
use super::selected::ANY_MODSEQ;

/// What SEARCH answers.
#[derive(Default)]
struct Found {
    /// Indexes in the view.
    indexes: Vec<usize>,
    highest_modseq: ModSeq,
}

pub(super) async fn search(session: &mut Session, by_uid: bool, query: SearchQuery) -> Result<Answer, Failure> {
    if query
        .charset
        .as_deref()
        .is_some_and(|charset| !matches!(charset, "US-ASCII" | "UTF-8"))
    {
        return Err(Failure::no("BADCHARSET (US-ASCII UTF-8)", "Search in UTF-8"));
    }
    let memory = session.context.memory.clone();
    let (account, selected) = mailbox(session)?;
    let test = compile(query.keys, &selected.view)?;
    let asks_modseq = test.asks_modseq();
    let mut found = Found::default();
    let mut open: Vec<UidRange> = Vec::new();
    for index in 0..selected.view.len() {
        match test.decide(&Candidate::numbered(index)) {
            Some(true) if !asks_modseq => found.indexes.push(index),
            Some(false) => {}
            _ => push(&mut open, selected.view.uid(index)),
        }
    }
    let reader = Reader {
        account,
        mailbox: selected.mailbox,
        memory,
    };
    for chunk in open.chunks(limits::UID_RANGES_PER_COMMAND_MAX) {
        let mut left = chunk.to_vec();
        while !left.is_empty() {
            let page = reader
                .account
                .fetch(reader.mailbox, &left, ANY_MODSEQ, test.needs_summary())
                .await?;
            left = match page.resume_from {
                Some(uid) => ranges_from(&left, uid)?,
                None => Vec::new(),
            };
            for message in page.messages {
                let Some(number) = selected.view.number(message.uid) else {
                    continue;
                };
                if decide(&test, &reader, number - 1, &message).await? {
                    found.indexes.push(number - 1);
                    found.highest_modseq = found.highest_modseq.max(message.modseq);
                }
            }
        }
    }
    session.condstore |= asks_modseq;
    tell(session, by_uid, asks_modseq, found)
}

/// Adds a UID above all that are in.
fn push(ranges: &mut Vec<UidRange>, uid: Uid) {
    match ranges.last_mut() {
        Some(range) if range.last.0.checked_add(1) == Some(uid.0) => range.last = uid,
        _ => ranges.push(UidRange { first: uid, last: uid }),
    }
}

/// Reads as much of the message as the test still needs.
async fn decide(test: &Test, reader: &Reader, index: usize, message: &Message) -> Result<bool, Failure> {
    let mut candidate = Candidate {
        index,
        message: Some(message),
        content: None,
    };
    if let Some(decided) = test.decide(&candidate) {
        return Ok(decided);
    }
    let content = match test.need() {
        Need::Row => return Ok(false),
        Need::Header => {
            let header_bytes = message
                .summary
                .as_ref()
                .map_or(0, |summary| u64::from(summary.header_bytes));
            let end = header_bytes.min(message.size_bytes);
            read(reader, message, end, false).await?
        }
        Need::Body => read(reader, message, message.size_bytes, true).await?,
    };
    let Some(content) = content else { return Ok(false) };
    candidate.content = Some(&content);
    Ok(test.decide(&candidate).unwrap_or(false))
}

/// `None` when the message went meanwhile.
async fn read(reader: &Reader, message: &Message, end: u64, whole: bool) -> Result<Option<Content>, Failure> {
    match reader.read(message.uid, message.size_bytes, 0..end).await {
        Ok(held) => Ok(Some(content(held, whole).await)),
        Err(malle_client::Error::NotFound(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn tell(session: &mut Session, by_uid: bool, asks_modseq: bool, mut found: Found) -> Result<Answer, Failure> {
    found.indexes.sort_unstable();
    let Some(selected) = &session.selected else {
        return Ok(Answer::ok("Searched"));
    };
    let out = &mut session.connection.output;
    out.raw(b"* SEARCH");
    for &index in &found.indexes {
        if by_uid {
            out.put(format_args!(" {}", selected.view.uid(index)));
        } else {
            out.put(format_args!(" {}", index + 1));
        }
    }
    if asks_modseq && !found.indexes.is_empty() {
        out.put(format_args!(" (MODSEQ {})", found.highest_modseq));
    }
    out.raw(b"\r\n");
    Ok(Answer::ok("Searched"))
}
