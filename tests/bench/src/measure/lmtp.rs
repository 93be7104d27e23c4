//! Deliveries by LMTP: what a relay sees.
//!
//! One command at a time. A pipelined envelope would meet Nagle's algorithm on the side of a server that answers each command in a segment of
//! its own: 40 ms of waiting for an acknowledgement, which is a property of two kernels and of no mail store.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, ensure};
use async_trait::async_trait;
use harness::{Lmtp as Session, Reply};
use tokio::task::JoinSet;

use super::{Cell, Effort, Measurement, next_number};
use crate::figures::Figure;
use crate::load::{Worker, drive};
use crate::mail::{Kind, Post};
use crate::world::World;

/// Envelope sender.
const SENDER: &str = "paul.martin@example.net";
/// Sessions that fill a mailbox.
const FILLERS: usize = 16;

/// See the module's header.
pub struct Lmtp;

#[async_trait]
impl Measurement for Lmtp {
    fn name(&self) -> &'static str {
        "lmtp"
    }

    fn about(&self) -> &'static str {
        "deliveries by LMTP, text, 64 accounts; kib: size of a mail, c: sessions"
    }

    fn peer(&self, _: &Cell) -> bool {
        true
    }

    fn cells(&self) -> Vec<Cell> {
        let sizes = [8, 64].into_iter();
        let cell = |kib| [1, 8, 32].map(|c| Cell::of(&[("kib", kib), ("c", c)]));
        sizes.flat_map(cell).collect()
    }

    async fn run(&self, world: &mut World, cell: &Cell, effort: &Effort) -> anyhow::Result<Vec<Figure>> {
        let post = Arc::new(Post::new(Kind::Text, cell.get("kib") as usize * 1024));
        let addresses: Arc<[String]> = world.addresses().into();
        let mut workers: Vec<Box<dyn Worker>> = Vec::new();
        for _ in 0..cell.get("c") {
            workers.push(Box::new(Relay {
                session: Session::connect(world.lmtp()).await?,
                post: post.clone(),
                addresses: addresses.clone(),
            }));
        }
        Ok(drive(workers, effort.window, &world.watched()?).await?.figures())
    }
}

/// Puts `mails` mails of this size into each account, many at a time; before anything is measured.
pub(super) async fn fill(world: &World, accounts: &[String], mails: u64, kib: usize) -> anyhow::Result<()> {
    let post = Arc::new(Post::new(Kind::Text, kib * 1024));
    let mut sessions = JoinSet::new();
    let left = Arc::new(AtomicU64::new(mails * accounts.len() as u64));
    for _ in 0..FILLERS {
        let mut relay = Relay {
            session: Session::connect(world.lmtp()).await?,
            post: post.clone(),
            addresses: accounts.to_vec().into(),
        };
        let left = left.clone();
        // Each account gets as many as the others: what is left counts down through them.
        let take = move || left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        sessions.spawn(async move {
            while let Ok(left) = take() {
                relay.deliver(left).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = sessions.join_next().await {
        ended.context("a session panicked")??;
    }
    Ok(())
}

struct Relay {
    session: Session,
    post: Arc<Post>,
    addresses: Arc<[String]>,
}

impl Relay {
    /// One mail, to the account whose turn it is.
    async fn deliver(&mut self, turn: u64) -> anyhow::Result<()> {
        let to = &self.addresses[turn as usize % self.addresses.len()];
        let mail = self.post.mail(next_number());
        let replies = self.session.deliver(SENDER, &[to], &mail).await?;
        ensure!(replies.iter().all(Reply::is_done), "refused: {replies:?}");
        Ok(())
    }
}

#[async_trait]
impl Worker for Relay {
    async fn once(&mut self) -> anyhow::Result<()> {
        self.deliver(next_number()).await
    }
}
