//! Commands from login on (RFC 3501 6.3), except LIST, LSUB, APPEND and IDLE.

use malle_client::{Error, Mailbox, ModSeq, Rights, SpecialUse};
use malle_proto::limits;

use super::super::parse::{Named, Resync, StatusItem};
use super::super::respond::{APPEND_LIMIT_BYTES, Answer, Failure, Output, SYSTEM_FLAGS, is_keyword};
use super::super::session::{Selected, Session};
use super::super::shared::OTHERS;
use super::super::view::View;
use super::list::tell_name;
use super::{account, because_of_name, find, quota, resync, rights};

/// What ENABLE turns on, as ENABLED spells it.
const ENABLED: [&str; 4] = ["CONDSTORE", "QRESYNC", "UTF8=ACCEPT", "IMAP4rev2"];

/// RFC 5161. What is not known is passed over in silence, as it asks.
pub(super) fn enable(session: &mut Session, names: &[String]) -> Answer {
    let named = |wanted: &str| names.iter().any(|name| name.eq_ignore_ascii_case(wanted));
    // QRESYNC brings CONDSTORE with it (RFC 7162 3.2.3).
    session.qresync |= named("QRESYNC");
    session.condstore |= session.qresync || named("CONDSTORE");
    session.utf8_accept |= named("UTF8=ACCEPT");
    session.rev2 |= named("IMAP4rev2");
    let out = &mut session.connection.output;
    out.utf8 |= session.utf8_accept || session.rev2;
    out.raw(b"* ENABLED");
    for name in ENABLED.into_iter().filter(|name| named(name)) {
        out.put(format_args!(" {name}"));
    }
    out.raw(b"\r\n");
    Answer::ok("Enabled")
}

/// RFC 3501 6.3.1 and 6.3.2, RFC 9051 6.3.2, RFC 7162 3.1.2 and 3.2.5, RFC 8474 4.1. The previous mailbox is closed whatever comes of it.
pub(super) async fn select(
    session: &mut Session,
    Named { name, spelled }: Named,
    read_only: bool,
    condstore: bool,
    resync: Option<Resync>,
) -> Result<Answer, Failure> {
    let account = account(session)?;
    if resync.is_some() && !session.qresync {
        return Err(Failure::bad("Say ENABLE QRESYNC first"));
    }
    session.condstore |= condstore;
    if session.selected.take().is_some() {
        session
            .connection
            .output
            .untagged(format_args!("OK [CLOSED] The previous mailbox is closed"));
    }
    let opened = match account.open_named(&name).await {
        Ok(opened) => opened,
        Err(error) => return Err(because_of_name(error, "NONEXISTENT")),
    };
    let (mailbox, rights) = (opened.mailbox.id, rights(&opened.mailbox));
    let read_only = read_only || !may_change(rights);
    let view = View::new(&opened.uids, opened.mailbox.highest_modseq);
    let out = &mut session.connection.output;
    tell_flags(out, &opened.keywords);
    out.untagged(format_args!("{} EXISTS", view.len()));
    if session.rev2 {
        tell_name(out, &name, spelled.as_deref());
    } else {
        out.untagged(format_args!("0 RECENT"));
        if let Some(number) = opened.first_unseen.and_then(|uid| view.number(uid)) {
            out.untagged(format_args!("OK [UNSEEN {number}] First unseen"));
        }
    }
    out.untagged(format_args!(
        "OK [UIDVALIDITY {}] UIDs are valid",
        opened.mailbox.uid_validity
    ));
    out.untagged(format_args!("OK [UIDNEXT {}] Next UID", opened.mailbox.uid_next));
    tell_permanent_flags(out, &opened.keywords, if read_only { Rights::NONE } else { rights });
    out.untagged(format_args!(
        "OK [HIGHESTMODSEQ {}] Highest",
        opened.mailbox.highest_modseq
    ));
    out.untagged(format_args!("OK [MAILBOXID ({mailbox})] Its id"));
    session.selected = Some(Selected {
        mailbox,
        read_only,
        rights,
        keywords: opened.keywords,
        view,
    });
    if let Some(resync) = resync.filter(|resync| resync.uid_validity == opened.mailbox.uid_validity.0)
        && let Err(failure) = resync::tell_missed(session, &resync).await
    {
        // A client that was told half of it must not think that it was all.
        session.selected = None;
        return Err(failure);
    }
    let (code, text) = if read_only {
        ("READ-ONLY", "Examined")
    } else {
        ("READ-WRITE", "Selected")
    };
    Ok(Answer::ok(text).with_code(code))
}

/// The FLAGS answer: what a message of this mailbox may bear.
pub(super) fn tell_flags(out: &mut Output, keywords: &[String]) {
    out.raw(b"* FLAGS ");
    out.words(known_flags(keywords));
    out.raw(b"\r\n");
}

/// A mailbox of which nothing may be changed is opened READ-ONLY (RFC 4314 5.2).
fn may_change(rights: Rights) -> bool {
    let ways = [
        Rights::INSERT,
        Rights::EXPUNGE,
        Rights::SEEN,
        Rights::WRITE,
        Rights::DELETE_MESSAGES,
    ];
    ways.into_iter().any(|right| rights.hold(right))
}

/// The flags that may be changed: \Seen with the right s, \Deleted with t, the others with w (RFC 4314 5.1).
fn tell_permanent_flags(out: &mut Output, keywords: &[String], rights: Rights) {
    let allowed = |flag: &&str| {
        rights.hold(match *flag {
            "\\Seen" => Rights::SEEN,
            "\\Deleted" => Rights::DELETE_MESSAGES,
            _ => Rights::WRITE,
        })
    };
    // `\*`: new keywords may be made, while there is room.
    let room = (keywords.len() < limits::KEYWORDS_PER_MAILBOX_MAX).then_some("\\*");
    out.raw(b"* OK [PERMANENTFLAGS ");
    out.words(known_flags(keywords).chain(room).filter(allowed));
    out.raw(b"] Kept\r\n");
}

fn known_flags(keywords: &[String]) -> impl Iterator<Item = &str> {
    let system = SYSTEM_FLAGS.iter().map(|(_, name)| *name);
    system.chain(
        keywords
            .iter()
            .map(String::as_str)
            .filter(|keyword| is_keyword(keyword)),
    )
}

/// RFC 3501 6.3.3, RFC 6154 3, RFC 8474 4.2.
pub(super) async fn create(
    session: &mut Session,
    Named { name, spelled }: Named,
    uses: &[Option<SpecialUse>],
) -> Result<Answer, Failure> {
    let special_use = match uses {
        [] => SpecialUse::None,
        [Some(special_use)] => *special_use,
        _ => {
            return Err(Failure::no(
                "USEATTR",
                "A mailbox has one use, and it must be a known one",
            ));
        }
    };
    require_name(&name)?;
    let id = account(session)?.create_mailbox(&name, special_use).await?;
    if session.rev2 && spelled.is_some() {
        tell_name(&mut session.connection.output, &name, spelled.as_deref());
    }
    Ok(Answer::ok("Created").with_code(format!("MAILBOXID ({id})")))
}

/// A name whose parts can all be shown and found again.
fn require_name(name: &str) -> Result<(), Failure> {
    if name.split('/').any(str::is_empty) {
        return Err(Failure::no("CANNOT", "A part of the mailbox name is empty"));
    }
    if name.split('/').count() > limits::MAILBOX_DEPTH_MAX {
        return Err(Failure::no("LIMIT", "The mailbox lies too deep"));
    }
    if name.chars().any(char::is_control) {
        return Err(Failure::no("CANNOT", "A mailbox name has no control characters"));
    }
    Ok(())
}

pub(super) async fn delete(session: &mut Session, name: &str) -> Result<Answer, Failure> {
    if name == "INBOX" {
        return Err(Failure::no("CANNOT", "INBOX cannot be deleted"));
    }
    account(session)?.delete_mailbox(name).await?;
    Ok(Answer::ok("Deleted"))
}

/// RFC 3501 6.3.5; a client of IMAP4rev2 is told what became of the name (RFC 9051 6.3.9.7).
pub(super) async fn rename(session: &mut Session, from: &str, Named { name, .. }: Named) -> Result<Answer, Failure> {
    require_name(&name)?;
    account(session)?.rename_mailbox(from, &name).await?;
    if session.rev2 && from != "INBOX" {
        tell_name(&mut session.connection.output, &name, Some(from));
    }
    Ok(Answer::ok("Renamed"))
}

/// RFC 3501 6.3.6. The subscription is part of the mailbox and goes with it: a name without a mailbox cannot be subscribed.
pub(super) async fn subscribe(session: &mut Session, name: &str, subscribed: bool) -> Result<Answer, Failure> {
    account(session)?.subscribe(name, subscribed).await?;
    Ok(Answer::ok(if subscribed { "Subscribed" } else { "Unsubscribed" }))
}

/// RFC 2342: one's own mailboxes, and those that others share; `/` between the parts of a name.
pub(super) fn namespace(session: &mut Session) -> Answer {
    session
        .connection
        .output
        .untagged(format_args!("NAMESPACE ((\"\" \"/\")) ((\"{OTHERS}/\" \"/\")) NIL"));
    Answer::ok("Your own mailboxes, and those that others share with you")
}

pub(super) async fn status(session: &mut Session, name: &str, items: &[StatusItem]) -> Result<Answer, Failure> {
    let account = account(session)?;
    let mailbox = find(&*account, name, "NONEXISTENT").await?;
    if mailbox.no_select {
        return Err(Failure::no("CANNOT", "The mailbox only holds other mailboxes"));
    }
    require_read(&mailbox)?;
    session.condstore |= items.contains(&StatusItem::HighestModSeq);
    let deleted_bytes = quota::deleted_bytes(&*account, &mailbox, items).await?;
    tell_status(&mut session.connection.output, &mailbox, items, deleted_bytes);
    Ok(Answer::ok("Done"))
}

/// STATUS and quotas need the right r (RFC 4314 4).
pub(super) fn require_read(mailbox: &Mailbox) -> Result<(), Failure> {
    match rights(mailbox).hold(Rights::READ) {
        true => Ok(()),
        false => Err(Error::Denied("no right r".to_owned()).into()),
    }
}

/// The STATUS answer.
pub(super) fn tell_status(out: &mut Output, mailbox: &Mailbox, items: &[StatusItem], deleted_bytes: u64) {
    out.raw(b"* STATUS ");
    out.mailbox(&mailbox.name);
    out.raw(b" (");
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.raw(b" ");
        }
        match item {
            StatusItem::Messages => out.put(format_args!("MESSAGES {}", mailbox.messages)),
            StatusItem::Recent => out.raw(b"RECENT 0"),
            StatusItem::UidNext => out.put(format_args!("UIDNEXT {}", mailbox.uid_next)),
            StatusItem::UidValidity => out.put(format_args!("UIDVALIDITY {}", mailbox.uid_validity)),
            StatusItem::Unseen => out.put(format_args!("UNSEEN {}", mailbox.unseen)),
            StatusItem::Deleted => out.put(format_args!("DELETED {}", mailbox.deleted)),
            StatusItem::Size => out.put(format_args!("SIZE {}", mailbox.size_bytes)),
            StatusItem::HighestModSeq => {
                // Never 0: that would say that the mailbox keeps none (RFC 7162 3.1.2.2).
                out.put(format_args!("HIGHESTMODSEQ {}", mailbox.highest_modseq.max(ModSeq(1))));
            }
            StatusItem::MailboxId => out.put(format_args!("MAILBOXID ({})", mailbox.id)),
            StatusItem::DeletedStorage => out.put(format_args!("DELETED-STORAGE {deleted_bytes}")),
            StatusItem::AppendLimit => out.put(format_args!("APPENDLIMIT {APPEND_LIMIT_BYTES}")),
        }
    }
    out.raw(b")\r\n");
}
