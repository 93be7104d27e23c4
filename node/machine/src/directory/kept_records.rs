//! Every kept record of the directory against its golden file.

use malle_proto::{AccountId, ClusterId, NodeId, OpId, ShardId};

use super::rows::{
    AccountRow, AddressRow, AppPasswordRow, AppliedRow, ClockRow, ClusterRow, DomainRow, Event, FormerRow, GrantRow,
    GrowthRow, HistoryRow, LayoutRow, NodeRow, OwnAddressRow, PasswordRow, ReceiptKind, ReceiptOrderRow, ReceiptRow,
    ShardRow, SharingRow, StagedRow, StandingRow, TaskRow, TokenKeyRow,
};
use super::{
    AccountState, Applied, Command, Layout, LayoutChange, Node, NodeState, Op, Outcome, Refusal, RoleChange, Shard,
    Staged, Standing, Task, TaskStep, TokenKey,
};
use crate::golden::check;
use crate::planner::{Goal, Reason};

const ALICE: AccountId = AccountId([1; 16]);
const BOB: AccountId = AccountId([4; 16]);
const OP: OpId = OpId([2; 16]);
const TIME_MS: u64 = 1_767_225_600_000;

fn node() -> Node {
    Node {
        id: NodeId(300),
        region: "nord".into(),
        zone: "a".into(),
        client_address: "n300:7420".into(),
        peer_address: "n300:7421".into(),
        retired: true,
    }
}

fn shard() -> Shard {
    Shard {
        id: ShardId(7),
        replicas: vec![NodeId(300), NodeId(1)],
        home_region: "nord".into(),
        epoch: 9,
    }
}

fn key() -> TokenKey {
    TokenKey { id: 2, secret: [5; 32] }
}

fn address() -> String {
    "élodie@école.fr".into()
}

#[test]
fn rows_of_the_cluster_keep_their_bytes() {
    let row = ClusterRow {
        id: ClusterId([3; 16]),
        name: "mail.test".into(),
    };
    check("directory", "cluster", row);
    let row = ClockRow {
        time_ms: TIME_MS,
        receipts_first: 70,
        receipts_next: 300,
    };
    check("directory", "clock", row);
    check("directory", "node", NodeRow(node()));
    let row = ShardRow {
        shard: shard(),
        accounts: 300,
        last_sequence: 70_000,
    };
    check("directory", "shard", row);
    check("directory", "token-key", TokenKeyRow(key()));
}

#[test]
fn rows_of_accounts_keep_their_bytes() {
    let row = AccountRow {
        shard: ShardId(7),
        placement_epoch: 2,
        state: AccountState::Suspended,
        quota_bytes: 20 << 30,
        created_ms: TIME_MS,
        primary_address: address(),
        addresses: 3,
        history_first: 4,
        history_next: 500,
        sequence: 70_000,
    };
    check("directory", "account", row);
    let hash = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$aGFzaA".into();
    check("directory", "password", PasswordRow { hash });
    check("directory", "address", AddressRow { account: ALICE });
    check("directory", "own-address", OwnAddressRow { since_ms: TIME_MS });
    for event in [Event::Added, Event::Removed, Event::MadePrimary] {
        let row = HistoryRow {
            time_ms: TIME_MS,
            address: address(),
            event,
        };
        check(
            "directory",
            &format!("history-{}", event.as_str().replace(' ', "-")),
            row,
        );
    }
    check("directory", "domain", DomainRow { addresses: 300 });
    check("directory", "grant", GrantRow { account: ALICE });
    let row = ReceiptRow {
        kind: ReceiptKind::AddressRemove,
        account: ALICE,
        time_ms: TIME_MS,
    };
    check("directory", "receipt", row);
    let row = ReceiptOrderRow {
        scope: ALICE,
        op_id: OP,
    };
    check("directory", "receipt-order", row);
    let row = FormerRow {
        account: ALICE,
        removed_ms: TIME_MS,
    };
    check("directory", "former", row);
    let row = AppPasswordRow {
        digest: [9; 32],
        scopes: 3,
        created_ms: TIME_MS,
    };
    check("directory", "app-password", row);
    check("directory", "sharing", SharingRow { mark: OP });
    for (name, kind) in [
        ("add", ReceiptKind::AppPasswordAdd),
        ("remove", ReceiptKind::AppPasswordRemove),
    ] {
        let row = ReceiptRow {
            kind,
            account: ALICE,
            time_ms: TIME_MS,
        };
        check("directory", &format!("receipt-app-password-{name}"), row);
    }
}

#[test]
fn commands_keep_their_bytes() {
    let commands = [
        (
            "init",
            Op::Init {
                cluster: ClusterId([3; 16]),
                name: "mail.test".into(),
                nodes: vec![node()],
                shards: vec![shard()],
                token_key: key(),
            },
        ),
        ("node-set", Op::NodeSet { node: node() }),
        ("node-retire", Op::NodeRetire { node: NodeId(300) }),
        (
            "shard-set",
            Op::ShardSet {
                shard: ShardId(7),
                replicas: vec![NodeId(1)],
                epoch: 9,
            },
        ),
        ("token-key-add", Op::TokenKeyAdd { key: key() }),
        (
            "account-create",
            Op::AccountCreate {
                op_id: OP,
                account: ALICE,
                address: address(),
                password_hash: Some("$argon2id$x".into()),
                quota_bytes: 1000,
                shard: Some(ShardId(7)),
                region: Some("nord".into()),
            },
        ),
        (
            "account-set",
            Op::AccountSet {
                op_id: OP,
                account: ALICE,
                password_hash: None,
                state: Some(AccountState::Active),
                quota_bytes: Some(5),
            },
        ),
        (
            "address-add",
            Op::AddressAdd {
                op_id: OP,
                account: ALICE,
                address: address(),
                primary: true,
            },
        ),
        (
            "address-remove",
            Op::AddressRemove {
                op_id: OP,
                account: ALICE,
                address: address(),
            },
        ),
        (
            "app-password-add",
            Op::AppPasswordAdd {
                op_id: OP,
                account: ALICE,
                name: "téléphone".into(),
                digest: [9; 32],
                scopes: 1,
            },
        ),
        (
            "app-password-remove",
            Op::AppPasswordRemove {
                op_id: OP,
                account: ALICE,
                name: "téléphone".into(),
            },
        ),
        (
            "sharing-add",
            Op::SharingAdd {
                owner: ALICE,
                guest: BOB,
                mark: OP,
            },
        ),
        (
            "sharing-remove",
            Op::SharingRemove {
                owner: ALICE,
                guest: BOB,
                mark: OP,
            },
        ),
    ];
    for (name, op) in commands {
        let command = Command { time_ms: TIME_MS, op };
        check("directory", &format!("command-{name}"), command);
    }
}

fn change() -> LayoutChange {
    LayoutChange {
        goal: Some(Goal::Region),
        replicas: Some(5),
        rebuild_after_ms: None,
        roles: vec![RoleChange {
            node: NodeId(300),
            weight: Some(2),
            region: None,
            zone: Some("b".into()),
        }],
    }
}

fn task() -> Task {
    Task {
        id: 300,
        shard: ShardId(7),
        join: Some(NodeId(4)),
        leave: Some(NodeId(300)),
        reason: Reason::Weight,
        bytes: 1 << 40,
        step: TaskStep::CaughtUp,
        note: "bodies through 7 of 9".into(),
        started_ms: TIME_MS,
        changed_ms: TIME_MS + 1,
    }
}

#[test]
fn rows_of_growth_keep_their_bytes() {
    let layout = Layout {
        version: 3,
        goal: Goal::Zone,
        replicas: 3,
        rebuild_after_ms: 600_000,
        weights: vec![(NodeId(1), 1), (NodeId(300), 2)],
    };
    check("directory", "layout", LayoutRow(layout));
    let staged = Staged {
        version: 4,
        change: change(),
    };
    check("directory", "staged", StagedRow(staged));
    let applied = Applied {
        version: 4,
        time_ms: TIME_MS,
        by: "operator alice".into(),
        change: change(),
    };
    check("directory", "applied", AppliedRow(applied));
    let standings = [
        Standing::Active,
        Standing::Draining,
        Standing::Leaving,
        Standing::Dead,
        Standing::Removed,
    ];
    for standing in standings {
        let row = StandingRow(NodeState {
            standing,
            since_ms: TIME_MS,
            silent_since_ms: Some(TIME_MS),
        });
        check("directory", &format!("standing-{}", standing.as_str()), row);
    }
    check("directory", "task", TaskRow(task()));
    let row = GrowthRow {
        layout_version: 4,
        last_task: 300,
    };
    check("directory", "growth", row);
}

#[test]
fn commands_of_growth_keep_their_bytes() {
    let commands = [
        ("layout-stage", Op::LayoutStage { change: change() }),
        (
            "layout-apply",
            Op::LayoutApply {
                version: 4,
                by: "operator alice".into(),
                break_goal: Some(Goal::Zone),
            },
        ),
        ("layout-revert", Op::LayoutRevert),
        (
            "node-stand",
            Op::NodeStand {
                node: NodeId(300),
                standing: Standing::Leaving,
                break_goal: None,
            },
        ),
        (
            "node-silence",
            Op::NodeSilence {
                node: NodeId(300),
                silent: true,
            },
        ),
        (
            "task-start",
            Op::TaskStart {
                shard: ShardId(7),
                epoch: 9,
                join: Some(NodeId(4)),
                leave: None,
                reason: Reason::Dead,
                bytes: 1 << 40,
            },
        ),
        (
            "task-advance",
            Op::TaskAdvance {
                task: 300,
                step: TaskStep::Switched,
                note: "why".into(),
            },
        ),
    ];
    for (name, op) in commands {
        let command = Command { time_ms: TIME_MS, op };
        check("directory", &format!("command-{name}"), command);
    }
    let reasons = [
        Reason::Dead,
        Reason::Leaving,
        Reason::Count,
        Reason::Goal,
        Reason::Spread,
        Reason::Weight,
    ];
    for reason in reasons {
        let row = TaskRow(Task { reason, ..task() });
        check("directory", &format!("task-for-{}", reason.as_str()), row);
    }
    let steps = [
        TaskStep::Planned,
        TaskStep::Joined,
        TaskStep::CaughtUp,
        TaskStep::Switched,
        TaskStep::Done,
        TaskStep::Cancelling,
        TaskStep::Cancelled,
    ];
    for step in steps {
        let row = TaskRow(Task { step, ..task() });
        check("directory", &format!("task-{}", step.as_str().replace(' ', "-")), row);
    }
}

#[test]
fn outcomes_keep_their_bytes() {
    let account = Outcome::Account {
        account: ALICE,
        repeated: true,
    };
    check("directory", "outcome-done", Outcome::Done);
    check("directory", "outcome-account", account);
    let refusals = [
        ("initialised", Refusal::Initialised),
        ("not-initialised", Refusal::NotInitialised),
        ("no-account", Refusal::NoAccount),
        ("address-taken", Refusal::AddressTaken(address())),
        ("no-address", Refusal::NoAddress(address())),
        ("bad-address", Refusal::BadAddress("@".into())),
        ("primary-address", Refusal::PrimaryAddress(address())),
        ("no-node", Refusal::NoNode(NodeId(300))),
        ("address-rests", Refusal::AddressRests(address())),
        ("node-in-use", Refusal::NodeInUse(NodeId(300), ShardId(7))),
        ("no-shard", Refusal::NoShard),
        ("epoch", Refusal::Epoch(9)),
        ("limit", Refusal::Limit("200 addresses".into())),
        ("account-exists", Refusal::AccountExists(ALICE)),
        ("op-id-reused", Refusal::OpIdReused(OP)),
        ("invalid", Refusal::Invalid("why".into())),
        ("app-password-exists", Refusal::AppPasswordExists("x".into())),
        ("no-app-password", Refusal::NoAppPassword("x".into())),
        ("layout-version", Refusal::LayoutVersion(4)),
        ("nothing-staged", Refusal::NothingStaged(3)),
        ("unsafe", Refusal::Unsafe("why".into())),
        ("task-running", Refusal::TaskRunning(300)),
        ("no-task", Refusal::NoTask(300)),
        ("task-step", Refusal::TaskStep(300, "done".into())),
    ];
    for (name, refusal) in refusals {
        check("directory", &format!("refused-{name}"), Outcome::Refused(refusal));
    }
}
