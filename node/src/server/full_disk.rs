//! A node whose disk fills up: it gives its groups to replicas that have room, and opens none while rows have no room.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::interior::open_groups;
use super::leave::PLANNED;
use crate::bodies::{Bodies, DiskRoom, DiskWatch};
use crate::log::Logs;
use crate::raft::Groups;

/// What is under way when the disk fills up is committed first: without its bodies it would hold up this node's word to a new leader.
const UNDER_WAY: Duration = Duration::from_millis(250);
/// An election may bring a group back, and a replica that had no room may have some by then.
const AGAIN: Duration = Duration::from_secs(5);

/// While the disk is short of room, gives away what others can lead; ends when the node stops. What nobody with room can take stays here:
/// it takes no mail, and all else goes on.
pub(super) async fn give_way(groups: Arc<Groups>, disk: Arc<DiskWatch>, mut stop: watch::Receiver<bool>) {
    let mut changes = disk.changes();
    loop {
        let short = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            short = changes.wait_for(|room| *room != DiskRoom::Enough) => short.is_ok(),
        };
        if !short {
            return;
        }
        malle_rt::sleep(UNDER_WAY).await;
        let done = groups.hand_over_all(malle_rt::now() + PLANNED).await;
        if !done.given.is_empty() {
            let (given, kept) = (done.given.len(), done.kept.len());
            tracing::info!(given, kept, "groups went to replicas whose disks have room");
        }
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            _ = malle_rt::timeout(AGAIN, changes.wait_for(|room| *room == DiskRoom::Enough)) => {}
        }
    }
}

/// Opens the groups that did not open at the start, for want of room.
pub(super) async fn open_when_there_is_room(open: bool, groups: Arc<Groups>, logs: Arc<Logs>, bodies: Arc<Bodies>) {
    if open {
        return;
    }
    tracing::error!("the disk has no room for rows: the node runs and opens its groups once there is some");
    bodies.disk().room_for_rows().await;
    match open_groups(&groups, &logs).await {
        Ok(()) => tracing::info!("the disk has room for rows: the groups are open"),
        // What did not open stands in the health of the node, with the reason.
        Err(error) => tracing::error!(error = format!("{error:#}"), "the directory does not open"),
    }
}

/// Does one after the other; gives the first up when the node stops.
pub(super) async fn first(
    before: impl Future<Output = ()>,
    then: impl Future<Output = ()>,
    mut stop: watch::Receiver<bool>,
) {
    tokio::select! {
        () = before => {}
        _ = stop.wait_for(|stop| *stop) => return,
    }
    then.await;
}
