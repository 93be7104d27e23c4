//! The commands, one file per state as RFC 3501 6 orders them, and a file each for the large ones.
//!
//! A command writes its untagged answers, and returns the tagged one. Whatever others did meanwhile is told by [`tell_changes`] between the two.

mod acl;
mod anonymous;
mod any;
mod append;
mod authenticated;
mod changes;
mod fetch;
mod idle;
mod list;
mod listen;
mod metadata;
mod notify;
mod quota;
mod results;
mod resync;
mod search;
mod selected;

pub(super) use any::capabilities;
pub(super) use changes::{Tell, tell_changes};
pub(super) use fetch::ranges_from;
pub(super) use listen::{Listening, end_of_selected, tell_heard};
pub(super) use notify::Notifying;
pub(super) use selected::ANY_MODSEQ;

use std::sync::Arc;

use malle_client::{Error, Mailbox, MailboxId, Rights};

use super::parse::Body;
use super::respond::{Answer, Failure};
use super::session::{Next, Selected, Session};
use super::store::Account;

/// Does one command, which the state table allows now. What needs much memory while it runs has it in a box: most sessions are in IDLE,
/// and shall not keep room for a SEARCH meanwhile.
pub(super) async fn execute(session: &mut Session, tag: &str, body: Body) -> Result<(Answer, Next), Failure> {
    let answer = match body {
        Body::Capability => any::capability(session),
        Body::Noop => Answer::ok("Done"),
        Body::Id => any::id(session),
        Body::Logout => return Ok((any::logout(session), Next::Close)),
        Body::StartTls => return Ok((anonymous::starttls(session)?, Next::StartTls)),
        Body::Compress => return Ok((any::compress(session)?, Next::Compress)),
        Body::Login { name, password } => anonymous::login(session, &name, &password).await?,
        Body::Authenticate { mechanism, initial } => anonymous::authenticate(session, &mechanism, initial).await?,
        Body::Enable(names) => authenticated::enable(session, &names),
        Body::Select {
            name,
            read_only,
            condstore,
            resync,
        } => Box::pin(authenticated::select(session, name, read_only, condstore, resync)).await?,
        Body::Create { name, uses } => authenticated::create(session, name, &uses).await?,
        Body::Delete(name) => authenticated::delete(session, &name).await?,
        Body::Rename { from, to } => authenticated::rename(session, &from, to).await?,
        Body::Subscribe { name, subscribed } => authenticated::subscribe(session, &name, subscribed).await?,
        Body::List(query) => Box::pin(list::list(session, &query)).await?,
        Body::Lsub { reference, pattern } => list::lsub(session, &reference, &pattern).await?,
        Body::Namespace => authenticated::namespace(session),
        Body::Status { name, items } => authenticated::status(session, &name, &items).await?,
        Body::Append(append) => Box::pin(append::append(session, append)).await?,
        Body::GetMetadata(get) => metadata::get(session, &get).await?,
        Body::SetMetadata { mailbox, entries } => metadata::set(session, &mailbox, entries).await?,
        Body::SetAcl {
            mailbox,
            identifier,
            change,
        } => acl::set(session, &mailbox, &identifier, change).await?,
        Body::GetAcl(mailbox) => acl::get(session, &mailbox).await?,
        Body::ListRights { mailbox, identifier } => acl::list(session, &mailbox, &identifier).await?,
        Body::MyRights(mailbox) => acl::mine(session, &mailbox).await?,
        Body::GetQuota(root) => quota::get_quota(session, &root).await?,
        Body::GetQuotaRoot(name) => quota::get_quota_root(session, &name).await?,
        Body::Idle => idle::idle(session).await?,
        Body::Notify(set) => Box::pin(notify::notify(session, set)).await?,
        Body::Check => Answer::ok("Checked"),
        Body::Close => selected::close(session).await?,
        Body::Unselect => selected::unselect(session),
        Body::Expunge { uids } => selected::expunge(session, uids).await?,
        Body::Search { by_uid, query } => Box::pin(search::search(session, tag, by_uid, query)).await?,
        Body::Sort { by_uid, order, query } => Box::pin(search::sort(session, tag, by_uid, &order, query)).await?,
        Body::Thread {
            by_uid,
            algorithm,
            query,
        } => Box::pin(search::thread(session, tag, by_uid, algorithm, query)).await?,
        Body::Fetch { target, query } => Box::pin(fetch::fetch(session, &target, query)).await?,
        Body::Store { target, store } => Box::pin(selected::store(session, &target, store)).await?,
        Body::Copy {
            target,
            mailbox,
            remove,
        } => Box::pin(selected::copy(session, &target, &mailbox, remove)).await?,
    };
    Ok((answer, Next::Read))
}

/// The account of a session whose state the table has checked.
fn account(session: &Session) -> Result<Arc<dyn Account>, Failure> {
    session.account.clone().ok_or_else(|| Failure::bad("Log in first"))
}

/// The account, for a command that changes it: what is told at the command's end then comes with the change, without asking again.
fn writer(session: &mut Session) -> Result<Arc<dyn Account>, Failure> {
    let account = account(session)?;
    let Some(selected) = &session.selected else {
        return Ok(account);
    };
    let writer = account.with_news_of(selected.mailbox, selected.view.modseq);
    session.writer = Some(writer.clone());
    Ok(writer)
}

/// The account and the selected mailbox of a session whose state the table has checked.
fn mailbox(session: &mut Session) -> Result<(Arc<dyn Account>, &mut Selected), Failure> {
    let account = account(session)?;
    let selected = session
        .selected
        .as_mut()
        .ok_or_else(|| Failure::bad("Select a mailbox first"))?;
    Ok((account, selected))
}

/// The mailbox with this name; `missing` is the response code when there is none (NONEXISTENT, or TRYCREATE where creating it would help).
async fn find(account: &dyn Account, name: &str, missing: &str) -> Result<Mailbox, Failure> {
    let mailboxes = account.mailboxes_within(name).await?;
    let found = mailboxes.into_iter().find(|mailbox| mailbox.name == name);
    found.ok_or_else(|| Failure::no(missing, "There is no such mailbox"))
}

/// The failure of a call that named a mailbox; `missing` as in [`find`].
fn because_of_name(error: Error, missing: &str) -> Failure {
    match error {
        Error::NotFound(_) => Failure::no(missing, "There is no such mailbox"),
        other => other.into(),
    }
}

/// As [`find`], where messages are read or written.
async fn find_selectable(account: &dyn Account, name: &str, missing: &str) -> Result<MailboxId, Failure> {
    let mailbox = find(account, name, missing).await?;
    if mailbox.no_select {
        return Err(Failure::no("CANNOT", "The mailbox only holds other mailboxes"));
    }
    Ok(mailbox.id)
}

/// What the session may do with a mailbox.
fn rights(mailbox: &Mailbox) -> Rights {
    mailbox.rights.unwrap_or(Rights::ALL)
}
