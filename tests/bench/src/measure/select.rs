//! Opening a mailbox of 50,000 messages: 2,000 that were delivered, copied 25 times.

use anyhow::{Context, ensure};
use async_trait::async_trait;
use malle_client::{Account, MailboxId};

use super::lmtp::fill;
use super::{Cell, Effort, Measurement};
use crate::figures::Figure;
use crate::imap::Session;
use crate::load::{Worker, drive};
use crate::world::{PASSWORD, Shape, World};

/// Messages that are delivered.
const DELIVERED: u32 = 2_000;
/// How often they are copied.
const COPIES: u32 = 25;
/// The mailbox.
const MAILBOX: &str = "Archive-2026";

/// See the module's header.
pub struct Select;

#[async_trait]
impl Measurement for Select {
    fn name(&self) -> &'static str {
        "select"
    }

    fn about(&self) -> &'static str {
        "opening a mailbox of 50,000 messages, one session, warm; by: IMAP (SELECT) or the client crate (open)"
    }

    fn peer(&self, cell: &Cell) -> bool {
        cell.is("by", "imap")
    }

    fn cells(&self) -> Vec<Cell> {
        let cell = |by| Cell::of(&[("messages", (DELIVERED * COPIES).into())]).with("by", by);
        ["imap", "client"].map(cell).into()
    }

    fn shape(&self) -> Shape {
        Shape::default()
    }

    async fn prepare(&self, world: &mut World) -> anyhow::Result<()> {
        let user = &world.users()[..1];
        fill(world, user, DELIVERED.into(), 1).await?;
        let mut session = Session::login(world.imap(), &user[0]).await?;
        session.command(&format!("CREATE {MAILBOX}")).await?;
        session.command("SELECT INBOX").await?;
        for _ in 0..COPIES {
            session.command(&format!("COPY 1:{DELIVERED} {MAILBOX}")).await?;
        }
        Ok(())
    }

    async fn run(&self, world: &mut World, cell: &Cell, effort: &Effort) -> anyhow::Result<Vec<Figure>> {
        let user = world.users().first().context("a world has a user")?.clone();
        let worker: Box<dyn Worker> = if cell.is("by", "imap") {
            Box::new(Reader(Session::login(world.imap(), &user).await?))
        } else {
            let account = world.cluster()?.client.login(&user, PASSWORD).await?;
            let mailboxes = account.mailboxes().await?;
            let found = mailboxes.iter().find(|mailbox| mailbox.name == MAILBOX);
            let mailbox = found.context("the mailbox was made")?;
            ensure!(mailbox.messages == DELIVERED * COPIES, "it holds {}", mailbox.messages);
            Box::new(Direct(account, mailbox.id))
        };
        Ok(drive(vec![worker], effort.window, &world.watched()?).await?.figures())
    }
}

struct Reader(Session);

#[async_trait]
impl Worker for Reader {
    async fn once(&mut self) -> anyhow::Result<()> {
        self.0.command(&format!("SELECT {MAILBOX}")).await.map(drop)
    }
}

struct Direct(Account, MailboxId);

#[async_trait]
impl Worker for Direct {
    async fn once(&mut self) -> anyhow::Result<()> {
        Ok(self.0.open(self.1).await.map(drop)?)
    }
}
