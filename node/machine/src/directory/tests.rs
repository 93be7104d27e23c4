//! Random commands against a model that is as simple as it can be: maps, no indexes, no counters.

use std::collections::{BTreeMap, BTreeSet};

use malle_proto::{AccountId, ClusterId, NodeId, OpId, ShardId, limits};
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};

use super::rows::{self, Tag};
use super::{AccountState, Command, Node, Op, Outcome, Refusal, Shard, TokenKey, apply, read};
use crate::view::{Fault, MemoryView, View as _};

const START_MS: u64 = 1_767_225_600_000;
const SHARDS: u32 = 3;

fn node(id: u64) -> Node {
    Node {
        id: NodeId(id),
        region: format!("region{id}"),
        zone: "a".into(),
        client_address: "host:7420".into(),
        peer_address: "host:7421".into(),
        retired: false,
    }
}

fn init() -> Op {
    Op::Init {
        cluster: ClusterId([1; 16]),
        name: "demo".into(),
        nodes: (1..=3).map(node).collect(),
        shards: (1..=SHARDS)
            .map(|id| Shard {
                id: ShardId(id),
                replicas: vec![NodeId(1), NodeId(2), NodeId(3)],
                home_region: format!("region{id}"),
                epoch: 1,
            })
            .collect(),
        token_key: TokenKey { id: 1, secret: [7; 32] },
    }
}

fn account_id(n: u8) -> AccountId {
    AccountId([n; 16])
}

/// Few accounts, addresses and op ids, so that commands meet each other.
fn ops() -> impl Strategy<Value = Op> {
    let account = (1..6u8).prop_map(account_id);
    let op_id = (0..40u8).prop_map(|n| OpId([n; 16]));
    let address = (0..8u8, 0..3u8).prop_map(|(local, domain)| format!("a{local}@d{domain}.example"));
    let hash = prop_oneof![Just(None), (0..3u8).prop_map(|n| Some(format!("$argon2id${n}")))];
    prop_oneof![
        (
            op_id.clone(),
            account.clone(),
            address.clone(),
            hash.clone(),
            0..5u64,
            prop_oneof![Just(None), (0..=SHARDS + 1).prop_map(|id| Some(ShardId(id)))],
            prop_oneof![Just(None), (0..=SHARDS).prop_map(|id| Some(format!("region{id}")))],
        )
            .prop_map(|(op_id, account, address, password_hash, quota_bytes, shard, region)| {
                Op::AccountCreate {
                    op_id,
                    account,
                    address,
                    password_hash,
                    quota_bytes,
                    shard,
                    region,
                }
            }),
        (
            op_id.clone(),
            account.clone(),
            hash,
            prop_oneof![
                Just(None),
                Just(Some(AccountState::Active)),
                Just(Some(AccountState::Suspended))
            ],
            prop_oneof![Just(None), (0..5u64).prop_map(Some)],
        )
            .prop_map(|(op_id, account, password_hash, state, quota_bytes)| Op::AccountSet {
                op_id,
                account,
                password_hash,
                state,
                quota_bytes,
            }),
        (op_id.clone(), account.clone(), address.clone(), any::<bool>()).prop_map(
            |(op_id, account, address, primary)| Op::AddressAdd {
                op_id,
                account,
                address,
                primary,
            }
        ),
        (op_id, account, address).prop_map(|(op_id, account, address)| Op::AddressRemove {
            op_id,
            account,
            address,
        }),
    ]
}

#[derive(Debug, Clone, PartialEq)]
struct ModelAccount {
    shard: ShardId,
    state: AccountState,
    quota_bytes: u64,
    password_hash: Option<String>,
    addresses: BTreeSet<String>,
    primary: String,
    events: Vec<(String, &'static str)>,
}

#[derive(Debug, Default)]
struct Model {
    accounts: BTreeMap<AccountId, ModelAccount>,
    receipts: BTreeMap<(AccountId, OpId), (u8, AccountId)>,
    /// Accounts of a shard in the order in which the shard must hear of them.
    grants: BTreeMap<ShardId, Vec<AccountId>>,
    /// Whose an address was that is nobody's now.
    former: BTreeMap<String, AccountId>,
}

impl Model {
    fn owner(&self, address: &str) -> Option<AccountId> {
        let has = |account: &ModelAccount| account.addresses.contains(address);
        self.accounts
            .iter()
            .find(|(_, account)| has(account))
            .map(|(id, _)| *id)
    }

    fn rests(&self, address: &str, account: AccountId) -> Result<(), Refusal> {
        match self.former.get(address) {
            Some(former) if *former != account => Err(Refusal::AddressRests(address.to_owned())),
            _ => Ok(()),
        }
    }

    fn count(&self, shard: u32) -> usize {
        self.accounts
            .values()
            .filter(|account| account.shard == ShardId(shard))
            .count()
    }

    fn apply(&mut self, op: &Op) -> Outcome {
        let (scope, op_id, kind) = match op {
            Op::AccountCreate { op_id, .. } => (account_id(0), *op_id, 0),
            Op::AccountSet { op_id, account, .. } => (*account, *op_id, 1),
            Op::AddressAdd { op_id, account, .. } => (*account, *op_id, 2),
            Op::AddressRemove { op_id, account, .. } => (*account, *op_id, 3),
            other => panic!("not in the model: {other:?}"),
        };
        match self.receipts.get(&(scope, op_id)) {
            Some((before, account)) if *before == kind => {
                return Outcome::Account {
                    account: *account,
                    repeated: true,
                };
            }
            Some(_) => return Outcome::Refused(Refusal::OpIdReused(op_id)),
            None => {}
        }
        match self.change(op) {
            Ok(account) => {
                self.receipts.insert((scope, op_id), (kind, account));
                Outcome::Account {
                    account,
                    repeated: false,
                }
            }
            Err(refusal) => Outcome::Refused(refusal),
        }
    }

    fn change(&mut self, op: &Op) -> Result<AccountId, Refusal> {
        match op {
            Op::AccountCreate {
                account,
                address,
                password_hash,
                quota_bytes,
                shard,
                region,
                ..
            } => {
                if self.owner(address).is_some() {
                    return Err(Refusal::AddressTaken(address.clone()));
                }
                self.rests(address, *account)?;
                if self.accounts.contains_key(account) {
                    return Err(Refusal::AccountExists(*account));
                }
                let fits = |id: &u32| match (shard, region) {
                    (Some(shard), _) => shard.0 == *id,
                    (None, Some(region)) => *region == format!("region{id}"),
                    (None, None) => true,
                };
                let chosen = (1..=SHARDS).filter(fits).min_by_key(|id| (self.count(*id), *id));
                let shard = ShardId(chosen.ok_or(Refusal::NoShard)?);
                self.grants.entry(shard).or_default().push(*account);
                let new = ModelAccount {
                    shard,
                    state: AccountState::Active,
                    quota_bytes: *quota_bytes,
                    password_hash: password_hash.clone(),
                    addresses: BTreeSet::from([address.clone()]),
                    primary: address.clone(),
                    events: vec![(address.clone(), "added"), (address.clone(), "made primary")],
                };
                self.accounts.insert(*account, new);
                self.former.remove(address);
                Ok(*account)
            }
            Op::AccountSet {
                account,
                password_hash,
                state,
                quota_bytes,
                ..
            } => {
                let row = self.accounts.get_mut(account).ok_or(Refusal::NoAccount)?;
                let before = row.clone();
                row.state = state.unwrap_or(row.state);
                row.quota_bytes = quota_bytes.unwrap_or(row.quota_bytes);
                if *row != before {
                    let order = self.grants.get_mut(&row.shard).unwrap();
                    order.retain(|id| id != account);
                    order.push(*account);
                }
                row.password_hash = password_hash.clone().or(row.password_hash.take());
                Ok(*account)
            }
            Op::AddressAdd {
                account,
                address,
                primary,
                ..
            } => {
                let owner = self.owner(address);
                let rests = self.rests(address, *account);
                let row = self.accounts.get_mut(account).ok_or(Refusal::NoAccount)?;
                match owner {
                    Some(owner) if owner != *account => return Err(Refusal::AddressTaken(address.clone())),
                    Some(_) => {}
                    None => rests?,
                }
                self.former.remove(address);
                if row.addresses.insert(address.clone()) {
                    row.events.push((address.clone(), "added"));
                }
                if *primary && row.primary != *address {
                    row.primary = address.clone();
                    row.events.push((address.clone(), "made primary"));
                }
                Ok(*account)
            }
            Op::AddressRemove { account, address, .. } => {
                let row = self.accounts.get_mut(account).ok_or(Refusal::NoAccount)?;
                if !row.addresses.contains(address) {
                    return Err(Refusal::NoAddress(address.clone()));
                }
                if row.primary == *address {
                    return Err(Refusal::PrimaryAddress(address.clone()));
                }
                row.addresses.remove(address);
                row.events.push((address.clone(), "removed"));
                self.former.insert(address.clone(), *account);
                Ok(*account)
            }
            other => panic!("not in the model: {other:?}"),
        }
    }

    /// Everything that can be read says what the model says.
    fn compare(&self, view: &MemoryView) -> Result<(), proptest::test_runner::TestCaseError> {
        let mut domains = BTreeSet::new();
        for (id, expected) in &self.accounts {
            let account = read::account(view, *id).unwrap().unwrap();
            prop_assert_eq!(account.shard, expected.shard);
            prop_assert_eq!(account.state, expected.state);
            prop_assert_eq!(account.quota_bytes, expected.quota_bytes);
            prop_assert_eq!(&account.primary_address, &expected.primary);
            prop_assert_eq!(&read::password_hash(view, *id).unwrap(), &expected.password_hash);
            let addresses = read::addresses(view, *id).unwrap();
            prop_assert_eq!(&addresses[0].address, &expected.primary);
            prop_assert_eq!(addresses.iter().filter(|address| address.primary).count(), 1);
            let found: BTreeSet<String> = addresses.into_iter().map(|address| address.address).collect();
            prop_assert_eq!(&found, &expected.addresses);
            let events = read::history(view, *id).unwrap();
            let events: Vec<(String, &str)> = events.iter().map(|e| (e.address.clone(), e.event.as_str())).collect();
            prop_assert_eq!(&events, &expected.events);
            for address in &expected.addresses {
                prop_assert_eq!(
                    read::by_address(view, address).unwrap().map(|found| found.id),
                    Some(*id)
                );
                domains.insert(address.split_once('@').unwrap().1.to_owned());
            }
        }
        let only = if domains.len() == 1 { domains.pop_first() } else { None };
        prop_assert_eq!(read::only_domain(view).unwrap(), only);
        for (shard, accounts) in read::shards(view).unwrap() {
            prop_assert_eq!(accounts as usize, self.count(shard.id.0));
            let grants = read::grants(view, shard.id, 0, usize::MAX).unwrap();
            let order: Vec<AccountId> = grants.iter().map(|grant| grant.account.id).collect();
            prop_assert_eq!(order, self.grants.get(&shard.id).cloned().unwrap_or_default());
        }
        let owned: usize = self.accounts.values().map(|account| account.addresses.len()).sum();
        prop_assert_eq!(count(view, Tag::Address), owned);
        prop_assert_eq!(count(view, Tag::OwnAddress), owned);
        prop_assert_eq!(count(view, Tag::Former), self.former.len());
        prop_assert_eq!(count(view, Tag::FormerOrder), self.former.len());
        prop_assert_eq!(count(view, Tag::Receipt), self.receipts.len());
        prop_assert_eq!(count(view, Tag::ReceiptOrder), self.receipts.len());
        Ok(())
    }
}

fn count(view: &MemoryView, tag: Tag) -> usize {
    let from = rows::first(tag);
    view.rows.range(from.clone()..rows::behind(from)).count()
}

fn started() -> MemoryView {
    let mut view = MemoryView::default();
    assert_eq!(commit(&mut view, START_MS, init()), Outcome::Done);
    view
}

fn commit(view: &mut MemoryView, time_ms: u64, op: Op) -> Outcome {
    let (outcome, writes) = apply(view, &Command { time_ms, op }).unwrap();
    view.commit(&writes);
    outcome
}

proptest! {
    #[test]
    fn the_machine_answers_as_the_model_and_a_repeat_changes_nothing(
        steps in proptest::collection::vec((ops(), 0..1000u64), 1..60),
    ) {
        let mut view = started();
        let mut model = Model::default();
        // Less than a receipt's life in all: the model forgets none.
        let mut time_ms = START_MS;
        for (op, pause_ms) in steps {
            time_ms += pause_ms;
            let command = Command { time_ms, op };
            let (outcome, writes) = apply(&view, &command).unwrap();
            prop_assert_eq!(apply(&view, &command).unwrap(), (outcome.clone(), writes.clone()), "the same view, another answer");
            prop_assert_eq!(&outcome, &model.apply(&command.op));
            view.commit(&writes);
            let once = view.clone();
            let again = commit(&mut view, time_ms, command.op);
            prop_assert_eq!(&view, &once);
            match (outcome, again) {
                (Outcome::Account { account: first, .. }, Outcome::Account { account, repeated }) => {
                    prop_assert_eq!(first, account);
                    prop_assert!(repeated);
                }
                (first, again) => prop_assert_eq!(first, again),
            }
        }
        model.compare(&view)?;
    }
}

fn id_bytes(n: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&n.to_be_bytes());
    bytes
}

fn create(n: u32) -> Op {
    let bytes = id_bytes(n);
    Op::AccountCreate {
        op_id: OpId(bytes),
        account: AccountId(bytes),
        address: format!("a{n}@example.org"),
        password_hash: None,
        quota_bytes: 1,
        shard: None,
        region: None,
    }
}

#[test]
fn receipts_drain_faster_than_they_come() {
    let mut view = started();
    for n in 1..=100 {
        commit(&mut view, START_MS, create(n));
    }
    assert_eq!(count(&view, Tag::Receipt), 100);
    let later_ms = START_MS + limits::INTERACTIVE_RECEIPT_KEPT_MS + 1;
    for n in 101..=113 {
        commit(&mut view, later_ms, create(n));
    }
    assert_eq!(count(&view, Tag::Receipt), 13, "13 commands removed 8 each");
    assert_eq!(count(&view, Tag::ReceiptOrder), 13);
}

#[test]
fn an_account_has_no_more_addresses_than_the_bound() {
    let mut view = started();
    commit(&mut view, START_MS, create(1));
    let Op::AccountCreate { account, .. } = create(1) else {
        unreachable!("create makes an AccountCreate")
    };
    let add = |n: usize| Op::AddressAdd {
        op_id: OpId([n as u8; 16]),
        account,
        address: format!("alias{n}@example.org"),
        primary: false,
    };
    for n in 1..limits::ADDRESSES_PER_ACCOUNT_MAX {
        assert!(matches!(commit(&mut view, START_MS, add(n)), Outcome::Account { .. }));
    }
    let one_more = commit(&mut view, START_MS, add(limits::ADDRESSES_PER_ACCOUNT_MAX));
    assert!(matches!(one_more, Outcome::Refused(Refusal::Limit(_))), "{one_more:?}");
}

/// Two accounts; the first had `alias@example.org` until [`START_MS`].
fn with_a_former_address() -> MemoryView {
    let mut view = started();
    commit(&mut view, START_MS, create(1));
    commit(&mut view, START_MS, create(2));
    assert!(matches!(
        commit(&mut view, START_MS, add_alias(1, 1)),
        Outcome::Account { .. }
    ));
    let remove = Op::AddressRemove {
        op_id: OpId([2; 16]),
        account: AccountId(id_bytes(1)),
        address: "alias@example.org".into(),
    };
    assert!(matches!(commit(&mut view, START_MS, remove), Outcome::Account { .. }));
    view
}

fn add_alias(op: u8, n: u32) -> Op {
    Op::AddressAdd {
        op_id: OpId([op; 16]),
        account: AccountId(id_bytes(n)),
        address: "alias@example.org".into(),
        primary: false,
    }
}

#[test]
fn a_removed_address_goes_to_nobody_else_before_it_has_rested() {
    let mut view = with_a_former_address();
    let rests = Outcome::Refused(Refusal::AddressRests("alias@example.org".into()));
    let rested_ms = START_MS + limits::ADDRESS_RESTS_MS;
    assert_eq!(commit(&mut view, rested_ms - 1, add_alias(3, 2)), rests);
    let create_with_it = Op::AccountCreate {
        op_id: OpId([4; 16]),
        account: AccountId([4; 16]),
        address: "alias@example.org".into(),
        password_hash: None,
        quota_bytes: 1,
        shard: None,
        region: None,
    };
    assert_eq!(commit(&mut view, rested_ms - 1, create_with_it), rests);
    assert!(matches!(
        commit(&mut view, rested_ms, add_alias(5, 2)),
        Outcome::Account { .. }
    ));
    assert_eq!(count(&view, Tag::Former), 0);
    assert_eq!(count(&view, Tag::FormerOrder), 0);
}

#[test]
fn its_former_account_gets_an_address_back_at_once() {
    let mut view = with_a_former_address();
    assert!(matches!(
        commit(&mut view, START_MS, add_alias(3, 1)),
        Outcome::Account { .. }
    ));
    assert_eq!(count(&view, Tag::Former), 0);
    assert_eq!(count(&view, Tag::FormerOrder), 0);
}

#[test]
fn one_clock_that_is_ahead_ends_no_rest() {
    let mut view = with_a_former_address();
    // The machine's own time follows a step at a time; the next proposer's clock is right.
    for n in 10..13 {
        commit(&mut view, START_MS + 100 * limits::CLOCK_STEP_MAX_MS, create(n));
    }
    let rests = Outcome::Refused(Refusal::AddressRests("alias@example.org".into()));
    assert_eq!(commit(&mut view, START_MS + 1000, add_alias(3, 2)), rests);
}

#[test]
fn addresses_that_rested_long_ago_are_forgotten() {
    let mut view = with_a_former_address();
    let due_ms = START_MS + limits::ADDRESS_FORMER_KEPT_MS;
    let steps = limits::ADDRESS_FORMER_KEPT_MS / limits::CLOCK_STEP_MAX_MS;
    for n in 1..steps {
        commit(&mut view, due_ms, create(2 + n as u32));
    }
    assert_eq!(count(&view, Tag::Former), 1);
    commit(&mut view, due_ms, create(2 + steps as u32));
    assert_eq!(count(&view, Tag::Former), 0);
    assert_eq!(count(&view, Tag::FormerOrder), 0);
}

#[test]
fn the_oldest_lines_of_a_history_go_first() {
    let mut view = started();
    commit(&mut view, START_MS, create(1));
    let Op::AccountCreate { account, .. } = create(1) else {
        unreachable!("create makes an AccountCreate")
    };
    for n in 0..limits::ADDRESS_EVENTS_PER_ACCOUNT_MAX {
        let mut op_id = [0xff; 16];
        op_id[..8].copy_from_slice(&n.to_be_bytes());
        let op_id = OpId(op_id);
        let address = "alias@example.org".to_owned();
        let op = if n % 2 == 0 {
            let primary = false;
            Op::AddressAdd {
                op_id,
                account,
                address,
                primary,
            }
        } else {
            Op::AddressRemove {
                op_id,
                account,
                address,
            }
        };
        assert!(matches!(commit(&mut view, START_MS, op), Outcome::Account { .. }));
    }
    let lines = read::history(&view, account).unwrap();
    assert_eq!(lines.len() as u64, limits::ADDRESS_EVENTS_PER_ACCOUNT_MAX);
    assert_eq!(
        lines[0].address, "alias@example.org",
        "the two lines of its making are gone"
    );
}

#[test]
fn a_row_that_does_not_decode_is_a_fault_and_no_answer() {
    let mut view = started();
    commit(&mut view, START_MS, create(1));
    let key = rows::first(Tag::Clock);
    let mut bytes = view.get(&key).unwrap().unwrap().to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    view.rows.insert(key, bytes.into());
    let fault = apply(
        &view,
        &Command {
            time_ms: START_MS,
            op: create(2),
        },
    )
    .unwrap_err();
    assert!(matches!(fault, Fault::Format { what: "clock", .. }), "{fault}");
}

#[test]
fn the_first_key_behind_a_prefix_carries() {
    assert_eq!(rows::behind(vec![1, 0xff, 0xff]), vec![2]);
    assert_eq!(rows::behind(vec![1, 2]), vec![1, 3]);
}
