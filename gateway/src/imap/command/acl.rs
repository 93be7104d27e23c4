//! ACL (RFC 4314): who may do what with a mailbox. An identifier is an address; each stands for one account.
//!
//! Absent: `anyone`, groups, and identifiers that begin with `-`. Who owns a mailbox has every right, and nobody takes any from him.

use futures::future::join_all;
use malle_client::{AccountId, Error, Rights, StoreMode};

use super::super::respond::{Answer, Failure, Output};
use super::super::session::Session;
use super::super::shared::is_of_others;
use super::{account, because_of_name};

/// With one of these a user may be told his own rights (RFC 4314 4).
const ANY_OF: &str = "lrikxa";

/// RFC 4314 3.1 and 3.2.
pub(super) async fn set(
    session: &mut Session,
    mailbox: &str,
    identifier: &str,
    (mode, rights): (StoreMode, Rights),
) -> Result<Answer, Failure> {
    let account = account(session)?;
    if identifier.starts_with('-') {
        return Err(Failure::no("CANNOT", "Rights are given or not, never forbidden"));
    }
    let guest = match account.resolve(identifier).await? {
        Some(resolved) => resolved.account,
        None => return Err(Failure::no("CANNOT", "An identifier is the address of somebody here")),
    };
    let (owner, _) = account.owner_of(mailbox).await?;
    if guest == owner {
        return Err(Failure::no("CANNOT", "Who owns a mailbox has every right"));
    }
    let done = account.grant(mailbox, guest, mode, rights).await;
    done.map_err(|error| because_of_mailbox(error, mailbox))?;
    Ok(Answer::ok("Done"))
}

/// RFC 4314 3.3, for who has the right a.
pub(super) async fn get(session: &mut Session, mailbox: &str) -> Result<Answer, Failure> {
    let account = account(session)?;
    let granted = account.grants(mailbox).await;
    let granted = granted.map_err(|error| because_of_mailbox(error, mailbox))?;
    require_administer(granted.mine)?;
    let (_, owner) = account.owner_of(mailbox).await?;
    let names = granted.others.iter().map(|(guest, _)| account.resolve_account(*guest));
    let names = join_all(names).await.into_iter();
    let mut told = vec![(owner, Rights::ALL)];
    for ((guest, rights), resolved) in granted.others.iter().zip(names) {
        told.push((
            name_of(*guest, resolved?.map(|resolved| resolved.primary_address)),
            *rights,
        ));
    }
    let out = &mut session.connection.output;
    out.raw(b"* ACL ");
    out.mailbox(mailbox);
    for (name, rights) in told {
        out.raw(b" ");
        out.astring(name.as_bytes());
        out.put(format_args!(" {}", shown(rights)));
    }
    out.raw(b"\r\n");
    Ok(Answer::ok("Done"))
}

/// RFC 4314 3.4: any right can be given by itself; those of the owner cannot be taken away.
pub(super) async fn list(session: &mut Session, mailbox: &str, identifier: &str) -> Result<Answer, Failure> {
    let account = account(session)?;
    let granted = account.grants(mailbox).await;
    require_administer(granted.map_err(|error| because_of_mailbox(error, mailbox))?.mine)?;
    let (owner, _) = account.owner_of(mailbox).await?;
    let resolved = account.resolve(identifier).await?;
    let out = &mut session.connection.output;
    out.raw(b"* LISTRIGHTS ");
    out.mailbox(mailbox);
    out.raw(b" ");
    out.astring(identifier.as_bytes());
    if resolved.is_some_and(|resolved| resolved.account == owner) {
        out.put(format_args!(" {}\r\n", shown(Rights::ALL)));
    } else {
        out.raw(b" \"\"");
        for letter in shown(Rights::ALL).chars() {
            out.put(format_args!(" {letter}"));
        }
        out.raw(b"\r\n");
    }
    Ok(Answer::ok("Done"))
}

/// RFC 4314 3.5.
pub(super) async fn mine(session: &mut Session, mailbox: &str) -> Result<Answer, Failure> {
    let granted = account(session)?.grants(mailbox).await;
    let mine = granted.map_err(|error| because_of_mailbox(error, mailbox))?.mine;
    let some = Rights::parse(ANY_OF).unwrap_or(Rights::NONE);
    if some.without(mine) == some {
        return Err(denied());
    }
    tell_mine(&mut session.connection.output, mailbox, mine);
    Ok(Answer::ok("Done"))
}

/// The MYRIGHTS answer, also of LIST (RFC 8440).
pub(super) fn tell_mine(out: &mut Output, mailbox: &str, rights: Rights) {
    out.raw(b"* MYRIGHTS ");
    out.mailbox(mailbox);
    out.put(format_args!(" {}\r\n", shown(rights)));
}

fn require_administer(mine: Rights) -> Result<(), Failure> {
    match mine.hold(Rights::ADMINISTER) {
        true => Ok(()),
        false => Err(denied()),
    }
}

fn denied() -> Failure {
    Failure::Store(Error::Denied("no right a".to_owned()))
}

/// Of somebody else's mailboxes nothing is told that his rights do not allow: one that is not there and one that is not shared are answered
/// alike.
fn because_of_mailbox(error: Error, mailbox: &str) -> Failure {
    match error {
        Error::NotFound(_) if is_of_others(mailbox) => denied(),
        error => because_of_name(error, "NONEXISTENT"),
    }
}

/// An account that is gone from the directory still has its row; it is shown so that it can be seen, under a name that nobody has.
fn name_of(guest: AccountId, address: Option<String>) -> String {
    address.unwrap_or_else(|| guest.to_string())
}

/// The letters, with those of RFC 2086 that stand for some of them (RFC 4314 2.1.1): c for k or x, d for t or e. None is "".
fn shown(rights: Rights) -> String {
    let any = |one: Rights, other: Rights| rights.hold(one) || rights.hold(other);
    let mut letters = rights.to_string();
    if any(Rights::CREATE, Rights::DELETE_MAILBOX) {
        letters.push('c');
    }
    if any(Rights::DELETE_MESSAGES, Rights::EXPUNGE) {
        letters.push('d');
    }
    match letters.is_empty() {
        true => "\"\"".to_owned(),
        false => letters,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_rights_stand_beside_the_new_ones() {
        let letters = |rights| shown(Rights::parse(rights).unwrap());
        assert_eq!(letters("lrs"), "lrs");
        assert_eq!(letters("x"), "xc");
        assert_eq!(letters("lte"), "lted");
        assert_eq!(letters(""), "\"\"");
        assert_eq!(shown(Rights::ALL), "lrswipkxteacd");
    }
}
