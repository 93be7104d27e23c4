//! Messages of a mailbox, a page at a time.
//!
//! State and content of a message are two rows. A page reads the states first, which decide what is in it; then the contents, by one scan
//! where most of the messages on the way are in the page, else one by one.

use malle_proto::{AccountId, MailboxId, ModSeq, Uid};

use super::{Message, Page, SummaryAt, mailbox_row};
use crate::shard::{Refusal, UidRange, keys, rows, sets};
use crate::view::{Fault, Flow, View};

/// With `changed_since`, the index of changes is asked first; above this many times the page's rows it would cost more than the states.
const CHANGES_WORTH_SORTING: usize = 8;
/// A scan of contents pays while it passes over at most this many messages for each that it keeps.
const CONTENTS_WORTH_SCANNING: usize = 4;

/// Messages of `uids` with a MODSEQ above `changed_since`, at most `max_rows`.
///
/// # Errors
/// A [`Fault`]; inside, `NoAccount` or `NoMailbox`, or `Limit` for a set of too many ranges.
pub fn fetch(
    view: &dyn View,
    account: AccountId,
    mailbox: MailboxId,
    uids: &[UidRange],
    changed_since: ModSeq,
    max_rows: usize,
) -> Result<Result<Page, Refusal>, Fault> {
    let row = match mailbox_row(view, account, mailbox)? {
        Ok((_, row)) => row,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let ranges = match sets::normalise(uids) {
        Ok(ranges) => ranges,
        Err(refusal) => return Ok(Err(refusal)),
    };
    if changed_since.0 >= row.highest_modseq {
        return Ok(Ok(Page::default()));
    }
    // A page of no rows would never end.
    let max_rows = max_rows.max(1);
    let reader = Reader { view, account, mailbox };
    let ranges = match changed_since.0 {
        0 => ranges,
        _ => reader.narrow(ranges, changed_since, max_rows.saturating_mul(CHANGES_WORTH_SORTING))?,
    };
    let states = reader.states(&ranges, changed_since, max_rows)?;
    let resume_from = states.resume_from;
    Ok(Ok(Page {
        messages: reader.contents(states)?,
        resume_from,
    }))
}

/// One message.
///
/// # Errors
/// A [`Fault`].
pub fn message(view: &dyn View, account: AccountId, mailbox: MailboxId, uid: Uid) -> Result<Option<Message>, Fault> {
    // Rows of a deleted mailbox may still be there.
    if mailbox_row(view, account, mailbox)?.is_err() {
        return Ok(None);
    }
    let state: Option<rows::State> = rows::get(view, &keys::state(account, mailbox, uid), "state")?;
    let Some(state) = state else {
        return Ok(None);
    };
    let content = rows::must_get(view, &keys::content(account, mailbox, uid), "content")?;
    Ok(Some(joined(uid, state, content)))
}

/// The states of a page.
struct States {
    found: Vec<(Uid, rows::State)>,
    /// There are more from here on.
    resume_from: Option<Uid>,
    /// An estimate of the messages that lie between the first and the last of `found`.
    passed: usize,
}

struct Reader<'v> {
    view: &'v dyn View,
    account: AccountId,
    mailbox: MailboxId,
}

impl Reader<'_> {
    /// Those of `ranges` that changed, by the index of changes; all of them when more than `max` did.
    fn narrow(&self, ranges: Vec<UidRange>, since: ModSeq, max: usize) -> Result<Vec<UidRange>, Fault> {
        let keys = keys::modseqs(self.account, keys::kind::CHANGE, self.mailbox, since, ModSeq(u64::MAX));
        let (mut uids, mut seen) = (Vec::new(), 0);
        self.view.scan(&keys.from, &keys.to, &mut |key, _| {
            let uid = keys::uid_of(key).ok_or_else(rows::bad_key)?;
            if sets::contains(&ranges, uid) {
                uids.push(uid);
            }
            seen += 1;
            Ok(if seen > max { Flow::Stop } else { Flow::More })
        })?;
        if seen > max {
            return Ok(ranges);
        }
        uids.sort();
        Ok(sets::of_rising(uids))
    }

    /// States above `since`, at most `max`.
    fn states(&self, ranges: &[UidRange], since: ModSeq, max: usize) -> Result<States, Fault> {
        let (mut found, mut resume_from, mut passed) = (Vec::new(), None, 0_usize);
        for range in ranges {
            let keys = keys::uids(self.account, keys::kind::STATE, self.mailbox, range.first, range.last);
            self.view.scan(&keys.from, &keys.to, &mut |key, value| {
                let uid = keys::uid_of(key).ok_or_else(rows::bad_key)?;
                passed += 1;
                let state: rows::State = rows::read(value, "state")?;
                if state.modseq <= since.0 {
                    return Ok(Flow::More);
                }
                if found.len() == max {
                    resume_from = Some(uid);
                    return Ok(Flow::Stop);
                }
                found.push((uid, state));
                Ok(Flow::More)
            })?;
            if resume_from.is_some() {
                break;
            }
        }
        // Messages between two ranges were not counted: with many ranges a scan across them is not worth it.
        let passed = passed.saturating_mul(ranges.len());
        Ok(States {
            found,
            resume_from,
            passed,
        })
    }

    /// Adds the contents.
    fn contents(&self, states: States) -> Result<Vec<Message>, Fault> {
        let (states, passed) = (states.found, states.passed);
        let (Some((first, _)), Some((last, _))) = (states.first(), states.last()) else {
            return Ok(Vec::new());
        };
        if passed > states.len().saturating_mul(CONTENTS_WORTH_SCANNING) {
            let one = |(uid, state): (Uid, rows::State)| {
                let key = keys::content(self.account, self.mailbox, uid);
                Ok(joined(uid, state, rows::must_get(self.view, &key, "content")?))
            };
            return states.into_iter().map(one).collect();
        }
        let wanted = states.len();
        let keys = keys::uids(self.account, keys::kind::CONTENT, self.mailbox, *first, *last);
        let mut states = states.into_iter().peekable();
        let mut messages = Vec::with_capacity(wanted);
        self.view.scan(&keys.from, &keys.to, &mut |key, value| {
            let uid = keys::uid_of(key).ok_or_else(rows::bad_key)?;
            if let Some((uid, state)) = states.next_if(|(wanted, _)| *wanted == uid) {
                messages.push(joined(uid, state, rows::read(value, "content")?));
            }
            Ok(Flow::More)
        })?;
        match messages.len() == wanted {
            true => Ok(messages),
            false => Err(rows::missing("content")),
        }
    }
}

fn joined(uid: Uid, state: rows::State, content: rows::Content) -> Message {
    Message {
        uid,
        modseq: ModSeq(state.modseq),
        flags: state.flags,
        size: content.size,
        body: content.body,
        internal_date: content.internal_date,
        save_date_ms: content.save_date_ms,
        email_id: content.email_id,
        thread_id: content.thread_id,
        summary: match content.summary {
            rows::KeptSummary::Inline(bytes) => SummaryAt::Inline(bytes),
            rows::KeptSummary::Beside(hash) => SummaryAt::Beside(hash),
        },
    }
}
