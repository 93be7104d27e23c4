//! What rows name against what is here: no body is read for it.
//!
//! The names come in pages, because apply stands still while rows are looked at. What seems to be absent is gathered and looked at again
//! after a while: it may just be on its way. Only then its group is told, which fetches it.

use std::time::Duration;

use malle_proto::{BodyHash, ShardId, limits};

use super::{Go, Scrub, Stop, Stopped};

/// A body that an entry has just named may still be on its way here.
const ON_ITS_WAY: Duration = Duration::from_secs(1);
/// Pause between two pages of rows: readers and apply come first.
const BETWEEN_PAGES: Duration = Duration::from_millis(10);
/// How often to look whether a group that misses very many has got some, and how often in vain.
const ROOM_LOOK: Duration = Duration::from_secs(1);
const ROOM_LOOKS_MAX: u32 = 600;

impl Scrub {
    /// Looks for bodies that rows name and that are not here, and for missing ones that nothing names any more.
    pub(super) async fn compare(&self, stop: &mut Stop) -> Go {
        let shards = self.rows.shards();
        // Replicas that moved away need nothing any more; one that is being rebuilt finds again what it lacks.
        self.progress().open.retain(|(shard, _)| shards.contains(shard));
        for shard in shards {
            self.compare_group(shard, stop).await?;
            self.unmiss(shard, stop).await?;
        }
        self.settle();
        let open = self.progress().open.iter().next().copied();
        if let Some((shard, hash)) = open {
            let bodies = self.progress().open.len();
            tracing::error!(bodies, %shard, %hash, "bodies are damaged or missing here and no peer gave them yet; the first is named");
        }
        Ok(())
    }

    async fn compare_group(&self, shard: ShardId, stop: &mut Stop) -> Go {
        let (mut behind, mut found) = (None, 0);
        let mut absent = Vec::new();
        // A group that closes meanwhile is compared the next time.
        while let Some((named, next)) = self.rows.named_behind(shard, behind, limits::SCRUB_PAGE).await {
            absent.extend(named.into_iter().filter(|hash| self.lacks(shard, *hash)));
            if absent.len() >= limits::SCRUB_ABSENT_MAX {
                found += self.absent(shard, std::mem::take(&mut absent), stop).await?;
                if !self.room(shard, stop).await? {
                    break;
                }
            }
            if next.is_none() {
                break;
            }
            behind = next;
            self.pause(BETWEEN_PAGES, stop).await?;
        }
        found += self.absent(shard, absent, stop).await?;
        if found > 0 {
            tracing::error!(%shard, bodies = found, "rows name bodies that were not here; they are fetched from the peers");
        }
        Ok(())
    }

    /// Not here, and its group does not know it.
    fn lacks(&self, shard: ShardId, hash: BodyHash) -> bool {
        let known = || self.follower(shard).is_none_or(|group| group.misses(hash));
        !self.bodies.has(shard, hash) && !known()
    }

    /// How many of these are still not here after a while, which their group is told.
    async fn absent(&self, shard: ShardId, absent: Vec<BodyHash>, stop: &mut Stop) -> Result<u64, Stopped> {
        if absent.is_empty() {
            return Ok(0);
        }
        self.pause(ON_ITS_WAY, stop).await?;
        let mut found = 0;
        for hash in absent {
            if self.lacks(shard, hash) {
                self.progress().report.absent += 1;
                self.miss(shard, hash).await;
                found += 1;
            }
        }
        Ok(found)
    }

    /// Waits while a group misses very many; false when it gets none of them.
    async fn room(&self, shard: ShardId, stop: &mut Stop) -> Result<bool, Stopped> {
        for _ in 0..ROOM_LOOKS_MAX {
            let missing = self.follower(shard).map_or(0, |group| group.missing());
            if missing < limits::SCRUB_MISSING_MAX {
                return Ok(true);
            }
            self.pause(ROOM_LOOK, stop).await?;
        }
        tracing::error!(%shard, "a group misses very many bodies and gets none: the rest of its rows is compared the next time");
        Ok(false)
    }

    /// A reader that ran into rot of a body that nothing names any more has left it among the missing; nobody would ever give it.
    async fn unmiss(&self, shard: ShardId, stop: &mut Stop) -> Go {
        let mut behind = None;
        loop {
            // The handle is not kept over the pause: the group may close.
            let Some(group) = self.follower(shard) else {
                return Ok(());
            };
            let page = group.missing_behind(behind, limits::SCRUB_PAGE);
            let Some(last) = page.last().copied() else {
                return Ok(());
            };
            for hash in page {
                if self.rows.is_named(shard, hash).await == Some(false) {
                    group.take_off(hash);
                }
            }
            behind = Some(last);
            drop(group);
            self.pause(BETWEEN_PAGES, stop).await?;
        }
    }
}
