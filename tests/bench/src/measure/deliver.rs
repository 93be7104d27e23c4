//! Deliveries through the client crate: what a gateway asks of malle, without the gateway.

use std::sync::Arc;

use async_trait::async_trait;
use malle_client::Client;

use super::{Cell, Effort, Measurement, next_number};
use crate::figures::Figure;
use crate::load::{Worker, drive};
use crate::mail::{Kind, Post};
use crate::world::{Account, World, deliver};

/// See the module's header.
pub struct Deliver;

#[async_trait]
impl Measurement for Deliver {
    fn name(&self) -> &'static str {
        "deliver"
    }

    fn about(&self) -> &'static str {
        "deliveries through the client crate, text; kib: size of a mail, c: in flight, shards: of the accounts"
    }

    fn cells(&self) -> Vec<Cell> {
        let mut cells = Vec::new();
        for shards in [1, 8] {
            for kib in [1, 16, 64] {
                for c in [1, 16, 64, 256] {
                    cells.push(Cell::of(&[("kib", kib), ("c", c), ("shards", shards)]));
                }
            }
        }
        cells
    }

    async fn run(&self, world: &mut World, cell: &Cell, effort: &Effort) -> anyhow::Result<Vec<Figure>> {
        let cluster = world.cluster()?;
        let post = Arc::new(Post::new(Kind::Text, cell.get("kib") as usize * 1024));
        let accounts: Arc<[Account]> = cluster.accounts_of(cell.get("shards") as u32).into();
        let workers = deliverers(&cluster.client, &post, &accounts, cell.get("c"));
        let watched = world.watched_by(true)?;
        Ok(drive(workers, effort.window, &watched).await?.figures())
    }
}

/// So many that deliver at the same time.
pub(super) fn deliverers(
    client: &Client,
    post: &Arc<Post>,
    accounts: &Arc<[Account]>,
    count: u64,
) -> Vec<Box<dyn Worker>> {
    let one = |_| {
        Box::new(Deliverer {
            client: client.clone(),
            post: post.clone(),
            accounts: accounts.clone(),
        }) as Box<dyn Worker>
    };
    (0..count).map(one).collect()
}

/// Delivers one mail after the other, each to the next account.
struct Deliverer {
    client: Client,
    post: Arc<Post>,
    accounts: Arc<[Account]>,
}

#[async_trait]
impl Worker for Deliverer {
    async fn once(&mut self) -> anyhow::Result<()> {
        let number = next_number();
        let account = &self.accounts[number as usize % self.accounts.len()];
        Ok(deliver(&self.client, account.id, self.post.mail(number)).await?)
    }
}
