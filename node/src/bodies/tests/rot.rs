use std::time::Duration;

use super::{Fault, SHARD, cluster, damage, eventually, noise, put, soon, sources};
use crate::bodies::{BodiesError, GroupBodies};

#[tokio::test]
async fn rot_is_found_on_read_and_replaced_by_a_peers_copy() {
    let (net, disks) = cluster(3);
    let body = noise(1, 3000);
    let hash = put(&net.node(1), &body).await;
    eventually("node 2 has it", || net.node(2).has(SHARD, hash)).await;
    damage(&disks[&1], &body);
    let one = net.node(1);
    assert_eq!(one.get(SHARD, hash, &sources(&[2]), soon()).await.unwrap(), body);
    net.fault(2, Some(Fault::Down));
    assert_eq!(
        one.get(SHARD, hash, &sources(&[2]), soon()).await.unwrap(),
        body,
        "from the fresh copy here"
    );
}

#[tokio::test]
async fn the_fresh_copy_wins_over_the_damaged_one_after_a_start_too() {
    let (net, disks) = cluster(2);
    // Many bodies in the same volume, whose footer lists both copies of each.
    let bodies: Vec<_> = (0..40).map(|seed| noise(seed, 300)).collect();
    let mut hashes = Vec::new();
    for body in &bodies {
        let hash = crate::bodies::Bodies::hash_of(body);
        for node in [1, 2] {
            net.node(node)
                .put(SHARD, &super::members(&[&[node]]), hash, body.clone(), soon())
                .await
                .unwrap();
        }
        hashes.push(hash);
    }
    for (body, hash) in bodies.iter().zip(&hashes) {
        damage(&disks[&1], body);
        net.node(1).get(SHARD, *hash, &sources(&[2]), soon()).await.unwrap();
    }
    fill(&net, 1).await;
    for _ in 0..2 {
        net.stop(1).await;
        net.start(1, &disks[&1]);
        for (body, hash) in bodies.iter().zip(&hashes) {
            assert_eq!(net.node(1).get(SHARD, *hash, &[], soon()).await.unwrap(), *body);
        }
    }
}

/// Fills the volume of a node and waits for its footer.
async fn fill(net: &super::Net, node: u64) {
    for seed in 1000..1010 {
        let body = noise(seed, 10_000);
        let hash = crate::bodies::Bodies::hash_of(&body);
        net.node(node)
            .put(SHARD, &super::members(&[&[node]]), hash, body, soon())
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_damaged_copy_is_never_served_and_a_peer_that_sends_one_is_passed_over() {
    let (net, disks) = cluster(4);
    let body = noise(1, 3000);
    let hash = put(&net.node(1), &body).await;
    eventually("all have it", || (1..=3).all(|node| net.node(node).has(SHARD, hash))).await;
    damage(&disks[&1], &body);
    assert!(matches!(
        net.node(1).serve(SHARD, hash).await,
        Err(BodiesError::Corrupt(_))
    ));
    net.fault(2, Some(Fault::Liar));
    assert_eq!(
        net.node(4)
            .get(SHARD, hash, &sources(&[1, 2, 3]), soon())
            .await
            .unwrap(),
        body
    );
    assert!(net.node(4).has(SHARD, hash));
    net.fault(3, Some(Fault::Down));
    let other = net.node(1).get(SHARD, hash, &sources(&[2, 3]), soon()).await;
    assert!(
        matches!(other, Err(BodiesError::Missing(_))),
        "a lie is no body: {other:?}"
    );
}

#[tokio::test]
async fn rot_that_a_peer_ran_into_is_mended_without_a_reader() {
    let (net, disks) = cluster(3);
    let body = noise(1, 3000);
    let hash = put(&net.node(1), &body).await;
    eventually("all have it", || (1..=3).all(|node| net.node(node).has(SHARD, hash))).await;
    let group = GroupBodies::new(SHARD, net.node(1));
    group.set_sources(|| sources(&[2, 3]));
    assert_eq!(group.complete_through(9), 9);
    net.fault(2, Some(Fault::Down));
    net.fault(3, Some(Fault::Down));
    damage(&disks[&1], &body);
    assert!(net.node(1).serve(SHARD, hash).await.is_err());
    assert_eq!(
        (group.missing(), group.complete_through(9)),
        (1, 0),
        "what is missing is said"
    );
    net.fault(3, None);
    eventually("it is back", || group.complete_through(9) == 9).await;
    assert_eq!(net.node(1).get(SHARD, hash, &[], soon()).await.unwrap(), body);
}

#[tokio::test]
async fn a_silent_source_leaves_time_for_the_others() {
    let (net, _) = cluster(4);
    let body = noise(1, 3000);
    let hash = put(&net.node(1), &body).await;
    eventually("all have it", || (1..=3).all(|node| net.node(node).has(SHARD, hash))).await;
    net.fault(1, Some(Fault::Silent));
    net.fault(2, Some(Fault::Silent));
    // Sources are asked in random order, so once would prove little.
    for shard_reader in 0..4 {
        let net = net.clone();
        let disk = malle_journal::MemoryDisk::new();
        let reader = net.start(10 + shard_reader, &disk);
        let deadline = malle_rt::now() + Duration::from_millis(900);
        assert_eq!(
            reader.get(SHARD, hash, &sources(&[1, 2, 3]), deadline).await.unwrap(),
            body
        );
    }
}

#[tokio::test]
async fn a_reader_gets_a_body_that_this_disk_has_no_room_for() {
    let (net, disks) = cluster(4);
    let body = noise(1, 3000);
    let hash = put(&net.node(1), &body).await;
    disks[&4].set_free_bytes(Some(0));
    assert_eq!(
        net.node(4).get(SHARD, hash, &sources(&[1]), soon()).await.unwrap(),
        body
    );
    assert!(!net.node(4).has(SHARD, hash));
}

#[tokio::test]
async fn a_disk_that_does_not_answer_makes_no_copy_forgotten() {
    let (net, disks) = cluster(3);
    let body = noise(1, 3000);
    let hash = put(&net.node(1), &body).await;
    eventually("node 2 has it", || net.node(2).has(SHARD, hash)).await;
    // The handles of a killed process answer every read with an error.
    disks[&1].kill();
    let one = net.node(1);
    assert!(matches!(one.serve(SHARD, hash).await, Err(BodiesError::Volumes(_))));
    assert_eq!(one.get(SHARD, hash, &sources(&[2]), soon()).await.unwrap(), body);
    assert!(one.has(SHARD, hash));
}
