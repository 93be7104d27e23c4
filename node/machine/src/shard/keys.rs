//! Where every row of a shard lies. Keys are written by hand, big-endian, so that they sort as the scans need them.
//!
//! ```text
//! 01                                shard          clock, body epochs, number of accounts
//! 02 hash(32)                       body           size, references, since when it waits, release
//! 03 account(16)                    sweep          index: this account has deleted mailboxes whose rows are still there
//! 10 account(16) 01                 account        MODSEQ, quota, counters, who has which special use
//! 10 account(16) 02 place(16)       place          a name in the tree: parent, own part, the mailbox there, subscribed
//! 10 account(16) 03 parent(16) part child          the place with this name below that place (16 zero bytes: the root)
//! 10 account(16) 04 mailbox(16)     mailbox        UIDVALIDITY, UIDNEXT, HIGHESTMODSEQ, counters
//! 10 account(16) 05 mailbox word    keyword        first spelling of a keyword; the key has it in ASCII lower case
//! 10 account(16) 06 mailbox uid(4)  state          MODSEQ and flags of a message
//! 10 account(16) 07 mailbox uid(4)  content        everything else of a message; never changes
//! 10 account(16) 08 mailbox modseq(8) uid(4)       index: the message that has this MODSEQ now
//! 10 account(16) 09 mailbox modseq(8) uid(4)       index: tombstone of an expunged message
//! 10 account(16) 0A mailbox uid(4)                 index: the message has \Deleted
//! 10 account(16) 0B key(16)         thread         thread of a Message-ID, and how many messages say so
//! 10 account(16) 0C op id(16)       receipt        outcome of an operation
//! 10 account(16) 0D class(1) number(8)  turn       receipts in the order in which they go
//! 10 account(16) 0D 03 guest(16) number(8)  turn   the same of one guest
//! 10 account(16) 0E mailbox                        index: deleted, its rows go a few per command
//! 10 account(16) 0F mailbox entry   annotation     METADATA of a mailbox, or of the account (16 zero bytes)
//! 10 account(16) 10 mailbox guest(16)  grant       what another account may do with a mailbox
//! 10 account(16) 18 guest(16)       visitor        which receipts of a guest are kept
//! ```
//!
//! Rows of an index have an empty value: the key says all. Everything of an account lies in one range, which is what a move of the
//! account copies. A first byte of 00 is the node's own and never written here.
//!
//! A place and the mailbox at it are two things. RENAME moves one place row, whatever hangs below it; renaming INBOX and deleting a
//! mailbox that has children exchange the mailbox at a place, and no child notices. State and content of a message are two rows,
//! because the first changes with every flag and the second holds kilobytes of envelope.

use malle_proto::{AccountId, BodyHash, MailboxId, ModSeq, OpId, Uid};

/// The only key of its kind.
pub(super) const SHARD: &[u8] = &[0x01];
const BODY: u8 = 0x02;
const SWEEP: u8 = 0x03;
/// First byte of everything that an account owns.
pub(super) const OF_ACCOUNT: u8 = 0x10;

/// Kinds of rows of an account.
pub(super) mod kind {
    pub(in crate::shard) const ACCOUNT: u8 = 0x01;
    pub(in crate::shard) const PLACE: u8 = 0x02;
    pub(in crate::shard) const CHILD: u8 = 0x03;
    pub(in crate::shard) const MAILBOX: u8 = 0x04;
    pub(in crate::shard) const KEYWORD: u8 = 0x05;
    pub(in crate::shard) const STATE: u8 = 0x06;
    pub(in crate::shard) const CONTENT: u8 = 0x07;
    pub(in crate::shard) const CHANGE: u8 = 0x08;
    pub(in crate::shard) const TOMBSTONE: u8 = 0x09;
    pub(in crate::shard) const DELETED: u8 = 0x0A;
    pub(in crate::shard) const THREAD: u8 = 0x0B;
    pub(in crate::shard) const RECEIPT: u8 = 0x0C;
    pub(in crate::shard) const TURN: u8 = 0x0D;
    pub(in crate::shard) const DOOMED: u8 = 0x0E;
    pub(in crate::shard) const ANNOTATION: u8 = 0x0F;
    pub(in crate::shard) const GRANT: u8 = 0x10;
    pub(in crate::shard) const VISITOR: u8 = 0x18;
}

/// The parent of top-level places, and the id that no place and no mailbox may have.
pub(super) const ROOT: MailboxId = MailboxId([0; 16]);

/// A range of keys: `from <= key < to`.
pub(super) struct Range {
    pub(super) from: Vec<u8>,
    pub(super) to: Vec<u8>,
}

/// Every key that begins with `prefix`.
pub(super) fn beginning_with(prefix: Vec<u8>) -> Range {
    let mut to = prefix.clone();
    while let Some(last) = to.pop() {
        if last < 0xFF {
            to.push(last + 1);
            break;
        }
    }
    Range { from: prefix, to }
}

fn of_account(account: AccountId, kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = Vec::with_capacity(18 + parts.iter().map(|part| part.len()).sum::<usize>());
    key.push(OF_ACCOUNT);
    key.extend_from_slice(&account.0);
    key.push(kind);
    for part in parts {
        key.extend_from_slice(part);
    }
    key
}

pub(super) fn body(hash: BodyHash) -> Vec<u8> {
    let mut key = vec![BODY];
    key.extend_from_slice(&hash.0);
    key
}

pub(super) fn bodies() -> Range {
    beginning_with(vec![BODY])
}

pub(super) fn sweep(account: AccountId) -> Vec<u8> {
    let mut key = vec![SWEEP];
    key.extend_from_slice(&account.0);
    key
}

pub(super) fn sweeps() -> Range {
    beginning_with(vec![SWEEP])
}

/// Everything of every account.
pub(super) fn accounts() -> Range {
    beginning_with(vec![OF_ACCOUNT])
}

pub(super) fn account(account: AccountId) -> Vec<u8> {
    of_account(account, kind::ACCOUNT, &[])
}

pub(super) fn place(account: AccountId, place: MailboxId) -> Vec<u8> {
    of_account(account, kind::PLACE, &[&place.0])
}

pub(super) fn child(account: AccountId, parent: MailboxId, part: &str) -> Vec<u8> {
    of_account(account, kind::CHILD, &[&parent.0, part.as_bytes()])
}

pub(super) fn children(account: AccountId, parent: MailboxId) -> Range {
    beginning_with(of_account(account, kind::CHILD, &[&parent.0]))
}

pub(super) fn mailbox(account: AccountId, mailbox: MailboxId) -> Vec<u8> {
    of_account(account, kind::MAILBOX, &[&mailbox.0])
}

/// `word` in ASCII lower case.
pub(super) fn keyword(account: AccountId, mailbox: MailboxId, word: &str) -> Vec<u8> {
    of_account(account, kind::KEYWORD, &[&mailbox.0, word.as_bytes()])
}

pub(super) fn state(account: AccountId, mailbox: MailboxId, uid: Uid) -> Vec<u8> {
    of_account(account, kind::STATE, &[&mailbox.0, &uid.0.to_be_bytes()])
}

pub(super) fn content(account: AccountId, mailbox: MailboxId, uid: Uid) -> Vec<u8> {
    of_account(account, kind::CONTENT, &[&mailbox.0, &uid.0.to_be_bytes()])
}

pub(super) fn change(account: AccountId, mailbox: MailboxId, modseq: ModSeq, uid: Uid) -> Vec<u8> {
    at_modseq(account, kind::CHANGE, mailbox, modseq, uid)
}

pub(super) fn tombstone(account: AccountId, mailbox: MailboxId, modseq: ModSeq, uid: Uid) -> Vec<u8> {
    at_modseq(account, kind::TOMBSTONE, mailbox, modseq, uid)
}

fn at_modseq(account: AccountId, kind: u8, mailbox: MailboxId, modseq: ModSeq, uid: Uid) -> Vec<u8> {
    of_account(
        account,
        kind,
        &[&mailbox.0, &modseq.0.to_be_bytes(), &uid.0.to_be_bytes()],
    )
}

pub(super) fn deleted(account: AccountId, mailbox: MailboxId, uid: Uid) -> Vec<u8> {
    of_account(account, kind::DELETED, &[&mailbox.0, &uid.0.to_be_bytes()])
}

pub(super) fn thread(account: AccountId, key: [u8; 16]) -> Vec<u8> {
    of_account(account, kind::THREAD, &[&key])
}

pub(super) fn receipt(account: AccountId, op_id: OpId) -> Vec<u8> {
    of_account(account, kind::RECEIPT, &[&op_id.0])
}

pub(super) fn turn(account: AccountId, class: u8, number: u64) -> Vec<u8> {
    of_account(account, kind::TURN, &[&[class], &number.to_be_bytes()])
}

pub(super) fn turns(account: AccountId, class: u8) -> Range {
    beginning_with(of_account(account, kind::TURN, &[&[class]]))
}

pub(super) fn guest_turn(account: AccountId, class: u8, guest: AccountId, number: u64) -> Vec<u8> {
    of_account(account, kind::TURN, &[&[class], &guest.0, &number.to_be_bytes()])
}

/// The guest and the number in the key of a guest's turn.
pub(super) fn guest_and_number_of(key: &[u8]) -> Option<(AccountId, u64)> {
    let (head, number) = key.split_last_chunk::<8>()?;
    Some((AccountId(*head.last_chunk()?), u64::from_be_bytes(*number)))
}

pub(super) fn visitor(account: AccountId, guest: AccountId) -> Vec<u8> {
    of_account(account, kind::VISITOR, &[&guest.0])
}

pub(super) fn doomed(account: AccountId, mailbox: MailboxId) -> Vec<u8> {
    of_account(account, kind::DOOMED, &[&mailbox.0])
}

/// `entry` in ASCII lower case.
pub(super) fn annotation(account: AccountId, mailbox: MailboxId, entry: &str) -> Vec<u8> {
    of_account(account, kind::ANNOTATION, &[&mailbox.0, entry.as_bytes()])
}

pub(super) fn grant(account: AccountId, mailbox: MailboxId, guest: AccountId) -> Vec<u8> {
    of_account(account, kind::GRANT, &[&mailbox.0, &guest.0])
}

/// The mailbox and the guest in the key of a grant.
pub(super) fn mailbox_and_guest_of(key: &[u8]) -> Option<(MailboxId, AccountId)> {
    let (head, guest) = key.split_last_chunk::<16>()?;
    Some((MailboxId(*head.last_chunk()?), AccountId(*guest)))
}

/// Every row of one kind of an account.
pub(super) fn of_kind(account: AccountId, kind: u8) -> Range {
    beginning_with(of_account(account, kind, &[]))
}

/// Every row of one kind of a mailbox.
pub(super) fn of_mailbox(account: AccountId, kind: u8, mailbox: MailboxId) -> Range {
    beginning_with(of_account(account, kind, &[&mailbox.0]))
}

/// Rows of one kind (state, content, \Deleted) with a UID from `first` to `last`, both included.
pub(super) fn uids(account: AccountId, kind: u8, mailbox: MailboxId, first: Uid, last: Uid) -> Range {
    let key = |uid: Uid| of_account(account, kind, &[&mailbox.0, &uid.0.to_be_bytes()]);
    Range {
        from: key(first),
        to: beginning_with(key(last)).to,
    }
}

/// Rows of one kind (change, tombstone) with a MODSEQ above `above` and up to `through`.
pub(super) fn modseqs(account: AccountId, kind: u8, mailbox: MailboxId, above: ModSeq, through: ModSeq) -> Range {
    let after = |modseq: ModSeq| beginning_with(of_account(account, kind, &[&mailbox.0, &modseq.0.to_be_bytes()])).to;
    Range {
        from: after(above),
        to: after(through),
    }
}

/// The UID at the end of a key.
pub(super) fn uid_of(key: &[u8]) -> Option<Uid> {
    key.last_chunk().map(|bytes| Uid(u32::from_be_bytes(*bytes)))
}

/// MODSEQ and UID at the end of a key of a change or tombstone.
pub(super) fn modseq_and_uid_of(key: &[u8]) -> Option<(ModSeq, Uid)> {
    let (head, _) = key.split_last_chunk::<4>()?;
    let modseq = head.last_chunk().map(|bytes| ModSeq(u64::from_be_bytes(*bytes)))?;
    Some((modseq, uid_of(key)?))
}

/// The 16-byte id that ends a key (place, mailbox, doomed, sweep, op id, thread key).
pub(super) fn id_of(key: &[u8]) -> Option<[u8; 16]> {
    key.last_chunk().copied()
}

/// The account and the kind of a row of an account.
pub(super) fn account_and_kind_of(key: &[u8]) -> Option<(AccountId, u8)> {
    let (account, rest) = key.get(1..)?.split_first_chunk()?;
    Some((AccountId(*account), *rest.first()?))
}

/// The hash in the key of a body.
pub(super) fn hash_of(key: &[u8]) -> Option<BodyHash> {
    key.last_chunk().map(|bytes| BodyHash(*bytes))
}

#[cfg(test)]
mod tests {
    use super::{account, beginning_with, change, kind, modseqs, state, uids};
    use malle_proto::{AccountId, MailboxId, ModSeq, Uid};

    const A: AccountId = AccountId([0xFF; 16]);
    const M: MailboxId = MailboxId([0xFF; 16]);

    #[test]
    fn ranges_hold_their_ends_and_nothing_beyond() {
        let range = uids(A, kind::STATE, M, Uid(5), Uid(u32::MAX));
        let inside = |uid| (range.from.as_slice()..range.to.as_slice()).contains(&state(A, M, Uid(uid)).as_slice());
        assert!(!inside(4));
        assert!(inside(5) && inside(6) && inside(u32::MAX));

        let range = modseqs(A, kind::CHANGE, M, ModSeq(7), ModSeq(9));
        let inside = |modseq, uid| {
            let key = change(A, M, ModSeq(modseq), Uid(uid));
            (range.from.as_slice()..range.to.as_slice()).contains(&key.as_slice())
        };
        assert!(!inside(7, u32::MAX) && inside(8, 0) && inside(9, u32::MAX) && !inside(10, 0));
    }

    #[test]
    fn a_prefix_of_ones_still_has_an_end() {
        let range = beginning_with(account(A));
        assert!(range.from < range.to);
        assert!(beginning_with(vec![0x01, 0xFF]).to == vec![0x02]);
    }
}
