//! Power cuts of whole nodes under load, modelled: the node's own rooms, three of them, on disks that keep what was synced and of the
//! rest what chance leaves (`MemoryDisk`), with a view that a cut may lose, truncate or falsify.
//!
//! Collection runs all the time and waits for nothing. Clients deliver, store flags and expunge meanwhile, repeat what was not answered under the same op id, and read. At the end every
//! acknowledged mail, flag and UID is there once and unchanged on every node, no read was wrong, and every body opens under its hash.
//! A node whose view and checkpoint rot as well, behind a log that was purged, comes back by a member's snapshot.
//! A disk that lies about its syncs proves that the checkers can fail.
//!
//! `MALLE_POWER_SEED` and `MALLE_POWER_CUTS` choose another history and its length.

pub(super) mod load;
pub(super) mod plug;
pub(super) mod world;

use std::sync::atomic::Ordering;

use load::Load;
use world::{Chance, Machine, World};

const ACCOUNTS: usize = 4;

/// Who loses power.
#[derive(Clone, Copy)]
enum Cut {
    One,
    All,
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .map_or(default, |value| value.parse().expect("a number"))
}

/// Runs the load, cuts the power this often, and gives what was found broken.
async fn cut_under_load(cut: Cut, cuts: u64, seed: u64, lies: bool) -> Vec<String> {
    let seed = setting("MALLE_POWER_SEED", seed);
    let cuts = setting("MALLE_POWER_CUTS", cuts);
    let mut chance = Chance(seed);
    let world = World::start(ACCOUNTS, seed, lies).await;
    let load = Load::new(world.clone());
    let mut clients = Vec::new();
    for account in 0..ACCOUNTS {
        clients.push(malle_rt::spawn(load.clone().write(account, chance.next())));
    }
    clients.push(malle_rt::spawn(load.clone().read(chance.next())));
    for _ in 0..cuts {
        let enough = load.acknowledged.load(Ordering::SeqCst) + 1 + chance.below(20);
        let until = world::soon();
        while load.acknowledged.load(Ordering::SeqCst) < enough {
            assert!(malle_rt::now() < until, "seed {seed}: the load stands still");
            world::pause().await;
        }
        let victims: Vec<&Machine> = match cut {
            Cut::One => vec![&world.machines[chance.below(3) as usize]],
            Cut::All => world.machines.iter().collect(),
        };
        world.cut(&victims, &mut chance).await;
        for machine in victims {
            world.power_on(machine).await;
        }
    }
    load.stop.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.expect("a client that ends");
    }
    load.check().await;
    let rebuilds: u64 = world
        .machines
        .iter()
        .map(|machine| machine.rebuilds.load(Ordering::SeqCst))
        .sum();
    let [bodies, volumes] = world
        .machines
        .iter()
        .map(Machine::freed)
        .fold([0; 2], |sum, one| [sum[0] + one[0], sum[1] + one[1]]);
    assert!(
        lies || bodies > 0,
        "seed {seed}: collection freed nothing, and proved nothing"
    );
    println!(
        "seed {seed}: {cuts} cuts, {} operations acknowledged, {} reads compared, {rebuilds} views rebuilt, \
         {bodies} bodies and {volumes} volumes freed",
        load.acknowledged.load(Ordering::SeqCst),
        load.reads.load(Ordering::SeqCst),
    );
    load.broken_so_far()
}

async fn nothing_is_lost(cut: Cut, cuts: u64, seed: u64) {
    let broken = cut_under_load(cut, cuts, seed, false).await;
    assert!(broken.is_empty(), "seed {seed}: {broken:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_cuts_of_one_node_lose_nothing() {
    nothing_is_lost(Cut::One, 100, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_hundred_cuts_of_one_node_lose_nothing() {
    nothing_is_lost(Cut::One, 100, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_cuts_of_all_three_nodes_at_once_lose_nothing() {
    nothing_is_lost(Cut::All, 50, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disks_that_lie_about_their_syncs_are_found_out() {
    let lying = malle_rt::spawn(cut_under_load(Cut::All, 5, 4, true));
    // Either the checkers name what was lost, or a node refuses to start over a log with a hole: both are found out.
    if let Ok(broken) = lying.await {
        assert!(!broken.is_empty(), "acknowledged mail was lost, and nobody noticed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_lost_view_and_checkpoint_behind_a_purged_log_comes_back_by_a_members_snapshot() {
    let seed = setting("MALLE_POWER_SEED", 5);
    let mut chance = Chance(seed);
    let world = World::start(ACCOUNTS, seed, false).await;
    let load = Load::new(world.clone());
    let mut clients = Vec::new();
    for account in 0..ACCOUNTS {
        clients.push(malle_rt::spawn(load.clone().write(account, chance.next())));
    }
    clients.push(malle_rt::spawn(load.clone().read(chance.next())));
    for round in 0..6 {
        let victim = &world.machines[round % 3];
        let before = victim.running().expect("it is on").group.status();
        for purged in [false, true] {
            let enough = load.acknowledged.load(Ordering::SeqCst) + 20 + chance.below(20);
            let until = world::soon();
            while load.acknowledged.load(Ordering::SeqCst) < enough {
                assert!(malle_rt::now() < until, "seed {seed}: the load stands still");
                world::pause().await;
            }
            if !purged {
                let group = victim.running().expect("it is on").group.clone();
                let index = group.checkpoint(0).await.expect("a checkpoint");
                assert!(index > before.applied_index);
            }
        }
        world.cut(&[victim], &mut chance).await;
        victim.rot().await;
        world.power_on(victim).await;
        let after = victim.running().expect("it is on").group.status();
        assert!(after.term >= before.term, "the vote stayed: {before:?}, {after:?}");
        assert_eq!(after.rebuilds, 1);
    }
    let helped: u64 = world
        .machines
        .iter()
        .map(|machine| machine.helped.load(Ordering::SeqCst))
        .sum();
    assert!(helped > 0, "seed {seed}: no log was purged");
    load.stop.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.expect("a client that ends");
    }
    load.check().await;
    let broken = load.broken_so_far();
    assert!(broken.is_empty(), "seed {seed}: {broken:#?}");
}
