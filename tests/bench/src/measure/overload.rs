//! Ten times what it takes: offered without waiting for answers, as a campaign or a broken relay does.
//!
//! First the capacity, with 64 in flight. Then mails arrive at ten times that rate, each with a patience of ten seconds, however many are
//! waiting already. What must hold: as much is accepted as before, what is accepted does not wait for long, memory has an end, and the rest is told to
//! come later (Busy, or no answer within its patience). Arrivals above [`WAITING_MAX`] at once are turned away by this program itself, which must
//! survive too; they are told apart.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use async_trait::async_trait;
use malle_client::{Class, Client, Error};
use tokio::task::JoinSet;

use super::deliver::deliverers;
use super::{Cell, Effort, Measurement, next_number};
use crate::figures::{Figure, percentile};
use crate::load::{drive, pause};
use crate::mail::{Kind, Post};
use crate::usage::Usage;
use crate::world::{Account, World, deliver};

/// How much more than the capacity.
const TIMES: f64 = 10.0;
/// In flight when the capacity is measured.
const IN_FLIGHT: u64 = 64;
/// Of each mail.
const PATIENCE: Duration = Duration::from_secs(10);
/// Arrivals come in ticks.
const TICK: Duration = Duration::from_millis(5);
/// Mails that wait at the same time.
const WAITING_MAX: usize = 8_192;
const MIB: f64 = 1024.0 * 1024.0;

/// See the module's header.
pub struct Overload;

#[async_trait]
impl Measurement for Overload {
    fn name(&self) -> &'static str {
        "overload"
    }

    fn about(&self) -> &'static str {
        "mails of 16 KiB arrive at ten times the rate that 64 in flight reach; rss: of the largest node, before and at its most"
    }

    fn cells(&self) -> Vec<Cell> {
        [1, 8].map(|shards| Cell::of(&[("kib", 16), ("shards", shards)])).into()
    }

    fn warms_up(&self) -> bool {
        false
    }

    async fn run(&self, world: &mut World, cell: &Cell, effort: &Effort) -> anyhow::Result<Vec<Figure>> {
        let cluster = world.cluster()?;
        let post = Arc::new(Post::new(Kind::Text, cell.get("kib") as usize * 1024));
        let accounts: Arc<[Account]> = cluster.accounts_of(cell.get("shards") as u32).into();
        let workers = deliverers(&cluster.client, &post, &accounts, IN_FLIGHT);
        let watched = cluster.watched();
        let easy = drive(workers, effort.window, &watched).await?;
        let capacity = easy.took_ms.len() as f64 / easy.seconds;
        let nodes = watched.get("nodes").context("a cluster has nodes")?;
        let rss_before = largest(nodes)?;
        let arrivals = Arrivals {
            client: cluster.client.with_deadline(PATIENCE),
            post,
            accounts,
            rate: capacity * TIMES,
        };
        let ended = arrivals.offer(effort.window.measured * 2, nodes).await?;
        Ok(vec![
            Figure::more("capacity", "/s", capacity),
            Figure::more("offered", "/s", ended.offered),
            Figure::more("accepted", "/s", ended.accepted),
            Figure::more("share", "of capacity", ended.accepted / capacity),
            Figure::less("p50", "ms", percentile(&ended.took_ms, 0.5)),
            Figure::less("p99", "ms", percentile(&ended.took_ms, 0.99)),
            Figure::less("busy", "/s", ended.busy),
            Figure::less("unanswered", "/s", ended.unanswered),
            Figure::less("not sent", "/s", ended.not_sent),
            Figure::less("rss before", "MiB", rss_before),
            Figure::less("rss most", "MiB", ended.rss_most),
        ])
    }
}

/// RAM of the largest of these, in MiB.
fn largest(pids: &[u32]) -> anyhow::Result<f64> {
    let mut largest = 0;
    for pid in pids {
        largest = largest.max(Usage::now(&[*pid])?.rss_bytes);
    }
    Ok(largest as f64 / MIB)
}

/// Mails that come whether or not anybody takes them.
struct Arrivals {
    client: Client,
    post: Arc<Post>,
    accounts: Arc<[Account]>,
    /// A second.
    rate: f64,
}

/// What became of them, a second.
#[derive(Debug, Default)]
struct Ended {
    offered: f64,
    accepted: f64,
    busy: f64,
    unanswered: f64,
    not_sent: f64,
    /// Of the accepted, rising.
    took_ms: Vec<f64>,
    rss_most: f64,
}

/// How one delivery ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Accepted,
    Busy,
    Unanswered,
}

impl Arrivals {
    async fn offer(&self, window: Duration, nodes: &[u32]) -> anyhow::Result<Ended> {
        let begun = Instant::now();
        let mut waiting = JoinSet::new();
        let mut ended = Ended::default();
        let mut ends: BTreeMap<End, f64> = BTreeMap::new();
        let (mut arrived, mut not_sent) = (0_u64, 0_u64);
        while begun.elapsed() < window {
            pause(TICK).await;
            let due = (begun.elapsed().as_secs_f64() * self.rate) as u64;
            while let Some(done) = waiting.try_join_next() {
                ended.note(&mut ends, done.context("a delivery panicked")??);
            }
            // A machine that is too slow to make so many tasks offers what it can; the figure says how much that was.
            for _ in arrived..due {
                if waiting.len() < WAITING_MAX {
                    waiting.spawn(self.one());
                } else {
                    not_sent += 1;
                }
            }
            arrived = due;
            ended.rss_most = ended.rss_most.max(largest(nodes)?);
        }
        while let Some(done) = waiting.join_next().await {
            ended.note(&mut ends, done.context("a delivery panicked")??);
        }
        let (offered_for, answered_for) = (window.as_secs_f64(), begun.elapsed().as_secs_f64());
        ended.offered = arrived as f64 / offered_for;
        ended.not_sent = not_sent as f64 / offered_for;
        let rate = |end| ends.get(&end).copied().unwrap_or_default() / answered_for;
        (ended.accepted, ended.busy, ended.unanswered) = (rate(End::Accepted), rate(End::Busy), rate(End::Unanswered));
        ended.took_ms.sort_by(f64::total_cmp);
        Ok(ended)
    }

    fn one(&self) -> impl Future<Output = anyhow::Result<(End, Duration)>> + use<> {
        let number = next_number();
        let account = self.accounts[number as usize % self.accounts.len()].id;
        let (client, mail) = (self.client.clone(), self.post.mail(number));
        async move {
            let begun = Instant::now();
            let end = match deliver(&client, account, mail).await {
                Ok(()) => End::Accepted,
                Err(Error::Busy(_)) => End::Busy,
                Err(error) if error.class() == Class::Retry => End::Unanswered,
                Err(error) => bail!(error),
            };
            Ok((end, begun.elapsed()))
        }
    }
}

impl Ended {
    fn note(&mut self, ends: &mut BTreeMap<End, f64>, (end, took): (End, Duration)) {
        *ends.entry(end).or_default() += 1.0;
        if end == End::Accepted {
            self.took_ms.push(took.as_secs_f64() * 1000.0);
        }
    }
}
