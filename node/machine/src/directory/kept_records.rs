//! Every kept record of the directory against its golden file.

use malle_proto::{AccountId, ClusterId, NodeId, OpId, ShardId};

use super::rows::{
    AccountRow, AddressRow, AppPasswordRow, ClockRow, ClusterRow, DomainRow, Event, FormerRow, GrantRow, HistoryRow,
    NodeRow, OwnAddressRow, PasswordRow, ReceiptKind, ReceiptOrderRow, ReceiptRow, ShardRow, SharingRow, TokenKeyRow,
};
use super::{AccountState, Command, Node, Op, Outcome, Refusal, Shard, TokenKey};
use crate::golden::check;

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
    ];
    for (name, refusal) in refusals {
        check("directory", &format!("refused-{name}"), Outcome::Refused(refusal));
    }
}
