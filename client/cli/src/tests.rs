//! The command line as a whole: what parses, what does not, which code a script sees.

use clap::{CommandFactory as _, Parser as _};
use malle_client::{AccountId, AccountRecord, AddressEvent, AddressRecord, Error, ShardId};

use super::{Cli, account, address, layout, node, output, shard, status, task};
use crate::exit::{Exit, Refusal, Usage, guarded};

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn every_verb_parses() {
    for line in [
        "cluster init --name mail.example --node id=1,region=nord,client=a:1,peer=a:2 --shards 8 --replicas 3",
        "cluster status --no-digests --output json --timeout 5s",
        "--context /tmp/c.toml node list",
        "node add 4 --region sud --client-address a:1 --peer-address a:2",
        "node replace 3 4 --client-address a:1 --peer-address a:2",
        "node drain 3",
        "node undrain 3 --dry-run",
        "node decommission 3 --yes --wait --timeout 20m",
        "node remove 3 --dry-run --break-goal zone",
        "layout show",
        "layout assign 4 5 --weight 2 --zone b",
        "layout assign --goal zone --replicas 3 --rebuild-after 10m",
        "layout assign --rebuild-after never --dry-run",
        "layout plan --rate 32M",
        "layout apply --version 4 --yes",
        "layout apply --version 4 --dry-run --break-goal region",
        "layout revert",
        "layout history --output json",
        "task list --all",
        "task show 3",
        "task await",
        "task await 3 --timeout 20m",
        "task cancel 3",
        "shard list --no-color",
        "shard leader move 3 2",
        "shard checkpoint 3 --node 1",
        "account create u1@example.org --password-stdin --quota 20G --region nord",
        "account create u1@example.org --no-password --shard 3",
        "account show u1@example.org",
        "account locate u1@example.org",
        "account set u1@example.org --suspend",
        "account set u1@example.org --new-password --quota 1G",
        "address add u1@example.org first.last@example.org --primary",
        "address remove first.last@example.org",
        "address history u1@example.org",
        "session list u1@example.org",
        "session kick u1@example.org --session 5f00",
        "cert ca --cluster mail.example --out ca",
        "cert node 1 --ca-dir ca --out node-1",
        "cert gateway gw1 --role lmtp --role imap --ca-dir ca --out gw1",
        "cert operator anne",
        "demo",
    ] {
        let parsed = Cli::try_parse_from(["malle"].into_iter().chain(line.split(' ')));
        assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
    }
}

#[test]
fn wrong_usage_ends_with_code_2() {
    for line in [
        "",
        "cluster",
        "account create",
        "account create u1@example.org --password secret",
        "account create u1@example.org --password-stdin --no-password",
        "account set u1@example.org",
        "account set u1@example.org --suspend --resume",
        "account create u1@example.org --quota 20X",
        "cluster init --name x",
        "cluster status --timeout 5h",
        "cert gateway gw1",
        "cert gateway gw1 --role admin",
        "shard leader move 3",
        "node list --output yaml",
    ] {
        let error = Cli::try_parse_from(
            ["malle"]
                .into_iter()
                .chain(line.split(' ').filter(|word| !word.is_empty())),
        );
        assert_eq!(error.expect_err(line).exit_code(), Exit::Usage as i32, "{line}");
    }
}

#[test]
fn the_exit_code_tells_what_happened() {
    let code = |error: Error| Exit::of(&error.into());
    assert_eq!(code(Error::Unavailable("no leader".into())), Exit::Unreachable);
    assert_eq!(code(Error::Busy(std::time::Duration::ZERO)), Exit::Unreachable);
    assert_eq!(code(Error::NotFound("u1".into())), Exit::NotFound);
    assert_eq!(code(Error::Config("ca".into())), Exit::Usage);
    assert_eq!(code(Error::Exists("u1".into())), Exit::Failed);
    assert_eq!(code(Error::Denied("role".into())), Exit::Failed);
    assert_eq!(Exit::of(&Usage("x".into()).into()), Exit::Usage);
    assert_eq!(Exit::of(&Refusal("x".into()).into()), Exit::Refused);
    assert_eq!(
        Exit::of(&guarded(Error::Invalid("it would lose the quorum".into()))),
        Exit::Refused
    );
    assert_eq!(Exit::of(&guarded(Error::NotFound("node 9".into()))), Exit::NotFound);
    // A sentence around an error does not change its code.
    let error = anyhow::Error::from(Error::NotFound("u1".into())).context("showing u1");
    assert_eq!(Exit::of(&error), Exit::NotFound);
}

fn record() -> AccountRecord {
    let address = |address: &str, primary| AddressRecord {
        address: address.into(),
        primary,
        since_ms: 1_700_000_000_000,
    };
    AccountRecord {
        id: AccountId([0x1f; 16]),
        shard: ShardId(3),
        placement_epoch: 1,
        suspended: false,
        quota_bytes: 20 << 30,
        created_ms: 1_700_000_000_000,
        addresses: vec![
            address("u1@example.org", true),
            address("first.last@example.org", false),
        ],
        history: Vec::new(),
        has_password: true,
    }
}

#[test]
fn a_made_password_is_shown_once_and_a_given_one_never() {
    let made = account::shown(record(), Some("abcdefgh".into()));
    insta::assert_snapshot!(account::text(&made), @r"
    account          1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f
    primary address  u1@example.org (since 2023-11-14 22:13:20Z)
    address          first.last@example.org (since 2023-11-14 22:13:20Z)
    state            active
    shard            3
    quota            20 GiB
    created          2023-11-14 22:13:20Z
    password         abcdefgh (shown this once)
    ");
    let given = account::shown(record(), None);
    assert!(!account::text(&given).contains("password"));
    assert!(!output::json(&given).contains("\"password\""));
    assert!(output::json(&made).contains("\"password\": \"abcdefgh\""));
}

#[test]
fn lists_are_tables() {
    let topology = status::tests::topology;
    insta::assert_snapshot!(node::text(&node::list(topology())), @r"
    ID  REGION  ZONE  STATE    CLIENTS         PEERS
    1   nord    a     active   127.0.0.1:7421  127.0.0.1:7431
    2   centre  a     active   127.0.0.1:7422  127.0.0.1:7432
    3   sud     a     active   127.0.0.1:7423  127.0.0.1:7433
    4   sud     a     retired  127.0.0.1:7424  127.0.0.1:7434
    ");
    insta::assert_snapshot!(shard::text(&shard::list(topology())), @r"
    SHARD  HOME  LEADER  REPLICAS  ACCOUNTS
    1      nord  1       1,2,3     10
    ");
    let event = |event: &str, address: &str| AddressEvent {
        time_ms: 1_700_000_000_000,
        address: address.into(),
        event: event.into(),
    };
    let events = vec![
        event("added", "u1@example.org"),
        event("made primary", "u1@example.org"),
    ];
    insta::assert_snapshot!(address::text(&address::history("1f".into(), events)), @r"
    TIME                  EVENT         ADDRESS
    2023-11-14 22:13:20Z  added         u1@example.org
    2023-11-14 22:13:20Z  made primary  u1@example.org
    ");
}

fn a_layout() -> malle_client::Layout {
    let node = |id: u64, standing: &str, weight: u32, replicas: u32| malle_client::LayoutNode {
        id: malle_client::NodeId(id),
        region: "nord".into(),
        zone: "a".into(),
        weight,
        standing: standing.into(),
        silent_since_ms: (standing == "dead").then_some(1_700_000_000_000),
        replicas,
    };
    let change = malle_client::LayoutChange {
        goal: Some("zone".into()),
        rebuild_after_ms: Some(600_000),
        roles: vec![malle_client::RoleChange {
            node: malle_client::NodeId(4),
            weight: Some(2),
            region: None,
            zone: Some("b".into()),
        }],
        ..malle_client::LayoutChange::default()
    };
    malle_client::Layout {
        version: 3,
        goal: "node".into(),
        replicas: 3,
        rebuild_after_ms: 0,
        nodes: vec![
            node(1, "active", 1, 8),
            node(3, "dead", 1, 2),
            node(4, "draining", 0, 0),
        ],
        staged: Some((5, change)),
        history: Vec::new(),
    }
}

#[test]
fn a_layout_shows_what_is_staged_and_how_nodes_stand() {
    insta::assert_snapshot!(layout::text(&layout::shown(a_layout())), @r"
    version                  3
    shards survive a         node
    replicas                 3
    dead nodes are replaced  never by themselves

    staged, not applied: version 5
      - shards survive a zone
      - a dead node's replicas are rebuilt after 10m 0s
      - node 4: weight 2, zone b

    NODE  REGION  ZONE  WEIGHT  REPLICAS  STANDING  SILENT
    1     nord    a     1       8         active    -
    3     nord    a     1       2         dead      since 2023-11-14 22:13:20Z
    4     nord    a     0       0         draining  -
    ");
}

#[test]
fn a_plan_says_what_moves_how_much_and_what_is_refused() {
    let one = |shard: u32, leave: u64, join: u64| malle_client::PlannedMove {
        shard: ShardId(shard),
        join: Some(malle_client::NodeId(join)),
        leave: Some(malle_client::NodeId(leave)),
        bytes: 3 << 30,
        reason: "weight".into(),
    };
    let plan = malle_client::LayoutPlan {
        version: 5,
        moves: vec![one(1, 1, 4), one(7, 3, 4)],
        problems: vec!["shard 2 has lost its majority: 2 of 3 replicas are dead".into()],
        refused: Some("why".into()),
        at_once: 2,
    };
    let text = layout::plan_text(&layout::planned(plan, 64 << 20));
    insta::assert_snapshot!(anstream::adapter::strip_str(&text).to_string(), @r"
    version 5: 2 replicas move, 6 GiB, about 48s
    it would be refused: why
      - shard 2 has lost its majority: 2 of 3 replicas are dead
    While a replica is copied the old one serves: no shard has fewer replicas than before.

    SHARD  FROM  TO  BYTES  BECAUSE
    1      1     4   3 GiB  evenly by weight
    7      3     4   3 GiB  evenly by weight
    ");
}

#[test]
fn tasks_show_what_is_under_way_and_of_the_past_the_last_ones() {
    let task = |id: u64, step: &str| malle_client::Task {
        id,
        of: malle_client::PlannedMove {
            shard: ShardId(u32::from(id != 1)),
            join: Some(malle_client::NodeId(4)),
            leave: None,
            bytes: 1 << 20,
            reason: "count".into(),
        },
        step: step.into(),
        note: String::new(),
        started_ms: 1_700_000_000_000,
        changed_ms: 1_700_000_000_000,
    };
    let tasks: Vec<_> = (1..=14)
        .map(|id| task(id, if id % 7 == 0 { "joined" } else { "done" }))
        .collect();
    insta::assert_snapshot!(task::text(&task::list(tasks, false)), @r"
    TASK  SHARD  FROM  TO  BYTES  REASON  STEP    STARTED               NOTE
    3     1      -     4   1 MiB  count   done    2023-11-14 22:13:20Z
    4     1      -     4   1 MiB  count   done    2023-11-14 22:13:20Z
    5     1      -     4   1 MiB  count   done    2023-11-14 22:13:20Z
    6     1      -     4   1 MiB  count   done    2023-11-14 22:13:20Z
    7     1      -     4   1 MiB  count   joined  2023-11-14 22:13:20Z
    8     1      -     4   1 MiB  count   done    2023-11-14 22:13:20Z
    9     1      -     4   1 MiB  count   done    2023-11-14 22:13:20Z
    10    1      -     4   1 MiB  count   done    2023-11-14 22:13:20Z
    11    1      -     4   1 MiB  count   done    2023-11-14 22:13:20Z
    12    1      -     4   1 MiB  count   done    2023-11-14 22:13:20Z
    13    1      -     4   1 MiB  count   done    2023-11-14 22:13:20Z
    14    1      -     4   1 MiB  count   joined  2023-11-14 22:13:20Z
    ");
    insta::assert_snapshot!(task::text(&task::list(vec![task(1, "planned")], false)), @r"
    TASK  SHARD      FROM  TO  BYTES  REASON  STEP     STARTED               NOTE
    1     directory  -     4   1 MiB  count   planned  2023-11-14 22:13:20Z
    ");
    assert_eq!(task::text(&task::list(Vec::new(), true)), "nothing moves");
}

#[test]
fn every_command_of_the_operators_pages_parses() {
    let pages = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/operations");
    let mut commands = 0;
    for page in std::fs::read_dir(pages).unwrap() {
        let path = page.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap().replace("\\\n", " ");
        let mut in_code = false;
        for line in text.lines() {
            if line.starts_with("```") {
                in_code = !in_code;
            } else if in_code && line.starts_with("malle ") {
                commands += 1;
                let parsed = Cli::try_parse_from(line.split_whitespace());
                assert!(parsed.is_ok(), "{}: {line}: {}", path.display(), parsed.unwrap_err());
            }
        }
    }
    assert!(commands > 20, "{commands} commands in code blocks");
}
