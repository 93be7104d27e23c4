//! Ending a fault: afterwards the machine is as it was, with a node that runs.

use std::time::Duration;

use anyhow::Context;
use malle_client::NodeId;

use super::{Attack, Begun};
use crate::scenario::{DiskFault, Fault};

/// How a node ends whose disk failed.
const DISK_FAILED: i32 = 74;
/// A file system is let go by a killed process when the kernel comes to it.
const LET_GO: Duration = Duration::from_secs(30);

impl Attack<'_> {
    pub(super) async fn undo(&mut self, begun: &Begun) -> anyhow::Result<()> {
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
                Fault::Partition { .. } | Fault::Net(_) | Fault::Transfer { .. } | Fault::Membership { .. } => {}
                Fault::Disk { what, .. } => self.undo_disk(place, *what).await?,
                Fault::Clock { .. } => self.page(place)?.clock(0, 1000)?,
                Fault::Squeeze { files, .. } => {
                    self.world.at(place)?.squeeze.release()?;
                    if self.revive(place).await? && *files > 0 {
                        self.limit_files(place, None)?;
                    }
                }
            }
        }
        for (from, to) in &begun.cut {
            match &begun.step.fault {
                Fault::Net(_) => {
                    let quality = self.quality((*from, *to), None);
                    self.world.net.quality(*from, *to, quality)?;
                }
                _ => self.world.net.mend(*from, *to)?,
            }
        }
        Ok(())
    }

    pub(super) async fn undo_disk(&mut self, place: u32, what: DiskFault) -> anyhow::Result<()> {
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
            DiskFault::SyncEio | DiskFault::Bitflip => {}
        }
        Ok(())
    }

    pub(super) async fn up(&mut self, place: u32) -> anyhow::Result<()> {
        self.world.restart(place).await?;
        let node = self.world.at(place)?.node;
        self.observer.up(place, node);
        Ok(())
    }

    pub(super) async fn power_on(&mut self, place: u32) -> anyhow::Result<()> {
        let disk = self.world.at(place)?.disk.power();
        harness::until(format!("the disk at place {place}"), LET_GO, || async {
            disk.power_on().map(Some)
        })
        .await
    }

    /// Starts a node again that ended under its fault; whether it had gone on by itself.
    pub(super) async fn revive(&mut self, place: u32) -> anyhow::Result<bool> {
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
    pub(super) async fn heal_disks(&mut self) -> anyhow::Result<()> {
        for place in std::mem::take(&mut self.broken_disks) {
            let process = self.world.at_mut(place)?.process.as_mut();
            let code = process
                .context("a node is there or was")?
                .ended()?
                .map(|status| status.code());
            if code != Some(Some(DISK_FAILED)) {
                let what = format!("a node whose disk failed a sync must leave with {DISK_FAILED}, and did {code:?}");
                self.broken(Some(place), what);
            }
            self.down(place).await?;
            let disk = &self.world.at(place)?.disk;
            harness::until(format!("the disk at place {place}"), LET_GO, || async {
                disk.heal_syncs().map(Some)
            })
            .await?;
            self.up(place).await?;
            self.held.remove(&place);
        }
        Ok(())
    }
}
