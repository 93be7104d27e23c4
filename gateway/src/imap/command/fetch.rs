//! FETCH and UID FETCH (RFC 3501 6.4.5): rows page by page, small bodies some at a time and large
//! ones alone, answers as they come.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream;
use malle_client::{Error, Flags, Message, Rights, StoreMode, Uid, UidRange};
use malle_proto::limits;

use super::super::bodies::{Reader, SMALL_BYTES, Sections, Told, are_short};
use super::super::connection::Connection;
use super::super::date;
use super::super::parse::{FetchItem, FetchQuery, Section, SectionText, Shape, Target};
use super::super::respond::{Answer, Failure, Output};
use super::super::session::Session;
use super::super::structure;
use super::selected::{ANY_MODSEQ, picked, some_are_gone};
use super::{mailbox, resync};

/// What one FETCH does to every message.
struct Plan {
    items: Arc<[FetchItem]>,
    reader: Reader,
    with_summary: bool,
    /// A section without PEEK in a mailbox opened for writing: \Seen is set.
    sets_seen: bool,
    /// Only headers and short pieces are asked for.
    short: bool,
    /// Bytes of messages are asked for at all.
    has_sections: bool,
}

/// Pages of small bodies that are read ahead: one comes while the other is told.
const PAGES_AT_ONCE: usize = 2;

/// What became of the messages.
#[derive(Default)]
struct Outcome {
    told: usize,
    /// The first message that could not be read; the others are told all the same.
    damage: Option<Error>,
    /// A part that BINARY asked for could not be decoded.
    undecodable: bool,
}

pub(super) async fn fetch(session: &mut Session, target: &Target, query: FetchQuery) -> Result<Answer, Failure> {
    if query.vanished {
        resync::tell_vanished(session, target, query.changed_since).await?;
    }
    let plan = plan(session, target, &query)?;
    let (account, selected) = mailbox(session)?;
    let id = selected.mailbox;
    let mut picked = picked(selected, target)?;
    if let Some(partial) = query.partial {
        picked = picked.partial(partial);
    }
    let ranges = selected.view.ranges(&picked);
    let has_gone = selected.view.has_gone(&picked);
    let since = query.changed_since.unwrap_or(ANY_MODSEQ);
    let mut outcome = Outcome::default();
    for chunk in ranges.chunks(limits::UID_RANGES_PER_COMMAND_MAX) {
        let mut left = chunk.to_vec();
        while !left.is_empty() {
            let page = account.fetch(id, &left, since, plan.with_summary).await?;
            left = match page.resume_from {
                Some(uid) => ranges_from(&left, uid)?,
                None => Vec::new(),
            };
            tell_page(session, &plan, page.messages, &mut outcome).await?;
        }
    }
    if let Some(error) = outcome.damage {
        return session.explain(&error);
    }
    if outcome.undecodable {
        return Err(Failure::no(
            "UNKNOWN-CTE",
            "A part is encoded in a way that is not known here",
        ));
    }
    let gone = has_gone || (query.changed_since.is_none() && outcome.told < picked.count());
    Ok(if gone { some_are_gone() } else { Answer::ok("Fetched") })
}

fn plan(session: &mut Session, target: &Target, query: &FetchQuery) -> Result<Plan, Failure> {
    session.condstore |= query.changed_since.is_some() || query.items.contains(&FetchItem::ModSeq);
    let condstore = session.condstore;
    let memory = session.context.memory.clone();
    let (account, selected) = mailbox(session)?;
    let mut items = query.items.clone();
    let mut also = |item, wanted: bool| {
        if wanted && !items.contains(&item) {
            items.push(item);
        }
    };
    also(FetchItem::Uid, target.by_uid);
    // From the moment a client knows MODSEQ every FETCH answer bears it (RFC 7162 3.2).
    also(FetchItem::ModSeq, condstore);
    let needs_summary = |item: &FetchItem| {
        matches!(
            item,
            FetchItem::Envelope | FetchItem::Body | FetchItem::BodyStructure | FetchItem::Preview
        ) || item.reads_bytes()
    };
    let sets_seen = !selected.read_only
        && selected.rights.hold(Rights::SEEN)
        && items.iter().any(|item| {
            matches!(
                item,
                FetchItem::Section { peek: false, .. } | FetchItem::Binary { peek: false, .. }
            )
        });
    Ok(Plan {
        with_summary: items.iter().any(needs_summary),
        short: are_short(&items),
        has_sections: items.iter().any(FetchItem::reads_bytes),
        items: items.into(),
        reader: Reader {
            account,
            mailbox: selected.mailbox,
            memory,
        },
        sets_seen,
    })
}

/// What of `ranges` lies at or above `uid`. A page that does not get on would be asked for for ever.
pub(in super::super) fn ranges_from(ranges: &[UidRange], uid: Uid) -> Result<Vec<UidRange>, Error> {
    if ranges.first().is_some_and(|range| uid <= range.first) {
        return Err(Error::Internal("the store does not get on with its pages".to_owned()));
    }
    let above = ranges.iter().filter(|range| range.last >= uid);
    Ok(above
        .map(|range| UidRange {
            first: range.first.max(uid),
            last: range.last,
        })
        .collect())
}

async fn tell_page(
    session: &mut Session,
    plan: &Plan,
    mut messages: Vec<Message>,
    outcome: &mut Outcome,
) -> Result<(), Failure> {
    if let Some(selected) = &session.selected {
        messages.retain(|message| selected.view.number(message.uid).is_some());
    }
    let newly_seen = if plan.sets_seen {
        set_seen(plan, &mut messages).await?
    } else {
        Vec::new()
    };
    let is_small = |message: &Message| plan.short || message.size_bytes <= SMALL_BYTES;
    while let Some(first) = messages.first() {
        let small = is_small(first);
        let end = messages.iter().position(|message| is_small(message) != small);
        // Nearly always the page is one run, and nothing moves.
        let later = messages.split_off(end.unwrap_or(messages.len()));
        tell_run(session, plan, messages, small, &newly_seen, outcome).await?;
        messages = later;
    }
    Ok(())
}

/// Tells messages that follow each other and are all small, or all large. Small ones are read ahead of their answers.
async fn tell_run(
    session: &mut Session,
    plan: &Plan,
    run: Vec<Message>,
    small: bool,
    newly_seen: &[Uid],
    outcome: &mut Outcome,
) -> Result<(), Failure> {
    // Whole bodies that wait for their turn are memory: without any to spare they are read one by one.
    let ahead = if small && !plan.short {
        let bytes = limits::BODIES_PAGE_BYTES_MAX * PAGES_AT_ONCE;
        plan.reader.memory.spare(bytes as u64)
    } else {
        None
    };
    let reader = || (plan.reader.clone(), Arc::clone(&plan.items));
    if plan.has_sections && ahead.is_some() {
        let reads = pages(run).into_iter().map(|page| {
            let (reader, items) = reader();
            async move { reader.sections_of(page, &items).await }
        });
        let mut reads = stream::iter(reads).buffered(PAGES_AT_ONCE);
        while let Some(page) = reads.next().await {
            for told in page {
                tell_read(session, plan, told, newly_seen, outcome).await?;
            }
        }
        return Ok(());
    }
    let at_once = if plan.short { limits::IMAP_READS_AT_ONCE } else { 1 };
    let reads = run.into_iter().map(|message| {
        let (reader, items) = reader();
        async move {
            let sections = reader.sections(&message, &items, None).await;
            (message, sections)
        }
    });
    let mut reads = stream::iter(reads).buffered(at_once);
    while let Some(told) = reads.next().await {
        tell_read(session, plan, told, newly_seen, outcome).await?;
    }
    Ok(())
}

/// Messages as the store answers them together.
fn pages(run: Vec<Message>) -> Vec<Vec<Message>> {
    let (mut pages, mut bytes) = (Vec::<Vec<Message>>::new(), 0);
    for message in run {
        bytes += message.size_bytes;
        match pages.last_mut() {
            Some(page) if bytes <= limits::BODIES_PAGE_BYTES_MAX as u64 => page.push(message),
            _ => {
                bytes = message.size_bytes;
                pages.push(vec![message]);
            }
        }
    }
    pages
}

async fn tell_read(
    session: &mut Session,
    plan: &Plan,
    (message, sections): Told,
    newly_seen: &[Uid],
    outcome: &mut Outcome,
) -> Result<(), Failure> {
    let sections = match sections {
        Ok(sections) => sections,
        // Expunged between its row and its body.
        Err(Error::NotFound(_)) => return Ok(()),
        Err(error @ Error::Corrupt(_)) => {
            outcome.told += 1;
            outcome.damage.get_or_insert(error);
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    if sections.undecodable {
        outcome.told += 1;
        outcome.undecodable = true;
        return Ok(());
    }
    let tell_flags = newly_seen.binary_search(&message.uid).is_ok();
    tell_message(session, &plan.items, &message, sections, tell_flags).await?;
    outcome.told += 1;
    Ok(())
}

/// Sets \Seen on those of a page that lack it; returns them, rising.
async fn set_seen(plan: &Plan, messages: &mut [Message]) -> Result<Vec<Uid>, Failure> {
    let unseen: Vec<Uid> = messages
        .iter()
        .filter(|message| message.flags.system & Flags::SEEN == 0)
        .map(|message| message.uid)
        .collect();
    if unseen.is_empty() {
        return Ok(unseen);
    }
    let ranges: Vec<UidRange> = unseen.iter().map(|&uid| UidRange { first: uid, last: uid }).collect();
    let seen = Flags {
        system: Flags::SEEN,
        keywords: Vec::new(),
    };
    let Reader { account, mailbox, .. } = &plan.reader;
    let stored = account.store(*mailbox, &ranges, StoreMode::Add, seen, None).await?;
    for now in stored.stored {
        if let Ok(index) = messages.binary_search_by_key(&now.uid, |message| message.uid) {
            messages[index].flags = now.flags;
            messages[index].modseq = now.modseq;
        }
    }
    Ok(unseen)
}

async fn tell_message(
    session: &mut Session,
    items: &[FetchItem],
    message: &Message,
    sections: Sections,
    tell_flags: bool,
) -> Result<(), Failure> {
    let Some(selected) = session.selected.as_mut() else {
        return Ok(());
    };
    let Some(number) = selected.view.number(message.uid) else {
        return Ok(());
    };
    let asked_flags = items.contains(&FetchItem::Flags);
    if asked_flags || tell_flags {
        selected.view.tell(message.uid, message.modseq);
    }
    let connection = &mut session.connection;
    connection.output.put(format_args!("* {number} FETCH ("));
    let mut data = sections.data.iter();
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            connection.output.raw(b" ");
        }
        if item.reads_bytes() {
            tell_bytes(connection, item, data.next().and_then(Option::as_ref)).await?;
        } else {
            tell_item(&mut connection.output, item, message);
        }
    }
    if tell_flags && !asked_flags {
        connection.output.raw(b" FLAGS ");
        connection.output.flags(&message.flags);
    }
    connection.output.raw(b")\r\n");
    Ok(connection.flush_if_much().await?)
}

/// An item that is made of the message's bytes; NIL where it has no such part.
async fn tell_bytes(connection: &mut Connection, item: &FetchItem, bytes: Option<&Bytes>) -> Result<(), Failure> {
    let out = &mut connection.output;
    let partial = match item {
        FetchItem::BinarySize(part) => {
            let size = bytes.map_or(0, Bytes::len);
            out.put(format_args!("BINARY.SIZE[{}] {size}", part_number(part)));
            return Ok(());
        }
        FetchItem::Binary { part, partial, .. } => {
            out.put(format_args!("BINARY[{}]", part_number(part)));
            partial
        }
        FetchItem::Section {
            section,
            partial,
            shape,
            ..
        } => {
            section_name(out, section, *shape);
            partial
        }
        _ => return Ok(()),
    };
    if let Some(partial) = partial {
        out.put(format_args!("<{}>", partial.offset));
    }
    out.raw(b" ");
    let Some(bytes) = bytes else {
        out.raw(b"NIL");
        return Ok(());
    };
    if matches!(item, FetchItem::Binary { .. }) && bytes.contains(&0) {
        // `literal8`: only there may a NUL stand (RFC 9051 9).
        out.raw(b"~");
    }
    out.literal_head(bytes.len());
    Ok(connection.send_bytes(bytes).await?)
}

fn part_number(part: &[u32]) -> String {
    let numbers: Vec<String> = part.iter().map(u32::to_string).collect();
    numbers.join(".")
}

/// Everything that needs no bytes of the message.
fn tell_item(out: &mut Output, item: &FetchItem, message: &Message) {
    let summary = message.summary.as_ref();
    match item {
        FetchItem::Flags => {
            out.raw(b"FLAGS ");
            out.flags(&message.flags);
        }
        FetchItem::Uid => out.put(format_args!("UID {}", message.uid)),
        FetchItem::InternalDate => {
            let date = date::format_date_time(message.internal_date_ms, message.internal_date_zone_minutes);
            out.put(format_args!("INTERNALDATE \"{date}\""));
        }
        FetchItem::Size => out.put(format_args!("RFC822.SIZE {}", message.size_bytes)),
        FetchItem::Envelope => {
            out.raw(b"ENVELOPE ");
            let envelope = summary.and_then(|summary| summary.envelope.clone()).unwrap_or_default();
            structure::envelope(out, &envelope);
        }
        FetchItem::Body | FetchItem::BodyStructure => {
            let extended = *item == FetchItem::BodyStructure;
            out.raw(if extended {
                b"BODYSTRUCTURE ".as_slice()
            } else {
                b"BODY "
            });
            let root = summary.and_then(|summary| summary.root.clone()).unwrap_or_default();
            structure::body(out, &root, extended);
        }
        FetchItem::ModSeq => out.put(format_args!("MODSEQ ({})", message.modseq)),
        FetchItem::EmailId => out.put(format_args!("EMAILID ({})", message.email_id)),
        FetchItem::ThreadId => out.put(format_args!("THREADID ({})", message.thread_id)),
        FetchItem::SaveDate => {
            let date = date::format_date_time(message.save_date_ms, 0);
            out.put(format_args!("SAVEDATE \"{date}\""));
        }
        FetchItem::Preview => {
            out.raw(b"PREVIEW ");
            out.nstring(summary.map(|summary| summary.preview.as_bytes()));
        }
        FetchItem::Section { .. } | FetchItem::Binary { .. } | FetchItem::BinarySize(_) => {}
    }
}

/// The item's name as it was asked for, without PEEK.
fn section_name(out: &mut Output, section: &Section, shape: Shape) {
    match shape {
        Shape::Rfc822 => return out.raw(b"RFC822"),
        Shape::Rfc822Header => return out.raw(b"RFC822.HEADER"),
        Shape::Rfc822Text => return out.raw(b"RFC822.TEXT"),
        Shape::Body => out.raw(b"BODY["),
    }
    out.raw(part_number(&section.part).as_bytes());
    if !section.part.is_empty() && section.text != SectionText::All {
        out.raw(b".");
    }
    match &section.text {
        SectionText::All => {}
        SectionText::Header => out.raw(b"HEADER"),
        SectionText::Text => out.raw(b"TEXT"),
        SectionText::Mime => out.raw(b"MIME"),
        SectionText::HeaderFields { not, names } => {
            out.raw(if *not {
                b"HEADER.FIELDS.NOT (".as_slice()
            } else {
                b"HEADER.FIELDS ("
            });
            for (index, name) in names.iter().enumerate() {
                if index > 0 {
                    out.raw(b" ");
                }
                out.astring(name);
            }
            out.raw(b")");
        }
    }
    out.raw(b"]");
}
