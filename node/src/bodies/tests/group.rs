use malle_proto::BodyHash;

use super::{Fault, SHARD, cluster, eventually, noise, put, sources};
use crate::bodies::{DiskRoom, GroupBodies};
use crate::state::BodyNews;

#[tokio::test]
async fn a_body_that_an_entry_names_is_fetched_and_completeness_follows() {
    let (net, _) = cluster(3);
    net.fault(3, Some(Fault::Down));
    let hash = put(&net.node(1), &noise(1, 3000)).await;
    net.fault(3, None);
    let group = GroupBodies::new(SHARD, net.node(3));
    group.set_sources(|| sources(&[1, 2]));
    group.named(12, &[hash]);
    assert_eq!((group.missing(), group.complete_through(20)), (1, 11));
    eventually("it came", || group.missing() == 0).await;
    assert_eq!(group.complete_through(20), 20);
    assert!(net.node(3).has(SHARD, hash));
}

#[tokio::test]
async fn bodies_that_nobody_has_hold_back_no_others() {
    let (net, _) = cluster(3);
    net.fault(3, Some(Fault::Down));
    let hash = put(&net.node(1), &noise(1, 3000)).await;
    net.fault(3, None);
    let group = GroupBodies::new(SHARD, net.node(3));
    group.set_sources(|| sources(&[1, 2]));
    // More than one round of them, all of which sort before the real one.
    let nowhere: Vec<BodyHash> = (0..600u16)
        .map(|number| {
            let mut name = [0; 32];
            name[1..3].copy_from_slice(&number.to_be_bytes());
            BodyHash(name)
        })
        .collect();
    assert!(nowhere.iter().all(|name| *name < hash));
    group.named(5, &nowhere);
    group.named(6, &[hash]);
    eventually("the real one came", || net.node(3).has(SHARD, hash)).await;
    eventually("it is taken off", || group.missing() == 600).await;
    assert_eq!(group.complete_through(20), 4);
    group.released(&nowhere);
    assert_eq!((group.missing(), group.complete_through(20)), (0, 20));
}

#[tokio::test]
async fn a_body_that_cannot_be_kept_is_still_missing() {
    let (net, disks) = cluster(3);
    net.fault(3, Some(Fault::Down));
    let hash = put(&net.node(1), &noise(1, 3000)).await;
    net.fault(3, None);
    disks[&3].set_free_bytes(Some(0));
    let group = GroupBodies::new(SHARD, net.node(3));
    group.set_sources(|| sources(&[1, 2]));
    group.named(12, &[hash]);
    eventually("it finds no room", || net.node(3).disk().room() == DiskRoom::None).await;
    assert_eq!((group.missing(), group.complete_through(20)), (1, 11));
    assert!(net.node(3).failed().borrow().is_none());
}
