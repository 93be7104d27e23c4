//! A checkpoint of a store that no group drives, and back: what a rebuild does, for measurements of a store alone.

use std::io;
use std::path::Path;
use std::sync::Arc;

use malle_journal::Disk;
use malle_proto::ShardId;

use super::checkpoint::{Checkpoint, CheckpointWriter};
use super::overlay::Position;
use super::prove::{load, scan_digest};
use super::write::scan_into;
use crate::index::IndexStore;

/// Writes all rows of a store as a checkpoint in `dir`, which exists. Blocks.
///
/// # Errors
/// What the store or the disk says.
pub fn save(disk: &Arc<dyn Disk>, dir: &Path, shard: ShardId, store: &dyn IndexStore) -> io::Result<Checkpoint> {
    let (digest, rows) = scan_digest(store).map_err(io::Error::other)?;
    let position = Position {
        digest,
        rows,
        ..Position::default()
    };
    let mut writer = CheckpointWriter::create(disk, dir, shard, None)?;
    scan_into(&mut writer, store)?;
    writer.finish((&position).into())?.name(dir)
}

/// Fills a store from a checkpoint as a rebuild does, proof and flush included; gives the number of rows. Blocks.
///
/// # Errors
/// What the store or the disk says, or that the rows do not add up to the checkpoint's digest.
pub fn restore(checkpoint: &Checkpoint, store: &dyn IndexStore) -> io::Result<u64> {
    Ok(load(checkpoint, store)?.rows)
}

/// Reads every row as a start after an unclean stop does; gives their number. Blocks.
///
/// # Errors
/// What the store says.
pub fn prove(store: &dyn IndexStore) -> io::Result<u64> {
    Ok(scan_digest(store).map_err(io::Error::other)?.1)
}
