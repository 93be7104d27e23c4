//! The power goes at every sync of a checkpoint, and at any moment of a long life.

use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};

use super::*;

/// Syncs of the longest checkpoint: the file, the directory, the floor in the log, and some to spare.
const SYNCS: u32 = 6;

/// A life up to a checkpoint whose power goes at the sync after `syncs`; true when the checkpoint was whole before.
async fn cut(seed: u64, deltas: usize, syncs: u32, keep_view: bool) -> bool {
    let mut world = World::new(seed);
    let mut running = world.start().await;
    world.live(&mut running, 60).await;
    for _ in 0..deltas {
        running.state.checkpoint().await.unwrap();
        running.purge().await;
        world.live(&mut running, 5).await;
    }
    world.disk.crash_at_sync(syncs, seed ^ 0x5EED);
    let made = running.state.checkpoint().await.is_ok();
    running.cut(&world.disk, seed);
    if !keep_view {
        world.lose_the_view();
    }
    let mut running = world.start().await;
    // Life goes on with the chain as it was found.
    world.live(&mut running, 5).await;
    running.state.checkpoint().await.unwrap();
    running.purge().await;
    running.stop(true).await;
    world.lose_the_view();
    world.start().await.stop(true).await;
    made
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_at_any_sync_of_a_base_or_delta_loses_nothing() {
    for deltas in 0..3 {
        let mut last = Vec::new();
        for syncs in 0..SYNCS {
            for seed in 0..4 {
                last.push(cut(seed, deltas, syncs, seed % 2 == 0).await);
            }
        }
        assert!(!last[0], "the first sync is the file's");
        assert!(last[last.len() - 1], "a checkpoint has fewer than {SYNCS} syncs");
    }
}

#[derive(Debug, Clone)]
enum Step {
    Live(u8),
    Flush,
    Checkpoint,
    /// The power goes at this sync of a checkpoint.
    CutCheckpoint(u8),
    /// The power goes now.
    Cut,
    Restart,
    Purge,
    LoseView,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1u8..40).prop_map(Step::Live),
        2 => Just(Step::Flush),
        4 => Just(Step::Checkpoint),
        2 => (0u8..SYNCS as u8).prop_map(Step::CutCheckpoint),
        1 => Just(Step::Cut),
        2 => Just(Step::Restart),
        3 => Just(Step::Purge),
        1 => Just(Step::LoseView),
    ]
}

async fn play(seed: u64, steps: &[Step]) {
    let mut world = World::new(seed);
    let mut running = world.start().await;
    for (number, step) in steps.iter().enumerate() {
        match step {
            Step::Live(commands) => world.live(&mut running, usize::from(*commands)).await,
            Step::Flush => running.state.flush().await.unwrap(),
            Step::Checkpoint => drop(running.state.checkpoint().await.unwrap()),
            Step::Purge => running.purge().await,
            Step::CutCheckpoint(syncs) => {
                world.disk.crash_at_sync(u32::from(*syncs), seed + number as u64);
                // Whole or not: what counts is what the next process finds.
                let _ = running.state.checkpoint().await;
                running.cut(&world.disk, seed ^ number as u64);
                running = world.start().await;
            }
            Step::Cut => {
                running.cut(&world.disk, seed + number as u64);
                running = world.start().await;
            }
            Step::Restart => {
                running.stop(true).await;
                running = world.start().await;
            }
            Step::LoseView => {
                running.stop(number % 2 == 0).await;
                world.lose_the_view();
                running = world.start().await;
                assert_eq!(
                    running.state.rebuilds(),
                    u64::from(world.last() > 0 || running.log.floor().is_some())
                );
            }
        }
        world.compare(&running);
    }
    running.stop(true).await;
    world.lose_the_view();
    world.start().await.stop(true).await;
}

proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 64, max_shrink_iters: 200, ..Default::default() })]
    #[test]
    fn a_view_is_after_any_life_what_the_model_is(seed in any::<u32>(), steps in proptest::collection::vec(step(), 1..24)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(play(u64::from(seed), &steps));
    }
}
