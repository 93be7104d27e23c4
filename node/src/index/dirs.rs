//! Where the databases of a group lie, which of them counts, and where broken ones go.
//!
//! ```text
//! shard-7                 the database that a group makes when it has none
//! shard-7.view-<uuid>     one that was made beside it, to take its place
//! shard-7.bad-<ms>        one that was set aside
//! ```
//!
//! The group's floor names the database that counts by its uuid. So another one takes over in the moment in which the floor is written,
//! and a crash leaves either: nothing here is renamed while an engine has it open.

use std::io;
use std::path::{Path, PathBuf};

use malle_proto::limits;

/// Where a database with this uuid is made beside the one in `dir`.
pub fn beside(dir: &Path, uuid: [u8; 16]) -> PathBuf {
    let number = u128::from_be_bytes(uuid);
    with_suffix(dir, &format!(".view-{number:032x}"))
}

fn with_suffix(dir: &Path, suffix: &str) -> PathBuf {
    let mut name = dir.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    dir.with_file_name(name)
}

/// What is there under the name of `dir` and these letters behind it, with what follows them.
fn with_prefix(dir: &Path, letters: &str) -> io::Result<Vec<(String, PathBuf)>> {
    let (Some(parent), Some(name)) = (dir.parent(), dir.file_name().and_then(|name| name.to_str())) else {
        return Ok(Vec::new());
    };
    let prefix = format!("{name}{letters}");
    let entries = match std::fs::read_dir(parent) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        if let Some(rest) = name.to_str().and_then(|name| name.strip_prefix(&prefix)) {
            found.push((rest.to_owned(), entry.path()));
        }
    }
    Ok(found)
}

/// Every database of the group that was not set aside.
fn databases(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut all: Vec<PathBuf> = with_prefix(dir, ".view-")?.into_iter().map(|(_, path)| path).collect();
    if dir.exists() {
        all.insert(0, dir.to_owned());
    }
    Ok(all)
}

/// The database that counts when the floor names this one. What else is there is an unfinished copy, or what a copy has replaced, and is
/// removed: nobody has it open.
///
/// # Errors
/// What the file system says.
pub fn current(dir: &Path, named: Option<[u8; 16]>) -> io::Result<PathBuf> {
    let copy = named.map(|uuid| beside(dir, uuid)).filter(|copy| copy.exists());
    let current = copy.unwrap_or_else(|| dir.to_owned());
    keep_only(dir, &current)?;
    Ok(current)
}

/// Removes every database of the group but this one.
///
/// # Errors
/// What the file system says.
pub fn keep_only(dir: &Path, kept: &Path) -> io::Result<()> {
    for path in databases(dir)?.iter().filter(|path| *path != kept) {
        tracing::info!(dir = %path.display(), "a view that is not the group's any more, or never was, is removed");
        std::fs::remove_dir_all(path)?;
        sync_parent(path)?;
    }
    Ok(())
}

/// Removes every database of the group, also those that were set aside.
///
/// # Errors
/// What the file system says; it may be called again.
pub fn remove_all(dir: &Path) -> io::Result<()> {
    let aside = with_prefix(dir, ".bad-")?.into_iter().map(|(_, path)| path);
    for path in databases(dir)?.into_iter().chain(aside) {
        std::fs::remove_dir_all(&path)?;
        sync_parent(&path)?;
    }
    Ok(())
}

/// Moves the directory of a broken index out of the way, to `<dir>.bad-<now_ms>`, for a person to look at or remove. Of all that
/// was set aside for `dir`, the newest [`limits::VIEWS_SET_ASIDE_MAX`] stay. An unfinished copy beside it is removed.
/// The rebuild then starts in a directory that does not exist.
///
/// # Errors
/// What the file system says; `NotFound` when there is no such directory.
pub fn set_aside(dir: &Path, now_ms: u64) -> io::Result<PathBuf> {
    let databases = databases(dir)?;
    let broken = databases.first().map_or(dir, PathBuf::as_path);
    let target = with_suffix(dir, &format!(".bad-{now_ms}"));
    std::fs::rename(broken, &target)?;
    sync_parent(dir)?;
    if let Err(error) = remove_older(dir) {
        // What lies there too long costs disk, nothing else: the rebuild goes on.
        tracing::warn!(dir = %dir.display(), %error, "older views that were set aside stay");
    }
    keep_only(dir, dir)?;
    Ok(target)
}

/// Removes what was set aside for `dir`, but for the newest ones.
fn remove_older(dir: &Path) -> io::Result<()> {
    let mut aside: Vec<(u64, PathBuf)> = with_prefix(dir, ".bad-")?
        .into_iter()
        .filter_map(|(since_ms, path)| Some((since_ms.parse().ok()?, path)))
        .collect();
    aside.sort();
    let older = aside.len().saturating_sub(limits::VIEWS_SET_ASIDE_MAX);
    for (_, path) in aside.iter().take(older) {
        std::fs::remove_dir_all(path)?;
    }
    Ok(())
}

/// Makes the name of `path` durable in the directory that holds it.
pub(super) fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => std::fs::File::open(parent)?.sync_all(),
        _ => std::fs::File::open(".")?.sync_all(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(base: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(base).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// A group's database, two copies beside it, and those of a group whose number begins alike.
    fn several(base: &Path) -> PathBuf {
        let dir = base.join("shard-1");
        let other = base.join("shard-10");
        for path in [
            &dir,
            &beside(&dir, [2; 16]),
            &beside(&dir, [3; 16]),
            &other,
            &beside(&other, [2; 16]),
        ] {
            std::fs::create_dir(path).unwrap();
        }
        dir
    }

    #[test]
    fn the_floor_says_which_database_counts_and_the_others_go() {
        for (named, counts) in [
            (None, "shard-1".to_owned()),
            (Some([1; 16]), "shard-1".to_owned()),
            (Some([3; 16]), format!("shard-1.view-{}", "03".repeat(16))),
        ] {
            let base = tempfile::tempdir().unwrap();
            let dir = several(base.path());
            assert_eq!(current(&dir, named).unwrap(), base.path().join(&counts));
            assert_eq!(
                names(base.path()),
                [counts, "shard-10".into(), format!("shard-10.view-{}", "02".repeat(16))]
            );
        }
    }

    #[test]
    fn a_database_set_aside_leaves_nothing_behind_that_could_count() {
        let base = tempfile::tempdir().unwrap();
        let dir = several(base.path());
        set_aside(&dir, 5).unwrap();
        assert_eq!(current(&dir, Some([2; 16])).unwrap(), dir);
        assert_eq!(names(base.path())[0], "shard-1.bad-5");
        std::fs::create_dir(beside(&dir, [4; 16])).unwrap();
        set_aside(&dir, 6).unwrap();
        assert_eq!(names(base.path())[..2], ["shard-1.bad-5", "shard-1.bad-6"]);
        assert!(set_aside(&dir, 7).is_err(), "there is none any more");
    }

    #[test]
    fn of_a_group_that_is_gone_nothing_stays_and_of_others_everything() {
        let base = tempfile::tempdir().unwrap();
        let dir = several(base.path());
        std::fs::create_dir(base.path().join("shard-1.bad-5")).unwrap();
        for _ in 0..2 {
            remove_all(&dir).unwrap();
            assert_eq!(
                names(base.path()),
                ["shard-10".to_owned(), format!("shard-10.view-{}", "02".repeat(16))]
            );
        }
    }

    #[test]
    fn of_what_was_set_aside_for_a_view_the_newest_two_stay() {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("shard-1");
        std::fs::create_dir(base.path().join("shard-10.bad-5")).unwrap();
        for now_ms in [9, 30, 200, 1000] {
            std::fs::create_dir(&dir).unwrap();
            set_aside(&dir, now_ms).unwrap();
        }
        assert_eq!(
            names(base.path()),
            ["shard-1.bad-1000", "shard-1.bad-200", "shard-10.bad-5"]
        );
    }
}
