//! Mailboxes of others, and one's own for others (RFC 4314): who may do what, who shares, and acting on what is shared.
//!
//! The shard of the owner looks at every call of a guest; nothing here decides anything.

use malle_proto::v1::directory_client::DirectoryClient;
use malle_proto::v1::mail_reply::Result as Answer;
use malle_proto::v1::mail_request::Call;
use malle_proto::v1::{self, mailbox_change};
use malle_proto::{AccountId, Rights, ShardId};

use super::{Account, bytes};
use crate::convert;
use crate::error::Error;
use crate::types::{Granted, Resolved, StoreMode};

impl Account {
    /// The accounts that have granted something to this one, by id, at most [`crate::limits::SHARERS_PER_ACCOUNT_MAX`]. Behind one of them may be
    /// nothing: its [`Account::mailboxes`] are then [`Error::Denied`].
    ///
    /// # Errors
    /// As every read.
    pub async fn sharers(&self) -> Result<Vec<Resolved>, Error> {
        let (core, deadline) = (&self.client.core, self.client.until());
        let mut token = self.session.token(core, deadline).await;
        let mut renewed = false;
        loop {
            let message = v1::SharersRequest { token: token.clone() };
            let asked = core.ask(ShardId::DIRECTORY, deadline, message, |channel, request| async move {
                DirectoryClient::new(channel).sharers(request).await
            });
            match asked.await {
                Ok(reply) => return reply.sharers.into_iter().map(convert::resolved).collect(),
                Err(Error::TokenExpired) if !renewed => {
                    token = self.session.renew(core, deadline).await?;
                    renewed = true;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The same session on the mailboxes of another account, as far as that one has granted it. Every read is linearizable. What is not granted is
    /// [`Error::Denied`], also where there is no such mailbox.
    pub fn as_guest_of(&self, owner: &Resolved) -> Account {
        self.client.core.routes.set_home(owner.account, owner.shard);
        Account {
            guest_of: (owner.account != self.session.account).then_some(owner.account),
            news: None,
            ..self.clone()
        }
    }

    /// Who may do what with a mailbox (GETACL, MYRIGHTS).
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Denied`] for a guest without any right to it.
    pub async fn grants(&self, name: &str) -> Result<Granted, Error> {
        let call = v1::Grants {
            account: self.account(),
            name: name.to_owned(),
        };
        let reply = answer!(self.read(Call::Grants(call)).await?, Grants)?;
        let grant = |one: v1::Grant| Ok((convert::id(&one.guest)?, convert::rights(one.rights)));
        Ok(Granted {
            mine: convert::rights(reply.mine),
            others: reply.grants.into_iter().map(grant).collect::<Result<_, Error>>()?,
        })
    }

    /// Gives rights to a mailbox, or takes them back (SETACL, DELETEACL).
    ///
    /// # Errors
    /// [`Error::NotFound`] for the mailbox or the guest; [`Error::Denied`] for a guest without the right a; [`Error::Limit`] for too many guests of
    /// a mailbox, or owners who share with one guest; [`Error::Invalid`] for the owner himself.
    pub async fn grant(&self, name: &str, guest: AccountId, mode: StoreMode, rights: Rights) -> Result<(), Error> {
        let grant = v1::MailboxGrant {
            name: name.to_owned(),
            guest: bytes(guest.as_bytes()),
            mode: convert::store_mode(mode),
            rights: u32::from(rights.0),
        };
        self.change_mailbox(mailbox_change::Change::Grant(grant))
            .await
            .map(|_| ())
    }
}
