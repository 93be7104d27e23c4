//! What a process did to files, as the library in `tests/preload` writes it down.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

/// One thing that was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileOp {
    /// These bytes were written from this offset on.
    Write(PathBuf, u64, Vec<u8>),
    /// The file was cut, or made longer.
    SetLen(PathBuf, u64),
    /// A file or a directory was synced.
    Sync(PathBuf),
    /// A file or a directory got another name.
    Rename(PathBuf, PathBuf),
    /// A file's name was removed.
    Remove(PathBuf),
}

/// The environment of a process whose doings below `dir` are written to `trace`.
///
/// # Errors
/// When the library was not built: `cargo xtask test` builds it, and so does `cargo build --workspace --examples`.
pub fn environment(dir: &Path, trace: &Path) -> anyhow::Result<Vec<(&'static str, OsString)>> {
    let asking = std::env::current_exe().context("finding the program that runs")?;
    let mut places = asking
        .ancestors()
        .skip(1)
        .take(2)
        .map(|place| place.join("examples/libunsynced.so"));
    let library = places.find(|path| path.is_file()).with_context(|| {
        format!(
            "libunsynced.so is not near {}: run `cargo build --workspace --examples` first",
            asking.display()
        )
    })?;
    Ok(vec![
        ("LD_PRELOAD", library.into()),
        ("MALLE_UNSYNCED_BELOW", dir.into()),
        ("MALLE_UNSYNCED_TRACE", trace.into()),
    ])
}

/// What a trace tells, in order. A last record that is cut short was never done, as far as the process knew.
///
/// # Errors
/// When it does not read.
pub fn read(trace: &Path) -> anyhow::Result<Vec<FileOp>> {
    let bytes = std::fs::read(trace).with_context(|| trace.display().to_string())?;
    let (mut rest, mut ops) = (bytes.as_slice(), Vec::new());
    while let Some((record, behind)) = split(rest) {
        ops.push(record.op()?);
        rest = behind;
    }
    ensure!(
        rest.len() < bytes.len() || bytes.is_empty(),
        "a trace without one record"
    );
    Ok(ops)
}

struct Record<'a> {
    kind: u8,
    number: u64,
    path: &'a [u8],
    data: &'a [u8],
}

/// Kind, length of the path (u32), a number (u64), length of the data (u32), path, data.
fn split(bytes: &[u8]) -> Option<(Record<'_>, &[u8])> {
    let (kind, bytes) = bytes.split_first()?;
    let (path_bytes, bytes) = bytes.split_first_chunk()?;
    let (number, bytes) = bytes.split_first_chunk()?;
    let (data_bytes, bytes) = bytes.split_first_chunk()?;
    let (path, bytes) = bytes.split_at_checked(u32::from_le_bytes(*path_bytes) as usize)?;
    let (data, bytes) = bytes.split_at_checked(u32::from_le_bytes(*data_bytes) as usize)?;
    let record = Record {
        kind: *kind,
        number: u64::from_le_bytes(*number),
        path,
        data,
    };
    Some((record, bytes))
}

impl Record<'_> {
    fn op(&self) -> anyhow::Result<FileOp> {
        let path = PathBuf::from(OsStr::from_bytes(self.path));
        Ok(match self.kind {
            b'w' => FileOp::Write(path, self.number, self.data.to_vec()),
            b'l' => FileOp::SetLen(path, self.number),
            b's' => FileOp::Sync(path),
            b'r' => FileOp::Rename(path, PathBuf::from(OsStr::from_bytes(self.data))),
            b'x' => FileOp::Remove(path),
            other => anyhow::bail!("a record of kind {other}"),
        })
    }
}
