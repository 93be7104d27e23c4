//! Names that only hold other names: what leads to a shared mailbox without being shared.

use std::collections::BTreeSet;

use malle_client::{AccountId, Mailbox, MailboxId, ModSeq, Rights, SpecialUse, Uid, UidValidity};

/// A name that only holds others.
pub(super) fn only_holds(name: String, id: MailboxId) -> Mailbox {
    Mailbox {
        id,
        name,
        uid_validity: UidValidity(0),
        uid_next: Uid(0),
        highest_modseq: ModSeq(0),
        messages: 0,
        unseen: 0,
        deleted: 0,
        size_bytes: 0,
        special_use: SpecialUse::None,
        subscribed: false,
        no_select: true,
        rights: Some(Rights::NONE),
    }
}

/// The mailboxes of one owner, whose names begin with `prefix`, with the names above them that are not shared themselves: the owner's own, and those
/// that a child gives away.
pub(super) fn with_parents(mailboxes: Vec<Mailbox>, owner: AccountId, prefix: &str) -> Vec<Mailbox> {
    let first = prefix.len() - 1;
    let mut names: BTreeSet<String> = mailboxes.iter().map(|mailbox| mailbox.name.clone()).collect();
    let mut all: Vec<Mailbox> = Vec::with_capacity(mailboxes.len() + 1);
    for mailbox in mailboxes {
        let ends = mailbox.name.match_indices('/').map(|(at, _)| at);
        for end in ends.filter(|end| *end >= first) {
            let above = &mailbox.name[..end];
            if names.insert(above.to_owned()) {
                all.push(only_holds(above.to_owned(), id_of_name(owner, above)));
            }
        }
        all.push(mailbox);
    }
    all
}

/// An id for a name that only holds others, which nothing is asked under: the owner's, mixed with the name (FNV-1a).
fn id_of_name(owner: AccountId, name: &str) -> MailboxId {
    let mut hash = u128::from_be_bytes(owner.0);
    for byte in name.bytes() {
        hash = (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013B);
    }
    MailboxId(hash.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(names: &[&str]) -> Vec<(String, bool)> {
        let shared = names.iter().enumerate().map(|(number, name)| Mailbox {
            no_select: false,
            ..only_holds(format!("Other Users/a@x.fr/{name}"), MailboxId([number as u8; 16]))
        });
        let all = with_parents(shared.collect(), AccountId([7; 16]), "Other Users/a@x.fr/");
        let ids: BTreeSet<MailboxId> = all.iter().map(|mailbox| mailbox.id).collect();
        assert_eq!(ids.len(), all.len(), "each has an id of its own");
        all.into_iter()
            .map(|mailbox| (mailbox.name, mailbox.no_select))
            .collect()
    }

    #[test]
    fn what_is_above_a_shared_mailbox_is_there_to_lead_to_it() {
        let only = |name: &str| (format!("Other Users/a@x.fr{name}"), true);
        let shared = |name: &str| (format!("Other Users/a@x.fr{name}"), false);
        assert_eq!(named(&["INBOX"]), [only(""), shared("/INBOX")]);
        assert_eq!(
            named(&["A/B/C", "A/D", "A/B"]),
            [only(""), only("/A"), shared("/A/B/C"), shared("/A/D"), shared("/A/B")]
        );
        assert!(named(&[]).is_empty());
    }
}
