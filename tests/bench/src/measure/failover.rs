//! A leader dies under load (SIGKILL) and comes back.
//!
//! The gap is the longest time in which no delivery to its shard was acknowledged: election, and the client's way to the new leader. After
//! the load the node is started again: it serves once it answers, and has recovered once it holds what the others had committed by then,
//! with every body.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;

use super::deliver::deliverers;
use super::{Cell, Effort, Measurement};
use crate::figures::Figure;
use crate::load::{Window, drive, pause};
use crate::mail::{Kind, Post};
use crate::world::{Account, Shape, World};

/// In flight: a relay's.
const IN_FLIGHT: u64 = 16;
/// Load before the kill, and from it to the end: longer than any election.
const BEFORE: Duration = Duration::from_secs(2);
const AFTER: Duration = Duration::from_secs(8);

/// See the module's header.
pub struct Failover;

#[async_trait]
impl Measurement for Failover {
    fn name(&self) -> &'static str {
        "failover"
    }

    fn about(&self) -> &'static str {
        "the leader of a shard is killed under 16 deliveries of 8 KiB in flight, and started again; gap: without an acknowledgement"
    }

    fn cells(&self) -> Vec<Cell> {
        ["local", "wan"]
            .map(|timing| Cell::of(&[]).with("timing", timing))
            .into()
    }

    fn shape(&self, cell: &Cell) -> Shape {
        Shape {
            timing: if cell.is("timing", "wan") { "wan" } else { "local" },
            ..Shape::default()
        }
    }

    fn warms_up(&self) -> bool {
        false
    }

    async fn run(&self, world: &mut World, _: &Cell, _: &Effort) -> anyhow::Result<Vec<Figure>> {
        let cluster = world.cluster()?;
        cluster.settle_leaders().await?;
        let leader = cluster.leader_of_first_shard().await?;
        let post = Arc::new(Post::new(Kind::Text, 8 * 1024));
        let accounts: Arc<[Account]> = cluster.accounts_of(1).into();
        let workers = deliverers(&cluster.client, &post, &accounts, IN_FLIGHT);
        let window = Window {
            warm: BEFORE,
            measured: AFTER,
        };
        let watched = cluster.watched();
        let kill = async {
            pause(BEFORE + Duration::from_secs(1)).await;
            cluster.kill(leader).await
        };
        let (driven, ()) = tokio::try_join!(drive(workers, window, &watched), kill)?;
        let begun = Instant::now();
        cluster.restart(leader).await?;
        let serves = begun.elapsed();
        cluster.caught_up(leader).await?;
        let recovered = begun.elapsed();
        Ok(vec![
            Figure::less("gap", "ms", driven.longest_gap_ms()),
            Figure::more("rate", "/s", driven.took_ms.len() as f64 / driven.seconds),
            Figure::less("serves", "ms", serves.as_secs_f64() * 1000.0),
            Figure::less("recovered", "ms", recovered.as_secs_f64() * 1000.0),
        ])
    }
}
