//! An account under change: its counters in hand, its rows through the draft, until [`Edit::finish`] writes the counters back.
//!
//! Every MODSEQ and every UIDVALIDITY of an account is drawn here and nowhere else. An edit that is not finished has changed nothing
//! that survives, because the draft below it is dropped with the refusal.

use std::collections::BTreeMap;

use malle_proto::{AccountId, MailboxId, ModSeq, limits};

use super::apply::Step;
use super::{Refusal, keys, receipts, rows, sweep};
use crate::view::{Change, Draft};

/// A clock that runs wild takes UIDVALIDITY no higher than this (it is reached in 2105): 2^24 draws stay in any account.
const UID_VALIDITY_FROM_CLOCK_MAX: u32 = 0xFF00_0000;

/// An account under change.
pub(super) struct Edit<'d, 'v> {
    pub(super) draft: &'d mut Draft<'v>,
    pub(super) id: AccountId,
    pub(super) row: rows::Account,
    /// The machine's time.
    pub(super) now_ms: u64,
    /// Mailboxes that changed; `true` where the tree did.
    changed: BTreeMap<MailboxId, bool>,
}

/// A mailbox under change; written back by [`Edit::save`].
pub(super) struct OpenMailbox {
    pub(super) id: MailboxId,
    pub(super) row: rows::Mailbox,
}

impl<'d, 'v> Edit<'d, 'v> {
    /// Takes an account in hand; refused when the shard does not have it.
    pub(super) fn open(draft: &'d mut Draft<'v>, id: AccountId, now_ms: u64) -> Step<Self> {
        let row = rows::get(draft, &keys::account(id), "account")?.ok_or(Refusal::NoAccount)?;
        Ok(Edit::of(draft, id, row, now_ms))
    }

    /// Takes an account in hand that is being made.
    pub(super) fn of(draft: &'d mut Draft<'v>, id: AccountId, row: rows::Account, now_ms: u64) -> Self {
        Edit {
            draft,
            id,
            row,
            now_ms,
            changed: BTreeMap::new(),
        }
    }

    /// Refuses for a suspended account.
    pub(super) fn require_active(&self) -> Result<(), Refusal> {
        match self.row.suspended {
            true => Err(Refusal::Suspended),
            false => Ok(()),
        }
    }

    /// Refuses when `bytes` more would be over quota.
    pub(super) fn require_room(&self, bytes: u64) -> Result<(), Refusal> {
        match self.row.used_bytes.checked_add(bytes) {
            Some(used) if used <= self.row.quota_bytes => Ok(()),
            _ => Err(Refusal::OverQuota {
                quota_bytes: self.row.quota_bytes,
            }),
        }
    }

    /// A MODSEQ above every one that the account ever had.
    pub(super) fn next_modseq(&mut self) -> ModSeq {
        self.row.modseq += 1;
        ModSeq(self.row.modseq)
    }

    /// The account's MODSEQ now.
    pub(super) fn modseq(&self) -> ModSeq {
        ModSeq(self.row.modseq)
    }

    /// A UIDVALIDITY above every one that the account ever had, so that a name that comes back never looks like the one that went.
    /// It follows the seconds of the clock, so that an account that was restored from a backup draws above what the backup missed.
    pub(super) fn next_uid_validity(&mut self) -> Result<u32, Refusal> {
        let seconds = u32::try_from(self.now_ms / 1000)
            .unwrap_or(u32::MAX)
            .min(UID_VALIDITY_FROM_CLOCK_MAX);
        let next = self.row.uid_validity.checked_add(1);
        let next = next.ok_or_else(|| Refusal::Limit("no UIDVALIDITY left in this account".into()))?;
        self.row.uid_validity = next.max(seconds);
        Ok(self.row.uid_validity)
    }

    /// Takes a mailbox in hand.
    pub(super) fn mailbox(&self, id: MailboxId) -> Step<OpenMailbox> {
        let row = rows::get(self.draft, &keys::mailbox(self.id, id), "mailbox")?.ok_or(Refusal::NoMailbox)?;
        Ok(OpenMailbox { id, row })
    }

    /// Writes a mailbox back.
    pub(super) fn save(&mut self, mailbox: &OpenMailbox) {
        rows::put(self.draft, keys::mailbox(self.id, mailbox.id), &mailbox.row);
    }

    /// Watchers are told of this mailbox; `tree`: it was made, moved, deleted or subscribed.
    pub(super) fn note_change(&mut self, mailbox: MailboxId, tree: bool) {
        *self.changed.entry(mailbox).or_default() |= tree;
    }

    /// Writes the counters back, and does the account's share of cleaning up.
    pub(super) fn finish(mut self) -> Step<()> {
        receipts::expire(&mut self, limits::RECEIPTS_EXPIRED_PER_COMMAND)?;
        sweep::some(&mut self, limits::DOOMED_MESSAGES_PER_COMMAND)?;
        rows::put(self.draft, keys::account(self.id), &self.row);
        let (account, modseq) = (self.id, self.modseq());
        let changes = self.changed.iter().map(|(&mailbox, &tree)| Change {
            account,
            modseq,
            mailbox,
            tree,
        });
        self.draft.writes.changes.extend(changes);
        Ok(())
    }
}
