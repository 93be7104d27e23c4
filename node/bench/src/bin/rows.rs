//! How many rows a shard and a node hold, with sled and with redb.
//!
//! ```text
//! rows DIR --engine sled --rows 5000000 --stores 10        one shard of 5 M rows, then ten of them on one node
//! ```
//!
//! Phases, each with wall time, the process's own CPU time (other load on the machine does not count there) and its memory: mail comes in
//! live; flags change; mailboxes are scanned; the store is flushed, saved as a checkpoint, closed, opened, proved; it is rebuilt from the
//! checkpoint; and so are the others, which then stay open together.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, ensure};
use clap::{Parser, ValueEnum};
use malle_journal::{Disk, RealDisk};
use malle_machine::view::Flow;
use malle_node::index::{IndexStore, Options, RedbIndex, SledIndex};
use malle_node::state::Checkpoint;
use malle_node::state::by_hand::{prove, restore, save};
use malle_node_bench::rows::{Batch, Pattern, in_copy};
use malle_proto::ShardId;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Engine {
    Sled,
    Redb,
}

#[derive(Debug, Parser)]
struct Arguments {
    /// Where the stores go; made, and everything in it is removed at the end.
    dir: PathBuf,
    #[arg(long, value_enum)]
    engine: Engine,
    /// Rows of one shard.
    #[arg(long, default_value_t = 5_000_000)]
    rows: u64,
    /// Shards on the node.
    #[arg(long, default_value_t = 10)]
    stores: u32,
    /// What the engine may hold in memory for one store.
    #[arg(long, default_value_t = 32)]
    cache_mib: u64,
    /// Commands in one batch: a busy group's.
    #[arg(long, default_value_t = 100)]
    commands: usize,
    /// Flag changes that are measured.
    #[arg(long, default_value_t = 20_000)]
    flags: u64,
    /// Mailboxes that are scanned.
    #[arg(long, default_value_t = 100)]
    scans: u32,
}

/// One measured phase.
struct Phase {
    began: Instant,
    cpu_s: f64,
}

impl Phase {
    fn begin() -> Phase {
        Phase {
            began: Instant::now(),
            cpu_s: cpu_s(),
        }
    }

    fn end(self, what: &str, count: u64) {
        let (wall, cpu) = (self.began.elapsed().as_secs_f64(), cpu_s() - self.cpu_s);
        println!(
            "{what}: {count} in {wall:.2} s ({:.0}/s), {cpu:.2} s CPU ({:.0}/s of CPU), {} MiB resident",
            count as f64 / wall.max(1e-6),
            count as f64 / cpu.max(1e-6),
            resident_mib()
        );
    }
}

struct Bench {
    arguments: Arguments,
    runtime: tokio::runtime::Runtime,
    pattern: Pattern,
    copies: u32,
    chance: u64,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    std::fs::create_dir_all(&arguments.dir)?;
    let pattern = Pattern::play()?;
    let copies = arguments.rows.div_ceil(pattern.rows) as u32;
    println!(
        "{:?}: {} rows a shard, {} bytes a row, {} MiB of keys and values; cache {} MiB; {} MiB resident before",
        arguments.engine,
        pattern.rows * u64::from(copies),
        pattern.bytes / pattern.rows,
        (pattern.bytes * u64::from(copies)) >> 20,
        arguments.cache_mib,
        resident_mib()
    );
    let mut bench = Bench {
        runtime: tokio::runtime::Builder::new_multi_thread().enable_all().build()?,
        arguments,
        pattern,
        copies,
        chance: 1,
    };
    let checkpoint = bench.shard()?;
    bench.node(&checkpoint)?;
    std::fs::remove_dir_all(&bench.arguments.dir)?;
    Ok(())
}

impl Bench {
    fn open(&self, name: &str) -> anyhow::Result<Box<dyn IndexStore>> {
        let dir = self.arguments.dir.join(name);
        let cache_bytes = self.arguments.cache_mib << 20;
        Ok(match self.arguments.engine {
            Engine::Sled => {
                let mut options = Options::new(dir, [1; 16]);
                options.cache_bytes = cache_bytes;
                Box::new(self.runtime.block_on(SledIndex::open(options))?.store)
            }
            Engine::Redb => Box::new(RedbIndex::open(&dir, cache_bytes as usize, [1; 16])?),
        })
    }

    /// One shard from its first mail to its rebuild.
    fn shard(&mut self) -> anyhow::Result<Checkpoint> {
        let store = self.open("live")?;
        self.deliver(store.as_ref())?;
        self.flag(&[store.as_ref()], "flag changes, one shard")?;
        self.scan(store.as_ref())?;
        self.weigh("one shard, live", store.as_ref())?;
        let phase = Phase::begin();
        let checkpoints = self.arguments.dir.join("checkpoints");
        std::fs::create_dir_all(&checkpoints)?;
        let disk: std::sync::Arc<dyn Disk> = std::sync::Arc::new(RealDisk);
        let checkpoint = save(&disk, &checkpoints, ShardId(1), store.as_ref())?;
        phase.end("rows saved as a checkpoint", checkpoint.record().rows);
        println!("checkpoint: {} MiB", checkpoint.bytes() >> 20);
        let phase = Phase::begin();
        drop(store);
        phase.end("closed", 1);
        let phase = Phase::begin();
        let store = self.open("live")?;
        phase.end("opened after a clean stop", 1);
        let phase = Phase::begin();
        let rows = prove(store.as_ref())?;
        phase.end("rows proved after an unclean stop", rows);
        drop(store);
        std::fs::remove_dir_all(self.arguments.dir.join("live"))?;
        Ok(checkpoint)
    }

    /// Shards side by side, each rebuilt from the checkpoint, all open.
    fn node(&mut self, checkpoint: &Checkpoint) -> anyhow::Result<()> {
        let mut stores = Vec::new();
        for number in 1..=self.arguments.stores {
            let store = self.open(&format!("shard-{number}"))?;
            let phase = Phase::begin();
            let rows = restore(checkpoint, store.as_ref())?;
            phase.end(&format!("rows of shard {number} rebuilt"), rows);
            stores.push(store);
        }
        let all: Vec<&dyn IndexStore> = stores.iter().map(AsRef::as_ref).collect();
        println!("node: {} MiB on disk", self.disk_mib(&all)?);
        self.flag(&all, "flag changes over all shards")?;
        println!("node: {} MiB on disk", self.disk_mib(&all)?);
        let phase = Phase::begin();
        drop(stores);
        phase.end("stores closed", u64::from(self.arguments.stores));
        let phase = Phase::begin();
        let opened: anyhow::Result<Vec<_>> = (1..=self.arguments.stores)
            .map(|number| self.open(&format!("shard-{number}")))
            .collect();
        phase.end("stores opened after a clean stop", opened?.len() as u64);
        Ok(())
    }

    fn deliver(&mut self, store: &dyn IndexStore) -> anyhow::Result<()> {
        let messages = self.pattern.deliveries.len() as u64 * u64::from(self.copies);
        let rows = self.pattern.rows * u64::from(self.copies);
        let phase = Phase::begin();
        let mut tenth = Phase::begin();
        let (mut batch, mut gathered, mut done) = (Batch::default(), 0, 0u64);
        for written in &self.pattern.deliveries {
            for copy in 0..self.copies {
                batch.add(written, copy);
                gathered += 1;
                done += 1;
                if gathered >= self.arguments.commands {
                    store.apply_batch(&batch.take())?;
                    gathered = 0;
                }
                // About the mail that makes a checkpoint due, which flushes.
                if done % 50_000 == 0 {
                    let flushing = Instant::now();
                    store.flush()?;
                    println!(
                        "flush behind {done} messages: {:.3} s",
                        flushing.elapsed().as_secs_f64()
                    );
                }
                if done % (messages / 10).max(1) == 0 {
                    std::mem::replace(&mut tenth, Phase::begin()).end("rows of a tenth of the mail", rows / 10);
                }
            }
        }
        store.apply_batch(&batch.take())?;
        store.flush()?;
        phase.end("rows of live mail", rows);
        Ok(())
    }

    /// Marks messages of accounts drawn by chance: each row is read before it is written, as the digest needs it.
    fn flag(&mut self, stores: &[&dyn IndexStore], what: &str) -> anyhow::Result<()> {
        let phase = Phase::begin();
        let mut batches: Vec<Batch> = stores.iter().map(|_| Batch::default()).collect();
        for number in 0..self.arguments.flags {
            let (store, copy) = (
                self.below(stores.len() as u64) as usize,
                self.below(u64::from(self.copies)) as u32,
            );
            let written = &self.pattern.flags[(number % self.pattern.flags.len() as u64) as usize];
            for key in written.keys() {
                stores[store].get(&in_copy(key, copy))?;
            }
            batches[store].add(written, copy);
            if number % self.arguments.commands as u64 == 0 {
                for (batch, store) in batches.iter_mut().zip(stores) {
                    store.apply_batch(&batch.take())?;
                }
            }
        }
        for (batch, store) in batches.iter_mut().zip(stores) {
            store.apply_batch(&batch.take())?;
            store.flush()?;
        }
        phase.end(what, self.arguments.flags);
        Ok(())
    }

    fn scan(&mut self, store: &dyn IndexStore) -> anyhow::Result<()> {
        for (kind, what) in [(0, "scans of a mailbox's content"), (1, "scans of a mailbox's states")] {
            let phase = Phase::begin();
            let mut rows = 0u64;
            for _ in 0..self.arguments.scans {
                let copy = self.below(u64::from(self.copies)) as u32;
                let from = in_copy(&self.pattern.mailbox[kind], copy);
                let mut to = from.clone();
                to.extend([0xFF; 5]);
                store.scan(&from, &to, &mut |_, _| {
                    rows += 1;
                    Ok(Flow::More)
                })?;
            }
            ensure!(rows > 0, "the mailbox is empty");
            phase.end(what, u64::from(self.arguments.scans));
            println!("rows of each: {}", rows / u64::from(self.arguments.scans.max(1)));
        }
        Ok(())
    }

    fn weigh(&self, what: &str, store: &dyn IndexStore) -> anyhow::Result<()> {
        println!(
            "{what}: {} MiB on disk, {} MiB resident",
            self.disk_mib(&[store])?,
            resident_mib()
        );
        Ok(())
    }

    fn disk_mib(&self, stores: &[&dyn IndexStore]) -> anyhow::Result<u64> {
        stores.iter().try_fold(0, |sum, store| {
            let bytes = store.disk_bytes().context("bytes on disk")?;
            Ok(sum + (bytes >> 20))
        })
    }

    /// SplitMix64.
    fn below(&mut self, below: u64) -> u64 {
        self.chance = self.chance.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.chance;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % below
    }
}

/// Memory of this process; 0 where the system does not tell.
fn resident_mib() -> u64 {
    let status = read(Path::new("/proc/self/status"));
    let line = status.lines().find(|line| line.starts_with("RssAnon:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.unwrap_or_default() / 1024
}

/// CPU time of this process, user and system; 0 where the system does not tell.
fn cpu_s() -> f64 {
    let stat = read(Path::new("/proc/self/stat"));
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |field: usize| fields.get(field).and_then(|ticks| ticks.parse::<f64>().ok());
    (ticks(11).unwrap_or_default() + ticks(12).unwrap_or_default()) / 100.0
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}
