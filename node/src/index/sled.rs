//! An index in sled 0.34.7: one database per group, one tree in it, and a fence around everything known to go wrong with it.
//!
//! The evidence is in the design notes on storage; docs/storage.md keeps the rules. What this file does about them:
//!
//! * **Open** removes `snap.*.generating` (a torn one makes every later open fail), runs on the blocking pool under `catch_unwind`,
//!   and has a deadline. A database without rows gets the uuid that the caller drew; one with rows but without a uuid is broken. A
//!   database that sled reset silently therefore shows up under a new uuid, and the caller's floor tells.
//! * **Flush** is sled's flush, then our own fsync of `db`, of new files in `blobs/`, and of the directories: sled calls only
//!   `sync_file_range`, and writes blobs without any sync.
//! * **Any error or panic**, at any call, poisons the store: every later call is [`IndexError::Broken`]. A broken database is leaked
//!   instead of dropped, for sled's own drop may wait for a thread that has died.
//!
//! sled's background thread stays on (its garbage collection runs only there). Nothing here may be relied upon after a power cut
//! without the caller's comparison of uuid, applied index and digest.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use malle_machine::digest::LOCAL_PREFIX;
use malle_machine::view::{Flow, RowVisitor};

use super::dirs::sync_parent;
use super::fence::{Fence, caught};
use super::{IndexError, IndexStore, Row, check_sizes};

/// Key of the row that names the database: a node's own row, never part of a digest or a snapshot.
const UUID_KEY: [u8; 5] = [LOCAL_PREFIX, b'u', b'u', b'i', b'd'];
/// Pause between two tries to get the directory's lock from a store that is still closing.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// How to open an index.
#[derive(Debug, Clone)]
pub struct Options {
    /// The database's own directory; made when missing.
    pub dir: PathBuf,
    /// What sled may hold in memory. It is exceeded by about two under load.
    pub cache_bytes: u64,
    /// Pause between two runs of sled's background flush and garbage collection.
    pub flush_every_ms: u64,
    /// The uuid of the database, should this open make it. Drawn by the caller, never twice.
    pub fresh_uuid: [u8; 16],
    /// An open that takes longer is given up: the store counts as broken.
    pub open_deadline: Duration,
}

impl Options {
    /// The usual settings for a database in `dir`.
    pub fn new(dir: impl Into<PathBuf>, fresh_uuid: [u8; 16]) -> Self {
        Options {
            dir: dir.into(),
            cache_bytes: 16 * 1024 * 1024,
            flush_every_ms: 1_000,
            fresh_uuid,
            open_deadline: Duration::from_secs(60),
        }
    }
}

/// An open index.
pub struct Opened {
    /// The store.
    pub store: SledIndex,
    /// The uuid it was made with. Compare it with the floor: another one means that flushed rows are gone.
    pub uuid: [u8; 16],
    /// This open made the database.
    pub created: bool,
}

/// A database of sled.
pub struct SledIndex {
    /// Taken only by `drop`.
    db: Option<sled::Db>,
    dir: PathBuf,
    fence: Fence,
    /// Names in `blobs/` that are synced already.
    blobs_synced: Mutex<BTreeSet<OsString>>,
}

impl SledIndex {
    /// Opens or makes the database.
    ///
    /// # Errors
    /// [`IndexError::Broken`] when it does not open, has rows but no uuid, or takes longer than its deadline;
    /// [`IndexError::InUse`] when another store holds the directory until the deadline.
    pub async fn open(options: Options) -> Result<Opened, IndexError> {
        let deadline = malle_rt::now() + options.open_deadline;
        let mut in_use = None;
        loop {
            let again = options.clone();
            let work = malle_rt::blocking(move || open_now(&again));
            let Ok(opened) = malle_rt::timeout_at(deadline, work).await else {
                // A lock seen held says nothing against the rows: the slow last try does not make them broken.
                return Err(in_use.unwrap_or_else(|| {
                    IndexError::Broken(format!(
                        "opening {} took longer than {:?}",
                        options.dir.display(),
                        options.open_deadline
                    ))
                }));
            };
            match opened {
                Err(held @ IndexError::InUse(_)) if malle_rt::now() + LOCK_PAUSE < deadline => {
                    in_use = Some(held);
                    malle_rt::sleep(LOCK_PAUSE).await
                }
                other => return other,
            }
        }
    }

    fn db(&self) -> &sled::Db {
        self.db
            .as_ref()
            .expect("only drop takes it, and nobody calls after drop")
    }

    /// Runs one call into sled. An error or panic poisons the store.
    fn guarded<T>(&self, what: &str, work: impl FnOnce() -> Result<T, sled::Error>) -> Result<T, IndexError> {
        self.fence.guarded(what, work)
    }

    fn walk(&self, from: &[u8], to: &[u8], back: bool, visit: &mut RowVisitor<'_>) -> Result<(), IndexError> {
        if from >= to {
            return Ok(());
        }
        let mut rows = self.guarded("scan", || Ok(self.db().range::<&[u8], _>(from..to)))?;
        loop {
            let step = || if back { rows.next_back() } else { rows.next() }.transpose();
            let Some((key, value)) = self.guarded("scan", step)? else {
                return Ok(());
            };
            if visit(&key, &value)? == Flow::Stop {
                return Ok(());
            }
        }
    }

    /// Syncs the files in `blobs/` that came since the last time, and forgets those that went.
    fn sync_blobs(&self) -> io::Result<()> {
        let mut synced = self.blobs_synced.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = self.dir.join("blobs");
        let mut present = BTreeSet::new();
        for entry in std::fs::read_dir(&dir)? {
            let entry = entry?;
            let name = entry.file_name();
            if !synced.contains(&name) {
                match File::open(entry.path()) {
                    Ok(file) => file.sync_all()?,
                    // sled removes a blob whose page was rewritten: then nothing points to it any more.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(error),
                }
            }
            present.insert(name);
        }
        if present != *synced {
            File::open(&dir)?.sync_all()?;
            *synced = present;
        }
        Ok(())
    }
}

impl Drop for SledIndex {
    fn drop(&mut self) {
        let db = self.db.take();
        if self.fence.broken().is_some() {
            std::mem::forget(db);
            return;
        }
        if let Err(error) = caught(move || drop(db)) {
            tracing::error!(dir = %self.dir.display(), %error, "the index did not close; its next open decides");
        }
    }
}

impl IndexStore for SledIndex {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, IndexError> {
        let value = self.guarded("get", || self.db().get(key))?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut RowVisitor<'_>) -> Result<(), IndexError> {
        self.walk(from, to, false, visit)
    }

    fn scan_back(&self, from: &[u8], to: &[u8], visit: &mut RowVisitor<'_>) -> Result<(), IndexError> {
        self.walk(from, to, true, visit)
    }

    fn apply_batch(&self, rows: &[Row]) -> Result<(), IndexError> {
        check_sizes(rows)?;
        let mut batch = sled::Batch::default();
        for (key, value) in rows {
            match value {
                Some(value) => batch.insert(key.as_slice(), value.as_ref()),
                None => batch.remove(key.as_slice()),
            }
        }
        self.guarded("apply a batch", || self.db().apply_batch(batch))
    }

    fn flush(&self) -> Result<(), IndexError> {
        self.guarded("flush", || {
            self.db().flush()?;
            self.sync_blobs()?;
            File::open(self.dir.join("db"))?.sync_all()?;
            // sled renames its `snap.*` files in the directory while it is open.
            File::open(&self.dir)?.sync_all()?;
            Ok(())
        })
    }

    fn disk_bytes(&self) -> Result<u64, IndexError> {
        self.guarded("measure", || self.db().size_on_disk())
    }
}

/// sled's own open, with what it must not find removed before.
fn open_database(options: &Options) -> Result<sled::Db, IndexError> {
    let opened = caught(|| {
        remove_torn_snapshots(&options.dir)?;
        sled::Config::new()
            .path(&options.dir)
            .cache_capacity(options.cache_bytes)
            .flush_every_ms(Some(options.flush_every_ms))
            .open()
    });
    match opened {
        Ok(Ok(db)) => Ok(db),
        // sled has no variant of its own for a held lock.
        Ok(Err(sled::Error::Io(error))) if error.to_string().contains("could not acquire lock") => {
            Err(IndexError::InUse(error.to_string()))
        }
        Ok(Err(error)) => Err(IndexError::Broken(format!("open: {error}"))),
        Err(panic) => Err(IndexError::Broken(format!("open: {panic}"))),
    }
}

/// One try to open, in the caller's thread.
fn open_now(options: &Options) -> Result<Opened, IndexError> {
    let db = open_database(options)?;
    let store = SledIndex {
        db: Some(db),
        dir: options.dir.clone(),
        fence: Fence::around(&options.dir),
        blobs_synced: Mutex::new(BTreeSet::new()),
    };
    let found = store.get(&UUID_KEY)?;
    if let Some(found) = found {
        let uuid = <[u8; 16]>::try_from(found.as_ref())
            .map_err(|_| store.fence.poison(format!("its uuid row has {} bytes", found.len())))?;
        return Ok(Opened {
            store,
            uuid,
            created: false,
        });
    }
    if store
        .guarded("look for rows", || store.db().iter().next().transpose())?
        .is_some()
    {
        return Err(store
            .fence
            .poison("there are rows, but the row that names the database is gone".into()));
    }
    let uuid = options.fresh_uuid;
    store.apply_batch(&[(UUID_KEY.to_vec(), Some(Bytes::copy_from_slice(&uuid)))])?;
    store.flush()?;
    store.guarded("make the new files durable", || {
        File::open(store.dir.join("conf"))?.sync_all()?;
        Ok(sync_parent(&store.dir)?)
    })?;
    Ok(Opened {
        store,
        uuid,
        created: true,
    })
}

/// sled skips only `*.in___motion` when it looks for snapshots, so one that a crash tore while it was written would be read as
/// the newest and fail every open from then on. The finished snapshot and the log hold everything it would say.
fn remove_torn_snapshots(dir: &Path) -> io::Result<()> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
