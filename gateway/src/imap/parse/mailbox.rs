//! Commands that name mailboxes: SELECT to APPEND.

use malle_client::{Flags, ModSeq, NewMessage, SpecialUse};
use malle_proto::limits;

use super::super::{date, name};
use super::ast::{Append, Body, ListQuery, Named, Resync, ReturnOption, StatusItem, Target};
use super::lex::{Cursor, Refusal};
use super::{fetch, set};

/// A mailbox name in its inner form.
pub(super) fn mailbox_name(cursor: &mut Cursor) -> Result<String, Refusal> {
    named(cursor).map(|named| named.name)
}

/// The same, with the client's own spelling.
fn named(cursor: &mut Cursor) -> Result<Named, Refusal> {
    let spelled = decoded(cursor.utf8, &cursor.astring()?)?;
    if spelled.len() > limits::MAILBOX_NAME_MAX_BYTES {
        return Err(Refusal("the mailbox name is too long"));
    }
    let name = name::normalised(spelled.clone());
    let spelled = (spelled != name).then_some(spelled);
    Ok(Named { name, spelled })
}

/// `SP mailbox`.
pub(super) fn name_argument(cursor: &mut Cursor) -> Result<String, Refusal> {
    cursor.space()?;
    mailbox_name(cursor)
}

/// RFC 3501 6.3.1, RFC 7162 3.1.8 and 3.2.5.
pub(super) fn select(cursor: &mut Cursor, read_only: bool) -> Result<Body, Refusal> {
    cursor.space()?;
    let name = named(cursor)?;
    let (mut condstore, mut resync) = (false, None);
    if !cursor.at_end() {
        cursor.space()?;
        cursor.list(|cursor| match cursor.word()?.as_str() {
            "CONDSTORE" => {
                condstore = true;
                Ok(())
            }
            "QRESYNC" => {
                cursor.space()?;
                resync = Some(resync_parameter(cursor)?);
                Ok(())
            }
            _ => Err(Refusal("unknown parameter of SELECT")),
        })?;
    }
    Ok(Body::Select {
        name,
        read_only,
        condstore,
        resync,
    })
}

/// `(uidvalidity modseq [known-uids] [(numbers uids)])`.
fn resync_parameter(cursor: &mut Cursor) -> Result<Resync, Refusal> {
    cursor.expect(b'(', "expected UIDVALIDITY and MODSEQ in parentheses")?;
    let uid_validity = cursor.nonzero()?;
    cursor.space()?;
    let modseq = ModSeq(cursor.number64()?);
    let mut known = None;
    while cursor.eat(b' ') {
        if cursor.eat(b'(') {
            set::sequence_set(cursor)?;
            cursor.space()?;
            set::sequence_set(cursor)?;
            cursor.expect(b')', "expected a closing parenthesis")?;
            break;
        }
        known = Some(set::sequence_set(cursor)?);
    }
    cursor.expect(b')', "expected a closing parenthesis")?;
    Ok(Resync {
        uid_validity,
        modseq,
        known,
    })
}

/// RFC 3501 6.3.3, RFC 6154 3. A trailing separator says that children will come; every mailbox can have them.
pub(super) fn create(cursor: &mut Cursor) -> Result<Body, Refusal> {
    cursor.space()?;
    let mut name = named(cursor)?;
    if name.name.len() > 1 && name.name.ends_with('/') {
        let spelled = name.name.clone();
        name.name.pop();
        name.spelled.get_or_insert(spelled);
    }
    let mut uses = Vec::new();
    if !cursor.at_end() {
        cursor.space()?;
        cursor.expect(b'(', "expected the parameters of CREATE")?;
        if cursor.word()? != "USE" {
            return Err(Refusal("unknown parameter of CREATE"));
        }
        cursor.space()?;
        cursor.list(|cursor| {
            uses.push(special_use(cursor.flag()?));
            Ok(())
        })?;
        cursor.expect(b')', "expected a closing parenthesis")?;
    }
    Ok(Body::Create { name, uses })
}

/// `None`: an attribute that we do not know.
fn special_use(attribute: &[u8]) -> Option<SpecialUse> {
    const USES: [(&[u8], SpecialUse); 7] = [
        (b"\\Sent", SpecialUse::Sent),
        (b"\\Drafts", SpecialUse::Drafts),
        (b"\\Trash", SpecialUse::Trash),
        (b"\\Junk", SpecialUse::Junk),
        (b"\\Archive", SpecialUse::Archive),
        (b"\\Flagged", SpecialUse::Flagged),
        (b"\\All", SpecialUse::All),
    ];
    USES.iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(attribute))
        .map(|&(_, special_use)| special_use)
}

pub(super) fn rename(cursor: &mut Cursor) -> Result<Body, Refusal> {
    cursor.space()?;
    let from = mailbox_name(cursor)?;
    cursor.space()?;
    Ok(Body::Rename {
        from,
        to: named(cursor)?,
    })
}

fn decoded(utf8: bool, wire: &[u8]) -> Result<String, Refusal> {
    if utf8 {
        let name = String::from_utf8(wire.to_vec());
        return name.map_err(|_| Refusal("a mailbox name is UTF-8"));
    }
    name::decode(wire).ok_or(Refusal("a mailbox name is modified UTF-7"))
}

/// A reference or pattern. INBOX in them is left as it is spelled: the matching knows about its letter case.
fn pattern(utf8: bool, wire: &[u8]) -> Result<String, Refusal> {
    let pattern = decoded(utf8, wire)?;
    if pattern.len() > limits::MAILBOX_NAME_MAX_BYTES {
        return Err(Refusal("the pattern is too long"));
    }
    Ok(name::composed(pattern))
}

pub(super) fn lsub(cursor: &mut Cursor) -> Result<Body, Refusal> {
    cursor.space()?;
    let reference = pattern(cursor.utf8, &cursor.astring()?)?;
    cursor.space()?;
    Ok(Body::Lsub {
        reference,
        pattern: pattern(cursor.utf8, &cursor.list_mailbox()?)?,
    })
}

/// RFC 3501 6.3.8, extended by RFC 5258 6: `LIST [(select)] reference pattern|(patterns) [RETURN (options)]`.
pub(super) fn list(cursor: &mut Cursor) -> Result<Body, Refusal> {
    const PATTERNS_MAX: usize = 100;
    cursor.space()?;
    let mut query = ListQuery::default();
    if cursor.peek() == Some(b'(') {
        query.extended = true;
        select_options(cursor, &mut query)?;
        cursor.space()?;
    }
    query.reference = pattern(cursor.utf8, &cursor.astring()?)?;
    cursor.space()?;
    if cursor.peek() == Some(b'(') {
        query.extended = true;
        cursor.list(|cursor| {
            query.patterns.push(pattern(cursor.utf8, &cursor.list_mailbox()?)?);
            if query.patterns.len() > PATTERNS_MAX {
                Err(Refusal("too many patterns"))
            } else {
                Ok(())
            }
        })?;
    } else {
        query.patterns.push(pattern(cursor.utf8, &cursor.list_mailbox()?)?);
    }
    if !cursor.at_end() {
        cursor.space()?;
        if !cursor.eat_word("RETURN") {
            return Err(Refusal("expected RETURN"));
        }
        cursor.space()?;
        query.extended = true;
        cursor.list(|cursor| {
            let option = return_option(cursor)?;
            if !query.returned.contains(&option) {
                query.returned.push(option);
            }
            Ok(())
        })?;
    }
    Ok(Body::List(query))
}

fn select_options(cursor: &mut Cursor, query: &mut ListQuery) -> Result<(), Refusal> {
    cursor.list(|cursor| {
        match cursor.word()?.as_str() {
            "SUBSCRIBED" => query.select_subscribed = true,
            "SPECIAL-USE" => query.select_special_use = true,
            "RECURSIVEMATCH" => query.recursive_match = true,
            // There are no mailboxes elsewhere.
            "REMOTE" => {}
            _ => return Err(Refusal("unknown selection option of LIST")),
        }
        Ok(())
    })?;
    if query.recursive_match && !query.select_subscribed && !query.select_special_use {
        return Err(Refusal("RECURSIVEMATCH needs another selection option"));
    }
    Ok(())
}

fn return_option(cursor: &mut Cursor) -> Result<ReturnOption, Refusal> {
    match cursor.word()?.as_str() {
        "SUBSCRIBED" => Ok(ReturnOption::Subscribed),
        "CHILDREN" => Ok(ReturnOption::Children),
        "SPECIAL-USE" => Ok(ReturnOption::SpecialUse),
        "MYRIGHTS" => Ok(ReturnOption::MyRights),
        "STATUS" => {
            cursor.space()?;
            Ok(ReturnOption::Status(status_items(cursor)?))
        }
        _ => Err(Refusal("unknown return option of LIST")),
    }
}

pub(super) fn status(cursor: &mut Cursor) -> Result<Body, Refusal> {
    cursor.space()?;
    let name = mailbox_name(cursor)?;
    cursor.space()?;
    Ok(Body::Status {
        name,
        items: status_items(cursor)?,
    })
}

fn status_items(cursor: &mut Cursor) -> Result<Vec<StatusItem>, Refusal> {
    let mut items = Vec::new();
    cursor.list(|cursor| {
        let item = match cursor.word()?.as_str() {
            "MESSAGES" => StatusItem::Messages,
            "RECENT" => StatusItem::Recent,
            "UIDNEXT" => StatusItem::UidNext,
            "UIDVALIDITY" => StatusItem::UidValidity,
            "UNSEEN" => StatusItem::Unseen,
            "DELETED" => StatusItem::Deleted,
            "SIZE" => StatusItem::Size,
            "HIGHESTMODSEQ" => StatusItem::HighestModSeq,
            "MAILBOXID" => StatusItem::MailboxId,
            "APPENDLIMIT" => StatusItem::AppendLimit,
            "DELETED-STORAGE" => StatusItem::DeletedStorage,
            _ => return Err(Refusal("unknown item of STATUS")),
        };
        if !items.contains(&item) {
            items.push(item);
        }
        Ok(())
    })?;
    if items.is_empty() {
        Err(Refusal("STATUS needs an item"))
    } else {
        Ok(items)
    }
}

/// RFC 3501 6.3.11, with several messages RFC 3502.
pub(super) fn append(cursor: &mut Cursor) -> Result<Body, Refusal> {
    let mailbox = name_argument(cursor)?;
    let mut messages = Vec::new();
    while messages.is_empty() || !cursor.at_end() {
        messages.push(message(cursor)?);
    }
    Ok(Body::Append(Append {
        mailbox,
        messages,
        replaces: None,
    }))
}

/// RFC 8508 5: `mailbox append-message`, after the message that goes.
pub(super) fn replace(cursor: &mut Cursor, replaces: Target) -> Result<Body, Refusal> {
    Ok(Body::Append(Append {
        mailbox: name_argument(cursor)?,
        messages: vec![message(cursor)?],
        replaces: Some(replaces),
    }))
}

/// `SP [flags SP] [date SP] literal`.
fn message(cursor: &mut Cursor) -> Result<NewMessage, Refusal> {
    cursor.space()?;
    let mut flags = Flags::default();
    if cursor.peek() == Some(b'(') {
        flags = fetch::flag_list(cursor)?;
        cursor.space()?;
    }
    let mut internal_date = None;
    if cursor.peek() == Some(b'"') {
        let text = cursor.string()?;
        internal_date = Some(
            date::parse_date_time(&text)
                .ok_or(Refusal("expected a date-time such as \"17-Jul-1996 02:44:25 -0700\""))?,
        );
        cursor.space()?;
    }
    // RFC 6855 4: a message with UTF-8 in its header is said to be one. The store keeps the bytes of any message as they are.
    let said_utf8 = cursor.utf8 && cursor.eat_text(b"UTF8 (");
    let body = cursor
        .literal()
        .map_err(|_| Refusal("expected the message as a literal"))?
        .clone();
    if said_utf8 {
        cursor.expect(b')', "expected a closing parenthesis")?;
    }
    Ok(NewMessage {
        flags,
        internal_date,
        body,
    })
}
