//! The cluster of one run: its machines, its network, and what an onlooker sees of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use malle_chaos::history::{Broken, Record, Recorder};
use malle_chaos::plan::Present;
use malle_chaos::scenario::Scenario;
use malle_chaos::seed::Chance;
use malle_client::Client;
use malle_node::raft::{LogKept, Timing};
use malle_node::security::{GatewayRoles, Identity};
use malle_rt::Instant;

use crate::machine::{Common, Machine};
use crate::net::{ClientWays, Net};

/// A step of an operator takes at most this long.
const STEP: Duration = Duration::from_secs(60);

/// See the module.
pub struct World {
    /// The network.
    pub net: Arc<Net>,
    /// By place, from 1.
    pub machines: BTreeMap<u32, Arc<Machine>>,
    /// When the simulated time began.
    pub began: Instant,
    down: Mutex<BTreeMap<u32, u32>>,
    operator: Mutex<Option<Client>>,
}

impl World {
    /// Machines as the scenario has them, all off.
    ///
    /// # Errors
    /// When a setting is not one of the simulation.
    pub fn new(scenario: &Scenario, seed: u64) -> anyhow::Result<Arc<World>> {
        let places = scenario.places();
        let regions = places.iter().map(|(place, region)| (*place, (*region).to_owned()));
        let rtt_ms = &scenario.topology.rtt_ms;
        let rtt_us = rtt_ms
            .iter()
            .map(|(one, other, mean, jitter)| ((one.clone(), other.clone()), (mean * 1000, jitter * 1000)));
        let net = Net::new(Chance::of(seed, "net", 0), regions.collect(), rtt_us.collect());
        let (timing, log) = settings(scenario, seed)?;
        let common = Common {
            net: net.clone(),
            seed,
            timing,
            log,
        };
        let machines = places
            .iter()
            .map(|(place, region)| (*place, Machine::new(*place, region, common.clone())));
        Ok(Arc::new(World {
            net,
            machines: machines.collect(),
            began: malle_rt::now(),
            down: Mutex::default(),
            operator: Mutex::default(),
        }))
    }

    /// The machine at a place of the scenario.
    pub fn machine(&self, place: u32) -> &Arc<Machine> {
        &self.machines[&place]
    }

    /// A client of the cluster: a front end for mail and logins.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn front_end(&self, name: &str) -> anyhow::Result<Client> {
        let roles = GatewayRoles { lmtp: true, imap: true };
        let name = name.to_owned();
        self.client(Identity::Gateway { name, roles }).await
    }

    /// The operator's client.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn operator(&self) -> anyhow::Result<Client> {
        let known = self.operator.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(client) = known {
            return Ok(client);
        }
        let name = "operator".to_owned();
        let client = self.client(Identity::Operator { name }).await?;
        *self.operator.lock().unwrap_or_else(PoisonError::into_inner) = Some(client.clone());
        Ok(client)
    }

    async fn client(&self, identity: Identity) -> anyhow::Result<Client> {
        let endpoints: Vec<String> = self.machines.values().map(|machine| machine.addresses().0).collect();
        let ways = Arc::new(ClientWays::new(self.net.clone(), identity));
        Ok(Client::connect_over(&endpoints, STEP, ways).await?)
    }

    /// A fault has hold of these machines until as many calls of [`World::release`].
    pub fn take_down(&self, places: &[u32]) {
        let mut down = self.down();
        for place in places {
            *down.entry(*place).or_default() += 1;
        }
    }

    /// See [`World::take_down`].
    pub fn release(&self, places: &[u32]) {
        let mut down = self.down();
        for place in places {
            if let Some(count) = down.get_mut(place) {
                *count -= 1;
            }
            down.retain(|_, count| *count > 0);
        }
    }

    fn down(&self) -> MutexGuard<'_, BTreeMap<u32, u32>> {
        self.down.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What an onlooker sees now.
    pub fn present(&self) -> Present {
        let mut present = Present {
            places: self
                .machines
                .iter()
                .map(|(place, machine)| (*place, machine.region.clone()))
                .collect(),
            ..Present::default()
        };
        let mut terms: BTreeMap<u32, u64> = BTreeMap::new();
        for (place, machine) in &self.machines {
            let Some(life) = machine.life() else { continue };
            for group in life.interior.groups().all() {
                let status = group.status();
                let shard = status.shard;
                if status.voters.contains(&machine.node().0) {
                    present.replicas.entry(shard).or_default().push(*place);
                }
                if status.role == "leader" && terms.get(&shard).is_none_or(|term| status.term > *term) {
                    terms.insert(shard, status.term);
                    present.leaders.insert(shard, *place);
                }
            }
        }
        // A machine that is off although no fault has hold of it stopped by itself, or does not start.
        let down = self.down();
        let off = |place: &u32| down.contains_key(place) || self.machines[place].life().is_none();
        present.down = self.machines.keys().copied().filter(|place| off(place)).collect();
        present
    }

    /// Groups that these machines lead.
    pub fn led_by(&self, places: &[u32]) -> Vec<u32> {
        let leaders = self.present().leaders;
        leaders
            .into_iter()
            .filter(|(_, place)| places.contains(place))
            .map(|(group, _)| group)
            .collect()
    }
}

/// Writes down what no run may show.
pub fn broken(recorder: &Recorder, place: Option<u32>, what: String) {
    eprintln!("chaos-sim: {:.3} s: {what}", recorder.now_us() as f64 / 1e6);
    recorder.write(&Record::Broken(Broken {
        at_us: recorder.now_us(),
        place,
        what,
    }));
}

/// Log that a group of the simulation keeps, unless the scenario says otherwise: so little that followers that were away need snapshots.
const KEPT: LogKept = LogKept {
    checkpoint_bytes: 256 * 1024,
    entries: 500,
};

fn settings(scenario: &Scenario, seed: u64) -> anyhow::Result<(Timing, LogKept)> {
    let (mut timing, mut log) = match scenario.topology.is_wide() {
        true => (Timing::WAN, KEPT),
        false => (Timing::LOCAL, KEPT),
    };
    for (name, value) in malle_chaos::plan::settings(scenario, seed) {
        match name.as_str() {
            "heartbeat_ms" => timing.heartbeat_ms = value,
            "election_min_ms" | "election_timeout_min_ms" => timing.election_min_ms = value,
            "election_max_ms" | "election_timeout_max_ms" => timing.election_max_ms = value,
            "checkpoint_log_bytes" => log.checkpoint_bytes = value,
            "log_kept_entries" | "snapshot_every" => log.entries = value,
            other => anyhow::bail!("topology.config.{other} is no setting of the simulation"),
        }
    }
    timing.election_max_ms = timing.election_max_ms.max(timing.election_min_ms + 1);
    Ok((timing, log))
}
