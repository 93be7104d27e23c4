//! One run, from the scenario's file to the end of its history.

use std::sync::Arc;
use std::time::{Duration, Instant as WallTime};

use anyhow::Context as _;
use malle_chaos::history::{self, Header, PlaceHeader, Recorder};
use malle_chaos::plan::{self, Step, Timeline};
use malle_chaos::scenario::{Engine, Scenario};
use malle_chaos::workload::{Drive, drive, hex};
use malle_rt::sim::HostedRuntime;
use serde::Serialize;

use crate::boot::boot;
use crate::world::World;
use crate::{Arguments, faults, finals, observe};

/// What a run was, beside its history.
#[derive(Debug, Serialize)]
struct Report {
    scenario: String,
    seed: u64,
    /// The same for every run of this build with this scenario, plan and seed.
    trace: String,
    steps: u64,
    messages: u64,
    virtual_ms: u64,
    wall_ms: u64,
    /// Simulated time by real time.
    speed: f64,
}

/// A run that takes so many times its budget of wall time hangs: simulated time stands still while tasks wake each other for ever.
const HANGS: u32 = 10;

/// See the module.
///
/// # Errors
/// When the run could not be made; what it found is in the history.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let wall = WallTime::now();
    let text = std::fs::read_to_string(&arguments.scenario)
        .with_context(|| format!("cannot read {}", arguments.scenario.display()))?;
    let scenario = Arc::new(Scenario::parse(&text, &arguments.scenario)?);
    anyhow::ensure!(
        scenario.engines.contains(&Engine::Sim),
        "{} is not for this engine",
        scenario.name
    );
    std::fs::create_dir_all(&arguments.out).with_context(|| format!("cannot make {}", arguments.out.display()))?;
    if arguments.trace {
        log_to(arguments)?;
    }
    let steps = match &arguments.plan {
        Some(path) => plan::read(path)?,
        None => plan::plan(&scenario, arguments.seed)?,
    };
    plan::write(&arguments.out.join("plan.jsonl"), &steps)?;
    end_a_run_that_hangs(scenario.budget.sim.duration());
    let mut runtime = HostedRuntime::with_seed(arguments.seed);
    let messages = runtime.run(play(arguments, &scenario, &text, steps))?;
    let (trace, polls) = malle_rt::sim::traced();
    let virtual_ms = malle_rt::sim::ran_ms();
    let wall_ms = wall.elapsed().as_millis() as u64;
    let report = Report {
        scenario: scenario.name.clone(),
        seed: arguments.seed,
        trace: format!("{trace:016x}"),
        steps: polls,
        messages,
        virtual_ms,
        wall_ms,
        speed: virtual_ms as f64 / wall_ms.max(1) as f64,
    };
    let file = std::fs::File::create(arguments.out.join("run.json")).context("cannot make run.json")?;
    serde_json::to_writer_pretty(file, &report).context("cannot write run.json")?;
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

async fn play(arguments: &Arguments, scenario: &Arc<Scenario>, text: &str, steps: Vec<Step>) -> anyhow::Result<u64> {
    let (seed, timeline) = (arguments.seed, Timeline::of(scenario));
    let world = World::new(scenario, seed)?;
    let booted = boot(&world, scenario, seed).await?;
    let places = scenario.places();
    let header = Header {
        schema: history::SCHEMA,
        scenario: scenario.name.clone(),
        scenario_hash: hex(blake3::hash(text.as_bytes()).as_bytes())[..16].to_owned(),
        seed,
        engine: Engine::Sim,
        commit: history::commit(),
        control: arguments.control.clone(),
        timeline,
        places: places
            .iter()
            .map(|(place, region)| PlaceHeader {
                place: *place,
                node: u64::from(*place),
                region: (*region).to_owned(),
            })
            .collect(),
        accounts: booted.accounts.clone(),
        mailboxes: booted.mailboxes.clone(),
        deadline_us: scenario.workload.deadline.us(),
    };
    let recorder = Recorder::create(&arguments.out.join(history::FILE), header)?;
    for machine in world.machines.values() {
        if let Some(life) = machine.life() {
            observe::watch_over(&world, machine, &life, &recorder);
        }
    }
    let nemesis = malle_rt::spawn(faults::carry_out(world.clone(), steps, recorder.clone()));
    let onlooker = malle_rt::spawn(observe::observe(world.clone(), recorder.clone(), timeline.end_us));
    let mending = malle_rt::spawn(mend(world.clone(), recorder.clone(), timeline.heal_us));
    let load = Drive {
        scenario: scenario.clone(),
        seed,
        recorder: recorder.clone(),
    };
    drive(Arc::new(booted.target), load).await?;
    for (name, task) in [("faults", nemesis), ("onlooker", onlooker), ("mending", mending)] {
        task.await.map_err(|error| anyhow::anyhow!("{name}: {error}"))?;
    }
    finals::agree(&world, &recorder).await;
    observe::look(&world, &recorder, &mut Default::default(), true);
    let shards: Vec<u32> = booted.accounts.iter().map(|account| account.shard).collect();
    finals::write(&world, &booted.seats, &shards, &recorder).await;
    recorder.finish()?;
    Ok(world.net.messages())
}

/// When the faults are over, an operator starts what has left by itself: its disk was looked at.
async fn mend(world: Arc<World>, recorder: Recorder, heal_us: u64) {
    malle_rt::sleep_until(recorder.at(heal_us) + Duration::from_millis(500)).await;
    for machine in world.machines.values() {
        if !world.present().down.contains(&machine.place) || machine.life().is_some() {
            continue;
        }
        faults::start(&world, machine, &recorder).await;
    }
}

fn log_to(arguments: &Arguments) -> anyhow::Result<()> {
    let file = std::fs::File::create(arguments.out.join("log.txt")).context("cannot make log.txt")?;
    let level = std::env::var("RUST_LOG").unwrap_or_else(|_| "info,openraft=error".to_owned());
    tracing_subscriber::fmt()
        .with_env_filter(level)
        .with_ansi(false)
        .with_timer(Virtual)
        .with_writer(std::sync::Mutex::new(file))
        .init();
    Ok(())
}

/// The simulated time, in log lines.
struct Virtual;

impl tracing_subscriber::fmt::time::FormatTime for Virtual {
    fn format_time(&self, w: &mut tracing_subscriber::fmt::format::Writer<'_>) -> std::fmt::Result {
        write!(w, "{:10.6}", malle_rt::sim::ran_us() as f64 / 1e6)?;
        match malle_rt::sim::Host::current() {
            Some(host) => write!(w, " n{}", host.id()),
            None => write!(w, " --"),
        }
    }
}

fn end_a_run_that_hangs(budget: Duration) {
    if budget.is_zero() {
        return;
    }
    std::thread::spawn(move || {
        std::thread::sleep(budget * HANGS);
        eprintln!(
            "chaos-sim: no end after {} s: the run hangs",
            (budget * HANGS).as_secs()
        );
        std::process::exit(2);
    });
}
