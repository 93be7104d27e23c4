//! Carrying out the steps of a plan on a running cluster, and undoing each.
//!
//! One loop owns the [`World`]: it begins and ends steps at their times and, between them, looks whether a node ended that nobody hit. What
//! it does and what it cannot do goes to the history. What this engine cannot do is skipped with the reason. [`hit`] begins each fault,
//! [`undo`] ends it.

mod hit;
mod undo;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Context;

use super::disk::Flip;
use super::net::address;
use super::observe::Observer;
use super::world::World;
use crate::history::{Broken, FaultEvent, FaultState, Record, Recorder};
use crate::plan::{Present, Step};
use crate::scenario::Quality;

/// Between two looks whether a node has ended.
const LOOK: Duration = Duration::from_millis(200);

/// What was changed on the disk of a machine.
pub type Flips = Vec<(u32, Flip)>;

/// A step that has begun.
struct Begun {
    step: Step,
    /// It lasts as long as the plan says, also when it began late because something before it took long.
    ends_us: u64,
    places: Vec<u32>,
    /// Links that it cut, and links that it made worse.
    cut: BTreeSet<(u32, u32)>,
}

/// What attacks a cluster.
pub struct Attack<'a> {
    world: &'a mut World,
    recorder: Recorder,
    observer: Observer,
    /// Quality of links without faults.
    lines: BTreeMap<(u32, u32), Quality>,
    begun: Vec<Begun>,
    /// Machines that a step has hold of: their nodes may end.
    held: BTreeSet<u32>,
    /// Machines whose disk failed a sync.
    broken_disks: BTreeSet<u32>,
    /// Bytes that were changed.
    flips: Flips,
    next_node: u64,
}

impl<'a> Attack<'a> {
    /// On this cluster, whose links have this quality without faults.
    pub fn new(
        world: &'a mut World,
        recorder: Recorder,
        observer: Observer,
        lines: BTreeMap<(u32, u32), Quality>,
    ) -> Attack<'a> {
        let next_node = world.places().len() as u64 + 1;
        Attack {
            world,
            recorder,
            observer,
            lines,
            begun: Vec::new(),
            held: BTreeSet::new(),
            broken_disks: BTreeSet::new(),
            flips: Vec::new(),
            next_node,
        }
    }

    /// Carries out all steps, each at its time, and ends what has no end of its own at `heal_us`. Gives back what rotted.
    ///
    /// # Errors
    /// When something cannot be undone: the run then means nothing.
    pub async fn run(mut self, steps: &[Step], heal_us: u64) -> anyhow::Result<Flips> {
        let mut waiting: Vec<&Step> = steps.iter().rev().collect();
        loop {
            let now_us = self.recorder.now_us();
            let next_end = self.begun.iter().map(|begun| begun.ends_us).min();
            match (waiting.last(), next_end) {
                // What ends at the same time as something begins ends first.
                (_, Some(end_us)) if end_us <= now_us => self.end_first(end_us).await?,
                (Some(step), _) if step.at_us <= now_us => {
                    self.begin(step).await?;
                    waiting.pop();
                }
                (next, end) => {
                    let healed = self.broken_disks.is_empty() || now_us >= heal_us;
                    if next.is_none() && end.is_none() && healed {
                        break;
                    }
                    let next_us = next
                        .map(|step| step.at_us)
                        .into_iter()
                        .chain(end)
                        .min()
                        .unwrap_or(heal_us);
                    let until_next = Duration::from_micros(next_us.saturating_sub(now_us));
                    self.look()?;
                    malle_rt::sleep(until_next.min(LOOK)).await;
                }
            }
        }
        self.heal_disks().await?;
        // Nobody is held any more: whoever ended now did so by itself.
        self.look()?;
        Ok(std::mem::take(&mut self.flips))
    }

    fn write(&self, step: &Step, event: FaultState, places: &[u32], led: Vec<u32>) {
        self.recorder.write(&Record::Fault(FaultEvent {
            at_us: self.recorder.now_us(),
            step: step.id,
            fault: step.fault.clone(),
            event,
            places: places.to_vec(),
            led,
        }));
    }

    async fn begin(&mut self, step: &Step) -> anyhow::Result<()> {
        let present: Present = self.observer.present(self.held.iter().copied().collect()).await;
        let places = match step.targets(&present) {
            Ok(places) => places,
            Err(skipped) => {
                self.write(step, FaultState::Skipped(skipped.to_string()), &[], Vec::new());
                return Ok(());
            }
        };
        let led = present.leaders.iter().filter(|(_, leader)| places.contains(leader));
        let led: Vec<u32> = led.map(|(group, _)| *group).collect();
        let mut begun = Begun {
            step: step.clone(),
            ends_us: 0,
            places,
            cut: BTreeSet::new(),
        };
        match self.hit(&mut begun, &present).await {
            Ok(Ok(())) => {}
            Ok(Err(skipped)) => {
                self.write(step, FaultState::Skipped(skipped.to_string()), &[], Vec::new());
                return Ok(());
            }
            Err(error) => return Err(error.context(format!("beginning step {} ({:?})", step.id, step.fault))),
        }
        self.write(step, FaultState::Began, &begun.places, led);
        if step.lasts_us > 0 {
            begun.ends_us = self.recorder.now_us() + step.lasts_us;
            self.begun.push(begun);
        }
        Ok(())
    }

    async fn down(&mut self, place: u32) -> anyhow::Result<()> {
        self.observer.down(place);
        match self.world.at_mut(place)?.process.take() {
            Some(mut process) => process.kill().await,
            None => Ok(()),
        }
    }

    async fn end_first(&mut self, end_us: u64) -> anyhow::Result<()> {
        let at = self.begun.iter().position(|begun| begun.ends_us == end_us);
        let at = at.context("no step ends now")?;
        let begun = self.begun.remove(at);
        let undone = self.undo(&begun).await;
        undone.with_context(|| format!("ending step {} ({:?})", begun.step.id, begun.step.fault))?;
        for place in &begun.places {
            let still = self.begun.iter().any(|other| other.places.contains(place));
            if !still && !self.broken_disks.contains(place) {
                self.held.remove(place);
            }
        }
        self.write(&begun.step, FaultState::Ended, &begun.places, Vec::new());
        Ok(())
    }

    fn broken(&self, place: Option<u32>, what: String) {
        let at_us = self.recorder.now_us();
        self.recorder.write(&Record::Broken(Broken { at_us, place, what }));
    }

    /// A node that ended and was not hit is something that no run may show.
    fn look(&mut self) -> anyhow::Result<()> {
        for place in self.world.places() {
            let Some(process) = self.world.at_mut(place)?.process.as_mut() else {
                continue;
            };
            let Some(status) = process.ended()? else { continue };
            self.observer.down(place);
            if !self.held.contains(&place) {
                self.broken(
                    Some(place),
                    format!("the node at {} ended by itself: {status}", address(place)),
                );
                // Said once; the run goes on, as a cluster would.
                self.held.insert(place);
            }
        }
        Ok(())
    }
}
