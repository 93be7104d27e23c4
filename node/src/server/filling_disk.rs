//! Disks that fill up under load, modelled: one node's, then a majority's. Nothing is lost, deletions go on as long as there is any room, and
//! all goes on by itself once there is space.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use malle_proto::v1::{self, ErrorCode, MailRequest};

use super::failing_disk::{goes_on, leading};
use super::power_cut::load::Load;
use super::power_cut::world::{Chance, Machine, Running, VOLUME_SEGMENT_BYTES, World, pause, soon};
use crate::bodies::{Bodies, DiskRoom};
use crate::raft::GroupError;

const ACCOUNTS: usize = 3;
/// The account of the story itself; the others have a client each.
const OWN: usize = ACCOUNTS;
/// Room for three volumes: no new mail, and collection goes on.
const SHORT_BYTES: u64 = 3 * VOLUME_SEGMENT_BYTES;

struct Story {
    world: Arc<World>,
    load: Arc<Load>,
    chance: Chance,
    clients: Vec<malle_rt::JoinHandle<()>>,
    /// A mail that was refused for want of room: it is sent again at the end.
    refused: Option<(MailRequest, Bytes)>,
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = soon();
    while !condition() {
        assert!(malle_rt::now() < deadline, "never: {what}");
        pause().await;
    }
}

fn running(machine: &Machine) -> Arc<Running> {
    machine.running().expect("its power is on")
}

fn room(machine: &Machine) -> DiskRoom {
    running(machine).bodies.disk().room()
}

impl Story {
    async fn begin(seed: u64) -> Story {
        let world = World::start(ACCOUNTS + 1, seed, false).await;
        let load = Load::new(world.clone());
        let mut chance = Chance(seed);
        let clients = (0..ACCOUNTS)
            .map(|account| malle_rt::spawn(load.clone().write(account, chance.next())))
            .chain([malle_rt::spawn(load.clone().read(seed))])
            .collect();
        goes_on(&load).await;
        Story {
            world,
            load,
            chance,
            clients,
            refused: None,
        }
    }

    /// The load ends; everything that was promised is there, everywhere, and nobody had to be started again.
    async fn end(self) {
        goes_on(&self.load).await;
        if let Some((request, mail)) = self.refused {
            let deadline = soon();
            let uid = loop {
                let leader = self.world.leader().await;
                if let Ok(uid) = self.load.send(&leader, request.clone()).await {
                    break uid;
                }
                assert!(
                    malle_rt::now() < deadline,
                    "what was refused is not taken when there is room"
                );
                pause().await;
            };
            self.load.promise(OWN, uid, Bodies::hash_of(&mail));
        }
        self.load.stop.store(true, Ordering::SeqCst);
        for client in self.clients {
            client.await.expect("a client that ends");
        }
        for machine in &self.world.machines {
            assert!(!running(machine).is_condemned(), "a full disk is no failure");
            until("no body is missed", || running(machine).group.bodies().missing() == 0).await;
        }
        self.load.check().await;
        let broken = self.load.broken_so_far();
        assert!(broken.is_empty(), "{broken:#?}");
    }

    /// Sends mail until it is refused for want of room on a majority.
    async fn until_refused(&mut self) -> v1::Error {
        let deadline = soon();
        let (mut request, mut mail) = self.load.mail(OWN, &mut self.chance);
        loop {
            assert!(malle_rt::now() < deadline, "a majority without room takes mail");
            let leader = self.world.leader().await;
            match self.load.send(&leader, request.clone()).await {
                Ok(uid) => {
                    self.load.promise(OWN, uid, Bodies::hash_of(&mail));
                    (request, mail) = self.load.mail(OWN, &mut self.chance);
                }
                Err(Some(error)) if error.code() == ErrorCode::DiskFull && error.retry_after_ms > 1_000 => {
                    self.refused = Some((request, mail));
                    return error;
                }
                Err(_) => {}
            }
            pause().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_disk_is_full_gives_way_and_the_others_go_on_without_it() {
    let story = Story::begin(1).await;
    let world = story.world.clone();
    let victim = leading(&world);
    victim.disk.set_free_bytes(Some(0));
    until("it sees that it is full", || room(victim) == DiskRoom::None).await;
    until("another leads", || !running(victim).group.is_leader()).await;
    for _ in 0..5 {
        goes_on(&story.load).await;
    }
    assert!(!running(victim).is_condemned());
    victim.disk.set_free_bytes(None);
    until("it has room", || room(victim) == DiskRoom::Enough).await;
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_without_room_takes_entries_once_others_have_committed_them_and_never_holds_the_group_up() {
    let story = Story::begin(2).await;
    let world = story.world.clone();
    let leader = leading(&world);
    let other = |machine: &&Machine| !std::ptr::eq(*machine, leader);
    let victim = world.machines.iter().find(other).expect("three machines");
    // Less than two volumes, and enough for its log: it stores no body.
    victim.disk.set_free_bytes(Some(VOLUME_SEGMENT_BYTES));
    until("it sees that it is full", || room(victim) == DiskRoom::None).await;
    for _ in 0..5 {
        goes_on(&story.load).await;
    }
    let applied = running(leader).group.state().applied_index();
    until("it follows", || {
        running(victim).group.state().applied_index() >= applied
    })
    .await;
    assert!(
        running(victim).group.bodies().missing() > 0,
        "it stored bodies without room"
    );
    victim.disk.set_free_bytes(None);
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_majority_short_of_room_refuses_mail_by_name_and_takes_flags_and_expunges() {
    let mut story = Story::begin(3).await;
    let world = story.world.clone();
    for _ in 0..6 {
        story.load.deliver(OWN, &mut story.chance).await;
    }
    let victims = [&world.machines[0], &world.machines[1]];
    for victim in victims {
        victim.disk.set_free_bytes(Some(SHORT_BYTES));
    }
    let refused = story.until_refused().await;
    assert!(refused.message.contains("room"), "{refused:?}");
    let here: Vec<u32> = story.load.ledgers[OWN].messages().keys().copied().collect();
    for uid in &here[..3] {
        story.load.store(OWN, *uid, 1, &mut story.chance).await;
    }
    for uid in &here[3..6] {
        story.load.expunge(OWN, *uid, &mut story.chance).await;
    }
    for victim in victims {
        victim.disk.set_free_bytes(None);
    }
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_majority_without_any_room_stands_still_loses_nothing_and_goes_on_alone() {
    for seed in [4, 5] {
        let story = Story::begin(seed).await;
        let world = story.world.clone();
        let victims = &world.machines[1..];
        for victim in victims {
            victim.disk.set_free_bytes(Some(0));
        }
        for victim in victims {
            until("it sees that it is full", || room(victim) == DiskRoom::None).await;
        }
        // Whatever was under way is stuck where it was.
        for _ in 0..200 {
            pause().await;
        }
        for victim in victims {
            victim.disk.set_free_bytes(None);
        }
        story.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_starts_on_a_full_disk_starts_and_catches_up_when_there_is_space() {
    let mut story = Story::begin(6).await;
    let world = story.world.clone();
    let victim = &world.machines[2];
    world.switch_off(victim);
    victim.disk.crash(story.chance.next());
    victim.disk.set_free_bytes(Some(0));
    world.power_on(victim).await;
    until("it sees that it is full", || room(victim) == DiskRoom::None).await;
    goes_on(&story.load).await;
    assert!(!running(victim).is_condemned());
    victim.disk.set_free_bytes(None);
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_that_finds_no_room_ends_nothing_and_is_made_once_there_is_some() {
    let story = Story::begin(7).await;
    let world = story.world.clone();
    let machine = leading(&world);
    let group = running(machine).group.clone();
    for first in [true, false] {
        // Not only what is free now: what collection gives back meanwhile would be enough for a checkpoint.
        machine.disk.set_capacity(Some(0));
        let refused = group.checkpoint(0).await;
        assert!(matches!(refused, Err(GroupError::Unavailable(_))), "{refused:?}");
        assert_ne!(group.status().role, "failed");
        machine.disk.set_free_bytes(None);
        if first {
            until("the first one is made", || group.status().checkpoint_index > 0).await;
            until("there is something that it has not", || {
                group.state().applied_index() > group.status().checkpoint_index
            })
            .await;
        } else {
            let applied = group.state().applied_index();
            assert!(group.checkpoint(0).await.expect("there is room") >= applied);
        }
    }
    story.end().await;
}
