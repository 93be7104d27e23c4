//! Bodies that ride with the entries that name them: their form on the way, and where a log keeps them.

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use malle_proto::v1::{self, Rider};
use malle_proto::{BodyHash, ShardId};

use crate::bodies::{Bodies, BodiesError, DiskRoom, StoredBody};
use crate::log::KeepsRiders;

/// A body as it travels with its entry.
pub(super) fn rider(body: StoredBody) -> Rider {
    Rider {
        hash: body.hash.to_vec().into(),
        size: body.size,
        encoding: body.encoding,
        stored: body.stored,
    }
}

/// The body that travelled. Nothing of it is checked yet but the length of its name.
pub(super) fn stored_body(shard: ShardId, rider: Rider) -> Result<StoredBody, String> {
    Ok(StoredBody {
        shard,
        hash: BodyHash::try_from(&rider.hash[..]).map_err(|error| error.to_string())?,
        size: rider.size,
        encoding: rider.encoding,
        stored: rider.stored,
    })
}

/// The volumes of this node, for the riders of a group that it leads.
pub(super) struct Keeper {
    pub shard: ShardId,
    pub bodies: Arc<Bodies>,
}

#[async_trait]
impl KeepsRiders for Keeper {
    async fn keep(&self, rider: Rider) -> io::Result<()> {
        let body = stored_body(self.shard, rider).map_err(io::Error::other)?;
        match self.bodies.keep(body).await {
            Err(BodiesError::Full) => Err(io::ErrorKind::StorageFull.into()),
            kept => kept.map_err(io::Error::other),
        }
    }
}

/// How much room a node has, as it tells others.
pub(super) fn room_in_frame(room: DiskRoom) -> v1::DiskRoom {
    match room {
        DiskRoom::Enough => v1::DiskRoom::Unspecified,
        DiskRoom::Short => v1::DiskRoom::Short,
        DiskRoom::None => v1::DiskRoom::None,
    }
}

/// What another told.
pub(super) fn room_of_frame(frame: &v1::RaftFrame) -> DiskRoom {
    match frame.disk_room() {
        v1::DiskRoom::Unspecified => DiskRoom::Enough,
        v1::DiskRoom::Short => DiskRoom::Short,
        v1::DiskRoom::None => DiskRoom::None,
    }
}
