//! Plays `scripts/directory`. `UPDATE_SCRIPTS=1` takes the answers over.
//!
//! Accounts have names of at most 16 letters, op ids too (`op=c1`). A node is `1/nord/a`, a shard `1/nord/1.2.3`. A password is what
//! follows the parameters in its PHC string; `raw:` gives the whole string. Time stands still until `clock +MS`, and is shown as
//! milliseconds after the start.

#![allow(
    clippy::unwrap_used,
    reason = "a question that the machine cannot answer is a failed test"
)]

mod script_format;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use malle_machine::directory::read::{self, Account};
use malle_machine::directory::{
    AccountState, Command, LayoutChange, Node, Op, Outcome, RoleChange, Shard, Standing, TaskStep, TokenKey, apply,
};
use malle_machine::planner::{Goal, Reason};
use malle_machine::{MemoryView, Writes};
use malle_proto::{AccountId, ClusterId, NodeId, OpId, ShardId};
use script_format::{Line, Player};

/// 2026-01-01T00:00:00Z.
const START_MS: u64 = 1_767_225_600_000;
const HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$";

#[test]
fn every_story_of_the_directory_is_told_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/directory");
    script_format::run_folder(&folder, 20, DirectoryPlayer::default);
}

struct DirectoryPlayer {
    view: MemoryView,
    now_ms: u64,
    /// So that an account is shown by the name that a script gave to it.
    names: BTreeMap<AccountId, String>,
}

impl Default for DirectoryPlayer {
    fn default() -> Self {
        DirectoryPlayer {
            view: MemoryView::default(),
            now_ms: START_MS,
            names: BTreeMap::new(),
        }
    }
}

type Told<T> = Result<T, String>;

fn number<T: std::str::FromStr>(text: &str) -> Told<T> {
    text.parse().map_err(|_| format!("{text} is no number"))
}

fn sixteen(text: &str) -> Told<[u8; 16]> {
    let mut bytes = [0; 16];
    let room = bytes
        .get_mut(..text.len())
        .ok_or_else(|| format!("{text} is longer than 16"))?;
    room.copy_from_slice(text.as_bytes());
    Ok(bytes)
}

fn parts(text: &str) -> Told<[&str; 3]> {
    let parts: Vec<&str> = text.split('/').collect();
    parts.try_into().map_err(|_| format!("{text} has not three parts"))
}

fn node(text: &str) -> Told<Node> {
    let [id, region, zone] = parts(text)?;
    Ok(Node {
        id: NodeId(number(id)?),
        region: region.into(),
        zone: zone.into(),
        client_address: format!("{region}:7420"),
        peer_address: format!("{region}:7421"),
        retired: false,
    })
}

fn replicas(text: &str) -> Told<Vec<NodeId>> {
    text.split('.').map(|id| number(id).map(NodeId)).collect()
}

fn shard(text: &str) -> Told<Shard> {
    let [id, region, voters] = parts(text)?;
    Ok(Shard {
        id: ShardId(number(id)?),
        replicas: replicas(voters)?,
        home_region: region.into(),
        epoch: 1,
    })
}

fn list<T>(text: &str, one: impl Fn(&str) -> Told<T>) -> Told<Vec<T>> {
    text.split(',').map(one).collect()
}

fn state(text: &str) -> Told<AccountState> {
    match text {
        "active" => Ok(AccountState::Active),
        "suspended" => Ok(AccountState::Suspended),
        other => Err(format!("no state {other}")),
    }
}

fn op_id(line: &mut Line) -> Told<OpId> {
    line.named("op").and_then(|text| sixteen(&text)).map(OpId)
}

fn mark(line: &mut Line) -> Told<OpId> {
    line.named("mark").and_then(|text| sixteen(&text)).map(OpId)
}

fn shard_id(line: &mut Line) -> Told<ShardId> {
    line.word("a shard").and_then(|text| number(&text)).map(ShardId)
}

fn password_hash(line: &mut Line) -> Option<String> {
    line.optional("password").map(|text| match text.strip_prefix("raw:") {
        Some(raw) => raw.to_owned(),
        None => format!("{HASH}{text}"),
    })
}

fn goal(text: &str) -> Told<Goal> {
    match text {
        "node" => Ok(Goal::Node),
        "zone" => Ok(Goal::Zone),
        "region" => Ok(Goal::Region),
        other => Err(format!("no goal {other}")),
    }
}

fn standing(text: &str) -> Told<Standing> {
    let all = [
        Standing::Active,
        Standing::Draining,
        Standing::Leaving,
        Standing::Dead,
        Standing::Removed,
    ];
    let found = all.into_iter().find(|standing| standing.as_str() == text);
    found.ok_or_else(|| format!("no standing {text}"))
}

fn step(text: &str) -> Told<TaskStep> {
    let all = [
        TaskStep::Planned,
        TaskStep::Joined,
        TaskStep::CaughtUp,
        TaskStep::Switched,
        TaskStep::Done,
        TaskStep::Cancelling,
        TaskStep::Cancelled,
    ];
    let found = all.into_iter().find(|step| step.as_str().replace(' ', "-") == text);
    found.ok_or_else(|| format!("no step {text}"))
}

/// A role is `4=2` (a weight) or `4@nord/b` (a place).
fn role(text: &str) -> Told<RoleChange> {
    let (node, weight, place) = match (text.split_once('='), text.split_once('@')) {
        (Some((node, weight)), None) => (node, Some(number(weight)?), None),
        (None, Some((node, place))) => (node, None, place.split_once('/')),
        _ => return Err(format!("{text} is no role")),
    };
    Ok(RoleChange {
        node: NodeId(number(node)?),
        weight,
        region: place.map(|(region, _)| region.to_owned()),
        zone: place.map(|(_, zone)| zone.to_owned()),
    })
}

/// Commands about layouts, standings and tasks.
fn growth_op(verb: &str, line: &mut Line) -> Told<Option<Op>> {
    let break_goal = |line: &mut Line| line.optional("break").map(|text| goal(&text)).transpose();
    Ok(Some(match verb {
        "stage" => Op::LayoutStage {
            change: LayoutChange {
                goal: line.optional("goal").map(|text| goal(&text)).transpose()?,
                replicas: line.optional_number("replicas")?,
                rebuild_after_ms: line.optional_number("rebuild")?,
                roles: match line.optional("roles") {
                    Some(roles) => list(&roles, role)?,
                    None => Vec::new(),
                },
            },
        },
        "apply" => Op::LayoutApply {
            version: number(&line.word("a version")?)?,
            by: "alice".into(),
            break_goal: break_goal(line)?,
        },
        "revert" => Op::LayoutRevert,
        "stand" => Op::NodeStand {
            node: NodeId(number(&line.word("a node")?)?),
            standing: standing(&line.word("a standing")?)?,
            break_goal: break_goal(line)?,
        },
        "silence" => Op::NodeSilence {
            node: NodeId(number(&line.word("a node")?)?),
            silent: line.optional_word().as_deref() != Some("over"),
        },
        "move" => Op::TaskStart {
            shard: shard_id(line)?,
            epoch: number(&line.named("epoch")?)?,
            join: line.optional_number("join")?.map(NodeId),
            leave: line.optional_number("leave")?.map(NodeId),
            reason: Reason::Weight,
            bytes: 7,
        },
        "task" => Op::TaskAdvance {
            task: number(&line.word("a task")?)?,
            step: step(&line.word("a step")?)?,
            note: line.optional("note").unwrap_or_default(),
        },
        _ => return Ok(None),
    }))
}

/// Questions about layouts, standings and tasks.
fn ask_growth(view: &MemoryView, verb: &str) -> Option<String> {
    let mut out = String::new();
    match verb {
        "layout" => {
            let layout = read::layout(view).unwrap();
            let weights: Vec<String> = layout
                .weights
                .iter()
                .map(|(node, weight)| format!("{node}={weight}"))
                .collect();
            let (version, goal, replicas) = (layout.version, layout.goal, layout.replicas);
            let weights = weights.join(",");
            out = format!("version {version} goal={goal} replicas={replicas} {weights}");
        }
        "staged" => {
            out = read::staged(view).unwrap().map_or("nothing".into(), |staged| {
                let nodes: Vec<String> = staged.change.roles.iter().map(|role| role.node.to_string()).collect();
                format!("version {} about nodes {}", staged.version, nodes.join(","))
            })
        }
        "layouts" => {
            for applied in read::layout_history(view).unwrap() {
                let since = applied.time_ms - START_MS;
                writeln!(out, "+{since} version {} by {}", applied.version, applied.by).unwrap();
            }
        }
        "standings" => {
            for (node, state) in read::node_states(view).unwrap() {
                let silent = state
                    .silent_since_ms
                    .map_or(String::new(), |at| format!(" silent=+{}", at - START_MS));
                let (standing, since) = (state.standing.as_str(), state.since_ms.saturating_sub(START_MS));
                writeln!(out, "node {node} {standing} since=+{since}{silent}").unwrap();
            }
        }
        "tasks" => {
            for task in read::tasks(view).unwrap() {
                let node = |node: Option<NodeId>| node.map_or("-".into(), |node| node.to_string());
                let (id, shard, step, note) = (task.id, task.shard, task.step.as_str(), task.note);
                let (join, leave) = (node(task.join), node(task.leave));
                writeln!(out, "task {id} shard {shard} {leave}->{join} {step} {note}").unwrap();
            }
        }
        _ => return None,
    }
    Some(out)
}

impl Player for DirectoryPlayer {
    fn play(&mut self, line: &mut Line) -> Told<String> {
        let verb = line.word("a command")?;
        match self.op(&verb, line)? {
            Some(op) => self.apply(op),
            None => self.ask(&verb, line),
        }
    }
}

impl DirectoryPlayer {
    fn account(&mut self, line: &mut Line) -> Told<AccountId> {
        let name = line.word("an account")?;
        let id = AccountId(sixteen(&name)?);
        self.names.insert(id, name);
        Ok(id)
    }

    fn name(&self, id: AccountId) -> &str {
        self.names.get(&id).map_or("?", String::as_str)
    }

    /// The command that a line stands for; `None` when it is a question.
    fn op(&mut self, verb: &str, line: &mut Line) -> Told<Option<Op>> {
        Ok(Some(match verb {
            "init" => Op::Init {
                cluster: ClusterId(sixteen(&line.named("cluster")?)?),
                name: line.optional("name").unwrap_or("demo".into()),
                nodes: list(&line.named("nodes")?, node)?,
                shards: list(&line.named("shards")?, shard)?,
                token_key: TokenKey { id: 1, secret: [1; 32] },
            },
            "node-set" => Op::NodeSet {
                node: node(&line.word("a node")?)?,
            },
            "node-retire" => Op::NodeRetire {
                node: NodeId(number(&line.word("a node")?)?),
            },
            "shard-set" => Op::ShardSet {
                shard: shard_id(line)?,
                replicas: replicas(&line.named("replicas")?)?,
                epoch: number(&line.named("epoch")?)?,
            },
            "token-key" => Op::TokenKeyAdd {
                key: TokenKey {
                    id: number(&line.word("a key")?)?,
                    secret: [line.optional_number("secret")?.unwrap_or(1); 32],
                },
            },
            "create" => Op::AccountCreate {
                op_id: op_id(line)?,
                account: self.account(line)?,
                address: line.word("an address")?,
                password_hash: password_hash(line),
                quota_bytes: line.optional_number("quota")?.unwrap_or(1000),
                shard: line.optional_number("shard")?.map(ShardId),
                region: line.optional("region"),
            },
            "set" => Op::AccountSet {
                op_id: op_id(line)?,
                account: self.account(line)?,
                password_hash: password_hash(line),
                state: line.optional("state").map(|text| state(&text)).transpose()?,
                quota_bytes: line.optional_number("quota")?,
            },
            "address-add" => Op::AddressAdd {
                op_id: op_id(line)?,
                account: self.account(line)?,
                address: line.word("an address")?,
                primary: match line.optional_word().as_deref() {
                    None => false,
                    Some("primary") => true,
                    Some(other) => return Err(format!("{other} is not primary")),
                },
            },
            "address-remove" => Op::AddressRemove {
                op_id: op_id(line)?,
                account: self.account(line)?,
                address: line.word("an address")?,
            },
            other => return self.op_of_account(other, line),
        }))
    }

    /// The same for what hangs on an account.
    fn op_of_account(&mut self, verb: &str, line: &mut Line) -> Told<Option<Op>> {
        Ok(Some(match verb {
            "app-password-add" => Op::AppPasswordAdd {
                op_id: op_id(line)?,
                account: self.account(line)?,
                name: line.word("a name")?,
                scopes: line.optional_number("scopes")?.unwrap_or(3),
                digest: [7; 32],
            },
            "app-password-remove" => Op::AppPasswordRemove {
                op_id: op_id(line)?,
                account: self.account(line)?,
                name: line.word("a name")?,
            },
            "sharing-add" => Op::SharingAdd {
                owner: self.account(line)?,
                guest: self.account(line)?,
                mark: mark(line)?,
            },
            "sharing-remove" => Op::SharingRemove {
                owner: self.account(line)?,
                guest: self.account(line)?,
                mark: mark(line)?,
            },
            _ => return growth_op(verb, line),
        }))
    }

    fn apply(&mut self, op: Op) -> Told<String> {
        let command = Command {
            time_ms: self.now_ms,
            op,
        };
        let (outcome, writes) = apply(&self.view, &command).map_err(|fault| fault.to_string())?;
        self.view.commit(&writes);
        Ok(match outcome {
            Outcome::Done => "done".into(),
            Outcome::Account { account, repeated } => {
                let receipt = if repeated { " (receipt)" } else { "" };
                format!("account {}{receipt}", self.name(account))
            }
            Outcome::Refused(refusal) => {
                assert_eq!(writes, Writes::default(), "a refusal writes nothing");
                format!("refused: {refusal}")
            }
        })
    }

    fn shown(&self, account: &Account) -> String {
        format!(
            "{} shard={} epoch={} {:?} quota={} created=+{} primary={}",
            self.name(account.id),
            account.shard,
            account.placement_epoch,
            account.state,
            account.quota_bytes,
            account.created_ms - START_MS,
            account.primary_address,
        )
    }

    /// Questions about the cluster, and the clock; else about accounts.
    fn ask(&mut self, verb: &str, line: &mut Line) -> Told<String> {
        let view = &self.view;
        let mut out = String::new();
        match verb {
            "clock" => {
                let step: i64 = number(&line.word("milliseconds")?)?;
                self.now_ms = self.now_ms.checked_add_signed(step).ok_or("before 1970")?;
            }
            "time" => out = format!("+{}", read::time_ms(view).unwrap() - START_MS),
            "cluster" => {
                out = read::cluster(view)
                    .unwrap()
                    .map_or("none".into(), |cluster| cluster.name)
            }
            "nodes" => {
                for node in read::nodes(view).unwrap() {
                    let retired = if node.retired { " retired" } else { "" };
                    writeln!(out, "node {} {}/{}{retired}", node.id, node.region, node.zone).unwrap();
                }
            }
            "shards" => {
                for (shard, accounts) in read::shards(view).unwrap() {
                    let replicas: Vec<String> = shard.replicas.iter().map(NodeId::to_string).collect();
                    let (id, region, epoch) = (shard.id, shard.home_region, shard.epoch);
                    let replicas = replicas.join(".");
                    writeln!(out, "shard {id} {region} {replicas} epoch={epoch} accounts={accounts}").unwrap();
                }
            }
            "keys" => {
                for key in read::token_keys(view).unwrap() {
                    writeln!(out, "key {} secret={}", key.id, key.secret[0]).unwrap();
                }
            }
            "domain" => out = read::only_domain(view).unwrap().unwrap_or("none".into()),
            _ => match ask_growth(view, verb) {
                Some(told) => out = told,
                None => out = self.ask_account(verb, line)?,
            },
        }
        Ok(out)
    }

    fn ask_account(&mut self, verb: &str, line: &mut Line) -> Told<String> {
        let mut out = String::new();
        match verb {
            "show" => {
                let id = self.account(line)?;
                let Some(account) = read::account(&self.view, id).unwrap() else {
                    return Ok("nobody".into());
                };
                writeln!(out, "{}", self.shown(&account)).unwrap();
                for address in read::addresses(&self.view, id).unwrap() {
                    let primary = if address.primary { " primary" } else { "" };
                    let since = address.since_ms - START_MS;
                    writeln!(out, "  {}{primary} since=+{since}", address.address).unwrap();
                }
            }
            "history" => {
                let id = self.account(line)?;
                for event in read::history(&self.view, id).unwrap() {
                    writeln!(out, "+{} {} {}", event.time_ms - START_MS, event.address, event.event).unwrap();
                }
            }
            "password" => {
                let id = self.account(line)?;
                out = read::password_hash(&self.view, id).unwrap().unwrap_or("none".into());
            }
            "app-passwords" => {
                let id = self.account(line)?;
                for password in read::app_passwords(&self.view, id).unwrap() {
                    let since = password.created_ms - START_MS;
                    writeln!(out, "{} scopes={} since=+{since}", password.name, password.scopes).unwrap();
                }
            }
            "sharers" => {
                let guest = self.account(line)?;
                for owner in read::sharers(&self.view, guest).unwrap() {
                    let mark = read::sharing(&self.view, owner.id, guest).unwrap().unwrap();
                    writeln!(out, "{} mark={}", owner.primary_address, char::from(mark.0[0])).unwrap();
                }
            }
            "resolve" => {
                let found = read::by_address(&self.view, &line.word("an address")?).unwrap();
                out = found.map_or("nobody".into(), |account| self.shown(&account));
            }
            "grants" => {
                let shard = shard_id(line)?;
                let after = line.optional_number("after")?.unwrap_or(0);
                let max = line.optional_number("max")?.unwrap_or(100);
                for grant in read::grants(&self.view, shard, after, max).unwrap() {
                    writeln!(out, "{} {}", grant.sequence, self.shown(&grant.account)).unwrap();
                }
            }
            other => return Err(format!("no command {other}")),
        }
        Ok(out)
    }
}
