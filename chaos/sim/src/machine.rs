//! One machine: its disk and views, which outlive the process, its clock, and the node while it runs.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use malle_chaos::seed::Chance;
use malle_journal::{MemoryDisk, Pace};
use malle_node::bodies::CollectTimes;
use malle_node::config::{Config, Log, Telemetry, Timing as TimingName, TlsFiles};
use malle_node::env::{Clock, Entropy, Env};
use malle_node::raft::{LogKept, Timing};
use malle_node::security::password::Effort;
use malle_node::server::{Ground, Interior};
use malle_node::state::{Indexes, MemoryIndexes};
use malle_proto::NodeId;
use malle_rt::Instant;
use malle_rt::sim::Host;
use tokio::sync::oneshot;

use crate::net::{Door, Net, NodeWays};

/// Where the wall clocks of all machines stand at the beginning: a day in 2027.
const START_MS: u64 = 1_800_000_000_000;
/// Small segments: a run of a minute fills, seals, recycles and collects some.
const LOG_SEGMENT_BYTES: u64 = 1 << 20;
const VOLUME_BYTES: u64 = 4 << 20;
/// A sync of an honest disk.
pub const HONEST: Pace = Pace {
    least: Duration::from_micros(100),
    most: Duration::from_millis(3),
};
/// Collection in minutes instead of days. The order of its steps is what keeps bodies, not their length.
const COLLECT: CollectTimes = CollectTimes {
    idle_ms: 2_000,
    released_ms: 2_000,
    forgotten_ms: 8_000,
    first: Duration::from_secs(3),
    every: Duration::from_secs(5),
    look: Duration::from_secs(5),
    pause: Duration::from_millis(5),
};

/// The cluster's name: what every certificate would say.
pub const CLUSTER: &str = "chaos";

/// What all machines of a run share.
#[derive(Clone)]
pub struct Common {
    /// The network.
    pub net: Arc<Net>,
    /// The seed of the run.
    pub seed: u64,
    /// Heartbeats and elections.
    pub timing: Timing,
    /// How much log a group keeps.
    pub log: LogKept,
}

/// See the module.
pub struct Machine {
    /// Its number, from 1.
    pub place: u32,
    /// Its region.
    pub region: String,
    common: Common,
    /// The clock on its wall.
    pub clock: Arc<WallClock>,
    state: Mutex<State>,
    lives: AtomicU64,
}

struct State {
    node: NodeId,
    generation: u32,
    disk: MemoryDisk,
    views: Arc<MemoryIndexes>,
    life: Option<Life>,
    /// Drawn from by cuts and damage.
    chance: Chance,
}

/// A process.
#[derive(Clone)]
pub struct Life {
    /// Whose tasks it is.
    pub host: Arc<Host>,
    /// Its rooms.
    pub interior: Arc<Interior>,
}

/// How a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It is killed, or ends by itself: what it wrote stays with the machine.
    Process,
    /// The machine loses its power.
    Power,
}

impl Machine {
    /// A machine that is off, with an empty disk.
    pub fn new(place: u32, region: &str, common: Common) -> Arc<Machine> {
        let machine = Machine {
            place,
            region: region.to_owned(),
            clock: Arc::new(WallClock::new()),
            state: Mutex::new(State {
                node: NodeId(u64::from(place)),
                generation: 0,
                disk: MemoryDisk::new(),
                views: Arc::default(),
                life: None,
                chance: Chance::of(common.seed, "disk", u64::from(place)),
            }),
            common,
            lives: AtomicU64::new(0),
        };
        let pace = machine.state().chance.next();
        machine.disk().set_pace(HONEST, pace);
        Arc::new(machine)
    }

    /// Its node's id now.
    pub fn node(&self) -> NodeId {
        self.state().node
    }

    /// The process, while there is one.
    pub fn life(&self) -> Option<Life> {
        self.state().life.clone()
    }

    /// Its disk.
    pub fn disk(&self) -> MemoryDisk {
        self.state().disk.clone()
    }

    /// Where its node is: for clients, and for peers.
    pub fn addresses(&self) -> (String, String) {
        let state = self.state();
        let name = match state.generation {
            0 => format!("n{}", self.place),
            generation => format!("n{}.{generation}", self.place),
        };
        (format!("{name}:7420"), format!("{name}:7421"))
    }

    /// The node as the directory has it.
    pub fn as_node(&self) -> malle_client::Node {
        let (client_address, peer_address) = self.addresses();
        malle_client::Node {
            id: self.node(),
            region: self.region.clone(),
            zone: format!("{}-{}", self.region, self.place),
            client_address,
            peer_address,
            retired: false,
        }
    }

    /// Starts the process; returns once it serves.
    ///
    /// # Errors
    /// What keeps the node from starting, or that it was ended before it served.
    pub async fn start(self: &Arc<Self>) -> anyhow::Result<Life> {
        anyhow::ensure!(self.life().is_none(), "machine {} runs already", self.place);
        let number = self.lives.fetch_add(1, Ordering::SeqCst);
        let (node, disk, views) = {
            let state = self.state();
            (state.node, state.disk.clone(), state.views.clone())
        };
        let host = Host::new(node.0);
        let env = Env::new(
            self.clock.clone(),
            Arc::new(Seeded::new(self.common.seed, node.0 << 16 | number)),
        );
        let ground = Ground {
            disk: Arc::new(disk),
            env,
            indexes: Box::new(move |_| views as Arc<dyn Indexes>),
            channels: Arc::new(NodeWays::new(self.common.net.clone(), self.place, node, host.clone())),
            timing: self.common.timing,
            log: self.common.log,
            passwords: Effort::Least,
            bearers: None,
            log_segment_bytes: LOG_SEGMENT_BYTES,
            volume_bytes: VOLUME_BYTES,
            collect: COLLECT,
        };
        let config = self.config(node);
        let (tell, told) = oneshot::channel();
        host.spawn(async move {
            let opened = Interior::open(&config, ground).await;
            // Who started it has gone when nobody listens.
            let _ = tell.send(opened);
        });
        let opened = told.await.context("the process ended while it started")?;
        let interior = Arc::new(opened.with_context(|| format!("node {node} does not start"))?);
        let life = Life { host, interior };
        self.opened(node, &life);
        Ok(life)
    }

    fn opened(&self, node: NodeId, life: &Life) {
        let (clients, peers) = self.addresses();
        let (for_clients, for_peers) = life.interior.services();
        for (address, services) in [(clients, for_clients), (peers, for_peers)] {
            let door = Door {
                place: self.place,
                node,
                host: life.host.clone(),
                services,
            };
            self.common.net.open(&address, door);
        }
        self.state().life = Some(life.clone());
    }

    /// Ends the process at once; what ran, if anything did.
    pub fn end(&self, how: End) -> Option<Life> {
        let mut state = self.state();
        let life = state.life.take();
        if let Some(life) = &life {
            life.host.switch_off();
        }
        let seed = state.chance.next();
        match how {
            End::Process => {
                state.disk.kill();
                state.views.kill();
            }
            End::Power => {
                state.disk.crash(seed);
                let mut fate = Chance::of(seed, "views", 0);
                state.views.cut(|below| fate.below(below));
            }
        }
        drop(state);
        match how {
            End::Process => self.common.net.close(self.place),
            End::Power => self.common.net.darken(self.place),
        }
        life
    }

    /// Stops the process as it is asked to, then it is gone.
    pub async fn stop(&self) {
        let Some(life) = self.life() else { return };
        let (tell, told) = oneshot::channel();
        let interior = life.interior.clone();
        life.host.spawn(async move {
            interior.stop().await;
            let _ = tell.send(());
        });
        // A stop that is cut off ends, too.
        let _ = told.await;
        if self.life().is_some_and(|now| Arc::ptr_eq(&now.host, &life.host)) {
            self.end(End::Process);
        }
    }

    /// The disk is gone, and with it the node: the next start is another node.
    pub fn wipe(&self) {
        self.end(End::Process);
        let mut state = self.state();
        state.generation += 1;
        state.node = NodeId(u64::from(self.place) + 100 * u64::from(state.generation));
        state.disk = MemoryDisk::new();
        let pace = state.chance.next();
        state.disk.set_pace(HONEST, pace);
        state.views = Arc::default();
    }

    /// Inverts a bit in this many places of the volumes and tells how many it hit.
    pub fn rot(&self, count: u64) -> u64 {
        let mut state = self.state();
        let files = state.disk.files_below(&Path::new(DATA_DIR).join("volumes"));
        let files: Vec<(PathBuf, u64)> = files
            .into_iter()
            .filter(|(path, bytes)| is_segment(path) && *bytes > 4096)
            .collect();
        let mut hit = 0;
        for _ in 0..count {
            let Some((path, bytes)) = state.chance.pick(&files).cloned() else {
                break;
            };
            // The front of a volume is full, its end may be empty.
            let offset = 128 + state.chance.below(bytes / 4);
            let bit = state.chance.below(8) as u8;
            state.disk.flip_bit(&path, offset, bit);
            hit += 1;
        }
        hit
    }

    fn config(&self, node: NodeId) -> Config {
        let (client_address, peer_address) = self.addresses();
        let nowhere = SocketAddr::from(([10, 0, 0, self.place as u8], 7420));
        Config {
            node,
            region: self.region.clone(),
            zone: format!("{}-{}", self.region, self.place),
            cluster: CLUSTER.to_owned(),
            data_dir: DATA_DIR.into(),
            client_listen: nowhere,
            peer_listen: nowhere,
            client_address,
            peer_address,
            tls: TlsFiles {
                ca: PathBuf::new(),
                cert: PathBuf::new(),
                key: PathBuf::new(),
            },
            timing: TimingName::Local,
            log: Log::default(),
            telemetry: Telemetry::default(),
            index_cache_bytes: 0,
            scrub_days: 1,
            oauth: None,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where every node keeps its data, on its own disk.
const DATA_DIR: &str = "/node";

fn is_segment(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "seg")
}

/// A clock that goes with the simulated time, and can be set and made to go wrong.
pub struct WallClock {
    state: Mutex<(Instant, u64, u64)>,
}

impl WallClock {
    fn new() -> WallClock {
        WallClock {
            state: Mutex::new((malle_rt::now(), START_MS, 1000)),
        }
    }

    /// It jumps by so many milliseconds and goes at this rate from now on; 1000 is right.
    pub fn shift(&self, step_ms: i64, rate_per_mille: u64) {
        let now_ms = self.now_ms().saturating_add_signed(step_ms);
        *self.state() = (malle_rt::now(), now_ms, rate_per_mille);
    }

    /// It shows the right time again.
    pub fn mend(&self, since_start: Duration) {
        let now_ms = START_MS + since_start.as_millis() as u64;
        *self.state() = (malle_rt::now(), now_ms, 1000);
    }

    fn state(&self) -> MutexGuard<'_, (Instant, u64, u64)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for WallClock {
    fn now_ms(&self) -> u64 {
        let (since, at_ms, rate_per_mille) = *self.state();
        let passed_us = (malle_rt::now() - since).as_micros() as u64;
        at_ms + passed_us / 1000 * rate_per_mille / 1000
    }
}

/// Bytes that follow from the seed, another stream for each life of each node.
struct Seeded {
    key: [u8; 32],
    drawn: AtomicU64,
}

impl Seeded {
    fn new(seed: u64, life: u64) -> Seeded {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes()).update(&life.to_le_bytes());
        Seeded {
            key: *hasher.finalize().as_bytes(),
            drawn: AtomicU64::new(0),
        }
    }
}

impl Entropy for Seeded {
    fn fill(&self, bytes: &mut [u8]) {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&self.drawn.fetch_add(1, Ordering::SeqCst).to_le_bytes());
        hasher.finalize_xof().fill(bytes);
    }
}
