//! Which machine a group runs. The only place that tells the directory from a shard.

use malle_machine::view::{Fault, View, Writes};
use malle_machine::{directory, format, shard};
use malle_proto::ShardId;

use crate::log::types::{Proposal, Reply};

/// Which machine a group runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MachineKind {
    /// [`malle_machine::directory`]
    Directory,
    /// [`malle_machine::shard`]
    Shard,
}

impl MachineKind {
    /// The machine of this group.
    pub fn of(shard: ShardId) -> Self {
        if shard == ShardId::DIRECTORY {
            MachineKind::Directory
        } else {
            MachineKind::Shard
        }
    }

    /// Applies an encoded command.
    ///
    /// # Errors
    /// A [`Fault`]: the command or a row does not decode, or the state contradicts itself.
    pub fn apply(self, view: &dyn View, proposal: &Proposal) -> Result<(Reply, Writes), Fault> {
        let fault = |error| Fault::Format { what: "command", error };
        match self {
            MachineKind::Directory => {
                let command: directory::Command = format::decode(&proposal.command).map_err(fault)?;
                let (outcome, writes) = directory::apply(view, &command)?;
                Ok((Reply::Directory(outcome), writes))
            }
            MachineKind::Shard => {
                let command: shard::Command = format::decode(&proposal.command).map_err(fault)?;
                let (outcome, writes) = shard::apply(view, &command)?;
                Ok((Reply::Shard(outcome), writes))
            }
        }
    }
}
