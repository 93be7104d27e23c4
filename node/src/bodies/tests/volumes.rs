use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use malle_journal::{Disk, MemoryDisk};
use malle_proto::{BodyHash, limits};

use super::{Net, SHARD, cluster, damage, eventually, members, noise, soon};
use crate::bodies::{Bodies, BodiesError, DiskRoom};

/// Puts bodies of 3,000 bytes on node 1 alone: 40 fill a volume and more.
async fn fill(net: &Net, seeds: std::ops::Range<u64>) -> BTreeMap<BodyHash, Bytes> {
    let mut bodies = BTreeMap::new();
    for seed in seeds {
        let body = noise(seed, 3000);
        let hash = Bodies::hash_of(&body);
        net.node(1)
            .put(SHARD, &members(&[&[1]]), hash, body.clone(), soon())
            .await
            .unwrap();
        bodies.insert(hash, body);
    }
    bodies
}

async fn all_there(net: &Net, bodies: &BTreeMap<BodyHash, Bytes>) {
    for (hash, body) in bodies {
        assert_eq!(net.node(1).get(SHARD, *hash, &[], soon()).await.as_ref(), Ok(body));
    }
}

fn footers(disk: &MemoryDisk) -> Vec<String> {
    let names = disk.list(Path::new("/bodies")).unwrap();
    names.into_iter().filter(|name| name.ends_with(".footer")).collect()
}

#[tokio::test]
async fn a_start_finds_every_body_by_footers_or_by_reading_the_volumes() {
    let (net, disks) = cluster(1);
    let disk = &disks[&1];
    let mut bodies = fill(&net, 0..100).await;
    eventually("full volumes have footers", || footers(disk).len() >= 4).await;
    net.stop(1).await;
    net.start(1, disk);
    all_there(&net, &bodies).await;
    net.stop(1).await;
    let names = footers(disk);
    disk.remove(&Path::new("/bodies").join(&names[0])).unwrap();
    disk.flip_bit(&Path::new("/bodies").join(&names[1]), 40, 2);
    net.start(1, disk);
    all_there(&net, &bodies).await;
    bodies.extend(fill(&net, 100..200).await);
    eventually("lost footers are written again", || footers(disk).len() >= 8).await;
    net.stop(1).await;
    net.start(1, disk);
    all_there(&net, &bodies).await;
}

#[tokio::test]
async fn a_volume_with_a_footer_is_not_read_at_start() {
    let (net, disks) = cluster(1);
    let disk = &disks[&1];
    let bodies = fill(&net, 0..40).await;
    eventually("the first volume has a footer", || !footers(disk).is_empty()).await;
    net.stop(1).await;
    let first = noise(0, 3000);
    damage(disk, &first);
    net.start(1, disk);
    let hash = Bodies::hash_of(&first);
    assert!(net.node(1).has(SHARD, hash), "the footer was believed");
    let read = net.node(1).get(SHARD, hash, &[], soon()).await;
    assert!(
        matches!(read, Err(BodiesError::Missing(_))),
        "and the body was not: {read:?}"
    );
    assert_eq!(bodies.len(), 40);
}

#[tokio::test]
async fn a_damaged_body_in_a_volume_without_footer_costs_only_itself() {
    let (net, disks) = cluster(1);
    let mut bodies = fill(&net, 0..10).await;
    net.stop(1).await;
    let hit = noise(4, 3000);
    damage(&disks[&1], &hit);
    net.start(1, &disks[&1]);
    let hash = Bodies::hash_of(&hit);
    assert!(!net.node(1).has(SHARD, hash));
    bodies.remove(&hash);
    all_there(&net, &bodies).await;
}

#[tokio::test]
async fn the_same_body_put_by_many_at_once_is_written_once() {
    let (net, _) = cluster(1);
    let body = noise(1, 3000);
    let hash = Bodies::hash_of(&body);
    let one = net.node(1);
    let members = members(&[&[1]]);
    let puts = (0..20).map(|_| one.put(SHARD, &members, hash, body.clone(), soon()));
    for outcome in futures::future::join_all(puts).await {
        outcome.unwrap();
    }
    one.put(SHARD, &members, hash, body.clone(), soon()).await.unwrap();
    assert_eq!(one.volumes.records(), 1);
}

#[tokio::test]
async fn a_crash_keeps_every_acknowledged_body() {
    for seed in 0..40 {
        let (net, disks) = cluster(1);
        let disk = &disks[&1];
        let mut acknowledged = fill(&net, 0..30).await;
        disk.crash_at_sync(seed as u32 % 5, seed);
        for late in 100..120 {
            let body = noise(late, 3000);
            let hash = Bodies::hash_of(&body);
            if net
                .node(1)
                .put(SHARD, &members(&[&[1]]), hash, body.clone(), soon())
                .await
                .is_ok()
            {
                acknowledged.insert(hash, body);
            }
        }
        assert!(acknowledged.len() < 50, "the power was cut");
        net.stop(1).await;
        net.start(1, disk);
        all_there(&net, &acknowledged).await;
    }
}

#[tokio::test]
async fn a_full_disk_acknowledges_nothing_and_keeps_what_was_there() {
    let (net, disks) = cluster(1);
    let bodies = fill(&net, 0..10).await;
    disks[&1].set_free_bytes(Some(0));
    let one = net.node(1);
    let mut refused = Vec::new();
    for seed in 100..200 {
        let body = noise(seed, 3000);
        let stored = Bodies::stored_form(SHARD, body.clone()).await;
        if let Err(error) = one.keep(stored).await {
            assert_eq!(error, BodiesError::Full);
            assert_eq!(one.disk().room(), DiskRoom::None);
            refused.push(body);
        }
    }
    assert!(!refused.is_empty());
    assert!(one.failed().borrow().is_none(), "a full disk is no failure");
    all_there(&net, &bodies).await;
    let (hash, body) = (Bodies::hash_of(&refused[0]), refused.swap_remove(0));
    let another = Bodies::stored_form(SHARD, body.clone()).await;
    assert_eq!(one.receive(another).await, Err(BodiesError::Full));
    disks[&1].set_free_bytes(None);
    one.put(SHARD, &members(&[&[1]]), hash, body.clone(), soon())
        .await
        .unwrap();
    assert_eq!(one.get(SHARD, hash, &[], soon()).await.unwrap(), body);
}

#[tokio::test]
async fn the_largest_mail_fits_and_one_byte_more_does_not() {
    let net = Net::default();
    let disk: std::sync::Arc<dyn Disk> = std::sync::Arc::new(MemoryDisk::new());
    let one = Bodies::open(
        disk,
        Path::new("/bodies"),
        malle_proto::NodeId(1),
        std::sync::Arc::new(net),
    )
    .await
    .unwrap();
    let longer = noise(1, limits::MESSAGE_MAX_BYTES + 1);
    let largest = longer.slice(..limits::MESSAGE_MAX_BYTES);
    let hash = Bodies::hash_of(&largest);
    let deadline = malle_rt::now() + std::time::Duration::from_secs(60);
    one.put(SHARD, &members(&[&[1]]), hash, largest.clone(), deadline)
        .await
        .unwrap();
    assert!(one.get(SHARD, hash, &[], deadline).await.unwrap() == largest);
    let refused = one
        .put(SHARD, &members(&[&[1]]), Bodies::hash_of(&longer), longer, deadline)
        .await;
    assert!(matches!(refused, Err(BodiesError::TooLarge { .. })));
}
