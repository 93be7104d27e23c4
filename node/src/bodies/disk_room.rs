//! How much room this node's disk has, and what the peers said of theirs.
//!
//! Bodies are what fills a disk, so bodies are what stops: a node that is *short* takes no mail from front ends and leads nothing that a
//! replica with room could lead; what leaders elsewhere had let in by then it still stores. Below that, with *no* room, it stores no body
//! from anybody. What is left belongs to the log, the rows, checkpoints, and the copies that collection makes to give volumes up, so
//! deletions go on and the node gets out of it by itself.
//!
//! A state is left at another mark than it was entered at: a disk at the mark would else change its mind with every file. The marks count
//! parts of the disk, and volumes where a part would be too little.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use malle_journal::Disk;
use malle_proto::{NodeId, limits};
use tokio::sync::watch;

use super::Members;

/// Between two looks at the disk: less than a disk takes from the one mark to the next.
const LOOK: Duration = Duration::from_secs(1);

/// What there is room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum DiskRoom {
    /// Everything.
    #[default]
    Enough,
    /// No mail from front ends; bodies that leaders elsewhere have let in.
    Short,
    /// No bodies; log, rows, checkpoints and collection go on.
    None,
}

/// When a state begins and when it ends.
struct Marks {
    begins_percent: u64,
    begins_volumes: u64,
    ends_percent: u64,
    ends_volumes: u64,
}

const SHORT: Marks = Marks {
    begins_percent: limits::DISK_SHORT_PERCENT,
    begins_volumes: limits::DISK_SHORT_VOLUMES,
    ends_percent: limits::DISK_SHORT_PERCENT - 2,
    ends_volumes: limits::DISK_SHORT_VOLUMES + 1,
};
const NONE: Marks = Marks {
    begins_percent: limits::DISK_NONE_PERCENT,
    begins_volumes: limits::DISK_NONE_VOLUMES,
    ends_percent: limits::DISK_NONE_PERCENT - 1,
    ends_volumes: limits::DISK_NONE_VOLUMES + 1,
};

/// A look at a disk.
#[derive(Debug, Clone, Copy)]
struct Space {
    free_bytes: u64,
    total_bytes: u64,
    volume_bytes: u64,
}

impl Space {
    fn is_beyond(&self, percent: u64, volumes: u64) -> bool {
        let used = u128::from(self.total_bytes.saturating_sub(self.free_bytes));
        used * 100 >= u128::from(self.total_bytes) * u128::from(percent)
            || self.free_bytes < volumes.saturating_mul(self.volume_bytes)
    }

    fn is_in(&self, marks: &Marks, was_in: bool) -> bool {
        match was_in {
            true => self.is_beyond(marks.ends_percent, marks.ends_volumes),
            false => self.is_beyond(marks.begins_percent, marks.begins_volumes),
        }
    }

    /// The state after `before`.
    fn room(&self, before: DiskRoom) -> DiskRoom {
        if self.is_in(&NONE, before == DiskRoom::None) {
            DiskRoom::None
        } else if self.is_in(&SHORT, before >= DiskRoom::Short) {
            DiskRoom::Short
        } else {
            DiskRoom::Enough
        }
    }
}

/// See the module.
pub struct DiskWatch {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    volume_bytes: u64,
    room: watch::Sender<DiskRoom>,
    /// Peers that said that they are short of room, or have none.
    peers: Mutex<BTreeMap<NodeId, DiskRoom>>,
    /// Neither this node nor a peer is short: what every delivery asks.
    all_have_enough: AtomicBool,
}

impl DiskWatch {
    /// Watches the disk of `dir`, where volumes take this many bytes each.
    pub(super) fn new(disk: Arc<dyn Disk>, dir: PathBuf, volume_bytes: u64) -> Arc<DiskWatch> {
        let watch = Arc::new(DiskWatch {
            disk,
            dir,
            volume_bytes,
            room: watch::Sender::new(DiskRoom::Enough),
            peers: Mutex::default(),
            all_have_enough: AtomicBool::new(true),
        });
        watch.look();
        watch
    }

    /// Looks again and again until the node stops.
    pub async fn run(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        while malle_rt::timeout(LOOK, stop.wait_for(|stop| *stop)).await.is_err() {
            let watch = self.clone();
            malle_rt::blocking(move || watch.look()).await;
        }
    }

    fn space(&self) -> io::Result<Space> {
        Ok(Space {
            free_bytes: self.disk.free_bytes(&self.dir)?,
            total_bytes: self.disk.total_bytes(&self.dir)?,
            volume_bytes: self.volume_bytes,
        })
    }

    /// Blocks.
    pub(super) fn look(&self) {
        match self.space() {
            Ok(space) => self.becomes(|before| space.room(before), &format!("{space}")),
            // A disk that does not say has other troubles, which its writes will tell of.
            Err(error) => tracing::debug!(%error, "the disk does not say how full it is"),
        }
    }

    /// A body, or a copy that collection makes, found no room: whatever the next look says, there is none now.
    pub(super) fn found_none(&self) {
        self.becomes(|_| DiskRoom::None, "another volume found no room");
    }

    fn becomes(&self, next: impl FnOnce(DiskRoom) -> DiskRoom, why: &str) {
        let changed = self.room.send_if_modified(|room| {
            let next = next(*room);
            std::mem::replace(room, next) != next
        });
        if !changed {
            return;
        }
        self.sum_up();
        match self.room() {
            DiskRoom::Enough => tracing::info!(why, "the disk has room again: this node takes new mail"),
            DiskRoom::Short => {
                tracing::error!(
                    why,
                    "the disk is nearly full: this node takes no new mail and leads nothing that others can lead"
                );
            }
            DiskRoom::None => tracing::error!(why, "the disk is full: this node stores no bodies"),
        }
    }

    fn sum_up(&self) {
        let all = self.room() == DiskRoom::Enough && self.peers().is_empty();
        self.all_have_enough.store(all, Ordering::Relaxed);
    }

    fn peers(&self) -> MutexGuard<'_, BTreeMap<NodeId, DiskRoom>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This node's room.
    pub fn room(&self) -> DiskRoom {
        *self.room.borrow()
    }

    /// Tells of changes.
    pub fn changes(&self) -> watch::Receiver<DiskRoom> {
        self.room.subscribe()
    }

    /// Why this node takes no mail; `None` while it does.
    pub fn shortage(&self) -> Option<String> {
        match self.room() {
            DiskRoom::Enough => None,
            DiskRoom::Short => Some("its disk is nearly full, it takes no new mail".into()),
            DiskRoom::None => Some("its disk is full, it stores no bodies".into()),
        }
    }

    /// A peer said how much room it has.
    pub fn heard(&self, node: NodeId, room: DiskRoom) {
        let before = match room {
            DiskRoom::Enough => self.peers().remove(&node).unwrap_or_default(),
            some => self.peers().insert(node, some).unwrap_or_default(),
        };
        if before != room {
            self.sum_up();
            tracing::info!(%node, ?room, "a peer says how much room its disk has");
        }
    }

    /// What is known of a node's room.
    pub fn room_of(&self, node: NodeId, this: NodeId) -> DiskRoom {
        match node == this {
            true => self.room(),
            false => self.peers().get(&node).copied().unwrap_or_default(),
        }
    }

    /// Whether nobody is known to be short.
    pub fn all_have_enough(&self) -> bool {
        self.all_have_enough.load(Ordering::Relaxed)
    }

    /// Whether a majority of these has enough room, as far as this node knows.
    pub fn majority_has_enough(&self, members: &Members, this: NodeId) -> bool {
        let voters = members.voters.iter().flatten().copied();
        let with_room: BTreeSet<NodeId> = voters
            .filter(|node| self.room_of(*node, this) == DiskRoom::Enough)
            .collect();
        members.majority(&with_room)
    }

    /// Whether the disk has room for a database to be opened: one that meets the end of the disk is broken.
    pub async fn has_room_for_rows(self: &Arc<Self>) -> bool {
        let watch = self.clone();
        let space = malle_rt::blocking(move || watch.space()).await;
        // Whoever opens the database hears what is wrong with a disk that does not say.
        space.map_or(true, |space| {
            space.free_bytes >= self.volume_bytes / limits::DISK_ROWS_PART_OF_VOLUME
        })
    }

    /// Returns once it has.
    pub async fn room_for_rows(self: &Arc<Self>) {
        while !self.has_room_for_rows().await {
            malle_rt::sleep(LOOK).await;
        }
    }
}

impl std::fmt::Display for Space {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (free, total) = (self.free_bytes >> 20, self.total_bytes >> 20);
        write!(f, "{free} MiB of {total} MiB are free")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn space(free_mib: u64, total_mib: u64) -> Space {
        Space {
            free_bytes: free_mib * MIB,
            total_bytes: total_mib * MIB,
            volume_bytes: 256 * MIB,
        }
    }

    fn path(total_mib: u64, free_mib: &[u64]) -> Vec<DiskRoom> {
        let mut room = DiskRoom::Enough;
        let look = |free: &u64| {
            room = space(*free, total_mib).room(room);
            room
        };
        free_mib.iter().map(look).collect()
    }

    #[test]
    fn a_large_disk_changes_its_state_by_parts_and_not_at_the_mark_where_it_came_from() {
        use DiskRoom::{Enough, None, Short};
        let free = [
            60_000, 50_001, 50_000, 65_000, 70_000, 70_001, 20_000, 29_999, 30_001, 69_999, 71_000,
        ];
        let expected = [
            Enough, Enough, Short, Short, Short, Enough, None, None, Short, Short, Enough,
        ];
        assert_eq!(path(1_000_000, &free), expected);
    }

    #[test]
    fn a_small_disk_keeps_volumes_for_collection() {
        use DiskRoom::{Enough, None, Short};
        let free = [1_100, 1_023, 1_200, 1_280, 511, 700, 768, 1_279, 1_280];
        let expected = [Enough, Short, Short, Enough, None, None, Short, Short, Enough];
        assert_eq!(path(8_000, &free), expected);
    }

    #[test]
    fn a_disk_without_an_end_has_enough() {
        let endless = Space {
            free_bytes: u64::MAX,
            total_bytes: u64::MAX,
            volume_bytes: 256 * MIB,
        };
        assert_eq!(endless.room(DiskRoom::None), DiskRoom::Enough);
    }

    #[test]
    fn a_majority_has_room_when_those_do_who_did_not_say_otherwise() {
        let disk = malle_journal::MemoryDisk::new();
        let watch = DiskWatch::new(Arc::new(disk), "/d".into(), 256 * MIB);
        let members = Members {
            index: 1,
            voters: vec![vec![NodeId(1), NodeId(2), NodeId(3)]],
        };
        assert!(watch.all_have_enough() && watch.majority_has_enough(&members, NodeId(1)));
        watch.heard(NodeId(2), DiskRoom::Short);
        assert!(!watch.all_have_enough() && watch.majority_has_enough(&members, NodeId(1)));
        watch.found_none();
        assert!(!watch.majority_has_enough(&members, NodeId(1)));
        watch.look();
        assert_eq!(watch.room(), DiskRoom::Enough);
        watch.heard(NodeId(2), DiskRoom::Enough);
        assert!(watch.all_have_enough());
    }
}
