//! Opening a mailbox of 50,000 messages: 2,000 that were delivered, copied 25 times.
//!
//! There are two such mailboxes, opened in turns: to open the one that is open is no work for some servers.

use anyhow::{Context, ensure};
use async_trait::async_trait;
use malle_client::{Account, MailboxId};

use super::lmtp::fill;
use super::{Cell, Effort, Measurement};
use crate::figures::Figure;
use crate::imap::Session;
use crate::load::{Worker, drive};
use crate::world::{PASSWORD, World};

/// Messages that are delivered.
const DELIVERED: u32 = 2_000;
/// How often they are copied.
const COPIES: u32 = 25;
/// The mailboxes.
const MAILBOXES: [&str; 2] = ["Archive-2025", "Archive-2026"];

/// See the module's header.
pub struct Select;

#[async_trait]
impl Measurement for Select {
    fn name(&self) -> &'static str {
        "select"
    }

    fn about(&self) -> &'static str {
        "opening one of two mailboxes of 50,000 messages in turns, one session, warm; by: IMAP (SELECT) or the client crate (open)"
    }

    fn peer(&self, cell: &Cell) -> bool {
        cell.is("by", "imap")
    }

    fn cells(&self) -> Vec<Cell> {
        let cell = |by| Cell::of(&[("messages", (DELIVERED * COPIES).into())]).with("by", by);
        ["imap", "client"].map(cell).into()
    }

    async fn prepare(&self, world: &mut World) -> anyhow::Result<()> {
        let user = &world.users()[..1];
        fill(world, user, DELIVERED.into(), 1).await?;
        let mut session = Session::login(world.imap(), &user[0]).await?;
        session.command("SELECT INBOX").await?;
        for mailbox in MAILBOXES {
            session.command(&format!("CREATE {mailbox}")).await?;
            for _ in 0..COPIES {
                session.command(&format!("COPY 1:{DELIVERED} {mailbox}")).await?;
            }
        }
        Ok(())
    }

    async fn run(&self, world: &mut World, cell: &Cell, effort: &Effort) -> anyhow::Result<Vec<Figure>> {
        let user = world.users().first().context("a world has a user")?.clone();
        let worker: Box<dyn Worker> = if cell.is("by", "imap") {
            Box::new(Reader {
                session: Session::login(world.imap(), &user).await?,
                turn: 0,
            })
        } else {
            let account = world.cluster()?.client.login(&user, PASSWORD).await?;
            let mailboxes = account.mailboxes().await?;
            let mut ids = Vec::new();
            for mailbox in mailboxes
                .iter()
                .filter(|mailbox| MAILBOXES.contains(&mailbox.name.as_str()))
            {
                ensure!(mailbox.messages == DELIVERED * COPIES, "it holds {}", mailbox.messages);
                ids.push(mailbox.id);
            }
            Box::new(Direct { account, ids, turn: 0 })
        };
        let watched = world.watched_by(cell.is("by", "client"))?;
        Ok(drive(vec![worker], effort.window, &watched).await?.figures())
    }
}

struct Reader {
    session: Session,
    turn: usize,
}

#[async_trait]
impl Worker for Reader {
    async fn once(&mut self) -> anyhow::Result<()> {
        self.turn += 1;
        let mailbox = MAILBOXES[self.turn % MAILBOXES.len()];
        self.session.command(&format!("SELECT {mailbox}")).await.map(drop)
    }
}

struct Direct {
    account: Account,
    ids: Vec<MailboxId>,
    turn: usize,
}

#[async_trait]
impl Worker for Direct {
    async fn once(&mut self) -> anyhow::Result<()> {
        self.turn += 1;
        let mailbox = self.ids[self.turn % self.ids.len()];
        Ok(self.account.open(mailbox).await.map(drop)?)
    }
}
