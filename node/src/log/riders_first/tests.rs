use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use malle_journal::MemoryDisk;
use malle_proto::{NodeId, ShardId, limits};
use openraft::EntryPayload;
use openraft::vote::RaftLeaderId;
use tokio::sync::{Semaphore, oneshot};

use super::super::Logs;
use super::super::types::{Entry, LeaderId, Proposal};
use super::*;

/// Keeps a rider when it is let, and says how often it was asked.
struct Volumes {
    let_through: Semaphore,
    asked: AtomicUsize,
    broken: bool,
    full: AtomicBool,
}

#[async_trait]
impl KeepsRiders for Volumes {
    async fn keep(&self, _: Rider) -> io::Result<()> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if self.full.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let place = self.let_through.acquire().await.map_err(io::Error::other)?;
        place.forget();
        match self.broken {
            true => Err(io::Error::other("the disk is gone")),
            false => Ok(()),
        }
    }
}

fn log(broken: bool) -> (GroupLog, Arc<Volumes>) {
    let disk = Arc::new(MemoryDisk::new());
    let logs = Logs::open_with(disk, Path::new("/log"), NodeId(1), 1 << 20).expect("a fresh journal");
    let log = logs.group(ShardId(3));
    let volumes = Arc::new(Volumes {
        let_through: Semaphore::new(0),
        asked: AtomicUsize::new(0),
        broken,
        full: AtomicBool::new(false),
    });
    log.keep_riders_with(volumes.clone());
    (log, volumes)
}

fn entry(index: u64, riding_bytes: &[usize]) -> Entry {
    let rider = |bytes: &usize| Rider {
        stored: vec![7; *bytes].into(),
        ..Rider::default()
    };
    Entry {
        log_id: LogId {
            leader_id: LeaderId::new(1, 1),
            index,
        },
        payload: EntryPayload::Normal(Proposal {
            command: Bytes::from_static(b"a command"),
            riders: riding_bytes.iter().map(rider).collect(),
        }),
    }
}

async fn append(log: &GroupLog, entry: Entry) -> oneshot::Receiver<io::Result<()>> {
    let (tell, told) = oneshot::channel();
    let appended = log.append_entries(vec![entry], |result| {
        // A test that does not wait for it needs no answer.
        let _ = tell.send(result);
    });
    appended.await.expect("it follows the last entry");
    told
}

async fn asked(volumes: &Volumes, times: usize) {
    while volumes.asked.load(Ordering::SeqCst) < times {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_entry_and_those_behind_it_reach_the_journal_only_behind_their_riders() {
    let (log, volumes) = log(false);
    let mut first = append(&log, entry(0, &[10])).await;
    let mut second = append(&log, entry(1, &[])).await;
    let truncated = {
        let log = log.clone();
        malle_rt::spawn(async move { log.truncate(Some(0)).await })
    };
    asked(&volumes, 1).await;
    assert_eq!(log.shared.journal.records(), 0);
    assert!(first.try_recv().is_err() && second.try_recv().is_err() && !truncated.is_finished());
    volumes.let_through.add_permits(1);
    first.await.expect("told").expect("synced");
    second.await.expect("told").expect("synced");
    truncated.await.expect("a task that ends").expect("written");
    assert_eq!(log.shared.journal.records(), 3);
}

#[tokio::test]
async fn what_came_during_a_sync_of_the_volumes_is_kept_by_the_next_one_together() {
    let (log, volumes) = log(false);
    let mut told = vec![append(&log, entry(0, &[10])).await];
    asked(&volumes, 1).await;
    for index in 1..=5 {
        told.push(append(&log, entry(index, &[10, 10])).await);
    }
    volumes.let_through.add_permits(1);
    // Ten riders are asked for before any of them is kept.
    asked(&volumes, 11).await;
    volumes.let_through.add_permits(10);
    for told in told {
        told.await.expect("told").expect("synced");
    }
}

#[tokio::test]
async fn behind_a_body_that_cannot_be_kept_nothing_is_logged() {
    let (log, volumes) = log(true);
    let first = append(&log, entry(0, &[10])).await;
    let second = append(&log, entry(1, &[])).await;
    volumes.let_through.add_permits(1);
    for told in [first, second] {
        let error = told.await.expect("told").expect_err("it is in no log");
        assert!(error.to_string().contains("the disk is gone"), "{error}");
    }
    let behind = log.append_entries(vec![entry(2, &[])], |_| {}).await;
    assert!(behind.expect_err("a hole").to_string().contains("the disk is gone"));
    assert_eq!(log.shared.journal.records(), 0);
}

#[tokio::test]
async fn an_entry_whose_body_finds_no_room_waits_until_there_is_some() {
    let (log, volumes) = log(false);
    volumes.full.store(true, Ordering::SeqCst);
    let first = append(&log, entry(1, &[10])).await;
    let second = append(&log, entry(2, &[])).await;
    asked(&volumes, 3).await;
    assert_eq!(
        log.shared.journal.records(),
        0,
        "an entry without its body is in the log"
    );
    volumes.full.store(false, Ordering::SeqCst);
    volumes.let_through.add_permits(1);
    first.await.expect("told").expect("synced");
    second.await.expect("told").expect("synced");
}

#[tokio::test]
async fn an_entry_that_others_have_committed_does_not_wait_for_room() {
    use openraft::storage::RaftLogStorage;
    let (mut log, volumes) = log(false);
    volumes.full.store(true, Ordering::SeqCst);
    let told = append(&log, entry(1, &[10])).await;
    let id = |index| entry(index, &[]).log_id;
    log.save_committed(Some(id(0))).await.expect("kept in memory");
    asked(&volumes, 3).await;
    assert_eq!(log.shared.journal.records(), 0, "it is not committed yet");
    log.save_committed(Some(id(1))).await.expect("kept in memory");
    told.await.expect("told").expect("synced");
}

#[tokio::test]
async fn riders_go_to_followers_alone_and_are_forgotten_oldest_first_once_applied() {
    let (log, volumes) = log(false);
    volumes.let_through.add_permits(4);
    for index in 0..4 {
        append(&log, entry(index, &[100]))
            .await
            .await
            .expect("told")
            .expect("synced");
    }
    let riders = |entries: Vec<Entry>| -> Vec<usize> {
        let of = |entry: Entry| match entry.payload {
            EntryPayload::Normal(proposal) => proposal.riders.len(),
            _ => 0,
        };
        entries.into_iter().map(of).collect()
    };
    assert_eq!(riders(log.read(0, 4, usize::MAX, false).await.unwrap()), [0, 0, 0, 0]);
    assert_eq!(riders(log.read(0, 4, usize::MAX, true).await.unwrap()), [1, 1, 1, 1]);
    // They count where a request is filled.
    assert_eq!(log.read(0, 4, 300, true).await.unwrap().len(), 2);
    log.forget_riders(1, 0);
    assert_eq!(riders(log.read(0, 4, usize::MAX, true).await.unwrap()), [0, 0, 1, 1]);
    log.forget_riders(3, 150);
    assert_eq!(riders(log.read(0, 4, usize::MAX, true).await.unwrap()), [0, 0, 0, 1]);
    log.truncate(Some(2)).await.unwrap();
    assert_eq!(log.contents().riding_bytes, 0);
    const { assert!(limits::RIDERS_PER_ENTRY_MAX_BYTES + limits::RAFT_ENTRY_MAX_BYTES < limits::APPEND_REQUEST_MAX_BYTES) }
}
