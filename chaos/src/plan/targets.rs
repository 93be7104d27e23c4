//! Whom a step hits, decided from what is true when it begins.

use std::collections::BTreeMap;

use super::Step;
use crate::scenario::{Guard, Selector};
use crate::seed::Chance;

/// What an engine sees of its cluster at one moment. Machines are named by their place: their number in the topology, from 1. A machine
/// that was wiped keeps its place and gets a new node id.
#[derive(Debug, Clone, Default)]
pub struct Present {
    /// Every machine and its region.
    pub places: BTreeMap<u32, String>,
    /// Machines that a fault has hold of, except faults of network and clock, which leave the machine's disk and process whole.
    pub down: Vec<u32>,
    /// Who leads each group, where that is known.
    pub leaders: BTreeMap<u32, u32>,
    /// Who holds a replica of each group.
    pub replicas: BTreeMap<u32, Vec<u32>>,
}

/// Why a step was not carried out. It goes to the history: a fault that did not happen proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Skipped {
    /// The group has no leader now.
    #[error("nobody leads group {0} now")]
    NoLeader(u32),
    /// The group has no follower now.
    #[error("group {0} has no follower that is up now")]
    NoFollower(u32),
    /// The guard forbids it.
    #[error("{down} of {all} machines would be down")]
    Guarded {
        /// How many.
        down: usize,
        /// Of how many.
        all: usize,
    },
    /// Everybody selected is down already.
    #[error("everybody selected is down already")]
    AllDown,
    /// The engine cannot do it, or not now.
    #[error("{0}")]
    Impossible(String),
}

impl Step {
    /// The places that this step hits, in rising order.
    ///
    /// # Errors
    /// [`Skipped`] when nobody is hit, or when the guard forbids it.
    pub fn targets(&self, present: &Present) -> Result<Vec<u32>, Skipped> {
        let mut chance = Chance::of(self.draw, "targets", 0);
        let mut targets: Vec<u32> = Vec::new();
        for selector in &self.select.0 {
            let named = self.named(selector, present, &targets, &mut chance)?;
            targets.extend(named);
        }
        targets.sort_unstable();
        targets.dedup();
        if self.takes_down() {
            targets.retain(|place| !present.down.contains(place));
            if targets.is_empty() && !self.select.0.is_empty() {
                return Err(Skipped::AllDown);
            }
            self.guarded(present, targets.len())?;
        }
        Ok(targets)
    }

    fn named(
        &self,
        selector: &Selector,
        present: &Present,
        so_far: &[u32],
        chance: &mut Chance,
    ) -> Result<Vec<u32>, Skipped> {
        let up = |place: &u32| !present.down.contains(place);
        Ok(match selector {
            Selector::Leader(group) => vec![*present.leaders.get(group).ok_or(Skipped::NoLeader(*group))?],
            Selector::Follower(group) => {
                let leader = present.leaders.get(group).ok_or(Skipped::NoLeader(*group))?;
                let replicas = present.replicas.get(group).into_iter().flatten().copied();
                let followers: Vec<u32> = replicas.filter(|place| place != leader).filter(up).collect();
                vec![*chance.pick(&followers).ok_or(Skipped::NoFollower(*group))?]
            }
            Selector::Node(place) => vec![*place],
            Selector::Region(region) => {
                let inside = present.places.iter().filter(|(_, at)| *at == region);
                inside.map(|(place, _)| *place).collect()
            }
            Selector::Random(count) => {
                let others = present.places.keys().copied();
                let others: Vec<u32> = others.filter(|place| up(place) && !so_far.contains(place)).collect();
                chance.draw(&others, *count as usize)
            }
            Selector::All => present.places.keys().copied().collect(),
        })
    }

    /// Does it keep its targets from taking part? A slow machine does take part.
    fn takes_down(&self) -> bool {
        use crate::scenario::{DiskFault, Fault};
        match &self.fault {
            Fault::Kill | Fault::Powerloss | Fault::Stop | Fault::Pause | Fault::Wipe | Fault::Membership { .. } => {
                true
            }
            Fault::Disk { what, .. } => !matches!(what, DiskFault::Slow | DiskFault::Bitflip | DiskFault::LyingSync),
            Fault::Partition { .. }
            | Fault::Net(_)
            | Fault::Clock { .. }
            | Fault::Transfer { .. }
            | Fault::Squeeze { .. } => false,
        }
    }

    fn guarded(&self, present: &Present, more: usize) -> Result<(), Skipped> {
        let all = present.places.len();
        let down = present.down.len() + more;
        let allowed = match self.guard {
            Guard::KeepQuorum => all.saturating_sub(1) / 2,
            Guard::KeepOneCopy => all.saturating_sub(1),
            Guard::None => all,
        };
        if down > allowed {
            return Err(Skipped::Guarded { down, all });
        }
        Ok(())
    }
}
