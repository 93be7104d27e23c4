//! Reading the bytes of messages for FETCH and SEARCH: only the ranges that are asked for, and under the process's bound on message bytes in
//! memory.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use malle_client::{Error, MailboxId, Message, Summary, Uid, UidRange};

use super::access::{BodyMemory, Share};
use super::binary::Encoding;
use super::parse::{FetchItem, Partial, Section, SectionText};
use super::section::{cut, header_fields, span};
use super::store::Account;

/// Up to this a read needs no share of the memory.
pub(super) const SMALL_BYTES: u64 = 64 * 1024;

/// Where a session reads bodies.
#[derive(Clone)]
pub(super) struct Reader {
    pub(super) account: Arc<dyn Account>,
    pub(super) mailbox: MailboxId,
    pub(super) memory: BodyMemory,
}

/// Bytes with their share of the memory.
pub(super) struct Held {
    pub(super) bytes: Bytes,
    _share: Option<Share>,
}

/// What FETCH asked for of the bytes of one message, in its order; `None` where the message has no such part.
#[derive(Default)]
pub(super) struct Sections {
    pub(super) data: Vec<Option<Bytes>>,
    /// A part is written in a way that nobody here can read: nothing of `data` may be told.
    pub(super) undecodable: bool,
    _shares: Vec<Share>,
}

/// One thing that is asked for of a message's bytes.
struct Wanted<'a> {
    /// Where it lies; `None` when the message has no such part.
    range: Option<Range<u64>>,
    what: What<'a>,
    partial: Option<Partial>,
}

/// What becomes of the bytes.
enum What<'a> {
    /// They are told, already cut.
    Section,
    /// Only these fields of the header.
    Fields(bool, &'a [Vec<u8>]),
    /// Without their transfer encoding.
    Binary(Encoding),
}

impl<'a> Wanted<'a> {
    /// `None` for an item that needs no bytes.
    fn of(item: &'a FetchItem, message: &Message, summary: &Summary) -> Option<Wanted<'a>> {
        let size = message.size_bytes;
        let whole_part = |part: &Vec<u32>| {
            let section = Section {
                part: part.clone(),
                text: SectionText::All,
            };
            span(summary, size, &section)
        };
        Some(match item {
            FetchItem::Section { section, partial, .. } => match &section.text {
                SectionText::HeaderFields { not, names } => Wanted {
                    range: span(summary, size, section),
                    what: What::Fields(*not, names),
                    partial: *partial,
                },
                _ => Wanted {
                    range: span(summary, size, section).map(|span| cut(span, *partial)),
                    what: What::Section,
                    partial: None,
                },
            },
            FetchItem::Binary { part, partial, .. } => Wanted {
                range: whole_part(part),
                what: What::Binary(Encoding::of(summary, part)),
                partial: *partial,
            },
            FetchItem::BinarySize(part) => Wanted {
                range: whole_part(part),
                what: What::Binary(Encoding::of(summary, part)),
                partial: None,
            },
            _ => return None,
        })
    }
}

/// A message, and its sections or why they are not there.
pub(super) type Told = (Message, Result<Sections, Error>);

impl Reader {
    async fn share(&self, bytes: u64) -> Result<Option<Share>, Error> {
        if bytes <= SMALL_BYTES {
            return Ok(None);
        }
        match self.memory.take(bytes).await {
            Some(share) => Ok(Some(share)),
            None => Err(Error::Unavailable("too many large messages at this moment".to_owned())),
        }
    }

    /// `range` of a message of `size_bytes`.
    pub(super) async fn read(&self, uid: Uid, size_bytes: u64, range: Range<u64>) -> Result<Held, Error> {
        let length = range.end.saturating_sub(range.start);
        if length == 0 {
            return Ok(Held {
                bytes: Bytes::new(),
                _share: None,
            });
        }
        let share = self.share(length).await?;
        let bytes = if range == (0..size_bytes) {
            self.account.read_body(self.mailbox, uid).await?
        } else {
            self.account
                .read_body_range(self.mailbox, uid, range.start, length)
                .await?
        };
        if bytes.len() as u64 != length {
            return Err(Error::Corrupt(format!(
                "{} bytes where {length} were stored",
                bytes.len()
            )));
        }
        Ok(Held { bytes, _share: share })
    }

    /// All sections among `items` of small messages, which are read together as far as the store takes them together.
    pub(super) async fn sections_of(&self, messages: Vec<Message>, items: &[FetchItem]) -> Vec<Told> {
        let uid = |message: &Message| UidRange {
            first: message.uid,
            last: message.uid,
        };
        let uids: Vec<UidRange> = messages.iter().map(uid).collect();
        let mut whole: BTreeMap<Uid, Bytes> = match self.account.read_bodies(self.mailbox, &uids).await {
            Ok(bodies) => bodies.into_iter().collect(),
            // Each is asked for alone then, and says what is wrong with it.
            Err(_) => BTreeMap::new(),
        };
        let mut told = Vec::with_capacity(messages.len());
        for message in messages {
            let held = whole.remove(&message.uid);
            let sections = self.sections(&message, items, held).await;
            told.push((message, sections));
        }
        told
    }

    /// All sections among `items` of one message, of which all bytes may be at hand. The whole message is read at most once, and only when a
    /// section is the whole of it.
    pub(super) async fn sections(
        &self,
        message: &Message,
        items: &[FetchItem],
        held: Option<Bytes>,
    ) -> Result<Sections, Error> {
        let size = message.size_bytes;
        let Some(summary) = &message.summary else {
            return Ok(Sections::default());
        };
        let mut sections = Sections::default();
        let wanted = items.iter().filter_map(|item| Wanted::of(item, message, summary));
        let wanted: Vec<Wanted> = wanted.collect();
        let held = held.filter(|bytes| bytes.len() as u64 == size);
        let mut read: Vec<(Range<u64>, Bytes)> = held.into_iter().map(|bytes| (0..size, bytes)).collect();
        if read.is_empty() && wanted.iter().any(|wanted| wanted.range == Some(0..size)) {
            self.read_into(message, 0..size, &mut read, &mut sections).await?;
        }
        for Wanted { range, what, partial } in wanted {
            let Some(range) = range else {
                sections.data.push(None);
                continue;
            };
            let bytes = match slice(&read, &range) {
                Some(bytes) => bytes,
                None => self.read_into(message, range, &mut read, &mut sections).await?,
            };
            let told = match what {
                What::Section => Some(bytes),
                What::Fields(not, names) => Some(Bytes::from(header_fields(&bytes, names, not))),
                What::Binary(encoding) => encoding.decoded(bytes).await,
            };
            sections.undecodable |= told.is_none();
            sections.data.push(told.map(|bytes| {
                let cut = cut(0..bytes.len() as u64, partial);
                part_of(&bytes, cut.start, cut.end)
            }));
        }
        Ok(sections)
    }

    async fn read_into(
        &self,
        message: &Message,
        range: Range<u64>,
        read: &mut Vec<(Range<u64>, Bytes)>,
        sections: &mut Sections,
    ) -> Result<Bytes, Error> {
        let held = self.read(message.uid, message.size_bytes, range.clone()).await?;
        sections._shares.extend(held._share);
        read.push((range, held.bytes.clone()));
        Ok(held.bytes)
    }
}

/// `range` out of what was read already.
fn slice(read: &[(Range<u64>, Bytes)], range: &Range<u64>) -> Option<Bytes> {
    let (whole, bytes) = read
        .iter()
        .find(|(whole, _)| whole.start <= range.start && range.end <= whole.end)?;
    Some(part_of(bytes, range.start - whole.start, range.end - whole.start))
}

fn part_of(bytes: &Bytes, start: u64, end: u64) -> Bytes {
    let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
    bytes.slice(index(start)..index(end).max(index(start)))
}

/// Whether these items want only headers and short pieces, however large the message.
pub(super) fn are_short(items: &[FetchItem]) -> bool {
    items.iter().all(|item| match item {
        FetchItem::Section { section, partial, .. } => {
            partial.is_some_and(|partial| u64::from(partial.length) <= SMALL_BYTES)
                || matches!(
                    section.text,
                    SectionText::Header | SectionText::HeaderFields { .. } | SectionText::Mime
                )
        }
        // A part is decoded from its beginning, however little of it is told.
        FetchItem::Binary { .. } | FetchItem::BinarySize(_) => false,
        _ => true,
    })
}
