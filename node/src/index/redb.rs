//! An index in redb 4.6: one file per group, one table in it. It stands beside sled for comparison and as the way out (decision 12).
//!
//! redb keeps what sled only tries to: a commit is atomic over a power cut, readers have snapshots, and flush is a real sync. Here batches
//! are committed without durability and [`IndexStore::flush`] is one durable commit, so that both engines do the same work for the same
//! calls. What redb asks in return: one writer at a time, pages that are freed only by the next durable commit, and after an unclean stop
//! a walk over the whole file before it opens.
//!
//! Built only with the feature `redb`, which no package of malle's sets but the measurements.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use malle_machine::digest::LOCAL_PREFIX;
use malle_machine::view::{Flow, RowVisitor};
use redb::{Database, Durability, ReadableDatabase, TableDefinition};

use super::dirs::sync_parent;
use super::fence::{Fence, caught};
use super::{IndexError, IndexStore, Row, check_sizes};

const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");
/// Key of the row that names the database, as in sled's.
const UUID_KEY: [u8; 5] = [LOCAL_PREFIX, b'u', b'u', b'i', b'd'];
/// The file in the database's directory.
const FILE: &str = "rows.redb";

/// A database of redb.
pub struct RedbIndex {
    db: Database,
    file: PathBuf,
    uuid: [u8; 16],
    created: bool,
    fence: Fence,
}

impl RedbIndex {
    /// Opens or makes the database in a directory. Blocks, after an unclean stop for as long as the whole file takes to read.
    ///
    /// # Errors
    /// [`IndexError::Broken`], or [`IndexError::InUse`] when another store holds the file.
    pub fn open(dir: &Path, cache_bytes: usize, fresh_uuid: [u8; 16]) -> Result<RedbIndex, IndexError> {
        let file = dir.join(FILE);
        let made = std::fs::create_dir_all(dir).and_then(|()| sync_parent(dir));
        made.map_err(|error| IndexError::Broken(format!("open: {error}")))?;
        let opened = caught(|| Database::builder().set_cache_size(cache_bytes).create(&file));
        let db = match opened {
            Ok(Ok(db)) => db,
            Ok(Err(redb::DatabaseError::DatabaseAlreadyOpen)) => {
                return Err(IndexError::InUse(file.display().to_string()));
            }
            Ok(Err(error)) => return Err(IndexError::Broken(format!("open: {error}"))),
            Err(panic) => return Err(IndexError::Broken(format!("open: {panic}"))),
        };
        let mut store = RedbIndex {
            db,
            file,
            uuid: fresh_uuid,
            created: false,
            fence: Fence::around(dir),
        };
        // Makes the table, so that every read finds one.
        store.commit("make the table", &[], Durability::Immediate)?;
        match store.get(&UUID_KEY)? {
            Some(found) => {
                let uuid = <[u8; 16]>::try_from(found.as_ref());
                store.uuid = uuid.map_err(|_| store.fence.poison(format!("its uuid row has {} bytes", found.len())))?;
            }
            None => {
                let row = (UUID_KEY.to_vec(), Some(Bytes::copy_from_slice(&fresh_uuid)));
                store.commit("name the database", &[row], Durability::Immediate)?;
                store.created = true;
            }
        }
        Ok(store)
    }

    /// The uuid it was made with.
    pub fn uuid(&self) -> [u8; 16] {
        self.uuid
    }

    /// This open made the database.
    pub fn created(&self) -> bool {
        self.created
    }

    fn commit(&self, what: &str, rows: &[Row], durability: Durability) -> Result<(), IndexError> {
        self.fence.guarded(what, || {
            let mut transaction = self.db.begin_write()?;
            transaction.set_durability(durability)?;
            {
                let mut table = transaction.open_table(ROWS)?;
                for (key, value) in rows {
                    match value {
                        Some(value) => drop(table.insert(key.as_slice(), value.as_ref())?),
                        None => drop(table.remove(key.as_slice())?),
                    }
                }
            }
            Ok::<_, redb::Error>(transaction.commit()?)
        })
    }

    fn walk(&self, from: &[u8], to: &[u8], back: bool, visit: &mut RowVisitor<'_>) -> Result<(), IndexError> {
        if from >= to {
            return Ok(());
        }
        let mut rows = self.fence.guarded("scan", || {
            let table = self.db.begin_read()?.open_table(ROWS)?;
            Ok::<_, redb::Error>(table.range::<&[u8]>(from..to)?)
        })?;
        loop {
            let step = || if back { rows.next_back() } else { rows.next() }.transpose();
            let Some((key, value)) = self.fence.guarded("scan", step)? else {
                return Ok(());
            };
            if visit(key.value(), value.value())? == Flow::Stop {
                return Ok(());
            }
        }
    }
}

impl IndexStore for RedbIndex {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, IndexError> {
        self.fence.guarded("get", || {
            let table = self.db.begin_read()?.open_table(ROWS)?;
            let value = table.get(key)?;
            Ok::<_, redb::Error>(value.map(|value| Bytes::copy_from_slice(value.value())))
        })
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut RowVisitor<'_>) -> Result<(), IndexError> {
        self.walk(from, to, false, visit)
    }

    fn scan_back(&self, from: &[u8], to: &[u8], visit: &mut RowVisitor<'_>) -> Result<(), IndexError> {
        self.walk(from, to, true, visit)
    }

    fn apply_batch(&self, rows: &[Row]) -> Result<(), IndexError> {
        check_sizes(rows)?;
        self.commit("apply a batch", rows, Durability::None)
    }

    fn flush(&self) -> Result<(), IndexError> {
        self.commit("flush", &[], Durability::Immediate)
    }

    fn disk_bytes(&self) -> Result<u64, IndexError> {
        self.fence
            .guarded("measure", || std::fs::metadata(&self.file))
            .map(|file| file.len())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::suite::{Chance, Rows, every_claim, follow, rows_of};
    use super::*;

    const CACHE_BYTES: usize = 16 << 20;

    #[test]
    fn redb_passes_the_suite() {
        let dir = tempfile::tempdir().unwrap();
        let number = std::cell::Cell::new(0);
        every_claim(&|| {
            number.set(number.get() + 1);
            let dir = dir.path().join(number.get().to_string());
            Box::new(RedbIndex::open(&dir, CACHE_BYTES, [1; 16]).unwrap())
        });
    }

    #[test]
    fn a_database_keeps_its_rows_and_its_uuid_over_reopens_and_is_held_by_one() {
        let dir = tempfile::tempdir().unwrap();
        let mut model = BTreeMap::new();
        let mut chance = Chance(3);
        for round in 0..4u8 {
            let store = RedbIndex::open(dir.path(), CACHE_BYTES, [1 + round; 16]).unwrap();
            assert_eq!((store.uuid(), store.created()), ([1; 16], round == 0));
            assert_eq!(rows_of(&store).unwrap(), model.clone().into_iter().collect::<Rows>());
            let second = RedbIndex::open(dir.path(), CACHE_BYTES, [9; 16]);
            assert!(matches!(second.err(), Some(IndexError::InUse(_))));
            let batch = chance.batch(200);
            store.apply_batch(&batch).unwrap();
            follow(&mut model, &batch);
            store.flush().unwrap();
        }
    }

    #[test]
    fn a_damaged_file_is_broken() {
        let dir = tempfile::tempdir().unwrap();
        drop(RedbIndex::open(dir.path(), CACHE_BYTES, [1; 16]).unwrap());
        std::fs::write(dir.path().join(FILE), b"no database").unwrap();
        let opened = RedbIndex::open(dir.path(), CACHE_BYTES, [1; 16]);
        assert!(matches!(opened.err(), Some(IndexError::Broken(_))));
    }
}
