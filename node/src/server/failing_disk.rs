//! A sync that fails once and then never again, modelled: that is what Linux says of a disk that lost a write.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::leave::give_groups_away;
use super::power_cut::load::Load;
use super::power_cut::world::{Chance, Machine, Running, World, pause, soon};

const ACCOUNTS: usize = 3;
/// Mails that are acknowledged before the failure, and again after it.
const MAILS: u64 = 40;
/// Where nothing is synced until a checkpoint is made.
const CHECKPOINTS: &str = "/node/checkpoints";
/// Mails that are put to the condemned node.
const TRIES: usize = 200;

/// Waits until the load has done this much more.
pub(super) async fn goes_on(load: &Load) {
    let enough = load.acknowledged.load(Ordering::SeqCst) + MAILS;
    let until = soon();
    while load.acknowledged.load(Ordering::SeqCst) < enough {
        assert!(malle_rt::now() < until, "the load stands still");
        pause().await;
    }
}

pub(super) fn leading(world: &World) -> &Machine {
    let leads = |machine: &&Machine| machine.running().is_some_and(|running| running.group.is_leader());
    world.machines.iter().find(leads).expect("a leader")
}

async fn condemned(running: &Running) {
    let mut told = running.groups.duty().condemned();
    let told = malle_rt::timeout_at(soon(), told.wait_for(Option::is_some)).await;
    told.expect("the failure is noticed").expect("the node is there");
}

/// Lets one sync below `dir` fail on the leader, under load, and looks at what everybody does.
async fn a_sync_fails_once(dir: &str, seed: u64) {
    let world = World::start(ACCOUNTS, seed, false).await;
    let load = Load::new(world.clone());
    let mut chance = Chance(seed);
    let clients: Vec<_> = (0..ACCOUNTS)
        .map(|account| malle_rt::spawn(load.clone().write(account, chance.next())))
        .collect();
    goes_on(&load).await;

    let victim = leading(&world);
    let running: Arc<Running> = victim.running().expect("it leads");
    victim.disk.fail_next_syncs_below(Path::new(dir), 1);
    if dir == CHECKPOINTS {
        let made = running.group.checkpoint(0).await;
        assert!(made.is_err(), "a checkpoint without its sync: {made:?}");
    }
    condemned(&running).await;
    if dir == CHECKPOINTS {
        // These machines do so by themselves when a journal fails only, so that a test can look at a condemned leader.
        give_groups_away(&running.groups).await;
    }
    for _ in 0..TRIES {
        let (request, _) = load.mail(0, &mut chance);
        let answer = load.send(&running, request).await;
        assert!(answer.is_err(), "the condemned node acknowledged UID {answer:?}");
    }
    // The others go on, led by one of them who was asked to.
    goes_on(&load).await;
    assert!(!running.group.is_leader());
    let taken: u64 = world
        .machines
        .iter()
        .filter_map(Machine::running)
        .map(|other| other.groups.duty().transfers().1)
        .sum();
    assert!(taken > 0, "nobody was asked to take over");

    // Whoever looked at the disk starts the node again; then the machine loses power, too.
    world.switch_off(victim);
    victim.disk.kill();
    world.power_on(victim).await;
    goes_on(&load).await;
    world.cut(&[victim], &mut chance).await;
    world.power_on(victim).await;
    load.stop.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.expect("a client that ends");
    }
    load.check().await;
    let broken = load.broken_so_far();
    assert!(broken.is_empty(), "seed {seed}: {broken:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_failed_sync_of_the_log_the_leader_acknowledges_nothing_and_another_leads() {
    a_sync_fails_once("/node/log", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_failed_sync_of_the_volumes_the_leader_acknowledges_nothing_and_another_leads() {
    a_sync_fails_once("/node/volumes", 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_failed_sync_of_a_checkpoint_the_leader_acknowledges_nothing_and_another_leads() {
    a_sync_fails_once(CHECKPOINTS, 5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_disk_lost_what_it_had_acknowledged_is_found_out_and_the_others_go_on() {
    let world = World::start(ACCOUNTS, 4, false).await;
    let load = Load::new(world.clone());
    let mut chance = Chance(4);
    let clients: Vec<_> = (0..ACCOUNTS)
        .map(|account| malle_rt::spawn(load.clone().write(account, chance.next())))
        .collect();
    goes_on(&load).await;
    let leader = world.leader().await;
    let follows = |machine: &&Machine| machine.running().is_some_and(|running| !running.group.is_leader());
    let victim = world.machines.iter().find(follows).expect("a follower");
    victim.disk.set_lying(true);
    goes_on(&load).await;
    world.put_back(victim);
    victim.disk.set_lying(false);
    world.power_on(victim).await;
    let running = victim.running().expect("it is on");
    condemned(&running).await;
    let reason = running.groups.duty().unwilling().expect("it says why");
    assert!(reason.contains("lost entries of shard 3"), "{reason}");
    // Raft on the leader has not stopped over it, and turns in no circle with it.
    goes_on(&load).await;
    assert!(leader.group.is_leader(), "{:?}", leader.group.status());
    load.stop.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.expect("a client that ends");
    }
    let broken = load.broken_so_far();
    assert!(broken.is_empty(), "{broken:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_condemned_leader_acknowledges_nothing_while_it_still_leads() {
    let world = World::start(1, 3, false).await;
    let load = Load::new(world.clone());
    let mut chance = Chance(3);
    let leader = world.leader().await;
    let (request, _) = load.mail(0, &mut chance);
    load.send(&leader, request.clone()).await.expect("a healthy leader");
    leader.groups.duty().condemn("a journal failed");
    for _ in 0..20 {
        let answer = load.send(&leader, load.mail(0, &mut chance).0).await;
        let error = answer.expect_err("it is condemned").expect("it says why");
        assert!(error.message.contains("a journal failed"), "{error:?}");
    }
    assert!(leader.group.is_leader(), "nobody asked another to lead");
    assert!(
        load.send(&leader, request).await.is_err(),
        "not even what is done already"
    );
}
