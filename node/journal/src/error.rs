//! The one error of this crate.

use std::io;
use std::path::{Path, PathBuf};

/// Why the journal did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// A record that was durable can no longer be read: this is no torn tail. The journal refuses to start, because what follows
    /// would be replayed with a hole.
    #[error("segment {segment} is damaged at byte {offset}, and records that were written later are intact")]
    Damaged {
        /// Number of the segment.
        segment: u64,
        /// Where the first unreadable record begins.
        offset: u32,
    },
    /// The header of a segment file is neither empty nor valid.
    #[error("{file} has a damaged header")]
    DamagedHeader {
        /// Name of the file.
        file: String,
    },
    /// Segments are there before and after one that is not.
    #[error("segment {segment} is missing")]
    Missing {
        /// Its number.
        segment: u64,
    },
    /// The files belong to another node.
    #[error("the journal belongs to node {found}, this is node {expected}")]
    WrongNode {
        /// The node that opens.
        expected: u64,
        /// The node that wrote.
        found: u64,
    },
    /// A newer malle wrote this file.
    #[error("{file} has format version {version}, which this version does not read")]
    Version {
        /// Name of the file.
        file: String,
        /// The version found.
        version: u16,
    },
    /// Another process works on the same directory.
    #[error("{dir} is in use by another process")]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// The options contradict themselves.
    #[error("journal options: {0}")]
    Options(&'static str),
    /// The caller refused a record during replay.
    #[error("record at segment {segment} byte {offset} was refused: {reason}")]
    Replay {
        /// Number of the segment.
        segment: u64,
        /// Where the record begins.
        offset: u32,
        /// The caller's reason.
        reason: String,
    },
    /// A record that no segment can hold.
    #[error("a record of {bytes} bytes is larger than the {max} that a segment holds")]
    TooLarge {
        /// Payload of the record.
        bytes: usize,
        /// Most that fits.
        max: usize,
    },
    /// As many bytes wait for the disk as may. Only `try_submit` says so; `submit` waits.
    #[error("the journal is busy")]
    Busy,
    /// The disk has no room for another segment. Nothing of the record was written, nothing else is wrong: it may be tried again. Only a
    /// journal that keeps its segments says so; a log waits.
    #[error("the disk has no room for another segment")]
    Full,
    /// The journal writes nothing any more: a write or a sync failed, or it was closed.
    #[error("the journal has stopped: {reason}")]
    Failed {
        /// The first failure.
        reason: String,
    },
    /// The segment of this location has been recycled.
    #[error("segment {segment} is gone")]
    Gone {
        /// Its number.
        segment: u64,
    },
    /// What stands at this location is not the record that was written there.
    #[error("the record at segment {segment} byte {offset} is corrupt")]
    Corrupt {
        /// Number of the segment.
        segment: u64,
        /// Where the record begins.
        offset: u32,
    },
    /// A file operation failed.
    #[error("{what} {path}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
}

impl JournalError {
    /// For `map_err`: a failed file operation.
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> JournalError {
        move |source| JournalError::Io {
            what,
            path: path.to_owned(),
            source,
        }
    }

    /// The error with its source, in one line.
    pub(crate) fn in_full(&self) -> String {
        match std::error::Error::source(self) {
            Some(source) => format!("{self}: {source}"),
            None => self.to_string(),
        }
    }
}
