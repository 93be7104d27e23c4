//! One race each, in both orders where there are two.

use std::sync::Arc;

use futures::FutureExt;
use malle_machine::shard::read::BodyStanding;
use malle_machine::shard::{BodyPut, Op, Refusal};
use malle_proto::{BodyHash, limits};

use super::super::{Fault, SHARD, eventually, members, noise, soon};
use super::world::{DAY_MS, HOUR_MS, Moment, NODES, World};
use crate::bodies::Bodies;

/// Puts a body at a moment of node 2's step, and says which put that was.
fn put_at(world: &Arc<World>, moment: Moment, body: &bytes::Bytes) -> Arc<std::sync::Mutex<Option<BodyPut>>> {
    let put = Arc::new(std::sync::Mutex::new(None));
    let (weak, body, told) = (Arc::downgrade(world), body.clone(), put.clone());
    world.at_each_step(move |node, step, at| {
        let (world, body, told) = (weak.upgrade().unwrap(), body.clone(), told.clone());
        async move {
            if node == 2 && at == moment && matches!(step, Op::FreeBodies { .. }) {
                *told.lock().unwrap() = Some(world.put(&body).await.unwrap());
                // A majority may do without node 2: it must have been asked when the step goes on.
                let (hash, alone) = (Bodies::hash_of(&body), members(&[&[2]]));
                let leader = world.net.node(1);
                leader.put(SHARD, &alone, hash, body, soon()).await.unwrap();
            }
        }
        .boxed()
    });
    put
}

#[tokio::test]
async fn a_put_that_finds_a_marked_copy_keeps_it_and_is_named_only_if_it_began_after_the_command() {
    for (moment, counts) in [(Moment::Asked, false), (Moment::Committed, true)] {
        let world = World::new();
        let body = noise(1, 3000);
        let hash = world.released(&body).await;
        world.wait_ms(DAY_MS);
        world.apply_everywhere();
        let put = put_at(&world, moment, &body);
        world.collect(2).await;
        world.undisturbed();
        assert!(world.has(2, hash), "{moment:?}: the put was told that it is here");
        let put = put.lock().unwrap().take().expect("the step was disturbed");
        match world.name(put) {
            Ok(_) if counts => {}
            Err(Refusal::StaleBody) if !counts => drop(world.deliver(&body).await),
            other => panic!("{moment:?}: {other:?}"),
        }
        // Whoever collects now meets a body that is named.
        for node in NODES {
            world.apply_everywhere();
            world.collect(node).await;
        }
        assert_eq!(world.holders(hash), 3, "{moment:?}");
    }
}

#[tokio::test]
async fn a_put_result_from_before_the_command_is_worth_nothing_however_long_it_is_kept() {
    let world = World::new();
    let body = noise(1, 3000);
    let hash = world.released(&body).await;
    world.wait_ms(DAY_MS);
    world.apply_everywhere();
    // Found on all three, and kept by the front end of the leader (`Intake::known`).
    let kept = world.put(&body).await.unwrap();
    world.collect(2).await;
    world.collect(3).await;
    assert_eq!((world.has(2, hash), world.has(3, hash)), (false, false));
    assert_eq!(world.name(kept), Err(Refusal::StaleBody));
    world.commit(Op::ForgetBodies { hashes: vec![hash] });
    assert_eq!(
        world.name(kept),
        Err(Refusal::StaleBody),
        "also once its row is forgotten"
    );
    world.deliver(&body).await;
    eventually("it is written again", || world.holders(hash) == 3).await;
}

#[tokio::test]
async fn an_entry_that_names_a_marked_copy_keeps_it() {
    let world = World::new();
    let body = noise(1, 3000);
    let hash = world.released(&body).await;
    world.wait_ms(DAY_MS);
    world.apply_everywhere();
    // The delivery's put does not reach node 2, its entry does.
    let (weak, letter) = (Arc::downgrade(&world), body.clone());
    world.at_each_step(move |_, step, at| {
        let (world, letter) = (weak.upgrade().unwrap(), letter.clone());
        async move {
            if at == Moment::Committed && matches!(step, Op::FreeBodies { .. }) {
                world.net.fault(2, Some(Fault::Down));
                world.deliver(&letter).await;
                world.apply(2, usize::MAX);
                world.net.fault(1, Some(Fault::Down));
                world.net.fault(3, Some(Fault::Down));
            }
        }
        .boxed()
    });
    world.collect(2).await;
    assert!(world.has(2, hash) && world.group(2).missing() == 0);
    let read = world.net.node(2).get(SHARD, hash, &[], soon()).await;
    assert_eq!(read.unwrap(), body);
}

#[tokio::test]
async fn rows_that_lag_ask_in_vain() {
    let world = World::new();
    let body = noise(1, 3000);
    let hash = world.released(&body).await;
    world.wait_ms(DAY_MS);
    world.apply_everywhere();
    // Node 2 hears nothing of this delivery, and believes that the body is released.
    world.deliver(&body).await;
    let collector = world.collect(2).await;
    assert_eq!((world.has(2, hash), collector.report().freed), (true, 0));
}

#[tokio::test]
async fn a_second_release_has_a_day_of_its_own_whatever_rows_that_lag_say_of_the_first() {
    let world = World::new();
    let body = noise(1, 3000);
    let hash = world.released(&body).await;
    world.wait_ms(DAY_MS);
    world.apply_everywhere();
    // Node 2 hears nothing of this, and believes that a day has gone by since the release.
    let uid = world.deliver(&body).await;
    world.expunge(uid);
    world.commit(Op::ReleaseBodies { hashes: vec![hash] });
    let collector = world.collect(2).await;
    assert_eq!((world.has(2, hash), collector.report().freed), (true, 0));
}

#[tokio::test]
async fn a_new_replica_counts_as_complete_only_with_what_the_leaving_ones_hold_and_they_keep_it_for_it() {
    let world = World::new();
    let (named, gone) = (noise(1, 3000), noise(2, 3000));
    // Node 3 is the new one: it has the log, and none of the bodies. Nodes 1 and 2 are the only holders, and about to leave.
    world.net.fault(3, Some(Fault::Down));
    world.deliver(&named).await;
    let uid = world.deliver(&gone).await;
    let (hash, other) = (Bodies::hash_of(&named), Bodies::hash_of(&gone));
    world.net.fault(1, Some(Fault::Down));
    world.net.fault(2, Some(Fault::Down));
    world.apply_everywhere();
    assert_eq!(world.group(3).missing(), 2);
    let complete = || world.group(3).complete_through(1000);
    assert!(complete() < 10, "no voter leaves before this has passed the change");
    world.expunge(uid);
    for _ in 0..5 {
        world.wait_ms(DAY_MS);
        for node in [1, 2] {
            world.apply_everywhere();
            world.collect(node).await;
        }
    }
    assert_eq!((world.holders(hash), world.holders(other)), (2, 0));
    assert_eq!(world.group(3).missing(), 1, "what was released is not waited for");
    assert!(complete() < 10);
    world.net.fault(1, None);
    eventually("the new one has it", || complete() == 1000).await;
    assert!(world.has(3, hash));
}

#[tokio::test]
async fn an_answer_that_is_lost_frees_nothing_and_the_next_round_does() {
    let world = World::new();
    let hash = world.released(&noise(1, 3000)).await;
    world.wait_ms(DAY_MS);
    world.apply_everywhere();
    *world.deaf.lock().unwrap() = true;
    world.collect(2).await;
    assert!(world.has(2, hash));
    *world.deaf.lock().unwrap() = false;
    let report = world.collect(2).await.report();
    assert_eq!((world.has(2, hash), report.freed), (false, 1));
    assert!(report.freed_bytes > 3000);
}

#[tokio::test]
async fn nothing_is_freed_within_a_day_of_its_release_by_the_clock_of_the_log() {
    let world = World::new();
    let hash = world.released(&noise(1, 3000)).await;
    world.apply_everywhere();
    world.at_each_step(|_, step, _| {
        assert!(
            !matches!(step, Op::FreeBodies { .. }),
            "nobody asks before the day is over"
        );
        std::future::ready(()).boxed()
    });
    // The clocks of this node and of the leader are a year ahead: the machine's time follows by hours.
    world.clock.advance_ms(365 * DAY_MS);
    for node in [2, 3, 1] {
        world.collect(node).await;
        world.apply_everywhere();
    }
    assert_eq!(world.holders(hash), 3);

    let world = World::new();
    let hash = world.released(&noise(1, 3000)).await;
    world.wait_ms(DAY_MS - HOUR_MS);
    world.apply_everywhere();
    world.collect(2).await;
    assert!(world.has(2, hash));
    world.wait_ms(HOUR_MS);
    world.apply_everywhere();
    world.collect(2).await;
    assert!(!world.has(2, hash));
}

#[tokio::test]
async fn bodies_without_messages_go_step_by_step_on_every_node_and_the_others_stay() {
    let world = World::new();
    let (gone, stays) = (noise(1, 3000), noise(2, 3000));
    let (hash, other) = (Bodies::hash_of(&gone), Bodies::hash_of(&stays));
    let uid = world.deliver(&gone).await;
    world.deliver(&stays).await;
    world.expunge(uid);
    let round = || async {
        for node in NODES {
            world.apply_everywhere();
            world.collect(node).await;
        }
    };
    round().await;
    assert!(
        matches!(world.standing(hash), BodyStanding::Waiting { .. }),
        "not at once"
    );
    world.wait_ms(limits::BODY_IDLE_MS);
    round().await;
    assert!(matches!(world.standing(hash), BodyStanding::Released { .. }));
    assert_eq!(world.holders(hash), 3);
    world.wait_ms(limits::BODY_RELEASED_MS);
    round().await;
    assert_eq!((world.holders(hash), world.holders(other)), (0, 3));
    assert!(
        matches!(world.standing(hash), BodyStanding::Released { .. }),
        "for who was away"
    );
    world.wait_ms(limits::BODY_FORGOTTEN_MS);
    round().await;
    assert_eq!(world.standing(hash), BodyStanding::Unknown);
    assert_eq!(world.standing(other), BodyStanding::Named);
}

/// The leader was lost between the put and its command; or the client never came back.
#[tokio::test]
async fn a_body_that_no_command_named_is_released_by_whoever_has_it_and_freed_a_day_later() {
    let world = World::new();
    let body = noise(1, 3000);
    let hash = world.put(&body).await.unwrap().hash;
    eventually("all have it", || world.holders(hash) == 3).await;
    world.lead(3);
    let follower = world.collector(2);
    follower.round_now().await;
    assert_eq!(
        world.standing(hash),
        BodyStanding::Unknown,
        "it may be named at any moment"
    );
    follower.round_now().await;
    assert!(matches!(world.standing(hash), BodyStanding::Released { .. }));
    assert_eq!(world.holders(hash), 3);
    world.wait_ms(DAY_MS);
    for node in NODES {
        world.apply_everywhere();
        world.collect(node).await;
    }
    assert_eq!(world.holders(hash), 0);
    // The client repeats its delivery at last.
    world.deliver(&body).await;
    eventually("all have it", || world.holders(hash) == 3).await;
}

#[tokio::test]
async fn a_body_that_is_named_between_two_rounds_is_no_orphan() {
    let world = World::new();
    let body = noise(1, 3000);
    let put = world.put(&body).await.unwrap();
    eventually("all have it", || world.holders(put.hash) == 3).await;
    let follower = world.collector(2);
    follower.round_now().await;
    world.name(put).unwrap();
    // Its rows do not say so yet: it asks, and the log knows better.
    follower.round_now().await;
    assert_eq!(
        (world.standing(put.hash), world.holders(put.hash)),
        (BodyStanding::Named, 3)
    );
}

#[tokio::test]
async fn a_node_that_was_away_collects_what_the_shard_has_forgotten() {
    let world = World::new();
    let hash = world.released(&noise(1, 3000)).await;
    world.wait_ms(DAY_MS);
    for node in [1, 3] {
        world.apply_everywhere();
        world.collect(node).await;
    }
    world.commit(Op::ForgetBodies { hashes: vec![hash] });
    world.restart(2, 7).await;
    assert_eq!((world.has(2, hash), world.holders(hash)), (true, 1));
    let away = world.collector(2);
    for _ in 0..2 {
        world.apply_everywhere();
        away.round_now().await;
    }
    world.wait_ms(DAY_MS);
    world.apply_everywhere();
    away.round_now().await;
    assert_eq!(world.holders(hash), 0);
}

#[tokio::test]
async fn bodies_of_a_shard_that_is_not_open_here_are_left_alone() {
    let world = World::new();
    let body = noise(1, 3000);
    let hash = Bodies::hash_of(&body);
    let other = malle_proto::ShardId(99);
    let node = world.net.node(2);
    let alone = members(&[&[2]]);
    node.put(other, &alone, hash, body, soon()).await.unwrap();
    let collector = world.collector(2);
    for _ in 0..3 {
        world.wait_ms(DAY_MS);
        collector.round_now().await;
    }
    assert!(node.has(other, hash));
}

#[tokio::test]
async fn the_clock_of_a_shard_without_commands_is_brought_up_by_its_leader_for_bodies_that_wait() {
    let world = World::new();
    let hash = world.released(&noise(1, 3000)).await;
    // Three days in which nobody sends mail.
    for _ in 0..12 {
        world.clock.advance_ms(6 * HOUR_MS);
        for node in NODES {
            world.apply_everywhere();
            world.collect(node).await;
        }
    }
    assert_eq!(world.holders(hash), 0);
}

#[tokio::test]
async fn a_batch_is_no_larger_than_a_command_may_be() {
    let world = World::new();
    // Only names: nothing of these is here, but their rows wait.
    let hashes: Vec<BodyHash> = (0..1_200u16)
        .map(|number| {
            let mut name = [9; 32];
            name[..2].copy_from_slice(&number.to_be_bytes());
            BodyHash(name)
        })
        .collect();
    for some in hashes.chunks(limits::COLLECT_TOGETHER) {
        world.commit(Op::ReleaseBodies { hashes: some.to_vec() });
    }
    world.wait_ms(limits::BODY_FORGOTTEN_MS);
    let steps = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = steps.clone();
    world.at_each_step(move |_, step, at| {
        if let (Op::ForgetBodies { hashes }, Moment::Asked) = (step, at) {
            seen.lock().unwrap().push(hashes.len());
        }
        std::future::ready(()).boxed()
    });
    world.collect(1).await;
    let steps = steps.lock().unwrap().clone();
    assert_eq!((steps.len(), steps.iter().sum::<usize>()), (3, 1_200), "{steps:?}");
    assert!(hashes.iter().all(|hash| world.standing(*hash) == BodyStanding::Unknown));
}
