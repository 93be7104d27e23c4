//! The directory's list of who shares with whom, kept beside the grants (decision 22).
//!
//! A pair is written before a grant and once more behind it, and goes after the last grant. A pair without a grant, which a crash or a delete can
//! leave, shows nobody anything: it is taken away when the guest asks for a list and nothing is granted.

use std::time::Duration;

use malle_machine::directory::{self, read};
use malle_machine::shard;
use malle_machine::view::View;
use malle_proto::v1::mailbox_change::Change;
use malle_proto::v1::{self, SharersReply, SharersRequest};
use malle_proto::{AccountId, Rights, ShardId};

use super::convert;
use super::directory::{DirectoryApi, resolved};
use super::error::Refused;
use super::mail::{Asked, MailApi};
use super::standing::holds;
use crate::raft::Barrier;
use crate::security::{Denied, Identity, Peer, Token};

/// Grants that one node tells the directory of at the same time: they are rare, and the directory is needed for every login.
pub(super) const CHANGES_AT_ONCE: usize = 4;
/// How long an answer waits for the list to be put in order.
const FORGET_WITHIN: Duration = Duration::from_secs(1);

/// How long a guest waits for what the directory's leader knows.
const FRESH_WITHIN: Duration = Duration::from_secs(2);

/// What a change of a mailbox does to the list.
pub(super) enum Sharing {
    /// Nothing.
    Same,
    /// Something is granted to this guest.
    Grants(AccountId),
    /// Something is taken back from this guest.
    TakesBack(AccountId),
}

impl Sharing {
    pub(super) fn of(change: &v1::MailboxChange) -> Result<Sharing, Refused> {
        let Some(Change::Grant(grant)) = &change.change else {
            return Ok(Sharing::Same);
        };
        let guest = convert::account(&grant.guest)?;
        let gives = grant.mode() != v1::StoreMode::Remove && grant.rights != u32::from(Rights::NONE.0);
        Ok(if gives {
            Sharing::Grants(guest)
        } else {
            Sharing::TakesBack(guest)
        })
    }
}

impl MailApi {
    /// The pair is in the list.
    pub(super) async fn share(&self, asked: &Asked, owner: AccountId, guest: AccountId) -> Result<(), Refused> {
        let mark = self.env.op_id();
        self.change_sharing(asked, directory::Op::SharingAdd { owner, guest, mark })
            .await
    }

    /// Takes the pair out of the list if nothing is granted any more. That this fails harms nobody: it is tried again with the guest's next list.
    /// So it may not keep the answer to what was done already waiting either.
    pub(super) async fn forget_sharing(&self, asked: &Asked, owner: AccountId, guest: AccountId) {
        let done = malle_rt::timeout(FORGET_WITHIN, self.try_to_forget_sharing(asked, owner, guest)).await;
        let error = match done {
            Ok(Ok(())) => return,
            Ok(Err(refused)) => refused.0.message,
            Err(_) => "it takes too long".to_owned(),
        };
        tracing::debug!(%owner, %guest, error, "a pair of accounts that share nothing is still listed");
    }

    async fn try_to_forget_sharing(&self, asked: &Asked, owner: AccountId, guest: AccountId) -> Result<(), Refused> {
        let directory = self
            .groups
            .get(ShardId::DIRECTORY)
            .ok_or_else(|| Refused::unavailable("the directory is not open here"))?;
        // Whatever is added from here on leaves another mark. That this replica may be behind makes the removal do nothing at worst.
        let look = move |view: &dyn View| read::sharing(view, owner, guest);
        let Some(mark) = directory.read(Barrier::Local, asked.deadline, look).await? else {
            return Ok(());
        };
        let look = move |view: &dyn View| shard::read::granted(view, owner, guest);
        let granted = asked.group.read(Barrier::Linearizable, asked.deadline, look).await?;
        if !granted.is_empty() {
            return Ok(());
        }
        self.change_sharing(asked, directory::Op::SharingRemove { owner, guest, mark })
            .await
    }

    async fn change_sharing(&self, asked: &Asked, op: directory::Op) -> Result<(), Refused> {
        // The directory is everybody's: who grants all day long waits for his turn, and not those who log in.
        let _turn = self
            .sharing_turns
            .acquire()
            .await
            .map_err(|_| Refused::internal("the turns of grants were closed"))?;
        match self.groups.propose_directory(op, asked.deadline).await? {
            directory::Outcome::Done => Ok(()),
            directory::Outcome::Refused(refusal) => Err(refusal.into()),
            directory::Outcome::Account { .. } => Err(Refused::internal("the directory answered with an account")),
        }
    }
}

impl DirectoryApi {
    /// Who shares with the holder of a token.
    pub(super) async fn sharers(&self, peer: &Peer, request: SharersRequest) -> Result<SharersReply, Refused> {
        let Identity::Gateway { name, .. } = &peer.identity else {
            return Err(Refused::denied("tokens are for gateways"));
        };
        let (name, env) = (name.clone(), self.env.clone());
        let ask = |barrier| {
            let (name, token, now_ms) = (name.clone(), request.token.clone(), env.now_ms());
            self.read(barrier, move |view: &dyn View| {
                let token = match Token::open(&token, &read::token_keys(view)?, now_ms, &name) {
                    Ok(token) => token,
                    Err(error) => return Ok(Err(Refused::from(Denied::Token(error)))),
                };
                if !holds(view, &token, now_ms)? {
                    return Ok(Err(Refused::token_expired()));
                }
                Ok(Ok(read::sharers(view, token.account)?))
            })
        };
        // Nobody waits for his own mailboxes until the directory has a leader again: then it is what this replica knows.
        let sharers = match malle_rt::timeout(FRESH_WITHIN, ask(Barrier::Linearizable)).await {
            Ok(Ok(sharers)) => sharers,
            Ok(Err(_)) | Err(_) => ask(Barrier::Local).await?,
        };
        let sharers = sharers?.into_iter().map(resolved).collect();
        Ok(SharersReply { sharers })
    }
}
