//! A replica that moved away: its group closes here, and what it kept goes from the disk.
//!
//! In this order: view and checkpoints, then the log, then the bodies. Until the record that ends the log is durable a start finds the group
//! in the log again, cannot open it (its checkpoint is gone) or can, and is told once more that it moved away; behind that record nothing of
//! the group is found but bodies, which [`Groups::drop_strange_bodies`] lets go of. So a crash between any two steps leaves work, and no
//! half of a replica that could serve.
//!
//! What must hold: whoever calls this knows from a majority that this node is no member any more. A vote goes with the log, and a member
//! without its vote could vote twice.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use malle_journal::Disk;
use malle_proto::ShardId;

use super::{GroupError, Groups};

/// Whoever still works with the group ends within this: the longest is a checkpoint, which must not find its directory gone, for a checkpoint
/// that the disk does not take condemns the node.
const USERS_END: Duration = Duration::from_secs(130);
/// Between two looks at whether they have.
const LOOK: Duration = Duration::from_millis(20);

impl Groups {
    /// Closes a group whose replica moved away, and removes its data. It may be repeated, also for a group that did not open.
    ///
    /// # Errors
    /// When the disk or the journal fails: the next call goes on.
    pub async fn leave(&self, shard: ShardId) -> Result<(), GroupError> {
        let closing = self.changing.lock().await;
        if *closing {
            return Err(GroupError::Stopped("this node is going down".into()));
        }
        self.forget_failure(shard);
        if let Some(group) = self.take_open(shard) {
            group.close(false).await;
            let left = Arc::downgrade(&group);
            drop(group);
            let deadline = malle_rt::now() + USERS_END;
            while left.strong_count() > 0 && malle_rt::now() < deadline {
                malle_rt::sleep(LOOK).await;
            }
        }
        let failed = |error: io::Error| GroupError::Unavailable(format!("removing shard {shard}: {error}"));
        let settings = &self.settings;
        settings.indexes.discard(shard).await.map_err(failed)?;
        let (disk, dir) = (settings.disk.clone(), self.dir_of(shard));
        malle_rt::blocking(move || empty(disk.as_ref(), &dir))
            .await
            .map_err(failed)?;
        settings.logs.drop_group(shard).await.map_err(failed)?;
        settings.bodies.drop_shard(shard).await;
        // A stray frame may have had it fail meanwhile.
        self.forget_failure(shard);
        tracing::info!(%shard, "this node has no replica of the shard any more");
        Ok(())
    }

    /// Whether [`Groups::drop_strange_bodies`] would find something to do.
    pub fn has_strange_bodies(&self, held: impl Fn(ShardId) -> bool) -> bool {
        let shards = self.settings.bodies.shards();
        shards.into_iter().any(|shard| self.is_strange(shard) && !held(shard))
    }

    /// Whether no group of this shard is here, open or not.
    fn is_strange(&self, shard: ShardId) -> bool {
        let found = self.settings.logs.found();
        self.get(shard).is_none() && !self.failed().contains_key(&shard) && !found.contains(&shard)
    }

    /// Lets go of the bodies of shards that have no group here: a replica that moved away and was interrupted. `held` says what belongs here.
    pub async fn drop_strange_bodies(&self, held: impl Fn(ShardId) -> bool) {
        let closing = self.changing.lock().await;
        if *closing {
            return;
        }
        for shard in self.settings.bodies.shards() {
            if self.is_strange(shard) && !held(shard) {
                tracing::info!(%shard, "bodies of a shard that has no replica here any more go");
                self.settings.bodies.drop_shard(shard).await;
            }
        }
    }
}

/// Removes every file in a directory.
fn empty(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    let names = match disk.list(dir) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for name in &names {
        disk.remove(&dir.join(name))?;
    }
    if names.is_empty() { Ok(()) } else { disk.sync_dir(dir) }
}
