//! Recounts a whole shard: every counter, index and reference against the rows that it speaks of.
//!
//! The digest shows that replicas agree; this shows that what they agree on makes sense. It reads every row, so it is for scrubs, tests
//! and chaos runs, never for the path of a request.

use std::collections::{BTreeMap, BTreeSet};

use malle_proto::{AccountId, BodyHash, MailboxId, ModSeq, OpId, Uid, limits};

use super::keys::kind;
use super::{Flags, keys, receipts, rows, tree};
use crate::view::{Fault, Flow, View};

/// Every contradiction between rows, in words; empty when there is none.
///
/// # Errors
/// A [`Fault`] when a row cannot be read at all.
pub fn audit(view: &dyn View) -> Result<Vec<String>, Fault> {
    let mut wrong = Vec::new();
    let mut owned: BTreeMap<AccountId, Owned> = BTreeMap::new();
    let range = keys::accounts();
    view.scan(&range.from, &range.to, &mut |key, value| {
        let (account, kind) = keys::account_and_kind_of(key).ok_or_else(rows::bad_key)?;
        owned.entry(account).or_default().take(kind, key, value, &mut wrong)?;
        Ok(Flow::More)
    })?;
    let mut named: BTreeMap<BodyHash, u64> = BTreeMap::new();
    for (account, owned) in &owned {
        let mut found = Vec::new();
        owned.check(&mut found);
        tree::all(view, *account)?;
        for content in owned.contents.values() {
            for hash in content.bodies() {
                *named.entry(hash).or_default() += 1;
            }
        }
        wrong.extend(found.into_iter().map(|what| format!("account {account}: {what}")));
    }
    check_shard(view, &owned, &mut wrong)?;
    check_bodies(view, &named, &mut wrong)?;
    Ok(wrong)
}

fn check_shard(view: &dyn View, owned: &BTreeMap<AccountId, Owned>, wrong: &mut Vec<String>) -> Result<(), Fault> {
    let shard = rows::shard(view)?;
    if shard.accounts != owned.len() as u64 {
        wrong.push(format!("{} accounts, counted {}", owned.len(), shard.accounts));
    }
    let range = keys::sweeps();
    let mut sweeps = BTreeSet::new();
    view.scan(&range.from, &range.to, &mut |key, _| {
        sweeps.insert(AccountId(keys::id_of(key).ok_or_else(rows::bad_key)?));
        Ok(Flow::More)
    })?;
    let doomed: BTreeSet<AccountId> = owned
        .iter()
        .filter(|(_, owned)| !owned.doomed.is_empty())
        .map(|(id, _)| *id)
        .collect();
    if doomed != sweeps {
        wrong.push("accounts with deleted mailboxes and accounts to sweep differ".into());
    }
    Ok(())
}

fn check_bodies(view: &dyn View, named: &BTreeMap<BodyHash, u64>, wrong: &mut Vec<String>) -> Result<(), Fault> {
    let epoch = rows::shard(view)?.body_epoch;
    let mut seen = BTreeSet::new();
    let range = keys::bodies();
    view.scan(&range.from, &range.to, &mut |key, value| {
        let hash = keys::hash_of(key).ok_or_else(rows::bad_key)?;
        let body: rows::Body = rows::read(value, "body")?;
        let rows = named.get(&hash).copied().unwrap_or(0);
        if body.references != rows {
            wrong.push(format!("body {hash}: {rows} rows name it, counted {}", body.references));
        }
        if body.released_epoch > epoch || (body.released_epoch > 0 && rows > 0) {
            wrong.push(format!("body {hash}: named or of the future, and released"));
        }
        seen.insert(hash);
        Ok(Flow::More)
    })?;
    for hash in named.keys().filter(|hash| !seen.contains(hash)) {
        wrong.push(format!("body {hash} is named and has no row"));
    }
    Ok(())
}

/// The rows of an account.
#[derive(Default)]
struct Owned {
    account: Option<rows::Account>,
    places: BTreeMap<MailboxId, rows::Place>,
    children: BTreeMap<Vec<u8>, MailboxId>,
    mailboxes: BTreeMap<MailboxId, rows::Mailbox>,
    doomed: BTreeSet<MailboxId>,
    keywords: BTreeMap<MailboxId, u32>,
    states: BTreeMap<(MailboxId, Uid), rows::State>,
    contents: BTreeMap<(MailboxId, Uid), rows::Content>,
    changes: BTreeSet<(MailboxId, ModSeq, Uid)>,
    tombstones: BTreeSet<(MailboxId, ModSeq, Uid)>,
    deleted: BTreeSet<(MailboxId, Uid)>,
    threads: BTreeMap<[u8; 16], u32>,
    receipts: BTreeSet<OpId>,
    turns: BTreeSet<OpId>,
    interactive: u32,
    /// Numbers of the turns of each guest.
    guest_turns: BTreeMap<AccountId, BTreeSet<u64>>,
    visitors: BTreeMap<AccountId, rows::Visitor>,
    annotations: BTreeMap<MailboxId, usize>,
    grants: BTreeMap<MailboxId, usize>,
}

impl Owned {
    fn take(&mut self, kind: u8, key: &[u8], value: &[u8], wrong: &mut Vec<String>) -> Result<(), Fault> {
        let id = keys::id_of(key).ok_or_else(rows::bad_key)?;
        let tail: &[u8] = key.get(18..).ok_or_else(rows::bad_key)?;
        let mailbox = MailboxId(*tail.first_chunk().unwrap_or(&[0; 16]));
        let uid = keys::uid_of(key).ok_or_else(rows::bad_key)?;
        let (modseq, _) = keys::modseq_and_uid_of(key).ok_or_else(rows::bad_key)?;
        match kind {
            kind::ACCOUNT => self.account = Some(rows::read(value, "account")?),
            kind::PLACE => drop(self.places.insert(MailboxId(id), rows::read(value, "place")?)),
            kind::CHILD => {
                let child: rows::Child = rows::read(value, "child")?;
                self.children.insert(tail.to_vec(), child.place);
            }
            kind::MAILBOX => drop(self.mailboxes.insert(mailbox, rows::read(value, "mailbox")?)),
            kind::KEYWORD => *self.keywords.entry(mailbox).or_default() += 1,
            kind::STATE => drop(self.states.insert((mailbox, uid), rows::read(value, "state")?)),
            kind::CONTENT => drop(self.contents.insert((mailbox, uid), rows::read(value, "content")?)),
            kind::CHANGE => drop(self.changes.insert((mailbox, modseq, uid))),
            kind::TOMBSTONE => drop(self.tombstones.insert((mailbox, modseq, uid))),
            kind::DELETED => drop(self.deleted.insert((mailbox, uid))),
            kind::THREAD => {
                let thread: rows::Thread = rows::read(value, "thread")?;
                self.threads.insert(id, thread.messages);
            }
            kind::RECEIPT => {
                let _: rows::Receipt = rows::read(value, "receipt")?;
                self.receipts.insert(OpId(id));
            }
            kind::TURN => {
                let turn: rows::Turn = rows::read(value, "turn")?;
                self.interactive += u32::from(tail.first() == Some(&(receipts::Class::Interactive as u8)));
                if tail.first() == Some(&receipts::OF_GUEST) {
                    let (guest, number) = keys::guest_and_number_of(key).ok_or_else(rows::bad_key)?;
                    self.guest_turns.entry(guest).or_default().insert(number);
                }
                if !self.turns.insert(turn.op_id) {
                    wrong.push(format!("op id {} has two turns", turn.op_id));
                }
            }
            kind::DOOMED => drop(self.doomed.insert(MailboxId(id))),
            kind::ANNOTATION => {
                let row: rows::Annotation = rows::read(value, "annotation")?;
                *self.annotations.entry(mailbox).or_default() += usize::from(row.value.is_some());
            }
            kind::GRANT => {
                let grant: rows::Grant = rows::read(value, "grant")?;
                if grant.rights == 0 {
                    wrong.push("a grant of nothing".into());
                }
                *self.grants.entry(mailbox).or_default() += 1;
            }
            kind::VISITOR => drop(self.visitors.insert(AccountId(id), rows::read(value, "visitor")?)),
            other => wrong.push(format!("a row of unknown kind {other:#04x}")),
        }
        Ok(())
    }

    fn check(&self, wrong: &mut Vec<String>) {
        let Some(account) = &self.account else {
            wrong.push("rows of an account that is not there".into());
            return;
        };
        let mut expect = |what: &str, counted: u64, there: u64| {
            if counted != there {
                wrong.push(format!("{what}: {there} there, counted {counted}"));
            }
        };
        let used = self.contents.values().map(|content| content.size).sum::<u64>();
        expect("bytes", account.used_bytes, used);
        expect("messages", account.messages, self.contents.len() as u64);
        expect("places", u64::from(account.places), self.places.len() as u64);
        expect("doomed", u64::from(account.doomed), self.doomed.len() as u64);
        expect(
            "interactive receipts",
            u64::from(account.interactive_receipts),
            u64::from(self.interactive),
        );
        expect(
            "contents and states",
            self.contents.len() as u64,
            self.states.len() as u64,
        );
        self.check_indexes(wrong);
        self.check_tree(account, wrong);
        for (id, mailbox) in &self.mailboxes {
            self.check_mailbox(account, *id, mailbox, wrong);
        }
    }

    fn check_indexes(&self, wrong: &mut Vec<String>) {
        let numbers =
            |(guest, visitor): (&AccountId, &rows::Visitor)| (*guest, (visitor.first..visitor.next).collect());
        let visits: BTreeMap<AccountId, BTreeSet<u64>> = self.visitors.iter().map(numbers).collect();
        let changes: BTreeSet<_> = self
            .states
            .iter()
            .map(|((mailbox, uid), state)| (*mailbox, ModSeq(state.modseq), *uid))
            .collect();
        let deleted: BTreeSet<_> = self
            .states
            .iter()
            .filter(|(_, state)| state.flags.system & Flags::DELETED != 0)
            .map(|(at, _)| *at)
            .collect();
        let mut threads: BTreeMap<[u8; 16], u32> = BTreeMap::new();
        for key in self.contents.values().flat_map(|content| &content.thread_keys) {
            *threads.entry(*key).or_default() += 1;
        }
        for (what, equal) in [
            ("states and contents", self.states.keys().eq(self.contents.keys())),
            ("states and changes", changes == self.changes),
            ("\\Deleted and its index", deleted == self.deleted),
            ("thread rows and messages", threads == self.threads),
            ("receipts and turns", self.receipts == self.turns),
            ("guests and their turns", visits == self.guest_turns),
        ] {
            if !equal {
                wrong.push(format!("{what} differ"));
            }
        }
        for (mailbox, _, uid) in &self.tombstones {
            if self.states.contains_key(&(*mailbox, *uid)) {
                wrong.push(format!("mailbox {mailbox}: UID {uid} is there and expunged"));
            }
        }
        let known = |id: &MailboxId| self.mailboxes.contains_key(id) || self.doomed.contains(id);
        let annotated = self.annotations.keys().filter(|id| **id != keys::ROOT);
        let mut homes = self
            .states
            .keys()
            .map(|(id, _)| id)
            .chain(self.keywords.keys())
            .chain(self.grants.keys())
            .chain(annotated);
        if !homes.all(known) || !self.tombstones.iter().all(|(id, _, _)| known(id)) {
            wrong.push("rows of a mailbox that is neither there nor doomed".into());
        }
        if self
            .annotations
            .values()
            .any(|count| *count > limits::ANNOTATIONS_PER_MAILBOX_MAX)
        {
            wrong.push("more annotations than a mailbox may have".into());
        }
    }

    fn check_tree(&self, account: &rows::Account, wrong: &mut Vec<String>) {
        let children: BTreeMap<Vec<u8>, MailboxId> = self
            .places
            .iter()
            .map(|(id, place)| ([place.parent.0.as_slice(), place.part.as_bytes()].concat(), *id))
            .collect();
        if children != self.children {
            wrong.push("places and children differ".into());
        }
        let standing: BTreeMap<MailboxId, MailboxId> = self
            .places
            .iter()
            .filter_map(|(id, place)| place.mailbox.map(|mailbox| (mailbox, *id)))
            .collect();
        let claimed: BTreeMap<MailboxId, MailboxId> = self.mailboxes.iter().map(|(id, row)| (*id, row.place)).collect();
        if standing != claimed {
            wrong.push("places and mailboxes differ".into());
        }
        let mut uses = BTreeSet::new();
        for (special_use, mailbox) in &account.special {
            if !self.mailboxes.contains_key(mailbox) || !uses.insert(*special_use) {
                wrong.push(format!("{special_use:?} is given twice or to nothing"));
            }
        }
        let validities: BTreeSet<u32> = self.mailboxes.values().map(|row| row.uid_validity).collect();
        if validities.len() != self.mailboxes.len() || validities.iter().any(|one| *one > account.uid_validity) {
            wrong.push("two mailboxes share a UIDVALIDITY, or one is above the counter".into());
        }
    }

    fn check_mailbox(&self, account: &rows::Account, id: MailboxId, row: &rows::Mailbox, wrong: &mut Vec<String>) {
        let of = (id, Uid(0))..=(id, Uid(u32::MAX));
        let states: Vec<_> = self.states.range(of.clone()).collect();
        let with = |bit: u8| states.iter().filter(|(_, state)| state.flags.system & bit != 0).count() as u64;
        let size: u64 = self.contents.range(of).map(|(_, content)| content.size).sum();
        let tombs: Vec<_> = self
            .tombstones
            .iter()
            .filter(|(mailbox, _, _)| *mailbox == id)
            .collect();
        let mut expect = |what: &str, counted: u64, there: u64| {
            if counted != there {
                wrong.push(format!("mailbox {id}: {what}: {there} there, counted {counted}"));
            }
        };
        expect("messages", u64::from(row.messages), states.len() as u64);
        expect("unseen", u64::from(row.unseen), states.len() as u64 - with(Flags::SEEN));
        expect("deleted", u64::from(row.deleted), with(Flags::DELETED));
        expect("bytes", row.size_bytes, size);
        expect("tombstones", u64::from(row.tombstones), tombs.len() as u64);
        let keywords = self.keywords.get(&id).copied().unwrap_or(0);
        expect("keywords", u64::from(row.keywords), u64::from(keywords));
        let highest = states.iter().map(|(_, state)| state.modseq);
        let highest = highest
            .chain(tombs.iter().map(|(_, modseq, _)| modseq.0))
            .max()
            .unwrap_or(1);
        if row.highest_modseq < highest || row.highest_modseq > account.modseq || row.highest_modseq == 0 {
            wrong.push(format!("mailbox {id}: HIGHESTMODSEQ {} is wrong", row.highest_modseq));
        }
        let uids = states
            .iter()
            .map(|((_, uid), _)| uid)
            .chain(tombs.iter().map(|(_, _, uid)| uid));
        if uids.max().is_some_and(|uid| uid.0 >= row.uid_next) {
            wrong.push(format!("mailbox {id}: a UID is not below UIDNEXT"));
        }
    }
}
