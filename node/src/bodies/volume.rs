//! Volumes: a journal that keeps its segments, and a locator that finds a body in them.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use malle_journal::{
    Disk, Durability, Journal, JournalError, Location, Mode, Options, Record, Replay, ReplayRefusal, ReplayedRecord,
    SealedSegment,
};
use malle_machine::{first_version, format};
use malle_proto::{BodyHash, NodeId, ShardId, limits};
use serde::{Deserialize, Serialize};
use tokio::sync::{oneshot, watch};

use super::BodiesError;
use super::encoding::{self, Checked};
use super::footer::{self, FooterEntry};
use crate::peers::StoredBody;

/// Kind of a journal record that holds a body.
const KIND_BODY: u8 = 1;

/// Before the stored bytes of a body: `length of this record u16, little-endian; this record in its envelope; stored bytes`. The shard
/// is the journal's group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct BodyHead {
    hash: BodyHash,
    /// Length of the body itself.
    size: u64,
    /// 0 raw, 1 zstd.
    encoding: u32,
}
first_version!(BodyHead, 51);

pub(super) type Key = (ShardId, BodyHash);

/// Where a body is.
enum Slot {
    /// On its way to the disk; the channel closes when it is there or has failed.
    Writing(watch::Receiver<()>),
    At(Location),
}

/// In order, so that the scrub goes through them in pages, however many there are.
type Slots = BTreeMap<Key, Slot>;

/// Volumes on this node's disk.
#[derive(Clone)]
pub(super) struct Volumes {
    inner: Arc<Inner>,
}

struct Inner {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    journal: Journal,
    slots: Mutex<Slots>,
    /// Entries of the volume that is being filled.
    filling: Mutex<Filling>,
}

#[derive(Default)]
struct Filling {
    /// Segment and generation.
    volume: Option<(u64, u64)>,
    entries: Vec<FooterEntry>,
}

/// Takes what a start finds.
#[derive(Default)]
struct Found {
    footers: BTreeMap<(u64, u64), Vec<FooterEntry>>,
    slots: Slots,
    /// Volumes that were scanned, for footers that are missing.
    scanned: BTreeMap<(u64, u64), Vec<FooterEntry>>,
}

impl Replay for Found {
    fn record(&mut self, record: ReplayedRecord<'_>) -> Result<(), ReplayRefusal> {
        if record.kind != KIND_BODY {
            return Err(format!("volume record of unknown kind {}", record.kind).into());
        }
        let (head, _) = split(record.payload)?;
        let shard = ShardId(u32::try_from(record.group)?);
        let at = record.location;
        self.slots.insert((shard, head.hash), Slot::At(at));
        self.scanned
            .entry((at.segment, at.generation))
            .or_default()
            .push(FooterEntry {
                shard,
                hash: head.hash,
                offset: at.offset,
                payload_bytes: at.payload_bytes,
            });
        Ok(())
    }

    fn wants(&mut self, sealed: SealedSegment) -> bool {
        let volume = (sealed.segment, sealed.generation);
        let Some(entries) = self.footers.remove(&volume) else {
            return true;
        };
        for entry in entries {
            let at = entry.location(sealed.segment, sealed.generation);
            self.slots.insert((entry.shard, entry.hash), Slot::At(at));
        }
        false
    }

    fn lost(&mut self, segment: u64) -> bool {
        tracing::error!(
            segment,
            "the file of a volume is gone; its bodies come back from the peers"
        );
        true
    }

    fn damaged(&mut self, segment: u64, offset: u32) -> bool {
        // Each body stands for itself; those that are gone here are fetched from peers when they are missed.
        tracing::error!(
            segment,
            offset,
            "a volume is damaged; what is lost here comes back from the peers"
        );
        true
    }
}

fn split(payload: &[u8]) -> Result<(BodyHead, &[u8]), format::FormatError> {
    let short = format::FormatError::Short {
        have: payload.len(),
        want: 2,
    };
    let (length, rest) = payload.split_first_chunk::<2>().ok_or(short)?;
    let length = usize::from(u16::from_le_bytes(*length));
    let short = format::FormatError::Short {
        have: rest.len(),
        want: length,
    };
    let (head, stored) = rest.split_at_checked(length).ok_or(short)?;
    Ok((format::decode(head)?, stored))
}

impl Volumes {
    /// Opens the volumes in `dir`. Blocks: this is the start.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, node: NodeId, segment_bytes: u64) -> Result<Volumes, BodiesError> {
        let failed = |error: std::io::Error| BodiesError::Volumes(error.to_string());
        disk.create_dir_all(dir).map_err(failed)?;
        let mut found = Found {
            footers: footer::read_all(disk.as_ref(), dir).map_err(failed)?,
            ..Found::default()
        };
        let options = Options {
            segment_bytes,
            node: node.0,
            mode: Mode::Keep,
            pool: 0,
            batch_max_bytes: limits::JOURNAL_BATCH_MAX_BYTES,
            in_flight_max_bytes: limits::VOLUME_IN_FLIGHT_MAX_BYTES,
        };
        let journal = Journal::open(disk.clone(), dir, options, &mut found)?;
        let mut filling = Filling::default();
        if let Some((volume, entries)) = found.scanned.pop_last() {
            filling = Filling {
                volume: Some(volume),
                entries,
            };
        }
        let inner = Inner {
            disk,
            dir: dir.to_owned(),
            journal,
            slots: Mutex::new(found.slots),
            filling: Mutex::new(filling),
        };
        let volumes = Volumes { inner: Arc::new(inner) };
        for (volume, entries) in found.scanned {
            volumes.write_footer(volume, entries);
        }
        Ok(volumes)
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.inner.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn has(&self, shard: ShardId, hash: BodyHash) -> bool {
        matches!(self.slots().get(&(shard, hash)), Some(Slot::At(_)))
    }

    /// Makes a body durable; one that is here already is not written again.
    pub async fn put(&self, body: StoredBody) -> Result<(), BodiesError> {
        let key = (body.shard, body.hash);
        let (done, writing) = watch::channel(());
        loop {
            let mut other = {
                let mut slots = self.slots();
                match slots.get(&key) {
                    Some(Slot::At(_)) => return Ok(()),
                    // A closed channel is a writer that gave up.
                    Some(Slot::Writing(other)) if other.has_changed().is_ok() => other.clone(),
                    _ => {
                        slots.insert(key, Slot::Writing(writing));
                        break;
                    }
                }
            };
            // Only the end of the other's attempt matters, not how it ended: the next look tells.
            let _ = other.changed().await;
        }
        let head = format::encode(&BodyHead {
            hash: body.hash,
            size: body.size,
            encoding: body.encoding,
        });
        let length = u16::try_from(head.len()).map_err(|_| BodiesError::Volumes("a head of a body is short".into()))?;
        let parts = vec![Bytes::copy_from_slice(&length.to_le_bytes()), head, body.stored];
        let record = Record::new(u64::from(body.shard.0), KIND_BODY, parts);
        let (tell, told) = oneshot::channel();
        let volumes = self.clone();
        let completion = move |written: Result<Location, JournalError>| {
            let result = written.map(|at| volumes.landed(key, at));
            if result.is_err() {
                volumes.slots().remove(&key);
            }
            drop(done);
            // A caller that went away wants no answer; the body is there all the same.
            let _ = tell.send(result);
        };
        self.inner.journal.submit(record, Durability::Sync, completion).await;
        told.await
            .map_err(|_| BodiesError::Volumes("closed".into()))?
            .map_err(Into::into)
    }

    /// Called in the order of the disk, so that a volume is complete when the first body of the next one lands.
    fn landed(&self, key: Key, at: Location) {
        self.slots().insert(key, Slot::At(at));
        let volume = (at.segment, at.generation);
        let entry = FooterEntry {
            shard: key.0,
            hash: key.1,
            offset: at.offset,
            payload_bytes: at.payload_bytes,
        };
        let full = {
            let mut filling = self.inner.filling.lock().unwrap_or_else(PoisonError::into_inner);
            let before = filling.volume.replace(volume).filter(|before| *before != volume);
            let full = before.map(|before| (before, std::mem::take(&mut filling.entries)));
            filling.entries.push(entry);
            full
        };
        if let Some((volume, entries)) = full {
            self.write_footer(volume, entries);
        }
    }

    /// A body that is here, its hash checked.
    ///
    /// # Errors
    /// `Corrupt`: this copy is forgotten, the next put writes another. `Volumes`: the disk did not answer, the copy may be good.
    pub async fn get(&self, shard: ShardId, hash: BodyHash) -> Result<Option<Checked>, BodiesError> {
        let at = match self.slots().get(&(shard, hash)) {
            Some(Slot::At(at)) => *at,
            _ => return Ok(None),
        };
        let outcome = self.read(shard, hash, at).await;
        if let Err(error @ BodiesError::Corrupt(_)) = &outcome {
            tracing::error!(%shard, %hash, %error, "a body on this disk is damaged; a peer's copy replaces it");
            self.forget((shard, hash), at);
        }
        outcome.map(Some)
    }

    async fn read(&self, shard: ShardId, hash: BodyHash, at: Location) -> Result<Checked, BodiesError> {
        let payload = match self.inner.journal.read(at).await {
            Ok(payload) => payload,
            Err(error @ (JournalError::Corrupt { .. } | JournalError::Gone { .. })) => {
                return Err(BodiesError::Corrupt(error.to_string()));
            }
            Err(error) => return Err(error.into()),
        };
        let (head, stored) = split(&payload).map_err(|error| BodiesError::Corrupt(error.to_string()))?;
        let stored = StoredBody {
            shard,
            hash,
            size: head.size,
            encoding: head.encoding,
            stored: payload.slice_ref(stored),
        };
        encoding::check(stored).await
    }

    /// The copy at this place is worth nothing. One that was written since stays.
    fn forget(&self, key: Key, at: Location) {
        let mut slots = self.slots();
        if matches!(slots.get(&key), Some(Slot::At(now)) if *now == at) {
            slots.remove(&key);
        }
    }

    /// Up to `most` bodies behind `after`, in order, with the bytes that each takes on disk.
    pub fn stored_behind(&self, after: Option<Key>, most: usize) -> Vec<(Key, u32)> {
        let behind = after.map_or(Bound::Unbounded, Bound::Excluded);
        let slots = self.slots();
        let stored = slots
            .range((behind, Bound::Unbounded))
            .filter_map(|(key, slot)| match slot {
                Slot::At(at) => Some((*key, at.payload_bytes)),
                Slot::Writing(_) => None,
            });
        stored.take(most).collect()
    }

    /// Puts a good copy into the place of one that the disk does not give back. The old place is forgotten only while the new copy is
    /// written, and stands again when that fails: a disk that answers nothing loses nothing by this.
    ///
    /// # Errors
    /// `Volumes`.
    pub async fn replace(&self, body: StoredBody) -> Result<(), BodiesError> {
        let key = (body.shard, body.hash);
        let old = match self.slots().get(&key) {
            Some(Slot::At(at)) => Some(*at),
            _ => None,
        };
        if let Some(old) = old {
            self.forget(key, old);
        }
        let outcome = self.put(body).await;
        if let (Err(_), Some(old)) = (&outcome, old) {
            self.slots().entry(key).or_insert(Slot::At(old));
        }
        outcome
    }

    fn write_footer(&self, (segment, generation): (u64, u64), entries: Vec<FooterEntry>) {
        let inner = self.inner.clone();
        malle_rt::spawn(async move {
            let written = malle_rt::blocking(move || {
                footer::write(inner.disk.as_ref(), &inner.dir, segment, generation, entries)
            })
            .await;
            if let Err(error) = written {
                tracing::warn!(segment, %error, "no footer was written; the next start scans this volume");
            }
        });
    }

    pub fn counts(&self) -> (u64, u64) {
        let slots = self.slots();
        let bytes = slots.values().map(|slot| match slot {
            Slot::At(at) => u64::from(at.payload_bytes),
            Slot::Writing(_) => 0,
        });
        (slots.len() as u64, bytes.sum())
    }

    /// Records written since the start.
    #[cfg(test)]
    pub fn records(&self) -> u64 {
        self.inner.journal.records()
    }

    pub fn journal(&self) -> &Journal {
        &self.inner.journal
    }

    pub fn failed(&self) -> watch::Receiver<Option<String>> {
        self.inner.journal.failed()
    }

    pub async fn close(&self) {
        self.inner.journal.close().await;
    }
}

#[cfg(test)]
mod tests {
    use malle_journal::MemoryDisk;

    use super::*;

    #[tokio::test]
    async fn a_late_report_about_an_old_copy_spares_the_new_one() {
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new());
        let volumes = Volumes::open(disk, Path::new("/bodies"), NodeId(1), 64 * 1024).unwrap();
        let body = Bytes::from_static(b"a body");
        let stored = encoding::encode(ShardId(1), encoding::hash_of(&body), &body);
        let key = (stored.shard, stored.hash);
        volumes.put(stored.clone()).await.unwrap();
        let Some(&Slot::At(old)) = volumes.slots().get(&key) else {
            panic!("the body was put");
        };
        volumes.forget(key, old);
        assert!(!volumes.has(key.0, key.1));
        volumes.put(stored).await.unwrap();
        // Two readers found the same damage; the second says so after the first has had it replaced.
        volumes.forget(key, old);
        assert!(volumes.has(key.0, key.1));
    }
}
