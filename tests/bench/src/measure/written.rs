//! What a delivery writes: bytes per byte of body and replica, and syncs.
//!
//! Bodies are random bytes, so what is written above 1 is the store's own: frames, checksums, the log, rows. The nodes' own counters say
//! what went into log and volumes; the kernel's say what was handed to the disk in whole pages, the view's files with it.

use std::sync::Arc;

use async_trait::async_trait;

use super::deliver::deliverers;
use super::{Cell, Effort, Measurement};
use crate::figures::Figure;
use crate::load::drive;
use crate::mail::{Kind, Post};
use crate::world::{Account, World};

/// Copies of each body.
const REPLICAS: f64 = 3.0;

/// See the module's header.
pub struct Written;

#[async_trait]
impl Measurement for Written {
    fn name(&self) -> &'static str {
        "written"
    }

    fn about(&self) -> &'static str {
        "bytes written for each byte of body on each of three replicas, random bytes, through the client crate; syncs of all three nodes \
         for each delivery"
    }

    fn cells(&self) -> Vec<Cell> {
        let cell = |(kib, c)| Cell::of(&[("kib", kib), ("c", c), ("shards", 8)]);
        [(16, 1), (16, 64), (256, 16)].map(cell).into()
    }

    async fn run(&self, world: &mut World, cell: &Cell, effort: &Effort) -> anyhow::Result<Vec<Figure>> {
        let cluster = world.cluster()?;
        let post = Arc::new(Post::new(Kind::Incompressible, cell.get("kib") as usize * 1024));
        let accounts: Arc<[Account]> = cluster.accounts_of(cell.get("shards") as u32).into();
        let workers = deliverers(&cluster.client, &post, &accounts, cell.get("c"));
        // The counters are read before the load begins and after it has ended: what they count is all of it, warm-up too.
        let before = cluster.counters().await?;
        let driven = drive(workers, effort.window, &cluster.watched()).await?;
        let after = cluster.counters().await?;
        let body_bytes = cell.get("kib") as f64 * 1024.0;
        let mut figures = vec![Figure::more("rate", "/s", driven.took_ms.len() as f64 / driven.seconds)];
        if let Some((before, nodes)) = driven.usage.get("nodes") {
            let disk = nodes.disk_written_since(before) as f64;
            let in_window = driven.took_ms.len() as f64 * body_bytes * REPLICAS;
            figures.push(Figure::less("disk", "bytes/byte", disk / in_window));
        }
        if let (Some(before), Some(after)) = (before, after) {
            let mails = driven.total as f64;
            let bytes = |kind| after.journal_since(&before, "bytes", kind);
            let syncs = |kind| after.journal_since(&before, "syncs", kind);
            let (log, volumes) = (bytes("log")?, bytes("volumes")?);
            let each = mails * body_bytes * REPLICAS;
            figures.push(Figure::less("log", "bytes/byte", log / each));
            figures.push(Figure::less("volumes", "bytes/byte", volumes / each));
            figures.push(Figure::less("log + volumes", "bytes/byte", (log + volumes) / each));
            figures.push(Figure::less("log syncs", "/delivery", syncs("log")? / mails));
            figures.push(Figure::less("volume syncs", "/delivery", syncs("volumes")? / mails));
        }
        Ok(figures)
    }
}
