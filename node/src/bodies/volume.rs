//! Volumes: a journal that keeps its segments, and a locator that finds a body in them.

pub(super) mod discarded;
mod space;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
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
use super::disk_room::DiskWatch;
use super::encoding::{self, Checked};
use super::footer::{self, FooterEntry};
use super::locator::{Counts, Key, Locator, Put};
use crate::peers::StoredBody;
use discarded::Discarded;
pub(super) use space::VolumeUse;

/// Kind of a journal record that holds a body.
const KIND_BODY: u8 = 1;

/// Before the stored bytes of a body: `length of this record u16, little-endian; this record in its envelope; stored bytes`. The shard
/// is the journal's group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BodyHead {
    pub hash: BodyHash,
    /// Length of the body itself.
    pub size: u64,
    /// 0 raw, 1 zstd.
    pub encoding: u32,
}
first_version!(BodyHead, 51);

/// Volumes on this node's disk.
#[derive(Clone)]
pub(super) struct Volumes {
    inner: Arc<Inner>,
}

struct Inner {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    /// What a new volume takes.
    volume_bytes: u64,
    journal: Journal,
    locator: Mutex<Locator>,
    /// Entries of the volume that is being filled.
    filling: Mutex<Filling>,
    /// What becomes of the volumes.
    upkeep: Mutex<Upkeep>,
}

/// Files beside the volumes, and volumes that went.
#[derive(Default)]
struct Upkeep {
    /// Volumes whose footer is being written.
    footing: BTreeSet<u64>,
    /// Bytes that a volume was needed for when its footer was written.
    footed: BTreeMap<u64, u64>,
    /// Segments that collection gave up.
    discarded: Discarded,
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
    locator: Locator,
    upkeep: Upkeep,
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
        self.locator.set((shard, head.hash), at);
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
        let mut listed = 0;
        for entry in entries {
            let at = entry.location(sealed.segment, sealed.generation);
            self.locator.set((entry.shard, entry.hash), at);
            listed += at.framed_bytes();
        }
        self.upkeep.footed.insert(sealed.segment, listed);
        false
    }

    fn lost(&mut self, segment: u64) -> bool {
        if self.upkeep.discarded.contains(segment) {
            return true;
        }
        tracing::error!(
            segment,
            "the file of a volume is gone; its bodies come back from the peers"
        );
        true
    }

    fn damaged(&mut self, segment: u64, bytes: Range<u32>) -> bool {
        // Each body stands for itself; those that are gone here are fetched from peers when they are missed.
        self.locator.tear(segment);
        tracing::error!(
            segment,
            from = bytes.start,
            until = bytes.end,
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
            upkeep: Upkeep {
                discarded: discarded::read(disk.as_ref(), dir).map_err(failed)?,
                ..Upkeep::default()
            },
            ..Found::default()
        };
        let options = Options {
            segment_bytes,
            node: node.0,
            mode: Mode::Keep,
            pool: 0,
            reserve: 0,
            batch_max_bytes: limits::JOURNAL_BATCH_MAX_BYTES,
            in_flight_max_bytes: limits::VOLUME_IN_FLIGHT_MAX_BYTES,
        };
        let journal = Journal::open(disk.clone(), dir, options, &mut found)?;
        for (segment, generation) in found.footers.into_keys() {
            // Of a volume that went: the crash came before its footer did.
            footer::remove(disk.as_ref(), dir, segment, generation).map_err(failed)?;
        }
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
            volume_bytes: segment_bytes,
            journal,
            locator: Mutex::new(found.locator),
            filling: Mutex::new(filling),
            upkeep: Mutex::new(found.upkeep),
        };
        let volumes = Volumes { inner: Arc::new(inner) };
        for (volume, entries) in found.scanned {
            volumes.write_footer(volume, entries);
        }
        Ok(volumes)
    }

    fn locator(&self) -> MutexGuard<'_, Locator> {
        self.inner.locator.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn filling(&self) -> MutexGuard<'_, Filling> {
        self.inner.filling.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn upkeep(&self) -> MutexGuard<'_, Upkeep> {
        self.inner.upkeep.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn has(&self, shard: ShardId, hash: BodyHash) -> bool {
        self.locator().at(&(shard, hash)).is_some()
    }

    /// Bytes on disk of the bodies of a shard.
    pub fn shard_bytes(&self, shard: ShardId) -> u64 {
        self.locator().shard_bytes(shard)
    }

    /// Shards of which bodies are here.
    pub fn shards(&self) -> Vec<ShardId> {
        self.locator().shards()
    }

    /// See [`Locator::drop_some`].
    pub fn drop_some(&self, shard: ShardId, most: usize) -> usize {
        self.locator().drop_some(shard, most)
    }

    /// Whether a durable copy is here, which the caller counts on from now on: collection leaves it alone.
    pub fn hold(&self, shard: ShardId, hash: BodyHash) -> bool {
        self.locator().hold(&(shard, hash))
    }

    /// Makes a body durable; one that is here already is not written again.
    pub async fn put(&self, body: StoredBody) -> Result<(), BodiesError> {
        let key = (body.shard, body.hash);
        let (done, writing) = watch::channel(());
        loop {
            let todo = self.locator().put(key, &writing);
            match todo {
                Put::Here => return Ok(()),
                Put::Write => break,
                Put::Wait(mut other) => {
                    // Only the end of the other's attempt matters, not how it ended: the next look tells.
                    let _ = other.changed().await;
                }
            }
        }
        let volumes = self.clone();
        let written = self.write(body, move |written| {
            match written {
                Ok(at) => volumes.landed(key, at),
                Err(_) => volumes.locator().not_written(&key),
            }
            drop(done);
        });
        written.await.map(drop)
    }

    /// Appends the record of a body. `landed` is called in the order of the disk, also when the caller has gone away.
    async fn write(
        &self,
        body: StoredBody,
        landed: impl FnOnce(Result<Location, &JournalError>) + Send + 'static,
    ) -> Result<Location, BodiesError> {
        let head = format::encode(&BodyHead {
            hash: body.hash,
            size: body.size,
            encoding: body.encoding,
        });
        let length = u16::try_from(head.len()).expect("a head has 40 bytes and its envelope");
        let parts = vec![Bytes::copy_from_slice(&length.to_le_bytes()), head, body.stored];
        let record = Record::new(u64::from(body.shard.0), KIND_BODY, parts);
        let (tell, told) = oneshot::channel();
        let completion = move |written: Result<Location, JournalError>| {
            landed(written.as_ref().copied());
            // A caller that went away wants no answer; the body is there all the same.
            let _ = tell.send(written);
        };
        self.inner.journal.submit(record, Durability::Sync, completion).await;
        let written = told.await.map_err(|_| BodiesError::Volumes("closed".into()))?;
        written.map_err(Into::into)
    }

    /// A body is here.
    fn landed(&self, key: Key, at: Location) {
        self.locator().set(key, at);
        self.fills(at, Some(key));
    }

    /// A record is in a volume, which lists it in its footer unless nobody needs it. Called in the order of the disk, so that a volume is
    /// complete when the first record of the next one lands.
    fn fills(&self, at: Location, key: Option<Key>) {
        let volume = (at.segment, at.generation);
        let full = {
            let mut filling = self.filling();
            let before = filling.volume.replace(volume).filter(|before| *before != volume);
            let full = before.map(|before| (before, std::mem::take(&mut filling.entries)));
            filling.entries.extend(key.map(|key| FooterEntry::of(key, at)));
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
        let key = (shard, hash);
        loop {
            let Some(at) = self.locator().at(&key) else {
                return Ok(None);
            };
            let outcome = self.read(shard, hash, at).await;
            if let Err(error @ BodiesError::Corrupt(_)) = &outcome {
                if self.locator().at(&key) != Some(at) {
                    // Its volume was collected meanwhile: it lies in another, or nobody needs it any more.
                    continue;
                }
                tracing::error!(%shard, %hash, %error, "a body on this disk is damaged; a peer's copy replaces it");
                self.locator().forget_damaged(&key, at);
            }
            return outcome.map(Some);
        }
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

    /// Up to `most` bodies behind `after`, in order, with the bytes that each takes on disk.
    pub fn stored_behind(&self, after: Option<Key>, most: usize) -> Vec<(Key, u32)> {
        let stored = self.locator().behind(after, most);
        stored.into_iter().map(|(key, at)| (key, at.payload_bytes)).collect()
    }

    /// Puts a good copy into the place of one that the disk does not give back. The old place is forgotten only while the new copy is
    /// written, and stands again when that fails: a disk that answers nothing loses nothing by this.
    ///
    /// # Errors
    /// `Volumes`.
    pub async fn replace(&self, body: StoredBody) -> Result<(), BodiesError> {
        let key = (body.shard, body.hash);
        let old = self.locator().at(&key);
        if let Some(old) = old {
            // As a damaged one: its volume stays until the new copy is there.
            self.locator().forget_damaged(&key, old);
        }
        let outcome = self.put(body).await;
        if let (Err(_), Some(old)) = (&outcome, old) {
            self.locator().restore(key, old);
        }
        outcome
    }

    /// Writes what a full volume holds. The volume stays until that is done.
    fn write_footer(&self, (segment, generation): (u64, u64), entries: Vec<FooterEntry>) {
        if self.is_torn(segment) {
            // Each start must meet the damage again: collection spares a volume for it.
            return;
        }
        let listed = entries
            .iter()
            .map(|entry| entry.location(segment, generation).framed_bytes());
        let listed = listed.sum();
        self.upkeep().footing.insert(segment);
        let volumes = self.clone();
        malle_rt::spawn(async move {
            let inner = volumes.inner.clone();
            let written = malle_rt::blocking(move || {
                footer::write(inner.disk.as_ref(), &inner.dir, segment, generation, entries)
            })
            .await;
            let mut upkeep = volumes.upkeep();
            upkeep.footing.remove(&segment);
            match written {
                Ok(()) => drop(upkeep.footed.insert(segment, listed)),
                Err(error) => {
                    tracing::warn!(segment, %error, "no footer was written; the next start scans this volume")
                }
            }
        });
    }

    pub fn counts(&self) -> Counts {
        self.locator().counts()
    }

    /// Records written since the start.
    #[cfg(test)]
    pub fn records(&self) -> u64 {
        self.inner.journal.records()
    }

    /// Watches the disk of these volumes.
    pub fn watch_disk(&self) -> Arc<DiskWatch> {
        let inner = &self.inner;
        DiskWatch::new(inner.disk.clone(), inner.dir.clone(), inner.volume_bytes)
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
        let old = volumes.locator().at(&key).expect("the body was put");
        volumes.locator().forget_damaged(&key, old);
        assert!(!volumes.has(key.0, key.1));
        volumes.put(stored).await.unwrap();
        // Two readers found the same damage; the second says so after the first has had it replaced.
        volumes.locator().forget_damaged(&key, old);
        assert!(volumes.has(key.0, key.1));
    }

    /// A reader has looked up where a body lies; before it reads, the body is carried away and its volume goes.
    #[test]
    fn a_reader_that_comes_too_late_to_a_volume_looks_again_where_the_body_lies() {
        let one_blocking_thread = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(1)
            .build();
        one_blocking_thread.unwrap().block_on(async {
            let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new());
            let volumes = Volumes::open(disk, Path::new("/bodies"), NodeId(1), 16 * 1024).unwrap();
            let mut bodies = Vec::new();
            for seed in 0..20u8 {
                // Nothing that compresses: the bodies have to fill volumes.
                let mut noise = vec![0; 2560];
                blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut noise);
                let body = Bytes::from(noise);
                let stored = encoding::encode(ShardId(1), encoding::hash_of(&body), &body);
                volumes.put(stored.clone()).await.unwrap();
                bodies.push((stored.hash, body));
            }
            let first = volumes.uses()[0];
            let lying = volumes.lying_in(first).await;
            let (key, old) = lying[0];
            for (key, from) in lying {
                volumes.carry(key, from).await.unwrap();
            }
            while !volumes.discard(first).await.unwrap() {
                tokio::task::yield_now().await;
            }
            let new = volumes.locator().at(&key).unwrap();
            volumes.locator().set(key, old);
            let (go, wait) = std::sync::mpsc::channel::<()>();
            let busy = malle_rt::blocking(move || wait.recv());
            let (mut busy, mut read) = (Box::pin(busy), Box::pin(volumes.get(key.0, key.1)));
            assert!(futures::poll!(&mut busy).is_pending() && futures::poll!(&mut read).is_pending());
            volumes.locator().set(key, new);
            go.send(()).unwrap();
            busy.await.unwrap();
            let found = read.await.unwrap().expect("it is there");
            assert!(bodies.contains(&(key.1, found.body)));
            assert!(volumes.has(key.0, key.1));
        });
    }
}
