//! What makes a chain, and what ends it.

use std::sync::Arc;

use malle_journal::Disk;

use super::*;
use crate::state::checkpoint::{Checkpoint, Work};

fn chain(world: &World) -> Checkpoint {
    let disk: Arc<dyn Disk> = Arc::new(world.disk.clone());
    Checkpoint::open(&disk, Path::new(DIR), SHARD).unwrap().unwrap()
}

/// A base and `deltas` deltas, the log purged behind the last; the process is gone.
async fn chain_of(world: &mut World, deltas: usize) {
    let mut running = world.start().await;
    world.live(&mut running, 300).await;
    running.state.checkpoint().await.unwrap();
    for _ in 0..deltas {
        world.live(&mut running, 10).await;
        running.state.checkpoint().await.unwrap();
    }
    running.stop(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changed_since_the_base_goes_into_deltas_and_the_whole_is_the_rows() {
    let mut world = World::new(1);
    chain_of(&mut world, 3).await;
    assert_eq!(world.names(), ["checkpoint", "delta-0001", "delta-0002", "delta-0003"]);
    let chain = chain(&world);
    assert!(
        chain
            .deltas
            .iter()
            .all(|delta| delta.file.bytes * 3 < chain.base.file.bytes),
        "{chain:?}"
    );
    world.lose_the_view();
    let running = world.start().await;
    assert_eq!(running.state.rebuilds(), 1);
    running.stop(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clean_stop_goes_on_with_deltas_and_an_unclean_one_with_a_base() {
    for (clean, names) in [
        (true, &["changed", "checkpoint", "delta-0001"][..]),
        (false, &["checkpoint"][..]),
    ] {
        let mut world = World::new(2);
        let mut running = world.start().await;
        world.live(&mut running, 300).await;
        running.state.checkpoint().await.unwrap();
        world.live(&mut running, 10).await;
        // What is flushed is not replayed: only a note says which keys it was.
        running.state.flush().await.unwrap();
        running.stop(clean).await;
        let mut running = world.start().await;
        world.live(&mut running, 10).await;
        running.state.checkpoint().await.unwrap();
        assert_eq!(world.names(), names, "clean: {clean}");
        running.purge().await;
        running.stop(true).await;
        world.lose_the_view();
        world.start().await.stop(true).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_note_of_changed_keys_counts_only_for_the_entry_and_chain_it_names() {
    let mut world = World::new(3);
    let mut running = world.start().await;
    world.live(&mut running, 300).await;
    running.state.checkpoint().await.unwrap();
    world.live(&mut running, 10).await;
    running.stop(true).await;
    assert!(world.names().contains(&"changed".into()));
    // The next process dies behind it, with rows in the index that the note does not know.
    let mut running = world.start().await;
    world.live(&mut running, 10).await;
    running.state.flush().await.unwrap();
    running.stop(false).await;
    let mut running = world.start().await;
    assert_eq!(standing(&running).await, Work::Base, "the note is of another entry");
    running.state.checkpoint().await.unwrap();
    running.purge().await;
    running.stop(true).await;
    world.lose_the_view();
    world.start().await.stop(true).await;
}

async fn standing(running: &Running) -> Work {
    let flushed = running.state.inner.flushed.lock().await;
    running.state.standing(&flushed).work()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deltas_of_half_the_base_are_merged_into_a_new_one() {
    let mut world = World::new(4);
    let mut running = world.start().await;
    world.live(&mut running, 100).await;
    let mut most = 0;
    let mut bases = 0;
    for _ in 0..40 {
        world.live(&mut running, 20).await;
        running.state.checkpoint().await.unwrap();
        let chain = chain(&world);
        let deltas: u64 = chain.deltas.iter().map(|delta| delta.file.bytes).sum();
        assert!(deltas < chain.base.file.bytes * 2, "{chain:?}");
        most = most.max(chain.deltas.len());
        bases += usize::from(chain.deltas.is_empty());
        assert_eq!(world.names().len(), 1 + chain.deltas.len(), "merged deltas are removed");
    }
    assert!(most >= 3 && (2..15).contains(&bases), "{most} deltas, {bases} bases");
    running.purge().await;
    running.stop(true).await;
    world.lose_the_view();
    world.start().await.stop(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_delta_ends_the_chain_and_the_log_takes_over_if_it_reaches_back() {
    for damaged in 1..=3u32 {
        for purged in [false, true] {
            let mut world = World::new(5);
            chain_of(&mut world, 3).await;
            if purged {
                let mut running = world.start().await;
                running.purge().await;
                running.stop(true).await;
            }
            let name = format!("delta-{damaged:04}");
            world.disk.flip_bit(&World::path(&name), 40, 3);
            world.lose_the_view();
            if purged {
                let refused = world.try_start().await.err();
                assert!(
                    matches!(refused, Some(OpenError::NoCheckpoint { .. })),
                    "delta {damaged} is damaged, and what came behind it is purged: {refused:?}"
                );
                continue;
            }
            let mut running = world.start().await;
            let sound = running.state.current_checkpoint().unwrap();
            assert_eq!(sound.deltas.len() as u32, damaged - 1);
            // The chain goes on from there.
            world.live(&mut running, 10).await;
            running.state.checkpoint().await.unwrap();
            running.purge().await;
            running.stop(true).await;
            world.lose_the_view();
            world.start().await.stop(true).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_without_its_checkpoint_serves_and_gets_a_new_base_at_once() {
    let mut world = World::new(6);
    chain_of(&mut world, 2).await;
    let mut running = world.start().await;
    running.purge().await;
    assert!(!running.state.checkpoint_is_due().await);
    running.stop(true).await;
    world.disk.remove(&World::path("delta-0001")).unwrap();
    let mut running = world.start().await;
    assert_eq!(running.state.rebuilds(), 0);
    assert!(
        running.state.current_checkpoint().is_none(),
        "no peer gets a snapshot that the log does not follow"
    );
    assert!(running.state.checkpoint_is_due().await);
    running.state.checkpoint().await.unwrap();
    running.purge().await;
    running.stop(true).await;
    world.lose_the_view();
    world.start().await.stop(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delta_never_follows_a_base_that_is_not_there_any_more() {
    let mut world = World::new(7);
    chain_of(&mut world, 1).await;
    let mut running = world.start().await;
    world.live(&mut running, 10).await;
    world.disk.remove(&World::path("checkpoint")).unwrap();
    running.state.checkpoint().await.unwrap_err();
    running.state.checkpoint().await.unwrap();
    assert_eq!(world.names(), ["checkpoint"]);
    running.purge().await;
    running.stop(true).await;
    world.lose_the_view();
    world.start().await.stop(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_is_sent_as_one_base_and_damage_breaks_the_sending_off() {
    let mut world = World::new(8);
    chain_of(&mut world, 3).await;
    let disk: Arc<dyn Disk> = Arc::new(world.disk.clone());
    let sent = chain(&world);
    let target = World::path("received");
    let receive = || -> io::Result<Checkpoint> {
        let mut sending = sent.send()?;
        let file = disk.create(&target)?;
        let mut at = 0;
        while let Some(piece) = sending.next(1_000)? {
            file.write_at(at, &mut [IoSlice::new(&piece)])?;
            at += piece.len() as u64;
        }
        assert_eq!(at, sending.bytes(), "the size is known before");
        file.sync_all()?;
        Checkpoint::received(&disk, &target, SHARD)
    };
    let received = receive().unwrap();
    assert_eq!(received.record(), sent.record());
    let rows = |chain: &Checkpoint| {
        let mut rows = BTreeMap::new();
        chain
            .changes(&mut |key, value| {
                match value {
                    Some(value) => rows.insert(key, value),
                    None => rows.remove(&key),
                };
                Ok(())
            })
            .unwrap();
        rows
    };
    assert_eq!(rows(&received), world.model.rows);
    // A snapshot that is installed takes the base's name, and nobody takes the old deltas for its own.
    let running = world.start().await;
    running.state.install(received).await.unwrap();
    assert_eq!(world.names(), ["checkpoint"]);
    running.stop(true).await;
    world.lose_the_view();
    world.start().await.stop(true).await;
    assert!(sent.send().is_err(), "its files are no more");
    let sent = chain(&world);
    world.disk.flip_bit(&World::path("checkpoint"), 100, 0);
    let mut sending = sent.send().unwrap();
    let ended = loop {
        match sending.next(1_000) {
            Ok(Some(_)) => {}
            other => break other,
        }
    };
    assert!(ended.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_that_go_on_meanwhile_are_in_the_checkpoint_or_behind_it() {
    let mut world = World::new(9);
    let mut running = world.start().await;
    world.live(&mut running, 200).await;
    for _ in 0..12 {
        let state = running.state.clone();
        let made = tokio::spawn(async move { state.checkpoint().await });
        let mut commands = 0;
        while !made.is_finished() && commands < 300 {
            world.live(&mut running, 1).await;
            if commands % 3 == 0 {
                running.state.flush().await.unwrap();
            }
            commands += 1;
        }
        made.await.unwrap().unwrap();
        let index = running.state.checkpoint_index();
        let chain = chain(&world).whole().unwrap();
        let (digest, rows) = world.history[&index];
        assert_eq!((chain.record().digest, chain.record().rows), (digest, rows));
    }
    running.purge().await;
    running.stop(true).await;
    world.lose_the_view();
    world.start().await.stop(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_day_makes_a_checkpoint_due_if_anything_was_written() {
    let mut world = World::new(10);
    chain_of(&mut world, 0).await;
    let mut running = world.start().await;
    world.clock.advance_ms(2 * malle_proto::limits::CHECKPOINT_AGE_MS);
    assert!(
        !running.state.checkpoint_is_due().await,
        "nothing is behind the checkpoint"
    );
    world.live(&mut running, 1).await;
    assert!(running.state.checkpoint_is_due().await);
    running.state.checkpoint().await.unwrap();
    world.live(&mut running, 1).await;
    assert!(!running.state.checkpoint_is_due().await);
    running.stop(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_failed_checkpoint_should_have_held_is_in_the_next() {
    let mut world = World::new(11);
    chain_of(&mut world, 1).await;
    let mut running = world.start().await;
    world.live(&mut running, 10).await;
    world.disk.fail_next_syncs(1);
    running.state.checkpoint().await.unwrap_err();
    world.live(&mut running, 1).await;
    running.state.checkpoint().await.unwrap();
    assert_eq!(chain(&world).deltas.len(), 2, "it is still known what changed");
    running.purge().await;
    running.stop(true).await;
    world.lose_the_view();
    world.start().await.stop(true).await;
}
