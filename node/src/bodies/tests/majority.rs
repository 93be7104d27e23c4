use std::time::Duration;

use bytes::Bytes;
use malle_proto::{BodyHash, NodeId, limits};

use super::{Fault, SHARD, cluster, eventually, members, noise, soon};
use crate::bodies::{Bodies, BodiesError, encoding};
use crate::peers::StoredBody;

#[tokio::test]
async fn a_put_needs_a_majority_and_no_more() {
    let (net, _) = cluster(3);
    let body = noise(1, 5000);
    let hash = Bodies::hash_of(&body);
    net.fault(3, Some(Fault::Down));
    net.node(1)
        .put(SHARD, &members(&[&[1, 2, 3]]), hash, body.clone(), soon())
        .await
        .unwrap();
    assert!(net.node(1).has(SHARD, hash) && net.node(2).has(SHARD, hash) && !net.node(3).has(SHARD, hash));
    net.fault(2, Some(Fault::Down));
    let other = noise(2, 5000);
    let refused = net
        .node(1)
        .put(SHARD, &members(&[&[1, 2, 3]]), Bodies::hash_of(&other), other, soon())
        .await;
    assert!(matches!(refused, Err(BodiesError::NoMajority(why)) if why.contains("node 2") && why.contains("node 3")));
}

#[test]
fn half_of_a_set_is_no_majority_and_no_set_has_none() {
    let have = [1, 2].map(NodeId).into();
    assert!(members(&[&[1, 2, 3]]).majority(&have));
    assert!(!members(&[&[1, 2, 3, 4]]).majority(&have));
    assert!(!members(&[&[1, 2, 3], &[2, 3, 4]]).majority(&have));
    assert!(!members(&[&[1, 2], &[]]).majority(&have));
    assert!(!members(&[]).majority(&have));
}

#[tokio::test]
async fn a_put_under_joint_members_needs_a_majority_of_each_set() {
    let (net, _) = cluster(5);
    let joint = members(&[&[1, 2, 3], &[1, 4, 5]]);
    let put = async |seed| {
        let body = noise(seed, 100);
        net.node(1)
            .put(SHARD, &joint, Bodies::hash_of(&body), body, soon())
            .await
    };
    for node in [3, 5] {
        net.fault(node, Some(Fault::Down));
    }
    put(1).await.unwrap();
    net.fault(4, Some(Fault::Down));
    assert!(
        matches!(put(2).await, Err(BodiesError::NoMajority(_))),
        "three of five, but one of the second set"
    );
    net.fault(4, None);
    net.fault(2, Some(Fault::Down));
    assert!(
        matches!(put(3).await, Err(BodiesError::NoMajority(_))),
        "one of the first set"
    );
}

#[tokio::test]
async fn a_put_from_a_node_that_is_no_voter_keeps_no_copy_there() {
    let (net, _) = cluster(4);
    let body = noise(1, 100);
    let hash = Bodies::hash_of(&body);
    net.node(4)
        .put(SHARD, &members(&[&[1, 2, 3]]), hash, body, soon())
        .await
        .unwrap();
    assert!(!net.node(4).has(SHARD, hash));
}

#[tokio::test]
async fn the_rest_gets_its_copy_after_the_answer() {
    let (net, _) = cluster(3);
    let hash = super::put(&net.node(1), &noise(1, 20_000)).await;
    eventually("all three have it", || {
        (1..=3).all(|node| net.node(node).has(SHARD, hash))
    })
    .await;
}

#[tokio::test]
async fn a_put_without_a_majority_ends_at_its_deadline() {
    let (net, _) = cluster(3);
    net.fault(2, Some(Fault::Silent));
    net.fault(3, Some(Fault::Silent));
    let body = noise(1, 100);
    let deadline = malle_rt::now() + Duration::from_millis(50);
    let outcome = net
        .node(1)
        .put(SHARD, &members(&[&[1, 2, 3]]), Bodies::hash_of(&body), body, deadline)
        .await;
    assert_eq!(outcome, Err(BodiesError::Deadline));
}

#[tokio::test]
async fn a_body_under_a_name_that_is_not_its_own_is_stored_nowhere() {
    let (net, _) = cluster(1);
    let wrong = Bodies::hash_of(b"another body");
    let one = net.node(1);
    let refused = one.put(SHARD, &members(&[&[1]]), wrong, noise(1, 100), soon()).await;
    assert_eq!(refused, Err(BodiesError::Hash));
    assert!(!one.has(SHARD, wrong));
}

#[tokio::test]
async fn what_a_peer_sends_is_stored_only_when_it_is_what_it_says() {
    let (net, _) = cluster(1);
    let one = net.node(1);
    let text = Bytes::from("a line that repeats\r\n".repeat(1000));
    let hash = Bodies::hash_of(&text);
    let good = encoding::encode(SHARD, hash, &text);
    assert_eq!(good.encoding, 1, "it compresses");
    let bomb: Bytes = zstd::bulk::compress(&vec![0; 8 << 20], 1).unwrap().into();
    let padded: Bytes = [&vec![b' '; 70_000][..], &text].concat().into();
    let bad = [
        StoredBody {
            hash: BodyHash([1; 32]),
            ..good.clone()
        },
        StoredBody {
            size: good.size - 1,
            ..good.clone()
        },
        StoredBody {
            size: good.size + 1,
            ..good.clone()
        },
        StoredBody {
            encoding: 0,
            ..good.clone()
        },
        StoredBody {
            encoding: 9,
            ..good.clone()
        },
        StoredBody {
            stored: good.stored.slice(..good.stored.len() - 1),
            ..good.clone()
        },
        StoredBody {
            stored: bomb,
            ..good.clone()
        },
        StoredBody {
            encoding: 0,
            stored: padded,
            ..good.clone()
        },
        // A skippable frame before the real one: the body comes out right, but its stored form is longer than the body.
        StoredBody {
            stored: skippable(30_000, &good.stored),
            ..good.clone()
        },
    ];
    for (case, body) in bad.into_iter().enumerate() {
        let hash = body.hash;
        assert_eq!(one.receive(body).await, Err(BodiesError::Hash), "case {case}");
        assert!(!one.has(SHARD, hash), "case {case}");
    }
    let huge = StoredBody {
        size: limits::MESSAGE_MAX_BYTES as u64 + 1,
        ..good.clone()
    };
    assert!(matches!(one.receive(huge).await, Err(BodiesError::TooLarge { .. })));
    one.receive(good.clone()).await.unwrap();
    assert_eq!(one.serve(SHARD, hash).await.unwrap(), Some(good));
    assert_eq!(one.get(SHARD, hash, &[], soon()).await.unwrap(), text);
}

/// RFC 8878 3.1.2: a frame that decoders step over, then another.
fn skippable(bytes: u32, then: &Bytes) -> Bytes {
    let mut out = 0x184D_2A50u32.to_le_bytes().to_vec();
    out.extend_from_slice(&bytes.to_le_bytes());
    out.resize(8 + bytes as usize, 0);
    out.extend_from_slice(then);
    out.into()
}

#[tokio::test]
async fn what_does_not_compress_is_kept_raw_and_an_empty_body_is_a_body() {
    let (net, _) = cluster(3);
    for body in [noise(1, 60_000), Bytes::new(), Bytes::from_static(b"x")] {
        let hash = super::put(&net.node(1), &body).await;
        let stored = net.node(1).serve(SHARD, hash).await.unwrap().unwrap();
        assert_eq!((stored.encoding, stored.size), (0, body.len() as u64));
        assert_eq!(net.node(1).get(SHARD, hash, &[], soon()).await.unwrap(), body);
    }
}
