//! How long after a mail was accepted the owner's session, in IDLE, hears of it.

use std::time::Instant;

use anyhow::{Context, ensure};
use async_trait::async_trait;
use harness::{Lmtp, Reply};

use super::{Cell, Effort, Measurement, next_number};
use crate::figures::{Figure, percentile};
use crate::imap::Session;
use crate::load::pause;
use crate::mail::{Kind, Post};
use crate::world::World;

/// See the module's header.
pub struct Notify;

#[async_trait]
impl Measurement for Notify {
    fn name(&self) -> &'static str {
        "notify"
    }

    fn about(&self) -> &'static str {
        "from the 250 of LMTP to EXISTS in a session in IDLE, one mail of 8 KiB at a time; 0 when the session hears of it first"
    }

    fn peer(&self, _: &Cell) -> bool {
        true
    }

    fn cells(&self) -> Vec<Cell> {
        vec![Cell::of(&[("kib", 8)])]
    }

    async fn run(&self, world: &mut World, cell: &Cell, effort: &Effort) -> anyhow::Result<Vec<Figure>> {
        let user = world.users().first().context("a world has a user")?.clone();
        let post = Post::new(Kind::Text, cell.get("kib") as usize * 1024);
        let mut reader = Session::login(world.imap(), &user).await?;
        reader.command("SELECT INBOX").await?;
        reader.idle().await?;
        let mut relay = Lmtp::connect(world.lmtp()).await?;
        let begun = Instant::now();
        let mut waited_ms = Vec::new();
        while begun.elapsed() < effort.window.measured || waited_ms.is_empty() {
            let mail = post.mail(next_number());
            // Who waits for the news must not be the one who delivers: it may come before the 250.
            let news = async {
                reader.news().await?;
                anyhow::Ok(Instant::now())
            };
            let delivered = async {
                let replies = relay.deliver("paul@example.net", &[&user], &mail).await?;
                ensure!(replies.iter().all(Reply::is_done), "refused: {replies:?}");
                Ok(Instant::now())
            };
            let (heard, accepted) = tokio::try_join!(news, delivered)?;
            waited_ms.push(heard.saturating_duration_since(accepted).as_secs_f64() * 1000.0);
            // A server may gather news; each mail shall find it with nothing on its mind.
            pause(effort.window.warm / 10).await;
        }
        waited_ms.sort_by(f64::total_cmp);
        Ok(vec![
            Figure::less("p50", "ms", percentile(&waited_ms, 0.5)),
            Figure::less("p99", "ms", percentile(&waited_ms, 0.99)),
        ])
    }
}
