//! Proving a view before anybody reads it, and building it anew from checkpoint and log.

use std::io;

use malle_machine::digest::LOCAL_PREFIX;
use malle_machine::view::{Flow, View};
use malle_machine::{Digest, first_version, format};
use malle_proto::ShardId;
use serde::{Deserialize, Serialize};

use super::checkpoint::Checkpoint;
use super::indexes::OpenedIndex;
use super::open::{OpenError, Settings};
use super::overlay::Position;
use crate::index::{IndexError, IndexStore, IndexView, Row};
use crate::log::GroupLog;
use crate::log::records::{LogIdRecord, StoredMembershipRecord};
use crate::log::types::{LogId, StoredMembership};

/// Key of the row that goes with every batch.
pub(super) const STATE_KEY: [u8; 2] = [LOCAL_PREFIX, b's'];
/// Key of the row that a clean stop leaves.
pub(super) const CLEAN_KEY: [u8; 2] = [LOCAL_PREFIX, b'c'];
/// Rows of one batch while an index is loaded or cleared.
const LOAD_BATCH_ROWS: usize = 1_000;

/// How far the index is; written in the same batch as its rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StateRecord {
    applied: Option<LogIdRecord>,
    membership: StoredMembershipRecord,
    digest: Digest,
    rows: u64,
}
first_version!(StateRecord, 48);

impl StateRecord {
    pub(super) fn row(position: &Position) -> Row {
        let record = StateRecord {
            applied: position.applied.map(LogIdRecord::from),
            membership: (&position.membership).into(),
            digest: position.digest,
            rows: position.rows,
        };
        (STATE_KEY.to_vec(), Some(format::encode(&record)))
    }

    fn position(self) -> Result<Position, format::FormatError> {
        Ok(Position {
            applied: self.applied.map(LogId::from),
            membership: StoredMembership::try_from(self.membership)?,
            digest: self.digest,
            rows: self.rows,
        })
    }
}

pub(super) async fn open_index(settings: &Settings, shard: ShardId, log: &GroupLog) -> Result<OpenedIndex, IndexError> {
    let mut fresh_uuid = [0; 16];
    settings.env.fill(&mut fresh_uuid);
    let named = log.floor().map(|floor| floor.store);
    settings.indexes.open(shard, fresh_uuid, named).await
}

/// The guard rails of an open: floor, identity, position, and after an unclean stop the digest of every row.
pub(super) async fn prove(
    opened: OpenedIndex,
    log: &GroupLog,
    checkpoint: Option<&Checkpoint>,
) -> Result<(OpenedIndex, Position), String> {
    let floor = log.floor();
    let index = opened.store.clone();
    let created = opened.created;
    let (position, clean) = malle_rt::blocking(move || read_position(index.as_ref(), created)).await?;
    let applied = position.applied.map_or(0, |id| id.index);
    if let Some(floor) = floor {
        if floor.store != opened.uuid {
            return Err("another database stands where the flushed one was".into());
        }
        if applied < floor.applied_index {
            return Err(format!("applied {applied} is below the floor {}", floor.applied_index));
        }
    }
    if let Some(checkpoint) = checkpoint
        && applied < checkpoint.index()
    {
        return Err(format!(
            "applied {applied} is below the checkpoint {}",
            checkpoint.index()
        ));
    }
    if let Some(purged) = log.purged_index()
        && applied < purged
    {
        return Err(format!("applied {applied} is below {purged}, where the log begins"));
    }
    if !clean && !created {
        let index = opened.store.clone();
        let (digest, rows) = malle_rt::blocking(move || scan_digest(index.as_ref())).await?;
        if (digest, rows) != (position.digest, position.rows) {
            return Err(format!("{rows} rows do not add up to the digest of {}", position.rows));
        }
    }
    let index = opened.store.clone();
    malle_rt::blocking(move || {
        // Gone and durably so before anything is applied: a stop from here on is unclean until `close` says otherwise.
        index.apply_batch(&[(CLEAN_KEY.to_vec(), None)])?;
        index.flush()
    })
    .await
    .map_err(|error| error.to_string())?;
    Ok((opened, position))
}

fn read_position(index: &dyn IndexStore, created: bool) -> Result<(Position, bool), String> {
    let clean = index.get(&CLEAN_KEY).map_err(|error| error.to_string())?.is_some();
    match index.get(&STATE_KEY).map_err(|error| error.to_string())? {
        None if created => Ok((Position::default(), clean)),
        None => {
            // Made, and stopped before its first batch: empty, or half of an install.
            let (_, rows) = scan_digest(index)?;
            if rows == 0 {
                Ok((Position::default(), false))
            } else {
                Err("rows without a position".into())
            }
        }
        Some(row) => {
            let record: StateRecord = format::decode(&row).map_err(|error| error.to_string())?;
            Ok((record.position().map_err(|error| error.to_string())?, clean))
        }
    }
}

pub(super) fn scan_digest(index: &dyn IndexStore) -> Result<(Digest, u64), String> {
    let mut digest = Digest::default();
    let mut rows = 0;
    IndexView(index)
        .scan(&[LOCAL_PREFIX + 1], &[0xFF; 32], &mut |key, value| {
            digest.add(key, value);
            rows += 1;
            Ok(Flow::More)
        })
        .map_err(|error| error.to_string())?;
    Ok((digest, rows))
}

/// Throws the view away and fills a fresh one; gives as much of the checkpoint as was sound.
pub(super) async fn rebuild(
    settings: &Settings,
    shard: ShardId,
    log: &GroupLog,
    checkpoint: Option<Checkpoint>,
) -> Result<(OpenedIndex, Position, Option<Checkpoint>), OpenError> {
    let checkpoint = match checkpoint {
        None => None,
        Some(checkpoint) => malle_rt::blocking(move || checkpoint.whole()).await,
    };
    let purged = log.purged_index();
    let checkpoint = checkpoint.filter(|sound| sound.reaches(purged));
    if let (None, Some(purged)) = (&checkpoint, purged) {
        return Err(OpenError::NoCheckpoint { shard, purged });
    }
    let now_ms = settings.env.now_ms();
    settings
        .indexes
        .set_aside(shard, now_ms)
        .await
        .map_err(|error| OpenError::Disk { shard, error })?;
    let opened = open_index(settings, shard, log)
        .await
        .map_err(|error| OpenError::Index { shard, error })?;
    let position = match &checkpoint {
        None => Position::default(),
        Some(checkpoint) => {
            let (checkpoint, index) = (checkpoint.clone(), opened.store.clone());
            malle_rt::blocking(move || load(&checkpoint, index.as_ref()))
                .await
                .map_err(|error| OpenError::Disk { shard, error })?
        }
    };
    Ok((opened, position, checkpoint))
}

/// Empties the index and fills it from a checkpoint that is whole. Until the last batch it has no position, so a crash in between is seen. Blocks.
pub(super) fn load(checkpoint: &Checkpoint, index: &dyn IndexStore) -> io::Result<Position> {
    let position = checkpoint.position()?;
    clear(index).map_err(io::Error::other)?;
    let mut batch: Vec<Row> = Vec::with_capacity(LOAD_BATCH_ROWS);
    checkpoint.changes(&mut |key, value| {
        batch.push((key, value));
        if batch.len() >= LOAD_BATCH_ROWS {
            index.apply_batch(&batch).map_err(io::Error::other)?;
            batch.clear();
        }
        Ok(())
    })?;
    index.apply_batch(&batch).map_err(io::Error::other)?;
    let (digest, rows) = scan_digest(index).map_err(io::Error::other)?;
    if (digest, rows) != (position.digest, position.rows) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!(
                "{rows} rows of {checkpoint:?} do not add up to its digest of {}",
                position.rows
            ),
        ));
    }
    index
        .apply_batch(&[StateRecord::row(&position)])
        .map_err(io::Error::other)?;
    index.flush().map_err(io::Error::other)?;
    Ok(position)
}

fn clear(index: &dyn IndexStore) -> Result<(), IndexError> {
    index.apply_batch(&[(STATE_KEY.to_vec(), None), (CLEAN_KEY.to_vec(), None)])?;
    index.flush()?;
    loop {
        let mut batch: Vec<Row> = Vec::new();
        index.scan(&[LOCAL_PREFIX + 1], &[0xFF; 32], &mut |key, _| {
            batch.push((key.to_vec(), None));
            Ok(if batch.len() < LOAD_BATCH_ROWS {
                Flow::More
            } else {
                Flow::Stop
            })
        })?;
        if batch.is_empty() {
            return Ok(());
        }
        index.apply_batch(&batch)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::golden::{is_kept, line};

    #[test]
    fn a_position_is_kept_as_it_always_was() {
        let of = |applied, rows| StateRecord {
            applied,
            membership: StoredMembershipRecord::default(),
            digest: Digest(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10),
            rows,
        };
        let applied = LogIdRecord {
            term: 3,
            node: 2,
            index: 70_000,
        };
        let mut lines = String::new();
        line(&mut lines, "position", &of(Some(applied), 5_000_000));
        line(&mut lines, "position-fresh", &of(None, 0));
        is_kept("view.txt", &lines);
    }
}
