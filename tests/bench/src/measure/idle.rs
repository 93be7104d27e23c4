//! What three nodes cost while nobody asks for anything: heartbeats, timers, memory.

use anyhow::Context;
use async_trait::async_trait;

use super::{Cell, Effort, Measurement};
use crate::figures::Figure;
use crate::load::pause;
use crate::usage::Usage;
use crate::world::{Shape, World};

/// Windows of a sample, and half as many before it: what starting left behind is done by then, and heartbeats are rare.
const WINDOWS: u32 = 4;
const MIB: f64 = 1024.0 * 1024.0;

/// See the module's header.
pub struct Idle;

#[async_trait]
impl Measurement for Idle {
    fn name(&self) -> &'static str {
        "idle"
    }

    fn about(&self) -> &'static str {
        "three nodes without work, `wan` timing, one account in each shard; cpu: all three, in percent of one processor; rss: the largest"
    }

    fn cells(&self) -> Vec<Cell> {
        [8, 64].map(|shards| Cell::of(&[("shards", shards)])).into()
    }

    fn shape(&self, cell: &Cell) -> Shape {
        Shape {
            shards: cell.get("shards") as u32,
            accounts_per_shard: 1,
            timing: "wan",
        }
    }

    fn warms_up(&self) -> bool {
        false
    }

    async fn run(&self, world: &mut World, _: &Cell, effort: &Effort) -> anyhow::Result<Vec<Figure>> {
        let watched = world.cluster()?.watched();
        let nodes = watched.get("nodes").context("a cluster has nodes")?;
        pause(effort.window.measured * WINDOWS / 2).await;
        let before = Usage::now(nodes)?;
        let window = effort.window.measured * WINDOWS;
        pause(window).await;
        let after = Usage::now(nodes)?;
        let mut largest = 0;
        for node in nodes {
            largest = largest.max(Usage::now(&[*node])?.rss_bytes);
        }
        let cpu = after.cpu_since(&before).as_secs_f64() / window.as_secs_f64();
        Ok(vec![
            Figure::less("cpu", "%", cpu * 100.0),
            Figure::less("rss", "MiB", largest as f64 / MIB),
            Figure::less(
                "disk",
                "KiB/s",
                after.disk_written_since(&before) as f64 / 1024.0 / window.as_secs_f64(),
            ),
        ])
    }
}
