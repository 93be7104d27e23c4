//! Two accounts in memory, with the semantics that the client crate promises. Pages are tiny, so that every loop over pages is walked. The second
//! account is there to share with the first one; what a guest may do is looked at as the shard does.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use malle_client::{
    AccountId, AccountStatus, Annotation, Changes, Copied, EmailId, Error, Flags, FlagsStored, Granted, LoginProof,
    Mailbox, MailboxId, Message, MessageFlags, ModSeq, NewMessage, Opened, Page, Resolved, Rights, ShardId, SpecialUse,
    StoreMode, Stored, ThreadId, Uid, UidRange, UidValidity, WatchEvent,
};
use tokio::sync::watch;

use super::super::store::{Account, Store, Watch};
use super::summary::summary_of;

const PAGE_ROWS: usize = 2;
/// 2024-05-01 10:00:00 +0200.
const DELIVERED_MS: u64 = 1_714_550_400_000;
const DELIVERED_ZONE: i16 = 120;

#[derive(Clone)]
struct MemoryMessage {
    row: Message,
    body: Bytes,
}

#[derive(Clone, Default)]
struct MemoryMailbox {
    id: u8,
    uid_next: u32,
    highest_modseq: u64,
    messages: BTreeMap<u32, MemoryMessage>,
    tombstones: Vec<(u64, u32)>,
    tombstones_from: u64,
    keywords: Vec<String>,
    special_use: SpecialUse,
    subscribed: bool,
    no_select: bool,
    annotations: BTreeMap<String, Annotation>,
    grants: BTreeMap<AccountId, Rights>,
    /// Guests who have subscribed.
    guests_subscribed: Vec<AccountId>,
}

struct World {
    modseq: u64,
    next_id: u8,
    next_email: u8,
    mailboxes: BTreeMap<String, MemoryMailbox>,
    /// Of the account.
    annotations: BTreeMap<String, Annotation>,
    /// The next call fails with this.
    fail: Option<Error>,
    damaged: Option<u32>,
    /// Every page of rows takes this long.
    slow: Duration,
    page_rows: usize,
    /// Sizes of the bodies that are being read.
    reading: Vec<usize>,
    /// The most bodies that were read at the same time, and the most beside a large one.
    most_reading: (usize, usize),
}

/// Where an account is.
#[derive(Clone)]
struct Home {
    id: AccountId,
    address: &'static str,
    world: Arc<Mutex<World>>,
    changed: Arc<watch::Sender<u64>>,
}

impl Home {
    fn new(id: u8, address: &'static str, world: World) -> Home {
        Home {
            id: AccountId([id; 16]),
            address,
            world: Arc::new(Mutex::new(world)),
            changed: Arc::new(watch::Sender::new(0)),
        }
    }

    fn resolved(&self) -> Resolved {
        Resolved {
            account: self.id,
            shard: ShardId(1),
            suspended: false,
            primary_address: self.address.to_owned(),
        }
    }

    fn tell(&self) {
        let world = self.world.lock().unwrap();
        self.changed.send_replace(world.modseq);
    }
}

/// A store with the accounts `u1@example.org` and `u2@example.org`, password `secret`.
pub(super) struct MemoryStore {
    homes: [Home; 2],
}

#[derive(Clone)]
struct MemoryAccount {
    caller: AccountId,
    /// Whose mailboxes.
    home: Home,
    homes: [Home; 2],
    news_of: Option<(MailboxId, ModSeq)>,
}

struct MemoryWatch {
    changed: watch::Receiver<u64>,
    first: bool,
}

fn mailbox_id(id: u8) -> MailboxId {
    MailboxId([id; 16])
}

impl World {
    fn begin_reading(&mut self, size: usize) {
        self.reading.push(size);
        let now = self.reading.len();
        self.most_reading.0 = self.most_reading.0.max(now);
        if self.reading.iter().any(|&size| size > 64 * 1024) {
            self.most_reading.1 = self.most_reading.1.max(now);
        }
    }

    fn check(&mut self) -> Result<(), Error> {
        match self.fail.take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn next_modseq(&mut self) -> u64 {
        self.modseq += 1;
        self.modseq
    }

    fn make(&mut self, name: &str, special_use: SpecialUse) -> MailboxId {
        self.next_id += 1;
        let id = self.next_id;
        let mailbox = MemoryMailbox {
            id,
            uid_next: 1,
            highest_modseq: 1,
            special_use,
            ..MemoryMailbox::default()
        };
        self.mailboxes.insert(name.to_owned(), mailbox);
        mailbox_id(id)
    }

    fn by_id(&mut self, id: MailboxId) -> Result<&mut MemoryMailbox, Error> {
        let found = self.mailboxes.values_mut().find(|mailbox| mailbox_id(mailbox.id) == id);
        found.ok_or_else(|| Error::NotFound("mailbox".into()))
    }

    fn shown(&self, id: MailboxId) -> Result<Mailbox, Error> {
        let found = self.mailboxes.iter().find(|(_, mailbox)| mailbox_id(mailbox.id) == id);
        found
            .map(|(name, mailbox)| mailbox.shown(name))
            .ok_or_else(|| Error::NotFound("mailbox".into()))
    }

    fn add(&mut self, id: MailboxId, message: NewMessage, email_id: Option<u8>) -> Result<Stored, Error> {
        let modseq = ModSeq(self.next_modseq());
        let email = email_id.unwrap_or_else(|| {
            self.next_email += 1;
            self.next_email
        });
        let (internal_date_ms, internal_date_zone_minutes) =
            message.internal_date.unwrap_or((DELIVERED_MS, DELIVERED_ZONE));
        let mailbox = self.by_id(id)?;
        let uid = Uid(mailbox.uid_next);
        mailbox.uid_next += 1;
        mailbox.highest_modseq = modseq.0;
        mailbox.learn(&message.flags.keywords);
        let row = Message {
            uid,
            modseq,
            flags: message.flags,
            size_bytes: message.body.len() as u64,
            internal_date_ms,
            internal_date_zone_minutes,
            save_date_ms: DELIVERED_MS,
            email_id: EmailId([email; 16]),
            thread_id: ThreadId([email; 16]),
            summary: Some(summary_of(&message.body)),
        };
        mailbox.messages.insert(
            uid.0,
            MemoryMessage {
                row,
                body: message.body,
            },
        );
        Ok(Stored {
            mailbox: id,
            uid_validity: mailbox.uid_validity(),
            uid,
            modseq,
            repeated: false,
        })
    }

    fn annotations_of(&mut self, name: &str) -> Result<&mut BTreeMap<String, Annotation>, Error> {
        if name.is_empty() {
            return Ok(&mut self.annotations);
        }
        let mailbox = self.mailboxes.get_mut(name);
        let mailbox = mailbox.ok_or_else(|| Error::NotFound(name.to_owned()))?;
        Ok(&mut mailbox.annotations)
    }

    fn annotate(&mut self, name: &str, entries: Vec<(String, Option<Bytes>)>) -> Result<(), Error> {
        let modseq = ModSeq(self.next_modseq());
        let kept = self.annotations_of(name)?;
        for (entry, value) in entries {
            let row = Annotation {
                entry: entry.clone(),
                value,
                modseq,
            };
            kept.insert(entry, row);
        }
        if kept.values().filter(|one| one.value.is_some()).count() > 5 {
            return Err(Error::Limit("annotations".into()));
        }
        Ok(())
    }

    fn grant(&mut self, name: &str, guest: AccountId, mode: StoreMode, rights: Rights) -> Result<(), Error> {
        self.next_modseq();
        let mailbox = self.mailboxes.get_mut(name);
        let grants = &mut mailbox.ok_or_else(|| Error::NotFound(name.to_owned()))?.grants;
        let had = grants.remove(&guest).unwrap_or(Rights::NONE);
        let now = match mode {
            StoreMode::Replace => rights,
            StoreMode::Add => had.and(rights),
            StoreMode::Remove => had.without(rights),
        };
        if now != Rights::NONE {
            grants.insert(guest, now);
        }
        Ok(())
    }

    fn remove(&mut self, id: MailboxId, uids: &[Uid]) -> Result<(), Error> {
        let modseq = self.next_modseq();
        let mailbox = self.by_id(id)?;
        for uid in uids {
            mailbox.messages.remove(&uid.0);
            mailbox.tombstones.push((modseq, uid.0));
            mailbox.highest_modseq = modseq;
        }
        Ok(())
    }
}

impl MemoryMailbox {
    fn uid_validity(&self) -> UidValidity {
        UidValidity(1000 + u32::from(self.id))
    }

    fn learn(&mut self, keywords: &[String]) {
        for keyword in keywords {
            if !self.keywords.contains(keyword) {
                self.keywords.push(keyword.clone());
            }
        }
    }

    fn count(&self, flag: u8) -> u32 {
        self.messages
            .values()
            .filter(|message| message.row.flags.system & flag != 0)
            .count() as u32
    }

    fn shown(&self, name: &str) -> Mailbox {
        let messages = self.messages.len() as u32;
        Mailbox {
            id: mailbox_id(self.id),
            name: name.to_owned(),
            uid_validity: self.uid_validity(),
            uid_next: Uid(self.uid_next),
            highest_modseq: ModSeq(self.highest_modseq),
            messages,
            unseen: messages - self.count(Flags::SEEN),
            deleted: self.count(Flags::DELETED),
            size_bytes: self.messages.values().map(|message| message.row.size_bytes).sum(),
            special_use: self.special_use,
            subscribed: self.subscribed,
            no_select: self.no_select,
            rights: None,
        }
    }

    fn within(&self, uids: &[UidRange]) -> Vec<Uid> {
        let holds = |uid: u32| uids.iter().any(|range| range.first.0 <= uid && uid <= range.last.0);
        self.messages
            .keys()
            .copied()
            .filter(|&uid| holds(uid))
            .map(Uid)
            .collect()
    }
}

fn as_ranges(uids: &[Uid]) -> Vec<UidRange> {
    uids.iter().map(|&uid| UidRange { first: uid, last: uid }).collect()
}

impl MemoryStore {
    pub(super) const ACCOUNT: AccountId = AccountId([1; 16]);

    pub(super) fn new() -> MemoryStore {
        let mut other = MemoryStore::world_from(100);
        other.make("INBOX", SpecialUse::Inbox);
        for name in ["Projets", "Projets/2024"] {
            other.make(name, SpecialUse::None);
        }
        let mut world = MemoryStore::world_from(0);
        world.make("INBOX", SpecialUse::Inbox);
        for (name, special_use) in [
            ("Sent", SpecialUse::Sent),
            ("Drafts", SpecialUse::Drafts),
            ("Trash", SpecialUse::Trash),
            ("Junk", SpecialUse::Junk),
            ("Archive", SpecialUse::Archive),
        ] {
            world.make(name, special_use);
        }
        for name in ["INBOX", "Sent", "Archive"] {
            world.mailboxes.get_mut(name).unwrap().subscribed = true;
        }
        MemoryStore {
            homes: [
                Home::new(1, "u1@example.org", world),
                Home::new(2, "u2@example.org", other),
            ],
        }
    }

    /// Nothing yet; ids begin above these.
    fn world_from(first_id: u8) -> World {
        World {
            modseq: 10,
            next_id: first_id,
            next_email: first_id,
            mailboxes: BTreeMap::new(),
            annotations: BTreeMap::new(),
            fail: None,
            damaged: None,
            slow: Duration::ZERO,
            page_rows: PAGE_ROWS,
            reading: Vec::new(),
            most_reading: (0, 0),
        }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.homes[0].world.lock().unwrap()
    }

    pub(super) fn set_page_rows(&self, page_rows: usize) {
        self.world().page_rows = page_rows;
    }

    /// The most bodies that were read at the same time, and the most while one of them was large.
    pub(super) fn most_reading(&self) -> (usize, usize) {
        self.world().most_reading
    }

    /// Another session's doings, as a script writes them; in the other account behind `other`.
    pub(super) fn event(&self, line: &str, mail: impl Fn(&str) -> Bytes) {
        let (home, line) = match line.strip_prefix("other ") {
            Some(line) => (&self.homes[1], line),
            None => (&self.homes[0], line),
        };
        let words: Vec<&str> = line.split(' ').collect();
        let mut world = home.world.lock().unwrap();
        let id = |world: &World, name: &str| mailbox_id(world.mailboxes[name].id);
        match words.as_slice() {
            ["deliver", mailbox, sample, flags @ ..] => {
                let id = id(&world, mailbox);
                let message = NewMessage {
                    flags: flags_of(flags),
                    internal_date: None,
                    body: mail(sample),
                };
                world.add(id, message, None).unwrap();
            }
            ["flags", mailbox, uid, flags @ ..] => {
                let modseq = world.next_modseq();
                let mailbox = world.mailboxes.get_mut(*mailbox).unwrap();
                let flags = flags_of(flags);
                mailbox.learn(&flags.keywords);
                mailbox.highest_modseq = modseq;
                let row = &mut mailbox.messages.get_mut(&uid.parse().unwrap()).unwrap().row;
                row.flags = flags;
                row.modseq = ModSeq(modseq);
            }
            ["expunge", mailbox, uid] => {
                let id = id(&world, mailbox);
                world.remove(id, &[Uid(uid.parse().unwrap())]).unwrap();
            }
            ["forget-tombstones", mailbox] => {
                let modseq = world.modseq;
                let mailbox = world.mailboxes.get_mut(*mailbox).unwrap();
                mailbox.tombstones.clear();
                mailbox.tombstones_from = modseq;
            }
            ["create", name] => {
                world.make(name, SpecialUse::None);
            }
            ["rename", from, to] => {
                let mailbox = world.mailboxes.remove(*from).unwrap();
                world.mailboxes.insert((*to).to_owned(), mailbox);
            }
            ["annotate", name, entry, value] => {
                let value = Some(Bytes::copy_from_slice(value.as_bytes()));
                world.annotate(name, vec![((*entry).to_owned(), value)]).unwrap();
            }
            ["subscribe", name] => world.mailboxes.get_mut(*name).unwrap().subscribed = true,
            ["drop", mailbox] => {
                world.mailboxes.remove(*mailbox).unwrap();
            }
            ["share", name, letters @ ..] => {
                world.next_modseq();
                let rights = Rights::parse(letters.first().unwrap_or(&"")).unwrap();
                world.grant(name, self.homes[0].id, StoreMode::Replace, rights).unwrap();
            }
            ["fail", "unavailable"] => world.fail = Some(Error::Unavailable("no leader".into())),
            ["fail", "overquota"] => world.fail = Some(Error::OverQuota { limit_bytes: 1000 }),
            ["fail", "expired"] => world.fail = Some(Error::TokenExpired),
            ["fail", "limit"] => world.fail = Some(Error::Limit("too many keywords\r\n* BYE".into())),
            ["slow", seconds] => world.slow = Duration::from_secs(seconds.parse().unwrap()),
            ["damage", uid] => world.damaged = Some(uid.parse().unwrap()),
            other => panic!("unknown event {other:?}"),
        }
        drop(world);
        home.tell();
    }
}

fn flags_of(words: &[&str]) -> Flags {
    let mut flags = Flags::default();
    for word in words {
        match *word {
            "\\Seen" => flags.system |= Flags::SEEN,
            "\\Answered" => flags.system |= Flags::ANSWERED,
            "\\Flagged" => flags.system |= Flags::FLAGGED,
            "\\Deleted" => flags.system |= Flags::DELETED,
            "\\Draft" => flags.system |= Flags::DRAFT,
            keyword => flags.keywords.push(keyword.to_owned()),
        }
    }
    flags
}

#[async_trait]
impl Store for MemoryStore {
    async fn login(&self, name: &str, password: &str) -> Result<Arc<dyn Account>, Error> {
        self.world().check()?;
        let home = self.homes.iter().find(|home| home.address == name);
        match (home, password) {
            (Some(home), "secret") => Ok(Arc::new(MemoryAccount {
                caller: home.id,
                home: home.clone(),
                homes: self.homes.clone(),
                news_of: None,
            })),
            _ if name == "suspended@example.org" => Err(Error::Suspended),
            _ => Err(Error::BadCredentials),
        }
    }

    async fn login_with_token(&self, name: &str, token: &str) -> Result<Arc<dyn Account>, Error> {
        match (name, token) {
            ("" | "u1@example.org", "good") => self.login("u1@example.org", "secret").await,
            _ => Err(Error::BadCredentials),
        }
    }
}

#[async_trait]
impl Watch for MemoryWatch {
    async fn next(&mut self) -> Result<WatchEvent, Error> {
        if !std::mem::take(&mut self.first) {
            self.changed
                .changed()
                .await
                .map_err(|_| Error::Unavailable("gone".into()))?;
        }
        let modseq = ModSeq(*self.changed.borrow_and_update());
        Ok(WatchEvent {
            modseq,
            // It does not say where: whoever hears it looks everywhere.
            mailboxes: Vec::new(),
            overflow: true,
            tree_changed: true,
        })
    }
}

impl MemoryAccount {
    fn world(&self) -> Result<MutexGuard<'_, World>, Error> {
        let mut world = self.home.world.lock().unwrap();
        world.check()?;
        Ok(world)
    }

    fn is_guest(&self) -> bool {
        self.caller != self.home.id
    }

    /// What the caller may do with a mailbox.
    fn held(&self, world: &World, id: MailboxId) -> Rights {
        if !self.is_guest() {
            return Rights::ALL;
        }
        let found = world.mailboxes.values().find(|mailbox| mailbox_id(mailbox.id) == id);
        let grant = found.and_then(|mailbox| mailbox.grants.get(&self.caller));
        grant.copied().unwrap_or(Rights::NONE)
    }

    /// The world, if the caller has these rights to a mailbox.
    fn world_for(&self, id: MailboxId, letters: &str) -> Result<MutexGuard<'_, World>, Error> {
        let world = self.world()?;
        let held = self.held(&world, id);
        let wanted = Rights::parse(letters).unwrap();
        match held != Rights::NONE && held.hold(wanted) {
            true => Ok(world),
            false => Err(Error::Denied(format!("no right {wanted}"))),
        }
    }

    /// The same by name.
    fn require(&self, name: &str, letters: &str) -> Result<(), Error> {
        if !self.is_guest() {
            return Ok(());
        }
        let id = self.world()?.mailboxes.get(name).map(|mailbox| mailbox_id(mailbox.id));
        let id = id.ok_or_else(|| Error::Denied("nothing is granted".into()))?;
        self.world_for(id, letters).map(drop)
    }

    /// The same for a change of the tree: there, what is not shared is not there.
    fn require_of_tree(&self, name: &str, letters: &str) -> Result<(), Error> {
        let shared = |mailbox: &MemoryMailbox| !self.is_guest() || mailbox.grants.contains_key(&self.caller);
        if !self.world()?.mailboxes.get(name).is_some_and(shared) {
            return Err(Error::NotFound(name.to_owned()));
        }
        self.require(name, letters)
    }

    /// A guest makes what is right below something that he may make things below.
    fn require_above(&self, name: &str) -> Result<(), Error> {
        match name.rsplit_once('/') {
            _ if !self.is_guest() => Ok(()),
            Some((above, _)) => self.require_of_tree(above, "k"),
            None => Err(Error::Denied("no right k".into())),
        }
    }

    /// What a guest is told nothing of.
    fn require_owner(&self) -> Result<(), Error> {
        match self.is_guest() {
            true => Err(Error::Denied("nothing is granted".into())),
            false => Ok(()),
        }
    }

    /// What of these flags the caller may set.
    fn within_reach(&self, world: &World, id: MailboxId, flags: Flags) -> Flags {
        let held = self.held(world, id);
        let mut reach = 0;
        for (right, bits) in [
            (Rights::SEEN, Flags::SEEN),
            (Rights::DELETE_MESSAGES, Flags::DELETED),
            (Rights::WRITE, !(Flags::SEEN | Flags::DELETED)),
        ] {
            reach |= if held.hold(right) { bits } else { 0 };
        }
        Flags {
            system: flags.system & reach,
            keywords: match held.hold(Rights::WRITE) {
                true => flags.keywords,
                false => Vec::new(),
            },
        }
    }

    fn named(&self, name: &str) -> Result<MailboxId, Error> {
        self.require(name, "")?;
        let world = self.world()?;
        let mailbox = world.mailboxes.get(name);
        let shown = mailbox.ok_or_else(|| Error::NotFound(name.to_owned()))?.shown(name);
        if shown.no_select {
            return Err(Error::Invalid("The mailbox only holds other mailboxes".to_owned()));
        }
        Ok(shown.id)
    }

    fn changes_now(&self, id: MailboxId, since: ModSeq) -> Result<Changes, Error> {
        let mut world = self.world_for(id, "r")?;
        let shown = world.shown(id)?;
        let mailbox = world.by_id(id)?;
        let mut changed: Vec<MessageFlags> = mailbox
            .messages
            .values()
            .filter(|message| message.row.modseq > since)
            .map(|message| &message.row)
            .map(|row| MessageFlags {
                uid: row.uid,
                modseq: row.modseq,
                flags: row.flags.clone(),
            })
            .collect();
        changed.sort_by_key(|message| message.modseq);
        let mut through = shown.highest_modseq.max(since);
        if changed.len() > PAGE_ROWS {
            changed.truncate(PAGE_ROWS);
            through = changed[PAGE_ROWS - 1].modseq;
        }
        let gone = mailbox
            .tombstones
            .iter()
            .filter(|(modseq, _)| *modseq > since.0 && *modseq <= through.0);
        let vanished: Vec<Uid> = gone.map(|&(_, uid)| Uid(uid)).collect();
        Ok(Changes {
            changed,
            vanished: as_ranges(&vanished),
            through,
            cannot_calculate: since.0 < mailbox.tombstones_from,
            keywords: mailbox.keywords.clone(),
            mailbox: shown,
        })
    }

    fn tell(&self) {
        self.home.tell();
    }
}

#[async_trait]
impl Account for MemoryAccount {
    fn id(&self) -> AccountId {
        self.home.id
    }

    fn opened_by(&self) -> &str {
        "password"
    }

    fn proof(&self) -> LoginProof {
        LoginProof::default()
    }

    async fn mailboxes(&self) -> Result<Vec<Mailbox>, Error> {
        let world = self.world()?;
        if !self.is_guest() {
            return Ok(world
                .mailboxes
                .iter()
                .map(|(name, mailbox)| mailbox.shown(name))
                .collect());
        }
        let mut shown = Vec::new();
        for (name, mailbox) in &world.mailboxes {
            let held = self.held(&world, mailbox_id(mailbox.id));
            if held.hold(Rights::LOOKUP) {
                shown.push(Mailbox {
                    rights: Some(held),
                    subscribed: mailbox.guests_subscribed.contains(&self.caller),
                    ..mailbox.shown(name)
                });
            }
        }
        match shown.is_empty() {
            true => Err(Error::Denied("nothing is granted".into())),
            false => Ok(shown),
        }
    }

    async fn create_mailbox(&self, name: &str, special_use: SpecialUse) -> Result<MailboxId, Error> {
        self.require_above(name)?;
        let mut world = self.world()?;
        if world.mailboxes.contains_key(name) {
            return Err(Error::Exists(name.to_owned()));
        }
        for (at, _) in name.match_indices('/') {
            if !world.mailboxes.contains_key(&name[..at]) {
                world.make(&name[..at], SpecialUse::None);
            }
        }
        let id = world.make(name, special_use);
        // What is made below a shared mailbox is shared like it.
        let above = name.rsplit_once('/').and_then(|(above, _)| world.mailboxes.get(above));
        let grants = above.map(|above| above.grants.clone()).unwrap_or_default();
        world.by_id(id)?.grants = grants;
        Ok(id)
    }

    async fn rename_mailbox(&self, from: &str, to: &str) -> Result<(), Error> {
        self.require_of_tree(from, "x")?;
        self.require_above(to)?;
        let mut world = self.world()?;
        if world.mailboxes.contains_key(to) {
            return Err(Error::Exists(to.to_owned()));
        }
        let mailbox = world
            .mailboxes
            .remove(from)
            .ok_or_else(|| Error::NotFound(from.to_owned()))?;
        world.mailboxes.insert(to.to_owned(), mailbox);
        Ok(())
    }

    async fn delete_mailbox(&self, name: &str) -> Result<(), Error> {
        self.require_of_tree(name, "x")?;
        let mut world = self.world()?;
        let children = format!("{name}/");
        if world.mailboxes.keys().any(|other| other.starts_with(&children)) {
            let mailbox = world
                .mailboxes
                .get_mut(name)
                .ok_or_else(|| Error::NotFound(name.to_owned()))?;
            mailbox.no_select = true;
            mailbox.messages.clear();
            return Ok(());
        }
        world
            .mailboxes
            .remove(name)
            .map(|_| ())
            .ok_or_else(|| Error::NotFound(name.to_owned()))
    }

    async fn subscribe(&self, name: &str, subscribed: bool) -> Result<(), Error> {
        let mut world = self.world()?;
        let mailbox = world
            .mailboxes
            .get_mut(name)
            .ok_or_else(|| Error::NotFound(name.to_owned()))?;
        if !self.is_guest() {
            mailbox.subscribed = subscribed;
            return Ok(());
        }
        if !mailbox
            .grants
            .get(&self.caller)
            .is_some_and(|held| held.hold(Rights::LOOKUP))
        {
            return Err(Error::Denied("no right l".into()));
        }
        mailbox.guests_subscribed.retain(|guest| *guest != self.caller);
        mailbox.guests_subscribed.extend(subscribed.then_some(self.caller));
        Ok(())
    }

    async fn open_named(&self, name: &str) -> Result<Opened, Error> {
        let id = self.named(name)?;
        self.open(id).await
    }

    async fn open(&self, id: MailboxId) -> Result<Opened, Error> {
        let mut world = self.world_for(id, "r")?;
        let shown = Mailbox {
            rights: self.is_guest().then(|| self.held(&world, id)),
            ..world.shown(id)?
        };
        let mailbox = world.by_id(id)?;
        let uids: Vec<Uid> = mailbox.messages.keys().copied().map(Uid).collect();
        let first_unseen = mailbox
            .messages
            .values()
            .find(|message| message.row.flags.system & Flags::SEEN == 0)
            .map(|found| found.row.uid);
        Ok(Opened {
            mailbox: shown,
            uids: as_ranges(&uids),
            keywords: mailbox.keywords.clone(),
            first_unseen,
        })
    }

    async fn fetch(
        &self,
        id: MailboxId,
        uids: &[UidRange],
        changed_since: ModSeq,
        with_summary: bool,
    ) -> Result<Page, Error> {
        let slow = self.world()?.slow;
        if !slow.is_zero() {
            tokio::time::advance(slow).await;
        }
        let mut world = self.world_for(id, "r")?;
        let page_rows = world.page_rows;
        let mailbox = world.by_id(id)?;
        let mut page = Page::default();
        for uid in mailbox.within(uids) {
            let row = &mailbox.messages[&uid.0].row;
            if row.modseq <= changed_since {
                continue;
            }
            if page.messages.len() == page_rows {
                page.resume_from = Some(uid);
                break;
            }
            let summary = row.summary.clone().filter(|_| with_summary);
            page.messages.push(Message { summary, ..row.clone() });
        }
        Ok(page)
    }

    async fn changes(&self, id: MailboxId, since: ModSeq) -> Result<Changes, Error> {
        self.changes_now(id, since)
    }

    async fn read_body(&self, id: MailboxId, uid: Uid) -> Result<Bytes, Error> {
        let body = {
            let mut world = self.world_for(id, "r")?;
            if world.damaged == Some(uid.0) {
                return Err(Error::Corrupt("hash".into()));
            }
            let body = world
                .by_id(id)?
                .messages
                .get(&uid.0)
                .map(|message| message.body.clone());
            let body = body.ok_or_else(|| Error::NotFound("message".into()))?;
            world.begin_reading(body.len());
            body
        };
        // Whoever else would read at the same time does now.
        tokio::task::yield_now().await;
        let mut world = self.world()?;
        let done = world.reading.iter().position(|&size| size == body.len());
        world.reading.remove(done.expect("it began above"));
        Ok(body)
    }

    async fn read_bodies(&self, id: MailboxId, uids: &[UidRange]) -> Result<Vec<(Uid, Bytes)>, Error> {
        let uids = self.world()?.by_id(id)?.within(uids);
        // The last is left out, as a store may do, and so is what does not read: they are asked for alone.
        let some = &uids[..uids.len().saturating_sub(1)];
        let reads = some
            .iter()
            .map(|uid| async { Some((*uid, self.read_body(id, *uid).await.ok()?)) });
        Ok(futures::future::join_all(reads).await.into_iter().flatten().collect())
    }

    async fn read_body_range(&self, id: MailboxId, uid: Uid, offset: u64, length: u64) -> Result<Bytes, Error> {
        let body = self.read_body(id, uid).await?;
        let end = ((offset + length) as usize).min(body.len());
        Ok(body.slice((offset as usize).min(end)..end))
    }

    async fn append(&self, name: &str, message: NewMessage) -> Result<Stored, Error> {
        let id = self.named(name)?;
        let mut world = self.world_for(id, "i")?;
        let flags = self.within_reach(&world, id, message.flags);
        let stored = world.add(id, NewMessage { flags, ..message }, None)?;
        drop(world);
        self.tell();
        Ok(stored)
    }

    async fn append_into(&self, mailbox: MailboxId, messages: Vec<NewMessage>) -> Result<Vec<Stored>, Error> {
        let name = {
            let world = self.world_for(mailbox, "i")?;
            world.shown(mailbox)?.name
        };
        self.append_all(&name, messages, None).await
    }

    async fn append_all(
        &self,
        name: &str,
        messages: Vec<NewMessage>,
        replaces: Option<(MailboxId, Uid)>,
    ) -> Result<Vec<Stored>, Error> {
        let id = self.named(name)?;
        let stored = {
            let mut world = self.world_for(id, "i")?;
            if let Some((from, uid)) = replaces {
                if !self
                    .held(&world, from)
                    .hold(Rights::DELETE_MESSAGES.and(Rights::EXPUNGE))
                {
                    return Err(Error::Denied("no rights te".into()));
                }
                if !world.by_id(from)?.messages.contains_key(&uid.0) {
                    return Err(Error::Invalid("the message to replace is gone".into()));
                }
                world.remove(from, &[uid])?;
            }
            let mut stored = Vec::new();
            for message in messages {
                let flags = self.within_reach(&world, id, message.flags);
                stored.push(world.add(id, NewMessage { flags, ..message }, None)?);
            }
            stored
        };
        self.tell();
        Ok(stored)
    }

    async fn annotations(&self, name: &str, since: Option<ModSeq>) -> Result<Vec<Annotation>, Error> {
        self.require_owner()?;
        let mut world = self.world()?;
        let all = world.annotations_of(name)?.values();
        let wanted = |one: &&Annotation| since.map_or(one.value.is_some(), |since| one.modseq > since);
        Ok(all.filter(wanted).cloned().collect())
    }

    async fn annotate(&self, name: &str, entries: Vec<(String, Option<Bytes>)>) -> Result<(), Error> {
        self.require_owner()?;
        self.world()?.annotate(name, entries)?;
        self.tell();
        Ok(())
    }

    async fn store(
        &self,
        id: MailboxId,
        uids: &[UidRange],
        mode: StoreMode,
        flags: Flags,
        unchanged_since: Option<ModSeq>,
    ) -> Result<FlagsStored, Error> {
        let mut done = FlagsStored::default();
        {
            let mut world = self.world_for(id, "")?;
            let asked = flags;
            let flags = self.within_reach(&world, id, asked.clone());
            let held = self.held(&world, id);
            let none = ["s", "w", "t"]
                .iter()
                .all(|one| !held.hold(Rights::parse(one).unwrap()));
            if none || (flags == Flags::default() && asked != flags) {
                return Err(Error::Denied("no right s, w or t".into()));
            }
            let next = world.modseq + 1;
            let mailbox = world.by_id(id)?;
            mailbox.learn(&flags.keywords);
            let mut any_changed = false;
            for uid in mailbox.within(uids) {
                let row = &mut mailbox.messages.get_mut(&uid.0).unwrap().row;
                if unchanged_since.is_some_and(|since| row.modseq > since) {
                    done.modified.push(UidRange { first: uid, last: uid });
                    continue;
                }
                // What is beyond reach stays as it is, also where all flags are replaced.
                let now = match (mode, self.is_guest()) {
                    (StoreMode::Replace, true) => applied(&row.flags, StoreMode::Add, &flags),
                    _ => applied(&row.flags, mode, &flags),
                };
                if now != row.flags {
                    row.flags = now;
                    row.modseq = ModSeq(next);
                    any_changed = true;
                }
                done.stored.push(MessageFlags {
                    uid,
                    modseq: row.modseq,
                    flags: row.flags.clone(),
                });
            }
            if any_changed {
                mailbox.highest_modseq = next;
                world.modseq = next;
            }
        }
        self.tell();
        Ok(done)
    }

    async fn copy(&self, from: MailboxId, uids: &[UidRange], to: MailboxId) -> Result<Copied, Error> {
        drop(self.world_for(from, "r")?);
        let mut world = self.world_for(to, "i")?;
        let source = world.by_id(from)?;
        let chosen: Vec<MemoryMessage> = source
            .within(uids)
            .iter()
            .map(|uid| source.messages[&uid.0].clone())
            .collect();
        let mut copied = Copied {
            uid_validity: world.by_id(to)?.uid_validity(),
            pairs: Vec::new(),
        };
        for MemoryMessage { row, body } in chosen {
            let date = Some((row.internal_date_ms, row.internal_date_zone_minutes));
            let message = NewMessage {
                flags: row.flags,
                internal_date: date,
                body,
            };
            let stored = world.add(to, message, Some(row.email_id.as_bytes()[0]))?;
            copied.pairs.push((row.uid, stored.uid));
        }
        Ok(copied)
    }

    async fn move_messages(&self, from: MailboxId, uids: &[UidRange], to: MailboxId) -> Result<Copied, Error> {
        drop(self.world_for(from, "te")?);
        let copied = self.copy(from, uids, to).await?;
        let moved: Vec<Uid> = copied.pairs.iter().map(|&(uid, _)| uid).collect();
        self.world()?.remove(from, &moved)?;
        Ok(copied)
    }

    async fn expunge(&self, id: MailboxId, uids: &[UidRange]) -> Result<Vec<UidRange>, Error> {
        let mut world = self.world_for(id, "e")?;
        let mailbox = world.by_id(id)?;
        let all = [UidRange {
            first: Uid(1),
            last: Uid(u32::MAX),
        }];
        let named = mailbox.within(if uids.is_empty() { &all } else { uids });
        let is_deleted = |uid: &Uid| mailbox.messages[&uid.0].row.flags.system & Flags::DELETED != 0;
        let vanished: Vec<Uid> = named.into_iter().filter(is_deleted).collect();
        if !vanished.is_empty() {
            world.remove(id, &vanished)?;
        }
        Ok(as_ranges(&vanished))
    }

    fn with_news_of(&self, mailbox: MailboxId, since: ModSeq) -> Arc<dyn Account> {
        Arc::new(MemoryAccount {
            news_of: Some((mailbox, since)),
            ..self.clone()
        })
    }

    fn take_news(&self) -> Option<Changes> {
        let (mailbox, since) = self.news_of?;
        self.changes_now(mailbox, since).ok()
    }

    async fn status(&self) -> Result<AccountStatus, Error> {
        self.require_owner()?;
        let world = self.world()?;
        let shown: Vec<Mailbox> = world.mailboxes.values().map(|mailbox| mailbox.shown("")).collect();
        Ok(AccountStatus {
            modseq: ModSeq(world.modseq),
            quota_bytes: 1_000_000,
            used_bytes: shown.iter().map(|mailbox| mailbox.size_bytes).sum(),
            messages: shown.iter().map(|mailbox| u64::from(mailbox.messages)).sum(),
        })
    }

    async fn watch(&self, _of: Option<MailboxId>) -> Result<Box<dyn Watch>, Error> {
        drop(self.world()?);
        if self.is_guest() {
            self.mailboxes().await?;
        }
        Ok(Box::new(MemoryWatch {
            changed: self.home.changed.subscribe(),
            first: true,
        }))
    }

    async fn sharers(&self) -> Result<Vec<Resolved>, Error> {
        let others = self.homes.iter().filter(|home| home.id != self.caller);
        let shares = |home: &&Home| {
            let world = home.world.lock().unwrap();
            world
                .mailboxes
                .values()
                .any(|mailbox| mailbox.grants.contains_key(&self.caller))
        };
        Ok(others.filter(shares).map(Home::resolved).collect())
    }

    fn as_guest_of(&self, owner: &Resolved) -> Arc<dyn Account> {
        let home = self.homes.iter().find(|home| home.id == owner.account).unwrap();
        Arc::new(MemoryAccount {
            home: home.clone(),
            news_of: None,
            ..self.clone()
        })
    }

    async fn grants(&self, name: &str) -> Result<Granted, Error> {
        self.require(name, "")?;
        let world = self.world()?;
        let mailbox = world
            .mailboxes
            .get(name)
            .ok_or_else(|| Error::NotFound(name.to_owned()))?;
        let mine = self.held(&world, mailbox_id(mailbox.id));
        let others = mailbox.grants.iter().map(|(guest, rights)| (*guest, *rights));
        Ok(Granted {
            mine,
            others: others.filter(|_| mine.hold(Rights::ADMINISTER)).collect(),
        })
    }

    async fn grant(&self, name: &str, guest: AccountId, mode: StoreMode, rights: Rights) -> Result<(), Error> {
        self.require(name, "a")?;
        if guest == self.home.id {
            return Err(Error::Invalid("who owns a mailbox has every right".into()));
        }
        self.world()?.grant(name, guest, mode, rights)?;
        self.tell();
        Ok(())
    }

    async fn owner_of(&self, _name: &str) -> Result<(AccountId, String), Error> {
        Ok((self.home.id, self.home.address.to_owned()))
    }

    async fn resolve(&self, address: &str) -> Result<Option<Resolved>, Error> {
        let found = self.homes.iter().find(|home| home.address == address);
        Ok(found.map(Home::resolved))
    }

    async fn resolve_account(&self, account: AccountId) -> Result<Option<Resolved>, Error> {
        let found = self.homes.iter().find(|home| home.id == account);
        Ok(found.map(Home::resolved))
    }
}

fn applied(old: &Flags, mode: StoreMode, flags: &Flags) -> Flags {
    let mut now = old.clone();
    match mode {
        StoreMode::Replace => now = flags.clone(),
        StoreMode::Add => {
            now.system |= flags.system;
            now.keywords.extend(
                flags
                    .keywords
                    .iter()
                    .filter(|keyword| !old.keywords.contains(keyword))
                    .cloned(),
            );
        }
        StoreMode::Remove => {
            now.system &= !flags.system;
            now.keywords.retain(|keyword| !flags.keywords.contains(keyword));
        }
    }
    now.keywords.sort();
    now
}
