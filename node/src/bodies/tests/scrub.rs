use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use malle_journal::{Disk, MemoryDisk};
use malle_proto::{BodyHash, ShardId};
use tokio::sync::watch;

use super::{Fault, Net, SHARD, cluster, damage, eventually, members, noise, soon, sources};
use crate::bodies::{Bodies, BodyRows, GroupBodies, Scrub, ScrubReport};
use crate::env::Env;

/// The rows of one group.
#[derive(Default)]
struct Rows {
    named: Mutex<BTreeSet<BodyHash>>,
}

#[async_trait]
impl BodyRows for Rows {
    fn shards(&self) -> Vec<ShardId> {
        vec![SHARD]
    }

    async fn named_behind(
        &self,
        _: ShardId,
        after: Option<BodyHash>,
        _: usize,
    ) -> Option<(Vec<BodyHash>, Option<BodyHash>)> {
        // Pages of seven, whatever is asked for: several of them.
        let named = self.named.lock().unwrap();
        let behind = named.iter().copied().filter(|hash| Some(*hash) > after);
        let page: Vec<BodyHash> = behind.take(7).collect();
        let next = page.last().copied().filter(|_| page.len() == 7);
        Some((page, next))
    }

    async fn is_named(&self, _: ShardId, hash: BodyHash) -> Option<bool> {
        Some(self.named.lock().unwrap().contains(&hash))
    }
}

/// Node 1 with its group, its rows and its scrub; nodes 2 and 3 are whom it asks.
struct Scrubbed {
    net: Net,
    disks: BTreeMap<u64, MemoryDisk>,
    bodies: BTreeMap<BodyHash, Bytes>,
    rows: Arc<Rows>,
    group: Arc<GroupBodies>,
    scrub: Arc<Scrub>,
}

impl Scrubbed {
    /// `count` bodies of 3,000 bytes, durable on all three nodes and named.
    async fn with(count: u64) -> Scrubbed {
        let (net, disks) = cluster(3);
        let rows = Arc::new(Rows::default());
        let mut bodies = BTreeMap::new();
        for seed in 0..count {
            let body = noise(seed, 3000);
            let hash = Bodies::hash_of(&body);
            for node in 1..=3 {
                let alone = members(&[&[node]]);
                net.node(node)
                    .put(SHARD, &alone, hash, body.clone(), soon())
                    .await
                    .unwrap();
            }
            rows.named.lock().unwrap().insert(hash);
            bodies.insert(hash, body);
        }
        let (group, scrub) = open(&net, &rows);
        Scrubbed {
            net,
            disks,
            bodies,
            rows,
            group,
            scrub,
        }
    }

    /// Node 1 stops, something happens to its disk, and it starts again.
    async fn restart(&mut self, meanwhile: impl FnOnce(&MemoryDisk)) {
        self.net.stop(1).await;
        meanwhile(&self.disks[&1]);
        self.net.start(1, &self.disks[&1]);
        (self.group, self.scrub) = open(&self.net, &self.rows);
    }

    fn damage(&self, node: u64, seed: u64) -> BodyHash {
        let body = noise(seed, 3000);
        damage(&self.disks[&node], &body);
        Bodies::hash_of(&body)
    }

    async fn round(&self) -> ScrubReport {
        self.scrub.round_now().await;
        self.scrub.report()
    }

    async fn all_mended(&self) -> ScrubReport {
        eventually("all is mended", || {
            let report = self.scrub.report();
            report.repaired == report.rotten + report.unreadable + report.absent
        })
        .await;
        for (hash, body) in &self.bodies {
            let read = self.net.node(1).get(SHARD, *hash, &[], soon()).await;
            assert_eq!(read.as_ref(), Ok(body), "from this disk alone");
        }
        assert_eq!((self.group.missing(), self.scrub.report().open), (0, 0));
        self.scrub.report()
    }

    async fn next_round_is_clean(&self) {
        let before = self.scrub.report();
        let after = self.round().await;
        assert_eq!(after.bodies, self.bodies.len() as u64);
        let found = |report: ScrubReport| (report.rotten, report.unreadable, report.absent, report.repaired);
        assert_eq!(found(after), found(before));
        assert_eq!(after.rounds, before.rounds + 1);
    }
}

fn open(net: &Net, rows: &Arc<Rows>) -> (Arc<GroupBodies>, Arc<Scrub>) {
    let group = GroupBodies::new(SHARD, net.node(1));
    group.set_sources(|| sources(&[2, 3]));
    let (env, _) = Env::manual(1_000_000, 1);
    (group, Scrub::new(net.node(1), rows.clone(), env, 30))
}

/// Full volumes of a disk, the oldest first.
fn full_volumes(disk: &MemoryDisk) -> Vec<PathBuf> {
    let dir = Path::new("/bodies");
    let mut names = disk.list(dir).unwrap();
    names.retain(|name| name.ends_with(".seg"));
    names.sort();
    // The last one is being filled.
    names.pop();
    names.into_iter().map(|name| dir.join(name)).collect()
}

#[tokio::test]
async fn a_round_finds_exactly_the_turned_bits_and_mends_them_and_the_next_one_is_clean() {
    let here = Scrubbed::with(30).await;
    for seed in [0, 3, 11, 28, 29] {
        here.damage(1, seed);
    }
    let report = here.round().await;
    assert_eq!((report.rotten, report.bodies), (5, 25));
    assert!(!report.running && report.bytes > 25 * 3000);
    assert_eq!(
        (report.rounds, report.started_ms, report.finished_ms),
        (1, 1_000_000, 1_000_000)
    );
    let report = here.all_mended().await;
    assert_eq!((report.rotten, report.unreadable, report.absent), (5, 0, 0));
    here.next_round_is_clean().await;
}

#[tokio::test]
async fn a_volume_that_was_deleted_while_the_node_was_down_comes_back_whole() {
    let mut here = Scrubbed::with(60).await;
    here.restart(|disk| {
        disk.remove(&full_volumes(disk)[1]).unwrap();
        // The one before is scanned then, and where it ends is told by the lost one.
        for name in disk.list(Path::new("/bodies")).unwrap() {
            if name.ends_with(".footer") {
                disk.remove(&Path::new("/bodies").join(name)).unwrap();
            }
        }
    })
    .await;
    let one = here.net.node(1);
    let lost = here.bodies.keys().filter(|hash| !one.has(SHARD, **hash)).count() as u64;
    assert!((10..30).contains(&lost), "{lost} bodies were in it");
    assert_eq!(here.round().await.absent, lost);
    assert_eq!(here.all_mended().await.repaired, lost);
    here.next_round_is_clean().await;
}

#[tokio::test]
async fn bodies_that_the_disk_does_not_give_back_are_replaced_while_the_node_runs() {
    let mut here = Scrubbed::with(60).await;
    // A running process may hold the file open, which would still give everything; one that has just started does not.
    here.restart(|_| ()).await;
    here.disks[&1].remove(&full_volumes(&here.disks[&1])[0]).unwrap();
    let report = here.round().await;
    assert!(report.unreadable + report.rotten > 10, "{report:?}");
    here.all_mended().await;
    here.next_round_is_clean().await;
}

#[tokio::test]
async fn a_disk_that_answers_nothing_makes_the_scrub_forget_no_copy() {
    let here = Scrubbed::with(10).await;
    // The handles of a killed process answer every read with an error.
    here.disks[&1].kill();
    let report = here.round().await;
    assert_eq!((report.bodies, report.unreadable, report.repaired), (0, 10, 0));
    assert!(here.bodies.keys().all(|hash| here.net.node(1).has(SHARD, *hash)));
}

#[tokio::test]
async fn rot_without_a_good_copy_is_counted_and_stays_in_sight_and_the_round_goes_on() {
    let here = Scrubbed::with(12).await;
    let hash = here.damage(1, 5);
    for node in [2, 3] {
        here.damage(node, 5);
    }
    let report = here.round().await;
    assert_eq!((report.rotten, report.repaired, report.open), (1, 0, 1));
    assert_eq!((report.bodies, report.rounds), (11, 1), "the others were read");
    let report = here.round().await;
    assert_eq!(
        (report.rotten, report.open, here.group.missing()),
        (1, 1, 1),
        "it is not forgotten"
    );
    assert_eq!(here.group.complete_through(9), 0);
    // A node that was away brings a good one.
    let alone = members(&[&[2]]);
    let (two, body) = (here.net.node(2), here.bodies[&hash].clone());
    two.put(SHARD, &alone, hash, body, soon()).await.unwrap();
    here.all_mended().await;
}

#[tokio::test]
async fn rot_waits_for_peers_that_are_down() {
    let here = Scrubbed::with(12).await;
    here.damage(1, 5);
    for node in [2, 3] {
        here.net.fault(node, Some(Fault::Down));
    }
    assert_eq!(here.round().await.open, 1);
    here.net.fault(3, None);
    assert_eq!(here.all_mended().await.repaired, 1);
}

#[tokio::test]
async fn what_nothing_names_is_not_missed() {
    let here = Scrubbed::with(12).await;
    let (rotten, read) = (here.damage(1, 5), here.damage(1, 6));
    for hash in [rotten, read] {
        here.rows.named.lock().unwrap().remove(&hash);
    }
    for node in [2, 3] {
        here.net.fault(node, Some(Fault::Down));
    }
    // A peer ran into the rot of one of them before.
    assert!(here.net.node(1).serve(SHARD, read).await.is_err());
    assert_eq!(here.group.missing(), 1);
    let report = here.round().await;
    assert_eq!((report.rotten, report.bodies, report.open), (1, 10, 0));
    assert_eq!((here.group.missing(), here.group.complete_through(9)), (0, 9));
}

#[tokio::test]
async fn a_round_goes_on_while_its_group_is_closed() {
    let mut here = Scrubbed::with(12).await;
    let hash = here.damage(1, 5);
    here.group = GroupBodies::new(ShardId(8), here.net.node(1));
    let report = here.round().await;
    assert_eq!(
        (report.rotten, report.bodies, report.open, report.rounds),
        (1, 11, 0, 1)
    );
    // As an opening group does with the rows.
    (here.group, _) = open(&here.net, &here.rows);
    here.group.named(4, &[hash]);
    eventually("it is back", || here.net.node(1).has(SHARD, hash)).await;
    here.next_round_is_clean().await;
}

#[tokio::test]
async fn a_scrub_ends_with_its_node() {
    let here = Scrubbed::with(1).await;
    let (stop, stopped) = watch::channel(false);
    let running = malle_rt::spawn(here.scrub.clone().run(stopped));
    stop.send_replace(true);
    malle_rt::timeout(Duration::from_secs(10), running)
        .await
        .unwrap()
        .unwrap();
}
