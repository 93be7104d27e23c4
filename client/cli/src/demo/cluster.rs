//! The demo's cluster: three `malled` and one `malle-gateway` as children, from configuration files to accounts that log in.
//!
//! One owner: the running demo. Other commands ask it (`control`), so a process started later has the same parent and ends with it.
//! Nothing is restarted here unasked: a node that was killed stays dead.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use malle_client::{AccountChange, Client, Config, Error, InitPlan, NewAccount, Node, NodeId, Who, fresh_op_id};
use rand::RngExt as _;
use serde_json::json;
use tokio::net::TcpStream;

use super::certificates;
use super::imap_reader::Imap;
use super::layout::{CLUSTER, DOMAIN, Layout, Memory, NodePlace, REGIONS, free_addresses};
use super::processes::{Process, beside_us};
use super::wait::{Try, until};

/// Shards of the demo.
pub const SHARDS: u32 = 8;
/// Replicas of each shard: one in each region.
const REPLICAS: u32 = 3;
/// A process opens its ports within this, also in an unoptimised build on a busy machine that replays a log.
const START_MAX: Duration = Duration::from_secs(60);
/// Nine groups elect their first leaders within this.
const INIT_MAX: Duration = Duration::from_secs(60);
/// One account is made, or one login succeeds, within this.
const ACCOUNT_MAX: Duration = Duration::from_secs(60);
/// Snapshots and bodies of a whole node travel within this.
const REPLACE_MAX: Duration = Duration::from_secs(600);
/// The gateway finishes what is in flight, nodes flush.
const STOP_MAX: Duration = Duration::from_secs(15);

/// What the flags say about it.
#[derive(Debug, Clone, Default)]
pub struct Wishes {
    /// Accounts; what is remembered, or 10, when `None`.
    pub accounts: Option<u32>,
    /// Password; what is remembered, or a new one, when `None`.
    pub password: Option<String>,
    /// Ports of the gateway; what is remembered, or free ones, when `None`.
    pub lmtp: Option<SocketAddr>,
    /// As `lmtp`.
    pub imap: Option<SocketAddr>,
    /// As `lmtp`.
    pub imaps: Option<SocketAddr>,
}

/// The running demo.
pub struct Cluster {
    layout: Layout,
    memory: Memory,
    nodes: BTreeMap<u64, Process>,
    gateway: Option<Process>,
    operator: Client,
}

impl Cluster {
    /// Starts everything, makes the cluster and its accounts where they are not there yet, and waits until each can log in.
    pub async fn start(layout: Layout, wishes: &Wishes) -> anyhow::Result<Cluster> {
        let before = layout.remembered()?;
        let new_password = before
            .as_ref()
            .is_some_and(|memory| wishes.password.as_ref().is_some_and(|p| *p != memory.password));
        let memory = plan(before, wishes)?;
        certificates::make_common(&layout)?;
        layout.remember(&memory)?;
        layout.write("gateway/gateway.toml", &gateway_config(&layout, &memory)?)?;
        layout.write("context.toml", &context_file(&layout, &memory)?)?;
        let mut nodes = BTreeMap::new();
        for place in &memory.node {
            nodes.insert(place.id, start_node(&layout, place)?);
        }
        wait_for_ports(&memory.node, &mut nodes).await?;
        let operator = operator(&layout, &memory).await?;
        let mut cluster = Cluster {
            layout,
            memory,
            nodes,
            gateway: None,
            operator,
        };
        let ready = cluster.make_ready(new_password).await;
        match ready {
            Ok(()) => Ok(cluster),
            Err(error) => {
                // The reason is the message; that stopping also failed would only hide it.
                let _ = cluster.stop().await;
                Err(error)
            }
        }
    }

    async fn make_ready(&mut self, new_password: bool) -> anyhow::Result<()> {
        self.init().await?;
        self.make_accounts(new_password).await?;
        let gateway = beside_us("malle-gateway")?;
        let config = self.layout.path("gateway/gateway.toml");
        self.gateway = Some(Process::start(
            "gateway",
            &gateway,
            &config,
            &self.layout.path("logs/gateway.log"),
        )?);
        for number in 1..=self.memory.accounts {
            self.wait_for_login(number).await?;
        }
        self.write_json()
    }

    async fn init(&mut self) -> anyhow::Result<()> {
        let plan = InitPlan {
            cluster_name: CLUSTER.to_owned(),
            nodes: self.memory.node.iter().map(client_node).collect(),
            shards: SHARDS,
            replicas: REPLICAS,
        };
        let (nodes, operator) = (&mut self.nodes, &self.operator);
        until("the cluster to be made", INIT_MAX, async || {
            all_run(nodes)?;
            match operator.cluster().init(plan.clone()).await {
                Ok(_) | Err(Error::Exists(_)) => Ok(Try::Done(())),
                Err(error) => retry_or_fail(error),
            }
        })
        .await
    }

    async fn make_accounts(&mut self, new_password: bool) -> anyhow::Result<()> {
        let directory = self.operator.directory();
        for number in 1..=self.memory.accounts {
            let address = address(number);
            let new = NewAccount {
                address: address.clone(),
                password: Some(self.memory.password.clone()),
                ..NewAccount::default()
            };
            let (nodes, op_id) = (&mut self.nodes, fresh_op_id());
            let there_already = until(&format!("the account {address}"), ACCOUNT_MAX, async || {
                all_run(nodes)?;
                match directory.account_create(new.clone(), op_id).await {
                    Ok(_) => Ok(Try::Done(false)),
                    Err(Error::Exists(_)) => Ok(Try::Done(true)),
                    Err(error) => retry_or_fail(error),
                }
            })
            .await?;
            if there_already && new_password {
                let account = directory.account_show(Who::Address(address)).await?.id;
                let change = AccountChange {
                    password: Some(self.memory.password.clone()),
                    ..AccountChange::default()
                };
                directory.account_set(account, change, fresh_op_id()).await?;
            }
        }
        Ok(())
    }

    async fn wait_for_login(&mut self, number: u32) -> anyhow::Result<()> {
        let address = address(number);
        let (imap, password) = (self.memory.imap, self.memory.password.clone());
        let (nodes, gateway) = (&mut self.nodes, &mut self.gateway);
        until(&format!("a login of {address}"), ACCOUNT_MAX, async || {
            all_run(nodes)?;
            gateway.as_mut().context("the gateway was not started")?.must_run()?;
            let tried = async {
                let mut session = Imap::login(imap, &address, &password).await?;
                session.examine("INBOX").await
            };
            match tried.await {
                Ok(_) => Ok(Try::Done(())),
                Err(error) => Ok(Try::NotYet(format!("{error:#}"))),
            }
        })
        .await
    }

    /// Starts a node that is dead.
    pub async fn start_node(&mut self, id: u64) -> anyhow::Result<()> {
        let place = self.place(id)?.clone();
        if let Some(process) = self.nodes.get_mut(&id) {
            ensure!(process.ended()?.is_some(), "node {id} runs already");
        }
        self.nodes.insert(id, start_node(&self.layout, &place)?);
        wait_for_ports(&[place], &mut self.nodes).await?;
        self.write_json()
    }

    /// Kills a node with SIGKILL.
    pub async fn kill_node(&mut self, id: u64) -> anyhow::Result<()> {
        self.place(id)?;
        let process = self
            .nodes
            .get_mut(&id)
            .with_context(|| format!("node {id} was not started"))?;
        process.kill_hard().await?;
        self.write_json()
    }

    /// Kills a node, removes its disk, starts another under a new id in the same region, and has it take the other's place; the
    /// new id.
    pub async fn wipe_and_replace_node(&mut self, old: u64) -> anyhow::Result<u64> {
        let lost = self.place(old)?.clone();
        if let Some(process) = self.nodes.get_mut(&old) {
            process.kill_hard().await?;
        }
        let disk = self.layout.path(format!("nodes/{old}"));
        match std::fs::remove_dir_all(&disk) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let free = free_addresses(2)?;
        let highest = self.memory.node.iter().map(|place| place.id).max().unwrap_or(0);
        let place = NodePlace {
            id: highest + 1,
            region: lost.region,
            client: free[0],
            peer: free[1],
        };
        // Remembered before it exists: an id that may have been used is never used again.
        self.memory.node.push(place.clone());
        self.layout.remember(&self.memory)?;
        self.nodes.insert(place.id, start_node(&self.layout, &place)?);
        wait_for_ports(std::slice::from_ref(&place), &mut self.nodes).await?;
        let patient = self.operator.with_deadline(REPLACE_MAX);
        patient.cluster().node_replace(client_node(&place), NodeId(old)).await?;
        self.nodes.remove(&old);
        self.memory.node.retain(|node| node.id != old);
        self.layout.remember(&self.memory)?;
        self.layout
            .write("context.toml", &context_file(&self.layout, &self.memory)?)?;
        self.write_json()?;
        Ok(place.id)
    }

    /// Names of processes that ended since the last call, each once; `told` remembers them.
    pub fn newly_dead(&mut self, told: &mut Vec<u32>) -> anyhow::Result<Vec<String>> {
        let mut dead = Vec::new();
        for process in self.nodes.values_mut().chain(&mut self.gateway) {
            let Some(status) = process.ended()? else { continue };
            if !told.contains(&process.pid()) {
                told.push(process.pid());
                dead.push(format!("{} ended ({status})", process.name()));
            }
        }
        if !dead.is_empty() {
            self.write_json()?;
        }
        Ok(dead)
    }

    /// Stops the gateway first, so that mails in flight still find their nodes, then the nodes.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        if let Some(gateway) = &mut self.gateway {
            gateway.stop(STOP_MAX).await?;
        }
        self.nodes.values_mut().for_each(Process::ask_to_stop);
        for node in self.nodes.values_mut() {
            node.stop(STOP_MAX).await?;
        }
        Ok(())
    }

    /// A client with the operator's certificate.
    pub fn operator(&self) -> &Client {
        &self.operator
    }

    /// What is remembered: ports, nodes, password.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Where it lives.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    fn place(&self, id: u64) -> anyhow::Result<&NodePlace> {
        let known = self.memory.node.iter().find(|place| place.id == id);
        known.with_context(|| {
            format!(
                "there is no node {id}; there are {:?}",
                self.memory.node.iter().map(|n| n.id).collect::<Vec<_>>()
            )
        })
    }

    fn write_json(&mut self) -> anyhow::Result<()> {
        let mut nodes = Vec::new();
        for place in &self.memory.node {
            let Some(process) = self.nodes.get_mut(&place.id) else {
                continue;
            };
            nodes.push(json!({
                "id": place.id,
                "region": place.region,
                "pid": process.pid(),
                "running": process.ended()?.is_none(),
                "addresses": { "client": place.client.to_string(), "peer": place.peer.to_string() },
            }));
        }
        let memory = &self.memory;
        let file = json!({
            "v": 1,
            "nodes": nodes,
            "gateway": {
                "pid": self.gateway.as_ref().map(Process::pid),
                "lmtp": memory.lmtp.to_string(),
                "imap": memory.imap.to_string(),
                "imaps": memory.imaps.to_string(),
            },
            "context": self.layout.path("context.toml"),
        });
        self.layout.write("demo.json", &format!("{file:#}\n"))
    }
}

/// The address of the `number`-th account, from 1.
pub fn address(number: u32) -> String {
    format!("u{number}@{DOMAIN}")
}

/// Remembered values, with what the flags wish instead; free ports and a new password where there is neither.
fn plan(before: Option<Memory>, wishes: &Wishes) -> anyhow::Result<Memory> {
    let mut memory = match before {
        Some(memory) => memory,
        None => {
            let free = free_addresses(3 + 2 * REGIONS.len())?;
            let node = (0..REGIONS.len()).map(|n| NodePlace {
                id: n as u64 + 1,
                region: REGIONS[n].to_owned(),
                client: free[3 + 2 * n],
                peer: free[4 + 2 * n],
            });
            Memory {
                password: new_password(),
                accounts: 10,
                lmtp: free[0],
                imap: free[1],
                imaps: free[2],
                node: node.collect(),
            }
        }
    };
    // Accounts are never taken away: the cluster keeps them.
    memory.accounts = wishes.accounts.unwrap_or(memory.accounts);
    memory.password = wishes.password.clone().unwrap_or(memory.password);
    memory.lmtp = wishes.lmtp.unwrap_or(memory.lmtp);
    memory.imap = wishes.imap.unwrap_or(memory.imap);
    memory.imaps = wishes.imaps.unwrap_or(memory.imaps);
    ensure!(
        !memory.password.is_empty() && !memory.password.contains(['\r', '\n', '\0']),
        "this is no password for IMAP"
    );
    Ok(memory)
}

/// 16 letters and digits that are not mistaken for each other.
fn new_password() -> String {
    const LETTERS: &[u8] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut random = rand::rng();
    (0..16)
        .map(|_| char::from(LETTERS[random.random_range(0..LETTERS.len())]))
        .collect()
}

fn start_node(layout: &Layout, place: &NodePlace) -> anyhow::Result<Process> {
    let id = place.id;
    certificates::make_node(layout, id)?;
    let home = format!("nodes/{id}");
    std::fs::create_dir_all(layout.path(&home))?;
    let file = format!("{home}/malled.toml");
    layout.write(&file, &node_config(layout, place)?)?;
    let log = layout.path(format!("logs/node-{id}.log"));
    Process::start(&format!("node {id}"), &beside_us("malled")?, &layout.path(&file), &log)
}

fn node_config(layout: &Layout, place: &NodePlace) -> anyhow::Result<String> {
    let id = place.id;
    let config = json!({
        "node": id,
        "region": place.region,
        "zone": "a",
        "cluster": CLUSTER,
        "data_dir": layout.path(format!("nodes/{id}/data")),
        "client_listen": place.client,
        "peer_listen": place.peer,
        "client_address": place.client.to_string(),
        "peer_address": place.peer.to_string(),
        "timing": "local",
        "tls": identity(layout, &format!("node-{id}")),
        // The node says in its status which port it got.
        "telemetry": { "listen": "127.0.0.1:0" },
    });
    Ok(toml::to_string(&config)?)
}

fn identity(layout: &Layout, name: &str) -> serde_json::Value {
    json!({
        "ca": layout.path("ca/ca.pem"),
        "cert": layout.path(format!("certs/{name}.pem")),
        "key": layout.path(format!("certs/{name}.key")),
    })
}

fn endpoints(memory: &Memory) -> Vec<String> {
    memory.node.iter().map(|place| place.client.to_string()).collect()
}

fn gateway_config(layout: &Layout, memory: &Memory) -> anyhow::Result<String> {
    let config = json!({
        "host": "localhost",
        "endpoints": endpoints(memory),
        "tls": identity(layout, "gateway"),
        "public_tls": { "cert": layout.path("gateway/public.pem"), "key": layout.path("gateway/public.key") },
        // A demo may be told to listen beyond loopback; whoever says so has been told what that means by the flag's help.
        "lmtp": { "listen": [memory.lmtp], "trusted_network": !memory.lmtp.ip().is_loopback() },
        "imap": { "listen": [memory.imap], "plaintext_login": "loopback" },
        "imaps": { "listen": [memory.imaps] },
    });
    Ok(toml::to_string(&config)?)
}

fn context_file(layout: &Layout, memory: &Memory) -> anyhow::Result<String> {
    let mut context = identity(layout, "operator");
    context["endpoints"] = json!(endpoints(memory));
    Ok(toml::to_string(&context)?)
}

async fn operator(layout: &Layout, memory: &Memory) -> anyhow::Result<Client> {
    let (cert, key) = (layout.path("certs/operator.pem"), layout.path("certs/operator.key"));
    let config = Config::from_files(&endpoints(memory), layout.path("ca/ca.pem"), cert, key)?;
    Ok(Client::connect(config).await?.with_deadline(Duration::from_secs(10)))
}

fn client_node(place: &NodePlace) -> Node {
    Node {
        id: NodeId(place.id),
        region: place.region.clone(),
        zone: "a".to_owned(),
        client_address: place.client.to_string(),
        peer_address: place.peer.to_string(),
        retired: false,
    }
}

fn all_run(nodes: &mut BTreeMap<u64, Process>) -> anyhow::Result<()> {
    nodes.values_mut().try_for_each(Process::must_run)
}

/// An error that waiting can mend is waited out.
fn retry_or_fail<T>(error: Error) -> anyhow::Result<Try<T>> {
    match error.class() {
        malle_client::Class::Retry => Ok(Try::NotYet(error.to_string())),
        _ => Err(error.into()),
    }
}

async fn wait_for_ports(places: &[NodePlace], nodes: &mut BTreeMap<u64, Process>) -> anyhow::Result<()> {
    for place in places {
        for address in [place.client, place.peer] {
            until(&format!("node {} to open {address}", place.id), START_MAX, async || {
                match nodes.get_mut(&place.id) {
                    Some(process) => process.must_run()?,
                    None => bail!("node {} was not started", place.id),
                }
                match TcpStream::connect(address).await {
                    Ok(_) => Ok(Try::Done(())),
                    Err(error) => Ok(Try::NotYet(error.to_string())),
                }
            })
            .await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> toml::Table {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn the_files_say_what_was_planned() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::open(dir.path(), false).unwrap();
        let memory = plan(
            None,
            &Wishes {
                accounts: Some(3),
                ..Wishes::default()
            },
        )
        .unwrap();
        let node = parsed(&node_config(&layout, &memory.node[1]).unwrap());
        assert_eq!(node["node"].as_integer(), Some(2));
        assert_eq!(node["region"].as_str(), Some("centre"));
        assert_eq!(
            node["client_listen"].as_str(),
            Some(memory.node[1].client.to_string().as_str())
        );
        assert!(node["tls"]["key"].as_str().unwrap().ends_with("certs/node-2.key"));
        let gateway = parsed(&gateway_config(&layout, &memory).unwrap());
        assert_eq!(gateway["endpoints"].as_array().unwrap().len(), 3);
        assert_eq!(gateway["lmtp"]["trusted_network"].as_bool(), Some(false));
        let context = parsed(&context_file(&layout, &memory).unwrap());
        assert!(context["ca"].as_str().unwrap().ends_with("ca/ca.pem"));
    }

    #[test]
    fn what_is_remembered_stays_unless_a_flag_says_otherwise() {
        let first = plan(None, &Wishes::default()).unwrap();
        assert_eq!((first.accounts, first.password.len(), first.node.len()), (10, 16, 3));
        assert_eq!(plan(Some(first.clone()), &Wishes::default()).unwrap(), first);
        let imap: SocketAddr = "127.0.0.1:1143".parse().unwrap();
        let second = plan(
            Some(first.clone()),
            &Wishes {
                imap: Some(imap),
                ..Wishes::default()
            },
        )
        .unwrap();
        assert_eq!(second, Memory { imap, ..first });
        assert!(
            plan(
                None,
                &Wishes {
                    password: Some("a\nb".into()),
                    ..Wishes::default()
                }
            )
            .is_err()
        );
    }
}
