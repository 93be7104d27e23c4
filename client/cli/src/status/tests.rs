use malle_client::{ClusterId, CollectStatus, Node, Shard};

use super::*;

pub fn topology() -> Topology {
    let node = |(id, region): (u64, &str)| Node {
        id: NodeId(id),
        region: region.into(),
        zone: "a".into(),
        client_address: format!("127.0.0.1:742{id}"),
        peer_address: format!("127.0.0.1:743{id}"),
        retired: id == 4,
    };
    let shard = Shard {
        id: ShardId(1),
        replicas: vec![NodeId(1), NodeId(2), NodeId(3)],
        home_region: "nord".into(),
        leader: Some(NodeId(1)),
        epoch: 1,
        accounts: 10,
    };
    Topology {
        cluster: ClusterId([0xab; 16]),
        cluster_name: "mail.example".into(),
        nodes: [(1, "nord"), (2, "centre"), (3, "sud"), (4, "sud")].map(node).into(),
        shards: vec![shard],
        directory_index: 77,
    }
}

fn group(shard: u32, role: &str, applied_index: u64, digest: u8) -> GroupStatus {
    GroupStatus {
        shard: ShardId(shard),
        role: role.into(),
        term: 3,
        leader: Some(NodeId(1)),
        last_log_index: 500,
        committed_index: 500,
        applied_index,
        checkpoint_index: 100,
        bodies_complete_through: applied_index,
        digest: Some([digest; 16]),
        voters: vec![NodeId(1), NodeId(2), NodeId(3)],
        learners: Vec::new(),
        rebuilds: 0,
        rows: 1_000,
        accounts: 10,
    }
}

fn status(node: u64, groups: Vec<GroupStatus>) -> (NodeId, Result<NodeStatus, String>) {
    let status = NodeStatus {
        node: NodeId(node),
        region: String::new(),
        version: "0.1.0".into(),
        uptime_ms: 3_725_000,
        groups,
        failed: None,
        disk_free_bytes: 3 << 30,
        disk_total_bytes: 4 << 30,
        bodies: 12,
        body_bytes: 99_000,
        scrub: Default::default(),
        telemetry_address: None,
        short_of_room: None,
        collect: CollectStatus {
            volume_bytes: 5 << 20,
            garbage_bytes: 1 << 20,
            ..CollectStatus::default()
        },
    };
    (NodeId(node), Ok(status))
}

fn healthy() -> Vec<(NodeId, Result<NodeStatus, String>)> {
    (1..=3)
        .map(|node| {
            let role = if node == 1 { "leader" } else { "follower" };
            status(node, vec![group(0, role, 500, 1), group(1, role, 500, 7)])
        })
        .collect()
}

/// The answer of the node at this place, to be changed.
fn group_of(answers: &mut [(NodeId, Result<NodeStatus, String>)], place: usize) -> &mut GroupStatus {
    &mut answers[place].1.as_mut().unwrap().groups[1]
}

#[test]
fn all_well() {
    let report = report(&topology(), healthy());
    assert!(report.healthy, "{:?}", report.problems);
    insta::assert_snapshot!(text(&report).replace('\x1b', "ESC"), @r"
    ESC[32mhealthyESC[0m: 3 of 3 nodes up, 2 of 2 groups led, replicas agree

    cluster mail.example (abababababababababababababababab)

    NODE  REGION  STATE    UPTIME  VERSION  DISK                 SPACE               SCRUB            ADDRESS
    1     nord    up       1h 2m   0.1.0    3 GiB of 4 GiB free  5 MiB, 20% garbage  0 rounds, clean  127.0.0.1:7421
    2     centre  up       1h 2m   0.1.0    3 GiB of 4 GiB free  5 MiB, 20% garbage  0 rounds, clean  127.0.0.1:7422
    3     sud     up       1h 2m   0.1.0    3 GiB of 4 GiB free  5 MiB, 20% garbage  0 rounds, clean  127.0.0.1:7423
    4     sud     retired  -       -        -                    -                   -                127.0.0.1:7424

    GROUP          LEADER  REPLICAS  COMMITTED  LAG    DIGESTS  BODIES    ACCOUNTS
    0 (directory)  1       1,2,3     500        0,0,0  equal    complete  10
    1              1       1,2,3     500        0,0,0  equal    complete  10
    ");
}

#[test]
fn a_dead_node_degrades_and_is_named() {
    let mut answers = healthy();
    answers[1].1 = Err("connection refused".into());
    let report = report(&topology(), answers);
    assert!(!report.healthy);
    insta::assert_snapshot!(text(&report).replace('\x1b', "ESC"), @r"
    ESC[33mdegradedESC[0m: 2 of 3 nodes up, 2 of 2 groups led, 1 problem
      - node 2 is down: connection refused

    cluster mail.example (abababababababababababababababab)

    NODE  REGION  STATE    UPTIME  VERSION  DISK                 SPACE               SCRUB            ADDRESS
    1     nord    up       1h 2m   0.1.0    3 GiB of 4 GiB free  5 MiB, 20% garbage  0 rounds, clean  127.0.0.1:7421
    2     centre  down     -       -        -                    -                   -                127.0.0.1:7422
    3     sud     up       1h 2m   0.1.0    3 GiB of 4 GiB free  5 MiB, 20% garbage  0 rounds, clean  127.0.0.1:7423
    4     sud     retired  -       -        -                    -                   -                127.0.0.1:7424

    GROUP          LEADER  REPLICAS  COMMITTED  LAG    DIGESTS  BODIES    ACCOUNTS
    0 (directory)  1       1,2,3     500        0,-,0  equal    complete  10
    1              1       1,2,3     500        0,-,0  equal    complete  10
    ");
}

#[test]
fn replicas_that_differ_at_one_index_are_a_problem_and_at_two_are_none() {
    let mut answers = healthy();
    group_of(&mut answers, 2).digest = Some([9; 16]);
    let different = report(&topology(), answers.clone());
    assert_eq!((different.healthy, different.groups[1].digests), (false, "different"));

    group_of(&mut answers, 2).applied_index = 499;
    let behind = report(&topology(), answers.clone());
    assert_eq!((behind.healthy, behind.groups[1].digests), (true, "equal"));

    group_of(&mut answers, 1).applied_index = 498;
    assert_eq!(report(&topology(), answers).groups[1].digests, "moving");
}

#[test]
fn a_group_without_a_leader_is_a_problem() {
    let mut answers = healthy();
    group_of(&mut answers, 0).role = "candidate".into();
    let report = report(&topology(), answers);
    assert_eq!(report.problems, ["group 1 has no leader"]);
    assert_eq!(report.groups[1].leader, None);
}

#[test]
fn of_two_leaders_the_higher_term_is_right() {
    let mut answers = healthy();
    let second = group_of(&mut answers, 2);
    second.role = "leader".into();
    second.term = 4;
    assert_eq!(report(&topology(), answers).groups[1].leader, Some(3));
}

#[test]
fn a_replica_that_is_missing_far_behind_or_rebuilding_is_a_problem() {
    let mut answers = healthy();
    answers[0].1.as_mut().unwrap().groups[1].committed_index = 20_000;
    group_of(&mut answers, 0).applied_index = 20_000;
    group_of(&mut answers, 1).role = "rebuilding".into();
    answers[2].1.as_mut().unwrap().groups.pop();
    assert_eq!(
        report(&topology(), answers).problems,
        ["group 1 is rebuilding on node 2", "node 3 does not hold group 1"]
    );
    let mut answers = healthy();
    group_of(&mut answers, 0).committed_index = 20_000;
    group_of(&mut answers, 0).applied_index = 20_000;
    let problems = report(&topology(), answers).problems;
    assert_eq!(problems[0], "group 1 is 19500 entries behind on node 2");
}

#[test]
fn a_node_that_takes_no_writes_is_named_with_its_reason() {
    let mut answers = healthy();
    answers[0].1.as_mut().unwrap().failed = Some("sync failed: disk full".into());
    assert_eq!(
        report(&topology(), answers).problems,
        ["node 1 is failed: sync failed: disk full"]
    );
}

#[test]
fn a_node_that_takes_no_new_mail_is_full_and_says_where_to_read_on() {
    let mut answers = healthy();
    answers[1].1.as_mut().unwrap().short_of_room = Some("its disk is nearly full".into());
    let report = report(&topology(), answers);
    assert_eq!(
        report.problems,
        ["node 2 is full: its disk is nearly full; see docs/operations/disk-full.md"]
    );
    assert!(report.summary.contains("3 of 3 nodes up"), "{}", report.summary);
    assert!(!report.healthy && text(&report).contains(" full "));
}

#[test]
fn what_the_scrub_found_is_shown_and_what_no_peer_gave_is_a_problem() {
    let mut answers = healthy();
    let scrub = &mut answers[0].1.as_mut().unwrap().scrub;
    (
        scrub.rounds,
        scrub.rotten,
        scrub.unreadable,
        scrub.absent,
        scrub.repaired,
    ) = (1, 3, 1, 2, 6);
    let mended = report(&topology(), answers.clone());
    assert!(mended.healthy);
    assert_eq!(node_cells(&mended.nodes[0])[7], "1 round, 6 found, 6 repaired");
    assert_eq!(node_cells(&mended.nodes[3])[7], "-");
    let scrub = &mut answers[0].1.as_mut().unwrap().scrub;
    (scrub.repaired, scrub.open) = (4, 2);
    let open = report(&topology(), answers);
    let said = "node 1: 2 bodies are damaged or missing there and no peer gave them yet; see its log, and docs/operations/scrub.md";
    assert_eq!(open.problems, [said]);
    let value: serde_json::Value = serde_json::from_str(&output::json(&open)).unwrap();
    assert_eq!(
        (
            &value["nodes"][0]["scrub"]["rotten"],
            &value["nodes"][0]["scrub"]["open"]
        ),
        (&3.into(), &2.into())
    );
}

#[test]
fn json_of_a_status_keeps_its_fields() {
    let mut answers = healthy();
    answers[1].1 = Err("connection refused".into());
    let json = output::json(&report(&topology(), answers));
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(value["v"], 1);
    assert_eq!(value["healthy"], false);
    assert_eq!(value["nodes"][1]["state"], "down");
    assert_eq!(value["groups"][1]["shard"], 1);
    assert_eq!(value["groups"][1]["leader"], 1);
    assert_eq!(value["groups"][1]["replicas"][0]["digest"], "07".repeat(16));
    assert_eq!(value["groups"][1]["replicas"][1]["role"], "missing");
}
