//! A long story at random: deliveries, expunges, puts that nobody names, nodes that lag, fall silent and lose power, collection on all of
//! them, and more of the same between the steps of each collection.
//!
//! At every moment the bodies that the shard's rows keep are on a majority of the nodes; at the end each of them is read on every node,
//! and nothing else is left.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use futures::FutureExt;
use malle_machine::shard::{BodyPut, Op, Refusal};
use malle_proto::{BodyHash, Uid};

use super::super::{Fault, SHARD, eventually, noise, soon};
use super::world::{DAY_MS, HOUR_MS, NODES, World};
use crate::bodies::Bodies;

/// Different mails: few, so that each is delivered again and again.
const MAILS: u64 = 40;

struct Chance(u64);

impl Chance {
    fn below(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % below
    }
}

/// What the clients know.
struct Story {
    world: Arc<World>,
    chance: Mutex<Chance>,
    /// Results of puts, kept for commands that may come much later.
    puts: Mutex<Vec<BodyPut>>,
    messages: Mutex<BTreeMap<Uid, u64>>,
    named: Mutex<[u64; 2]>,
}

impl Story {
    fn below(&self, below: u64) -> u64 {
        self.chance.lock().unwrap().below(below)
    }

    fn body(&self) -> (u64, bytes::Bytes) {
        let seed = self.below(MAILS);
        (seed, noise(seed, 2000 + seed as usize * 50))
    }

    fn seed_of(&self, hash: BodyHash) -> u64 {
        let found = (0..MAILS).find(|seed| Bodies::hash_of(&noise(*seed, 2000 + *seed as usize * 50)) == hash);
        found.expect("one of the mails")
    }

    /// Something that may also come between two steps of a collection.
    async fn happen(&self) {
        let world = &self.world;
        match self.below(16) {
            0..=3 => {
                let (_, body) = self.body();
                if let Ok(put) = world.put(&body).await {
                    self.puts.lock().unwrap().push(put);
                }
            }
            4..=7 => self.name(),
            8 => {
                // The leader was lost with what it knew of its puts.
                self.puts.lock().unwrap().clear();
                let next = NODES[self.below(3) as usize];
                world.net.fault(next, None);
                world.lead(next);
            }
            9..=11 => {
                let uids: Vec<Uid> = self.messages.lock().unwrap().keys().copied().collect();
                if uids.len() > 10 {
                    let uid = uids[self.below(uids.len() as u64) as usize];
                    self.messages.lock().unwrap().remove(&uid);
                    world.expunge(uid);
                }
            }
            12 => world.wait_ms(self.below(12) * HOUR_MS),
            13 => {
                // At most one node is silent, and never the leader: a majority is there.
                NODES.iter().for_each(|node| world.net.fault(*node, None));
                let node = NODES[self.below(3) as usize];
                if node != world.leader() && self.below(2) == 0 {
                    world.net.fault(node, Some(Fault::Down));
                }
            }
            _ => world.apply(NODES[self.below(3) as usize], self.below(20) as usize),
        }
        self.check();
    }

    /// A command names a put of now, of long ago, or of both.
    fn name(&self) {
        let put = {
            let mut puts = self.puts.lock().unwrap();
            if puts.is_empty() {
                return;
            }
            let at = self.below(puts.len() as u64) as usize;
            if self.below(3) == 0 { puts[at] } else { puts.remove(at) }
        };
        match self.world.name(put) {
            Ok(uid) => {
                self.named.lock().unwrap()[0] += 1;
                let seed = self.seed_of(put.hash);
                self.messages.lock().unwrap().insert(uid, seed);
            }
            Err(refusal) => {
                assert_eq!(refusal, Refusal::StaleBody);
                self.named.lock().unwrap()[1] += 1;
            }
        }
    }

    fn check(&self) {
        for hash in self.world.kept() {
            let holders = self.world.holders(hash);
            assert!(holders >= 2, "body {hash} is kept, and on {holders} nodes");
        }
    }
}

async fn tell(seed: u64) -> [u64; 3] {
    let world = World::new();
    let story = Arc::new(Story {
        world: world.clone(),
        chance: Mutex::new(Chance(seed)),
        puts: Mutex::default(),
        messages: Mutex::default(),
        named: Mutex::default(),
    });
    let between = Arc::downgrade(&story);
    world.at_each_step(move |_, _, _| {
        let story = between.upgrade().expect("the story goes on");
        async move {
            for _ in 0..story.below(5) {
                story.happen().await;
            }
        }
        .boxed()
    });
    let mut freed = 0;
    let mut collectors: BTreeMap<u64, _> = NODES.iter().map(|node| (*node, world.collector(*node))).collect();
    for _ in 0..120 {
        for _ in 0..story.below(8) {
            story.happen().await;
        }
        let node = NODES[story.below(3) as usize];
        collectors[&node].round_now().await;
        story.check();
        if story.below(8) == 0 {
            let node = NODES[story.below(3) as usize];
            freed += collectors[&node].report().freed;
            collectors.remove(&node);
            world.restart(node, story.below(1000)).await;
            collectors.insert(node, world.collector(node));
            story.check();
        }
    }
    freed += collectors
        .values()
        .map(|collector| collector.report().freed)
        .sum::<u64>();
    end(&story).await;
    let named = *story.named.lock().unwrap();
    [freed, named[0], named[1]]
}

/// Everybody is there and hears of everything; collection goes on undisturbed.
async fn end(story: &Story) {
    let world = &story.world;
    world.undisturbed();
    NODES.iter().for_each(|node| world.net.fault(*node, None));
    world.apply_everywhere();
    let kept: Vec<BodyHash> = {
        let messages = story.messages.lock().unwrap();
        let mut kept: Vec<BodyHash> = messages
            .values()
            .map(|seed| Bodies::hash_of(&noise(*seed, 2000 + *seed as usize * 50)))
            .collect();
        kept.sort();
        kept.dedup();
        kept
    };
    eventually("nothing is missing", || {
        NODES.iter().all(|node| world.group(*node).missing() == 0)
    })
    .await;
    let collectors: Vec<_> = NODES.iter().map(|node| world.collector(*node)).collect();
    for _ in 0..6 {
        world.wait_ms(DAY_MS);
        for collector in &collectors {
            world.apply_everywhere();
            collector.round_now().await;
        }
    }
    for node in NODES {
        let here = world.net.node(node);
        for hash in &kept {
            let read = here.get(SHARD, *hash, &[], soon()).await.unwrap();
            assert_eq!(Bodies::hash_of(&read), *hash);
        }
        let report = collectors[node as usize - 1].report();
        assert_eq!(here.counts().0, kept.len() as u64, "node {node}: {report:?}");
        let live = here.counts().1;
        assert!(
            report.volume_bytes < 2 * live + live / 10 + 3 * 64 * 1024,
            "node {node}: {report:?}"
        );
    }
    world.commit(Op::ReleaseBodies { hashes: kept.clone() });
    assert!(kept.iter().all(|hash| world.kept().contains(hash)), "they are named");
}

#[tokio::test]
async fn whatever_happens_meanwhile_every_named_body_is_on_a_majority_and_the_rest_goes() {
    let seeds = match std::env::var("MALLE_COLLECT_SEED") {
        Ok(seed) => seed.parse().expect("a number")..=seed.parse().expect("a number"),
        Err(_) => 1..=6u64,
    };
    let mut all = [0; 3];
    for seed in seeds {
        println!("seed {seed}");
        let told = tell(seed).await;
        println!(
            "  {} copies freed, {} puts named, {} told to put again",
            told[0], told[1], told[2]
        );
        all.iter_mut().zip(told).for_each(|(sum, one)| *sum += one);
    }
    assert!(all.iter().all(|count| *count > 20), "the story is long enough: {all:?}");
}
