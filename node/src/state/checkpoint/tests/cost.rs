//! What checkpoints write for what the log writes.

use malle_machine::shard::StoreMode;

use super::*;

/// The bound at this scale: a checkpoint after so much log, instead of 64 MiB.
const LOG_BYTES: u64 = 64 * 1024;

/// Lives `rounds` times the usual distance between two checkpoints, and makes one whenever it is due, as a node does. Gives bytes of
/// log and bytes written to checkpoints, from the first command on.
async fn life(world: &mut World, rounds: u64, next: fn(&mut Sample) -> Op) -> (u64, u64) {
    let mut running = world.start().await;
    let opened = world.sample.open();
    let mut log = world.propose_all(&mut running, opened).await;
    let (mut asked, mut made) = (0, 0);
    while log < rounds * LOG_BYTES {
        let op = if asked < 200 {
            world.sample.deliver(1)
        } else {
            next(&mut world.sample)
        };
        log += world.propose(&mut running, op).await;
        asked += 1;
        if asked % 8 == 0 && running.state.checkpoint_is_due().await {
            running.state.checkpoint().await.unwrap();
            running.purge().await;
            made += 1;
        }
    }
    assert!(made * 4 >= rounds, "{made} checkpoints");
    let written = world.written.load(Ordering::SeqCst);
    running.stop(true).await;
    world.lose_the_view();
    world.start().await.stop(true).await;
    (log, written)
}

fn small(seed: u64) -> World {
    let mut world = World::new(seed);
    world.checkpoint_log_bytes = LOG_BYTES;
    world
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ordinary_days_write_at_most_twice_their_log() {
    let (log, written) = life(&mut small(1), 40, Sample::day).await;
    assert!(written <= 2 * log, "{log} bytes of log, {written} of checkpoints");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mail_that_only_comes_in_writes_at_most_twice_its_log() {
    let (log, written) = life(&mut small(2), 40, |sample| sample.deliver(1)).await;
    assert!(written <= 2 * log, "{log} bytes of log, {written} of checkpoints");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flags_on_as_many_messages_as_may_be_write_at_most_twice_their_log() {
    let (log, written) = life(&mut small(3), 6, |sample| {
        let mode = if sample.delivered % 2 == 0 {
            StoreMode::Add
        } else {
            StoreMode::Remove
        };
        sample.delivered += 1;
        sample.flag_as_many_as_may_be(mode)
    })
    .await;
    assert!(written <= 2 * log, "{log} bytes of log, {written} of checkpoints");
}
