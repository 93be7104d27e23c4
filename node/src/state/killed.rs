//! A process that applies entries to a view over sled is killed, or its disk loses power, at any moment: while it opens, applies, flushes,
//! writes a checkpoint, purges its log or copies its view. What it shows at its next start is compared with a model.
//!
//! The process is this test binary once more. It says what it does line by line; a line `acked` comes after the log has synced the entries
//! and they are applied. At each start it says, before it applies anything, how far its view is and what all its rows add up to: that is
//! what it would serve. It must be what the pure machine makes of the same entries; whether the view had to be rebuilt for it is counted.
//! `MALLE_LONG` kills ten times as often; `MALLE_KILL_SEED` chooses another history. [`synced`] cuts the power of a modelled disk below sled.

mod synced;

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command as Process, Stdio};

use harness::LoopDisk;
use malle_machine::shard::sample::Sample;
use malle_machine::shard::{Command, Op, apply};
use malle_machine::view::View;
use malle_machine::{Digest, MemoryView, format};
use openraft::EntryPayload;
use openraft::storage::RaftLogStorage;

use super::prove::scan_digest;
use super::rebuild::{append_and_apply, catch_up};
use super::suite::open;
use crate::index::suite::Chance;
use crate::log::types::{Entry, LeaderId, LogId, Proposal};

/// Where the killed process works.
const DIR: &str = "MALLE_KILLED_IN";
/// What its lines begin with, whatever else the test runner prints.
const MARK: &str = "killed: ";
/// Entries between two checkpoints, each with a purge, and two copies of the view.
const CHECKPOINT_EVERY: u64 = 150;
const COPY_EVERY: u64 = 400;
/// A copy of the view leaves 2 GiB of its disk; the image is sparse.
const DISK_BYTES: u64 = 4 << 30;
/// Entries that a purge leaves.
const KEPT: u64 = 40;

/// Entries from a seed: the process and the model see the same.
struct Entries {
    sample: Sample,
    opening: std::vec::IntoIter<Op>,
    next: u64,
}

impl Entries {
    fn new() -> Entries {
        let sample = Sample::new(3, 30);
        let opening = sample.open().into_iter();
        Entries {
            sample,
            opening,
            next: 0,
        }
    }

    fn command(&mut self) -> (u64, Command) {
        let index = self.next;
        self.next += 1;
        let op = self.opening.next().unwrap_or_else(|| self.sample.day());
        let command = Command {
            time_ms: 1_000 + index,
            op,
        };
        (index, command)
    }

    fn entry(&mut self) -> Entry {
        let (index, command) = self.command();
        Entry {
            log_id: LogId {
                leader_id: LeaderId { term: 1, node_id: 1 },
                index,
            },
            payload: EntryPayload::Normal(Proposal::of(format::encode(&command))),
        }
    }
}

/// What the machine makes of the entries.
struct Model {
    entries: Entries,
    view: MemoryView,
    digest: Digest,
    /// After each entry.
    digests: Vec<Digest>,
}

impl Model {
    fn new() -> Model {
        Model {
            entries: Entries::new(),
            view: MemoryView::default(),
            digest: Digest::default(),
            digests: Vec::new(),
        }
    }

    /// The digest of the rows when so many entries are applied.
    fn after(&mut self, applied: usize) -> Digest {
        while self.digests.len() < applied {
            let (_, command) = self.entries.command();
            let (_, writes) = apply(&self.view, &command).unwrap();
            for (key, value) in &writes.rows {
                if let Some(old) = self.view.get(key).unwrap() {
                    self.digest.subtract(key, &old);
                }
                if let Some(new) = value {
                    self.digest.add(key, new);
                }
            }
            self.view.commit(&writes);
            self.digests.push(self.digest);
        }
        applied
            .checked_sub(1)
            .map_or(Digest::default(), |last| self.digests[last])
    }
}

/// The process that is killed. Never ends by itself, but by an error of its disk.
async fn work(dir: &Path) {
    println!("\n{MARK}opens");
    let (_logs, mut log, state) = open(dir).await;
    let applied = state.applied_id().map_or(0, |id| id.index + 1);
    let index = state.live().index.clone();
    let (digest, _) = scan_digest(index.as_ref()).unwrap();
    drop(index);
    let last = log.get_log_state().await.unwrap().last_log_id;
    let end = last.map_or(0, |id| id.index + 1);
    println!("{MARK}opened {applied} {} {} {end}", hex(&digest), state.rebuilds());
    catch_up(&mut log, &state, end).await;
    let mut entries = Entries::new();
    while entries.next < end {
        entries.command();
    }
    loop {
        let some: Vec<Entry> = (0..1 + entries.next % 7).map(|_| entries.entry()).collect();
        append_and_apply(&mut log, &state, some).await;
        println!("{MARK}acked {}", entries.next);
        if entries.next % 50 < 7 {
            state.flush().await.unwrap();
        }
        if entries.next % CHECKPOINT_EVERY < 7 {
            let checkpoint = state.checkpoint().await.unwrap();
            if let Some(upto) = checkpoint.index().checked_sub(KEPT) {
                let log_id = LogId {
                    leader_id: LeaderId { term: 1, node_id: 1 },
                    index: upto,
                };
                log.purge(log_id).await.unwrap();
            }
        }
        if entries.next % COPY_EVERY < 7 {
            let state = state.clone();
            tokio::spawn(async move { state.compact().await.unwrap() });
        }
    }
}

fn hex(digest: &Digest) -> String {
    digest.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Starts this test again as the process that works in `dir`.
fn start(test: &str, dir: &Path, environment: &[(&str, OsString)]) -> (Child, BufReader<ChildStdout>) {
    let mut child = Process::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(DIR, dir)
        .envs(environment.iter().cloned())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap());
    (child, lines)
}

/// What a process says next; nothing when it has ended.
fn said(lines: &mut BufReader<ChildStdout>) -> Option<Vec<String>> {
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line).unwrap() == 0 {
            return None;
        }
        if let Some((_, said)) = line.split_once(MARK) {
            return Some(said.split_whitespace().map(str::to_owned).collect());
        }
    }
}

/// Counts of a run.
#[derive(Debug, Default)]
struct Seen {
    starts: u64,
    killed_while_opening: u64,
    rebuilds: u64,
    entries: u64,
}

/// Starts, looks, and ends the process by `end`, again and again.
fn again_and_again(
    test: &str,
    dir: &Path,
    times: u64,
    environment: &[(&str, OsString)],
    mut end: impl FnMut(&mut Child),
) -> Seen {
    let mut chance = Chance(seed());
    let mut model = Model::new();
    let mut seen = Seen::default();
    let mut acked = 0;
    for round in 0..=times {
        let (mut child, mut lines) = start(test, dir, environment);
        seen.starts += 1;
        assert_eq!(said(&mut lines).expect("it starts")[0], "opens");
        // The last start is only looked at.
        if round < times && chance.below(4) == 0 {
            seen.killed_while_opening += 1;
            end(&mut child);
            continue;
        }
        let opened = said(&mut lines).expect("it opens");
        let [what, applied, digest, rebuilds, end_of_log] = opened.as_slice() else {
            panic!("{opened:?}");
        };
        assert_eq!(what, "opened");
        let (applied, end_of_log): (u64, u64) = (applied.parse().unwrap(), end_of_log.parse().unwrap());
        assert_eq!(
            *digest,
            hex(&model.after(applied as usize)),
            "round {round}: a wrong state at {applied}"
        );
        assert!(
            end_of_log >= acked,
            "round {round}: {acked} were acknowledged, {end_of_log} are there"
        );
        seen.rebuilds += rebuilds.parse::<u64>().unwrap();
        seen.entries = end_of_log;
        if round < times {
            for _ in 0..chance.below(120) {
                let Some(line) = said(&mut lines) else {
                    panic!("round {round}: it ended by itself")
                };
                assert_eq!(line[0], "acked");
                acked = line[1].parse().unwrap();
            }
        }
        end(&mut child);
        // What it said before it ended counts as well.
        while let Some(line) = said(&mut lines) {
            if line[0] == "acked" {
                acked = line[1].parse().unwrap();
            }
        }
    }
    seen
}

fn seed() -> u64 {
    let seed = std::env::var("MALLE_KILL_SEED").map_or(11, |seed| seed.parse().unwrap());
    println!("MALLE_KILL_SEED={seed}");
    seed
}

fn kill(child: &mut Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

fn times(usually: u64, when_long: u64) -> u64 {
    if std::env::var_os("MALLE_LONG").is_some() {
        when_long
    } else {
        usually
    }
}

/// The process, when this is one: it does not return.
fn be_the_process() {
    if let Some(dir) = std::env::var_os(DIR) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(work(&PathBuf::from(dir)));
    }
}

#[test]
fn a_killed_process_never_comes_back_with_a_wrong_state() {
    be_the_process();
    let dir = tempfile::tempdir().unwrap();
    let test = "state::killed::a_killed_process_never_comes_back_with_a_wrong_state";
    let seen = again_and_again(test, dir.path(), times(25, 250), &[], kill);
    println!("{seen:?}");
    assert_eq!(
        seen.rebuilds, 0,
        "the page cache outlives a process: nothing that was written is gone"
    );
}

#[test]
fn a_disk_that_lost_power_never_comes_back_with_a_wrong_state() {
    be_the_process();
    if let Err(reason) = LoopDisk::possible() {
        println!("SKIPPED: no power can be cut here: {reason:#}");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mount = dir.path().join("disk");
    let disk = LoopDisk::create(&dir.path().join("image"), &mount, DISK_BYTES).unwrap();
    let test = "state::killed::a_disk_that_lost_power_never_comes_back_with_a_wrong_state";
    let seen = again_and_again(test, &mount, times(8, 200), &[], |child| {
        disk.cut().unwrap();
        kill(child);
        disk.power_on().unwrap();
    });
    println!("{seen:?}");
}
