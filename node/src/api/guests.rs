//! Requests of one account about the mailboxes of another (RFC 4314): let in by grants, which lie with the mailboxes.
//!
//! What changes mail is looked at again where it is applied (`Op::ForGuest`), in the same step; here whoever has no business with the account is
//! sent away before his request costs anything. What reads mail is looked at here, behind a majority's word and before the read: a right that
//! was taken back is gone for every read that begins after the answer. A mailbox to which nothing is granted and one that is not there
//! are answered alike. A watch of a guest
//! hears only of what he may see ([`super::watch`]). Absent for guests: the account's counters and annotations.

use malle_machine::shard::{self, read};
use malle_machine::view::View;
use malle_proto::v1::mail_request::Call as Asks;
use malle_proto::v1::mailbox_change::Change;
use malle_proto::v1::{self, mail_reply};
use malle_proto::{AccountId, MailboxId, Rights};

use super::convert;
use super::error::Refused;
use super::mail::{Answer, Asked, MailApi};
use crate::raft::Barrier;

impl Asked {
    /// The command as whoever asks may propose it.
    pub(super) fn put(&self, op: shard::Op) -> shard::Op {
        match self.guest {
            None => op,
            Some(guest) => shard::Op::ForGuest {
                guest,
                op: Box::new(op),
            },
        }
    }
}

/// How a request names the mailbox that it is about.
enum Which {
    Id(MailboxId),
    Name(String),
}

impl Which {
    fn of(id: &[u8], name: &str) -> Result<Which, Refused> {
        match name {
            "" => Ok(Which::Id(convert::mailbox(id)?)),
            _ => Ok(Which::Name(name.to_owned())),
        }
    }
}

pub(super) fn nothing_granted() -> Refused {
    Refused::denied("nothing is granted there to the account that the token is for")
}

impl MailApi {
    /// Lets a guest's request in, or not.
    pub(super) async fn admit(
        &self,
        asked: &Asked,
        guest: AccountId,
        account: AccountId,
        call: &Asks,
    ) -> Result<(), Refused> {
        let (which, wanted) = match call {
            Asks::MailboxOpen(call) => (Which::of(&call.mailbox, &call.name)?, Rights::READ),
            Asks::Fetch(call) => (Which::of(&call.mailbox, "")?, Rights::READ),
            Asks::Changes(call) => (Which::of(&call.mailbox, "")?, Rights::READ),
            Asks::ReadBody(call) => (Which::of(&call.mailbox, "")?, Rights::READ),
            Asks::ReadBodies(call) => (Which::of(&call.mailbox, "")?, Rights::READ),
            Asks::Append(call) => (Which::of(&call.mailbox, &call.mailbox_name)?, Rights::INSERT),
            Asks::AppendAll(call) => (Which::of(&call.mailbox, &call.mailbox_name)?, Rights::INSERT),
            Asks::Copy(call) => (Which::of(&call.mailbox, "")?, Rights::READ),
            // Which of the flags is seen where it is applied.
            Asks::Store(call) => (Which::of(&call.mailbox, "")?, Rights::NONE),
            Asks::Expunge(call) => (Which::of(&call.mailbox, "")?, Rights::EXPUNGE),
            Asks::Grants(call) => (Which::of(&[], &call.name)?, Rights::NONE),
            // Before the directory is told of it; the others are looked at where they are applied.
            Asks::MailboxChange(v1::MailboxChange {
                change: Some(Change::Grant(grant)),
                ..
            }) => (Which::of(&[], &grant.name)?, Rights::ADMINISTER),
            Asks::MailboxList(_) | Asks::MailboxChange(_) => {
                let look = move |view: &dyn View| read::granted(view, account, guest);
                let granted = asked.group.read(Barrier::Linearizable, asked.deadline, look).await?;
                if granted.is_empty() {
                    self.forget_sharing(asked, account, guest).await;
                    return Err(nothing_granted());
                }
                return Ok(());
            }
            Asks::AccountStatus(_) | Asks::Annotations(_) | Asks::Deliver(_) => return Err(nothing_granted()),
        };
        let held = self.held(asked, guest, account, which).await?;
        require(held, wanted)
    }

    /// Refuses a guest who lacks one of `wanted`.
    pub(super) async fn require(
        &self,
        asked: &Asked,
        guest: AccountId,
        account: AccountId,
        mailbox: MailboxId,
        wanted: Rights,
    ) -> Result<(), Refused> {
        require(self.held(asked, guest, account, Which::Id(mailbox)).await?, wanted)
    }

    /// May whoever asks be told what is new in that mailbox?
    pub(super) async fn may_hear(&self, asked: &Asked, account: AccountId, of: &v1::NewsOf) -> bool {
        let Some(guest) = asked.guest else { return true };
        let Ok(mailbox) = convert::mailbox(&of.mailbox) else {
            return false;
        };
        self.require(asked, guest, account, mailbox, Rights::READ).await.is_ok()
    }

    async fn held(&self, asked: &Asked, guest: AccountId, account: AccountId, which: Which) -> Result<Rights, Refused> {
        let look = move |view: &dyn View| {
            let mailbox = match which {
                Which::Id(id) => id,
                Which::Name(name) => match read::named(view, account, &name)? {
                    Ok(id) => id,
                    Err(_) => return Ok(Rights::NONE),
                },
            };
            read::rights_of(view, account, mailbox, guest)
        };
        Ok(asked.group.read(Barrier::Linearizable, asked.deadline, look).await?)
    }

    /// What a guest sees of an account.
    pub(super) async fn guest_list(&self, asked: &Asked, guest: AccountId, account: AccountId) -> Answer {
        let look = move |view: &dyn View| {
            let modseq = read::account(view, account)?.map_or(0, |account| account.modseq.0);
            Ok((read::mailboxes_for(view, account, guest)?, modseq))
        };
        let (mailboxes, modseq) = asked.group.read(Barrier::Linearizable, asked.deadline, look).await?;
        let shown = |(mailbox, rights): (read::Mailbox, Rights)| {
            let all = v1::Mailbox {
                rights: Some(u32::from(rights.0)),
                ..convert::mailbox_out(mailbox)
            };
            // STATUS needs the right r (RFC 4314 4), and so do the counters that it would tell.
            match rights.hold(Rights::READ) {
                true => all,
                false => v1::Mailbox {
                    id: all.id,
                    name: all.name,
                    subscribed: all.subscribed,
                    no_select: all.no_select,
                    rights: all.rights,
                    ..v1::Mailbox::default()
                },
            }
        };
        let mailboxes = mailboxes?.into_iter().map(shown).collect();
        let reply = v1::MailboxListReply { mailboxes };
        Ok((mail_reply::Result::MailboxList(reply), modseq))
    }

    /// GETACL and MYRIGHTS.
    pub(super) async fn grants(&self, asked: &Asked, wanted: v1::Grants) -> Answer {
        let account = convert::account(&wanted.account)?;
        let look = move |view: &dyn View| {
            Ok(match read::named(view, account, &wanted.name)? {
                Ok(mailbox) => read::grants(view, account, mailbox)?,
                Err(refusal) => Err(refusal),
            })
        };
        let grants = asked.group.read(Barrier::Linearizable, asked.deadline, look).await??;
        let mine = match asked.guest {
            None => Rights::ALL,
            Some(guest) => {
                let own = grants.iter().find(|(other, _)| *other == guest);
                own.map(|(_, rights)| *rights).ok_or_else(nothing_granted)?
            }
        };
        let told = grants.into_iter().filter(|_| mine.hold(Rights::ADMINISTER));
        let reply = v1::GrantsReply {
            mine: u32::from(mine.0),
            grants: told
                .map(|(guest, rights)| v1::Grant {
                    guest: guest.to_vec().into(),
                    rights: u32::from(rights.0),
                })
                .collect(),
        };
        Ok((mail_reply::Result::Grants(reply), 0))
    }
}

/// Refuses who lacks one of `wanted`; who may not even see the mailbox is told nothing of it (RFC 4314 4, the right l).
fn require(held: Rights, wanted: Rights) -> Result<(), Refused> {
    let hidden = held == Rights::NONE || !held.hold(Rights::LOOKUP) && !held.hold(wanted);
    if hidden {
        return Err(nothing_granted());
    }
    match wanted.without(held) {
        Rights::NONE => Ok(()),
        missing => Err(shard::Refusal::NoRight(missing.to_string()).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_not_see_a_mailbox_is_answered_as_if_it_were_not_there() {
        let rights = |letters| Rights::parse(letters).unwrap();
        let message = |held, wanted| require(rights(held), rights(wanted)).map_err(|refused| refused.0.message);
        let absent = message("", "r");
        assert!(absent.is_err());
        assert_eq!(message("s", "r"), absent);
        assert_ne!(message("ls", "r"), absent, "the missing right is named");
        assert_eq!(message("r", "r"), Ok(()));
        assert_eq!(message("lr", "r"), Ok(()));
    }
}
