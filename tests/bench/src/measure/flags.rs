//! Flags: one message at a time gets \Seen, and loses it on the next round.

use anyhow::Context;
use async_trait::async_trait;
use malle_client::{Account, Flags as MessageFlags, MailboxId, StoreMode, Uid, UidRange, fresh_op_id};

use super::lmtp::fill;
use super::{Cell, Effort, Measurement};
use crate::figures::Figure;
use crate::imap::Session;
use crate::load::{Worker, drive};
use crate::world::{PASSWORD, World};

/// Messages of each mailbox.
const MESSAGES: u32 = 500;

/// See the module's header.
pub struct Flags;

#[async_trait]
impl Measurement for Flags {
    fn name(&self) -> &'static str {
        "flags"
    }

    fn about(&self) -> &'static str {
        "one flag of one message of 500; by: IMAP (STORE) or the client crate, c: at the same time, each in an account of its own"
    }

    fn peer(&self, cell: &Cell) -> bool {
        cell.is("by", "imap")
    }

    fn cells(&self) -> Vec<Cell> {
        let cells = |by| [1, 8].map(|c| Cell::of(&[("c", c)]).with("by", by));
        ["imap", "client"].into_iter().flat_map(cells).collect()
    }

    async fn prepare(&self, world: &mut World) -> anyhow::Result<()> {
        fill(world, &world.users(), MESSAGES.into(), 1).await
    }

    async fn run(&self, world: &mut World, cell: &Cell, effort: &Effort) -> anyhow::Result<Vec<Figure>> {
        let mut workers: Vec<Box<dyn Worker>> = Vec::new();
        for user in world.users().iter().take(cell.get("c") as usize) {
            if cell.is("by", "imap") {
                let mut session = Session::login(world.imap(), user).await?;
                session.command("SELECT INBOX").await?;
                workers.push(Box::new(Reader { session, turn: 0 }));
            } else {
                let account = world.cluster()?.client.login(user, PASSWORD).await?;
                workers.push(Box::new(Direct {
                    inbox: inbox(&account).await?,
                    account,
                    turn: 0,
                }));
            }
        }
        let watched = world.watched_by(cell.is("by", "client"))?;
        Ok(drive(workers, effort.window, &watched).await?.figures())
    }
}

/// The mailbox that mail is delivered to.
pub(super) async fn inbox(account: &Account) -> anyhow::Result<MailboxId> {
    let mailboxes = account.mailboxes().await?;
    let inbox = mailboxes.iter().find(|mailbox| mailbox.name == "INBOX");
    Ok(inbox.context("an account has an INBOX")?.id)
}

/// The message of this turn, and whether it gets the flag.
fn turn(turn: u32) -> (u32, bool) {
    (turn % MESSAGES + 1, (turn / MESSAGES).is_multiple_of(2))
}

struct Reader {
    session: Session,
    turn: u32,
}

#[async_trait]
impl Worker for Reader {
    async fn once(&mut self) -> anyhow::Result<()> {
        let (uid, set) = turn(self.turn);
        self.turn += 1;
        let sign = if set { '+' } else { '-' };
        let store = format!("UID STORE {uid} {sign}FLAGS.SILENT (\\Seen)");
        self.session.command(&store).await.map(drop)
    }
}

struct Direct {
    account: Account,
    inbox: MailboxId,
    turn: u32,
}

#[async_trait]
impl Worker for Direct {
    async fn once(&mut self) -> anyhow::Result<()> {
        let (uid, set) = turn(self.turn);
        self.turn += 1;
        let mode = if set { StoreMode::Add } else { StoreMode::Remove };
        let seen = MessageFlags {
            system: MessageFlags::SEEN,
            keywords: Vec::new(),
        };
        let range = UidRange {
            first: Uid(uid),
            last: Uid(uid),
        };
        let (uids, op_id) = ([range], fresh_op_id());
        let stored = self.account.store(self.inbox, &uids, mode, seen, None, op_id);
        Ok(stored.await.map(drop)?)
    }
}
