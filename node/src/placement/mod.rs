//! Who holds what: this node follows the directory, and the directory follows the groups.
//!
//! * `assign`: opens the groups that the directory gives this node, makes new ones, leaves those it lost.
//! * `grants`: the leader of a shard opens the accounts that the directory has put there.
//! * `leaders`: the leader of a shard hands over to the preferred replica once that has caught up, and tells the directory when the
//!   voters of its group have changed.
//! * `replace`: a lost node's replicas are given to another.
//! * `driver`, `upkeep`: the directory's leader says which moves there are, who is dead, who votes in the directory, and who should lead what.
//! * `moves`, `next_step`: the leader of a shard makes the moves of its replicas.
//!
//! Every loop only compares what is with what should be and takes one step; a crash in between loses nothing. What this room must
//! never do: decide anything that is not a command of the directory or a membership change of a group.

mod assign;
mod driver;
mod grants;
mod leaders;
mod moves;
mod next_step;
mod replace;
mod replicas;
mod upkeep;

pub use assign::Placement;
pub use replace::{ReplaceError, Replacements, register};
pub use replicas::Replicas;
pub use upkeep::{directory_input, directory_voters};

use std::sync::Arc;

use tokio::sync::watch;

use crate::env::Env;
use crate::peers::Transport;
use crate::raft::Groups;

/// Begins moves of replicas while this node leads the directory, and makes those of the shards that it leads, until `stop` says so.
pub async fn move_replicas(groups: Arc<Groups>, transport: Arc<dyn Transport>, env: Env, stop: watch::Receiver<bool>) {
    let moves = moves::Moves::new(groups.clone(), transport.clone());
    let driver = driver::Driver::new(groups, transport, env);
    futures::future::join(moves.run(stop.clone()), driver.run(stop)).await;
}
