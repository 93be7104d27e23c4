//! The leader of a shard opens the accounts that the directory has put there, and sweeps up behind deleted mailboxes.

use std::time::Duration;

use malle_machine::directory::{self, AccountState};
use malle_machine::shard::{self, AccountGrant};

use crate::env::Env;
use crate::raft::{Barrier, Group, GroupError};

/// Grants of one command: about 25 KiB of the 64 that an entry may have.
const GRANTS_TOGETHER: usize = 200;
/// Accounts swept in one look: commands that nobody waits for must not crowd out those that somebody does.
const SWEEPS_TOGETHER: usize = 4;
/// A command of placement takes at most this long; the next look repeats it.
const COMMAND: Duration = Duration::from_secs(5);

/// Opens every account that the directory knows to be here and the shard does not have yet, in the directory's order.
pub(super) async fn open_accounts(group: &Group, directory: &Group, env: &Env) -> Result<(), GroupError> {
    let shard = group.shard();
    loop {
        let deadline = malle_rt::now() + COMMAND;
        let through = group
            .read(Barrier::Local, deadline, shard::read::accounts_through)
            .await?;
        let grants = directory
            .read(Barrier::Local, deadline, move |view| {
                directory::read::grants(view, shard, through, GRANTS_TOGETHER)
            })
            .await?;
        let Some(last) = grants.last() else { return Ok(()) };
        let (through, more) = (last.sequence, grants.len() == GRANTS_TOGETHER);
        let accounts = grants
            .into_iter()
            .map(|grant| AccountGrant {
                account: grant.account.id,
                quota_bytes: grant.account.quota_bytes,
                suspended: grant.account.state == AccountState::Suspended,
                mailboxes: std::array::from_fn(|_| env.mailbox_id()),
            })
            .collect();
        group
            .propose_shard(shard::Op::OpenAccounts { accounts, through }, deadline)
            .await?;
        if !more {
            return Ok(());
        }
    }
}

/// Takes away rows of deleted mailboxes, a bounded number a look.
pub(super) async fn sweep(group: &Group) -> Result<(), GroupError> {
    let deadline = malle_rt::now() + COMMAND;
    let waiting = group
        .read(Barrier::Local, deadline, |view| {
            shard::read::accounts_to_sweep(view, SWEEPS_TOGETHER)
        })
        .await?;
    for account in waiting {
        group.propose_shard(shard::Op::Sweep { account }, deadline).await?;
    }
    Ok(())
}
