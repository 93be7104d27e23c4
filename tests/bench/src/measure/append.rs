//! APPEND by IMAP: what a mail program does with what it sent.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Cell, Effort, Measurement, next_number};
use crate::figures::Figure;
use crate::imap::Session;
use crate::load::{Worker, drive};
use crate::mail::{Kind, Post};
use crate::world::World;

/// See the module's header.
pub struct Append;

#[async_trait]
impl Measurement for Append {
    fn name(&self) -> &'static str {
        "append"
    }

    fn about(&self) -> &'static str {
        "APPEND by IMAP, text; kib: size of a mail, c: sessions, each of an account of its own"
    }

    fn peer(&self, _: &Cell) -> bool {
        true
    }

    fn cells(&self) -> Vec<Cell> {
        [1, 8].map(|c| Cell::of(&[("kib", 8), ("c", c)])).into()
    }

    async fn run(&self, world: &mut World, cell: &Cell, effort: &Effort) -> anyhow::Result<Vec<Figure>> {
        let post = Arc::new(Post::new(Kind::Text, cell.get("kib") as usize * 1024));
        let mut workers: Vec<Box<dyn Worker>> = Vec::new();
        for user in world.users().iter().take(cell.get("c") as usize) {
            workers.push(Box::new(Writer {
                session: Session::login(world.imap(), user).await?,
                post: post.clone(),
            }));
        }
        Ok(drive(workers, effort.window, &world.watched()?).await?.figures())
    }
}

struct Writer {
    session: Session,
    post: Arc<Post>,
}

#[async_trait]
impl Worker for Writer {
    async fn once(&mut self) -> anyhow::Result<()> {
        let mail = self.post.mail(next_number());
        self.session.append("INBOX", &mail).await.map(drop)
    }
}
