//! One run: the cluster of a scenario, its load and its faults at once, and what is left when they are over.
//!
//! Into the directory of the run go `history.jsonl`, `flips.jsonl` (bytes that were changed on disks, when there were any), and under `cluster/`
//! logs and configuration of every process. Whether the history is good is not asked here.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use malle_client::Client;

use super::attack::Attack;
use super::disk::Flip;
use super::observe::Observer;
use super::probe;
use super::via::Doors;
use super::world::{PASSWORD, Seat, Wishes, World};
use super::{finals, scrub};
use crate::history::{self, AccountHeader, Broken, FILE, Header, PlaceHeader, Record, Recorder, SCHEMA};
use crate::plan::{self, Step, Timeline};
use crate::scenario::{DiskFault, Engine, Fault, Quality, Scenario};
use crate::workload::{self, Drive, OverClient, fixed_mailboxes};

/// The promise that a run can break on purpose: syncs are answered and not made, on every node and from the beginning of the load.
pub const LYING_SYNC: &str = "lying-sync";
/// After the load every replica is where the others are by then.
const CONVERGED: Duration = Duration::from_secs(90);
/// Connections of the load to the cluster.
const CLIENTS: usize = 4;
/// One way between two regions that `rtt_ms` does not name, while it names others.
const WAN_US: u64 = 5_000;

/// What is run.
#[derive(Debug, Clone)]
pub struct Job {
    /// The scenario.
    pub scenario: Scenario,
    /// Names its text.
    pub scenario_hash: String,
    /// The seed.
    pub seed: u64,
    /// The plan: [`plan::plan`] of both, or a part of it.
    pub steps: Vec<Step>,
    /// Where the run is written; it is made.
    pub out: PathBuf,
    /// The promise that is broken on purpose.
    pub control: Option<String>,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ran {
    /// There is a history.
    Whole,
    /// This machine cannot, and why.
    Skipped(String),
}

/// What a run of these steps needs of the machine, by the names of `chaos probe`.
pub fn needs(scenario: &Scenario, steps: &[Step], control: Option<&str>) -> Vec<String> {
    let mut needs: Vec<&str> = vec!["root", "netns", "veth", "loop"];
    for step in steps {
        needs.extend(match &step.fault {
            Fault::Powerloss => &["power-cut"][..],
            Fault::Pause => &["freezer"],
            Fault::Net(_) => &["tun"],
            Fault::Clock { .. } => &["shim"],
            Fault::Squeeze { .. } => &["cpu", "memory"],
            Fault::Disk { what, .. } => match what {
                DiskFault::SyncEio => &["tmpfs"][..],
                DiskFault::Slow => &["blkio"],
                DiskFault::LyingSync => &["shim"],
                _ => &[],
            },
            _ => &[],
        });
    }
    if !scenario.topology.rtt_ms.is_empty() {
        needs.push("tun");
    }
    if control == Some(LYING_SYNC) {
        needs.push("shim");
    }
    let mut needs: Vec<String> = needs.into_iter().map(str::to_owned).collect();
    needs.extend(scenario.budget.host_needs.iter().cloned());
    needs.sort();
    needs.dedup();
    needs
}

/// Runs it, on threads of its own: futures of an unoptimised build do not fit into the usual two megabytes of stack.
///
/// # Errors
/// When the run could not be made; a history that shows a broken promise is no error.
pub fn run(job: Job) -> anyhow::Result<Ran> {
    if let Some(reason) = probe::lacking(&needs(&job.scenario, &job.steps, job.control.as_deref())) {
        return Ok(Ran::Skipped(reason));
    }
    if job.control.as_deref().is_some_and(|control| control != LYING_SYNC) {
        let reason = format!("proc runs the shipped binaries: it has no control but {LYING_SYNC}");
        return Ok(Ran::Skipped(reason));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_stack_size(16 << 20)
        .enable_all()
        .build()?;
    runtime.block_on(async { tokio::spawn(whole(job)).await? })
}

async fn whole(job: Job) -> anyhow::Result<Ran> {
    std::fs::create_dir_all(&job.out)?;
    let _place = harness::Place::take().await?;
    let _alone = harness::network_alone().await?;
    for thing in harness::made::clean() {
        eprintln!("chaos: a run that is gone had left {thing}; removed");
    }
    let cluster = job.out.join("cluster");
    let (mut world, seats) = World::start(&cluster, wishes(&job)).await?;
    let lines = lines(&job.scenario, &world.places());
    for ((from, to), quality) in &lines {
        world.net.quality(*from, *to, Some(*quality))?;
    }
    let timeline = Timeline::of(&job.scenario);
    let target = target(&world, &seats, &job.scenario).await?;
    let operator = world.operator().await?;
    let recorder = Recorder::create(&job.out.join(FILE), header(&job, timeline, &seats))?;
    let regions = job
        .scenario
        .places()
        .into_iter()
        .map(|(place, region)| (place, region.to_owned()))
        .collect();
    let observer = Observer::new(operator.clone(), regions, recorder.clone());
    if job.control.as_deref() == Some(LYING_SYNC) {
        for place in world.places() {
            // What the cluster itself is made of must not be lost: that would be no news.
            let machine = world.at(place)?;
            machine.disk.power().sync()?;
            machine
                .page
                .as_ref()
                .context("a run with this control has the shim")?
                .sync_lies(true)?;
        }
    }
    recorder.attacked();
    let watch = tokio::spawn(observer.clone().watch());
    let load = tokio::spawn(workload::drive(
        Arc::new(target),
        Drive {
            scenario: Arc::new(job.scenario.clone()),
            seed: job.seed,
            recorder: recorder.clone(),
        },
    ));
    let attack = Attack::new(&mut world, recorder.clone(), observer.clone(), lines);
    let flips = attack
        .run(&job.steps, timeline.heal_us)
        .await
        .context("attacking the cluster")?;
    recorder.healed();
    load.await??;
    watch.await?;
    settle(&observer, &recorder).await;
    finals::read(&world, &seats, job.scenario.workload.quota_bytes, &recorder).await?;
    if !flips.is_empty() {
        write_flips(&job, &flips)?;
        scrub::judge(&mut world, &observer, &flips, &recorder).await?;
    }
    recorder.finish()?;
    if let Err(error) = world.stop().await {
        // The history is whole; what did not stop in time is killed.
        eprintln!("chaos: {error:#}");
    }
    Ok(Ran::Whole)
}

fn wishes(job: &Job) -> Wishes {
    let topology = &job.scenario.topology;
    let places = job.scenario.places();
    let uses = |wanted: fn(&Fault) -> bool| job.steps.iter().any(|step| wanted(&step.fault));
    let lies = |fault: &Fault| {
        matches!(
            fault,
            Fault::Clock { .. }
                | Fault::Disk {
                    what: DiskFault::LyingSync,
                    ..
                }
        )
    };
    let eio = |fault: &Fault| {
        matches!(
            fault,
            Fault::Disk {
                what: DiskFault::SyncEio,
                ..
            }
        )
    };
    Wishes {
        regions: places.iter().map(|(_, region)| (*region).to_owned()).collect(),
        groups: topology.groups,
        voters: topology.voters,
        accounts: job.scenario.workload.accounts,
        quota_bytes: job.scenario.workload.quota_bytes,
        settings: plan::settings(&job.scenario, job.seed),
        timing: if topology.is_wide() { "wan" } else { "local" },
        disks_in_memory: uses(eio),
        shim: uses(lies) || job.control.as_deref() == Some(LYING_SYNC),
        wires: !topology.rtt_ms.is_empty() || uses(|fault| matches!(fault, Fault::Net(_))),
        seed: job.seed,
    }
}

/// Links between regions, from the round trips of the scenario; half a round trip each way.
fn lines(scenario: &Scenario, places: &[u32]) -> BTreeMap<(u32, u32), Quality> {
    let regions: BTreeMap<u32, &str> = scenario.places().into_iter().collect();
    let mut lines = BTreeMap::new();
    if scenario.topology.rtt_ms.is_empty() {
        return lines;
    }
    for from in places {
        for to in places.iter().filter(|to| regions[from] != regions[*to]) {
            let between = |(one, other, _, _): &&(String, String, u64, u64)| {
                let pair = [one.as_str(), other.as_str()];
                pair.contains(&regions[from]) && pair.contains(&regions[to])
            };
            let found = scenario.topology.rtt_ms.iter().find(between);
            let (mean_us, jitter_us) =
                found.map_or((2 * WAN_US, 0), |(_, _, mean, jitter)| (mean * 1000, jitter * 1000));
            let quality = Quality {
                delay_us: mean_us / 2,
                jitter_us: jitter_us / 2,
                ..Quality::default()
            };
            lines.insert((*from, *to), quality);
        }
    }
    lines
}

async fn target(world: &World, seats: &[Seat], scenario: &Scenario) -> anyhow::Result<Doors> {
    let mut clients: Vec<Client> = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(world.load().await?);
    }
    let accounts = seats.iter().map(|seat| workload::Seat {
        id: seat.id,
        login: seat.login.clone(),
        password: PASSWORD.to_owned(),
    });
    let fixed = fixed_mailboxes(scenario.workload.mailboxes);
    // INBOX is there; the others are made before the load begins.
    for seat in seats {
        let account = harness::until(format!("a login of {}", seat.login), CONVERGED, || async {
            Ok(Some(clients[0].login(&seat.login, PASSWORD).await?))
        })
        .await?;
        for name in &fixed[1..] {
            account.create_mailbox(name, malle_client::SpecialUse::None).await?;
        }
    }
    let over_client = OverClient::new(clients, accounts.collect(), fixed);
    let logins = seats.iter().map(|seat| seat.login.clone()).collect();
    Ok(Doors::new(over_client, world.lmtp(), world.imap(), logins))
}

fn header(job: &Job, timeline: Timeline, seats: &[Seat]) -> Header {
    let places = job.scenario.places().into_iter().map(|(place, region)| PlaceHeader {
        place,
        node: u64::from(place),
        region: region.to_owned(),
    });
    let accounts = (0..).zip(seats).map(|(account, seat)| AccountHeader {
        account,
        shard: seat.shard.0,
        quota_bytes: job.scenario.workload.quota_bytes,
    });
    Header {
        schema: SCHEMA,
        scenario: job.scenario.name.clone(),
        scenario_hash: job.scenario_hash.clone(),
        seed: job.seed,
        engine: Engine::Proc,
        commit: history::commit(),
        control: job.control.clone(),
        timeline,
        places: places.collect(),
        accounts: accounts.collect(),
        mailboxes: fixed_mailboxes(job.scenario.workload.mailboxes),
        deadline_us: job.scenario.workload.deadline.us(),
    }
}

/// Waits until all replicas agree and writes what they hold; that they do not is something that no run may show.
async fn settle(observer: &Observer, recorder: &Recorder) {
    let agreed = harness::until("equal digests on all replicas", CONVERGED, || async {
        let statuses: Vec<_> = observer.ask(true).await.into_values().collect();
        let all = observer.places_up().len();
        anyhow::ensure!(statuses.len() == all, "{} of {all} nodes answer", statuses.len());
        match harness::disagreement(&statuses) {
            None => Ok(Some(())),
            Some(difference) => anyhow::bail!(difference),
        }
    });
    if let Err(error) = agreed.await {
        recorder.write(&Record::Broken(Broken {
            at_us: recorder.now_us(),
            place: None,
            what: format!("{error:#}"),
        }));
    }
    observer.round(true, true).await;
}

fn write_flips(job: &Job, flips: &[(u32, Flip)]) -> anyhow::Result<()> {
    let lines = flips.iter().map(|(place, flip)| {
        serde_json::json!({ "place": place, "file": flip.file, "record": flip.record, "byte": flip.byte }).to_string()
    });
    let text: Vec<String> = lines.collect();
    Ok(std::fs::write(job.out.join("flips.jsonl"), text.join("\n") + "\n")?)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const SCENARIO: &str = r#"
schema = 1
name = "sample"
summary = "three regions"
guards = ["Reads"]
engines = ["proc"]
[topology]
regions = [{ name = "eu", nodes = 2 }, { name = "us", nodes = 1 }, { name = "ap", nodes = 1 }]
rtt_ms = [["us", "eu", 90, 10]]
[workload]
profile = "W-mix"
clients = 1
rate = 1
[phases]
safety = "10s"
liveness = "1s"
[[fault]]
kind = "powerloss"
select = "node:1"
at = "1s"
[[fault]]
kind = "disk"
what = "sync-eio"
select = "node:2"
at = "2s"
[expect]
invariants = ["I1"]
"#;

    fn scenario() -> Scenario {
        Scenario::parse(SCENARIO, Path::new("sample.toml")).unwrap()
    }

    #[test]
    fn what_a_run_needs_follows_from_its_faults_its_lines_and_its_control() {
        let scenario = scenario();
        let steps = plan::plan(&scenario, 1).unwrap();
        let plain = needs(&scenario, &steps, None);
        assert_eq!(plain, ["loop", "netns", "power-cut", "root", "tmpfs", "tun", "veth"]);
        assert!(needs(&scenario, &[], Some(LYING_SYNC)).contains(&"shim".to_owned()));
    }

    #[test]
    fn lines_between_regions_take_half_a_round_trip_each_way_and_lines_within_none() {
        let lines = lines(&scenario(), &[1, 2, 3, 4]);
        assert!(!lines.contains_key(&(1, 2)));
        let line = |from, to| (lines[&(from, to)].delay_us, lines[&(from, to)].jitter_us);
        assert_eq!([line(1, 3), line(3, 2)], [(45_000, 5_000); 2]);
        assert_eq!(line(4, 1), (WAN_US, 0));
    }
}
