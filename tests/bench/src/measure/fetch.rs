//! Reading 2,000 messages of 8 KiB: their flags, their envelopes, their bodies, one session after the other's answer.

use std::sync::Arc;

use anyhow::{Context, ensure};
use async_trait::async_trait;
use malle_client::{Account, MailboxId, ModSeq, Uid, UidRange};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::flags::inbox;
use super::lmtp::fill;
use super::{Cell, Effort, Measurement};
use crate::figures::Figure;
use crate::imap::Session;
use crate::load::{Worker, drive};
use crate::world::{PASSWORD, World};

/// Messages that one fetch is about.
const MESSAGES: u32 = 2_000;
/// Size of a message.
const KIB: usize = 8;
/// Bodies that a user of the client crate asks for at the same time.
const BODIES_AT_ONCE: usize = 16;

/// See the module's header.
pub struct Fetch;

#[async_trait]
impl Measurement for Fetch {
    fn name(&self) -> &'static str {
        "fetch"
    }

    fn about(&self) -> &'static str {
        "2,000 messages of 8 KiB in one FETCH, one session; by: IMAP or the client crate (16 bodies at a time)"
    }

    fn peer(&self, cell: &Cell) -> bool {
        cell.is("by", "imap")
    }

    fn cells(&self) -> Vec<Cell> {
        let cells = |by| ["flags", "envelope", "bodies"].map(|what| Cell::of(&[]).with("what", what).with("by", by));
        ["imap", "client"].into_iter().flat_map(cells).collect()
    }

    async fn prepare(&self, world: &mut World) -> anyhow::Result<()> {
        fill(world, &world.users()[..1], MESSAGES.into(), KIB).await
    }

    async fn run(&self, world: &mut World, cell: &Cell, effort: &Effort) -> anyhow::Result<Vec<Figure>> {
        let user = world.users().first().context("a world has a user")?.clone();
        let what = ["flags", "envelope", "bodies"]
            .into_iter()
            .find(|what| cell.is("what", what));
        let what = what.context("a cell says what is fetched")?;
        let worker: Box<dyn Worker> = if cell.is("by", "imap") {
            let mut session = Session::login(world.imap(), &user).await?;
            session.command("SELECT INBOX").await?;
            Box::new(Reader { session, what })
        } else {
            let account = world.cluster()?.client.login(&user, PASSWORD).await?;
            Box::new(Direct {
                inbox: inbox(&account).await?,
                account,
                what,
            })
        };
        let watched = world.watched_by(cell.is("by", "client"))?;
        Ok(drive(vec![worker], effort.window, &watched).await?.figures())
    }
}

struct Reader {
    session: Session,
    what: &'static str,
}

#[async_trait]
impl Worker for Reader {
    async fn once(&mut self) -> anyhow::Result<()> {
        let items = match self.what {
            "flags" => "FLAGS",
            "envelope" => "ENVELOPE",
            _ => "BODY.PEEK[]",
        };
        let answer = self.session.command(&format!("FETCH 1:{MESSAGES} ({items})")).await?;
        ensure!(
            answer.responses >= MESSAGES as usize,
            "only {} answers",
            answer.responses
        );
        let bodies = answer.literal_bytes >= (MESSAGES as usize - 1) * KIB * 1024;
        ensure!(self.what != "bodies" || bodies, "only {} bytes", answer.literal_bytes);
        Ok(())
    }
}

struct Direct {
    account: Account,
    inbox: MailboxId,
    what: &'static str,
}

#[async_trait]
impl Worker for Direct {
    async fn once(&mut self) -> anyhow::Result<()> {
        if self.what == "bodies" {
            return self.bodies().await;
        }
        let (mut first, mut rows) = (Uid(1), 0);
        let last = Uid(MESSAGES);
        loop {
            let range = [UidRange { first, last }];
            let fetched = self
                .account
                .fetch(self.inbox, &range, ModSeq(0), self.what == "envelope");
            let page = fetched.await?;
            rows += page.messages.len();
            match page.resume_from {
                Some(next) => first = next,
                None => break,
            }
        }
        ensure!(rows == MESSAGES as usize, "only {rows} rows");
        Ok(())
    }
}

impl Direct {
    async fn bodies(&self) -> anyhow::Result<()> {
        let places = Arc::new(Semaphore::new(BODIES_AT_ONCE));
        let mut reading = JoinSet::new();
        for uid in 1..=MESSAGES {
            let place = places.clone().acquire_owned().await?;
            let (account, inbox) = (self.account.clone(), self.inbox);
            reading.spawn(async move {
                let body = account.read_body(inbox, Uid(uid)).await;
                drop(place);
                body
            });
        }
        while let Some(read) = reading.join_next().await {
            read.context("a read panicked")??;
        }
        Ok(())
    }
}
