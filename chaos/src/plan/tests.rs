use std::path::Path;

use super::*;
use crate::scenario::Shape;

const KILLS: &str = r#"
[[fault]]
kind = "kill"
select = "random:1"
every = "8s"
jitter = "2s"
restart_after = "3s"
"#;
const PARTITION: &str = r#"
[[fault]]
kind = "partition"
shape = "isolate"
select = "leader:g1"
at = "50s"
"#;

fn scenario(faults: &str) -> Scenario {
    let text = format!("{}{faults}", crate::scenario::SAMPLE);
    Scenario::parse(&text, Path::new("sample.toml")).unwrap()
}

#[test]
fn a_seed_gives_one_plan_and_another_seed_another() {
    let scenario = scenario(KILLS);
    assert_eq!(plan(&scenario, 7).unwrap(), plan(&scenario, 7).unwrap());
    assert_ne!(plan(&scenario, 7).unwrap(), plan(&scenario, 8).unwrap());
}

#[test]
fn a_fault_that_is_taken_out_shifts_no_other() {
    let both = plan(&scenario(&format!("{KILLS}{PARTITION}")), 7).unwrap();
    let kills = plan(&scenario(KILLS), 7).unwrap();
    let left: Vec<Step> = both.into_iter().filter(|step| step.fault == Fault::Kill).collect();
    assert_eq!(left, kills);
}

#[test]
fn no_fault_outlives_the_safety_phase() {
    let timeline = Timeline::of(&scenario(""));
    let steps = plan(&scenario(&format!("{KILLS}{PARTITION}")), 3).unwrap();
    assert_eq!(steps.len(), 8);
    for step in &steps {
        assert!(
            step.at_us >= timeline.safety_us && step.at_us + step.lasts_us <= timeline.heal_us.max(step.at_us),
            "{step:?}"
        );
    }
    assert_eq!(
        steps.iter().find(|step| step.fault != Fault::Kill).unwrap().lasts_us,
        10_000_000
    );
}

#[test]
fn a_plan_is_read_as_it_was_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("plan.jsonl");
    let steps = plan(&scenario(&format!("{KILLS}{PARTITION}")), 7).unwrap();
    write(&path, &steps).unwrap();
    assert_eq!(read(&path).unwrap(), steps);
    std::fs::write(&path, "{}\n").unwrap();
    assert!(read(&path).unwrap_err().to_string().contains("plan.jsonl:1"));
}

fn present() -> Present {
    Present {
        places: (1..=5)
            .map(|place| (place, if place < 4 { "eu" } else { "us" }.to_owned()))
            .collect(),
        down: vec![],
        leaders: [(1, 2)].into(),
        replicas: [(1, vec![1, 2, 3])].into(),
    }
}

fn step(fault: Fault, select: &str, guard: Guard) -> Step {
    Step {
        id: 1,
        at_us: 0,
        lasts_us: 1,
        fault,
        select: select.parse().unwrap(),
        guard,
        draw: 11,
    }
}

#[test]
fn targets_are_who_leads_now() {
    let hit = |select: &str| step(Fault::Kill, select, Guard::None).targets(&present());
    assert_eq!(hit("leader:g1"), Ok(vec![2]));
    assert!(matches!(hit("follower:g1"), Ok(places) if places == [1] || places == [3]));
    assert_eq!(hit("region:us"), Ok(vec![4, 5]));
    assert_eq!(hit("leader:g9"), Err(Skipped::NoLeader(9)));
    let both = hit("leader:g1 + random:2").unwrap();
    assert!(both.contains(&2) && both.len() == 3, "{both:?}");
}

#[test]
fn the_guard_keeps_a_majority() {
    let mut present = present();
    present.down = vec![4];
    assert!(step(Fault::Kill, "node:1", Guard::KeepQuorum).targets(&present).is_ok());
    let two = step(Fault::Kill, "node:1 + node:2", Guard::KeepQuorum);
    assert_eq!(two.targets(&present), Err(Skipped::Guarded { down: 3, all: 5 }));
    assert_eq!(
        step(Fault::Kill, "node:4", Guard::None).targets(&present),
        Err(Skipped::AllDown)
    );
    let all = step(Fault::Powerloss, "all", Guard::KeepOneCopy);
    assert_eq!(all.targets(&present), Err(Skipped::Guarded { down: 5, all: 5 }));
    let partition = Fault::Partition {
        shape: Shape::Isolate,
        clients: false,
    };
    assert_eq!(
        step(partition, "all", Guard::KeepQuorum)
            .targets(&present)
            .unwrap()
            .len(),
        5
    );
}

#[test]
fn what_follows_the_faults_waits_until_they_are_undone() {
    let planned = Timeline::of(&scenario(KILLS));
    assert_eq!(planned.healed_at(planned.heal_us - 1), planned, "nothing begins early");
    let late = planned.healed_at(planned.heal_us + 7_000_000);
    assert_eq!(late.safety_us, planned.safety_us);
    assert_eq!(late.heal_us - planned.heal_us, 7_000_000);
    assert_eq!(late.end_us - late.liveness_us, planned.end_us - planned.liveness_us);
}

#[test]
fn no_fault_begins_after_the_end_of_all_faults() {
    let scenario = scenario(
        r#"
[[fault]]
kind = "kill"
select = "random:1"
every = "1s"
jitter = "20s"
restart_after = "3s"
"#,
    );
    let heal_us = Timeline::of(&scenario).heal_us;
    for seed in 1..20 {
        let steps = plan(&scenario, seed).unwrap();
        assert!(steps.iter().all(|step| step.at_us < heal_us && step.lasts_us > 0));
    }
}
