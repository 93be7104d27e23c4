//! SEARCH, SORT and THREAD (RFC 3501 6.4.4, RFC 5256): first by number alone, then by rows, and only for what is still open by reading
//! mails. What was found is told by [`super::results`].

use std::time::Duration;

use futures::StreamExt as _;
use futures::stream;
use malle_client::{Error, Message, ModSeq, UidRange};
use malle_proto::limits;
use tokio::time::Instant;

use super::super::bodies::Reader;
use super::super::order::{compare, sent_ms, subject, values};
use super::super::parse::{SearchQuery, SearchReturn, SortKey, ThreadAlgorithm};
use super::super::respond::{Answer, Failure, Status};
use super::super::search::{Candidate, Content, Need, Test, compile, content};
use super::super::section::fields;
use super::super::session::Session;
use super::super::text::base_subject;
use super::super::thread::{Mail, by_references, by_subject, message_ids};
use super::super::view::push;
use super::fetch::ranges_from;
use super::results::{Found, Hit, tell};
use super::selected::ANY_MODSEQ;
use super::{account, mailbox};

pub(super) async fn search(
    session: &mut Session,
    tag: &str,
    by_uid: bool,
    query: SearchQuery,
) -> Result<Answer, Failure> {
    if query.charset.is_some() && session.utf8_accept {
        return Err(Failure::bad(
            "After ENABLE UTF8=ACCEPT a search is in UTF-8 (RFC 6855 3)",
        ));
    }
    // IMAP4rev2 knows no other answer than ESEARCH (RFC 9051 6.4.4).
    let always = session.rev2.then(|| vec![SearchReturn::All]);
    let returned = query.returned.clone().or(always);
    let found = find(session, tag, query).await;
    let found = forget_on_failure(session, returned.as_deref(), found)?;
    tell(session, tag, by_uid, "SEARCH", returned.as_deref(), &found);
    Ok(Answer::ok("Searched"))
}

/// RFC 5182 2.1: `$` is empty after a SEARCH that should have saved and could not.
fn forget_on_failure(
    session: &mut Session,
    returned: Option<&[SearchReturn]>,
    found: Result<Found, Failure>,
) -> Result<Found, Failure> {
    let is_no = match &found {
        Err(Failure::Store(_)) => true,
        Err(Failure::Refused(answer)) => answer.status == Status::No,
        _ => false,
    };
    let saves = returned.is_some_and(|returned| returned.contains(&SearchReturn::Save));
    if let Some(selected) = session.selected.as_mut()
        && is_no
        && saves
    {
        selected.view.save(Vec::new());
    }
    found
}

/// RFC 5256 3; with return options RFC 5267 3.
pub(super) async fn sort(
    session: &mut Session,
    tag: &str,
    by_uid: bool,
    order: &[SortKey],
    query: SearchQuery,
) -> Result<Answer, Failure> {
    let returned = query.returned.clone();
    let found = sorted(session, tag, order, query).await;
    let found = forget_on_failure(session, returned.as_deref(), found)?;
    tell(session, tag, by_uid, "SORT", returned.as_deref(), &found);
    Ok(Answer::ok("Sorted"))
}

async fn sorted(session: &mut Session, tag: &str, order: &[SortKey], query: SearchQuery) -> Result<Found, Failure> {
    let mut found = find(session, tag, query).await?;
    let (reader, mut pages) = rows_of(session, &found)?;
    let mut keyed = Vec::with_capacity(found.hits.len());
    while let Some(messages) = pages.next(&reader, true).await? {
        for message in messages {
            if let Some(index) = index_of(session, &message) {
                let hit = Hit {
                    index,
                    modseq: message.modseq,
                };
                keyed.push((values(&message, order), hit));
            }
        }
    }
    keyed.sort_by(|(left, first), (right, second)| compare(left, right, order).then(first.index.cmp(&second.index)));
    found.hits = keyed.into_iter().map(|(_, hit)| hit).collect();
    Ok(found)
}

/// RFC 5256 3.
pub(super) async fn thread(
    session: &mut Session,
    tag: &str,
    by_uid: bool,
    algorithm: ThreadAlgorithm,
    query: SearchQuery,
) -> Result<Answer, Failure> {
    let found = find(session, tag, query).await?;
    let (reader, mut pages) = rows_of(session, &found)?;
    let mut mails = Vec::with_capacity(found.hits.len());
    while let Some(messages) = pages.next(&reader, true).await? {
        let here = messages.into_iter().filter_map(|message| {
            let number = if by_uid {
                index_of(session, &message).map(|_| message.uid.0)?
            } else {
                u32::try_from(index_of(session, &message)? + 1).ok()?
            };
            Some((number, message))
        });
        let reads: Vec<_> = here
            .map(|(number, message)| mail(reader.clone(), number, message, algorithm))
            .collect();
        let mut reads = stream::iter(reads).buffered(limits::IMAP_READS_AT_ONCE);
        while let Some(mail) = reads.next().await {
            mails.extend(mail?);
        }
    }
    let forest = match algorithm {
        ThreadAlgorithm::OrderedSubject => by_subject(&mails),
        ThreadAlgorithm::References => by_references(&mails),
    };
    let out = &mut session.connection.output;
    out.raw(b"* THREAD");
    if !mails.is_empty() {
        out.raw(b" ");
        forest.write(out, &mails);
    }
    out.raw(b"\r\n");
    Ok(Answer::ok("Threaded"))
}

/// What threading needs of a message. The References field is not part of the summary: the header is read for it. `None` when the message went
/// meanwhile.
async fn mail(
    reader: Reader,
    number: u32,
    message: Message,
    algorithm: ThreadAlgorithm,
) -> Result<Option<Mail>, Failure> {
    let sent_ms = sent_ms(&message);
    let summary = message.summary.unwrap_or_default();
    let envelope = summary.envelope.unwrap_or_default();
    let (base_subject, is_reply) = base_subject(&subject(&envelope));
    let mut references = Vec::new();
    if algorithm == ThreadAlgorithm::References {
        let end = u64::from(summary.header_bytes).min(message.size_bytes);
        match reader.read(message.uid, message.size_bytes, 0..end).await {
            Ok(header) => references = referenced(&header.bytes),
            Err(Error::NotFound(_)) => return Ok(None),
            // Its own mail is damaged; the thread of the others is not.
            Err(Error::Corrupt(_)) => {}
            Err(error) => return Err(error.into()),
        }
        if references.is_empty() {
            let replied = envelope.in_reply_to.as_deref().map(message_ids).unwrap_or_default();
            references.extend(replied.into_iter().next());
        }
    }
    let id = envelope.message_id.as_deref().map(message_ids).unwrap_or_default();
    Ok(Some(Mail {
        number,
        sent_ms,
        id: id.into_iter().next(),
        references,
        base_subject,
        is_reply,
    }))
}

/// The ids of the References field; the last ones of a long list, which are the nearest.
fn referenced(header: &[u8]) -> Vec<Vec<u8>> {
    const REFERENCES_MAX: usize = 100;
    const NAME: &[u8] = b"References:";
    let field = fields(header).find(|field| {
        field
            .get(..NAME.len())
            .is_some_and(|name| name.eq_ignore_ascii_case(NAME))
    });
    let mut ids = field.map(message_ids).unwrap_or_default();
    ids.split_off(ids.len().saturating_sub(REFERENCES_MAX))
}

fn index_of(session: &Session, message: &Message) -> Option<usize> {
    let selected = session.selected.as_ref()?;
    selected.view.number(message.uid).map(|number| number - 1)
}

/// Everything that the keys ask for, in the order of the mailbox.
async fn find(session: &mut Session, tag: &str, query: SearchQuery) -> Result<Found, Failure> {
    if query
        .charset
        .as_deref()
        .is_some_and(|charset| !matches!(charset, "US-ASCII" | "UTF-8"))
    {
        return Err(Failure::no("BADCHARSET (US-ASCII UTF-8)", "Search in UTF-8"));
    }
    let (_, selected) = mailbox(session)?;
    let test = compile(query.keys, &selected.view)?;
    let mut found = Found {
        hits: Vec::new(),
        asks_modseq: test.asks_modseq(),
    };
    let mut open: Vec<UidRange> = Vec::new();
    let mut open_messages = 0;
    for index in 0..selected.view.len() {
        match test.decide(&Candidate::numbered(index)) {
            Some(true) if !found.asks_modseq => found.hits.push(Hit {
                index,
                modseq: ModSeq(0),
            }),
            Some(false) => {}
            _ => {
                push(&mut open, selected.view.uid(index));
                open_messages += 1;
            }
        }
    }
    session.condstore |= found.asks_modseq;
    let reader = reader(session)?;
    let mut pages = Pages { left: open };
    let mut progress = Progress::of(open_messages);
    while let Some(messages) = pages.next(&reader, test.needs_summary()).await? {
        for message in messages {
            let Some(index) = index_of(session, &message) else {
                continue;
            };
            if decide(&test, &reader, index, &message).await? {
                let modseq = message.modseq;
                found.hits.push(Hit { index, modseq });
            }
            progress.step(session, tag).await?;
        }
    }
    found.hits.sort_unstable_by_key(|hit| hit.index);
    Ok(found)
}

fn reader(session: &mut Session) -> Result<Reader, Failure> {
    let memory = session.context.memory.clone();
    let (account, selected) = (account(session)?, mailbox(session)?.1);
    Ok(Reader {
        account,
        mailbox: selected.mailbox,
        memory,
    })
}

/// The rows of what was found.
fn rows_of(session: &mut Session, found: &Found) -> Result<(Reader, Pages), Failure> {
    if found.hits.len() > limits::IMAP_SORT_MESSAGES_MAX {
        return Err(Failure::no("LIMIT", "Too many messages to be ordered at once"));
    }
    let reader = reader(session)?;
    let (_, selected) = mailbox(session)?;
    let mut left = Vec::new();
    for hit in &found.hits {
        push(&mut left, selected.view.uid(hit.index));
    }
    Ok((reader, Pages { left }))
}

/// Rows page by page.
struct Pages {
    left: Vec<UidRange>,
}

impl Pages {
    /// The next rows; `None` at the end.
    async fn next(&mut self, reader: &Reader, with_summary: bool) -> Result<Option<Vec<Message>>, Failure> {
        let asked = self.left.len().min(limits::UID_RANGES_PER_COMMAND_MAX);
        if asked == 0 {
            return Ok(None);
        }
        let page = reader
            .account
            .fetch(reader.mailbox, &self.left[..asked], ANY_MODSEQ, with_summary)
            .await?;
        self.left = match page.resume_from {
            Some(uid) => ranges_from(&self.left, uid)?,
            None => self.left.split_off(asked),
        };
        Ok(Some(page.messages))
    }
}

/// Tells a client that waits for a long SEARCH how far it is (RFC 9585).
struct Progress {
    goal: usize,
    done: usize,
    tell_at: Instant,
}

impl Progress {
    fn of(goal: usize) -> Progress {
        Progress {
            goal,
            done: 0,
            tell_at: Instant::now() + Duration::from_millis(limits::IMAP_PROGRESS_MS),
        }
    }

    /// One more message was looked at.
    async fn step(&mut self, session: &mut Session, tag: &str) -> Result<(), Failure> {
        self.done += 1;
        if Instant::now() < self.tell_at || self.done >= self.goal {
            return Ok(());
        }
        self.tell_at = Instant::now() + Duration::from_millis(limits::IMAP_PROGRESS_MS);
        let out = &mut session.connection.output;
        out.raw(b"* OK [INPROGRESS (");
        out.string(tag.as_bytes());
        out.put(format_args!(" {} {})] Still searching\r\n", self.done, self.goal));
        Ok(session.connection.flush().await?)
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
        Err(Error::NotFound(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
