//! Carries out the plan: begins each fault at its time, ends it at its end, and writes down what became of it.

use std::sync::Arc;
use std::time::Duration;

use malle_chaos::history::{FaultEvent, FaultState, Record, Recorder};
use malle_chaos::plan::{Skipped, Step, links};
use malle_chaos::scenario::{DiskFault, Fault};
use malle_chaos::seed::Chance;
use malle_client::{NodeId, ShardId};
use malle_journal::Pace;

use crate::machine::{End, HONEST, Machine};
use crate::net::CLIENTS;
use crate::observe::watch_over;
use crate::world::{World, broken};

/// A replacement works until it is done; a cluster that cannot do it in this time has a defect or no majority.
const REPLACE: Duration = Duration::from_secs(120);
/// A disk that hangs answers after so long: the fault ends before.
const HANGS: Duration = Duration::from_secs(20);

/// Carries out all steps; returns when the last one has begun. Their ends come by themselves.
pub async fn carry_out(world: Arc<World>, steps: Vec<Step>, recorder: Recorder) {
    let mut ends = Vec::new();
    for step in steps {
        malle_rt::sleep_until(recorder.at(step.at_us)).await;
        let targets = match step.targets(&world.present()) {
            Ok(targets) => targets,
            Err(skipped) => {
                tell(
                    &recorder,
                    &step,
                    FaultState::Skipped(skipped.to_string()),
                    &[],
                    Vec::new(),
                );
                continue;
            }
        };
        let attack = Attack {
            world: world.clone(),
            step,
            targets,
            recorder: recorder.clone(),
        };
        ends.push(malle_rt::spawn(attack.run()));
    }
    for end in ends {
        if let Err(error) = end.await {
            broken(&recorder, None, format!("a fault of the simulation panicked: {error}"));
        }
    }
}

fn tell(recorder: &Recorder, step: &Step, event: FaultState, places: &[u32], led: Vec<u32>) {
    recorder.write(&Record::Fault(FaultEvent {
        at_us: recorder.now_us(),
        step: step.id,
        fault: step.fault.clone(),
        event,
        places: places.to_vec(),
        led,
    }));
}

/// One step on its targets.
struct Attack {
    world: Arc<World>,
    step: Step,
    targets: Vec<u32>,
    recorder: Recorder,
}

impl Attack {
    async fn run(self) {
        let led = self.world.led_by(&self.targets);
        let takes_down = self.takes_down();
        if takes_down {
            self.world.take_down(&self.targets);
        }
        if let Err(skipped) = self.begin().await {
            tell(
                &self.recorder,
                &self.step,
                FaultState::Skipped(skipped.to_string()),
                &self.targets,
                led,
            );
        } else {
            tell(&self.recorder, &self.step, FaultState::Began, &self.targets, led);
            if self.step.lasts_us > 0 {
                malle_rt::sleep(Duration::from_micros(self.step.lasts_us)).await;
                self.end().await;
                tell(&self.recorder, &self.step, FaultState::Ended, &self.targets, Vec::new());
            }
        }
        if takes_down {
            self.world.release(&self.targets);
        }
    }

    fn takes_down(&self) -> bool {
        match &self.step.fault {
            Fault::Kill | Fault::Powerloss | Fault::Stop | Fault::Pause | Fault::Wipe | Fault::Membership { .. } => {
                true
            }
            Fault::Disk { what, .. } => !matches!(what, DiskFault::Slow | DiskFault::Bitflip | DiskFault::LyingSync),
            _ => false,
        }
    }

    fn machines(&self) -> impl Iterator<Item = &Arc<Machine>> {
        self.targets.iter().map(|place| self.world.machine(*place))
    }

    async fn begin(&self) -> Result<(), Skipped> {
        match &self.step.fault {
            Fault::Kill => self.machines().for_each(|machine| drop(machine.end(End::Process))),
            Fault::Powerloss => self.machines().for_each(|machine| drop(machine.end(End::Power))),
            Fault::Stop => {
                let stops = self.machines().map(|machine| machine.stop());
                futures::future::join_all(stops).await;
            }
            Fault::Pause => self
                .machines()
                .filter_map(|machine| machine.life())
                .for_each(|life| life.host.pause()),
            Fault::Partition { shape, clients } => {
                let all: Vec<u32> = self.world.machines.keys().copied().collect();
                let mut cut = links(*shape, &self.targets, &all);
                if *clients {
                    cut.extend(
                        self.targets
                            .iter()
                            .flat_map(|place| [(CLIENTS, *place), (*place, CLIENTS)]),
                    );
                }
                self.world.net.cut(self.step.id, cut);
            }
            Fault::Net(quality) => self.world.net.worsen(self.step.id, self.targets.clone(), *quality),
            Fault::Disk { what, delay_us, count } => self.damage(*what, *delay_us, *count),
            Fault::Clock {
                step_ms,
                rate_per_mille,
            } => {
                self.machines()
                    .for_each(|machine| machine.clock.shift(*step_ms, *rate_per_mille));
            }
            Fault::Wipe => self.machines().for_each(|machine| machine.wipe()),
            Fault::Transfer { group } => self.transfer(*group).await?,
            Fault::Membership { .. } => {
                return Err(Skipped::Impossible(
                    "malle replaces nodes, it does not take voters out".into(),
                ));
            }
            Fault::Squeeze { .. } => return Err(Skipped::Impossible("a simulated machine has no processor".into())),
        }
        Ok(())
    }

    fn damage(&self, what: DiskFault, delay_us: u64, count: u64) {
        let delay = Duration::from_micros(delay_us);
        for machine in self.machines() {
            let disk = machine.disk();
            let mut chance = Chance::of(self.step.draw, "disk", u64::from(machine.place));
            match what {
                DiskFault::SyncEio => disk.fail_next_syncs(1),
                DiskFault::Full => disk.set_free_bytes(Some(0)),
                DiskFault::Slow => disk.set_pace(
                    Pace {
                        least: HONEST.least + delay,
                        most: HONEST.most + delay,
                    },
                    chance.next(),
                ),
                DiskFault::Hang => disk.set_pace(
                    Pace {
                        least: HANGS,
                        most: HANGS,
                    },
                    chance.next(),
                ),
                DiskFault::Bitflip => drop(machine.rot(count.max(1))),
                DiskFault::LyingSync => disk.set_lying(true),
            }
        }
    }

    async fn transfer(&self, group: Option<u32>) -> Result<(), Skipped> {
        let impossible = |error: &dyn std::fmt::Display| Skipped::Impossible(error.to_string());
        let present = self.world.present();
        let groups: Vec<u32> = match group {
            Some(group) => vec![group],
            None => present
                .leaders
                .iter()
                .filter(|(_, place)| self.targets.contains(place))
                .map(|(group, _)| *group)
                .collect(),
        };
        let operator = self.world.operator().await.map_err(|error| impossible(&error))?;
        let mut chance = Chance::of(self.step.draw, "transfer", 0);
        for group in groups {
            let leader = present.leaders.get(&group).copied().ok_or(Skipped::NoLeader(group))?;
            let others = present.replicas.get(&group).into_iter().flatten().copied();
            let others: Vec<u32> = others
                .filter(|place| *place != leader && !present.down.contains(place))
                .collect();
            let to = *chance.pick(&others).ok_or(Skipped::NoFollower(group))?;
            let node = self.world.machine(to).node();
            let moved = operator
                .with_deadline(Duration::from_secs(5))
                .cluster()
                .leader_move(ShardId(group), node)
                .await;
            moved.map_err(|error| impossible(&error))?;
        }
        Ok(())
    }

    async fn end(&self) {
        self.world.net.heal(self.step.id);
        for machine in self.machines() {
            match &self.step.fault {
                Fault::Kill | Fault::Powerloss | Fault::Stop => start(&self.world, machine, &self.recorder).await,
                Fault::Pause => machine.life().into_iter().for_each(|life| life.host.resume()),
                Fault::Disk { what, .. } => {
                    let disk = machine.disk();
                    disk.set_free_bytes(None);
                    disk.set_lying(false);
                    disk.set_pace(HONEST, self.step.draw);
                    if *what == DiskFault::Full {
                        start(&self.world, machine, &self.recorder).await;
                    }
                }
                Fault::Clock { .. } => machine.clock.mend(malle_rt::now() - self.world.began),
                Fault::Wipe => self.replace(machine).await,
                _ => {}
            }
        }
    }

    /// An empty machine comes back as a node that never was, and takes the place of the one that is lost.
    async fn replace(&self, machine: &Arc<Machine>) {
        let lost = NodeId(match machine.node().0 {
            node if node >= 200 => node - 100,
            node => node % 100,
        });
        start(&self.world, machine, &self.recorder).await;
        let operator = match self.world.operator().await {
            Ok(operator) => operator.with_deadline(REPLACE),
            Err(error) => return broken(&self.recorder, Some(machine.place), format!("no operator: {error:#}")),
        };
        if let Err(error) = operator.cluster().node_replace(machine.as_node(), lost).await {
            let what = format!("node {} did not replace node {lost}: {error}", machine.node());
            broken(&self.recorder, Some(machine.place), what);
        }
    }
}

/// Starts a machine that should start now.
pub async fn start(world: &Arc<World>, machine: &Arc<Machine>, recorder: &Recorder) {
    if machine.life().is_some() {
        return;
    }
    match machine.start().await {
        Ok(life) => watch_over(world, machine, &life, recorder),
        Err(error) => broken(recorder, Some(machine.place), format!("{error:#}")),
    }
}
