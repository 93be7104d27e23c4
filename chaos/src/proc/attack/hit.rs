//! Beginning a fault.

use std::collections::BTreeSet;

use anyhow::Context;
use malle_client::ShardId;

use super::{Attack, Begun};
use crate::plan::{Present, Skipped, links};
use crate::proc::net::HOST;
use crate::proc::shim::Page;
use crate::scenario::{DiskFault, Fault, Quality};
use crate::seed::Chance;

/// A process that stands still for less than this is frozen, which no signal handler sees; for longer it gets SIGSTOP, as people do it.
const MOMENT_US: u64 = 1_000_000;

impl Attack<'_> {
    /// Does it. `Ok(Err(_))`: this engine cannot, and nothing was done.
    pub(super) async fn hit(&mut self, begun: &mut Begun, present: &Present) -> anyhow::Result<Result<(), Skipped>> {
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
                begun.cut = links(shape, &places, &self.world.places());
                if clients {
                    let others = places.iter().flat_map(|place| [(*place, HOST), (HOST, *place)]);
                    begun.cut.extend(others);
                }
                self.cut(&begun.cut)?;
            }
            Fault::Net(_) => self.worsen(begun)?,
            Fault::Disk { what, delay_us, count } => {
                return self.hit_disks(begun, what, delay_us, count, present);
            }
            Fault::Clock {
                step_ms,
                rate_per_mille,
            } => {
                for place in places {
                    self.page(place)?.clock(step_ms, i64::try_from(rate_per_mille)?)?;
                }
            }
            Fault::Transfer { group } => return self.transfer(group, &places, present).await,
            Fault::Membership { .. } => {
                let reason = "malle changes voters only by replacing a node".to_owned();
                return Ok(Err(Skipped::Impossible(reason)));
            }
            Fault::Squeeze {
                cpu_pct,
                memory_mib,
                files,
            } => {
                for place in places {
                    self.squeeze(place, cpu_pct, memory_mib, files)?;
                }
            }
        }
        Ok(Ok(()))
    }

    fn cut(&mut self, links: &BTreeSet<(u32, u32)>) -> anyhow::Result<()> {
        let mut links = links.iter();
        links.try_for_each(|&(from, to)| self.world.net.cut(from, to))
    }

    pub(super) fn hold(&mut self, places: &[u32]) {
        self.held.extend(places);
    }

    pub(super) fn page(&self, place: u32) -> anyhow::Result<&Page> {
        self.world
            .at(place)?
            .page
            .as_ref()
            .context("the nodes run without the shim")
    }

    pub(super) fn pause(&mut self, place: u32, lasts_us: u64, still: bool) -> anyhow::Result<()> {
        let machine = self.world.at(place)?;
        if lasts_us < MOMENT_US {
            return machine.squeeze.freeze(still);
        }
        machine
            .process
            .as_ref()
            .context("a node that is down cannot be paused")?
            .pause(still)
    }

    pub(super) fn worsen(&mut self, begun: &mut Begun) -> anyhow::Result<()> {
        let all = self.world.places();
        for place in &begun.places {
            let others = all.iter().copied().filter(|other| other != place);
            begun
                .cut
                .extend(others.flat_map(|other| [(*place, other), (other, *place)]));
        }
        for link in begun.cut.clone() {
            let quality = self.quality(link, Some(&begun.step.fault));
            self.world.net.quality(link.0, link.1, quality)?;
        }
        Ok(())
    }

    /// What a link is with every fault that has hold of it.
    pub(super) fn quality(&self, link: (u32, u32), more: Option<&Fault>) -> Option<Quality> {
        let others = self
            .begun
            .iter()
            .filter(|begun| begun.cut.contains(&link))
            .map(|begun| &begun.step.fault);
        let line = self.lines.get(&link).copied().unwrap_or_default();
        let quality = others.chain(more).fold(line, |line, fault| match fault {
            Fault::Net(worse) => line.and(*worse),
            _ => line,
        });
        (quality != Quality::default()).then_some(quality)
    }

    pub(super) fn hit_disks(
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
                    let rotten = machine
                        .disk
                        .rot(&machine.data(), usize::try_from(count)?, |below| chance.below(below));
                    match rotten {
                        Ok(flips) => self.flips.extend(flips.into_iter().map(|flip| (place, flip))),
                        Err(error) => return Ok(Err(Skipped::Impossible(format!("{error:#}")))),
                    }
                }
                DiskFault::LyingSync => self.page(place)?.sync_lies(true)?,
            }
        }
        Ok(Ok(()))
    }

    pub(super) async fn transfer(
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
            let Some(to) = others
                .copied()
                .find(|place| place != leader && !present.down.contains(place))
            else {
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

    pub(super) fn squeeze(&mut self, place: u32, cpu_pct: u64, memory_mib: u64, files: u64) -> anyhow::Result<()> {
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
            self.limit_files(place, Some(files))?;
        }
        Ok(())
    }

    /// The soft limit only: it can be raised again, to the hard one with `None`.
    pub(super) fn limit_files(&self, place: u32, files: Option<u64>) -> anyhow::Result<()> {
        let process = self
            .world
            .at(place)?
            .process
            .as_ref()
            .context("a node that is down has no files")?;
        let pid = process.pid().to_string();
        let files = match files {
            Some(files) => files.to_string(),
            None => {
                let asked = ["--pid", &pid, "--nofile", "--output=HARD", "--noheadings", "--raw"];
                harness::host::run("prlimit", &asked)?.trim().to_owned()
            }
        };
        harness::host::run("prlimit", &["--pid", &pid, &format!("--nofile={files}:")]).map(drop)
    }
}
