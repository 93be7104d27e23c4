//! The network: places, the links between them, what is wrong with those, and who answers where.
//!
//! A [`Way`] leads from one place to one address, as a TCP connection with HTTP/2 on it does: what is sent on a stream arrives in order or not
//! at all, a lost packet is sent again later, a cut link holds everything back until a keep-alive gives up and the whole connection breaks.
//! Streams do not wait for each other. Calls are real gRPC requests; only what is below HTTP is simulated.
//!
//! All chance is drawn from one stream of the seed, in the order in which messages are sent, so a run repeats itself.

mod message;
mod way;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use malle_chaos::scenario::Quality;
use malle_chaos::seed::Chance;
use malle_proto::NodeId;
use malle_proto::channel::Services;
use malle_rt::Instant;
use malle_rt::sim::Host;
use tokio::sync::watch;

pub use way::{ClientWays, NodeWays};
use wire::Wire;

/// Where clients are: not at any machine.
pub const CLIENTS: u32 = 0;
/// A lost packet is sent again after this, then after twice as long, and so on.
const RESEND: Duration = Duration::from_millis(200);
/// More losses in a row than this are no loss but a cut.
const RESENDS_MAX: u32 = 6;

/// What answers at an address.
#[derive(Clone)]
pub struct Door {
    /// At which place.
    pub place: u32,
    /// Who it is, as its certificate would say.
    pub node: NodeId,
    /// Whose tasks answer.
    pub host: Arc<Host>,
    /// With what.
    pub services: Services,
}

/// See the module.
pub struct Net {
    state: Mutex<State>,
    /// Rises whenever a link may have opened or closed.
    changed: watch::Sender<u64>,
}

struct State {
    chance: Chance,
    doors: BTreeMap<String, Door>,
    /// Places without power: nothing there says even that nobody answers.
    dark: BTreeSet<u32>,
    cuts: BTreeMap<u32, BTreeSet<(u32, u32)>>,
    worse: BTreeMap<u32, (Vec<u32>, Quality)>,
    /// Region of each place, and the round trips between regions: mean and jitter in microseconds.
    regions: BTreeMap<u32, String>,
    rtt_us: BTreeMap<(String, String), (u64, u64)>,
    /// When a place's bandwidth is free again.
    busy: BTreeMap<u32, Instant>,
    wires: Vec<std::sync::Weak<Wire>>,
    messages: u64,
}

/// Round trip within a region, and between regions of which the scenario says nothing: mean and jitter in microseconds.
const NEAR_US: (u64, u64) = (400, 200);
const FAR_US: (u64, u64) = (20_000, 4_000);

impl Net {
    /// A network without faults.
    pub fn new(
        chance: Chance,
        regions: BTreeMap<u32, String>,
        rtt_us: BTreeMap<(String, String), (u64, u64)>,
    ) -> Arc<Net> {
        let state = State {
            chance,
            doors: BTreeMap::new(),
            dark: BTreeSet::new(),
            cuts: BTreeMap::new(),
            worse: BTreeMap::new(),
            regions,
            rtt_us,
            busy: BTreeMap::new(),
            wires: Vec::new(),
            messages: 0,
        };
        Arc::new(Net {
            state: Mutex::new(state),
            changed: watch::Sender::new(0),
        })
    }

    /// From now on this answers at an address. Connections to what was there before are reset.
    pub fn open(&self, address: &str, door: Door) {
        let place = door.place;
        let mut state = self.state();
        state.dark.remove(&place);
        state.doors.insert(address.to_owned(), door);
        drop(state);
        self.reset(place);
        self.touch();
    }

    /// The process at a place has ended and the machine says so.
    pub fn close(&self, place: u32) {
        self.state().doors.retain(|_, door| door.place != place);
        self.reset(place);
        self.touch();
    }

    /// The machine says nothing any more.
    pub fn darken(&self, place: u32) {
        let mut state = self.state();
        state.doors.retain(|_, door| door.place != place);
        state.dark.insert(place);
        drop(state);
        self.touch();
    }

    /// Cuts these links, until the fault of this number ends.
    pub fn cut(&self, fault: u32, links: BTreeSet<(u32, u32)>) {
        self.state().cuts.insert(fault, links);
        self.touch();
    }

    /// Lines of these places are so much worse, until the fault of this number ends.
    pub fn worsen(&self, fault: u32, places: Vec<u32>, quality: Quality) {
        self.state().worse.insert(fault, (places, quality));
    }

    /// The fault of this number ends.
    pub fn heal(&self, fault: u32) {
        let mut state = self.state();
        state.cuts.remove(&fault);
        state.worse.remove(&fault);
        drop(state);
        self.touch();
    }

    /// Messages until now.
    pub fn messages(&self) -> u64 {
        self.state().messages
    }

    /// Ends every connection of a place of which one end is not the one that was there.
    fn reset(&self, place: u32) {
        let mut state = self.state();
        state.wires.retain(|wire| wire.strong_count() > 0);
        let wires: Vec<Arc<Wire>> = state.wires.iter().filter_map(std::sync::Weak::upgrade).collect();
        drop(state);
        for wire in wires.iter().filter(|wire| wire.touches(place) && !wire.ends_live()) {
            wire.break_off("connection reset");
        }
    }

    fn door(&self, address: &str) -> Option<Door> {
        self.state().doors.get(address).cloned()
    }

    fn is_dark(&self, place: u32) -> bool {
        self.state().dark.contains(&place)
    }

    fn is_open(&self, from: u32, to: u32) -> bool {
        let state = self.state();
        let lit = !state.dark.contains(&from) && !state.dark.contains(&to);
        lit && !state.cuts.values().any(|cut| cut.contains(&(from, to)))
    }

    /// Returns once a message can go from here to there.
    async fn until_open(&self, from: u32, to: u32) {
        let mut changed = self.changed.subscribe();
        while !self.is_open(from, to) {
            changed.borrow_and_update();
            // The network outlives everything that is on it.
            let _ = changed.changed().await;
        }
    }

    /// When a message of this size that is sent now arrives, behind the one that arrives at `after`.
    fn arrival(&self, from: u32, to: u32, bytes: usize, after: Option<Instant>) -> Instant {
        let mut state = self.state();
        let now = malle_rt::now();
        let travel = state.travel(from, to, bytes, now);
        state.messages += 1;
        let at = (now + travel).max(after.unwrap_or(now));
        malle_rt::trace(&[u64::from(from), u64::from(to), bytes as u64, travel.as_nanos() as u64]);
        at
    }

    /// Whether a unary call arrives twice.
    fn doubles(&self, from: u32, to: u32) -> bool {
        let mut state = self.state();
        let most = state.at(from, to).map(|line| line.duplicate_per_mille).max();
        most.is_some_and(|most| state.chance.below(1000) < most)
    }

    fn register(&self, wire: &Arc<Wire>) {
        self.state().wires.push(Arc::downgrade(wire));
    }

    fn touch(&self) {
        self.changed.send_modify(|changed| *changed += 1);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn at(&self, from: u32, to: u32) -> impl Iterator<Item = Quality> + use<> {
        let here: Vec<Quality> = self
            .worse
            .values()
            .filter(|(places, _)| places.contains(&from) || places.contains(&to))
            .map(|(_, quality)| *quality)
            .collect();
        here.into_iter()
    }

    fn round_trip(&self, from: u32, to: u32) -> (u64, u64) {
        // Clients stand beside the machines that they ask.
        let (Some(one), Some(other)) = (self.regions.get(&from), self.regions.get(&to)) else {
            return NEAR_US;
        };
        if one == other {
            return NEAR_US;
        }
        let known = |one: &String, other: &String| self.rtt_us.get(&(one.clone(), other.clone())).copied();
        known(one, other).or_else(|| known(other, one)).unwrap_or(FAR_US)
    }

    fn travel(&mut self, from: u32, to: u32, bytes: usize, now: Instant) -> Duration {
        let (mean, jitter) = self.round_trip(from, to);
        let mut us = mean / 2 + self.chance.below(jitter / 2 + 1);
        for line in self.at(from, to) {
            us += line.delay_us + self.chance.below(line.jitter_us + 1);
            let mut resend = RESEND.as_micros() as u64;
            for _ in 0..RESENDS_MAX {
                if self.chance.below(1000) >= line.loss_per_mille {
                    break;
                }
                us += resend;
                resend *= 2;
            }
            if line.reorder_per_mille > 0 && self.chance.below(1000) < line.reorder_per_mille {
                us += mean + line.delay_us * 4;
            }
            if line.rate_kbit > 0 {
                let takes = Duration::from_micros(bytes as u64 * 8_000 / line.rate_kbit);
                let free = self.busy.get(&from).copied().unwrap_or(now).max(now) + takes;
                self.busy.insert(from, free);
                us += (free - now).as_micros() as u64;
            }
        }
        Duration::from_micros(us)
    }
}
