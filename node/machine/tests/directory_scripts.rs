//! Runs the golden scripts of the directory: each file tells one story, its name is the claim.
//!
//! A script is blocks of commands, `---`, and the expected answers up to an empty line; `#` begins a comment. Time stands still
//! unless a script says `clock +MS`. `UPDATE_SCRIPTS=1` writes the answers down instead of comparing them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use malle_machine::directory::read::{self, Account};
use malle_machine::directory::{AccountState, Command, Node, Op, Outcome, Shard, TokenKey, apply};
use malle_machine::{MemoryView, Writes};
use malle_proto::{AccountId, ClusterId, NodeId, OpId, ShardId};

/// 2026-01-01T00:00:00Z: times are shown as milliseconds after it.
const EPOCH_MS: u64 = 1_767_225_600_000;
const HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$";

#[test]
fn every_directory_script_tells_what_the_machine_answers() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/directory");
    let mut scripts: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    scripts.sort();
    assert!(scripts.len() >= 12, "the scripts are gone from {}", folder.display());
    let update = std::env::var_os("UPDATE_SCRIPTS").is_some();
    for script in scripts {
        let told = std::fs::read_to_string(&script).unwrap();
        let found = replay(&told);
        if update {
            std::fs::write(&script, found).unwrap();
        } else {
            assert_eq!(told, found, "{} (UPDATE_SCRIPTS=1 rewrites it)", script.display());
        }
    }
}

/// The script with the answers of the machine in place of its own.
fn replay(script: &str) -> String {
    let mut world = World::default();
    let mut out = String::new();
    let mut answers = String::new();
    let mut skipping = false;
    for line in script.lines() {
        match line {
            "---" => {
                out.push_str("---\n");
                out.push_str(&std::mem::take(&mut answers));
                skipping = true;
            }
            "" => {
                out.push('\n');
                skipping = false;
            }
            _ if skipping => {}
            _ => {
                out.push_str(line);
                out.push('\n');
                if !line.starts_with('#') {
                    answers.push_str(&world.run(line));
                }
            }
        }
    }
    assert!(answers.is_empty(), "commands without a --- behind them: {answers}");
    out
}

struct World {
    view: MemoryView,
    now_ms: u64,
    /// So that an account is shown by the name that a script gave to it.
    names: BTreeMap<AccountId, String>,
}

impl Default for World {
    fn default() -> Self {
        World {
            view: MemoryView::default(),
            now_ms: EPOCH_MS,
            names: BTreeMap::new(),
        }
    }
}

/// The words of a line: those without `=` in order, the others by name.
struct Words<'l> {
    plain: Vec<&'l str>,
    named: BTreeMap<&'l str, &'l str>,
}

impl<'l> Words<'l> {
    fn of(line: &'l str) -> Self {
        let (named, plain): (Vec<&str>, Vec<&str>) = line.split_whitespace().partition(|word| word.contains('='));
        Words {
            plain,
            named: named.into_iter().map(|word| word.split_once('=').unwrap()).collect(),
        }
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.named.get(name).map(|text| text.parse().unwrap())
    }

    fn text(&self, name: &str) -> Option<String> {
        self.named.get(name).map(|&text| text.to_owned())
    }

    fn op_id(&self) -> OpId {
        OpId(sixteen(self.named["op"]))
    }
}

fn sixteen(text: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    assert!(text.len() <= 16, "names in scripts are short: {text}");
    bytes[..text.len()].copy_from_slice(text.as_bytes());
    bytes
}

/// `1/nord/a`
fn node(text: &str) -> Node {
    let parts: Vec<&str> = text.split('/').collect();
    Node {
        id: NodeId(parts[0].parse().unwrap()),
        region: parts[1].into(),
        zone: parts[2].into(),
        client_address: format!("{}:7420", parts[1]),
        peer_address: format!("{}:7421", parts[1]),
        retired: false,
    }
}

/// `2.3.1`
fn replicas(text: &str) -> Vec<NodeId> {
    text.split('.').map(|id| NodeId(id.parse().unwrap())).collect()
}

/// `1/nord/1.2.3`
fn shard(text: &str) -> Shard {
    let parts: Vec<&str> = text.split('/').collect();
    Shard {
        id: ShardId(parts[0].parse().unwrap()),
        replicas: replicas(parts[2]),
        home_region: parts[1].into(),
        epoch: 1,
    }
}

fn token_key(id: &str, secret: u8) -> TokenKey {
    TokenKey {
        id: id.parse().unwrap(),
        secret: [secret; 32],
    }
}

fn state(text: &str) -> AccountState {
    match text {
        "active" => AccountState::Active,
        "suspended" => AccountState::Suspended,
        other => panic!("no state {other}"),
    }
}

impl World {
    fn run(&mut self, line: &str) -> String {
        let words = Words::of(line);
        match self.op(&words) {
            Some(op) => self.apply(op),
            None => self.ask(&words),
        }
    }

    fn account(&mut self, name: &str) -> AccountId {
        let id = AccountId(sixteen(name));
        self.names.insert(id, name.into());
        id
    }

    fn name(&self, id: AccountId) -> &str {
        self.names.get(&id).map_or("?", String::as_str)
    }

    fn op(&mut self, words: &Words<'_>) -> Option<Op> {
        let password_hash = words.text("password").map(|text| match text.strip_prefix("raw:") {
            Some(raw) => raw.to_owned(),
            None => format!("{HASH}{text}"),
        });
        Some(match words.plain[0] {
            "init" => Op::Init {
                cluster: ClusterId(sixteen(words.named["cluster"])),
                name: words.text("name").unwrap_or("demo".into()),
                nodes: words.named["nodes"].split(',').map(node).collect(),
                shards: words.named["shards"].split(',').map(shard).collect(),
                token_key: token_key("1", 1),
            },
            "node-set" => Op::NodeSet {
                node: node(words.plain[1]),
            },
            "node-retire" => Op::NodeRetire {
                node: NodeId(words.plain[1].parse().unwrap()),
            },
            "shard-set" => Op::ShardSet {
                shard: ShardId(words.plain[1].parse().unwrap()),
                replicas: replicas(words.named["replicas"]),
                epoch: words.number("epoch").unwrap(),
            },
            "token-key" => Op::TokenKeyAdd {
                key: token_key(words.plain[1], words.number("secret").unwrap_or(1) as u8),
            },
            "create" => Op::AccountCreate {
                op_id: words.op_id(),
                account: self.account(words.plain[1]),
                address: words.plain.get(2).unwrap_or(&"").to_string(),
                password_hash,
                quota_bytes: words.number("quota").unwrap_or(1000),
                shard: words.number("shard").map(|id| ShardId(id as u32)),
                region: words.text("region"),
            },
            "set" => Op::AccountSet {
                op_id: words.op_id(),
                account: self.account(words.plain[1]),
                password_hash,
                state: words.named.get("state").map(|text| state(text)),
                quota_bytes: words.number("quota"),
            },
            "address-add" => Op::AddressAdd {
                op_id: words.op_id(),
                account: self.account(words.plain[1]),
                address: words.plain[2].into(),
                primary: words.plain.get(3) == Some(&"primary"),
            },
            "address-remove" => Op::AddressRemove {
                op_id: words.op_id(),
                account: self.account(words.plain[1]),
                address: words.plain[2].into(),
            },
            _ => return None,
        })
    }

    fn apply(&mut self, op: Op) -> String {
        let command = Command {
            time_ms: self.now_ms,
            op,
        };
        let (outcome, writes) = apply(&self.view, &command).unwrap();
        self.view.commit(&writes);
        match outcome {
            Outcome::Done => "done\n".into(),
            Outcome::Account { account, repeated } => {
                let receipt = if repeated { " (receipt)" } else { "" };
                format!("account {}{receipt}\n", self.name(account))
            }
            Outcome::Refused(refusal) => {
                assert_eq!(writes, Writes::default(), "a refusal writes nothing");
                format!("refused: {refusal}\n")
            }
        }
    }

    fn shown(&self, account: Option<Account>) -> String {
        let Some(account) = account else {
            return "nobody\n".into();
        };
        format!(
            "{} shard={} epoch={} {:?} quota={} created=+{} primary={}\n",
            self.name(account.id),
            account.shard,
            account.placement_epoch,
            account.state,
            account.quota_bytes,
            account.created_ms - EPOCH_MS,
            account.primary_address,
        )
    }

    /// Questions about the cluster, and the runner's clock; else about an account.
    fn ask(&mut self, words: &Words<'_>) -> String {
        let view = &self.view;
        let mut out = String::new();
        match words.plain[0] {
            "clock" => {
                let step: i64 = words.plain[1].parse().unwrap();
                self.now_ms = self.now_ms.checked_add_signed(step).unwrap();
            }
            "time" => writeln!(out, "+{}", read::time_ms(view).unwrap() - EPOCH_MS).unwrap(),
            "cluster" => match read::cluster(view).unwrap() {
                Some(cluster) => writeln!(out, "{}", cluster.name).unwrap(),
                None => writeln!(out, "none").unwrap(),
            },
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
            _ => out = self.ask_account(words),
        }
        out
    }

    fn ask_account(&self, words: &Words<'_>) -> String {
        let view = &self.view;
        let mut out = String::new();
        match words.plain[0] {
            "show" => {
                let id = AccountId(sixteen(words.plain[1]));
                out += &self.shown(read::account(view, id).unwrap());
                for address in read::addresses(view, id).unwrap() {
                    let primary = if address.primary { " primary" } else { "" };
                    let since = address.since_ms - EPOCH_MS;
                    writeln!(out, "  {}{primary} since=+{since}", address.address).unwrap();
                }
            }
            "history" => {
                for line in read::history(view, AccountId(sixteen(words.plain[1]))).unwrap() {
                    writeln!(out, "+{} {} {}", line.time_ms - EPOCH_MS, line.address, line.event).unwrap();
                }
            }
            "password" => {
                let hash = read::password_hash(view, AccountId(sixteen(words.plain[1]))).unwrap();
                writeln!(out, "{}", hash.as_deref().unwrap_or("none")).unwrap();
            }
            "resolve" => out += &self.shown(read::by_address(view, words.plain[1]).unwrap()),
            "domain" => writeln!(out, "{}", read::only_domain(view).unwrap().unwrap_or("none".into())).unwrap(),
            "grants" => {
                let shard = ShardId(words.plain[1].parse().unwrap());
                let after = words.number("after").unwrap_or(0);
                let max = words.number("max").unwrap_or(100) as usize;
                for grant in read::grants(view, shard, after, max).unwrap() {
                    write!(out, "{} ", grant.sequence).unwrap();
                    out += &self.shown(Some(grant.account));
                }
            }
            other => panic!("no command {other}"),
        }
        out
    }
}
