//! What others did to the selected mailbox, told between a command's own answers and its tagged one (RFC 3501 5.2 and 7.4.1).

use std::collections::BTreeMap;
use std::sync::Arc;

use malle_client::{Changes, Error, MessageFlags, ModSeq, Uid, UidRange};

use super::super::respond::{Failure, uid_set};
use super::super::session::{Selected, Session};
use super::super::store::Account;
use super::super::view::expanded;
use super::authenticated::tell_flags;

/// What is new since the view was current.
#[derive(Default)]
struct News {
    /// Messages that changed or came, the latest state of each.
    changed: BTreeMap<Uid, MessageFlags>,
    /// Messages that came without being in `changed`: only after the tombstones ran out.
    came: Vec<UidRange>,
    keywords: Vec<String>,
    /// Complete up to here.
    through: ModSeq,
}

/// What may be told now, and what the client wants to know.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Tell {
    /// What is gone and not told keeps its number.
    pub(in super::super) expunges: bool,
    pub(in super::super) flags: bool,
}

impl Tell {
    pub(in super::super) const ALL: Tell = Tell {
        expunges: true,
        flags: true,
    };
}

/// Brings the view up to the store and tells the difference: EXPUNGE where it may be told, EXISTS, FETCH with flags.
pub(in super::super) async fn tell_changes(session: &mut Session, tell: Tell) -> Result<(), Failure> {
    let told = session.writer.take().and_then(|writer| writer.take_news());
    let (Some(account), Some(selected)) = (session.account.clone(), session.selected.as_mut()) else {
        return Ok(());
    };
    let news = collect(&account, selected, told).await?;
    let out = &mut session.connection.output;
    if tell.expunges {
        let gone = selected.view.gone();
        let numbers = selected.view.expunge();
        if session.qresync && !gone.is_empty() {
            out.untagged(format_args!("VANISHED {}", uid_set(&gone)));
        } else {
            for number in numbers {
                out.untagged(format_args!("{number} EXPUNGE"));
            }
        }
    }
    let known_to = selected.view.highest();
    let is_new = |uid: &Uid| known_to.is_none_or(|highest| *uid > highest);
    let mut came: Vec<Uid> = news
        .changed
        .keys()
        .copied()
        .chain(expanded(&news.came))
        .filter(is_new)
        .collect();
    came.sort_unstable();
    came.dedup();
    let any_came = !came.is_empty();
    if !selected.view.add(came) {
        return Err(Failure::Bye(
            "the message numbers cannot be kept, select the mailbox again",
        ));
    }
    if any_came {
        out.untagged(format_args!("{} EXISTS", selected.view.len()));
    }
    if news.keywords != selected.keywords {
        tell_flags(out, &news.keywords);
        selected.keywords = news.keywords;
    }
    for message in news.changed.values().filter(|message| !is_new(&message.uid)) {
        if !tell.flags || selected.view.is_told(message.uid, message.modseq) {
            continue;
        }
        // A message that is not in the view went before it came here: its UID lies between others.
        let Some(number) = selected.view.number(message.uid) else {
            continue;
        };
        out.put(format_args!("* {number} FETCH ("));
        if session.condstore {
            out.put(format_args!("UID {} MODSEQ ({}) ", message.uid, message.modseq));
        }
        out.raw(b"FLAGS ");
        out.flags(&message.flags);
        out.raw(b")\r\n");
    }
    selected.view.advance(news.through);
    Ok(())
}

/// Asks the store, page by page, until nothing is left; the command may have been told the first page already. The view learns at once what
/// went; the rest is returned.
async fn collect(
    account: &Arc<dyn Account>,
    selected: &mut Selected,
    mut told: Option<Changes>,
) -> Result<News, Failure> {
    let mut news = News {
        keywords: selected.keywords.clone(),
        ..News::default()
    };
    let mut since = selected.view.modseq;
    let mut tombstones_ran_out = false;
    loop {
        let page = match told.take() {
            Some(told) => told,
            None => account.changes(selected.mailbox, since).await?,
        };
        news.changed
            .extend(page.changed.into_iter().map(|message| (message.uid, message)));
        for &range in &page.vanished {
            forget(&mut news.changed, range);
        }
        selected.view.lose(&page.vanished);
        news.keywords = page.keywords;
        tombstones_ran_out |= page.cannot_calculate;
        let complete = page.through >= page.mailbox.highest_modseq;
        if !complete && page.through <= since {
            return Err(Error::Internal("the store does not get on with its changes".to_owned()).into());
        }
        since = since.max(page.through);
        if complete {
            break;
        }
    }
    if tombstones_ran_out {
        let opened = account.open(selected.mailbox).await?;
        let missing = selected.view.missing_from(&opened.uids);
        selected.view.lose(&missing);
        let there = |uid: &Uid| {
            let after = opened.uids.partition_point(|range| range.first <= *uid);
            after > 0 && *uid <= opened.uids[after - 1].last
        };
        news.changed.retain(|uid, _| there(uid));
        let above = selected.view.highest().map_or(Uid(0), |highest| highest);
        news.came = opened.uids.into_iter().filter(|range| range.last > above).collect();
    }
    news.through = since;
    Ok(news)
}

fn forget(changed: &mut BTreeMap<Uid, MessageFlags>, range: UidRange) {
    let gone: Vec<Uid> = changed.range(range.first..=range.last).map(|(&uid, _)| uid).collect();
    for uid in gone {
        changed.remove(&uid);
    }
}
