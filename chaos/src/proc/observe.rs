//! What the nodes say of themselves, asked again and again: for the history, and for steps that hit whoever leads.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use malle_client::{Client, NodeId, NodeStatus};

use crate::history::{NodeEvent, Record, Recorder};
use crate::plan::Present;
use crate::workload::hex;

/// Between two rounds of questions.
const PAUSE: Duration = Duration::from_millis(500);
/// A node that does not answer by then says nothing in this round.
const ANSWER: Duration = Duration::from_millis(1500);
/// A digest costs a flush of the view.
const DIGEST: Duration = Duration::from_secs(20);

/// Asks nodes. Cheap to clone; clones share what they know.
#[derive(Clone)]
pub struct Observer {
    operator: Client,
    regions: Arc<BTreeMap<u32, String>>,
    seen: Arc<Mutex<Seen>>,
    recorder: Recorder,
}

#[derive(Default)]
struct Seen {
    up: BTreeMap<u32, NodeId>,
    /// What each node said last, by place and group: only changes are written.
    said: BTreeMap<(u32, u32), (String, u64)>,
    /// When that was written, by place.
    written_us: BTreeMap<u32, u64>,
}

impl Observer {
    /// Of a cluster whose nodes are up, with the region of each.
    pub fn new(operator: Client, regions: BTreeMap<u32, String>, recorder: Recorder) -> Observer {
        let up = regions
            .keys()
            .map(|place| (*place, NodeId(u64::from(*place))))
            .collect();
        Observer {
            operator,
            regions: Arc::new(regions),
            seen: Arc::new(Mutex::new(Seen { up, ..Seen::default() })),
            recorder,
        }
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node is not asked any more.
    pub fn down(&self, place: u32) {
        let mut seen = self.seen();
        seen.up.remove(&place);
        seen.said.retain(|(at, _), _| *at != place);
    }

    /// A node is asked again, under this id.
    pub fn up(&self, place: u32, node: NodeId) {
        self.seen().up.insert(place, node);
    }

    /// Every node that is up.
    pub fn places_up(&self) -> Vec<u32> {
        self.seen().up.keys().copied().collect()
    }

    /// Asks every node that is up, all at once.
    pub async fn ask(&self, digests: bool) -> BTreeMap<u32, NodeStatus> {
        let up = self.seen().up.clone();
        let operator = &self.operator.with_deadline(if digests { DIGEST } else { ANSWER });
        let asked = up.into_iter().map(|(place, node)| async move {
            let answer = operator.cluster().node_status(node, digests).await;
            Some((place, answer.ok()?))
        });
        futures::future::join_all(asked).await.into_iter().flatten().collect()
    }

    /// Writes what nodes say to the history until the end of the timeline: roles and terms when they change.
    pub async fn watch(self) {
        while self.recorder.now_us() < self.recorder.timeline().end_us {
            self.round(false, false).await;
            malle_rt::sleep(PAUSE).await;
        }
    }

    /// Asks every node that is up, and writes what it says; with `all` also what did not change.
    pub async fn round(&self, digests: bool, all: bool) -> BTreeMap<u32, NodeStatus> {
        let asked_us = self.recorder.now_us();
        let statuses = self.ask(digests).await;
        self.note(&statuses, asked_us, all);
        statuses
    }

    fn note(&self, statuses: &BTreeMap<u32, NodeStatus>, asked_us: u64, all: bool) {
        let at_us = self.recorder.now_us();
        for (place, status) in statuses {
            // Two rounds at one time: what another one was told since this one began may be the newer.
            if self
                .seen()
                .written_us
                .get(place)
                .is_some_and(|written_us| *written_us >= asked_us)
            {
                continue;
            }
            self.seen().written_us.insert(*place, at_us);
            for group in &status.groups {
                let now = (group.role.clone(), group.term);
                let before = self.seen().said.insert((*place, group.shard.0), now.clone());
                if before.as_ref() == Some(&now) && !all {
                    continue;
                }
                self.recorder.write(&Record::Node(NodeEvent {
                    at_us,
                    place: *place,
                    node: status.node.0,
                    group: group.shard.0,
                    role: group.role.clone(),
                    term: group.term,
                    committed: group.committed_index,
                    applied: group.applied_index,
                    digest: group.digest.map(|digest| hex(&digest)),
                }));
            }
        }
    }

    /// What is true now, for the choice of whom a step hits. `down` are machines that a step has hold of.
    pub async fn present(&self, down: Vec<u32>) -> Present {
        let statuses = self.round(false, false).await;
        let places: BTreeMap<NodeId, u32> = statuses.iter().map(|(place, status)| (status.node, *place)).collect();
        let mut present = Present {
            places: (*self.regions).clone(),
            down,
            ..Present::default()
        };
        // Of two that say they lead, the one with the higher term does.
        let mut terms: BTreeMap<u32, u64> = BTreeMap::new();
        for (place, status) in &statuses {
            for group in &status.groups {
                let shard = group.shard.0;
                let voters = group.voters.iter().filter_map(|node| places.get(node)).copied();
                let known = present.replicas.entry(shard).or_default();
                known.extend(voters);
                known.sort_unstable();
                known.dedup();
                if group.role == "leader" && group.term >= terms.get(&shard).copied().unwrap_or(0) {
                    terms.insert(shard, group.term);
                    present.leaders.insert(shard, *place);
                }
            }
        }
        present
    }
}
