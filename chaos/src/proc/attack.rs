//! Carrying out the steps of a plan on a running cluster, and undoing each.
//!
//! One loop owns the [`World`]: it begins and ends steps at their times and, between them, looks whether a node ended that nobody hit. What
//! it does and what it cannot do goes to the history. What this engine cannot do is skipped with the reason.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Context;
use malle_client::{NodeId, ShardId};

use super::net::{HOST, address};
use super::observe::Observer;
use super::wire::Quality;
use super::world::World;
use crate::history::{Broken, FaultEvent, FaultState, Record, Recorder};
use crate::plan::{Present, Skipped, Step, links};
use crate::scenario::{DiskFault, Fault};
use crate::seed::Chance;

/// Between two looks whether a node has ended.
const LOOK: Duration = Duration::from_millis(200);
/// A process that stands still for less than this is frozen, which no signal handler sees; for longer it gets SIGSTOP, as people do it.
const MOMENT_US: u64 = 1_000_000;
/// How a node ends whose disk failed.
const DISK_FAILED: i32 = 74;
/// A file system is let go by a killed process when the kernel comes to it.
const LET_GO: Duration = Duration::from_secs(30);

/// A step that has begun.
struct Begun {
    step: Step,
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
    flips: Vec<(u32, super::disk::Flip)>,
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
    pub async fn run(mut self, steps: &[Step], heal_us: u64) -> anyhow::Result<Vec<(u32, super::disk::Flip)>> {
        let mut waiting: Vec<&Step> = steps.iter().rev().collect();
        loop {
            let now_us = self.recorder.now_us();
            let next_end = self.begun.iter().map(|begun| begun.step.at_us + begun.step.lasts_us).min();
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
                    let next_us = next.map(|step| step.at_us).into_iter().chain(end).min().unwrap_or(heal_us);
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
            self.begun.push(begun);
        }
        Ok(())
    }

    /// Does it. `Ok(Err(_))`: this engine cannot, and nothing was done.
    async fn hit(&mut self, begun: &mut Begun, present: &Present) -> anyhow::Result<Result<(), Skipped>> {
        let places = begun.places.clone();
        match begun.step.fault.clone() {
            Fault::Kill | Fault::Wipe => {
                self.hold(&places);
                for place in places {
                    self.down(place).await?;
                }
            }
            Fault::Powerloss => {
                self.hold(&places);
                // First all disks, then the processes, which must not write down what they saw.
                for place in &places {
                    self.world.at(*place)?.disk.power().cut()?;
                }
                for place in places {
                    self.down(place).await?;
                }
            }
            Fault::Stop => {
                self.hold(&places);
                for place in places {
                    self.observer.down(place);
                    let process = self.world.at_mut(place)?.process.take();
                    process.context("a node that is down cannot stop")?.stop().await?;
                }
            }
            Fault::Pause => {
                self.hold(&places);
                for place in places {
                    self.pause(place, begun.step.lasts_us, true)?;
                }
            }
            Fault::Partition { shape, clients } => {
                let all = self.world.places();
                begun.cut = links(shape, &places, &all);
                if clients {
                    begun.cut.extend(places.iter().flat_map(|place| [(*place, HOST), (HOST, *place)]));
                }
                for (from, to) in &begun.cut {
                    self.world.net.cut(*from, *to)?;
                }
            }
            Fault::Net { .. } => self.worsen(begun)?,
            Fault::Disk { what, delay_us, count } => {
                return self.hit_disks(begun, what, delay_us, count, present);
            }
            Fault::Clock { step_ms, rate_per_mille } => {
                for place in places {
                    self.page(place)?.clock(step_ms, i64::try_from(rate_per_mille)?)?;
                }
            }
            Fault::Transfer { group } => return self.transfer(group, &places, present).await,
            Fault::Membership { .. } => {
                let reason = "malle changes voters only by replacing a node".to_owned();
                return Ok(Err(Skipped::Impossible(reason)));
            }
            Fault::Squeeze { cpu_pct, memory_mib, files } => {
                for place in places {
                    self.squeeze(place, cpu_pct, memory_mib, files)?;
                }
            }
        }
        Ok(Ok(()))
    }

    fn hold(&mut self, places: &[u32]) {
        self.held.extend(places);
    }

    async fn down(&mut self, place: u32) -> anyhow::Result<()> {
        self.observer.down(place);
        match self.world.at_mut(place)?.process.take() {
            Some(mut process) => process.kill().await,
            None => Ok(()),
        }
    }

    fn page(&self, place: u32) -> anyhow::Result<&super::shim::Page> {
        self.world.at(place)?.page.as_ref().context("the nodes run without the shim")
    }

    fn pause(&mut self, place: u32, lasts_us: u64, still: bool) -> anyhow::Result<()> {
        let machine = self.world.at(place)?;
        if lasts_us < MOMENT_US {
            return machine.squeeze.freeze(still);
        }
        machine.process.as_ref().context("a node that is down cannot be paused")?.pause(still)
    }

    fn worsen(&mut self, begun: &mut Begun) -> anyhow::Result<()> {
        let all = self.world.places();
        for place in &begun.places {
            let others = all.iter().copied().filter(|other| other != place);
            begun.cut.extend(others.flat_map(|other| [(*place, other), (other, *place)]));
        }
        for link in begun.cut.clone() {
            let quality = self.quality(link, Some(&begun.step.fault));
            self.world.net.quality(link.0, link.1, quality)?;
        }
        Ok(())
    }

    /// What a link is with every fault that has hold of it.
    fn quality(&self, link: (u32, u32), more: Option<&Fault>) -> Option<Quality> {
        let others = self.begun.iter().filter(|begun| begun.cut.contains(&link)).map(|begun| &begun.step.fault);
        let mut quality = self.lines.get(&link).copied().unwrap_or_default();
        for fault in others.chain(more) {
            if let Fault::Net {
                delay_us,
                jitter_us,
                loss_per_mille,
                duplicate_per_mille,
                reorder_per_mille,
                rate_kbit,
            } = fault
            {
                quality.delay_us += delay_us;
                quality.jitter_us += jitter_us;
                quality.loss_per_mille = (quality.loss_per_mille + loss_per_mille).min(1000);
                quality.duplicate_per_mille = (quality.duplicate_per_mille + duplicate_per_mille).min(1000);
                quality.reorder_per_mille = (quality.reorder_per_mille + reorder_per_mille).min(1000);
                quality.rate_kbit = [quality.rate_kbit, *rate_kbit].into_iter().filter(|rate| *rate > 0).min().unwrap_or(0);
            }
        }
        (quality != Quality::default()).then_some(quality)
    }

    fn hit_disks(
        &mut self,
        begun: &Begun,
        what: DiskFault,
        delay_us: u64,
        count: u64,
        present: &Present,
    ) -> anyhow::Result<Result<(), Skipped>> {
        let mut chance = Chance::of(begun.step.draw, "rot", 0);
        let whole = present.replicas.values().map(Vec::len).min().unwrap_or(1);
        for place in begun.places.clone() {
            let machine = self.world.at(place)?;
            match what {
                DiskFault::SyncEio => {
                    machine.disk.fail_syncs()?;
                    self.held.insert(place);
                    self.broken_disks.insert(place);
                }
                DiskFault::Full => {
                    machine.disk.fill()?;
                    self.held.insert(place);
                }
                DiskFault::Slow => {
                    let writes = (1_000_000 / delay_us.max(1)).max(1);
                    machine.squeeze.writes(&machine.disk.numbers()?, writes)?;
                }
                DiskFault::Hang => {
                    machine.disk.hang(true)?;
                    self.held.insert(place);
                }
                DiskFault::Bitflip => {
                    if begun.places.len() >= whole {
                        let reason = "a good copy of everything must be left".to_owned();
                        return Ok(Err(Skipped::Impossible(reason)));
                    }
                    let rotten = machine.disk.rot(&machine.data(), usize::try_from(count)?, |below| chance.below(below));
                    match rotten {
                        Ok(flips) => self.flips.extend(flips.into_iter().map(|flip| (place, flip))),
                        Err(error) => return Ok(Err(Skipped::Impossible(format!("{error:#}")))),
                    }
                }
                DiskFault::LyingSync => self.page(place)?.sync_lies(true)?,
                DiskFault::ReadEio | DiskFault::Torn | DiskFault::ReadOnly => {
                    let reason = format!("proc has no disk with the fault {what:?}; sim has");
                    return Ok(Err(Skipped::Impossible(reason)));
                }
            }
        }
        Ok(Ok(()))
    }

    async fn transfer(
        &mut self,
        group: Option<u32>,
        places: &[u32],
        present: &Present,
    ) -> anyhow::Result<Result<(), Skipped>> {
        let operator = self.world.operator().await?;
        let chosen = present.leaders.iter().filter(|(led, leader)| match group {
            Some(group) => **led == group,
            None => places.contains(leader),
        });
        let mut moved = Err(Skipped::Impossible("nobody selected leads anything now".to_owned()));
        for (led, leader) in chosen {
            let others = present.replicas.get(led).into_iter().flatten();
            let Some(to) = others.copied().find(|place| place != leader && !present.down.contains(place)) else {
                continue;
            };
            let to = self.world.at(to)?.node;
            match operator.cluster().leader_move(ShardId(*led), to).await {
                Ok(()) => moved = Ok(()),
                // A cluster under attack may refuse; that is no fault of anybody.
                Err(error) if moved.is_err() => moved = Err(Skipped::Impossible(error.to_string())),
                Err(_) => {}
            }
        }
        Ok(moved)
    }

    fn squeeze(&mut self, place: u32, cpu_pct: u64, memory_mib: u64, files: u64) -> anyhow::Result<()> {
        let machine = self.world.at(place)?;
        if cpu_pct > 0 {
            machine.squeeze.cpu(cpu_pct)?;
        }
        if memory_mib > 0 {
            machine.squeeze.memory(memory_mib)?;
            // The kernel may kill it.
            self.held.insert(place);
        }
        if files > 0 {
            self.limit_files(place, files)?;
        }
        Ok(())
    }

    /// The soft limit only: it can be raised again.
    fn limit_files(&self, place: u32, files: u64) -> anyhow::Result<()> {
        let process = self.world.at(place)?.process.as_ref().context("a node that is down has no files")?;
        let (pid, limit) = (process.pid().to_string(), format!("--nofile={files}:"));
        harness::host::run("prlimit", &["--pid", &pid, &limit]).map(drop)
    }

    async fn end_first(&mut self, end_us: u64) -> anyhow::Result<()> {
        let ends = |begun: &Begun| begun.step.at_us + begun.step.lasts_us == end_us;
        let at = self.begun.iter().position(ends).context("no step ends now")?;
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

    async fn undo(&mut self, begun: &Begun) -> anyhow::Result<()> {
        for place in begun.places.clone() {
            match &begun.step.fault {
                Fault::Kill | Fault::Stop => self.up(place).await?,
                Fault::Powerloss => {
                    self.power_on(place).await?;
                    self.up(place).await?;
                }
                Fault::Wipe => {
                    let new = NodeId(self.next_node);
                    self.next_node += 1;
                    self.world.replace(place, new).await?;
                    self.observer.up(place, new);
                }
                Fault::Pause => self.pause(place, begun.step.lasts_us, false)?,
                Fault::Partition { .. } | Fault::Net { .. } | Fault::Transfer { .. } | Fault::Membership { .. } => {}
                Fault::Disk { what, .. } => self.undo_disk(place, *what).await?,
                Fault::Clock { .. } => self.page(place)?.clock(0, 1000)?,
                Fault::Squeeze { files, .. } => {
                    self.world.at(place)?.squeeze.release()?;
                    if self.revive(place).await? && *files > 0 {
                        self.limit_files(place, 65_536)?;
                    }
                }
            }
        }
        for (from, to) in &begun.cut {
            match &begun.step.fault {
                Fault::Net { .. } => {
                    let quality = self.quality((*from, *to), None);
                    self.world.net.quality(*from, *to, quality)?;
                }
                _ => self.world.net.mend(*from, *to)?,
            }
        }
        Ok(())
    }

    async fn undo_disk(&mut self, place: u32, what: DiskFault) -> anyhow::Result<()> {
        let machine = self.world.at(place)?;
        match what {
            DiskFault::Full => {
                machine.disk.empty()?;
                self.revive(place).await?;
            }
            DiskFault::Slow => machine.squeeze.writes(&machine.disk.numbers()?, 0)?,
            DiskFault::Hang => {
                machine.disk.hang(false)?;
                self.revive(place).await?;
            }
            DiskFault::LyingSync => self.page(place)?.sync_lies(false)?,
            DiskFault::SyncEio | DiskFault::ReadEio | DiskFault::Bitflip | DiskFault::Torn | DiskFault::ReadOnly => {}
        }
        Ok(())
    }

    async fn up(&mut self, place: u32) -> anyhow::Result<()> {
        self.world.restart(place).await?;
        let node = self.world.at(place)?.node;
        self.observer.up(place, node);
        Ok(())
    }

    async fn power_on(&mut self, place: u32) -> anyhow::Result<()> {
        let disk = self.world.at(place)?.disk.power();
        harness::until(format!("the disk at place {place}"), LET_GO, || async {
            disk.power_on().map(Some)
        })
        .await
    }

    /// Starts a node again that ended under its fault; whether it had gone on by itself.
    async fn revive(&mut self, place: u32) -> anyhow::Result<bool> {
        let process = self.world.at_mut(place)?.process.as_mut();
        let ended = match process {
            Some(process) => process.ended()?.is_some(),
            None => true,
        };
        if ended {
            self.up(place).await?;
        }
        Ok(!ended)
    }

    /// Looks at the disks that failed a sync, as their operators do: their nodes must have left by now; they are started again on a disk
    /// that works.
    async fn heal_disks(&mut self) -> anyhow::Result<()> {
        for place in std::mem::take(&mut self.broken_disks) {
            let process = self.world.at_mut(place)?.process.as_mut();
            let code = process.context("a node is there or was")?.ended()?.map(|status| status.code());
            if code != Some(Some(DISK_FAILED)) {
                let what = format!("a node whose disk failed a sync must leave with {DISK_FAILED}, and did {code:?}");
                self.broken(Some(place), what);
            }
            self.down(place).await?;
            let disk = &self.world.at(place)?.disk;
            harness::until(format!("the disk at place {place}"), LET_GO, || async { disk.heal_syncs().map(Some) }).await?;
            self.up(place).await?;
            self.held.remove(&place);
        }
        Ok(())
    }

    fn broken(&self, place: Option<u32>, what: String) {
        let at_us = self.recorder.now_us();
        self.recorder.write(&Record::Broken(Broken { at_us, place, what }));
    }

    /// A node that ended and was not hit is something that no run may show.
    fn look(&mut self) -> anyhow::Result<()> {
        for place in self.world.places() {
            let Some(process) = self.world.at_mut(place)?.process.as_mut() else { continue };
            let Some(status) = process.ended()? else { continue };
            self.observer.down(place);
            if !self.held.contains(&place) {
                self.broken(Some(place), format!("the node at {} ended by itself: {status}", address(place)));
                // Said once; the run goes on, as a cluster would.
                self.held.insert(place);
            }
        }
        Ok(())
    }
}
