//! From a complete [`Frame`] to a [`Command`] (RFC 3501 9 with the extensions that CAPABILITY names).
//!
//! [`lex`] knows the characters, [`ast`] the shapes, the other files one family of commands each. The parser never waits and never allocates more
//! than the frame's own size suggests; depth and number of elements are bounded. A command that it refuses is answered BAD
//! with the reason, under its tag where one could be read.
//!
//! To add a command: a variant in [`ast::Body`], an arm in [`body`], its rows in `state.rs`, a function in `command/`.

mod acl;
mod ast;
mod fetch;
mod lex;
mod mailbox;
mod metadata;
mod notify;
mod search;
mod set;
mod sort;

pub(super) use ast::{
    Append, Body, Command, DayRange, Depth, EventGroup, Events, FetchItem, FetchQuery, GetMetadata, ListQuery,
    MailboxFilter, Named, NotifySet, Partial, PartialRange, Password, Resync, ReturnOption, SearchKey, SearchQuery,
    SearchReturn, Section, SectionText, SequenceSet, Shape, SortBy, SortKey, StatusItem, StoreCommand, Target,
    ThreadAlgorithm,
};
pub(super) use lex::{is_astring_char, is_atom_char};

use super::connection::Frame;
use lex::{Cursor, Refusal};

/// A command that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub(super) struct BadCommand {
    /// Under which tag to answer; `*` when there is none.
    pub(super) tag: Option<String>,
    /// What was expected, for the person who debugs the client.
    pub(super) reason: &'static str,
}

/// Parses one frame.
pub(super) fn parse(frame: &Frame) -> Result<Command, BadCommand> {
    let mut cursor = Cursor::new(&frame.pieces);
    cursor.utf8 = frame.utf8;
    let tag = cursor.tag().map_err(|refusal| BadCommand {
        tag: None,
        reason: refusal.0,
    })?;
    match body(&mut cursor) {
        Ok(body) => Ok(Command { tag, body }),
        Err(refusal) => Err(BadCommand {
            tag: Some(tag),
            reason: refusal.0,
        }),
    }
}

fn body(cursor: &mut Cursor) -> Result<Body, Refusal> {
    cursor.space()?;
    let name = cursor.word()?;
    let body = match name.as_str() {
        "CAPABILITY" => Body::Capability,
        "NOOP" => Body::Noop,
        "LOGOUT" => Body::Logout,
        "STARTTLS" => Body::StartTls,
        "COMPRESS" => compress(cursor)?,
        "CHECK" => Body::Check,
        "CLOSE" => Body::Close,
        "UNSELECT" => Body::Unselect,
        "IDLE" => Body::Idle,
        "NOTIFY" => notify::notify(cursor)?,
        "NAMESPACE" => Body::Namespace,
        "EXPUNGE" => Body::Expunge { uids: None },
        "ID" => id(cursor)?,
        "LOGIN" => login(cursor)?,
        "AUTHENTICATE" => authenticate(cursor)?,
        "ENABLE" => enable(cursor)?,
        "SELECT" => mailbox::select(cursor, false)?,
        "EXAMINE" => mailbox::select(cursor, true)?,
        "CREATE" => mailbox::create(cursor)?,
        "DELETE" => Body::Delete(mailbox::name_argument(cursor)?),
        "RENAME" => mailbox::rename(cursor)?,
        "SUBSCRIBE" => Body::Subscribe {
            name: mailbox::name_argument(cursor)?,
            subscribed: true,
        },
        "UNSUBSCRIBE" => Body::Subscribe {
            name: mailbox::name_argument(cursor)?,
            subscribed: false,
        },
        "LIST" => mailbox::list(cursor)?,
        "LSUB" => mailbox::lsub(cursor)?,
        "STATUS" => mailbox::status(cursor)?,
        "APPEND" => mailbox::append(cursor)?,
        "GETMETADATA" => metadata::get(cursor)?,
        "SETMETADATA" => metadata::set(cursor)?,
        "SETACL" => acl::set(cursor)?,
        "DELETEACL" => acl::delete(cursor)?,
        "GETACL" => Body::GetAcl(mailbox::name_argument(cursor)?),
        "LISTRIGHTS" => acl::list_rights(cursor)?,
        "MYRIGHTS" => Body::MyRights(mailbox::name_argument(cursor)?),
        "GETQUOTA" => {
            cursor.space()?;
            Body::GetQuota(cursor.astring()?.into_owned())
        }
        "GETQUOTAROOT" => Body::GetQuotaRoot(mailbox::name_argument(cursor)?),
        "UID" => uid(cursor)?,
        other => by_message(cursor, other, false)?,
    };
    cursor.end()?;
    Ok(body)
}

fn uid(cursor: &mut Cursor) -> Result<Body, Refusal> {
    cursor.space()?;
    let name = cursor.word()?;
    if name == "EXPUNGE" {
        cursor.space()?;
        return Ok(Body::Expunge {
            uids: Some(set::sequence_set(cursor)?),
        });
    }
    by_message(cursor, &name, true)
}

/// The commands that name messages: by sequence number, or by UID after the word UID.
fn by_message(cursor: &mut Cursor, name: &str, by_uid: bool) -> Result<Body, Refusal> {
    match name {
        "SEARCH" => Ok(Body::Search {
            by_uid,
            query: search::query(cursor)?,
        }),
        "SORT" => sort::sort(cursor, by_uid),
        "THREAD" => sort::thread(cursor, by_uid),
        "FETCH" => Ok(Body::Fetch {
            target: set::target(cursor, by_uid)?,
            query: fetch::query(cursor)?,
        }),
        "STORE" => Ok(Body::Store {
            target: set::target(cursor, by_uid)?,
            store: fetch::store(cursor)?,
        }),
        "COPY" | "MOVE" => {
            let target = set::target(cursor, by_uid)?;
            Ok(Body::Copy {
                target,
                mailbox: mailbox::mailbox_name(cursor)?,
                remove: name == "MOVE",
            })
        }
        "REPLACE" => {
            let target = set::single_target(cursor, by_uid)?;
            mailbox::replace(cursor, target)
        }
        _ => Err(Refusal("unknown command")),
    }
}

/// RFC 2971. What the client calls itself is of no use to us; it is only checked for its form.
fn id(cursor: &mut Cursor) -> Result<Body, Refusal> {
    const PAIRS_MAX: usize = 30;
    cursor.space()?;
    if cursor.eat_word("NIL") {
        return Ok(Body::Id);
    }
    let mut fields = 0;
    cursor.list(|cursor| {
        cursor.string()?;
        cursor.space()?;
        cursor.nstring()?;
        fields += 1;
        if fields > PAIRS_MAX {
            Err(Refusal("more than 30 fields in ID"))
        } else {
            Ok(())
        }
    })?;
    Ok(Body::Id)
}

fn compress(cursor: &mut Cursor) -> Result<Body, Refusal> {
    cursor.space()?;
    if cursor.word()? == "DEFLATE" {
        Ok(Body::Compress)
    } else {
        Err(Refusal("only DEFLATE compresses here"))
    }
}

fn login(cursor: &mut Cursor) -> Result<Body, Refusal> {
    cursor.space()?;
    let name = cursor.astring()?.into_owned();
    cursor.space()?;
    let password = Password(cursor.astring()?.into_owned());
    Ok(Body::Login { name, password })
}

/// RFC 3501 6.2.2 with the initial response of RFC 4959, where `=` stands for an empty one.
fn authenticate(cursor: &mut Cursor) -> Result<Body, Refusal> {
    cursor.space()?;
    let mechanism = cursor.word()?;
    let initial = if cursor.at_end() {
        None
    } else {
        cursor.space()?;
        Some(Password(cursor.rest_of_text()?.to_vec()))
    };
    Ok(Body::Authenticate { mechanism, initial })
}

fn enable(cursor: &mut Cursor) -> Result<Body, Refusal> {
    let mut names = Vec::new();
    while !cursor.at_end() {
        cursor.space()?;
        names.push(cursor.word()?);
        cursor.bounded(names.len())?;
    }
    if names.is_empty() {
        Err(Refusal("ENABLE needs a capability"))
    } else {
        Ok(Body::Enable(names))
    }
}

#[cfg(test)]
mod tests;
