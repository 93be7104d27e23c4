//! Volumes are emptied and given up: what is needed is there at every moment, whatever is cut off or broken.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use malle_journal::{Disk, MemoryDisk};
use malle_machine::shard::Op;
use malle_proto::BodyHash;

use super::super::{Fault, Net, SHARD, damage, eventually, members, noise, soon, sources};
use super::world::{DAY_MS, World};
use crate::bodies::{Bodies, Collector, DiskRoom};

/// Bodies of 3,000 bytes, 21 to a volume of 64 KiB, on node 1 alone but for those that are `everywhere`.
async fn fill(net: &Net, seeds: std::ops::Range<u64>) -> BTreeMap<BodyHash, Bytes> {
    let mut bodies = BTreeMap::new();
    for seed in seeds {
        let body = noise(seed, 3000);
        let hash = Bodies::hash_of(&body);
        let node = net.node(1);
        node.put(SHARD, &members(&[&[1]]), hash, body.clone(), soon())
            .await
            .unwrap();
        bodies.insert(hash, body);
    }
    bodies
}

/// Takes every body out of the locator that is not `kept`, as a released one that is freed.
fn free_all_but(node: &Bodies, all: &BTreeMap<BodyHash, Bytes>, kept: impl Fn(usize) -> bool) -> BTreeSet<BodyHash> {
    // In the order of their volumes.
    let mut freed = BTreeSet::new();
    let seeds = (0..120).map(|seed| Bodies::hash_of(&noise(seed, 3000)));
    for (number, hash) in seeds.enumerate() {
        if !kept(number) && all.contains_key(&hash) {
            let key = [(SHARD, hash)];
            assert_eq!(node.volumes.mark(&key), key);
            assert_eq!(node.volumes.free(&key).0, 1);
            freed.insert(hash);
        }
    }
    freed
}

async fn read_all(node: &Bodies, bodies: &BTreeMap<BodyHash, Bytes>) {
    for (hash, body) in bodies {
        assert_eq!(node.get(SHARD, *hash, &[], soon()).await.as_ref(), Ok(body));
    }
}

fn volume_files(disk: &MemoryDisk) -> Vec<String> {
    let names = disk.list(Path::new("/bodies")).unwrap();
    names.into_iter().filter(|name| name.ends_with(".seg")).collect()
}

/// Node 1 with 120 bodies in six volumes, of which `kept` says which are needed.
async fn node_with(kept: impl Fn(usize) -> bool) -> (Arc<World>, Arc<Collector>, BTreeMap<BodyHash, Bytes>) {
    let world = World::new();
    let mut bodies = fill(&world.net, 0..120).await;
    let node = world.net.node(1);
    eventually("full volumes have footers", || node.volumes.idle()).await;
    let freed = free_all_but(&node, &bodies, kept);
    bodies.retain(|hash, _| !freed.contains(hash));
    // Nothing names them in this test's rows: only the volumes are looked at.
    let collector = world.collector(1);
    (world, collector, bodies)
}

#[tokio::test]
async fn a_volume_that_is_half_garbage_is_emptied_and_one_that_is_less_stays() {
    // The first volume keeps half, the second two thirds, the others all.
    let (world, collector, bodies) = node_with(|number| match number {
        0..21 => number % 2 == 0,
        21..42 => number % 3 > 0,
        _ => true,
    })
    .await;
    let node = world.net.node(1);
    let first = *node.volumes.segments().first().unwrap();
    collector.reclaim_now().await;
    let report = collector.report();
    assert_eq!(report.volumes_freed, 0, "10 of 21 are garbage");
    free_all_but(&node, &bodies, |number| number != 0);
    let mut bodies = bodies;
    bodies.remove(&Bodies::hash_of(&noise(0, 3000)));
    collector.reclaim_now().await;
    let report = collector.report();
    assert_eq!((report.volumes_freed, report.stuck), (1, 0));
    assert_eq!(report.carried_bytes / 3000, 10);
    assert!(!node.volumes.segments().contains(&first));
    read_all(&node, &bodies).await;

    // Nearly full: a third is enough.
    world.disks[&1].set_free_bytes(Some(70 << 10));
    collector.reclaim_now().await;
    assert_eq!(collector.report().volumes_freed, 2);
    read_all(&node, &bodies).await;
    let report = collector.report();
    assert!(report.garbage_bytes * 3 < report.volume_bytes, "{report:?}");
}

#[tokio::test]
async fn a_full_disk_gives_up_what_is_empty_and_carries_into_the_room_that_this_makes() {
    let (world, collector, bodies) =
        node_with(|number| number >= 42 || (21..42).contains(&number) && number % 3 == 0).await;
    world.disks[&1].set_free_bytes(Some(0));
    collector.reclaim_now().await;
    let report = collector.report();
    assert_eq!(report.volumes_freed, 2, "{report:?}");
    assert!(report.carried_bytes > 0);
    read_all(&world.net.node(1), &bodies).await;
    assert!(world.net.node(1).failed().borrow().is_none());
}

/// A small disk has fewer volumes than its parts would leave: it is at its marks, and nearly full, at two thirds.
#[tokio::test]
async fn at_the_marks_a_third_of_garbage_is_enough_however_small_the_disk() {
    let (world, collector, bodies) = node_with(|number| !(21..42).contains(&number) || number % 3 > 0).await;
    let (disk, node) = (&world.disks[&1], world.net.node(1));
    disk.set_free_bytes(Some(250 << 10));
    assert!(disk.used_bytes() < 3 * (250 << 10), "less than 80 % are used");
    collector.reclaim_now().await;
    assert_eq!(collector.report().volumes_freed, 0);
    node.disk().look();
    assert_eq!(node.disk().room(), DiskRoom::Short);
    collector.reclaim_now().await;
    assert_eq!(collector.report().volumes_freed, 1);
    read_all(&node, &bodies).await;
}

#[tokio::test]
async fn when_the_disk_gets_worse_the_volume_is_chosen_again() {
    // The second volume has most garbage; of the third, which a long body ended early, least must be carried.
    let world = World::new();
    let mut bodies = fill(&world.net, 0..52).await;
    let long = noise(1_000, 50_000);
    let node = world.net.node(1);
    let hash = Bodies::hash_of(&long);
    node.put(SHARD, &members(&[&[1]]), hash, long.clone(), soon())
        .await
        .unwrap();
    fill(&world.net, 2_000..2_030).await;
    eventually("full volumes have footers", || node.volumes.idle()).await;
    let freed = free_all_but(&node, &bodies, |number| match number {
        21..42 => number % 2 == 0,
        42.. => number % 3 == 0,
        _ => true,
    });
    bodies.retain(|hash, _| !freed.contains(hash));
    bodies.insert(hash, long);
    let segments: Vec<u64> = node.volumes.segments().into_iter().collect();
    let (most, least) = (segments[1], segments[2]);
    let collector = world.collector(1);
    let reclaim = collector.reclaim_now();
    tokio::pin!(reclaim);
    let (mut worse, mut went) = (false, Vec::new());
    loop {
        tokio::select! {
            biased;
            () = &mut reclaim => break,
            () = tokio::task::yield_now() => {}
        }
        if !worse && collector.report().carried_bytes > 0 {
            node.disk().found_none();
            worse = true;
        }
        let here = node.volumes.segments();
        let gone = [most, least].into_iter().filter(|volume| !here.contains(volume));
        let gone: Vec<u64> = gone.filter(|volume| !went.contains(volume)).collect();
        went.extend(gone);
    }
    assert!(worse, "nothing was carried");
    assert_eq!(went, [least, most], "the one that was begun went first");
    assert_eq!(collector.report().volumes_freed, 2);
    read_all(&node, &bodies).await;
}

#[tokio::test]
async fn a_copy_that_finds_no_room_ends_carrying_until_there_is_some() {
    let (world, collector, mut bodies) = node_with(|number| number >= 105 || number % 4 == 0).await;
    let (disk, node) = (&world.disks[&1], world.net.node(1));
    // The disk says that there is room and gives none, and what lay ready is used up.
    disk.set_says_free(Some(1 << 30));
    disk.set_free_bytes(Some(0));
    let mut others = BTreeMap::new();
    for seed in 5_000.. {
        let body = noise(seed, 3000);
        if node.keep(Bodies::stored_form(SHARD, body.clone()).await).await.is_err() {
            break;
        }
        others.insert(Bodies::hash_of(&body), body);
    }
    node.disk().look();
    assert_eq!(node.disk().room(), DiskRoom::Enough);
    collector.reclaim_now().await;
    let report = collector.report();
    assert_eq!((report.volumes_freed, report.carried_bytes, report.stuck), (0, 0, 0));
    assert_eq!(node.disk().room(), DiskRoom::None);
    read_all(&node, &bodies).await;
    // The first volume is needed no more: it goes, and the others follow through the room that it leaves.
    let freed = free_all_but(&node, &bodies, |number| number >= 21 || number % 4 > 0);
    bodies.retain(|hash, _| !freed.contains(hash));
    collector.reclaim_now().await;
    assert_eq!(collector.report().volumes_freed, 5, "{:?}", collector.report());
    read_all(&node, &bodies).await;
    read_all(&node, &others).await;
    assert!(node.failed().borrow().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_of_a_volume_that_goes_find_every_body() {
    let (world, collector, bodies) = node_with(|number| number % 4 == 0).await;
    let (bodies, stop) = (Arc::new(bodies), Arc::new(AtomicBool::new(false)));
    let readers: Vec<_> = (0..8)
        .map(|_| {
            let (node, bodies, stop) = (world.net.node(1), bodies.clone(), stop.clone());
            malle_rt::spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    read_all(&node, &bodies).await;
                }
            })
        })
        .collect();
    let node = world.net.node(1);
    let mut freed = 0;
    for round in 1..=30u64 {
        // What was carried lies together now: others beside it go, and it is carried again.
        let others = fill(&world.net, round * 1000..round * 1000 + 60).await;
        let keys: Vec<_> = others.keys().map(|hash| (SHARD, *hash)).collect();
        node.volumes.mark(&keys);
        node.volumes.free(&keys);
        collector.reclaim_now().await;
        freed = collector.report().volumes_freed;
    }
    stop.store(true, Ordering::SeqCst);
    for reader in readers {
        reader.await.unwrap();
    }
    assert!(freed > 30, "{:?}", collector.report());
    assert_eq!(node.counts().0, bodies.len() as u64);
}

#[tokio::test]
async fn a_volume_that_is_needed_is_not_given_up_whoever_asks() {
    let (world, _, bodies) = node_with(|number| number % 20 == 0).await;
    let node = world.net.node(1);
    let uses = node.volumes.uses();
    assert!(uses.iter().all(|volume| volume.live_bytes > 0));
    for volume in uses {
        assert_eq!(node.volumes.discard(volume).await, Ok(false));
    }
    read_all(&node, &bodies).await;
}

/// The power goes at every sync that emptying two volumes makes, and the disk keeps of the rest what chance leaves.
#[tokio::test]
async fn a_crash_at_any_step_of_emptying_a_volume_loses_nothing() {
    let kept = |number| number >= 42 || number % 5 == 0;
    let steps = {
        let (world, collector, _) = node_with(kept).await;
        let before = world.disks[&1].syncs();
        collector.reclaim_now().await;
        assert_eq!(collector.report().volumes_freed, 2);
        world.disks[&1].syncs() - before
    };
    // Footers and files that are made ready meanwhile add some more.
    assert!(steps > 10, "{steps}");
    let mut freed = BTreeSet::new();
    for seed in 0..3 * (steps + 12) {
        let (world, collector, bodies) = node_with(kept).await;
        world.disks[&1].crash_at_sync((seed % (steps + 12)) as u32, seed);
        collector.reclaim_now().await;
        freed.insert(collector.report().volumes_freed);
        world.disks[&1].crash(seed);
        drop(collector);
        world.restart(1, seed).await;
        let node = world.net.node(1);
        read_all(&node, &bodies).await;
        // It goes on where it was cut off. What was freed and is found again is freed again.
        let names: Vec<_> = (0..120)
            .map(|seed| (SHARD, Bodies::hash_of(&noise(seed, 3000))))
            .collect();
        let names: Vec<_> = names.into_iter().filter(|key| !bodies.contains_key(&key.1)).collect();
        node.volumes.mark(&names);
        node.volumes.free(&names);
        let collector = world.collector(1);
        collector.reclaim_now().await;
        assert_eq!(collector.report().stuck, 0, "seed {seed}");
        assert!(
            collector.report().garbage_bytes < 64 * 1024,
            "seed {seed}: {:?}",
            collector.report()
        );
        read_all(&node, &bodies).await;
        drop(collector);
        world.restart(1, seed + 1000).await;
        read_all(&world.net.node(1), &bodies).await;
    }
    assert_eq!(freed.len(), 3, "the cuts come at different steps: {freed:?}");
}

#[tokio::test]
async fn a_start_calls_no_volume_lost_that_was_given_up_and_every_other() {
    let (world, collector, bodies) = node_with(|number| number >= 63).await;
    let before: BTreeSet<u64> = world.net.node(1).volumes.segments();
    collector.reclaim_now().await;
    assert_eq!(collector.report().volumes_freed, 3);
    drop(collector);
    world.restart(1, 3).await;
    let node = world.net.node(1);
    let after = node.volumes.segments();
    for segment in before.difference(&after) {
        assert!(node.volumes.gave_up(*segment), "volume {segment}");
    }
    assert!(after.iter().all(|segment| !node.volumes.gave_up(*segment)));
    read_all(&node, &bodies).await;
}

#[tokio::test]
async fn without_any_footer_the_locator_is_made_from_the_volumes() {
    let (world, collector, bodies) = node_with(|number| number % 4 == 0).await;
    collector.reclaim_now().await;
    assert!(collector.report().volumes_freed >= 5);
    let kept = world.net.node(1).counts().0;
    drop(collector);
    world.net.stop(1).await;
    let disk = &world.disks[&1];
    for name in disk.list(Path::new("/bodies")).unwrap() {
        if name.ends_with(".footer") || name == "discarded" {
            disk.remove(&Path::new("/bodies").join(name)).unwrap();
        }
    }
    let node = world.net.start(1, disk);
    read_all(&node, &bodies).await;
    assert!(node.counts().0 >= kept);
}

#[tokio::test]
async fn a_start_finds_little_of_what_was_freed_and_no_footer_of_a_volume_that_went() {
    // A third of each volume goes: too little to empty it.
    let (world, collector, bodies) = node_with(|number| number % 3 > 0).await;
    collector.reclaim_now().await;
    assert_eq!(collector.report().volumes_freed, 0);
    drop(collector);
    world.restart(1, 1).await;
    let node = world.net.node(1);
    read_all(&node, &bodies).await;
    // The volume that was being filled has no footer: it is read, and its 15 bodies are found.
    let found = node.counts().0 - bodies.len() as u64;
    assert!(found <= 5, "{found} freed bodies were found again");

    let freed = free_all_but(&node, &bodies, |number| number % 2 > 0 || number % 3 == 0);
    assert!(!freed.is_empty());
    let collector = world.collector(1);
    collector.reclaim_now().await;
    assert!(collector.report().volumes_freed > 0);
    let names = world.disks[&1].list(Path::new("/bodies")).unwrap();
    let footers = names.iter().filter(|name| name.ends_with(".footer")).count();
    assert!(footers <= volume_files(&world.disks[&1]).len());
}

#[tokio::test]
async fn a_damaged_copy_keeps_its_volume_until_a_good_one_is_here_or_nothing_names_it() {
    for fetched in [true, false] {
        let world = World::new();
        // One that messages name, in the first volume of node 1, whose other bodies go.
        let letter = noise(5, 3000);
        let uid = world.deliver(&letter).await;
        let hash = Bodies::hash_of(&letter);
        eventually("all have it", || world.holders(hash) == 3).await;
        world.apply_everywhere();
        let others = fill(&world.net, 100..140).await;
        let node = world.net.node(1);
        eventually("full volumes have footers", || node.volumes.idle()).await;
        let keys: Vec<_> = others.keys().map(|hash| (SHARD, *hash)).collect();
        node.volumes.mark(&keys);
        node.volumes.free(&keys);
        damage(&world.disks[&1], &letter);
        world.net.fault(2, Some(Fault::Down));
        world.net.fault(3, Some(Fault::Down));
        let collector = world.collector(1);
        for _ in 0..2 {
            collector.reclaim_now().await;
            assert_eq!(collector.report().stuck, 1, "it may be the last copy of the mail");
        }
        assert!(world.group(1).missing() > 0, "and is asked for");
        // A start meets the damage again, whatever was written meanwhile.
        drop((collector, node));
        world.restart(1, 1).await;
        let collector = world.collector(1);
        collector.reclaim_now().await;
        assert_eq!(collector.report().stuck, 1);
        if fetched {
            world.net.fault(3, None);
            eventually("it came", || world.has(1, hash)).await;
        } else {
            world.expunge(uid);
            world.commit(Op::ReleaseBodies { hashes: vec![hash] });
        }
        collector.reclaim_now().await;
        assert_eq!(collector.report().stuck, 0, "fetched: {fetched}");
        if fetched {
            let read = world.net.node(1).get(SHARD, hash, &[], soon()).await;
            assert_eq!(read.unwrap(), letter);
        }
    }
}

#[tokio::test]
async fn damage_without_a_name_keeps_its_volume_while_anything_is_missing() {
    let world = World::new();
    let letter = noise(5, 3000);
    world.deliver(&letter).await;
    let hash = Bodies::hash_of(&letter);
    eventually("all have it", || world.holders(hash) == 3).await;
    world.apply_everywhere();
    fill(&world.net, 100..140).await;
    world.net.stop(1).await;
    damage(&world.disks[&1], &letter);
    for name in world.disks[&1].list(Path::new("/bodies")).unwrap() {
        if name.ends_with(".footer") {
            world.disks[&1].remove(&Path::new("/bodies").join(name)).unwrap();
        }
    }
    world.net.fault(2, Some(Fault::Down));
    world.net.fault(3, Some(Fault::Down));
    world.net.start(1, &world.disks[&1]);
    world.restart(1, 1).await;
    let node = world.net.node(1);
    assert!(!node.has(SHARD, hash), "the start could not read it");
    let keys: Vec<_> = (100..140)
        .map(|seed| (SHARD, Bodies::hash_of(&noise(seed, 3000))))
        .collect();
    node.volumes.mark(&keys);
    node.volumes.free(&keys);
    let collector = world.collector(1);
    for _ in 0..2 {
        collector.round_now().await;
        assert_eq!(collector.report().stuck, 1);
    }
    world.net.fault(2, None);
    eventually("it came", || node.has(SHARD, hash) && world.group(1).missing() == 0).await;
    collector.round_now().await;
    assert_eq!(collector.report().stuck, 0);
    assert_eq!(node.get(SHARD, hash, &sources(&[]), soon()).await.unwrap(), letter);
}

#[tokio::test]
async fn the_disk_shrinks_to_what_messages_name() {
    let world = World::new();
    let mut uids = Vec::new();
    for seed in 0..100 {
        uids.push(world.deliver(&noise(seed, 3000)).await);
    }
    let hash_of = |seed| Bodies::hash_of(&noise(seed, 3000));
    eventually("all have all", || {
        (0..100).all(|seed| world.holders(hash_of(seed)) == 3)
    })
    .await;
    for uid in &uids[..90] {
        world.expunge(*uid);
    }
    for _ in 0..4 {
        world.wait_ms(DAY_MS);
        for node in [1, 2, 3] {
            world.apply_everywhere();
            world.collect(node).await;
        }
    }
    for node in [1, 2, 3] {
        let report = world.collector(node).report();
        assert!(
            report.volume_bytes < 2 * 10 * 3100 + 2 * 64 * 1024,
            "node {node}: {report:?}"
        );
        assert_eq!(world.net.node(node).counts().0, 10);
        for seed in 90..100 {
            let read = world.net.node(node).get(SHARD, hash_of(seed), &[], soon()).await;
            assert_eq!(read.unwrap(), noise(seed, 3000));
        }
    }
}
