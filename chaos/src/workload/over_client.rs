//! The target over the client crate: the same routing, retries, op ids and session tokens that every front end has.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use malle_client::{
    Account, Class, Client, Consistency, Error, MailboxId, ModSeq, NewMessage, Recipient, SpecialUse, StoreMode, Uid,
    UidRange,
};
use malle_proto::AccountId;

use super::body::Body;
use super::call::{Answer, Call, Flags, FlagsMode, Freshness, MailboxRow, Outcome, Row, hex};
use super::target::{Asked, Target};

/// Pages of one read, at most: a mailbox of the load has fewer rows.
const PAGES_MAX: u32 = 1_000;

const SYSTEM: [(u8, &str); 5] = [
    (malle_client::Flags::SEEN, "\\Seen"),
    (malle_client::Flags::ANSWERED, "\\Answered"),
    (malle_client::Flags::FLAGGED, "\\Flagged"),
    (malle_client::Flags::DELETED, "\\Deleted"),
    (malle_client::Flags::DRAFT, "\\Draft"),
];

/// How an account is opened.
#[derive(Debug, Clone)]
pub struct Seat {
    /// Its id.
    pub id: AccountId,
    /// Its login name.
    pub login: String,
    /// Its password.
    pub password: String,
}

/// A [`Target`] over the client crate. Cheap to clone.
#[derive(Clone)]
pub struct OverClient {
    inner: Arc<Inner>,
}

struct Inner {
    /// One connection each, taken in turn by the clients of the load.
    clients: Vec<Client>,
    accounts: Vec<Seat>,
    sessions: Mutex<BTreeMap<(u32, u32), Account>>,
    /// Mailboxes that no client renames or deletes.
    fixed: Vec<String>,
    ids: Mutex<BTreeMap<(u32, String), MailboxId>>,
}

fn locked<T>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl OverClient {
    /// Clients of the load take `clients` in turn, so there is at least one. `fixed` are the mailboxes that keep their names.
    pub fn new(clients: Vec<Client>, accounts: Vec<Seat>, fixed: Vec<String>) -> OverClient {
        OverClient {
            inner: Arc::new(Inner {
                clients,
                accounts,
                sessions: Mutex::default(),
                fixed,
                ids: Mutex::default(),
            }),
        }
    }

    fn client(&self, client: u32, deadline: Duration) -> Client {
        let clients = &self.inner.clients;
        clients[client as usize % clients.len()].with_deadline(deadline)
    }

    /// The session of this client with this account; it logs in the first time.
    ///
    /// # Errors
    /// As [`Client::login`].
    pub async fn session(&self, asked: Asked) -> Result<Account, Error> {
        let key = (asked.client, asked.account);
        if let Some(account) = locked(&self.inner.sessions).get(&key) {
            return Ok(account.clone());
        }
        let seat = &self.inner.accounts[asked.account as usize];
        let client = self.client(asked.client, asked.deadline);
        let account = client.login(&seat.login, &seat.password).await?;
        locked(&self.inner.sessions).insert(key, account.clone());
        Ok(account)
    }

    async fn mailbox(&self, asked: Asked, account: &Account, name: &str) -> Result<MailboxId, Error> {
        let key = (asked.account, name.to_owned());
        if let Some(id) = locked(&self.inner.ids).get(&key) {
            return Ok(*id);
        }
        let id = account
            .with_consistency(Consistency::Linearizable)
            .open_named(name)
            .await?
            .mailbox
            .id;
        if self.inner.fixed.contains(&key.1) {
            locked(&self.inner.ids).insert(key, id);
        }
        Ok(id)
    }

    async fn deliver(&self, asked: Asked, body: &Body) -> Result<Answer, Error> {
        let recipient = Recipient {
            account: self.inner.accounts[asked.account as usize].id,
            op_id: asked.op,
            into: SpecialUse::None,
        };
        let client = self.client(asked.client, asked.deadline);
        let mut answers = client.deliver(&[recipient], body.bytes()).await;
        let answer = answers
            .pop()
            .unwrap_or_else(|| Err(Error::Internal("a delivery without an answer".to_owned())));
        answer.map(|stored| stored_answer(&stored))
    }

    async fn change(&self, asked: Asked, account: &Account, call: &Call) -> Result<Answer, Error> {
        match call {
            Call::Append { mailbox, flags, body } => {
                let message = NewMessage {
                    flags: to_client(flags),
                    internal_date: None,
                    body: body.bytes(),
                };
                let stored = account.append_to(mailbox, message, asked.op).await?;
                Ok(stored_answer(&stored))
            }
            Call::Create { name } => account
                .create_mailbox(name, SpecialUse::None)
                .await
                .map(|_| Answer::Changed),
            Call::Rename { from, to } => account.rename_mailbox(from, to).await.map(|()| Answer::Changed),
            Call::Delete { name } => account.delete_mailbox(name).await.map(|()| Answer::Changed),
            Call::Store {
                mailbox,
                uids,
                mode,
                flags,
                unchanged_since,
            } => {
                let id = self.mailbox(asked, account, mailbox).await?;
                let since = unchanged_since.map(ModSeq);
                let stored = account
                    .store(id, &to_ranges(uids), to_mode(*mode), to_client(flags), since, asked.op)
                    .await?;
                Ok(Answer::FlagsStored {
                    rows: stored.stored.iter().map(flags_row).collect(),
                    modified: from_ranges(&stored.modified),
                })
            }
            Call::Expunge { mailbox, uids } => {
                let id = self.mailbox(asked, account, mailbox).await?;
                let gone = account.expunge(id, &to_ranges(uids), asked.op).await?;
                Ok(Answer::Expunged {
                    uids: from_ranges(&gone),
                })
            }
            Call::Copy { mailbox, uids, to } | Call::Move { mailbox, uids, to } => {
                let from = self.mailbox(asked, account, mailbox).await?;
                let to = self.mailbox(asked, account, to).await?;
                let uids = to_ranges(uids);
                let copied = if matches!(call, Call::Move { .. }) {
                    account.move_messages(from, &uids, to, asked.op).await?
                } else {
                    account.copy(from, &uids, to, asked.op).await?
                };
                Ok(Answer::Copied {
                    uid_validity: copied.uid_validity.0,
                    pairs: copied.pairs.iter().map(|(from, to)| (from.0, to.0)).collect(),
                })
            }
            other => Err(Error::Invalid(format!("{} changes nothing", other.kind()))),
        }
    }

    async fn read(&self, asked: Asked, account: &Account, call: &Call) -> Result<Answer, Error> {
        let account = account.with_consistency(consistency(call.fresh().unwrap_or(Freshness::Linearizable)));
        match call {
            Call::List { .. } => Ok(Answer::Listed {
                mailboxes: account.mailboxes().await?.iter().map(mailbox_row).collect(),
            }),
            Call::Open { mailbox, .. } => {
                let id = self.mailbox(asked, &account, mailbox).await?;
                let opened = account.open(id).await?;
                Ok(Answer::Opened {
                    mailbox: mailbox_row(&opened.mailbox),
                    uids: opened.uids.iter().map(|range| (range.first.0, range.last.0)).collect(),
                })
            }
            Call::Fetch { mailbox, from, .. } => {
                let id = self.mailbox(asked, &account, mailbox).await?;
                fetch(&account, id, *from).await
            }
            Call::Changes { mailbox, since, .. } => {
                let id = self.mailbox(asked, &account, mailbox).await?;
                changes(&account, id, *since).await
            }
            Call::Status { .. } => {
                let status = account.status().await?;
                Ok(Answer::Status {
                    modseq: status.modseq.0,
                    used_bytes: status.used_bytes,
                    messages: status.messages,
                })
            }
            Call::ReadBody { mailbox, uid } => {
                let id = self.mailbox(asked, &account, mailbox).await?;
                let bytes = account.read_body(id, Uid(*uid)).await?;
                Ok(Answer::Body {
                    hash: hex(blake3::hash(&bytes).as_bytes()),
                    size_bytes: bytes.len() as u64,
                })
            }
            other => Err(Error::Invalid(format!("{} reads nothing", other.kind()))),
        }
    }

    async fn ask(&self, asked: Asked, call: &Call) -> Result<Answer, Error> {
        if let Call::Deliver { body } = call {
            return self.deliver(asked, body).await;
        }
        let account = self.session(asked).await?;
        match call.writes() {
            true => self.change(asked, &account, call).await,
            false => self.read(asked, &account, call).await,
        }
    }
}

impl OverClient {
    /// Is this one call of the client crate, which then has to keep the deadline by itself? Logging in, looking for a mailbox and asking page
    /// by page are calls of their own, each with a deadline of its own.
    fn is_one_call(&self, asked: Asked, call: &Call) -> bool {
        let mailboxes: &[&String] = match call {
            Call::Deliver { .. } => return true,
            Call::Fetch { .. } | Call::Changes { .. } | Call::ReadBody { .. } => return false,
            Call::Copy { mailbox, to, .. } | Call::Move { mailbox, to, .. } => &[mailbox, to],
            Call::Store { mailbox, .. } | Call::Expunge { mailbox, .. } | Call::Open { mailbox, .. } => &[mailbox],
            _ => &[],
        };
        let ids = locked(&self.inner.ids);
        let found = |name: &&String| ids.contains_key(&(asked.account, (*name).clone()));
        locked(&self.inner.sessions).contains_key(&(asked.client, asked.account)) && mailboxes.iter().all(found)
    }
}

impl Target for OverClient {
    async fn call(&self, asked: Asked, call: &Call) -> Option<Outcome<Answer>> {
        let answer = match self.is_one_call(asked, call) {
            true => self.ask(asked, call).await,
            false => malle_rt::timeout(asked.deadline, self.ask(asked, call))
                .await
                .unwrap_or_else(|_| Err(Error::Unavailable("no answer by the deadline".to_owned()))),
        };
        Some(match answer {
            Ok(value) => Outcome::Done { value },
            Err(error) => outcome(&error),
        })
    }
}

/// Rows from a UID on, page by page.
async fn fetch(account: &Account, mailbox: MailboxId, from: u32) -> Result<Answer, Error> {
    let (mut rows, mut pages, mut next) = (Vec::new(), 0, Some(Uid(from.max(1))));
    while let Some(first) = next {
        let range = UidRange {
            first,
            last: Uid(u32::MAX),
        };
        let page = account.fetch(mailbox, &[range], ModSeq(0), false).await?;
        rows.extend(page.messages.iter().map(|message| Row {
            uid: message.uid.0,
            modseq: message.modseq.0,
            flags: from_client(&message.flags),
            size_bytes: Some(message.size_bytes),
        }));
        pages += 1;
        next = page.resume_from.filter(|_| pages < PAGES_MAX);
    }
    Ok(Answer::Fetched { rows, pages })
}

/// What changed above a MODSEQ, page by page.
async fn changes(account: &Account, mailbox: MailboxId, since: u64) -> Result<Answer, Error> {
    let (mut rows, mut vanished, mut cannot_calculate) = (Vec::new(), Vec::new(), false);
    let (mut pages, mut since) = (0, ModSeq(since));
    loop {
        let page = account.changes(mailbox, since).await?;
        rows.extend(page.changed.iter().map(flags_row));
        vanished.extend(from_ranges(&page.vanished));
        cannot_calculate |= page.cannot_calculate;
        pages += 1;
        let whole = page.through >= page.mailbox.highest_modseq || page.through <= since;
        if whole || pages >= PAGES_MAX {
            return Ok(Answer::Changes {
                mailbox: mailbox_row(&page.mailbox),
                rows,
                vanished,
                cannot_calculate,
                pages,
            });
        }
        since = page.through;
    }
}

/// What an error tells of the call. Refused is only what the shard itself decided; for everything else an earlier try of the same call may
/// have been done.
pub fn outcome<T>(error: &Error) -> Outcome<T> {
    let code = match error {
        Error::NotFound(_) => "not-found",
        Error::Exists(_) => "exists",
        Error::OverQuota { .. } => "over-quota",
        Error::TooLarge { .. } => "too-large",
        Error::Denied(_) => "denied",
        Error::Invalid(_) => "invalid",
        Error::Limit(_) => "limit",
        Error::Suspended => "suspended",
        other => {
            let class = match other.class() {
                Class::Retry => "retry",
                Class::Refused => "refused",
                Class::Fault => "fault",
            };
            return Outcome::Unknown {
                why: format!("{class}: {other}"),
            };
        }
    };
    Outcome::Refused { code: code.to_owned() }
}

fn consistency(fresh: Freshness) -> Consistency {
    match fresh {
        Freshness::Linearizable => Consistency::Linearizable,
        Freshness::AtLeast(modseq) => Consistency::AtLeast(ModSeq(modseq)),
        Freshness::Stale(us) => Consistency::Stale(Duration::from_micros(us)),
    }
}

fn to_mode(mode: FlagsMode) -> StoreMode {
    match mode {
        FlagsMode::Add => StoreMode::Add,
        FlagsMode::Remove => StoreMode::Remove,
        FlagsMode::Replace => StoreMode::Replace,
    }
}

fn to_client(flags: &Flags) -> malle_client::Flags {
    let mut system = 0;
    let mut keywords = Vec::new();
    for name in &flags.0 {
        match SYSTEM.iter().find(|(_, known)| known == name) {
            Some((bit, _)) => system |= bit,
            None => keywords.push(name.clone()),
        }
    }
    malle_client::Flags { system, keywords }
}

/// Flags as the history keeps them.
pub fn from_client(flags: &malle_client::Flags) -> Flags {
    let system = SYSTEM.iter().filter(|(bit, _)| flags.system & bit != 0);
    let names = system
        .map(|(_, name)| (*name).to_owned())
        .chain(flags.keywords.iter().cloned());
    Flags(names.collect())
}

fn flags_row(message: &malle_client::MessageFlags) -> Row {
    Row {
        uid: message.uid.0,
        modseq: message.modseq.0,
        flags: from_client(&message.flags),
        size_bytes: None,
    }
}

fn mailbox_row(mailbox: &malle_client::Mailbox) -> MailboxRow {
    MailboxRow {
        name: mailbox.name.clone(),
        uid_validity: mailbox.uid_validity.0,
        uid_next: mailbox.uid_next.0,
        highest_modseq: mailbox.highest_modseq.0,
        count: mailbox.messages,
    }
}

fn stored_answer(stored: &malle_client::Stored) -> Answer {
    Answer::Stored {
        uid_validity: stored.uid_validity.0,
        uid: stored.uid.0,
        modseq: stored.modseq.0,
        repeated: stored.repeated,
    }
}

/// Sorted, apart, joined where they touch.
fn to_ranges(uids: &[u32]) -> Vec<UidRange> {
    let mut sorted = uids.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let mut ranges: Vec<UidRange> = Vec::new();
    for uid in sorted {
        match ranges.last_mut() {
            Some(range) if range.last.0 + 1 == uid => range.last = Uid(uid),
            _ => ranges.push(UidRange {
                first: Uid(uid),
                last: Uid(uid),
            }),
        }
    }
    ranges
}

fn from_ranges(ranges: &[UidRange]) -> Vec<u32> {
    ranges.iter().flat_map(|range| range.first.0..=range.last.0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uids_become_ranges_and_back() {
        let ranges = to_ranges(&[7, 3, 4, 4, 9, 5]);
        assert_eq!(ranges.len(), 3);
        assert_eq!(from_ranges(&ranges), [3, 4, 5, 7, 9]);
    }

    #[test]
    fn flags_become_bits_and_back() {
        let flags = Flags::of(&["\\Seen", "\\Deleted", "k1"]);
        assert_eq!(to_client(&flags).system, 9);
        assert_eq!(from_client(&to_client(&flags)), flags);
    }

    #[test]
    fn only_an_answer_of_the_shard_is_a_refusal() {
        assert!(outcome::<()>(&Error::OverQuota { limit_bytes: 1 }).is_refused());
        for unknown in [
            Error::Unavailable(String::new()),
            Error::Busy(Duration::ZERO),
            Error::TokenExpired,
            Error::Corrupt(String::new()),
        ] {
            assert!(!outcome::<()>(&unknown).is_refused(), "{unknown:?}");
        }
    }
}
