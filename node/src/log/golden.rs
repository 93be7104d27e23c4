//! What the log and the wire between nodes hold, byte for byte: one line a record in `node/golden/records.txt`. Other rooms hold their own
//! records against files of this form by [`line`] and [`is_kept`].
//!
//! The files are read for ever. `UPDATE_SCRIPTS=1` writes them anew; a line that changes there is a change of the disk format and needs
//! a version of its own instead.

use std::fmt::Write as _;
use std::path::Path;

use bytes::Bytes;
use malle_machine::Digest;
use malle_machine::format::{self, Record};

use super::records::{
    AppendRecord, AppendedRecord, DroppedRecord, EntryRecord, FloorRecord, HeadRecord, LogIdRecord, MembershipRecord,
    PayloadRecord, ReadIndexRecord, RefusedRecord, SnapshotDoneRecord, SnapshotHeadRecord, StoredMembershipRecord,
    TransferRecord, TransferredRecord, TruncateRecord, VoteRecord, VoteRequestRecord, VotedRecord,
};
use crate::state::checkpoint::{ChangedRecord, CheckpointRecord, DeltaRecord};

fn id(index: u64) -> LogIdRecord {
    LogIdRecord {
        term: 3,
        node: 2,
        index,
    }
}

fn vote(committed: bool) -> VoteRecord {
    VoteRecord {
        term: 300,
        node: 1,
        committed,
    }
}

fn membership() -> MembershipRecord {
    MembershipRecord {
        voters: vec![vec![1, 2, 3], vec![2, 3, 4]],
        members: vec![(1, "a:1".into()), (4, "d:4".into())],
    }
}

fn stored_membership() -> StoredMembershipRecord {
    StoredMembershipRecord {
        log_id: Some(id(7)),
        membership: membership(),
    }
}

fn entry(payload: PayloadRecord) -> EntryRecord {
    EntryRecord {
        id: id(1_000_000),
        payload,
    }
}

/// Encodes, decodes back, and writes the line down.
pub(crate) fn line<T: Record + PartialEq + std::fmt::Debug>(out: &mut String, name: &str, record: &T) {
    let bytes = format::encode(record);
    assert_eq!(&format::decode::<T>(&bytes).unwrap(), record, "{name}");
    for cut in 0..bytes.len() {
        assert!(format::decode::<T>(&bytes[..cut]).is_err(), "{name} cut at {cut}");
    }
    let mut damaged = bytes.to_vec();
    for place in 0..damaged.len() {
        damaged[place] ^= 1;
        // The feature level (byte 7) is under the checksum like every other.
        assert!(
            format::decode::<T>(&damaged).is_err(),
            "{name} with a flipped bit at {place}"
        );
        damaged[place] ^= 1;
    }
    write!(out, "{name} {}.v{} ", T::TYPE_ID, T::VERSION).unwrap();
    for byte in bytes {
        write!(out, "{byte:02x}").unwrap();
    }
    out.push('\n');
}

fn lines() -> String {
    let mut out = String::new();
    line(&mut out, "entry-blank", &entry(PayloadRecord::Blank));
    line(
        &mut out,
        "entry-command",
        &entry(PayloadRecord::Command(Bytes::from_static(b"command"))),
    );
    line(
        &mut out,
        "entry-membership",
        &entry(PayloadRecord::Membership(membership())),
    );
    let floor = FloorRecord {
        applied_index: 9,
        store: [7; 16],
    };
    line(
        &mut out,
        "head",
        &HeadRecord {
            vote: Some(vote(true)),
            purged: Some(id(5)),
            floor: Some(floor),
        },
    );
    line(&mut out, "head-empty", &HeadRecord::default());
    line(&mut out, "truncate", &TruncateRecord { last_index: Some(8) });
    line(&mut out, "dropped", &DroppedRecord { last: Some(id(8)) });
    let append = AppendRecord {
        vote: vote(true),
        previous: Some(id(4)),
        entries: vec![entry(PayloadRecord::Blank)],
        committed: None,
    };
    line(&mut out, "append", &append);
    line(&mut out, "appended-matches", &AppendedRecord::Matches(Some(id(4))));
    line(&mut out, "appended-conflict", &AppendedRecord::Conflict(id(4)));
    line(
        &mut out,
        "appended-higher-vote",
        &AppendedRecord::HigherVote(vote(false)),
    );
    line(
        &mut out,
        "vote-request",
        &VoteRequestRecord {
            vote: vote(false),
            last: Some(id(4)),
            leadership_transfer: true,
        },
    );
    line(
        &mut out,
        "voted",
        &VotedRecord {
            vote: vote(false),
            granted: true,
            last: None,
        },
    );
    line(
        &mut out,
        "transfer",
        &TransferRecord {
            from: vote(true),
            to: 2,
            last: Some(id(4)),
        },
    );
    let transferred = TransferredRecord {
        vote_changed: Some(vote(false)),
        log_not_flushed: Some(None),
    };
    line(&mut out, "transferred", &transferred);
    let head = SnapshotHeadRecord {
        vote: vote(true),
        last: Some(id(4)),
        membership: stored_membership(),
    };
    line(&mut out, "snapshot-head", &head);
    line(&mut out, "read-index", &ReadIndexRecord { index: 1_000_000 });
    line(&mut out, "snapshot-done", &SnapshotDoneRecord { vote: vote(true) });
    line(
        &mut out,
        "refused",
        &RefusedRecord {
            reason: "no replica here".into(),
        },
    );
    let checkpoint = CheckpointRecord {
        applied: Some(id(4)),
        membership: stored_membership(),
        digest: Digest(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10),
        rows: 77,
    };
    line(&mut out, "checkpoint", &checkpoint);
    let delta = DeltaRecord {
        base: [1; 32],
        previous: [2; 32],
        number: 3,
        changes: 400,
        applied: Some(id(5)),
        membership: stored_membership(),
        digest: Digest(6),
        rows: 700,
    };
    line(&mut out, "delta", &delta);
    let changed = ChangedRecord {
        after: [2; 32],
        applied: Some(id(6)),
        keys: 8,
    };
    line(&mut out, "changed", &changed);
    out
}

/// Holds lines against `node/golden/<file>`.
pub(crate) fn is_kept(file: &str, now: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(file);
    if std::env::var_os("UPDATE_SCRIPTS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, now).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap();
    assert_eq!(now, kept);
}

#[test]
fn kept_records_are_what_they_always_were() {
    is_kept("records.txt", &lines());
}
